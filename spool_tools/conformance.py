"""Asks a server, with events of its own, each thing that it has to do for events to
arrive once, and prints what holds. The key comes from TELEMETRY_API_KEY.

examples:
  spool-tools conformance https://collect.example/v1
  spool-tools conformance --format otlp-json http://127.0.0.1:4318/v1/logs
exit codes: 0 all holds that could be asked; 1 something does not hold;
2 wrong usage
"""

from __future__ import annotations

import argparse
import http.client
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import msgspec

from spool_tools.target import WrongUsageError
from spool_tools.wording import printable
from telemetry.errors import ConfigError
from telemetry.identity import EventIds
from telemetry.switches import trimmed
from telemetry.wire.batch import request_of
from telemetry.wire.endpoint import parse_endpoint
from telemetry.wire.formats import FORMATS, Format
from telemetry.wire.request import RequestForm
from telemetry.wire.transport import Transport
from telemetry.wire.verdict import Action, Failure, Outcome, Verdict, judge


_BATCH_EVENTS, _BATCH_BYTES, _EVENT_BYTES = 500, 512 * 1024, 256 * 1024
# More than any server of ours takes, less than a person waits for.
_TOO_BIG_BYTES = 16 * 1024 * 1024
_REQUEST_TIMEOUT_S = 30.0
# A server that asks for longer is not asked again here.
_PATIENCE_S = 30.0
_TRIES = 4
_NOT_NOW = (429, 503)
# Formats that carry an event as it stands, so one can be sent that is none.
_AS_IT_STANDS = ("records", "ndjson", "clickhouse")
_MEANS = {
    Action.ACCEPTED: "accepted",
    Action.SPLIT: "a flusher sends it again in halves",
    Action.WAIT: "a flusher waits",
    Action.PAUSE: "a flusher pauses for hours",
}
_SAID_CHARS_MAX = 120
_AFTERWARDS = """Its events of the type "conformance" can be deleted now. What no client can see: whether
they were stored before the answer. Kill the server right after one, and look."""
_MARKS = {True: "holds", False: "FAILS", None: "not known"}

Finding = tuple[bool | None, str]
"""Whether something holds (None: it could not be asked), and what was said."""


class Line(msgspec.Struct, frozen=True):
    """What came of one question. `holds` is null if it could not be asked."""

    question: str
    holds: bool | None
    said: str


class _Said(NamedTuple):
    """An answer, and what a flusher makes of it."""

    outcome: Outcome
    verdict: Verdict

    @property
    def status(self) -> int:
        """0 if there was no answer."""
        return 0 if isinstance(self.outcome, Failure) else self.outcome.status

    @property
    def is_taken(self) -> bool:
        """Whether all of the batch was accepted."""
        return self.verdict.action is Action.ACCEPTED and not self.verdict.rejected

    @property
    def text(self) -> str:
        said = self.verdict.detail or self.verdict.reason
        said = f"{said[:_SAID_CHARS_MAX]}…" if len(said) > _SAID_CHARS_MAX else said
        return f"{said} ({_MEANS[self.verdict.action]})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", help="the endpoint, as a program would be given it")
    add("--format", choices=sorted(FORMATS), default="records", help="what to post")
    add(
        "--header",
        metavar="NAME",
        help="the header the key goes in (default: TELEMETRY_HEADER, else x-api-key)",
    )
    add(
        "--burst",
        type=int,
        default=100,
        metavar="N",
        help="requests in a row to see what is said when there are too many "
        "(default: %(default)s; 0: none)",
    )
    add("--json", action="store_true", help="print a JSON line for each question")


def run(args: argparse.Namespace) -> int:
    header = args.header or trimmed(os.environ.get("TELEMETRY_HEADER", ""))
    key = trimmed(os.environ.get("TELEMETRY_API_KEY", ""))
    try:
        asker = Asker(args.url, FORMATS[args.format], header or "x-api-key", key)
    except ConfigError as error:
        raise WrongUsageError(str(error)) from error
    counts: Counter[bool | None] = Counter()
    with closing(asker):
        for line in asker.ask(burst=args.burst):
            counts[line.holds] += 1
            if args.json:
                print(msgspec.json.encode(line).decode(), flush=True)
                continue
            said = f"{_MARKS[line.holds]:<11}{line.question:<26}{printable(line.said)}"
            print(said, flush=True)
    if not args.json:
        print(f"\n{counts[True]} hold, {counts[False]} fail, {counts[None]} not known.")
        if counts[True]:
            print(_AFTERWARDS)
    return 1 if counts[False] else 0


class Asker:
    """One server under questions, posted to with the client that programs use.

    Raises ConfigError for a URL or key of no use.
    """

    def __init__(self, endpoint: str, form: Format, header: str, key: str) -> None:
        self._form = form
        self._key = key
        self._url = parse_endpoint(endpoint)
        form_of: dict[str, Any] = {"header": header, "form": form}
        form_of["user_agent"] = "spool-tools-conformance"
        self._raw = RequestForm(url=self._url, api_key=key, gzip=False, **form_of)

        def transport(key: str, *, gzip: bool) -> Transport:
            return Transport(
                endpoint=endpoint,
                api_key=key,
                gzip=gzip,
                connect_timeout_s=10.0,
                read_timeout_s=_REQUEST_TIMEOUT_S,
                request_timeout_s=_REQUEST_TIMEOUT_S,
                reply_bytes_max=256 * 1024,
                environment=os.environ,
                **form_of,
            )

        self._plain = transport(key, gzip=False)
        self._gzipped = transport(key, gzip=True)
        self._wrong = transport(f"{key}-wrong", gzip=False)
        self._ids = EventIds()
        self._said: list[_Said] = []

    def close(self) -> None:
        for transport in (self._plain, self._gzipped, self._wrong):
            transport.close()

    def ask(self, *, burst: int) -> Iterator[Line]:
        """What holds, a line a question as it is answered; one if there is no answer."""
        questions: Mapping[str, Callable[[], Finding]] = {
            "one event": lambda: self._accepts(self._events(1)),
            "a whole batch": self._whole_batch,
            "a large event": lambda: self._accepts(self._events(1, each=_EVENT_BYTES)),
            "an empty batch": self._empty_batch,
            "the same batch twice": self._twice,
            "an answer that was lost": self._lost_answer,
            "one bad event": self._bad_event,
            "no batch at all": self._no_batch,
            "a batch too big": self._too_big,
            "gzip": self._gzip,
            "a wrong key": self._wrong_key,
            "not now": lambda: self._not_now(burst),
            "no redirect": lambda: self._none(lambda said: said.status // 100 == 3),
            "no page of HTML": lambda: self._none(
                lambda said: said.verdict.reason == "html"
            ),
        }
        for question, asked in questions.items():
            holds, said = asked()
            if not any(each.status for each in self._said):
                yield Line(question, False, f"{said}; nothing else was asked")
                return
            yield Line(question, holds, said)

    def _accepts(self, events: Sequence[bytes]) -> Finding:
        said = self._post(events)
        return said.is_taken, said.text

    def _whole_batch(self) -> Finding:
        each = _BATCH_BYTES // _BATCH_EVENTS
        return self._accepts(self._events(_BATCH_EVENTS, each=each))

    def _empty_batch(self) -> Finding:
        said = self._post([])
        return said.is_taken or said.verdict.action is Action.SPLIT, said.text

    def _twice(self) -> Finding:
        events = self._events(3)
        first, second = self._post(events), self._post(events)
        said = f"first {first.text}; then {second.text}"
        return first.is_taken and second.is_taken, said

    def _lost_answer(self) -> Finding:
        events = self._events(3)
        self._post_raw(self._form.body_of(events), reads=False)
        again = self._post(events)
        return again.is_taken, f"the retry: {again.text}"

    def _bad_event(self) -> Finding:
        if self._form.name not in _AS_IT_STANDS:
            return None, f"{self._form.name} cannot carry one"
        good, bad = self._events(2)
        event = msgspec.json.decode(bad)
        broken = msgspec.json.encode(event | {"event_timestamp": "soon"})
        said = self._post([good, broken])
        if said.verdict.action is Action.SPLIT:
            return True, said.text
        named = {each.event_id for each in said.verdict.rejected}
        if said.verdict.action is not Action.ACCEPTED:
            return False, f"{said.text}; 400, or a 2xx that names it in `rejected`"
        kept = "named in `rejected`" if named else "taken as it stands"
        return named <= {event["properties"]["event_id"]}, f"{said.text}, {kept}"

    def _no_batch(self) -> Finding:
        said = self._post([], body=b'{"no batch":')
        return _asked_for(said, 400, said.verdict.action is Action.SPLIT)

    def _too_big(self) -> Finding:
        said = self._post(self._events(32, each=_TOO_BIG_BYTES // 32))
        holds = said.verdict.action in {Action.ACCEPTED, Action.SPLIT}
        return _asked_for(said, 413, holds)

    def _gzip(self) -> Finding:
        said = self._post(self._events(3), by=self._gzipped)
        damaged = self._post_raw(b"no gzip", {"Content-Encoding": "gzip"})
        if 200 <= damaged <= 299:
            return False, f"{damaged} to what is no gzip, so it cannot have been read"
        if said.is_taken:
            return True, said.text
        # A format whose receivers take it sends it unless the program says otherwise.
        holds = said.status in {400, 415} and not self._form.gzip
        return holds, f"{said.text}; programs need Config(gzip=False)"

    def _wrong_key(self) -> Finding:
        if not self._key:
            return None, "TELEMETRY_API_KEY is not set"
        said = self._post(self._events(1), by=self._wrong)
        return _asked_for(said, 401, said.status in {401, 403})

    def _not_now(self, burst: int) -> Finding:
        for _ in range(burst):
            said = self._post(self._events(1), tries=1)
            if said.status in _NOT_NOW:
                break
        seen = [each for each in self._said if each.status in _NOT_NOW]
        if not seen:
            return None, f"it never said so in {len(self._said)} requests"
        for each in seen:
            if each.verdict.retry_after_s is None:
                effect = "all programs come again at once"
                return False, f"{each.status} without Retry-After: {effect}"
        status, verdict = seen[0].status, seen[0].verdict
        return True, f"{status}, Retry-After {verdict.retry_after_s:.0f}"

    def _none(self, unwanted: Callable[[_Said], bool]) -> Finding:
        """That no answer so far was one of these."""
        found = [each.text for each in self._said if unwanted(each)]
        return not found, (found or ["none came"])[0]

    def _events(self, count: int, *, each: int = 0) -> list[bytes]:
        """So many events, as they would be recorded, each of so many bytes."""
        now_ms = time.time_ns() // 1_000_000
        found = []
        for _ in range(count):
            properties = {
                "note": "to be thrown away",
                "os": "none",
                "user_uuid": "00000000-0000-4000-8000-000000000000",
                "version": "0",
                "event_id": self._ids.new(now_ms),
            }
            event = {
                "event": "conformance",
                "event_timestamp": now_ms,
                "source": "spool-tools",
                "properties": properties,
            }
            # In the batch there is a comma as well.
            missing = each - len(msgspec.json.encode(event)) - len(',"fill":"",')
            if missing > 0:
                event["properties"] = {"fill": "x" * missing, **properties}
            found.append(msgspec.json.encode(event))
        return found

    def _post(
        self,
        events: Sequence[bytes],
        *,
        body: bytes | None = None,
        by: Transport | None = None,
        tries: int = _TRIES,
    ) -> _Said:
        """What came of a batch in the end; a server that says "not now" is waited for."""
        request = request_of(self._form.body_of(events) if body is None else body)
        # A segment for each batch: what is refused here leaves no gap.
        numbers = f"first=0; last={len(events) - 1}"
        spool_range = f"conformance-{request.key}; {numbers}" if events else ""
        while True:
            outcome = (by or self._plain).post(
                request.body,
                key=request.key,
                timeout_s=_REQUEST_TIMEOUT_S,
                spool_range=spool_range,
            )
            verdict = judge(
                outcome, now=time.time(), form=self._form, posted=request.body
            )
            said = _Said(outcome, verdict)
            self._said.append(said)
            tries -= 1
            wait_s = verdict.retry_after_s or 1.0
            if said.status not in _NOT_NOW or tries <= 0 or wait_s > _PATIENCE_S:
                return said
            time.sleep(wait_s)

    def _post_raw(
        self, body: bytes, more: Mapping[str, str] | None = None, *, reads: bool = True
    ) -> int:
        """The status of a request that no client of ours would make; 0: there is none."""
        key = request_of(body).key
        url = self._raw.url(key)
        is_tls = self._url.scheme == "https"
        made = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
        connection = made(url.host, url.port, timeout=_REQUEST_TIMEOUT_S)
        with closing(connection):
            try:
                headers = self._raw.headers(key, "") | dict(more or {})
                connection.request("POST", url.target, self._raw.coded(body), headers)
                if reads:
                    return connection.getresponse().status
                # The answer is there, so the server is done; it is left unread.
                select.select([connection.sock], [], [], _REQUEST_TIMEOUT_S)
            except (OSError, http.client.HTTPException):
                pass
        return 0


def _asked_for(said: _Said, status: int, holds: bool) -> Finding:
    return holds, said.text if holds else f"{said.text}; {status} is asked for"

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import msgspec

from spool_tools.target import WrongUsageError
from spool_tools.wording import cut, many, printable
from telemetry.config import Config
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
_SAID_COLUMNS_MAX = 120
_AFTERWARDS = """Its events of the type "conformance" can be deleted now. What no client can see: whether
they were stored before the answer. Kill the server right after one, and look."""
_MARKS = {True: "holds", False: "FAILS", None: "not known"}


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
        # 0: there was no answer.
        return 0 if isinstance(self.outcome, Failure) else self.outcome.status

    @property
    def is_taken(self) -> bool:
        return self.verdict.action is Action.ACCEPTED and not self.verdict.rejected

    @property
    def text(self) -> str:
        said = cut(self.verdict.detail or self.verdict.reason, _SAID_COLUMNS_MAX)
        means = _MEANS[self.verdict.action]
        if rejected := self.verdict.rejected:
            reason = cut(rejected[0].reason or "no reason", _SAID_COLUMNS_MAX)
            means += f", but for {many(len(rejected), 'event')} that it names: {reason}"
        return f"{said} ({means})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", help="the endpoint, as a program would be given it")
    add("--format", choices=sorted(FORMATS), default="records", help="what to post")
    text = "the header the key goes in (default: TELEMETRY_HEADER, else x-api-key)"
    add("--header", metavar="NAME", help=text)
    text = "requests in a row to see what is said when there are too many (default: "
    text += "%(default)s; 0: none)"
    add("--burst", type=int, default=100, metavar="N", help=text)
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
                reply_bytes_max=Config(app="conformance").reply_bytes_max,
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
        for lines in (self._takes(), self._refuses(), self._says_when(burst)):
            for line in lines:
                if not any(each.status for each in self._said):
                    yield Line(
                        line.question, False, f"{line.said}; nothing else was asked"
                    )
                    return
                yield line

    def _takes(self) -> Iterator[Line]:
        """What has to be accepted."""
        for question, count, each in (
            ("one event", 1, 0),
            ("a whole batch", _BATCH_EVENTS, _BATCH_BYTES // _BATCH_EVENTS),
            ("a large event", 1, _EVENT_BYTES),
        ):
            said = self._post(self._events(count, each=each))
            yield Line(question, said.is_taken, said.text)
        said = self._post([])
        holds = said.is_taken or said.verdict.action is Action.SPLIT
        yield Line("an empty batch", holds, said.text)
        events = self._events(3)
        first, second = self._post(events), self._post(events)
        both = f"first {first.text}; then {second.text}"
        yield Line("the same batch twice", first.is_taken and second.is_taken, both)
        events = self._events(3)
        self._post_raw(self._form.body_of(events), reads=False)
        again = self._post(events)
        yield Line(
            "an answer that was lost", again.is_taken, f"the retry: {again.text}"
        )

    def _refuses(self) -> Iterator[Line]:
        """What has to be refused, or may be, in a way that a flusher understands."""
        yield self._bad_event()
        said = self._post([], body=b'{"no batch":')
        holds = said.verdict.action is Action.SPLIT
        yield _asked_for("no batch at all", said, 400, holds)
        said = self._post(self._events(32, each=_TOO_BIG_BYTES // 32))
        holds = said.verdict.action in {Action.ACCEPTED, Action.SPLIT}
        yield _asked_for("a batch too big", said, 413, holds)
        yield self._gzip()
        if self._key:
            said = self._post(self._events(1), by=self._wrong)
            yield _asked_for("a wrong key", said, 401, said.status in {401, 403})
        else:
            yield Line("a wrong key", None, "TELEMETRY_API_KEY is not set")

    def _bad_event(self) -> Line:
        question = "one bad event"
        if self._form.name not in _AS_IT_STANDS:
            return Line(question, None, f"{self._form.name} cannot carry one")
        good, bad = self._events(2)
        event = msgspec.json.decode(bad)
        broken = msgspec.json.encode(event | {"event_timestamp": "soon"})
        said = self._post([good, broken])
        if said.verdict.action is Action.SPLIT:
            return Line(question, True, said.text)
        if said.verdict.action is not Action.ACCEPTED:
            needed = "400, or a 2xx that names it in `rejected`"
            return Line(question, False, f"{said.text}; {needed}")
        named = {each.event_id for each in said.verdict.rejected}
        kept = "named in `rejected`" if named else "taken as it stands"
        holds = named <= {event["properties"]["event_id"]}
        return Line(question, holds, f"{said.text}, {kept}")

    def _gzip(self) -> Line:
        said = self._post(self._events(3), by=self._gzipped)
        damaged = self._post_raw(b"no gzip", {"Content-Encoding": "gzip"})
        if 200 <= damaged <= 299:
            unread = f"{damaged} to what is no gzip, so it cannot have been read"
            return Line("gzip", False, unread)
        if said.verdict.action is Action.ACCEPTED:
            return Line("gzip", True, said.text)
        if not said.status:
            return Line("gzip", None, said.text)
        # A format whose receivers take it sends it unless the program says otherwise.
        holds = said.status in {400, 415} and not self._form.gzip
        return Line("gzip", holds, f"{said.text}; programs need Config(gzip=False)")

    def _says_when(self, burst: int) -> Iterator[Line]:
        """How it answers where there is too much, and what none of its answers was."""
        for _ in range(burst):
            if self._post(self._events(1), tries=1).status in _NOT_NOW:
                break
        seen = [each for each in self._said if each.status in _NOT_NOW]
        silent = [each.status for each in seen if each.verdict.retry_after_s is None]
        if not seen:
            never = f"it never said so in {len(self._said)} requests"
            yield Line("not now", None, never)
        elif silent:
            effect = "all programs come again at once"
            yield Line("not now", False, f"{silent[0]} without Retry-After: {effect}")
        else:
            wait_s = seen[0].verdict.retry_after_s
            yield Line("not now", True, f"{seen[0].status}, Retry-After {wait_s:.0f}")
        redirects = [each.text for each in self._said if each.status // 100 == 3]
        yield Line("no redirect", not redirects, [*redirects, "none came"][0])
        pages = [each.text for each in self._said if each.verdict.reason == "html"]
        yield Line("no page of HTML", not pages, [*pages, "none came"][0])

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


def _asked_for(question: str, said: _Said, status: int, holds: bool) -> Line:
    text = said.text if holds else f"{said.text}; {status} is asked for"
    return Line(question, holds, text)

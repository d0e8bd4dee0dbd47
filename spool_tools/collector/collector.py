"""The loopback collector: what a request is answered, and what is stored of it before.

    with Collector("collected.db") as collector:
        collector.url                                  # the endpoint to configure
        collector.faults = Faults(status=503, times=2)
        collector.wait(events=500, timeout_s=10)
        collector.events()

Rules:
- A 2xx that tells the truth means: the events it accepted, and those it knew
  already, are committed. What cannot be stored is answered 503, and is not stored.
- Asked for is `POST` of a body that `formats.py` reads, gzip or plain. Rejected events
  are not stored, the others of their batch are. Else the answer says why, as the
  format's receiver would: 400 no such body, 401 key wrong or missing, 403 sent by a web
  page (no program sends `Origin`, every browser does; a page may not fill a database on
  loopback), 404 another path, 405 another method, 413 too big, 415 another coding.
- Faults on request are met only by requests that pass all but the body's own check.
- The key is compared in constant time, and kept nowhere.
- `GET /gaps` answers which numbers of which segment it never saw, by the X-Spool-Range
  of what was stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from spool_tools.collector.formats import (
    POSTHOG,
    Batch,
    Format,
    checked,
    format_of,
    inflate,
    key_in,
)
from spool_tools.collector.misbehaviour import BEHAVES, Faults, Misbehaviour
from spool_tools.collector.store import RequestRow, Store, StoreError
from spool_tools.server import BODY_BYTES_MAX, Answer, Refusal, Request, Server
from spool_tools.wording import printable


# The path of the service that the pipeline's ancestor talked to.
DEFAULT_PATH = "/events/v1/track"
GAPS_PATH = "/gaps"
# What is kept of a path or a header: no name or key is longer.
_SHOWN_CHARACTERS_MAX = 500
_SPOOL_RANGE = re.compile(
    r"([!-:<-~]{1,200}) *; *first=([0-9]{1,10}) *; *last=([0-9]{1,10})"
)
_HTML = b"""<!DOCTYPE html>
<html><head><title>Sign in to the network</title></head>
<body><h1>Welcome</h1><p>Sign in to use this network.</p></body></html>
"""


class Collector(AbstractContextManager["Collector"]):
    """One listening socket and one database, from construction to `close`.

    `database` is a file (made where there is none, continued where there is one) or
    `:memory:`. `port` 0 takes a free one. `path` is the only one served (None: any).
    `key` is asked for in the header `header` (None: no key is asked for). `on_request`
    gets every request, from a connection's thread, before its answer leaves (with `id`
    0: it could not be stored); it must not raise.

    Raises `StoreError` where the database cannot be used, OSError or UnicodeError where
    the address cannot. Reading raises `StoreError` after `close`; the file can then be
    read with `Store`.
    """

    def __init__(
        self,
        database: str = ":memory:",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | None = None,
        key: str | None = None,
        header: str = "x-api-key",
        faults: Faults | None = None,
        body_bytes_max: int = BODY_BYTES_MAX,
        on_request: Callable[[RequestRow], None] | None = None,
    ) -> None:
        self._path = path
        self._key = None if key is None else key.encode()
        self._header = header.lower()
        self._misbehaviour = Misbehaviour(faults or Faults())
        self._body_bytes_max = body_bytes_max
        self._on_request = on_request
        self._changed = threading.Condition()
        self._requests = 0
        self._store = Store(database)
        self.count = self._store.count
        self.texts = self._store.texts
        self.copies = self._store.copies
        self.requests = self._store.requests
        self.gaps = self._store.gaps
        try:
            self._events = self.count()
            self._server = Server(
                host, port, take=self._take, body_bytes_max=body_bytes_max
            )
        except (OSError, UnicodeError, StoreError):
            self._store.close()
            raise
        self.address = self._server.address

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The endpoint to configure; for a wildcard address, its loopback form."""
        host, port = self.address
        # Compared, not bound to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        named = f"[{host}]" if ":" in host else host
        return f"http://{named}:{port}{self._path or DEFAULT_PATH}"

    @property
    def faults(self) -> Faults:
        """What goes wrong from the next request on; setting it starts counts anew."""
        return self._misbehaviour.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._misbehaviour = Misbehaviour(faults)

    def wait(
        self, *, events: int = 0, requests: int = 0, timeout_s: float = 10.0
    ) -> bool:
        """Whether, within the time, so many distinct events are stored (those that the
        file held before included) and so many requests were since it began."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._events >= events and self._requests >= requests,
                timeout=timeout_s,
            )

    def events(self) -> list[dict[str, Any]]:
        """Every event, decoded, in the order of arrival."""
        return [msgspec.json.decode(text) for text in self.texts()]

    def close(self) -> None:
        """Lets the answers under way leave, hangs up, closes the file. Twice is fine."""
        self._server.close()
        self._store.close()

    def _take(self, request: Request) -> Answer:
        """The answer to a request; what it accepts is committed by now."""
        received_ms = time.time_ns() // 1_000_000
        faults, plan, form = self.faults, BEHAVES, format_of(request)
        body, batch, refusal = request.body, Batch(), None
        coding = request.headers.get("content-encoding", "")
        try:
            self._let_in(request, form)
            if request.method == "GET":
                return Answer(body=msgspec.json.encode({"segments": self.gaps()}))
            plan = self._misbehaviour.plan()
            body = inflate(body, coding, bytes_max=self._body_bytes_max)
            if plan.is_stored:
                batch = self._batch(form, body, faults.reject)
        except Refusal as exc:
            refusal = exc
        except StoreError as exc:
            return form.refused(Refusal(503, exc.problem))
        # Another 2xx takes the place of our 200, never of a refusal.
        is_lie = plan.html or plan.is_error
        status = refusal.status if refusal and not is_lie else plan.status or 200
        reasons = [refusal] if refusal else batch.rejected
        row = RequestRow(
            received_ms=received_ms,
            method=_kept(request.method),
            path=_kept(request.target),
            idempotency_key=_kept(request.headers.get("idempotency-key", "")),
            user_agent=_kept(request.headers.get("user-agent", "")),
            coding=_kept(coding),
            wire_bytes=len(request.body),
            body_bytes=len(body),
            # Of a body that was not read whole there is no hash.
            sha256="" if request.refusal else hashlib.sha256(body).hexdigest(),
            records=len(batch.rows) + len(batch.rejected),
            rejected=len(batch.rejected),
            status=None if plan.delivery in {"hang", "reset"} else status,
            fault=plan.fault,
            reason=reasons[0].reason if reasons else "",
            format=form.name,
        )
        try:
            row = self._store.record(
                row, batch.rows, _ranges(request.headers.get("x-spool-range", ""))
            )
        except StoreError as exc:
            plan, status = BEHAVES, 503
            refusal = Refusal(status, f"not stored: {exc.problem}")
            row = msgspec.structs.replace(row, status=status, reason=refusal.reason)
        with self._changed:
            if row.id:
                self._requests += 1
                self._events += row.accepted
                self._changed.notify_all()
        if self._on_request is not None:
            self._on_request(row)
        truth = form.refused(refusal) if refusal else form.answer(row, batch)
        return _answer(plan, status, faults, form=form, truth=truth)

    def _let_in(self, request: Request, form: Format) -> None:
        """Raises `Refusal` for a request that may not send, whatever its body is."""
        if request.refusal is not None:
            raise request.refusal
        path, headers = _path(request.target), request.headers
        if (request.method, path) != ("GET", GAPS_PATH):
            if self._path not in {None, path}:
                raise Refusal(404, f"only {self._path} is served")
            if request.method != "POST":
                raise Refusal(405, f"only POST is served, and GET of {GAPS_PATH}")
        if "origin" in headers:
            raise Refusal(403, "web pages may not send events")
        given = headers.get(form.key_header) or headers.get(self._header, "")
        # PostHog's stands in the body.
        if form is not POSTHOG and not self._is_key(given):
            raise Refusal(401, f"the header {self._header} does not hold the key")

    def _batch(self, form: Format, body: bytes, reject: tuple[str, ...]) -> Batch:
        events = form.events_of(body)
        if form is POSTHOG and not self._is_key(key_in(body)):
            raise Refusal(401, "the body's api_key is another key")
        batch = checked(events, reject=reject)
        if form.is_whole and batch.rejected:
            raise Refusal(400, batch.rejected[0].reason)
        return batch

    def _is_key(self, given: str) -> bool:
        return self._key is None or hmac.compare_digest(given.encode(), self._key)


def _answer(
    plan: Faults, status: int, faults: Faults, *, form: Format, truth: Answer
) -> Answer:
    if plan.html:
        answer = Answer(content_type="text/html", body=_HTML)
    elif plan.is_error:
        said = f"misbehaving on request: {plan.fault}"
        answer = form.refused(Refusal(status, said))
    else:
        answer = truth
    headers = [*answer.headers]
    if plan.is_error and faults.retry_after is not None:
        headers.append(("Retry-After", faults.retry_after))
    if status == 405:
        headers.append(("Allow", "POST"))
    return msgspec.structs.replace(
        answer,
        status=status,
        headers=tuple(headers),
        delivery=plan.delivery,
        bytes_per_s=faults.bytes_per_s,
    )


def _ranges(text: str) -> list[tuple[str, int, int]]:
    """What `X-Spool-Range` lists; nothing where it is malformed."""
    found = [_SPOOL_RANGE.fullmatch(each.strip()) for each in text.split(",")]
    ranges = [(each[1], int(each[2]), int(each[3])) for each in found if each]
    return [each for each in ranges if each[1] <= each[2]]


def _path(target: str) -> str:
    """The path of a request's target, which a proxy's client sends as a whole URL."""
    if not target.startswith("/"):
        _host, slash, rest = target.partition("://")[2].partition("/")
        target = slash + rest
    return target.partition("?")[0]


def _kept(text: str) -> str:
    return printable(text)[:_SHOWN_CHARACTERS_MAX]

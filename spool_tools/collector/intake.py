"""What one request is answered, and what is stored of it before.

Rules:
- A 2xx that tells the truth means: the events it accepted, and those it knew
  already, are committed. What cannot be stored is answered 503, and is not stored.
- What is asked for is `POST` of `{"records":[event, ...]}`, gzip or plain. The answer
  is `{"accepted":n,"duplicates":m,"rejected":[{"event_id","reason","index"}]}`;
  rejected events are not stored, the others of their batch are. Else
  `{"error":reason}`: 400 no such body, 401 key wrong or missing, 403 sent by a web
  page (no program sends `Origin`, every browser does; a page may not fill a database
  on loopback), 404 another path, 405 another method, 413 too big, 415 another coding.
- Faults on request are met only by requests that pass all but the body's own check.
- The key is compared in constant time, and kept nowhere.

It opens no socket. Any thread may call it.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING

import msgspec

from spool_tools.collector.body import Batch, inflate, read_batch
from spool_tools.collector.misbehaviour import BEHAVES, Misbehaviour, Plan
from spool_tools.collector.server import Answer, Refusal, Request, refused, shown
from spool_tools.collector.store import RequestRow, Store, StoreError


if TYPE_CHECKING:
    from collections.abc import Callable

# What is kept of a path or a header: nobody's name or key is longer.
_SHOWN_CHARACTERS_MAX = 500
_HTML = b"""<!DOCTYPE html>
<html><head><title>Sign in to the network</title></head>
<body><h1>Welcome</h1><p>Sign in to use this network.</p></body></html>
"""
_EMPTY = Batch()


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to let in."""

    path: str | None = None
    """The only path served; None: any."""
    key: bytes | None = None
    """None: none is asked for."""
    header: str = "x-api-key"
    """Where the key stands; lower case."""

    def refusal(self, request: Request) -> Refusal | None:
        """Why the request is not let in; None: it is."""
        if self.path is not None and _path(request.target) != self.path:
            return Refusal(404, f"only {self.path} is served")
        if request.method != "POST":
            return Refusal(405, "only POST is served")
        if "origin" in request.headers:
            return Refusal(403, "web pages may not send events")
        given = request.headers.get(self.header, "").encode()
        if self.key is not None and not hmac.compare_digest(given, self.key):
            return Refusal(401, f"the header {self.header} does not hold the key")
        return None


class Intake:
    """Takes requests into `store`.

    `on_request` is told each request once it is stored, before its answer leaves, and
    (with `id` 0) each that could not be stored; it must not raise. `misbehaviour` may
    be replaced at any time.
    """

    def __init__(
        self,
        store: Store,
        *,
        gate: Gate,
        misbehaviour: Misbehaviour,
        body_bytes_max: int,
        on_request: Callable[[RequestRow], None],
    ) -> None:
        self.misbehaviour = misbehaviour
        self._store = store
        self._gate = gate
        self._body_bytes_max = body_bytes_max
        self._on_request = on_request

    def take(self, request: Request) -> Answer:
        """The answer to a request; what it accepts is committed by now."""
        received_ms = time.time_ns() // 1_000_000
        misbehaviour = self.misbehaviour
        refusal = request.refusal or self._gate.refusal(request)
        plan, body, batch = BEHAVES, request.body, _EMPTY
        coding = request.headers.get("content-encoding", "")
        if refusal is None:
            plan = misbehaviour.plan()
            try:
                body = inflate(body, coding, bytes_max=self._body_bytes_max)
                if plan.stores:
                    batch = read_batch(body, reject=misbehaviour.faults.reject)
            except Refusal as exc:
                refusal = exc
        status = _status(plan, refusal)
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
            status=None if plan.delivery in ("hang", "reset") else status,
            fault=plan.fault,
            reason=refusal.reason
            if refusal
            else (batch.rejected[0].reason if batch.rejected else ""),
        )
        try:
            row = self._store.record(row, batch)
        except StoreError as exc:
            reason = f"not stored: {exc.problem}"
            self._on_request(
                msgspec.structs.replace(row, status=503, reason=shown(reason))
            )
            return refused(Refusal(503, reason))
        self._on_request(row)
        answer = _answer(plan, status, refusal, row, batch)
        faults = misbehaviour.faults
        asks_to_wait = plan.status is not None and not 200 <= plan.status <= 299
        if faults.retry_after is not None and asks_to_wait:
            headers = (*answer.headers, ("Retry-After", faults.retry_after))
            answer = msgspec.structs.replace(answer, headers=headers)
        return msgspec.structs.replace(
            answer, delivery=plan.delivery, bytes_per_s=faults.bytes_per_s
        )


def _status(plan: Plan, refusal: Refusal | None) -> int:
    """What to answer. Another 2xx takes the place of our 200, never of a refusal."""
    truth = refusal.status if refusal else 200
    if plan.status is None:
        return truth
    if refusal and not plan.html and 200 <= plan.status <= 299:
        return truth
    return plan.status


def _answer(
    plan: Plan, status: int, refusal: Refusal | None, row: RequestRow, batch: Batch
) -> Answer:
    if plan.html:
        return Answer(status=status, content_type="text/html", body=_HTML)
    if plan.status is not None and not 200 <= plan.status <= 299:
        return refused(Refusal(status, f"misbehaving on request: {plan.fault}"))
    if refusal is not None:
        answer = refused(refusal)
        if refusal.status == 405:
            return msgspec.structs.replace(answer, headers=(("Allow", "POST"),))
        return answer
    told = {
        "accepted": row.accepted,
        "duplicates": row.duplicates,
        "rejected": batch.rejected,
    }
    return Answer(status=status, body=msgspec.json.encode(told))


def _path(target: str) -> str:
    """The path of a request's target, which a proxy's client sends as a whole URL."""
    if not target.startswith("/"):
        _scheme, _mark, rest = target.partition("://")
        _host, slash, rest = rest.partition("/")
        target = slash + rest
    return target.partition("?")[0]


def _kept(text: str) -> str:
    return shown(text)[:_SHOWN_CHARACTERS_MAX]

"""Which request the collector treats badly, and how: the faults on request. Pure.

Rules:
- `times` and `fail_rate` choose which requests meet the fault; the choice is one
  a request, in the order in which requests were read, and `seed` repeats it.
- `reject` and `bytes_per_s` are traits of the server: every request meets them.
- A fault that breaks the answer on its way (hang, reset, truncate) comes after the
  commit, because that is what makes duplicates. One that is an answer itself (a
  status, a page of HTML) comes instead of the commit, unless it is a plain 2xx: that
  would be a lie. `stores` turns either round.
"""

from __future__ import annotations

import math
import random
import threading

import msgspec


_BROKEN = ("hang", "reset", "truncate")
_BOUNDS = (
    ("status", 200, 599),
    ("fail_rate", 0, 1),
    ("times", 0, math.inf),
    ("bytes_per_s", 0.1, 1e12),
)


class Plan(msgspec.Struct, frozen=True):
    """How one request is treated.

    status: what to answer instead of the truth
    delivery: `whole`, or how the answer is broken on its way
    fault: its name in a few words, for the records
    """

    status: int | None = None
    html: bool = False
    delivery: str = "whole"
    stores: bool = True
    fault: str = ""

    @property
    def is_error(self) -> bool:
        return self.status is not None and not 200 <= self.status <= 299


BEHAVES = Plan()


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong. The default is a collector that behaves.

    status: answer this, 200 to 599
    html: answer a page, as a captive portal does; with `status`, else with 200
    hang: read the request, then say nothing until the client goes
    reset: read the request, then reset the connection
    truncate: announce the whole answer, send half of it, close
    fail_rate: share of the requests, 0 to 1, that meet the fault; alone it means 503
    seed: repeats the choice of `fail_rate`
    times: only so many requests meet the fault, the first that can
    retry_after: sent as it stands with a status that is no 2xx; alone it means 503
    stores: whether events are stored before the fault
    reject: events of these types are named as rejected in a 2xx, and not stored
    bytes_per_s: the pace at which an answer leaves, 0.1 to 1e12

    Raises ValueError for values out of their bounds, and for two of `hang`, `reset`
    and `truncate` at once.
    """

    status: int | None = None
    html: bool = False
    hang: bool = False
    reset: bool = False
    truncate: bool = False
    fail_rate: float | None = None
    seed: int | None = None
    times: int | None = None
    retry_after: str | None = None
    stores: bool | None = None
    reject: tuple[str, ...] = ()
    bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.hang + self.reset + self.truncate > 1:
            raise ValueError("hang, reset and truncate exclude one another")
        for name, least, most in _BOUNDS:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} {value} is not in {least} to {most}")
        value = self.retry_after or ""
        if not (value.isascii() and value.isprintable()):
            raise ValueError("retry_after holds what no header may hold")

    @property
    def plan(self) -> Plan:
        """How a request is treated that meets the fault."""
        delivery = next((name for name in _BROKEN if getattr(self, name)), "whole")
        status = self.status
        if status is None and self.html:
            status = 200
        elif status is None and delivery == "whole":
            if self.fail_rate is None and self.retry_after is None:
                return BEHAVES
            status = 503
        plan = Plan(status, self.html, delivery)
        stores = not (self.html or plan.is_error)
        if self.stores is not None:
            stores = self.stores
        named = [delivery] if delivery != "whole" else []
        named += ["html"] if self.html else []
        fault = " ".join([*named, str(status)] if status else named)
        return msgspec.structs.replace(plan, stores=stores, fault=fault)


class Misbehaviour:
    """Deals out one `Plan` a request. Any thread may ask."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._left = math.inf if faults.times is None else faults.times
        # A choice that can be repeated is the point; nothing here is a secret.
        self._random = random.Random(faults.seed)  # noqa: S311
        self._mutex = threading.Lock()

    def plan(self) -> Plan:
        plan, rate = self.faults.plan, self.faults.fail_rate
        with self._mutex:
            if plan is BEHAVES or self._left < 1:
                return BEHAVES
            if rate is not None and self._random.random() >= rate:
                return BEHAVES
            self._left -= 1
        return plan

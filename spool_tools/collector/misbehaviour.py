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
        is_refused = self.fail_rate is not None or self.retry_after is not None
        if self.status is None and self.html:
            msgspec.structs.force_setattr(self, "status", 200)
        elif self.status is None and self.delivery == "whole" and is_refused:
            msgspec.structs.force_setattr(self, "status", 503)

    @property
    def delivery(self) -> str:
        """`whole`, or how an answer is broken on its way."""
        return next((name for name in _BROKEN if getattr(self, name)), "whole")

    @property
    def is_error(self) -> bool:
        return self.status is not None and not 200 <= self.status <= 299

    @property
    def is_stored(self) -> bool:
        """Whether the events of a request that meets it are stored."""
        is_lie = self.html or self.is_error
        return not is_lie if self.stores is None else self.stores

    @property
    def fault(self) -> str:
        """Its name in a few words, for the records; empty if a request meets none."""
        names = [name for name in (*_BROKEN, "html") if getattr(self, name)]
        return " ".join([*names, str(self.status)] if self.status else names)


BEHAVES = Faults()


class Misbehaviour:
    """Deals out what one request after the other meets. Any thread may ask."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._left = math.inf if faults.times is None else faults.times
        # A choice that can be repeated is the point; nothing here is a secret.
        self._random = random.Random(faults.seed)  # noqa: S311
        self._mutex = threading.Lock()

    def plan(self) -> Faults:
        """The faults, or `BEHAVES`."""
        rate = self.faults.fail_rate
        with self._mutex:
            if not self.faults.fault or self._left < 1:
                return BEHAVES
            if rate is not None and self._random.random() >= rate:
                return BEHAVES
            self._left -= 1
        return self.faults

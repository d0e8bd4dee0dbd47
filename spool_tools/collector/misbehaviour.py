"""Which request the collector treats badly, and how: the faults on request.

Rules:
- `times` and `fail_rate` choose which requests meet the fault; the choice is one
  a request, in the order in which requests were read, and `seed` repeats it.
- `reject` and `bytes_per_s` are traits of the server: every request meets them.
- A fault that breaks the answer on its way (hang, reset, truncate) comes after the
  commit, because that is what makes duplicates. One that is an answer itself (a
  status, a page of HTML) comes instead of the commit, unless it is a plain 2xx: that
  would be a lie. `stores` turns either round.

It decides only: it opens no socket, stores nothing, sleeps never.
"""

from __future__ import annotations

import random
import threading

import msgspec


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong. The default is a collector that behaves.

    Raises ValueError for values out of their bounds, and for two of `hang`, `reset`
    and `truncate` at once.
    """

    status: int | None = None
    """Answer this (200 to 599). Of itself stores nothing, unless it is a 2xx."""
    html: bool = False
    """Answer a page of HTML, as a captive portal does; with `status`, else with 200."""
    hang: bool = False
    """Read the request, then say nothing until the client goes."""
    reset: bool = False
    """Read the request, then reset the connection."""
    truncate: bool = False
    """Announce the whole answer, send half of it, close."""
    fail_rate: float | None = None
    """Share of the requests (0 to 1) that meet the fault; of itself it means 503."""
    seed: int | None = None
    """Repeats the choice of `fail_rate`; None differs at each run."""
    times: int | None = None
    """Only so many requests meet the fault, the first that can; None: no bound."""
    retry_after: str | None = None
    """The value of Retry-After (RFC 9110 §10.2.3: seconds or a date; nonsense is sent
    as it stands) with the fault's status, if that is no 2xx; of itself it means 503."""
    stores: bool | None = None
    """Whether events are stored before the fault; None: as the fault has it."""
    reject: tuple[str, ...] = ()
    """Events of these types are named as rejected in a 2xx, and not stored."""
    bytes_per_s: float | None = None
    """The answer leaves at this pace (0.1 to 1e12); None: at once."""

    def __post_init__(self) -> None:
        if self.hang + self.reset + self.truncate > 1:
            raise ValueError("hang, reset and truncate exclude one another")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status {self.status} is not in 200 to 599")
        if self.fail_rate is not None and not 0 <= self.fail_rate <= 1:
            raise ValueError(f"fail_rate {self.fail_rate} is not in 0 to 1")
        if self.times is not None and self.times < 0:
            raise ValueError(f"times {self.times} is below 0")
        if self.bytes_per_s is not None and not 0.1 <= self.bytes_per_s <= 1e12:
            raise ValueError(f"bytes_per_s {self.bytes_per_s} is not in 0.1 to 1e12")
        if self.retry_after is not None and not (
            self.retry_after.isascii() and self.retry_after.isprintable()
        ):
            raise ValueError("retry_after holds what no header may hold")

    @property
    def harms(self) -> bool:
        """Whether any request can meet a fault (`reject` and the pace are none)."""
        return (
            self.html
            or self.hang
            or self.reset
            or self.truncate
            or self.status is not None
            or self.fail_rate is not None
            or self.retry_after is not None
        )


class Plan(msgspec.Struct, frozen=True):
    """How one request is treated."""

    status: int | None = None
    """What to answer instead of what would be true; None: the truth."""
    html: bool = False
    delivery: str = "whole"
    """`whole`, `truncate`, `reset` or `hang`."""
    stores: bool = True
    fault: str = ""
    """Its name in a few words, for the records; empty: none."""


BEHAVES = Plan()


class Misbehaviour:
    """Deals out one `Plan` a request. Any thread may ask."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._left = faults.times
        # A choice that can be repeated is the point; nothing here is a secret.
        self._random = random.Random(faults.seed)  # noqa: S311
        self._mutex = threading.Lock()

    def plan(self) -> Plan:
        """The treatment of the next request."""
        faults = self.faults
        if not faults.harms:
            return BEHAVES
        with self._mutex:
            rate = faults.fail_rate
            if self._left == 0 or (rate is not None and self._random.random() >= rate):
                return BEHAVES
            if self._left is not None:
                self._left -= 1
        return _fault(faults)


def _fault(faults: Faults) -> Plan:
    delivery = (
        "hang"
        if faults.hang
        else "reset"
        if faults.reset
        else "truncate"
        if faults.truncate
        else "whole"
    )
    status = faults.status
    if status is None and faults.html:
        status = 200
    elif status is None and delivery == "whole":
        status = 503
    stores = faults.stores
    if stores is None:
        stores = not faults.html and (status is None or 200 <= status <= 299)
    said = "" if status is None else f"{'html ' * faults.html}{status}"
    named = "" if delivery == "whole" else delivery
    return Plan(
        status=status,
        html=faults.html,
        delivery=delivery,
        stores=stores,
        fault=f"{named} {said}".strip(),
    )

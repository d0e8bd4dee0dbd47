"""Ten thousand machines after an outage, on the schedule that programs really use.

Each machine launches its program at every full hour, as cron does; the server comes
back at a full hour and takes 40 requests a second, answering all others with 503 and
`Retry-After: 120`. Only the clock and the server are simulated.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter

from telemetry.books.entries import DeliveryState
from telemetry.config import Config
from telemetry.delivery.backoff import conclude
from telemetry.delivery.detached import PATIENCE_S
from telemetry.delivery.schedule import Schedule
from telemetry.wire.verdict import Action, Verdict


MACHINES, TAKES_A_SECOND, ASKED_S = 10_000, 40, 120.0
HOUR_S, OUTAGE_H = 3600.0, 3
DESTINATION = "0a1b2c3d"
CONFIG = Config(
    app="frobnicate", flush_interval_s=60.0, retry_first_s=60.0, retry_max_s=6 * HOUR_S
)
SPREAD_S = 300.0
# The server is back at this time, a full hour.
BACK = 528_000 * HOUR_S

Event = tuple[float, int, float]


class Fleet:
    """Machines with their schedules, and the server that they share."""

    def __init__(self, *, asked_s: float | None, spread_s: float) -> None:
        self.chance = random.Random(7)
        self.plans = [Schedule() for _ in range(MACHINES)]
        self.delivered: dict[int, float] = {}
        self.requests = Counter[int]()
        self.asked_s = asked_s
        self.spread_s = spread_s
        # When, which machine, and until when its flusher comes back (0: a launch).
        self.events: list[Event] = []

    def run(self, until: float) -> None:
        for machine in range(MACHINES):
            first = BACK - OUTAGE_H * HOUR_S + 2 * self.chance.random()
            self.events.append((first, machine, 0.0))
        heapq.heapify(self.events)
        while self.events and self.events[0][0] <= until:
            now, machine, patience_ends = heapq.heappop(self.events)
            if patience_ends:
                self.flush(now, machine, patience_ends)
            elif machine not in self.delivered:
                heapq.heappush(self.events, (now + HOUR_S, machine, 0.0))
                self.launch(now, machine)

    def launch(self, now: float, machine: int) -> None:
        plan = self.plans[machine]
        if plan.not_before(DESTINATION, now) > now:
            return
        failed = plan.failures(DESTINATION) > 0
        wait_s = self.spread_s * self.chance.random() if failed else 0.0
        plan.begin(DESTINATION, now, wait_s=wait_s)
        ends = now + wait_s + PATIENCE_S
        heapq.heappush(self.events, (now + wait_s, machine, ends))

    def flush(self, now: float, machine: int, patience_ends: float) -> None:
        """One request; what it means for the next is the project's own business."""
        verdict = self.answer(now)
        plan = self.plans[machine]
        state = conclude(
            DeliveryState(),
            stopped="waiting" if verdict else "drained",
            verdict=verdict,
            delivered=0 if verdict else 1,
            requests=1,
            identity=DESTINATION,
            failures=plan.failures(DESTINATION),
            now=now,
            config=CONFIG,
            random=self.chance.random,
        )
        again = state.next_attempt_ms / 1000
        plan.end(DESTINATION, now, failures=state.failures, until=again)
        if verdict is None:
            self.delivered[machine] = now
        elif verdict.retry_after_s is not None and again <= patience_ends:
            heapq.heappush(self.events, (again, machine, patience_ends))

    def answer(self, now: float) -> Verdict | None:
        """What the server says; None where it takes the events."""
        if now < BACK:
            return Verdict(Action.WAIT, "connect")
        second = int(now)
        self.requests[second] += 1
        if self.requests[second] <= TAKES_A_SECOND:
            return None
        return Verdict(Action.WAIT, "503", retry_after_s=self.asked_s)


def test_a_fleet_delivers_after_an_outage_without_a_second_one() -> None:
    """Everything arrives within half an hour, by fewer than three requests each."""
    fleet = Fleet(asked_s=ASKED_S, spread_s=SPREAD_S)
    fleet.run(BACK + HOUR_S / 2)
    assert len(fleet.delivered) == MACHINES
    assert sum(fleet.requests.values()) < 3 * MACHINES
    assert max(fleet.requests.values()) < 10 * TAKES_A_SECOND


def test_a_fleet_that_does_not_spread_arrives_by_the_clock() -> None:
    """The model has teeth: without the wait after a failure the server is overrun."""
    fleet = Fleet(asked_s=ASKED_S, spread_s=0.0)
    fleet.run(BACK + 60)
    assert max(fleet.requests.values()) > MACHINES / 4

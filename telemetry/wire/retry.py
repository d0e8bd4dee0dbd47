"""One request and its retries: the only user of tenacity.

Within one flush a request that has to wait is tried again under full jitter, or when
the server said, until the deadline. A server that accepted others, and then limits how
many it takes, gets one at a time, behind a pause each. Before each try consent is asked
for: turned off in the middle of a drain, the next request does not happen.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple, Protocol

import tenacity

from telemetry.logs import TelemetryLogger
from telemetry.privacy import OwnKey
from telemetry.wire.batch import Request
from telemetry.wire.formats import RECORDS, Format
from telemetry.wire.verdict import (
    LIMITS,
    SLOW,
    Action,
    Outcome,
    Stopped,
    Verdict,
    judge,
)


# Between two tries of one flush: full jitter, from half a second.
_RETRY_FIRST_S = 0.5
_RETRY_MAX_S = 10.0
# So many times as long as another one was answered in is time enough for a request.
FAIR = 3
# Once others were accepted, a request that has less than so many times that long, or less
# than so many seconds, does not begin: the server would store it, and get it again.
_ENDS_IN = 1.5
_ENDS_IN_S = 0.05
# The pause before each request to a server that limits them: doubled by each such answer
# that follows one, halved by each acceptance, and dropped below the least. It takes at most
# a tenth of the time that is left. (With four fifths instead of a half 30,000 events took
# 13 s instead of 4 where one request of ten fails, and 12 s either way under a limit.)
_PAUSE_FIRST_S = 0.5
_PAUSE_MAX_S = 2.0
_PAUSE_LEAST_S = 0.05
_PAUSE_SHARE = 10
# How soon a pause ends behind the end of its flush.
_SLICE_S = 0.05


def is_limit(verdict: Verdict) -> bool:
    """Whether a pause of `Poster` may be all that such a server wants."""
    asked_s = verdict.retry_after_s or 0.0
    return verdict.reason in LIMITS and asked_s <= _PAUSE_MAX_S


class Starts(Protocol):
    """What is needed of a transport."""

    at_once: int

    def start(
        self, body: bytes, *, key: str, timeout_s: float, spool_range: str
    ) -> Callable[[], Outcome]:
        """Begin a request; what is returned waits for what comes of it."""
        ...


class Sent(NamedTuple):
    """A request that is under way."""

    request: Request
    outcome: Callable[[], Outcome]
    began: float
    """Of the monotonic clock."""
    timeout_s: float


class Halted(Exception):  # noqa: N818 - no error: it ends a flush early
    """The flush is over before the spool is empty, for the reason of a verdict."""

    def __init__(self, stopped: Stopped, verdict: Verdict | None = None) -> None:
        super().__init__(stopped)
        self.stopped = stopped
        self.verdict = verdict


class Poster:
    """Posts the requests of one flush. For one thread.

    `allowed` is asked before each try. `clock` is seconds since 1970, `monotonic`
    seconds. `ends` says when the flush is over, a time of the latter, which another
    thread may bring forward. `requests` counts the tries, `slowest_s` is the longest that
    an accepting answer took. No text of a verdict holds `own_key`.
    """

    def __init__(
        self,
        transport: Starts,
        *,
        request_timeout_s: float,
        accept_statuses: tuple[int, ...],
        allowed: Callable[[], bool],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        ends: Callable[[], float],
        logger: TelemetryLogger | None = None,
        form: Format = RECORDS,
        own_key: OwnKey | None = None,
    ) -> None:
        self.requests = 0
        self.slowest_s = 0.0
        self._has_accepted = False
        # Acceptances since no pause is kept.
        self._accepted = 0
        self._pause_s = 0.0
        # Requests that were sent before this met the same limit as the one that set it.
        self._paused_from = 0.0
        self._own_key = own_key
        self._logger = logger
        self._transport = transport
        self._request_timeout_s = request_timeout_s
        self._accept_statuses = accept_statuses
        self._allowed = allowed
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._ends = ends
        self._form = form

    @property
    def at_once(self) -> int:
        """How many requests may be under way: one more with each acceptance."""
        return 1 if self._pause_s else min(1 + self._accepted, self._transport.at_once)

    def send(self, request: Request) -> Sent:
        """Begin one try, behind a pause where the server limits how many it takes.

        Raises Halted if consent or time do not allow it.
        """
        if self._ends() - self._monotonic() >= _PAUSE_SHARE * self._pause_s > 0:
            self._rest(self._pause_s)
        if not self._allowed():
            raise Halted("off")
        now = self._monotonic()
        left_s = self._ends() - now
        timeout_s = min(left_s, self._request_timeout_s)
        least_s = max(_ENDS_IN * self.slowest_s, _ENDS_IN_S) if self.slowest_s else 0.0
        # No request has more than its own time, however slow the server is.
        if left_s <= min(least_s, self._request_timeout_s):
            raise Halted("deadline")
        self.requests += 1
        outcome = self._transport.start(
            request.body,
            key=request.key,
            timeout_s=timeout_s,
            spool_range=request.spool_range,
        )
        return Sent(request, outcome, now, timeout_s)

    def answer(self, sent: Sent) -> Verdict:
        """What came of one try, once.

        Raises Halted if the flush's time ended it, with a verdict that says so.
        """
        verdict = judge(
            sent.outcome(),
            now=self._clock(),
            accept_statuses=self._accept_statuses,
            form=self._form,
            posted=sent.request.body,
        )
        if self._own_key:
            # What is kept of an answer in the end, whatever was done to it before.
            verdict = verdict.changed(self._own_key.without)
        if self._logger is not None:
            # Never what it said: that may hold what was posted.
            meaning = (len(sent.request.body), verdict.reason, verdict.action.value)
            self._logger.debug("%d bytes posted: %s, which means %s", *meaning)
        now = self._monotonic()
        # It may have ended while an earlier one was waited for.
        had_s = min(now - sent.began, self._ends() - sent.began, sent.timeout_s)
        if verdict.reason == "timeout" and (
            sent.timeout_s < self._request_timeout_s or now >= self._ends()
        ):
            # Our time was up, not the server's: that says nothing about it.
            is_fair = 0 < FAIR * self.slowest_s <= had_s
            said = f"no answer in {had_s:.1f} s, which was what the flush had left"
            slow = Verdict(Action.WAIT, SLOW, said, narrow=is_fair)
            raise Halted("deadline", slow)
        if verdict.action is Action.ACCEPTED:
            self.slowest_s = max(self.slowest_s, had_s)
            self._has_accepted = True
            self._speed_up(sent)
        elif verdict.reason in LIMITS and self._has_accepted:
            self._slow_down(sent, asked_s=verdict.retry_after_s or 0.0)
        return verdict

    def _speed_up(self, sent: Sent) -> None:
        if not self._pause_s:
            self._accepted += 1
        elif sent.began >= self._paused_from:
            slower_s = self._pause_s / 2
            self._pause_s = slower_s if slower_s >= _PAUSE_LEAST_S else 0.0

    def _slow_down(self, sent: Sent, *, asked_s: float) -> None:
        if sent.began < self._paused_from:
            return
        pause_s = max(_PAUSE_FIRST_S, 2 * self._pause_s, asked_s)
        self._pause_s = min(pause_s, _PAUSE_MAX_S)
        self._paused_from = self._monotonic()
        self._accepted = 0

    def _rest(self, seconds: float) -> None:
        """Pause so long, or until the flush ends, which another thread may bring forward."""
        for _ in range(math.ceil(seconds / _SLICE_S)):
            if self._monotonic() >= self._ends():
                break
            self._sleep(min(seconds, _SLICE_S))
            seconds -= _SLICE_S

    def post(self, request: Request) -> Verdict:
        """What came of one try. Raises Halted as `send` and `answer` do."""
        return self.answer(self.send(request))

    def post_again(self, request: Request, first: Verdict, *, tries: int) -> Verdict:
        """What came of a request in the end that drew `first`, a verdict to wait.

        It is tried at most `tries` times more, after a pause each, while there is
        time. Raises Halted("off").
        """
        last = first

        def once() -> Verdict:
            nonlocal last
            try:
                last = self.post(request)
            except Halted as halted:
                if halted.stopped == "off":
                    raise
            return last

        # tenacity pauses behind an attempt, so the first one is what is known already.
        known = [first]
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_result(
                lambda verdict: verdict.action is Action.WAIT
            ),
            wait=_pause_s,
            stop=lambda state: (
                state.attempt_number > tries
                or self._monotonic() + state.upcoming_sleep >= self._ends()
            ),
            sleep=self._rest,
            before=tenacity.before_nothing,
            after=tenacity.after_nothing,
            before_sleep=None,
            reraise=True,
            retry_error_callback=_last_verdict,
        )
        return retrying(lambda: known.pop() if known else once())


_jitter = tenacity.wait_random_exponential(multiplier=_RETRY_FIRST_S, max=_RETRY_MAX_S)


def _pause_s(state: tenacity.RetryCallState) -> float:
    """Once to twice what the server asked for, else full jitter under a bound.

    Spread, or all who were asked at once come back at once. Never less than our own:
    `Retry-After: 0` must not make a busy loop.
    """
    asked_s = _last_verdict(state).retry_after_s or 0.0
    return max(asked_s * random.uniform(1.0, 2.0), _jitter(state))  # noqa: S311


def _last_verdict(state: tenacity.RetryCallState) -> Verdict:
    outcome = state.outcome
    assert outcome is not None, "tenacity asks after an attempt"  # noqa: S101
    verdict: Verdict = outcome.result()
    return verdict

"""One request and its retries: the only user of tenacity.

Within one flush a request that has to wait is tried again under full jitter, or when
the server said, until the deadline. Before each try consent is asked for: turned off in
the middle of a drain, the next request does not happen.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import tenacity

from telemetry.wire.formats import Request
from telemetry.wire.verdict import Action, Outcome, Stopped, Verdict, judge


# Between two tries of one flush: full jitter, from half a second.
_RETRY_FIRST_S = 0.5
_RETRY_MAX_S = 10.0


class Post(Protocol):
    """What is needed of a transport."""

    def post(self, body: bytes, *, key: str, timeout_s: float) -> Outcome:
        """What came of one request."""
        ...


class Halted(Exception):  # noqa: N818 - no error: it ends a flush early
    """The flush is over before the spool is empty, for the reason of a verdict."""

    def __init__(self, stopped: Stopped, verdict: Verdict | None = None) -> None:
        super().__init__(stopped)
        self.stopped = stopped
        self.verdict = verdict


class Poster:
    """Posts the requests of one flush.

    `allowed` is asked before each try. `clock` is seconds since 1970, `monotonic`
    seconds, and `deadline` a time of the latter. `requests` counts the tries.
    """

    def __init__(
        self,
        transport: Post,
        *,
        request_timeout_s: float,
        accept_statuses: tuple[int, ...],
        allowed: Callable[[], bool],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        deadline: float,
    ) -> None:
        self.requests = 0
        self._transport = transport
        self._request_timeout_s = request_timeout_s
        self._accept_statuses = accept_statuses
        self._allowed = allowed
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._deadline = deadline

    def post(self, request: Request) -> Verdict:
        """What came of one try. Raises Halted if consent or time do not allow it."""
        if not self._allowed():
            raise Halted("off")
        left_s = self._deadline - self._monotonic()
        if left_s <= 0:
            raise Halted("deadline")
        self.requests += 1
        outcome = self._transport.post(
            request.body,
            key=request.key,
            timeout_s=min(left_s, self._request_timeout_s),
        )
        verdict = judge(
            outcome,
            now=self._clock(),
            accept_statuses=self._accept_statuses,
            posted=request.body,
        )
        short = left_s < self._request_timeout_s
        if short and verdict.reason == "timeout" and verdict.action is Action.WAIT:
            # Our time was up, not the server's: that says nothing about it.
            raise Halted("deadline")
        return verdict

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
                or self._monotonic() + state.upcoming_sleep >= self._deadline
            ),
            sleep=self._sleep,
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

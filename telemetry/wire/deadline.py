"""The deadline of a request: what is left of its time and bytes, and its thread.

A socket's timeout bounds one silence. A server that sends a byte a second, or
`100 Continue` for ever, never reaches it. So each read and write gets the time that is
left of the request, and every byte read is counted.

A resolver cannot be bounded so, nor a handshake inside the TLS connection to a proxy, nor
a client that a program brought along. So calls run on a thread of their own, one after
the other; a caller waits until the deadline and no longer. Then the thread is abandoned:
it ends after its call, closes what belonged to it, and the next call has a new thread.

Threads are daemons, they never keep a program from ending. Where none can be started (the
end of some interpreters, a sub-interpreter, the system's limit) a call runs in its
caller's. It touches no file and knows nothing of requests.
"""

from __future__ import annotations

import http.client
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from telemetry.threads import start_thread


S = TypeVar("S")
T = TypeVar("T")

# How often a caller looks whether its deadline was brought forward.
_LOOK_S = 0.1
# How long the end of a thread is waited for that has nothing left to do: it closes what
# belongs to it. A sub-interpreter that ends with a thread in it ends its program.
_END_S = 0.5
# Abandoned threads that have not ended. More would only hang like the others.
ABANDONED_MAX = 4


# What surrounds a body: status lines, headers, interim answers. Servers keep to
# 8 to 64 KiB.
_FRAME_BYTES = 512 * 1024
# A body in chunks of one byte takes six on the wire (`1\r\nx\r\n`).
_CHUNKED_FACTOR = 6


class StillHangingError(Exception):
    """ABANDONED_MAX threads were abandoned and none has ended. Nothing was called."""


class DeadlineError(TimeoutError):
    """The time of the whole request is over. The connection is of no more use."""


class OversizeError(http.client.HTTPException):
    """More came than any sound reply has. The connection is of no more use."""


class Bounds:
    """What is left of one request's time and bytes. For one thread at a time.

    `is_sent` says whether every byte of the request was handed to the system, `address`
    where the connection in use leads; None before it has come about.
    """

    def __init__(self, *, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._deadline = 0.0
        self._bytes_left = 0
        self.is_sent = True
        self.address: object = None

    def begin(self, *, deadline: float, reply_bytes_max: int) -> None:
        """Start a request that ends at `deadline` (seconds of time.monotonic)."""
        self._deadline = deadline
        self._bytes_left = _FRAME_BYTES + _CHUNKED_FACTOR * reply_bytes_max
        self.is_sent = True

    def connect_s(self) -> float:
        """Seconds that connecting may take from now. Raises DeadlineError."""
        return self._left_s(self._connect_timeout_s)

    def connecting(self, sock: Any) -> None:
        """Give `sock` the time that connecting, or a TLS handshake, may take now."""
        sock.settimeout(self._left_s(self._connect_timeout_s))

    def waiting(self, sock: Any) -> None:
        """Give `sock` the time that one read or write may take now."""
        sock.settimeout(self._left_s(self._read_timeout_s))

    def read(self, count: int) -> None:
        """Count bytes that arrived; raises OversizeError when they are too many."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise OversizeError("the reply does not end")

    def _left_s(self, most_s: float) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise DeadlineError("the request took too long")
        return min(most_s, left_s)


class Runner(Generic[S]):
    """Runs calls on something that one thread has to itself.

    `make` gives that something, `close` takes it back, on the thread that used it.
    For one call at a time; `abandon` may come from any thread.
    """

    def __init__(self, *, make: Callable[[], S], close: Callable[[S], None]) -> None:
        self._make = make
        self._close = close
        self._worker: _Worker[S] | None = None
        self._is_idle: Callable[[], bool] = lambda: True
        self._abandoned: list[_Worker[S]] = []

    def start(self, call: Callable[[S], T]) -> Task[S, T]:
        """Begin `call`, which must not raise; `result` ends it before another begins.

        Raises StillHangingError.
        """
        self._abandoned = [worker for worker in self._abandoned if worker.alive]
        if len(self._abandoned) >= ABANDONED_MAX:
            raise StillHangingError
        task, worker = Task(call), self._ready()
        self._is_idle = task.done.is_set
        if worker is None:
            self._run_here(task.run)
        else:
            worker.tasks.put(task.run)
        return task

    def result(self, task: Task[S, T], *, until: Callable[[], float]) -> T | None:
        """What the call returned, or None if it has not by `until`, a monotonic time.

        Another thread may bring that time forward. After None the call may still be
        running, and what it comes to is dropped.
        """
        try:
            while not task.done.wait(min(max(until() - time.monotonic(), 0), _LOOK_S)):
                if until() <= time.monotonic():
                    break
            else:
                return task.result
        except BaseException:  # ^C while waiting: the result is of no more use
            self.abandon()
            raise
        self.abandon()
        return task.result if task.done.is_set() else None

    def abandon(self) -> None:
        """Let the thread end by itself. Returns at once."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.tasks.put(None)
            self._abandoned.append(worker)

    def end(self) -> None:
        """The thread has ended on return, unless its call hangs."""
        worker = self._worker
        self.abandon()
        if worker is not None and self._is_idle():
            worker.join(_END_S)

    def _ready(self) -> _Worker[S] | None:
        # A forked child has no such thread, and the connection is its parent's.
        if self._worker is None or not self._worker.alive:
            try:
                self._worker = _Worker(self._make, self._close)
            except RuntimeError:
                self._worker = None
        return self._worker

    def _run_here(self, call: Callable[[S], T]) -> T:
        belongings = self._make()
        try:
            return call(belongings)
        finally:
            self._close(belongings)


class Task(Generic[S, T]):
    """One call, and what it returned once it is `done`."""

    def __init__(self, call: Callable[[S], T]) -> None:
        self._call = call
        self.done = threading.Event()
        self.result: T | None = None

    def run(self, belongings: S) -> None:
        try:
            self.result = self._call(belongings)
        finally:
            self.done.set()


class _Worker(Generic[S]):
    def __init__(self, make: Callable[[], S], close: Callable[[S], None]) -> None:
        self._make = make
        self._close = close
        self.tasks: queue.SimpleQueue[Callable[[S], None] | None] = queue.SimpleQueue()
        self._thread = start_thread(self._work, "telemetry-post")

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _work(self) -> None:
        belongings = self._make()
        try:
            while (run := self.tasks.get()) is not None:
                run(belongings)
                del run  # or the last reply would be kept until the next call
        finally:
            self._close(belongings)

"""Flushing in threads of the host's process: on request, at exit, or all along.

A thread here is always a daemon: it never keeps a program from ending. What it
was doing then is as if it had been killed, which the order of the flusher's
steps allows for.

Loaded only where one of these is asked for; the heavy parts load in the thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from telemetry.config import Config
from telemetry.delivery import schedule
from telemetry.delivery.report import FlushReport, Progress
from telemetry.logs import TelemetryLogger
from telemetry.paths import Home
from telemetry.threads import start_thread
from telemetry.wire.endpoint import HTTPClient


# A flush that keeps its own deadline is waited for so much longer.
_GRACE_S = 0.02
# Of the time at exit, so that the flush has noted what came of it before the end.
_EXIT_SHARE = 0.9


class InProcessFlusher:
    """Runs the flushes of one client in threads of this process.

    `allowed` is asked before each request. `release` is that of `flush`. Safe for
    threads; a forked child makes its own.
    """

    def __init__(
        self,
        config: Config,
        home: Home,
        *,
        environment: Mapping[str, str],
        allowed: Callable[[], bool],
        http: HTTPClient | None,
        logger: TelemetryLogger | None,
        release: Callable[[], None] = lambda: None,
        asks: bool = False,
    ) -> None:
        """With `asks` telemetry is off, and a server is to be asked to delete."""
        self.config = config
        self._home = home
        self._environment = environment
        self._allowed = allowed
        self._http = http
        self._logger = logger
        self._release = release
        self._asks = asks
        # Whether flushes begin by themselves, the last of them at the program's end.
        self.is_started = False
        # Another client of this process flushes the same home at the program's end.
        self._is_superseded = False
        self._stopped = threading.Event()
        self._leaving = threading.Event()
        self._ended = threading.Event()
        # When a flush that runs by itself is over: the program waits no longer.
        self._ends = math.inf
        # Whether the flush at the program's end has begun.
        self._is_last = False
        # The last flush, where no thread could be started for it.
        self._at_exit: Callable[[], None] | None = None

    def flush(self, *, timeout_s: float) -> FlushReport:
        """One flush; the answer comes after `timeout_s` seconds at the latest.

        A time that is no number above zero is none, a longer one than a day a day.
        A flush that hangs beyond it goes on by itself and ends at its next step.
        """
        timeout_s = min(timeout_s, schedule.HORIZON_S) if timeout_s > 0 else 0.0
        deadline = time.monotonic() + timeout_s
        ended = threading.Event()
        progress = Progress()
        reports: list[FlushReport] = []

        def run() -> None:
            try:
                reports.append(self._flush(deadline, progress=progress))
            finally:
                ended.set()

        try:
            start_thread(run, "telemetry-flush")
        except RuntimeError:
            run()  # the interpreter is ending and starts no thread any more
        ended.wait(timeout_s + _GRACE_S)
        return reports[0] if reports else progress.report(self._home, "deadline")

    def start(self, mode: str, *, at_once: bool = False) -> None:
        """Flush when the program ends, and until then as `mode` says.

        thread   now, and after each flush interval
        launch   after each flush interval: most programs have ended by then
        exit     not at all

        With `at_once` the first one begins now, whatever the mode. Each is due by the
        shared schedule (`Schedule.not_before`). The thread is started now: from Python
        3.12 on none can be once the program is ending.
        """

        def work() -> None:
            try:
                if at_once:
                    # In the place of the one at the end: it may kill the program, too.
                    self._flush_if_due(
                        mode,
                        self.config.flusher_lifetime_s,
                        is_last=True,
                        after_failure_only=mode == "exit",
                    )
                if mode == "launch":
                    self._leaving.wait(self.config.flush_interval_s)
                while mode != "exit" and not (
                    self._leaving.is_set() or self._stopped.is_set()
                ):
                    self._flush_if_due(mode, self.config.flusher_lifetime_s)
                    self._leaving.wait(self.config.flush_interval_s)
                self._leaving.wait()
                if not self._is_superseded:
                    self._flush_if_due(
                        mode,
                        self.config.exit_timeout_s,
                        is_last=True,
                        after_failure_only=mode == "exit",
                    )
            finally:
                self._ended.set()

        self.is_started = True
        try:
            start_thread(work, "telemetry-exit")
        except RuntimeError:
            self._at_exit = work  # the program is ending: from Python 3.12 on

    def stop(self) -> None:
        """No further flush begins by itself before the program ends."""
        self._stopped.set()
        self._end_if_of_no_use()

    def supersede(self) -> bool:
        """The last flush is another one's now; whether one of these may be at work.

        The thread of a stopped one ends: a program may make a client for each request.
        """
        self._is_superseded = True
        self._end_if_of_no_use()
        return self.is_started and not self._ended.is_set()

    def _end_if_of_no_use(self) -> None:
        if self._is_superseded and self._stopped.is_set():
            self._leaving.set()

    def leave(self) -> None:
        """The program ends: the last flush begins, if it is due; one at work hurries.

        What came of it is on disk before the program is gone.
        """
        self._ends = time.monotonic() + self.config.exit_timeout_s * _EXIT_SHARE
        self._leaving.set()
        if self._at_exit is not None:
            self._at_exit()

    def wait(self, deadline: float) -> None:
        """Wait for the last flush until `deadline` of `time.monotonic()`.

        One that has no time left is cut by the program's end, and has not killed it.
        """
        try:
            self._ended.wait(max(deadline - time.monotonic(), 0.0))
        finally:
            if self._is_last and not self._ended.is_set():
                schedule.note_cut(self._home)

    def _flush_if_due(
        self,
        mode: str,
        timeout_s: float,
        *,
        is_last: bool = False,
        after_failure_only: bool = False,
    ) -> None:
        is_last = is_last or self._leaving.is_set()
        deadline = time.monotonic() + timeout_s
        try:
            lock = schedule.claim(
                self.config,
                self._home,
                time.time(),
                # One that the program's end cuts short counts, as one that is killed.
                is_start=mode != "launch" or is_last,
                is_within=is_last,
                asks=self._asks,
                after_failure_only=after_failure_only,
            )
        except Exception as error:  # noqa: BLE001 - Python would print it
            if self._logger is not None:
                self._logger.debug("no flush began: %s; everything is kept", error)
            return
        if lock is not None:
            self._is_last = is_last
            progress = Progress()
            with lock:
                report = self._flush(
                    deadline, lock=lock, progress=progress, ends=lambda: self._ends
                )
            # In `launch` mode these do not end the count of detached ones.
            is_finished = progress.is_finished(report, self._home, self._allowed)
            if mode != "launch" and is_finished:
                schedule.note_finished(self._home)
            else:
                falls_short = report.stopped == "deadline" and not report.delivered
                schedule.note_ended_within(
                    self._home, falls_short=is_last and falls_short
                )
        elif self._logger is not None:
            self._logger.debug(
                "no flush began: not due (`status` says), or one is at work"
            )

    def _flush(
        self,
        deadline: float,
        *,
        progress: Progress,
        lock: schedule.FlushLock | None = None,
        ends: Callable[[], float] = lambda: math.inf,
    ) -> FlushReport:
        """One flush in this thread until `deadline` of `time.monotonic()`.

        Raises nothing: Python would print what escapes a thread into the host's stderr.
        """
        try:
            from telemetry.delivery.flush import flush

            return flush(
                self.config,
                self._home,
                timeout_s=deadline - time.monotonic(),
                environment=self._environment,
                allowed=self._allowed,
                http=self._http,
                logger=self._logger,
                lock=None if lock is None else lock.detach(),
                progress=progress,
                ends=ends,
                release=self._release,
            )
        except Exception as error:  # noqa: BLE001 - see above
            if self._logger is not None:
                self._logger.debug("flush: %s; everything is kept", error)
            return progress.report(self._home, "disk")

"""Flushing in threads of the host's process: bounded, at exit, or all along.

A thread here is always a daemon: it never keeps a program from ending. What it
was doing then is as if it had been killed, which the order of the flusher's
steps allows for.

Loaded only where one of these is asked for; the heavy parts load in the thread.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Mapping

from telemetry.config import Config
from telemetry.delivery import schedule
from telemetry.delivery.report import FlushReport, Progress
from telemetry.logs import TelemetryLogger
from telemetry.paths import Home
from telemetry.wire.endpoint import HTTPClient


# A flush that keeps its own deadline is waited for so much longer.
_GRACE_S = 0.02


class Background:
    """Runs the flushes of one client in threads.

    `allowed` is asked before each request. Safe for threads; a forked child
    makes its own.
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
    ) -> None:
        self.config = config
        self._home = home
        self._environment = environment
        self._allowed = allowed
        self._http = http
        self._logger = logger
        self._stop = threading.Event()

    def flush(self, *, timeout_s: float) -> FlushReport:
        """One flush; the answer comes after `timeout_s` seconds at the latest.

        A flush that hangs beyond it goes on by itself and ends at its next step.
        """
        deadline = time.monotonic() + timeout_s
        ended = threading.Event()
        progress = Progress()
        reports: list[FlushReport] = []

        def run() -> None:
            try:
                reports.append(self._guarded(deadline, lock=None, progress=progress))
            finally:
                ended.set()

        try:
            threading.Thread(target=run, name="telemetry-flush", daemon=True).start()
        except RuntimeError:
            run()  # the interpreter is ending and starts no thread any more
        ended.wait(timeout_s + _GRACE_S)
        return reports[0] if reports else progress.report(self._home, "deadline")

    def at_exit(self) -> None:
        """Flush once when the program ends, for at most `exit_timeout_s` seconds.

        The thread is started now and waits: from Python 3.12 on none can be
        started once the program is ending.
        """
        begin, ended = threading.Event(), threading.Event()
        owner = os.getpid()
        timeout_s = self.config.exit_timeout_s

        def wait_and_flush() -> None:
            begin.wait()
            try:
                self._guarded(time.monotonic() + timeout_s, lock=None, progress=None)
            finally:
                ended.set()

        threading.Thread(
            target=wait_and_flush, name="telemetry-exit", daemon=True
        ).start()

        @atexit.register
        def flush_at_exit() -> None:
            if os.getpid() == owner:
                begin.set()
                ended.wait(timeout_s)

    def all_along(self) -> None:
        """Flush now if it is due, and again after each flush interval."""

        def flush_when_due() -> None:
            while not self._stop.is_set():
                try:
                    lock = schedule.claim(self.config, self._home, time.time())
                except OSError:
                    lock = None
                if lock is not None:
                    deadline = time.monotonic() + self.config.flusher_lifetime_s
                    self._guarded(deadline, lock=lock, progress=None)
                self._stop.wait(self.config.flush_interval_s)

        threading.Thread(
            target=flush_when_due, name="telemetry-flush", daemon=True
        ).start()

    def close(self) -> None:
        """No further flush begins by itself."""
        self._stop.set()

    def _run(
        self, deadline: float, *, lock: int | None, progress: Progress | None
    ) -> FlushReport:
        """One flush in this thread until `deadline` of `time.monotonic()`."""
        try:
            from telemetry.delivery.flush import flush
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise
        return flush(
            self.config,
            self._home,
            timeout_s=deadline - time.monotonic(),
            environment=self._environment,
            allowed=self._allowed,
            http=self._http,
            logger=self._logger,
            lock=lock,
            progress=progress,
        )

    def _guarded(
        self, deadline: float, *, lock: int | None, progress: Progress | None
    ) -> FlushReport:
        """The same; Python would print what escapes a thread into the host's stderr."""
        try:
            return self._run(deadline, lock=lock, progress=progress)
        except Exception as error:
            if self._logger is not None:
                self._logger.debug("flush: %s; everything is kept", error)
            return FlushReport(stopped="disk")

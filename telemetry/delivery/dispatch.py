"""Who flushes the events of this process, and when.

    launch   a detached flusher, at the first event if others wait, else at exit
    thread   a thread, all along and at exit
    exit     this process, at exit
    manual   only who calls `flush`

In `launch` mode this process flushes by itself, at exit and after each interval of a
long life, where no detached flusher can be started or none finishes (`Schedule`). At
exit a program is held for at most `exit_timeout_s`. A signal or `os._exit` ends a program
without exit functions: the third in a row that leaves a flush to them, with none begun
since, has one at its first event, by a detached flusher where that can be.

Loaded at the first event of each process, so it is light: nearly every launch reads
`next-flush` once and ends here.
"""

from __future__ import annotations

import atexit
import os
import sys
import time

from telemetry.consent import consent
from telemetry.delivery import schedule
from telemetry.errors import LaunchError, quietly, raise_the_hosts


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from telemetry.config import Config
    from telemetry.delivery.in_process import InProcessFlusher
    from telemetry.logs import TelemetryLogger
    from telemetry.paths import Home
    from telemetry.wire.endpoint import HTTPClient

# What is left to do when the process ends, one for each home: a program that makes
# many clients keeps the last of them, and waits once.
_at_exit: dict[str, Dispatcher] = {}
# The first frame of a program: a script, or `-m`.
_BEGINS = frozenset({"<module>", "_run_module_as_main"})


class Dispatcher:
    """Has the events of one client flushed; a forked child makes its own."""

    def __init__(
        self,
        config: Config,
        home: Home,
        *,
        environment: Mapping[str, str],
        http: HTTPClient | None,
        logger: TelemetryLogger | None,
        release: Callable[[], None] = lambda: None,
        asks: bool = False,
    ) -> None:
        """`release` gives up the segment that this process has; it may take another.

        With `asks` telemetry is off, and a server is to be asked to delete.
        """
        self.config = config
        self.pid = os.getpid()
        self._home = home
        self._environment = environment
        self._http = http
        self._logger = logger
        self._release = release
        self._asks = asks
        self._in_process: InProcessFlusher | None = None
        # Those of clients before this one that may still be at work.
        self._before: list[InProcessFlusher] = []
        # At exit before this time there is nothing to look at.
        self._not_before = 0.0

    def begin(self, *, others_wait: bool) -> None:
        """After the first event of a process: have events flushed from now on.

        `others_wait` says whether the spool held events before this one.
        """
        mode: str = self.config.flush_mode(self._environment)
        lacks = self.config.lacks()
        if mode == "manual" or lacks:
            why = "flush is `manual`"
            if lacks:
                why = f"no usable {lacks}; set TELEMETRY_{lacks.upper()}"
            self._say("no flush begins by itself: %s", why)
            return
        is_ending = _is_ending()
        if mode == "launch" and self._http is not None:
            mode = "thread"  # it cannot be handed to another process
        if mode != "launch" or not self._begin_detached(others_wait):
            self._begin_in_process(mode, others_wait and not is_ending)
        if all(other.pid != self.pid for other in tuple(_at_exit.values())):
            atexit.register(_at_exit_of_the_process)
        if earlier := self._earlier():
            self._before = earlier.supersede()
        _at_exit[self._home.root] = self
        if is_ending:
            _leave()

    def _begin_in_process(self, mode: str, others_wait: bool) -> None:
        """This process flushes by itself, at once where programs' ends do not.

        A program that is killed, or replaces itself, calls no exit function.
        """
        at_once = False
        if others_wait and mode != "thread" and self._earlier() is None:
            at_once = self._launches_in_vain(mode) >= schedule.STARTS_MAX
        if at_once:
            self._say("no program flushed at its end lately: one begins now")
            if self._http is None and is_plain_python():
                at_once = not self._start_flusher(after_failure_only=mode == "exit")
        self._say("this process flushes by itself, if a flush is due: %s", mode)
        self.in_process().start(mode, at_once=at_once)

    def _earlier(self) -> Dispatcher | None:
        """That of a client of this process which had this home flushed before."""
        other = _at_exit.get(self._home.root)
        is_one = other is not None and other is not self and other.pid == self.pid
        return other if is_one else None

    def in_process(self) -> InProcessFlusher:
        """What flushes in threads of this process, made on first use."""
        if self._in_process is None:
            from telemetry.delivery.in_process import InProcessFlusher

            self._in_process = InProcessFlusher(
                self.config,
                self._home,
                environment=self._environment,
                allowed=self._is_allowed,
                http=self._http,
                logger=self._logger,
                release=self._release,
                asks=self._asks,
            )
        return self._in_process

    def set_config(self, config: Config) -> None:
        """Flushes that begin from now on use this config."""
        self.config = config
        if self._in_process is not None:
            self._in_process.config = config

    def stop(self) -> None:
        """No further flush begins by itself before the process ends."""
        if self._in_process is not None:
            self._in_process.stop()

    def supersede(self) -> list[InProcessFlusher]:
        """Another client sees to the end of the program; what may be at work until then."""
        ours = [*self._before, *self._started()]
        return [each for each in ours if each.supersede()]

    def leave(self) -> None:
        """The process ends: begin the last flush, in this process or outside of it.

        Raises nothing: Python would print it, and other homes have their turn as well.
        """
        try:
            for each in (*self._before, *self._started()):
                each.leave()
            is_due = not self._started() and time.time() >= self._not_before
            if is_due and not self._start_flusher():
                # There may be no run behind this one.
                self.in_process().start("launch")
                self.in_process().leave()
        except Exception as error:  # noqa: BLE001 - see above
            self._say("no flush began: %s; everything is kept", error)

    def wait(self, deadline: float) -> None:
        """Wait for the last flush until `deadline` of `time.monotonic()`."""
        for each in (*self._before, *self._started()):
            each.wait(deadline)

    def _started(self) -> tuple[InProcessFlusher, ...]:
        """The one that flushes by itself; one that only served `flush()` does not."""
        this = self._in_process
        return (this,) if this is not None and this.is_started else ()

    def _begin_detached(self, others_wait: bool) -> bool:
        """Whether detached flushers do it; one runs on return, if it is due."""
        if not is_plain_python():
            self._say("no flusher is started by a program without a Python to run")
            return False
        now, plan = time.time(), schedule.load(self._home.next_flush)
        if plan.flushers_never_finish(now):
            self._say("no flusher is started: the last ones did not finish")
            return False
        destination = schedule.destination_of(self.config, asks=self._asks)
        self._not_before = plan.not_before(destination, now)
        if not others_wait or self._not_before > now:
            wait_s = max(self._not_before - now, 0.0)
            when = f", in {wait_s:.0f} s at the earliest" if wait_s else ""
            if wait_s and plan.failures(destination):
                when += ": the last flush failed, and `status` says why"
            elif wait_s and plan.last and plan.destination != destination:
                when += (
                    ": the last flush had another endpoint, key, header, format or gzip"
                )
            self._say("a flusher starts as a program ends%s", when)
            return True  # nearly every launch: nothing more is loaded
        self._not_before = now + schedule.WINDOW_S
        return self._start_flusher()

    def _launches_in_vain(self, mode: str) -> int:
        """Programs that were to flush at their end since any flush began, with this one.

        Zero where no flush is due.
        """
        now, plan = time.time(), schedule.load(self._home.next_flush)
        until = plan.not_before(
            schedule.destination_of(self.config, asks=self._asks),
            now,
            after_failure_only=mode == "exit",
            is_within=True,
        )
        return schedule.note_launch(self._home) if until <= now else 0

    def _start_flusher(self, *, after_failure_only: bool = False) -> bool:
        """Start a detached flusher, if a flush is due and no other process is at it.

        False where none can be started: it is noted, and this program and the next ones
        flush by themselves as they end.
        """
        if sys.platform == "win32":
            from telemetry.delivery import launch_windows as launch
        else:
            from telemetry.delivery import launch

        decision = consent(self._home, self._environment, self.config)
        if not (decision.on or decision.asks):
            return True
        now, lock = time.time(), None
        try:
            launch.check_surroundings()
            lock = schedule.claim(
                self.config,
                self._home,
                now,
                is_start=True,
                asks=not decision.on,
                spread_s=self.config.failure_spread_s,
                after_failure_only=after_failure_only,
            )
            if lock is not None:
                launch.spawn(self.config, self._home, lock, self._environment)
                self._say("a flusher was started; it waits %.0f s first", lock.wait_s)
            else:
                self._say("no flusher was started: not due, or one is at work")
        except (LaunchError, OSError) as error:
            raise_the_hosts(error.__cause__ or error)
            self._say("no flusher was started: %s", error)
            # Another program's flush may have ended meanwhile: its backoff stands.
            plan = schedule.load(self._home.next_flush)
            destination = schedule.destination_of(self.config, asks=not decision.on)
            until = plan.not_before(
                destination, now, after_failure_only=after_failure_only
            )
            is_due = lock is not None or until <= now
            schedule.note_failed_start(self._home, now if is_due else plan.at)
            return False
        return True

    def _say(self, message: str, *args: object) -> None:
        if self._logger is not None:
            self._logger.debug(message, *args)

    def _is_allowed(self) -> bool:
        return consent(self._home, self._environment, self.config).on


def is_plain_python() -> bool:
    """Whether `sys.executable` may be a Python that runs what it is given."""
    name = os.path.basename(sys.executable or "").lower()
    return (
        name.startswith(("python", "pypy"))
        # PyInstaller and its like set the one, Nuitka the other.
        and not hasattr(sys, "frozen")
        and "__compiled__" not in globals()
        # The first process of a container inherits every orphan: a `wait` of its own
        # would meet our flusher.
        and os.getpid() != 1
        # Another user's, or gone with an environment that was made for one run.
        and os.access(sys.executable, os.X_OK)
    )


def _is_ending() -> bool:
    """Whether the program's exit functions run: one registered now is not called."""
    threading = sys.modules.get("threading")
    if threading is not None:
        main = threading.main_thread()
        if main.is_alive():
            return False
        # Python waits for a thread that is no daemon before it calls exit functions.
        this = threading.current_thread()
        return this is main or this.daemon
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name not in _BEGINS


def _at_exit_of_the_process() -> None:
    quietly(_leave)
    if _ends_by_interrupt():
        # Python remembers that until a text of code is evaluated, as modules that a
        # flush here has loaded did; so it is told again.
        try:
            exec("raise KeyboardInterrupt")  # noqa: S102
        except KeyboardInterrupt:
            pass


def _leave() -> None:
    """One last flush for each home, all of them within one bound.

    Where no thread can be started any more, from Python 3.12 on, each has its own.
    """
    pid = os.getpid()
    ours = [each for each in tuple(_at_exit.values()) if each.pid == pid]
    _at_exit.clear()
    for each in ours:
        each.leave()
    bound_s = max((each.config.exit_timeout_s for each in ours), default=0.0)
    deadline = time.monotonic() + bound_s
    for each in ours:
        each.wait(deadline)


def _ends_by_interrupt() -> bool:
    """Whether Ctrl-C ends this program, whose exit code has to say so."""
    frame = getattr(getattr(sys, "last_traceback", None), "tb_frame", None)
    return (
        getattr(sys, "last_type", None) is KeyboardInterrupt
        and not hasattr(sys, "ps1")
        and frame is not None
        and frame.f_code.co_name in _BEGINS
        and frame.f_code.co_filename != "<console>"
    )

"""One client: the public methods, and what keeps them from harming the host.

It is handed what it needs and reads no global but the environment. Its parts (the
`Pipeline`) are made at the first event, so that a client that records nothing costs
nothing and leaves nothing on disk.

Nothing is raised into the host unless `Config.strict` says so: a public method
answers, counts what it could not keep under its reason, and returns. The exceptions
are not ours to keep: what a signal handler of the host raises while a method runs
reaches the host (`interrupts.py`), as KeyboardInterrupt and SystemExit do.
"""

import os
import sys
import time
from _thread import RLock, get_ident
from _weakref import ref

from telemetry.switches import (
    CANNOT_LOAD,
    IMPORT_LOCKS,
    Decision,
    absent,
    environment_decision,
    imports_under_way,
    is_loading,
    is_set,
    is_switched_off,
    patience_s,
)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from telemetry.config import Config
    from telemetry.delivery.dispatch import Dispatcher
    from telemetry.delivery.report import FlushReport
    from telemetry.errors import ConfigError
    from telemetry.events import StructuredEvent
    from telemetry.logs import TelemetryLogger
    from telemetry.pipeline import Pipeline
    from telemetry.privacy import OwnKey
    from telemetry.session import SessionState
    from telemetry.wire.endpoint import HTTPClient
    from telemetry.wire.verdict import Stopped


class Client:
    """Records events into a spool and has them delivered. Safe for threads and forks.

    Args:
        config: the settings; see `Config`.
        http: used instead of a `urllib3.PoolManager`. With it, `launch` mode becomes
            `thread`, since it cannot be handed to another process.
        logger: used instead of the library's own. It hears of flushes in debug mode.

    Example:
        >>> config = telemetry.Config(app="frobnicate", flush="manual")
        >>> with telemetry.Client(config) as client:
        ...     client.track(telemetry.CommandEvent(action="build", success=True))
        True
    """

    # Of the class, as a module's names may be gone when a finalizer needs them.
    _is_finalizing = staticmethod(sys.is_finalizing)

    def __init__(
        self,
        config: "Config",
        *,
        http: "HTTPClient | None" = None,
        logger: "TelemetryLogger | None" = None,
    ) -> None:
        self._http = http
        self._home: str | None = config.home
        # What stands in for settings that cannot be loaded is false.
        self._begin(config or None, config.app, logger)  # type: ignore[truthy-bool]

    @classmethod
    def off(cls, app: str, home: "str | None" = None) -> "Client":
        """A client that records nothing and has loaded nothing to do so."""
        client = cls.__new__(cls)
        client._home = home  # noqa: SLF001 - its other constructor
        client._begin(None, app, None)  # noqa: SLF001
        return client

    def _begin(
        self, config: "Config | None", app: str, logger: "TelemetryLogger | None"
    ) -> None:
        self._app = app
        # Anything else would raise wherever something is logged, in a thread as well.
        self._logger = logger if hasattr(logger, "warning") else None
        # As it was given: also a key that cannot be used is one.
        self._given = config
        self._known_key: OwnKey | None = None
        # Sends what a user who is to be forgotten is still owed.
        self._asking: Dispatcher | None = None
        self._pipeline: Pipeline | None = None
        self._session: SessionState | None = None
        # How often each reason for a refusal came up, for the log.
        self._refusals: dict[str, int] = {}
        # Refusals by reason that are not in the file of counts yet.
        self._uncounted: list[tuple[str, int]] = []
        self._counts_at_exit = False
        self._renew_locks()
        self._off = environment_decision(os.environ) if config is None else None
        self._config: Config | None = None
        self._mistakes: list[ConfigError] = []
        if config is not None:
            self._config, self._mistakes = config.sound()
            self._mistakes += self._config.misread(os.environ, sys.platform)
        elif self._off is None:
            reason = "its settings cannot be used, or cannot be loaded just now"
            self._off = Decision("program", reason, on=False)
        # Only in debug mode: a line for each event.
        self._debug: TelemetryLogger | None = None
        said = os.environ.get("TELEMETRY_DEBUG", "")
        is_debug = self._config.debug if self._config else is_set(said)
        if self._mistakes or is_debug:
            try:
                self._introduce(is_debug=is_debug)
            except Exception as error:
                self._fail(error, is_loss=False)
        myself = ref(self)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: _after_fork(myself()))

    def __repr__(self) -> str:
        """What it records, whether it is on and why, and where events go."""
        if is_loading():
            return f"<telemetry.Client {self._app}>"
        decision = self.decision()
        if not decision.on:
            return f"<telemetry.Client {self._app}: off ({decision.reason})>"
        try:
            from telemetry.wire.endpoint import redact
        except CANNOT_LOAD as error:
            return f"<telemetry.Client {self._app}: a module cannot be loaded: {error}>"
        config = self.config
        to = redact(config.endpoint) if config.endpoint else "nowhere yet"
        to += " once it has a key" if config.lacks() == "api_key" else ""
        return (
            f"<telemetry.Client {self._app} {config.version}: on ({decision.reason}); "
            f"events go to {to}>"
        )

    @property
    def config(self) -> "Config":
        """The settings in use: those it was made with, less what cannot be used."""
        if self._config is None:
            try:
                from telemetry.config import Config
            except CANNOT_LOAD as error:
                nothing: Config = _stand_in("Config", error)
                return nothing
            self._config = Config(app=self._app, home=self._home, enabled=False)
        return self._config

    def after_fork(self) -> None:
        """In a forked child: forget what belongs to the parent."""
        self._renew_locks()
        self._uncounted.clear()
        if self._pipeline is not None:
            self._pipeline.after_fork()

    def _renew_locks(self) -> None:
        self._lock, self._session_lock = RLock(), RLock()
        self._is_making = False
        # Whether another thread was waited for in vain, which makes the pipeline.
        self._has_waited = False
        # Threads that are in their first event, and the events inside of those: to put
        # one in and to take one out is one step.
        self._inside: set[int] = set()

    @property
    def logger(self) -> "TelemetryLogger | None":
        """The logger in use; None if nobody would see what it says."""
        debug = self._config is None or self._config.debug is True
        if not (self._logger or debug or "logging" in sys.modules):
            return None  # as `quiet_logger` would say, without the price of its module
        try:
            from telemetry.logs import discreet, quiet_logger

            logger = self._logger or quiet_logger(debug=debug)
            return None if logger is None else discreet(logger, self._own_key())
        except CANNOT_LOAD:
            return None  # what no text may hold is not known then

    def _own_key(self) -> "OwnKey":
        """What no text of this client may hold."""
        if self._known_key is None:
            from telemetry.envelope import FIELDS
            from telemetry.privacy import own_key_of

            self._known_key = own_key_of(self._given, os.environ, public=FIELDS)
        return self._known_key

    @property
    def version(self) -> str:
        """The program's version, as events carry it."""
        return self.config.version

    @version.setter
    def version(self, version: str) -> None:
        config = self.config
        if not config:  # type: ignore[truthy-bool]
            return  # it cannot be loaded
        import msgspec

        self._config, _ = msgspec.structs.replace(config, version=version).sound()
        if self._pipeline is not None:
            self._pipeline.set_config(self._config)

    def track(
        self,
        event: "StructuredEvent | str",
        properties: "Mapping[str, Any] | None" = None,
    ) -> bool:
        """Record an event: it is in the spool, and survives a kill, on `True`.

        Args:
            event: one of `telemetry.events`, or an object with its two methods; or the
                name of an event of the program's own.
            properties: what is recorded under that name; keys are text.

        Returns:
            Whether it was recorded. A loss is counted by its reason.

        Raises:
            RefusedError: only with `Config(strict=True)`.
        """
        pipeline = self._pipeline
        if pipeline is not None and pipeline.is_started:
            return self._track(event, properties)
        if self._refuse_inside_first():
            return False
        inside, me = self._inside, get_ident()
        try:
            inside.add(me)
            recorded = self._track(event, properties)
            self._count_waiting()
            return recorded
        finally:
            inside.discard(me)

    def _refuse_inside_first(self) -> bool:
        """Whether this is inside of the first event, in a handler of signals or of logs.

        Or of the first flush. It is refused as busy, and counted behind that.
        """
        if get_ident() not in self._inside and not is_loading():
            return False
        self._uncounted.append(("busy", 1))
        return True

    def _count_waiting(self) -> None:
        """Write up the refusals that could not be counted as they came, or try again.

        A home that no pipeline was made for is left as it is: only the counter that is
        in it is written to.
        """
        try:
            if self._pipeline is None and self._off is not None:
                self._uncounted.clear()
            elif self._pipeline is not None:
                self._pipeline.count_refused()
            elif self._uncounted:
                from telemetry.pipeline import count_refused

                count_refused(self.config, self._uncounted)
        except Exception as error:
            self._fail(error, is_loss=False, may_raise=False)
        if self._uncounted and not self._counts_at_exit:
            import atexit

            self._counts_at_exit = True
            atexit.register(self._count_waiting)

    def _track(
        self, event: "StructuredEvent | str", properties: "Mapping[str, Any] | None"
    ) -> bool:
        try:
            pipeline = self._pipeline or self._open()
            if pipeline is None or is_switched_off():
                if self._off is None and pipeline is None:
                    self._uncounted.append(("busy", 1))  # it could not be waited for
                return False
            if properties is not None or isinstance(event, str):
                from telemetry.light_events import NamedEvent

                event = NamedEvent(event, properties or {})  # type: ignore[arg-type]
            sealed = pipeline.record(event)
        except Exception as error:
            self._fail(error)
            return False
        if self._uncounted:
            self._count_waiting()
        if self._debug is not None:
            self._debug.debug("recorded: %s", sealed.decode("utf-8", "replace"))
        if not pipeline.is_started:
            try:
                pipeline.start()
            except Exception as error:
                # The event is recorded, whatever became of its flush.
                self._fail(error, is_loss=False, may_raise=False)
        return True

    def record_session_start(self, agent_name: str, session_id: str) -> str:
        """Begin a session and record that.

        Args:
            agent_name: the agent that the session runs.
            session_id: an id that the program chose.

        Returns:
            `session_id`.
        """

        def begin() -> "StructuredEvent":
            from telemetry.events import SessionStartEvent
            from telemetry.session import start

            self._session = start(session_id, agent_name, time.monotonic())
            return SessionStartEvent("start", session_id, agent_name)

        self.track_made(begin)
        return session_id

    def record_tool_call(
        self,
        tool_name: str,
        session_id: str,
        agent_name: str,
        duration: "timedelta",
        error: "BaseException | str | None" = None,
    ) -> None:
        """Record a tool call and count it in the session.

        Args:
            tool_name: the tool's name, never its arguments.
            session_id: the session it belongs to.
            agent_name: the agent that called it.
            duration: how long it took, cut toward zero to whole milliseconds.
            error: what went wrong: an exception (its class and its message are
                recorded) or a text, both scrubbed; None if it ended well.
        """

        self.track_made(
            lambda: self._counted().count_tool_call(
                tool_name, session_id, agent_name, duration, error
            )
        )

    def record_token_usage(
        self, model: str, input_tokens: int, output_tokens: int, cost: float
    ) -> None:
        """Record the use of a model and count it in the session.

        Args:
            model: the model's name.
            input_tokens: tokens read.
            output_tokens: tokens written.
            cost: the price in US dollars.
        """

        self.track_made(
            lambda: self._counted().count_tokens(
                model, input_tokens, output_tokens, cost
            )
        )

    def record_error(self, message: str) -> None:
        """Count an error of the session; outside of one nothing happens.

        Args:
            message: what went wrong; it is part of the session's end, scrubbed.
        """

        self.track_made(lambda: self._counted().count_error(message))

    def record_session_end(self) -> None:
        """Record the end of the session, once."""
        self.track_made(lambda: self._counted().end(time.monotonic()))

    def track_made(self, make: "Callable[[], StructuredEvent | None]") -> None:
        """Track the event that `make` answers, if it does. One thread makes at a time.

        Of this package, not public. What `make` raises is counted.
        """
        if self._refuse_inside_first() or is_switched_off():
            return
        if self._off is not None and self._pipeline is None:
            return  # nothing is loaded to make it
        try:
            with self._session_lock:
                event = make()
        except Exception as error:
            self._fail(error)
        else:
            if event is not None:
                self.track(event)

    def flush(self, *, timeout_s: float = 10.0) -> "FlushReport":
        """Deliver what waits. What is not delivered is kept.

        One flusher runs at a time: beside another one this answers `busy` at once.

        Args:
            timeout_s: seconds until the answer at the latest; at most a day.

        Returns:
            What came of it. It raises nothing for what network, server or disk do.
        """
        if get_ident() in self._inside or is_loading():
            return _busy_report()
        try:
            pipeline = self._pipeline or self._open()
            self._count_waiting()
            if pipeline is not None:
                return pipeline.flush(timeout_s=timeout_s)
            if self._asking is not None:
                return self._asking.in_process().flush(timeout_s=timeout_s)
            if self._off is None:
                return _busy_report()
            stopped: Stopped = "off"
        except Exception as error:
            self._fail(error, is_loss=False)
            stopped = "disk"
        try:
            from telemetry.delivery.report import FlushReport
        except CANNOT_LOAD as error:
            nothing: FlushReport = _stand_in("FlushReport", error)
            return nothing
        return FlushReport(stopped=stopped)

    def close(self) -> None:
        """Release the segment. It does not flush; events may follow."""
        try:
            pipeline = self._pipeline
            if pipeline is not None:
                pipeline.close()
            self._count_waiting()
        except Exception as error:
            self._fail(error, is_loss=False)

    def switch_off(self) -> None:
        """Record and send nothing any more, as with `Config(enabled=False)`."""
        try:
            with self._lock:
                self._off = Decision("program", "the program turned it off", on=False)
                pipeline, self._pipeline = self._pipeline, None
            if pipeline is not None:
                import msgspec

                off = msgspec.structs.replace(pipeline.config, enabled=False)
                pipeline.set_config(off)
        except Exception as error:
            self._fail(error, is_loss=False, may_raise=False)

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: "type[BaseException] | None",
        error: "BaseException | None",
        traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def decision(self) -> "Decision":
        """Whether it is on, and the rule that decided. Creates nothing."""
        if self._off is not None:
            return self._off
        try:
            from telemetry.pipeline import decide_for
        except CANNOT_LOAD as error:
            return Decision("program", f"a module cannot be loaded: {error}", on=False)
        return decide_for(self.config, may_show=False)

    def _open(self) -> "Pipeline | None":
        """The parts, made once; None where telemetry is off, or they may not be waited for."""
        if self._off is not None:
            return None
        # Off by environment: nothing more is loaded.
        self._off = environment_decision(os.environ)
        if self._off is not None:
            return None
        patience = patience_s()
        if patience > 0 and self._has_waited:
            # A handler that comes again and again would be all that runs.
            patience = 0.0
        if not self._lock.acquire(timeout=patience):
            self._has_waited = True
            return None
        try:
            if self._is_making:
                from telemetry.errors import BusyError

                raise BusyError("inside the first event; nothing was done")
            if self._pipeline is None:
                self._is_making = True
                try:
                    pipeline = self._make_pipeline()
                finally:
                    self._is_making = False
                if not self._is_off():  # a signal's handler may have turned it off
                    self._pipeline = pipeline
            return self._pipeline
        finally:
            self._lock.release()

    def _is_off(self) -> bool:
        return self._off is not None

    def _make_pipeline(self) -> "Pipeline | None":
        from telemetry.pipeline import Pipeline, decide_for

        decision = decide_for(self.config)
        if decision.on:
            return Pipeline(
                self.config,
                mistakes=self._mistakes,
                own_key=self._own_key(),
                http=self._http,
                logger=self.logger,
                refused=self._uncounted,
            )
        self._off = decision
        if decision.asks:
            from telemetry.pipeline import ask_to_delete

            self._asking = ask_to_delete(
                self.config, http=self._http, logger=self.logger
            )
        return None

    def _introduce(self, *, is_debug: bool) -> None:
        """What is wrong with the settings is told, and in debug mode what holds."""
        if is_debug:
            self._debug = self.logger
        if environment_decision(os.environ) is None:
            from telemetry.mistakes import sentence, tell

            own_key = self._own_key()
            told = [own_key.without(sentence(each)) for each in self._mistakes]
            tell(told, self.logger)
        for error in self._mistakes:
            if error.field == "enabled":
                self._off = Decision("program", str(error), on=False)
        if self._debug is not None:
            self._debug.debug("%r", self)

    def _counted(self) -> "SessionState":
        from telemetry.session import SessionState

        if self._session is None:
            self._session = SessionState()
        return self._session

    def _fail(
        self, error: "Exception", *, is_loss: bool = True, may_raise: bool = True
    ) -> None:
        """Count and log what was not recorded; raise it where that is asked for."""
        try:
            self._count_and_say(error, is_loss=is_loss, may_raise=may_raise)
        except MemoryError as another:
            if another is error:
                raise  # as `strict` wants, or the host's own

    def _count_and_say(
        self, error: "Exception", *, is_loss: bool, may_raise: bool
    ) -> None:
        if self._is_finalizing():
            return  # a finalizer at the very end: nothing can be loaded or counted
        try:
            from telemetry.errors import OffError, RefusedError
        except CANNOT_LOAD:
            # Or a signal handler that records, inside of this very import.
            if is_loss:
                self._uncounted.append(("busy", 1))
            return
        if not isinstance(error, RefusedError) or error.__context__ is not None:
            _pass_on(error)  # else it is ours, and was made from no other
        if isinstance(error, OffError):
            self._off = Decision("remembered", str(error), on=False)
            self._say_refusal(error, error.reason, is_loss=is_loss)
            return
        reason = error.reason if isinstance(error, RefusedError) else "internal"
        if is_loss:
            self._count(reason)
        self._say_refusal(error, reason, is_loss=is_loss)
        if may_raise and self._config is not None and self._config.strict is True:
            raise error

    def _count(self, reason: str) -> None:
        try:
            if self._pipeline is not None:
                self._pipeline.refuse(reason)
            elif reason != "no_home":  # nothing is written into a home that was refused
                self._uncounted.append((reason, 1))
                self._count_waiting()
        except Exception as another:
            _pass_on(another)  # it is counted, but no flush begins here

    def _say_refusal(self, error: "Exception", reason: str, *, is_loss: bool) -> None:
        count = self._refusals[reason] = self._refusals.get(reason, 0) + 1
        if count & (count - 1):
            return  # ever more rarely: a handler that tracks what it is given
        what = f"not recorded ({reason})" if is_loss else "no flush was begun"
        if reason not in {"disk_error", "no_home"}:
            if self.logger is not None:
                self.logger.debug("%s: %s", what, error)
        elif count == 1:
            # It lasts, and told ever again it would go on for ever.
            try:
                from telemetry.mistakes import tell
            except CANNOT_LOAD:
                return  # it is counted

            tell([f"{what}: {error}"], self.logger)


def _pass_on(error: "Exception") -> None:
    """Raise it if it is the host's own."""
    try:
        from telemetry.interrupts import pass_on
    except CANNOT_LOAD:
        return
    pass_on(error)


def _stand_in(name: str, error: Exception) -> "Any":
    """What the host is given where a class cannot be loaded."""
    try:
        from telemetry.absent import stand_in

        return stand_in(name, error)()
    except CANNOT_LOAD:
        return absent()()


def _busy_report() -> "FlushReport":
    """What a flush inside of the first event, or of an import of ours, answers."""
    module = sys.modules.get("telemetry.delivery.report")
    report: Any = getattr(module, "FlushReport", None) or absent()
    busy: FlushReport = report(stopped="busy")
    return busy


def _after_fork(client: "Client | None") -> None:
    if client is not None:
        client.after_fork()


def _unload_unfinished() -> None:
    """In a forked child, before its clients go on: unload what nobody loads to its end.

    A thread of the parent that was loading a module is not there in the child, and
    Python's lock of that module is never released: the first event would wait for ever.
    Where it was loading one of ours, all that it was loading is unloaded, and loaded
    anew when it is needed.
    """
    owners = imports_under_way()
    gone = {owner for name, owner in owners.items() if name.startswith("telemetry.")}
    for name, owner in owners.items():
        if owner in gone - {None, get_ident()}:
            IMPORT_LOCKS.pop(name, None)
            sys.modules.pop(name, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unload_unfinished)

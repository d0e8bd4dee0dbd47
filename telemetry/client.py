"""One client: the public methods, and what keeps them from harming the host.

It is handed what it needs and reads no global but the environment. Its parts (the
`Pipeline`) are made at the first event, so that a client that records nothing costs
nothing and leaves nothing on disk.

Nothing is raised into the host unless `Config.strict` says so: a public method
answers, counts what it could not keep under its reason, and returns. The exceptions
are not ours to keep: what a signal handler of the host raises while a method runs
reaches the host (`interrupts.py`), as KeyboardInterrupt and SystemExit do.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import RLock
from _weakref import ref

from telemetry.switches import Decision, environment_decision, is_switched_off


TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from typing_extensions import Self

    from telemetry.config import Config
    from telemetry.delivery.report import FlushReport
    from telemetry.events import StructuredEvent
    from telemetry.logs import TelemetryLogger
    from telemetry.pipeline import Pipeline
    from telemetry.session import SessionState
    from telemetry.wire.endpoint import HTTPClient
    from telemetry.wire.verdict import Stopped


class Client:
    """Records events into a spool and has them delivered. Safe for threads and forks.

    Args:
        config: the settings; see `Config`.
        http: used instead of a `urllib3.PoolManager`. With it, `launch` mode becomes
            `thread`, since it cannot be handed to another process.
        logger: used instead of the library's own.

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
        config: Config,
        *,
        http: HTTPClient | None = None,
        logger: TelemetryLogger | None = None,
    ) -> None:
        self._begin(config, config.app, http, logger)

    @classmethod
    def off(cls, app: str) -> Client:
        """A client that records nothing and has loaded nothing to do so."""
        client = cls.__new__(cls)
        client._begin(None, app, None, None)  # noqa: SLF001 - its other constructor
        return client

    def _begin(
        self,
        config: Config | None,
        app: str,
        http: HTTPClient | None,
        logger: TelemetryLogger | None,
    ) -> None:
        self._config = config
        self._app = app
        self._http = http
        # Anything else would raise wherever something is logged, in a thread as well.
        self._logger = logger if hasattr(logger, "warning") else None
        self._version: str | None = None
        self._pipeline: Pipeline | None = None
        self._session: SessionState | None = None
        self._off: Decision | None = None
        # How often each reason for a refusal came up, for the log.
        self._refusals: dict[str, int] = {}
        if config is None:
            self._off = environment_decision(os.environ) or Decision(
                "program", "it was given settings that cannot be used", on=False
            )
        self._lock = RLock()
        myself = ref(self)
        os.register_at_fork(after_in_child=lambda: _after_fork(myself()))

    @property
    def config(self) -> Config:
        """The settings it was made with."""
        if self._config is None:
            from telemetry.config import Config

            self._config = Config(app=self._app, enabled=False)
        return self._config

    def after_fork(self) -> None:
        """In a forked child: forget what belongs to the parent."""
        self._lock = RLock()
        if self._pipeline is not None:
            self._pipeline.after_fork()

    @property
    def logger(self) -> TelemetryLogger | None:
        """The logger in use; None if logging is not set up."""
        debug = self._config is not None and self._config.debug
        from telemetry.logs import quiet_logger

        return self._logger or quiet_logger(debug=debug)

    @property
    def version(self) -> str:
        """The program's version, as events carry it."""
        return self.config.version if self._version is None else self._version

    @version.setter
    def version(self, version: str) -> None:
        self._version = version
        if self._pipeline is not None:
            self._pipeline.set_version(version)

    def track(self, event: StructuredEvent) -> bool:
        """Record an event: it is in the spool, and survives a kill, on `True`.

        Args:
            event: one of `telemetry.events`, or an object with its two methods.

        Returns:
            Whether it was recorded. A loss is counted by its reason.

        Raises:
            RefusedError: only with `Config(strict=True)`.
        """
        try:
            pipeline = self._pipeline or self._open()
            if pipeline is None or is_switched_off():
                return False
            pipeline.record(event)
        except Exception as error:
            self._fail(error)
            return False
        if not pipeline.is_started or pipeline.envelope.warnings:
            try:
                pipeline.attend()
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
        try:
            from telemetry.events import SessionStartEvent
            from telemetry.session import start

            with self._lock:
                self._session = start(session_id, agent_name, time.monotonic())
            event = SessionStartEvent("start", session_id, agent_name)
        except Exception as error:
            self._fail(error)
        else:
            self.track(event)
        return session_id

    def record_tool_call(
        self,
        tool_name: str,
        session_id: str,
        agent_name: str,
        duration: timedelta,
        error: BaseException | str | None = None,
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
        try:
            from telemetry.events import ToolEvent
            from telemetry.session import message, milliseconds

            text, duration_ms = message(error), milliseconds(duration)
            with self._lock:
                self._counted().count_tool_call(text)
            event = ToolEvent(
                action="call",
                tool_name=tool_name,
                session_id=session_id,
                agent_name=agent_name,
                duration_ms=duration_ms,
                success=text is None,
                error=text or "",
            )
        except Exception as failure:
            self._fail(failure)
        else:
            self.track(event)

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
        try:
            from operator import index

            from telemetry.events import TokenEvent
            from telemetry.session import number

            # Before anything is counted: one bad number must not spoil the sums.
            input_tokens = number("input_tokens", input_tokens, index)
            output_tokens = number("output_tokens", output_tokens, index)
            cost = number("cost", cost, float)
            with self._lock:
                session = self._counted()
                session.count_tokens(input_tokens, output_tokens, cost)
                session_id, agent_name = session.id, session.agent_name
            event = TokenEvent(
                action="usage",
                model_name=model,
                session_id=session_id,
                agent_name=agent_name,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                total_tokens=input_tokens + output_tokens,
                cost=cost,
            )
        except Exception as error:
            self._fail(error)
        else:
            self.track(event)

    def record_error(self, message: str) -> None:
        """Count an error of the session; outside of one nothing happens.

        Args:
            message: what went wrong; it is part of the session's end, scrubbed.
        """
        try:
            from telemetry.session import message as as_text

            with self._lock:
                self._counted().count_error(as_text(message) or "")
        except Exception as error:
            self._fail(error)

    def record_session_end(self) -> None:
        """Record the end of the session, once."""
        try:
            with self._lock:
                event = self._counted().end(time.monotonic())
        except Exception as error:
            self._fail(error)
        else:
            if event is not None:
                self.track(event)

    def flush(self, *, timeout_s: float = 10.0) -> FlushReport:
        """Deliver what waits. What is not delivered is kept.

        One flusher runs at a time: beside another one this answers `busy` at once.

        Args:
            timeout_s: seconds until the answer at the latest; at most a day.

        Returns:
            What came of it. It raises nothing for what network, server or disk do.
        """
        try:
            pipeline = self._pipeline or self._open()
            if pipeline is not None:
                return pipeline.flush(timeout_s=timeout_s)
            stopped: Stopped = "off"
        except Exception as error:
            self._fail(error, is_loss=False)
            stopped = "disk"
        from telemetry.delivery.report import FlushReport

        return FlushReport(stopped=stopped)

    def close(self) -> None:
        """Release the segment. It does not flush; events may follow."""
        try:
            pipeline = self._pipeline
            if pipeline is not None:
                pipeline.close()
        except Exception as error:
            self._fail(error, is_loss=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def decision(self) -> Decision:
        """Whether it is on, and the rule that decided. Creates nothing."""
        from telemetry.pipeline import decide_for

        return self._off or decide_for(
            self.config, os.environ, sys.platform, may_show=False
        )

    def _open(self) -> Pipeline | None:
        """The parts, made once; None where telemetry is off."""
        if self._off is not None:
            return None
        # Off by environment: nothing more is loaded.
        self._off = environment_decision(os.environ)
        if self._off is not None:
            return None
        from telemetry.pipeline import Pipeline, decide_for

        if self._lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001 - see SpoolWriter.append
            from telemetry.errors import BusyError

            raise BusyError("an event inside the first event; it was not recorded")
        with self._lock:
            if self._pipeline is None:
                decision = decide_for(self.config, os.environ, sys.platform)
                if not decision.on:
                    self._off = decision
                    return None
                self._pipeline = Pipeline(
                    self.config,
                    version=self.version,
                    http=self._http,
                    logger=self.logger,
                    environment=os.environ,
                    platform=sys.platform,
                )
            return self._pipeline

    def _counted(self) -> SessionState:
        from telemetry.session import SessionState

        if self._session is None:
            self._session = SessionState()
        return self._session

    def _fail(
        self, error: Exception, *, is_loss: bool = True, may_raise: bool = True
    ) -> None:
        """Count and log what was not recorded; raise it where that is asked for."""
        if self._is_finalizing():
            return  # a finalizer at the very end: nothing can be loaded or counted
        try:
            from telemetry.errors import DiskError, HomeError, OffError, RefusedError
            from telemetry.interrupts import pass_on
        except (ImportError, OSError):
            # A signal handler that records, inside of these very imports; or no
            # descriptor is left to load them with.
            try:
                if is_loss and self._pipeline is not None:
                    self._pipeline.refuse("busy")
            except (ImportError, OSError):
                pass  # not counted either
            return
        pass_on(error)
        if isinstance(error, OffError):
            self._off = Decision("remembered", str(error), on=False)
            return
        reason = error.reason if isinstance(error, RefusedError) else "internal"
        if is_loss and self._pipeline is not None:
            self._pipeline.refuse(reason)
        count = self._refusals[reason] = self._refusals.get(reason, 0) + 1
        # A disk or home that cannot be used is logged once, other reasons ever more
        # rarely: a handler that tracks what it is given would go on for ever.
        is_lasting = isinstance(error, (DiskError, HomeError))
        logger = self.logger
        if logger and (count == 1 or (not is_lasting and count & (count - 1) == 0)):
            what = f"not recorded ({reason})" if is_loss else "no flush was begun"
            logger.debug("%s: %s", what, error)
        if may_raise and self._config is not None and self._config.strict is True:
            raise error


def _after_fork(client: Client | None) -> None:
    if client is not None:
        client.after_fork()

"""One pipeline: wires consent, envelope, spool and flusher together.

It is handed what it needs and reads no global but the environment. Its parts
are made at the first event, so that a client that records nothing costs
nothing and leaves nothing on disk.

Nothing is raised into the host unless `Config.strict` says so: a public method
answers, counts what it could not keep under its reason, and returns.
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


class Client:
    """Records events into a spool and has them delivered.

    `http` stands in for the `urllib3.PoolManager` that a flush would use; with
    it, `launch` mode becomes `thread`, since it cannot be handed to another
    process. `logger` replaces the library's own. Safe for threads and forks.
    """

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
        self._logger = logger
        self._version: str | None = None
        self._pipeline: Pipeline | None = None
        self._session: SessionState | None = None
        self._off: Decision | None = None
        self._told = ""
        if config is None:
            self._off = environment_decision(os.environ) or Decision(
                "program", "it was given settings that cannot be used", on=False
            )
        self._lock = RLock()
        myself = ref(self)
        os.register_at_fork(after_in_child=lambda: _after_fork(myself()))

    @property
    def config(self) -> Config:
        """What it was told."""
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
        """Where it logs; None where nobody could see it."""
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
        """Whether the event is recorded: True means that it survives a kill.

        False: telemetry is off, or the event was refused and counted by reason.
        Raises a RefusedError only with `Config.strict`.
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
                self._debug("no flush was begun: %s", error)
        return True

    def record_session_start(self, agent_name: str, session_id: str) -> str:
        """Begin a session and record that; answers `session_id`."""
        try:
            from telemetry.events import SessionStartEvent
            from telemetry.session import start

            with self._lock:
                self._session = start(session_id, agent_name, time.monotonic())
            event = SessionStartEvent(
                action="start", session_id=session_id, agent_name=agent_name
            )
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

        `duration` is cut toward zero to whole milliseconds. An exception is
        recorded by its class and its scrubbed message, a text as it is, scrubbed.
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
        """Record tokens and their price in US dollars; count them in the session."""
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
        """Count an error of the session; outside of one nothing happens."""
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
        """Deliver what waits, for at most `timeout_s` seconds, and say what came of it.

        It never raises for what network, server or disk do, and what is not
        delivered is kept. One flusher runs at a time: beside another one this
        answers `busy` at once.
        """
        from telemetry.delivery.report import FlushReport

        try:
            pipeline = self._pipeline or self._open()
            if pipeline is None:
                return FlushReport(stopped="off")
            return pipeline.flush(timeout_s=timeout_s)
        except Exception as error:
            self._fail(error, is_loss=False)
            return FlushReport(stopped="disk")

    def close(self) -> None:
        """Let go of the segment. It does not flush; events may follow."""
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

    def _fail(self, error: Exception, *, is_loss: bool = True) -> None:
        """Count and log what was not recorded; raise it where that is asked for."""
        from telemetry.errors import DiskError, HomeError, OffError, RefusedError

        if isinstance(error, OffError):
            self._off = Decision("remembered", str(error), on=False)
            return
        reason = error.reason if isinstance(error, RefusedError) else "internal"
        # A disk or home that cannot be used is told once, not at each event.
        is_lasting = isinstance(error, (DiskError, HomeError))
        if not is_lasting or self._told != reason:
            self._debug(f"not recorded ({reason}): %s", error)
        if is_lasting:
            self._told = reason
        if is_loss and self._pipeline is not None:
            self._pipeline.refuse(reason)
        if self._config is not None and self._config.strict is True:
            raise error

    def _debug(self, message: str, error: Exception) -> None:
        """One line where anybody logs."""
        try:
            logger = self.logger
            if logger is not None:
                logger.debug(message, error)
        except Exception:  # noqa: S110 - a logger of the host's that raises
            pass


def _after_fork(client: Client | None) -> None:
    if client is not None:
        client.after_fork()

"""The parts of one client that is on: envelope, spool, and how they are flushed.

Made at a client's first event, in this order: consent, the home, the user's id,
the envelope, the spool. Nothing is written before consent was looked at, and
nothing heavy is loaded here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from telemetry.config import Config
from telemetry.consent import consent
from telemetry.envelope import Envelope
from telemetry.errors import ConfigError, DiskError, HomeError
from telemetry.files import make_directory, make_empty, make_home
from telemetry.identity import user_uuid
from telemetry.paths import Home, home_of
from telemetry.spool.writer import SpoolWriter
from telemetry.switches import Decision


TYPE_CHECKING = False
if TYPE_CHECKING:
    from telemetry.delivery.dispatch import Dispatcher
    from telemetry.delivery.report import FlushReport
    from telemetry.events import StructuredEvent
    from telemetry.logs import TelemetryLogger
    from telemetry.privacy import Scrubber
    from telemetry.wire.endpoint import HTTPClient


class Pipeline:
    """Records events and has them flushed. Raises what its client guards against."""

    def __init__(
        self,
        config: Config,
        *,
        version: str,
        http: HTTPClient | None,
        logger: TelemetryLogger | None,
        environment: Mapping[str, str],
        platform: str,
    ) -> None:
        self.config, problems = msgspec.structs.replace(config, version=version).sound()
        for problem in problems:
            if logger is not None:
                logger.warning("%s; its default is used", problem)
        self.home = home_of(
            config.app, home=config.home, environment=environment, platform=platform
        )
        self._environment = environment
        self._http = http
        self._logger = logger
        self._pid = os.getpid()
        # Refusals by reason that are not in the file of counts yet.
        self._refused: list[tuple[str, int]] = []
        self._dispatcher: Dispatcher | None = None
        self.is_started = False
        prepare(self.home)
        self.envelope = Envelope(
            source=self.config.wire_source(),
            version=self.config.version,
            user_uuid=user_uuid(self.home.user_uuid),
            scrub=_scrubber(self.config, environment, platform),
            event_bytes_max=self.config.event_bytes_max,
            environment=environment,
        )
        self.writer = SpoolWriter(
            self.home,
            spool_bytes_max=self.config.spool_bytes_max,
            segment_bytes_max=self.config.segment_bytes_max,
            power=self.config.durability == "power",
            prepare=self._prepare,
            allowed=self.is_allowed,
        )

    def _prepare(self) -> None:
        """What a segment needs, each time that one is taken.

        A home that was forgotten and made anew has another user's id, too.
        """
        prepare(self.home)
        self.envelope.user_uuid = user_uuid(self.home.user_uuid)

    def record(self, event: StructuredEvent) -> None:
        """The event is in the spool on return. Raises a RefusedError."""
        if os.getpid() != self._pid:
            self.after_fork()
        self.writer.append(self.envelope.seal(event))

    def attend(self) -> None:
        """Log what was changed to keep an event; after the first one, see to a flush.

        To be called until `is_started`, and where `envelope.warnings` has any. Whatever
        it raises, the events before it are recorded.
        """
        if not self.is_started:
            self.is_started = True
            if self.config.flush_mode(self._environment) != "manual":
                others_wait = self.writer.waiting_bytes > 0
                self._dispatch().begin(others_wait=others_wait)
        if self.envelope.warnings:
            self._warn()

    def flush(self, *, timeout_s: float) -> FlushReport:
        """Deliver what waits, for at most `timeout_s` seconds."""
        return self._dispatch().in_process().flush(timeout_s=timeout_s)

    def set_version(self, version: str) -> None:
        """Events and requests carry this version from now on."""
        self.config, _ = msgspec.structs.replace(self.config, version=version).sound()
        self.envelope.version = self.config.version
        if self._dispatcher is not None:
            self._dispatcher.set_config(self.config)

    def refuse(self, reason: str) -> None:
        """Count a refusal, where the disk permits; else with the next one."""
        self._refused.append((reason, 1))
        self._count_refused()

    def is_allowed(self) -> bool:
        """Whether the environment and the user's choice still allow it.

        A home that was removed with its consent has the notice due again.
        """
        return consent(self.home, self._environment, self.config).on

    def after_fork(self) -> None:
        """Forget what belongs to the parent. Call it in a child."""
        self._pid = os.getpid()
        self._refused = []
        # What flushes for the parent may end with it (a daemon's parent).
        self.is_started = False
        self._dispatcher = None
        self.envelope.ids.renew()
        self.writer.after_fork()

    def close(self) -> None:
        """Release the segment; until the process ends no flush begins by itself."""
        self.writer.close()
        if self._dispatcher is not None:
            self._dispatcher.stop()
        self._count_refused()

    def _count_refused(self) -> None:
        # After an opt-out the file is gone and is not made again.
        if not self._refused or not (
            os.path.lexists(self.home.refused) or self.is_allowed()
        ):
            return
        try:
            from telemetry.spool import refusals
        except ImportError:
            return  # a signal handler inside of this very import: with the next one
        refusals.count(self.home.refused, self._refused)

    def _dispatch(self) -> Dispatcher:
        if self._dispatcher is None:
            from telemetry.delivery.dispatch import Dispatcher

            self._dispatcher = Dispatcher(
                self.config,
                self.home,
                environment=self._environment,
                http=self._http,
                logger=self._logger,
            )
        return self._dispatcher

    def _warn(self) -> None:
        warnings, self.envelope.warnings = self.envelope.warnings, []
        if self._logger is not None:
            for warning in warnings:
                self._logger.warning("%s", warning)


def decide_for(
    config: Config,
    environment: Mapping[str, str],
    platform: str,
    *,
    may_show: bool = True,
) -> Decision:
    """Whether telemetry is on for a config, and why. Creates nothing but a choice.

    A program with a notice is on only once the notice was shown and that was
    remembered; where it can be shown now, and `may_show`, it is.
    """
    try:
        home: Home | None = home_of(
            config.app, home=config.home, environment=environment, platform=platform
        )
    except (HomeError, ConfigError, TypeError):
        home = None  # recording will say so; consent does not depend on it
    decision = consent(home, environment, config)
    if may_show and decision.rule == "notice" and home and config.notice:
        from telemetry.notice import show

        show(config.notice, config.notice_version, home, environment)
        return consent(home, environment, config)
    if may_show and home and not decision.is_finished:
        from telemetry.delivery.opt_out import finish_opt_out

        try:
            finish_opt_out(home)
        except OSError:
            pass  # the next launch tries again, and `disable` says what is left
    return decision


def prepare(home: Home) -> None:
    """The home and its spool exist on return. Raises HomeError and DiskError.

    Killed on the way, the next launch goes on: a reader of a file that is not
    there yet does without it or makes it.
    """
    is_new = make_home(home.root)
    try:
        if is_new or not os.path.isdir(home.spool):
            from telemetry.delivery import schedule
            from telemetry.spool import refusals

            # What has to work on a full disk is made while there is room.
            schedule.make(home.next_flush)
            refusals.make(home.refused)
            make_empty(home.flush_lock)
        make_directory(home.spool)
    except OSError as error:
        raise DiskError(home.root, error.strerror or str(error)) from error


def _scrubber(
    config: Config, environment: Mapping[str, str], platform: str
) -> Scrubber | None:
    if not config.scrub:
        return None
    from telemetry.privacy import Scrubber, identity_from

    homes, users = identity_from(environment, platform)
    return Scrubber(homes=homes, users=users, key=config.api_key)

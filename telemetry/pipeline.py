"""The parts of one client that is on: envelope, spool, and how they are flushed.

Made at a client's first event, in this order: consent, the home, the user's id, the
envelope, the spool. Nothing is written before consent was looked at.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from telemetry.config import Config
from telemetry.consent import consent, stored_choice
from telemetry.envelope import Envelope, of_another_user
from telemetry.errors import (
    BusyError,
    ConfigError,
    DiskError,
    HomeError,
    OffError,
    quietly,
    raise_the_hosts,
)
from telemetry.files import make_directory, make_empty, make_home
from telemetry.identity import user_uuid
from telemetry.paths import Home, home_of
from telemetry.spool.writer import SpoolWriter
from telemetry.switches import CANNOT_LOAD, Decision, ci_variable


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from telemetry.delivery.dispatch import Dispatcher
    from telemetry.delivery.report import FlushReport
    from telemetry.events import StructuredEvent
    from telemetry.logs import TelemetryLogger
    from telemetry.privacy import OwnKey
    from telemetry.wire.endpoint import HTTPClient


class Pipeline:
    """Records events and has them flushed. Raises what its client guards against."""

    def __init__(
        self,
        config: Config,
        *,
        mistakes: Sequence[ConfigError],
        own_key: OwnKey,
        http: HTTPClient | None,
        logger: TelemetryLogger | None,
        refused: list[tuple[str, int]],
    ) -> None:
        self.config = config
        self.home = _home_of(config)
        self._http = http
        self._logger = logger
        self._pid = os.getpid()
        # Refusals by reason that are not in the file of counts yet: the client's, which
        # outlives a pipeline that cannot be made.
        self._refused = refused
        self._counts_at_exit = False
        self._count: Callable[..., None] | None = None
        self._dispatcher: Dispatcher | None = None
        self.is_started = False
        self._make_parts(mistakes, own_key)
        self.count_refused()

    def _make_parts(self, mistakes: Sequence[ConfigError], own_key: OwnKey) -> None:
        config, scrub, context = self.config, None, None
        self._make_home()
        self._top = _top()
        # The first segment is taken right after, and finds all of it done: its client
        # has just asked for consent, too.
        self._is_prepared = True
        self._remember(mistakes, own_key)
        if config.scrub:
            from telemetry.privacy import Scrubber, identity_from

            homes, users = identity_from(os.environ)
            scrub = Scrubber(homes=homes, users=users)
        if config.context != "none":
            from telemetry.machine import basic_context

            context = basic_context(os.environ, sys.platform)
        self.envelope = Envelope(
            source=config.wire_source(),
            version=config.version,
            user_uuid=self._user_uuid(),
            scrub=scrub,
            own_key=own_key,
            event_bytes_max=config.event_bytes_max,
            environment=os.environ,
            tags=config.tags,
            context=context,
        )
        self.writer = SpoolWriter(
            self.home,
            spool_bytes_max=config.spool_bytes_max,
            segment_bytes_max=config.segment_bytes_max,
            power=config.durability == "power",
            prepare=self._prepare,
            allowed=self._may_record,
        )

    def _prepare(self) -> str:
        """What a segment needs, each time that one is taken; the id of its events.

        A home that was forgotten and made anew has another user's id, too.
        """
        if not self._is_prepared:
            if _top() != self._top and not os.path.lexists(self.home.root):
                # What is recorded in there is found by no launch and no tool.
                problem = "is out of reach since this process changed its root (chroot)"
                raise HomeError(self.home.root, problem)
            self._make_home()
            self.envelope.user_uuid = self._user_uuid()
        self._is_prepared = False
        return self.envelope.user_uuid

    def _make_home(self) -> None:
        """The home; and a tool that is told to forget finds that there is an address.

        The ledger says so only once a flush has ended, and the id is removed meanwhile.
        """
        prepare(self.home)
        if self.config.deletion_endpoint and not os.path.lexists(self.home.deletes):
            try:
                make_empty(self.home.deletes)
            except OSError as error:
                raise_the_hosts(error)
                # No room for it: the next launch tries again.

    def _user_uuid(self) -> str:
        return user_uuid(self.home.user_uuid, is_ci=bool(ci_variable(os.environ)))

    def record(self, event: StructuredEvent) -> bytes:
        """The event as it will be posted: it is in the spool. Raises a RefusedError."""
        if os.getpid() != self._pid:
            self.after_fork()
        if self.writer.was_full:
            self.writer.refuse_while_full(self.envelope.bytes_min)
        try:
            user = self.envelope.user_uuid
            sealed = self.envelope.seal(event)
            try:
                self.writer.append(sealed, user)
            except BusyError:
                if self.envelope.user_uuid == user:
                    raise
                # Telemetry was turned off and on again. Under the old id the event
                # would recreate what a server has deleted. The event's own id stays:
                # it may stand in a home that was moved away just now, and comes back.
                now = self.envelope.user_uuid
                sealed = of_another_user(sealed, user, now)
                self.writer.append(sealed, now)
        except OffError:
            self._remove_late_id()
            raise
        finally:
            self._is_prepared = False
        return sealed

    def _remove_late_id(self) -> None:
        """An id that was made right behind an opt-out that is finished goes as well."""
        try:
            choice = stored_choice(self.home.consent)
            if choice is not None and not choice.on and choice.is_finished:
                os.unlink(self.home.user_uuid)
        except OSError:
            pass  # it is gone; or what the user chose cannot be read just now

    def start(self, *, others_wait: bool | None = None) -> None:
        """See to a flush, once in a process: behind its first event, or its first refusal.

        Whatever it raises, the events before it are recorded.
        """
        self.is_started = True
        if others_wait is None:
            others_wait = self.writer.waiting_bytes > 0
        # In debug mode it is said that none begins.
        if self.config.debug or self.config.flush_mode(os.environ) != "manual":
            self._dispatch().begin(others_wait=others_wait)

    def flush(self, *, timeout_s: float) -> FlushReport:
        """Deliver what waits, for at most `timeout_s` seconds."""
        return self._dispatch().in_process().flush(timeout_s=timeout_s)

    def set_config(self, config: Config) -> None:
        """Events and requests carry the version of this config from now on."""
        self.config = config
        self.envelope.version = config.version
        if self._dispatcher is not None:
            self._dispatcher.set_config(config)

    def refuse(self, reason: str) -> None:
        """Count a refusal, where the disk permits; else with the next one.

        The first is counted at once, then two together: a kill costs one, and the
        process's end none. A flush is seen to here as well: where the spool or the disk
        is full nothing else makes room.
        """
        self._refused.append((reason, 1))
        is_first, self._counts_at_exit = not self._counts_at_exit, True
        if is_first:
            import atexit

            atexit.register(self._count_at_exit)
        if is_first or len(self._refused) > 1:
            self.count_refused()
        if not self.is_started and reason != "busy" and self.is_allowed():
            self.start(others_wait=True)

    def is_allowed(self) -> bool:
        """Whether the environment and the user's choice still allow it.

        A home that was removed with its consent has the notice due again.
        """
        return self._is_prepared or consent(self.home, os.environ, self.config).on

    def _may_record(self) -> bool:
        """The same; where that cannot be read just now it is no opt-out, but a loss."""
        if self._is_prepared:
            return True
        decision = consent(self.home, os.environ, self.config)
        if decision.is_transient:
            raise DiskError(self.home.consent, "it cannot be opened just now")
        return decision.on

    def after_fork(self) -> None:
        """Forget what belongs to the parent. Call it in a child."""
        self._pid = os.getpid()
        self._refused.clear()
        self._counts_at_exit = False
        # What flushes for the parent may end with it (a daemon's parent).
        self.is_started = False
        self._dispatcher = None
        self.envelope.after_fork()
        self.writer.after_fork()

    def close(self) -> None:
        """Release the segment; until the process ends no flush begins by itself."""
        self.writer.close()
        if self._dispatcher is not None:
            self._dispatcher.stop()
        self.count_refused()
        if self._counts_at_exit:
            import atexit

            self._counts_at_exit = False
            atexit.unregister(self._count_at_exit)

    def _count_at_exit(self) -> None:
        quietly(self.count_refused)

    def count_refused(self) -> None:
        """Write up the refusals that wait; what cannot be written waits on."""
        if not self._refused:
            return
        if self._count is None:
            try:
                from telemetry.spool.refusals import count
            except CANNOT_LOAD:
                return  # or a signal handler inside of this very import: with the next one
            self._count = count
        # After an opt-out the file is gone and is not made again.
        self._count(self.home.refused, self._refused, self.is_allowed)

    def _dispatch(self) -> Dispatcher:
        if self._dispatcher is None:
            from telemetry.delivery.dispatch import Dispatcher

            self._dispatcher = Dispatcher(
                self.config,
                self.home,
                environment=os.environ,
                http=self._http,
                # Flushes speak in debug mode alone: in a handler that takes its time
                # they would hold up the program's end.
                logger=self._logger if self.config.debug else None,
                release=self.writer.close,
            )
        return self._dispatcher

    def _remember(self, mistakes: Sequence[ConfigError], own_key: OwnKey) -> None:
        """What is wrong stands beside the events, for `status`, until it is mended."""
        lacks = self.config.lacks()
        if any(each.field == lacks for each in mistakes):
            lacks = ""  # it is named
        # A program may have no endpoint on purpose, unless events were sent before.
        if lacks == "endpoint" and not os.path.lexists(self.home.ledger):
            lacks = ""
        if mistakes or lacks or os.path.lexists(self.home.mistakes):
            from telemetry.mistakes import missing, remember, sentence

            mistakes = [*mistakes, missing(lacks)] if lacks else mistakes
            sentences = [own_key.without(sentence(each)) for each in mistakes]
            remember(self.home.mistakes, sentences)


def count_refused(config: Config, waiting: list[tuple[str, int]]) -> None:
    """Write up refusals of a client without a pipeline, in a counter that is there.

    It is there, or there was no room for it; after an opt-out none is made.
    """
    try:
        from telemetry.spool.refusals import count
    except CANNOT_LOAD:
        return
    count(_home_of(config).refused, waiting, lambda: False)


def _home_of(config: Config) -> Home:
    return home_of(
        config.app, home=config.home, environment=os.environ, platform=sys.platform
    )


def decide_for(config: Config, *, may_show: bool = True) -> Decision:
    """Whether telemetry is on for a config, and why. Creates nothing but a choice.

    With `may_show` a notice that is due is shown, where it can be; and it raises OSError
    where no descriptor is left to look at the user's choice.
    """
    try:
        home: Home | None = _home_of(config)
    except (HomeError, ConfigError, TypeError):
        home = None  # recording will say so; consent does not depend on it
    decision = consent(home, os.environ, config)
    if may_show and decision.is_transient:
        raise OSError(errno.EMFILE, "the user's choice cannot be opened just now")
    if may_show and decision.rule == "notice" and home and config.notice:
        from telemetry.notice import show

        show(config.notice, config.notice_version, home, os.environ)
        return consent(home, os.environ, config)
    if may_show and home and not decision.is_finished:
        from telemetry.delivery.opt_out import finish_opt_out

        try:
            finish_opt_out(home)
        except OSError:
            pass  # the next launch tries again, and `disable` says what is left
    return decision


def ask_to_delete(
    config: Config, *, http: HTTPClient | None, logger: TelemetryLogger | None
) -> Dispatcher:
    """Has a request that the server delete what it has sent, as events are, when due."""
    from telemetry.delivery.dispatch import Dispatcher

    sound, _ = config.sound()
    dispatcher = Dispatcher(
        sound,
        _home_of(config),
        environment=os.environ,
        http=http,
        logger=logger if sound.debug else None,
        asks=True,
    )
    dispatcher.begin(others_wait=True)
    return dispatcher


def _top() -> tuple[int, int] | None:
    """Device and inode of the root directory; None where it is not told, or stays."""
    if not hasattr(os, "chroot"):
        return None
    try:
        found = os.stat("/")
    except OSError as error:
        raise_the_hosts(error)
        return None  # a sandbox hides it
    return found.st_dev, found.st_ino


def prepare(home: Home) -> None:
    """The home and its spool exist on return. Raises HomeError and DiskError.

    Killed on the way, the next launch goes on: who reads a file can do without it.
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
        path = str(error.filename or home.root)
        raise DiskError(path, error.strerror or str(error)) from error

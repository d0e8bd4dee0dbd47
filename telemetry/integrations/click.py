"""Recording programs built with click.

    from telemetry.integrations.click import instrument

    instrument(cli)
    cli()

The command may be somebody else's, imported from a program that knows nothing
of this. It is recorded however it is called: as a script, `standalone_mode` or
not, by a test runner.

How it works: a click context is a context manager that every run enters and
leaves, so the command is given a class of contexts that look on. Nothing stands
between the program and click, so no traceback gains a frame and no exception is
caught. Sub-commands make contexts of their own; click's own context class tells
of those, and does nothing for programs that were not instrumented.

A run is one event, chained commands included. What ends well while arguments
are still parsed (`--help`, `--version`) is no command and records nothing;
neither does shell completion, nor a group that answers with its help.

Nothing here imports click, nor changes what a command does, says or returns.
"""

from __future__ import annotations

import functools
from types import TracebackType
from typing import Any, TypeVar

from telemetry.integrations.click_reading import read_contexts
from telemetry.integrations.command import NAMES_ONLY, CommandPolicy, Reading, quietly
from telemetry.integrations.recording import (
    Settings,
    Stopwatch,
    Tracker,
    error_of,
    exits_well,
    leave_no_frame,
)


_Command = TypeVar("_Command")

# Where a root context keeps its run, and None when that is over. The name must
# not meet one of click's.
_RUN = "_telemetry_run"

# What a group raises to show its help instead of failing (click 8.2 and later;
# before, it left with status 0).
_HELP = "NoArgsIsHelpError"


def instrument(
    command: _Command,
    *,
    client: Tracker | None = None,
    policy: CommandPolicy = NAMES_ONLY,
    name: str | None = None,
) -> _Command:
    """`command` itself, each run of which is recorded from now on.

    `client`, `policy` and `name` are those of `Settings`; a second call replaces
    them. What is no click command is left alone.
    """
    settings = Settings(client=client, policy=policy, name=name)
    quietly(lambda: _instrument(command, settings), otherwise=None)
    return command


def _instrument(command: Any, settings: Settings) -> None:
    command.context_class = observed(command.context_class, settings)


def observed(context_class: Any, settings: Settings) -> Any:
    """A subclass of `context_class` whose root contexts record their run."""
    unobserved: Any = getattr(context_class, "_telemetry_unobserved", context_class)

    class Observed(unobserved):  # type: ignore[misc]
        _telemetry_unobserved = unobserved
        _telemetry_settings = settings

        def __exit__(
            self,
            exc_type: type[BaseException] | None,
            exc_value: BaseException | None,
            traceback: TracebackType | None,
        ) -> Any:
            try:
                swallowed = super().__exit__(exc_type, exc_value, traceback)
            except BaseException as exc:
                # A callback that runs at closing time failed.
                _left(self, exc)
                leave_no_frame(exc)
                raise
            # A failure that a resource of the context swallows is still one: click
            # leaves with status 1 then (since 8.5), having no result.
            _left(self, exc_value)
            return swallowed

    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(Observed, attribute, getattr(unobserved, attribute))
    _tell_entries(unobserved)
    return Observed


def _tell_entries(context_class: Any) -> None:
    """Make click's own context class tell a run of each context that is entered.

    There is no other place that every sub-command passes, whatever its class and
    however its group found it, and that leaves no frame in a traceback.
    """
    kind = next(kind for kind in context_class.__mro__ if "find_root" in vars(kind))
    enter = kind.__enter__
    if hasattr(enter, "_telemetry_tells"):
        return

    @functools.wraps(enter)
    def tell_and_enter(self: Any) -> Any:
        quietly(lambda: _entered(self), otherwise=None)
        return enter(self)

    tell_and_enter._telemetry_tells = True  # type: ignore[attr-defined]  # noqa: SLF001
    kind.__enter__ = tell_and_enter


def _entered(context: Any) -> None:
    root = context.find_root()
    settings = getattr(root, "_telemetry_settings", None)
    # Resilient parsing is shell completion.
    if settings is None or root.resilient_parsing:
        return
    if _RUN not in vars(root):
        vars(root)[_RUN] = _Run(root, settings)
    run = vars(root).get(_RUN)
    if run is not None:
        run.entered(context)


def _left(context: Any, failure: BaseException | None) -> None:
    run = vars(context).get(_RUN)
    if run is not None:
        quietly(lambda: run.left(failure), otherwise=None)


class _Run:
    """One run: its contexts, in the order in which they were first entered.

    click enters each context once to parse its arguments, holding it open from
    outside, and again to invoke its command. Either may enter it anew inside.
    """

    def __init__(self, root: Any, settings: Settings) -> None:
        self._stopwatch = Stopwatch(settings)
        self._root = root
        self._contexts: list[Any] = []
        self._invoked = False  # whether the root's own arguments are parsed
        self._parsing = False  # whether those of the latest context are not

    def entered(self, context: Any) -> None:
        if not _among(self._contexts, context):
            if context is not self._root and not self._dispatched(context):
                return
            self._contexts.append(context)
            self._parsing = True
        if _open(context) == 0:
            self._invoked = True
            self._parsing = False

    def _dispatched(self, context: Any) -> bool:
        # A command called by another (`ctx.invoke`) is nobody's sub-command: it
        # has nothing to parse. Nor is one that its parent did not announce.
        parent = context.parent
        announced = parent.invoked_subcommand in (context.info_name, "*")
        return announced and _open(context) > 0 and _among(self._contexts, parent)

    def left(self, failure: BaseException | None) -> None:
        held_by_parsing = 0 if self._invoked else 1
        if _open(self._root) > held_by_parsing:
            return
        if failure is None and not self._invoked:
            return  # parsed, and about to be invoked
        # From here on the program's objects live as long as without us.
        vars(self._root)[_RUN] = None
        if failure is not None and self._is_no_command(failure):
            return
        reading = quietly(
            lambda: read_contexts(self._contexts),
            otherwise=Reading(program=self._root.info_name or ""),
        )
        self._stopwatch.record(reading, error=error_of(failure))

    def _is_no_command(self, failure: BaseException) -> bool:
        if type(failure).__name__ == _HELP:
            return True
        return self._parsing and exits_well(failure)


def _among(contexts: list[Any], context: Any) -> bool:
    return any(known is context for known in contexts)


def _open(context: Any) -> int:
    """How often the context is held open: click closes it when that is zero.

    click keeps the number to itself, and has done so since its version 2.
    """
    depth: int = context._depth  # noqa: SLF001
    return depth

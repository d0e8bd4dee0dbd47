"""Recording programs built with typer.

    from telemetry.integrations.typer import instrument

    app = typer.Typer()
    instrument(app)

Before or after the commands are declared: it makes no difference, unless a
callback names a class of its own (`@app.callback(cls=…)`): then after it.

An app makes a new command each time it is called. So it is given the classes to make it
from: those it has, with contexts that look on (see `telemetry.integrations.click`, whose
rules hold here). An app that is mounted into another is recorded only where it runs by
itself. `typer.run(function)` makes an app of its own and cannot be instrumented.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from typer import Argument, Context, Option
from typer.core import TyperCommand, TyperGroup
from typer.main import Typer, get_command

from telemetry.config import CommandPolicy
from telemetry.integrations.click import observed
from telemetry.integrations.recording import Settings, Tracker, quietly


if TYPE_CHECKING:
    from telemetry.client import Client

# `get_command` is for `command`: what typer would make of an app now.
__all__ = ["get_command", "instrument", "telemetry_commands"]

_App = TypeVar("_App", bound=Typer)


def instrument(
    app: _App,
    *,
    client: Tracker | None = None,
    policy: CommandPolicy | None = None,
    name: str | None = None,
    signals: bool = True,
) -> _App:
    """`app` itself, each run of which is recorded from now on.

    `client`, `policy`, `name` and `signals` are those of `Settings`; a second call
    replaces them.
    """
    settings = Settings(client=client, policy=policy, name=name, signals=signals)
    quietly(lambda: _instrument(app, settings))
    return app


def telemetry_commands(
    app: Typer, *, client: Client | None = None, events: Iterable[str] = ()
) -> None:
    """Add `telemetry status|show|on|off|reset|forget` to a program.

    Args:
        app: the program's app. It has to have a callback or several commands: an app
            with one command alone has no sub-commands, and gets them by this.
        client: whose events; None for the process-wide client's. Configure it before
            these run, in the app's callback at the latest.
        events: the modules that define the program's own events, as for argparse.
    """
    from telemetry.integrations import own_commands as own

    kind = Enum("Action", {name: name for name in own.ACTIONS})  # type: ignore[misc]

    def act(
        context: Context,
        action: Any = Argument("status"),  # noqa: B008 - typer's own way
        page: bool = Option(False, "--page", help=f"{own.PAGE}.".capitalize()),
    ) -> None:
        program = f"{context.find_root().info_name} {own.NAME}"
        own.run(action.value, program, client=client, events=events, page=page)

    # typer looks the types of parameters up by name.
    act.__annotations__.update(context=Context, action=kind, page=bool)
    text = own.HELP.capitalize()
    listed = f"{text}:\n\n\b\n{own.LISTED}"
    app.command(own.NAME, help=listed, short_help=f"{text}.")(act)


def _instrument(app: Typer, settings: Settings) -> None:
    _observe(app.info, TyperGroup, settings)
    callback: Any = app.registered_callback
    if isinstance(getattr(callback, "cls", None), type):
        # Where a callback names a class, typer takes it instead of the app's.
        _observe(callback, TyperGroup, settings)
    app.registered_commands = _Commands(app.registered_commands, settings)


class _Commands(list[Any]):
    """An app's commands. A single one is asked for by its index, when the app runs.

    That is the moment to give it its class: it may have been declared only just now.
    """

    def __init__(self, commands: list[Any], settings: Settings) -> None:
        super().__init__(commands)
        self._settings = settings

    def __getitem__(self, index: Any) -> Any:
        command = super().__getitem__(index)
        quietly(lambda: _observe(command, TyperCommand, self._settings))
        return command


def _observe(holder: Any, default: Any, settings: Settings) -> None:
    """Put a subclass in the place of the class `cls`, or of `default` without one."""
    kind: Any = holder.cls if isinstance(holder.cls, type) else default
    kind = getattr(kind, "_telemetry_unobserved_command", kind)
    same = ("__doc__", "__module__", "__qualname__")
    members = {name: getattr(kind, name) for name in same}
    members["_telemetry_unobserved_command"] = kind
    members["context_class"] = observed(kind.context_class, settings)
    holder.cls = type(kind)(kind.__name__, (kind,), members)

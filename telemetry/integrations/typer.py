"""Recording programs built with typer.

    from telemetry.integrations.typer import instrument

    app = typer.Typer()
    instrument(app)

Before or after the commands are declared: it makes no difference, unless a
callback names a class of its own (`@app.callback(cls=…)`): then after it.

An app is no command, it makes a new one each time it is called. So it is given
the classes to make it from: those it has, with contexts that look on (see
`telemetry.integrations.click`, whose rules hold here). An app that is mounted
into another is recorded only where it runs by itself.

It changes nothing that a command does, says or returns. `typer.run(function)`
makes an app of its own and cannot be instrumented; a program that wants both
makes the app itself.
"""

from __future__ import annotations

from typing import Any, TypeVar

from typer.core import TyperCommand, TyperGroup
from typer.main import Typer, get_command

from telemetry.config import CommandPolicy
from telemetry.integrations.click import observed
from telemetry.integrations.recording import Settings, Tracker, quietly


_App = TypeVar("_App", bound=Typer)


def instrument(
    app: _App,
    *,
    client: Tracker | None = None,
    policy: CommandPolicy | None = None,
    name: str | None = None,
) -> _App:
    """`app` itself, each run of which is recorded from now on.

    `client`, `policy` and `name` are those of `Settings`; a second call replaces
    them.
    """
    settings = Settings(client=client, policy=policy, name=name)
    quietly(lambda: _instrument(app, settings), otherwise=None)
    return app


def command_of(app: Any) -> Any:
    """The command that typer would make of `app` now."""
    return get_command(app)


def _instrument(app: Typer, settings: Settings) -> None:
    app.info.cls = _observing(app.info.cls, TyperGroup, settings)
    callback: Any = app.registered_callback
    if isinstance(getattr(callback, "cls", None), type):
        # Where a callback names a class, typer takes it instead of the app's.
        callback.cls = _observing(callback.cls, TyperGroup, settings)
    app.registered_commands = _Commands(app.registered_commands, settings)


class _Commands(list[Any]):
    """An app's commands. With a single one, the app is made into that command.

    typer then asks for it by its index, which is the moment to give it its class:
    it may have been declared long after the app was instrumented.
    """

    def __init__(self, commands: list[Any], settings: Settings) -> None:
        super().__init__(commands)
        self._settings = settings

    def __getitem__(self, index: Any) -> Any:
        command = super().__getitem__(index)
        quietly(lambda: self._observe(command), otherwise=None)
        return command

    def _observe(self, command: Any) -> None:
        command.cls = _observing(command.cls, TyperCommand, self._settings)


def _observing(declared: Any, default: Any, settings: Settings) -> Any:
    """A subclass of the class that was declared, or of `default` where none was."""
    kind: Any = declared if isinstance(declared, type) else default
    kind = getattr(kind, "_telemetry_unobserved_command", kind)
    return type(kind)(
        kind.__name__,
        (kind,),
        {
            "__doc__": kind.__doc__,
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "_telemetry_unobserved_command": kind,
            "context_class": observed(kind.context_class, settings),
        },
    )

"""What the integrations share, loaded on first use.

The three wrappers are imported by their own names, so that none of them loads
a framework the program does not use:

    from telemetry.integrations.argparse import command, run
    from telemetry.integrations.click import instrument
    from telemetry.integrations.typer import instrument

Map: `recording` one run and its event; `argparse`, `click`, `typer` wrap a program and
read its command line; `command` picks the reader for an object. What may be recorded
of a reading is decided in `telemetry.commands`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from telemetry.commands import NAMES_ONLY, SEED_POLICY
    from telemetry.config import CommandPolicy
    from telemetry.integrations.command import build_command_info

__all__ = ["NAMES_ONLY", "SEED_POLICY", "CommandPolicy", "build_command_info"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from telemetry import commands
    from telemetry.integrations import command

    value: object = getattr(command if hasattr(command, name) else commands, name)
    globals()[name] = value
    return value

"""What the integrations share, loaded on first use.

The three wrappers are imported by their own names, so that none of them loads
a framework the program does not use:

    from telemetry.integrations.argparse import command, run
    from telemetry.integrations.click import instrument
    from telemetry.integrations.typer import instrument

This module imports nothing until one of its names is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from telemetry.integrations.command import (
        NAMES_ONLY,
        SEED_POLICY,
        CommandPolicy,
        build_command_info,
    )

__all__ = ["NAMES_ONLY", "SEED_POLICY", "CommandPolicy", "build_command_info"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from telemetry.integrations import command

    value: object = getattr(command, name)
    globals()[name] = value
    return value

"""Wrapping a program, so that each of its runs is recorded as one event.

    from telemetry.integrations.argparse import command, run
    from telemetry.integrations.click import instrument
    from telemetry.integrations.typer import instrument

Each is imported by its own name, so none loads a framework that the program does not use.

Map: `recording` one run and its event; `argparse`, `click`, `typer` wrap a program and
read its command line; `command` picks the reader for an object; `own_commands` is `frob
telemetry …`. What may be recorded of a reading is decided in `telemetry.commands`.
"""

from __future__ import annotations


try:
    import msgspec as _  # noqa: F401 - whether it can be loaded decides
except ImportError:
    from telemetry.absent import stand_in_for

    stand_in_for(*(f"{__name__}.{name}" for name in ("argparse", "click", "typer")))

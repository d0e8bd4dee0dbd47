"""What stands in where a module cannot be loaded: the program runs as if without telemetry.

A zip file holds no shared object that Python could load (msgspec's), and a tool that freezes
a program may leave out modules of ours. A debug line for each name says why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from telemetry.switches import absent, in_place_of, is_set


Absent: Any = absent()


def instrument(app: Any, **_named: object) -> None:
    """Leave the program as it is."""


telemetry_commands = instrument


def run(
    parser: Any, main: Callable[[Any], Any], argv: Any = None, **_named: object
) -> Any:
    """What `main(parser.parse_args(argv))` returns."""
    return main(parser.parse_args(argv))


def stand_in(name: str, error: Exception) -> Any:
    """The same as `in_place_of`, with a debug line that says why."""
    from telemetry.logs import quiet_logger

    logger = quiet_logger(debug=is_set(os.environ.get("TELEMETRY_DEBUG", "")))
    if logger is not None:
        logger.debug("%s cannot be loaded; nothing will be recorded: %r", name, error)
    return in_place_of(name)


def stand_in_for(*modules: str) -> None:
    """Put a module of these functions in the place of each."""
    for name in modules:
        module = ModuleType(name, __doc__)
        vars(module).update(
            command=Absent,
            instrument=instrument,
            run=run,
            telemetry_commands=telemetry_commands,
        )
        sys.modules[name] = module

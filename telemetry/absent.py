"""What stands in where a module cannot be loaded: the program runs as if without telemetry.

A zip file holds no shared object that Python could load (msgspec's), and a tool that freezes
a program may leave out modules of ours. A debug line for each name says why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from typing_extensions import Self


class _Empty(type):
    """A class whose members are empty texts, as those of an enumeration may be asked for."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return ""


class Absent(int, metaclass=_Empty):
    """In place of a class or a function: takes what it takes, and is False and 0.

    So is whatever is asked of it: a client's methods, the numbers of a report.
    """

    def __new__(cls, *_given: object, **_named: object) -> Self:
        return super().__new__(cls)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent()

    def __call__(self, *_given: object, **_named: object) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        pass

    def status(self, status: Any) -> Any:
        """What `telemetry.integrations.argparse.Command` answers."""
        return status


def instrument(app: Any, **_named: object) -> None:
    """Leave the program as it is."""


telemetry_commands = instrument


def run(
    parser: Any, main: Callable[[Any], Any], argv: Any = None, **_named: object
) -> Any:
    """What `main(parser.parse_args(argv))` returns."""
    return main(parser.parse_args(argv))


def stand_in(name: str, error: Exception) -> type:
    """What a public name of this package is where its module cannot be loaded."""
    from telemetry.logs import quiet_logger
    from telemetry.switches import is_set

    logger = quiet_logger(debug=is_set(os.environ.get("TELEMETRY_DEBUG", "")))
    if logger is not None:
        logger.debug("%s cannot be loaded; nothing will be recorded: %r", name, error)
    return in_place_of(name)


def in_place_of(name: str) -> type:
    """What a public name of this package is for now."""
    # Programs write errors behind `except`.
    return type(name, (Exception,), {}) if name.endswith("Error") else Absent


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

"""What stands in where msgspec cannot be loaded: the program runs as if without telemetry.

A zip file, for one, holds no shared object that Python could load. The functions of
`telemetry.api` then do nothing by themselves; here is what stands in for the classes
of events and settings, and for the wrappers of programs. One debug line says why.
"""

from __future__ import annotations

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


class Absent(metaclass=_Empty):
    """Takes whatever the real class takes and keeps nothing of it."""

    def __init__(self, *given: object, **named: object) -> None:
        pass

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

"""Settings that cannot be used: reported once to the developer, and by `status`.

It is reported on standard error where a developer reads that: a terminal, and a program
that runs from a checkout or an editable install. Elsewhere it goes to the log. Beside the
events it stands in the file `mistakes`, one a line, until a launch finds nothing wrong.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from telemetry.config import FROM_ENVIRONMENT
from telemetry.errors import ConfigError, EndpointError
from telemetry.files import read_small, write_whole
from telemetry.logs import PREFIX, TelemetryLogger
from telemetry.text import decode


_FILE_BYTES_MAX = 16 * 1024
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# Where an installer puts a program; what stands elsewhere is being developed.
_INSTALLED = ("site-packages", "dist-packages")
NOTHING_IS_SENT = "nothing is sent, and events are kept"
# What a bad setting costs, where it is not the default that takes its place.
_EFFECTS = {
    "accept_statuses": "",  # the problem says it
    "api_key": NOTHING_IS_SENT,
    "endpoint": NOTHING_IS_SENT,
    "app": "nothing is recorded",
    "home": "nothing is recorded",
    "deletion_endpoint": "no server is asked to delete anything",
    "enabled": "telemetry is off",
}
# What was reported: a program may make many clients.
_reported: set[str] = set()


def sentence(error: ConfigError) -> str:
    """What is wrong with a setting, and what happens now."""
    if error.field.isupper():  # a variable of the environment says it all
        return str(error)
    effect = _EFFECTS.get(error.field, "the default is used instead")
    if isinstance(error, EndpointError):
        effect = NOTHING_IS_SENT
    variable = FROM_ENVIRONMENT.get(error.field, "")
    # What the program does not name comes from there.
    origin = f", or {variable}" if os.environ.get(variable) else ""
    said = f"configure({error.field}=…){origin}: {error.problem}"
    return f"{said}; {effect}" if effect else said


def missing(field: str) -> ConfigError:
    """The mistake of a program without an endpoint, or with one and without its key.

    It is not reported on a terminal: it may come with the build.
    """
    return ConfigError(field, f"none is set; set TELEMETRY_{field.upper()}")


def tell(sentences: Iterable[str], logger: TelemetryLogger | None) -> None:
    """Report each sentence once in this process, where it can be read."""
    for text in sentences:
        if text in _reported:
            continue
        _reported.add(text)
        if is_read_by_developer():
            sys.stderr.write(f"{PREFIX}{text}\n")
        elif logger is not None:
            logger.warning("%s", text)


def is_read_by_developer() -> bool:
    """Whether standard error is a terminal, and the program is not an installed one."""
    try:
        if not sys.stderr.isatty() or hasattr(sys, "frozen"):
            return False
    except (AttributeError, ValueError, OSError):
        return False  # there is none, or the host has closed it
    frame = sys._getframe()  # noqa: SLF001 - its only name
    while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
        frame = frame.f_back
    path = os.path.abspath(frame.f_code.co_filename)
    # A program in a zip file is no file, and one of the system cannot be written to.
    is_installed = not {*path.split(os.sep)}.isdisjoint(_INSTALLED)
    return not is_installed and os.access(path, os.W_OK)


def remember(path: str, sentences: Sequence[str]) -> None:
    """The file `path` holds these sentences; it is removed where there are none."""
    try:
        if sentences:
            if read(path) == list(sentences):
                return
            write_whole(
                path,
                "".join(f"{each}\n" for each in sentences).encode("utf-8", "replace"),
            )
        else:
            os.unlink(path)
    except OSError:
        pass  # the next launch writes it, or removes it


def read(path: str) -> list[str]:
    """The sentences in the file `path`; none where it cannot be read."""
    try:
        content = read_small(path, _FILE_BYTES_MAX)
    except OSError:
        return []
    return [] if content is None else decode(content).splitlines()

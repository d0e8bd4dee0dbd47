"""Whether telemetry is on, and the rule that decided.

The rules, strongest first:

    do-not-track   DO_NOT_TRACK is set to anything but empty, 0, false, no, off
    environment    TELEMETRY_ENABLED is false, 0, no or off, in any case
    program        the program said `enabled=False`
    remembered     the user's choice, in the file `consent`
    build          the value the program was built with
    notice         the program has a notice that could not be shown yet
    default        on

The decision is pure: it takes values and returns a value. The thin shell reads
and writes the one file. Nothing here is loaded from outside the standard
library, because a program with telemetry off pays for this module alone.
"""

from __future__ import annotations

from telemetry.files import read_small, write_whole
from telemetry.switches import Decision, environment_decision, is_off


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# One line of text; more than this was not written by us.
_FILE_BYTES_MAX = 256


class Choice:
    """What the user chose: `on`, the date as text, and the notice's version."""

    __slots__ = ("date", "notice_version", "on")

    def __init__(self, *, on: bool, date: str = "", notice_version: str = "") -> None:
        self.on = on
        self.date = date
        self.notice_version = notice_version


def decide(
    *,
    environment: Mapping[str, str],
    enabled: bool,
    choice: Choice | None,
    build: str,
    notice_due: bool = False,
) -> Decision:
    """The decision for one program on one machine.

    `enabled` is what the program said, `choice` what the user is remembered to
    have chosen, `build` the build-time value (empty: none), and `notice_due`
    whether a notice has to be shown before anything may be written.
    """
    decided = environment_decision(environment)
    if decided is not None:
        return decided
    if not enabled:
        return Decision("program", "the program turned it off", on=False)
    if choice is not None and not choice.on:
        return Decision("remembered", f"the user turned it off {choice.date}", on=False)
    if notice_due:
        return Decision("notice", "the notice was not shown yet", on=False)
    if choice is not None:
        return Decision("remembered", f"the user left it on {choice.date}", on=True)
    if build:
        said = "off" if is_off(build) else "on"
        return Decision(
            "build", f"the program was built with it {said}", on=said == "on"
        )
    return Decision("default", "nobody turned it off", on=True)


def parse_choice(content: bytes) -> Choice:
    """The choice in a consent file: `on|off <date> <notice version>`.

    Whatever does not plainly say `on` means off: a damaged file must not turn
    on what somebody may have turned off.
    """
    words = content.decode("utf-8", "replace").split(maxsplit=2)
    on = bool(words) and words[0] == "on"
    return Choice(
        on=on,
        date=words[1] if len(words) > 1 else "",
        notice_version=words[2].strip() if len(words) > 2 else "",
    )


def format_choice(choice: Choice) -> bytes:
    """The content of a consent file."""
    word = "on" if choice.on else "off"
    return f"{word} {choice.date} {choice.notice_version}".rstrip().encode() + b"\n"


def read_choice(path: str) -> Choice | None:
    """The remembered choice; None where the user made none.

    A file that is there and cannot be read counts as off.
    """
    try:
        content = read_small(path, _FILE_BYTES_MAX)
    except OSError:
        return Choice(on=False, date="(the consent file cannot be read)")
    return None if content is None else parse_choice(content)


def remember_choice(path: str, choice: Choice) -> None:
    """The choice is on disk on return, whole and durable. Raises OSError."""
    write_whole(path, format_choice(choice), durable=True)

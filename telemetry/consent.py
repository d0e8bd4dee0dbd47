"""Whether telemetry is on, and the rule that decided. One function: `consent`.

The rules, strongest first; the first that has something to say decides:

    do-not-track   DO_NOT_TRACK is set to anything but empty, 0, false, no, off
    environment    TELEMETRY_ENABLED is set to anything but empty, 1, true, yes, on
    program        the program said `enabled=False`
    notice         the program has a notice that was not shown yet
    remembered     the user's choice, in the file `consent`
    build          the value the program was built with
    default        on

`rules` is pure; `consent` reads the one file and asks it. Clients, flushers and tools call
nothing else.
"""

from __future__ import annotations

import os

from telemetry.build_values import build_values
from telemetry.errors import raise_the_hosts
from telemetry.files import read_small, write_whole
from telemetry.switches import Decision, environment_rules, is_off, is_transient


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from telemetry.config import Config
    from telemetry.paths import Home

# One line of text; more than this was not written by us.
_FILE_BYTES_MAX = 256
# What stands behind the date of an opt-out, by whether what was kept is removed and
# whether the server is still to be asked to delete what it has.
_LEFT = {
    (True, False): "",
    (False, False): "(what was kept is still being removed)",
    (False, True): "(what was kept is still being removed; then the server is asked "
    "to delete its part)",
    (True, True): "(the server is still to be asked to delete what it has)",
}
_UNREADABLE = (
    "the file of the user's choice cannot be read, which counts as off; `spool-tools "
    "enable` or `disable` writes it anew, or names what has to be removed for that"
)


class Choice:
    """What the user chose: `on`, the date as text, and the notice's version.

    `is_finished` is False from an opt-out until what was kept is removed, `asks` is True
    until a server has accepted to delete what it has. `is_readable` says whether it is
    the user's choice, and not what counts as off because nothing else can be told.
    """

    def __init__(
        self,
        *,
        on: bool,
        date: str = "",
        notice_version: str = "",
        is_finished: bool = True,
        asks: bool = False,
        is_readable: bool = True,
        is_transient: bool = False,
    ) -> None:
        self.on = on
        self.is_transient = is_transient
        self.is_readable = is_readable
        self.date = date
        self.notice_version = notice_version
        self.is_finished = is_finished
        self.asks = asks


def consent(
    home: Home | None, environment: Mapping[str, str], config: Config | None = None
) -> Decision:
    """Whether telemetry is on now for one home, and why. Writes nothing.

    `home` is None where there is none; without a `config` the answer is for programs
    that neither turn it off nor have a notice.
    """
    said = rules_of(home, environment, config).values()
    return next(decision for decision in said if decision is not None)


def rules_of(
    home: Home | None, environment: Mapping[str, str], config: Config | None = None
) -> dict[str, Decision | None]:
    """What each rule says now, strongest first; as `consent` for the rest."""
    choice = read_choice(home.consent) if home is not None else None
    return rules(
        environment=environment,
        enabled=config is None or config.enabled is True,
        choice=choice,
        build=build_values()["enabled"],
        notice_due=config is not None
        and is_notice_due(config.notice, config.notice_version, choice),
    )


def rules(
    *,
    environment: Mapping[str, str],
    enabled: bool,
    choice: Choice | None,
    build: str,
    notice_due: bool = False,
) -> dict[str, Decision | None]:
    """What each rule says, strongest first; None where it has nothing to say.

    `enabled` is what the program said, `build` the build-time value (empty: none).
    """
    program = notice = remembered = built = None
    if not enabled:
        program = Decision("program", "the program turned it off", on=False)
    if notice_due:
        notice = Decision("notice", "the notice was not shown yet", on=False)
    if choice is not None:
        did = "left it on" if choice.on else "turned it off"
        left = _LEFT[choice.is_finished, choice.asks]
        # What is no date is not shown: it may move a terminal's cursor.
        is_text = choice.date.isascii() and choice.date.isprintable()
        date = choice.date if is_text else ""
        reason = " ".join(f"the user {did} {date} {left}".split())
        if not choice.is_readable:
            reason = f"{_UNREADABLE} {left}".rstrip()
        remembered = Decision("remembered", reason, on=choice.on)
        remembered.is_finished = choice.is_finished
        remembered.asks = choice.asks
        remembered.is_transient = choice.is_transient
    if build:
        word = "off" if is_off(build) else "on"
        reason = f"the program was built with it {word}"
        built = Decision("build", reason, on=word == "on")
    return {
        **environment_rules(environment),
        "program": program,
        "notice": notice,
        "remembered": remembered,
        "build": built,
        "default": Decision("default", "no rule turned it off", on=True),
    }


def is_notice_due(notice: str | None, version: str, choice: Choice | None) -> bool:
    """Whether a notice has to be shown before anything may be recorded.

    A new version is shown again; a user who turned telemetry off is not asked again.
    """
    if not notice:
        return False
    return choice is None or (choice.on and choice.notice_version != version)


def parse_choice(content: bytes) -> Choice:
    """The choice in a consent file: `on|off <date> <notice version>`.

    Any content but a plain `on` means off: a damaged file must not turn on what the
    user may have turned off.
    """
    words = [*content.decode("utf-8", "replace").split(maxsplit=2), "", "", ""]
    version = words[2].strip()
    on = words[0] == "on"
    # A damaged sentence counts as the first: to remove what is gone harms nothing.
    is_left = not on and version.startswith("(")
    known = {text: key for key, text in _LEFT.items()}
    is_finished, asks = known.get(version, (False, False)) if is_left else (True, False)
    return Choice(
        on=on,
        date=words[1],
        is_readable=words[0] in {"on", "off"},
        notice_version="" if is_left else version,
        is_finished=is_finished,
        asks=asks,
    )


def format_choice(choice: Choice) -> bytes:
    """The content of a consent file."""
    word = "on" if choice.on else "off"
    version = _LEFT[choice.is_finished, choice.asks] or choice.notice_version
    return f"{word} {choice.date} {version}".rstrip().encode() + b"\n"


def read_choice(path: str) -> Choice | None:
    """The remembered choice; None where the user made none.

    A file that is there and cannot be read counts as off.
    """
    try:
        return stored_choice(path)
    except OSError as error:
        raise_the_hosts(error)
        return Choice(on=False, is_readable=False, is_transient=is_transient(error))


def stored_choice(path: str) -> Choice | None:
    """The same for a caller that writes it back. Raises OSError where it cannot be read."""
    content = read_small(path, _FILE_BYTES_MAX)
    return None if content is None else parse_choice(content)


def remember_choice(path: str, choice: Choice, *, first_wins: bool = False) -> None:
    """The choice is on disk on return, whole and durable. Raises OSError.

    With `first_wins`, one that is there stays.
    """
    content = format_choice(choice)
    try:
        write_whole(path, content, first_wins=first_wins, durable=True)
    except FileNotFoundError:
        # An opt-out that is finished sweeps temporary files away, and ours is one.
        write_whole(path, content, first_wins=first_wins, durable=True)
    except OSError:
        if not os.path.isdir(path):
            raise
        # Docker makes a directory where a file that it is to mount is missing. One that
        # is not empty is named by the error.
        os.rmdir(path)
        try:
            write_whole(path, content, first_wins=first_wins, durable=True)
        except BaseException:
            os.mkdir(path, 0o700)  # which counts as off, as before
            raise

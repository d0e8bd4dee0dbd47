"""What was run, and how much of it a policy lets be recorded.

Rules:
- The value of a flag is never recorded, whatever the policy.
- An argument is recorded only where the policy names its command, and only up to the
  first that starts with `-`, behind which a flag and its value may stand.
- The name of a script file is somebody's text. The app's name stands for a program
  without a sub-command.

Pure: it reads no command line itself (see `telemetry.integrations`) and records nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

import msgspec

from telemetry.config import CommandPolicy
from telemetry.light_events import CommandInfo


# The default: a name was chosen by the program's author, a value by its user.
NAMES_ONLY = CommandPolicy()

# A command line of more words is not read to its end, and a longer name is no name.
_WORDS_MAX = 1000
_NAME_CHARS_MAX, _NAME_WORDS_MAX, _NAME_DIGITS_MAX = 32, 4, 2


class Flag(msgspec.Struct, frozen=True):
    """A flag that stood on the command line, under its declared name."""

    name: str
    takes_value: bool


class Reading(msgspec.Struct, frozen=True):
    """All that a command line named; `permitted` takes from it what may be recorded.

    `program` is the root command's declared name, `path` the sub-commands below it,
    `flags` those given to any of them, `arguments` the last one's positional arguments.
    """

    program: str = ""
    path: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    arguments: tuple[str, ...] = ()


def permitted(
    reading: Reading, base_name: str | None, policy: CommandPolicy
) -> CommandInfo:
    """What `policy` lets be recorded of a reading.

    Args:
        reading: what the command line named.
        base_name: the action; None for the path, as in "compose up", else the program.
        policy: the commands and flags that may be recorded.
    """
    action = " ".join(reading.path) or reading.program
    if base_name is not None:
        action = base_name
    arguments: Iterable[str] = ()
    if _is_among(action, policy.arguments_of):
        arguments = takewhile(lambda word: word[:1] != "-", reading.arguments)
    return CommandInfo(
        action=action, args=list(arguments), flags=_flags(reading.flags, action, policy)
    )


def typed(words: Iterable[str]) -> Reading:
    """What a command line names if no parser is known: `--name`, `-x`, and arguments.

    What stands behind `=` is a value, and nothing behind `--` is a flag. Whether a
    program declared a word that starts with `-` cannot be known here. So a name has at
    most four words of letters, with two digits in all and 32 characters:
    `--no-http2-push`, and no token or sentence.
    """
    words = list(words)[:_WORDS_MAX]
    end = words.index("--") if "--" in words else len(words)
    names = (word.partition("=")[0] for word in words[:end] if word[:1] == "-")
    flags = tuple(Flag(name, takes_value=False) for name in names if _is_name(name))
    return Reading(flags=flags, arguments=tuple(words))


def _is_name(word: str) -> bool:
    letters = word[2:] if word[:2] == "--" else word[1:2] * (len(word) == 2)
    words = letters.replace("_", "-").split("-")
    return (
        len(word) <= _NAME_CHARS_MAX
        and len(words) <= _NAME_WORDS_MAX
        and sum(map(str.isdigit, letters)) <= _NAME_DIGITS_MAX
        and letters.isascii()
        and all(part.isalnum() for part in words)
        and letters[0].isalpha()
    )


def _flags(given: Iterable[Flag], action: str, policy: CommandPolicy) -> list[str]:
    switches = {flag.name for flag in given if not flag.takes_value}
    names = [flag.name for flag in given]
    found = [name for name in policy.switches if name in switches]
    if policy.flags_of is None or _is_among(action, policy.flags_of):
        if policy.flags is None:
            found += names
        else:
            found += [name for name in policy.flags if name in names]
    return list(dict.fromkeys(found))


def _is_among(name: str, names: Sequence[str]) -> bool:
    # A lone string would be searched for parts of it, and "" is part of any.
    return name in ((names,) if isinstance(names, str) else names)

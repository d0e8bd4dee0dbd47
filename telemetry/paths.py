"""Names every file under one home. Creates nothing, opens nothing, reads no file.

    <home>/user-uuid  consent  next-flush  flush.lock  refused  reserve
    <home>/spool-summary  mistakes  deletes
    <home>/spool/<created ns>-<random>.v1.jseq
    <home>/dead/<segment>-<offset>       <home>/quarantine/<segment>-<offset>
    <home>/ledger/

The home is `<user state directory>/<app>/telemetry`, or `$TELEMETRY_HOME/<app>`.
The user state directory is what each system's rules say: `$XDG_STATE_HOME` if it
is set, else `~/.local/state` on Linux and `~/Library/Application Support` on
macOS; `%LOCALAPPDATA%` on Windows. Only an absolute `HOME` counts: without one
there is no home, and never a shared directory in its place.
"""

from __future__ import annotations

import os

from telemetry.errors import ConfigError, HomeError
from telemetry.switches import trimmed


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


SEGMENT_SUFFIX = ".v1.jseq"
# Nanoseconds since 1970 as 20 digits sort as text until the year 5138.
_CREATED_NS_MAX = 10**20 - 1
# That, a dash and 8 hex digits. Patterns would cost a launch more than all the
# checks that take their place.
_DIGITS = 20
_NAME_LENGTH = _DIGITS + 1 + 8 + len(SEGMENT_SUFFIX)
_HEX = frozenset("0123456789abcdef")
_APP_NAME_MAX = 100


class Home:
    """Every file of one pipeline, by name. `root` is absolute."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.user_uuid = f"{root}/user-uuid"
        self.consent = f"{root}/consent"
        self.next_flush = f"{root}/next-flush"
        self.flush_lock = f"{root}/flush.lock"
        self.refused = f"{root}/refused"
        self.reserve = f"{root}/reserve"
        self.summary = f"{root}/spool-summary"
        self.mistakes = f"{root}/mistakes"
        self.deletes = f"{root}/deletes"
        self.spool = f"{root}/spool"
        self.dead = f"{root}/dead"
        self.quarantine = f"{root}/quarantine"
        self.ledger = f"{root}/ledger"

    def __repr__(self) -> str:
        return f"Home({self.root!r})"

    def segment(self, name: str) -> str:
        """The path of the segment `name`."""
        return f"{self.spool}/{name}"


def is_segment(name: str) -> bool:
    """Whether a file of the spool is a segment of the version that is read here."""
    return (
        len(name) == _NAME_LENGTH
        and name.endswith(SEGMENT_SUFFIX)
        and name[:_DIGITS].isdecimal()
        and name.isascii()
        and name[_DIGITS] == "-"
        and _HEX.issuperset(name[_DIGITS + 1 : -len(SEGMENT_SUFFIX)])
    )


def is_app_name(app: str) -> bool:
    """Whether it is one path component that nothing takes for another thing.

    Letters, digits, `.`, `_` and `-`, beginning with none of `.` and `-`.
    """
    return (
        0 < len(app) <= _APP_NAME_MAX
        and app.isascii()
        and app[0] not in ".-"
        and app.replace(".", "_").replace("-", "_").replace("_", "a").isalnum()
    )


def segment_name(created_ns: int, random: bytes) -> str:
    """A segment's name: it sorts by `created_ns`; `random` is 4 bytes.

    A time of more digits gives the last name there is: no reader takes a longer one.
    """
    return f"{min(created_ns, _CREATED_NS_MAX):020d}-{random.hex()}{SEGMENT_SUFFIX}"


def segment_created_ns(name: str) -> int:
    """The time in a segment's name, nanoseconds since 1970."""
    return int(name[:_DIGITS])


def state_directory(environment: Mapping[str, str], platform: str) -> str:
    """The user's state directory; empty where the environment names no home.

    `platform` is spelt as in `sys.platform`.
    """
    if platform == "win32":
        local = trimmed(environment.get("LOCALAPPDATA", ""))
        if _is_absolute(local, platform):
            return local
        profile = environment.get("USERPROFILE", "")
        return f"{profile}\\AppData\\Local" if profile else ""
    state = trimmed(environment.get("XDG_STATE_HOME", ""))
    if state.startswith("/"):
        return state
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        return ""
    inside = "Library/Application Support" if platform == "darwin" else ".local/state"
    return f"{home.rstrip('/')}/{inside}"


def relative_variable(
    home: str | None, environment: Mapping[str, str], platform: str
) -> ConfigError | None:
    """The variable that should say where events are kept and is relative; None: none.

    The XDG base directory specification has a relative value ignored, and Windows
    never sets one. TELEMETRY_HOME counts from the working directory.
    """
    if home:
        return None
    name, effect = "TELEMETRY_HOME", "each working directory has events of its own"
    path = _expanded(trimmed(environment.get(name, "")), environment)
    if not path:
        name = "LOCALAPPDATA" if platform == "win32" else "XDG_STATE_HOME"
        effect = "it is ignored, and events are kept in the system's own place"
        path = trimmed(environment.get(name, ""))
    if not path or _is_absolute(path, platform):
        return None
    return ConfigError(name, f"is relative; {effect}; set an absolute path")


def _is_absolute(path: str, platform: str) -> bool:
    if platform != "win32":
        return path.startswith("/")
    return path[1:3] in (":\\", ":/") or path[:2] in ("\\\\", "//")


def named_base(environment: Mapping[str, str]) -> str:
    """The directory that TELEMETRY_HOME names, absolute; empty where it names none.

    Raises FileNotFoundError where it is relative to a directory that is gone.
    """
    base = trimmed(environment.get("TELEMETRY_HOME", ""))
    return os.path.abspath(_expanded(base, environment)) if base else ""


def _expanded(path: str, environment: Mapping[str, str]) -> str:
    """The path with `~` for the user's home, as in what no shell has read."""
    first, separator, rest = path.partition("/")
    home = environment.get("HOME", "")
    if first == "~" and home.startswith("/"):
        return home.rstrip("/") + separator + rest
    return os.path.expanduser(path)


def home_of(
    app: str, *, home: str | None, environment: Mapping[str, str], platform: str
) -> Home:
    """The home of `app`: the exact directory `home` if given, else by the rules.

    Raises HomeError where the environment names none or `home` is no path, and
    ConfigError where `app` cannot be a directory's name.
    """
    if home:
        try:
            root = os.path.abspath(_expanded(os.fsdecode(home), environment))
            is_path = b"\0" not in os.fsencode(root)
        except (OSError, TypeError, ValueError):
            is_path = False  # no text, or relative to a directory that is gone
        if not is_path:
            from telemetry.text import shown

            raise HomeError(shown(home)[:200], "is no path")
        return Home(root)
    if not is_app_name(app):
        raise ConfigError(
            "app",
            f"{app!r} is no name for a directory; use letters, digits, '.', '_', '-'",
        )
    base = named_base(environment)
    if base:
        return Home(os.path.join(base, app))
    state = state_directory(environment, platform)
    if not state:
        raise HomeError(
            "", "the environment names no home directory; set HOME or TELEMETRY_HOME"
        )
    return Home(os.path.join(state, app, "telemetry"))

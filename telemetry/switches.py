"""Settings as people write them, and the switches that turn telemetry off.

    do-not-track   DO_NOT_TRACK is set to anything but empty, 0, false, no, off
    environment    TELEMETRY_ENABLED is set to anything but empty, 1, true, yes, on

Both variables can only turn off. A TELEMETRY_ENABLED that is no plain yes asks for
less telemetry, not more. A text from the environment or from a file is trimmed first: an
env-file with CRLF ends, `docker --env-file`, which keeps quotes, and a mounted secret all
add what was not meant.

What cannot be loaded just now, and what stands in for it, is told here as well, since this
module is always there.

The rules that come after these two are in `consent.py`; a third variable goes in there as
well, and into `spool_tools/explain.py`. A program with telemetry off pays for this module
and its client alone. So in these an annotation is a text unless it is a plain name: `from
__future__ import annotations` loads a module, which alone is 2 % of an empty program.
"""

import _imp
import os
import sys
from _thread import get_ident


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any

    from typing_extensions import Self

# Also what editors put at the beginning of a file or take for a blank.
_BLANKS = " \t\r\n\v\f\xa0\ufeff"
_YES = frozenset({"", "1", "true", "yes", "on"})
_NO = frozenset({"", "0", "false", "no", "off"})
# What says that a program runs in continuous integration, besides CI itself.
_CI_VARIABLES = (
    "CI",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "BUILDKITE",
    "TF_BUILD",
    "JENKINS_URL",
    "TEAMCITY_VERSION",
    "CODEBUILD_BUILD_ID",
)
# The table behind `os.environ`, and the switches as they stand in it: a look at that
# costs no decoding.
_TABLE = getattr(os.environ, "_data", os.environ)
_TRACK, _ENABLED = (
    os.fsencode(name) if os.name == "posix" else name
    for name in ("DO_NOT_TRACK", "TELEMETRY_ENABLED")
)


class Decision:
    """On or off, the rule that decided, and a sentence about it.

    `is_finished` is False where an opt-out has left something to be removed, `asks` is
    True where a server is still to be asked to delete what it has, `is_transient` where no
    descriptor or memory was left to read what the user chose: it may well be on.
    """

    def __init__(self, rule: str, reason: str, *, on: bool) -> None:
        self.on = on
        self.rule = rule
        self.reason = reason
        self.is_finished = True
        self.asks = False
        self.is_transient = False

    def __repr__(self) -> str:
        return f"Decision({'on' if self.on else 'off'}, {self.rule}: {self.reason})"


def trimmed(text: str) -> str:
    """The text without blanks and line ends around it, and without one pair of quotes."""
    text = text.strip(_BLANKS)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip(_BLANKS)
    return text


def is_off(text: str) -> bool:
    """Whether a switch for telemetry says anything but a plain yes."""
    return trimmed(text).lower() not in _YES


def is_set(text: str) -> bool:
    """Whether another variable says something, and that is no plain no."""
    return trimmed(text).lower() not in _NO


def ci_variable(environment: "Mapping[str, str]") -> str:
    """The variable that says that this is continuous integration; empty if none does."""
    for name in _CI_VARIABLES:
        if is_set(environment.get(name, "")):
            return name
    return ""


# Why a module cannot be loaded: it is not there, no descriptor or memory is left, or its
# file was cut short, compiled (EOFError) or not, by a full disk or a limit of file sizes.
CANNOT_LOAD = (ImportError, OSError, MemoryError, EOFError, SyntaxError)
# Python's locks of the modules that are being loaded: nearly always none.
IMPORT_LOCKS: "dict[str, Callable[[], object]]" = getattr(
    sys.modules.get("_frozen_importlib"), "_module_locks", {}
)
# The functions of Python's import system that run the code of a module, or of a loader.
_LOADING = {
    *("_call_with_frames_removed", "_load_unlocked", "_load_backward_compatible"),
    *("load_module", "exec_module", "create_module", "module_from_spec"),
    "_handle_fromlist",
}

# What `telemetry.testing` and the pytest plugin set: tests change the environment as
# they like, and record nothing all the same. The plugin imports nothing of this
# package, since a project may have a `telemetry` of its own; it is asked for here.
guard: "Decision | None" = None
_PLUGIN = "spool_tools.pytest_plugin"
# Whether flushes begin by themselves also in tests; see `is_testing`.
tests_may_send = False


def record_nothing() -> None:
    """This process records nothing from now on, whatever the environment says."""
    global guard  # noqa: PLW0603 - one for the process, as the environment is
    reason = "tests record nothing; see telemetry.testing"
    guard = Decision("environment", reason, on=False)


if _PLUGIN in sys.modules:
    record_nothing()


def is_testing(environment: "Mapping[str, str]") -> bool:
    """Whether a test is running: then no flush begins by itself.

    Under pytest also in the processes that a test starts. Asked where a flush would
    begin, which is once in a process.
    """
    if tests_may_send:
        return False
    if "PYTEST_CURRENT_TEST" in environment:
        return True
    if "unittest" not in sys.modules:
        return False
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return (spec is not None and spec.name == "unittest.__main__") or any(
        _is_run_by_unittest(frame)
        for frame in sys._current_frames().values()  # noqa: SLF001 - its only name
    )


def _is_run_by_unittest(frame: "FrameType | None") -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") in ("unittest.case", "unittest.suite"):
            return True
        frame = frame.f_back
    return False


def is_switched_off() -> bool:
    """Whether the environment of this process turns it off now.

    Asked at each event, for a program that turns it off by its own `--no-telemetry`:
    two look-ups where neither switch is set.
    """
    if guard is None and _TRACK not in _TABLE and _ENABLED not in _TABLE:
        return False
    return environment_decision(os.environ) is not None


def imports_under_way() -> "dict[str, int | None]":
    """The modules that are being loaded just now, and the thread that loads each."""
    found = [(name, lock()) for name, lock in IMPORT_LOCKS.copy().items()]
    return {name: getattr(lock, "owner", None) for name, lock in found}


def is_transient(error: BaseException) -> bool:
    """Whether it says that no descriptor or no memory was left, which may pass."""
    import errno

    lacking = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in lacking


def is_loading() -> bool:
    """Whether this is a handler of signals that has interrupted the import of a module.

    That is: one of ours is being loaded by this thread; or Python was about to look for
    one of anybody's. Nothing may be loaded then, and nobody waited for. The module would
    be there in two copies, whose classes do not know each other; and the frame that was
    interrupted may have a lock of Python's for which another thread waits that has ours.
    """
    if not IMPORT_LOCKS and not _imp.lock_held():
        return False
    me = get_ident()
    try:
        owners = imports_under_way()
    except MemoryError:
        return True  # nothing can be loaded
    for name, owner in owners.items():
        if owner == me and name.startswith("telemetry."):
            return True
    frame: FrameType | None = sys._getframe()  # noqa: SLF001
    is_importing = False
    while frame is not None:
        code, was_importing = frame.f_code, is_importing
        is_importing = code.co_filename.startswith("<frozen importlib.")
        if is_importing and not was_importing and code.co_name not in _LOADING:
            return True
        frame = frame.f_back
    return False


def patience_s() -> float:
    """How long this thread may wait for another one that has a lock of ours, in seconds.

    For ever (-1), unless it is loading a module, as that other thread may wait for it.
    """
    if IMPORT_LOCKS and get_ident() in imports_under_way().values():
        return 1.0
    return -1.0


_absent: "list[Any]" = []


def _empty(_cls: object, name: str) -> str:
    if name.startswith("__"):
        raise AttributeError(name)
    return ""


def absent() -> "Any":
    """The class of what stands in for what cannot be loaded, `telemetry.absent.Absent`.

    It is here, as without a descriptor that module cannot be loaded either, and made
    when it is needed, which is hardly ever.
    """
    if not _absent:
        # Its members are empty texts, as an enumeration's may be asked for.
        class Empty(type):
            __getattr__ = _empty

        class Absent(int, metaclass=Empty):
            """In place of a class or a function: takes what it takes, and is False and 0.

            So is whatever is asked of it: a client's methods, the numbers of a report.
            """

            def __new__(cls, *_given: object, **_named: object) -> "Self":
                return super().__new__(cls)

            def __getattr__(self, name: str) -> "Any":
                if name.startswith("__"):
                    raise AttributeError(name)
                return Absent()

            def __call__(self, *_given: object, **_named: object) -> "Self":
                return self

            def __enter__(self) -> "Self":
                return self

            def __exit__(self, *failure: object) -> None:
                pass

            def status(self, status: "Any") -> "Any":
                """What `telemetry.integrations.argparse.Command` answers."""
                return status

        _absent.append(Absent)
    return _absent[0]


def in_place_of(name: str) -> "Any":
    """What a public name of this package is where its module cannot be loaded."""
    # Programs write errors behind `except`.
    return type(name, (Exception,), {}) if name.endswith("Error") else absent()


def environment_decision(environment: "Mapping[str, str]") -> "Decision | None":
    """What the environment alone decides; None where it leaves it open."""
    track, enabled = environment_rules(environment).values()
    return track or enabled


def environment_rules(environment: "Mapping[str, str]") -> "dict[str, Decision | None]":
    """What each of the two variables says, the stronger first; None for nothing."""
    track, said = None, guard
    if guard is None:
        value = environment.get("DO_NOT_TRACK", "")
        if is_set(value):
            track = Decision("do-not-track", f"DO_NOT_TRACK={value[:20]}", on=False)
        value = environment.get("TELEMETRY_ENABLED", "")
        if is_off(value):
            said = Decision("environment", f"TELEMETRY_ENABLED={value[:20]}", on=False)
    return {"do-not-track": track, "environment": said}

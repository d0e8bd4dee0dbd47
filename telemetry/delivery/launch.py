"""How a detached flusher is started: a process of its own that outlives the host.

Rules:

- One flusher at a time: who holds `flush.lock` is the flusher. The host takes it
  without waiting and the started process inherits the descriptor. Where the flusher
  has to wait first, it takes the lock itself after the wait.
- Nothing of the host's is inherited but the lock, so `$(command)` returns when the
  command does, a lock of the command's (`flock 9`) ends with it, and nothing is run
  from the working directory.
- The flusher's interpreter finds what the host's finds: the same import path, less
  the working directory, and the switches that say where files are. What lies beside
  the program under a name of the standard library is not taken for it: that comes
  first, then the directories of this package and of what it needs.
- The host is left without a child: a shell puts the flusher in the background and
  ends, and is reaped here. A host that reaps every child itself (a handler for
  SIGCHLD, a thread that waits, the first process of a container, a subreaper) would
  meet it: there nothing is started.

It is loaded in the host, so it loads nothing heavy. `spawn` and `check_surroundings`
are those of POSIX; `launch_windows.py` has the same for Windows.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found] # without its enumerations
import os
import sys
from collections.abc import Mapping, Sequence

import msgspec

from telemetry.config import Config
from telemetry.delivery.schedule import FlushLock
from telemetry.errors import LaunchError, raise_the_hosts
from telemetry.paths import Home


_PR_GET_CHILD_SUBREAPER = 37  # prctl(2)
# What puts a flusher into the background.
SHELL = "/bin/sh"
# One variable of the environment, because argv can be read by every user.
VARIABLE = "TELEMETRY_FLUSHER"

# Where a process finds its open descriptors.
_DESCRIPTORS = ("/proc/self/fd", "/dev/fd")
# Makes what was given of the host findable, behind the standard library. A package may
# be installed so that `site` alone finds it.
FIND = """
if values['site']:
    import site
    site.main()
sys.path[:] = dict.fromkeys([*standard, *values['path']])
"""
# Runs in the flusher before anything of ours can be found, and before `site`: the path
# holds the standard library alone, and a working directory, which goes first of all.
# Descriptors that were opened beside the start are closed here. Those that are open are
# listed: their limit may be a billion, and not every system can close a range.
BOOT = f"""
import sys
standard = sys.path[:] = [entry for entry in sys.path if entry]
import ast, os, signal
values = ast.literal_eval(os.environ.pop({VARIABLE!r}))
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.alarm(values["lifetime_s"] + int(values["wait_s"]) + 1)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
for listing in {_DESCRIPTORS!r}:
    try:
        numbers = [int(name) for name in os.listdir(listing)]
        break
    except OSError:
        numbers = range(min(os.sysconf("SC_OPEN_MAX"), 1 << 16))
for number in numbers:
    if number > 2 and number != values["lock"]:
        try:
            os.close(number)
        except OSError:
            pass
try:
    os.setsid()
except OSError:
    pass
os.umask(0o077)
os.chdir(values["home"])
{FIND}
from telemetry.delivery.detached import main
main(values, signal.alarm)
"""


class FlusherArguments(msgspec.Struct):
    """What a detached flusher is given.

    config: the host's, with `home` filled in
    home: the directory of section "On disk"
    lock: the number of the descriptor that holds the flush lock; -1 where the flusher
        takes it itself, after a wait, or where descriptors are not inherited
    wait_s: seconds to wait before that
    next_flush: what the host set `next-flush` to, seconds since 1970
    lifetime_s: seconds of work after which its process is ended
    path: the import path, in front of which the standard library is put
    site: whether the host's interpreter loads `site` at its start
    """

    config: Config
    home: str
    lock: int
    wait_s: float
    next_flush: float
    lifetime_s: int
    path: list[str]
    site: bool


def spawn(
    config: Config, home: Home, lock: FlushLock, environment: Mapping[str, str]
) -> None:
    """A flusher of its own runs on return and has the lock; ours is closed.

    Raises LaunchError; the lock is free then.
    """
    if sys.platform == "win32":
        raise LaunchError("launch_windows.py starts flushers here")
    import posix  # what frameworks replace is in `os`

    with lock:
        # Another number than ours, so that it is inherited there and only there.
        theirs = -1 if lock.wait_s else 3 if lock.descriptor != 3 else 4
        actions: list[tuple[object, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        ]
        if not config.debug:
            actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        if theirs >= 0:
            actions.append((os.POSIX_SPAWN_DUP2, lock.descriptor, theirs))
        try:
            actions += [
                (os.POSIX_SPAWN_CLOSE, number)
                for number in _inheritable()
                if number != theirs
            ]
            text = arguments_of(config, home, lock, theirs)
            options, variables = interpreter_options(environment)
            shell = os.posix_spawn(
                SHELL,
                [SHELL, "-c", '"$0" "$@" &', sys.executable, *options, "-c", BOOT],
                {**variables, VARIABLE: text},
                file_actions=actions,
                # Out of the host's group at once: who ends that, at the host's end,
                # would else meet the flusher before its own `setsid`.
                setpgroup=0,
                setsigmask=[],
                setsigdef=[
                    signal.SIGALRM,
                    signal.SIGTERM,
                    signal.SIGHUP,
                    signal.SIGPIPE,
                ],
            )
        except (OSError, TypeError, ValueError) as error:
            raise LaunchError(f"no flusher was started: {error}") from error
    try:
        # About a millisecond: the shell only forks. Left alone it would be a child.
        # gevent's `os.waitpid` never returns if the shell ended before it is watched.
        posix.waitpid(shell, 0)
    except ChildProcessError:
        pass  # the host ignores its children


def _inheritable() -> list[int]:
    """The descriptors, but for standard streams, that a started process would get.

    A lock of a shell's (`flock 9`) would else end when the flusher has closed them.
    """
    listing = next(filter(os.path.isdir, _DESCRIPTORS), "")
    try:
        numbers = map(int, os.listdir(listing))
    except OSError as error:
        raise_the_hosts(error)
        return []  # none is left for the listing, or this system has none
    return [each for each in numbers if each > 2 and _is_inheritable(each)]


def _is_inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError as error:
        raise_the_hosts(error)
        return False  # closed meanwhile, as that of the listing is


def arguments_of(config: Config, home: Home, lock: FlushLock, descriptor: int) -> str:
    """The value of VARIABLE; the flusher has the lock as `descriptor`, or -1."""
    arguments = FlusherArguments(
        # Of the notice only that there is one: it decides whether it may go on.
        config=msgspec.structs.replace(
            config, notice="shown" if config.notice else None, home=home.root
        ),
        home=home.root,
        lock=descriptor,
        wait_s=lock.wait_s,
        next_flush=lock.next_flush,
        lifetime_s=max(int(config.flusher_lifetime_s), 1),
        path=import_path(sys.path, _working_directory(), _origins()),
        site=not sys.flags.no_site,
    )
    # A name that is no UTF-8 stays what it is as an ASCII literal.
    return ascii(msgspec.to_builtins(arguments))


def interpreter_options(
    environment: Mapping[str, str],
) -> tuple[list[str], dict[str, str]]:
    """The switches and the environment of the flusher's interpreter.

    Isolated (`-I`) from user packages, the working directory and the environment, and
    without `site` (`-S`), which BOOT loads. What the host's interpreter knows of where
    its files are is handed on.
    """
    # The flusher works elsewhere, so what is relative to here would not be found.
    environment = {**environment, **_absolute(environment)}
    options = ["-S", *["-O"] * min(sys.flags.optimize, 2)]
    options += ["-B"] if sys.dont_write_bytecode else []
    given = [f"utf8={sys.flags.utf8_mode}"]
    if sys.pycache_prefix:
        given.append(f"pycache_prefix={sys.pycache_prefix}")
    for option in given:
        options += ["-X", option]
    if environment.get("PYTHONHOME") and not sys.flags.ignore_environment:
        # Without it the standard library would not be found, and `-I` ignores it.
        needed = {"PYTHONHOME", "PYTHONPLATLIBDIR"}
        kept = {
            name: value
            for name, value in environment.items()
            if name in needed or not name.startswith("PYTHON")
        }
        return [*options, "-s"], kept
    return [*options, "-I"], environment


def _absolute(environment: Mapping[str, str]) -> dict[str, str]:
    """Where certificates are, by the host's working directory."""
    found = {}
    for name, separator in (("SSL_CERT_FILE", "\0"), ("SSL_CERT_DIR", os.pathsep)):
        if given := environment.get(name):
            try:
                found[name] = separator.join(
                    # What is empty is no directory, and not the one we are in.
                    each and os.path.abspath(each)
                    for each in given.split(separator)
                )
            except OSError as error:
                raise_the_hosts(error)  # else the working directory is gone
    return found


def import_path(
    path: Sequence[object], working_directory: str, origins: Sequence[str]
) -> list[str]:
    """The host's import path without what the working directory could slip in.

    `origins` are the directories that this package and what it needs were loaded from:
    they come first, also where one is the working directory or stands on the path as a
    relative name. What is no text is ignored by the import system as well.
    """
    places = {_place(working_directory), *map(_place, origins)}
    found = [
        entry
        for entry in path
        if isinstance(entry, str) and os.path.isabs(entry)
        if _place(entry) not in places
    ]
    return list(dict.fromkeys([*origins, *found]))


def check_surroundings() -> None:
    """Raise LaunchError where the start would fail, or where the host would meet it."""
    if sys.platform == "win32":
        raise LaunchError("launch_windows.py starts flushers here")
    effective = os.access in os.supports_effective_ids
    for program in (SHELL, sys.executable):
        if not os.access(program, os.X_OK, effective_ids=effective):
            raise LaunchError(f"{program} cannot be run")
    # SIG_DFL and SIG_IGN are numbers.
    if callable(signal.getsignal(signal.SIGCHLD)) or _waits_for_children():
        raise LaunchError("this program reaps every child itself")
    if _adopts_orphans():
        raise LaunchError("this program is the parent of every orphan below it")


def _waits_for_children() -> bool:
    """Whether another thread waits for a child just now, and might meet the shell."""
    try:
        threads = os.listdir("/proc/self/task")
        for thread in threads if len(threads) > 1 else ():
            with open(f"/proc/self/task/{thread}/wchan", "rb") as file:
                if file.read() == b"do_wait":
                    return True
    except OSError as error:
        raise_the_hosts(error)  # a thread that has ended, or a system without /proc
    return False


def _adopts_orphans() -> bool:
    """Whether the flusher would become a child of this process (Linux only)."""
    if not sys.modules.keys() & {"ctypes", "prctl"}:
        return False  # a Python program needs one of them to ask for that
    try:
        import ctypes

        flag = ctypes.c_int(0)
        asked = ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag))
    except (ImportError, OSError, AttributeError) as error:
        raise_the_hosts(error)
        return False
    return asked == 0 and flag.value != 0


def _place(path: str) -> object:
    """What two names of one directory have in common."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise_the_hosts(error)
        return os.path.normpath(path)
    return found.st_dev, found.st_ino


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise_the_hosts(error)
        return ""  # it was deleted, so nothing can be loaded from it


def _origins() -> list[str]:
    """The directories that hold this package, and msgspec with all else it needs."""
    ours = os.path.abspath(__file__)
    theirs = os.path.abspath(msgspec.__file__)
    return [_above(ours, 3), _above(theirs, 2)]


def _above(path: str, steps: int) -> str:
    return _above(os.path.dirname(path), steps - 1) if steps else path

"""What the proof runs beside itself: writers, flushers and readers, killed at any time.

    python -m tests.proofs.windows.programs write HOME LOG WHO
    python -m tests.proofs.windows.programs flush HOME ENDPOINT
    python -m tests.proofs.windows.programs replace FILE LOG
    python -m tests.proofs.windows.programs read FILE LOG

Each ends once a file `stop` stands beside the home or the file. A writer's log has a
line for each acknowledged event: its name, and when `track` was called and returned.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import telemetry
from telemetry.files import read_small, write_whole


# More openings make more races; a session goes on while another takes its turn.
EVENTS_A_SESSION = 20
# Of two lengths: a part of one with a part of the other is neither.
CONTENTS = (b"a" * 3, b"b" * 500)


def config(home: str, endpoint: str = "http://127.0.0.1:9/") -> telemetry.Config:
    """The settings that all of them share."""
    return telemetry.Config(
        app="app", home=home, endpoint=endpoint, api_key="k", flush="manual"
    )


def append_in_one_step() -> None:
    """Under Wine, let no two processes write or cut at the same time.

    NTFS appends in one step. Wine asks for the file's end and then writes there, so
    of two at the same place one is lost. Whoever is killed meanwhile gives up the mutex.
    """
    if sys.platform != "win32":
        return
    import ctypes

    if not hasattr(ctypes.WinDLL("ntdll"), "wine_get_version"):
        return
    kernel = ctypes.WinDLL("kernel32")
    kernel.CreateMutexW.restype = ctypes.c_void_p
    mutex = ctypes.c_void_p(kernel.CreateMutexW(None, False, "spool-appends"))

    def alone(call: Callable[..., int]) -> Callable[..., int]:
        def called(*given: object) -> int:
            kernel.WaitForSingleObject(mutex, -1)
            try:
                return call(*given)
            finally:
                kernel.ReleaseMutex(mutex)

        return called

    os.write, os.ftruncate = alone(os.write), alone(os.ftruncate)  # type: ignore[assignment]


def is_stopped(path: str) -> bool:
    """Whether the proof has ended."""
    return os.path.exists(os.path.join(os.path.dirname(path), "stop"))


def write(home: str, log_path: str, who: str) -> None:
    """Sessions of some events each, as fast as they can."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while not is_stopped(home):
        with telemetry.Client(config(home)) as client:
            for _ in range(EVENTS_A_SESSION):
                number += 1
                name = f"{who}-{number}"
                begun = time.perf_counter_ns()
                event = telemetry.ToolEvent(
                    action="call", tool_name=name, success=True, duration_ms=1
                )
                if client.track(event):
                    ended = time.perf_counter_ns()
                    os.write(log, f"{name} {begun} {ended}\n".encode())


def flush(home: str, endpoint: str) -> None:
    """One flush after the other."""
    with telemetry.Client(config(home, endpoint)) as client:
        while not is_stopped(home):
            client.flush(timeout_s=10.0)


def replace(path: str, log_path: str) -> None:
    """Write the file whole, again and again."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while not is_stopped(path):
        for content in CONTENTS:
            write_whole(path, content)
            os.write(log, b"1\n")


def read(path: str, log_path: str) -> None:
    """Read it: always one content or the other, whole."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while not is_stopped(path):
        found = read_small(path, 10_000)
        # In place of what was longer stand line feeds, until it is cut.
        is_whole = found is not None and found.rstrip(b"\n") in CONTENTS
        os.write(log, b"1\n" if is_whole else b"0\n")


if __name__ == "__main__":
    append_in_one_step()
    {"write": write, "flush": flush, "replace": replace, "read": read}[sys.argv[1]](
        *sys.argv[2:]
    )

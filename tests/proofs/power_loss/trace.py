"""Running a story under a tracer, and reading what it did to its directory.

The tracer writes one line where a call begins and, where another thread came between,
a second one where it ends. An operation here has both places: what it did may be seen
from its beginning on, and counts as done for a sync only from its end on.

Calls that failed are left out. Raises ValueError for a call that it cannot read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple


_CALLS = (
    "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,"
    "fallocate,fsync,fdatasync,sync,syncfs,sync_file_range,rename,renameat,renameat2,"
    "link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "copy_file_range,sendfile"
)
_HEX = r"((?:\\x[0-9a-f]{2})*)"
_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)")
_RESULT = re.compile(r"\) += (-?\d+)")
# A descriptor with its path, or a text; what stands between them is left out.
_PART = re.compile(rf'(?:AT_FDCWD|-?\d+)<{_HEX}>|"{_HEX}"')


class Operation(NamedTuple):
    """One call that succeeded.

    began, ended: the lines of the trace where it did
    kind: mark, make, cut, write, sync, link, rename, unlink or mkdir
    path, other: what it was done to, and the second path of a link or a rename
    at: the offset in bytes; None for an append
    """

    began: int
    ended: int
    kind: str
    path: str
    other: str = ""
    at: int | None = None
    content: bytes = b""


def can_trace() -> bool:
    """Whether there is a tracer here that may trace a child of ours."""
    strace = shutil.which("strace")
    if sys.platform != "linux" or strace is None:
        return False
    told = [strace, "-f", "--seccomp-bpf", "-o", os.devnull, "true"]
    return subprocess.run(told, capture_output=True, check=False).returncode == 0


def record(story: str, directory: str, url: str) -> list[Operation]:
    """What a story did below `directory`, which stays as it left it.

    Its home is `state/app/telemetry` in there, and did not exist before.
    """
    log, marks = f"{directory}.log", f"{directory}.marks"
    os.mkdir(directory)
    told = ["strace", "-f", "-y", "-xx", "-s", "4000000", "--seccomp-bpf"]
    told += ["-e", "signal=none", "-e", f"trace={_CALLS}", "-o", log]
    told += [sys.executable, "-m", "tests.proofs.power_loss.program"]
    told += [story, home_in(directory), marks, url]
    above = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    subprocess.run(told, check=True, timeout=120, cwd=above)
    with open(log, encoding="ascii") as file:
        operations = parse(file, directory, marks)
    os.unlink(log)
    return operations


def home_in(directory: str) -> str:
    """Three levels that the story makes by itself."""
    return f"{directory}/state/app/telemetry"


def parse(lines: object, directory: str, marks: str) -> list[Operation]:
    """The operations below `directory`, paths relative to it, and the marks."""
    found: list[Operation] = []
    open_calls: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):  # type: ignore[arg-type, var-annotated]
        match = _LINE.match(line)
        assert match, line
        thread, text = match.groups()
        began = number
        resumed = _RESUMED.match(text)
        if resumed:
            began, text = open_calls.pop(thread)
            text += resumed[2]
        elif text.rstrip().endswith("<unfinished ...>"):
            open_calls[thread] = number, text.rpartition("<unfinished")[0]
            continue
        call = _CALL.match(text)
        if call:
            found += _read(began, number, call[1], call[2], directory, marks)
    return sorted(found, key=lambda each: each.began)


def _read(  # noqa: PLR0917 - the parts of one line
    began: int, ended: int, name: str, rest: str, directory: str, marks: str
) -> list[Operation]:
    result = _RESULT.search(rest)
    if result is None or int(result[1]) < 0:
        return []
    rest = rest[: result.start()]
    named = [
        (m[1] is not None, _bytes(m[1] or m[2] or "")) for m in _PART.finditer(rest)
    ]
    paths = _paths(name, named)
    if paths == [marks] and name == "write":
        return [Operation(began, ended, "mark", "", content=named[-1][1])]
    below = [os.path.relpath(path, directory) for path in paths]
    if not below or all(path.startswith("..") for path in below):
        return []
    told = (began, ended)
    path, other = (*below, "")[:2]
    flags = rest.rpartition('"')[2]
    done = int(result[1])
    if name == "openat":
        made = [Operation(*told, "make", path)] if "O_CREAT" in flags else []
        cut = [Operation(*told, "cut", path, at=0)] if "O_TRUNC" in flags else []
        return made + cut
    if name in {"write", "pwrite64"}:
        at = int(flags.split(",")[2]) if name == "pwrite64" else None
        content = named[-1][1][:done]
        return [Operation(*told, "write", path, at=at, content=content)]
    if name == "ftruncate":
        return [Operation(*told, "cut", path, at=int(rest.rpartition(",")[2]))]
    kind = _KINDS.get(name)
    if kind is None:
        raise ValueError(f"{name} on {path} is not understood")
    return [Operation(*told, kind, path, other)]


_KINDS = {
    "fsync": "sync",
    "fdatasync": "sync",
    "link": "link",
    "rename": "rename",
    "unlink": "unlink",
    "unlinkat": "unlink",
    "rmdir": "unlink",
    "mkdir": "mkdir",
}
_ON_A_DESCRIPTOR = {"write", "pwrite64", "ftruncate", "fsync", "fdatasync"}


def _paths(name: str, named: list[tuple[bool, bytes]]) -> list[str]:
    """The paths that a call is about, absolute."""
    texts = [os.fsdecode(text) for _, text in named]
    if name in _ON_A_DESCRIPTOR:
        return texts[:1]
    paths: list[str] = []
    where = ""
    for (is_descriptor, _), text in zip(named, texts, strict=True):
        if is_descriptor:
            where = text
        else:
            paths.append(os.path.join(where, text))
    return paths


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))

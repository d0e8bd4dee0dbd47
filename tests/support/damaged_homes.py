"""What can have become of a home: one table, by the name of the damage.

Each is a function that damages the home it is given, which holds a dead letter and
a segment with pending events, and has a ledger.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from telemetry.paths import Home
from telemetry.spool import frame
from telemetry.spool.reader import segment_names


Damage = Callable[[Path], object]
_Where = Callable[[Path], Path]

# ESC, a sign of writing direction, a byte that is no UTF-8, a line end: names of
# files are written by whoever likes.
HOSTILE_NAME = "\x1b[31m\u202e\udc80\n"
_GARBAGE = bytes(range(256)) * 20
_SUPER_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
# Twice what a segment grows to.
_HUGE_BYTES = 8 * 1024 * 1024


def the_segment(home: Path) -> Path:
    """The segment that was written last."""
    there = Home(str(home))
    return Path(there.segment(segment_names(there)[-1]))


def the_letter(home: Path) -> Path:
    """The file that holds the dead letter."""
    there = Home(str(home))
    return Path(f"{there.dead}/{segment_names(there, there.dead)[0]}")


def _at(name: str) -> _Where:
    return lambda home: home / name


def _content(of: _Where, change: Callable[[bytes], bytes]) -> Damage:
    """A file whose content is changed."""
    return lambda home: of(home).write_bytes(change(of(home).read_bytes()))


def _huge(of: _Where) -> Damage:
    """A file that goes on in zeros which take no space."""
    return lambda home: os.truncate(of(home), _HUGE_BYTES)


def _instead(of: _Where, make: Callable[[Path], object]) -> Damage:
    """Another thing in the place of a file or directory."""

    def damage(home: Path) -> None:
        path = of(home)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return damage


def _link(path: Path) -> None:
    """To a directory that is there, and is somebody else's affair."""
    target = path.parent.parent / "target"
    target.mkdir(exist_ok=True)
    path.symlink_to(target)


def _more(directory: str, name: str) -> Damage:
    """A file more, with the content of a dead letter."""

    def damage(home: Path) -> None:
        content = the_letter(home).read_bytes()
        (home / directory).mkdir(exist_ok=True)
        (home / directory / name).write_bytes(content)

    return damage


def _record(content: bytes) -> bytes:
    return frame.encode(0, content)


def _all_but(kept: str) -> Damage:
    def damage(home: Path) -> None:
        for path in home.iterdir():
            if path.name != kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def _flipped(whole: bytes, at: int) -> bytes:
    return whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]


_CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda whole: _flipped(whole, len(whole) // 2),
    "flipped everywhere": lambda whole: bytes(byte ^ 4 for byte in whole),
    "cut": lambda whole: whole[:-7],
    "cut to one byte": lambda whole: whole[:1],
    "doubled": lambda whole: whole + whole,
    "zeroed": lambda whole: bytes(len(whole)),
    "zeros at the end": lambda whole: whole + bytes(4096),
    "foreign bytes": lambda _: _GARBAGE,
    "foreign bytes before": lambda whole: _GARBAGE + whole,
    "foreign bytes inside": lambda whole: whole[:300] + _GARBAGE + whole[300:],
    "empty": lambda _: b"",
}
_INSTEAD: dict[str, Callable[[Path], object]] = {
    "a directory": os.mkdir,
    "a link": _link,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a FIFO": os.mkfifo,
    "nothing": lambda _: None,
}
_FILES = ("next-flush", "refused", "user-uuid", "consent", "flush.lock", "reserve")
# A JSON text that is a letter, and an event that is none.
_ODD_LETTER = (
    b'{"event":[1],"segment":"\\u001b","offset":-1,"reason":"\\u001b[31m","status":-1,"reply":"\\u202e",'
    b'"time_ms":9223372036854775807,"attempts":-5}'
)
DAMAGES: dict[str, Damage] = {
    "nothing at all": lambda _: None,
    **{f"segment: {name}": _content(the_segment, c) for name, c in _CHANGES.items()},
    **{f"segment: {name}": _instead(the_segment, i) for name, i in _INSTEAD.items()},
    "segment: huge": _huge(the_segment),
    "spool: a name that is none": _more("spool", HOSTILE_NAME),
    **{f"letter: {name}": _content(the_letter, c) for name, c in _CHANGES.items()},
    **{f"letter: {name}": _instead(the_letter, i) for name, i in _INSTEAD.items()},
    "letter: huge": _huge(the_letter),
    "letter: deep": _content(the_letter, lambda _: _record(b"[" * 100_000)),
    "letter: of another shape": _content(the_letter, lambda _: _record(b'{"a":1}')),
    "letter: an event that is none": _content(
        the_letter, lambda _: _record(_ODD_LETTER)
    ),
    "letter: a name that is none": _more("dead", f"{HOSTILE_NAME}.v1.jseq"),
    "letter: a second file": _more("dead", "00000000000000000001-00000001.v1.jseq"),
    "quarantine: a name that is none": _more("quarantine", f"{HOSTILE_NAME}-x"),
    "quarantine: an offset that is none": _more("quarantine", "a-٣"),
    "quarantine: an offset beyond numbers": _more("quarantine", f"a-{'9' * 200}"),
    **{
        f"ledger: {name}": _content(_at("ledger/cache.db"), _CHANGES[name])
        for name in ("flipped everywhere", "cut", "zeroed", "foreign bytes", "empty")
    },
    "ledger: huge": _huge(_at("ledger/cache.db")),
    **{f"ledger: {name}": _instead(_at("ledger"), i) for name, i in _INSTEAD.items()},
    "ledger: a file": _instead(_at("ledger"), Path.touch),
    **{
        f"ledger's file: {name}": _instead(_at("ledger/cache.db"), i)
        for name, i in _INSTEAD.items()
    },
    "journal: garbage": lambda home: (home / "ledger/cache.db-journal").write_bytes(
        _SUPER_JOURNAL_MAGIC + _GARBAGE
    ),
    **{
        f"{name}: foreign bytes": _instead(_at(name), lambda p: p.write_bytes(_GARBAGE))
        for name in _FILES
    },
    **{
        f"{name}: {instead}": _instead(_at(name), make)
        for name in _FILES
        for instead, make in _INSTEAD.items()
    },
    **{
        f"{name}/: {instead}": _instead(_at(name), make)
        for name in ("spool", "dead", "quarantine")
        for instead, make in {**_INSTEAD, "a file": Path.touch}.items()
    },
    "a home with nothing in it but an id": _all_but("user-uuid"),
    "a home with nothing in it but a ledger": _all_but("ledger"),
}

"""The rows of a ledger: values to bytes, and back only what can be believed.

A row is `<crc> <json>` under a key such as `segment/<name>`, both as bytes, so that
`sqlite3 cache.db 'select key, value from Cache'` shows them to a person:

    segment/1767225600000000000-1f0c.v1.jseq | 5b1e0a3c {"offset":4096,"seq":11,…}

Rules:
- the CRC-32 covers the key as well as the value: SQLite notices few flipped bits, and
  an entry must not turn up under another segment's name;
- only a plain row is believed: no pickle, no file, no expiry;
- what cannot be believed is treated as absent, and named.

Opens nothing: it is given a connection.
"""

from __future__ import annotations

import os
from binascii import crc32
from typing import TYPE_CHECKING, TypeVar

import msgspec

from telemetry.books.entries import (
    DeadFile,
    DeliveryState,
    SegmentEntry,
    Snapshot,
    Totals,
)


if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

TOTALS_KEY = b"totals"
STATE_KEY = b"state"
_SEGMENT_PREFIX = b"segment/"
_DEAD_PREFIX = b"dead/"

# diskcache's mode of a row that holds its value itself, unpickled.
_MODE_RAW = 1

_SELECT = "SELECT rowid, key, raw, mode, filename, expire_time, value FROM Cache"

# The text is shown to a person beside a damaged ledger: enough to tell which row.
_SHOWN_MAX = 200

# The last error is text from outside; more of it would only be copied with each commit.
_LAST_ERROR_MAX = 500

_T = TypeVar("_T")
_SEGMENT = msgspec.json.Decoder(SegmentEntry)
_DEAD = msgspec.json.Decoder(DeadFile)
_TOTALS = msgspec.json.Decoder(Totals)
_STATE = msgspec.json.Decoder(DeliveryState)
_ANY = msgspec.json.Decoder()


def segment_key(name: str) -> bytes:
    """The key of a segment's entry."""
    return _SEGMENT_PREFIX + os.fsencode(name)


def dead_key(name: str) -> bytes:
    """The key of a dead letter's mark."""
    return _DEAD_PREFIX + os.fsencode(name)


def storable(state: DeliveryState) -> DeliveryState:
    """`state` with a last error that JSON can hold, cut to 500 characters.

    A path with bytes that are no UTF-8 arrives in it as lone surrogates, which JSON
    has no form for; no error message is worth a commit.
    """
    text = state.last_error[:_LAST_ERROR_MAX]
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return msgspec.structs.replace(state, last_error=text)


def pack(key: bytes, value: msgspec.Struct) -> bytes:
    """The row that holds `value` under `key`."""
    text = msgspec.json.encode(value)
    return b"%08x %b" % (crc32(text, crc32(key)), text)


def unpack(key: bytes, row: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """The value of a row, or ValueError, MsgspecError or RecursionError if changed."""
    text = row[9:]
    if row[:9] != b"%08x " % crc32(text, crc32(key)):
        raise ValueError("the checksum disagrees")
    return decoder.decode(text)


class _Reading:
    """A snapshot in the making."""

    def __init__(self) -> None:
        self.segments: dict[str, SegmentEntry] = {}
        self.dead_files: dict[str, DeadFile] = {}
        self.totals = Totals()
        self.state = DeliveryState()
        self.unreadable: list[str] = []
        self.unreadable_rowids: list[int] = []

    def take(self, rowid: int, key: object, plain: bool, row: object) -> None:
        """Put one row where it belongs: what it says, or among the unreadable."""
        try:
            if not plain or type(key) is not bytes or type(row) is not bytes:
                raise ValueError("not a plain row of bytes")  # noqa: TRY301
            self._believe(key, row)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            self.unreadable.append(_shown(key))
            self.unreadable_rowids.append(rowid)

    def _believe(self, key: bytes, row: bytes) -> None:
        if key.startswith(_SEGMENT_PREFIX):
            name = os.fsdecode(key[len(_SEGMENT_PREFIX) :])
            self.segments[name] = unpack(key, row, _SEGMENT)
        elif key.startswith(_DEAD_PREFIX):
            name = os.fsdecode(key[len(_DEAD_PREFIX) :])
            self.dead_files[name] = unpack(key, row, _DEAD)
        elif key == TOTALS_KEY:
            self.totals = unpack(key, row, _TOTALS)
        elif key == STATE_KEY:
            self.state = unpack(key, row, _STATE)
        else:  # a key that this version does not know is nobody's damage
            unpack(key, row, _ANY)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            segments=self.segments,
            totals=self.totals,
            state=self.state,
            dead_files=self.dead_files,
            unreadable=tuple(self.unreadable),
        )


def read_rows(connection: sqlite3.Connection) -> tuple[Snapshot, list[int]]:
    """All that can be believed, and the row numbers of what cannot.

    One statement, so one moment. Raises what SQLite raises.
    """
    reading = _Reading()
    for rowid, key, raw, mode, filename, expires, row in connection.execute(_SELECT):
        plain = (raw, mode, filename, expires) == (1, _MODE_RAW, None, None)
        reading.take(rowid, key, plain, row)
    return reading.snapshot(), reading.unreadable_rowids


def changed_rows(
    segments: Mapping[str, SegmentEntry | None],
    totals: Totals | None,
    state: DeliveryState | None,
    dead_files: Mapping[str, DeadFile | None],
) -> list[tuple[bytes, bytes | None]]:
    """What a commit writes: rows by key, None for a row that goes."""
    values: list[tuple[bytes, msgspec.Struct | None]] = [
        *((segment_key(name), entry) for name, entry in segments.items()),
        *((dead_key(name), mark) for name, mark in dead_files.items()),
    ]
    if totals is not None:
        values.append((TOTALS_KEY, totals))
    if state is not None:
        values.append((STATE_KEY, storable(state)))
    return [(key, None if v is None else pack(key, v)) for key, v in values]


def _shown(key: object) -> str:
    """A key that may be anything, as a line that is safe on a terminal."""
    text = key.decode("utf-8", "backslashreplace") if type(key) is bytes else repr(key)
    return ascii(text[:_SHOWN_MAX])[1:-1]

"""Spools made fast: segments as a writer would leave them, without one.

Every event has the same size, so that a server that counts bytes has counted
events.
"""

from __future__ import annotations

import os
import shutil

import msgspec

from telemetry.delivery.dead_letters import FILE_BYTES as DEAD_FILE_BYTES
from telemetry.delivery.dead_letters import DeadLetter
from telemetry.files import make_directory
from telemetry.paths import Home, segment_name
from telemetry.spool.frame import encode


SEGMENT_BYTES = 4 * 1024 * 1024
_BEGAN_MS = 1_790_000_000_000
# A tool call as it is sealed by default, with fields of a fixed width.
_EVENT = (
    '{"event":"tool","event_timestamp":%013d,"source":"frobnicate","properties":{'
    '"action":"call","agent_name":"root-agent","duration_ms":%03d,'
    '"event_id":"01930000-0000-7000-8000-%012x","is_success":true,'
    '"os":"linux","os_language":"en_US.UTF-8",'
    '"session_id":"5d2d8b0e-0a31-4c0e-9e51-0b6d3c1b7a10",'
    '"tool_name":"read_file_%02d",'
    '"user_uuid":"8f14e45f-ceea-467f-a8d6-0f6f5b4f1c2d","version":"1.2.3"}}'
)


def event(number: int) -> bytes:
    """The event of this number, as it is posted."""
    told = (_BEGAN_MS + number, number % 900 + 100, number, number % 40)
    return (_EVENT % told).encode()


EVENT_BYTES = len(event(0))


def fill(home: Home, events: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
    """`events` more events wait in a home, in full segments but for the last."""
    number = 0
    while number < events:
        path = home.segment(segment_name(_BEGAN_MS * 1_000_000 + number, b"\0\0\0\0"))
        with open(path, "wb", buffering=1 << 20) as segment:
            size = seq = 0
            while number < events and size < segment_bytes:
                size += segment.write(encode(seq, event(number)))
                number += 1
                seq += 1
        os.chmod(path, 0o600)


def fill_bytes(home: Home, bytes_max: int) -> int:
    """Full segments wait in a home, as many as fit into `bytes_max`; their bytes."""
    each = (SEGMENT_BYTES // (EVENT_BYTES + 44) + 1) * (EVENT_BYTES + 44)
    count = bytes_max // each
    fill(home, count * (each // (EVENT_BYTES + 44)))
    return count * each


def fill_dead(home: Home, letters: int) -> None:
    """So many dead letters lie in a home, in files as the flusher writes them."""
    make_directory(home.dead)
    number = 0
    while number < letters:
        path = f"{home.dead}/{segment_name(_BEGAN_MS * 1_000_000 + number, bytes(4))}"
        with open(path, "wb", buffering=1 << 20) as file:
            size = seq = 0
            while number < letters and size < DEAD_FILE_BYTES:
                letter = DeadLetter(
                    event=msgspec.Raw(event(number)),
                    reason="rejected",
                    status=200,
                    reply="this tool is not in the catalogue",
                    time_ms=_BEGAN_MS,
                    attempts=1,
                    segment=segment_name(_BEGAN_MS * 1_000_000, bytes(4)),
                    offset=number,
                )
                size += file.write(encode(seq, msgspec.json.encode(letter)))
                number += 1
                seq += 1
        os.chmod(path, 0o600)


def copy_spool(source: Home, target: Home) -> None:
    """What waits in one home waits in the other, too."""
    for each in os.scandir(source.spool):
        shutil.copyfile(each.path, target.segment(each.name))
        os.chmod(target.segment(each.name), 0o600)

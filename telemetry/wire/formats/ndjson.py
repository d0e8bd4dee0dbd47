"""The format `ndjson`: the events as they are, one a line, each with its LF. Pure.

For Vector, Fluent Bit, Logstash and one's own scripts. An answer is read as that to
`records` is.
"""

from __future__ import annotations

from collections.abc import Sequence

from telemetry.wire.formats.records import refusals


__all__ = ["VERSION", "body_of", "refusals"]

VERSION = 1


def body_of(events: Sequence[bytes]) -> bytes:
    """The body that carries these events. An event holds no raw LF."""
    return b"".join([b"%b\n" % event for event in events])

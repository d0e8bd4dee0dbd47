"""The format `clickhouse`: JSONEachRow over ClickHouse's HTTP interface. Pure.

The body is that of `ndjson`. The table, the token by which ClickHouse drops a block that
it has already, and the wait for the end of the insert are parameters of the request: they
stand in the table of formats.
"""

from __future__ import annotations

from collections.abc import Mapping

from telemetry.wire.batch import Rejection
from telemetry.wire.formats.ndjson import body_of


__all__ = ["VERSION", "body_of", "refusals"]

VERSION = 1


def refusals(body: bytes, headers: Mapping[str, str]) -> tuple[Rejection, ...] | None:
    """No event if the insert ended well, else None: an insert is accepted as a whole.

    An error that comes up after the status line was sent has 200 and an exception's
    code, or its text in the body. A good insert answers nothing.
    """
    is_done = "x-clickhouse-exception-code" not in headers and not body.strip()
    return () if is_done else None

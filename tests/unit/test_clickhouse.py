"""What ClickHouse's answer means."""

from __future__ import annotations

from telemetry.wire.formats import clickhouse


def test_an_insert_is_accepted_as_a_whole() -> None:
    """An error that comes up late has the status 200 and an exception's code."""
    assert clickhouse.refusals(b"", {}) == ()
    assert clickhouse.refusals(b"\n", {"x-clickhouse-summary": "{}"}) == ()
    for body, headers in (
        (b"", {"x-clickhouse-exception-code": "241"}),
        (b"Code: 241. DB::Exception: Memory limit exceeded", {}),
        (b"{}", {}),
        (b"Ok.\n", {}),
    ):
        assert clickhouse.refusals(body, headers) is None, body

"""A fleet that lives through an outage loses nothing and sends nothing twice."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.proofs.fleet import Fleet, Receiver, clickhouse, collect, story


pytestmark = pytest.mark.proof


@pytest.mark.parametrize("name", ["collect", "clickhouse"])
def test_everything_arrives_once_after_an_outage(name: str, tmp_path: Path) -> None:
    """What the ledger, the schedule and the receiver do together, in real processes."""
    made: AbstractContextManager[Receiver] = (
        collect() if name == "collect" else clickhouse(tmp_path)
    )
    with made as receiver:
        totals = story(Fleet(10, tmp_path, receiver, spread_s=1.0), receiver)
    assert (totals["missing"], totals["twice"]) == (0, 0), totals
    assert totals["stored"] == totals["recorded"], totals
    # The outage was one, and it was felt, and so were the losses.
    assert totals["answers lost"], totals
    assert totals["flushers killed"], totals
    assert totals["with something left at the recovery"] == 10, totals
    assert totals["answers"].keys() == {200, 503}, totals

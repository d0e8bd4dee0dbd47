"""A spool is damaged in every way: each untouched record arrives, each byte is kept.

A sample; every byte, length and sector: `python -m tests.damage --long`.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from telemetry.spool import frame
from telemetry.spool.reader import SegmentReader
from tests.proofs.damage.__main__ import SHORT
from tests.proofs.damage.draining import Bench
from tests.proofs.damage.spool import KINDS, RECORDS, Case, cases, sound
from tests.support.loopback import Server


def wrong(bench: Bench, chosen: list[Case]) -> list[str]:
    """What is found in any of these."""
    return [
        f"{case.kind} {case.text}: {problem}"
        for case in chosen
        for problem in bench.drained(case)
    ]


def test_the_spool_has_segments_and_records_of_many_sizes() -> None:
    """Damage to records that are all alike would prove little."""
    files, records = sound()
    assert len(records) == RECORDS
    assert len(files) > 4
    sizes = {each.end - each.start for each in records}
    assert len(sizes) > 10
    assert min(sizes) < 80
    assert max(sizes) > 2000


@pytest.mark.parametrize("kind", KINDS)
def test_damage_costs_the_damaged_record_alone(kind: str, tmp_path: Path) -> None:
    """Every other one arrives, and every byte that does not is in quarantine."""
    chosen = list(cases(kind, every=4 * SHORT[kind]))
    assert len(chosen) > 4
    assert wrong(Bench(tmp_path), chosen) == []


@pytest.mark.proof
@pytest.mark.parametrize("kind", KINDS)
def test_damage_costs_the_damaged_record_alone_in_many_places(
    kind: str, tmp_path: Path
) -> None:
    """Other bytes than those of the short run, and more of them."""
    chosen = list(cases(kind, first=3, every=SHORT[kind]))
    assert wrong(Bench(tmp_path), chosen) == []


def test_a_whole_flush_delivers_what_damage_left(tmp_path: Path) -> None:
    """With its ledger and a server: also what came between two requests of a flush."""
    files, _ = sound()
    bench = Bench(tmp_path)
    with Server() as server:
        for kind in KINDS:
            every = max(SHORT[kind] * 90, 90)
            for case in islice(cases(kind, first=1, every=every), 3):
                assert bench.flushed(case, server) == [], case.text
                assert bench.flushed_late(files, case, server) == [], case.text


def test_the_checksum_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, a flipped bit is an altered event."""
    monkeypatch.setattr(frame, "crc32", lambda _: 0)
    found = wrong(Bench(tmp_path), list(cases("flip", every=1997)))
    assert any("altered" in each for each in found)


def test_the_quarantine_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, bytes are gone that somebody may want to look at."""
    monkeypatch.setattr(SegmentReader, "quarantine", lambda *_: None)
    found = wrong(Bench(tmp_path), list(cases("flip", every=1999)))
    assert any("bytes" in each for each in found)


def test_going_on_behind_damage_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flusher that gave a segment up at its first damage would lose the rest."""
    really = SegmentReader.take

    def timid(
        self: SegmentReader, *bounds: int, **named: int | None
    ) -> list[frame.Record | frame.Damage]:
        items = really(self, *bounds, **named)  # type: ignore[arg-type]
        return [] if isinstance(items and items[0], frame.Damage) else items

    monkeypatch.setattr(SegmentReader, "take", timid)
    found = wrong(Bench(tmp_path), list(cases("sector", every=9)))
    assert any("lost" in each for each in found)

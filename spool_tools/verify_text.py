"""What `verify` says, and how it says it to a person. Pure; opens nothing."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from spool_tools.status_text import Line, size
from spool_tools.text import many


class Finding(msgspec.Struct, kw_only=True):
    """One damaged place. Offsets are bytes in the segment.

    segment: the segment, or what else it is that cannot be read
    """

    segment: str
    offset: int
    bytes: int
    problem: str


class Tally(msgspec.Struct, kw_only=True):
    """What was checked."""

    segments: int = 0
    records: int = 0
    bytes: int = 0
    damaged_bytes: int = 0
    missing_records: int = 0
    quarantined_files: int = 0
    quarantined_bytes: int = 0
    foreign_files: int = 0
    findings: int = 0


def sentence(finding: Finding, *, at_a_byte: bool) -> Line:
    """One finding; `at_a_byte` where it is at an offset of a segment."""
    where = f" at byte {finding.offset:,}" if at_a_byte else ""
    where += f", {size(finding.bytes)}" if finding.bytes else ""
    return (finding.segment, "cyan"), f"{where}: ", (finding.problem, "red")


def summary(tally: Tally, quarantine: str, *, is_read: bool) -> Iterator[Line]:
    """The end of the report; `is_read` says that nothing else stood in the way."""
    yield (
        (
            f"{many(tally.records, 'record')} in {many(tally.segments, 'segment')} "
            f"checked, {size(tally.bytes)}"
        ),
    )
    if tally.quarantined_files:
        yield (
            (
                f"in quarantine: {many(tally.quarantined_files, 'file')}, "
                f"{size(tally.quarantined_bytes)}, in {quarantine}"
            ),
        )
    if tally.foreign_files:
        yield (
            (
                f"left alone: {many(tally.foreign_files, 'file')} in spool/, of "
                "another version or not ours"
            ),
        )
    if tally.findings:
        yield (
            (f"DAMAGED: {many(tally.findings, 'place')}", "bold red"),
            (
                f", {size(tally.damaged_bytes)}, "
                f"{many(tally.missing_records, 'record')} missing; the others are whole"
            ),
        )
    elif not is_read:
        yield ("NOT ALL COULD BE READ", "bold red"), ", see above"
    else:
        yield (("all is whole", "green"),)

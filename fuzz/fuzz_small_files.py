"""Invariant tested: whatever stands in `consent`, `user-uuid`, `next-flush` or `refused`,
or in its place, reading it raises nothing and follows no link; only a plain `on` turns
on; an id is never empty, is used as it stands, and stays; a flush is never held back
for more than a day, nor by a time that was set for another server; and what is refused
is counted, beside whatever else the file says.

An input is one letter for what stands there (`d`, `l`, `p`, `n`: a directory, a link, a
pipe, nothing; any other: a file), one byte for the hours to the next flush, signed, and
the content.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from telemetry import consent, identity
from telemetry.delivery import schedule
from telemetry.envelope import Envelope
from telemetry.events import TokenEvent
from telemetry.spool import refusals


NOW_S = 1_900_000_000.0
HOUR_S = 3600.0
OURS, OTHERS = "0a1b2c3d", "ffffffff"
REASON = "disk_error"
VICTIM = b"precious"
_UUID4 = re.compile(
    "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
_ON = re.compile(r"[\s\x1c-\x1f]*on(?:[\s\x1c-\x1f]|$)")
# What the shells read of each file.
_CONSENT_BYTES, _ID_BYTES = 256, 1024
_COUNT_MAX = 10**15 - 1


class Place:
    """A path at which something stands; `is_file` says that it can be read."""

    def __init__(self, path: Path, data: bytes) -> None:
        kind, content = data[:1], data[2:]
        self.path = str(path)
        self.hours = int.from_bytes(data[1:2], "big", signed=True)
        self.is_file = kind not in {b"d", b"l", b"p", b"n"}
        self.is_writable = self.is_file or kind == b"n"
        self.content = content
        if kind == b"d":
            path.mkdir()
        elif kind == b"l":
            path.symlink_to("victim")
        elif kind == b"p":
            os.mkfifo(path)
        elif kind != b"n":
            path.write_bytes(content)

    def is_as_it_was(self) -> bool:
        """Whether a file still has its content."""
        return not self.is_file or Path(self.path).read_bytes() == self.content


def check_consent(place: Place) -> None:
    """Only what plainly says `on` is on; what is remembered is read again."""
    found = consent.read_choice(place.path)
    assert place.is_as_it_was()
    if place.is_file:
        assert found is not None
        text = place.content[:_CONSENT_BYTES].decode("utf-8", "replace")
        assert found.on == (_ON.match(text) is not None), (found.on, text)
    else:
        assert found is None or not found.on
    for turned_off in ({"DO_NOT_TRACK": "1"}, {"TELEMETRY_ENABLED": "off"}):
        assert not decided(turned_off, found, "on")
    assert decided({}, found, "") == (found is None or found.on)
    if found is None or not place.is_writable:
        return
    consent.remember_choice(place.path, found)
    again = consent.read_choice(place.path)
    assert again is not None
    assert again.on == found.on
    if len(consent.format_choice(found)) <= _CONSENT_BYTES:
        assert (again.date, again.notice_version) == (found.date, found.notice_version)
        assert again.is_finished == found.is_finished


def decided(
    environment: dict[str, str], choice: consent.Choice | None, build: str
) -> bool:
    """Whether the first rule that has something to say says on."""
    said = consent.rules(
        environment=environment, enabled=True, choice=choice, build=build
    )
    return next(decision.on for decision in said.values() if decision is not None)


def check_id(place: Place) -> None:
    """An id that is there is used as it stands; another one is made once."""
    found = identity.user_uuid(place.path)
    written = identity.parse_id(place.content[:_ID_BYTES]) if place.is_file else ""
    assert identity.parse_id(written.encode()) == written
    if written:
        assert found == written
        assert place.is_as_it_was()
    else:
        assert _UUID4.fullmatch(found), found
    if not os.path.isdir(place.path):
        assert identity.user_uuid(place.path) == found
    sealed = Envelope(
        source="fuzz",
        version="1",
        user_uuid=found,
        scrub=None,
        event_bytes_max=1 << 20,
        environment={},
    ).seal(TokenEvent())
    assert json.loads(sealed)["properties"]["user_uuid"] == found


def check_next_flush(place: Place) -> None:
    """A flush waits for no more than a day, and for nobody else's time."""
    at = NOW_S + place.hours * HOUR_S
    if os.path.lexists(place.path):
        os.utime(place.path, (at, at), follow_symlinks=False)
    plan = schedule.load(place.path)
    until = plan.not_before(OURS, NOW_S)
    assert until <= NOW_S + 24 * HOUR_S
    if not place.is_file or (not 0 < place.hours <= 24 and OURS not in plan.waits):
        assert until <= NOW_S
    elif place.content.startswith(b"%b 00 0000000000\n" % OURS.encode()):
        assert until == at
    assert schedule.read(place.path) == (at if os.path.lexists(place.path) else None)
    assert place.is_as_it_was()
    plan.end(OURS, NOW_S, failures=0, until=NOW_S + HOUR_S)
    try:
        schedule.store(place.path, plan)
    except OSError:
        assert not place.is_writable
        return
    assert place.is_writable
    again = schedule.load(place.path)
    assert again.content() == plan.content()
    assert again.not_before(OURS, NOW_S) == NOW_S + HOUR_S
    # A clock that was put back, and a time that no clock of ours sets.
    assert again.not_before(OURS, NOW_S - HOUR_S) <= NOW_S - HOUR_S
    far = schedule.Schedule(again.content(), NOW_S + 25 * HOUR_S)
    assert far.not_before(OURS, NOW_S) <= NOW_S
    if OTHERS not in plan.waits:
        assert again.not_before(OTHERS, NOW_S) == NOW_S + schedule.WINDOW_S


def check_refused(place: Place) -> None:
    """Two more are two more, and all others as many as they were."""
    before = refusals.read(place.path)
    for reason, count in before.items():
        assert reason.isascii()
        assert reason.isprintable()
        assert 0 <= count <= _COUNT_MAX * 128
    assert place.is_as_it_was()
    waiting = [(REASON, 1), (REASON, 1)]
    refusals.count(place.path, waiting)
    after = refusals.read(place.path)
    if place.is_writable and has_room(place.content if place.is_file else b""):
        counted, there = after.pop(REASON), before.pop(REASON, 0)
        assert counted == there + 2 or there > _COUNT_MAX - 2, (counted, there)
    assert after == before


def has_room(content: bytes) -> bool:
    """Whether there is a line of our reason, or a free one."""
    starts = (content[at : at + 15] for at in range(0, refusals.FILE_BYTES, 32))
    ours = REASON.encode().ljust(15)
    return any(each == ours or not each.strip(b" \0") for each in starts)


CHECKS: tuple[Callable[[Place], None], ...] = (
    check_consent,
    check_id,
    check_next_flush,
    check_refused,
)


def one(data: bytes) -> None:
    """The same content in the place of each file."""
    with tempfile.TemporaryDirectory() as scratch:
        victim = Path(scratch) / "victim"
        victim.write_bytes(VICTIM)
        for check in CHECKS:
            check(Place(Path(scratch) / check.__name__, data))
            assert victim.read_bytes() == VICTIM
            assert not any(".tmp-" in name for name in os.listdir(scratch))

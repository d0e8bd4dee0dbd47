"""Print every pending event as one JSON line, exactly as it will be sent. On a terminal
it is a table.

examples:
  spool-tools dump --app frobnicate
  spool-tools dump --app frobnicate --format jsonl | jq .event
  spool-tools dump --app frobnicate --event tool --since 2h
  spool-tools dump --app frobnicate --follow     # as they are recorded
  spool-tools dump --app frobnicate --as-sent    # whole request bodies
exit codes: 0 fine; 1 something could not be read; 2 wrong usage; 3 no such spool
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import select
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import msgspec

from spool_tools.reading import Spool, decoded
from spool_tools.screen import Bar, Screen, as_json, complain
from spool_tools.target import WrongUsageError, add_target, count, target_home
from spool_tools.wording import cut, printable
from telemetry.config import Config
from telemetry.delivery.gathering import Gathering
from telemetry.events import SystemProperties
from telemetry.spool.frame import Record
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.wire.formats import FORMATS, format_of


STATES = ("pending", "dead", "damaged", "all")
# Every event has them, so that in a table they would say nothing.
_CONTEXT = "os_version arch python ci container install sdk invocation_id"
_SYSTEM = frozenset([*SystemProperties.__struct_fields__, *_CONTEXT.split()])
# What a narrow terminal should not cut off, before fields that are longer.
_FIRST = ("tool_name", "is_success", "flags", "error")
_ACTION_COLUMNS = 20
# Times that a calendar has a form for, milliseconds since 1970.
_TIME_MS_MAX = 1 << 47
# More than a terminal is wide.
_DETAIL_CHARACTERS = 500
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# How long a follower rests between two looks.
_PAUSE_S = 0.1
T = TypeVar("T")


class Shown(NamedTuple):
    """One line: a pending event, a dead one, or a damaged stretch, as JSON."""

    state: str
    text: bytes

    def wrapped(self) -> bytes:
        """The JSON together with the state, for lines of several states."""
        member = b"stretch" if self.state == "damaged" else b"event"
        return b'{"state":"%b","%b":%b}' % (self.state.encode(), member, self.text)

    def row(self) -> tuple[str, str, str, str]:
        """Time, state, name and properties, as cells of a table."""
        event = decoded(self.text)
        at_ms = event.get("event_timestamp")
        when = ""
        if isinstance(at_ms, int) and 0 <= at_ms < _TIME_MS_MAX:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms // 1000))
        return when, self.state, str(event.get("event", "")), details_of(event)


def details_of(event: Mapping[str, Any]) -> str:
    """What an event says besides its name, on one line; what matters comes first."""
    properties = event.get("properties", event)
    if not isinstance(properties, dict):
        return ""
    first = {name: properties[name] for name in _FIRST if name in properties}
    pairs = (
        f"{name.removeprefix('is_')}={shown(value)}"
        for name, value in {**first, **properties}.items()
        if name not in _SYSTEM and name != "action" and value not in ("", None)
    )
    # What was done needs no name in front of it, and no more than its beginning.
    action = cut(printable(shown(properties.get("action", ""))), _ACTION_COLUMNS)
    return " ".join(filter(None, (action, *pairs)))[:_DETAIL_CHARACTERS]


def lines(spool: Spool, state: str) -> Iterator[Shown]:
    if state in {"pending", "all"}:
        yield from (Shown("pending", event) for event in spool.pending())
    if state in {"dead", "all"}:
        yield from (Shown("dead", bytes(each.event)) for each in spool.letters())
    if state in {"damaged", "all"}:
        yield from (Shown("damaged", as_json(each)) for each in spool.damaged())


def _is_wanted(line: Shown, name: str | None, since_s: float | None) -> bool:
    """Whether a line is an event of this name, recorded since (seconds since 1970)."""
    if name is None and since_s is None:
        return True
    event = decoded(line.text)
    if name is not None and event.get("event") != name:
        return False
    at_ms = event.get("event_timestamp")
    return since_s is None or (
        isinstance(at_ms, (int, float)) and at_ms >= since_s * 1000
    )


def shown(value: object) -> str:
    """A value as JSON has it; a text without quotes, a list of texts without brackets."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add = parser.add_argument
    text = "how events are printed (default: table on a terminal, else jsonl)"
    add("--format", choices=("jsonl", "table"), help=text)
    add("--event", metavar="NAME", help="only events of this name")
    text = "only events recorded since: 90s, 5m, 2h, 3d ago, or 2026-01-31T12:00 "
    text += "(UTC where no zone is given)"
    add("--since", metavar="WHEN", type=_since, help=text)
    add("--limit", type=count, metavar="N", help="at most N of them")
    add("--follow", action="store_true", help="go on as they are recorded, till Ctrl-C")
    text = "what to show: events that wait (the default), dead letters, damaged "
    text += "stretches of bytes, or all of them, each with its state"
    add("--state", choices=STATES, help=text)
    text = "print the request bodies that a flush with the default bounds would send, "
    text += f"in the format last sent in, or in this one: {', '.join(FORMATS)}"
    add(
        "--as-sent", nargs="?", const=True, choices=FORMATS, metavar="FORMAT", help=text
    )


def run(args: argparse.Namespace) -> int:
    _refuse_what_does_not_fit(args)
    spool = Spool(target_home(args), "dump")
    screen = Screen()
    if args.as_sent:
        known = spool.snapshot.state.format
        form = known if args.as_sent is True else args.as_sent
        bodies = itertools.islice(as_sent(spool, form), args.limit)
        for body in _unless_none(bodies, screen, "pending"):
            screen.body(body, is_text="protobuf" not in FORMATS[form].content_type)
        return 1 if spool.problems else 0
    state = args.state or "pending"
    with Bar(screen, "dump", total=spool.count_pending) as bar:
        # A follower waits for events, not they for it.
        found = _followed(spool) if args.follow else bar.over(lines(spool, state))
        chosen = (each for each in found if _is_wanted(each, args.event, args.since))
        shown: Iterator[Shown] = itertools.islice(chosen, args.limit)
        if not args.follow:
            shown = _unless_none(shown, screen, state)
        if args.format == "jsonl" or not (args.format or screen.is_terminal):
            for line in shown:
                screen.json(line.wrapped() if state == "all" else line.text)
        else:
            # As wide as what they usually hold, for rows that cannot be waited for.
            headings = ("time (UTC)         ", "state  ", "event  ", "properties")
            cells = itemgetter(*((0, 1, 2, 3) if state == "all" else (0, 2, 3)))
            screen.table(
                cells(headings),
                (cells(line.row()) for line in shown),
                styles=cells(("dim", "", "cyan", "")),
                at_once=args.follow,
            )
    return 1 if spool.problems else 0


def _refuse_what_does_not_fit(args: argparse.Namespace) -> None:
    """Options that contradict one another must not be quietly left out."""
    for name in ("event", "since", "state", "format", "follow"):
        if args.as_sent and getattr(args, name):
            only = "--as-sent prints whole requests; it goes with --limit"
            raise WrongUsageError(f"{only}, not --{name}")
    if args.follow and args.state not in {None, "pending"}:
        raise WrongUsageError("--follow shows pending events; leave out --state")


def _followed(spool: Spool) -> Iterator[Shown]:
    """Each pending event, and then each that is recorded, until the pipe is closed.

    What is recorded, delivered and deleted between two looks is missed.
    """
    # How far each segment was shown, and its size then.
    seen: dict[str, tuple[int, int]] = {}
    while not _is_reader_gone():
        names = segment_names(spool.home)
        for name in names:
            for event in _news(spool, name, seen):
                yield Shown("pending", event)
                sys.stdout.flush()  # its reader wants to see it happen
        for name in seen.keys() - set(names):
            del seen[name]
        time.sleep(_PAUSE_S)


def _news(spool: Spool, name: str, seen: dict[str, tuple[int, int]]) -> Iterator[bytes]:
    """The events that a segment has got since it was `seen`."""
    end, size = seen.get(name, (None, -1))
    try:
        if os.lstat(spool.home.segment(name)).st_size == size:
            return
    except OSError:
        return  # deleted meanwhile
    opened = spool.open(name)
    if opened is None:
        return
    reader, entry = opened
    try:
        size = reader.size()
        if end is None:
            yield from spool.waiting(reader, entry)
            end = entry.offset
        for item in spool.items(reader, end):
            end = item.end
            if isinstance(item, Record):
                yield item.event
        seen[name] = (end, size)
    finally:
        reader.close()


def _is_reader_gone() -> bool:
    """Whether the pipe that we write to was closed at its other end."""
    if not hasattr(select, "poll"):
        return False
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        found = poll.poll(0)
    except (OSError, ValueError):
        return False
    return any(flags & (select.POLLERR | select.POLLHUP) for _, flags in found)


def _unless_none(found: Iterator[T], screen: Screen, state: str) -> Iterator[T]:
    """The same; where there is none, a person at a terminal reads so."""
    first = next(found, None)
    if first is not None:
        return itertools.chain([first], found)
    if screen.is_terminal or sys.stderr.isatty():
        what = "" if state == "all" else f" that is {state}"
        complain("dump", f"there is nothing{what}")
    return iter(())


def _since(text: str) -> float:
    """Seconds since 1970 of a moment, or of so long ago."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if found:
        return time.time() - int(found[1]) * _UNITS_S[found[2]]
    try:
        # Before Python 3.11 the zone's usual short form is not understood.
        moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a moment (2026-01-31T12:00) nor a time (5m, 2h, 3d)"
        ) from None


def as_sent(spool: Spool, form: str) -> Iterator[bytes]:
    """The request bodies of the next flush, about in the order of sending.

    What was announced is planned as it was announced, the rest by the bounds of the last
    flush, or the default ones. What a server refuses is sent again in other parts, which
    cannot be foreseen.
    """
    body_of = format_of(form).body_of
    for parts in _batches(spool):
        yield body_of([record.event for records in parts for record in records])


def _batches(spool: Spool) -> Iterator[list[list[Record]]]:
    default, state = Config(app=""), spool.snapshot.state
    events_max = state.batch_events_max or default.batch_events_max
    bytes_max = state.batch_bytes_max or default.batch_bytes_max
    gathered: Gathering[list[Record]]
    gathered = Gathering(events_max=events_max, bytes_max=bytes_max)
    # What was announced together: of how many ranges, and what is known of it.
    entries = spool.snapshot.segments.values()
    ranges = Counter(each.joined for entry in entries for each in entry.announced)
    joined: dict[str, list[list[Record]]] = {}
    for reader, entry in spool.opened():
        for known in entry.announced:
            reader.start_at(known.start)
            if not (known.digest or known.joined):
                for records in _taken(reader, events_max, bytes_max, until=known.end):
                    yield [records]
                continue
            whole = next(_taken(reader, known.count, until=known.end), [])
            if not known.joined:
                yield [whole]
                continue
            parts = joined.setdefault(known.joined, [])
            parts.append(whole)
            if len(parts) == ranges[known.joined]:
                yield joined.pop(known.joined)
        reader.start_at(entry.offset)
        for records in _taken(reader, events_max, bytes_max):
            yield from gathered.add(records, records)
    yield from joined.values()  # a part of it is gone
    yield from filter(None, [gathered.take()])


def _taken(
    reader: SegmentReader, *bounds: int, until: int | None = None
) -> Iterator[list[Record]]:
    """The whole records from where the reader stands, as many at once as is posted."""
    while items := reader.take(*bounds, until=until):
        yield [item for item in items if isinstance(item, Record)]

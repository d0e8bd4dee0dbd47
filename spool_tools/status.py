"""Say what is kept, what was sent, and when the next flush is.

examples:
  spool-tools status --app frobnicate
  spool-tools status --app frobnicate --explain    # why it is on or off
  spool-tools status --app frobnicate --json | jq .pending
exit codes: 0 fine; 1 the books do not balance, or something cannot be read; 2 wrong usage; 3 no such spool
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

import msgspec

from spool_tools import explain
from spool_tools.changing import Holder, flush_lock_holder
from spool_tools.reading import Spool, decoded, quarantined, sizes
from spool_tools.screen import Line, Screen
from spool_tools.target import NoSuchSpoolError, add_target, destination, target_home
from spool_tools.why import Facts, why
from spool_tools.wording import age, ago, many, size
from telemetry.books.entries import DeliveryState, Totals
from telemetry.books.view import DB_NAME, JOURNAL_SUFFIX, lock_problem, set_aside_names
from telemetry.consent import consent
from telemetry.delivery import schedule
from telemetry.delivery.census import Census, take_census
from telemetry.delivery.forgetting import last_try
from telemetry.delivery.opt_out import requests_waiting
from telemetry.delivery.upkeep import is_short_of_room, is_spool_full
from telemetry.errors import ConfigError, HomeError
from telemetry.files import directory_problem, open_regular, refuse_below_others
from telemetry.mistakes import NOTHING_IS_SENT, missing
from telemetry.paths import Home
from telemetry.spool import refusals
from telemetry.spool.reader import segment_names
from telemetry.switches import trimmed
from telemetry.wire.endpoint import parse_endpoint


# Beside a flusher, the ledger and the files may be of different moments. Most looks
# are of one; where segments come and go by the hundred a second, one in three is.
_LOOKS = 20
# Bytes of a path, the suffix of the journal included, on POSIX (SQLite's os_unix.c).
_SQLITE_PATH_MAX = 512
# A setting without which nothing is sent, in the sentence about a mistake in it.
_NEEDED = re.compile(r"configure\((endpoint|api_key|header)=")
_ELSEWHERE = "set TELEMETRY_HOME to a directory of a local disk"
_SHUT = "cannot be written, whatever its mode says; see `lsattr`"


class Status(Census, frozen=True, kw_only=True):
    """The census and what else there is to say of a spool.

    Sizes are bytes, ages seconds, times milliseconds since 1970.

    why: what is wrong now, or what happens next; why_code: the same as a word
    flusher: `none`, `running` or `unknown`
    ledgers_set_aside: damaged ledgers, beside the one that took their place
    deletions_waiting: ids that were given up, and that a server is still to delete
    deletion_answer: what came of the last try to have them deleted; null: none was made
    foreign: names in `spool/` that are of another version, or not ours
    unreadable: what stands in the place of ours and cannot be read, and why
    mistakes: what was wrong with the program's settings at its last launch, and
        variables of this environment that do not count as they stand
    """

    home: str
    telemetry: str
    rule: str
    reason: str
    why: str
    why_code: str
    balanced: bool
    refused: dict[str, int]
    segments: int
    spool_bytes: int
    quarantine_files: int
    quarantine_bytes: int
    dead_bytes: int
    oldest_event_age_s: float | None
    endpoint: str | None
    last_success_ms: int | None
    last_error: str | None
    last_error_ms: int | None
    failures: int
    requests: int
    last_flush: str | None
    next_flush_ms: int | None
    flusher: str
    flusher_pid: int | None
    ledgers_set_aside: list[str]
    deletions_waiting: int
    deletion_answer: str | None
    foreign: list[str]
    unreadable: list[str]
    mistakes: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add = parser.add_argument
    add("--json", action="store_true", help="one JSON object, on a terminal too")
    add("--explain", action="store_true", help="say which rule decided on or off")


def run(args: argparse.Namespace) -> int:
    # Why it is on can be asked before there is a spool.
    try:
        home = target_home(args, must_exist=not args.explain)
    except NoSuchSpoolError as error:
        decision = consent(None, os.environ)
        if decision.on:
            raise
        off = f"{error}; telemetry is off: {decision.reason}"
        raise NoSuchSpoolError(off) from None
    screen = Screen()
    if args.explain:
        explanation = explain.explain(home, os.environ)
        if args.json:
            screen.object(explanation)
        else:
            explain.tell(screen, explanation)
        return 0
    status = status_of(home)
    if args.json or not screen.is_terminal:
        screen.object(status)
    else:
        for line in lines(status, time.time()):
            screen.say(*line, indent=14)
    return 0 if status.balanced and not status.unreadable else 1


def status_of(home: Home) -> Status:
    spool = Spool(home)
    census = _census(spool)
    decision = consent(home, os.environ)
    state = spool.snapshot.state
    stretches = quarantined(home)
    holder = flush_lock_holder(home)
    mistakes = explain.mistakes_of(home)
    off = "" if decision.on else decision.reason
    since = _refused_since(home, spool.snapshot.totals)
    unread = spool.unreadable()
    facts = _facts(
        *(spool, census, holder, off, mistakes),
        refused_since=since,
        has_unreadable=bool(unread),
    )
    code, sentence = why(facts)
    return Status(
        home=home.root,
        telemetry="on" if decision.on else "off",
        rule=decision.rule,
        reason=decision.reason,
        why=sentence,
        why_code=code,
        **msgspec.structs.asdict(census),
        balanced=census.holds(),
        refused={
            name: spool.snapshot.totals.refused.get(name, 0) + since.get(name, 0)
            for name in sorted({*spool.snapshot.totals.refused, *since})
        },
        segments=len(segment_names(home)),
        spool_bytes=sum(sizes(home.spool).values()),
        quarantine_files=len(stretches),
        quarantine_bytes=sum(size for _, size in stretches),
        dead_bytes=sum(sizes(home.dead).values()),
        oldest_event_age_s=_oldest_age_s(spool),
        endpoint=state.endpoint or None,
        last_success_ms=state.last_success_ms or None,
        last_error=state.last_error or None,
        last_error_ms=state.last_error_ms or None,
        failures=state.failures,
        requests=state.requests,
        last_flush=state.stopped or None,
        # Where the clock was put back since, all that was written then counts as due.
        next_flush_ms=int(
            (facts.now if facts.plan.is_ahead(facts.now) else facts.plan.at) * 1000
        )
        or None,
        flusher=holder.state,
        flusher_pid=holder.pid,
        ledgers_set_aside=list(facts.ledgers_aside),
        deletions_waiting=facts.deletions,
        deletion_answer=facts.deletion_answer or None,
        foreign=spool.foreign(),
        unreadable=_unreadable(spool, unread),
        mistakes=mistakes,
    )


def _facts(
    spool: Spool,
    census: Census,
    holder: Holder,
    off: str,
    mistakes: list[str],
    *,
    refused_since: Mapping[str, int],
    has_unreadable: bool,
) -> Facts:
    home = spool.home
    try:
        endpoint, key, problem = _destination(os.environ)
        load_problem = ""
    except Exception as error:  # noqa: BLE001 - whatever a module of others raises
        endpoint, key, problem = "", False, ""
        load_problem = _told(error)
    entries = spool.snapshot.segments.values()
    aside = [each for entry in entries for each in entry.announced if each.reason]
    problem_here = recording_problem(home)
    unusable = "" if problem_here else _unusable(home, holder)
    # Root looks at the homes of others, whose programs record there.
    is_root = sys.platform != "win32" and os.geteuid() == 0
    is_others = is_root and problem_here.startswith(f"{home.root} belongs to")
    now = time.time()
    state, plan = spool.snapshot.state, schedule.load(home.next_flush)
    if plan.starts > 0 or (plan.last > 0 and not state.stopped):
        load_problem = load_problem or _load_problem()  # no end of a flush is known
    return Facts(
        now=now,
        state=state,
        off=off,
        home_problem="" if is_others else problem_here,
        is_others=is_others,
        unusable=unusable,
        plan=plan,
        refused=tuple(name for name, count in refused_since.items() if count)
        or tuple(_short_of(home, state)),
        records_again="disk_error" in refused_since
        and not is_short_of_room(home.root)
        and _records_again(home),
        pending=census.pending,
        is_flushing=holder.state == "running",
        holder_pid=holder.pid or 0,
        is_stopped=holder.is_stopped,
        silent_s=_silent_s(home, holder, plan, now),
        deletions=len(requests_waiting(home)),
        deletion_answer=last_try(home).said,
        set_aside=sum(each.count for each in aside),
        set_aside_reasons=tuple(dict.fromkeys(each.reason for each in aside)),
        ledgers_aside=tuple(set_aside_names(home.ledger)),
        is_ledger_unreadable=not spool.has_ledger,
        has_unreadable=has_unreadable,
        has_sqlite=find_spec("_sqlite3") is not None,
        load_problem=load_problem,
        endpoint=endpoint,
        key=key,
        mode=trimmed(os.environ.get("TELEMETRY_FLUSH", "")).lower(),
        problem=problem,
        lacks=_lacking(mistakes),
        mistaken=_mistaken(mistakes),
    )


def _records_again(home: Home) -> bool:
    """Whether a segment was written behind the last refusal that was counted."""
    segments = [_written_ns(home.segment(name)) for name in segment_names(home)]
    return max(segments, default=0) > _written_ns(home.refused)


def _written_ns(path: str) -> int:
    """When a file was last written, ns since 1970; 0 if it is gone."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _silent_s(home: Home, holder: Holder, plan: schedule.Schedule, now: float) -> float:
    """For how long the holder of the flush lock has written nothing.

    0.0 where nobody holds it, or the system never tells who does. A tool that has just
    taken the lock was not silent before its start.
    """
    if holder.state != "running" or not sys.platform.startswith("linux"):
        return 0.0
    began = now - holder.age_s if holder.age_s else 0.0
    written = _written_ns(f"{home.ledger}/{DB_NAME}") / 1e9
    return now - max(began, written, plan.last)


def _short_of(home: Home, state: DeliveryState) -> Iterator[str]:
    """What may refuse the next events, although none was refused since the last flush.

    A home that was made on a full disk has no file to count refusals in, and a file
    system that copies what is overwritten cannot count them.
    """
    if is_spool_full(home, state.spool_bytes_max):
        yield "spool_room"
    if is_short_of_room(home.root):
        yield "no_room"


def _mistaken(mistakes: list[str]) -> tuple[str, str] | None:
    """What a flush needs and the program had, but none that can be used; and why."""
    for each in mistakes:
        field = _NEEDED.match(each) if NOTHING_IS_SENT in each else None
        if field and missing(field[1]).problem not in each:
            return field[1], each
    return None


def _lacking(mistakes: list[str]) -> str:
    """What the program had no usable one of at its last launch."""
    if any(missing("endpoint").problem in each for each in mistakes):
        return "endpoint"
    return "api_key" if any("(api_key=" in each for each in mistakes) else ""


def _load_problem() -> str:
    """Why a flusher cannot load what sends, in this Python; empty if it can."""
    try:
        # Heavy, and seldom needed.
        import telemetry.books.ledger
        import telemetry.delivery.flush  # noqa: F401
    except Exception as error:  # noqa: BLE001 - whatever a module of others raises
        return _told(error)
    return ""


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def recording_problem(home: Home) -> str:
    """What keeps this user's programs from recording there; empty if nothing does."""
    for path in (home.root, home.spool):
        try:
            problem = directory_problem(os.lstat(path))
        except FileNotFoundError:
            if path == home.root:
                try:
                    refuse_below_others(path)
                except HomeError as error:
                    return f"{path} {error.problem}"
            continue  # it is made when it is needed
        except OSError as error:
            problem = f"cannot be looked into: {error.strerror}"
        advice = ""
        if path == home.spool:
            advice = "; put the directory back, or set TELEMETRY_HOME to another place"
        elif problem.startswith("belongs to"):
            advice = "; give it back with `chown`, or set TELEMETRY_HOME to another"
        if problem:
            return f"{path} {problem}{advice}"
    if _is_shut(home):
        return f"{home.spool} {_SHUT}, or set TELEMETRY_HOME to another place"
    return ""


def _is_shut(home: Home) -> bool:
    """Whether no segment can be made, whatever the mode of `spool/` says.

    Another mode is put right as one is made, and a disk that is read-only is told as such.
    """
    try:
        mode = os.lstat(home.spool).st_mode
    except OSError:
        return False
    is_meant = mode & 0o300 == 0o300 and os.access(home.root, os.W_OK)
    return is_meant and not os.access(home.spool, os.W_OK)


def _unusable(home: Home, holder: Holder) -> str:
    """What keeps each flush of this home away, and what to do; empty if nothing does."""
    if holder.problem:
        problem = f"the file system of {home.root} cannot lock files ({holder.problem})"
        return f"{problem}; {_ELSEWHERE}"
    for path in (home.flush_lock, home.next_flush):
        if problem := _problem_of(path):
            advice = "remove it, and the program's next run makes it anew"
            if problem == os.strerror(errno.EROFS):
                advice = "set TELEMETRY_HOME to a directory that can be written"
            return f"{path} cannot be used ({problem}); {advice}"
    if sys.platform != "win32":
        database = f"{home.ledger}/{DB_NAME}"
        ours = (home.ledger, database, database + JOURNAL_SUFFIX, home.next_flush)
        for path in ours:
            if problem := _protected(path, is_timed=path == home.next_flush):
                return f"{path} {problem}"
        # SQLite resolves links first.
        ledger = os.fsencode(os.path.realpath(database + JOURNAL_SUFFIX))
        if len(ledger) > _SQLITE_PATH_MAX:
            beyond = f"{len(ledger) - _SQLITE_PATH_MAX} bytes too long for the ledger"
            advice = "set TELEMETRY_HOME to a shorter one"
            return f"the path of the home is {beyond}; {advice}"
    return _held(home) if holder.state == "none" else ""


def _held(home: Home) -> str:
    """Why the ledger cannot be locked, and what to do; empty if it can."""
    problem = lock_problem(home.ledger)
    # A flush that has begun meanwhile may well hold it.
    if problem and flush_lock_holder(home).state != "none":
        return ""
    if "locked" in problem:
        return (
            f"another program holds the ledger ({problem}): a database browser, or a "
            f"backup; end it, or have it close {home.ledger}"
        )
    if problem:
        return f"{home.ledger} cannot be locked ({problem}); {_ELSEWHERE}"
    return ""


def _protected(path: str, *, is_timed: bool) -> str:
    """What keeps a flush from writing this file, and what to do; empty if nothing does.

    A file of one's own may be read-only: each flush makes it writable. Of another
    user's file nobody but root may set the time.
    """
    try:
        found, user = os.lstat(path), os.geteuid()
    except OSError:
        return ""  # it is made when it is needed, or the ledger cannot be read at all
    if found.st_uid != user:
        is_shut = _problem_of(path) or (is_timed and user != 0)
        advice = "belongs to another user; give it back with `chown`"
        return advice if is_shut else ""
    if stat.S_ISDIR(found.st_mode):
        return ""
    is_shut = bool(found.st_mode & 0o200 and _problem_of(path))
    return _SHUT if is_shut else ""


def _problem_of(path: str) -> str:
    try:
        os.close(open_regular(path, os.O_RDWR))
    except FileNotFoundError:
        pass  # it is made when it is needed
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _destination(environment: Mapping[str, str]) -> tuple[str, bool, str]:
    """Endpoint, whether there is a key or none is needed, and what cannot be used."""
    try:
        config = destination({"app": "status"}, environment)
        if config.endpoint:
            parse_endpoint(config.endpoint)
    except ConfigError as error:
        return "", False, str(error)
    for problem in config.problems():
        if problem.field in {"endpoint", "api_key", "header"}:
            return "", False, str(problem)
    return config.endpoint, bool(config.api_key or not config.header), ""


def _census(spool: Spool) -> Census:
    """The numbers of one moment, as far as there is one.

    Taken again where a segment vanished meanwhile, or where the sides differ although
    something was settled meanwhile: a difference that was there while the ledger stood
    still is one.
    """
    balanced = None
    for _ in range(_LOOKS):
        before, snapshot = segment_names(spool.home), spool.snapshot
        census = take_census(spool.home, snapshot, quickly=True)
        if census.holds():
            balanced = census
            if set(before) <= set(segment_names(spool.home)):
                break
        spool.look_again()
        if not census.holds() and spool.snapshot == snapshot:
            return census
    return balanced or census


def _unreadable(spool: Spool, found: list[str]) -> list[str]:
    """What could not be read, and what came up besides, each thing once."""
    places = [f"/{each.partition(': ')[0]} at byte " for each in found]
    return found + [p for p in spool.problems if not any(at in p for at in places)]


def _refused_since(home: Home, totals: Totals) -> dict[str, int]:
    """Refusals by reason that no flush has counted yet."""
    marks = totals.refused_marks
    # A count below its mark belongs to a new file: all of it is new.
    return {
        reason: count - mark if count >= (mark := marks.get(reason, 0)) else count
        for reason, count in refusals.read(home.refused).items()
    }


def _oldest_age_s(spool: Spool) -> float | None:
    """How long the event waits that is sent next; None where none waits."""
    with contextlib.closing(spool.pending()) as events:
        recorded_ms = decoded(next(events, b"")).get("event_timestamp")
    if not isinstance(recorded_ms, int):
        return None
    try:
        return max(time.time() - recorded_ms / 1000, 0.0)
    except OverflowError:
        return None


def lines(status: Status, now: float) -> Iterator[Line]:
    """The lines for a person. `now` is seconds since 1970."""
    yield ((status.home, "bold"),)
    style = "green" if status.telemetry == "on" else "yellow"
    yield "telemetry is ", (status.telemetry, style), f": {status.reason}"
    if status.telemetry == "on":
        yield (status.why,)
    yield ()
    yield from _equation(status, now)
    yield ()
    for name, value, style in rest(status, now):
        yield ((f"{name:<14}", "bold"), (value, style))


def _equation(status: Status, now: float) -> Iterator[Line]:
    width = len(f"{status.recorded:,}")
    oldest = status.oldest_event_age_s
    kept = f"{many(status.segments, 'segment')}, {size(status.spool_bytes)}"
    terms = {
        "pending": ("", kept + (f", oldest {age(oldest)} old" if oldest else "")),
        "delivered": ("", f"last {ago(status.last_success_ms, now)}"),
        "dead": ("yellow", "`dead list` says why, `dead retry` sends them again"),
        "damaged": ("red", "`dump --state damaged` says where its bytes are"),
        "purged": ("", ""),
    }
    yield f"  {status.recorded:>{width},}  ", ("recorded", "bold")
    for sign, (name, (style, note)) in zip("=++++", terms.items(), strict=True):
        count: int = getattr(status, name)
        number = (f"{sign} {count:>{width},}  {name}", style if count else "dim")
        gap = " " * (11 - len(name))
        yield (number, (gap + note, "dim")) if count and note else (number,)
    if not status.balanced:
        problem = "something went missing, or came from elsewhere; run verify"
        yield ((f"  THE BOOKS DO NOT BALANCE: {problem}", "bold red"),)


def rest(status: Status, now: float) -> Iterator[tuple[str, str, str]]:
    """What else there is to say: a name, a text and its style."""
    if status.refused:
        counts = (f"{count:,} {reason}" for reason, count in status.refused.items())
        yield "not recorded", ", ".join(counts), "yellow"
    if status.endpoint:
        yield "endpoint", status.endpoint, ""
    if status.last_error:
        yield "last error", f"{ago(status.last_error_ms, now)}: {status.last_error}", ""
    last = f"{status.last_flush}, {many(status.requests, 'request')} so far"
    yield "last flush", last if status.last_flush else "none so far", ""
    at_work = {"none": "none is at work", "running": "at work", "unknown": "unknown"}
    process = f": process {status.flusher_pid}" if status.flusher_pid else ""
    yield "flusher", at_work[status.flusher] + process, ""
    for name in status.ledgers_set_aside:
        yield "set aside", f"{status.home}/{name}, a damaged ledger", "yellow"
    if status.quarantine_files:
        count = many(status.quarantine_files, "file")
        kept = f"{count}, {size(status.quarantine_bytes)}: {status.home}/quarantine"
        yield "quarantine", kept, ""
    if status.deletions_waiting:
        count = many(status.deletions_waiting, "request")
        yield "to forget", f"{count} that a server delete what it has", "yellow"
    for name in status.foreign:
        yield "not ours", f"spool/{name}, it is left alone", ""
    for mistake in status.mistakes:
        yield "wrong setting", mistake, "yellow"
    for problem in status.unreadable:
        yield "unreadable", problem, "red"

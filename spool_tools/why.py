"""Why nothing arrives, in a sentence, from what is wrong now. Pure.

The strongest reason comes first: off, no ledger, a setting, then what the last flush
met. Whether the program flushes by itself is not known here, so nothing is promised of
its next run without saying so.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from spool_tools.wording import age, ago, many, moment
from telemetry.books.entries import DeliveryState
from telemetry.delivery.schedule import HORIZON_S, STARTS_MAX, WINDOW_S, Schedule
from telemetry.wire.formats import is_compressed
from telemetry.wire.verdict import REFUSALS, SLOW


# One that was started is given its window; from two on, something ends them.
_STARTS_SUSPECT = 2
# Twice as long as a flusher lives.
_SILENT_S = 120.0
# The schedule is written right behind the ledger, in whole seconds.
_SAME_TIME_S = 2
# A flush that the program asks for (`Client.flush`) is not counted.
_UNKNOWN_END = (
    "telemetry was turned off since (which removes what is known of it), or it was ended "
    "from outside, or could not write (a limit of open files or of file sizes: see "
    "`ulimit -a`); `spool-tools flush` reports what it meets"
)


class Why(NamedTuple):
    """Why nothing arrives, or that nothing is wrong: a word, and a sentence."""

    code: str
    sentence: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What `why` decides from. Times are seconds since 1970.

    off: why telemetry is off; empty: it is on
    home_problem: why no program records in this home; empty: they do
    is_others: the home is another user's, and root looks at it
    unusable: what keeps every flush away, and what to do; empty: nothing is known
    plan: when a flush last began or ended, which never finished, when the next may begin
    refused: reasons for which events were refused since the last flush; `no_room`: none
        is counted, and the disk has hardly any room
    records_again: an event was recorded behind the last refusal, and the disk has room
    deletions, deletion_answer: requests that a server delete what it has, which wait, and
        what came of the last try
    holder_pid: the process that holds the flush lock; 0: nobody, or it is not known
    is_stopped: whether a signal has stopped that process
    silent_s: for how long that process has left no trace of its work
    set_aside: events whose batch the server does not accept while it accepts others
    set_aside_reasons: what their batches drew
    ledgers_aside: names of the damaged ledgers that were set aside
    has_unreadable: whether something in the place of the spool's files cannot be read
    load_problem: why what sends cannot be loaded in this Python; empty: it can, or it
        was not tried, as flushes come to an end
    endpoint, key, mode: what the environment (or the build) of this tool says; the
        program may say something else
    problem: why that endpoint, key or header cannot be used; empty: it can
    lacks: `endpoint`, or `api_key`, if the program had none at its last launch
    mistaken: which of endpoint, key and header it had then that cannot be used, and why
    """

    now: float
    state: DeliveryState = DeliveryState()
    off: str = ""
    home_problem: str = ""
    is_others: bool = False
    unusable: str = ""
    plan: Schedule = msgspec.field(default_factory=Schedule)
    refused: tuple[str, ...] = ()
    records_again: bool = False
    pending: int = 0
    is_flushing: bool = False
    holder_pid: int = 0
    is_stopped: bool = False
    silent_s: float = 0.0
    deletions: int = 0
    deletion_answer: str = ""
    set_aside: int = 0
    set_aside_reasons: tuple[str, ...] = ()
    ledgers_aside: tuple[str, ...] = ()
    is_ledger_unreadable: bool = False
    has_unreadable: bool = False
    has_sqlite: bool = True
    load_problem: str = ""
    endpoint: str = ""
    key: bool = False
    mode: str = ""
    problem: str = ""
    lacks: str = ""
    mistaken: tuple[str, str] | None = None


# What keeps events from being recorded, and ends once a flush makes room.
_FULL = {
    "spool_full": "new events are refused, as the spool is full",
    "disk_error": "new events are refused, as the disk is full, or cannot be written",
    "spool_room": "new events may be refused, as the spool is full, or nearly so "
    "(`spool_bytes_max`)",
    "no_room": "new events may be refused, as the disk is full, or nearly so, of data or "
    "of files",
}
# The same, where a later event was recorded.
_WAS_FULL = {
    "disk_error": "events were refused since the last flush, as the disk was full, or "
    "could not be written; later ones are recorded",
}


def why(facts: Facts) -> Why:
    """What is wrong now, the strongest reason first; else what happens next."""
    found = _strongest(facts)
    if not facts.deletions:
        return found
    said = "no server was asked yet to delete what it has: a run of the program does"
    if facts.deletion_answer:
        until = facts.plan.deletion_waits_until(facts.now)
        at = f"not before {moment(int(until * 1000))}" if until else "when they are due"
        said = (
            "the last try to have the server delete what it has came to nothing "
            f"({facts.deletion_answer}); later runs of the program try again, {at}, and "
            "`spool-tools forget` does at once"
        )
    return Why(found.code, f"{found.sentence}; {said}")


def _strongest(facts: Facts) -> Why:
    if facts.off:
        return Why("off", f"telemetry is off: {facts.off}")
    if facts.home_problem:
        return Why("home", f"nothing is recorded: {facts.home_problem}")
    found = _why(facts)
    full = _FULL | _WAS_FULL if facts.records_again else _FULL
    for reason, said in full.items():
        if reason in facts.refused:
            found = Why(found.code, f"{said}; {found.sentence}")
    if facts.has_unreadable:
        code = "unreadable" if found.code == "nothing_pending" else found.code
        said = "what `unreadable` names is neither sent nor counted as waiting"
        advice = "give it back to this user (`chown`), if it is a segment"
        found = Why(code, f"{said}: {advice}; {found.sentence}")
    if facts.is_others:
        said = "what root runs with this home records nothing, as it is another user's"
        found = Why(found.code, f"{found.sentence}; {said}")
    return found


def _why(facts: Facts) -> Why:
    if not facts.has_sqlite:
        return Why(
            "no_sqlite",
            "nothing can be sent: this Python was built without the module sqlite3; "
            "events are recorded and kept",
        )
    if facts.is_flushing:
        return _at_work(facts)
    if facts.load_problem:
        return Why(
            "cannot_load",
            "nothing can be sent by a program that runs in this Python: it cannot load "
            f"what sends ({facts.load_problem}); events are recorded and kept",
        )
    if facts.unusable:
        return Why("unusable", f"nothing is sent: {facts.unusable}")
    if facts.is_ledger_unreadable:
        return Why(
            "ledger",
            "the ledger cannot be read, so what was sent is not known here; the next "
            "flush tries again, and replaces a ledger that is damaged; if this stays, move "
            "`ledger` out of the home: some events may then be sent twice",
        )
    if not facts.pending:
        aside = _set_aside_ledger(facts)
        return aside or Why("nothing_pending", "nothing waits to be sent")
    return (
        _misconfigured(facts)
        or _refused_or_failed(facts)
        or _set_aside_ledger(facts)
        or _failed_before(facts)
        or Why("due" if _is_due(facts) else "scheduled", _waiting(facts))
    )


def _waiting(facts: Facts) -> str:
    """What becomes of events where nothing is known to be wrong."""
    plan = facts.plan
    # One that waits before it begins has moved the next one further ahead.
    began_at_once = plan.at <= plan.last + WINDOW_S + _SAME_TIME_S
    is_unfinished = plan.starts and began_at_once and not _has_an_answer(facts)
    said = "the last flush was ended before it finished; " if is_unfinished else ""
    return f"events wait: {said}{_next(facts)}"


def _at_work(facts: Facts) -> Why:
    """What the process is about that holds the flush lock."""
    if facts.is_stopped:
        return Why(
            "stopped",
            f"process {facts.holder_pid} was stopped by a signal (Ctrl-Z) during a flush, "
            "and no other one begins meanwhile: continue it (`fg`, `kill -CONT`), or end it",
        )
    if facts.silent_s > _SILENT_S:
        which = "a process that is not seen from here (of another container, or user)"
        if facts.holder_pid:
            which = f"process {facts.holder_pid}"
        return Why(
            "stuck",
            f"{which} holds the flush lock, and has written nothing "
            f"for {age(facts.silent_s)}; no flush begins before it ends: end it, unless "
            "it is a program of yours that waits for its server",
        )
    return Why("flushing", "a flusher is at work now")


def _misconfigured(facts: Facts) -> Why | None:
    """What of endpoint, key or header cannot be used, or is missing."""
    state = facts.state
    # What the program names itself is stronger than what this environment does.
    has_flushed = bool(state.endpoint) and state.stopped not in {"", "off"}
    if facts.problem and not has_flushed:
        code = f"bad_{facts.problem.partition(':')[0]}"
        return Why(code, f"nothing can be sent: {facts.problem}")
    if facts.mistaken:
        field, sentence = facts.mistaken
        return Why(
            f"bad_{field}", f"nothing was sent by the program's last launch: {sentence}"
        )
    known = {"endpoint": bool(facts.endpoint), "api_key": facts.key}
    # What this environment names may be what the program was started with since.
    if facts.lacks and not known[facts.lacks]:
        what = (
            "an endpoint and no usable key"
            if facts.lacks == "api_key"
            else "no endpoint"
        )
        return Why(
            f"no_{facts.lacks}",
            f"nothing can be sent: the program has {what}; "
            f"set TELEMETRY_{facts.lacks.upper()}",
        )
    field, _, problem = state.last_error.partition(": ")
    if state.stopped == "off" and field and not known.get(field):
        where = f" (endpoint {state.endpoint})" if field == "api_key" else ""
        is_missing = problem.startswith("none is set")
        advice = f"; set TELEMETRY_{field.upper()}" if is_missing else ""
        return Why(
            f"no_{field}" if is_missing else f"bad_{field}",
            f"nothing can be sent: {state.last_error}{where}{advice}",
        )
    if state.stopped or facts.plan.last or facts.mode == "manual" or facts.lacks:
        return None  # a flush begins by itself only where endpoint and key are set
    if not facts.endpoint and not state.endpoint:
        return _untried("endpoint")
    return _untried("api_key") if facts.endpoint and not facts.key else None


def _untried(field: str) -> Why:
    name = "an endpoint and a key" if field == "endpoint" else "a key"
    return Why(
        f"no_{field}",
        f"no flush has begun: the program may lack {name} (this tool knows of none; set "
        f"TELEMETRY_{field.upper()}), is `manual`, so that only its own `flush` sends, "
        "or runs still, for the first time; or its run was killed or had too few open "
        "files (`ulimit -n`); TELEMETRY_DEBUG=1 shows which",
    )


def _refused_or_failed(facts: Facts) -> Why | None:
    """What kept the last flush from delivering, if it did."""
    state, following = facts.state, _next(facts)
    where = state.endpoint or "the endpoint"
    if found := _never_finished(facts):
        return found
    if state.stopped == "paused":
        return _paused(facts)
    if state.stopped == "disk":
        said = "the disk or the ledger cannot be written, or a segment cannot be read"
        return Why("disk", f"{said}; {following}")
    if facts.set_aside and not _is_refused_altogether(facts):
        names = {SLOW: "not answered before"}
        said = ", ".join(names.get(each, each) for each in facts.set_aside_reasons)
        # Of a spool that is full they are set aside without an acceptance.
        does = (
            "accepts others, but not these" if state.last_success_ms else "refuses all"
        )
        return Why(
            "set_aside",
            f"{many(facts.set_aside, 'event')} set aside: {where} {does} ({said}); "
            f"they are tried again in smaller parts; {following}",
        )
    kind, _, detail = state.last_error.partition(": ")
    code, sentence = _KINDS.get(kind, _OTHER_KIND)
    if state.stopped == "waiting":
        said = detail or state.last_error
        hints = (hint for part, hint in _HINTS.get(code, {}).items() if part in said)
        said += f" ({hint})" if (hint := next(hints, "")) else ""
        said = f"{sentence.format(where=where)}: {said}{_said_beside(facts)}"
        return Why(code, f"{said}; {following}")
    if state.stopped == "deadline":
        advice = "`spool-tools flush` has more time, and so has a flush at exit with a "
        advice += "larger exit_timeout_s"
        problem = f"the last flush to {where} ran out of time"
        if detail and state.last_error_ms >= state.last_success_ms:
            problem = f"{problem}: {sentence.format(where=where)}: {detail}"
            if kind == SLOW:
                problem = f"{where} gave {detail}"
        return Why("deadline", f"{problem}; {following}; {advice}")
    return None


def _said_beside(facts: Facts) -> str:
    """What is known of the server beside the failure of the last flush."""
    if not facts.set_aside:
        return ""
    said = f"; {many(facts.set_aside, 'event')} set aside before"
    state = facts.state
    if state.accepted and state.accepted == state.identity:
        said += f", others accepted {ago(state.last_success_ms, facts.now)}"
    return said


def _failed_before(facts: Facts) -> Why | None:
    """The last flush failed, and the ledger that said why is gone."""
    count = _failures_of_old(facts)
    if not count:
        return None
    which = "the last flush" if count == 1 else f"{count} flushes in a row"
    return Why(
        "failed_before",
        f"{which} delivered nothing; why went with the ledger, as telemetry was turned "
        f"off, or the ledger was lost: `spool-tools flush` says it; {_next(facts)}",
    )


def _failures_of_old(facts: Facts) -> int:
    """Flushes in a row that delivered nothing, where the ledger knows of none."""
    return 0 if facts.state.stopped else facts.plan.failures(facts.plan.destination)


def _never_finished(facts: Facts) -> Why | None:
    """Flushers were started, and nothing is known of their end."""
    starts = facts.plan.starts
    is_suspect = starts >= _STARTS_SUSPECT or _is_due(facts)
    if not starts or not is_suspect or _has_an_answer(facts):
        return None
    said = f"{many(starts, 'flusher')} in a row did not finish"
    if starts >= STARTS_MAX:  # one that cannot be started counts as these
        said = "flushers do not finish, or cannot be started"
    return Why(
        "flusher_unfinished",
        f"{said}: they are ended from outside (a container or job that ends with its "
        "command), are refused by the system, have too little time at a program's end "
        "(`exit_timeout_s`), cannot write (a limit of open files, file sizes or "
        "memory), or cannot load a module (a file beside the program has its name), as "
        f"TELEMETRY_DEBUG=1 tells; {_ended_within(facts)}{_next(facts)}",
    )


def _ended_within(facts: Facts) -> str:
    """What follows where flushes within the program may be what ends it."""
    count = facts.plan.never_ended_within
    if count < _STARTS_SUSPECT:
        return ""
    ahead_s = facts.plan.within_not_before(facts.now) - facts.now
    following = (
        f"the next one in {age(ahead_s)}" if ahead_s > 0 else "one may begin now"
    )
    return (
        f"{count} of them ran in the program itself, which ended first, or which they "
        "killed (a memory limit): they are tried ever more rarely, down to once in six "
        f"hours, until one delivers ({following}), and "
        "`spool-tools flush` outside of such a limit sends what waits; "
    )


def _has_an_answer(facts: Facts) -> bool:
    """Whether the last flush that began delivered, or ended on what it was told.

    Where flushers never finish, the program's own flushes at exit do.
    """
    state = facts.state
    ended = max(state.last_error_ms, state.last_success_ms) / 1000
    is_last = bool(ended) and ended >= facts.plan.last - _SAME_TIME_S
    return is_last and state.stopped in {"waiting", "paused", "deadline", "drained"}


def _is_refused_altogether(facts: Facts) -> bool:
    """Whether the last flush failed on more than what had been set aside."""
    state = facts.state
    kind = state.last_error.partition(": ")[0]
    has_others = facts.pending > facts.set_aside
    is_another = kind not in facts.set_aside_reasons
    if state.last_success_ms >= state.last_error_ms:
        # It took some before: that others wait, too, may be as they are new.
        is_more = has_others and is_another
    else:
        is_more = has_others or is_another
    return state.stopped == "waiting" and is_more


def _paused(facts: Facts) -> Why:
    """A server that refuses all that the last flush sent, and what to do about it."""
    state, following = facts.state, _next(facts)
    status, _, said = state.last_error.partition(": ")
    problem, advice = "refuses", "read its answer"
    is_about_events = status[:3] in REFUSALS
    for statuses, meaning in _PAUSES.items():
        if status[:3] in statuses.split():
            problem, advice = meaning
    if status[:3] in _UNREAD.split() and is_compressed(state.format, state.gzip):
        advice += ", or send without compression (`gzip=False`)"
    look = "look at it with `spool-tools dump`, and read the answer"
    if 0 < facts.pending <= facts.set_aside:
        problem, advice = "took others before, and refuses what still waits", look
    elif state.accepted and state.accepted == state.identity and is_about_events:
        when = ago(state.last_success_ms, facts.now)
        problem = f"took others {when}, and refuses what it was asked about since"
        advice = f"{look}; the next flush asks about others"
    if not is_about_events and not _is_due(facts) and facts.mode != "manual":
        until = "paused until endpoint, key, header, format or gzip change"
        following = f"{until}; else {following}"
    where = state.endpoint or "the endpoint"
    return Why("paused", f"{where} {problem} ({said or status}): {advice}; {following}")


# The kinds of failure that a flush remembers, and what each means.
_KINDS = {
    "name": ("name", "the name of {where} does not resolve"),
    "refused": ("connection", "the connection to {where} is refused"),
    "unreachable": ("connection", "{where} cannot be reached"),
    "timeout": ("connection", "{where} does not answer in time"),
    "reset": ("connection", "{where} closes the connection"),
    "protocol": ("connection", "{where} does not answer in HTTP"),
    "tls": ("certificate", "TLS with {where} fails"),
    "proxy": ("proxy", "the proxy to {where} fails"),
    "other": ("connection", "the request to {where} fails"),
}
_OTHER_KIND = "server", "{where} does not accept"

# What to do, by the code and a part of what was met; the first that holds counts.
_HINTS = {
    "name": {"": "check the endpoint's host, and this machine's network"},
    "certificate": {
        "not yet valid": "check this machine's clock",
        "expired": "check this machine's clock, or renew the server's certificate",
        "mismatch": "it is for another name: correct the endpoint, or the certificate",
        "verify failed": "SSL_CERT_FILE may name a file with the server's authority",
        "wrong version": "the server does not speak TLS at this port",
        "protocol version": "the server speaks no TLS of version 1.2 or newer",
        "certificate required": "it asks for a client's certificate; there is none here",
        "handshake failure": "it may ask for a client's certificate; there is none here",
    },
    "proxy": {"": "correct HTTPS_PROXY (or ALL_PROXY), or name the host in NO_PROXY"},
    "server": {
        "HTTP 415": "it may not take this `format`, or compression: see `gzip`",
        "HTTP 403": "it may refuse the key, or what was sent",
        "HTTP 404": "check the endpoint's path, or it refuses what was sent",
        "HTTP 405": "check the endpoint's path, or it refuses what was sent",
        "HTTP 30": "it redirects, which is not followed: check the endpoint",
    },
}
# What a server answers that does not understand what it is sent.
_UNREAD = "400 422"
# What a server means that refuses everything, by its status, and what to do.
_PAUSES = {
    "401 403": ("refuses the key", "correct TELEMETRY_API_KEY, or the header's name"),
    "404 405 410": ("takes no events at this address", "correct the endpoint's path"),
    "301 302 303 307 308": (
        "redirects, which is not followed",
        "name the address that it leads to",
    ),
    "407": ("is behind a proxy that wants credentials", "add them to HTTPS_PROXY"),
    _UNREAD: ("does not understand the events", "compare `format` with what it takes"),
    "413": (
        "takes no request of this size, although events went one by one",
        "raise its limit, or record shorter texts",
    ),
}


def _set_aside_ledger(facts: Facts) -> Why | None:
    if not facts.ledgers_aside:
        return None
    said = f"a damaged ledger was set aside ({facts.ledgers_aside[-1]}): totals begin "
    said += "anew, and some events may be sent twice"
    following = f"; {_next(facts)}" if facts.pending else ""
    return Why("ledger_set_aside", said + following)


def _ahead_s(facts: Facts) -> float:
    """Seconds until the next flush may begin; 0: it is due."""
    ahead_s = facts.plan.at - facts.now
    # Nothing here sets a time beyond the horizon: a clock was changed.
    is_believed = 0 < ahead_s <= HORIZON_S and not facts.plan.is_ahead(facts.now)
    return ahead_s if is_believed else 0.0


def _is_due(facts: Facts) -> bool:
    return not _ahead_s(facts)


def _next(facts: Facts) -> str:
    """When the next flush begins by itself."""
    if facts.mode == "manual":
        return "with TELEMETRY_FLUSH=manual only a flush that is asked for sends them"
    if _is_due(facts):
        due = "a flush is due: the program begins it as it ends, or in its next run, "
        due += "if it is not manual"
        if facts.state.stopped or _failures_of_old(facts):
            return due + _others(facts)
        if facts.plan.last:
            return f"{due}; the end of the last one is not known: {_UNKNOWN_END}"
        return f"{due}; if runs do not, they may open too few files: see `ulimit -n`"
    failures = facts.state.failures
    failed = f" ({failures} in a row failed)" if failures else ""
    ahead, at = age(_ahead_s(facts)), moment(int(facts.plan.at * 1000))
    asked = ", for which the server has asked" if facts.state.is_asked else ""
    return (
        f"the next flush may begin in {ahead}{failed}, at {at}{asked}{_others(facts)}"
    )


def _others(facts: Facts) -> str:
    """What else holds where the program sends to another destination than the last."""
    until = facts.plan.others_wait_until(facts.now)
    if until <= facts.now:
        return ""
    return (
        "; with another endpoint, key, header or format, one that failed before, it waits "
        f"until {moment(int(until * 1000))} at the latest"
    )

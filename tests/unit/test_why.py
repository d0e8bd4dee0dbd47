"""Why nothing arrives: each thing that can be wrong has its word and its sentence."""

from __future__ import annotations

from typing import Any

from spool_tools.why import Facts, why
from telemetry.books.entries import DeliveryState
from telemetry.delivery.schedule import Schedule


NOW = 1_790_000_000.0


def state(**fields: Any) -> DeliveryState:
    """What the ledger remembers of the last flush."""
    return DeliveryState(
        **{"stopped": "waiting", "endpoint": "https://x.example", **fields}
    )


def after(error: str, stopped: str = "waiting") -> dict[str, Any]:
    """A flush that ended with this error."""
    return {"state": state(last_error=error, stopped=stopped)}


def plan(
    *, at: float = 0.0, last: int = 0, starts: int = 0, within: int = 0
) -> dict[str, Any]:
    """What `next-flush` has; `within`: flushes at programs' ends that never ended."""
    found = Schedule(at=at)
    found.last, found.starts = last, starts
    found.waits = {"programs": (within, 0)}
    return {"plan": found}


def with_another(waits: int) -> dict[str, Any]:
    """Another destination than the last one failed before; it waits so many seconds."""
    found = Schedule()
    found.destination, found.waits = "0" * 8, {"1" * 8: (3, int(NOW) + waits)}
    return {"plan": found}


def failed(failures: int, *, until: float) -> dict[str, Any]:
    """Flushes that failed; the ledger that knew why is not there any more."""
    found = Schedule()
    found.end("0" * 8, NOW - 1, failures=failures, until=until)
    return {"plan": found, "state": DeliveryState()}


# What is wrong, the word for it, and what the sentence has to say.
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"off": "DO_NOT_TRACK=1", "has_sqlite": False}, "off", "DO_NOT_TRACK=1"),
    ({"has_sqlite": False}, "no_sqlite", "without the module sqlite3"),
    (
        {**plan(starts=3), "load_problem": "ImportError: no ssl"},
        "cannot_load",
        "cannot load what sends (ImportError: no ssl); events",
    ),
    ({"home_problem": "/h belongs to user 1"}, "home", "/h belongs to user 1"),
    (
        {"mistaken": ("api_key", "configure(api_key=…): it is odd")},
        "bad_api_key",
        "last launch: configure(api_key=…): it is odd",
    ),
    (after("413: Too Large", "paused"), "paused", "takes no request of this size"),
    (
        {"is_others": True},
        "due",
        "what root runs with this home records nothing",
    ),
    ({"unusable": "/h/flush.lock is closed"}, "unusable", "sent: /h/flush.lock is cl"),
    ({"state": DeliveryState()}, "due", "see `ulimit -n`"),
    (
        {**plan(last=1), "state": DeliveryState()},
        "due",
        "the last one is not known: telemetry was turned off since (which removes",
    ),
    (
        {**plan(last=1), "endpoint": "", "state": DeliveryState()},
        "due",
        "the last one is not known",
    ),
    ({"refused": ("spool_full",)}, "due", "refused, as the spool is full; events wait"),
    ({"refused": ("disk_error",)}, "due", "refused, as the disk is full"),
    (
        {"refused": ("disk_error",), "records_again": True},
        "due",
        "as the disk was full, or could not be written; later ones are recorded; events",
    ),
    (
        {"refused": ("spool_full",), "records_again": True},
        "due",
        "new events are refused, as the spool is full",
    ),
    (
        {"refused": ("no_room",)},
        "due",
        "may be refused, as the disk is full, or nearly so",
    ),
    ({"refused": ("too_big",)}, "due", "events wait"),
    ({"is_flushing": True}, "flushing", "at work"),
    (
        {"is_flushing": True, "holder_pid": 7, "is_stopped": True, "silent_s": 900.0},
        "stopped",
        "process 7 was stopped",
    ),
    (
        {"is_flushing": True, "holder_pid": 7, "silent_s": 900.0},
        "stuck",
        "process 7 holds the flush lock, and has written nothing for 15 minutes",
    ),
    ({"is_flushing": True, "holder_pid": 7, "silent_s": 100.0}, "flushing", "at work"),
    ({"is_flushing": True, "silent_s": 180.0}, "stuck", "not seen from here"),
    (
        plan(starts=1, last=int(NOW), at=NOW + 60.0),
        "scheduled",
        "events wait: the last flush was ended before it finished; the next",
    ),
    (
        plan(starts=1, last=int(NOW), at=NOW + 200.0),
        "scheduled",
        "events wait: the next flush",
    ),
    ({"is_ledger_unreadable": True}, "ledger", "what was sent is not known"),
    ({"pending": 0}, "nothing_pending", "nothing waits"),
    (
        {"pending": 0, "has_unreadable": True},
        "unreadable",
        "neither sent nor counted as waiting: give it back to this user (`chown`)",
    ),
    ({"has_unreadable": True}, "due", "if it is a segment; events wait"),
    (
        plan(starts=4, within=2),
        "flusher_unfinished",
        "2 of them ran in the program itself, which ended first, or which they",
    ),
    (
        {"off": "the user turned it off", "deletions": 1},
        "off",
        "no server was asked yet to delete what it has",
    ),
    (
        {"pending": 0, "deletions": 1, "deletion_answer": "HTTP 404"},
        "nothing_pending",
        "came to nothing (HTTP 404); later runs of the program try",
    ),
    (
        {"pending": 0, "ledgers_aside": ("ledger.malformed-1",)},
        "ledger_set_aside",
        "ledger.malformed-1",
    ),
    ({"endpoint": "", "state": DeliveryState()}, "no_endpoint", "TELEMETRY_ENDPOINT"),
    ({"key": False, "state": DeliveryState()}, "no_api_key", "TELEMETRY_API_KEY"),
    (
        {"key": False, "lacks": "api_key", **after("", "drained")},
        "no_api_key",
        "an endpoint and no usable key; set TELEMETRY_API_KEY",
    ),
    ({"lacks": "api_key", **after("", "drained")}, "due", "a flush is due"),
    ({"lacks": "endpoint", **after("", "drained")}, "due", "a flush is due"),
    (
        {"endpoint": "", "lacks": "api_key", "state": DeliveryState()},
        "due",
        "a flush is due",
    ),
    (
        {"endpoint": "", "lacks": "endpoint", **after("", "drained")},
        "no_endpoint",
        "the program has no endpoint; set TELEMETRY_ENDPOINT",
    ),
    (
        {
            "endpoint": "",
            "problem": "endpoint: 'ftp://x' is neither https nor http",
            "state": DeliveryState(),
        },
        "bad_endpoint",
        "'ftp://x' is neither",
    ),
    (
        {"endpoint": "", "problem": "endpoint: 'ftp://x' is odd", **after("503: busy")},
        "server",
        "does not accept",
    ),
    (
        {"endpoint": "", **after("endpoint: none is set; events are kept", "off")},
        "no_endpoint",
        "set TELEMETRY_ENDPOINT",
    ),
    (
        {"endpoint": "", **after("endpoint: 'x y' is no URL", "off")},
        "bad_endpoint",
        "'x y' is no URL",
    ),
    (
        {"key": False, **after("api_key: none is set; events are kept", "off")},
        "no_api_key",
        "set TELEMETRY_API_KEY",
    ),
    (after("api_key: none is set; events are kept", "off"), "due", "a flush is due"),
    (
        {**with_another(7200), **after("503: HTTP 503: try later")},
        "server",
        "one that failed before, it waits until 2026-09-21 16:13:20 UTC at the latest",
    ),
    (after("header: it is no header name", "off"), "bad_header", "no header name"),
    (after("name: nodename nor servname"), "name", "does not resolve: nodename"),
    (after("refused: Connection refused"), "connection", "is refused: Connection"),
    (after("timeout: no answer within 5 s"), "connection", "in time: no answer"),
    (after("tls: certificate verify failed"), "certificate", "verify failed"),
    (after("proxy: 407"), "proxy", "correct HTTPS_PROXY"),
    (after("503: HTTP 503: try later"), "server", "not accept: HTTP 503: try later"),
    (after("html: a page"), "server", "does not accept: a page"),
    (after("401: HTTP 401", "paused"), "paused", "refuses the key (HTTP 401): correct"),
    (
        {"pending": 3, "set_aside": 3, **after("403: HTTP 403", "paused")},
        "paused",
        "took others before, and refuses what still waits (HTTP 403): look at it",
    ),
    (
        {"pending": 4, "set_aside": 3, **after("403: HTTP 403", "paused")},
        "paused",
        "refuses the key",
    ),
    (
        {
            "state": state(
                stopped="paused",
                last_error="400: HTTP 400: old schema",
                identity="0" * 8,
                accepted="0" * 8,
                last_success_ms=int(NOW - 120) * 1000,
            ),
            **plan(at=NOW + 7200),
        },
        "paused",
        "took others 2 minutes ago, and refuses what it was asked about since (HTTP 400: o",
    ),
    (after("404: HTTP 404", "paused"), "paused", "correct the endpoint's path"),
    (after("302: HTTP 302", "paused"), "paused", "name the address that it leads to"),
    (after("451: HTTP 451", "paused"), "paused", "refuses (HTTP 451): read its answer"),
    (
        {**plan(at=NOW + 7200), **after("401: HTTP 401", "paused")},
        "paused",
        "format or gzip change; else the next flush may begin in 2 hours",
    ),
    (
        {
            **plan(at=NOW + 7200),
            "state": state(last_error="503: HTTP 503", is_asked=True),
        },
        "server",
        "UTC, for which the server has asked",
    ),
    (after("415: HTTP 415"), "server", "or compression: see `gzip`"),
    (after("403: HTTP 403"), "server", "it may refuse the key, or what was sent"),
    (after("302: HTTP 302"), "server", "check the endpoint"),
    (after("tls: wrong version number"), "certificate", "does not speak TLS"),
    (
        after(
            "tls: x:1: certificate verify failed: Hostname mismatch, it is not valid"
        ),
        "certificate",
        "it is for another name",
    ),
    (after("tls: tlsv13 alert certificate required"), "certificate", "there is none"),
    (after("tls: tlsv1 alert protocol version"), "certificate", "1.2 or newer"),
    (after("tls: certificate is not yet valid"), "certificate", "machine's clock"),
    (after("", "disk"), "disk", "cannot be written"),
    (after("", "deadline"), "deadline", "ran out of time"),
    (
        after("503: HTTP 503: try later", "deadline"),
        "deadline",
        "out of time: https://x.example does not accept: HTTP 503: try later",
    ),
    (after("slow: no answer in 0.8 s", "deadline"), "deadline", "no answer in 0.8 s"),
    (after("", "drained"), "due", "not manual"),
    (
        {**plan(starts=3), **after("503: x")},
        "flusher_unfinished",
        "flushers do not finish, or cannot be started",
    ),
    ({**plan(starts=1), **after("", "drained")}, "flusher_unfinished", "1 flusher"),
    (
        {**plan(starts=2), **after("503: x")},
        "flusher_unfinished",
        "2 flushers in a row",
    ),
    (
        {"set_aside": 7, "set_aside_reasons": ("403",), **after("403: x")},
        "set_aside",
        "7 events set aside",
    ),
    (
        {
            "pending": 31,
            "set_aside": 1,
            "set_aside_reasons": ("400",),
            "state": state(
                last_error="refused: no", last_error_ms=2, last_success_ms=1
            ),
        },
        "connection",
        "is refused: no; 1 event set aside before; a flush is due",
    ),
    (
        {
            "pending": 31,
            "set_aside": 1,
            "set_aside_reasons": ("400",),
            "state": state(last_error="400: x", last_error_ms=2, last_success_ms=2),
        },
        "set_aside",
        "1 event set aside: https://x.example accepts others, but not these (400); they",
    ),
    (
        {
            "pending": 31,
            "set_aside": 2,
            "set_aside_reasons": ("slow", "400"),
            "state": state(last_error="429: quota", last_error_ms=2, last_success_ms=2),
        },
        "server",
        "does not accept: quota; 2 events set aside before",
    ),
    (
        {
            "pending": 31,
            "set_aside": 2,
            "set_aside_reasons": ("500",),
            "state": state(
                last_error="500: HTTP 500",
                last_error_ms=int(NOW * 1000),
                last_success_ms=int((NOW - 7200) * 1000),
                accepted="crc",
                identity="crc",
            ),
        },
        "server",
        "HTTP 500; 2 events set aside before, others accepted 2 hours ago; ",
    ),
    (
        {"set_aside": 2, "set_aside_reasons": ("slow", "400"), **after("400: x")},
        "set_aside",
        "x.example refuses all (not answered before, 400); they are tried",
    ),
    (
        {
            **plan(starts=10, last=1001),
            "state": state(
                last_error="401: HTTP 401", last_error_ms=1_000_000, stopped="paused"
            ),
        },
        "paused",
        "refuses the key",
    ),
    (
        {
            **plan(starts=3, last=1100),
            "state": state(last_error="503: HTTP 503", last_error_ms=1_000_000),
        },
        "flusher_unfinished",
        "flushers do not finish, or cannot be started",
    ),
    ({**plan(at=NOW + 7200), **after("", "drained")}, "scheduled", "in 2 hours"),
    (
        failed(1, until=NOW + 7200),
        "failed_before",
        "`spool-tools flush` says it; the next flush may begin in 2 hours",
    ),
    (
        failed(3, until=NOW - 1),
        "failed_before",
        "flush` says it; a flush is due: the program begins it as it ends, or in its next",
    ),
    ({**plan(at=NOW + 10**9), **after("", "drained")}, "due", "is due"),
    ({"mode": "manual", **after("", "drained")}, "due", "only a flush that is asked"),
]


def test_each_cause_is_told_in_a_sentence() -> None:
    """Whoever wonders why nothing arrives reads one line, and it is true now."""
    for changes, code, said in CASES:
        facts = {"endpoint": "https://x.example", "key": True, "pending": 5, **changes}
        told = why(Facts(now=NOW, **facts))
        assert (told.code, said in told.sentence) == (code, True), (changes, told)
        assert "\n" not in told.sentence


def test_nothing_is_promised_of_a_launch_that_will_not_send() -> None:
    """`at the next launch` would be false without an endpoint, off, or while it waits."""
    for changes, code, _ in CASES:
        facts = {"endpoint": "https://x.example", "key": True, "pending": 5, **changes}
        if code != "due":
            assert "next launch" not in why(Facts(now=NOW, **facts)).sentence, code

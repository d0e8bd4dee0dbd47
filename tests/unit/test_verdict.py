"""What each answer means for a batch, as tables, and that no answer can hurt."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.wire.batch import Rejection
from telemetry.wire.formats import FORMATS, Format, format_of
from telemetry.wire.verdict import (
    KINDS,
    Action,
    Failure,
    Reply,
    Verdict,
    _is_page,
    judge,
)


# Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 §5.6.7.
EXAMPLE_S = 784111777.0
DAY_S = 24 * 3600.0
PAUSES = {401, 402, 403, 404, 405, 407, 410, 451}
FLAGS = {"complete", "truncated", "redirected", "is_sent", "is_decoded", "tells_key"}
SPLITS = {400, 413, 422}


def answer(status: int, body: bytes = b"", **options: object) -> Reply:
    headers = {
        name.replace("_", "-"): str(value)
        for name, value in options.items()
        if name not in FLAGS
    }
    return Reply(
        status=status,
        headers=headers,
        body=body,
        complete=bool(options.get("complete", True)),
        truncated=bool(options.get("truncated", False)),
        redirected=bool(options.get("redirected", False)),
        is_sent=bool(options.get("is_sent", True)),
        is_decoded=bool(options.get("is_decoded", True)),
        tells_key=bool(options.get("tells_key", False)),
    )


def verdict(outcome: Reply | Failure, accept_statuses: tuple[int, ...] = ()) -> Verdict:
    return judge(outcome, now=EXAMPLE_S, accept_statuses=accept_statuses)


def expected_action(status: int) -> Action:
    if 200 <= status <= 299:
        return Action.ACCEPTED
    if 300 <= status <= 399 or status in PAUSES:
        return Action.PAUSE
    return Action.SPLIT if status in SPLITS else Action.WAIT


def test_every_status_has_its_action() -> None:
    """The table of statuses is a promise; a gap in it would lose or block events."""
    for status in (*range(100, 600), 0, -1, 600, 999, 10**9):
        found = verdict(answer(status))
        assert found.action is expected_action(status), status
        reason = "redirect" if 300 <= status <= 399 else str(status)
        assert found.reason == reason, status


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_answer_always_waits(kind: str) -> None:
    """Nothing is known about a batch without an answer, so it is sent again."""
    found = verdict(Failure(kind, "host:1: it\nwent\twrong"))
    about_content = kind in {"reset", "protocol", "timeout", "other"}
    assert found == Verdict(
        Action.WAIT, kind, "host:1: it went wrong", narrow=about_content
    )


def test_an_unknown_kind_of_failure_waits_as_other() -> None:
    """A reason is a word that tools group by; it is never free text."""
    assert verdict(Failure("no such kind", "")).reason == "other"


PAGE = b"<!DOCTYPE html><html><body>Log in</body></html>"
DOUBTFUL = [
    ("cut body", answer(200, b'{"ok":tr', complete=False), "incomplete"),
    ("cut page", answer(200, PAGE, complete=False), "incomplete"),
    ("by type", answer(200, b"Welcome", content_type="text/html"), "html"),
    ("by type, more", answer(200, b"Hi", content_type="Text/HTML; x=y"), "html"),
    ("xhtml", answer(201, b"Hi", content_type="application/xhtml+xml"), "html"),
    ("sends elsewhere", answer(200, refresh="0; url=https://login"), "html"),
    ("UTF-16 without a mark", answer(200, "<p>".encode("utf-16-le")), "html"),
    ("an entity", answer(200, b"Log in &nbsp; here"), "unreadable"),
    ("by its start", answer(200, PAGE, content_type="application/json"), "html"),
    ("no type", answer(200, b"\xef\xbb\xbf \r\n\t<HTML>"), "html"),
    ("a comment", answer(200, b"<!-- hotel wifi --><p>"), "html"),
    ("a script", answer(200, b"<script>location='/login'</script>"), "html"),
    ("xml prolog", answer(200, b"<?xml version='1.0'?>\n<html xmlns=''>"), "html"),
    ("utf-16", answer(200, "<html>".encode("utf-16")), "html"),
    ("two types", answer(200, b"hi", content_type="text/html, text/plain"), "html"),
    ("a heading", answer(200, b"<h2>Log in</h2>"), "html"),
    ("a form, in capitals", answer(200, b"<FORM action=/login>"), "html"),
    ("xml", answer(200, b"<?xml version='1.0'?><ok/>"), "html"),
    ("behind blanks", answer(200, b" " * 2000 + b"<html>"), "html"),
    ("long text", answer(200, b"x" * 1025), "unreadable"),
    ("JSON that is cut", answer(200, b'{"rejected":'), "unreadable"),
    ("JSON with a comma too many", answer(200, b'{"rejected":["a"],}'), "unreadable"),
    ("JSON without an end", answer(200, b"[" * 100_000), "unreadable"),
    ("nothing but blanks", answer(200, b" " * 2000), "unreadable"),
    ("bytes", answer(200, b"\x0b\x0e\x80login\x03"), "unreadable"),
    ("the beginning of a page", answer(200, content_type="text/html"), "html"),
    ("205 with a page", answer(205, b"<p>Log in"), "html"),
    ("204 with a page", answer(204, b"<p>Log in"), "html"),
    ("204 with a cut body", answer(204, b"\0", complete=False), "incomplete"),
    ("coded", answer(200, b"{}", is_decoded=False), "coding"),
    ("not sent whole", answer(200, b"{}", is_sent=False), "unsent"),
    ("not sent whole, no body", answer(204, is_sent=False), "unsent"),
    ("longer than was read", answer(200, b"{}", truncated=True), "truncated"),
    ("names cut off", answer(200, b'{"rejected":[{', truncated=True), "truncated"),
]


@pytest.mark.parametrize(
    ("reply", "reason"), [row[1:] for row in DOUBTFUL], ids=[row[0] for row in DOUBTFUL]
)
def test_a_2xx_that_proves_nothing_waits(reply: Reply, reason: str) -> None:
    """A captive portal and a proxy that died halfway say 200, too."""
    found = verdict(reply)
    assert (found.action, found.reason) == (Action.WAIT, reason)
    assert found.rejected == ()


ACCEPTED = [
    ("empty", answer(200)),
    ("json", answer(200, b'{"success": true}', content_type="application/json")),
    ("text", answer(202, b"queued")),
    ("a bracket", answer(200, b"queued 3 < 5 events")),
    ("text, as long as may be", answer(200, b"x" * 1024)),
    ("JSON, longer than text may be", answer(200, b'{"ok":"%b"}' % (b"x" * 2000))),
    ("a JSON text that quotes markup", answer(200, b'"<html>"')),
    (
        "no body, as a framework types it",
        answer(200, content_type="text/html", content_length=0),
    ),
    ("JSON, as PHP types it", answer(200, b'{"ok":1}', content_type="text/html")),
    ("204", answer(204)),
    ("204 with a type", answer(204, content_type="text/html", complete=False)),
    ("205", answer(205, content_type="text/html", complete=False)),
    ("a list, as PHP types it", answer(200, b" [1]", content_type="text/html")),
    ("of nothing but what is asked for", Reply(200, {}, b"{}", complete=True)),
]


@pytest.mark.parametrize(
    "reply", [row[1] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_a_whole_2xx_is_accepted(reply: Reply) -> None:
    """Asking for more than the promise says would send delivered events for ever."""
    found = verdict(reply)
    assert (found.action, found.reason) == (Action.ACCEPTED, str(reply.status))


@pytest.mark.parametrize("status", [200, 204, 413, 503])
def test_an_answer_by_way_of_a_redirect_pauses(status: int) -> None:
    """Whoever answers at the other end of a redirect is not who was asked."""
    found = verdict(answer(status, redirected=True))
    assert (found.action, found.reason) == (Action.PAUSE, "redirect")


@pytest.mark.parametrize(
    ("status", "listed", "action", "reason"),
    [
        (200, (200, 202), Action.ACCEPTED, "200"),
        (202, (200, 202), Action.ACCEPTED, "202"),
        (204, (200,), Action.WAIT, "unlisted"),
        (201, (200,), Action.WAIT, "unlisted"),
        (404, (404,), Action.PAUSE, "404"),
        (302, (302,), Action.PAUSE, "redirect"),
    ],
)
def test_listed_statuses_narrow_acceptance(
    status: int, listed: tuple[int, ...], action: Action, reason: str
) -> None:
    """A list can take a 2xx away, and never makes another status an acceptance."""
    found = verdict(answer(status), listed)
    assert (found.action, found.reason) == (action, reason)


RETRY_AFTER = [
    ("0", None, 0.0),
    ("120", None, 120.0),
    (" 7 ", None, 7.0),
    ("007", None, 7.0),
    ("86400", None, DAY_S),
    ("86401", None, DAY_S),
    ("9" * 30, None, DAY_S),
    ("1" * 10_000, None, DAY_S),
    ("-5", None, None),
    ("+5", None, None),
    ("1.5", None, None),
    ("1e3", None, None),
    ("١٢", None, None),
    ("soon", None, None),
    ("", None, None),
    ("120, 60", None, 120.0),
    ("60, soon", None, None),
    ("Sun, 06 Nov 1994 08:50:37 GMT", None, 60.0),
    ("Sunday, 06-Nov-94 08:50:37 GMT", None, 60.0),
    ("Sun Nov  6 08:50:37 1994", None, 60.0),
    ("Sun, 06 Nov 1994 08:48:37 GMT", None, 0.0),
    ("Mon, 07 Nov 1994 08:49:37 GMT", None, DAY_S),
    ("Fri, 31 Dec 9999 23:59:59 GMT", None, DAY_S),
    ("Fri, 30 Feb 1994 23:59:59 GMT", None, None),
    ("Sun, 06 Nov 1994 25:49:37 GMT", None, None),
    ("Sun, 06 Nov 1994 08:49:60 GMT", None, None),
    ("Sun, 06 Nov 1994 09:50:37 +0100", None, 60.0),
    # A clock that runs ten years behind here changes nothing.
    ("Sun, 06 Nov 2004 08:50:37 GMT", "Sun, 06 Nov 2004 08:49:37 GMT", 60.0),
    ("Sun, 06 Nov 1994 08:50:37 GMT", "yesterday", 60.0),
    ("60", "Sun, 06 Nov 2004 08:49:37 GMT", 60.0),
]


@pytest.mark.parametrize(("value", "date", "expected"), RETRY_AFTER)
def test_retry_after_is_read_and_bounded(
    value: str, date: str | None, expected: float | None
) -> None:
    """A server may ask for a pause; neither garbage nor a century is one."""
    headers = {"retry-after": value} | ({"date": date} if date else {})
    found = verdict(answer(503, **headers))
    assert found.retry_after_s == expected


def test_retry_after_counts_for_whatever_was_not_accepted() -> None:
    """A server that pauses or splits may ask for time as well; a 200 may not."""
    asked = {status: verdict(answer(status, retry_after=9)) for status in (200, 403)}
    assert asked[200].retry_after_s is None
    assert asked[403].retry_after_s == 9.0


def test_events_that_an_accepting_answer_refuses_are_named() -> None:
    """All others of the batch are delivered, so an unreadable name delivers none."""
    named = verdict(answer(200, b'{"rejected":[{"event_id":"a","reason":"no"}]}'))
    assert named.action is Action.ACCEPTED
    assert named.rejected == (Rejection("a", "no"),)
    unreadable = verdict(answer(200, b'{"rejected":[{"id":"a"}]}'))
    assert unreadable.action is Action.WAIT
    assert unreadable.narrow, "a smaller batch may be answered readably"


def test_a_refused_event_that_was_not_posted_settles_nothing() -> None:
    """A name that was shortened means an event that would count as delivered."""
    ours, other = (f"0190b6a2-1111-7222-8333-44445555666{n}".encode() for n in "67")
    reply = answer(200, b'{"rejected":[{"event_id":"%b"}]}' % ours)
    for posted, action in (
        (b'{"event_id":"%b"}' % ours, Action.ACCEPTED),
        (b'{"event_id":"%b"}' % other, Action.WAIT),
        (b'{"session_id":"%b","event_id":"%b"}' % (ours, other), Action.WAIT),
    ):
        assert judge(reply, now=0.0, posted=posted).action is action


def test_a_refused_id_is_that_of_an_event_in_every_format() -> None:
    """A server's own number, or the first digits of an id, stands somewhere in a body."""
    ours = "0190b6a2-1111-7222-8333-444455556666"
    sent = (
        b'{"event":"it","event_timestamp":1790000000000,"properties":{"n":{"event_id":"2"},"event_id":'
        b'"%b","user_uuid":"11111111-2222-4333-8444-555555555555"},"source":"app"}'
    )
    for name in FORMATS:
        form = format_of(name)
        posted = form.body_of([sent % ours.encode()])
        for refused, action in (
            (ours, Action.ACCEPTED),
            ("2", Action.WAIT),
            (ours[:8], Action.WAIT),
            ("11111111-2222-4333-8444-555555555555", Action.WAIT),
        ):
            reply = answer(200, b'{"rejected":[{"event_id":"%b"}]}' % refused.encode())
            told = judge(reply, now=0.0, form=form, posted=posted)
            # ClickHouse names no event.
            expected = Action.WAIT if name == "clickhouse" else action
            assert told.action is expected, (name, refused)


def test_of_an_answer_that_repeats_the_key_only_ids_are_kept() -> None:
    """Reasons and excerpts end up in dead letters, in the ledger and on terminals."""
    body = b'{"rejected":[{"event_id":"a","reason":"the key is k-123"}]}'
    found = verdict(answer(200, body, tells_key=True))
    assert found.rejected == (Rejection("a", ""),)
    assert verdict(answer(500, b"k-123", tells_key=True)).detail == "HTTP 500"
    for status in (401, 403, 407):
        assert verdict(answer(status, b"bad key k-1...")).detail == f"HTTP {status}"


def test_texts_that_others_wrote_are_changed_and_nothing_else() -> None:
    """Whoever keeps a verdict takes out of it what no file may hold."""
    reply = Reply(200, {}, b'{"rejected":[{"event_id":"a","reason":"K"}]}', True)
    rejected = verdict(reply).changed(str.lower)
    assert rejected == Verdict(Action.ACCEPTED, "200", rejected=(Rejection("a", "k"),))
    waits = verdict(answer(503, b"K")).changed(str.lower)
    assert waits == Verdict(Action.WAIT, "503", "http 503: k", narrow=True)


def test_what_cannot_be_about_the_batch_narrows_nothing() -> None:
    """Another batch would draw the same answer: there is no use in trying one."""
    kinds = {"name", "refused", "unreachable", "tls", "proxy"}
    assert {k for k in KINDS if not verdict(Failure(k, "")).narrow} == kinds
    # A firewall refuses a word with any status.
    assert all(verdict(answer(status)).narrow for status in range(300, 600))
    assert verdict(answer(503, retry_after=9)).narrow


@pytest.mark.parametrize("status", [400, 413, 503])
def test_no_other_reply_names_rejections(status: int) -> None:
    """A refusal as a whole is no verdict on single events."""
    assert verdict(answer(status, b'{"rejected":[{"event_id":"a"}]}')).rejected == ()


DETAILS = [
    (answer(503, b"up\x1b[31mstream \n\t down"), "HTTP 503: up�[31mstream down"),
    (answer(500), "HTTP 500"),
    (answer(400, b"\xff\xfe" + b"x" * 1000), "HTTP 400: ��" + "x" * 198),
    (answer(308, location="https://u:p@new.example/v2?k=1"), "https://new.example/v2"),
    (answer(300, location="/moved"), "HTTP 300 to /moved"),
    (answer(399, location="/moved"), "HTTP 399 to /moved"),
    (
        answer(201, b"<p>", location="/made"),
        (
            "HTTP 201, but the answer is a web page, or is called one (Content-Type), as "
            "of a login or a proxy: check the endpoint: <p>"
        ),
    ),
    (answer(503, redirected=True), "HTTP 503 by way of a redirect"),
    (answer(10**300), "HTTP 1" + "0" * 199),
    (answer(302, location="https://u:p/w@x"), "HTTP 302 to https://…"),
]


@pytest.mark.parametrize(("reply", "expected"), DETAILS)
def test_details_are_one_printable_line(reply: Reply, expected: str) -> None:
    """They end up in terminals, ledgers and dead letters."""
    found = verdict(reply).detail
    assert expected in found
    assert found.isprintable()
    assert len(found) < 250
    assert found.endswith(expected) or "new.example" in found


JSON_ISH = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["rejected", "event_id", "reason", "quota_limited"])
            | st.sampled_from(["partialSuccess", "rejectedLogRecords", "errorMessage"])
            | st.text(max_size=4),
            inner,
        )
    ),
    max_leaves=12,
)
BODIES = (
    st.binary(max_size=200)
    | JSON_ISH.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b"[" * 100_000, b'{"rejected":' * 5000, b"<html", b"<?xml" * 99])
)
DATES = st.builds(
    "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT".format,
    st.sampled_from(["Sun", "Sunday", "x"]),
    st.integers(0, 40),
    st.sampled_from(["Nov", "Feb", "Foo"]),
    st.integers(0, 9999),
    st.integers(0, 99),
    st.integers(0, 99),
    st.integers(0, 99),
)
VALUES = st.text(max_size=20) | DATES | st.integers().map(str)
REPLIES = st.builds(
    Reply,
    status=st.integers() | st.sampled_from([200, 204, 302, 413, 503]),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "date", "content-type", "location"])
        | st.text(max_size=8),
        VALUES | st.just("application/x-protobuf"),
    ),
    body=BODIES,
    complete=st.booleans(),
    truncated=st.booleans(),
    redirected=st.booleans(),
    is_sent=st.booleans(),
    is_decoded=st.booleans(),
)


@given(
    outcome=REPLIES | st.builds(Failure, st.text(), st.text()),
    now=st.floats(),
    accept_statuses=st.lists(st.integers(100, 599), max_size=3).map(tuple),
    form=st.sampled_from(sorted(FORMATS)).map(format_of),
)
def test_no_answer_raises_and_acceptance_needs_proof(
    outcome: Reply | Failure,
    now: float,
    accept_statuses: tuple[int, ...],
    form: Format,
) -> None:
    """All of a reply is written by strangers; none of it may stop or fool a flush."""
    found = judge(outcome, now=now, accept_statuses=accept_statuses, form=form)
    assert found.detail.isprintable()
    if found.retry_after_s is not None:
        assert 0 <= found.retry_after_s <= DAY_S
        assert not math.isnan(found.retry_after_s)
    if found.action is Action.ACCEPTED:
        assert isinstance(outcome, Reply)
        assert 200 <= outcome.status <= 299
        assert outcome.complete or (outcome.status in (204, 205) and not outcome.body)
        assert not outcome.redirected
        assert outcome.is_sent
        assert not accept_statuses or outcome.status in accept_statuses
    else:
        assert not found.rejected


def test_json_that_calls_itself_a_page_is_none() -> None:
    """Frameworks call everything text/html that nobody said anything of."""
    for body, length, expected in (
        (b"{}", "2", False),
        (b" []", "", False),
        (b" []", "3", False),
        (b"{}", "", False),
        (b"", "0", False),
        (b"", "", True),
        (b"<p>", "3", True),
    ):
        headers = {"content_type": "text/html", "content_length": length}
        told = {name: value for name, value in headers.items() if value}
        assert _is_page(answer(200, body, **told)) == expected, body

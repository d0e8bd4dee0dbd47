"""`conformance` finds each way in which a server can cost events, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from spool_tools.collector import Collector, Faults
from spool_tools.conformance import Asker
from spool_tools.server import Answer, Request, Server
from telemetry.wire.formats import FORMATS
from tests.support.tooling import ran


KEY = "a-key-of-some-length"
PATHS = {
    "otlp-json": "/v1/logs",
    "otlp-protobuf": "/v1/logs",
    "posthog": "/batch/",
    "clickhouse": "/",
}
Spoiler = Callable[[Request, int, int], Answer | None]
"""What is answered instead of the truth to a request, the `n`-th, of a key that was seen
so often before."""


def failing(form: str, spoil: Spoiler | None = None) -> set[str]:
    """The questions that a server fails which answers so."""
    numbers: Counter[str] = Counter()
    with Collector(key=KEY) as collector:

        def take(request: Request) -> Answer:
            key = request.headers["idempotency-key"]
            numbers[key] += 1
            spoiled = spoil(request, numbers.total(), numbers[key]) if spoil else None
            return spoiled or collector._take(request)

        server = Server("127.0.0.1", 0, take=take, body_bytes_max=2**25)
        with closing(server):
            url = f"http://127.0.0.1:{server.address[1]}{PATHS.get(form, '/in')}"
            with closing(Asker(url, FORMATS[form], "x-api-key", KEY)) as asker:
                lines = list(asker.ask(burst=3))
    assert len(lines) == 14
    return {line.question for line in lines if line.holds is False}


@pytest.mark.parametrize("form", FORMATS)
def test_the_collector_holds_in_every_format(form: str) -> None:
    """What is shown as an example has to pass the examination."""
    assert failing(form) == set()


def first(answer: Answer) -> Spoiler:
    return lambda _request, number, _copies: answer if number == 1 else None


def where(holds: Callable[[Request], bool], answer: Answer) -> Spoiler:
    return lambda request, _number, _copies: answer if holds(request) else None


def at_copy(copy: int, answer: Answer) -> Spoiler:
    """To the first request that comes for the `copy`-th time of all that come again."""
    again = 0

    def spoil(_request: Request, _number: int, copies: int) -> Answer | None:
        nonlocal again
        again += copies > 1
        return answer if copies > 1 and again == copy else None

    return spoil


BROKEN = Answer(status=500)
OK = Answer(body=b"{}")
NAMES_NOBODY = Answer(body=b'{"rejected":[{"index":1}]}')
SPOILT: dict[str, tuple[Spoiler, set[str]]] = {
    "refuses a single event": (first(BROKEN), {"one event"}),
    "takes half a batch at most": (
        where(lambda r: 400_000 < len(r.body) < 600_000, BROKEN),
        {"a whole batch"},
    ),
    "takes no large event": (
        where(lambda r: 250_000 < len(r.body) < 400_000, Answer(status=413)),
        {"a large event"},
    ),
    "stumbles over an empty batch": (
        where(lambda r: r.body == b'{"records":[]}', BROKEN),
        {"an empty batch"},
    ),
    "calls a retry a conflict": (
        at_copy(1, Answer(status=409)),
        {"the same batch twice"},
    ),
    "calls it one only after a lost answer": (
        at_copy(2, Answer(status=409)),
        {"an answer that was lost"},
    ),
    "stumbles over one event": (
        where(lambda r: b'"soon"' in r.body, BROKEN),
        {"one bad event"},
    ),
    "refuses one event and does not say which": (
        where(lambda r: b'"soon"' in r.body, NAMES_NOBODY),
        {"one bad event"},
    ),
    "takes anything": (
        where(lambda r: r.body.startswith(b'{"no batch"'), OK),
        {"no batch at all"},
    ),
    "breaks where a batch is too big": (
        where(lambda r: len(r.body) > 2**23, BROKEN),
        {"a batch too big"},
    ),
    "does not read gzip and says nothing": (
        where(lambda r: "content-encoding" in r.headers, OK),
        {"gzip"},
    ),
    "knows no wrong key": (
        where(lambda r: r.headers["x-api-key"] != KEY, OK),
        {"a wrong key"},
    ),
    "never says when to come again": (
        lambda _request, number, _copies: Answer(status=429) if number > 14 else None,
        {"not now"},
    ),
    "sends its clients elsewhere": (
        first(Answer(status=307, headers=(("Location", "http://127.0.0.1:9/"),))),
        {"one event", "no redirect"},
    ),
    "answers a page": (
        first(Answer(content_type="text/html", body=b"<html><p>Hello</p></html>")),
        {"one event", "no page of HTML"},
    ),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_each_fault_of_a_server_is_named(fault: str) -> None:
    """A check that misses a fault is what hides it."""
    spoil, expected = SPOILT[fault]
    assert failing("records", spoil) == expected


def test_an_answer_of_a_megabyte_is_read_as_programs_read_it() -> None:
    """Up to two of them: it may name many events, or repeat the batch."""
    long = Answer(body=b'{"echo":"%b"}' % (b"x" * 2**20))
    assert failing("records", first(long)) == set()


def test_a_server_that_names_its_events_says_so() -> None:
    """It may know no event of that name; it has read gzip all the same."""
    faults = Faults(reject=("conformance",))
    with Collector(key=KEY, faults=faults) as collector:
        url = f"{collector.url}/in"
        with closing(Asker(url, FORMATS["records"], "x-api-key", KEY)) as asker:
            lines = {line.question: line for line in asker.ask(burst=0)}
    assert lines["one event"].holds is False
    assert "but for 1 event that it names" in lines["one event"].said
    assert lines["gzip"].holds is True


def test_the_command_ends_with_what_it_found() -> None:
    """0 and 1 are for scripts, the lines for people; the key is in neither."""
    with Collector(key=KEY) as collector:
        asked = ("conformance", collector.url, "--burst", "1")
        right = ran(*asked, TELEMETRY_API_KEY=KEY)
        wrong = ran(*asked, "--json", TELEMETRY_API_KEY=f"{KEY}-of-another")
        port = urlsplit(collector.url).port
    assert (right.code, right.err) == (0, "")
    assert b"holds      a whole batch" in right.out
    assert wrong.code == 1
    lines = [json.loads(line) for line in wrong.out.splitlines()]
    assert lines[0] == {
        "question": "one event",
        "holds": False,
        "said": "HTTP 401 (a flusher pauses for hours)",
    }
    assert KEY.encode() not in right.out + wrong.out
    nobody = ran("conformance", f"http://127.0.0.1:{port}/", TELEMETRY_API_KEY=KEY)
    assert nobody.code == 1
    assert b"nothing else was asked" in nobody.out
    assert nobody.out.endswith(b"\n0 hold, 1 fail, 0 not known.\n")
    assert ran("conformance", "http://example.com/").code == 2

"""What goes out beside a body: its URL, its headers, its coding."""

from __future__ import annotations

import gzip
import json
from urllib.parse import parse_qs

import pytest

from telemetry.errors import ConfigError
from telemetry.wire.endpoint import parse_endpoint
from telemetry.wire.formats import format_of
from telemetry.wire.request import RequestForm


KEY = "a-secret-key-of-some-length"


def form_of(
    name: str,
    endpoint: str = "https://collect.example/v1",
    *,
    header: str = "x-api-key",
    api_key: str = KEY,
    gzip: bool = False,
) -> RequestForm:
    return RequestForm(
        url=parse_endpoint(endpoint),
        header=header,
        api_key=api_key,
        user_agent="app/1.0",
        form=format_of(name),
        gzip=gzip,
    )


def test_the_key_stands_in_a_header_unless_the_format_has_a_place_for_it() -> None:
    """It is in one place, and the config's own header overrules a format's."""
    for name, header, expected in (
        ("records", "x-api-key", {"x-api-key": KEY}),
        ("otlp-json", "authorization", {"authorization": KEY}),
        ("posthog", "x-api-key", {}),
        ("clickhouse", "x-api-key", {"X-ClickHouse-Key": KEY}),
        ("clickhouse", "x-gateway-key", {"x-gateway-key": KEY}),
        ("clickhouse", "", {}),
    ):
        headers = form_of(name, header=header).headers("k", "")
        assert {n: v for n, v in headers.items() if KEY in v} == expected, name


def test_the_key_enters_the_body_as_it_is_sent() -> None:
    """What is hashed, kept and shown has no key in it."""
    body = format_of("posthog").body_of([])
    sent = form_of("posthog", api_key=' ph"c ').coded(body)
    assert json.loads(sent) == {"api_key": 'ph"c', **json.loads(body)}
    assert form_of("posthog", header="").coded(body) == body
    packed = form_of("posthog", gzip=True)
    assert json.loads(gzip.decompress(packed.coded(body)))["api_key"] == KEY
    assert packed.coded(body) == packed.coded(body)
    assert packed.headers("k", "")["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in form_of("posthog").headers("k", "")
    with pytest.raises(ConfigError, match="api_key"):
        form_of("posthog", api_key="a\nb")
    with pytest.raises(ConfigError, match="header"):
        form_of("posthog", header="two words")


def test_an_insert_names_its_table_its_batch_and_waits_for_its_end() -> None:
    """The token is the batch's: ClickHouse drops a block that it has already."""
    url = form_of("clickhouse", "https://ch.example/").url("0123")
    assert parse_qs(url.query[1:]) == {
        "query": ["INSERT INTO telemetry.events FORMAT JSONEachRow"],
        "insert_deduplication_token": ["0123"],
        "wait_end_of_query": ["1"],
        "wait_for_async_insert": ["1"],
    }
    endpoint = "https://ch.example/?query=INSERT+INTO+t+FORMAT+JSONEachRow&database=d"
    query = parse_qs(form_of("clickhouse", endpoint).url("k").query[1:])
    assert query["query"] == ["INSERT INTO t FORMAT JSONEachRow"]
    assert (query["database"], query["wait_end_of_query"]) == (["d"], ["1"])
    for given, begins in (
        ("", "?query=INSERT"),
        ("?", "?query=INSERT"),
        ("?a", "?a&query=INSERT"),
        ("?a=?&query=", "?a=?&query=&insert_deduplication_token=k&"),
    ):
        url = form_of("clickhouse", f"https://ch.example/{given}").url("k")
        assert url.query.startswith(begins), given
    assert form_of("records").url("k") == parse_endpoint("https://collect.example/v1")


def test_clickhouse_is_told_the_user_in_its_own_header() -> None:
    """It refuses a request that has Authorization as well, or a key and no user."""
    bare = form_of(
        "clickhouse", "https://me:word@ch.example/", header="", api_key=""
    ).headers("k", "")
    assert (bare["X-ClickHouse-User"], bare["X-ClickHouse-Key"]) == ("me", "word")
    for endpoint, api_key, expected in (
        ("https://me%40x@ch.example/", KEY, ("me@x", KEY)),
        ("https://me:pass%3Aword@ch.example/", "", ("me", "pass:word")),
        ("https://me:password@ch.example/", KEY, ("me", KEY)),
        ("https://ch.example/", KEY, ("default", KEY)),
    ):
        form = form_of("clickhouse", endpoint, api_key=api_key)
        headers = form.headers("k", "")
        found = headers.get("X-ClickHouse-User"), headers.get("X-ClickHouse-Key")
        assert found == expected, endpoint
        assert "Authorization" not in headers
        assert form.is_told_by(f"wrong: {expected[1]}")
    for more in ({"header": "x-gateway-key"}, {"header": "", "api_key": ""}):
        headers = form_of("clickhouse", "https://ch.example/", **more).headers("k", "")
        assert "X-ClickHouse-User" not in headers, more
    assert "Authorization" in form_of("records", "https://a:b@c.example/").headers(
        "k", ""
    )


def test_a_request_says_which_records_it_holds() -> None:
    """A server can tell which numbers of a machine it never saw."""
    headers = form_of("records").headers("k", "a.jseq; first=0; last=7")
    assert headers["X-Spool-Range"] == "a.jseq; first=0; last=7"
    assert "X-Spool-Range" not in form_of("records").headers("k", "")

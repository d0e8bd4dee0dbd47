"""What goes out with a body: these headers, each once, and nothing of ours more."""

from __future__ import annotations

import gzip

import pytest

from telemetry.errors import ConfigError
from tests.support.misbehaving import Received, Server
from tests.support.posting import BODY, KEY, post, sign, transport


ALWAYS = {
    "content-type": "application/json",
    "user-agent": "app/1.0",
    "accept-encoding": "identity",
    "idempotency-key": "batch-1",
    "content-length": str(len(BODY)),
}


def sent(
    path: str = "/events/v1/track", user_info: str = "", **named: object
) -> Received:
    """The request that one post makes, with each header in it once."""
    with Server() as server:
        endpoint = f"http://{user_info}127.0.0.1:{server.port}{path}"
        with transport(endpoint, **named) as to:
            assert sign(post(to)) == (200, "whole")
        (request,) = server.requests
        host = request.headers.pop("host")
        assert host == f"127.0.0.1:{server.port}"
    names = request.raw.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    assert len(names) == len(request.headers) + 1
    assert (request.method, request.body) == ("POST", BODY)
    return request


def test_a_request_has_these_headers_and_no_others() -> None:
    """What a client says of itself beyond need is a fingerprint."""
    assert sent().headers == {**ALWAYS, "x-api-key": KEY}


# The header's name and the key, and what they change; recorded of the Go original.
KEYS = [
    ("", "k", {}),
    ("x-api-key", "", {}),
    ("X-Api-Key", "  k  ", {"x-api-key": "k"}),
    ("authorization", "Bearer abc", {"authorization": "Bearer abc"}),
]


@pytest.mark.parametrize(("header", "api_key", "changed"), KEYS)
def test_a_key_goes_under_its_header(
    header: str, api_key: str, changed: dict[str, str]
) -> None:
    """Spaces around it are no part of it; without a name or a key nothing goes."""
    request = sent(header=header, api_key=api_key)
    assert request.headers == {**ALWAYS, **changed}


@pytest.mark.parametrize(
    ("named", "field"),
    [
        ({"header": "bad header"}, "header"),
        ({"header": "x\r\ny"}, "header"),
        ({"api_key": "a\nb"}, "api_key"),
        ({"user_agent": "app/1\0"}, "version"),
        ({"user_agent": "app/\x7f"}, "version"),
    ],
)
def test_what_would_break_a_line_is_refused_before_anything_is_sent(
    named: dict[str, str], field: str
) -> None:
    """The rest of such a line is a header that somebody else wrote."""
    with (
        pytest.raises(ConfigError) as caught,
        transport("http://127.0.0.1:9/", **named),
    ):
        pass
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("user_agent", "wire"),
    [("a/", "a/"), ("a/ 1.0 ", "a/ 1.0"), ("a/1<2>&3", "a/1<2>&3"), ("ä/1", "Ã¤/1")],
)
def test_a_user_agent_goes_out_as_it_stands(user_agent: str, wire: str) -> None:
    """A version is whatever a build says it is, in UTF-8."""
    assert sent(user_agent=user_agent).headers["user-agent"] == wire


PATHS = [
    ("", "/"),
    ("/a/b?x=1&y=a b", "/a/b?x=1&y=a%20b"),
    ("//a//b/../c", "//a//b/../c"),
    ("/%7e/%2F?%zz=[]", "/%7e/%2F?%25zz=%5B%5D"),
    ("/ä#part", "/%C3%A4"),
]


@pytest.mark.parametrize(("path", "target"), PATHS)
def test_a_path_is_asked_for_as_it_is_written(path: str, target: str) -> None:
    """A collector routes by it; a client that tidies it up asks for another one."""
    assert sent(path).target.lower() == target.lower()


def test_user_info_becomes_basic_credentials() -> None:
    """Recorded of the Go original; the user info itself is in no request line."""
    request = sent(user_info="us%20er:p%40ss@")
    assert request.headers["authorization"] == "Basic dXMgZXI6cEBzcw=="
    assert b"er:p" not in request.raw


def test_a_key_wins_over_user_info() -> None:
    """Both want the one Authorization header; the key was named for it."""
    request = sent(user_info="a:b@", header="Authorization", api_key="Bearer k")
    assert request.headers["authorization"] == "Bearer k"


def test_a_coded_body_is_the_same_bytes_every_time() -> None:
    """A collector may compare what it was sent under one key."""
    body = BODY * 1000
    with Server() as server, transport(server.url, gzip=True) as to:
        for _ in range(2):
            post(to, body)
        first, again = server.requests
    assert first.headers["content-encoding"] == "gzip"
    assert first.body == again.body
    assert gzip.decompress(first.body) == first.plain_body == body
    assert len(first.body) < len(body) / 20

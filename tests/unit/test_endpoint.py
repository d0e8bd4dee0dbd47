"""What may be an endpoint, a header or a proxy, and what may be shown of it."""

from __future__ import annotations

import os
from unittest import mock
from urllib.request import getproxies_environment

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import ConfigError, EndpointError
from telemetry.wire.endpoint import (
    Proxy,
    basic,
    header_value,
    parse_endpoint,
    proxy_for,
    redact,
    split,
)


SOUND = [
    ("https://collector.example", "https://collector.example", "/"),
    ("https://Collector.EXAMPLE:443/v1?a=b", "https://collector.example", "/v1?a=b"),
    ("https://collector.example.:8443/", "https://collector.example.:8443", "/"),
    ("HTTP://127.0.0.1:18765/a", "http://127.0.0.1:18765", "/a"),
    ("http://127.255.0.9/", "http://127.255.0.9", "/"),
    ("http://localhost:80?x", "http://localhost", "/?x"),
    ("http://LOCALHOST/#part", "http://localhost", "/"),
    ("http://[::1]:9/", "http://[::1]:9", "/"),
    ("https://[2001:DB8::1]/x", "https://[2001:db8::1]", "/x"),
    ("https://h.example//a//b/../c", "https://h.example", "//a//b/../c"),
    ("https://h/a b?y=ä%20%zz|", "https://h", "/a%20b?y=%C3%A4%20%25zz%7C"),
    ("https://us%20er:p%40ss@h/a", "https://h", "/a"),
    ("https://under_score.example/", "https://under_score.example", "/"),
    ("https://h:/a", "https://h", "/a"),
]


@pytest.mark.parametrize(("endpoint", "where", "target"), SOUND)
def test_a_sound_endpoint_is_taken_apart(
    endpoint: str, where: str, target: str
) -> None:
    """Host and target are what is connected to and asked for, byte for byte."""
    parse_endpoint(endpoint)
    url = parse_endpoint(endpoint)
    assert (url.origin, url.target) == (where, target)


UNSOUND = [
    "",
    "127.0.0.1:18765/a",
    "::bad",
    "//h/a",
    "http:///a",
    "https://",
    "https:///x",
    "https:/h/x",
    "ftp://h/a",
    "file:///etc/passwd",
    "http://collector.example/",
    "http://10.0.0.1/",
    "http://0.0.0.0/",
    "http://[::]/",
    "http://127.1/",
    "http://0127.0.0.1/",
    "http://127.0.0.256/",
    "http://2130706433/",
    "http://localhost.example/",
    "http://127.0.0.1.example/",
    "http://example/127.0.0.1",
    "http://127.0.0.1@example/",
    "http://127.0.0.1:80@example/",
    "http://127.0.0.1\\@example/",
    "http://example\\@127.0.0.1/",
    "http://[::1]example/",
    "http://[::1].example/",
    "https://h:0/",
    "https://h:65536/",
    "https://h:-1/",
    "https://h:8o/",
    "https://h..example/",
    "https://-h.example/",
    "https://" + "x" * 64 + ".example/",
    "https://" + "x." * 130 + "example/",
    "https://b\xfccher.example/",
    "https://\u24d4xample/",
    "https://h /",
    " https://h/",
    "https://h/\r\nX: y",
    "https://h/\0",
    "https://h/\x7f",
    "https://h/\u2028",
    "https://h/\udcff",
    "https://user:p/w@h/",
]


@pytest.mark.parametrize("endpoint", UNSOUND)
def test_an_unsound_endpoint_is_refused(endpoint: str) -> None:
    """Anything that two parsers could read in two ways must not get the key."""
    with pytest.raises(EndpointError) as caught:
        parse_endpoint(endpoint)
    assert caught.value.field == "endpoint"
    assert str(caught.value).isprintable()


SHOWN = [
    ("https://h/a", "https://h/a"),
    ("https://u:pw@h:444/a?key=1#x", "https://h:444/a"),
    ("HTTPS://U:PW@H/?key=1", "https://h/"),
    ("https://u:p/w@h/", "https://…"),
    ("https://u:p?w@h/", "https://…"),
    ("https://u:12?w@h/", "https://u:12/"),
    ("u:pw@h/x", "…"),
    ("/moved?token=1", "…"),
    ("/moved", "/moved"),
    ("htps//h", "htps//h"),
    ("https://h/\x1b[2J", "https://h/�[2J"),
    ("https://h/" + "x" * 1000, "https://h/" + "x" * 190),
    ("", ""),
]


@pytest.mark.parametrize(("url", "shown"), SHOWN)
def test_user_info_and_query_are_never_shown(url: str, shown: str) -> None:
    """Messages end up in logs and bug reports; passwords must not."""
    assert redact(url) == shown


@given(
    st.text(alphabet="abc:@/?#\\ [].%-", max_size=30),
    st.sampled_from(["https://", "http://", "//", "", "x:"]),
)
def test_no_text_breaks_the_reading_of_urls(text: str, scheme: str) -> None:
    """A Location is written by a stranger, an endpoint by somebody in a hurry."""
    url = scheme + text
    shown = redact(url)
    assert shown.isprintable()
    assert "@" not in shown.partition("://")[2].partition("/")[0]
    parts = split(url)
    if parts is not None:
        assert parts.host
        assert split(parts.origin + parts.target).target == parts.target


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_a_percent_encoded_secret_is_in_no_text(user: str, password: str) -> None:
    """User info that is encoded as it should be is recognised, and left out."""
    encoded = [
        "".join(f"%{byte:02X}" for byte in part.encode("utf-8", "surrogatepass"))
        for part in (user, password)
    ]
    url = parse_endpoint(f"https://{encoded[0]}:{encoded[1]}@h/")
    assert url.credentials == ":".join(encoded)
    assert encoded[0] not in repr(url)
    assert url.shown == "https://h/"


def test_user_info_becomes_basic_credentials() -> None:
    """The example that other clients were recorded with."""
    assert basic("us%20er:p%40ss") == "Basic dXMgZXI6cEBzcw=="
    assert basic("only") == "Basic b25seTo="


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        ("k", b"k"),
        ("  k \t", b"k"),
        ("Bearer a b", b"Bearer a b"),
        ("ä€", "ä€".encode()),
        ("\udcff", b"\xff"),
        ("", b""),
    ],
)
def test_header_values_go_out_as_utf8(value: str, wire: bytes) -> None:
    """As they stand in the environment, whatever the locale."""
    assert header_value("api_key", value).encode("latin-1") == wire


@pytest.mark.parametrize("value", ["a\nb", "k\n", "a\rb", "a\0b", "a\x7f", "\ud800"])
def test_values_that_break_a_line_are_refused_without_being_repeated(
    value: str,
) -> None:
    """The message is logged, and the value is a secret."""
    with pytest.raises(ConfigError) as caught:
        header_value("api_key", value)
    assert caught.value.field == "api_key"
    assert value not in str(caught.value)


P = "http://proxy:3128"


def proxy_in(
    environment: dict[str, str], scheme: str, host: str, port: int
) -> Proxy | None:
    """The proxy that a process with these variables uses."""
    with mock.patch.dict(os.environ, environment, clear=True):
        return proxy_for(scheme, host, port, getproxies_environment())


NAMED = [
    ({}, None),
    ({"HTTPS_PROXY": P}, Proxy(url=P)),
    ({"https_proxy": P}, Proxy(url=P)),
    ({"ALL_PROXY": P}, Proxy(url=P)),
    pytest.param(
        {"all_proxy": P, "ALL_PROXY": "http://b:1"}, Proxy(url=P), id="both cases, all"
    ),
    pytest.param(
        {"https_proxy": P, "HTTPS_PROXY": "http://b:1"}, Proxy(url=P), id="both cases"
    ),
    ({"HTTPS_PROXY": P, "all_proxy": "http://b:1"}, Proxy(url=P)),
    pytest.param({"https_proxy": "", "HTTPS_PROXY": P}, None, id="both cases, empty"),
    ({"HTTPS_PROXY": " ", "ALL_PROXY": P}, None),
    ({"HTTP_PROXY": P, "http_proxy": P}, None),
    ({"HTTPS_PROXY": "proxy:3128"}, Proxy(url=P)),
    pytest.param({"HTTPS_PROXY": f'"{P}"'}, Proxy(url=P), id="quoted"),
    pytest.param(
        {"HTTPS_PROXY": P, "NO_PROXY": "'.example'"}, None, id="quoted exception"
    ),
    ({"HTTPS_PROXY": "proxy"}, Proxy(url="http://proxy")),
    ({"HTTPS_PROXY": "https://proxy"}, Proxy(url="https://proxy")),
    ({"HTTPS_PROXY": "http://[::1]:8/x"}, Proxy(url="http://[::1]:8")),
    (
        {"HTTPS_PROXY": "http://us%20er:p%40ss@proxy:3128"},
        Proxy(url=P, authorization="Basic dXMgZXI6cEBzcw=="),
    ),
    (
        {"HTTPS_PROXY": "socks5://proxy:1"},
        Proxy(problem="HTTPS_PROXY names a socks5 proxy; use http or https"),
    ),
    ({"all_proxy": "http://"}, Proxy(problem="ALL_PROXY is not the URL of a proxy")),
    (
        {"all_proxy": "http://a b/"},
        Proxy(problem="ALL_PROXY is not the URL of a proxy"),
    ),
]


@pytest.mark.parametrize(("environment", "expected"), NAMED)
def test_the_first_variable_that_is_set_decides(
    environment: dict[str, str], expected: Proxy | None
) -> None:
    """One that cannot be used is an error: it may be there to hide who asks."""
    assert proxy_in(environment, "https", "c.example", 443) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_this_machine_is_never_reached_through_a_proxy(scheme: str, host: str) -> None:
    """A proxy elsewhere would get, in the clear, what was meant for this machine."""
    everything = dict.fromkeys(["https_proxy", "http_proxy", "all_proxy"], P)
    assert proxy_in(everything, scheme, host, 80) is None


EXEMPT = [
    ("*", "c.example", True),
    ("c.example", "c.example", True),
    ("C.EXAMPLE", "c.example", True),
    ("c.example", "c.example.", True),
    (".c.example", "c.example", True),
    (".example", "c.example", True),
    ("*.example", "c.example", True),
    ("example", "c.example", True),
    ("xample", "c.example", False),
    ("c.example", "c.example.org", False),
    ("other, c.example", "c.example", True),
    ("other c.example", "c.example", True),
    ("c.example:443", "c.example", True),
    ("c.example:8443", "c.example", False),
    ("10.0.0.1", "10.0.0.1", True),
    ("10.0.0.1:443", "10.0.0.1", True),
    ("10.0.0.1:80", "10.0.0.1", False),
    ("10.0.0.0/8", "10.9.9.9", True),
    ("10.0.0.1/8", "10.9.9.9", True),
    ("10.0.0.0/8", "11.0.0.1", False),
    ("10.0.0.0/99", "10.0.0.1", False),
    ("10.0.0.0/8", "ten.example", False),
    ("10.0.0", "10.0.0.1", False),
    (".0.0.1", "10.0.0.1", False),
    ("2001:db8::1", "2001:db8:0::1", True),
    ("[2001:db8::1]", "2001:db8::1", True),
    ("[2001:db8::1]:443", "2001:db8::1", True),
    ("[2001:db8::1]:80", "2001:db8::1", False),
    ("2001:db8::/32", "2001:db8:1::2", True),
    ("2001:db8::/32", "10.0.0.1", False),
    ("", "c.example", False),
    (",, ,", "c.example", False),
    (".", "c.example", False),
]


@pytest.mark.parametrize(("no_proxy", "host", "exempt"), EXEMPT)
def test_no_proxy_names_who_is_reached_directly(
    no_proxy: str, host: str, exempt: bool
) -> None:
    """Names cover what is below them, addresses are compared as addresses."""
    for name in ("no_proxy", "NO_PROXY"):
        environment = {"HTTPS_PROXY": P, name: no_proxy}
        assert (proxy_in(environment, "https", host, 443) is None) is exempt


def test_no_proxy_in_lower_case_decides() -> None:
    """As for the proxy itself: the first that is set, also to nothing."""
    environment = {"HTTPS_PROXY": P, "no_proxy": "", "NO_PROXY": "*"}
    assert proxy_in(environment, "https", "c.example", 443) == Proxy(url=P)


# What an environment can hold.
TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30
)


@given(value=TEXT, exempt=TEXT)
def test_no_environment_raises_or_shows_credentials(value: str, exempt: str) -> None:
    """It is set by people and scripts, and read at every flush."""
    environment = {"HTTPS_PROXY": f"http://me:{value}@p/", "NO_PROXY": exempt}
    for host in ("c.example", "10.0.0.1", "2001:db8::1"):
        found = proxy_in(environment, "https", host, 443)
        # A password with a raw `?` ends the host there, by RFC 3986.
        ours = found is not None and not set("/?#") & set(value)
        assert not ours or found.problem or found.url == "http://p"
        assert "Basic" not in repr(found)

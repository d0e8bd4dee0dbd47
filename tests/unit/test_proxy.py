"""Which proxy is asked, for whom, and never silently another way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.wire.endpoint import Proxy, proxy_for


P = "http://proxy:3128"
NAMED = [
    ({}, None),
    ({"HTTPS_PROXY": P}, Proxy(url=P)),
    ({"https_proxy": P}, Proxy(url=P)),
    ({"ALL_PROXY": P}, Proxy(url=P)),
    ({"all_proxy": P, "ALL_PROXY": "http://b:1"}, Proxy(url=P)),
    ({"https_proxy": P, "HTTPS_PROXY": "http://b:1"}, Proxy(url=P)),
    ({"HTTPS_PROXY": P, "all_proxy": "http://b:1"}, Proxy(url=P)),
    ({"https_proxy": "", "HTTPS_PROXY": P}, None),
    ({"HTTPS_PROXY": " ", "ALL_PROXY": P}, None),
    ({"HTTP_PROXY": P, "http_proxy": P}, None),
    ({"HTTPS_PROXY": "proxy:3128"}, Proxy(url=P)),
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
    ({"all_proxy": "http://"}, Proxy(problem="all_proxy is no URL of a proxy")),
    ({"all_proxy": "http://a b/"}, Proxy(problem="all_proxy is no URL of a proxy")),
]


@pytest.mark.parametrize(("environment", "expected"), NAMED)
def test_the_first_variable_that_is_set_decides(
    environment: dict[str, str], expected: Proxy | None
) -> None:
    """One that cannot be used is an error: it may be there to hide who asks."""
    assert proxy_for("https", "c.example", 443, environment) == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_this_machine_is_never_reached_through_a_proxy(scheme: str, host: str) -> None:
    """A proxy elsewhere would get, in the clear, what was meant for this machine."""
    everything = dict.fromkeys(["https_proxy", "http_proxy", "all_proxy"], P)
    assert proxy_for(scheme, host, 80, everything) is None


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
        assert (proxy_for("https", host, 443, environment) is None) is exempt


def test_no_proxy_in_lower_case_decides() -> None:
    """As for the proxy itself: the first that is set, also to nothing."""
    environment = {"HTTPS_PROXY": P, "no_proxy": "", "NO_PROXY": "*"}
    assert proxy_for("https", "c.example", 443, environment) == Proxy(url=P)


@given(value=st.text(max_size=30), exempt=st.text(max_size=30))
def test_no_environment_raises_or_shows_credentials(value: str, exempt: str) -> None:
    """It is set by people and scripts, and read at every flush."""
    environment = {"HTTPS_PROXY": f"http://me:{value}@p/", "NO_PROXY": exempt}
    for host in ("c.example", "10.0.0.1", "2001:db8::1"):
        found = proxy_for("https", host, 443, environment)
        # A password with a raw `?` ends the host there, by RFC 3986.
        ours = found is not None and not set("/?#") & set(value)
        assert not ours or found.problem or found.url == "http://p"
        assert "Basic" not in repr(found)

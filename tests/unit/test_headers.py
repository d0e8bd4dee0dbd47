"""Under which header a key may go."""

from __future__ import annotations

import pytest

from telemetry.errors import ConfigError
from telemetry.wire.headers import check_header


@pytest.mark.parametrize("name", ["", "x-api-key", "Authorization", "X_1", "a!b~c"])
def test_sound_header_names_pass(name: str) -> None:
    """An empty name means that no key is sent."""
    check_header(name)


@pytest.mark.parametrize(
    "name",
    [
        *("bad header", "a:b", "a\r\nb", "\0", "ä", "(a)", " a", "a ", "é"),
        *("Host", "TE", "content-length", "Proxy-Authorization", "upgrade", "expect"),
        *("Content-Type", "User-Agent", "IDEMPOTENCY-KEY", "x-spool-range"),
    ],
)
def test_unsound_header_names_are_refused(name: str) -> None:
    """A name with a line's end in it is a header of somebody else's choosing."""
    with pytest.raises(ConfigError) as caught:
        check_header(name)
    assert caught.value.field == "header"

"""The program's own key is found however it is written, and whatever of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.privacy import Scrubber, without_secret
from tests.support.canaries import OWN_KEY, OWN_KEY_WRITTEN, SURROUNDINGS, windows


def leaks(text: str, written: str) -> list[str]:
    """Every stretch of eight characters of what was written that is in the text."""
    return [part for part in windows(written, 8) if part in text]


def test_the_own_key_is_removed_however_it_is_written() -> None:
    """Programs quote their key in errors, and servers answer with it."""
    scrubber = Scrubber(homes=(), users=(), key=OWN_KEY)
    removers = (scrubber.text, scrubber.free_text, lambda t: without_secret(t, OWN_KEY))
    found = [
        (name, text, out)
        for name, write in OWN_KEY_WRITTEN.items()
        for around in SURROUNDINGS
        for text in [around.format(write(OWN_KEY).strip())]
        for out in [remove(text) for remove in removers]
        # Base64 shares its first and last characters with what is around it.
        if leaks(out, write(OWN_KEY).strip().replace("\n", " ")[2:-2])
    ]
    assert found == []


def test_without_a_scrubber_each_of_them_would_be_found() -> None:
    """The search above can fail."""
    for name, write in OWN_KEY_WRITTEN.items():
        written = write(OWN_KEY).strip()
        assert leaks(
            f"error: {written}", written[2:-2] if len(written) > 12 else written
        ), name


def test_other_text_stays_as_it_is() -> None:
    """The same object: what has no piece of the key costs one look."""
    for key in (OWN_KEY, "team-blue-2024-collector", "", "abc", "hunter2"):
        for text in (
            "team blue collects",
            "refused",
            "50% of a\\b",
            "&amp; hunter2x",
            "",
        ):
            assert (
                without_secret(text, key) is text or without_secret(text, key) == text
            )


def test_fewer_than_eight_characters_of_it_stay() -> None:
    """Words of a key stand in other texts, too."""
    key = "team-blue-2024-collector"
    assert without_secret("team-bl and blue-20", key) == "team-bl and blue-20"
    assert without_secret("team-blue", key) == "<secret>"
    assert without_secret("the collector said no", key) == "the <secret> said no"


def test_a_short_key_is_removed_where_it_is_a_word() -> None:
    """A key of three characters is a test's."""
    assert without_secret("key hunter2, HUNTER2! hunter22", "hunter2") == (
        "key <secret>, <secret>! hunter22"
    )
    assert without_secret("abc", "abc") == "abc"


@settings(max_examples=300, deadline=None)
@given(
    key=st.text(st.characters(codec="utf-8"), min_size=8, max_size=40),
    before=st.text(max_size=20),
    behind=st.text(max_size=20),
    start=st.integers(0, 32),
    size=st.integers(8, 40),
)
def test_no_key_and_no_fragment_of_any_key_stays(
    key: str, before: str, behind: str, start: int, size: int
) -> None:
    """Keys are whatever a server gives out."""
    fragment = key[start : start + size]
    out = without_secret(f"{before}{fragment}{behind}", key)
    if len(fragment) >= 8 and fragment not in before + behind:
        assert fragment not in out

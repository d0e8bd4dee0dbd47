"""The table of rules, and the cheap look that is derived from it."""

from __future__ import annotations

import functools
import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.privacy import Scrubber
from telemetry.privacy.finders import FINDERS
from telemetry.privacy.plain import SECRET_WORDS, is_plain
from telemetry.privacy.rules import (
    DRAWN,
    EVERYWHERE,
    IN_FREE_TEXT,
    INDEX,
    SECRET_KEY,
    Rule,
)
from telemetry.privacy.scrub import Identity, as_searched, scrub
from tests.support.canaries import CANARIES, DISGUISES
from tests.support.examples import examples


BY_NAME = {rule.name: rule for rule in IN_FREE_TEXT}
USER, HOME = "alice", "/data/p9"


@functools.cache
def text_of(rule: Rule) -> st.SearchStrategy[str]:
    """Texts that the rule matches, as far as they can be drawn from its pattern."""
    # Hypothesis draws no look behind well; what it refuses is filtered out.
    pattern = re.compile(rule.pattern, re.ASCII)

    def is_found(text: str) -> bool:
        """A run of characters without a domain is passed over as it is found."""
        found = re.finditer(rule.pattern, text)
        return any(m.groupdict().get("domain", True) for m in found)

    return st.from_regex(pattern).filter(is_found)


def test_each_rule_has_a_name_of_its_own_a_source_and_something_to_look_for() -> None:
    """A rule without a literal is tried on every text."""
    assert len(BY_NAME) == len(IN_FREE_TEXT)
    for rule in IN_FREE_TEXT:
        assert rule.name, rule
        assert rule.source, rule
        assert rule.holds or rule.word_min >= 20, rule
        assert not rule.any_case or rule.holds == tuple(map(str.lower, rule.holds)), (
            rule
        )
    assert FINDERS.keys() <= BY_NAME.keys()


@settings(
    max_examples=examples(250),
    deadline=None,
    # In place of the profile's list: a pause of the machine is no finding here either.
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(data=st.data())
def test_no_match_is_without_what_its_rule_says_each_has(data: st.DataObject) -> None:
    """`may_match` decides whether a pattern is tried at all."""
    rule = data.draw(st.sampled_from(IN_FREE_TEXT))
    text = data.draw(text_of(rule))
    searched, low = as_searched(text)
    assert rule.may_match(searched, low), (rule.name, text)
    assert INDEX.may_match(searched, low, free=rule.free), (rule.name, text)


QUIET = st.text("abcxyzABKSIC019 -_.,;:!?'\"()[]{}<*+&^|`#/", max_size=40)
TRUNCATED = st.builds(
    lambda text, start, size: text[start : start + size],
    st.sampled_from([canary.text for canary in CANARIES]),
    st.integers(0, 40),
    st.integers(1, 120),
)
# A key without digits and capitals is none, whatever it starts with.
LOWERED = TRUNCATED.map(lambda text: re.sub("[0-9]", "a", text.lower()))
WORDS = st.sampled_from(
    ["token ", "-u", "key", " alice ", "cookie", "hook", "ip-", "pat-", "/data/p9"]
)
PIECES = st.one_of(QUIET, TRUNCATED, LOWERED, WORDS)


def assert_clean_if_it_looks_clean(text: str) -> None:
    scrubber = Scrubber(homes=(HOME,), users=(USER,))
    for free, rules in ((False, EVERYWHERE), (True, IN_FREE_TEXT)):
        if scrubber._is_plainly_clean(text, free=free):
            out = scrub(text, rules, Identity((HOME,), (USER,)))
            assert out == text, (free, text, out)


@settings(max_examples=examples(400), deadline=None)
@given(pieces=st.lists(PIECES, max_size=4))
def test_what_is_called_clean_at_a_glance_is_clean(pieces: list[str]) -> None:
    """The glance may be wrong one way only."""
    assert_clean_if_it_looks_clean("".join(pieces))


PLAIN = st.lists(
    st.one_of(
        st.sampled_from(
            [*SECRET_WORDS, "-----", "bearer ", "login ", "-u ", "ab-", "a "]
        ),
        st.text("abcdef pwkn-", max_size=6),
    ),
    max_size=6,
).map("".join)


@settings(max_examples=examples(400), deadline=None)
@given(text=PLAIN)
def test_no_rule_matches_plain_words(text: str) -> None:
    """They are told without the rules, so no rule's own words speak for it."""
    if is_plain(text):
        assert scrub(text, IN_FREE_TEXT, Identity((), ())) == text
    assert not is_plain(f"{text}9")


def test_what_a_rule_finds_in_small_letters_is_not_plain() -> None:
    for text in ("--password hunter", "ab-cd-ef-ab-cd-ef"):
        assert scrub(text, IN_FREE_TEXT, Identity((), ())) != text, text
        assert not is_plain(text), text
    for text in ("compose up", "--no-cache", "build"):
        assert is_plain(text), text


def test_no_beginning_of_a_canary_looks_clean_where_a_rule_would_change_it() -> None:
    for canary in CANARIES:
        for size in range(1, min(len(canary.text), 128) + 1):
            assert_clean_if_it_looks_clean(canary.text[:size])


def test_a_glance_that_sees_nothing_would_be_found_out(monkeypatch) -> None:
    """The two tests above can fail."""
    monkeypatch.setattr(type(INDEX), "may_match", lambda *_, **__: False)
    clean = Scrubber(homes=(HOME,), users=(USER,))._is_plainly_clean
    looked_clean = [canary for canary in CANARIES if clean(canary.text, free=True)]
    assert len(looked_clean) > 100
    with pytest.raises(AssertionError):
        assert_clean_if_it_looks_clean(looked_clean[0].text)


def test_each_name_of_a_secret_has_one_of_the_words() -> None:
    """A dict's key is held against a pattern only then."""
    names = (
        "password Passwort pwd clientSecret creds senha auth_token API_KEY MY_PAT sig"
    )
    for name in (*names.split(), "contrase\u00f1a", "mot de passe", "\u5bc6\u7801"):
        assert re.search(SECRET_KEY, name), name
        assert any(word in name.lower() for word in SECRET_WORDS), name


def test_as_searched_keeps_what_rules_look_for() -> None:
    """The start of a text, and what is no ASCII, count as what parts words."""
    assert as_searched("/a") == ("\n/a", "\n/a")
    assert as_searched("\u2026/a \u00e9B\x1b\uff1a")[0] == "\n /a \u00e9B :"
    assert unicodedata.normalize("NFC", "e\u0301") == "\u00e9"
    assert set("09AZ") <= set(DRAWN)
    assert not set("az") & set(DRAWN)
    assert len(DISGUISES) > 5

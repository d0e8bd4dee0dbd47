"""Where in a text the private parts are: URLs, addresses, and the list of all finders.

Rules:
- Each is given a text and the text in lower case, and yields places in that text.
- Each looks cheaply first: a pattern is compiled by a text that may need it.
- None sees what another found: their order means nothing.

It cuts nothing (`scrub` does), and undoes no disguise (`views`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry.privacy import patterns as shapes
from telemetry.privacy import place_patterns as places
from telemetry.privacy.keys import (
    SECRET,
    TRAILING,
    accounts,
    headers,
    named_secrets,
    pem_blocks,
    tokens,
    unmarked_keys,
)
from telemetry.privacy.marks import RUN_MIN, has_word
from telemetry.privacy.names import searchable_name
from telemetry.privacy.paths import (
    PATH,
    PATH_MIN,
    file_urls,
    home_paths,
    posix_paths,
    rooted_paths,
    windows_paths,
)
from telemetry.privacy.randomness import is_number, is_random


if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Span = tuple[int, int, str]  # text[start:end] is to read as this
    Finder = Callable[[str, str], Iterator[Span]]


EMAIL, QUERY, USER = "<email>", "<query>", "<user>"
IP, RANDOM = "<ip>", "<random>"


# -- URLs and addresses ------------------------------------------------------


def urls(text: str, _low: str) -> Iterator[Span]:
    if "://" not in text:
        return
    for m in places.URL.regex.finditer(text):
        start = m.start("authority")
        if start == m.end():
            continue
        authority, path = m["authority"], m["path"]
        at = authority.rfind("@")
        port = authority.rpartition(":")[2] if ":" in authority else ""
        if at < 0 and port and not port.isdigit() and authority[0] != "[":
            # user:pass/word@host: what looks like a port is half a password.
            at = text.rfind("@", start, m.end()) - start
        if at > 0:
            yield start, start + at, SECRET
        yield from _url_path(path, m.start("path"), hosted=bool(authority))
        if m["query"]:
            end = m.start("query") + len(m["query"].rstrip(TRAILING))
            if end - m.start("query") > 1:
                yield m.start("query") + 1, end, QUERY


def _url_path(path: str, start: int, *, hosted: bool) -> Iterator[Span]:
    if not hosted and len(path) >= PATH_MIN:
        yield start, start + len(path.rstrip(TRAILING)), PATH
        return
    home = places.URL_PATH_HOME.regex.search(path)
    if home:
        yield start + home.start(), start + len(path.rstrip(TRAILING)), PATH
    if has_word(path, RUN_MIN):
        for m in places.SEGMENT.regex.finditer(path):
            # Numbers are names of commits and sessions here; letters are keys.
            if not is_number(m[0].replace("-", "")) and is_random(m[0]):
                yield start + m.start(), start + m.end(), SECRET


def webhooks(text: str, low: str) -> Iterator[Span]:
    if "hook" in low or "telegram" in low:
        for m in places.WEBHOOK.regex.finditer(text):
            yield *m.span("value"), SECRET


def bare_queries(text: str, _low: str) -> Iterator[Span]:
    if "?" in text and "=" in text:
        for m in places.BARE_QUERY.regex.finditer(text):
            start, end = m.span("value")
            yield start, start + len(text[start:end].rstrip(TRAILING)), QUERY


def emails(text: str, _low: str) -> Iterator[Span]:
    if "@" in text:
        for m in places.EMAIL.regex.finditer(text):
            if m["domain"] and not _is_in_authority(text, m.start()):
                yield *m.span(), EMAIL


def _is_in_authority(text: str, place: int) -> bool:
    """Whether this is `pass@host` of `scheme://user:pass@host`: `urls` cuts less."""
    scheme = text.rfind("://", max(0, place - 256), place)
    return scheme >= 0 and bool(
        places.AUTHORITY.regex.fullmatch(text, scheme + 3, place)
    )


def user_names(text: str, low: str) -> Iterator[Span]:
    """Names of others, where a text says that they are names."""
    if ("user" in low or "log" in low) and ("=" in text or ":" in text):
        for m in shapes.USER_NAME.regex.finditer(text):
            if searchable_name(m[m.lastgroup or 0]):
                yield *m.span(m.lastgroup or 0), USER


# -- In free text only -------------------------------------------------------


def ipv4(text: str, low: str) -> Iterator[Span]:
    if text.count("-") >= 5:
        for m in places.HARDWARE.regex.finditer(text):
            yield *m.span(), IP
    if text.count(".") >= 3 or "ip-" in low or "ec2-" in low:
        for m in places.IPV4.regex.finditer(text):
            yield *m.span(), IP


def ipv6(text: str, _low: str) -> Iterator[Span]:
    if text.count(":") < 2:
        return
    for m in places.IPV6.regex.finditer(text):
        groups = m["groups"].split(":")
        # A time has colons too: full length, a gap, or six pairs (a network card).
        if any(groups) and (
            "::" in m["groups"]
            or len(groups) == 8
            or (len(groups) == 6 and all(len(group) == 2 for group in groups))
        ):
            start, end = m.span()
            if "]" in text[m.end("groups") : end] and text[start - 1 : start] == "[":
                start -= 1
            yield start, end, IP


def random_runs(text: str, _low: str) -> Iterator[Span]:
    if has_word(text, RUN_MIN):
        for m in shapes.UUID.regex.finditer(text):
            yield *m.span(), RANDOM
        for m in shapes.LONG_RUN.regex.finditer(text):
            if is_random(m[0]):
                yield *m.span(), RANDOM


EVERYWHERE: tuple[Finder, ...] = (
    posix_paths,
    rooted_paths,
    windows_paths,
    home_paths,
    file_urls,
    urls,
    webhooks,
    bare_queries,
    emails,
    user_names,
    tokens,
    unmarked_keys,
    pem_blocks,
    named_secrets,
    headers,
    accounts,
)
FREE_ONLY: tuple[Finder, ...] = (ipv4, ipv6, random_runs)

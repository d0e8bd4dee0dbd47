"""Invariant tested: whatever TELEMETRY_TAGS holds, an event is sealed as one sound JSON
text that fits one record, or refused as too big; its tags are those that a plain
reading of the rules gives; no tag touches a field of the system, nor the event's name;
and scrubbed, no tag holds a home directory or a user's name that stood alone in it.

An input is the variable's bytes, as the system hands them over.
"""

from __future__ import annotations

import json
import re
import unicodedata

from telemetry import switches
from telemetry.envelope import Envelope, parse_tags
from telemetry.errors import EventTooBigError
from telemetry.events import TokenEvent, TokenPayload
from telemetry.privacy import Scrubber
from telemetry.spool.frame import Record, encode, scan


EVENT_BYTES_MAX = 16 * 1024
USER, HOME = "alice", "/home/alice"
SYSTEM = {
    "user_uuid": "an-id",
    "version": "1.0",
    "os_language": "de_DE.UTF-8",
}
EVENT = TokenEvent(action="usage", model_name="m", session_id="s", agent_name="a")
# The property White_Space, as the character database has it: separators and controls.
_CONTROLS = "\t\n\v\f\r\x85"


def is_white(char: str) -> bool:
    """Whether a character is white space (PropList of Unicode)."""
    return char in _CONTROLS or unicodedata.category(char) in {"Zs", "Zl", "Zp"}


def trimmed(text: str) -> str:
    """The text without white space at its ends, character by character."""
    start, end = 0, len(text)
    while start < end and is_white(text[start]):
        start += 1
    while end > start and is_white(text[end - 1]):
        end -= 1
    return text[start:end]


def expected(text: str) -> dict[str, str]:
    """The tags by the rules: `,` parts them, the first `=` parts name and value."""
    found = {}
    for part in text.split(","):
        if "=" in part and trimmed(part[: part.index("=")]):
            at = part.index("=")
            name, value = trimmed(part[:at]), trimmed(part[at + 1 :])
            found[sound(name)] = sound(value)
    return found


def sound(text: str) -> str:
    """One U+FFFD for each byte that is no UTF-8."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def sealed(text: str, scrub: Scrubber | None) -> dict[str, object] | None:
    """The event's properties; None where it was refused as too big."""
    envelope = Envelope(
        source="fuzz",
        version=SYSTEM["version"],
        user_uuid=SYSTEM["user_uuid"],
        scrub=scrub,
        event_bytes_max=EVENT_BYTES_MAX,
        environment={"TELEMETRY_TAGS": text, "LANG": SYSTEM["os_language"]},
    )
    try:
        content = envelope.seal(EVENT)
        again = envelope.seal(EVENT)
    except EventTooBigError:
        return None
    assert len(content) <= EVENT_BYTES_MAX
    # Remembered tags are the same as read ones.
    assert len(again) == len(content)
    record = encode(0, content)
    (item,) = scan(record, at=0, answered=0).items
    assert isinstance(item, Record)
    assert item.event == content
    event = json.loads(content)
    assert list(event) == ["event", "event_timestamp", "source", "properties"]
    assert (event["event"], event["source"]) == ("token", "fuzz")
    properties: dict[str, object] = event["properties"]
    assert SYSTEM.items() <= properties.items()
    assert {"event_id", "os"} <= properties.keys()
    return properties


def one(data: bytes) -> None:
    """One value of the variable, with scrubbing and without."""
    text = data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    tags = parse_tags(text)
    assert tags == expected(text), (tags, expected(text))
    for each in (*tags, *tags.values()):
        each.encode()
        assert trimmed(each) == each
    properties = sealed(text, None)
    if properties is None:
        assert len(text.encode("utf-8", "replace")) > EVENT_BYTES_MAX // 8
    else:
        # A tag wins over the event's field, the system's own over any tag.
        ours = {*SYSTEM, "event_id", "os"}
        # An env-file keeps the quotes around a value.
        tags = parse_tags(switches.trimmed(text))
        told = {name: value for name, value in tags.items() if name not in ours}
        assert told.items() <= properties.items()
        assert properties.keys() - told.keys() <= ours | fields()
    scrubbed = sealed(text, Scrubber(homes=(HOME,), users=(USER,)))
    for name, value in (scrubbed or {}).items():
        assert USER not in {name, value}
        assert not str(value).startswith(HOME + "/"), value


def fields() -> set[str]:
    """The names of the event's own fields."""
    return {"action", *TokenPayload.__struct_fields__}

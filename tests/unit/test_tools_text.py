"""Text for a terminal: what is escaped, how wide it is, and where it is folded. Pure."""

from __future__ import annotations

from spool_tools.wording import columns, fitted, folded, printable


def test_text_is_escaped_as_json_escapes_it() -> None:
    """So that a line on a terminal is still the JSON that it was."""
    assert printable("plain é 漢") == "plain é 漢"
    assert printable("\x1b\x9b\u202e\U000e0001\udcff") == (
        "\\u001b\\u009b\\u202e\\udb40\\udc01\\udcff"
    )


def test_wide_characters_count_twice() -> None:
    """Columns that do not line up are no columns."""
    assert columns("ab") == 2
    assert columns("漢字") == 4
    assert columns("e\u0301") == 1
    assert fitted("漢字漢字", 5) == "漢字…"
    assert fitted("漢字漢字", 6) == "漢字… "
    assert fitted("ab", 4) == "ab  "
    assert fitted("abcdef", 4) == "abc…"


def test_folding_loses_no_word() -> None:
    """What does not fit goes on below, indented, and is broken at blanks only."""
    text = "  one two  three: four five-six 漢字漢字 x "
    for width in range(1, 40):
        places = folded(text, width, 2)
        lines = [text[start:end] for start, end in places]
        assert " ".join(lines).split() == text.split(), width
        for number, line in enumerate(lines):
            room = width - (2 if number else 0)
            assert columns(line) <= room or len(line.split()) == 1, width

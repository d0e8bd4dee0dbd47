"""All rules together, and whether one of them may match a text.

Loaded by the first text that is not plainly clean (`plain`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from telemetry.privacy.places import ADDRESSES, FREE, PATHS
from telemetry.privacy.rules import ALNUM, DRAWN, SECRETS, SMALL, Rule


if TYPE_CHECKING:
    from collections.abc import Iterable

EVERYWHERE = (*PATHS, *ADDRESSES, *SECRETS)
IN_FREE_TEXT = (*EVERYWHERE, *FREE)

_NUMBERS = frozenset("0123456789")


class Index:
    """Finds out whether some rule may match a text without looking at each rule.

    Rules are indexed by one character of each of their literals, one that few texts
    have. Those that need a digit or a capital are spared where a text has neither.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._keys: dict[str, list[tuple[str, Rule]]] = {}
        self._rest: dict[str, list[tuple[str, Rule]]] = {}
        self._others: list[tuple[str, Rule]] = []
        for rule in rules:
            literals = rule.holds or ("",)
            if rule.any_case:
                literals = rule.also or literals
            for literal in literals:
                sign = literal.strip(ALNUM) or literal.strip(SMALL)
                if sign:
                    table = self._keys if rule.also is DRAWN else self._rest
                    table.setdefault(sign[0], []).append((literal, rule))
                else:
                    self._others.append((literal, rule))

    def may_match(self, text: str, low: str, *, free: bool) -> bool:
        """Whether some rule may match the text; `low` is it in lower case."""
        is_drawn = text != low or not _NUMBERS.isdisjoint(text)
        for table in (self._keys, self._rest) if is_drawn else (self._rest,):
            for sign in table.keys() & text:
                for literal, rule in table[sign]:
                    if (
                        literal in (low if rule.any_case else text)
                        and (free or not rule.free)
                        and rule.may_match(text, low)
                    ):
                        return True
        return any(
            literal in low and (free or not rule.free) and rule.may_match(text, low)
            for literal, rule in self._others
        )


INDEX = Index(IN_FREE_TEXT)

"""Finding the bad events of a refused batch in few requests. Pure.

The batch was refused as a whole. Its halves are posted in turn, and a half that
is refused is halved again: one bad event among n costs 2·log2(n) requests more.

A server that refuses everything must not draw a request for each event. So
until something was accepted (the evidence that it is the events, not the
endpoint), only one event is singled out; every other range that is refused is
set aside, and taken up again once there is evidence.
"""

from __future__ import annotations

from collections.abc import Sequence


class Bisection:
    """The search in one batch whose events have `sizes` bytes.

    With `by_size` ranges are halved by bytes, else by count. `evidence` says
    that something was accepted; it may be known before. `delivered` and
    `refused` are numbers of events in the batch.
    """

    def __init__(self, sizes: Sequence[int], *, by_size: bool, evidence: bool) -> None:
        self.evidence = evidence
        self.delivered: set[int] = set()
        self.refused: set[int] = set()
        self._sizes = sizes
        self._by_size = by_size
        self._to_post: list[tuple[int, int]] = []
        self._set_aside: list[tuple[int, int]] = []
        self._refuse(0, len(sizes))

    def next(self) -> tuple[int, int] | None:
        """The range (first, one behind the last) to post next; None at the end."""
        if not self._to_post and self.evidence and self._set_aside:
            for first, stop in reversed(self._set_aside):
                self._halve(first, stop)
            self._set_aside = []
        return self._to_post[-1] if self._to_post else None

    def tell(self, *, accepted: bool) -> None:
        """What came of the range that `next` gave."""
        first, stop = self._to_post.pop()
        if accepted:
            if not self.evidence:
                # Refused before anything was accepted: the server may have been
                # down for all. Asked once more, now that it is known to accept.
                again = sorted(self.refused, reverse=True)
                self._to_post += [(number, number + 1) for number in again]
                self.refused.clear()
            self.evidence = True
            self.delivered.update(range(first, stop))
        else:
            self._refuse(first, stop)

    def is_settled(self, number: int) -> bool:
        """Whether this event's fate is known: delivered, or refused for good."""
        return number in self.delivered or (self.evidence and number in self.refused)

    def settled(self) -> int:
        """How many events from the first on are settled, without a gap."""
        count = 0
        while count < len(self._sizes) and self.is_settled(count):
            count += 1
        return count

    def _refuse(self, first: int, stop: int) -> None:
        if stop - first == 1:
            self.refused.add(first)
        elif self.evidence or not self.refused:
            self._halve(first, stop)
        else:
            self._set_aside.append((first, stop))

    def _halve(self, first: int, stop: int) -> None:
        if stop - first == 1:
            self._to_post.append((first, stop))
            return
        middle = self._middle(first, stop)
        # The left half on top: what is settled is always a beginning.
        self._to_post += [(middle, stop), (first, middle)]

    def _middle(self, first: int, stop: int) -> int:
        """Where to cut a range of at least two events."""
        count = stop - first
        if not self._by_size:
            return first + count // 2
        half = sum(self._sizes[first:stop]) / 2
        size, middle = 0, first
        while middle < stop and size + self._sizes[middle] / 2 < half:
            size += self._sizes[middle]
            middle += 1
        # No side holds more events than the next smaller power of two, so cutting by
        # bytes takes no more cuts to come to one event than cutting by count. The
        # left one holds no more than half: an event that is refused alone there, with
        # nothing accepted before it, is asked once more.
        count_max = 1 << ((count - 1).bit_length() - 1)
        return min(max(middle, stop - count_max, first + 1), first + count // 2)

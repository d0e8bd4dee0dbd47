"""Dead letters that somebody asked to be sent again.

A letter named `….retry` counts as pending. It is posted from its file, many in
one request; where that is refused, each alone. One that is accepted is marked
in the ledger in the transaction that counts it as delivered, then its file is
removed, then the mark: killed at any point, it is counted once. One that is
refused again is a dead letter again, with the new reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import msgspec

from telemetry.books.books import Books
from telemetry.books.entries import DeadMark
from telemetry.delivery import dead_letters
from telemetry.files import write_whole
from telemetry.wire.formats import event_id_of, records_request
from telemetry.wire.verdict import Action, Verdict


_DELIVERED = DeadMark(state="delivered")


def sweep(directory: str, books: Books) -> None:
    """Remove the files of letters that are accounted for already, and their marks."""
    marks = books.snapshot.dead_marks
    if marks:
        retried = [name + dead_letters.RETRY for name in marks]
        dead_letters.remove_for_good(directory, [*marks, *retried])
        books.commit(dead_marks=dict.fromkeys(marks))


def waiting(directory: str) -> list[str]:
    """The names of the letters that are to be sent again, oldest first."""
    return [
        name
        for name in dead_letters.names(directory)
        if name.endswith(dead_letters.RETRY)
    ]


def together(
    names: Iterable[str],
    read: Callable[[str], dead_letters.DeadLetter | None],
    *,
    events_max: int,
    bytes_max: int,
) -> Iterator[dict[str, dead_letters.DeadLetter]]:
    """The letters of each request, by name: at most `events_max`, whose events have at
    most `bytes_max` bytes together, commas included; but always one.

    Those that `read` has nothing of are passed over.
    """
    letters: dict[str, dead_letters.DeadLetter] = {}
    size = 0
    for name in names:
        letter = read(name)
        if letter is None:
            continue
        length = len(bytes(letter.event)) + 1
        if letters and (len(letters) >= events_max or size + length > bytes_max):
            yield letters
            letters, size = {}, 0
        letters[name] = letter
        size += length
    if letters:
        yield letters


def resend(
    directory: str,
    books: Books,
    post: Callable[..., Verdict],
    *,
    events_max: int,
    bytes_max: int,
) -> tuple[int, Verdict | None]:
    """How many letters were delivered, and the verdict that ended it early, if one did.

    Raises what `post` raises; what was accepted before is accounted for.
    """
    delivered = 0
    failed: Verdict | None = None
    for letters in together(
        waiting(directory),
        lambda name: dead_letters.read(directory, name),
        events_max=events_max,
        bytes_max=bytes_max,
    ):
        verdict = post(
            records_request([bytes(each.event) for each in letters.values()]),
            patient=False,
        )
        groups = [letters]
        is_refused = verdict.action is Action.SPLIT or verdict.server_error
        if is_refused and len(letters) > 1:
            groups = [{name: each} for name, each in letters.items()]
        for group in groups:
            if len(groups) > 1:
                verdict = post(
                    records_request([bytes(each.event) for each in group.values()]),
                    patient=False,
                )
            if verdict.action is Action.ACCEPTED:
                delivered += _accept(directory, books, group, verdict)
            elif verdict.action is Action.SPLIT:
                _refuse(directory, group, verdict)
            elif verdict.server_error:
                failed = verdict  # it waits, and holds back no other
            else:
                return delivered, verdict
    return delivered, failed


def _accept(
    directory: str,
    books: Books,
    letters: dict[str, dead_letters.DeadLetter],
    verdict: Verdict,
) -> int:
    rejected = {each.event_id: each.reason for each in verdict.rejected}
    refused = {
        name: each
        for name, each in letters.items()
        if event_id_of(bytes(each.event)) in rejected
    }
    _refuse(directory, refused, verdict)
    accepted = [name for name in letters if name not in refused]
    totals = books.snapshot.totals
    marks = {name.removesuffix(dead_letters.RETRY): _DELIVERED for name in accepted}
    books.commit(
        totals=msgspec.structs.replace(
            totals, delivered=totals.delivered + len(accepted)
        ),
        dead_marks=marks,
    )
    dead_letters.remove_for_good(directory, accepted)
    books.commit(dead_marks=dict.fromkeys(marks))
    return len(accepted)


def _refuse(
    directory: str, letters: dict[str, dead_letters.DeadLetter], verdict: Verdict
) -> None:
    """The letters are dead again, under their old names."""
    for name, each in letters.items():
        again = msgspec.structs.replace(
            each, reason=verdict.reason, attempts=each.attempts + 1
        )
        path = f"{directory}/{name}"
        write_whole(path, msgspec.json.encode(again), durable=True)
        os.rename(path, path.removesuffix(dead_letters.RETRY))

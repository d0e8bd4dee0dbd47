"""The rules of the spool, one by one, each with the loss it prevents.

A rule can be taken out of the model: the scenario lists it in `without`, and
the step it governs then does what a simpler program would have done. The table
in `cases.py` says which breach each removal leads to.

Some losses need two rules out, because another rule stands behind the first.
`prevents` then names that one ("Behind it"), and a test holds both halves: what
the removal of one leads to, and what the removal of both does.
"""

from __future__ import annotations

from enum import Enum
from inspect import cleandoc


class Rule(Enum):
    """`says`: what is done. `prevents`: what happens where it is not done."""

    def __init__(self, text: str) -> None:
        said, prevented = cleandoc(text).split("\n\n")
        self.says = " ".join(said.split())
        self.prevents = " ".join(prevented.split())

    # Writers

    LOCK = """
        A writer appends only under the segment's exclusive lock, which
        dies with its process.

        Two writers append to one file: halves of two records mix, and an
        acknowledged event is damage.
        """
    NAME_CHECK = """
        Once locked, the segment is still reached by its name.

        Between opening and locking, the flusher deleted it. Behind it:
        PATH_CHECK, which finds the same after the write.
        """
    WHOLE_END = """
        Only a segment that is empty or ends in a whole record is adopted.

        A half record between two whole ones is neither a tail nor a
        missing number: nobody counts it.
        """
    NEVER_TRUNCATE = """
        A segment only grows: a torn tail is left where it is.

        The flusher counted the tail; cut it, and the totals no longer
        fit. Had the settled offset passed the tail, the next event would
        lie below it. Behind it: TAIL_BESIDE.
        """
    FRESH_NAME = """
        A name is never used twice: max(now, newest + 1), and random
        digits.

        A clock set back gives an old name again: who deletes the old file
        by its name deletes the new one, and an entry that outlived its
        file speaks of another. Behind it, for the entry: ANCHOR.
        """
    PATH_CHECK = """
        After the write, before True, the segment's path leads to its file.

        A purge took the open segment, or its home was moved: the event goes
        to a file that no flusher looks for.
        """
    CONSENT_REREAD = """
        Where the path leads elsewhere, consent is read again.

        A running process opens a new segment after the user opted out.
        Behind it: CONSENT_AFTER_OPEN, which asks again and leaves the
        file empty.
        """
    CONSENT_AFTER_OPEN = """
        Consent is read once more after a segment was opened, before a
        byte goes into it.

        A process read consent, then the whole purge ran, then the process
        created its segment: no purge will ever unlink that one, so it
        records for as long as it lives.
        """
    POSITION = """
        Before a write, the descriptor's position is where the last write
        left it; otherwise the segment is abandoned.

        The host closed our descriptor and opened its own file under the
        same number: our bytes go into its database.
        """

    # Power

    SYNC_CREATED = """
        The directory is synced after creating a segment, before the first
        True (durability='power').

        The bytes are on the disk and their name is not.
        """
    SYNC_ADOPTED = """
        ... and after adopting one.

        Its creator was killed before the directory was synced.
        """
    SYNC_AFTER_WRITE = """
        Only a sync begun after the write counts (durability='power').

        Threads share a sync; one that began earlier may not hold the
        event.
        """

    # The flusher

    TAIL_LOCK = """
        What follows the last whole record is left alone while anybody has
        the segment's lock.

        It is a record being written: counted as damage, and delivered
        when it is whole. Had the settled offset passed it, it would lie
        below. Behind it: TAIL_BESIDE.
        """
    READ_END_AGAIN = """
        Before a segment is deleted its end is read once more, under its
        lock.

        A writer appended after the flusher had read, and left.
        """
    SETTLE_FIRST = """
        The settled offset is committed before the segment is deleted.

        Killed in between, the flusher has delivered what no total knows.
        """
    FOLD = """
        An entry whose file is gone is folded into the totals, never
        dropped.

        Killed after the deletion, the flusher left only this entry to say
        what the segment held.
        """
    ANCHOR = """
        A settled offset stands only with the number and crc of the last
        settled record; otherwise the segment starts at 0.

        A power loss took bytes, the next event took their place, below
        the settled offset.
        """
    TAIL_BESIDE = """
        A settled offset is always the end of its anchor; the length of a
        tail that was passed stands beside it, and is looked at again.

        No anchor vouches for a tail: a power loss takes it, the anchor
        still agrees, and the next event begins below the settled offset.
        """
    BATCH_HASH = """
        A batch in flight whose bytes do not have its hash is void.

        A power loss took bytes, others took their place: the server has
        seen the key, ignores the body, and says yes.
        """

    # The purge

    PURGE_SYNC = """
        A purge syncs the directory before it is done.

        A power loss brings the names back: opt in later, and what was
        purged is sent.
        """

    # Windows

    RETIRE = """
        An opt-out appends an LF to a segment that it cannot move away.

        Its writer never looks at anything else: it goes on for life after an
        opt-out that was over.
        """
    END_CHECK = """
        After the write, before True, the file ends with the record.

        The LF came between the look at the end and the write: the event is
        behind it, and removed.
        """
    ERASED = """
        A file that begins with an LF is empty: no writer takes it, and no
        flusher reads what follows.

        A write that was under way landed behind it: opt in later, and it is
        sent.
        """
    SHUT_OUT = """
        The flusher opens a segment so that no writer can have it, before it
        reads its end again and deletes it.

        A writer that has it open goes on writing while it is being deleted.
        """


class Breach(Enum):
    """What the explorer may find, the worst first."""

    INVENTED = "the server has an event that no writer wrote"
    FOREIGN = "bytes of ours went into a file of the host"
    LATE = "an event begun after the opt-out was over is recorded"
    PURGED_SENT = "what a finished opt-out removed is sent after all"
    LOST = "an acknowledged event never reaches the server"
    HIDDEN = "an event lies below a settled offset and was never sent"
    STUCK = "segments stay, however often the flusher runs undisturbed"
    UNCOUNTED = "the totals are not the events whose writing began"

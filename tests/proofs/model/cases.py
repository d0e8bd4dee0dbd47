"""The bounds that are walked through, and what each missing rule leads to."""

from __future__ import annotations

from typing import NamedTuple

from tests.proofs.model.delivering import Bounds, Bug, Wrong
from tests.proofs.model.rules import Breach, Rule
from tests.proofs.model.scenario import Scenario
from tests.proofs.model.world import Left


# Two writers, three events, every kill; enough for each rule that needs no power.
CRASH = Scenario("crash", (((1, 2),), ((3,),)), left=Left(kills=1))
TWO_KILLS = CRASH._replace(name="two kills", left=Left(kills=2))
# One slot, two processes one after the other: what the second finds on the disk.
POWER = Scenario(
    "power loss", (((1,), (2,)),), flushes=2, left=Left(kills=1, power_losses=1)
)
DURABLE = POWER._replace(name="power loss, durable", flushes=1, power=True)
OPT_OUT = Scenario("opt-out", (((1, 2),), ((3,),)), purge="opt-out")
OPT_OUT_POWER = Scenario(
    "opt-out, power loss", (((1,),),), purge="opt-out", left=Left(power_losses=1)
)
OPEN_ALREADY = Scenario("opt-out later", (((1, 2),),), purge="opt-out", purge_after=1)
REMOVED = Scenario("rm -rf", (((1, 2),),), purge="rm", left=Left(kills=1))
HOST = Scenario(
    "closed by the host",
    (((1, 2), (3,)),),
    left=Left(kills=1, short_writes=1, closed_by_host=1),
)
# Roll-over at every event.
FULL = CRASH._replace(name="full segments", left=Left(), segment_records=1)

# The same on Windows, where a tool may look at a segment that is being deleted.
WINDOWS = CRASH._replace(
    name="windows", windows=True, writers=(((1,), (2,)),), left=Left(kills=1, looks=1)
)
WINDOWS_TWO = WINDOWS._replace(name="windows, two writers", writers=CRASH.writers)
WINDOWS_OPT_OUT = OPT_OUT._replace(
    name="windows, opt-out", windows=True, writers=(((1, 2),),)
)
WINDOWS_LATER = OPEN_ALREADY._replace(
    name="windows, opt-out later", windows=True, left=Left(looks=1)
)

SHORT = (
    CRASH,
    POWER,
    DURABLE,
    OPT_OUT,
    OPT_OUT_POWER,
    OPEN_ALREADY,
    REMOVED,
    HOST,
    FULL,
    WINDOWS,
    WINDOWS_OPT_OUT,
    WINDOWS_LATER,
)

_TWO_WRITERS = (((1,),), ((2,),))
LONG = (
    CRASH._replace(
        name="crash, two flushes", flushes=2, left=Left(kills=1, short_writes=1)
    ),
    TWO_KILLS,
    POWER._replace(name="power loss, two writers", writers=_TWO_WRITERS, flushes=1),
    POWER._replace(
        name="two power losses", flushes=1, left=Left(kills=1, power_losses=2)
    ),
    DURABLE._replace(name="durable, two writers", writers=_TWO_WRITERS),
    DURABLE._replace(
        name="durable, two losses", flushes=2, left=Left(kills=1, power_losses=2)
    ),
    OPT_OUT._replace(name="opt-out, kill", left=Left(kills=1)),
    OPT_OUT_POWER._replace(name="opt-out, power, two", writers=_TWO_WRITERS),
    REMOVED._replace(name="rm -rf, two flushes", writers=(((1,), (2,)),), flushes=2),
    HOST._replace(
        name="host, two writers",
        writers=(((1, 2),), ((3,),)),
        left=Left(closed_by_host=1),
    ),
    FULL._replace(name="full, kill, short", left=Left(kills=1, short_writes=1)),
    WINDOWS_TWO,
    WINDOWS._replace(name="windows, two flushes", flushes=2),
    WINDOWS_OPT_OUT._replace(name="windows, opt-out, two", writers=_TWO_WRITERS),
    WINDOWS_LATER._replace(
        name="windows, later, kill", flushes=2, left=Left(kills=1, looks=1)
    ),
)


class Removal(NamedTuple):
    """Without `rules`, the bounds of `scenario` hold a `breach`."""

    rules: tuple[Rule, ...]
    scenario: Scenario
    breach: Breach

    def bounds(self) -> Scenario:
        """The scenario with the rules out."""
        return self.scenario._replace(without=frozenset(self.rules))


REMOVALS = (
    Removal((Rule.LOCK,), CRASH, Breach.LOST),
    Removal((Rule.NAME_CHECK, Rule.PATH_CHECK), CRASH, Breach.LOST),
    Removal((Rule.WHOLE_END,), CRASH, Breach.UNCOUNTED),
    Removal((Rule.NEVER_TRUNCATE,), CRASH, Breach.UNCOUNTED),
    Removal((Rule.NEVER_TRUNCATE, Rule.TAIL_BESIDE), TWO_KILLS, Breach.LOST),
    Removal((Rule.FRESH_NAME,), REMOVED, Breach.LOST),
    Removal((Rule.FRESH_NAME,), CRASH, Breach.UNCOUNTED),
    Removal((Rule.FRESH_NAME, Rule.ANCHOR), CRASH, Breach.LOST),
    Removal((Rule.PATH_CHECK,), OPT_OUT, Breach.LOST),
    Removal((Rule.PATH_CHECK,), REMOVED, Breach.LOST),
    Removal((Rule.CONSENT_REREAD, Rule.CONSENT_AFTER_OPEN), OPEN_ALREADY, Breach.LATE),
    Removal((Rule.CONSENT_AFTER_OPEN,), OPT_OUT, Breach.LATE),
    Removal((Rule.POSITION,), HOST, Breach.FOREIGN),
    Removal((Rule.SYNC_CREATED,), DURABLE, Breach.LOST),
    Removal((Rule.SYNC_ADOPTED,), DURABLE, Breach.LOST),
    Removal((Rule.SYNC_AFTER_WRITE,), DURABLE, Breach.LOST),
    Removal((Rule.TAIL_LOCK,), CRASH, Breach.UNCOUNTED),
    Removal((Rule.TAIL_LOCK, Rule.TAIL_BESIDE), CRASH, Breach.LOST),
    Removal((Rule.READ_END_AGAIN,), CRASH, Breach.LOST),
    Removal((Rule.SETTLE_FIRST,), CRASH, Breach.UNCOUNTED),
    Removal((Rule.FOLD,), CRASH, Breach.UNCOUNTED),
    Removal((Rule.ANCHOR,), POWER, Breach.LOST),
    Removal((Rule.TAIL_BESIDE,), POWER, Breach.LOST),
    Removal((Rule.TAIL_BESIDE,), DURABLE, Breach.LOST),
    Removal((Rule.BATCH_HASH,), POWER, Breach.LOST),
    Removal((Rule.PURGE_SYNC,), OPT_OUT_POWER, Breach.PURGED_SENT),
    Removal((Rule.RETIRE,), WINDOWS_LATER, Breach.LATE),
    Removal((Rule.END_CHECK,), WINDOWS_LATER, Breach.LOST),
    Removal((Rule.ERASED,), WINDOWS_LATER, Breach.PURGED_SENT),
    Removal((Rule.SHUT_OUT,), WINDOWS, Breach.LOST),
    Removal((Rule.READ_END_AGAIN,), WINDOWS, Breach.LOST),
    Removal((Rule.CONSENT_AFTER_OPEN,), WINDOWS_OPT_OUT, Breach.PURGED_SENT),
)

# Another rule stands behind these: without them alone, nothing is wrong.
COVERED = (
    (Rule.NAME_CHECK, CRASH),
    (Rule.NAME_CHECK, REMOVED),
    (Rule.PATH_CHECK, CRASH),  # only a purge takes a segment that is locked
    (Rule.CONSENT_REREAD, OPT_OUT._replace(writers=(((1, 2), (3,)),))),
    (Rule.CONSENT_REREAD, OPEN_ALREADY),
    (Rule.CONSENT_AFTER_OPEN, OPEN_ALREADY),
    (Rule.NAME_CHECK, WINDOWS),  # what is open cannot be deleted
    (Rule.PATH_CHECK, WINDOWS_LATER),
    (Rule.POSITION, WINDOWS_LATER),  # END_CHECK finds the same after the write
)

# What becomes of a spool that is written. Event 2 is refused, or 3, or both 2 and 5.
POISON = Bounds("poison", ((1, 2, 3), (4,)), refused=frozenset({2}))
NAMED = Bounds("named in an answer", ((1, 2), (3,)), named=frozenset({2}))
DOWN = Bounds("a server that is down", ((1, 2), (3,)), downs=2, flushes=3)
SEGMENTS = Bounds("three segments", ((1, 2), (3,), (4,)), refused=frozenset({3}))
BUSY = Bounds("a server that takes one request", ((1, 2), (3,)), flushes=3, takes=1)
SMALL = Bounds("small segments", ((1,), (2,), (3,)), refused=frozenset({2}), joins=True)
DELIVERY_SHORT = (
    POISON,
    POISON._replace(name="poison, two kills", kills=2),
    NAMED,
    DOWN,
    SEGMENTS,
    BUSY,
    SMALL,
)
DELIVERY_LONG = (
    POISON._replace(name="poison, an answer is lost", silent=1),
    Bounds("two bad", ((1, 2, 3, 4), (5,)), refused=frozenset({2, 5}), flushes=3),
    Bounds(
        "all kinds",
        ((1, 2, 3), (4, 5)),
        refused=frozenset({2}),
        named=frozenset({4}),
        silent=1,
    ),
    Bounds(
        "small segments, lost and named",
        ((1, 2), (3,), (4,)),
        refused=frozenset({3}),
        named=frozenset({2}),
        silent=1,
        joins=True,
    ),
)
# With the bug, these bounds hold what is wrong.
BUGS = (
    (Bug.POST_FIRST, POISON, Wrong.UNANNOUNCED),
    (Bug.FORGETS_ASIDE, POISON, Wrong.LOST),
    (Bug.DELETES_EARLY, POISON, Wrong.LOST),
    (Bug.OTHERS_ANSWER, POISON, Wrong.LOST),
    (Bug.LETTER_LATER, NAMED, Wrong.LOST),
    (Bug.LETTER_COUNTS, NAMED, Wrong.UNCOUNTED),
    (Bug.BLAMES_ALL, DOWN, Wrong.KILLED),
    (Bug.CUTS_BLINDLY, POISON, Wrong.UNCOUNTED),
    (Bug.BESIDE_A_PROBE, POISON, Wrong.LOST),
    (Bug.BLAMES_THE_LAST, BUSY, Wrong.KILLED),
    (Bug.DELETES_FIRST, POISON, Wrong.UNCOUNTED),
    (Bug.COMMITS_ONE, SMALL, Wrong.UNANNOUNCED),
    (Bug.BLAMES_JOINED, SMALL, Wrong.KILLED),
)

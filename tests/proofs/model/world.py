"""What the processes share: files, names, locks, the ledger, the server.

Everything is an immutable value, so a state is its own key. Nothing here
decides what a process does next.

Power: `names` is the directory that processes see, `names_on_disk` the one
last synced, `unlinked` what came out of it since; `Inode.synced` says how many
units survive. A power loss leaves each name in any state it had since the last
sync (so a deleted segment may come back), each file with any length from
`synced` up, the rest cut off or zeros, and the latest ledger or an older one.
While no power loss is left to come, all counts as durable, so that equal states
are one state.

Windows: a name of a deleted file stays until the last descriptor of it is closed, and
nobody can open it meanwhile.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.proofs.model.books import Ledger
from tests.proofs.model.segment import Units, records


NO_FILE = -1
FOREIGN_FILE = -2  # our descriptor's number, behind it a file of the host


class Inode(NamedTuple):
    """A file. It is cleared once no name and no descriptor leads to it."""

    units: Units = ()
    synced: int = 0
    lock: str = ""  # who holds it
    doomed: bool = False  # deleted, on Windows, and still open somewhere


class Writer(NamedTuple):
    """A slot in which processes run one after another.

    `runs` holds the events of each; those of the running process come first and
    lose each event as it ends. `at` is the next system call. `tries` are the
    names still to be tried, newest first. `late` marks an event that began when
    the opt-out had taken effect. `size` is what it takes the file's length for, on
    Windows.
    """

    at: str
    runs: tuple[tuple[int, ...], ...]
    file: int = NO_FILE
    name: int = 0
    tries: tuple[int, ...] = ()
    late: bool = False
    size: int = 0


class Flusher(NamedTuple):
    """`done`: settled up to here, as far as this process knows. `seen`: read to."""

    at: str
    runs: int
    todo: tuple[int, ...] = ()
    file: int = NO_FILE
    seen: int = 0
    done: int = 0


class Purge(NamedTuple):
    """`at` is "idle", a step, "done", or "dead"."""

    at: str = "idle"
    todo: tuple[int, ...] = ()

    @property
    def holds_flush_lock(self) -> bool:
        """Whether a flusher has to wait."""
        return self.at in {"sync", "sweep", "truncate"}

    @property
    def has_returned(self) -> bool:
        """Whether an opt-out has taken effect: the spool is set aside."""
        return self.at in {"ledger", "sync", "sweep", "truncate", "done"}

    @property
    def is_running(self) -> bool:
        """Whether a kill makes a difference."""
        return self.at not in {"idle", "done", "dead"}


class Left(NamedTuple):
    """How many of each disturbance may still come."""

    kills: int = 0
    power_losses: int = 0
    short_writes: int = 0
    closed_by_host: int = 0
    looks: int = 0


class World(NamedTuple):
    """One state. What follows `received` is the explorer's knowledge, no process's."""

    writers: tuple[Writer, ...]
    flusher: Flusher
    purge: Purge
    left: Left
    inodes: tuple[Inode, ...] = ()
    names: tuple[tuple[int, int], ...] = ()
    names_on_disk: tuple[tuple[int, int], ...] = ()
    unlinked: tuple[tuple[int, int], ...] = ()  # since the directory was synced
    ledger: Ledger = Ledger()
    ledger_on_disk: Ledger = Ledger()
    consent: bool = True
    looked_at: int = NO_FILE  # what a tool has open
    keys: frozenset[int] = frozenset()  # the server's memory of keys
    received: frozenset[int] = frozenset()
    begun: frozenset[int] = frozenset()  # at least a half went into a linked file
    whole: frozenset[int] = frozenset()  # both halves went into some file
    acked: frozenset[int] = frozenset()  # answered True, and still owed
    purged: frozenset[int] = frozenset()  # whole in a file when a purge took it
    late: frozenset[int] = frozenset()  # answered True, begun after the opt-out
    foreign: bool = False


Move = tuple[str, World]


def file_of(world: World, name: int) -> int:
    """The file a name leads to, or NO_FILE."""
    return dict(world.names).get(name, NO_FILE)


def in_use(world: World, file: int) -> bool:
    """Whether a writer has the file open: on Windows it cannot be removed then."""
    return any(writer.file == file for writer in world.writers)


def linked(world: World, file: int) -> bool:
    """Whether any name leads to the file: its link count is not zero."""
    return any(inode == file for _, inode in world.names)


def with_inode(world: World, file: int, **changes: object) -> World:
    """The world with this file changed."""
    inode = world.inodes[file]._replace(**changes)  # type: ignore[arg-type]
    if not world.left.power_losses and inode.synced:
        inode = inode._replace(synced=0)
    return world._replace(
        inodes=(*world.inodes[:file], inode, *world.inodes[file + 1 :])
    )


def with_names(world: World, names: dict[int, int], *, synced: bool = False) -> World:
    """The world with this directory, on disk too if `synced`."""
    now = tuple(sorted(names.items()))
    if synced or not world.left.power_losses:
        return tidy(world._replace(names=now, names_on_disk=now, unlinked=()))
    gone = {*world.unlinked, *world.names} - {*now}
    return tidy(world._replace(names=now, unlinked=tuple(sorted(gone))))


def with_writer(world: World, who: int, **changes: object) -> World:
    """The world with this writer changed."""
    writer = world.writers[who]._replace(**changes)  # type: ignore[arg-type]
    return world._replace(
        writers=(*world.writers[:who], writer, *world.writers[who + 1 :])
    )


def with_flusher(world: World, **changes: object) -> World:
    """The world with the flusher changed."""
    return world._replace(flusher=world.flusher._replace(**changes))  # type: ignore[arg-type]


def with_purge(world: World, **changes: object) -> World:
    """The world with the purge changed."""
    return world._replace(purge=world.purge._replace(**changes))  # type: ignore[arg-type]


def tidy(world: World) -> World:
    """Clear the files that nothing leads to, so that equal states are equal."""
    reached = {writer.file for writer in world.writers}
    reached |= {world.flusher.file, world.looked_at}
    kept = {
        name: file
        for name, file in world.names
        if file in reached or not world.inodes[file].doomed
    }
    if len(kept) < len(world.names):
        return with_names(world, kept)
    reached.update(file for _, file in world.names)
    reached.update(file for _, file in (*world.names_on_disk, *world.unlinked))
    empty = Inode()
    inodes = tuple(
        inode if file in reached else empty for file, inode in enumerate(world.inodes)
    )
    return world if inodes == world.inodes else world._replace(inodes=inodes)


def with_purged(world: World, file: int) -> World:
    """The world in which what is whole in this file is not owed any more."""
    events = {event for _, _, event in records(world.inodes[file].units)}
    return world._replace(purged=world.purged | events)


def deleted(world: World, name: int) -> World:
    """A deletion on Windows: the name goes with the last descriptor of its file."""
    return tidy(with_inode(world, file_of(world, name), doomed=True))


def release(world: World, file: int, owner: str) -> World:
    """Closing a descriptor: the lock goes, if it was the owner's."""
    if file < 0 or world.inodes[file].lock != owner:
        return world
    return with_inode(world, file, lock="")


def commits(world: World, text: str, ledger: Ledger) -> list[Move]:
    """The moves of one commit; before a power loss it may be on disk or not."""
    after = world._replace(ledger=ledger)
    durable = after._replace(ledger_on_disk=ledger)
    if not world.left.power_losses:
        return [(text, durable)]
    return [(f"{text}, on disk", durable), (f"{text}, not on disk", after)]

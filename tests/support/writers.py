"""What writes to a spool in the tests: writers, their events, and processes that die.

A child is a fork of the test's process that does one thing and exits. The two
speak in lines over a socket, so that neither ever sleeps to wait for the other,
and a child that does not answer fails its test instead of holding it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from telemetry.client import Client
from telemetry.config import Config
from telemetry.paths import Home
from telemetry.pipeline import prepare
from telemetry.spool.frame import Damage, Record, encode
from telemetry.spool.reader import SegmentReader, segment_names
from telemetry.spool.writer import SpoolWriter


MIB = 1024 * 1024
# No child of a test takes longer to say its next line.
PATIENCE_S = 60.0


def home_at(directory: Path) -> Home:
    """A home with its spool, in a directory of its own."""
    home = Home(str(directory / "home"))
    prepare(home)
    return home


def spool_writer(
    home: Home,
    *,
    spool_bytes_max: int = 64 * MIB,
    segment_bytes_max: int = 4 * MIB,
    power: bool = False,
    allowed: Callable[[], bool] = lambda: True,
) -> SpoolWriter:
    """A writer as a pipeline makes it."""
    return SpoolWriter(
        home,
        spool_bytes_max=spool_bytes_max,
        segment_bytes_max=segment_bytes_max,
        power=power,
        prepare=lambda: prepare(home),
        allowed=allowed,
    )


def event(number: int, *, by: str = "w", size: int = 0) -> bytes:
    """An event that no other writer and no other number makes, `size` bytes or more."""
    text = b'{"by":"%b","number":%d}' % (by.encode(), number)
    missing = size - len(text) - len(b',"fill":""')
    if missing < 0:
        return text
    return b'%b,"fill":"%b"}' % (text[:-1], b"x" * missing)


def segment_of(*events: bytes, seq: int = 0) -> bytes:
    """The bytes of a segment that holds these events."""
    return b"".join(encode(seq + n, event) for n, event in enumerate(events))


def plant(home: Home, created_ns: int, content: bytes, random: str = "00000000") -> str:
    """The name of a segment that now stands in the spool."""
    name = f"{created_ns:020d}-{random}.v1.jseq"
    Path(home.segment(name)).write_bytes(content)
    return name


def spooled_items(home: Home, name: str) -> list[Record | Damage]:
    """What a reader finds in one segment."""
    reader = SegmentReader(home, name)
    try:
        items = []
        while more := reader.take(1 << 30, 1 << 60):
            items += more
        return items
    finally:
        reader.close()


def spooled_events(home: Home) -> list[bytes]:
    """Every event that a flusher would find, oldest segment first."""
    return [
        item.event
        for name in segment_names(home)
        for item in spooled_items(home, name)
        if isinstance(item, Record)
    ]


class Peer:
    """One end of the talk between a test and its child."""

    def __init__(self, talk: socket.socket, pid: int = 0) -> None:
        self.pid = pid
        self.status: int | None = None
        self._talk = talk
        self._heard = b""
        talk.settimeout(PATIENCE_S)

    def tell(self, line: str = "") -> None:
        """Say one line."""
        self._talk.sendall(line.encode() + b"\n")

    def hear(self) -> str:
        """The next line that the other says; EOFError once it is gone."""
        while b"\n" not in self._heard:
            more = self._talk.recv(1 << 16)
            if not more:
                raise EOFError(f"the other end said no more: {self.rest()}")
            self._heard += more
        line, self._heard = self._heard.split(b"\n", 1)
        return line.decode()

    def rest(self) -> str:
        """Everything that it still says until it is gone."""
        while more := self._talk.recv(1 << 16):
            self._heard += more
        heard, self._heard = self._heard, b""
        return heard.decode()

    def kill(self) -> None:
        """It is dead on return, whatever it did."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Its exit status; what it had to say stays to be heard."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def finish(self) -> str:
        """What it still said, once it ended well."""
        said = self.rest()
        assert self.wait() == 0, said
        return said

    def close(self) -> None:
        """Hang up."""
        self._talk.close()


def fork(work: Callable[[Peer], object]) -> Peer:
    """A child that does `work` and exits: with 0, or with 1 and a traceback told."""
    ours, its = socket.socketpair()
    with warnings.catch_warnings():
        # A test that forks beside its threads does so on purpose.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        its.close()
        return Peer(ours, pid)
    code = 1
    try:
        ours.close()
        work(Peer(its))
        code = 0
    except BaseException:
        with contextlib.suppress(OSError):
            its.sendall(traceback.format_exc().encode())
    finally:
        os._exit(code)


@contextlib.contextmanager
def child(work: Callable[[Peer], object]) -> Iterator[Peer]:
    """A child that is gone when the block ends, one way or the other."""
    peer = fork(work)
    try:
        yield peer
    finally:
        peer.kill()
        peer.close()


def holding(path: str) -> contextlib.AbstractContextManager[Peer]:
    """Another process that has the lock of `path` while the block runs."""
    from telemetry.files import try_lock

    def hold(peer: Peer) -> None:
        descriptor = os.open(path, os.O_RDWR)
        assert try_lock(descriptor)
        peer.tell("held")
        peer.hear()

    return _ready(hold, "held")


@contextlib.contextmanager
def _ready(work: Callable[[Peer], object], word: str) -> Iterator[Peer]:
    with child(work) as peer:
        assert peer.hear() == word
        yield peer


def within(seconds: float, work: Callable[[], object]) -> None:
    """`work` ends in time, done in a child, so that one that hangs can be ended."""
    with child(lambda _: work()) as peer:
        ended, _, _ = select.select([peer._talk], [], [], seconds)
        assert ended, f"it still hangs after {seconds} s"
        peer.finish()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once it holds; fail where it never does."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        os.sched_yield() if hasattr(os, "sched_yield") else time.sleep(0)


class Numbered:
    """An event of a program: who made it, and his how manyth it is."""

    def __init__(self, number: int, by: str = "w", fill: str = "") -> None:
        self.number = number
        self.by = by
        self.fill = fill

    def get_event_type(self) -> str:
        """Its name."""
        return "numbered"

    def to_structured_properties(self) -> dict[str, object]:
        """What a test finds it by."""
        return {"by": self.by, "number": self.number, "fill": self.fill}


def numbered(home: Home) -> list[tuple[str, int]]:
    """Who and how manyth, of every event in the spool."""
    found = []
    for each in spooled_events(home):
        properties = json.loads(each)["properties"]
        found.append((properties["by"], properties["number"]))
    return found


def event_ids(home: Home) -> list[str]:
    """The id of every event in the spool."""
    return [json.loads(each)["properties"]["event_id"] for each in spooled_events(home)]


def client_of(home: Home, **fields: object) -> Client:
    """A client that keeps its events in this home and sends none by itself."""
    return Client(
        Config(
            **{  # type: ignore[arg-type]
                "app": "app",
                "home": home.root,
                "flush": "manual",
                "scrub": False,
                **fields,
            }
        )
    )


def record_some(root: str, by: str, count: int) -> None:
    """What a process of a pool does; it ends badly where an event is refused."""
    with client_of(Home(root)) as client:
        for number in range(count):
            assert client.track(Numbered(number, by))

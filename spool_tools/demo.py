"""`demo`: the whole story in one command, on a spool of its own.

A small program runs while nothing can be delivered, is killed in the middle, the
spool is shown, a collector starts, the program is launched once more, and a
flusher of its own delivers everything. Then the books are compared with what
was acknowledged and with what arrived. Nothing is faked: the programs are
processes, the kill is SIGKILL, the collector is a server on a socket.

Exit codes: 0 everything arrived exactly once, 1 it did not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from spool_tools import demo_program
from spool_tools.collector import Collector
from spool_tools.screen import Part, Screen, fitted
from telemetry.books.view import read_snapshot
from telemetry.delivery.census import Census, take_census
from telemetry.paths import Home


# The second run is killed after so many acknowledged calls.
_KILLED_AFTER = 150
_CALLS = {"first": 40, "second": 10_000, "third": 5}
# Long for a drain of some hundred events; the demo says so if it is not enough.
_DELIVERY_S = 12.0
_SHOWN = 3
# As much of an event as shows what it is.
_LINE_CHARACTERS = 112


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `demo`."""
    parser.description = (
        "See it work, on a spool of its own: a small program runs while nothing can "
        "be delivered, is killed, is launched again, and a flusher of its own "
        "delivers everything, exactly once. Takes a few seconds."
    )
    parser.epilog = (
        "examples:\n"
        "  spool-tools demo\n"
        "  spool-tools demo --keep      # and look at the spool afterwards\n"
        "exit codes: 0 everything arrived exactly once; 1 it did not\n"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the spool there to look at"
    )


def run(args: argparse.Namespace) -> int:
    """Tell the story; the exit code."""
    directory = tempfile.mkdtemp(prefix="spool-demo-")
    story = _Story(directory)
    try:
        return story.tell()
    finally:
        if args.keep:
            where = f"The spool is left there; look: spool-tools status --home {story.home.root}"
            story.say()
            story.say(where)
        else:
            shutil.rmtree(directory, ignore_errors=True)


class _Story:
    def __init__(self, directory: str) -> None:
        self.home = Home(os.path.join(directory, "demo"))
        self.screen = Screen()
        self.acknowledged: set[str] = set()
        # Whatever the caller's environment says, this story is about the demo.
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("TELEMETRY_") and name not in {"CI", "DO_NOT_TRACK"}
        }
        self.environment |= {
            "TELEMETRY_HOME": directory,
            "TELEMETRY_API_KEY": "demo-key",
            "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path))),
        }

    def tell(self) -> int:
        """Chapter by chapter; the exit code."""
        nobody = f"http://127.0.0.1:{_free_port()}/events"
        self.chapter("1. A program runs while its collector cannot be reached.")
        self.launch("first", endpoint=nobody)
        self.say(f"   {len(self.acknowledged)} tool calls recorded and acknowledged.")
        self.chapter("2. It runs again and is killed (SIGKILL) in the middle.")
        self.launch("second", endpoint=nobody, kill_after=_KILLED_AFTER)
        self.say(f"   {len(self.acknowledged)} calls acknowledged in both runs.")
        self.chapter("3. What the spool holds (`spool-tools dump`):")
        self.show()
        before = self.census()
        self.say(f"   recorded {before.recorded} = pending {before.pending}")
        self.await_flusher()
        self.chapter("4. A collector starts, and the next launch flushes by itself.")
        with Collector(key="demo-key") as collector:
            began = time.monotonic()
            self.launch("third", endpoint=collector.url)
            self.say(f"   The launch took {time.monotonic() - began:.2f} s.")
            expected = self.census().recorded
            self.await_delivery(collector, expected)
            took_s = time.monotonic() - began
            self.await_flusher()
            names = [
                event["properties"].get("tool_name", "") for event in collector.events()
            ]
            requests = len(collector.requests())
            copies = sum(collector.copies().values())
            return self.compare(names, copies, requests, took_s)

    def say(self, *parts: Part) -> None:
        """One line, at once: a story is told as it happens."""
        self.screen.say(*parts)
        sys.stdout.flush()

    def chapter(self, title: str) -> None:
        """A heading."""
        if not title.startswith("1"):
            self.say()
        self.say((title, "bold"))

    def launch(
        self, name: str, *, endpoint: str, kill_after: int | None = None
    ) -> None:
        """Run the program; what it acknowledged is known afterwards."""
        with subprocess.Popen(
            [sys.executable, demo_program.__file__, name, str(_CALLS[name])],
            stdout=subprocess.PIPE,
            env={
                **self.environment,
                "TELEMETRY_ENDPOINT": endpoint,
                # A flush that failed would be followed by none for a minute or more.
                "TELEMETRY_FLUSH": "launch" if name == "third" else "manual",
            },
            text=True,
        ) as process:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            try:
                for line in process.stdout:
                    self.acknowledged.add(f"{name}-{line.strip()}")
                    if kill_after is not None and len(self.acknowledged) >= kill_after:
                        process.kill()
            except BaseException:
                # Or it would make its spool anew, in a directory that is removed.
                process.kill()
                raise

    def show(self) -> None:
        """The first lines of a dump, as a person would see them."""
        command = [
            sys.executable,
            "-m",
            "spool_tools",
            "dump",
            "--home",
            self.home.root,
        ]
        done = subprocess.run(
            [*command, "--format", "jsonl", "--limit", str(_SHOWN)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        width = min(self.screen.width, _LINE_CHARACTERS)
        for line in done.stdout.splitlines():
            self.say(fitted(f"   {line}", width))
        self.say("   …")

    def census(self) -> Census:
        """The conservation equation of the spool now."""
        return take_census(self.home, read_snapshot(self.home.ledger))

    def await_delivery(self, collector: Collector, expected: int) -> None:
        """Return once `expected` events arrived, or when it has taken too long."""
        until = time.monotonic() + _DELIVERY_S
        while collector.count() < expected and time.monotonic() < until:
            time.sleep(0.02)

    def await_flusher(self) -> None:
        """Return once no flusher runs, so that the books are at rest."""
        from telemetry.delivery.schedule import flush_lock

        until = time.monotonic() + _DELIVERY_S
        while time.monotonic() < until:
            lock = flush_lock(self.home)
            if lock is not None:
                os.close(lock)
                return
            time.sleep(0.05)

    def compare(
        self, names: list[str], copies: int, requests: int, took_s: float
    ) -> int:
        """The books against what was acknowledged and what arrived."""
        lost = self.acknowledged - set(names)
        twice = copies - len(names)
        books = self.census()
        self.say(
            f"   {len(names)} events arrived in {requests} requests, {took_s:.1f} s."
        )
        self.chapter("5. The books.")
        self.say(
            f"   recorded {books.recorded} = pending {books.pending}"
            f" + delivered {books.delivered} + dead {books.dead}"
            f" + damaged {books.damaged} + purged {books.purged}"
        )
        self.say(f"   acknowledged and lost: {len(lost)}; arrived twice: {twice}")
        fine = (
            len(self.acknowledged) >= _KILLED_AFTER
            and not lost
            and not twice
            and books.holds()
            and books.delivered == len(names)
            and not books.pending
        )
        if fine:
            self.say("   ", ("The books balance.", "green"))
        else:
            self.say("   ", ("THE BOOKS DO NOT BALANCE.", "bold red"))
        return 0 if fine else 1


def _free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

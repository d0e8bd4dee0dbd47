"""See it work, on a spool of its own: a small program runs while nothing can be
delivered, is killed, is launched again, and a flusher of its own delivers everything,
exactly once. Takes a few seconds.

examples:
  spool-tools demo
  spool-tools demo --keep      # and look at the spool afterwards
exit codes: 0 everything arrived exactly once; 1 it did not
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice

from spool_tools import demo_program
from spool_tools.changing import flush_lock_holder
from spool_tools.collector import Collector
from spool_tools.reading import Spool
from spool_tools.screen import Part, Screen
from spool_tools.wording import fitted
from telemetry.delivery.census import Census, take_census
from telemetry.paths import Home


# The second run is killed after so many acknowledged calls.
_KILLED_AFTER = 150
_CALLS = {"first": 40, "second": 10_000, "third": 5}
# Long for a drain of some hundred events, on a busy machine as well.
_DELIVERY_S = 60.0
_SHOWN = 3
# As much of an event as shows what it is.
_LINE_CHARACTERS = 112
# A name that never resolves (RFC 6761 §6.4).
_UNREACHABLE = "https://collector.invalid/events"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "leave the spool there to look at"
    parser.add_argument("--keep", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    directory = tempfile.mkdtemp(prefix="spool-demo-")
    story = _Story(directory)
    try:
        return story.tell()
    finally:
        if args.keep:
            story.say()
            story.say(f"It is left there: spool-tools status --home {story.home.root}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


class _Story:
    """Nothing is faked: real processes, SIGKILL, and a server on a socket."""

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
        self.chapter("1. A program runs while its collector cannot be reached.")
        self.launch("first")
        self.say(f"   {len(self.acknowledged)} tool calls recorded and acknowledged.")
        self.chapter("2. It runs again and is killed (SIGKILL) in the middle.")
        self.launch("second")
        self.say(f"   {len(self.acknowledged)} calls acknowledged in both runs.")
        self.chapter("3. What the spool holds (`spool-tools dump`):")
        width = min(self.screen.width, _LINE_CHARACTERS)
        for event in islice(Spool(self.home).pending(), _SHOWN):
            self.say(fitted(f"   {event.decode()}", width))
        before = self.census()
        self.say("   …")
        self.say(f"   recorded {before.recorded} = pending {before.pending}")
        self.chapter("4. A collector starts, and the next launch flushes by itself.")
        with Collector(key="demo-key") as collector:
            began = time.monotonic()
            self.launch("third", endpoint=collector.url)
            self.say(f"   The launch took {time.monotonic() - began:.2f} s.")
            expected = self.census().recorded
            collector.wait(events=expected, timeout_s=_DELIVERY_S)
            took_s = time.monotonic() - began
            # The books are at rest once no flusher is at work.
            while flush_lock_holder(self.home).state != "none":
                if time.monotonic() - began > 2 * _DELIVERY_S:
                    break
                time.sleep(0.02)
            return self.compare(collector, took_s)

    def say(self, *parts: Part) -> None:
        """One line, at once: the story is shown as it happens."""
        self.screen.say(*parts)
        sys.stdout.flush()

    def chapter(self, title: str) -> None:
        self.say()
        self.say((title, "bold"))

    def launch(self, name: str, *, endpoint: str = "") -> None:
        """Run the program; what it acknowledged is known afterwards.

        Without an endpoint it is told not to flush: a flush that failed would be
        followed by none for a minute or more.
        """
        variables = {"TELEMETRY_FLUSH": "launch", "TELEMETRY_ENDPOINT": endpoint}
        if not endpoint:
            variables = {
                "TELEMETRY_FLUSH": "manual",
                "TELEMETRY_ENDPOINT": _UNREACHABLE,
            }
        with subprocess.Popen(
            [sys.executable, demo_program.__file__, name, str(_CALLS[name])],
            stdout=subprocess.PIPE,
            env=self.environment | variables,
            text=True,
        ) as process:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            try:
                for line in process.stdout:
                    self.acknowledged.add(f"{name}-{line.strip()}")
                    if name == "second" and len(self.acknowledged) >= _KILLED_AFTER:
                        process.kill()
            except BaseException:
                # Or it would make its spool anew, in a directory that is removed.
                process.kill()
                raise

    def census(self) -> Census:
        return take_census(self.home, Spool(self.home).snapshot)

    def compare(self, collector: Collector, took_s: float) -> int:
        names = [each["properties"].get("tool_name", "") for each in collector.events()]
        requests = len(collector.requests())
        self.say(
            f"   {len(names)} events arrived in {requests} requests, {took_s:.1f} s."
        )
        lost = self.acknowledged - set(names)
        twice = sum(collector.copies().values()) - len(names)
        books = self.census()
        self.chapter("5. The books.")
        terms = ("pending", "delivered", "dead", "damaged", "purged")
        sides = " + ".join(f"{term} {getattr(books, term)}" for term in terms)
        self.say(f"   recorded {books.recorded} = {sides}")
        self.say(f"   acknowledged and lost: {len(lost)}; arrived twice: {twice}")
        is_told_in_full = len(self.acknowledged) >= _KILLED_AFTER
        is_delivered = not (lost or twice or books.pending)
        is_counted = books.holds() and books.delivered == len(names)
        fine = is_told_in_full and is_delivered and is_counted
        fails = ("THE BOOKS DO NOT BALANCE.", "bold red")
        self.say("   ", ("The books balance.", "green") if fine else fails)
        return 0 if fine else 1

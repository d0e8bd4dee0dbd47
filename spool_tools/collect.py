"""`collect`: a collector on this machine, for trying out a program's telemetry.

The first line on standard output is the endpoint; with `--verbose` each further one
is one request as JSON. All else goes to standard error. Exit codes: 0 it ended as
asked (`--count` reached, `--for` over, SIGTERM); 1 `--for` was over before `--count`
was reached; 2 wrong usage, or an address or database that cannot be used; 130 SIGINT.

A key comes from the environment only, and is never printed.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import math
import os
import queue
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from spool_tools import collect_options
from spool_tools.collect_options import add_arguments
from spool_tools.collector import Collector
from spool_tools.collector_request import Limits
from spool_tools.collector_schema import RequestRow
from spool_tools.collector_store import StoreError
from spool_tools.misbehaviour import Faults
from spool_tools.text import printable


if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["add_arguments", "run"]

# How late the end may be noticed.
_LOOK_S = 0.2
_EXIT_CODES = {"count": 0, "time": 0, "SIGTERM": 0, "SIGINT": 130}


def run(args: argparse.Namespace) -> int:
    """Collects until told to end; the exit code."""
    try:
        key, header = collect_options.key_and_header(args, os.environ)
        faults = collect_options.faults(args)
    except ValueError as exc:
        return _unusable(str(exc))
    tally = _Tally(count=args.count, verbose=args.verbose)
    host, port = args.listen
    with _signals_told_to(tally.ends):
        try:
            collector = Collector(
                args.database,
                host=host,
                port=port,
                path=args.path,
                key=key,
                header=header,
                faults=faults,
                limits=Limits(body_bytes_max=args.body_bytes_max),
                on_request=tally.add,
            )
        except StoreError as exc:
            return _unusable(str(exc))
        except (OSError, UnicodeError) as exc:
            return _unusable(f"cannot listen on {host}:{port}: {exc}")
        with collector:
            _announce(collector, args, faults, tally)
            end = _end(tally.ends, args.for_s)
        _say(tally.summary(args.database))
    if end == "time" and args.count and tally.accepted < args.count:
        _say(f"fewer than the {args.count} events asked for arrived in time")
        return 1
    return _EXIT_CODES[end]


class _Tally:
    """What arrived in this run. Told by any thread; `ends` says when to end, and why."""

    def __init__(self, *, count: int | None, verbose: bool) -> None:
        # SimpleQueue: its put may be called from a signal handler at any moment.
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.accepted = 0
        self._count = count
        self._verbose = verbose
        self._requests = 0
        self._duplicates = 0
        self._rejected = 0
        self._mutex = threading.Lock()

    def add(self, row: RequestRow) -> None:
        if row.id == 0:
            _say(row.reason)
            return
        with self._mutex:
            self._requests += 1
            self.accepted += row.accepted
            self._duplicates += row.duplicates
            self._rejected += row.rejected
            if self._verbose:
                self.print(msgspec.json.encode(row).decode())
            if self._count is not None and self.accepted >= self._count:
                self.ends.put("count")

    def print(self, line: str) -> None:
        """A line on standard output; nothing where its reader is gone."""
        try:
            print(printable(line) if sys.stdout.isatty() else line, flush=True)
        except BrokenPipeError:
            self._verbose = False
            # What is still buffered would fail again when the interpreter ends.
            with contextlib.suppress(OSError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), sys.stdout.fileno())

    def summary(self, database: str) -> str:
        return (
            f"{self._requests} requests: {self.accepted} new events, "
            f"{self._duplicates} duplicates, {self._rejected} rejected; in {database}"
        )


def _announce(
    collector: Collector, args: argparse.Namespace, faults: Faults, tally: _Tally
) -> None:
    url = collector.url
    held = collector.count()  # before anybody can know the address
    tally.print(url)
    key = f'"${args.require_key}"' if args.require_key else "any"
    _say(f"use it: TELEMETRY_ENDPOINT={url} TELEMETRY_API_KEY={key} your-program")
    if held:
        _say(f"{args.database} goes on; it holds {held} events")
    if faults.fail_rate is not None:
        _say(f"--seed {faults.seed} repeats this choice of requests")
    if not ipaddress.ip_address(collector.address[0].partition("%")[0]).is_loopback:
        _say("other machines can send events here; --require-key asks for a key")


def _end(ends: queue.SimpleQueue[str], for_s: float | None) -> str:
    """Wait until the run is to end; why it is.

    A signal that comes just before a wait, or to another thread, does not cut it
    short, and its handler runs only afterwards: so no wait is a long one.
    """
    until = time.monotonic() + (math.inf if for_s is None else for_s)
    while (left_s := until - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            return ends.get(timeout=min(left_s, _LOOK_S))
    return "time"


@contextlib.contextmanager
def _signals_told_to(ends: queue.SimpleQueue[str]) -> Iterator[None]:
    """SIGINT and SIGTERM end the run; a second one kills (all that counts is stored)."""

    def told(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        ends.put(signal.Signals(number).name)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell starts what runs in the background with SIGINT ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, told)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print(f"collect: {printable(line)}", file=sys.stderr, flush=True)


def _unusable(problem: str) -> int:
    _say(problem)
    return 2

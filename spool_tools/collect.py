"""Collects events on this machine over HTTP, stores each once in SQLite, and misbehaves
on request. Its first line of output is the endpoint to use. It reads every format; GET
/gaps answers which events it never saw.

examples:
  spool-tools collect
  spool-tools collect --count 500 --for 60 --verbose
  spool-tools collect --status 503 --times 3 --retry-after 5
exit codes: 0 it ended as asked; 1 fewer than --count arrived in time;
2 wrong usage; 130 Ctrl-C
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import math
import os
import queue
import re
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

import msgspec

from spool_tools.cli import flush_or_drop
from spool_tools.collector import Collector, Faults
from spool_tools.collector.store import RequestRow, StoreError
from spool_tools.screen import complain
from spool_tools.server import BODY_BYTES_MAX
from spool_tools.target import WrongUsageError, count_above_0, seconds_above_0
from spool_tools.wording import printable


_say = partial(complain, "collect")
# How late the end may be noticed.
_LOOK_S = 0.2
_EXIT_CODES = {"count": 0, "time": 0, "SIGTERM": 0, "SIGINT": 130}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--listen", metavar="HOST:PORT", type=_address, default=("127.0.0.1", 0),
        help="where to listen (default: 127.0.0.1:0, a free port)")  # fmt: skip
    add("--path", type=_path, help="serve this path only (default: any)")
    add("--database", metavar="FILE", default="collected.db",
        help="SQLite file, continued where it exists (default: %(default)s here); "
        ":memory: keeps nothing")  # fmt: skip
    add("--require-key", metavar="VARIABLE", nargs="?", const="TELEMETRY_API_KEY",
        help="ask for the key that this environment variable holds "
        "(default: TELEMETRY_API_KEY)")  # fmt: skip
    add("--header", metavar="NAME",
        help="the header the key comes in (default: TELEMETRY_HEADER, else "
        "x-api-key)")  # fmt: skip
    add("--count", metavar="N", type=count_above_0,
        help="end after N new distinct events")  # fmt: skip
    add("--for", metavar="SECONDS", type=seconds_above_0, dest="for_s",
        help="end after that")  # fmt: skip
    add("--body-bytes-max", metavar="BYTES", type=count_above_0,
        default=BODY_BYTES_MAX,
        help="answer 413 above that (default: %(default)s)")  # fmt: skip
    add("--verbose", action="store_true", help="print each request as a JSON line")
    faults = parser.add_argument_group("misbehaviour on request")
    add = faults.add_argument
    add("--status", metavar="CODE", type=int, help="answer this, store nothing")
    add("--html", action="store_true", help="answer a page, as a captive portal does")
    add("--fail-rate", metavar="SHARE", type=float,
        help="only this share of the requests, by chance (0.3); alone it means "
        "503")  # fmt: skip
    add("--seed", metavar="N", help="repeats what --fail-rate chose")
    add("--times", metavar="K", type=int, help="only the first K requests")
    add("--retry-after", metavar="SECONDS",
        help="sent with the status; a date, or nonsense, is sent as it stands; alone "
        "it means 503")  # fmt: skip
    add("--reject", metavar="EVENT", action="append", default=[],
        help="name events of this type as rejected, in a 200 (may be "
        "repeated)")  # fmt: skip
    add("--slow", metavar="BYTES_PER_S", type=float, dest="bytes_per_s",
        help="answer at this pace")  # fmt: skip
    add = faults.add_mutually_exclusive_group().add_argument
    add("--hang", action="store_true", help="store, then never answer")
    add("--reset", action="store_true", help="store, then reset")
    add("--truncate", action="store_true", help="store, then send half of the answer")
    add = faults.add_mutually_exclusive_group().add_argument
    add("--before-commit", dest="stores", action="store_const", const=False,
        help="whatever the fault is, store nothing")  # fmt: skip
    add("--after-commit", dest="stores", action="store_const", const=True,
        help="whatever the fault is, store first: that makes duplicates")  # fmt: skip


def _key_and_header(args: argparse.Namespace) -> tuple[str | None, str]:
    """The key to ask for (None: none) and its header."""
    named = os.environ.get("TELEMETRY_HEADER", "x-api-key")
    header = named if args.header is None else args.header
    if args.require_key is None:
        return None, header
    if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", header) is None:
        raise WrongUsageError("--require-key needs a header's name (--header)")
    key = os.environ.get(args.require_key, "")
    if not key:
        # Not repeated: somebody may have put the key itself there.
        raise WrongUsageError("the variable that --require-key names is unset or empty")
    return key, header


def _faults(args: argparse.Namespace) -> Faults:
    options = {name: getattr(args, name) for name in Faults.__struct_fields__}
    if args.seed is None and args.fail_rate is not None:
        options["seed"] = secrets.randbelow(10**6)
    try:
        asked = Faults(**options | {"reject": tuple(args.reject)})
    except ValueError as error:
        raise WrongUsageError(str(error)) from error
    if not asked.fault and (args.times is not None or args.stores is not None):
        raise WrongUsageError("--times, --before-commit, --after-commit need a fault")
    return asked


def _address(text: str) -> tuple[str, int]:
    host, _colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT")
    return host, int(port)


def _path(text: str) -> str:
    if re.fullmatch(r"/[!-~]*", text) is None or set(text) & set("?#"):
        raise argparse.ArgumentTypeError(f"{text!r} is no path that starts with /")
    return text


def run(args: argparse.Namespace) -> int:
    key, header = _key_and_header(args)
    faults = _faults(args)
    tally = _Tally(count=args.count, verbose=args.verbose)
    host, port = args.listen
    with _signals_end(tally.ends):
        try:
            collector = Collector(
                args.database,
                host=host,
                port=port,
                path=args.path,
                key=key,
                header=header,
                faults=faults,
                body_bytes_max=args.body_bytes_max,
                on_request=tally.add,
            )
        except StoreError as error:
            raise WrongUsageError(str(error)) from error
        except (OSError, UnicodeError) as error:
            problem = f"cannot listen on {host}:{port}: {error}"
            raise WrongUsageError(problem) from error
        with collector:
            _announce(collector, args, faults, tally)
            end = _end(tally.ends, args.for_s)
        counts = tally.counts
        _say(
            f"{counts['requests']} requests: {counts['accepted']} new events, "
            f"{counts['duplicates']} duplicates, {counts['rejected']} rejected; "
            f"in {args.database}"
        )
    if end == "time" and args.count and counts["accepted"] < args.count:
        _say(f"fewer than the {args.count} events asked for arrived in time")
        return 1
    return _EXIT_CODES[end]


class _Tally:
    """What arrived in this run, from any thread; `ends` says when to end, and why."""

    def __init__(self, *, count: int | None, verbose: bool) -> None:
        # SimpleQueue: its put may be called from a signal handler at any moment.
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.counts: Counter[str] = Counter()
        self._count = count
        self._verbose = verbose
        self._mutex = threading.Lock()

    def add(self, row: RequestRow) -> None:
        if row.id == 0:
            _say(row.reason)
            return
        with self._mutex:
            self.counts["requests"] += 1
            for name in ("accepted", "duplicates", "rejected"):
                self.counts[name] += getattr(row, name)
            if self._verbose:
                self.print(msgspec.json.encode(row).decode())
            if self._count is not None and self.counts["accepted"] >= self._count:
                self.ends.put("count")

    def print(self, line: str) -> None:
        """A line on standard output; nothing where its reader is gone."""
        try:
            print(printable(line) if sys.stdout.isatty() else line, flush=True)
        except BrokenPipeError:
            self._verbose = False
            flush_or_drop(sys.stdout)


def _announce(
    collector: Collector, args: argparse.Namespace, faults: Faults, tally: _Tally
) -> None:
    url = collector.url
    held = collector.count()  # before anybody can know the address
    tally.print(url)
    key = f'"${args.require_key}"' if args.require_key else "any"
    _say(f"use it: TELEMETRY_ENDPOINT={url} TELEMETRY_API_KEY={key} your-program")
    _say("a program that names an endpoint itself has to name this one")
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
def _signals_end(ends: queue.SimpleQueue[str]) -> Iterator[None]:
    """SIGINT and SIGTERM end the run; a second one kills (all that counts is stored)."""

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        ends.put(signal.Signals(number).name)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell starts what runs in the background with SIGINT ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

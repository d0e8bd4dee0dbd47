"""`collect`: a collector on this machine, for trying out a program's telemetry.

The first line on standard output is the endpoint; with `--verbose` each further one
is one request as JSON. All else goes to standard error. Exit codes: 0 it ended as
asked (`--count` reached, `--for` over, SIGTERM); 1 `--for` was over before `--count`
was reached; 2 wrong usage, or an address or database that cannot be used; 130 SIGINT.

A key comes from the environment only, and is never printed.

What `collect` can be told on its command line, and what is made of it.

Values that cannot be used are refused here, in argparse's way or as ValueError; a
key is read from the environment only, and appears in no message.
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
from typing import TYPE_CHECKING

import msgspec

from spool_tools.collector import Collector
from spool_tools.collector.misbehaviour import Faults
from spool_tools.collector.server import Limits
from spool_tools.collector.store import RequestRow, StoreError
from spool_tools.screen import printable
from spool_tools.target import seconds_above_0


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what `collect.run` reads."""
    parser.description = (
        "Collects events on this machine over HTTP, stores each once in SQLite, and "
        "misbehaves on request. Its first line of output is the endpoint to use."
    )
    parser.epilog = (
        "examples:\n"
        "  spool-tools collect\n"
        "  spool-tools collect --count 500 --for 60 --verbose\n"
        "  spool-tools collect --status 503 --times 3 --retry-after 5\n"
        "exit codes: 0 it ended as asked; 1 fewer than --count arrived in time;\n"
        "2 wrong usage; 130 Ctrl-C\n"
    )
    add = parser.add_argument
    add(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="where to listen (default: 127.0.0.1:0, a free port)",
    )
    add(
        "--path", type=_path, metavar="PATH", help="serve this path only (default: any)"
    )
    add(
        "--database",
        default="collected.db",
        metavar="FILE",
        help="SQLite file, continued where it exists (default: collected.db here); "
        ":memory: keeps nothing",
    )
    add(
        "--require-key",
        nargs="?",
        const="TELEMETRY_API_KEY",
        metavar="VARIABLE",
        help="ask for the key that this environment variable holds "
        "(default: TELEMETRY_API_KEY)",
    )
    add(
        "--header",
        metavar="NAME",
        help="the header the key comes in (default: TELEMETRY_HEADER, else x-api-key)",
    )
    add("--count", type=_whole, metavar="N", help="end after N new distinct events")
    add(
        "--for",
        dest="for_s",
        type=seconds_above_0,
        metavar="SECONDS",
        help="end after that",
    )
    add(
        "--body-bytes-max",
        type=_whole,
        default=Limits().body_bytes_max,
        metavar="BYTES",
        help="answer 413 above that (default: %(default)s)",
    )
    add("--verbose", action="store_true", help="print each request as a JSON line")
    _add_faults(parser.add_argument_group("misbehaviour on request"))


def key_and_header(
    args: argparse.Namespace, environment: Mapping[str, str]
) -> tuple[str | None, str]:
    """The key to ask for (None: none) and its header. ValueError: neither is usable."""
    header = args.header
    if header is None:
        header = environment.get("TELEMETRY_HEADER", "x-api-key")
    if args.require_key is None:
        return None, header
    if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", header) is None:
        raise ValueError("--require-key needs a header's name (--header)")
    key = environment.get(args.require_key, "")
    if not key:
        # Not repeated: somebody may have put the key itself there.
        raise ValueError("the variable that --require-key names is unset or empty")
    return key, header


def faults(args: argparse.Namespace) -> Faults:
    """What is to go wrong. ValueError where the options contradict one another."""
    seed = args.seed
    if seed is None and args.fail_rate is not None:
        seed = secrets.randbelow(10**6)
    asked = Faults(
        status=args.status,
        html=args.html,
        hang=args.hang,
        reset=args.reset,
        truncate=args.truncate,
        fail_rate=args.fail_rate,
        seed=seed,
        times=args.times,
        retry_after=args.retry_after,
        stores=args.stores,
        reject=tuple(args.reject),
        bytes_per_s=args.slow,
    )
    if not asked.harms and (args.times is not None or args.stores is not None):
        raise ValueError("--times, --before-commit and --after-commit need a fault")
    return asked


def _add_faults(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--status", type=int, metavar="CODE", help="answer this, store nothing")
    add("--html", action="store_true", help="answer a page, as a captive portal does")
    ways = group.add_mutually_exclusive_group()
    ways.add_argument("--hang", action="store_true", help="store, then never answer")
    ways.add_argument("--reset", action="store_true", help="store, then reset")
    ways.add_argument(
        "--truncate", action="store_true", help="store, then send half of the answer"
    )
    add(
        "--fail-rate",
        type=float,
        metavar="SHARE",
        help="only this share of the requests, by chance (0.3); alone it means 503",
    )
    add("--seed", type=int, metavar="N", help="repeats what --fail-rate chose")
    add("--times", type=int, metavar="K", help="only the first K requests")
    add(
        "--retry-after",
        metavar="SECONDS",
        help="sent with the status; a date, or nonsense, is sent as it stands; "
        "alone it means 503",
    )
    when = group.add_mutually_exclusive_group()
    when.add_argument(
        "--before-commit",
        dest="stores",
        action="store_const",
        const=False,
        help="whatever the fault is, store nothing",
    )
    when.add_argument(
        "--after-commit",
        dest="stores",
        action="store_const",
        const=True,
        help="whatever the fault is, store first: that makes duplicates",
    )
    add(
        "--reject",
        action="append",
        default=[],
        metavar="EVENT",
        help="name events of this type as rejected, in a 200 (may be repeated)",
    )
    add("--slow", type=float, metavar="BYTES_PER_S", help="answer at this pace")


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


def _whole(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,15}", text) is None or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


__all__ = ["add_arguments", "run"]

# How late the end may be noticed.
_LOOK_S = 0.2
_EXIT_CODES = {"count": 0, "time": 0, "SIGTERM": 0, "SIGINT": 130}


def run(args: argparse.Namespace) -> int:
    """Collects until told to end; the exit code."""
    try:
        key, header = key_and_header(args, os.environ)
        harm = faults(args)
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
                faults=harm,
                limits=Limits(body_bytes_max=args.body_bytes_max),
                on_request=tally.add,
            )
        except StoreError as exc:
            return _unusable(str(exc))
        except (OSError, UnicodeError) as exc:
            return _unusable(f"cannot listen on {host}:{port}: {exc}")
        with collector:
            _announce(collector, args, harm, tally)
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

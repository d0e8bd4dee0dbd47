"""What `collect` can be told on its command line, and what is made of it.

Values that cannot be used are refused here, in argparse's way or as ValueError; a
key is read from the environment only, and appears in no message.
"""

from __future__ import annotations

import argparse
import math
import re
import secrets
import threading
from typing import TYPE_CHECKING

from spool_tools.collector_request import Limits
from spool_tools.misbehaviour import Faults


if TYPE_CHECKING:
    from collections.abc import Mapping


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
    add("--for", dest="for_s", type=_seconds, metavar="SECONDS", help="end after that")
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


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # Beyond that, threading waits for nothing; nobody waits that long.
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds

"""Deliver what waits, now, whatever the time of the next flush is: where the program
sent last, unless --endpoint or TELEMETRY_ENDPOINT name another place. The key comes
from TELEMETRY_API_KEY.

examples:
  TELEMETRY_API_KEY=… spool-tools flush --app frobnicate
  TELEMETRY_API_KEY=… spool-tools flush --app frobnicate --endpoint https://collect.example/v1 --timeout 300
exit codes: 0 everything is delivered; 1 something is left, or damage was found; 2 wrong usage; 3 no such spool
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from typing import Any

from spool_tools.cli import INTERRUPTED
from spool_tools.reading import Spool
from spool_tools.screen import Bar, Screen, complain, problem_of
from spool_tools.target import (
    WrongUsageError,
    add_target,
    destination,
    seconds_above_0,
    target_home,
)
from spool_tools.wording import many, moment
from telemetry.books.entries import DeliveryState
from telemetry.config import Config
from telemetry.consent import consent
from telemetry.delivery.dead_letters import count_letters
from telemetry.delivery.flush import flush
from telemetry.delivery.opt_out import finish_opt_out
from telemetry.delivery.report import FlushReport, Progress
from telemetry.errors import ConfigError, TelemetryError
from telemetry.logs import TelemetryLogger
from telemetry.wire.endpoint import parse_endpoint
from telemetry.wire.formats import FORMATS


_LOOK_S = 0.1
_WHAT_TO_DO = {
    "drained": "everything is delivered",
    "deadline": "the time was up; run it again, or give it more with --timeout",
    "waiting": "the server or the network is not ready; what is left is kept",
    "paused": "the server refuses all that was sent; `status` says what to correct",
    "busy": "another flusher is at work; `status` names its process",
    "off": "telemetry was turned off meanwhile; nothing more was sent",
    "disk": "the disk or the ledger said no; `status` and `verify` say more",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    add = parser.add_argument
    add(
        "--endpoint",
        metavar="URL",
        help="where to send (default: as the program sent last)",
    )
    add("--format", choices=FORMATS, help="how (default: as the program sent last)")
    text = "end after so long; what is left is kept (default: 60)"
    add("--timeout", type=seconds_above_0, default=60.0, metavar="SECONDS", help=text)


def run(args: argparse.Namespace) -> int:
    home = target_home(args, changes=True)
    spool = Spool(home, "flush")
    config = _config(args, spool.snapshot.state)
    decision = consent(home, os.environ)
    if not decision.on:
        finish_opt_out(home)
        complain("flush", f"telemetry is off: {decision.reason}; nothing is sent")
        return 1
    dead_before = count_letters(home, spool.snapshot)
    screen = Screen()
    try:
        report = _watched(screen, spool, config, args.timeout)
    except KeyboardInterrupt:
        # The flush goes on in its thread, and what it does while the interpreter is
        # taken down would crash. A kill costs nothing.
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    screen.tell(report, _summary(report))
    unread = spool.unreadable()
    for each in unread:
        complain("flush", f"left alone: {each}")
    whole = report.damaged == 0 and report.dead <= dead_before and not unread
    return 0 if report.stopped == "drained" and not report.pending and whole else 1


def _config(args: argparse.Namespace, last: DeliveryState) -> Config:
    """The settings to send with. Raises WrongUsageError where they cannot be used."""
    form = args.format or last.format
    named: dict[str, Any] = {
        "app": args.app or "telemetry",
        "endpoint": args.endpoint,
        "format": form,
        "gzip": last.gzip if form == last.format else None,
        "batch_events_max": last.batch_events_max or None,
        "batch_bytes_max": last.batch_bytes_max or None,
        "accept_statuses": last.accept_statuses,
    }
    if "TELEMETRY_HEADER" not in os.environ and last.url:
        named["header"] = last.header
    try:
        if not destination(named, os.environ).endpoint and last.url:
            named["endpoint"] = last.url
        config = destination(named, os.environ)
        if not config.endpoint:
            raise WrongUsageError("no endpoint; set TELEMETRY_ENDPOINT or --endpoint")
        parse_endpoint(config.endpoint)
    except ConfigError as error:
        raise WrongUsageError(str(error)) from error
    if config.lacks():
        where = f" for {config.endpoint}" if named["endpoint"] == last.url else ""
        raise WrongUsageError(f"no key{where}; set TELEMETRY_API_KEY")
    for problem in config.problems():
        if problem.field != "accept_statuses":  # the program's: it is told there
            raise WrongUsageError(str(problem))
    return config


def _watched(
    screen: Screen, spool: Spool, config: Config, timeout_s: float
) -> FlushReport:
    home = spool.home
    progress = Progress()
    reports: list[FlushReport] = []

    def work() -> None:
        try:
            report = flush(
                config,
                home,
                timeout_s=timeout_s,
                environment=os.environ,
                allowed=lambda: consent(home, os.environ).on,
                logger=_Complaining(),
                progress=progress,
                by_hand=True,
            )
        except (TelemetryError, OSError, ImportError) as error:
            complain("flush", f"{problem_of(error)}; everything is kept")
        else:
            reports.append(report)

    # Not waited for at the end of the process.
    thread = threading.Thread(target=work, name="flush", daemon=True)
    with Bar(screen, "flush", total=spool.count_pending) as bar:
        try:
            thread.start()
        except RuntimeError:
            work()  # the system's limit of threads
        while thread.is_alive():
            thread.join(_LOOK_S)
            bar.at(progress.delivered)
    return reports[0] if reports else progress.report(home, "disk")


def _summary(report: FlushReport) -> str:
    counts = [f"{report.delivered:,} delivered", f"{report.pending:,} pending"]
    counts += [f"{report.dead:,} dead"] if report.dead else []
    counts += [f"{report.damaged:,} damaged"] if report.damaged else []
    said = _WHAT_TO_DO[report.stopped]
    if report.stopped == "drained" and report.damaged:
        said = "all that was whole is delivered, the rest is in quarantine/"
    elif report.stopped == "drained" and report.pending:
        said = "what waited is delivered, and more was recorded meanwhile"
    text = f"{', '.join(counts)}, in {many(report.requests, 'request')}: {said}"
    if report.stopped in {"waiting", "paused"} and report.next_attempt:
        text += f"; by itself not before {moment(int(report.next_attempt * 1000))}"
    return text


class _Complaining(TelemetryLogger):
    """Writes what kept a flush from delivering to standard error."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def debug(self, message: str, *args: object) -> None:
        complain("flush", (message % args).removeprefix("flush: "))

    info = warning = error = debug

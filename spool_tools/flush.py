"""`flush`: one flush in the foreground, with a progress bar and a summary.

Endpoint and key come from the environment, the endpoint also from `--endpoint`;
never a key from the command line, which every user of the machine can read.
Exit codes: 0 everything is delivered, 1 something is left.
"""

from __future__ import annotations

import argparse
import os
import threading

import msgspec

from spool_tools.output import complain, is_terminal, print_json, printable
from spool_tools.progress import Bar
from spool_tools.target import add_target, target_home
from telemetry.build_values import build_values
from telemetry.config import Config, resolve
from telemetry.consent import decide, read_choice
from telemetry.delivery.census import count_pending_quickly
from telemetry.delivery.flush import flush
from telemetry.delivery.ledger_view import read_snapshot
from telemetry.delivery.progress import Progress
from telemetry.delivery.report import FlushReport
from telemetry.errors import ConfigError, EndpointError, LedgerError
from telemetry.logs import TelemetryLogger
from telemetry.paths import Home


_LOOK_S = 0.1
_WHAT_TO_DO = {
    "drained": "everything is delivered",
    "deadline": "the time was up; run it again, or give it more with --timeout",
    "waiting": "the server or the network is not ready; what is left is kept",
    "paused": "the server refuses this endpoint, key or header; correct them",
    "busy": "another flusher is at work; `status` says since when",
    "off": "telemetry is off, or there is no endpoint or no key",
    "disk": "the disk or the ledger said no; `status` and `verify` say more",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `flush`."""
    parser.description = (
        "Deliver what waits, now. The key comes from TELEMETRY_API_KEY."
    )
    parser.epilog = (
        "example:\n"
        "  TELEMETRY_API_KEY=… spool-tools flush --app frobnicate "
        "--endpoint https://collect.example/v1\n"
    )
    add_target(parser)
    parser.add_argument("--endpoint", metavar="URL", help="where to send")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="(default: 60)"
    )


def run(args: argparse.Namespace) -> int:
    """Flush; the exit code."""
    home = target_home(args)
    config = _config(args)
    if config is None:
        return 2
    report = _watched(home, config, args.timeout)
    if is_terminal():
        print(
            f"delivered {report.delivered}, pending {report.pending}, "
            f"dead {report.dead}, damaged {report.damaged}, "
            f"in {report.requests} requests: {_WHAT_TO_DO[report.stopped]}"
        )
    else:
        print_json(msgspec.json.encode(report))
    return 0 if report.stopped == "drained" and not report.pending else 1


def _config(args: argparse.Namespace) -> Config | None:
    values = build_values()
    try:
        config = resolve(
            {"app": args.app or "telemetry", "endpoint": args.endpoint},
            environment=os.environ,
            build={name: values[name] for name in ("endpoint", "api_key", "header")},
        )
        if config.endpoint:
            from telemetry.delivery.http import check_endpoint

            check_endpoint(config.endpoint)
    except (ConfigError, EndpointError) as error:
        complain("flush", error)
        return None
    if not config.endpoint:
        complain("flush", "no endpoint; set TELEMETRY_ENDPOINT or give --endpoint")
        return None
    return config


def _watched(home: Home, config: Config, timeout_s: float) -> FlushReport:
    """Flush in a thread, and show how far it is."""

    def allowed() -> bool:
        return decide(
            environment=os.environ,
            enabled=True,
            choice=read_choice(home.consent),
            build=build_values()["enabled"],
        ).on

    progress = Progress()
    reports: list[FlushReport] = []

    def work() -> None:
        reports.append(
            flush(
                config,
                home,
                timeout_s=timeout_s,
                environment=os.environ,
                allowed=allowed,
                logger=_Complaining(),
                progress=progress,
            )
        )

    thread = threading.Thread(target=work, name="flush", daemon=True)
    thread.start()
    with Bar("flush", total=_waiting(home), unit="events") as bar:
        while thread.is_alive():
            thread.join(_LOOK_S)
            if progress.settlement is not None:
                bar.at(progress.settlement.delivered)
    return reports[0] if reports else progress.report(home, "disk")


def _waiting(home: Home) -> int:
    try:
        return count_pending_quickly(home, read_snapshot(home.ledger))
    except LedgerError:
        return 0


class _Complaining(TelemetryLogger):
    """Says what went wrong where the person who asked will read it."""

    def __init__(self) -> None:
        pass

    def debug(self, message: str, *args: object) -> None:
        """A flush logs only what kept it from delivering."""
        complain("flush", printable(message % args))

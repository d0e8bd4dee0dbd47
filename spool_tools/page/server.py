"""Which requests the page answers, and what a button does.

A request is answered if it names this server in `Host` (a name that was bound to
127.0.0.1 for an attack does not), and has the token of the address. A button's request
needs a second token, which only the page holds, and an `Origin` that is this server's.
No cookie is set, so another site's request carries nothing that would let it in.

Looking changes nothing on disk. A button runs the command of the same name.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from itertools import islice
from urllib.parse import parse_qs, urlsplit

from spool_tools.commands import run as run_command
from spool_tools.events import Entry, catalogue
from spool_tools.page.html import EVENTS_SHOWN, Facts, dates_of, page_of
from spool_tools.reading import Spool, decoded
from spool_tools.screen import Screen, complain
from spool_tools.status import status_of
from telemetry.errors import TelemetryError
from telemetry.paths import Home


_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "uPlot.min.css": "text/css",
    "uPlot.min.js": "text/javascript",
}
# What each button runs, and how long it waits for a flusher that is at work.
_COMMANDS = {"on": "enable", "off": "disable", "reset": "reset"}
_WAIT_S = "10"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    # A form's Origin is `null` under `no-referrer`, and could not be checked.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_BODY_BYTES_MAX = 1000
# Events whose day is looked at: a spool of millions must not hold back the page.
_DATED_MAX = 200_000
_TIMESTAMP = re.compile(rb'"event_timestamp":([0-9]{1,15})[,}]')


def serve(
    home: Home, *, name: str = "", own_events: Sequence[Entry] = (), opens: bool = False
) -> int:
    """Print the address and serve the page about `home` until Ctrl-C; the exit code.

    Args:
        home: the spool that the page is about.
        name: what the program is called on the page; default: as its home is.
        own_events: the program's own events, as `spool_tools.events` describes them.
        opens: whether the user's browser is opened at the address.

    Raises:
        OSError: no port can be had.
    """
    with (
        contextlib.suppress(KeyboardInterrupt),
        PageServer(home, name or _name_of(home), own_events) as server,
    ):
        screen = Screen()
        screen.say(server.url)
        sys.stdout.flush()  # the caller waits for this line
        if screen.is_terminal:
            complain("view", "open this address in a browser; Ctrl-C ends it")
        if opens:
            import webbrowser

            webbrowser.open(server.url)
        server.serve_forever()
    return 0


def _name_of(home: Home) -> str:
    parent, last = os.path.split(home.root)
    return os.path.basename(parent) if last == "telemetry" else last


class PageServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, home: Home, name: str, own_events: Sequence[Entry]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hosts = {f"{it}:{self.server_port}" for it in ("127.0.0.1", "localhost")}
        self.token, self.form_token = (secrets.token_urlsafe(24) for _ in range(2))
        self.url = f"http://127.0.0.1:{self.server_port}/{self.token}/"
        self.done = ""
        self._home, self._name, self._own_events = home, name, own_events
        self._one_button = threading.Lock()

    def page(self) -> str:
        """The page as it is now. The result of a button is shown once."""
        home = self._home
        done, self.done = self.done, ""
        spool = Spool(home)
        first, times_ms, count = [], [], 0
        with contextlib.closing(spool.pending()) as pending:
            for count, event in enumerate(islice(pending, _DATED_MAX), 1):
                if count <= EVENTS_SHOWN:
                    first.append(decoded(event))
                if found := _TIMESTAMP.search(event):
                    times_ms.append(int(found[1]))
        return page_of(
            Facts(
                name=self._name,
                status=status_of(home),
                now=time.time(),
                since=_born(home),
                events=first,
                days=spool.snapshot.days,
                waiting=dates_of(times_ms),
                has_all_days=count < _DATED_MAX,
                catalogue=[*_entries(), *self._own_events],
                form_token=self.form_token,
                done=done,
            )
        )

    def press(self, button: str) -> None:
        """Run the command of a button; the next page shows the result."""
        command = _COMMANDS[button]
        arguments = [command, "--home", self._home.root]
        arguments += [] if button == "reset" else ["--wait", _WAIT_S]
        said, complained = (io.TextIOWrapper(io.BytesIO()) for _ in range(2))
        with (
            self._one_button,
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complained),
        ):
            code = run_command(arguments)
            complained.seek(0)
            lines = complained.read().splitlines()
        # Each begins with the name of the command, as a program calls it.
        problem = " ".join(line.partition(": ")[2] for line in lines)
        done = {
            "on": "Telemetry is on.",
            "off": "Telemetry is off, and what was kept is removed.",
            "reset": "This installation has a new id.",
        }
        if problem:
            self.done = f"{problem[:1].upper()}{problem[1:]}."
        else:
            self.done = done[button] if code == 0 else "It did not work."

    def handle_error(self, *_: object) -> None:
        """A browser that closes early is no error."""


def _entries() -> list[Entry]:
    try:
        return catalogue()
    except TelemetryError:
        return []  # `python -OO` drops the descriptions


def _born(home: Home) -> float | None:
    """When the id was made, which happens once, with the first event."""
    try:
        return os.stat(home.user_uuid, follow_symlinks=False).st_mtime
    except OSError:
        return None


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "spool-tools", ""
    # A browser opens connections that it may never use.
    timeout = 30

    def do_GET(self) -> None:
        """The page, or one of the files that it needs."""
        name = self._name()
        if name == "":
            self._answer(200, "text/html", self.server.page().encode())
        elif name in _FILES:
            content = resources.files("spool_tools.page").joinpath(name).read_bytes()
            self._answer(200, _FILES[name], content)
        elif name is not None:
            self._refuse(404)

    def do_POST(self) -> None:
        """A button."""
        name = self._name()
        if name is None:
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _BODY_BYTES_MAX:
            self._refuse(400)
            return
        form = parse_qs(self.rfile.read(int(length)).decode("ascii", "replace"))
        (token,) = form.get("token", [""])[:1]
        origin = self.headers.get("Origin", "").removeprefix("http://")
        is_ours = origin in self.server.hosts and secrets.compare_digest(
            token.encode(), self.server.form_token.encode()
        )
        if not is_ours:
            self._refuse(403)
        elif name not in _COMMANDS:
            self._refuse(404)
        else:
            self.server.press(name)
            self._answer(303, "text/plain", b"", Location=f"/{self.server.token}/")

    def _name(self) -> str | None:
        """What of the page is asked for; None if the request was refused."""
        if self.headers.get("Host", "") not in self.server.hosts:
            self._refuse(421)
            return None
        token, _, name = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(404)
            return None
        return name

    def _refuse(self, code: int) -> None:
        self.close_connection = True
        self._answer(code, "text/plain", f"{code}\n".encode())

    def _answer(self, code: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Addresses hold the token: nothing is logged."""

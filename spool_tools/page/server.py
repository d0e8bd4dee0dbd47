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
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from spool_tools.commands import run as run_command
from spool_tools.events import Entry, catalogue
from spool_tools.page.html import EVENTS_SHOWN, page_of
from spool_tools.reading import Spool, decoded
from spool_tools.screen import Screen, complain
from spool_tools.server import Answer, Request, Server
from spool_tools.status import status_of
from spool_tools.wording import moment
from telemetry.errors import TelemetryError
from telemetry.paths import Home


_FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "uPlot.min.css": "text/css",
    "uPlot.min.js": "text/javascript",
}
# What each button runs, what it says once that is done, and how long it waits for a
# flusher that is at work.
_BUTTONS = {
    "on": ("enable", "Telemetry is on."),
    "off": ("disable", "Telemetry is off, and what was kept is removed."),
    "reset": ("reset", "This installation has a new id."),
}
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
_DAY_MS = 86_400_000
# On Windows, Ctrl-C does not interrupt a wait without an end.
_LOOK_S = 0.5
_TIMESTAMP = re.compile(rb'"event_timestamp":([0-9]{1,15})[,}]')


def serve(home: Home, *, name: str, own_events: Sequence[Entry], opens: bool) -> int:
    """Print the address and serve the page about `home` until Ctrl-C; the exit code.

    `name` is what the program is called on the page, if not as its home is; `own_events`
    are those that the program defines; `opens` opens the user's browser. Raises OSError
    where no port can be had.
    """
    if not name:
        parent, name = os.path.split(home.root)
        name = os.path.basename(parent) if name == "telemetry" else name
    with (
        contextlib.suppress(KeyboardInterrupt),
        PageServer(home, name, own_events) as server,
    ):
        screen = Screen()
        screen.say(server.url)
        sys.stdout.flush()  # the caller waits for this line
        if screen.is_terminal:
            complain("view", "open this address in a browser; Ctrl-C ends it")
        if opens:
            import webbrowser

            webbrowser.open(server.url)
        while not server.closing.wait(_LOOK_S):
            pass
    return 0


class PageServer(Server):
    """Serves the page about `home` from its construction on, until it is closed."""

    def __init__(self, home: Home, name: str, own_events: Sequence[Entry]) -> None:
        self._token, self._form_token = (secrets.token_urlsafe(24) for _ in range(2))
        self._done = ""
        self._home, self._name, self._own_events = home, name, own_events
        self._one_button = threading.Lock()
        super().__init__(
            "127.0.0.1", 0, take=self._take, body_bytes_max=_BODY_BYTES_MAX
        )
        self.url = f"http://127.0.0.1:{self.address[1]}/{self._token}/"

    def page(self) -> str:
        """The page as it is now. The result of a button is shown once."""
        home = self._home
        try:
            descriptions = catalogue()
        except TelemetryError:
            descriptions = []  # `python -OO` drops them
        done, self._done = self._done, ""
        spool = Spool(home)
        first: list[dict[str, Any]] = []
        days: Counter[int] = Counter()
        count = 0
        with contextlib.closing(spool.pending()) as pending:
            for count, event in enumerate(islice(pending, _DATED_MAX), 1):
                if count <= EVENTS_SHOWN:
                    first.append(decoded(event))
                if found := _TIMESTAMP.search(event):
                    days[int(found[1]) // _DAY_MS] += 1
        return page_of(
            status_of(home),
            name=self._name,
            now=time.time(),
            since=_born(home),
            events=first,
            days=spool.snapshot.days,
            waiting={moment(n * _DAY_MS)[:10]: days[n] for n in days},
            has_all_days=count < _DATED_MAX,
            catalogue=[*descriptions, *self._own_events],
            form_token=self._form_token,
            done=done,
        )

    def _press(self, button: str) -> None:
        """Run the command of a button; the next page shows the result."""
        command, done = _BUTTONS[button]
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
        if problem:
            self._done = f"{problem[:1].upper()}{problem[1:]}."
        else:
            self._done = done if code == 0 else "It did not work."

    def _take(self, request: Request) -> Answer:
        answer = self._answer(request)
        headers = (*_HEADERS.items(), *answer.headers)
        return msgspec.structs.replace(answer, headers=headers)

    def _answer(self, request: Request) -> Answer:
        """The page, one of the files that it needs, or where a button leads."""
        if request.refusal is not None:
            return _refused(request.refusal.status)
        hosts = [f"{it}:{self.address[1]}" for it in ("127.0.0.1", "localhost")]
        if request.headers.get("host") not in hosts:
            return _refused(421)
        token, _, name = urlsplit(request.target).path.removeprefix("/").partition("/")
        if not _is_same(token, self._token):
            return _refused(404)
        if request.method == "POST":
            return self._answer_to_button(name, request, hosts)
        if request.method != "GET":
            return _refused(405)
        if name == "":
            return _text("text/html", self.page().encode())
        if name in _FILES:
            content = resources.files("spool_tools.page").joinpath(name).read_bytes()
            return _text(_FILES[name], content)
        return _refused(404)

    def _answer_to_button(
        self, name: str, request: Request, hosts: Sequence[str]
    ) -> Answer:
        form = parse_qs(request.body.decode("ascii", "replace"))
        (token,) = form.get("token", [""])[:1]
        origin = request.headers.get("origin", "").removeprefix("http://")
        if origin not in hosts or not _is_same(token, self._form_token):
            return _refused(403)
        if name not in _BUTTONS:
            return _refused(404)
        self._press(name)
        return Answer(status=303, headers=(("Location", f"/{self._token}/"),))


def _is_same(token: str, ours: str) -> bool:
    return secrets.compare_digest(token.encode(), ours.encode())


def _text(kind: str, body: bytes, *, status: int = 200) -> Answer:
    return Answer(status=status, content_type=f"{kind}; charset=utf-8", body=body)


def _refused(status: int) -> Answer:
    return _text("text/plain", f"{status}\n".encode(), status=status)


def _born(home: Home) -> float | None:
    """When the id was made, which happens once, with the first event."""
    try:
        return os.stat(home.user_uuid, follow_symlinks=False).st_mtime
    except OSError:
        return None

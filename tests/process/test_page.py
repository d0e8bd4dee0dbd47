"""`view`: the page tells what is kept, to nobody else, and its buttons do what they say."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

import telemetry
from spool_tools.events import catalogue_of
from spool_tools.page.server import PageServer
from telemetry.books.entries import DAYS_MAX, Day
from telemetry.books.view import read_snapshot
from telemetry.events import ToolPayload
from telemetry.paths import Home
from tests.support.delivering import client_of, record, rejecting
from tests.support.loopback import Server
from tests.support.tooling import fingerprint, killed_at_the_end, process, tool


# A browser on a busy machine takes its time.
PATIENCE_MS = 180_000


class Page:
    """A `view` in a process of its own, and how it answers."""

    def __init__(self, running: subprocess.Popen[bytes]) -> None:
        assert running.stdout is not None
        self.url = running.stdout.readline().decode().strip()
        parts = urlsplit(self.url)
        self.host, self.path = parts.netloc, parts.path

    def ask(
        self, method: str = "GET", path: str = "", body: str = "", **headers: str
    ) -> tuple[int, str]:
        """Status and text of an answer. A header's name has `_` for each `-`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path or self.path, body, given)
            answer = connection.getresponse()
            self.headers = answer.headers
            return answer.status, answer.read().decode()

    def press(self, button: str) -> str:
        """The page after a button was pressed."""
        _, text = self.ask()
        (token, *_) = re.findall('name="token" value="([^"]+)"', text)
        path = f"{self.path}{button}"
        origin = f"http://{self.host}"
        code, _ = self.ask("POST", path, f"token={token}", Origin=origin)
        assert (code, self.headers["Location"]) == (303, self.path)
        return self.ask()[1]


@contextlib.contextmanager
def page_of(home: Path) -> Iterator[Page]:
    """The page about a home."""
    running = process("view", home=home)
    with killed_at_the_end(running):
        yield Page(running)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A spool with delivered, dead and pending events."""
    home = tmp_path / "home"
    with (
        Server(choose=rejecting("tool-3")) as server,
        client_of(home, server.url, events=20) as client,
    ):
        client.track(telemetry.CommandEvent(action="run"))
        client.flush(timeout_s=60)
        record(client, 3, first=20)
    return home


def test_it_tells_what_is_kept_and_what_each_field_means(home: Path) -> None:
    """Whoever is asked for consent wants to see it, not to be told about it."""
    before = fingerprint(home)
    with page_of(home) as page:
        code, text = page.ask()
        assert code == 200
        for count, name in ((24, "recorded"), (3, "pending"), (20, "delivered")):
            assert f"<b>{count}</b><strong>{name}</strong>" in text
        assert "tool-20" in text
        for field in msgspec.structs.fields(ToolPayload):
            if field.required:
                assert f"<th>{field.encode_name}</th>" in text
        assert "a UUIDv7 (RFC 9562) that stays with the event for life" in text
        today = time.strftime("%Y-%m-%d", time.gmtime())
        assert f"<th>{today}</th><td>20</td><td>1</td><td>3</td>" in text
        assert "20 tool, 1 command" in text
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        # Nothing is loaded from elsewhere, and each file that is named is there.
        files = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert len(files) >= 4
        for name in files:
            if not name.startswith("data:"):
                assert page.ask(path=page.path + name)[0] == 200
    assert fingerprint(home) == before


def test_only_its_own_page_may_ask_for_anything(home: Path) -> None:
    """A page of somebody else in the same browser can send requests here, too."""
    before = fingerprint(home)
    with page_of(home) as page:
        _, text = page.ask()
        (token, *_) = re.findall('name="token" value="([^"]+)"', text)
        form, origin = f"token={token}", f"http://{page.host}"
        off = f"{page.path}off"
        port = page.host.rpartition(":")[2]
        for number, (code, method, path, body, headers) in enumerate(
            (
                (421, "GET", page.path, "", {"Host": f"evil.example:{port}"}),
                (421, "GET", page.path, "", {"Host": "127.0.0.1"}),
                (404, "GET", "/", "", {}),
                (404, "GET", f"/{'x' * 32}/", "", {}),
                (404, "GET", "/page.css", "", {}),
                (404, "GET", f"{page.path}../server.py", "", {}),
                (404, "GET", f"{page.path}server.py", "", {}),
                (404, "GET", off, "", {}),
                (403, "POST", off, form, {}),
                (403, "POST", off, form, {"Origin": "http://evil.example"}),
                (403, "POST", off, form, {"Origin": f"https://{page.host}"}),
                (403, "POST", off, form, {"Origin": "null"}),
                (403, "POST", off, "", {"Origin": origin}),
                (403, "POST", off, "token=x", {"Origin": origin}),
                (421, "POST", off, form, {"Origin": origin, "Host": "evil.example"}),
                (404, "POST", "/off", form, {"Origin": origin}),
                (404, "POST", f"{page.path}purge", form, {"Origin": origin}),
                (413, "POST", off, form + "x" * 2000, {"Origin": origin}),
                (405, "PUT", off, form, {"Origin": origin}),
            )
        ):
            answer = page.ask(method, path, body, **headers)
            assert answer[0] == code, number
            assert "tool-20" not in answer[1], number
    assert fingerprint(home) == before


def test_the_buttons_do_what_their_commands_do(home: Path) -> None:
    """And the page says what came of it, once."""
    with page_of(home) as page:
        first = (home / "user-uuid").read_text()
        assert "This installation has a new id." in page.press("reset")
        assert (home / "user-uuid").read_text() != first
        assert "new id." not in page.ask()[1]
        text = page.press("off")
        assert "Telemetry is off, and what was kept is removed." in text
        assert 'value="off"' not in text
        assert tool("status", home=home).line["rule"] == "remembered"
        assert not (home / "ledger").exists()
        assert "Telemetry is on." in page.press("on")
        assert tool("status", home=home).line["telemetry"] == "on"


def test_what_an_event_holds_is_text(tmp_path: Path) -> None:
    """An event that could write into the page could press its buttons."""
    hostile = "<script>alert(1)</script>\"'&<\u202e\x1b[31m"

    class Hostile:
        def get_event_type(self) -> str:
            return hostile

        def to_structured_properties(self) -> dict[str, object]:
            return {hostile: hostile, "list": [hostile], "none": None}

    home = tmp_path / "home"
    with client_of(home, "", scrub=False) as client:
        assert client.track(Hostile())
    with page_of(home) as page:
        _, text = page.ask()
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


OWN_EVENTS = """
class Deployed:
    '''A deployment was made.

    region: the name of the region,
        as the provider has it
    '''
    region: str

    def get_event_type(self):
        return "deployed"

    def to_structured_properties(self):
        return {"region": "eu"}
"""


def test_own_fields_are_explained_by_their_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program's own events are as much the user's affair as ours."""
    home = tmp_path / "home"
    (tmp_path / "frob_events.py").write_text(OWN_EVENTS)
    monkeypatch.chdir(tmp_path)
    with client_of(home, "") as client:
        client.track("deployed", {"region": "eu"})
    own = catalogue_of("frob_events")
    with PageServer(Home(str(home)), "frobnicate", own) as page:
        text = page.page()
    assert "<td>the name of the region, as the provider has it</td>" in text


def test_the_days_are_counted_in_the_ledger(home: Path) -> None:
    """Ninety of them, and some names: it must not grow for ever."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    days = read_snapshot(str(home / "ledger")).days
    assert days == {today: Day(delivered={"tool": 19, "command": 1}, dead={"tool": 1})}
    from spool_tools.changing import open_books

    with open_books(Home(str(home))) as books:
        for number in range(200):
            books.count_day(f"2030-{number:03}", delivered={"a": 1}, dead={})
        books.count_day("2030-199", delivered={f"{n}": 1 for n in range(50)}, dead={})
    days = read_snapshot(str(home / "ledger")).days
    assert (len(days), min(days)) == (DAYS_MAX, "2030-110")
    assert sum(days["2030-199"].delivered.values()) == 51
    assert len(days["2030-199"].delivered) == 21


def test_ctrl_c_ends_it(home: Path) -> None:
    """It has no other end, so that is no failure."""
    running = process("view", home=home)
    with killed_at_the_end(running):
        page = Page(running)
        assert page.ask()[0] == 200
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
        assert running.stderr is not None
        assert running.stderr.read() == b""


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=program, args=["--no-sandbox"], timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


def test_a_browser_shows_it_and_asks_nobody_else(home: Path, browser: Any) -> None:
    """Clicked through as a person would, wide and narrow, with scripts and without."""
    with page_of(home) as page:
        asked: list[str] = []
        said: list[str] = []
        tab = browser.new_page(viewport={"width": 390, "height": 800})
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page.url)
        tab.locator("#plot canvas").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        assert tab.screenshot().startswith(b"\x89PNG")
        assert not tab.locator("#days").is_visible()
        tab.get_by_text("Turn off …").click()
        tab.get_by_role("button", name="Turn off and remove").click()
        tab.get_by_role("button", name="Turn on").click()
        tab.get_by_text("Telemetry is on.").wait_for()
        assert said == []
        local = (page.url, "data:")
        assert [url for url in asked if not url.startswith(local)] == []
        with client_of(home, "", events=2):
            pass
        plain = browser.new_context(java_script_enabled=False).new_page()
        plain.set_default_timeout(PATIENCE_MS)
        plain.goto(page.url)
        assert plain.locator("#days").is_visible()
        plain.locator("section details summary").last.click()
        assert plain.get_by_text("tool-1", exact=True).is_visible()


def test_what_is_set_up_wrongly_stands_on_top(tmp_path: Path) -> None:
    """Events that wait for ever look like events that wait."""
    home = tmp_path / "home"
    wrong: dict[str, Any] = {"api_key": "", "segment_bytes_max": -1}
    with client_of(home, "https://collect.example/v1", events=1, **wrong):
        pass
    with page_of(home) as page:
        _, text = page.ask()
    assert '<p class="bad">Nothing can be sent: the program has an endpoint' in text
    assert '<p class="bad">Set up wrongly: configure(segment_bytes_max' in text


def test_a_home_without_anything_is_a_page_as_well(tmp_path: Path) -> None:
    """Whoever looks before the first event sees that there is nothing."""
    home = tmp_path / "home"
    assert tool("enable", home=home).code == 0
    with page_of(home) as page:
        assert "Nothing waits." in page.ask()[1]

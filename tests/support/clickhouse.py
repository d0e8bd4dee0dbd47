"""ClickHouse's engine (chdb-core) behind an HTTP front that is as thin as can be.

The front does what ClickHouse's own does with a request: settings from the query, gzip, user
and key from the headers, an exception's code in X-ClickHouse-Exception-Code. What a query
does is the engine's own doing.

Run as a program it serves until its standard input ends; its first line is its address.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import urllib3


INSERT = re.compile(
    r"(INSERT\s+INTO\s.*?)\s+(FORMAT\s+\w+)\s*", re.DOTALL | re.IGNORECASE
)
CODE = re.compile(r"Code: ([0-9]+)")
# UNKNOWN_DATABASE and UNKNOWN_TABLE; ClickHouse answers 400 to what cannot be parsed.
STATUSES = {60: 404, 81: 404, 516: 401, 497: 403}


def statements(text: str) -> list[str]:
    """The statements of a file without its comments, which begin their line."""
    bare = re.sub(r"^\s*--.*$", "", text, flags=re.MULTILINE)
    return [each for each in bare.split(";") if each.strip()]


def user_and_key(key: str) -> dict[str, str]:
    """The headers that say who asks. Without the user's the server knows nobody."""
    return {"X-ClickHouse-User": "default", "X-ClickHouse-Key": key}


class ClickHouse:
    """A running server: where it listens, and a way to ask it."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._key = key
        self._pool = urllib3.PoolManager(retries=False)

    def query(self, statement: str) -> list[list[Any]]:
        """The rows of a statement. An exception of the engine's is an AssertionError."""
        reply = self._pool.request(
            "POST",
            f"{self.url}?default_format=JSONCompact",
            body=statement.encode(),
            headers=user_and_key(self._key),
            timeout=60.0,
        )
        assert reply.status == 200, reply.data.decode()
        return list(reply.json()["data"]) if reply.data else []

    def script(self, text: str) -> list[list[list[Any]]]:
        """The rows of each statement of a file."""
        return [self.query(each) for each in statements(text)]

    def close(self) -> None:
        self._pool.clear()


@contextlib.contextmanager
def running_clickhouse(
    directory: Path, *, key: str = "", configuration: str = ""
) -> Iterator[ClickHouse]:
    """The engine on loopback, its data in `directory`.

    Skips the test, by its name, where the engine is not installed or cannot run.
    """
    if importlib.util.find_spec("chdb") is None:
        pytest.skip("pip install --group receivers: chdb-core is not here")
    directory.mkdir()
    (directory / "config.xml").write_text(f"<clickhouse>{configuration}</clickhouse>")
    with subprocess.Popen(
        [sys.executable, __file__, str(directory), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            pytest.skip("chdb-core is here and does not run on this machine")
        server = ClickHouse(url, key)
        try:
            yield server
        finally:
            server.close()
            process.kill()


class Front(http.server.BaseHTTPRequestHandler):
    """One client of the engine."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    session: Any
    key: str
    turn = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        settings = dict(parse_qsl(urlsplit(self.path).query))
        query = settings.pop("query", "")
        output = settings.pop("default_format", "TabSeparated")
        # Not a setting of the engine: its HTTP server waits. So does this one.
        settings.pop("wait_end_of_query", None)
        code, told = 0, b""
        given = {name: self.headers.get(name, "") for name in user_and_key("")}
        if self.key and given != user_and_key(self.key):
            code, told = 516, b"Code: 516. DB::Exception: Authentication failed"
        else:
            try:
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                told = self._run(query, settings, output, body)
            except Exception as error:
                told = str(error).strip().encode()
                found = CODE.search(str(error))
                code = int(found[1]) if found else 1002
        self.send_response(STATUSES.get(code, 400) if code else 200)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def _run(
        self, query: str, settings: dict[str, str], output: str, body: bytes
    ) -> bytes:
        query = query or body.decode()
        insert = INSERT.fullmatch(query)
        with self.turn:
            if insert is None:
                return bytes(self.session.query(query, output).data().encode())
            given = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
            with_settings = f" SETTINGS {given} " if given else " "
            head = f"{insert[1]}{with_settings}{insert[2]}\n"
            self.session.query(head + body.decode())
            return b""

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def serve(directory: str, key: str) -> None:
    from chdb import session

    Front.session = session.Session(
        f"{directory}/data?config-file={directory}/config.xml"
    )
    Front.key = key
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])

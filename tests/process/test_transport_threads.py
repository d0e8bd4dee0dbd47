"""A post ends in time where nothing can end what it waits for, on any thread."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from telemetry.wire.deadline import ABANDONED_MAX
from telemetry.wire.verdict import Failure
from tests.support.misbehaving import Server, drip, head, reply, silent_after
from tests.support.posting import (
    LATE_S,
    post,
    posting_threads,
    refuse_threads,
    sign,
    timed,
    transport,
)
from tests.support.surroundings import run_python


def test_a_resolver_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can end a call of the resolver; the post ends all the same."""
    resume = threading.Event()
    resolve = socket.getaddrinfo

    def hang(*args: object, **options: object) -> object:
        resume.wait(5)
        return resolve(*args, **options)

    with (
        Server(reply(200)) as server,
        transport(server.url, request_timeout_s=0.2) as to,
    ):
        monkeypatch.setattr(socket, "getaddrinfo", hang)
        for _ in range(ABANDONED_MAX):
            outcome, took_s = timed(to)
            assert sign(outcome) == "timeout"
            assert took_s < 0.2 + LATE_S
        outcome, took_s = timed(to)
        assert outcome == Failure(
            "timeout", f"127.0.0.1:{server.port}: earlier requests still hang"
        )
        assert took_s < LATE_S
        monkeypatch.undo()
        resume.set()
        for thread in posting_threads():
            thread.join(10)
        assert sign(post(to)) == (200, "whole")


def test_without_a_thread_the_deadline_holds_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some interpreters start no thread while they end, when `exit` mode flushes."""
    refuse_threads(monkeypatch)
    slow = drip(head(200, {"X": "x" * 999}))
    with (
        Server(reply(200), slow) as server,
        transport(server.url, request_timeout_s=0.3) as to,
    ):
        assert sign(post(to)) == (200, "whole")
        outcome, took_s = timed(to)
        assert sign(outcome) == "timeout"
        assert took_s < 0.3 + LATE_S


CHILD = """
    import atexit, os, sys
    from tests.support.posting import post, sign
    from telemetry.wire.transport import Transport

    to = Transport(
        endpoint=sys.argv[1], header="", api_key="", user_agent="a", gzip=False,
        connect_timeout_s=5, read_timeout_s=5, request_timeout_s=2,
        reply_bytes_max=1000, environment={},
    )
"""
AT_EXIT = """
    atexit.register(lambda: print(sign(post(to)), sign(post(to)), flush=True))
"""
IN_A_FORK = """
    print(sign(post(to)), flush=True)
    child = os.fork()
    # One write: both processes have the same standard output.
    os.write(1, f"{sign(post(to))}\\n".encode())
    if child:
        os.waitpid(child, 0)
"""


def run_child(script: str, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD + script), url],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_post_at_exit_works_and_keeps_its_deadline() -> None:
    """`exit` mode flushes there, and a bad server must not hold the program."""
    with Server(reply(200), drip(head(200, {"X": "x" * 999}))) as server:
        assert run_child(AT_EXIT, server.url) == "(200, 'whole') timeout\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_connection_of_its_own() -> None:
    """Two processes on one connection would read each other's answers."""
    with Server(reply(200)) as server:
        assert run_child(IN_A_FORK, server.url) == "(200, 'whole')\n" * 3
        used = [request.connection for request in server.requests]
        assert sorted(used) == [0, 0, 1]


def test_close_never_waits_and_ends_posting() -> None:
    """A program that ends must not wait for a server that does not answer."""
    with Server(silent_after(b"")) as server, transport(server.url) as to:
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(post(to, timeout_s=1)))
        thread.start()
        while not server.requests:
            thread.join(0.01)
        to.close()
        assert thread.is_alive()
        assert post(to) == Failure("other", "the transport is closed")
        thread.join(10)
        assert sign(outcomes[0]) == "timeout"


ENDING = """
import gc, sys, threading, weakref
from tests.support.posting import post, posting_threads, transport

weakref.finalize._exitfunc()  # as Python does when a program ends
with transport(sys.argv[1]) as to:
    print(post(to).status)
for thread in posting_threads():
    thread.join()
gc.collect()
"""


def test_no_connection_is_left_open_in_a_program_that_is_ending() -> None:
    """Python would say so on the host's standard error, where such warnings are shown."""
    with Server(reply(200)) as server:
        shown = {**os.environ, "PYTHONWARNINGS": "always"}
        done = run_python(ENDING, server.url, environment=shown)
    assert (done.stdout, done.stderr) == ("200\n", "")

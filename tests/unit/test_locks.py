"""The lock of an open file: whose it is, and when it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.files import sync, try_lock
from tests.support.writers import Peer, child, holding, wait_until


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file to lock."""
    made = tmp_path / "file"
    made.touch()
    return str(made)


def is_free(path: str) -> bool:
    """Whether nobody has its lock now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return try_lock(descriptor)
    finally:
        os.close(descriptor)


def test_lock_is_one_owners(path: str) -> None:
    """Another open file is another owner, in this process too, and is told at once."""
    first = os.open(path, os.O_RDWR)
    assert try_lock(first)
    assert try_lock(first)  # its own
    assert not is_free(path)
    os.close(first)
    assert is_free(path)


def test_lock_dies_with_its_owner(path: str) -> None:
    """No kill leaves a lock that somebody has to clean up."""
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP):
        with holding(path) as other:
            assert not is_free(path)
            os.kill(other.pid, how)
            other.wait()
            assert is_free(path)


def test_lock_is_passed_to_a_spawned_process(path: str) -> None:
    """A flusher starts with the lock that its parent took; the parent lets go."""
    descriptor = os.open(path, os.O_RDWR)
    assert try_lock(descriptor)
    reading, writing = os.pipe()
    for number in (descriptor, reading):
        os.set_inheritable(number, True)
    script = f"import os; os.read({reading}, 1)"
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", script],
        os.environ,
    )
    os.close(descriptor)
    os.close(reading)
    assert not is_free(path)  # only the child has it now
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert is_free(path)


def test_lock_is_not_passed_to_what_a_host_runs(path: str) -> None:
    """A server that the host starts would keep a segment from being deleted."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    assert try_lock(descriptor)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        close_fds=False,
    ) as server:
        os.close(descriptor)
        wait_until(lambda: is_free(path))  # once it has become another program
        assert server.poll() is None


def test_forked_copy_that_is_closed_unlocks_nothing(path: str) -> None:
    """A child closes what is its parent's; the parent goes on writing."""
    descriptor = os.open(path, os.O_RDWR)
    assert try_lock(descriptor)

    def close(_: Peer) -> None:
        os.close(descriptor)

    with child(close) as peer:
        peer.finish()
    assert not is_free(path)
    os.close(descriptor)
    assert is_free(path)


def test_forked_copy_that_is_open_keeps_the_lock(path: str) -> None:
    """The lock lives as long as any copy of the descriptor."""
    descriptor = os.open(path, os.O_RDWR)
    assert try_lock(descriptor)
    with child(lambda peer: peer.hear()) as peer:
        os.close(descriptor)
        assert not is_free(path)
        peer.tell("end")
        peer.finish()
    assert is_free(path)


def test_what_cannot_be_locked_is_an_error(path: str) -> None:
    """An error is no answer: who cannot lock must not believe that it is locked."""
    descriptor = os.open(path, os.O_RDONLY)
    os.close(descriptor)
    with pytest.raises(OSError) as caught:
        try_lock(descriptor)
    assert caught.value.errno == errno.EBADF


def test_sync_says_whether_it_could(path: str) -> None:
    """A sync that failed quietly would be a promise that was not kept."""
    descriptor = os.open(path, os.O_RDWR)
    os.write(descriptor, b"content")
    sync(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError):
        sync(descriptor)
    reading, writing = os.pipe()
    with pytest.raises(OSError):
        sync(writing)
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other calls")
def test_sync_is_one_call_of_the_system(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the content and the length, and not for the time of access."""
    called: list[int] = []
    monkeypatch.setattr(os, "fdatasync", called.append)
    descriptor = os.open(path, os.O_RDWR)
    sync(descriptor)
    os.close(descriptor)
    assert called == [descriptor]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other calls")
def test_sync_of_macos_goes_through_the_drives_cache_where_it_can(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There `fsync` stops at the cache; a file system without the call has `fsync`."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    descriptor = os.open(path, os.O_RDWR)
    sync(descriptor, full=fcntl.F_GETFD)  # stands for a call that the system has
    assert synced == []
    f_fullfsync = 51
    sync(descriptor, full=f_fullfsync)
    assert synced == [descriptor]
    os.close(descriptor)
    with pytest.raises(OSError):
        sync(descriptor, full=f_fullfsync)
    assert synced == [descriptor]

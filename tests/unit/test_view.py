"""Whether a flush can lock the ledger: looked at, and left as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from telemetry.books import view
from telemetry.books.ledger import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger that a flush has made."""
    Ledger(str(tmp_path / "ledger"), power=False).close()
    return tmp_path / "ledger"


@contextmanager
def held(path: Path, statement: str) -> Iterator[sqlite3.Connection]:
    """Another program has the database open, within a transaction."""
    connection = sqlite3.connect(path / view.DB_NAME, isolation_level=None)
    try:
        connection.execute(statement)
        connection.execute("SELECT count(*) FROM Cache").fetchall()
        yield connection
    finally:
        connection.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between two tries."""
    waited: list[float] = []
    monkeypatch.setattr(view.time, "sleep", waited.append)
    return waited


def test_a_ledger_that_is_free_has_no_problem(path: Path, pauses: list[float]) -> None:
    """Nor has one that is not there; and it is free afterwards."""
    assert view.lock_problem(str(path.parent / "none")) == ""
    for _ in range(2):
        assert view.lock_problem(str(path)) == ""
        with held(path, "BEGIN EXCLUSIVE"):
            pass
    assert pauses == []


@pytest.mark.parametrize("statement", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE", "BEGIN"])
def test_a_ledger_that_another_program_holds_is_told(
    statement: str, path: Path, pauses: list[float]
) -> None:
    """A reader holds back a flush as well. A flusher has it for a moment at a time."""
    with held(path, statement):
        assert "locked" in view.lock_problem(str(path))
        assert len(pauses) == view._TRIES == 20
        assert 0 < sum(pauses) < 1.1
    assert view.lock_problem(str(path)) == ""


def test_one_that_is_let_go_of_meanwhile_has_no_problem(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was another flush that wrote its books."""
    with held(path, "BEGIN EXCLUSIVE") as connection:

        def let_go(_: float) -> None:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

        monkeypatch.setattr(view.time, "sleep", let_go)
        assert view.lock_problem(str(path)) == ""
        assert not connection.in_transaction


def test_what_sqlite_would_write_to_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rolling a journal back, or in WAL mode: a look must not do what a flush does."""
    with held(path, "BEGIN EXCLUSIVE"):
        database = path / view.DB_NAME
        monkeypatch.setattr(view, "is_hot", lambda _: True)
        assert view.lock_problem(str(path)) == ""
        monkeypatch.setattr(view, "is_hot", lambda _: False)
        content = database.read_bytes()
        monkeypatch.setattr(view, "read_small", lambda *_: b"x" + content[1:100])
        assert view.lock_problem(str(path)) == ""
        monkeypatch.setattr(view, "read_small", lambda *_: content[:100])
        assert "locked" in view.lock_problem(str(path))


def test_only_what_keeps_it_from_locking_is_told(
    path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that cannot lock says `disk I/O error`; that is tried once."""
    said: list[Exception] = []

    @contextmanager
    def connected(*_: object, **__: object) -> Iterator[sqlite3.Connection]:
        raise said[-1]
        yield

    monkeypatch.setattr(view, "connected", connected)
    for error, expected in (
        (sqlite3.OperationalError("disk I/O error"), "disk I/O error"),
        (sqlite3.OperationalError("unable to open database file"), ""),
        (sqlite3.DatabaseError("file is not a database, it is locked"), ""),
        (OSError(5, "Input/output error"), ""),
    ):
        said.append(error)
        assert view.lock_problem(str(path)) == expected
    assert pauses == []
    said.append(sqlite3.OperationalError("database is locked"))
    assert view.lock_problem(str(path)) == "database is locked"
    monkeypatch.setattr(view, "sqlite3", None)
    assert view.lock_problem(str(path)) == ""

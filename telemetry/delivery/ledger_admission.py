"""Whether the database that stands in a ledger's place is let in.

Rules:
- nothing of it is written, and nothing that it could run is run, before its tables,
  indexes and triggers are seen to be exactly those that diskcache makes: a planted
  trigger or view is SQL of somebody else's;
- then its pages must be sound;
- planted settings are put right, not obeyed;
- rows that cannot be believed are deleted and named: one left there could stop the
  commit that is to replace it.

Knows what tables are right only from those who make them: it is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from typing import TYPE_CHECKING

from telemetry.delivery.ledger_file import (
    DB_NAME,
    check_header,
    check_structure,
    connect,
    is_hot,
    recover,
)
from telemetry.delivery.ledger_place import make_private, reserve_journal
from telemetry.delivery.ledger_rows import read_rows
from telemetry.errors import LedgerMalformedError


if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping


def admit(
    directory: str,
    *,
    busy_s: float,
    settings: Mapping[str, object],
    counters: Mapping[str, int],
    schema: str,
    build: Callable[[str], None],
) -> tuple[sqlite3.Connection, tuple[str, ...]]:
    """A connection to the checked database in `directory`, and the keys it lost.

    `settings` and `counters` are what its table of settings holds; `schema` is the
    digest that its tables are known by, and `build` makes the measure where they
    differ. Raises LedgerMalformedError, and what SQLite and the system raise.
    """
    path = os.path.join(directory, DB_NAME)
    make_private(directory)
    if is_hot(path):
        recover(path, busy_s=busy_s)
    check_header(path)
    with contextlib.suppress(OSError):  # no space: most commits need less
        reserve_journal(path)
    connection = connect(path, mode="rw", busy_s=busy_s)
    try:
        _check_schema(connection, path, schema, build)
        check_structure(connection, path)
        for key, value in settings.items():
            if key.startswith("sqlite_"):
                connection.execute(f"PRAGMA {key[7:]} = {value}").fetchall()
        return connection, _put_right(connection, settings, counters)
    except BaseException:
        connection.close()
        raise


def _check_schema(
    connection: sqlite3.Connection,
    path: str,
    schema: str,
    build: Callable[[str], None],
) -> None:
    found = digest(connection)
    # Another diskcache may make other tables: then what it makes is the measure.
    if found != schema and found != measure(build):
        raise LedgerMalformedError(path, "its tables are not those of a ledger")


def digest(connection: sqlite3.Connection) -> str:
    """SHA-256 of all tables, indexes, triggers and views."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return hashlib.sha256(ascii(sorted(rows, key=ascii)).encode()).hexdigest()


def measure(build: Callable[[str], None]) -> str:
    """The digest of the tables that `build` makes."""
    with tempfile.TemporaryDirectory(prefix="ledger-") as directory:
        build(directory)
        path = os.path.join(directory, DB_NAME)
        with contextlib.closing(connect(path, mode="ro", busy_s=0)) as connection:
            return digest(connection)


def _put_right(
    connection: sqlite3.Connection,
    settings: Mapping[str, object],
    counters: Mapping[str, int],
) -> tuple[str, ...]:
    """Rewrite settings that are not ours, delete rows that cannot be believed.

    Returns the keys of those rows.
    """
    found = connection.execute("SELECT key, value FROM Settings").fetchall()
    obeyed = {key: value for key, value in found if key not in counters}
    snapshot, rowids = read_rows(connection)
    if obeyed == settings and not rowids:
        return ()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "DELETE FROM Cache WHERE rowid = ?", [(rowid,) for rowid in rowids]
    )
    connection.execute("DELETE FROM Settings")
    connection.executemany(
        "INSERT INTO Settings VALUES (?, ?)", [*counters.items(), *settings.items()]
    )
    connection.execute(
        "UPDATE Settings SET value = (SELECT count(*) FROM Cache) WHERE key = 'count'"
    )
    connection.execute("COMMIT")
    return snapshot.unreadable

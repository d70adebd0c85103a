"""The file of the embedded bus: how it is opened, made, recognised, and locked for a group.

The header of the file carries an application id and a schema version, so that neither another program's database nor
one of a newer Tocsin is ever written to by mistake.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ingest.bus import BusError

APPLICATION_ID: Final = 0x54435342  # "TCSB", in the header of the file: `file` and SQLite's own tools show it
SCHEMA_VERSION: Final = 2
PARTITION: Final = 0
"""The one partition of every topic."""

BUSY_TIMEOUT: Final = 30.0
"""Seconds to wait for another process's transaction before giving up."""

LOG_SIZE_LIMIT: Final = 64 * 1024 * 1024
"""Bytes to which SQLite truncates its write-ahead log once it has been copied into the file."""

_MARKS: Final = """CREATE TABLE marks (
    topic INTEGER NOT NULL REFERENCES topics (id), first_offset INTEGER NOT NULL, published INTEGER NOT NULL,
    PRIMARY KEY (topic, first_offset)) WITHOUT ROWID"""

_SCHEMA: Final = (
    "CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next_offset INTEGER NOT NULL DEFAULT 0)",
    """CREATE TABLE records (
        topic INTEGER NOT NULL REFERENCES topics (id), offset INTEGER NOT NULL,
        key TEXT NOT NULL, headers TEXT NOT NULL, value BLOB NOT NULL)""",
    "CREATE UNIQUE INDEX records_place ON records (topic, offset)",
    """CREATE TABLE positions (
        member_group TEXT NOT NULL, topic INTEGER NOT NULL REFERENCES topics (id), part INTEGER NOT NULL,
        next_offset INTEGER NOT NULL, PRIMARY KEY (member_group, topic, part)) WITHOUT ROWID""",
    _MARKS,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the settings that durability and sharing need."""
    try:
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise BusError(f"embedded bus {path}: {error}") from error
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {LOG_SIZE_LIMIT}")
    except sqlite3.Error as error:
        connection.close()
        raise BusError(f"embedded bus {path}: {error}") from error
    return connection


def open_file(path: Path) -> sqlite3.Connection:
    """Open the file, make it a bus if it is new, refuse it if it is something else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Logs of hospitals: for the owner only. SQLite gives its write-ahead log the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        # Two processes that switch a new file to WAL at once would see "database is locked" without any waiting.
        setup = os.open(f"{path}.setup.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BusError(f"embedded bus {path}: {error.strerror}") from error
    try:
        fcntl.flock(setup, fcntl.LOCK_EX)
        connection = connect(path)
        try:
            _set_up(connection, path)
        except sqlite3.Error as error:
            connection.close()
            raise BusError(f"embedded bus {path}: {error}") from error
        except BusError:
            connection.close()
            raise
        return connection
    finally:
        os.close(setup)


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    [application_id] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise BusError(f"embedded bus {path}: the file is another program's SQLite database, not a bus")
    if version > SCHEMA_VERSION:
        known = f"schema {version}, this one knows {SCHEMA_VERSION}"
        raise BusError(f"embedded bus {path}: written by a newer version of Tocsin ({known})")
    if not tables:
        connection.execute("PRAGMA page_size = 16384")  # records are large: fewer overflow pages
    connection.execute("PRAGMA journal_mode = WAL")
    if not tables:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("COMMIT")
    elif version == 1:
        _mark_all(connection)


def _mark_all(connection: sqlite3.Connection) -> None:
    """From version 1, which knew no times: what is there counts as published now."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_MARKS)
    connection.execute("INSERT INTO marks SELECT id, 0, ? FROM topics", (int(time.time()),))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def take_lease(path: Path, group: str) -> int:
    """Lock the file of a group beside the database; the lock lives as long as the descriptor that is returned.

    Raises:
        BusError: Somebody else holds it, or the file cannot be made.
    """
    try:
        lease = os.open(f"{path}.group-{quote(group, safe='')}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BusError(f"embedded bus {path}: group {group}: {error.strerror}") from error
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lease)
        reason = f"group {group} has a living member already, and on this bus a group has one at a time"
        raise BusError(f"embedded bus {path}: {reason}") from error
    return lease

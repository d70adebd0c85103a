"""The DuckDB file behind the alert store: who may open it, who writes, who reads.

One process holds the file (DuckDB locks it). Inside it, writes take turns on one connection, each a transaction; each
read has a connection of its own, and sees the last commit. After an error that makes DuckDB give up the file (a disk
that is full at the worst moment) it is opened anew for whoever asks next.

Nothing is fetched at run time and SQL reaches no other file: extensions are neither installed nor loaded, external
access is off, and the settings are locked.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import duckdb

from ingest.disk import DISK_FULL
from storage.errors import StoreError, StoreHeld
from storage.migrations import check_version, migrate

_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
}

READ_AHEAD: Final = 2 << 20
"""Bytes asked for at once: Linux shortens longer wishes without a word."""

_HELD: Final = re.compile(r"Conflicting lock is held in (.+?) \(PID (\d+)\)")


class AlertDatabase:
    """One DuckDB file with one writer and any number of reading threads."""

    def __init__(self, path: Path, now: datetime, memory_limit: str, *, read_only: bool = False) -> None:
        """Open the file, making it or bringing it to the newest schema; or only to read it, as it is.

        Raises:
            StoreError: Another process holds it, it is no such store, or a newer Tocsin wrote it. Read only: it is not
                there, or is not of this schema.
        """
        self.path = path
        self._writing = threading.RLock()
        self._opening = threading.Lock()
        self._reopen = partial(_opened, path, now, memory_limit, read_only=read_only)
        self._given_up = False
        self._root = self._reopen()
        self._writer = self._root.cursor()

    def close(self) -> None:
        """Let go of the file; waits for a write under way."""
        with self._writing:
            self._writer.close()
            self._root.close()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The turn to write, for whoever has something to do between a commit and the next writer's transaction."""
        with self._writing:
            yield

    @contextmanager
    def transaction(self, action: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """The turn to write: all of it is stored when the block ends, nothing if it raises."""
        with self._writing, self._explained(action):
            with self._opening:
                self._recover()
            self._writer.begin()
            with ExitStack() as undo:
                undo.callback(self._abandon)
                yield self._writer
                self._writer.commit()
                undo.pop_all()

    @contextmanager
    def reading(self, action: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to read with, for this block."""
        with self._explained(action):
            with self._opening:
                self._recover()
                connection = self._root.cursor()
            try:
                yield connection
            finally:
                connection.close()

    def select(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """All rows of one query."""
        with self.reading("read") as connection:
            return connection.execute(sql, list(parameters)).fetchall()

    def number(self, sql: str) -> int:
        """The one integer of a query."""
        return int(str(self.select(sql)[0][0]))

    def _recover(self) -> None:
        """Open the file anew if DuckDB has given it up; fails as long as somebody still reads from it."""
        if self._given_up:
            self._writer.close()
            self._root.close()
            self._root = self._reopen()
            self._writer = self._root.cursor()
            self._given_up = False

    def _abandon(self) -> None:
        # a failed commit has rolled back already, and what DuckDB has given up cannot be rolled back
        with suppress(duckdb.TransactionException, duckdb.FatalException, duckdb.ConnectionException):
            self._writer.rollback()

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            if isinstance(error, duckdb.FatalException | duckdb.InternalException):
                self._given_up = True
            raise StoreError(f"alert store {self.path}: cannot {action}: {one_line(error)}") from error


def connect(path: Path, memory_limit: str, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the file as it is, so that SQL reaches no other one.

    Raises:
        StoreError: Another process holds it, or it is no DuckDB file.
    """
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        config = {**_CONFIG, "memory_limit": memory_limit}
        connection = duckdb.connect(str(path), read_only=read_only, config=config)
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
    except (OSError, duckdb.Error) as error:
        kind = StoreHeld if _HELD.search(str(error)) else StoreError
        raise kind(f"alert store {path}: {_why_not_opened(error)}") from error
    return connection


def read_ahead(path: Path, seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
    """Ask the system to read the file into its cache, before it is opened; returns the bytes asked for.

    The rows of a page lie all over the file: from a cold disk they take most of a second, from the cache a tenth.

    Never of a file that this process has open in DuckDB: who closes any descriptor of a file gives up all locks of the
    process on it (fcntl(2), POSIX), and with them the one that keeps a second process out.

    Args:
        path: The file; it need not be there.
        seconds: Stop after this time: on a slow disk asking takes as long as reading.
        clock: Seconds, monotonic.
    """
    asked, begun = 0, clock()
    with suppress(FileNotFoundError), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while asked < size and clock() - begun < seconds:
            os.posix_fadvise(file.fileno(), asked, READ_AHEAD, os.POSIX_FADV_WILLNEED)
            asked += min(READ_AHEAD, size - asked)
    return asked


def one_line(error: Exception) -> str:
    """What DuckDB says, without its frames and stack traces."""
    text = str(error)
    if os.strerror(errno.ENOSPC) in text:
        return DISK_FULL
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def _opened(path: Path, now: datetime, memory_limit: str, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    root = connect(path, memory_limit, read_only=read_only)
    try:
        check_version(root) if read_only else migrate(root, now)
        root.execute("SET GLOBAL lock_configuration = true")
    except (StoreError, duckdb.Error) as error:
        root.close()
        raise StoreError(f"alert store {path}: cannot open: {one_line(error)}") from error
    return root


def _why_not_opened(error: Exception) -> str:
    """One line; DuckDB names the process that holds the file."""
    text = str(error)
    holder = _HELD.search(text)
    if holder:
        return f"in use by process {holder[2]} ({holder[1]}); only one process may open it"
    return "cannot open: " + " ".join(text.split())

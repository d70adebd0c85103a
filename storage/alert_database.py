"""The DuckDB file behind the alert store: who may open it, who writes, who reads.

One process holds the file (DuckDB locks it). Inside it, writes take turns on one connection, each a transaction; each
read has a connection of its own, and sees the last commit. Nothing is fetched at run time and SQL reaches no other
file: extensions are neither installed nor loaded, external access is off, and the settings are locked.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb

from storage.errors import StoreError
from storage.migrations import check_version, migrate

_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
}


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
        try:
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            config = {**_CONFIG, "memory_limit": memory_limit}
            self._root = duckdb.connect(str(path), read_only=read_only, config=config)
        except (OSError, duckdb.Error) as error:
            raise StoreError(f"alert store {path}: {_why_not_opened(error)}") from error
        try:
            self._root.execute("SET GLOBAL TimeZone = 'UTC'")
            check_version(self._root) if read_only else migrate(self._root, now)
            self._root.execute("SET GLOBAL lock_configuration = true")
        except (StoreError, duckdb.Error) as error:
            self._root.close()
            raise StoreError(f"alert store {path}: cannot open: {error}") from error
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

    def _abandon(self) -> None:
        try:
            self._writer.rollback()
        except duckdb.TransactionException:
            return  # a failed commit has rolled back already

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise StoreError(f"alert store {self.path}: cannot {action}: {error}") from error


def _why_not_opened(error: Exception) -> str:
    """One line; DuckDB names the process that holds the file."""
    text = str(error)
    holder = re.search(r"Conflicting lock is held in (.+?) \(PID (\d+)\)", text)
    if holder:
        return f"in use by process {holder[2]} ({holder[1]}); only one process may open it"
    return "cannot open: " + " ".join(text.split())

"""Backups of the alert store: a folder of Parquet files and a manifest, whole or not there at all.

DuckDB could copy itself with `COPY FROM DATABASE`, but SQL reaches no file here (`storage.alert_database`). So every
table is streamed through Arrow from one reader's snapshot; alerts and decisions go on being written meanwhile. Indexes
and the table `state` are left out: they are derived.

    alerts-20260827T120000.000000Z/    named by the moment it was made, in UTC
        manifest.json                  version of the schema, head of the journal; rows, bytes and SHA-256 of each file
        alerts.parquet  decisions.parquet  positions.parquet  ...

The folder is written under another name, made durable (fsync), and renamed at last: what bears the name is whole. The
manifest holds its own hash. These hashes find damage, not a forger, who can compute them too; the journal's head,
noted elsewhere, finds that one (`storage.journal`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb
import orjson
import pyarrow as pa

from storage.alert_export import batches_of, sync_folder, write_parquet
from storage.alert_reading import head
from storage.errors import StoreError

MANIFEST: Final = "manifest.json"
DERIVED: Final = frozenset({"state", "migrations"})
"""Tables that a backup leaves out: the one is derived, the other is the manifest's `version`."""

_NAME: Final = "alerts-%Y%m%dT%H%M%S.%fZ"
_NAMES: Final = re.compile(r"alerts-\d{8}T\d{6}\.\d{6}Z")
_TABLES: Final = re.compile(r"[a-z_]{1,40}")
_PARTIAL: Final = ".partial"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table's file in a backup."""

    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Backup:
    """What the manifest of a backup says.

    Attributes:
        folder: Where it lies.
        made: When it was begun, UTC.
        version: Of the schema.
        head: Number and hash of the latest decision in it.
        tables: Table -> its file.
    """

    folder: Path
    made: datetime
    version: int
    head: tuple[int, str]
    tables: dict[str, TableFile]

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(table.bytes for table in self.tables.values())

    def rows(self, table: str) -> int:
        """Rows of a table; 0 if it is not there."""
        return self.tables[table].rows if table in self.tables else 0


def write_backup(connection: duckdb.DuckDBPyConnection, folder: Path, made: datetime) -> Backup:
    """Write a backup into a new folder inside `folder`, from a snapshot of this connection.

    Raises:
        StoreError: It could not be written; nothing is left of it.
    """
    target = folder / made.astimezone(UTC).strftime(_NAME)
    partial = folder / f".{target.name}.{os.getpid()}{_PARTIAL}"
    connection.begin()  # one snapshot for all files
    with ExitStack() as undo:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sweep(folder)
            if target.exists():
                raise StoreError(f"cannot back up to {target}: it is there already")
            undo.callback(shutil.rmtree, partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            tables = {table: _write_table(connection, table, partial) for table in _tables(connection)}
            version = int(connection.execute("SELECT max(version) FROM migrations").fetchall()[0][0])
            backup = Backup(target, made, version, head(connection), tables)
            _write_manifest(backup, partial)
            sync_folder(partial)
            partial.rename(target)
            sync_folder(folder)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"cannot back up to {target}: {error}") from error
        undo.pop_all()
    return backup


def read_manifest(folder: Path) -> Backup:
    """What a backup says of itself; its files are not looked at (`check_backup`).

    Raises:
        StoreError: There is no backup, it is of another make, or its manifest is damaged.
    """
    path = folder / MANIFEST
    try:
        said = orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(f"{folder}: no backup: it has no {MANIFEST}") from error
    except (OSError, orjson.JSONDecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    if not isinstance(said, dict) or said.get("format") != _FORMAT:
        raise StoreError(f"{path}: not the manifest of a backup that this Tocsin reads")
    check = said.pop("check", None)
    if check != _check(said):
        raise StoreError(f"{path}: damaged: it does not have the hash that it says")
    try:
        backup = Backup(
            folder,
            datetime.fromisoformat(said["made"]),
            int(said["version"]),
            (int(said["journal"]["seq"]), str(said["journal"]["hash"])),
            {str(table): TableFile(**file) for table, file in said["tables"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: not the manifest of a backup: {error!r}") from error
    strange = [table for table in backup.tables if not _TABLES.fullmatch(table) or table in DERIVED]
    if strange:  # names become paths and SQL
        raise StoreError(f"{path}: no table of the store is named {strange[0]!r}")
    return backup


def check_backup(backup: Backup) -> list[str]:
    """What is damaged of a backup's files, a line each."""
    faults: list[str] = []
    for table, said in backup.tables.items():
        path = file_of(backup, table)
        try:
            size = path.stat().st_size
            if size != said.bytes:
                faults.append(f"{path}: damaged: it has {size} bytes, not {said.bytes}")
            elif _sha256(path) != said.sha256:
                faults.append(f"{path}: damaged: its SHA-256 is not the one noted when it was made")
        except OSError as error:
            faults.append(f"{path}: cannot be read: {error.strerror}")
    return faults


def file_of(backup: Backup, table: str) -> Path:
    """The file of a table."""
    return backup.folder / f"{table}.parquet"


def backups_in(folder: Path) -> list[Path]:
    """The backups in a folder, newest first."""
    if not folder.is_dir():
        return []
    return sorted((found for found in folder.iterdir() if _NAMES.fullmatch(found.name)), reverse=True)


def made_at(backup: Path) -> datetime:
    """When a backup was made, by its name."""
    return datetime.strptime(backup.name, _NAME).replace(tzinfo=UTC)


def keep_newest(folder: Path, kept: int) -> list[Path]:
    """Remove all backups but the newest; those that were removed.

    Raises:
        StoreError: One could not be removed.
    """
    removed: list[Path] = []
    for old in backups_in(folder)[kept:]:
        try:
            going = old.with_name(f".{old.name}{_PARTIAL}")
            old.rename(going)  # what is half removed must not look like a backup
            shutil.rmtree(going)
        except OSError as error:
            raise StoreError(f"cannot remove the old backup {old}: {error}") from error
        removed.append(old)
    return removed


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed left: there is one writer of backups, the one that holds the store."""
    for left in folder.glob(f".alerts-*{_PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)


def _tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    rows = connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1").fetchall()
    return [str(name) for (name,) in rows if name not in DERIVED]


def _write_table(connection: duckdb.DuckDBPyConnection, table: str, folder: Path) -> TableFile:
    # Not sorted: a table is read in the order of its rows, which is that of arrival, and sorting it takes a disk.
    path = folder / f"{table}.parquet"
    rows = write_parquet(batches_of(connection, f'SELECT * FROM "{table}"'), path)  # noqa: S608 - of the schema
    return TableFile(rows, path.stat().st_size, _sha256(path))


def _write_manifest(backup: Backup, folder: Path) -> None:
    said: dict[str, object] = {
        "format": _FORMAT,
        "made": backup.made.isoformat(),
        "version": backup.version,
        "journal": {"seq": backup.head[0], "hash": backup.head[1]},
        "tables": {
            table: {"rows": file.rows, "bytes": file.bytes, "sha256": file.sha256}
            for table, file in backup.tables.items()
        },
    }
    with (folder / MANIFEST).open("wb") as file:
        file.write(
            orjson.dumps({**said, "check": _check(said)}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )
        file.flush()
        os.fsync(file.fileno())


def _check(said: object) -> str:
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""A new alert store out of a backup, or out of an export, in place of one that is lost or damaged.

The store is made beside its place under another name, filled, checked (rows, the chain of decisions and its head) and
moved into place at last; what was there is moved aside, never removed. Cut off anywhere, either the old file or the new
one is in place.

A backup holds positions: the store reads from the bus what came since. An export holds none, and a rebuild drops those
of the alerts: the store then reads all that the bus still has, and leaves out by id what it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.bus import TOPIC_ALERTS
from storage.alert_backup import MANIFEST, Backup, check_backup, file_of, read_manifest
from storage.alert_database import connect, one_line
from storage.alert_export import ALERTS_FILE, DECISIONS_FILE, sync_folder
from storage.alert_queue import moment_of
from storage.alert_reading import head, journal_break
from storage.alert_rows import ALERT_SCHEMA
from storage.alert_state import FOLD
from storage.errors import StoreError, StoreHeld
from storage.journal import first_break
from storage.migrations import MIGRATIONS, migrate

_NEW: Final = ".new"
_LOOK_MEMORY: Final = "256MB"
_BATCH_ROWS: Final = 50_000
_DECISION_COLUMNS: Final = ("seq", "alert_id", "decided", "author", "status", "note", "previous", "hash")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a store was made of.

    Attributes:
        path: The store.
        alerts: In it; so too decisions.
        decisions: See `alerts`.
        head: Number and hash of the latest decision.
        aside: Where the file lies that was there before; None if there was none.
        backup_of: When the backup was made; None for an export.
    """

    path: Path
    alerts: int
    decisions: int
    head: tuple[int, str]
    aside: Path | None
    backup_of: datetime | None = None


def restore(folder: Path, path: Path, memory_limit: str, *, force: bool = False, anew: bool = False) -> Restored:
    """Make a store at `path` out of the backup in `folder`.

    Args:
        folder: The backup.
        path: The new store.
        memory_limit: See `AlertStore`.
        force: Move aside what is there.
        anew: Forget how far alerts were read, so that the bus is read from its beginning.

    Raises:
        StoreError: The backup is damaged, something is there, a process holds it, ...: what was there stays as it was.
    """
    backup = read_manifest(folder)
    if backup.version > len(MIGRATIONS):
        raise StoreError(f"{folder}: its schema is version {backup.version}, newer than this Tocsin's")
    faults = check_backup(backup)
    if faults:
        raise StoreError(faults[0])

    def fill(connection: duckdb.DuckDBPyConnection) -> None:
        for table, file in backup.tables.items():
            rows = _load(connection, table, file_of(backup, table))
            if rows != file.rows:
                raise StoreError(f"{file_of(backup, table)}: it has {rows} rows, not {file.rows}")
        if anew:
            connection.execute("DELETE FROM positions WHERE topic = ?", [TOPIC_ALERTS])
        if head(connection) != backup.head:
            raise StoreError(f"{folder}: its journal does not end as its manifest says")

    return replace(_made(path, memory_limit, backup.version, fill, force=force), backup_of=backup.made)


def import_export(folder: Path, path: Path, memory_limit: str, *, force: bool = False) -> Restored:
    """Make a store at `path` out of the files that `AlertStore.export_parquet` wrote; see `restore`.

    Raises:
        StoreError: As `restore`; or a file lacks columns, or has a decision on an alert that is not there.
    """
    wanted = {ALERTS_FILE: [name for name in ALERT_SCHEMA if name != "n"], DECISIONS_FILE: list(_DECISION_COLUMNS)}
    for name, columns in wanted.items():
        missing = set(columns) - set(_schema(folder / name).names)
        if missing:
            raise StoreError(f"{folder / name}: not written by `tocsin alerts export`: no column {min(missing)}")

    def fill(connection: duckdb.DuckDBPyConnection) -> None:
        _load(connection, "alerts", folder / ALERTS_FILE, wanted[ALERTS_FILE], number="n")
        _load(connection, "decisions", folder / DECISIONS_FILE, wanted[DECISIONS_FILE])

    return _made(path, memory_limit, len(MIGRATIONS), fill, force=force)


def make_from(folder: Path, path: Path, memory_limit: str, *, force: bool = False, anew: bool = False) -> Restored:
    """Make a store out of a folder that holds a backup or an export."""
    if (folder / MANIFEST).exists():
        return restore(folder, path, memory_limit, force=force, anew=anew)
    return import_export(folder, path, memory_limit, force=force)


def make_empty(path: Path, memory_limit: str, *, force: bool = False) -> Restored:
    """Make a store that holds nothing; see `restore`."""
    return _made(path, memory_limit, len(MIGRATIONS), lambda _: None, force=force)


def verify_backup(folder: Path) -> tuple[Backup, list[str]]:
    """What a backup says, and what does not hold of its files, a line each."""
    backup = read_manifest(folder)
    faults = check_backup(backup)
    if not faults:
        broken = first_break(_entries(file_of(backup, "decisions")))
        faults += [] if broken is None else [f"journal: entry {broken.seq} (alert {broken.alert_id}) {broken.reason}"]
    return backup, faults


def _made(
    path: Path, memory_limit: str, version: int, fill: Callable[[duckdb.DuckDBPyConnection], None], *, force: bool
) -> Restored:
    now = datetime.now(UTC)
    new = path.with_name(path.name + _NEW)
    with ExitStack() as held:
        _hold(path, held, force=force)
        held.callback(_clear, new)
        _clear(new)
        try:
            with closing(connect(new, memory_limit)) as connection:
                migrate(connection, now, version)
                fill(connection)
                migrate(connection, now)
                alerts, decisions = _settle(connection)
                latest = head(connection)
                connection.execute("CHECKPOINT")
            aside = _put_in_place(new, path, now)
        except duckdb.Error as error:
            raise StoreError(f"alert store {new}: cannot be made: {one_line(error)}") from error
        except OSError as error:
            raise StoreError(f"alert store {path}: cannot be put in place: {error}") from error
    return Restored(path, alerts, decisions, latest, aside)


def _hold(path: Path, held: ExitStack, *, force: bool) -> None:
    """Make sure that the place is free, or may be made so, and stays so."""
    if not path.exists():
        return
    if not force:
        raise StoreError(f"alert store {path}: it is there already; --force moves it aside")
    try:
        held.enter_context(closing(connect(path, _LOOK_MEMORY, read_only=True)))
    except StoreHeld:
        raise
    except StoreError:
        return  # damaged: nobody can hold it open


def _settle(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Check the decisions, derive the state; how many alerts and decisions there are."""
    broken = journal_break(connection)
    if broken is not None:
        raise StoreError(f"journal: entry {broken.seq} (alert {broken.alert_id}) {broken.reason}")
    lost = connection.execute(
        "SELECT seq, alert_id FROM decisions d ANTI JOIN alerts a ON a.id = d.alert_id ORDER BY seq LIMIT 1"
    ).fetchall()
    if lost:
        raise StoreError(f"journal: entry {lost[0][0]} is on alert {lost[0][1]}, which is not there")
    connection.execute("DELETE FROM state")
    connection.execute(f"INSERT INTO state {FOLD} ORDER BY a.n")
    alerts, decisions = connection.execute(
        "SELECT (SELECT count(*) FROM alerts), (SELECT count(*) FROM decisions)"
    ).fetchall()[0]
    return int(alerts), int(decisions)


def _load(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    path: Path,
    columns: list[str] | None = None,
    number: str | None = None,
) -> int:
    """Put a file's rows into a table, numbered from 1 in a column that the file lacks; how many they are."""
    rows = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
                part = pa.Table.from_batches([batch])
                if number is not None:
                    part = part.append_column(number, pa.array(range(rows + 1, rows + 1 + part.num_rows), pa.int64()))
                connection.register("incoming", part)
                connection.execute(f'INSERT INTO "{table}" BY NAME SELECT * FROM incoming')  # noqa: S608 - of a manifest
                connection.unregister("incoming")
                rows += part.num_rows
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    except (duckdb.ConstraintException, duckdb.BinderException, duckdb.ConversionException) as error:
        raise StoreError(f"{path}: its rows are not those of {table}: {one_line(error)}") from error
    return rows


def _entries(path: Path) -> Iterator[tuple[int, str, datetime, str, str, str, str, str]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(_DECISION_COLUMNS)):
            table = pa.Table.from_batches([batch])
            times = table["decided"].cast(pa.int64()).to_pylist()
            rest = [table[name].to_pylist() for name in _DECISION_COLUMNS if name != "decided"]
            for at, seq, alert_id, author, status, note, previous, digest in zip(times, *rest, strict=True):
                yield seq, alert_id, moment_of(at), author, status, note, previous, digest


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


def _put_in_place(new: Path, path: Path, now: datetime) -> Path | None:
    """Move what is there aside, and the new store to its place."""
    aside = path.with_name(f"{path.name}.replaced-{now:%Y%m%dT%H%M%S.%fZ}") if path.exists() else None
    if aside is not None:
        # The log first: without it the file is older, but whole; the other way round it would be applied to the new one
        log = _log_of(path)
        if log.exists():
            log.rename(_log_of(aside))
        path.rename(aside)
    new.rename(path)
    sync_folder(path.parent)
    return aside


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _clear(new: Path) -> None:
    new.unlink(missing_ok=True)
    _log_of(new).unlink(missing_ok=True)

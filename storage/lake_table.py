"""One Delta table of the lake: events of one log source, appended exactly once.

Each commit carries, beside its files, one application transaction a bus partition (Delta protocol, "Transaction
Identifiers"): id `topic/partition`, version the last offset contained. Rows at or below that version are in the table;
`append` leaves them out, so a batch may be replayed after a crash at any point, cut in any other way. Two writers that
race for one partition are told apart by Delta itself: the second commit fails, reads the new version and leaves out
what the first one wrote. Writers of different partitions never conflict, unless one adds columns, and then the
other repeats its commit.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import polars as pl
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType

from ingest.bus import Partition, Position
from ingest.envelope import ENVELOPE
from ingest.logsource import LogSource
from storage.errors import LakeError
from storage.lake_columns import FIXED_COLUMNS, PARTITION_COLUMNS, folder_name, to_lake, with_bookkeeping
from storage.lake_files import filled, sync, sync_checkpoint, sync_commits, write_files
from storage.lake_rest import MAX_CELLS, MAX_COLUMNS, REST

ATTEMPTS: Final = 20  # a conflict is settled by the next attempt; this many mean something else is wrong
CHECKPOINT_EVERY: Final = 50  # commits; opening a table reads the commits since its last checkpoint
DELTA_TYPES: Final[dict[pl.DataType, str]] = {
    pl.String(): "string",
    pl.Int32(): "integer",
    pl.Int64(): "long",
    pl.Date(): "date",
    FIXED_COLUMNS["@timestamp"]: "timestamp",
}
LAKE_FAULTS: Final = (DeltaError, OSError, pl.exceptions.PolarsError, ValueError)
"""What Delta, the disk and Polars raise when a table cannot be read or written."""

_NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one log source from one bus record, in the columns of the event frame."""

    position: Position
    events: pl.DataFrame


class LakeTable:
    """A Delta table of one log source. Used by one thread at a time; any number of processes may append."""

    def __init__(self, events_folder: Path, logsource: LogSource, pause: Callable[[float], None] = time.sleep) -> None:
        self.path = events_folder / folder_name(logsource)
        self.logsource = logsource
        self._lock_path = events_folder / ".schema.lock"
        self._pause = pause
        self._delta: DeltaTable | None = None

    def append(self, batches: Sequence[Batch]) -> int:
        """Append what the table does not hold yet, in one commit; the number of rows added.

        Raises:
            LakeError: Nothing of the batches is known to be durable; appending them again is safe.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._append_once(batches)
            except CommitFailedError as error:
                cause = error
                self._delta = None
                self._pause(random.uniform(0, 0.01 * (attempt + 1)))  # noqa: S311 - spreads writers, guards nothing
            except LAKE_FAULTS as error:
                self._delta = None
                raise LakeError(f"lake table {self.path}: cannot append: {error}") from error
        raise LakeError(f"lake table {self.path}: cannot append after {ATTEMPTS} conflicts: {cause}")

    def _append_once(self, batches: Sequence[Batch]) -> int:
        delta = self._open_or_create()
        fresh = self._not_yet_held(delta, batches)
        if not fresh:
            return 0
        parts = self._parts(delta, fresh)
        if len(self._not_yet_held(delta, fresh)) < len(fresh):
            # Adding columns has moved the snapshot past another's append, so Delta would see no conflict any more.
            return self._append_once(batches)
        before = delta.version()
        delta.create_write_transaction(
            [action for rows in _joined(parts) for action in write_files(self.path, rows)],
            "append",
            delta.schema(),
            list(PARTITION_COLUMNS),
            commit_properties=CommitProperties(app_transactions=_transactions(fresh)),
            post_commithook_properties=_NO_HOOKS,
        )
        delta.update_incremental()
        after = delta.version()
        sync_commits(self.path, before + 1, after)
        if after // CHECKPOINT_EVERY > before // CHECKPOINT_EVERY:
            delta.create_checkpoint()
            sync_checkpoint(self.path)
        return sum(part.height for part in parts)

    def _not_yet_held(self, delta: DeltaTable, batches: Sequence[Batch]) -> list[Batch]:
        partitions = {Partition(batch.position.topic, batch.position.partition) for batch in batches}
        held = {partition: delta.transaction_version(app_id(partition)) for partition in partitions}

        def fresh(position: Position) -> bool:
            version = held[Partition(position.topic, position.partition)]
            return version is None or position.offset > version

        return [batch for batch in batches if fresh(batch.position)]

    def _parts(self, delta: DeltaTable, batches: Sequence[Batch]) -> list[pl.DataFrame]:
        """The batches as frames in lake columns; columns the table lacks, and has room for, are added to it first."""
        columns = [field.name for field in delta.schema().fields]
        parts: list[pl.DataFrame] = []
        known = dict.fromkeys(columns)
        for alike in _by_columns(batches):
            whole = pl.concat([batch.events for batch in alike], how="vertical_relaxed")  # relaxed: null to String
            part = to_lake(filled(whole, ENVELOPE), known, MAX_COLUMNS - len({*known, REST}))
            parts.append(with_bookkeeping(part, [(batch.position, batch.events.height) for batch in alike]))
            known |= dict.fromkeys(part.columns)
        added = list(known)[len(columns) :]
        if added:
            with self._schema_lock():
                delta.alter.add_columns(
                    [_field(name, pl.String()) for name in added], post_commithook_properties=_NO_HOOKS
                )
                delta.update_incremental()
        return parts

    def _open_or_create(self) -> DeltaTable:
        if self._delta is None:
            if not DeltaTable.is_deltatable(str(self.path)):
                self._create()
            self._delta = DeltaTable(str(self.path))
        self._delta.update_incremental()
        return self._delta

    def _create(self) -> None:
        """Create the table with the columns all tables share.

        Under a lock: two creators at once would both succeed, the second one's schema replacing the first one's.
        """
        with self._schema_lock():
            if DeltaTable.is_deltatable(str(self.path)):
                return
            DeltaTable.create(
                str(self.path),
                Schema([_field(name, kind) for name, kind in FIXED_COLUMNS.items()]),
                mode="error",
                partition_by=list(PARTITION_COLUMNS),
                name=str(self.logsource),
                description=describe(self.logsource),
                configuration={"delta.dataSkippingNumIndexedCols": "5"},
            )
            sync_commits(self.path, 0, 0)
            sync(self.path.parent)

    @contextmanager
    def _schema_lock(self) -> Iterator[None]:
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # closing it, or dying, releases it
            yield
        finally:
            os.close(descriptor)


def app_id(partition: Partition) -> str:
    """The application id under which a table remembers a bus partition."""
    return f"{partition.topic}/{partition.partition}"


def describe(logsource: LogSource) -> str:
    """The description a table keeps: its log source as a JSON array, since the folder's name may not be reversible."""
    return orjson.dumps([logsource.product, logsource.category, logsource.service]).decode()


def described(delta: DeltaTable) -> LogSource:
    """The log source of a table.

    Raises:
        ValueError: The table was not made by the lake.
    """
    parts = orjson.loads(delta.metadata().description or "null")
    if (
        not isinstance(parts, list)
        or len(parts) != 3
        or not all(part is None or isinstance(part, str) for part in parts)
    ):
        raise ValueError(f"its description {delta.metadata().description!r} names no log source")
    return LogSource(*parts)


def _by_columns(batches: Sequence[Batch]) -> list[list[Batch]]:
    """Batches of the same columns together: a frame costs far more than its rows when a record holds few."""
    groups: dict[tuple[str, ...], list[Batch]] = {}
    for batch in batches:
        groups.setdefault(tuple(batch.events.columns), []).append(batch)
    return list(groups.values())


def _joined(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Frames put together while the nulls this makes stay few enough to hold."""
    waiting: list[pl.DataFrame] = []
    rows, columns = 0, set[str]()
    for part in parts:
        if waiting and (rows + part.height) * len(columns.union(part.columns)) > MAX_CELLS:
            yield pl.concat(waiting, how="diagonal")
            waiting, rows, columns = [], 0, set()
        waiting.append(part)
        rows += part.height
        columns.update(part.columns)
    if waiting:
        yield pl.concat(waiting, how="diagonal")


def _transactions(batches: Sequence[Batch]) -> list[Transaction]:
    last: dict[Partition, int] = {}
    for batch in batches:
        partition = Partition(batch.position.topic, batch.position.partition)
        last[partition] = max(batch.position.offset, last.get(partition, -1))
    return [Transaction(app_id(partition), offset) for partition, offset in last.items()]


def _field(name: str, kind: pl.DataType) -> Field:
    return Field(name, PrimitiveType(DELTA_TYPES[kind]))

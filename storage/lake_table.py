"""One Delta table of the lake: events of one log source, appended exactly once.

Each commit carries, beside its files, one application transaction a bus partition (Delta protocol, "Transaction
Identifiers"): id `topic/partition`, version the last offset contained. Rows at or below that version are in the table;
`append` leaves them out, so a batch may be replayed after a crash at any point, cut in any other way. Two writers that
race for one partition are told apart by Delta itself: the second commit fails, reads the new version and leaves out
what the first one wrote. Writers of different partitions never conflict, unless one adds columns, and then the
other repeats its commit. Of two that make one table, the one whose version 0 is there first has made it.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import polars as pl
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.schema import PrimitiveType

from ingest.bus import Partition, Position
from ingest.envelope import ENVELOPE
from ingest.logsource import LogSource
from ingest.visible import visible
from storage.errors import LakeError
from storage.lake_columns import FIXED_COLUMNS, PARTITION_COLUMNS, folder_name, to_lake, with_bookkeeping
from storage.lake_files import filled, hashes_of, sync_checkpoint, sync_commits, write_files
from storage.lake_place import LakePlace
from storage.lake_rest import MAX_CELLS, MAX_COLUMNS, REST

EVENTS: Final = "events"
"""The lake's folder of event tables."""

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

_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_REASON: Final = 1000
_NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one log source from one bus record, in the columns of the event frame."""

    position: Position
    events: pl.DataFrame


class LakeTable:
    """A Delta table of one log source. Used by one thread at a time; any number of processes may append."""

    def __init__(self, place: LakePlace, logsource: LogSource, pause: Callable[[float], None] = time.sleep) -> None:
        self.path = f"{EVENTS}/{folder_name(logsource)}"
        self.logsource = logsource
        self._place = place
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
            except LakeError:
                self._delta = None
                raise
            except LAKE_FAULTS as error:
                self._delta = None
                raise LakeError(f"lake table {self._named}: cannot append: {reason_of(error)}") from error
        raise LakeError(f"lake table {self._named}: cannot append after {ATTEMPTS} conflicts: {reason_of(cause)}")

    @property
    def _named(self) -> str:
        return f"{self._place.name}/{self.path}"

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
        written = [file for rows in _joined(parts) for file in write_files(self._place, self.path, rows)]
        delta.create_write_transaction(
            [file.action for file in written],
            "append",
            delta.schema(),
            list(PARTITION_COLUMNS),
            commit_properties=CommitProperties(
                custom_metadata=hashes_of(written), app_transactions=_transactions(fresh)
            ),
            post_commithook_properties=_NO_HOOKS,
        )
        delta.update_incremental()
        after = delta.version()
        sync_commits(self._place, self.path, before + 1, after)
        if after // CHECKPOINT_EVERY > before // CHECKPOINT_EVERY:
            delta.create_checkpoint()
            sync_checkpoint(self._place, self.path, after)
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
            with self._place.lock("schema"):  # spares conflicts; what keeps both sides' columns is Delta's own check
                delta.alter.add_columns(
                    [_field(name, pl.String()) for name in added], post_commithook_properties=_NO_HOOKS
                )
                delta.update_incremental()
        return parts

    def _open_or_create(self) -> DeltaTable:
        if self._delta is None:
            uri = self._place.uri(self.path)
            if not DeltaTable.is_deltatable(uri, self._place.options):
                self._place.create(f"{self.path}/_delta_log/{0:020d}.json", first_version(self.logsource))
            self._delta = DeltaTable(uri, storage_options=self._place.options)
        self._delta.update_incremental()
        return self._delta


def first_version(logsource: LogSource) -> bytes:
    """Version 0 of a table's log: the columns that all tables share (Delta protocol, "Actions").

    Put there by `LakePlace.create`, since of two calls of `DeltaTable.create` at once both succeed, the second one's
    schema replacing the first one's.
    """
    now = time.time_ns() // 1_000_000
    protocol = {"minReaderVersion": 1, "minWriterVersion": 2}
    schema = Schema([_field(name, kind) for name, kind in FIXED_COLUMNS.items()])
    metadata = {
        "id": str(uuid.uuid4()),
        "name": str(logsource),
        "description": describe(logsource),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema.to_json(),
        "partitionColumns": list(PARTITION_COLUMNS),
        "createdTime": now,
        "configuration": {"delta.dataSkippingNumIndexedCols": "5"},
    }
    commit = {"timestamp": now, "operation": "CREATE TABLE", "operationParameters": {}}
    actions = ({"commitInfo": commit}, {"protocol": protocol}, {"metaData": metadata})
    return b"".join(orjson.dumps(action) + b"\n" for action in actions)


def reason_of(error: Exception) -> str:
    """What Delta, Arrow or the system says of an error, on one line: Delta draws a tree in colours."""
    return visible(" ".join(_COLOURS.sub("", str(error)).replace("↳", " ").split()))[:_LONGEST_REASON]


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

"""Reading one Delta table: which files may hold what is asked for, and their rows in bounded batches.

Files are left out by partition and by the statistics in the log; rows are then filtered exactly. Times are half-open:
`since <= @timestamp < until`.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from typing import Final
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from deltalake import DeltaTable

from ingest.envelope import ENVELOPE, EVENT_ID, ORIGINAL, TENANT, TIMESTAMP
from ingest.logsource import LogSource
from storage.lake_columns import BUS_OFFSET, BUS_PARTITION, BUS_TOPIC, DATE, PARTITION_COLUMNS, encode_name
from storage.lake_place import LakePlace
from storage.lake_rest import MAX_CELLS, REST

BATCH_ROWS: Final = 50_000
_READAHEAD: Final = 2  # batches and files read ahead: bounds memory, keeps the disk busy
_STATISTICS_STEP: Final = timedelta(milliseconds=1)
_TIME: Final = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of one table: what a reader sees, whatever is appended meanwhile.

    Attributes:
        place: Where its lake lies.
        path: Its own path there, such as `events/windows.process_creation._`.
        logsource: Of its events.
        delta: The version.
    """

    place: LakePlace
    path: str
    logsource: LogSource
    delta: DeltaTable

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which events are asked for: `None` is all.

    Attributes:
        since: First event time, inclusive.
        until: Last event time, exclusive.
        tenants: Hospitals.
    """

    since: datetime | None = None
    until: datetime | None = None
    tenants: Collection[str] | None = None

    def __post_init__(self) -> None:
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None and moment.tzinfo is None:
                raise ValueError(f"{name} {moment.isoformat()} has no time zone")

    def may_hold(self) -> list[pl.Expr]:
        """Conditions on the log's statistics of a file; null means that a file has no statistics, and may hold all."""
        found: list[pl.Expr] = []
        if self.since is not None:
            # Delta writes statistics in milliseconds, cut off: the newest event may be up to one later
            found.append(pl.col(f"max.{TIMESTAMP}") >= self.since - _STATISTICS_STEP)
        if self.until is not None:
            found.append(pl.col(f"min.{TIMESTAMP}") < self.until)
        if self.tenants is not None:
            found.append(pl.col(f"partition.{TENANT}").is_in(sorted(self.tenants)))
        return found

    def rows(self) -> pc.Expression | None:
        """The exact filter of rows."""
        found: list[pc.Expression] = []
        if self.since is not None:
            found.append(pc.field(TIMESTAMP) >= pa.scalar(self.since, _TIME))
        if self.until is not None:
            found.append(pc.field(TIMESTAMP) < pa.scalar(self.until, _TIME))
        if self.tenants is not None:
            found.append(pc.field(TENANT).isin(sorted(self.tenants)))
        return reduce(operator.and_, found) if found else None


@dataclass(slots=True)
class ScanCounts:
    """What a search considered, and what it could leave out by what the log says of the files alone."""

    tables: int = 0
    files: int = 0
    bytes: int = 0
    skipped_files: int = 0
    skipped_bytes: int = 0

    @property
    def share(self) -> float:
        """Share of the files that were left out; 0 where there are none."""
        return self.skipped_files / self.files if self.files else 0.0

    def add(self, considered: pl.DataFrame, left: pl.DataFrame) -> None:
        """Count the files of one table."""
        self.tables += 1
        self.files += considered.height
        self.skipped_files += considered.height - left.height
        size = int(considered.get_column("size_bytes").sum())
        self.bytes += size
        self.skipped_bytes += size - int(left.get_column("size_bytes").sum())


def dataset(
    table: Snapshot, may_hold: Sequence[pl.Expr] = (), counts: ScanCounts | None = None
) -> pds.FileSystemDataset:
    """The files that may hold what is asked for, oldest day first, then by hospital and first time.

    Built from the log rather than by `DeltaTable.to_pyarrow_dataset`, which reads through a file system in Python and
    takes a column without statistics for a column without rows. Each file promises its day, its hospital and its first
    and last time, so that whoever filters by these later (DuckDB) leaves it out without opening it.
    """
    schema = pa.schema(table.delta.schema().to_arrow(as_large_types=True))  # type: ignore[arg-type]  # by its Arrow capsule
    files_of, parquet = table.place.filesystem(), pds.ParquetFileFormat()
    considered = pl.DataFrame(table.delta.get_add_actions(flatten=True)).cast({f"partition.{TENANT}": pl.String()})
    files = considered
    for condition in may_hold:
        if set(condition.meta.root_names()) <= set(files.columns):
            files = files.filter(condition.fill_null(value=True))
    if counts is not None:
        counts.add(considered, files)
    columns = files.select(
        "path", "size_bytes", *(f"partition.{column}" for column in PARTITION_COLUMNS), *_time_bounds(files)
    ).sort(*(f"partition.{column}" for column in PARTITION_COLUMNS), "first", "path")
    fragments = [
        parquet.make_fragment(
            f"{table.path}/{unquote(path)}",
            filesystem=files_of,
            file_size=size,  # known from the log: a store is not asked for it
            partition_expression=_promise(day, tenant, first, last),
        )
        for path, size, day, tenant, first, last in columns.iter_rows()
    ]
    return pds.FileSystemDataset(fragments, schema, parquet, files_of)


def _time_bounds(files: pl.DataFrame) -> list[pl.Expr]:
    """First and last time as microseconds, null where a file does not say or has events without a time."""
    names = [f"{what}.{TIMESTAMP}" for what in ("min", "max", "null_count")]
    if not set(names) <= set(files.columns):
        return [pl.lit(None, pl.Int64).alias(name) for name in ("first", "last")]
    least, most, nulls = (pl.col(name) for name in names)
    # Delta writes statistics in milliseconds, cut off: the newest event may be up to one later
    bounds = {"first": least.dt.epoch("us"), "last": (most + _STATISTICS_STEP).dt.epoch("us")}
    return [pl.when(nulls == 0).then(bound).alias(name) for name, bound in bounds.items()]


def _promise(day: object, tenant: object, first: int | None, last: int | None) -> pc.Expression:
    partition = _equals(DATE, day, pa.date32()) & _equals(TENANT, tenant, pa.large_string())
    if first is None or last is None:
        return partition
    time = pc.field(TIMESTAMP)
    return partition & (time >= pa.scalar(first, _TIME)) & (time <= pa.scalar(last, _TIME))


def scan(
    table: Snapshot,
    scope: Scope,
    batch_rows: int = BATCH_ROWS,
    fields: Collection[str] | None = None,
    counts: ScanCounts | None = None,
) -> Iterator[pl.DataFrame]:
    """Rows of a table in lake columns, `batch_rows` or fewer at a time; fewer from a wide table.

    With `fields`, only their columns are read, and the envelope without the raw line, which is null then. `counts` is
    told which files were left out.
    """
    if scope.tenants is not None and not scope.tenants:
        return
    batch_rows = _bounded(table, batch_rows)
    scanner = dataset(table, scope.may_hold(), counts).scanner(
        columns=None if fields is None else _columns_of(table, fields),
        filter=scope.rows(),
        batch_size=batch_rows,
        batch_readahead=_READAHEAD,
        fragment_readahead=_READAHEAD,
    )
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in scanner.to_batches():
        if rows + batch.num_rows > batch_rows and waiting:
            yield _frame(waiting)
            waiting, rows = [], 0
        if batch.num_rows:
            waiting.append(batch)
            rows += batch.num_rows
    if waiting:
        yield _frame(waiting)


def count(table: Snapshot, scope: Scope) -> int:
    """How many rows of a table are in scope."""
    if scope.tenants is not None and not scope.tenants:
        return 0
    return int(dataset(table, scope.may_hold()).count_rows(filter=scope.rows()))


def find(
    table: Snapshot,
    places: Collection[tuple[int, int]],
    event_ids: Collection[str],
    tenants: Collection[str] | None = None,
) -> pl.DataFrame | None:
    """Rows with these event ids, which lie in bus records at these (partition, offset).

    Sorted by time, a file holds the offsets of many bus records, so it is looked up in the two columns of numbers which
    row groups hold any of these records; only those are read whole.
    """
    if not places or (tenants is not None and not tenants):
        return None
    conditions = [
        pl.any_horizontal(
            pl.lit(partition).is_between(pl.col(f"min.{BUS_PARTITION}"), pl.col(f"max.{BUS_PARTITION}"))
            & pl.lit(offset).is_between(pl.col(f"min.{BUS_OFFSET}"), pl.col(f"max.{BUS_OFFSET}"))
            for partition, offset in sorted(places)
        ),
        *Scope(tenants=tenants).may_hold(),
    ]
    records = reduce(
        operator.or_,
        (
            (pc.field(BUS_PARTITION) == pa.scalar(partition, pa.int32()))
            & (pc.field(BUS_OFFSET) == pa.scalar(offset, pa.int64()))
            for partition, offset in sorted(places)
        ),
    )
    files = dataset(table, conditions)
    groups = [
        group
        for file in files.get_fragments()
        for group in file.split_by_row_group(records, schema=files.schema)
        if group.count_rows(filter=records)
    ]
    if not groups:
        return None
    rows = pds.FileSystemDataset(groups, files.schema, files.format, files.filesystem).to_table(
        filter=records & pc.field(EVENT_ID).isin(sorted(event_ids)),
        batch_size=_bounded(table, BATCH_ROWS),
        batch_readahead=_READAHEAD,
        fragment_readahead=_READAHEAD,
    )
    return _frame(rows.to_batches()) if rows.num_rows else None


def bus_partitions(table: Snapshot, topic: str) -> int:
    """The number behind the highest partition of a topic that the files of a table name; 0 if none does."""
    files = pl.DataFrame(table.delta.get_add_actions(flatten=True))
    columns = [f"{side}.{name}" for side in ("min", "max") for name in (BUS_TOPIC, BUS_PARTITION)]
    if not set(columns) <= set(files.columns):
        return 0
    of_topic = pl.lit(topic).is_between(pl.col(f"min.{BUS_TOPIC}"), pl.col(f"max.{BUS_TOPIC}"))
    highest = files.filter(of_topic).get_column(f"max.{BUS_PARTITION}").max()
    return highest + 1 if isinstance(highest, int) else 0


def _columns_of(table: Snapshot, fields: Collection[str]) -> list[str]:
    """The columns that hold these fields, and what every frame has."""
    wanted = {encode_name(name).lower() for name in fields} | {REST} | ENVELOPE.keys() - {ORIGINAL}
    return [name.name for name in table.delta.schema().fields if name.name.lower() in wanted]


def _bounded(table: Snapshot, batch_rows: int) -> int:
    return min(batch_rows, max(1, MAX_CELLS // len(table.delta.schema().fields)))


def _equals(column: str, value: object, kind: pa.DataType) -> pc.Expression:
    return pc.field(column).is_null() if value is None else pc.field(column) == pa.scalar(value, kind)


def _frame(batches: Sequence[pa.RecordBatch]) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches(batches), rechunk=False)
    if not isinstance(frame, pl.DataFrame):
        raise TypeError("an Arrow table is read as a frame")
    missing = [pl.lit(None, kind).alias(name) for name, kind in ENVELOPE.items() if name not in frame.columns]
    return frame.with_columns(missing) if missing else frame

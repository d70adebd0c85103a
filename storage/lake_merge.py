"""Many files in, rows in time order out, in bounded memory: an external merge sort, a sweep over time.

A unit is a row group of an input file, with the first time in it. Units are loaded in the order of their first times;
what is earlier than the first time of the next unit can be given out, sorted, since nothing still to come is earlier.
Files of a lake follow each other in time, so little is held.

Where they do not (a day's logs sent at once, by many), more overlaps than may be held. Then what is held is given out
as a sorted stretch of its own (`begins` of the next rows is True), although later rows may belong between. Such
stretches have units that span a fraction of the time, so the next merge of them gets further; a few merges end it, as
in any external sort.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from ingest.envelope import TIMESTAMP
from storage.lake_columns import BUS_OFFSET, BUS_PARTITION

HELD_BYTES: Final = 96 << 20
"""Most that is held, as Arrow counts it; sorting it takes as much again twice over."""
CHUNK_BYTES: Final = 32 << 20
"""What is given out at a time, about; so much is gathered before it is looked what may go."""

_NULL_CELL: Final = 9  # bytes that Arrow takes for a null of large text
_ORDER: Final = [(name, "ascending", "at_start") for name in (TIMESTAMP, BUS_PARTITION, BUS_OFFSET)]
_TIME: Final = pa.timestamp("us", "UTC")
_EARLIEST: Final = -(1 << 63)


@dataclass(frozen=True, slots=True)
class Unit:
    """What is loaded at once: a row group.

    Attributes:
        file: Number of its file.
        group: Number of the row group in it.
        first: Earliest time in it, microseconds since 1970; None where the file does not say, and it is loaded first.
        bytes: About what it takes in memory.
    """

    file: int
    group: int
    first: int | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Sorted rows.

    Attributes:
        rows: In the order of time, then of the bus.
        begins: Whether they may lie before the rows given out last, and so belong in another file.
    """

    rows: pa.Table
    begins: bool


class ParquetInputs:
    """The files of one merge, opened when a unit of theirs is read."""

    def __init__(self, filesystem: FileSystem, paths: Sequence[str]) -> None:
        self._filesystem = filesystem
        self._paths = paths
        self._metadata = [self._read_metadata(path) for path in paths]

    @property
    def rows(self) -> int:
        """Of all files."""
        return sum(metadata.num_rows for metadata in self._metadata)

    @property
    def columns(self) -> frozenset[str]:
        """That any of the files has."""
        return frozenset(
            metadata.schema.column(at).name for metadata in self._metadata for at in range(metadata.num_columns)
        )

    def units(self) -> list[Unit]:
        """The row groups of all files."""
        found = []
        for number, metadata in enumerate(self._metadata):
            names = [metadata.schema.column(at).name for at in range(metadata.num_columns)]
            for group in range(metadata.num_row_groups):
                about = metadata.row_group(group)
                size = max(about.total_byte_size, about.num_rows * len(names) * _NULL_CELL)
                found.append(Unit(number, group, _first_time(about, names), size))
        return found

    def load(self, unit: Unit) -> pa.Table:
        """The rows of a unit."""
        with self._filesystem.open_input_file(self._paths[unit.file]) as source:
            file = pq.ParquetFile(source, metadata=self._metadata[unit.file], pre_buffer=True)
            return file.read_row_group(unit.group, use_threads=False)

    def _read_metadata(self, path: str) -> pq.FileMetaData:
        with self._filesystem.open_input_file(path) as source:
            return pq.read_metadata(source)


@dataclass(slots=True)
class _Held:
    """Rows that were loaded and not given out."""

    schema: pa.Schema
    tables: list[pa.Table] = field(default_factory=list)
    bytes: int = 0
    looked: int = 0  # bytes that stayed when it was last looked what may go

    def add(self, rows: pa.Table) -> None:
        self.tables.append(rows)
        self.bytes += _cost(rows, self.schema)

    def take(self, before: int | None) -> pa.Table | None:
        """Take out what is not later than a time and what has none, or all, sorted; None if there is nothing."""
        taken, kept = list[pa.Table](), list[pa.Table]()
        for rows in self.tables:
            if before is None:
                taken.append(rows)
                continue
            times = rows.column(TIMESTAMP)
            early = pc.or_kleene(pc.is_null(times), pc.less_equal(times, pa.scalar(before, _TIME)))
            taken.append(rows.filter(early))
            kept.append(rows.filter(pc.invert(early)))
        self.tables = [rows for rows in kept if rows.num_rows]
        self.bytes = self.looked = sum(_cost(rows, self.schema) for rows in self.tables)
        taken = [_conformed(rows, self.schema) for rows in taken if rows.num_rows]
        if not taken:
            return None
        return pa.concat_tables(taken).sort_by(_ORDER)  # type: ignore[arg-type]  # its stubs lack the place of nulls


def sweep(
    units: Sequence[Unit],
    load: Callable[[Unit], pa.Table],
    schema: pa.Schema,
    *,
    held_bytes: int = HELD_BYTES,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Stretch]:
    """All rows of the units, each once, in the order of time as far as memory allows.

    Args:
        units: In any order.
        load: Gives the rows of one.
        schema: Columns of what is given out; what a unit lacks is null.
        held_bytes: Most that is held; one unit may be larger, and is then held alone.
        chunk_bytes: So much is gathered before anything is given out.
    """
    held = _Held(schema)
    begins = True
    for unit in sorted(units, key=lambda unit: (unit.first is not None, unit.first or 0, unit.file, unit.group)):
        full = held.bytes + unit.bytes > held_bytes
        if held.bytes >= held.looked + chunk_bytes or (full and held.tables):
            rows = held.take(_EARLIEST if unit.first is None else unit.first)
            if rows is not None:
                yield Stretch(rows, begins)
                begins = False
        if held.tables and held.bytes + unit.bytes > held_bytes:
            rows = held.take(None)
            if rows is not None:
                yield Stretch(rows, begins)
                begins = True
        held.add(load(unit))
    rows = held.take(None)
    if rows is not None:
        yield Stretch(rows, begins)


def _first_time(group: pq.RowGroupMetaData, names: Sequence[str]) -> int | None:
    if TIMESTAMP not in names:
        return None
    statistics = group.column(names.index(TIMESTAMP)).statistics
    found = statistics.min_raw if statistics is not None and statistics.has_min_max else None
    return found if isinstance(found, int) else None


def _cost(rows: pa.Table, schema: pa.Schema) -> int:
    """Bytes of rows, with the nulls that they will be given."""
    return int(rows.nbytes) + rows.num_rows * (len(schema) - rows.num_columns) * _NULL_CELL


def _conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    there = set(rows.column_names)
    return pa.table(
        [
            rows.column(column.name).cast(column.type) if column.name in there else pa.nulls(rows.num_rows, column.type)
            for column in schema
        ],
        schema=schema,
    )

"""Large sorted files: written as they come, a row group at a time, with their hash and their statistics.

Row groups are small enough to be worth skipping (`GROUP_ROWS`), and say the least and the greatest value of every
column, so that a reader who asks for an hour, a host or an address leaves most of them out. For hosts, users and
addresses, which time order scatters, there are Bloom filters besides, of a few kilobytes (DuckDB and Spark use them).
"""

from __future__ import annotations

import hashlib
import io
import time
import uuid
from collections.abc import Mapping
from typing import Final

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction
from pyarrow.fs import FileSystem

from ingest.envelope import EVENT_ID, TIMESTAMP
from storage.lake_columns import BUS_OFFSET, BUS_PARTITION, BUS_TOPIC
from storage.lake_files import COMPRESSION, COMPRESSION_LEVEL, Written, time_span
from storage.lake_place import LakePlace

GROUP_ROWS: Final = 100_000
GROUP_BYTES: Final = 24 << 20
"""In memory: a merge of such files holds one row group of each."""
BLOOM_COLUMNS: Final = ("host.name", "user.name", "source.ip", "destination.ip")
_BLOOM: Final = {"ndv": 4096, "fpp": 0.01}  # 8 kB; with more values it says "perhaps" more often, never a wrong "no"
_INDEXED: Final = (BUS_TOPIC, BUS_PARTITION, BUS_OFFSET, EVENT_ID)


class SortedFiles:
    """Writes rows in time order to files of about a size, all in one partition of a table.

    Args:
        place: Where the lake lies.
        table: The table's path in it.
        folder: Of the partition, below the table's.
        values: The partition's, for the log.
        schema: Of the rows, without the partition's columns.
        file_bytes: A file ends when it is this large.
    """

    def __init__(
        self,
        place: LakePlace,
        table: str,
        folder: str,
        values: Mapping[str, str | None],
        schema: pa.Schema,
        file_bytes: int,
    ) -> None:
        self._place = place
        self._filesystem = place.filesystem()
        self._table = table
        self._folder = folder
        self._values = values
        self._schema = schema
        self._file_bytes = file_bytes
        self._open: _SortedFile | None = None
        self._written: list[Written] = []

    def write(self, rows: pa.Table, *, begins: bool = False) -> None:
        """Add rows; with `begins`, to a new file, since they are not later than the last ones."""
        if begins:
            self._end()
        step = min(GROUP_ROWS, max(1, rows.num_rows * GROUP_BYTES // max(1, rows.nbytes)))
        for first in range(0, rows.num_rows, step):
            if self._open is None:
                path = f"{self._folder}/sorted-{uuid.uuid4()}.zstd.parquet"
                self._open = _SortedFile(self._filesystem, f"{self._table}/{path}", path, self._schema)
            self._open.write(rows.slice(first, step))
            if self._open.size >= self._file_bytes:
                self._end()

    def close(self) -> list[Written]:
        """End the last file; all of them, durable."""
        self._end()
        return self._written

    def abandon(self) -> None:
        """Remove what was written: nothing names it yet."""
        if self._open is not None:
            self._open.close()
            self._place.delete(f"{self._table}/{self._open.path}")
            self._open = None
        for file in self._written:
            self._place.delete(f"{self._table}/{file.action.path}")
        self._written = []

    def _end(self) -> None:
        if self._open is None:
            return
        self._open.close()
        self._place.sync([f"{self._table}/{self._open.path}", f"{self._table}/{self._folder}"])
        self._written.append(self._open.written(self._values))
        self._open = None


class _SortedFile:
    """One file that is being written."""

    def __init__(self, filesystem: FileSystem, place_path: str, path: str, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._statistics = {name: _Extremes() for name in (*_INDEXED, TIMESTAMP)}
        self._sink = _HashedSink(filesystem.open_output_stream(place_path))
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            schema,
            compression=COMPRESSION,
            compression_level=COMPRESSION_LEVEL,
            sorting_columns=[pq.SortingColumn(schema.get_field_index(TIMESTAMP), nulls_first=True)],
            bloom_filter_options={name: _BLOOM for name in BLOOM_COLUMNS if name in schema.names},
        )

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._sink.size

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self.rows += rows.num_rows
        for name, extremes in self._statistics.items():
            extremes.see(rows.column(name))

    def close(self) -> None:
        self._writer.close()
        self._sink.end()

    def written(self, values: Mapping[str, str | None]) -> Written:
        action = AddAction(
            path=self.path,
            size=self._sink.size,
            partition_values=dict(values),
            modification_time=time.time_ns() // 1_000_000,
            data_change=False,
            stats=self._delta_statistics(),
        )
        return Written(action, self._sink.sha256)

    def _delta_statistics(self) -> str:
        least: dict[str, object] = {name: self._statistics[name].least for name in _INDEXED}
        most: dict[str, object] = {name: self._statistics[name].most for name in _INDEXED}
        times = self._statistics[TIMESTAMP]
        span = time_span(pl.Series([times.least, times.most], dtype=pl.Int64()).cast(pl.Datetime("us", "UTC")))
        if span is not None:
            least[TIMESTAMP], most[TIMESTAMP] = span
        nulls = {name: self._statistics[name].nulls for name in least}
        found = {"numRecords": self.rows, "minValues": least, "maxValues": most, "nullCount": nulls}
        return orjson.dumps(found).decode()


class _Extremes:
    """Least and greatest value of a column, and its nulls, over several pieces; times as their number."""

    def __init__(self) -> None:
        self.least: str | int | None = None
        self.most: str | int | None = None
        self.nulls = 0

    def see(self, column: pa.ChunkedArray[pa.Scalar[pa.DataType]]) -> None:
        self.nulls += column.null_count
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())  # a year beyond 9999 is no datetime of Python
        least, most = pc.min(column).as_py(), pc.max(column).as_py()
        if least is not None and most is not None:
            self.least = least if self.least is None else min(self.least, least)
            self.most = most if self.most is None else max(self.most, most)


class _HashedSink(io.RawIOBase):
    """A stream to a place that hashes what goes through it: what was written, not what a later reading finds."""

    def __init__(self, stream: pa.NativeFile) -> None:
        super().__init__()
        self.size = 0
        self._stream = stream
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        content = memoryview(data).cast("B")  # type: ignore[arg-type]  # Arrow gives bytes or a buffer
        self._digest.update(content)
        self._stream.write(content)
        self.size += len(content)
        return len(content)

    def tell(self) -> int:
        return self.size

    def end(self) -> None:
        """Close the stream beneath: Arrow leaves that to whoever opened it."""
        if not self._stream.closed:
            self._stream.close()

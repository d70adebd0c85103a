"""Parquet files of events: those of a lake of Tocsin as the lines they were, others as one JSON object a row.

A file with the columns `event.id` and `event.original` was written by Tocsin. Its lines are read again from the
original, under the same ids: a newer version then sees what its formats understand today, and a file that was copied
out of its folder needs nothing else to tell its log source. (`tocsin hunt --lake` reads the parsed events instead.) In
a file of another tool a row is an object with the names of the columns.

Traps: Parquet holds what Python's datetime does not: nanoseconds (pandas writes nothing else), of which three digits
are dropped, and times far from our own, which are passed on as Arrow writes them; and text that is not UTF-8.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, TypeAlias

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.envelope import EVENT_ID, ORIGINAL, PEER, RECEIVED, TENANT
from ingest.event_archives import seekable
from ingest.event_source import ByteSource, ReadItem, Rows, SourceBatch, SourceProblem
from ingest.rawbatch import RAW_SCHEMA

Column: TypeAlias = "pa.Array[Any]"  # whatever a file holds

PARQUET_MAGIC: Final = b"PAR1"
BATCH_ROWS: Final = 20_000

# Beside Arrow's own: a value that is none of its type (ValueError, OverflowError), a JSON line nested too deeply.
READ_ERRORS: Final = (pa.ArrowException, OSError, ValueError, OverflowError, orjson.JSONEncodeError)


def read_parquet(source: ByteSource, now: dt.datetime) -> Iterator[ReadItem | SourceBatch]:
    """Yield the rows of a Parquet file; rows count from 1, unless they have ids already."""
    row = 1
    with seekable(source) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS):
                originals = _originals(batch, now)
                if originals is not None:
                    yield SourceBatch(source.name, originals)
                else:
                    yield Rows(row, _lines(batch))
                row += batch.num_rows
        except READ_ERRORS as error:
            place = f"from row {row}" if row > 1 else ""
            reason = f"broken Parquet: {str(error).splitlines()[0]}"
            yield SourceProblem(source.name, place, reason, "damaged" if place else "unreadable")


def _originals(batch: pa.RecordBatch, now: dt.datetime) -> pl.DataFrame | None:
    """The raw lines of events that Tocsin stored; None if the columns it would have written are not all there.

    A time that is not understood, or is missing, is `now`. Other tools use the same names (they are ECS's) and leave
    the raw line out of some rows: such a batch is read from its other columns, so that no row is lost.
    """
    if not {EVENT_ID, ORIGINAL} <= set(batch.schema.names) or batch.column(ORIGINAL).null_count:
        return None
    try:
        return _select_originals(pl.DataFrame(batch), now)
    except pl.exceptions.PolarsError:  # another tool's columns under these names, such as a nested tenant
        return None


def _select_originals(events: pl.DataFrame, now: dt.datetime) -> pl.DataFrame:
    columns = {"received": RECEIVED, "tenant": TENANT, "peer": PEER}
    known = [
        pl.col(name).cast(RAW_SCHEMA[raw], strict=False).alias(raw)
        for raw, name in columns.items()
        if name in events.columns
    ]
    missing = [pl.lit(None, RAW_SCHEMA[raw]).alias(raw) for raw, name in columns.items() if name not in events.columns]
    return events.select(
        pl.col(ORIGINAL).cast(pl.Binary).alias("line"),
        *known,
        *missing,
        pl.lit(None, pl.String).alias("mark"),
        pl.col(EVENT_ID).cast(pl.String),
    ).select(
        "line",
        pl.col("received").fill_null(pl.lit(now).cast(RAW_SCHEMA["received"])),
        "mark",
        "tenant",
        "peer",
        EVENT_ID,
    )


def _lines(batch: pa.RecordBatch) -> list[bytes]:
    """A JSON object a row."""
    names = batch.schema.names
    rows = zip(*map(_values, batch.columns), strict=True)
    records = ({name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows)
    return [orjson.dumps(record, default=_as_text) for record in records]


def _values(column: Column) -> list[object]:
    """The values of a column."""
    try:
        return list(_cast(column, _microseconds).to_pylist())
    except (ValueError, OverflowError):
        return list(_cast(column, _text_or_bytes).to_pylist())


def _cast(column: Column, leaf: Callable[[pa.DataType], pa.DataType]) -> Column:
    wanted = _changed(column.type, leaf)
    return column if wanted.equals(column.type) else column.cast(wanted, safe=False)  # safe: no digit may be dropped


def _changed(kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The type with `leaf` of each type that it is made of."""

    def inner(field: pa.Field[pa.DataType]) -> pa.Field[pa.DataType]:
        return field.with_type(_changed(field.type, leaf))

    if pa.types.is_struct(kind):
        return pa.struct([inner(kind.field(index)) for index in range(kind.num_fields)])
    if pa.types.is_list(kind):
        return pa.list_(inner(kind.value_field))
    if pa.types.is_large_list(kind):
        return pa.large_list(inner(kind.value_field))
    if pa.types.is_map(kind):
        key, item = (_changed(field.type, leaf) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item)
    return _changed(kind.value_type, leaf) if pa.types.is_dictionary(kind) else leaf(kind)


def _microseconds(kind: pa.DataType) -> pa.DataType:
    """What Python's datetime can hold, as far as the type tells; in UTC, since a zone's name may be anything."""
    if pa.types.is_timestamp(kind):
        unit: Literal["s", "ms", "us"] = "us" if kind.unit == "ns" else kind.unit
        return pa.timestamp(unit) if kind.tz is None else pa.timestamp(unit, "UTC")
    if pa.types.is_time64(kind):
        return pa.time64("us")
    return pa.duration("us") if pa.types.is_duration(kind) and kind.unit == "ns" else kind


def _text_or_bytes(kind: pa.DataType) -> pa.DataType:
    """What can be read whatever the values are."""
    if pa.types.is_temporal(kind):
        return pa.string()
    return pa.large_binary() if pa.types.is_string(kind) or pa.types.is_large_string(kind) else kind


def _as_text(value: object) -> str:
    """A value that JSON has no type for."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)

"""Parquet files of events: those of a lake of Tocsin as the lines they were, others as one JSON object a row.

A file with the columns `event.id` and `event.original` was written by Tocsin. Its lines are read again from the
original, under the same ids: a newer version then sees what its formats understand today, and a file that was copied
out of its folder needs nothing else to tell its log source. (`tocsin hunt --lake` reads the parsed events instead.) In
a file of another tool a row is an object with the names of the columns.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.envelope import EVENT_ID, ORIGINAL, PEER, RECEIVED, TENANT
from ingest.event_archives import seekable
from ingest.event_source import ByteSource, ReadItem, Rows, SourceBatch, SourceProblem
from ingest.rawbatch import RAW_SCHEMA

PARQUET_MAGIC: Final = b"PAR1"
BATCH_ROWS: Final = 20_000


def read_parquet(source: ByteSource, now: dt.datetime) -> Iterator[ReadItem | SourceBatch]:
    """Yield the rows of a Parquet file; rows count from 1, unless they have ids already."""
    row = 1
    with seekable(source) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS):
                if {EVENT_ID, ORIGINAL} <= set(batch.schema.names):
                    yield SourceBatch(source.name, _originals(batch, now))
                else:
                    yield Rows(row, [_line(record) for record in batch.to_pylist()])
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            place = f"from row {row}" if row > 1 else ""
            reason = f"broken Parquet: {str(error).splitlines()[0]}"
            yield SourceProblem(source.name, place, reason, "damaged" if place else "unreadable")


def _originals(batch: pa.RecordBatch, now: dt.datetime) -> pl.DataFrame:
    """The raw lines of events that Tocsin stored."""
    events = pl.DataFrame(batch)
    columns = {"received": RECEIVED, "tenant": TENANT, "peer": PEER}
    known = [pl.col(name).cast(RAW_SCHEMA[raw]).alias(raw) for raw, name in columns.items() if name in events.columns]
    missing = [pl.lit(None, RAW_SCHEMA[raw]).alias(raw) for raw, name in columns.items() if name not in events.columns]
    return (
        events.filter(pl.col(ORIGINAL).is_not_null())
        .select(
            pl.col(ORIGINAL).cast(pl.Binary).alias("line"),
            *known,
            *missing,
            pl.lit(None, pl.String).alias("mark"),
            pl.col(EVENT_ID).cast(pl.String),
        )
        .select(
            "line",
            pl.col("received").fill_null(pl.lit(now).cast(RAW_SCHEMA["received"])),
            "mark",
            "tenant",
            "peer",
            EVENT_ID,
        )
    )


def _line(record: dict[str, object]) -> bytes:
    return orjson.dumps({name: value for name, value in record.items() if value is not None}, default=_as_text)


def _as_text(value: object) -> object:
    """A value that JSON has no type for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Decimal | dt.timedelta):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")

"""Alerts and decisions as Parquet files, for other tools: streamed, each file whole or not at all.

DuckDB itself may not touch files here (`enable_external_access`), so Arrow writes them.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storage.alert_state import name_of
from storage.errors import StoreError

BATCH_ROWS: Final = 10_000
PART_ROWS: Final = 100_000

ALERTS_FILE: Final = "alerts.parquet"
DECISIONS_FILE: Final = "decisions.parquet"

_ALERTS: Final = (
    f"SELECT a.* EXCLUDE (n), {name_of('s.status')} AS status FROM alerts a JOIN state s ON s.n = a.n "  # noqa: S608
    "WHERE a.n > {first} AND a.n <= {last} AND s.n > {first} AND s.n <= {last} ORDER BY a.n"
)
_DECISIONS: Final = "SELECT * FROM decisions ORDER BY seq"


def export_tables(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[Path]:
    """Write `alerts.parquet` (with status) and `decisions.parquet`, replacing a file only when it is whole.

    Raises:
        StoreError: A file could not be written.
    """
    connection.begin()  # one snapshot for both files
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, batches in ((ALERTS_FILE, alert_batches(connection)), (DECISIONS_FILE, _decisions(connection))):
            target, partial = folder / name, folder / f".{name}.{os.getpid()}"
            with ExitStack() as undo:
                undo.callback(partial.unlink, missing_ok=True)
                write_parquet(batches, partial)
                partial.replace(target)
                undo.pop_all()
            written.append(target)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot export to {folder}: {error}") from error
    return written


def alert_batches(connection: duckdb.DuckDBPyConnection) -> Generator[pa.RecordBatch, None, None]:
    """All alerts with their status, in the order of their arrival: by parts, since sorting all takes a disk."""
    last = int(connection.execute("SELECT coalesce(max(n), 0) FROM alerts").fetchall()[0][0])
    for first in range(0, max(last, 1), PART_ROWS):  # one part at least: an empty file has columns too
        yield from batches_of(connection, _ALERTS.format(first=first, last=first + PART_ROWS))


def write_parquet(batches: Generator[pa.RecordBatch, None, None], path: Path) -> int:
    """Write batches, of which there is one at least, to a file that is durable when this returns; their rows."""
    rows = 0
    with closing(batches), path.open("wb") as file:
        first = next(batches)
        with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
            for batch in chain([first], batches):
                writer.write_batch(batch)
                rows += batch.num_rows
        file.flush()
        os.fsync(file.fileno())
    return rows


def sync_folder(folder: Path) -> None:
    """Make durable which files a folder holds."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def batches_of(connection: duckdb.DuckDBPyConnection, query: str) -> Generator[pa.RecordBatch, None, None]:
    """The rows of a query; one empty batch where there are none, so that the columns are known."""
    # Closed by hand: a reader that lives on in the traceback of an error keeps the whole database open in this process,
    # and opening the file again would wait for it for ever.
    with closing(connection.sql(query).to_arrow_reader(BATCH_ROWS)) as reader:
        empty = True
        for batch in reader:
            empty = False
            yield batch
        if empty:
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)


def _decisions(connection: duckdb.DuckDBPyConnection) -> Generator[pa.RecordBatch, None, None]:
    yield from batches_of(connection, _DECISIONS)

"""Alerts and decisions as Parquet files, for other tools: streamed, whole or not at all."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import StoreError

BATCH_ROWS: Final = 10_000

TABLES: Final[dict[str, str]] = {
    "alerts": "SELECT a.* EXCLUDE (n), s.status FROM alerts a JOIN state s ON s.n = a.n ORDER BY a.n",
    "decisions": "SELECT * FROM decisions ORDER BY seq",
}
"""File -> the query it holds."""


def export_tables(connection: duckdb.DuckDBPyConnection, folder: Path) -> list[Path]:
    """Write each table to `<folder>/<name>.parquet`, replacing the file only when it is whole.

    DuckDB itself may not touch files here (`enable_external_access`), so Arrow writes them.
    """
    written: list[Path] = []
    connection.begin()  # one snapshot for all files
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, query in TABLES.items():
            target = folder / f"{name}.parquet"
            partial = folder / f".{name}.parquet.{os.getpid()}"
            _write(connection, query, partial)
            partial.replace(target)
            written.append(target)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"cannot export to {folder}: {error}") from error
    return written


def _write(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    reader = connection.sql(query).to_arrow_reader(BATCH_ROWS)
    with ExitStack() as undo:
        undo.callback(path.unlink, missing_ok=True)
        with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
        undo.pop_all()

"""SQL over the lake: DuckDB over the tables' files, as batches that come as they are made.

Each table is a view over its files in Arrow: what a query asks of `@timestamp`, `date` and `organization.id` is handed
down, so that files, and row groups within them, are left out, and so are the columns that it does not name. DuckDB
holds what grouping and sorting need, up to `MEMORY`; there is no folder to spill into, and a query that needs more ends
with an error that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import duckdb
import polars as pl
import pyarrow as pa

from ingest.envelope import ENVELOPE
from storage.errors import LakeError
from storage.lake_columns import DATE, LAKE_COLUMNS
from storage.lake_scan import Snapshot, dataset
from storage.lake_table import LAKE_FAULTS

EVENTS_VIEW: Final = "events"
LOGSOURCE_COLUMN: Final = "logsource"
MEMORY: Final = "2GB"
BATCH_ROWS: Final = 10_000

_OFFLINE: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


@contextmanager
def sql_rows(name: str, tables: Sequence[Snapshot], sql: str) -> Iterator[pa.RecordBatchReader]:
    """The result of one query, in batches. It sees the tables and nothing else: no files, no network.

    Args:
        name: What to call the lake in messages.
        tables: What it sees, each under its folder's name, and all in the view `events`.
        sql: One query.

    Raises:
        LakeError: The query is wrong or takes too much memory, or a table cannot be read; also while batches are read.
    """
    try:
        with duckdb.connect(":memory:", config=_OFFLINE) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"SET memory_limit = '{MEMORY}'")
            connection.execute("SET temp_directory = ''")
            connection.execute("SET preserve_insertion_order = false")
            connection.execute("SET enable_external_access = false")
            _register_views(connection, tables)
            connection.execute("SET lock_configuration = true")
            result = connection.sql(sql)
            if result is None:
                raise LakeError(f"lake {name}: not a query: {sql}")
            yield result.to_arrow_reader(BATCH_ROWS)
    except BrokenPipeError:
        raise  # whoever reads our output has had enough
    except (duckdb.Error, pa.ArrowException, *LAKE_FAULTS) as error:
        # DuckDB draws where in the query it stumbled, below its first line
        raise LakeError(f"lake {name}: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def _register_views(connection: duckdb.DuckDBPyConnection, tables: Sequence[Snapshot]) -> None:
    kinds = {DATE: LAKE_COLUMNS[DATE], **ENVELOPE}
    columns = ", ".join(_quoted(name) for name in kinds)
    selects: list[str] = []
    for table in tables:
        connection.register(table.name, dataset(table))
        literal = str(table.logsource).replace("'", "''")
        selects.append(f"SELECT '{literal}' AS {LOGSOURCE_COLUMN}, {columns} FROM {_quoted(table.name)}")  # noqa: S608
    if not selects:
        connection.register("nothing", pl.DataFrame(schema={LOGSOURCE_COLUMN: pl.String(), **kinds}))
        selects.append("SELECT * FROM nothing")
    connection.execute(f"CREATE VIEW {EVENTS_VIEW} AS {' UNION ALL '.join(selects)}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

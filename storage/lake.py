"""The lake: every event, one Delta table a log source, under `<path>/events/<product>.<category>.<service>`.

Any Delta reader (DuckDB, Polars, Spark, Trino) can read it without Tocsin: column names are those of the event frame,
percent-encoded where the format demands it (`storage.lake_columns`), partitioned by `date` and `organization.id`. How
events get in exactly once is told in `storage.lake_table`; compaction and expiry work on the same tables and are not
here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb
import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from ingest.bus import Partition
from ingest.envelope import ENVELOPE, EVENT_ID, EventFrame
from ingest.logsource import LogSource
from storage.errors import LakeError
from storage.lake_columns import from_lake
from storage.lake_scan import BATCH_ROWS, Scope, Snapshot, bus_partitions, count, dataset, find, scan
from storage.lake_table import LAKE_FAULTS, app_id, described
from storage.lake_writer import LakeWriter

EVENTS_VIEW: Final = "events"
LOGSOURCE_COLUMN: Final = "logsource"
_OFFLINE: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class Lake:
    """Events at rest. Opening it makes its folder; reading sees what was committed when the reading began."""

    def __init__(self, path: Path) -> None:
        """Open the lake at a folder.

        Raises:
            LakeError: The folder cannot be made.
        """
        self.path = path
        self._events = path / "events"
        try:
            self._events.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LakeError(f"lake {path}: cannot make its folder: {error}") from error

    def writer(self) -> LakeWriter:
        """A writer for one worker thread."""
        return LakeWriter(self._events)

    def tables(self) -> list[LogSource]:
        """The log sources that have events, by table name."""
        return [table.logsource for table in self._open_tables()]

    def read(
        self,
        logsources: Collection[LogSource] | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        tenants: Collection[str] | None = None,
        batch_rows: int = BATCH_ROWS,
        fields: Callable[[LogSource], Collection[str] | None] | None = None,
    ) -> Iterator[EventFrame]:
        """Events as parsing gave them, in frames of bounded size.

        Args:
            logsources: As rules name them: a table is read if any of these meets it. `None` reads all tables.
            since: First event time, inclusive, with time zone; so too `until`, exclusive.
            until: See `since`.
            tenants: Hospitals; `None` is all, an empty collection none.
            batch_rows: Most rows of a frame.
            fields: Log source of a table -> the fields wanted of it: `None` is all; an empty collection leaves the
                table out. What was not asked for is missing from the frames, and the raw line is null.

        Raises:
            LakeError: A table cannot be read.
            ValueError: A time has no time zone.
        """
        scope = Scope(since, until, tenants)
        for table in self._open_tables(logsources):
            wanted = None if fields is None else fields(table.logsource)
            if wanted is not None and not wanted:
                continue
            with _named(table.path):
                for rows in scan(table, scope, batch_rows, wanted):
                    for events in from_lake(rows):
                        yield EventFrame(table.logsource, events)

    def count(
        self,
        logsources: Collection[LogSource] | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        tenants: Collection[str] | None = None,
    ) -> int:
        """How many events `read` would give."""
        scope = Scope(since, until, tenants)
        total = 0
        for table in self._open_tables(logsources):
            with _named(table.path):
                total += count(table, scope)
        return total

    def find(
        self, event_ids: Sequence[str], *, tenants: Collection[str] | None = None
    ) -> list[dict[str, str | datetime]]:
        """The events with these ids, in the order asked for; each a field -> value without nulls, plus `logsource`.

        Ids that the lake does not hold are left out. `tenants` hides the events of other hospitals.
        """
        places = {place for event_id in event_ids if (place := _bus_place(event_id)) is not None}
        found: dict[str, dict[str, str | datetime]] = {}
        for table in self._open_tables() if places else ():
            with _named(table.path):
                rows = find(table, places, event_ids)
                events = [] if rows is None else [row for part in from_lake(rows) for row in part.iter_rows(named=True)]
            for event in events:
                if tenants is None or event["organization.id"] in tenants:
                    filled = {name: value for name, value in event.items() if value is not None}
                    found[event[EVENT_ID]] = {**filled, LOGSOURCE_COLUMN: str(table.logsource)}
        return [found[event_id] for event_id in dict.fromkeys(event_ids) if event_id in found]

    def held(self, topic: str) -> dict[Partition, int]:
        """The highest offset that any table holds of each partition of a bus topic; those without one are left out.

        On a bus that was begun anew under the old names, these lie at or past the ends of its partitions, and what it
        brings would be taken for known (docs/decisions/0006-lake-offsets.md).

        Raises:
            LakeError: A table cannot be read.
        """
        tables = self._open_tables()
        ends: list[int] = []
        for table in tables:
            with _named(table.path):
                ends.append(bus_partitions(table, topic))
        partitions = [Partition(topic, number) for number in range(max(ends, default=0))]
        found: dict[Partition, int] = {}
        for table in tables:
            with _named(table.path):
                for partition in partitions:
                    version = table.delta.transaction_version(app_id(partition))
                    if version is not None:
                        found[partition] = max(version, found.get(partition, version))
        return found

    def query(self, sql: str) -> pl.DataFrame:
        """The result of one SQL query (DuckDB).

        Every table is a view under its folder's name (`"windows.process_creation._"`, in its lake columns; of a table
        with more fields than columns, the others are JSON in `"fields.rest"`), and
        `events` is the envelope of them all with the `logsource` as product/category/service. The query sees nothing
        else: no files, no network.

        Raises:
            LakeError: The query is wrong, or a table cannot be read.
        """
        with duckdb.connect(":memory:", config=_OFFLINE) as connection:
            try:
                connection.execute("SET TimeZone = 'UTC'")
                connection.execute("SET enable_external_access = false")
                self._register_views(connection)
                connection.execute("SET lock_configuration = true")
                result = connection.sql(sql)
            except duckdb.Error as error:
                raise LakeError(f"lake {self.path}: {error}") from error
            if result is None:
                raise LakeError(f"lake {self.path}: not a query: {sql}")
            try:
                rows = result.to_arrow_table()
            except (duckdb.Error, pa.ArrowException) as error:
                raise LakeError(f"lake {self.path}: {error}") from error
        return pl.DataFrame(rows)

    def _register_views(self, connection: duckdb.DuckDBPyConnection) -> None:
        columns = ", ".join(_quoted(name) for name in ENVELOPE)
        selects: list[str] = []
        for table in self._open_tables():
            view = table.path.name
            with _named(table.path):
                connection.register(view, dataset(table))
            literal = str(table.logsource).replace("'", "''")
            selects.append(f"SELECT '{literal}' AS {LOGSOURCE_COLUMN}, {columns} FROM {_quoted(view)}")  # noqa: S608
        if not selects:
            connection.register("nothing", pl.DataFrame(schema={LOGSOURCE_COLUMN: pl.String(), **ENVELOPE}))
            selects.append("SELECT * FROM nothing")
        connection.execute(f"CREATE VIEW {EVENTS_VIEW} AS {' UNION ALL '.join(selects)}")

    def _open_tables(self, logsources: Collection[LogSource] | None = None) -> list[Snapshot]:
        opened: list[Snapshot] = []
        for folder in sorted(path for path in self._events.iterdir() if path.is_dir()):
            with _named(folder):
                if not DeltaTable.is_deltatable(str(folder)):
                    continue  # being created at this moment, or not ours
                delta = DeltaTable(str(folder))
                logsource = described(delta)
            if logsources is None or any(wanted.meets(logsource) for wanted in logsources):
                opened.append(Snapshot(folder, logsource, delta))
        return opened


@contextmanager
def _named(table: Path) -> Iterator[None]:
    """Say which table it was."""
    try:
        yield
    except (*LAKE_FAULTS, pa.ArrowException) as error:
        raise LakeError(f"lake table {table}: cannot read: {error}") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _bus_place(event_id: str) -> tuple[int, int] | None:
    """(partition, offset) of an event id `topic:partition:offset:row`; none for ids of other makes, as of files."""
    parts = event_id.rsplit(":", 3)
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts[1:]):
        return None
    return int(parts[1]), int(parts[2])

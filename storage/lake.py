"""The lake: every event, one Delta table a log source, under `events/<product>.<category>.<service>` of its place.

Any Delta reader (DuckDB, Polars, Spark, Trino) can read it without Tocsin: column names are those of the event frame,
percent-encoded where the format demands it (`storage.lake_columns`), partitioned by `date` and `organization.id`. How
events get in exactly once is told in `storage.lake_table`; compaction and expiry work on the same tables and are not
here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

from ingest.bus import Partition
from ingest.envelope import EVENT_ID, EventFrame
from ingest.logsource import LogSource
from storage.errors import LakeError
from storage.lake_columns import from_lake
from storage.lake_place import LakePlace, LocalPlace
from storage.lake_scan import BATCH_ROWS, ScanCounts, Scope, Snapshot, bus_partitions, count, find, scan
from storage.lake_sql import LOGSOURCE_COLUMN, sql_rows
from storage.lake_table import EVENTS, LAKE_FAULTS, app_id, described, reason_of
from storage.lake_writer import LakeWriter


class Lake:
    """Events at rest; reading sees what was committed when the reading began.

    Args:
        place: Where it lies (`storage.lake_place`); a path is a folder on a local disk, which is made.

    Raises:
        LakeError: The folder cannot be made.
    """

    def __init__(self, place: LakePlace | Path) -> None:
        self.place: LakePlace = LocalPlace(place) if isinstance(place, Path) else place

    def writer(self) -> LakeWriter:
        """A writer for one worker thread."""
        return LakeWriter(self.place)

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
        counts: ScanCounts | None = None,
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
            counts: Filled, table by table, with the files that were considered and those that were left out.

        Raises:
            LakeError: A table cannot be read.
            ValueError: A time has no time zone.
        """
        scope = Scope(since, until, tenants)
        for table in self._open_tables(logsources):
            wanted = None if fields is None else fields(table.logsource)
            if wanted is not None and not wanted:
                continue
            with _reading(table):
                for rows in scan(table, scope, batch_rows, wanted, counts):
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
            with _reading(table):
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
            with _reading(table):
                rows = find(table, places, event_ids, tenants)
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
            with _reading(table):
                ends.append(bus_partitions(table, topic))
        partitions = [Partition(topic, number) for number in range(max(ends, default=0))]
        found: dict[Partition, int] = {}
        for table in tables:
            with _reading(table):
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
        with self.stream(sql) as batches:
            return pl.DataFrame(batches.read_all())

    def stream(self, sql: str) -> AbstractContextManager[pa.RecordBatchReader]:
        """The same, in batches that come as they are made."""
        return sql_rows(self.place.name, self._open_tables(), sql)

    def snapshots(self) -> list[Snapshot]:
        """The tables as they stand now, by name."""
        return self._open_tables()

    def _open_tables(self, logsources: Collection[LogSource] | None = None) -> list[Snapshot]:
        opened: list[Snapshot] = []
        for folder in self._table_folders():
            path = f"{EVENTS}/{folder}"
            with _named(self.place, path):
                uri, options = self.place.uri(path), self.place.options
                if not DeltaTable.is_deltatable(uri, options):
                    continue  # being created at this moment, or not ours
                delta = DeltaTable(uri, storage_options=options)
                logsource = described(delta)
            if logsources is None or any(wanted.meets(logsource) for wanted in logsources):
                opened.append(Snapshot(self.place, path, logsource, delta))
        return opened

    def _table_folders(self) -> list[str]:
        with _named(self.place, EVENTS):
            return self.place.folders(EVENTS)


@contextmanager
def _named(place: LakePlace, path: str) -> Iterator[None]:
    """Say which table it was."""
    try:
        yield
    except (*LAKE_FAULTS, pa.ArrowException) as error:
        raise LakeError(f"lake table {place.name}/{path}: cannot read: {reason_of(error)}") from error


def _reading(table: Snapshot) -> AbstractContextManager[None]:
    return _named(table.place, table.path)


def _bus_place(event_id: str) -> tuple[int, int] | None:
    """(partition, offset) of an event id `topic:partition:offset:row`; none for ids of other makes, as of files."""
    parts = event_id.rsplit(":", 3)
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts[1:]):
        return None
    return int(parts[1]), int(parts[2])

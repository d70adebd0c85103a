"""The detect worker's way into the lake: buffer by log source, flush by size or age, know what is durable.

The caller decides when to flush; the writer says what is buffered. Contract with the bus: `add` once for each record,
also for one without events, in offset order within a partition. When `flush` has returned, everything added is durable
and its offsets may be committed; if it raises, none may. What it returns are those offsets, of the records added since
the last flush: commit them, or what was read, which is the same if every record read was added.
A record delivered twice is taken once: here while this writer lives, by the tables' transactions after a crash.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from ingest.bus import Partition, Position
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import LogSource
from storage.errors import LakeError
from storage.lake_place import LakePlace
from storage.lake_table import Batch, LakeTable

OPEN_TABLES: Final = 128
"""Tables a writer keeps open, those written last. An open table holds its list of files in memory; to open it again
costs about 10 ms, and senders may name more log sources than a process can hold."""

ROOM_FILE: Final = ".room"
ROOM_BYTES: Final = 1024 * 1024
"""A disk with less room than this is full."""


class LakeWriter:
    """Appends event frames to the lake, each exactly once. Used by one thread at a time.

    Attributes:
        buffered_rows: Events waiting for the next flush.
        buffered_bytes: Their size in memory, estimated.
        written_rows: Events this writer has made durable.
        known_rows: Events of a flush that the lake held already. A number that keeps growing without a restart behind
            it means that the bus started anew under the same topic names (docs/decisions/0006-lake-offsets.md).
    """

    def __init__(self, place: LakePlace) -> None:
        self.buffered_rows = 0
        self.buffered_bytes = 0
        self.written_rows = 0
        self.known_rows = 0
        self._place = place
        self._tables: OrderedDict[LogSource, LakeTable] = OrderedDict()
        self._buffer: dict[LogSource, list[Batch]] = {}
        self._next: dict[Partition, int] = {}
        self._unflushed: set[Partition] = set()

    @property
    def open_tables(self) -> int:
        """How many tables are kept open: at most `OPEN_TABLES`."""
        return len(self._tables)

    def check(self) -> None:
        """See whether the lake takes anything now, by a file that is written and removed again.

        Raises:
            LakeError: It does not: its disk is full, or its store is away.
        """
        self._place.write(ROOM_FILE, bytes(ROOM_BYTES))
        self._place.delete(ROOM_FILE)

    def add(self, frames: Sequence[EventFrame], position: Position) -> None:
        """Buffer the events of one bus record.

        Raises:
            LakeError: A frame is not an event frame (nothing of the record is buffered).
        """
        partition = Partition(position.topic, position.partition)
        if position.offset < self._next.get(partition, 0):
            return
        for frame in frames:
            _check(frame, position)
        for frame in frames:
            if frame.events.height:
                self._buffer.setdefault(frame.logsource, []).append(Batch(position, frame.events))
                self.buffered_rows += frame.events.height
                self.buffered_bytes += int(frame.events.estimated_size())
        self._next[partition] = position.offset + 1
        self._unflushed.add(partition)

    def flush(self) -> Mapping[Partition, int]:
        """Make everything buffered durable; the next offset to read of each partition concerned.

        Raises:
            LakeError: A table could not be written. The buffer stands: flush again, or let the bus replay.
        """
        for logsource in list(self._buffer):
            batches = self._buffer[logsource]
            added = self._table(logsource).append(batches)
            rows = sum(batch.events.height for batch in batches)
            self.written_rows += added
            self.known_rows += rows - added
            self.buffered_rows -= rows
            self.buffered_bytes -= sum(int(batch.events.estimated_size()) for batch in batches)
            del self._buffer[logsource]
        durable = {partition: self._next[partition] for partition in self._unflushed}
        self._unflushed.clear()
        return durable

    def _table(self, logsource: LogSource) -> LakeTable:
        table = self._tables.pop(logsource, None) or LakeTable(self._place, logsource)
        self._tables[logsource] = table
        if len(self._tables) > OPEN_TABLES:
            self._tables.popitem(last=False)
        return table


def _check(frame: EventFrame, position: Position) -> None:
    where = f"frame of {frame.logsource} from {position.topic}:{position.partition}:{position.offset}"
    schema = dict(frame.events.schema)
    for name, kind in ENVELOPE.items():
        if schema.pop(name, None) != kind:
            raise LakeError(f"{where}: envelope column {name} is {frame.events.schema.get(name)}, not {kind}")
    for name, kind in schema.items():
        if kind not in (pl.String(), pl.Null()):
            raise LakeError(f"{where}: field {name} is {kind}, not String")

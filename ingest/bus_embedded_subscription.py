"""A group's member on the embedded bus: reads records in offset order, keeps the group's positions, holds its lease.

Each subscription reads through a connection of its own, so that a slow reader never holds up a writer, and closes every
read transaction at once: an open one would keep the write-ahead log from being copied back, and it would grow.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

from ingest.bus import BusError, Partition, Record, StartAt
from ingest.bus_counter import BusCounter
from ingest.bus_embedded_file import PARTITION, connect, take_lease

WAKE_INTERVAL: Final = 0.02
"""Seconds between two looks for what other processes wrote."""

MAX_POLL_BYTES: Final = 64 * 1024 * 1024
"""A poll stops after the record that passes this, so that large values do not multiply by `max_records`."""

_log = logging.getLogger(__name__)


class SharedLog(Protocol):
    """What a subscription needs of the bus that made it."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def counter(self) -> BusCounter:
        """What counts."""

    def store_positions(self, rows: Sequence[tuple[str, int, int, int]]) -> None:
        """Store (group, topic id, partition, next offset) durably."""

    def wait_for_publish(self, seconds: float) -> None:
        """Return when this process published something, or the time is over."""

    def forget(self, subscription: EmbeddedSubscription) -> None:
        """The subscription is closed."""


class EmbeddedSubscription:
    """The member of a group on an embedded bus. Made by `EmbeddedBus.subscribe`."""

    def __init__(self, bus: SharedLog, group: str, topics: Sequence[str], start_at: StartAt | None) -> None:
        self._bus = bus
        self._group = group
        self._lock = threading.Lock()  # between poll and a close of the bus from another thread
        self._closed = False
        self._lease = take_lease(bus.path, group)
        try:
            self._reader = connect(bus.path)
        except BusError:
            os.close(self._lease)
            raise
        with ExitStack() as undo:
            undo.callback(self.close)
            self._topics = {topic: self._topic_id(topic) for topic in topics}
            self._next = {topic: self._first_offset(topic, start_at) for topic in topics}
            undo.pop_all()

    def poll(self, timeout: float, max_records: int = 256) -> list[Record]:
        """Records in offset order within each topic; empty after `timeout` seconds without any.

        Raises:
            BusError: The file cannot be read, or the subscription is closed.
        """
        deadline = time.monotonic() + timeout
        while True:
            version = self._data_version()
            records = self._read(max_records)
            if records or not self._wait_for_change(version, deadline):
                self._bus.counter.read(records)
                return records

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Store, for the group, the next offset to read of each topic. Durable when it returns.

        Raises:
            BusError: A partition is not of this subscription, or the file cannot be written.
        """
        try:
            self._commit(positions)
        except BusError:
            self._bus.counter.not_committed()
            raise
        self._bus.counter.committed()

    def _commit(self, positions: Mapping[Partition, int]) -> None:
        rows = []
        for place, offset in positions.items():
            if place.partition != PARTITION or place.topic not in self._topics:
                raise BusError(f"{self}: {place.topic}/{place.partition} is not assigned to this member")
            rows.append((self._group, self._topics[place.topic], PARTITION, offset))
        if self._closed:
            raise BusError(f"{self}: commit: the subscription is closed")
        self._bus.store_positions(rows)

    def lag(self) -> int:
        """Records between this member's read positions and the ends of its topics.

        Raises:
            BusError: The file cannot be read, or the subscription is closed.
        """
        return sum(
            max(0, end - max(self._next[topic], first))
            for topic in self._topics
            for first, end in [self._bounds(topic)]
        )

    def partitions(self) -> frozenset[Partition]:
        """The one partition of each topic."""
        return frozenset(Partition(topic, PARTITION) for topic in self._topics)

    def close(self) -> None:
        """Leave the group; the next member may join at once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._reader.close()
            os.close(self._lease)  # the last descriptor of the file: the kernel drops the lock
        self._bus.forget(self)

    def _topic_id(self, topic: str) -> int:
        rows = self._query("SELECT id FROM topics WHERE name = ?", (topic,))
        if not rows:
            raise BusError(f"{self}: topic {topic} does not exist")
        return int(rows[0][0])

    def _bounds(self, topic: str) -> tuple[int, int]:
        """The earliest offset still there, and the one the next message will get."""
        topic_id = self._topics[topic]
        [[first, end]] = self._query(
            """SELECT coalesce((SELECT min(offset) FROM records WHERE topic = ?), next_offset), next_offset
               FROM topics WHERE id = ?""",
            (topic_id, topic_id),
        )
        return int(first), int(end)

    def _first_offset(self, topic: str, start_at: StartAt | None) -> int:
        first, end = self._bounds(topic)
        position = start_at(Partition(topic, PARTITION)) if start_at is not None else None
        if position is None:
            rows = self._query(
                "SELECT next_offset FROM positions WHERE member_group = ? AND topic = ? AND part = ?",
                (self._group, self._topics[topic], PARTITION),
            )
            position = int(rows[0][0]) if rows else first
        if position > end:
            _log.warning("%s: %s: position %d is past the end %d; reading from %d", self, topic, position, end, first)
            return first
        if position < first:
            _log.warning(
                "%s: %s/%d: %d records from offset %d on were deleted by retention unread; going on at %d",
                self,
                topic,
                PARTITION,
                first - max(position, 0),
                max(position, 0),
                first,
            )
        return max(position, 0)

    def _read(self, max_records: int) -> list[Record]:
        records: list[Record] = []
        size = 0
        # The topic served first goes to the back, so that a busy one does not starve the others.
        for topic in list(self._next):
            position = self._next.pop(topic)
            self._next[topic] = position
            for record in self._rows(topic, position, max_records - len(records), MAX_POLL_BYTES - size):
                records.append(record)
                size += len(record.value)
                self._next[topic] = record.offset + 1
            if len(records) >= max_records or size >= MAX_POLL_BYTES:
                break
        return records

    def _rows(self, topic: str, position: int, limit: int, max_bytes: int) -> list[Record]:
        records = []
        with self._reading("poll") as reader:
            cursor = reader.execute(
                """SELECT offset, key, value, headers FROM records
                   WHERE topic = ? AND offset >= ? ORDER BY offset LIMIT ?""",
                (self._topics[topic], position, limit),
            )
            for offset, key, value, headers in cursor:
                records.append(Record(topic, PARTITION, offset, key, value, json.loads(headers)))
                max_bytes -= len(value)
                if max_bytes <= 0:
                    break
            cursor.close()  # ends the read transaction: an open one would keep the write-ahead log growing
        return records

    def _wait_for_change(self, version: int, deadline: float) -> bool:
        """Wait until something was committed to the file; False if the deadline came first."""
        while (left := deadline - time.monotonic()) > 0:
            # A publish between the read and this wait wakes nobody, but shows in the version one interval later.
            self._bus.wait_for_publish(min(WAKE_INTERVAL, left))
            if self._data_version() != version:
                return True
        return False

    def _data_version(self) -> int:
        return int(self._query("PRAGMA data_version", ())[0][0])

    def _query(self, sql: str, parameters: tuple[int | str, ...]) -> list[tuple[int, ...]]:
        with self._reading("read") as reader:
            return reader.execute(sql, parameters).fetchall()

    @contextmanager
    def _reading(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise BusError(f"{self}: {what}: the subscription is closed")
            try:
                yield self._reader
            except sqlite3.Error as error:
                raise BusError(f"{self}: {what}: {error}") from error

    def __str__(self) -> str:
        return f"{self._bus}, group {self._group}"

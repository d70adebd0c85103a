"""The embedded bus: a durable log in one SQLite file, for one machine without a broker.

Theory. A topic is one partition (number 0): a run of rows whose offsets are dealt out inside the write transaction from
a counter kept beside the topic. The counter never goes back, not even when retention deletes every row, so an offset
names one record for ever, as in Kafka. `publish` answers after COMMIT with `synchronous=FULL`: SQLite has then fsynced
the write-ahead log, and neither `kill -9` nor a power cut takes the record back.

Writers in one process share a transaction: each puts its messages in a queue, and whoever gets the write lock next
writes everything queued so far with one fsync (group commit). Writers in several processes take turns by SQLite's lock.

Readers look at `PRAGMA data_version`, which changes when any other connection commits: cheap enough to ask fifty times
a second. Publishing in the same process wakes them at once.

A group has one member at a time, as there is one partition to share. The member holds `flock` on a file beside the
database: the kernel drops it when the process dies, however it dies, and there is no lease time to wait for.

Traps:
- WAL needs shared memory between the processes: the file must lie on a local disk, not on a network share.
- A descriptor crosses `fork`: a child forked while a subscription is open keeps its group's lock until it exits.
- Deleted rows make room for new ones; the file itself does not shrink (see `ingest.bus_embedded_retention`).
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ingest.bus import BusCounts, BusError, Message, Partition, Position, Record, StartAt
from ingest.bus_counter import BusCounter
from ingest.bus_embedded_file import PARTITION, open_file
from ingest.bus_embedded_retention import Expiry, Marks, expiry
from ingest.bus_embedded_subscription import EmbeddedSubscription
from ingest.disk import DISK_FULL

MAX_VALUE_BYTES: Final = 256 * 1024 * 1024
"""Largest value of a message: SQLite's own limit for a row is 10^9 bytes."""

DELETE_STEP: Final = 1_000
"""Records deleted in one transaction by retention, so that publishers do not wait long behind it."""

_TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(slots=True, eq=False)
class _Ticket:
    """One call of `publish` in the queue of the group commit."""

    messages: Sequence[Message]
    positions: list[Position] = field(default_factory=list)
    error: BusError | None = None
    taken: bool = False  # somebody wrote it, or tried to
    durable: bool = False


class EmbeddedBus:
    """A `Bus` in one SQLite file. Several threads and several processes may use the file at once.

    Args:
        path: The file; created with its folder if it is not there. Its write-ahead log and the locks of the groups lie
            beside it.
        clock: Seconds since the epoch.

    Raises:
        BusError: The file cannot be opened, is not a bus, or was written by a newer version.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.counter = BusCounter()
        self._clock = clock
        self._marks = Marks()
        self._queue: list[_Ticket] = []
        self._queue_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._published = threading.Condition()
        self._subscriptions: set[EmbeddedSubscription] = set()
        self._closed = False
        self._writer = open_file(path)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet.

        Raises:
            BusError: A name is not one that Kafka would take too, or the file cannot be written.
        """
        for topic in topics:
            if not _TOPIC_NAME.fullmatch(topic):
                raise BusError(f"{self}: {topic!r} is not a topic name: up to 249 of A-Z a-z 0-9 . _ -")
        with self._write_lock, self._transaction("ensure topics") as writer:
            writer.executemany("INSERT OR IGNORE INTO topics (name) VALUES (?)", [(topic,) for topic in topics])

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        """Write the messages in one transaction and wait for its fsync.

        All of them are there or none, and a reader sees them only when they are durable.

        Raises:
            BusError: A topic does not exist, a message cannot be stored, or the disk failed or is full.
        """
        try:
            positions = self._publish(messages)
        except BusError:
            self.counter.not_published()
            raise
        self.counter.published(messages)
        return positions

    def _publish(self, messages: Sequence[Message]) -> list[Position]:
        for message in messages:
            self._check_message(message)
        if not messages:
            return []
        ticket = _Ticket(messages)
        with self._queue_lock:
            self._queue.append(ticket)
        with self._write_lock:
            if not ticket.taken:
                self._write_queued()
        if not ticket.durable:
            raise ticket.error or BusError(f"{self}: publish: interrupted before it was durable")
        return ticket.positions

    def subscribe(self, group: str, topics: Sequence[str], start_at: StartAt | None = None) -> EmbeddedSubscription:
        """Become the member of a group.

        `start_at` is asked here, once for each topic. A position past the end of the log (the file was lost and begun
        anew) falls back to the earliest record, as it does in Kafka: reading twice beats not reading.

        Raises:
            BusError: A topic does not exist, or the group has a living member (in this process or another).
        """
        if self._closed:
            raise BusError(f"{self}: subscribe: the bus is closed")
        subscription = EmbeddedSubscription(self, group, topics, start_at)
        with self._published:
            self._subscriptions.add(subscription)
        return subscription

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        """The next offset to be written of each topic's one partition.

        Raises:
            BusError: A topic does not exist, or the file cannot be read.
        """
        with self._write_lock, self._transaction("ends") as writer:
            ends: dict[str, int] = dict(writer.execute("SELECT name, next_offset FROM topics").fetchall())
        if missing := [topic for topic in topics if topic not in ends]:
            raise BusError(f"{self}: ends: topic {', '.join(missing)} does not exist")
        return {Partition(topic, PARTITION): ends[topic] for topic in topics}

    def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        """The next offset that a group has committed of each topic; a topic without one is not there.

        Raises:
            BusError: The file cannot be read.
        """
        with self._write_lock, self._transaction("committed") as writer:
            rows = writer.execute(
                "SELECT name, p.next_offset FROM positions p JOIN topics t ON t.id = p.topic WHERE member_group = ?",
                (group,),
            ).fetchall()
        return {Partition(topic, PARTITION): int(offset) for topic, offset in rows if topic in topics}

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        """The records of a topic from offset `start` to before `stop` that are still there.

        Raises:
            BusError: The topic does not exist, or the file cannot be read.
        """
        if partition not in self.ends([partition.topic]):
            raise BusError(f"{self}: read: there is no {partition.topic}/{partition.partition}")
        with self._write_lock, self._transaction("read") as writer:
            rows = writer.execute(
                """SELECT offset, key, value, headers FROM records
                   WHERE topic = (SELECT id FROM topics WHERE name = ?) AND offset >= ? AND offset < ?
                   ORDER BY offset""",
                (partition.topic, start, stop),
            ).fetchall()
        return [
            Record(partition.topic, PARTITION, offset, key, value, json.loads(headers))
            for offset, key, value, headers in rows
        ]

    def delete_before(self, topic: str, offset: int) -> int:
        """Delete the records of a topic that lie before an offset; the offsets of later records do not change.

        Returns:
            How many records were deleted.
        """
        deleted = 0
        while True:
            with self._write_lock, self._transaction(f"retention of {topic}") as writer:
                step = writer.execute(
                    """DELETE FROM records WHERE rowid IN (
                        SELECT rowid FROM records
                        WHERE topic = (SELECT id FROM topics WHERE name = ?) AND offset < ? ORDER BY offset LIMIT ?)""",
                    (topic, offset, DELETE_STEP),
                ).rowcount
            deleted += step
            if step < DELETE_STEP:
                return deleted

    def retain(self, days: Mapping[str, float], readers: Mapping[str, Collection[str]]) -> list[Expiry]:
        """Delete the records that are older than their topic's days and that all groups of the topic have read.

        Args:
            days: Topic -> days; what is not there stays for ever.
            readers: Topic -> groups known to read it, whether or not they have begun.

        Returns:
            What was done, by topic.

        Raises:
            BusError: The file cannot be written.
        """
        with self._write_lock, self._transaction("retention") as writer:
            found = [expiry(writer, topic, kept, readers.get(topic, ()), self._clock()) for topic, kept in days.items()]
        done = [one for one in found if one is not None]
        for one in done:
            self.delete_before(one.topic, one.before)
        return done

    def counts(self) -> BusCounts:
        """What this bus and its subscriptions did so far."""
        return self.counter.counts()

    def finish_within(self, seconds: float) -> None:
        """Nothing to do: no call waits for long here."""

    def close(self) -> None:
        """Wait for publishes under way, then close the file and the subscriptions still open."""
        with self._write_lock:
            if self._closed:
                return
            self._closed = True
        with self._published:
            subscriptions = list(self._subscriptions)
            self._published.notify_all()
        for subscription in subscriptions:
            subscription.close()
        self._writer.close()

    def store_positions(self, rows: Sequence[tuple[str, int, int, int]]) -> None:
        """For a subscription: store (group, topic id, partition, next offset) durably."""
        with self._write_lock, self._transaction("commit positions") as writer:
            writer.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", rows)

    def wait_for_publish(self, seconds: float) -> None:
        """For a subscription: return when this process published something, or the time is over."""
        with self._published:
            self._published.wait(seconds)

    def forget(self, subscription: EmbeddedSubscription) -> None:
        """For a subscription: it is closed."""
        with self._published:
            self._subscriptions.discard(subscription)

    def _check_message(self, message: Message) -> None:
        if len(message.value) > MAX_VALUE_BYTES:
            size = f"{len(message.value)} bytes, over the limit of {MAX_VALUE_BYTES}"
            raise BusError(f"{self}: publish: a value for {message.topic} has {size}")
        try:
            for text in (message.topic, message.key, *message.headers, *message.headers.values()):
                text.encode()
        except UnicodeEncodeError as error:
            raise BusError(f"{self}: a key or header for {message.topic} is not valid Unicode: {error}") from error

    def _write_queued(self) -> None:
        """Write all that waits, with one fsync. The caller holds the write lock."""
        with self._queue_lock:
            tickets, self._queue = self._queue, []
        for ticket in tickets:
            ticket.taken = True
        try:
            now = self._clock()
            with self._transaction("publish") as writer:
                written = _write_tickets(writer, tickets, str(self))
                for topic, offset in written.items():
                    self._marks.mark(writer, topic, offset, now)
            self._marks.marked(written, now)
        except BusError as error:
            for ticket in tickets:
                ticket.error = ticket.error or BusError(str(error))
            return
        for ticket in tickets:
            ticket.durable = ticket.error is None
        with self._published:
            self._published.notify_all()

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed and durable at the end of the block. The caller holds the write lock."""
        if self._closed:
            raise BusError(f"{self}: {what}: the bus is closed")
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            finally:
                # SQLite rolls back by itself on some errors (a full disk), not on all.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise BusError(f"{self}: {what}: {DISK_FULL}") from error
            raise BusError(f"{self}: {what}: {error}") from error

    def __str__(self) -> str:
        return f"embedded bus {self.path}"


def _write_tickets(writer: sqlite3.Connection, tickets: Sequence[_Ticket], bus: str) -> dict[int, int]:
    """Insert the messages of several calls; a call that names a missing topic fails alone.

    Returns:
        Topic id -> the first offset written to it.
    """
    first: dict[int, int] = {}
    topics = {
        name: (topic_id, end) for name, topic_id, end in writer.execute("SELECT name, id, next_offset FROM topics")
    }
    for ticket in tickets:
        missing = {message.topic for message in ticket.messages} - topics.keys()
        if missing:
            ticket.error = BusError(f"{bus}: publish: topic {', '.join(sorted(missing))} does not exist")
            continue
        for message in ticket.messages:
            topic_id, offset = topics[message.topic]
            topics[message.topic] = topic_id, offset + 1
            first.setdefault(topic_id, offset)
            writer.execute(
                "INSERT INTO records (topic, offset, key, headers, value) VALUES (?, ?, ?, ?, ?)",
                (topic_id, offset, message.key, json.dumps(dict(message.headers)), message.value),
            )
            ticket.positions.append(Position(message.topic, PARTITION, offset))
    writer.executemany("UPDATE topics SET next_offset = ? WHERE id = ?", [(end, i) for i, end in topics.values()])
    return first

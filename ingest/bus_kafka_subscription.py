"""A member of a Kafka consumer group.

Theory. Groups rebalance cooperatively (KIP-429): a member keeps the partitions that stay with it and goes on reading
them. What it reads of a partition that has just left it is read again by the next owner; so a commit for such a
partition is dropped, not an error, and nothing is lost.

Trap: the client calls its rebalance listener on its own I/O thread. Ours only notes what came and went, and pauses what
came; `StartAt` is asked on the thread that polls, where a database may be read at leisure.

Trap: the client can pause a partition that has records fetched, but once resumed they may stay parked for ever. So none
is paused to let others go first; all that was fetched is taken from the client, and handed out in turn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from ingest.bus import BusError, Partition, Record, StartAt
from ingest.bus_counter import BusCounter
from ingest.bus_ending import Ending
from ingest.bus_kafka_assignment import Assignment
from ingest.bus_kafka_client import (
    REBALANCED,
    ConsumerRebalanceListener,
    CooperativeStickyAssignor,
    KafkaConsumer,
    MemberState,
    OffsetAndMetadata,
    RetriableError,
    TopicPartition,
    failures,
    opened,
)
from ingest.bus_kafka_fetched import FetchedRecords
from ingest.bus_kafka_join import complete_joins
from ingest.bus_kafka_record import as_record
from ingest.bus_kafka_settings import (
    BRIEFLY,
    FETCH_RECORDS,
    HELD_BYTES,
    POLL_BYTES,
    POLL_SLICE,
    KafkaSettings,
    consumer_options,
    milliseconds,
)

_log = logging.getLogger(__name__)

ConsumerRebalanceListener.register(Assignment)


class KafkaSubscription:
    """A member of a consumer group. Made by `KafkaBus.subscribe`."""

    def __init__(
        self,
        settings: KafkaSettings,
        name: str,
        group: str,
        topics: Sequence[str],
        start_at: StartAt | None,
        counter: BusCounter,
        ending: Ending,
    ) -> None:
        self._name = name
        self._start_at = start_at
        self._patience = settings.request_timeout
        self._counter = counter
        self._ending = ending
        self._probe = TopicPartition(topics[0], 0)
        self._held = FetchedRecords()
        self._expected: dict[TopicPartition, int] = {}  # the next offset, where it is known
        self._closed = False
        with failures(f"{name}: subscribe"):
            options = consumer_options(settings, group, CooperativeStickyAssignor)
            self._consumer = opened(KafkaConsumer, options)
            self._assignment = Assignment(self._consumer.pause, counter)
            complete_joins(self._consumer._coordinator, MemberState.STABLE, RetriableError)  # noqa: SLF001
            self._consumer.subscribe(topics=list(topics), listener=self._assignment)
        self._heard = time.monotonic()

    @property
    def _timeout(self) -> float:
        return self._ending.cap(self._patience)

    def poll(self, timeout: float, max_records: int = 256) -> list[Record]:
        """Records in offset order within each partition; empty after `timeout` seconds without any.

        Each partition gives one record in turn. With a timeout of 0 it asks the cluster only if none is there already.

        After a silence of `request_timeout` seconds it asks the cluster whether it is there at all: an outage must not
        look like a quiet night. That question may take another `request_timeout`.

        Raises:
            BusError: The cluster is away or refuses, or `start_at` failed.
        """
        deadline = time.monotonic() + timeout
        while True:
            if timeout or not self._held.count:
                self._fetch(min(POLL_SLICE, timeout))
            records = self._held.take(max_records, POLL_BYTES)
            now = time.monotonic()
            if records or now >= deadline:
                break
            timeout = deadline - now
        if records:
            self._heard = now
        elif now - self._heard > self._timeout:
            with self._failures("poll"):
                self._consumer.end_offsets([self._probe], timeout_ms=milliseconds(self._timeout))
            self._heard = time.monotonic()
        self._counter.read(records)
        return records

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Store, for the group, the next offset to read of each partition.

        Durable when it returns, but for a partition that has left this member: its next owner reads it again from the
        last position committed.

        Raises:
            BusError: A partition was never this member's, or the cluster is away or refuses.
        """
        try:
            stored = self._commit(positions)
        except BusError:
            self._counter.not_committed()
            raise
        if stored:
            self._counter.committed()

    def lag(self) -> int:
        """Records between this member's read positions and the ends of its partitions; 0 before it has any.

        Raises:
            BusError: The cluster is away or refuses.
        """
        timeout = milliseconds(self._timeout)
        self._place_arrived()
        with self._failures("lag"):
            placed = sorted(self._assignment.placed())
            ends = self._consumer.end_offsets(placed, timeout_ms=timeout) if placed else {}
            positions = {
                p: self._consumer.position(p, timeout_ms=timeout) for p in placed if p in self._consumer.assignment()
            }
        behind: int = sum(max(0, ends[p] - at) for p, at in positions.items() if at is not None)
        return behind + self._held.count

    def partitions(self) -> frozenset[Partition]:
        """The partitions that this member reads now."""
        return frozenset(Partition(place.topic, place.partition) for place in self._assignment.placed())

    def close(self) -> None:
        """Leave the group; its partitions go to the other members at once if the cluster can be told."""
        if self._closed:
            return
        self._closed = True
        with failures(f"{self._name}: close"):
            self._consumer.close(autocommit=False, timeout_ms=milliseconds(self._timeout))

    def _commit(self, positions: Mapping[Partition, int]) -> bool:
        """Commit what is still this member's; whether there was anything."""
        wanted = {TopicPartition(place.topic, place.partition): offset for place, offset in positions.items()}
        for partition in wanted:
            if not self._assignment.knows(partition):
                raise BusError(f"{self._name}: {partition.topic}/{partition.partition} is not assigned to this member")
        deadline = time.monotonic() + self._timeout
        stored = False
        while mine := wanted.keys() & self._assignment.placed():
            try:
                with self._failures("commit"):
                    offsets = {partition: OffsetAndMetadata(wanted[partition], "", -1) for partition in mine}
                    self._consumer.commit(offsets, timeout_ms=milliseconds(self._timeout))
                stored = True
                break
            except BusError as error:
                if not isinstance(error.__cause__, REBALANCED) or time.monotonic() > deadline:
                    raise
            # Only polling moves a rebalance on; what it brings is kept for the next poll.
            self._fetch(POLL_SLICE)
        if left := wanted.keys() - self._assignment.placed():
            _log.info("%s: positions of %d partitions that left this member were not committed", self._name, len(left))
        return stored

    def _fetch(self, timeout: float) -> None:
        """Take from the client what it has fetched, and have it fetch more; waits only where nothing is there."""
        self._place_arrived()
        self._held.keep(self._assignment.placed())
        wait = min(timeout, BRIEFLY) if self._held.count else timeout
        while self._held.bytes < HELD_BYTES:
            with self._failures("poll"):
                fetched = self._consumer.poll(timeout_ms=milliseconds(wait), max_records=FETCH_RECORDS)
            for partition, items in fetched.items():
                self._expect(partition, items[0].offset)
                self._expected[partition] = items[-1].offset + 1
                self._held.add(as_record(item) for item in items)
            if sum(map(len, fetched.values())) < FETCH_RECORDS:
                break
            wait = 0.0
        self._held.keep(self._assignment.placed())

    def _expect(self, partition: TopicPartition, offset: int) -> None:
        """Say what retention deleted before it was read: the client goes on behind it without a word."""
        expected = self._expected.get(partition, offset)
        if offset <= expected:
            return
        with self._failures("poll"):
            found = self._consumer.beginning_offsets([partition], timeout_ms=milliseconds(self._timeout))
        first = found[partition]
        if first > expected:
            _log.warning(
                "%s: %s/%d: %d records from offset %d on were deleted by retention unread; going on at %d",
                self._name,
                partition.topic,
                partition.partition,
                min(first, offset) - expected,
                expected,
                offset,
            )

    def _place_arrived(self) -> None:
        for partition in self._assignment.arrived():
            offset = None
            if self._start_at is not None:
                offset = self._start_at(Partition(partition.topic, partition.partition))
            # What was fetched before it left lies ahead of where it starts again
            self._held.drop(TopicPartition(*partition))
            with self._failures("poll"):
                known = self._consumer.committed(partition) if offset is None else offset
            self._expected.pop(partition, None)
            if known is not None:
                self._expected[partition] = known
            self._assignment.place(partition, partial(self._start, partition, offset))

    def _start(self, partition: TopicPartition, offset: int | None) -> None:
        try:
            if offset is not None:
                self._consumer.seek(partition, max(0, offset))
            self._consumer.resume(partition)
        except (KeyError, ValueError):
            # A rebalance took it away this moment, and its listener will say so.
            _log.info("%s: %s/%d left before it was read", self._name, partition.topic, partition.partition)

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        if self._closed:
            raise BusError(f"{self._name}: {what}: the subscription is closed")
        with failures(f"{self._name}: {what}"):
            yield

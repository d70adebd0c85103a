"""The Kafka bus: the protocol of `ingest.bus` on an Apache Kafka cluster. The only module that knows a Kafka client.

Theory. Durable means: every in-sync replica has it (`acks=all`), and a retry inside the client writes nothing twice
(the idempotent producer). A record is a raw batch of thousands of lines, so the client's cost per record counts little.

Groups rebalance cooperatively (KIP-429): a member keeps the partitions that stay with it and goes on reading them. What
it reads of a partition that has just left it is read again by the next owner; so a commit for such a partition is
dropped, not an error, and nothing is lost.

Nothing waits without an end: a call that finds no cluster raises `BusError` after the times in `KafkaSettings`, and the
same bus is used on: it finds the cluster again by itself.

Trap: the client calls its rebalance listener on its own I/O thread. Ours only notes what came and went, and pauses what
came; `StartAt` is asked on the thread that polls, where a database may be read at leisure.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Final

from ingest.bus import BusError, Message, Partition, Position, Record, StartAt
from ingest.bus_kafka_assignment import Assignment
from ingest.bus_kafka_connect import closing_socket, connect
from ingest.bus_kafka_join import complete_joins
from ingest.bus_kafka_read import read_range
from ingest.bus_kafka_record import as_record
from ingest.bus_kafka_settings import (
    DIRECT_SCHEME,
    FORCED_CLOSE,
    POLL_SLICE,
    KafkaSettings,
    client_options,
    consumer_options,
    milliseconds,
    producer_options,
    reader_options,
    topic_options,
)
from ingest.bus_kafka_topics import committed_offsets, missing_topics

with warnings.catch_warnings():
    # The client reads its protocol's schemas with functions that Python 3.11 and 3.12 call deprecated (3.13 no longer
    # does): of no use to those who read our log, and fatal where warnings are errors.
    warnings.filterwarnings("ignore", r"\w+_text is deprecated", DeprecationWarning)
    from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka.admin import OffsetSpec
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.errors import (
        CommitFailedError,
        CoordinatorNotAvailableError,
        IllegalGenerationError,
        KafkaError,
        KafkaTimeoutError,
        MessageSizeTooLargeError,
        RebalanceInProgressError,
        RetriableError,
        TopicAlreadyExistsError,
        UnknownMemberIdError,
        for_code,
    )
    from kafka.net.compat import KafkaNetClient
    from kafka.net.inet import KafkaNetSocket
    from kafka.producer.future import RecordMetadata
    from kafka.structs import MemberState, OffsetAndMetadata, TopicPartition

__all__ = ["KafkaBus", "KafkaSettings", "KafkaSubscription"]

REBALANCED: Final = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
"""A commit refused because the group is being, or has been, shared out anew."""

OUR_FAULT: Final = (MessageSizeTooLargeError, UnicodeError)  # a failed publish that says nothing against the producer

_log = logging.getLogger(__name__)

ConsumerRebalanceListener.register(Assignment)


ClosingSocket = closing_socket(KafkaNetSocket, DIRECT_SCHEME)


class KafkaBus:
    """A `Bus` on a Kafka cluster. It connects when it is first used."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._name = f"Kafka {','.join(settings.bootstrap_servers)}"
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._closed = False

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet, and wait until they can be used.

        Raises:
            BusError: The cluster is away or refuses.
        """
        with self._admin("ensure topics") as admin:
            for topic in missing_topics(admin.describe_topics(list(topics)), for_code):
                try:
                    admin.create_topics({topic: topic_options(self._settings, topic)})
                except TopicAlreadyExistsError:
                    _log.debug("%s: topic %s was created by another process", self._name, topic)
            admin.wait_for_topics(list(topics), timeout_ms=milliseconds(self._settings.request_timeout))

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        """Send the messages and wait until all in-sync replicas have each.

        Raises:
            BusError: A topic does not exist, a message is too large, or the cluster did not answer in time.
        """
        producer = self._connected_producer()
        try:
            with _failures(f"{self._name}: publish"):
                written = self._send(producer, messages)
        except BusError as error:
            if not isinstance(error.__cause__, OUR_FAULT):
                self._discard(producer)
            raise
        return [Position(item.topic, item.partition, item.offset) for item in written]

    def subscribe(self, group: str, topics: Sequence[str], start_at: StartAt | None = None) -> KafkaSubscription:
        """Join a consumer group. Partitions come with the first polls.

        `start_at` is asked by `poll`, for each partition that comes, on the thread that polls.

        Raises:
            BusError: A topic does not exist, or the cluster is away.
        """
        with self._admin("subscribe") as admin:
            if missing := missing_topics(admin.describe_topics(list(topics)), for_code):
                raise BusError(f"{self._name}: subscribe: topic {', '.join(missing)} does not exist")
        return KafkaSubscription(self._settings, f"{self._name}, group {group}", group, topics, start_at)

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        """The next offset to be written of each partition of the topics.

        Raises:
            BusError: A topic does not exist, or the cluster is away.
        """
        with self._admin("ends") as admin:
            if missing := missing_topics(admin.describe_topics(list(topics)), for_code):
                raise BusError(f"{self._name}: ends: topic {', '.join(missing)} does not exist")
            places = [
                TopicPartition(topic["name"], partition["partition_index"])
                for topic in admin.describe_topics(list(topics))
                for partition in topic["partitions"]
            ]
            found = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
        return {Partition(place.topic, place.partition): int(end.offset) for place, end in found.items()}

    def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        """The next offset that a group has committed of each partition; a partition without one is not there.

        Raises:
            BusError: The cluster is away.
        """
        deadline = time.monotonic() + self._settings.request_timeout
        while True:
            try:
                with self._admin("committed") as admin:
                    return committed_offsets(admin.list_group_offsets(group)[group], topics)
            except BusError as error:
                # A cluster that is new has nobody yet who looks after groups
                if not isinstance(error.__cause__, CoordinatorNotAvailableError) or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SLICE)

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        """The records of a partition from offset `start` to before `stop` that are still there.

        Raises:
            BusError: The topic does not exist, or the cluster is away.
        """
        if partition not in self.ends([partition.topic]):
            raise BusError(f"{self._name}: read: there is no {partition.topic}/{partition.partition}")
        place, options = TopicPartition(partition.topic, partition.partition), reader_options(self._settings)
        with _failures(f"{self._name}: read"), closing(connect(KafkaConsumer, KafkaNetClient, options)) as consumer:
            return read_range(consumer, place, start, stop, self._settings.request_timeout)

    def close(self) -> None:
        """Wait for publishes under way, then disconnect. Subscriptions are closed by those who made them."""
        with self._lock:
            self._closed = True
            producer, self._producer = self._producer, None
        if producer is not None:
            with _failures(f"{self._name}: close"):
                _close_producer(producer, self._settings.delivery_timeout)

    def _send(self, producer: KafkaProducer, messages: Sequence[Message]) -> list[RecordMetadata]:
        futures = [
            producer.send(
                message.topic,
                value=message.value,
                key=message.key.encode(),
                headers=[(name, value.encode()) for name, value in message.headers.items()],
            )
            for message in messages
        ]
        # No flush: it would wait for other threads' messages too, and nothing lingers. The client keeps a deadline too.
        deadline = time.monotonic() + self._settings.delivery_timeout + self._settings.request_timeout
        return [future.get(timeout=max(0.0, deadline - time.monotonic())) for future in futures]

    def _discard(self, producer: KafkaProducer) -> None:
        """Make the next publish connect anew: a client that lost a cluster in mid-request may never send again."""
        with self._lock:
            if self._producer is not producer:
                return
            self._producer = None
        _close_producer(producer, 0.0)

    def _connected_producer(self) -> KafkaProducer:
        # One thread connects; the others do not queue up to wait for a cluster that is away one after another.
        if not self._lock.acquire(timeout=self._settings.request_timeout):
            raise BusError(f"{self._name}: publish: no connection within {self._settings.request_timeout} s")
        try:
            if self._closed:
                raise BusError(f"{self._name}: publish: the bus is closed")
            if self._producer is None:
                with _failures(f"{self._name}: publish"):
                    self._producer = connect(KafkaProducer, KafkaNetClient, producer_options(self._settings))
            return self._producer
        finally:
            self._lock.release()

    @contextmanager
    def _admin(self, what: str) -> Iterator[KafkaAdminClient]:
        if self._closed:
            raise BusError(f"{self._name}: {what}: the bus is closed")
        with _failures(f"{self._name}: {what}"):
            admin = connect(KafkaAdminClient, KafkaNetClient, client_options(self._settings))
            try:
                yield admin
            finally:
                admin.close()


class KafkaSubscription:
    """A member of a consumer group. Made by `KafkaBus.subscribe`."""

    def __init__(
        self, settings: KafkaSettings, name: str, group: str, topics: Sequence[str], start_at: StartAt | None
    ) -> None:
        self._name = name
        self._start_at = start_at
        self._timeout = settings.request_timeout
        self._probe = TopicPartition(topics[0], 0)
        self._held: list[Record] = []  # fetched while a commit waited for a rebalance to end
        self._closed = False
        with _failures(f"{name}: subscribe"):
            options = consumer_options(settings, group, CooperativeStickyAssignor)
            self._consumer = connect(KafkaConsumer, KafkaNetClient, options)
            self._assignment = Assignment(self._consumer.pause)
            complete_joins(self._consumer._coordinator, MemberState.STABLE, RetriableError)  # noqa: SLF001
            self._consumer.subscribe(topics=list(topics), listener=self._assignment)
        self._heard = time.monotonic()

    def poll(self, timeout: float, max_records: int = 256) -> list[Record]:
        """Records in offset order within each partition; empty after `timeout` seconds without any.

        After a silence of `request_timeout` seconds it asks the cluster whether it is there at all: an outage must not
        look like a quiet night. That question may take another `request_timeout`.

        Raises:
            BusError: The cluster is away or refuses, or `start_at` failed.
        """
        deadline = time.monotonic() + timeout
        while True:
            records = self._take_held(max_records) or self._fetch(min(POLL_SLICE, timeout), max_records)
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
        return records

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Store, for the group, the next offset to read of each partition.

        Durable when it returns, but for a partition that has left this member: its next owner reads it again from the
        last position committed.

        Raises:
            BusError: A partition was never this member's, or the cluster is away or refuses.
        """
        wanted = {TopicPartition(place.topic, place.partition): offset for place, offset in positions.items()}
        for partition in wanted:
            if not self._assignment.knows(partition):
                raise BusError(f"{self._name}: {partition.topic}/{partition.partition} is not assigned to this member")
        deadline = time.monotonic() + self._timeout
        while mine := wanted.keys() & self._assignment.placed():
            try:
                with self._failures("commit"):
                    offsets = {partition: OffsetAndMetadata(wanted[partition], "", -1) for partition in mine}
                    self._consumer.commit(offsets, timeout_ms=milliseconds(self._timeout))
                break
            except BusError as error:
                if not isinstance(error.__cause__, REBALANCED) or time.monotonic() > deadline:
                    raise
            # Only polling moves a rebalance on; what it brings is kept for the next poll.
            self._held += self._fetch(POLL_SLICE, 1)
        if left := wanted.keys() - self._assignment.placed():
            _log.info("%s: positions of %d partitions that left this member were not committed", self._name, len(left))

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
        return behind + len(self._held)

    def partitions(self) -> frozenset[Partition]:
        """The partitions that this member reads now."""
        return frozenset(Partition(place.topic, place.partition) for place in self._assignment.placed())

    def close(self) -> None:
        """Leave the group; its partitions go to the other members at once if the cluster can be told."""
        if self._closed:
            return
        self._closed = True
        with _failures(f"{self._name}: close"):
            self._consumer.close(autocommit=False, timeout_ms=milliseconds(self._timeout))

    def _take_held(self, max_records: int) -> list[Record]:
        placed = self._assignment.placed()
        held = [record for record in self._held if TopicPartition(record.topic, record.partition) in placed]
        self._held = held[max_records:]
        return held[:max_records]

    def _fetch(self, timeout: float, max_records: int) -> list[Record]:
        self._place_arrived()
        with self._failures("poll"):
            fetched = self._consumer.poll(timeout_ms=milliseconds(timeout), max_records=max_records)
        return [as_record(item) for items in fetched.values() for item in items]

    def _place_arrived(self) -> None:
        for partition in self._assignment.arrived():
            offset = None
            if self._start_at is not None:
                offset = self._start_at(Partition(partition.topic, partition.partition))
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
        with _failures(f"{self._name}: {what}"):
            yield


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn what the client may raise into `BusError`, with the cause."""
    try:
        yield
    except (KafkaError, OSError, RuntimeError, ValueError) as error:
        # RuntimeError: the client's event loop is closed; ValueError: an option or a text it cannot use.
        raise BusError(f"{what}: {error}") from error


def _close_producer(producer: KafkaProducer, timeout: float) -> None:
    try:
        producer.close(timeout=timeout)
    except KafkaTimeoutError:
        # The client gives up here and would go on sending. Whoever waits for these messages gets an error.
        producer._sender.force_close()  # noqa: SLF001
        producer.close(timeout=FORCED_CLOSE)

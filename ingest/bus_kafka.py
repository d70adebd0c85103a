"""The Kafka bus: the protocol of `ingest.bus` on an Apache Kafka cluster.

Theory. Durable means: every in-sync replica has it (`acks=all`), and a retry inside the client writes nothing twice
(the idempotent producer). A record is a raw batch of thousands of lines, so the client's cost per record counts little.

Nothing waits without an end: a call that finds no cluster raises `BusError` after the times in `KafkaSettings`, and the
same bus is used on: it finds the cluster again by itself.

Groups are the business of `ingest.bus_kafka_subscription`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import cast

import structlog

from ingest.bus import BusCounts, BusError, Message, Partition, Position, Record, StartAt
from ingest.bus_counter import BusCounter
from ingest.bus_ending import Ending
from ingest.bus_kafka_check import CHECKED, differences
from ingest.bus_kafka_client import (
    OUR_FAULT,
    ConfigResource,
    CoordinatorNotAvailableError,
    FutureRecordMetadata,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    KafkaTimeoutError,
    OffsetSpec,
    RecordMetadata,
    TopicAlreadyExistsError,
    TopicPartition,
    failures,
    for_code,
    opened,
)
from ingest.bus_kafka_read import read_range
from ingest.bus_kafka_settings import (
    FORCED_CLOSE,
    POLL_SLICE,
    KafkaSettings,
    check_settings,
    client_options,
    milliseconds,
    producer_options,
    reader_options,
    topic_options,
)
from ingest.bus_kafka_subscription import KafkaSubscription
from ingest.bus_kafka_topics import committed_offsets, missing_topics

__all__ = ["KafkaBus", "KafkaSettings", "KafkaSubscription"]

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class KafkaBus:
    """A `Bus` on a Kafka cluster. It connects when it is first used.

    Raises:
        BusError: The settings contradict each other, or name a file that cannot be read.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        check_settings(settings)
        self._all_time = settings
        self._ending = Ending()
        self._counter = BusCounter()
        self._name = f"Kafka {','.join(settings.bootstrap_servers)}"
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._closed = False

    @property
    def _settings(self) -> KafkaSettings:
        """The settings, with shorter waits when the process is ending."""
        if not self._ending.begun:
            return self._all_time
        cap = self._ending.cap
        request, delivery = cap(self._all_time.request_timeout), cap(self._all_time.delivery_timeout)
        return replace(self._all_time, request_timeout=request, delivery_timeout=delivery)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet, wait until they can be used, and look at those that did exist.

        A topic that exists otherwise than the settings want it is not changed: what differs is logged (as an error
        where records are lost or refused by it).

        Raises:
            BusError: The cluster is away or refuses.
        """
        with self._admin("ensure topics") as admin:
            missing = missing_topics(admin.describe_topics(list(topics)), for_code)
            for topic in missing:
                try:
                    admin.create_topics({topic: topic_options(self._settings, topic)})
                except TopicAlreadyExistsError:
                    _log.debug("topic was created by another process", topic=topic)
            admin.wait_for_topics(list(topics), timeout_ms=milliseconds(self._settings.request_timeout))
            self._check(admin, [topic for topic in topics if topic not in missing])

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        """Send the messages and wait until all in-sync replicas have each.

        Raises:
            BusError: A topic does not exist, a message is too large, or the cluster did not answer in time.
        """
        try:
            written = self._publish(self._connected_producer(), messages)
        except BusError:
            self._counter.not_published()
            raise
        self._counter.published(messages)
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
        name = f"{self._name}, group {group}"
        return KafkaSubscription(self._settings, name, group, topics, start_at, self._counter, self._ending)

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
        with (
            failures(f"{self._name}: read"),
            closing(opened(KafkaConsumer, options)) as consumer,
        ):
            return read_range(consumer, place, start, stop, self._settings.request_timeout)

    def counts(self) -> BusCounts:
        """What this bus and its subscriptions did so far."""
        return self._counter.counts()

    def finish_within(self, seconds: float) -> None:
        """See `Bus`; a call under way that waits for an answer still takes its `request_timeout` at most."""
        self._ending.within(seconds)

    def close(self) -> None:
        """Wait for publishes under way, then disconnect. Subscriptions are closed by those who made them."""
        with self._lock:
            self._closed = True
            producer, self._producer = self._producer, None
        if producer is not None:
            with failures(f"{self._name}: close"):
                _close_producer(producer, self._settings.delivery_timeout)

    def _check(self, admin: KafkaAdminClient, topics: Sequence[str]) -> None:
        """Log how these topics differ from the settings."""
        if not topics:
            return
        asked = [ConfigResource("topic", topic, list(CHECKED)) for topic in topics]
        told = admin.describe_configs(asked, config_filter="all").get("topic", {})
        configs: Mapping[str, Mapping[str, str]] = {
            topic: {name: config["value"] for name, config in found.items()} for topic, found in told.items()
        }
        for difference in differences(self._settings, admin.describe_topics(list(topics)), configs):
            say = _log.error if difference.loses else _log.warning
            say(f"{self._name}: {difference}")

    def _publish(self, producer: KafkaProducer, messages: Sequence[Message]) -> list[RecordMetadata]:
        try:
            with failures(f"{self._name}: publish"):
                return self._send(producer, messages)
        except BusError as error:
            if not isinstance(error.__cause__, OUR_FAULT):
                self._discard(producer)
            raise

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
        begun = time.monotonic()
        return [self._wait(future, begun) for future in futures]

    def _wait(self, future: FutureRecordMetadata, begun: float) -> RecordMetadata:
        patience = self._all_time.delivery_timeout + self._all_time.request_timeout
        while True:
            left = self._ending.left(begun, patience)
            try:
                return future.get(timeout=max(0.0, min(left, POLL_SLICE)))
            except KafkaTimeoutError:
                # The ending may begin meanwhile; a future that is done raises its own error, which may be this one too.
                if future.is_done or left <= POLL_SLICE:
                    raise

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
                with failures(f"{self._name}: publish"):
                    self._producer = opened(KafkaProducer, producer_options(self._settings))
            return self._producer
        finally:
            self._lock.release()

    @contextmanager
    def _admin(self, what: str) -> Iterator[KafkaAdminClient]:
        if self._closed:
            raise BusError(f"{self._name}: {what}: the bus is closed")
        with failures(f"{self._name}: {what}"):
            admin = opened(KafkaAdminClient, client_options(self._settings))
            try:
                yield admin
            finally:
                admin.close()


def _close_producer(producer: KafkaProducer, timeout: float) -> None:
    try:
        producer.close(timeout=timeout)
    except KafkaTimeoutError:
        # The client gives up here and would go on sending. Whoever waits for these messages gets an error.
        producer._sender.force_close()  # noqa: SLF001
        producer.close(timeout=FORCED_CLOSE)

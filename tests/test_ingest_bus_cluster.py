"""The Kafka bus on three brokers, of which one may die."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ingest.bus import BusError, Message, Record, Subscription
from ingest.bus_kafka import KafkaBus, KafkaSettings

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker, KafkaCluster

PATIENCE = 30.0


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def cluster(kafka_broker: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    made: KafkaCluster = type(kafka_broker).start.__globals__["KafkaCluster"](tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Publishing(threading.Thread):
    """Publishes numbers one after another, each until it is taken, as a collector does."""

    def __init__(self, bus: KafkaBus, topic: str) -> None:
        super().__init__()
        self.sent = 0
        self.tries = 0
        self.unsure: set[int] = set()
        self.done = threading.Event()
        self._bus = bus
        self._topic = topic

    def run(self) -> None:
        while not self.done.is_set() or self.tries:
            messages = [Message(self._topic, f"k{self.sent % 7}", b"%d" % (self.sent + n)) for n in range(20)]
            try:
                self._bus.publish(messages)
            except BusError:
                self.unsure |= set(range(self.sent, self.sent + 20))
                self.tries += 1
                if self.tries > 50:
                    return
                continue
            self.tries = 0
            self.sent += 20

    def reach(self, sent: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.sent < sent:
            assert time.monotonic() < deadline
            assert self.is_alive()
            time.sleep(0.02)


def cluster_settings(cluster: KafkaCluster) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=cluster.bootstrap_servers,
        partitions=3,
        replication_factor=3,
        request_timeout=3,
        delivery_timeout=20,
        session_timeout=6,
    )


def test_a_broker_that_dies_costs_nothing_and_two_stop_intake_until_they_are_back(
    cluster: KafkaCluster, topic: str
) -> None:
    bus = KafkaBus(cluster_settings(cluster))
    bus.ensure_topics([topic])
    publishing = Publishing(bus, topic)
    member = bus.subscribe(f"g-{topic}", [topic])
    try:
        publishing.start()
        publishing.reach(200)
        records = read_on(member, 100)
        cluster.brokers[0].kill()
        publishing.reach(publishing.sent + 400)
        publishing.done.set()
        publishing.join(PATIENCE)
        assert not publishing.unsure, "the idempotent producer gets over the death of a broker by itself"
        records += read_on(member, publishing.sent - len(records))
        assert sorted(int(record.value) for record in records) == list(range(publishing.sent))
        member.commit({record.place: record.offset + 1 for record in records})

        cluster.brokers[1].kill()
        begin = time.monotonic()
        with closing(KafkaBus(replace(cluster_settings(cluster), delivery_timeout=3))) as hasty:
            with pytest.raises(BusError, match="Kafka"):
                hasty.publish([Message(topic, "k0", b"-1")])
            assert time.monotonic() - begin < 12
            for broker, launched in [(broker, broker.launch()) for broker in cluster.brokers[:2]]:
                broker.await_start(launched)
            deadline = time.monotonic() + PATIENCE
            while not taken(hasty, Message(topic, "k0", b"-2")):
                assert time.monotonic() < deadline
        while b"-2" not in [record.value for record in read_on(member, 1)]:
            assert time.monotonic() < deadline
    finally:
        publishing.done.set()
        publishing.join(PATIENCE)
        bus.finish_within(0)
        member.close()
        bus.close()


def taken(bus: KafkaBus, message: Message) -> bool:
    try:
        bus.publish([message])
    except BusError:
        return False
    return True


def read_on(subscription: Subscription, count: int) -> list[Record]:
    """As `read`, through a time when the cluster does not answer."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        try:
            records += subscription.poll(0.5)
        except BusError:
            continue
    return records

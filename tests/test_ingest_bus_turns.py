"""Who waits for whom on the bus: partitions of one member take turns; and what retention took is not passed over."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.bus import Message, Partition, Position, Record, Subscription
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings
from ingest.bus_kafka_assignment import TopicPartition
from ingest.bus_kafka_client import KafkaAdminClient, opened
from ingest.bus_kafka_fetched import FetchedRecords
from ingest.bus_kafka_settings import FETCH_RECORDS, HELD_BYTES, PARTITION_FETCH_BYTES, client_options

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

PATIENCE = 30.0


def record(partition: int, offset: int, size: int = 10) -> Record:
    return Record("t", partition, offset, "k", bytes(size))


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    takes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 90)), max_size=40),
)
def test_each_partition_gives_one_record_in_turn(counts: list[int], takes: list[tuple[int, int]]) -> None:
    fetched = FetchedRecords()
    fetched.add(record(number, offset) for number, count in enumerate(counts) for offset in range(count))
    taken: list[Record] = []
    for most, size in takes:
        some = fetched.take(most, size)
        assert len(some) <= most
        assert sum(len(item.value) for item in some[:-1]) < size
        taken += some
    assert fetched.count == sum(counts) - len(taken)
    assert fetched.bytes == 10 * fetched.count
    rounds = [(offset, number) for number, count in enumerate(counts) for offset in range(count)]
    assert [(item.offset, item.partition) for item in taken] == sorted(rounds)[: len(taken)]


def test_what_is_dropped_is_no_longer_counted() -> None:
    fetched = FetchedRecords()
    fetched.add([record(0, 0), record(1, 0, 30), record(1, 1, 5)])
    fetched.keep([TopicPartition("t", 1)])
    assert (fetched.count, fetched.bytes) == (2, 35)
    fetched.drop(TopicPartition("t", 1))
    assert (fetched.count, fetched.bytes, fetched.take(9, 99)) == (0, 0, [])


@pytest.fixture
def bus(kafka_broker: KafkaBroker) -> Iterator[KafkaBus]:
    settings = KafkaSettings(
        bootstrap_servers=(kafka_broker.bootstrap_servers,), partitions=3, request_timeout=5, delivery_timeout=10
    )
    with closing(KafkaBus(settings)) as bus:
        yield bus


@pytest.fixture
def topic(bus: KafkaBus) -> str:
    topic = f"topic-{uuid.uuid4().hex}"
    bus.ensure_topics([topic])
    return topic


def key_of(bus: KafkaBus, topic: str, other_than: int | None = None) -> tuple[str, int]:
    """A key, and the partition where it leads: another than this one."""
    for number in range(100):
        [position] = bus.publish([Message(topic, f"key-{number}", b"")])
        if position.partition != other_than:
            return f"key-{number}", position.partition
    raise AssertionError("all keys lead to one partition")


def until(subscription: Subscription, wanted: Position, most: int = 8) -> Iterator[Sequence[Record]]:
    """What polls give, up to and with the one that gives this record."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        records = subscription.poll(0.5, most)
        yield records
        if wanted in [Position(item.topic, item.partition, item.offset) for item in records]:
            return
    pytest.fail(f"{wanted} did not come")


@pytest.mark.parametrize("backlog", [60, 400])
def test_a_quiet_partition_waits_no_longer_for_a_longer_backlog(bus: KafkaBus, topic: str, backlog: int) -> None:
    busy, number = key_of(bus, topic)
    quiet, _ = key_of(bus, topic, number)
    value = os.urandom(100_000)
    for _ in range(backlog // 20):
        bus.publish([Message(topic, busy, value)] * 20)
    with closing(bus.subscribe(f"g-{topic}", [topic])) as member:
        for _ in until(member, Position(topic, number, 8)):
            pass
        for _ in range(3):  # the others of the backlog are being fetched
            [wanted] = bus.publish([Message(topic, quiet, b"quiet")])
            polls = list(until(member, wanted))
            assert len(polls) <= 4
            assert sum(len(item.value) for records in polls for item in records) <= 4 * 8 * len(value)


def test_a_backlog_is_not_held_in_memory(bus: KafkaBus, topic: str) -> None:
    busy, number = key_of(bus, topic)
    for _ in range(10):
        bus.publish([Message(topic, busy, bytes(1_000_000))] * 20)  # compresses to nothing
    with closing(bus.subscribe(f"g-{topic}", [topic])) as member:
        held = [member._held.bytes for _ in until(member, Position(topic, number, 200), most=1)]
    assert max(held) < HELD_BYTES + FETCH_RECORDS * 1_000_000
    assert len(held) >= 200


def test_a_record_larger_than_an_answer_comes_beside_a_busy_partition(bus: KafkaBus, topic: str) -> None:
    busy, number = key_of(bus, topic)
    other, _ = key_of(bus, topic, number)
    large = os.urandom(4 * PARTITION_FETCH_BYTES)
    bus.publish([Message(topic, busy, os.urandom(100_000)) for _ in range(60)])
    [wanted] = bus.publish([Message(topic, other, large)])
    with closing(bus.subscribe(f"g-{topic}", [topic])) as member:
        records = [item for polled in until(member, wanted) for item in polled]
    [found] = [item for item in records if len(item.value) > 1_000_000]
    assert found.value == large


def delete_before(bus: KafkaBus, partition: Partition, offset: int) -> None:
    with closing(opened(KafkaAdminClient, client_options(bus._settings))) as admin:
        admin.delete_records({TopicPartition(partition.topic, partition.partition): offset})


def losses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if "deleted by retention" in entry.getMessage()]


@pytest.mark.parametrize("start", ["from 0", "from what was committed"])
def test_what_retention_deleted_unread_is_said_once(
    bus: KafkaBus, topic: str, start: str, caplog: pytest.LogCaptureFixture
) -> None:
    [*_, last] = bus.publish([Message(topic, "one key", b"%d" % number) for number in range(10)])
    place = Partition(topic, last.partition)
    group = f"g-{topic}"
    with closing(bus.subscribe(group, [topic])) as member:
        records = [item for polled in until(member, last) for item in polled]
        member.commit({place: records[2].offset})
    delete_before(bus, place, 6)
    stored = (lambda _: 0) if start == "from 0" else None
    with caplog.at_level(logging.WARNING), closing(bus.subscribe(group, [topic], stored)) as member:
        records = [item for polled in until(member, last) for item in polled]
        bus.publish([Message(topic, "one key", b"more")])
        assert member.poll(PATIENCE)
    assert [item.offset for item in records] == [6, 7, 8, 9]
    [said] = losses(caplog)
    lost, first = (6, 0) if start == "from 0" else (4, 2)
    assert f"{topic}/{place.partition}: {lost} records from offset {first} on" in said


def test_what_retention_deleted_while_a_member_was_behind_is_said(
    bus: KafkaBus, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    def publish() -> Position:
        for _ in range(5):
            [*_, last] = bus.publish([Message(topic, "one key", os.urandom(200_000)) for _ in range(40)])
        return last

    last = publish()
    with caplog.at_level(logging.WARNING), closing(bus.subscribe(f"g-{topic}", [topic])) as member:
        assert member.poll(PATIENCE, 1)
        delete_before(bus, Partition(topic, last.partition), last.offset)
        records = [item for polled in until(member, last) for item in polled]
    [said] = losses(caplog)
    offsets = [item.offset for item in records]
    assert str(last.offset - 1 - offsets[-2]) in said
    assert offsets == [*range(1, offsets[-2] + 1), last.offset]


def test_what_retention_deleted_is_said_of_the_embedded_bus_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(EmbeddedBus(tmp_path / "bus.sqlite")) as bus:
        bus.ensure_topics(["t"])
        bus.publish([Message("t", "k", b"%d" % number) for number in range(10)])
        bus.delete_before("t", 6)
        with caplog.at_level(logging.WARNING), closing(bus.subscribe("g", ["t"], lambda _: 2)) as member:
            assert [item.offset for item in member.poll(1)] == [6, 7, 8, 9]
        [said] = losses(caplog)
        assert "4 records from offset 2 on" in said
        caplog.clear()
        with closing(bus.subscribe("new", ["t"])) as member:
            assert len(member.poll(1)) == 4
        assert losses(caplog) == []

"""The promises of the bus seam, on both buses; Kafka's against a real broker."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.bus import (
    Bus,
    BusError,
    Message,
    Partition,
    Position,
    Record,
    Subscription,
    Volume,
)
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

PATIENCE = 30.0


def settings(broker: KafkaBroker) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=(broker.bootstrap_servers,),
        partitions=3,
        request_timeout=3,
        delivery_timeout=6,
        session_timeout=6,
    )


@dataclass
class Place:
    """Where a bus lies: it can be opened again and again, and closes what a test forgot."""

    make: Callable[[], Bus]
    opened: list[Bus | Subscription] = field(default_factory=list)

    def open(self) -> Bus:
        bus = self.make()
        self.opened.append(bus)
        return bus

    def join(self, bus: Bus, group: str, *topics: str) -> Subscription:
        subscription = bus.subscribe(f"{group}-{topics[0]}", topics)
        self.opened.append(subscription)
        return subscription

    def close(self) -> None:
        for item in reversed(self.opened):
            item.close()


@pytest.fixture(params=["embedded", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "embedded":
        place = Place(lambda: EmbeddedBus(tmp_path / "bus.sqlite"))
    else:
        broker = request.getfixturevalue("kafka_broker")
        place = Place(lambda: KafkaBus(settings(broker)))
    yield place
    place.close()


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid.uuid4().hex}"


@pytest.fixture
def bus(place: Place, topic: str) -> Bus:
    bus = place.open()
    bus.ensure_topics([topic])
    return bus


def numbered(topic: str, count: int, key: str = "hospital/host") -> list[Message]:
    return [Message(topic, key, b"%d" % number) for number in range(count)]


def read(subscription: Subscription, count: int) -> list[Record]:
    """Poll until `count` records came: fewer is a failure, more is seen by the caller."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += subscription.poll(0.5)
    return records


def values(records: Sequence[Record]) -> list[bytes]:
    return [record.value for record in records]


def next_offsets(records: Sequence[Record]) -> dict[Partition, int]:
    return {record.place: record.offset + 1 for record in records}


def test_a_message_comes_back_whole(place: Place, bus: Bus, topic: str) -> None:
    messages = [
        Message(topic, "chu-brest/fw1", b"\x00\xff line", {"schema": "raw/1", "île": "Ouessant é"}),
        Message(topic, "", b""),
        Message(topic, "clé", os.urandom(8 * 1024 * 1024)),
    ]
    positions = bus.publish(messages)
    records = read(place.join(bus, "g", topic), len(messages))
    found = {Position(r.topic, r.partition, r.offset): (r.key, r.value, dict(r.headers)) for r in records}
    assert found == {at: (m.key, m.value, dict(m.headers)) for at, m in zip(positions, messages, strict=True)}


def test_publishing_nothing_is_no_error(bus: Bus) -> None:
    assert bus.publish([]) == []


def test_messages_of_one_key_keep_their_order(place: Place, bus: Bus, topic: str) -> None:
    for number in range(0, 60, 6):
        bus.publish([Message(topic, f"k{n % 3}", b"%d" % n) for n in range(number, number + 6)])
    records = read(place.join(bus, "g", topic), 60)
    for key in range(3):
        mine = [record for record in records if record.key == f"k{key}"]
        assert values(mine) == [b"%d" % n for n in range(key, 60, 3)]
        assert len({record.place for record in mine}) == 1
        assert [record.offset for record in mine] == sorted({record.offset for record in mine})


def test_a_group_resumes_at_what_it_committed(place: Place, bus: Bus, topic: str) -> None:
    bus.publish(numbered(topic, 10))
    first = place.join(bus, "g", topic)
    records = read(first, 10)
    first.commit(next_offsets(records[:4]))
    first.close()
    assert values(read(place.join(bus, "g", topic), 6)) == values(records[4:])


def test_what_was_not_committed_is_read_again_and_groups_are_apart(place: Place, bus: Bus, topic: str) -> None:
    bus.publish(numbered(topic, 5))
    first = place.join(bus, "g", topic)
    records = read(first, 5)
    first.close()
    again = place.join(bus, "g", topic)
    assert read(again, 5) == records
    again.commit(next_offsets(records))
    assert read(place.join(bus, "other", topic), 5) == records


def test_a_poll_returns_no_more_than_asked(place: Place, bus: Bus, topic: str) -> None:
    bus.publish(numbered(topic, 10))
    subscription = place.join(bus, "g", topic)
    batches: list[list[Record]] = []
    while sum(map(len, batches)) < 10:
        batches.append(subscription.poll(PATIENCE, max_records=3))
    assert max(map(len, batches)) == 3
    assert values(list(itertools.chain(*batches))) == [b"%d" % n for n in range(10)]


def test_start_at_overrides_the_committed_position(place: Place, bus: Bus, topic: str) -> None:
    positions = bus.publish(numbered(topic, 10))
    home = Partition(topic, positions[0].partition)
    first = place.join(bus, "g", topic)
    first.commit(next_offsets(read(first, 10)))
    first.close()
    asked: list[tuple[Partition, int]] = []

    def start_at(partition: Partition) -> int | None:
        asked.append((partition, threading.get_ident()))
        return 7 if partition == home else None

    second = bus.subscribe(f"g-{topic}", [topic], start_at)
    assert values(read(second, 3)) == [b"7", b"8", b"9"]
    second.close()
    assert home in [partition for partition, _ in asked]
    # On the caller's own thread: a store that answers may not be one that other threads can use.
    assert {thread for _, thread in asked} == {threading.get_ident()}
    third = bus.subscribe(f"g-{topic}", [topic], lambda _: None)
    bus.publish([Message(topic, "hospital/host", b"new")])
    assert values(read(third, 1)) == [b"new"]
    third.close()


def test_a_position_past_the_end_reads_all_again(bus: Bus, topic: str) -> None:
    bus.publish(numbered(topic, 3))
    subscription = bus.subscribe(f"g-{topic}", [topic], lambda _: 1000)
    assert len(read(subscription, 3)) == 3
    subscription.close()


def test_two_topics_are_read_together_and_committed_apart(place: Place, bus: Bus, topic: str) -> None:
    other = f"{topic}-other"
    bus.ensure_topics([topic, other])
    bus.publish([*numbered(topic, 3), *numbered(other, 4)])
    first = place.join(bus, "g", topic, other)
    records = read(first, 7)
    assert sorted(record.topic for record in records) == sorted([topic] * 3 + [other] * 4)
    first.commit(next_offsets([record for record in records if record.topic == other]))
    first.close()
    assert {record.topic for record in read(place.join(bus, "g", topic, other), 3)} == {topic}


def test_lag_counts_what_is_not_read_yet(place: Place, bus: Bus, topic: str) -> None:
    bus.publish(numbered(topic, 5))
    subscription = place.join(bus, "g", topic)
    assert len(read(subscription, 5)) == 5
    assert subscription.lag() == 0
    bus.publish(numbered(topic, 7))
    assert subscription.lag() == 7
    assert len(subscription.poll(PATIENCE, max_records=3)) == 3
    assert subscription.lag() == 4


def test_an_empty_poll_ends_after_its_timeout(place: Place, bus: Bus, topic: str) -> None:
    subscription = place.join(bus, "g", topic)
    for timeout in (0.0, 0.3, 3.5, 0.3):  # past the silence after which Kafka is asked whether it is there
        begin = time.monotonic()
        assert subscription.poll(timeout) == []
        assert timeout <= time.monotonic() - begin < timeout + 2


def test_a_waiting_poller_sees_a_record_soon(place: Place, bus: Bus, topic: str) -> None:
    subscription = place.join(bus, "g", topic)
    bus.publish(numbered(topic, 1))
    read(subscription, 1)  # the group has formed
    published: list[float] = []

    def publish() -> None:
        time.sleep(0.5)
        bus.publish(numbered(topic, 1))
        published.append(time.monotonic())

    thread = threading.Thread(target=publish)
    thread.start()
    records = subscription.poll(PATIENCE)
    seen = time.monotonic()
    thread.join()
    assert len(records) == 1
    assert seen - published[0] < 1


def test_threads_publish_at_once(place: Place, bus: Bus, topic: str) -> None:
    results: dict[int, list[Position]] = {}

    def publish(number: int) -> None:
        results[number] = []
        for step in range(10):
            results[number] += bus.publish([Message(topic, f"k{number}", b"%d" % step)] * 2)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    positions = [position for mine in results.values() for position in mine]
    assert len(set(positions)) == 160
    records = read(place.join(bus, "g", topic), 160)
    assert {Position(r.topic, r.partition, r.offset) for r in records} == set(positions)
    for number in range(8):
        assert values([r for r in records if r.key == f"k{number}"]) == [b"%d" % (n // 2) for n in range(20)]


def test_records_and_positions_outlive_the_bus(place: Place, bus: Bus, topic: str) -> None:
    bus.publish(numbered(topic, 6))
    first = place.join(bus, "g", topic)
    first.commit(next_offsets(read(first, 6)[:2]))
    first.close()
    bus.close()
    reopened = place.open()
    reopened.ensure_topics([topic])  # a topic that is there is left as it is
    [position] = reopened.publish([Message(topic, "hospital/host", b"6")])
    assert position.offset == 6
    assert values(read(place.join(reopened, "g", topic), 5)) == [b"2", b"3", b"4", b"5", b"6"]


def test_a_missing_topic_is_named(bus: Bus) -> None:
    with pytest.raises(BusError, match=r"no-such-topic does not exist|metadata"):
        bus.publish([Message("no-such-topic", "k", b"")])
    with pytest.raises(BusError, match="no-such-topic does not exist"):
        bus.subscribe("g", ["no-such-topic"])
    with pytest.raises(BusError):
        bus.ensure_topics(["not a topic name"])


def test_a_text_that_is_not_unicode_is_refused(bus: Bus, topic: str) -> None:
    with pytest.raises(BusError):
        bus.publish([Message(topic, "\udcff", b"")])
    with pytest.raises(BusError):
        bus.publish([Message(topic, "k", b"", {"h": "\udcff"})])


def test_a_commit_for_a_foreign_partition_is_refused(place: Place, bus: Bus, topic: str) -> None:
    subscription = place.join(bus, "g", topic)
    with pytest.raises(BusError, match="not assigned"):
        subscription.commit({Partition("tocsin.elsewhere", 0): 1})


def test_ends_are_the_next_offsets_and_do_not_depend_on_reading(place: Place, bus: Bus, topic: str) -> None:
    other = f"{topic}-other"
    bus.ensure_topics([other])
    begun = bus.ends([topic, other])
    assert {partition.topic for partition in begun} == {topic, other}
    assert set(begun.values()) == {0}
    positions = bus.publish([Message(topic, f"k{number}", b"x") for number in range(20)])
    grown = begun | {Partition(at.topic, at.partition): 0 for at in positions}
    for at in positions:
        grown[Partition(at.topic, at.partition)] += 1
    assert bus.ends([topic, other]) == grown
    assert bus.ends([other]) == {partition: 0 for partition in begun if partition.topic == other}
    assert place.open().ends([topic, other]) == grown


def test_a_range_is_read_outside_any_group(bus: Bus, topic: str) -> None:
    (first, *_, last) = bus.publish(numbered(topic, 10))
    place = Partition(topic, first.partition)
    assert values(bus.read(place, first.offset + 2, first.offset + 5)) == [b"2", b"3", b"4"]
    assert values(bus.read(place, 0, last.offset + 100)) == [b"%d" % number for number in range(10)]
    assert bus.read(place, last.offset + 1, last.offset + 100) == []
    assert bus.read(place, first.offset + 2, first.offset + 2) == []
    with pytest.raises(BusError, match="read"):
        bus.read(Partition(topic, 77), 0, 1)


def test_what_a_group_has_committed_can_be_asked_from_outside(place: Place, bus: Bus, topic: str) -> None:
    group = f"g-{topic}"
    assert bus.committed(group, [topic]) == {}
    bus.publish(numbered(topic, 5))
    member = place.join(bus, "g", topic)
    records = read(member, 5)
    assert {record.place for record in records} <= member.partitions()
    member.commit(next_offsets(records[:3]))
    assert bus.committed(group, [topic]) == next_offsets(records[:3])
    assert bus.committed(group, ["another"]) == {}


def test_ends_of_a_topic_that_is_not_there_are_an_error(bus: Bus, topic: str) -> None:
    with pytest.raises(BusError, match="ends: topic no-such-topic does not exist"):
        bus.ends([topic, "no-such-topic"])
    bus.close()
    with pytest.raises(BusError, match="closed"):
        bus.ends([topic])


def test_what_a_bus_did_is_counted(place: Place, bus: Bus, topic: str) -> None:
    assert bus.counts().published == {}
    bus.publish([Message(topic, "ké", b"12345"), Message(topic, "k", b"")])
    with pytest.raises(BusError):
        bus.publish([Message("no-such-topic", "k", b"")])
    member = place.join(bus, "g", topic)
    records = read(member, 2)
    member.commit(next_offsets(records))
    with pytest.raises(BusError):
        member.commit({Partition("tocsin.elsewhere", 0): 1})
    counts = bus.counts()
    assert counts.published == {topic: Volume(2, 8)}
    assert counts.read == {topic: Volume(2, 8)}
    assert (counts.publish_errors, counts.commits, counts.commit_errors) == (1, 1, 1)
    if isinstance(bus, KafkaBus):
        assert counts.rebalances >= 1
        assert counts.assigned == 3
    member.close()
    bus.close()
    assert bus.counts().read == counts.read


def test_closed_means_closed(place: Place, bus: Bus, topic: str) -> None:
    subscription = place.join(bus, "g", topic)
    subscription.close()
    subscription.close()
    for use in (lambda: subscription.poll(0), subscription.lag):
        with pytest.raises(BusError, match="closed"):
            use()
    bus.close()
    bus.close()
    for act in (lambda: bus.publish(numbered(topic, 1)), lambda: bus.subscribe(f"g-{topic}", [topic])):
        with pytest.raises(BusError, match="closed"):
            act()


# Kafka alone


@pytest.fixture(scope="module")
def own_broker(kafka_broker: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker for tests that hurt it; each leaves it running."""
    broker = type(kafka_broker)(tmp_path_factory.mktemp("own-broker"))
    broker.start()
    yield broker
    broker.kill()


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_outage_is_an_error_in_bounded_time_and_passes(own_broker: KafkaBroker, topic: str, how: str) -> None:
    bus = KafkaBus(replace(settings(own_broker), request_timeout=1, delivery_timeout=2))
    bus.ensure_topics([topic])
    bus.publish([Message(topic, f"k{number}", b"before") for number in range(10)])
    subscription = bus.subscribe("g", [topic])
    committed = next_offsets(read(subscription, 10))
    subscription.commit(committed)
    own_broker.kill() if how == "killed" else own_broker.send_signal(signal.SIGSTOP)
    for act in (
        lambda: bus.publish([Message(topic, "k", b"lost?")]),
        lambda: bus.ensure_topics([topic]),
        lambda: bus.ends([topic]),
        lambda: bus.subscribe("other", [topic]),
        subscription.lag,
        lambda: subscription.commit(committed),
        lambda: [subscription.poll(1) for _ in range(4)],
    ):
        begin = time.monotonic()
        with pytest.raises(BusError, match=r"Kafka 127\.0\.0\.1"):
            act()
        assert time.monotonic() - begin < 10
    own_broker.start() if how == "killed" else own_broker.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE
    while (position := publish_through_outage(bus, Message(topic, "k", b"after"))) is None:
        assert time.monotonic() < deadline
    records: list[Record] = []
    while position not in [Position(r.topic, r.partition, r.offset) for r in records]:
        assert time.monotonic() < deadline
        records += read_through_outage(subscription)
    subscription.commit(next_offsets(records))
    subscription.close()
    bus.close()


def test_closing_in_an_outage_ends(own_broker: KafkaBroker, topic: str) -> None:
    bus = KafkaBus(replace(settings(own_broker), request_timeout=1, delivery_timeout=2))
    bus.ensure_topics([topic])
    bus.publish(numbered(topic, 1))
    subscription = bus.subscribe("g", [topic])
    read(subscription, 1)
    own_broker.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    for item in (subscription, bus):
        with contextlib.suppress(BusError):
            item.close()
    own_broker.send_signal(signal.SIGCONT)
    assert time.monotonic() - begin < 15


def publish_through_outage(bus: Bus, message: Message) -> Position | None:
    try:
        return bus.publish([message])[0]
    except BusError:
        return None


def read_through_outage(subscription: Subscription) -> list[Record]:
    try:
        return subscription.poll(1)
    except BusError:
        return []


def test_no_broker_at_all_is_an_error_in_bounded_time() -> None:
    bus = KafkaBus(KafkaSettings(bootstrap_servers=("127.0.0.1:1",), request_timeout=1, delivery_timeout=2))
    begin = time.monotonic()
    for act in (
        lambda: bus.publish(numbered("t", 1)),
        lambda: bus.ensure_topics(["t"]),
        lambda: bus.subscribe("g", ["t"]),
    ):
        with pytest.raises(BusError, match=r"Kafka 127\.0\.0\.1:1"):
            act()
    assert time.monotonic() - begin < 15
    bus.close()


def test_a_message_over_the_limit_is_refused(kafka_broker: KafkaBroker, topic: str) -> None:
    bus = KafkaBus(settings(kafka_broker))
    bus.ensure_topics([topic])
    with pytest.raises(BusError, match="larger than"):
        bus.publish([Message(topic, "k", bytes(17 * 1024 * 1024))])
    bus.close()


def test_two_members_share_the_partitions_and_lose_nothing(kafka_broker: KafkaBroker, topic: str) -> None:
    bus = KafkaBus(settings(kafka_broker))
    bus.ensure_topics([topic])
    one = bus.subscribe(f"g-{topic}", [topic])
    sent = {b"%d" % number for number in range(300)}
    bus.publish([Message(topic, f"k{number}", b"%d" % number) for number in range(100)])
    seen: set[bytes] = set()
    holders: dict[str, set[int]] = {"one": set(), "two": set()}
    seen.update(values(records := read(one, 100)))
    one.commit(next_offsets(records))
    two = bus.subscribe(f"g-{topic}", [topic])
    members = {"one": one, "two": two}
    deadline = time.monotonic() + PATIENCE
    while not (holders["one"] and holders["two"]):
        assert time.monotonic() < deadline
        bus.publish([Message(topic, f"k{number}", b"%d" % number) for number in range(100, 200)])
        for held in holders.values():
            held.clear()
        for name, member in members.items():
            records = member.poll(0.5)
            seen.update(values(records))
            holders[name] |= {record.partition for record in records}
            member.commit(next_offsets(records))
    assert not holders["one"] & holders["two"]
    # One leaves: the other gets everything.
    one.close()
    bus.publish([Message(topic, f"k{number}", b"%d" % number) for number in range(200, 300)])
    while seen != sent:
        assert time.monotonic() < deadline
        seen.update(values(records := two.poll(0.5)))
        two.commit(next_offsets(records))
    two.close()
    bus.close()

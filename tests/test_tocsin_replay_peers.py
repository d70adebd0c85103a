"""The same lines in, the same alerts out, on the buses themselves: workers in threads, killed and cut off at random."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from shifting_bus import Fuse, Killed, MortalLake, ShiftingBus, Topics
from test_tocsin_replay import Clock, Outcome, Region, compare, lines, outcome, rules

from detections.correlation_set import CorrelationSet
from detections.plan import Plan
from ingest.bus import (
    TOPIC_MATCHES,
    TOPIC_RAW,
    TOPICS,
    Bus,
    BusCounts,
    BusError,
    Message,
    Partition,
    Position,
    Record,
    StartAt,
    Subscription,
)
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings
from storage.lake import Lake
from tocsin.correlate_stage import CORRELATE_GROUP, CorrelateStage, Correlating
from tocsin.stages import DETECT_GROUP, DetectStage, Flush
from tocsin.tally import Tally

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

PATIENCE = 60.0


@dataclass
class ApartSubscription:
    owner: ApartBus
    inner: Subscription

    def poll(self, timeout: float, max_records: int = 256) -> list[Record]:
        self.owner.fuse.burn()
        return [
            replace(record, topic=self.owner.seen(record.topic)) for record in self.inner.poll(timeout, max_records)
        ]

    def commit(self, positions: Mapping[Partition, int]) -> None:
        self.owner.fuse.burn()
        self.inner.commit({self.owner.place(place): offset for place, offset in positions.items()})
        self.owner.fuse.burn()

    def lag(self) -> int:
        return self.inner.lag()

    def partitions(self) -> frozenset[Partition]:
        return frozenset(Partition(self.owner.seen(place.topic), place.partition) for place in self.inner.partitions())

    def close(self) -> None:
        self.inner.close()


@dataclass
class ApartBus:
    """A bus with topics and groups of its own on a broker that others use too; its fuse kills its process."""

    inner: Bus
    suffix: str
    fuse: Fuse = field(default_factory=Fuse)
    members: list[Subscription] = field(default_factory=list)

    def name(self, topic: str) -> str:
        return topic + self.suffix

    def seen(self, topic: str) -> str:
        return topic.removesuffix(self.suffix)

    def place(self, place: Partition) -> Partition:
        return Partition(self.name(place.topic), place.partition)

    def ensure_topics(self, topics: Sequence[str]) -> None:
        self.inner.ensure_topics([self.name(topic) for topic in topics])

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        self.fuse.burn()
        named = [replace(message, topic=self.name(message.topic)) for message in messages]
        if self.fuse.left == 1 and len(named) > 1:  # dies in the middle of it
            self.inner.publish(named[: len(named) // 2])
            self.fuse.burn()
        written = self.inner.publish(named)
        self.fuse.burn()
        return [Position(self.seen(item.topic), item.partition, item.offset) for item in written]

    def subscribe(self, group: str, topics: Sequence[str], start_at: StartAt | None = None) -> ApartSubscription:
        def start(place: Partition) -> int | None:
            return None if start_at is None else start_at(Partition(self.seen(place.topic), place.partition))

        named = [self.name(topic) for topic in topics]
        inner = self.inner.subscribe(group + self.suffix, named, None if start_at is None else start)
        self.members.append(inner)
        return ApartSubscription(self, inner)

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        return self._seen(self.inner.ends([self.name(topic) for topic in topics]))

    def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        return self._seen(self.inner.committed(group + self.suffix, [self.name(topic) for topic in topics]))

    def _seen(self, offsets: Mapping[Partition, int]) -> dict[Partition, int]:
        return {Partition(self.seen(place.topic), place.partition): offset for place, offset in offsets.items()}

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        return [replace(item, topic=partition.topic) for item in self.inner.read(self.place(partition), start, stop)]

    def counts(self) -> BusCounts:
        return self.inner.counts()

    def finish_within(self, seconds: float) -> None:
        self.inner.finish_within(seconds)

    def close(self) -> None:
        self.inner.close()


@dataclass
class Process:
    """A stage in a thread that dies now and then and begins anew.

    Args:
        leaves: Whether the group is told of its deaths; else it notices when the member polls no more.
    """

    make: Callable[[ApartBus, Tally], DetectStage | CorrelateStage]
    bus: ApartBus
    chance: random.Random
    leaves: Callable[[int], bool]
    tally: Tally = field(default_factory=Tally)
    deaths: int = 0
    mortal: bool = True
    failed: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        stage: DetectStage | CorrelateStage | None = None
        try:
            while not stop.is_set():
                try:
                    if self.mortal and not self.bus.fuse.left and self.chance.random() < 0.3:
                        self.bus.fuse.left = self.chance.randrange(1, 12)
                    if not self.mortal:
                        self.bus.fuse.left = 0
                    if stage is None:
                        stage = self.make(self.bus, self.tally)
                    stage.step(0.05)
                except (Killed, BusError):
                    stage = None
                    self.die()
            self.bus.fuse.left = 0
            if stage is not None:
                stage.close()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failed = error

    def die(self) -> None:
        self.deaths += 1
        self.bus.fuse.left = 0
        if self.leaves(self.deaths):
            close_all(self.bus.members)


def close_all(members: Sequence[Subscription]) -> None:
    for member in members:
        member.close()


@dataclass
class Setting:
    """The buses of an example: one for each process, one for the test."""

    make: Callable[[], ApartBus]
    partitions: int
    detect: int
    correlate: int
    leaves: Callable[[int], bool]


@contextmanager
def at_work(processes: Sequence[Process]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=process.run, args=(stop,)) for process in processes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads)
        for process in processes:
            if process.failed is not None:
                raise process.failed


def wait_until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def run(setting: Setting, folder: Path, plan: Plan, correlations: CorrelationSet, seed: int) -> tuple[ApartBus, int]:
    chance = random.Random(seed)  # noqa: S311 - a test
    clock = Clock()
    lake = Lake(folder / "lake")
    bus = setting.make()
    bus.ensure_topics(TOPICS)

    def detect(mine: ApartBus, tally: Tally) -> DetectStage:
        flush = Flush(rows=chance.choice([1, 20]), bytes=1 << 30, seconds=0.3)
        return DetectStage(mine, cast("Lake", MortalLake(lake, mine.fuse)), plan, tally, flush)

    def correlate(mine: ApartBus, tally: Tally) -> CorrelateStage:
        how = Correlating(correlations, lateness=timedelta(seconds=2), idle=timedelta(), patience=timedelta(days=1))
        return CorrelateStage(mine, tally, how, clock)

    makes: list[Callable[[ApartBus, Tally], DetectStage | CorrelateStage]] = [
        *[detect] * setting.detect,
        *[correlate] * setting.correlate,
    ]
    processes = [
        Process(make, setting.make(), random.Random(seed + number), setting.leaves)  # noqa: S311 - a test
        for number, make in enumerate(makes)
    ]

    def settled() -> bool:
        return all((process.tally.settled or clock.now - timedelta(1)) >= clock.now for process in correlating)

    correlating = processes[setting.detect :]
    with at_work(processes):
        waiting = lines(seed, 40)
        while waiting:
            for now, message in waiting[: chance.randrange(2, 9)]:
                bus.publish([message])
                clock.now = max(clock.now, Clock().now + timedelta(seconds=now))
                waiting.pop(0)
            time.sleep(0.3)
        for process in processes:
            process.mortal = False
        ends = bus.ends([TOPIC_RAW])
        wait_until(lambda: read_up_to(bus, DETECT_GROUP, ends), "detect did not get through")
        ends = bus.ends([TOPIC_MATCHES])
        wait_until(lambda: read_up_to(bus, CORRELATE_GROUP, ends), "correlate did not get through")
        for _ in range(2):  # what fired at a close may open another window
            clock.now += timedelta(seconds=100)
            wait_until(settled, "time stands still")
    return bus, sum(process.deaths for process in processes)


def read_up_to(bus: Bus, group: str, ends: Mapping[Partition, int]) -> bool:
    committed = bus.committed(group, list({place.topic for place in ends}))
    return all(committed.get(place, 0) >= end for place, end in ends.items())


def copied(bus: Bus, partitions: int, topics: Sequence[str]) -> ShiftingBus:
    """The same records at the same places, in memory."""
    copy = ShiftingBus(Topics(partitions))
    for place, end in bus.ends(topics).items():
        copy.broker.logs[place] = bus.read(place, 0, end)
        assert len(copy.broker.logs[place]) == end
    return copy


def uninterrupted(bus: Bus, partitions: int, folder: Path, plan: Plan, correlations: CorrelationSet) -> Outcome:
    """What the raw records of this bus become if nothing happens."""
    region = Region(folder / "one", plan, correlations, random.Random(0), partitions)  # noqa: S311 - a test
    region.broker.logs |= copied(bus, partitions, [TOPIC_RAW]).broker.logs
    return region.finish(region.workers(region.detect, 1), region.workers(region.correlate, 1))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, CorrelationSet]:
    return rules(tmp_path_factory.mktemp("rules"))


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def check(setting: Setting, folder: Path, pack: tuple[Plan, CorrelationSet], seed: int) -> None:
    bus, deaths = run(setting, folder, *pack, seed)
    found = outcome(copied(bus, setting.partitions, TOPICS), Lake(folder / "lake"))
    expected = uninterrupted(bus, setting.partitions, folder, *pack)
    assert len(expected.firings) > 10
    assert deaths > 5
    compare(found, expected)
    assert len(found.events) == len(set(found.events))


@pytest.mark.parametrize("seed", [1, 2])
def test_on_kafka_any_run_ends_as_one_that_nothing_interrupts(
    kafka_broker: KafkaBroker, opened: ExitStack, tmp_path: Path, pack: tuple[Plan, CorrelationSet], seed: int
) -> None:
    suffix = f"-{uuid.uuid4().hex}"
    settings = KafkaSettings(
        bootstrap_servers=(kafka_broker.bootstrap_servers,),
        partitions=3,
        request_timeout=5,
        session_timeout=6,
        max_poll_interval=6,
    )

    def make() -> ApartBus:
        bus = ApartBus(KafkaBus(settings), suffix)
        opened.enter_context(closing(bus))
        opened.callback(close_all, bus.members)
        return bus

    check(Setting(make, 3, 2, 2, lambda deaths: deaths != 2), tmp_path, pack, seed)


@pytest.mark.parametrize("seed", [3, 4])
def test_on_the_embedded_bus_any_run_ends_as_one_that_nothing_interrupts(
    opened: ExitStack, tmp_path: Path, pack: tuple[Plan, CorrelationSet], seed: int
) -> None:
    def make() -> ApartBus:
        return ApartBus(opened.enter_context(closing(EmbeddedBus(tmp_path / "bus.sqlite"))), "")

    check(Setting(make, 1, 1, 1, lambda _: True), tmp_path, pack, seed)

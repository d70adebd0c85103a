"""A bus in memory whose group members come, go and are mistaken, when the test says so: what Kafka does by chance.

It keeps the promises of `ingest.bus` and no more: a member that lost a partition may still hold records of it and
write, its commits are then dropped, and a publish that fails may have written a part.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from ingest.bus import BusCounts, BusError, Message, Partition, Position, Record, StartAt
from storage.lake import Lake
from storage.lake_writer import LakeWriter


class Killed(Exception):  # noqa: N818 - no error: what the process would not live to see
    """The process is dead from here on."""


@dataclass
class Fuse:
    """Kills at the n-th call that it guards; 0: never."""

    left: int = 0

    def burn(self) -> None:
        if self.left == 1:
            self.left = 0
            raise Killed
        self.left = max(0, self.left - 1)


@dataclass
class Topics:
    """The broker."""

    count: int
    logs: dict[Partition, list[Record]] = field(default_factory=dict)
    positions: dict[tuple[str, Partition], int] = field(default_factory=dict)
    members: dict[str, list[Member]] = field(default_factory=dict)

    def partitions(self, topic: str) -> list[Partition]:
        return [Partition(topic, number) for number in range(self.count)]

    def write(self, message: Message) -> Position:
        place = Partition(message.topic, zlib.crc32(message.key.encode()) % self.count)
        log = self.logs.setdefault(place, [])
        offset = len(log)
        log.append(Record(place.topic, place.partition, offset, message.key, message.value, dict(message.headers)))
        return Position(place.topic, place.partition, offset)

    def share_out(self, group: str, shift: int = 0) -> None:
        """Deal the partitions anew; a member that sleeps does not hear of it."""
        members = self.members.get(group, [])
        awake = [member for member in members if not member.asleep]
        if not awake:
            return
        places = [place for topic in awake[0].topics for place in self.partitions(topic)]
        for member in awake:
            member.owns = {place for at, place in enumerate(places) if awake[(at + shift) % len(awake)] is member}


@dataclass(eq=False)
class Member:
    """A subscription."""

    broker: Topics
    fuse: Fuse
    group: str
    topics: Sequence[str]
    start_at: StartAt | None
    asleep: bool = False
    owns: set[Partition] = field(default_factory=set)
    next: dict[Partition, int] = field(default_factory=dict)

    def poll(self, timeout: float, max_records: int = 256) -> list[Record]:  # noqa: ARG002 - nothing to wait for
        self.fuse.burn()
        found: list[Record] = []
        if not self.asleep:
            for place in self.next.keys() - self.owns:
                del self.next[place]
            for place in sorted(self.owns - self.next.keys(), key=lambda place: place.partition):
                asked = self.start_at(place) if self.start_at is not None else None
                kept = self.broker.positions.get((self.group, place), 0)
                self.next[place] = kept if asked is None else asked
        for place, start in sorted(self.next.items(), key=lambda item: item[0].partition):
            records = self.broker.logs.get(place, [])[start : start + max_records - len(found)]
            self.next[place] = start + len(records)
            found += records
        return found

    def commit(self, positions: Mapping[Partition, int]) -> None:
        self.fuse.burn()
        for place, offset in positions.items():
            if place in self.owns and not self.asleep:
                self.broker.positions[self.group, place] = offset
        self.fuse.burn()

    def lag(self) -> int:
        return sum(len(self.broker.logs.get(place, [])) - start for place, start in self.next.items())

    def partitions(self) -> frozenset[Partition]:
        return frozenset(self.next)

    def close(self) -> None:
        members = self.broker.members[self.group]
        if self in members:
            members.remove(self)
            self.broker.share_out(self.group)


@dataclass
class ShiftingBus:
    """One process's way to the broker; its fuse kills that process."""

    broker: Topics
    fuse: Fuse = field(default_factory=Fuse)
    chance: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - a test

    def ensure_topics(self, topics: Sequence[str]) -> None: ...

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        self.fuse.burn()
        if self.fuse.left == 1 and messages:  # dies in the middle of it
            for message in messages[: self.chance.randrange(len(messages))]:
                self.broker.write(message)
            self.fuse.burn()
        written = [self.broker.write(message) for message in messages]
        self.fuse.burn()
        return written

    def subscribe(self, group: str, topics: Sequence[str], start_at: StartAt | None = None) -> Member:
        member = Member(self.broker, self.fuse, group, topics, start_at)
        self.broker.members.setdefault(group, []).append(member)
        self.broker.share_out(group)
        return member

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        return {
            place: len(self.broker.logs.get(place, [])) for topic in topics for place in self.broker.partitions(topic)
        }

    def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        return {
            place: at for (who, place), at in self.broker.positions.items() if who == group and place.topic in topics
        }

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        if start < 0:
            raise BusError("an offset is not negative")
        return self.broker.logs.get(partition, [])[start:stop]

    def counts(self) -> BusCounts:
        return BusCounts()

    def finish_within(self, seconds: float) -> None: ...

    def close(self) -> None: ...


class MortalWriter:
    """A writer of the lake that dies before, between or after its tables."""

    def __init__(self, writer: LakeWriter, fuse: Fuse) -> None:
        self._writer = writer
        self._fuse = fuse

    def flush(self) -> Mapping[Partition, int]:
        self._fuse.burn()
        durable = self._writer.flush()
        self._fuse.burn()
        return durable

    def __getattr__(self, name: str) -> object:
        return getattr(self._writer, name)


class MortalLake:
    """A lake whose writers die with their process."""

    def __init__(self, lake: Lake, fuse: Fuse) -> None:
        self._lake = lake
        self._fuse = fuse

    def writer(self) -> MortalWriter:
        return MortalWriter(self._lake.writer(), self._fuse)

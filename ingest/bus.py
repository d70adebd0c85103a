"""The bus seam: what the stages promise each other, whichever bus is behind it.

Two implementations: `ingest.bus_kafka` (production) and `ingest.bus_embedded` (one SQLite file, one machine).

Promised:
- `publish` returns only when every message is durable (Kafka: acks=all; embedded: fsync). If it raises, any of the
  messages may or may not be there: the caller publishes again, and readers see ids they already know.
- Messages with one key keep their order; offsets of a partition only grow.
- Delivery is at least once: after a crash a subscription resumes at the last committed position.

Not promised:
- Contiguous offsets (Kafka leaves holes), order between keys, or that a record is seen by one reader only while a group
  is being rebalanced. Every write downstream is idempotent, so it does not matter.

Trap: a committed position is the NEXT offset to read, not the last one read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

TOPIC_RAW: Final = "tocsin.raw"
TOPIC_MATCHES: Final = "tocsin.matches"
TOPIC_ALERTS: Final = "tocsin.alerts"
TOPIC_FIRINGS: Final = "tocsin.firings"
"""Every correlation that fired, silenced ones too: what `correlate` reads back when it starts."""

TOPIC_QUARANTINE: Final = "tocsin.quarantine"
TOPIC_SOURCES: Final = "tocsin.sources"
"""What came from whom: counts by source of what `detect` read, and of what each collector took and dropped."""

TOPICS: Final = (TOPIC_RAW, TOPIC_MATCHES, TOPIC_ALERTS, TOPIC_FIRINGS, TOPIC_QUARANTINE, TOPIC_SOURCES)


class BusError(Exception):
    """The bus did not do what was asked; the message says which bus, what, and why."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a producer hands in."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a message came to lie."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """What a consumer gets."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> Partition:
        """The partition this record lies in."""
        return Partition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Volume:
    """How much went over the bus: records, and the bytes of their keys and values before compression."""

    records: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class BusCounts:
    """What one `Bus` object and its subscriptions did since it was made. Numbers only grow."""

    published: Mapping[str, Volume] = field(default_factory=dict)
    """Topic -> what `publish` has made durable."""

    read: Mapping[str, Volume] = field(default_factory=dict)
    """Topic -> what polls returned. What is read again after a rebalance or a failure counts again."""

    publish_errors: int = 0
    """Calls of `publish` that raised."""

    commits: int = 0
    """Calls of `commit` that stored positions."""

    commit_errors: int = 0
    """Calls of `commit` that raised."""

    rebalances: int = 0
    """How often partitions came to, or were taken from, a member here; 0 on the embedded bus, like the next three."""

    assigned: int = 0
    """Partitions that came, each time they came."""

    revoked: int = 0
    """Partitions given up in good order."""

    lost: int = 0
    """Partitions taken away while this member seemed dead."""


StartAt = Callable[[Partition], int | None]
"""Asked at each assignment: the next offset to read, or None for the group's committed position (else the earliest)."""


class Subscription(Protocol):
    """One member of a consumer group. Used by one thread at a time."""

    def poll(self, timeout: float, max_records: int = 256) -> list[Record]:
        """Records in offset order within each partition; empty after `timeout` seconds without any."""

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Store, for the group, the next offset to read of each partition. Durable when it returns."""

    def lag(self) -> int:
        """Records between this member's read positions and the ends of its partitions."""

    def partitions(self) -> frozenset[Partition]:
        """The partitions that this member reads now. One that comes back was asked for by `start_at` again."""

    def close(self) -> None:
        """Leave the group. Positions not committed are read again by the next member."""


class Bus(Protocol):
    """A durable, partitioned, ordered log. Safe to share between threads."""

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet."""

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        """Write the messages, wait until they are durable, and say where each came to lie.

        Raises:
            BusError: Not all are known to be durable.
        """

    def subscribe(self, group: str, topics: Sequence[str], start_at: StartAt | None = None) -> Subscription:
        """Join a consumer group."""

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        """The next offset to be written of each partition of the topics: 0 where nothing was ever written.

        A reader whose position lies past the end knows that the bus was begun anew since.

        Raises:
            BusError: A topic does not exist, or the bus cannot be asked.
        """

    def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        """The next offset that a group has committed of each partition; a partition without one is not there.

        Raises:
            BusError: The bus cannot be asked.
        """

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        """The records of a partition from offset `start` to before `stop` that are still there, outside any group.

        All of them are held at once: ask for few.

        Raises:
            BusError: The topic does not exist, or the bus cannot be asked.
        """

    def counts(self) -> BusCounts:
        """What this object and its subscriptions did so far; cheap, and also after `close`."""

    def finish_within(self, seconds: float) -> None:
        """The process is ending: from then on no call waits for long for a bus that is away. Returns at once."""

    def close(self) -> None:
        """Release what the bus holds; waits for publishes under way, for a bounded time."""

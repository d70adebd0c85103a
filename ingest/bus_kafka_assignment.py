"""Which partitions a member of a Kafka consumer group has, as the rebalances of the group come and go.

The client's I/O thread reports what came and what left; the polling thread sets going what came. Imports no client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import NamedTuple

from ingest.bus_counter import BusCounter


class TopicPartition(NamedTuple):
    """A partition as the client names it: its own type is one just like this."""

    topic: str
    partition: int


class Assignment:
    """The partitions of one member, as the rebalances of its group come and go."""

    def __init__(self, pause: Callable[[TopicPartition], None], counter: BusCounter) -> None:
        self._pause = pause
        self._counter = counter
        self._lock = threading.Lock()
        self._arrived: set[TopicPartition] = set()
        self._placed: set[TopicPartition] = set()
        self._ever: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Note what came, and hold it until the polling thread has asked where to start."""
        with self._lock:
            self._arrived.update(assigned)
            self._ever.update(assigned)
            for place in assigned:
                self._pause(place)
        self._counter.rebalanced(assigned=len(set(assigned)))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Note what left."""
        self._leave(revoked)
        self._counter.rebalanced(revoked=len(set(revoked)))

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Note what was taken away while this member seemed dead."""
        self._leave(lost)
        self._counter.rebalanced(lost=len(set(lost)))

    def _leave(self, left: Collection[TopicPartition]) -> None:
        with self._lock:
            self._arrived.difference_update(left)
            self._placed.difference_update(left)

    def arrived(self) -> list[TopicPartition]:
        """The partitions that wait for their starting place."""
        with self._lock:
            return sorted(self._arrived)

    def place(self, partition: TopicPartition, start: Callable[[], None]) -> None:
        """Set a partition going, unless it has left meanwhile."""
        with self._lock:
            if partition in self._arrived:
                start()
                self._arrived.discard(partition)
                self._placed.add(partition)

    def placed(self) -> set[TopicPartition]:
        """The partitions that are being read."""
        with self._lock:
            return set(self._placed)

    def knows(self, partition: TopicPartition) -> bool:
        """Whether the partition is, or was, this member's."""
        with self._lock:
            return partition in self._ever

"""Records that a member has fetched and not yet handed out, by partition, and handed out in turn. Imports no client.

The client hands out all that it fetched of one partition before it comes to the next: a hospital with a backlog would
keep the quiet ones of the same worker waiting. Here each partition gives one record in turn, so that what comes for a
quiet one is among the next few, however much waits beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from ingest.bus import Record
from ingest.bus_kafka_assignment import TopicPartition


class FetchedRecords:
    """Queues of records by partition. Used by one thread.

    Attributes:
        bytes: Of the values that wait.
        count: Of the records that wait.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.count = 0
        self._queues: dict[TopicPartition, deque[Record]] = {}

    def add(self, records: Iterable[Record]) -> None:
        """Put records behind those of their partitions."""
        for record in records:
            self._queues.setdefault(TopicPartition(record.topic, record.partition), deque()).append(record)
            self.bytes += len(record.value)
            self.count += 1

    def take(self, max_records: int, max_bytes: int) -> list[Record]:
        """One record of each partition in turn, until there are as many, or after the one that passes `max_bytes`.

        The partition that was served last comes last the next time.
        """
        return list(self._in_turn(max_records, max_bytes))

    def _in_turn(self, max_records: int, max_bytes: int) -> Iterator[Record]:
        while self._queues and max_records > 0 and max_bytes > 0:
            partition = next(iter(self._queues))
            queue = self._queues.pop(partition)
            record = queue.popleft()
            if queue:
                self._queues[partition] = queue  # behind the others
            self.bytes -= len(record.value)
            self.count -= 1
            max_records -= 1
            max_bytes -= len(record.value)
            yield record

    def keep(self, partitions: Collection[TopicPartition]) -> None:
        """Forget the records of all other partitions."""
        for gone in self._queues.keys() - set(partitions):
            self.drop(gone)

    def drop(self, partition: TopicPartition) -> None:
        """Forget the records of a partition."""
        queue = self._queues.pop(partition, deque())
        self.bytes -= sum(len(record.value) for record in queue)
        self.count -= len(queue)

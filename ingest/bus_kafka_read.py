"""Reading a range of a Kafka partition outside any group. Imports no client.

Trap: the client reports its place in a partition only after a poll; and offsets may be missing at the end of a range
(markers of transactions), so the end is known by the place, not by the last record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from ingest.bus import Record
from ingest.bus_kafka_assignment import TopicPartition
from ingest.bus_kafka_record import ConsumerRecord, as_record
from ingest.bus_kafka_settings import milliseconds


class RangeConsumer(Protocol):
    """The client's consumer, as far as it is used here."""

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Read these partitions."""

    def beginning_offsets(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> Mapping[object, int]:
        """First offsets that are there."""

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_ms: int) -> Mapping[object, int]:
        """Next offsets to be written."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on reading at an offset."""

    def poll(self, timeout_ms: int, max_records: int) -> Mapping[object, Sequence[ConsumerRecord]]:
        """What came meanwhile."""

    def position(self, partition: TopicPartition, timeout_ms: int) -> int | None:
        """The next offset to be read."""


def read_range(consumer: RangeConsumer, place: TopicPartition, start: int, stop: int, timeout: float) -> list[Record]:
    """The records from `start` to before `stop` that are still there.

    Args:
        consumer: In no group; used for this and then closed.
        place: The partition, in the client's own type.
        start: First offset.
        stop: The offset after the last.
        timeout: Seconds without progress after which it gives up.

    Raises:
        TimeoutError: The cluster gives nothing more; an `OSError`, as the client's own are turned into `BusError`.
    """
    wait = milliseconds(timeout)
    consumer.assign([place])
    at = max(start, consumer.beginning_offsets([place], timeout_ms=wait)[place])
    stop = min(stop, consumer.end_offsets([place], timeout_ms=wait)[place])
    if at >= stop:
        return []
    consumer.seek(place, at)
    records: list[Record] = []
    heard = time.monotonic()
    while at < stop:
        fetched = [as_record(item) for items in consumer.poll(200, stop - at).values() for item in items]
        records += [record for record in fetched if record.offset < stop]
        now = time.monotonic()
        reached = consumer.position(place, timeout_ms=wait)
        if reached is not None and reached > at:
            at, heard = reached, now
        elif now - heard > timeout:
            raise TimeoutError(f"{place.topic}/{place.partition}: nothing came after offset {at} of {stop}")
    return records

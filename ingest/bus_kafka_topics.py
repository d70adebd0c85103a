"""What the administrator's client of Kafka says of topics and groups. Imports no client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypedDict

from ingest.bus import Partition
from ingest.bus_kafka_assignment import TopicPartition

UNKNOWN_TOPIC_OR_PARTITION: Final = 3
"""Error code of the protocol (kafka.apache.org/protocol, "Error Codes")."""


class TopicDescription(TypedDict):
    """A topic, as far as it is looked at here."""

    name: str
    error_code: int


class CommittedOffset(Protocol):
    """What a group has committed of one partition."""

    @property
    def offset(self) -> int:
        """The next offset to read; -1: none."""


def missing_topics(described: Sequence[TopicDescription], error_of: Callable[[int], type[Exception]]) -> list[str]:
    """The topics that do not exist.

    Args:
        described: What the cluster said of the topics asked for.
        error_of: Error code -> the client's error.

    Raises:
        Exception: The client's error, for whatever else is wrong with a topic.
    """
    for topic in described:
        if topic["error_code"] not in (0, UNKNOWN_TOPIC_OR_PARTITION):
            raise error_of(topic["error_code"])(topic["name"])
    return [topic["name"] for topic in described if topic["error_code"] == UNKNOWN_TOPIC_OR_PARTITION]


def committed_offsets(found: Mapping[TopicPartition, CommittedOffset], topics: Sequence[str]) -> dict[Partition, int]:
    """What a group has committed of these topics; a partition without anything is left out."""
    return {
        Partition(place.topic, place.partition): int(committed.offset)
        for place, committed in found.items()
        if place.topic in topics and committed.offset >= 0
    }

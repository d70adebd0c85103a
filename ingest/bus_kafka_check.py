"""Whether the topics of the cluster are as the settings want them. Imports no client, changes nothing.

A topic may have been made by an operator, by another version, or with other settings. Whoever runs the cluster decides;
but records that go before they were read, or that are refused, must not be a surprise: each difference is said once,
with what is wanted and what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from ingest.bus_kafka_settings import DAY, KafkaSettings, in_sync_replicas, milliseconds, topic_limit

CHECKED: Final = ("cleanup.policy", "max.message.bytes", "min.insync.replicas", "retention.bytes", "retention.ms")
"""What is asked of each topic's configuration (kafka.apache.org/documentation, "Topic Configs")."""


class PartitionDescription(TypedDict):
    """A partition, as far as it is looked at here."""

    replica_nodes: Sequence[int]


class TopicPartitions(TypedDict):
    """A topic and its partitions."""

    name: str
    partitions: Sequence[PartitionDescription]


@dataclass(frozen=True, slots=True)
class Difference:
    """A topic that is not as it is wanted."""

    topic: str
    what: str
    wanted: str
    found: str
    means: str
    loses: bool = False  # data are lost or refused by it, not merely less safe or slower

    def __str__(self) -> str:
        return f"topic {self.topic}: {self.what} is {self.found}, wanted {self.wanted}: {self.means}"


def differences(
    settings: KafkaSettings, topics: Sequence[TopicPartitions], configs: Mapping[str, Mapping[str, str]]
) -> list[Difference]:
    """What is not as the settings want it; more than wanted is no difference.

    Args:
        settings: What is wanted.
        topics: The topics as described by the cluster.
        configs: Topic -> its configuration, those of `CHECKED` that could be read.
    """
    found: list[Difference] = []
    for topic in topics:
        found += _layout(settings, topic)
        held = configs.get(topic["name"], {})
        if missing := [name for name in CHECKED if name not in held]:
            means = "the cluster does not let this user read it (DescribeConfigs)"
            found.append(Difference(topic["name"], ", ".join(missing), "known", "unknown", means))
        found += [
            difference
            for name, value in held.items()
            if (difference := VERDICTS[name](settings, topic["name"], value)) is not None
        ]
    return found


def _layout(settings: KafkaSettings, topic: TopicPartitions) -> Iterator[Difference]:
    name, partitions = topic["name"], topic["partitions"]
    if len(partitions) < settings.partitions:
        means = "fewer processes can share the work"
        yield Difference(name, "partitions", str(settings.partitions), str(len(partitions)), means)
    replicas = min((len(partition["replica_nodes"]) for partition in partitions), default=0)
    if replicas < settings.replication_factor:
        means = "less of the cluster may fail before data are lost"
        yield Difference(name, "replication factor", str(settings.replication_factor), str(replicas), means)


def _policy(_: KafkaSettings, topic: str, value: str) -> Difference | None:
    if "compact" not in value:
        return None
    means = "of records with one key (a hospital's) only the last is kept"
    return Difference(topic, "cleanup.policy", "delete", value, means, loses=True)


def _message_limit(settings: KafkaSettings, topic: str, value: str) -> Difference | None:
    if int(value) >= topic_limit(settings):
        return None
    means = "larger records are refused"
    return Difference(topic, "max.message.bytes", str(topic_limit(settings)), value, means, loses=True)


def _in_sync(settings: KafkaSettings, topic: str, value: str) -> Difference | None:
    wanted = in_sync_replicas(settings)
    if int(value) >= wanted:
        return None
    means = "a message may count as durable when fewer brokers have it, and be lost with them"
    return Difference(topic, "min.insync.replicas", str(wanted), value, means, loses=True)


def _size(_: KafkaSettings, topic: str, value: str) -> Difference | None:
    if int(value) < 0:
        return None
    means = "under load, records go before their time"
    return Difference(topic, "retention.bytes", "-1", value, means)


def _retention(settings: KafkaSettings, topic: str, value: str) -> Difference | None:
    days = settings.retention_days.get(topic)
    if days is None or int(value) < 0 or int(value) >= milliseconds(days * DAY):
        return None
    means = "records go sooner"
    return Difference(topic, "retention.ms", str(milliseconds(days * DAY)), value, means)


VERDICTS: Final[Mapping[str, Callable[[KafkaSettings, str, str], Difference | None]]] = {
    "cleanup.policy": _policy,
    "max.message.bytes": _message_limit,
    "min.insync.replicas": _in_sync,
    "retention.bytes": _size,
    "retention.ms": _retention,
}
"""By name of `CHECKED`: compares what was found with what is wanted."""

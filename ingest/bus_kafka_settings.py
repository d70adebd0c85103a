"""Settings of the Kafka bus, and the client options that follow from them. Imports no client, connects to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from ingest.bus import TOPIC_FIRINGS, TOPIC_MATCHES

FRAME_ALLOWANCE: Final = 64 * 1024
"""Bytes by which the topics' limit exceeds the producer's: a batch's headers, and a value that does not compress."""

DIRECT_SCHEME: Final = "direct"
"""Scheme of the client's option `proxy_url` that `ingest.bus_kafka` has given the meaning: no proxy."""

POLL_SLICE: Final = 0.1
"""Seconds of one wait inside `poll`: how long a partition that has just come may stay paused."""

FORCED_CLOSE: Final = 2.0
"""Seconds for a producer that was told to drop everything to end its thread."""

BATCH_BYTES: Final = 256 * 1024
"""Small records (matches, alerts) of one `publish` share batches up to this size; a larger record is its own batch."""

READ_BACK: Final = frozenset({TOPIC_MATCHES, TOPIC_FIRINGS})
"""Topics that correlation reads back when it starts (docs/decisions/0007-correlation-state.md)."""

READ_BACK_SECONDS: Final = 61 * 86_400.0
"""How long those are kept: twice the longest window of a correlation, and a day. Kafka's own default is a week."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach the cluster. Times are in seconds; an empty text means that the client is not given the option."""

    bootstrap_servers: Sequence[str] = ("127.0.0.1:9092",)
    client_id: str = "tocsin"
    partitions: int = 6  # of a topic that `ensure_topics` creates
    replication_factor: int = 1
    compression: Literal["zstd", "lz4"] = "zstd"
    max_message_bytes: int = 16 * 1024 * 1024  # of one record, before compression
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    request_timeout: float = 10.0  # for one answer of the cluster, and for finding it at all
    delivery_timeout: float = 30.0  # for a message to become durable, all retries included
    session_timeout: float = 15.0  # after which the partitions of a member that died go to the others
    max_poll_interval: float = 300.0  # for handling what one poll returned, before the member counts as stuck


def client_options(settings: KafkaSettings) -> dict[str, object]:
    """What every client is given: where the cluster is and how to sign in."""
    options: dict[str, object] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "client_id": settings.client_id,
        "request_timeout_ms": milliseconds(settings.request_timeout),
        "bootstrap_timeout_ms": milliseconds(settings.request_timeout),
        "reconnect_backoff_max_ms": 1_000,  # the default of 30 s would leave a restarted broker unused as long
        "proxy_url": f"{DIRECT_SCHEME}://",
        "security_protocol": settings.security_protocol,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.username,
        "sasl_plain_password": settings.password,
        "ssl_cafile": settings.ssl_cafile,
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
    }
    return {name: value for name, value in options.items() if value != ""}


def producer_options(settings: KafkaSettings) -> dict[str, object]:
    """What makes `publish` durable."""
    return client_options(settings) | {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": settings.compression,
        "max_request_size": settings.max_message_bytes,
        "batch_size": BATCH_BYTES,
        "linger_ms": 0,
        "max_block_ms": milliseconds(settings.request_timeout),
        # The client refuses a delivery timeout below its request timeout.
        "delivery_timeout_ms": milliseconds(max(settings.delivery_timeout, settings.request_timeout)),
        "allow_auto_create_topics": False,
    }


def consumer_options(settings: KafkaSettings, group: str, assignor: object) -> dict[str, object]:
    """What makes a member of a group, whose partitions are shared out by `assignor`."""
    return client_options(settings) | {
        "group_id": group,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "partition_assignment_strategy": (assignor,),
        "max_partition_fetch_bytes": settings.max_message_bytes + FRAME_ALLOWANCE,
        "session_timeout_ms": milliseconds(settings.session_timeout),
        "heartbeat_interval_ms": milliseconds(settings.session_timeout / 5),
        "max_poll_interval_ms": milliseconds(settings.max_poll_interval),
        "allow_auto_create_topics": False,
    }


def reader_options(settings: KafkaSettings) -> dict[str, object]:
    """What reads outside any group."""
    return client_options(settings) | {
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": settings.max_message_bytes + FRAME_ALLOWANCE,
        "allow_auto_create_topics": False,
    }


def topic_options(settings: KafkaSettings, topic: str) -> dict[str, object]:
    """How a topic is created. With three replicas or more, two must have a message before it counts as durable."""
    configs = {
        "max.message.bytes": str(settings.max_message_bytes + FRAME_ALLOWANCE),
        "min.insync.replicas": str(min(2, max(1, settings.replication_factor - 1))),
    }
    if topic in READ_BACK:
        configs["retention.ms"] = str(milliseconds(READ_BACK_SECONDS))
    return {
        "num_partitions": settings.partitions,
        "replication_factor": settings.replication_factor,
        "configs": configs,
    }


def milliseconds(seconds: float) -> int:
    """The client's unit of time."""
    return round(seconds * 1000)

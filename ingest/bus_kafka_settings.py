"""Settings of the Kafka bus, and the client options that follow from them. Imports no client, connects to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ingest.bus import BusError

FRAME_ALLOWANCE: Final = 64 * 1024
"""Bytes by which the topics' limit exceeds the producer's: a batch's headers, and a value that does not compress."""

DIRECT_SCHEME: Final = "direct"
"""Scheme of the client's option `proxy_url` that `ingest.bus_kafka` has given the meaning: no proxy."""

POLL_SLICE: Final = 0.1
"""Seconds of one wait inside `poll`: how long a partition that has just come may stay paused."""

FORCED_CLOSE: Final = 2.0
"""Seconds for a producer that was told to drop everything to end its thread."""

BRIEFLY: Final = 0.01
"""Seconds that `poll` looks for more while it has records to hand out."""

PARTITION_FETCH_BYTES: Final = 1024 * 1024
"""Compressed bytes of one partition in one answer: what others may wait behind. A record that is larger comes alone."""

FETCH_RECORDS: Final = 64
"""Records taken from the client at once: it unpacks them then, and an answer may hold a thousand times its own size."""

HELD_BYTES: Final = 16 * 1024 * 1024
"""Of the values that wait to be handed out; beyond it none are added, by more than `FETCH_RECORDS` at most."""

POLL_BYTES: Final = 16 * 1024 * 1024
"""A poll ends after the record that passes this, so that large values do not multiply by `max_records`."""

BATCH_BYTES: Final = 256 * 1024
"""Small records (matches, alerts) of one `publish` share batches up to this size; a larger record is its own batch."""

DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach the cluster. Times are in seconds; an empty text means that the client is not given the option."""

    bootstrap_servers: Sequence[str] = ("127.0.0.1:9092",)
    client_id: str = "tocsin"
    partitions: int = 6  # of a topic that `ensure_topics` creates
    replication_factor: int = 1
    min_insync_replicas: int = 0  # 0: two where there are three replicas or more, else one
    retention_days: Mapping[str, float] = field(default_factory=dict)  # topic -> days; others: as the cluster says
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
        "max_partition_fetch_bytes": PARTITION_FETCH_BYTES,
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
        "max_partition_fetch_bytes": topic_limit(settings),
        "allow_auto_create_topics": False,
    }


def in_sync_replicas(settings: KafkaSettings) -> int:
    """How many replicas must have a message before it counts as durable."""
    return settings.min_insync_replicas or (2 if settings.replication_factor >= 3 else 1)


def topic_limit(settings: KafkaSettings) -> int:
    """`max.message.bytes` of the topics."""
    return settings.max_message_bytes + FRAME_ALLOWANCE


def topic_options(settings: KafkaSettings, topic: str) -> dict[str, object]:
    """How a topic is created."""
    configs = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(topic_limit(settings)),
        "min.insync.replicas": str(in_sync_replicas(settings)),
    }
    if topic in settings.retention_days:
        configs["retention.ms"] = str(milliseconds(settings.retention_days[topic] * DAY))
    return {
        "num_partitions": settings.partitions,
        "replication_factor": settings.replication_factor,
        "configs": configs,
    }


def check_settings(settings: KafkaSettings) -> None:
    """Refuse settings with which nothing could work, before anything is asked of the cluster.

    Raises:
        BusError: The first of them; the message names the setting, and no secret.
    """
    sasl = settings.security_protocol.startswith("SASL")
    if sasl and not (settings.sasl_mechanism and settings.username and settings.password):
        missing = [name for name in ("sasl_mechanism", "username", "password") if not getattr(settings, name)]
        raise BusError(f"bus: security_protocol is {settings.security_protocol}, but {', '.join(missing)} is not set")
    if not sasl and (settings.sasl_mechanism or settings.password):
        what = "sasl_mechanism" if settings.sasl_mechanism else "password"
        raise BusError(
            f"bus: {what} is set, but security_protocol is {settings.security_protocol}: it would not be used"
        )
    encrypted = settings.security_protocol.endswith("SSL")
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path: str = getattr(settings, name)
        if path and not encrypted:
            raise BusError(f"bus: {name} is set, but security_protocol is {settings.security_protocol}: no TLS")
        if path:
            _check_file(name, Path(path))
    if in_sync_replicas(settings) > settings.replication_factor:
        counts = f"{settings.min_insync_replicas}, more than replication_factor {settings.replication_factor}"
        raise BusError(f"bus: min_insync_replicas is {counts}: nothing could be written")


def _check_file(name: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise BusError(f"bus: {name}: {path}: {error.strerror}") from error


def milliseconds(seconds: float) -> int:
    """The client's unit of time."""
    return round(seconds * 1000)

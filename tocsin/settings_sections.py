"""The sections of the settings: frozen models, a default for each key. `deploy/config.toml` shows and explains them.

`tocsin.settings` reads them from file, environment and flags.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ingest.hospital import network_of

Port = Annotated[int, Field(ge=0, le=65535)]
Days = Annotated[float, Field(gt=0, le=3660)]


class Section(BaseModel):
    """What all sections have in common: nothing unknown, nothing changed later."""

    # numbers are text where text is wanted: TOCSIN_BUS__PASSWORD=12345 is a password
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True)


class TopicDaysSection(Section):
    """How long the bus keeps what was put on a topic."""

    raw: Days = 7.0  # what was not read by then is lost to detection
    matches: Days = 61.0  # correlations read back from here (docs/decisions/0007-correlation-state.md)
    firings: Days = 61.0
    alerts: Days = 400.0  # the alert store can be made anew from here
    sources: Days = 61.0
    quarantine: Days = 61.0


class BusSection(Section):
    """Which bus carries the records, and how to reach it."""

    kind: Literal["embedded", "kafka"] = "embedded"
    path: Path | None = None  # embedded: the SQLite file; empty: data_dir/bus.sqlite
    bootstrap_servers: tuple[str, ...] = ("127.0.0.1:9092",)
    client_id: str = "tocsin"
    partitions: int = Field(default=6, ge=1)
    replication_factor: int = Field(default=1, ge=1)
    min_insync_replicas: int = Field(default=0, ge=0)  # 0: two where there are three replicas or more, else one
    compression: Literal["zstd", "lz4"] = "zstd"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    request_timeout: float = Field(default=10.0, gt=0)  # seconds for one answer of the cluster
    delivery_timeout: float = Field(default=30.0, gt=0)  # seconds for a message to become durable, retries included
    session_timeout: float = Field(default=15.0, gt=0)  # seconds after which a member that died is replaced
    retention_days: TopicDaysSection = TopicDaysSection()


Transport = Literal["udp", "tcp", "tls", "relp", "relp-tls"]


class ListenerSection(Section):
    """A socket: the tenant comes from the channel, never from the message.

    Without `hospital` the channel itself says whose the lines are: by client certificate (`tls`, `relp-tls`), or by the
    sender's address (the networks of the registry).
    """

    name: str = Field(min_length=1)
    hospital: str = Field(default="", max_length=64)
    by_address: bool = False  # udp, tcp, relp: the hospital is the one whose networks in the registry hold the sender
    transport: Transport = "tcp"
    host: str = "127.0.0.1"
    port: Port = 5514
    allow: tuple[str, ...] = ()  # networks that may send here; empty: all
    patient_data: bool = False  # patients' identifiers are made pseudonyms before the bus
    max_frame: int = Field(default=1_048_576, ge=1024, le=4_194_304)  # bytes; what follows must fit a bus message
    max_connections: int = Field(default=1000, ge=1)
    idle_timeout: float = Field(default=86_400.0, ge=0)  # seconds without a byte; 0: never
    frame_timeout: float = Field(default=60.0, ge=0)  # seconds that a begun frame may take to end; 0: for ever
    handshake_timeout: float = Field(default=10.0, gt=0)  # seconds for TLS
    sockets: int = Field(default=1, ge=1, le=64)  # udp: several share the port (SO_REUSEPORT)
    receive_buffer: int = Field(default=33_554_432, ge=65_536)  # udp: bytes asked of the kernel for each socket
    certificate: Path | None = None  # tls: empty: the registry's own
    key: Path | None = None
    client_ca: Path | None = None

    @field_validator("hospital")
    @classmethod
    def _check_hospital(cls, name: str) -> str:
        if name and (not name.strip() or name.strip() in (".", "..") or "/" in name or not name.isprintable()):
            raise ValueError("a hospital's name is printable text without a slash")
        return name.strip()

    @field_validator("allow")
    @classmethod
    def _check_allow(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                network_of(network)
            except ValueError as error:
                raise ValueError(f"{network!r} is no address or network, such as 10.1.0.0/16") from error
        return networks

    @model_validator(mode="after")
    def _check_channel(self) -> Self:
        encrypted = self.transport in ("tls", "relp-tls")
        if self.by_address and (self.hospital or encrypted):
            raise ValueError("by_address is for listeners without certificates and without a hospital")
        if not self.hospital and not self.by_address and not encrypted:
            raise ValueError("hospital is missing: a listener without certificates must say whose lines come in")
        return self


class SpoolSection(Section):
    """Where lines wait on disk while the bus is away."""

    path: Path | None = None  # empty: data_dir/spool
    max_bytes: int = Field(default=2_147_483_648, ge=0)  # 0: no spool


class ReceiptsSection(Section):
    """Where a hospital asks what became of its lines, with its certificate (HTTPS)."""

    host: str = "127.0.0.1"
    port: Port = 0
    enabled: bool = False


class KafkaSourceSection(Section):
    """A topic of a Kafka in which a hospital or region already has its logs: one event a record."""

    name: str = Field(min_length=1)
    hospital: str = Field(min_length=1, max_length=64)
    topic: str = Field(min_length=1)
    format: str = ""  # as `tocsin sources` names formats; empty: recognised line by line
    group: str = "tocsin-collect"
    bootstrap_servers: tuple[str, ...] = ()  # empty: the cluster of [bus], with all its settings
    patient_data: bool = False
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""


class CollectSection(Section):
    """How frames become batches on the bus."""

    batch_lines: int = Field(default=4000, ge=1)
    batch_bytes: int = Field(default=1_048_576, ge=1024)
    batch_seconds: float = Field(default=0.2, gt=0)
    queue_bytes: int = Field(default=67_108_864, ge=1_048_576)  # back-pressure begins here
    hospital_share: float = Field(default=0.5, gt=0, le=1)  # of queue_bytes: the most that one hospital may fill
    spool: SpoolSection = SpoolSection()
    receipts: ReceiptsSection = ReceiptsSection()
    listeners: tuple[ListenerSection, ...] = ()
    kafka: tuple[KafkaSourceSection, ...] = ()


class DetectSection(Section):
    """How often what was read is made durable in the lake."""

    flush_seconds: float = Field(default=5.0, gt=0)
    flush_rows: int = Field(default=50_000, ge=1)
    flush_bytes: int = Field(default=134_217_728, ge=1_048_576)  # in memory


class CorrelateSection(Section):
    """How long correlations wait for late events, and how much they remember."""

    lateness_seconds: float = Field(default=5.0, ge=0, le=86_400)  # after the newest event of the hospital
    max_groups: int = Field(default=1_000_000, ge=1)  # 0.6 to 0.8 kB each
    idle_seconds: float = Field(default=2.0, gt=0)  # between two looks at hospitals from which no match comes


class SilenceSection(Section):
    """When a source is held to have fallen silent, against its own rhythm."""

    enabled: bool = True
    shortest_seconds: float = Field(default=300.0, gt=0)  # no silence shorter than this is one
    never_seen_hours: float = Field(default=24.0, gt=0)  # after which an expected source that never sent is one


class PathSection(Section):
    """A place on disk; empty: inside `data_dir`."""

    path: Path | None = None


class RetentionSection(Section):
    """How long some events stay in the lake; a rule that names more is asked before one that names less."""

    hospital: str = ""  # empty: all
    product: str = ""  # of the log source; empty: any; so too category and service
    category: str = ""
    service: str = ""
    days: int = Field(ge=1)


class S3Section(Section):
    """An S3-compatible store; credentials left empty are taken from where the AWS tools look for them."""

    endpoint: str = ""  # such as https://s3.example.org; empty: AWS
    region: str = ""
    access_key: str = ""
    secret_key: str = Field(default="", repr=False)


class LakeSection(Section):
    """Where the lake lies, how long it keeps what, and how its files are kept few and large."""

    path: Path | None = None  # empty: inside data_dir
    url: str = Field(default="", pattern=r"^(s3://[^/]+(/.*)?)?$")  # s3://BUCKET/PREFIX, instead of a path
    s3: S3Section = S3Section()
    retention_days: int = Field(default=183, ge=1)
    longest_days: int = Field(default=366, ge=1)  # whatever `retention` says; only a legal hold keeps longer
    retention: tuple[RetentionSection, ...] = ()
    maintenance_seconds: float = Field(default=300.0, ge=0)  # 0: never by itself (`tocsin lake maintain` does it)
    file_bytes: int = Field(default=134_217_728, ge=1_048_576)  # compaction makes files of about this size

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        if self.url and self.path is not None:
            raise ValueError("path and url: name one of them")
        return self


class AlertsSection(Section):
    """The store of alerts and decisions, and its backups."""

    path: Path | None = None  # empty: inside data_dir
    memory_limit: str = Field(default="2GB", pattern=r"^[0-9]+(\.[0-9]+)? ?[KMG]i?B$")
    backups: Path | None = None  # folder; empty: data_dir/backups
    backup_hours: float = Field(default=24.0, ge=0)  # between two backups; 0: none by itself
    backups_kept: int = Field(default=7, ge=1)


class HealthSection(Section):
    """Where a process says how it fares: /metrics (Prometheus), /healthz, /readyz, /status."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 9464


class ConsoleSection(Section):
    """Where the console answers."""

    host: str = "127.0.0.1"
    port: Port = 8080
    title: str = "SOC"
    language: Literal["fr", "en"] = "fr"  # where the browser asks for neither
    time_zone: str = "Europe/Paris"
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"{name!r} is no time zone, such as Europe/Paris")
        return name


class LogSection(Section):
    """The processes' own log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"

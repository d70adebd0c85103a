"""Settings: one TOML file < environment < flags, and nothing unknown.

Every setting lives in one of the frozen models below; `deploy/config.toml` shows them all with their defaults (a test
keeps it complete). An unknown key is an error that names it, wherever it comes from, because a misspelt setting that is
silently ignored is how a listener ends up not listening.

- File: TOML, `--config PATH` (or `TOCSIN_CONFIG`).
- Environment: `TOCSIN_` and the key, levels joined by two underscores: `TOCSIN_BUS__KIND=kafka`.
- Flags: `--set bus.kind=kafka`.

A value from the environment or a flag is read as a TOML value where it is one (`8080`, `true`, `["a", "b"]`), else as
text. Relative paths are relative to the current directory; paths left empty lie in `data_dir`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ingest.hospital import network_of

ENVIRONMENT_PREFIX = "TOCSIN_"
NOT_SETTINGS = frozenset({"TOCSIN_CONFIG", "TOCSIN_REQUIRE", "TOCSIN_CACHE", "TOCSIN_SHARED_DATA"})
"""Variables of ours that are not settings: where the file is, and what tests and the build read."""

SettingsTree = dict[str, object]
Port = Annotated[int, Field(ge=0, le=65535)]


REASONS = {
    "extra_forbidden": "unknown setting",
    "missing": "this setting is missing",
    "tuple_type": 'a list is wanted, such as ["a", "b"]',
}
"""Kind of fault (pydantic) -> what to say."""


class SettingsError(Exception):
    """A setting that cannot be used; the message names the key, the source and the reason in one line."""


class _Section(BaseModel):
    # numbers are text where text is wanted: TOCSIN_BUS__PASSWORD=12345 is a password
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True)


class BusSection(_Section):
    """Which bus carries the records, and how to reach it."""

    kind: Literal["embedded", "kafka"] = "embedded"
    path: Path | None = None  # embedded: the SQLite file; empty: data_dir/bus.sqlite
    bootstrap_servers: tuple[str, ...] = ("127.0.0.1:9092",)
    client_id: str = "tocsin"
    partitions: int = Field(default=6, ge=1)
    replication_factor: int = Field(default=1, ge=1)
    compression: Literal["zstd", "lz4"] = "zstd"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: str = ""
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""


Transport = Literal["udp", "tcp", "tls", "relp", "relp-tls"]


class ListenerSection(_Section):
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


class SpoolSection(_Section):
    """Where lines wait on disk while the bus is away."""

    path: Path | None = None  # empty: data_dir/spool
    max_bytes: int = Field(default=2_147_483_648, ge=0)  # 0: no spool


class ReceiptsSection(_Section):
    """Where a hospital asks what became of its lines, with its certificate (HTTPS)."""

    host: str = "127.0.0.1"
    port: Port = 0
    enabled: bool = False


class CollectSection(_Section):
    """How frames become batches on the bus."""

    batch_lines: int = Field(default=4000, ge=1)
    batch_bytes: int = Field(default=1_048_576, ge=1024)
    batch_seconds: float = Field(default=0.2, gt=0)
    queue_bytes: int = Field(default=67_108_864, ge=1_048_576)  # back-pressure begins here
    hospital_share: float = Field(default=0.5, gt=0, le=1)  # of queue_bytes: the most that one hospital may fill
    spool: SpoolSection = SpoolSection()
    receipts: ReceiptsSection = ReceiptsSection()
    listeners: tuple[ListenerSection, ...] = ()


class DetectSection(_Section):
    """How often what was read is made durable in the lake."""

    flush_seconds: float = Field(default=5.0, gt=0)
    flush_rows: int = Field(default=50_000, ge=1)
    flush_bytes: int = Field(default=134_217_728, ge=1_048_576)  # in memory


class CorrelateSection(_Section):
    """How long correlations wait for late events, and how much they remember."""

    lateness_seconds: float = Field(default=5.0, ge=0, le=86_400)  # after the newest event of the hospital
    max_groups: int = Field(default=1_000_000, ge=1)  # 0.6 to 0.8 kB each
    idle_seconds: float = Field(default=2.0, gt=0)  # between two looks at hospitals from which no match comes


class SilenceSection(_Section):
    """When a source is held to have fallen silent, against its own rhythm."""

    enabled: bool = True
    shortest_seconds: float = Field(default=300.0, gt=0)  # no silence shorter than this is one
    never_seen_hours: float = Field(default=24.0, gt=0)  # after which an expected source that never sent is one


class PathSection(_Section):
    """A place on disk; empty: inside `data_dir`."""

    path: Path | None = None


class ConsoleSection(_Section):
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


class LogSection(_Section):
    """The processes' own log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(_Section):
    """All settings, validated."""

    data_dir: Path = Path("tocsin-data")
    rules: tuple[Path, ...] = (Path("rules"),)
    pipelines: tuple[str, ...] = ()  # Sigma processing pipelines: files, folders, or names of installed ones
    placeholders: tuple[Path, ...] = ()  # files and folders of values for `expand`
    rules_cache: Path | None = None  # folder of compiled rules; empty: data_dir/rules-cache
    rules_reload_seconds: float = Field(default=10.0, ge=0)  # how often rule files are looked at; 0: on SIGHUP only
    bus: BusSection = BusSection()
    collect: CollectSection = CollectSection()
    detect: DetectSection = DetectSection()
    correlate: CorrelateSection = CorrelateSection()
    silence: SilenceSection = SilenceSection()
    registry: PathSection = PathSection()
    lake: PathSection = PathSection()
    alerts: PathSection = PathSection()
    console: ConsoleSection = ConsoleSection()
    log: LogSection = LogSection()

    @property
    def rules_cache_path(self) -> Path:
        """The folder of compiled rules."""
        return self.rules_cache or self.data_dir / "rules-cache"

    @property
    def bus_path(self) -> Path:
        """The embedded bus's SQLite file."""
        return self.bus.path or self.data_dir / "bus.sqlite"

    @property
    def registry_path(self) -> Path:
        """The folder of hospitals, certificates and keys."""
        return self.registry.path or self.data_dir / "registry"

    @property
    def spool_path(self) -> Path:
        """The folder in which lines wait for the bus."""
        return self.collect.spool.path or self.data_dir / "spool"

    @property
    def lake_path(self) -> Path:
        """The folder of the Delta tables."""
        return self.lake.path or self.data_dir / "lake"

    @property
    def alerts_path(self) -> Path:
        """The DuckDB file of alerts and decisions."""
        return self.alerts.path or self.data_dir / "alerts.duckdb"


def load_settings(
    config: Path | None, environment: Mapping[str, str], flags: Sequence[tuple[str, str]] = ()
) -> Settings:
    """Merge file, environment and flags, later ones winning, and validate the whole.

    Args:
        config: TOML file, or None for defaults.
        environment: Usually `os.environ`; only `TOCSIN_*` is looked at.
        flags: (dotted key, value) pairs.

    Raises:
        SettingsError: Names the first key that is unknown or has an unusable value, and where it came from.
    """
    merged = _read_file(config) if config is not None else {}
    origins: dict[str, str] = {}
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            _put(merged, key, environment[name], f"environment variable {name}")
            origins[key] = f"environment variable {name}"
    for key, value in flags:
        _put(merged, key, value, f"--set {key}")
        origins[key] = f"--set {key}"
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise _explained(error, merged, origins, str(config or "defaults")) from error
    _check_listeners(settings.collect.listeners, str(config or "settings"))
    return settings


def _explained(error: ValidationError, tree: SettingsTree, origins: Mapping[str, str], default: str) -> SettingsError:
    """The first fault as one line; a key that does not exist before one that is missing, being its misspelling."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    key = ".".join(_part(fault["loc"][: place + 1], tree) for place in range(len(fault["loc"])))
    raw_key = ".".join(str(part) for part in fault["loc"])
    origin = next((text for known, text in origins.items() if raw_key.startswith(known)), default)
    reason = REASONS.get(fault["type"], fault["msg"].removeprefix("Value error, "))
    return SettingsError(f"{origin}: {reason}" if origin.endswith(key) else f"{origin}: {key}: {reason}")


def _part(place: tuple[int | str, ...], tree: object) -> str:
    """One part of a key; an item of a list by its name where it has one."""
    for part in place:
        try:
            tree = tree[part]  # type: ignore[index]  # whatever TOML gave; what cannot be indexed is caught
        except (KeyError, IndexError, TypeError):
            return str(place[-1])
    name = tree.get("name") if isinstance(place[-1], int) and isinstance(tree, dict) else None
    return str(place[-1]) if name is None else f"[{name}]"


def _check_listeners(listeners: Sequence[ListenerSection], origin: str) -> None:
    names = [listener.name for listener in listeners]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{origin}: collect.listeners: two listeners are named {name!r}")


def _read_file(config: Path) -> SettingsTree:
    try:
        with config.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"{config}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config}: not valid TOML: {error}") from error


def _put(tree: SettingsTree, key: str, text: str, origin: str) -> None:
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise SettingsError(f"{origin}: {parent} is not a group of settings")
        node = child
    node[leaf] = _read_value(text)


def _read_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

"""Settings: one TOML file < environment < flags, and nothing unknown.

Every setting lives in one of the frozen models of `tocsin.settings_sections`; `deploy/config.toml` shows them all with
their defaults (a test keeps it complete). An unknown key is an error that names it, wherever it comes from, because a
misspelt setting that is silently ignored is how a listener ends up not listening.

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

from pydantic import Field, ValidationError

from tocsin.settings_sections import (
    AlertsSection,
    BusSection,
    CollectSection,
    ConsoleSection,
    CorrelateSection,
    DetectSection,
    HealthSection,
    LakeSection,
    ListenerSection,
    LogSection,
    PathSection,
    Section,
    SilenceSection,
)

ENVIRONMENT_PREFIX = "TOCSIN_"
NOT_SETTINGS = frozenset({"TOCSIN_CONFIG", "TOCSIN_REQUIRE", "TOCSIN_CACHE", "TOCSIN_SHARED_DATA"})
"""Variables of ours that are not settings: where the file is, and what tests and the build read."""

SettingsTree = dict[str, object]

REASONS = {
    "extra_forbidden": "unknown setting",
    "missing": "this setting is missing",
    "tuple_type": 'a list is wanted, such as ["a", "b"]',
}
"""Kind of fault (pydantic) -> what to say."""


class SettingsError(Exception):
    """A setting that cannot be used; the message names the key, the source and the reason in one line."""


class Settings(Section):
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
    lake: LakeSection = LakeSection()
    alerts: AlertsSection = AlertsSection()
    health: HealthSection = HealthSection()
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

    @property
    def backups_path(self) -> Path:
        """The folder of the alert store's backups."""
        return self.alerts.backups or self.data_dir / "backups"


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

"""Adapters: files in which a hospital says what its own logs look like, read and judged.

One TOML file an adapter, in the folder `adapters` of the registry:

    name = "dpi-acces"              # a source is pinned to it as `adapter.dpi-acces`
    kind = "csv"                    # or "json"
    delimiter = ";"                 # csv only, as are quote, header and columns
    quote = '"'
    header = true                   # rows of column names occur
    columns = ["date", "heure", "agent", "poste", "ipp", "acte"]

    [fields]                        # column -> field; others keep their names
    agent = "user.name"
    poste = "host.name"

    [time]
    columns = ["date", "heure"]
    format = "%d/%m/%Y %H:%M:%S"    # or "iso"
    zone = "Europe/Paris"

    [logsource]
    product = "dpi"
    category = "audit"

    [envelope]                      # fields that fill host.name, user.name, source.ip, destination.ip
    user = ["agent"]

    [patients]
    columns = ["ipp"]

Every fault names its file, its key and its reason, an unknown key is one, and all faults of all files come at once.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar, cast
from zoneinfo import available_timezones

import polars as pl

from ingest.envelope import ENVELOPE
from ingest.formats.adapter import ISO, AdapterDefinition, AdapterTime, Kind, adapter_format
from ingest.formats.columns import ENVELOPE_FEEDS, MAX_NAME, plain_name
from ingest.formats.piece import EnvelopeNames, Format
from ingest.logsource import LogSource
from ingest.visible import visible

T = TypeVar("T")

MAX_COLUMNS: Final = 500
MAX_FILE: Final = 1_000_000

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?")
_PART: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_KEYS: Final = ("name", "kind", "logsource", "fields", "time", "envelope", "patients")
_CSV_KEYS: Final = ("columns", "delimiter", "quote", "header")
_ENVELOPE: Final = ("host", "user", "source_ip", "destination_ip")
_DIRECTIVE: Final = re.compile(r"%[-_0#.^:]*\d*[A-Za-z%]")
_OF_DAY: Final = re.compile(r"%[-_0]?[HIkTRrcXs+]")
_OF_DATE: Final = re.compile(r"%[-_0]?[dejDFxcs+]")


NOTHING: Final[tuple[str, ...]] = ()


class AdapterError(Exception):
    """Definitions that cannot be used.

    Attributes:
        faults: Each with file, key and reason.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(self.faults))


class _FaultError(Exception):
    """What is wrong with a key."""


def read_adapters(folder: Path) -> tuple[AdapterDefinition, ...]:
    """The adapters of a folder, by name; none where there is no such folder.

    Raises:
        AdapterError: Some are wrong; all faults of all files are named.
    """
    found: dict[str, tuple[AdapterDefinition, Path]] = {}
    faults: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            adapter = read_adapter(path)
        except AdapterError as error:
            faults += error.faults
            continue
        if adapter.name in found:
            faults.append(f"{path}: name: {adapter.name!r} is also that of {found[adapter.name][1]}")
        else:
            found[adapter.name] = adapter, path
    if faults:
        raise AdapterError(faults)
    return tuple(adapter for adapter, _ in found.values())


def adapter_formats(definitions: Iterable[AdapterDefinition]) -> dict[str, Format]:
    """The formats of adapters, by the names that sources are pinned to."""
    return {adapter.dataset: adapter_format(adapter) for adapter in definitions}


def read_adapter(path: Path) -> AdapterDefinition:
    """The adapter of one file.

    Raises:
        AdapterError: It cannot be read, is not TOML, or a key of it is wrong.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise AdapterError([f"{path}: larger than {MAX_FILE:,} bytes"])
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError([f"{path}: {error}"]) from error
    return adapter_of(text, str(path))


def adapter_of(text: str, where: str) -> AdapterDefinition:
    """The adapter that a text in TOML defines.

    Args:
        text: What stands in its file.
        where: The name of the file, for faults.

    Raises:
        AdapterError: It is not TOML, or a key of it is wrong.
    """
    try:
        tree = cast("dict[str, object]", tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AdapterError([f"{where}: {visible(str(error))}"]) from error
    reading = _Reading(tree)
    adapter = reading.adapter()
    if reading.faults or adapter is None:
        raise AdapterError(f"{where}: {visible(fault)}" for fault in reading.faults)
    return adapter


class _Reading:
    """One file being read: what is wrong is gathered, so that all of it is told at once."""

    def __init__(self, tree: Mapping[str, object]) -> None:
        self.tree = tree
        self.faults: list[str] = []

    def get(self, key: str, read: Callable[[object], T], default: T | None = None) -> T | None:
        """The value of a key (`a.b` is within a table); a fault where it is missing and has no default."""
        tree: object = self.tree
        for part in key.split("."):
            if not isinstance(tree, dict) or part not in tree:
                if default is None:
                    self.faults.append(f"{key}: missing")
                return default
            tree = tree[part]
        try:
            return read(tree)
        except _FaultError as fault:
            self.faults.append(f"{key}: {fault}")
            return default

    def only(self, key: str, known: Iterable[str]) -> None:
        """No key but those known, in a table or (empty key) at the top."""
        tree = self.tree if not key else self.tree.get(key, {})
        if not isinstance(tree, dict):
            self.faults.append(f"{key}: a table is wanted")
            return
        for name in tree.keys() - set(known):
            self.faults.append(f"{key}.{name}: unknown key" if key else f"{name}: unknown key")

    def adapter(self) -> AdapterDefinition | None:
        """The adapter, or None if something is wrong."""
        kind = self.get("kind", _kind)
        self.only("", (*_KEYS, *(_CSV_KEYS if kind != "json" else ())))
        self.only("logsource", ("product", "category", "service"))
        self.only("time", ("columns", "format", "zone"))
        self.only("envelope", _ENVELOPE)
        self.only("patients", ("columns",))
        name = self.get("name", _name)
        logsource = self._logsource()
        columns = (self.get("columns", _columns) or ()) if kind == "csv" else ()
        no_fields: dict[str, str] = {}
        fields = self.get("fields", _fields, no_fields) or no_fields
        adapter = AdapterDefinition(
            name=name or "",
            kind=kind or "csv",
            logsource=logsource,
            columns=columns,
            delimiter=self.get("delimiter", _character, ",") or ",",
            quote=self._quote(),
            header=bool(self.get("header", _truth, default=False)),
            fields=fields,
            time=self._time(),
            names=self._names(),
            patients=self.get("patients.columns", _columns, NOTHING) or NOTHING,
        )
        self._agree(adapter)
        return None if self.faults else adapter

    def _quote(self) -> str:
        quote = self.get("quote", _character_or_none, '"')
        return '"' if quote is None else quote

    def _logsource(self) -> LogSource:
        product = self.get("logsource.product", _part)
        category = self.get("logsource.category", _part, "")
        service = self.get("logsource.service", _part, "")
        return LogSource(product, category or None, service or None)

    def _time(self) -> AdapterTime | None:
        if "time" not in self.tree:
            return None
        columns = self.get("time.columns", _columns) or ()
        return AdapterTime(
            columns, self.get("time.format", _time_format, ISO) or ISO, self.get("time.zone", _zone, "") or None
        )

    def _names(self) -> EnvelopeNames:
        host, user, source, destination = (self.get(f"envelope.{key}", _columns, NOTHING) for key in _ENVELOPE)
        return EnvelopeNames(
            host=host or ("host.name",),
            user=user or ("user.name",),
            source_ip=source or ("source.ip",),
            destination_ip=destination or ("destination.ip",),
        )

    def _agree(self, adapter: AdapterDefinition) -> None:
        """What must hold between the keys."""
        if adapter.kind == "csv" and adapter.columns:
            for key, names in (
                ("fields", tuple(adapter.fields)),
                ("time.columns", adapter.time.columns if adapter.time else ()),
                ("patients.columns", adapter.patients),
            ):
                self.faults += [
                    f"{key}: {name!r} is none of the columns" for name in names if name not in adapter.columns
                ]
            if adapter.quote == adapter.delimiter:
                self.faults.append("quote: the same as the delimiter")
        given: dict[str, str] = {}
        for column in adapter.columns or tuple(adapter.fields):
            title = adapter.field_of(column)
            other = given.setdefault(title.lower(), column)
            if other != column:
                self.faults.append(f"fields.{column}: {title!r} is also the field of {other!r}")
        self._fields_known(adapter, set(given))

    def _fields_known(self, adapter: AdapterDefinition, given: set[str]) -> None:
        """Fields of the envelope that no column becomes; of JSON only those that were set can be known."""
        envelope = self.tree.get("envelope")
        if adapter.kind == "json" or not adapter.columns or not isinstance(envelope, dict):
            return
        for key in _ENVELOPE:
            for title in getattr(adapter.names, key) if key in envelope else ():
                if title.lower() not in given:
                    self.faults.append(f"envelope.{key}: no column becomes {title!r}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _FaultError("text is wanted")
    if not value.strip():
        raise _FaultError("it is empty")
    if len(value) > MAX_NAME or not value.isprintable():
        raise _FaultError(f"{value[:MAX_NAME]!r} is too long or not printable")
    return value


def _name(value: object) -> str:
    text = _text(value)
    if not _NAME.fullmatch(text):
        raise _FaultError(f"{text!r} is not lower-case letters, digits and hyphens, at most 50")
    return text


def _part(value: object) -> str:
    text = _text(value)
    if not _PART.fullmatch(text):
        raise _FaultError(f"{text!r} is no part of a log source: lower-case letters, digits and any of _.-")
    return text


def _kind(value: object) -> Kind:
    if value == "csv":
        return "csv"
    if value == "json":
        return "json"
    raise _FaultError(f"{value!r} is neither csv nor json")


def _character(value: object) -> str:
    if not isinstance(value, str) or len(value) != 1 or value in "\r\n\0":
        raise _FaultError(f"{value!r} is not one character")
    return value


def _character_or_none(value: object) -> str:
    return "" if value == "" else _character(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise _FaultError("true or false is wanted")
    return value


def _columns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _FaultError("a list of names is wanted")
    if len(value) > MAX_COLUMNS:
        raise _FaultError(f"at most {MAX_COLUMNS} columns, not {len(value)}")
    names = tuple(_text(item) for item in value)
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise _FaultError(f"{name!r} stands twice")
        seen.add(name.lower())
    return names


def _fields(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _FaultError("a table is wanted")
    found = {}
    for column, title in cast("dict[str, object]", value).items():
        try:
            found[_text(column)] = _field(title)
        except _FaultError as fault:
            raise _FaultError(f"{column!r}: {fault}") from fault
    return found


def _field(value: object) -> str:
    text = _text(value)
    if text.lower() in ENVELOPE and text not in ENVELOPE_FEEDS:
        raise _FaultError(
            f"{text!r} is written by the pipeline; of its columns a log may fill {sorted(ENVELOPE_FEEDS)}"
        )
    if text == "@timestamp":
        raise _FaultError("the time is said by the table `time`")
    if plain_name(text) != text:
        raise _FaultError(f"{text!r} is no name for a field")
    return text


def _time_format(value: object) -> str:
    text = _text(value)
    if text == ISO:
        return text
    if not _OF_DATE.search(text) or not _OF_DAY.search(text):
        raise _FaultError(f"{text!r} has no day (%d) or no time of day (%H); 'iso' is ISO 8601")
    if "%" in _DIRECTIVE.sub("", text):
        raise _FaultError(f"{text!r} ends within a directive")
    try:
        pl.Series(["0"]).str.to_datetime(text, time_unit="us", strict=False)
    except pl.exceptions.PolarsError as error:
        raise _FaultError(f"{text!r}: {error}") from error
    return text


def _zone(value: object) -> str:
    text = _text(value)
    if text not in available_timezones():
        raise _FaultError(f"{text!r} is no time zone, such as Europe/Paris")
    return text

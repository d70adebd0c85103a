"""JSON objects, one a line: read fast with orjson, sent on by shape.

A line orjson refuses gets a second reading with the standard library, which takes what real loggers wrongly write: lone
surrogates (a Windows file name may hold one), raw control characters, NaN. Else one such character in a command line
would hide the event from every field rule. What was repaired is remarked; what is beyond repair is a reject with its
cause.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import orjson
import polars as pl

from ingest.formats import cloudtrail, windows_json
from ingest.formats.columns import Json, as_text, flatten, runs_within_limits, text_frame
from ingest.formats.piece import EnvelopeNames, Inner, Parsed, Piece
from ingest.formats.windows_events import WINDOWS_NAMES, Buckets, flat_name, pieces_of, put
from ingest.logsource import UNKNOWN, LogSource

JSON_NAMES: Final = EnvelopeNames(
    time=(("@timestamp", True), ("timestamp", True), ("time", True), ("UtcTime", True), ("EventTime", True)),
    host=("host.name", "hostname", "host", "Computer"),
    user=("user.name", "username", "user", "User"),
    source_ip=("source.ip", "src_ip", "SourceIp", "client_ip"),
    destination_ip=("destination.ip", "dst_ip", "DestinationIp"),
)
"""Where JSON of no known kind usually has these."""

_DECLARATION: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_COLONS: Final = pl.col("payload").str.count_matches('":', literal=True)
"""At least the keys of a compact object; more than it has once read means that one may have hidden another."""
_CARRIER: Final = frozenset({"message", "product", "category", "service"})
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

Events = list[tuple[int, dict[str, Json]]]


def decode_object(payload: bytes) -> tuple[dict[str, Json] | None, str | None]:
    """(the object, None or a remark), or (None, why it is not one)."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return _decode_leniently(payload, str(error))
    if isinstance(value, dict):
        return value, None
    return None, "JSON, but not an object"


def _decode_leniently(payload: bytes, cause: str) -> tuple[dict[str, Json] | None, str | None]:
    try:
        value = json.loads(payload.decode("utf-8", "surrogatepass"), strict=False)
        if _SURROGATE.search(repr(value)) or r"\ud" in repr(value):
            value = _without_surrogates(value)
    except (ValueError, RecursionError):
        return None, f"broken JSON: {cause}"
    if not isinstance(value, dict):
        return None, "JSON, but not an object"
    return value, f"not valid JSON, read all the same: {cause}"


def _without_surrogates(value: Json) -> Json:
    """The value with U+FFFD for every lone surrogate, which UTF-8 (and so a column) cannot hold."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", key): _without_surrogates(item) for key, item in value.items()}
    return value


def _count_keys(value: Json) -> int:
    if isinstance(value, dict):
        return len(value) + sum(_count_keys(item) for item in value.values() if isinstance(item, (dict, list)))
    return sum(map(_count_keys, value)) if isinstance(value, list) else 0


def _key_twice(payload: bytes) -> str | None:
    """A key that occurs twice in one object: broken templates let a sender add one, so it must not go unseen."""
    found: list[str] = []

    def look(pairs: list[tuple[str, Json]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found.append(key)
            seen.add(key)

    try:
        json.loads(payload, object_pairs_hook=look, strict=False)
    except (ValueError, RecursionError):
        return None
    return found[0] if found else None


@contextmanager
def collector_paused() -> Iterator[None]:
    """Hold the cycle collector while thousands of objects are made, none of which can be in a cycle.

    It would walk them again and again as they pile up: a third of the time of reading JSON.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@collector_paused()
def parse_json(lines: pl.DataFrame) -> Parsed:
    """Windows events in every JSON shape, CloudTrail, events that declare their log source, and other objects."""
    windows: Buckets = {}
    trails: Events = []
    declared: dict[LogSource, Events] = {}
    others: Events = []
    inner: list[Inner] = []
    rejects: dict[int, str] = {}
    remarks: dict[int, str] = {}
    columns = (lines["row"], lines["payload"].cast(pl.Binary), lines.select(_COLONS).to_series())
    for row, payload, colons in zip(*(column.to_list() for column in columns), strict=True):
        event, remark = decode_object(payload)
        if event is None:
            rejects[row] = remark or "broken JSON"
            continue
        if (
            colons > len(event)
            and colons - payload.count(b'\\":') > _count_keys(event)
            and (twice := _key_twice(payload)) is not None
        ):
            remark = f"key {twice[:64]!r} occurs twice: the last value is read"
        if remark is not None:
            remarks[row] = remark
        if "EventID" in event and windows_json.is_flat(event):
            if event.get("EventType") == "INFO":
                windows_json.restore_event_type(event)
            provider = event.get("Provider_Name") or event.get("SourceName")
            put(windows, row, windows_json.flat_dataset(event), event, provider)
        elif (nested := windows_json.nested_fields(event)) is not None:
            dataset, fields = nested
            put(windows, row, dataset, fields, fields.get("System.Provider_Name", fields.get("Provider_Name")))
        elif cloudtrail.is_trail(event):
            trails.append((row, flatten(event)))
        elif (logsource := declared_logsource(event)) is not None:
            message = event.get("message")
            if isinstance(message, str) and event.keys() <= _CARRIER:
                inner.append(Inner(row, message, logsource))
            else:
                declared.setdefault(logsource, []).append((row, flatten(event)))
        else:
            others.append((row, flatten(event)))
    pieces = pieces_of(windows)
    pieces += object_pieces(cloudtrail.LOGSOURCE, "aws.cloudtrail", trails, cloudtrail.NAMES)
    for logsource, events in declared.items():
        pieces += _declared_pieces(logsource, events)
    pieces += object_pieces(UNKNOWN, "json", others, JSON_NAMES)
    return Parsed(pieces, rejects, remarks, inner)


def declared_logsource(event: dict[str, Json]) -> LogSource | None:
    """The log source that an event without a channel declares of itself with `product`, `category`, `service`."""
    parts = [event.get(name) for name in ("product", "category", "service")]
    if parts[0] is None or not all(
        part is None or (isinstance(part, str) and _DECLARATION.fullmatch(part)) for part in parts
    ):
        return None
    return LogSource(*(as_text(part) for part in parts))


def _declared_pieces(logsource: LogSource, events: Events) -> list[Piece]:
    windows = logsource.product == "windows"
    names = WINDOWS_NAMES if windows else JSON_NAMES
    for _, fields in events:  # they have become the log source
        for name in ("product", "category", "service"):
            fields.pop(name, None)
    return object_pieces(logsource, "json.declared", events, names, flat_name if windows else None)


def object_pieces(
    logsource: LogSource,
    dataset: str,
    events: Sequence[tuple[int, dict[str, Json]]],
    names: EnvelopeNames,
    column_name: Callable[[str], str] | None = None,
) -> list[Piece]:
    """Pieces of flattened objects, each within the limit of columns."""
    pieces = []
    for run in runs_within_limits([fields for _, fields in events]):
        part = events[run.start : run.stop]
        chosen = [fields for _, fields in part]
        frame = text_frame(chosen, column_name) if column_name is not None else text_frame(chosen)
        rows = pl.Series("row", [row for row, _ in part], dtype=pl.UInt32)
        pieces.append(Piece(logsource, dataset, rows, frame, names))
    return pieces

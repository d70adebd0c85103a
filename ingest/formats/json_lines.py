"""JSON objects, one a line: read fast with orjson, sent on by shape.

A line orjson refuses gets a second reading with the standard library, which takes what real loggers wrongly write: lone
surrogates (a Windows file name may hold one), raw control characters, NaN. Else one such character in a command line
would hide the event from every field rule. A text that was cut is closed and read as far as it goes. What was repaired
is remarked; what is beyond repair is a reject with its cause.
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
from ingest.formats.columns import MAX_FIELDS, Json, as_text, flatten, plain_name, runs_within_limits, text_frame
from ingest.formats.cut_json import close_cut_json
from ingest.formats.piece import EnvelopeNames, Inner, Parsed, Piece, spellings_of
from ingest.formats.sigma_taxonomy import is_known
from ingest.formats.windows_events import WINDOWS_NAMES, WINDOWS_SPELLINGS, Buckets, flat_name, pieces_of, put
from ingest.logsource import UNKNOWN, LogSource

JSON_NAMES: Final = EnvelopeNames(
    time=(("@timestamp", True), ("timestamp", True), ("time", True), ("UtcTime", True), ("EventTime", True)),
    host=("host.name", "hostname", "host", "Computer"),
    user=("user.name", "username", "User"),
    source_ip=("source.ip", "src_ip", "SourceIp", "client_ip"),
    destination_ip=("destination.ip", "dst_ip", "DestinationIp"),
)
"""Where JSON of no known kind usually has these."""

_SPELLINGS: Final = {
    WINDOWS_NAMES: WINDOWS_SPELLINGS,
    JSON_NAMES: spellings_of(JSON_NAMES),
    cloudtrail.NAMES: spellings_of(cloudtrail.NAMES),
}
_DECLARATION: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_COLONS: Final = pl.col("payload").str.count_matches('":', literal=True)
"""At least the keys of a compact object; more than it has once read means that one may have hidden another."""
_CARRIER: Final = frozenset({"message", "product", "category", "service"})
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

CUT: Final = "cut JSON: read as far as it goes"
UNDECLARABLE: Final = "no log source of Sigma"
LEFT_OUT: Final = f"more than {MAX_FIELDS:,} fields: those beyond are in the raw line only"
_LONGEST_WORD: Final = 10

Events = list[tuple[int, dict[str, Json]]]


def decode_object(payload: bytes) -> tuple[dict[str, Json] | None, str | None]:
    """(the object, None or a remark), or (None, why it is not one)."""
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return _decode_leniently(payload, str(error))
    return (value, None) if isinstance(value, dict) else (None, _no_object(value))


def _no_object(value: Json) -> str:
    return "a JSON array, not an object" if isinstance(value, list) else "JSON, but not an object"


def _decode_leniently(payload: bytes, cause: str) -> tuple[dict[str, Json] | None, str | None]:
    text = payload.decode("utf-8", "surrogatepass")
    remark = f"not valid JSON, read all the same: {cause}"
    try:
        try:
            value = _loads(text)
        except json.JSONDecodeError as error:
            closed = close_cut_json(text) if _at_the_end(error) else None
            if closed is None:
                raise
            value, remark = _loads(closed), CUT
    except (ValueError, RecursionError):
        return None, f"broken JSON: {cause}"
    if not value:
        return None, f"broken JSON: {cause}"
    return (value, remark) if isinstance(value, dict) else (None, _no_object(value))


def _loads(text: str) -> Json:
    value: Json = json.loads(text, strict=False)
    shown = repr(value)
    return _without_surrogates(value) if _SURROGATE.search(shown) or r"\ud" in shown else value


def _at_the_end(error: json.JSONDecodeError) -> bool:
    """Whether the text may have been cut there, even within an escape or a word such as `false`."""
    return error.msg.startswith("Unterminated string") or error.pos >= len(error.doc) - _LONGEST_WORD


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
    """Keys of all objects within; with a list of its own, since orjson reads deeper than Python may recurse."""
    count = 0
    waiting: list[Json] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            count += len(item)
            waiting += (inner for inner in item.values() if isinstance(inner, (dict, list)))
        elif isinstance(item, list):
            waiting += (inner for inner in item if isinstance(inner, (dict, list)))
    return count


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

    def flat(row: int, event: dict[str, Json]) -> dict[str, Json]:
        fields, left_out = flatten(event)
        if left_out:
            _add(remarks, row, LEFT_OUT)
        return fields

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
            _add(remarks, row, f"key {twice[:64]!r} occurs twice: the last value is read")
        if remark is not None:
            _add(remarks, row, remark)
        if "EventID" in event and windows_json.is_flat(event):
            if event.get("EventType") == "INFO":
                windows_json.restore_event_type(event)
            provider = event.get("Provider_Name") or event.get("SourceName")
            put(windows, row, windows_json.flat_dataset(event), event, provider)
        elif (nested := windows_json.nested_fields(event)) is not None:
            dataset, fields = nested
            put(windows, row, dataset, fields, fields.get("System.Provider_Name", fields.get("Provider_Name")))
        elif cloudtrail.is_trail(event):
            trails.append((row, flat(row, event)))
        elif (logsource := declared_logsource(event)) is not None:
            if not is_known(logsource):
                _add(remarks, row, f"declared log source {logsource} is {UNDECLARABLE}")
                others.append((row, flat(row, event)))
                continue
            message = event.get("message")
            if isinstance(message, str) and event.keys() <= _CARRIER:
                inner.append(Inner(row, message, logsource))
            else:
                declared.setdefault(logsource, []).append((row, flat(row, event)))
        else:
            others.append((row, flat(row, event)))
    pieces = pieces_of(windows)
    pieces += object_pieces(cloudtrail.LOGSOURCE, "aws.cloudtrail", trails, cloudtrail.NAMES)
    for logsource, events in declared.items():
        pieces += _declared_pieces(logsource, events)
    pieces += object_pieces(UNKNOWN, "json", others, JSON_NAMES)
    return Parsed(pieces, rejects, remarks, inner)


def _add(remarks: dict[int, str], row: int, remark: str) -> None:
    remarks[row] = f"{remarks[row]}; {remark}" if row in remarks else remark


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
    return object_pieces(logsource, "json.declared", events, names, flat_name if windows else plain_name)


def object_pieces(
    logsource: LogSource,
    dataset: str,
    events: Sequence[tuple[int, dict[str, Json]]],
    names: EnvelopeNames,
    column_name: Callable[[str], str] = plain_name,
) -> list[Piece]:
    """Pieces of flattened objects, each within the limit of columns."""
    pieces = []
    for run in runs_within_limits([fields for _, fields in events]):
        part = events[run.start : run.stop]
        chosen = [fields for _, fields in part]
        frame = text_frame(chosen, column_name, _SPELLINGS[names])
        rows = pl.Series("row", [row for row, _ in part], dtype=pl.UInt32)
        pieces.append(Piece(logsource, dataset, rows, frame, names))
    return pieces

"""JSON objects, one a line: sent on by shape (`ingest.formats.shapes`).

What an event is depends on its keys first, so it is asked once for all events with the same keys; only nested shapes
are taken apart event by event.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import polars as pl

from ingest.formats import cloudtrail, fhir_audit, windows_json
from ingest.formats.columns import MAX_FIELDS, Json, plain_name
from ingest.formats.json_objects import Remarks, add_remark, read_objects
from ingest.formats.piece import EnvelopeNames, Inner, Parsed, Piece, spellings_of
from ingest.formats.schema_json import SchemaEvents
from ingest.formats.shapes import Alike, Shape, alike, flattened, frames_of, split_by
from ingest.formats.sigma_taxonomy import is_known
from ingest.formats.windows_events import WINDOWS_NAMES, WINDOWS_SPELLINGS, WindowsEvents, flat_name
from ingest.logsource import UNKNOWN, LogSource

_USUAL_TIMES: Final = tuple((name, True) for name in ("datetime", "date", "ts", "event_time"))

JSON_NAMES: Final = EnvelopeNames(
    time=(
        *((name, True) for name in ("@timestamp", "timestamp", "time", "UtcTime", "EventTime")),  # and eventTime
        *_USUAL_TIMES,
    ),
    host=("host.name", "hostname", "host", "Computer"),
    user=("user.name", "username", "User"),
    source_ip=("source.ip", "src_ip", "SourceIp", "client_ip"),
    destination_ip=("destination.ip", "dst_ip", "DestinationIp"),
)
"""Where JSON of no known kind usually has these."""

_DECLARED_WINDOWS: Final = replace(
    WINDOWS_NAMES, time=(*WINDOWS_NAMES.time, ("timestamp", True), ("time", True), *_USUAL_TIMES)
)
"""Of events that only declare that they are of Windows: whoever wrote them may have named the time as in other JSON."""

_SPELLINGS: Final = {
    WINDOWS_NAMES: WINDOWS_SPELLINGS,
    JSON_NAMES: spellings_of(JSON_NAMES),
    _DECLARED_WINDOWS: {**spellings_of(_DECLARED_WINDOWS), **WINDOWS_SPELLINGS},
    cloudtrail.NAMES: spellings_of(cloudtrail.NAMES),
}
_DECLARATION: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_DECLARING: Final = ("product", "category", "service")
_CARRIER: Final = frozenset({"message", *_DECLARING})

UNDECLARABLE: Final = "no log source of Sigma"
LEFT_OUT: Final = f"more than {MAX_FIELDS:,} fields: those beyond are in the raw line only"

Declaration = tuple[Json, Json, Json]


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


@dataclass(slots=True)
class _Found:
    """What the objects of a batch turned out to be."""

    remarks: Remarks = field(default_factory=dict)
    windows: WindowsEvents = field(default_factory=WindowsEvents)
    trails: list[Shape] = field(default_factory=list)
    audits: list[Alike] = field(default_factory=list)
    declared: dict[LogSource, list[Shape]] = field(default_factory=dict)
    others: list[Shape] = field(default_factory=list)
    inner: list[Inner] = field(default_factory=list)
    schemas: SchemaEvents = field(default_factory=SchemaEvents)

    def flat(self, same: Alike) -> list[Shape]:
        """The events with nested objects as dotted names; what is left out of them is remarked."""
        shapes, left_out = flattened(same)
        for row in left_out:
            add_remark(self.remarks, row, LEFT_OUT)
        return shapes


@collector_paused()
def parse_json(lines: pl.DataFrame) -> Parsed:
    """Windows events in every JSON shape, CloudTrail, events that declare their log source, and other objects."""
    rejects: Remarks = {}
    found = _Found()
    for same in read_objects(lines, rejects, found.remarks):
        if windows_json.is_flat(same.keys):
            windows_json.restore_event_types(same)
            found.windows.add(windows_json.flat_dataset(same.keys), same)
        elif windows_json.may_be_nested(same.keys):
            for rest in _nested(found, same):
                _sort_out(found, rest)
        else:
            _sort_out(found, same)
    pieces = found.windows.pieces()
    pieces += object_pieces(cloudtrail.LOGSOURCE, "aws.cloudtrail", found.trails, cloudtrail.NAMES)
    pieces += fhir_audit.fhir_pieces(found.audits, found.remarks)
    pieces += found.schemas.pieces()
    for logsource, shapes in found.declared.items():
        windows = logsource.product == "windows"
        names = _DECLARED_WINDOWS if windows else JSON_NAMES
        pieces += object_pieces(logsource, "json.declared", shapes, names, flat_name if windows else plain_name)
    pieces += object_pieces(UNKNOWN, "json", found.others, JSON_NAMES)
    return Parsed(pieces, rejects, found.remarks, found.inner)


def _nested(found: _Found, same: Alike) -> list[Alike]:
    """Take Windows events out of their nested shapes; the events that are none, for all their keys, are handed back."""
    events: dict[str, list[tuple[int, dict[str, Json]]]] = {}
    rest: list[tuple[int, dict[str, Json]]] = []
    for row, event in zip(same.rows, same.events, strict=True):
        nested = windows_json.nested_fields(event)
        if nested is None:
            rest.append((row, event))
        else:
            events.setdefault(nested[0], []).append((row, nested[1]))
    for dataset, fields in events.items():
        for part in alike(fields):
            found.windows.add(dataset, part)
    return alike(rest)


def _sort_out(found: _Found, same: Alike) -> None:
    """Place objects that are no Windows events by their keys."""
    if fhir_audit.may_be_audit(same.keys):
        audits, others = fhir_audit.split_audit(same)
        if audits is not None:
            found.audits.append(audits)
        if others is None:
            return
        same = others
    if cloudtrail.is_trail(same.keys):
        found.trails += found.flat(same)
    elif "product" not in same.keys:
        if not found.schemas.take(same, found.flat):
            found.others += found.flat(same)
    else:
        for logsource, part in _by_declaration(same):
            _place_declared(found, logsource, part)


def _place_declared(found: _Found, logsource: LogSource | None, same: Alike) -> None:
    if logsource is None:
        found.others += found.flat(same)
    elif not is_known(logsource):
        for row in same.rows:
            add_remark(found.remarks, row, f"declared log source {logsource} is {UNDECLARABLE}")
        found.others += found.flat(same)
    elif "message" in same.keys and same.keys <= _CARRIER:
        carried = [message for message in same.values("message") if isinstance(message, str)]
        if len(carried) == len(same.rows):
            found.inner.append(Inner(logsource, same.rows, carried))
            return
        for part in split_by(same, [type(message) is str for message in same.values("message")]).values():
            texts = [message for message in part.values("message") if isinstance(message, str)]
            if texts:
                found.inner.append(Inner(logsource, part.rows, texts))
            else:
                found.declared.setdefault(logsource, []).extend(_undeclared(found.flat(part)))
    else:
        found.declared.setdefault(logsource, []).extend(_undeclared(found.flat(same)))


def _undeclared(shapes: list[Shape]) -> list[Shape]:
    """The shapes without the declaration, which has become the log source."""
    for shape in shapes:
        for name in _DECLARING:
            shape.columns.pop(name, None)
    return shapes


def _by_declaration(same: Alike) -> list[tuple[LogSource | None, Alike]]:
    """The events by the log source that they declare, decided once for each combination of values."""
    combinations = list(zip(*(same.values(name) for name in _DECLARING), strict=True))
    try:
        distinct = list(dict.fromkeys(combinations))
    except TypeError:  # a list or an object among them
        return [
            (_declared(combination), Alike([row], [event]))
            for combination, row, event in zip(combinations, same.rows, same.events, strict=True)
        ]
    # 1, 1.0 and True are one key here, and all of them declare nothing.
    chosen = {combination: _declared(combination) for combination in distinct}
    if len(chosen) == 1:
        return [(chosen[distinct[0]], same)]
    places = {combination: place for place, combination in enumerate(distinct)}
    parts = split_by(same, [places[combination] for combination in combinations])
    return [(chosen[distinct[place]], part) for place, part in parts.items()]


def _declared(parts: Declaration) -> LogSource | None:
    """The log source that an event without a channel declares of itself with `product`, `category`, `service`."""
    texts = [part for part in parts if isinstance(part, str) and _DECLARATION.fullmatch(part)]
    if parts[0] is None or len(texts) < sum(part is not None for part in parts):
        return None
    product, category, service = (part if isinstance(part, str) else None for part in parts)
    return LogSource(product, category, service)


def object_pieces(
    logsource: LogSource,
    dataset: str,
    shapes: Sequence[Shape],
    names: EnvelopeNames,
    column_name: Callable[[str], str] = plain_name,
) -> list[Piece]:
    """Pieces of flattened objects, each within the limit of columns."""
    return [
        Piece(logsource, dataset, rows, frame, names)
        for rows, frame in frames_of(shapes, column_name, _SPELLINGS[names])
    ]

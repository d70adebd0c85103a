"""From dictionaries to String columns: the one place where values become text and names become column names.

Every field is text (docs/decisions/0003-fields-are-text.md). Values of one column nearly always have one type, so a
column is looked at once (`set(map(type, ...))`) and only the odd ones are walked value by value.

Names are folded, since Delta and DuckDB fold the case of column names: `ProcessId` and `processid` share a column, and
where both hold a value in one event, that event's first is kept (the raw line has both). Only the spelling of a column
may depend on other events, and not where a later step knows the name (`spellings`). A name that the envelope owns is
set aside under `payload.`: a sender must not write our envelope.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Final, TypeAlias

import orjson
import polars as pl

from ingest.envelope import ENVELOPE

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Fields: TypeAlias = Mapping[str, Json]

MAX_FIELDS: Final = 1000
"""Most columns of one frame: Elasticsearch's index.mapping.total_fields.limit, which loggers already respect."""
MAX_NAME: Final = 200
"""Longest column name; a Sysmon or ECS name has at most some 60 characters."""
MAX_DEPTH: Final = 20
"""Deepest object that is flattened (Elasticsearch's index.mapping.depth.limit); below it stays JSON text."""

MOST_RUNS: Final = 8
"""Runs of events with equal keys that are put together by run; with more, key by key is cheaper."""

ENVELOPE_FEEDS: Final = frozenset({"@timestamp", "host.name", "user.name", "source.ip", "destination.ip"})
"""Envelope names that an event may carry itself: they feed the envelope and are no fields."""

_NO_SPELLINGS: Final[Mapping[str, str]] = {}
_TEXT: Final = frozenset({str, type(None)})
_WHOLE: Final = frozenset({int, type(None)})


def as_text(value: Json) -> str | None:
    """A JSON value as field text: numbers in decimal, true/false in lower case, lists and objects as compact JSON.

    A whole number is written without `.0`, whatever its type was: tables with gaps hold `EventID` as 4688.0.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value).removesuffix(".0")
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # nested deeper than orjson writes (254), or an integer beyond 64 bits
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "(nested too deeply to show: see the raw line)"


def text_series(name: str, values: Sequence[Json]) -> pl.Series:
    """A String column of JSON values."""
    kinds = set(map(type, values))
    if kinds <= _TEXT:
        return pl.Series(name, values, dtype=pl.String)
    if kinds <= _WHOLE:
        try:
            return pl.Series(name, values, dtype=pl.Int64).cast(pl.String)
        except (OverflowError, TypeError, pl.exceptions.PolarsError):  # beyond 64 bits, as Keywords of NXLog can be
            pass
    return pl.Series(name, [as_text(value) for value in values], dtype=pl.String)


def plain_name(name: str) -> str:
    """A JSON key as a column name: printable, not empty, not too long, and not one of the envelope's.

    Nor one that Polars takes for a pattern (`*`, `^...$`): an event must not be able to name all columns at once.
    """
    if not name.isprintable() or not name or len(name) > MAX_NAME:
        name = "".join(char if char.isprintable() else "_" for char in name[:MAX_NAME]) or "_"
    if name == "*" or name.startswith("^"):
        name = f"_{name}"
    folded = name.lower()
    if folded in ENVELOPE:
        return folded if folded in ENVELOPE_FEEDS else f"payload.{folded}"
    return name


def text_frame(
    events: Sequence[Fields],
    column_name: Callable[[str], str] = plain_name,
    spellings: Mapping[str, str] = _NO_SPELLINGS,
) -> pl.DataFrame:
    """One row an event, one String column a name; names that differ only by case share a column.

    Args:
        events: Key -> value of each event. Objects that should be flattened already are.
        column_name: Key -> column name; two keys may give one name.
        spellings: Name in lower case -> how its column is called, however the events spell it.
    """
    columns: list[tuple[str, Sequence[Json]]] = []
    spelling: dict[str, str] = {}
    for key, values in _columns(events):
        wanted = column_name(key)
        folded = wanted.lower()
        spelling.setdefault(folded, spellings.get(folded, wanted))
        columns.append((folded, values))
    if len(spelling) < len(columns):
        columns = list(_columns([_folded(event, column_name) for event in events]))
    if not columns:
        return pl.DataFrame(height=len(events))
    return pl.DataFrame([text_series(spelling[folded], values) for folded, values in columns])


def _folded(event: Fields, column_name: Callable[[str], str]) -> Fields:
    """The event under column names in lower case; of keys that share one, the first that holds a value."""
    folded: dict[str, Json] = {}
    for key, value in event.items():
        name = column_name(key).lower()
        if folded.get(name) is None:
            folded[name] = value
    return folded


def _columns(events: Sequence[Fields]) -> Iterable[tuple[str, Sequence[Json]]]:
    """(key, values) of every key. A run of events with the same keys is transposed in C: that makes it fast."""
    runs = [list(run) for _, run in groupby(events, len)]
    parts = [part for run in runs if (part := _transposed(run)) is not None] if len(runs) <= MOST_RUNS else []
    if len(parts) < len(runs):
        return ((key, [event.get(key) for event in events]) for key in dict.fromkeys(chain.from_iterable(events)))
    gaps = [(None,) * len(run) for run in runs]
    return (
        (key, tuple(chain.from_iterable(part.get(key, gap) for part, gap in zip(parts, gaps, strict=True))))
        for key in dict.fromkeys(chain.from_iterable(parts))
    )


def _transposed(run: list[Fields]) -> dict[str, tuple[Json, ...]] | None:
    """Key -> values of events that have all the same keys; None if they have not."""
    keys = list(run[0])
    if len(keys) < 2:  # itemgetter of one key gives no tuple
        return None
    try:
        return dict(zip(keys, zip(*map(itemgetter(*keys), run), strict=True), strict=True))
    except KeyError:
        return None


def runs_within_limits(events: Sequence[Fields]) -> list[range]:
    """Cut events into runs whose keys together stay within `MAX_FIELDS`, so that hostile names cannot widen a frame."""
    if sum(map(len, events)) <= MAX_FIELDS or len(set(chain.from_iterable(events))) <= MAX_FIELDS:
        return [range(len(events))] if events else []
    runs: list[range] = []
    start, seen = 0, set[str]()
    for place, event in enumerate(events):
        merged = seen.union(event)
        if len(merged) > MAX_FIELDS and place > start:
            runs.append(range(start, place))
            start, merged = place, set(event)
        seen = merged
    runs.append(range(start, len(events)))
    return runs


def flatten(value: dict[str, Json]) -> tuple[dict[str, Json], bool]:
    """(nested objects as dotted names, at most `MAX_FIELDS` of them; whether fields were left out).

    Lists stay as they are and become JSON text.
    """
    flat: dict[str, Json] = {}
    whole = _flatten_into(flat, "", value, MAX_DEPTH)
    return flat, not whole


def _flatten_into(flat: dict[str, Json], prefix: str, value: dict[str, Json], depth: int) -> bool:
    for key, item in value.items():
        if len(flat) >= MAX_FIELDS:
            return False
        if isinstance(item, dict) and item and depth > 0:
            if not _flatten_into(flat, f"{prefix}{key}.", item, depth - 1):
                return False
        else:
            flat.setdefault(f"{prefix}{key}", item)
    return True

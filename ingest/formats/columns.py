"""From values and names to String columns: the one place where values become text and names become column names.

Every field is text (docs/decisions/0003-fields-are-text.md). Values of one column nearly always have one type, and
nearly always text, so a column is first taken as text, then by its types, and only the odd ones value by value.

A name that the envelope owns is set aside under `payload.`: a sender must not write our envelope.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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

ENVELOPE_FEEDS: Final = frozenset({"@timestamp", "host.name", "user.name", "source.ip", "destination.ip"})
"""Envelope names that an event may carry itself: they feed the envelope and are no fields."""

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
    first = next((value for value in values if value is not None), "")
    if type(first) is str:  # a list tried as text would first be made a column itself, each for itself
        try:
            return pl.Series(name, values, dtype=pl.String)  # strict: refuses whatever is not text
        except TypeError:
            pass
    if set(map(type, values)) <= _WHOLE:  # bool is not among them, though it is an int: it becomes `true`, not `1`
        try:
            return pl.Series(name, values, dtype=pl.Int64).cast(pl.String)
        except (OverflowError, TypeError, pl.exceptions.PolarsError):  # beyond 64 bits, as Keywords of NXLog can be
            pass
    return pl.Series(name, texts_of(values), dtype=pl.String)


def texts_of(values: Sequence[Json]) -> list[str | None]:
    """`as_text` of each value; what most values are is told here, since a call costs more than the text."""
    return [
        value if value is None or type(value) is str else str(value) if type(value) is int else as_text(value)
        for value in values
    ]


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

r"""Names of lake columns: how event fields become columns that every Delta reader accepts, and back.

Three laws of the file formats, none of which log sources know:

- Delta without column mapping, and Spark, refuse ` ,;{}()\n\t=` in a column name; a NUL cannot cross the Arrow C
  interface at all (Polars aborts the process). So a name is percent-encoded as UTF-8 (RFC 3986, section 2.1), which
  leaves the usual Sigma names as they are.
- Delta and DuckDB fold the case of names. A field that differs from a column of the table only by case goes to
  that column; encoded names are ASCII, so folding means one thing everywhere.
- A field may bear the name of one of the lake's own columns (`date` in W3C web logs). It gets a `%` at its end, which
  encoding never leaves there by itself; so does the empty name.

Fields for which a table has no room are the matter of `storage.lake_rest`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import quote, unquote

import polars as pl
from polars.selectors import by_name

from ingest.bus import Position
from ingest.envelope import ENVELOPE, RECEIVED, TENANT, TIMESTAMP
from ingest.logsource import LogSource
from storage.lake_rest import MAX_COLUMNS, REST, packed, unpacked

DATE: Final = "date"
BUS_TOPIC: Final = "bus.topic"
BUS_PARTITION: Final = "bus.partition"
BUS_OFFSET: Final = "bus.offset"

LAKE_COLUMNS: Final[dict[str, pl.DataType]] = {
    BUS_TOPIC: pl.String(),
    BUS_PARTITION: pl.Int32(),
    BUS_OFFSET: pl.Int64(),
    DATE: pl.Date(),
}
"""The lake's own columns: the bus record an event came in (also in its id), and the day that partitions the table."""

PARTITION_COLUMNS: Final = (DATE, TENANT)

FIXED_COLUMNS: Final[dict[str, pl.DataType]] = {
    **{name: kind for name, kind in LAKE_COLUMNS.items() if name != DATE},
    TIMESTAMP: ENVELOPE[TIMESTAMP],
    **{name: kind for name, kind in ENVELOPE.items() if name not in (TIMESTAMP, TENANT)},
    DATE: LAKE_COLUMNS[DATE],
    TENANT: ENVELOPE[TENANT],
}
"""Columns of every table, in table order: those that prune files come first, since statistics cover the first ones."""

CLOCK_SLACK: Final = pl.duration(days=31)
"""How far event time may lie from receipt and still name the partition. A hostile or broken clock could otherwise make
a folder and a file a day of its fancy; such events go under the day of receipt. Their @timestamp stays untouched."""

_MARK: Final = "%"
_RESERVED: Final = frozenset(LAKE_COLUMNS) | {REST}
_SAFE: Final = "@$#+:/"
_LONGEST_PART: Final = 48


def encode_name(name: str) -> str:
    """The lake column for an event field."""
    quoted = quote(name, safe=_SAFE)
    return quoted + _MARK if not quoted or quoted.lower() in _RESERVED else quoted


def decode_name(column: str) -> str:
    """The event field of a lake column: `decode_name(encode_name(name)) == name`."""
    return unquote(column.removesuffix(_MARK))


def to_lake(events: pl.DataFrame, columns: Iterable[str], room: int = MAX_COLUMNS) -> pl.DataFrame:
    """Rename the fields of a frame to lake columns, onto the spelling of `columns` where the table has them.

    Fields that meet in one column are coalesced: by the contract of the event frame no row has both. `room` is how many
    columns may be new; the fields beyond are packed into `fields.rest`.
    """
    spelling = {column.lower(): column for column in columns}
    sources: dict[str, list[str]] = {}
    rest: dict[str, list[str]] = {}
    for name in events.columns:
        encoded = encode_name(name)
        key = encoded.lower()
        if key not in spelling and room > 0:
            spelling[key] = encoded
            room -= 1
        if key in spelling:
            sources.setdefault(spelling[key], []).append(name)
        else:
            rest.setdefault(key, []).append(name)
    placed = events.select(
        # by_name, since pl.col takes a field called "*" or "^a.*$" for a pattern
        pl.coalesce([by_name(name).cast(ENVELOPE.get(column, pl.String())) for name in names]).alias(column)
        for column, names in sources.items()
    )
    return placed.with_columns(packed(events, rest.values())) if rest else placed


def with_bookkeeping(events: pl.DataFrame, positions: Sequence[tuple[Position, int]]) -> pl.DataFrame:
    """Add the lake's own columns; `positions` says which bus record how many rows, in their order, came in."""
    records = pl.DataFrame(
        [(position.topic, position.partition, position.offset, rows) for position, rows in positions],
        schema={BUS_TOPIC: pl.String, BUS_PARTITION: pl.Int32, BUS_OFFSET: pl.Int64, "rows": pl.Int64},
        orient="row",
    )
    origin = records.select(pl.exclude("rows").repeat_by("rows").explode())
    day = pl.col(TIMESTAMP).dt.date()
    receipt = pl.col(RECEIVED)
    plausible = pl.col(TIMESTAMP).is_between(receipt - CLOCK_SLACK, receipt + CLOCK_SLACK) | receipt.is_null()
    return events.with_columns(
        pl.when(plausible).then(day).otherwise(receipt.dt.date()).alias(DATE), *origin.get_columns()
    )


def from_lake(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The event frames of lake rows: envelope first, fields by their own names, columns without any value dropped.

    One frame, unless so many different fields were packed that it would be too wide for its rows.

    Raises:
        ValueError: The packed fields of a row cannot be read.
    """
    if REST not in rows.columns:
        yield _events(rows)
        return
    rests, rows = rows.get_column(REST), rows.drop(REST)
    for first, found in unpacked(rests, rows.width):
        yield _events(_with_fields(rows.slice(first, len(found)), found))


def _with_fields(rows: pl.DataFrame, fields: Sequence[dict[str, str]]) -> pl.DataFrame:
    """Lake rows with the packed fields of each as lake columns again."""
    spelling = {column.lower(): column for column in rows.columns}
    cells: dict[str, list[str | None]] = {}
    for row, found in enumerate(fields):
        for name, value in found.items():
            encoded = encode_name(name)
            column = spelling.setdefault(encoded.lower(), encoded)
            cells.setdefault(column, [None] * rows.height)[row] = value
    restored = (pl.Series(column, values, dtype=pl.String()) for column, values in cells.items())
    return rows.with_columns(
        pl.coalesce(column.name, column).alias(column.name) if column.name in rows.columns else column
        for column in restored
    )


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    filled = {name for name in rows.columns if rows.get_column(name).null_count() < rows.height}
    fields = [name for name in rows.columns if name in filled and name not in ENVELOPE and name not in LAKE_COLUMNS]
    return rows.select(
        *(pl.col(name).cast(kind) for name, kind in ENVELOPE.items()),
        *(pl.col(name).alias(decode_name(name)) for name in fields),
    )


def folder_part(text: str | None) -> str:
    """One dotted part of a table's name: `[a-z0-9_-]`, distinct for distinct texts, `_` for what is not known."""
    if text is None:
        return "_"
    kept = re.sub(r"[^a-z0-9_-]", "_", text.lower())
    if kept == text and text != "_" and 0 < len(text) <= _LONGEST_PART:
        return kept
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept[:_LONGEST_PART]}-{digest}"


def folder_name(logsource: LogSource) -> str:
    """The table folder of a log source, such as `windows.process_creation._`."""
    return ".".join(folder_part(part) for part in (logsource.product, logsource.category, logsource.service))

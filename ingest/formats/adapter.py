"""Formats that a hospital defines for itself: access logs of its patient record, as CSV or JSON lines.

No vendor of a patient record documents a log of its own; what comes is an export, and only the hospital knows its
columns. A definition (`ingest.adapters` reads it from a file) says what they are called here, which of them are the
time, the user and the addresses, and which identify patients. Lines of such a source cannot be recognised by their
content, so an adapter is only offered the lines of a source that is pinned to it.

A row that does not fit its definition is kept: with too few columns the last are missing, with too many they are
`column9`, ...; with broken quotes it is cut at every delimiter; each time with a remark. A row of column names, which
exports repeat, is kept as such. Times are local, in the zone of the definition, or else of the source.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import polars as pl

from ingest.formats.columns import plain_name
from ingest.formats.json_objects import Remarks, add_remark, read_objects
from ingest.formats.piece import EnvelopeNames, Format, Parsed, Piece
from ingest.formats.shapes import flattened, frames_of
from ingest.logsource import LogSource

Kind = Literal["csv", "json"]

PREFIX: Final = "adapter."
ISO: Final = "iso"
"""A time format: ISO 8601, or an epoch, as in any JSON."""

MAX_EXTRA: Final = 50
"""Most columns beyond those of the definition that are kept."""

QUOTED: Final = 64
BAD_QUOTES: Final = "broken quotes: cut at every delimiter"
HEADER_ROW: Final = "a row of column names, no event"
LEFT_OUT: Final = "fields were left out: those are in the raw line only"
ZONE_MISSING_HOUR: Final = pl.duration(hours=1)


@dataclass(frozen=True, slots=True)
class AdapterTime:
    """Where the time of an event is.

    Attributes:
        columns: Columns that make it up, joined with a blank (a date and a time of day).
        format: As in strptime, or `iso`.
        zone: Time zone (IANA) of times that name none; None for that of the source.
    """

    columns: tuple[str, ...]
    format: str = ISO
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class AdapterDefinition:
    """What a hospital says of a format of its own.

    Attributes:
        name: Lower-case letters, digits and hyphens; `adapter.NAME` is what a source is pinned to.
        kind: `csv` or `json`.
        logsource: What rules know it by.
        columns: Columns of CSV in their order; JSON has its keys (nested ones joined with dots).
        delimiter: Of CSV, one character.
        quote: Of CSV, one character, or empty for none.
        header: Whether rows of column names occur.
        fields: Column -> field; a column that is not named keeps its name.
        time: Where the time is, or None for that of the syslog header.
        names: Fields that fill the envelope.
        patients: Columns that identify patients.
    """

    name: str
    kind: Kind
    logsource: LogSource
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    quote: str = '"'
    header: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)
    time: AdapterTime | None = None
    names: EnvelopeNames = field(default_factory=EnvelopeNames)
    patients: tuple[str, ...] = ()

    @property
    def dataset(self) -> str:
        """The name of the format, and `event.dataset`."""
        return f"{PREFIX}{self.name}"

    def field_of(self, column: str) -> str:
        """The field of a column."""
        return self.fields.get(column) or plain_name(column)

    @property
    def patient_places(self) -> tuple[int, ...]:
        """Places (from 0) of the columns of CSV that identify patients."""
        return tuple(place for place, column in enumerate(self.columns) if column in self.patients)


def adapter_format(definition: AdapterDefinition) -> Format:
    """The format of a definition, for the lines of sources that are pinned to it."""
    if definition.kind == "csv":
        return Format(definition.dataset, pl.col("payload").is_not_null(), lambda lines: parse_csv(lines, definition))
    return Format(definition.dataset, pl.col("payload").is_not_null(), lambda lines: parse_objects(lines, definition))


def split_row(text: str, delimiter: str, quote: str) -> tuple[list[str], bool]:
    """(the cells of one row; whether its quotes were sound)."""
    if not quote or quote not in text:
        return text.split(delimiter), True
    try:
        rows = list(csv.reader([text], delimiter=delimiter, quotechar=quote, strict=True))
    except csv.Error:  # also a line break outside quotes, and a cell beyond the module's limit
        rows = []
    if len(rows) == 1:
        return rows[0], True
    return [cell.strip().strip(quote) for cell in text.split(delimiter)], False


def parse_csv(lines: pl.DataFrame, definition: AdapterDefinition) -> Parsed:
    """One piece of events, and one of rows of column names."""
    width = len(definition.columns)
    names = [column.strip().lower() for column in definition.columns]
    remarks: Remarks = {}
    places: list[int] = []
    rows: list[list[str | None]] = []
    headers: list[tuple[int, str]] = []
    for row, payload in zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True):
        cells, sound = split_row(payload.lstrip("\ufeff"), definition.delimiter, definition.quote)
        if definition.header and [cell.strip().lower() for cell in cells] == names:
            remarks[row] = HEADER_ROW
            headers.append((row, payload))
            continue
        if not sound:
            add_remark(remarks, row, BAD_QUOTES)
        if len(cells) != width:
            add_remark(remarks, row, f"{len(cells)} columns where {width} were defined")
        places.append(row)
        rows.append([*cells[: width + MAX_EXTRA], *[None] * (width - len(cells))])
    pieces = []
    if rows:
        pieces.append(_timed(definition, pl.Series("row", places, dtype=pl.UInt32), _frame(rows, definition), remarks))
    if headers:
        only = pl.Series("row", [row for row, _ in headers], dtype=pl.UInt32)
        said = pl.DataFrame({"message": [payload for _, payload in headers]}, schema={"message": pl.String})
        pieces.append(Piece(definition.logsource, definition.dataset, only, said, EnvelopeNames()))
    return Parsed(pieces, remarks=remarks)


def _frame(rows: Sequence[list[str | None]], definition: AdapterDefinition) -> pl.DataFrame:
    """The cells by column, under the names of their fields; an empty cell says nothing."""
    width = max(map(len, rows))
    extra = [f"column{place + 1}" for place in range(len(definition.columns), width)]
    titles = [*map(definition.field_of, definition.columns), *extra]
    columns = zip(*(row + [None] * (width - len(row)) for row in rows), strict=True)
    taken: set[str] = set()
    frame: list[pl.Series] = []
    for title, cells in zip(titles, columns, strict=True):
        name = title
        while name.lower() in taken:
            name = f"{name}_"
        taken.add(name.lower())
        frame.append(pl.Series(name, cells, dtype=pl.String))
    return pl.DataFrame(frame)


def parse_objects(lines: pl.DataFrame, definition: AdapterDefinition) -> Parsed:
    """Pieces of JSON objects; what is no object is a reject."""
    rejects: Remarks = {}
    remarks: Remarks = {}
    shapes = []
    for same in read_objects(lines, rejects, remarks):
        flat, left_out = flattened(same)
        shapes += flat
        for row in left_out:
            add_remark(remarks, row, LEFT_OUT)
    pieces = [
        _timed(definition, rows, frame, remarks)
        for rows, frame in frames_of(shapes, definition.field_of, _spellings(definition))
    ]
    return Parsed(pieces, rejects, remarks)


def _spellings(definition: AdapterDefinition) -> dict[str, str]:
    """Fields that this module looks for, as they are spelled here, however an event spells its keys."""
    names = definition.names
    known = [*definition.fields.values(), *names.host, *names.user, *names.source_ip, *names.destination_ip]
    if definition.time is not None:
        known += map(definition.field_of, definition.time.columns)
    return {name.lower(): name for name in known}


def _timed(definition: AdapterDefinition, rows: pl.Series, frame: pl.DataFrame, remarks: Remarks) -> Piece:
    """The piece of some events, with the time that the definition says."""
    names, time = definition.names, definition.time
    titles = (
        [] if time is None else [title for title in map(definition.field_of, time.columns) if title in frame.columns]
    )
    if time is not None and titles:
        parts = [frame[title].str.strip_chars() for title in titles]
        text = parts[0] if len(parts) == 1 else pl.DataFrame(parts).select(pl.concat_str(titles, separator=" "))
        joined = (text if isinstance(text, pl.Series) else text.to_series()).alias("text")
        read = _times(joined, time)
        unread = (read.is_null() & joined.is_not_null() & (joined != "")).arg_true()
        for place in unread:
            add_remark(remarks, rows[place], f"event time not understood: {joined[place][:QUOTED]}")
        frame = frame.drop("@timestamp", strict=False).with_columns(read.alias("@timestamp"))
    return Piece(definition.logsource, definition.dataset, rows, frame, names_with_time(names))


def names_with_time(names: EnvelopeNames) -> EnvelopeNames:
    """The same names, and the time where `_timed` puts it."""
    return EnvelopeNames((("@timestamp", True),), names.host, names.user, names.source_ip, names.destination_ip)


def _times(text: pl.Series, time: AdapterTime) -> pl.Series:
    """The times as ISO 8601, with their zone where it is known; null where a text is no time of that format."""
    if time.format == ISO and time.zone is None:
        return text
    naive = _naive(text, time.format)
    if isinstance(naive.dtype, pl.Datetime) and naive.dtype.time_zone is not None:
        return naive.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    if time.zone is None:
        return naive.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")

    def there(shown: pl.Expr) -> pl.Expr:
        return shown.dt.replace_time_zone(time.zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone(
            "UTC"
        )

    shown = pl.col("shown")
    # A clock that was not put forward in spring shows an hour that does not exist: the hour after the one before it.
    utc = pl.coalesce(there(shown), there(shown - ZONE_MISSING_HOUR) + ZONE_MISSING_HOUR)
    found = pl.DataFrame({"shown": naive}).select(utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")).to_series()
    if time.format != ISO:
        return found
    return found.zip_with(found.is_not_null(), text)  # those with a zone of their own, and epochs


def _naive(text: pl.Series, form: str) -> pl.Series:
    if form == ISO:
        return text.str.replace(" ", "T", literal=True).str.to_datetime(
            "%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False
        )
    return text.str.to_datetime(form, time_unit="us", strict=False)

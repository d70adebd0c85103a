"""The envelope of a piece: times judged, names cleaned, one way for every format.

Of several fields that may hold a thing, the first that says something counts. They are gone through one after the
other, and only until every row has a value: the first usually has them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from ingest.envelope import (
    DATASET,
    DESTINATION_IP,
    ENVELOPE,
    HOST,
    RECEIVED,
    REMARK,
    SOURCE_IP,
    TIMESTAMP,
    USER,
    UTC_MICROSECONDS,
)
from ingest.formats.piece import Piece
from ingest.formats.times import EARLIEST, LATEST_AHEAD, UTC_ZONE, Clocks, iso_times, rare_times
from ingest.visible import visible

QUOTED: Final = 64
"""Most characters of a bad value that a remark repeats."""

_EARLIEST: Final = int(EARLIEST.timestamp()) * 1_000_000
_LATEST_AHEAD: Final = LATEST_AHEAD // timedelta(microseconds=1)
_ADDRESS: Final = r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+)(?:%\w+)?$"

Notes = dict[int, list[str]]
"""Row -> remarks on it, in the order they were made."""


ALWAYS_UTC: Final = frozenset({"UtcTime"})
"""Fields whose times are UTC although they do not say so, wherever the source is: Sysmon's."""


def with_envelope(piece: Piece, known: pl.DataFrame, notes: Notes, zone: str = UTC_ZONE) -> pl.DataFrame:
    """The frame of a piece: `ENVELOPE`, then its fields.

    Args:
        piece: What a format read.
        known: For each row of it the envelope columns that the batch itself gives, `syslog.time` and `syslog.host`.
        notes: Remarks on rows; those on times are added.
        zone: Time zone of times that name none.
    """
    fields, names = piece.fields, piece.names
    height = known.height
    envelope = {
        **{name: known[name] for name in ENVELOPE if name in known.columns},
        TIMESTAMP: _times(piece, known, notes, zone),
        DATASET: pl.Series([piece.dataset], dtype=pl.String).new_from_index(0, height),
        HOST: _first_said(_present(fields, names.host), known["syslog.host"]),
        USER: _first_said(_present(fields, names.user), _nothing(height)),
        SOURCE_IP: _addresses(_present(fields, names.source_ip), height),
        DESTINATION_IP: _addresses(_present(fields, names.destination_ip), height),
        REMARK: _remarks(piece.rows, notes),
    }
    kept = [column for column in fields if column.name not in ENVELOPE]
    return pl.DataFrame([*(envelope[name].alias(name) for name in ENVELOPE), *kept])


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _nothing(height: int, kind: pl.DataType | None = None) -> pl.Series:
    return pl.Series([None], dtype=kind or pl.String()).new_from_index(0, height)


def _present(fields: pl.DataFrame, names: Iterable[str]) -> list[pl.Series]:
    return [fields[name] for name in names if name in fields.columns]


def _first_said(columns: Iterable[pl.Series], otherwise: pl.Series) -> pl.Series:
    """Of each row the first field that says something; `-` and the empty text say nothing."""
    found: pl.Series | None = None
    for column in columns:
        said = _said(column)
        found = said if found is None else found.zip_with(found.is_not_null(), said)
        if not found.null_count():
            return found
    return otherwise if found is None else found.zip_with(found.is_not_null(), otherwise)


def _said(column: pl.Series) -> pl.Series:
    silent = (column == "") | (column == "-")
    return column.set(silent, None) if silent.any() else column


def _addresses(columns: list[pl.Series], height: int) -> pl.Series:
    """Addresses as ECS writes them: IPv4 within IPv6 as IPv4; `LOCAL` of Windows and host names are no addresses."""
    said = _first_said(columns, _nothing(height))
    if said.null_count() == height:
        return said
    plain = said.str.strip_prefix("::ffff:").str.strip_chars(" []")
    return plain.set(~plain.str.contains(_ADDRESS), None)


def _clocks(name: str, zone: str, received: pl.Series) -> Clocks | None:
    return None if zone == UTC_ZONE or name in ALWAYS_UTC else Clocks(zone, received)


def _times(piece: Piece, known: pl.DataFrame, notes: Notes, zone: str) -> pl.Series:
    """The event's own time, else the header's, else that of receipt; an impossible one is replaced, and noted."""
    rows, received = piece.rows, known[RECEIVED]
    columns = [(piece.fields[name], assume) for name, assume in piece.names.time if name in piece.fields.columns]
    time = _nothing(known.height, UTC_MICROSECONDS)
    for column, assume in columns:
        if not time.null_count():
            break
        clocks = _clocks(column.name, zone, received)
        time = time.zip_with(time.is_not_null(), iso_times(column, assume_utc=assume, clocks=clocks))
    if time.null_count():
        for column in {column.name: column for column, _ in columns}.values():
            unread = (time.is_null() & _said(column).is_not_null()).arg_true()
            if len(unread):
                clocks = _clocks(column.name, zone, received[unread])
                time = time.scatter(unread, rare_times(column[unread], clocks))
        text = _first_said((column for column, _ in columns), _nothing(known.height))
        for place in (time.is_null() & text.is_not_null()).arg_true():
            _note(notes, rows[place], f"event time not understood: {_quoted(text[place])}")
        time = time.zip_with(time.is_not_null(), known["syslog.time"])
    instants, now = time.to_physical(), received.to_physical()
    wrong = ((instants < _EARLIEST) | (instants > now + _LATEST_AHEAD)).fill_null(value=False)
    if wrong.any():
        text = _first_said((column for column, _ in columns), _nothing(known.height))
        for place in wrong.arg_true():
            shown = text[place] or _far_time(instants[place])
            _note(notes, rows[place], f"implausible event time {_quoted(shown)}: received time used")
        time = time.set(wrong, None)
    return time.zip_with(time.is_not_null(), received) if time.null_count() else time


def _far_time(micros: int) -> str:
    """A header's time as text. Polars reads years that Python has not (0, -5, 99999): it must not become a datetime."""
    try:
        return str(_EPOCH + timedelta(microseconds=micros))
    except OverflowError:
        return "outside the years 1 to 9999"


def _quoted(text: str) -> str:
    return visible(text[:QUOTED])


def _note(notes: Notes, row: int, remark: str) -> None:
    notes.setdefault(row, []).append(remark)


def _remarks(rows: pl.Series, notes: Notes) -> pl.Series:
    if not notes:
        return pl.Series(REMARK, [None] * len(rows), dtype=pl.String)
    texts = ["; ".join(notes[row]) if row in notes else None for row in rows.to_list()]
    return pl.Series(REMARK, texts, dtype=pl.String)

"""The envelope of a piece: times judged, names cleaned, one way for every format."""

from __future__ import annotations

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
from ingest.formats.piece import EnvelopeNames, Piece
from ingest.formats.times import EARLIEST, LATEST_AHEAD, iso_time, rare_time
from ingest.visible import visible

QUOTED: Final = 64
"""Most characters of a bad value that a remark repeats."""

_ADDRESS: Final = r"^(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]+)(?:%\w+)?$"

Notes = dict[int, list[str]]
"""Row -> remarks on it, in the order they were made."""


def with_envelope(piece: Piece, ground: pl.DataFrame, notes: Notes) -> pl.DataFrame:
    """The frame of a piece: `ENVELOPE`, then its fields.

    Args:
        piece: What a format read.
        ground: By row of the batch: the envelope columns that the batch itself gives, `syslog.time` and `syslog.host`.
        notes: Remarks on rows; those on times are added.
    """
    known = ground[piece.rows]
    have, names = set(piece.fields.columns), piece.names
    times = [(name, assume) for name, assume in names.time if name in have]
    found = pl.DataFrame(
        [*known, *(piece.fields[name].alias(f"field {name}") for name in _wanted(names) & have)]
    ).select(
        *(name for name in ENVELOPE if name in known.columns),
        "syslog.time",
        pl.coalesce(*(iso_time(_field(name), assume_utc=assume) for name, assume in times), _NO_TIME).alias(TIMESTAMP),
        pl.coalesce(*(_said(name) for name, _ in times), _NOTHING).alias("text"),
        pl.lit(piece.dataset).alias(DATASET),
        pl.coalesce(*(_said(name) for name in names.host if name in have), "syslog.host", _NOTHING).alias(HOST),
        pl.coalesce(*(_said(name) for name in names.user if name in have), _NOTHING).alias(USER),
        _address([name for name in names.source_ip if name in have]).alias(SOURCE_IP),
        _address([name for name in names.destination_ip if name in have]).alias(DESTINATION_IP),
    )
    envelope = found.with_columns(_times(found, piece.rows, notes), _remarks(piece.rows, notes)).select(*ENVELOPE)
    kept = [name for name in piece.fields.columns if name not in ENVELOPE]
    return pl.DataFrame([*envelope, *(piece.fields[name] for name in kept)])


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TIME: Final = pl.lit(None, dtype=UTC_MICROSECONDS)
_NOTHING: Final = pl.lit(None, dtype=pl.String)


def _wanted(names: EnvelopeNames) -> set[str]:
    return {name for name, _ in names.time}.union(names.host, names.user, names.source_ip, names.destination_ip)


def _field(name: str) -> pl.Expr:
    return pl.col(f"field {name}")


def _said(name: str) -> pl.Expr:
    """A field, null where it says nothing."""
    return pl.when(~_field(name).is_in(["", "-"])).then(_field(name))


def _address(names: list[str]) -> pl.Expr:
    """Addresses as ECS writes them: IPv4 within IPv6 as IPv4; `LOCAL` of Windows and host names are no addresses."""
    if not names:
        return _NOTHING
    plain = pl.coalesce(_said(name) for name in names).str.strip_prefix("::ffff:").str.strip_chars(" []")
    return pl.when(plain.str.contains(_ADDRESS)).then(plain)


def _times(found: pl.DataFrame, rows: pl.Series, notes: Notes) -> pl.Series:
    """The event's own time, else the header's, else that of receipt; an impossible one is replaced, and noted."""
    if found[TIMESTAMP].null_count():
        found = found.with_columns(pl.coalesce(TIMESTAMP, rare_time(pl.col("text"))).alias(TIMESTAMP))
        for place in found.select(pl.col(TIMESTAMP).is_null() & pl.col("text").is_not_null()).to_series().arg_true():
            _note(notes, rows[place], f"event time not understood: {_quoted(found['text'][place])}")
        found = found.with_columns(pl.coalesce(TIMESTAMP, "syslog.time").alias(TIMESTAMP))
    time = pl.col(TIMESTAMP)
    judged = found.select(
        ((time < EARLIEST) | (time > pl.col(RECEIVED) + LATEST_AHEAD)).fill_null(value=False).alias("wrong"),
        pl.coalesce(time, RECEIVED).alias(TIMESTAMP),
    )
    if not judged["wrong"].any():
        return judged[TIMESTAMP]
    instants = found[TIMESTAMP].to_physical()
    for place in judged["wrong"].arg_true():
        shown = found["text"][place] or _far_time(instants[place])
        _note(notes, rows[place], f"implausible event time {_quoted(shown)}: received time used")
    return found[RECEIVED].zip_with(judged["wrong"], judged[TIMESTAMP]).alias(TIMESTAMP)


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

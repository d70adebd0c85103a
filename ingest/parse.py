"""From raw batches to event frames.

    bytes -> text -> syslog header off -> offered to the formats in turn -> pieces -> envelope on -> frames

Every row comes out in exactly one frame, whatever its bytes: what no format reads is `unknown`, whole and marked.
Nothing here raises on content. Work is a column at a time; only JSON, XML and audit records are walked line by line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from ingest.envelope import EVENT_ID, ORIGINAL, PEER, RECEIVED, TENANT, UTC_MICROSECONDS, EventFrame
from ingest.formats.envelope_columns import Notes, with_envelope
from ingest.formats.piece import EnvelopeNames, Format, Inner, Piece
from ingest.formats.syslog import split_headers
from ingest.formats.table import BARE, FORMATS
from ingest.formats.times import UTC_ZONE, Clocks, localised
from ingest.logsource import UNKNOWN, LogSource
from ingest.readings import AS_THEY_SAY, Reading, Readings
from ingest.visible import visible

NOT_UTF8: Final = "not UTF-8: read as ISO-8859-1"
COOKIE: Final = "@cee:"
"""Stands before content that is JSON (Project Lumberjack, rsyslog's mmjsonparse)."""
ALL: Final = pl.col("payload").is_not_null()
NOT_UNDERSTOOD: Final = "no format understood this line"


def parse(raw: pl.DataFrame, readings: Readings | None = None) -> list[EventFrame]:
    """Read a raw batch into event frames.

    Args:
        raw: `ingest.rawbatch.RAW_SCHEMA` and `event.id`, as `decode_record` gives them.
        readings: What is known of the sources: time zones, pinned formats. None: times without a zone are UTC.

    Returns:
        Frames, one or more a log source; their event ids together are exactly those of `raw`.
    """
    if raw.is_empty():
        return []
    raw = raw.rechunk()  # rows taken from text in several chunks would be copied, byte for byte
    if not readings:
        return _parse(raw, AS_THEY_SAY, None)
    frames: list[EventFrame] = []
    for reading, rows in _by_reading(raw, readings):
        pinned = _format_named(reading.format, readings) if reading.format else None
        frames += _parse(raw if rows is None else raw[rows], reading, pinned)
    return frames


def _by_reading(raw: pl.DataFrame, readings: Readings) -> list[tuple[Reading, pl.Series | None]]:
    """The rows of each reading; None for all of them."""
    sources = raw.select("tenant", "peer")
    tenants = set(sources["tenant"].unique().to_list())
    if readings.needs_host(tenants):
        hosts = split_lines(decode_lines(raw["line"], {}), raw["received"])["syslog.host"]
        sources = sources.with_columns(hosts.str.to_lowercase().alias("host"))
    else:
        sources = sources.with_columns(pl.lit(None, dtype=pl.String).alias("host"))
    parts: dict[Reading, list[pl.Series]] = {}
    alike = sources.with_row_index("row").group_by("tenant", "peer", "host", maintain_order=True).agg("row")
    for tenant, peer, host, rows in zip(*(alike[name] for name in ("tenant", "peer", "host", "row")), strict=True):
        parts.setdefault(readings.of(tenant, peer, host), []).append(rows)
    if len(parts) == 1:
        return [(reading, None) for reading in parts]
    return [(reading, pl.concat(rows).sort()) for reading, rows in parts.items()]


def _format_named(name: str, readings: Readings) -> Format | None:
    return readings.formats.get(name) or next((form for form in FORMATS if form.name == name), None)


def _parse(raw: pl.DataFrame, reading: Reading, pinned: Format | None) -> list[EventFrame]:
    marks = raw["mark"]
    notes: Notes = {row: [marks[row]] for row in marks.is_not_null().arg_true()}
    if reading.format is not None and pinned is None:
        _note(notes, dict.fromkeys(range(raw.height), f"the format {reading.format} of this source does not exist"))
    text = decode_lines(raw["line"], notes)
    lines = split_lines(text, raw["received"])
    pieces, inner, unread = read_lines(lines, notes, pinned)
    if unread.height:
        _note(notes, dict.fromkeys(unread["row"].to_list(), NOT_UNDERSTOOD))
        pieces.append(_unread(unread, UNKNOWN, "unknown"))
    if inner:
        within, more = _read_inner(inner, raw["received"], notes)
        pieces += more
        lines = lines.update(within, on="row")
    if reading.zone != UTC_ZONE:
        lines = lines.with_columns(_header_times(lines, Clocks(reading.zone, raw["received"])))
    ground = raw.select(
        EVENT_ID,
        pl.col("tenant").alias(TENANT),
        pl.col("received").alias(RECEIVED),
        pl.col("peer").alias(PEER),
        text.alias(ORIGINAL),
        lines["syslog.time"],
        lines["syslog.host"],
    )
    return list(_frames(pieces, ground, notes, reading.zone))


def _header_times(lines: pl.DataFrame, clocks: Clocks) -> pl.Series:
    """The times of syslog headers; those that name no zone in that of the source."""
    times, naive = lines["syslog.time"], lines["syslog.naive"].fill_null(value=False)
    return localised(times, clocks).zip_with(naive, times).alias("syslog.time") if naive.any() else times


def _frames(pieces: Sequence[Piece], ground: pl.DataFrame, notes: Notes, zone: str) -> Iterator[EventFrame]:
    """The frames of pieces, which have each row of the ground exactly once.

    Rows are brought into the order of the pieces once, and each piece takes a slice: that copies no text, while taking
    the rows of each piece by themselves would copy all of it.
    """
    order = pl.concat([piece.rows for piece in pieces])
    ordered = ground if order.is_sorted() else ground[order]
    start = 0
    for piece in pieces:
        height = len(piece.rows)
        yield EventFrame(piece.logsource, with_envelope(piece, ordered.slice(start, height), notes, zone))
        start += height


def decode_lines(lines: pl.Series, notes: Notes) -> pl.Series:
    """Bytes as text: UTF-8, and a line that is not UTF-8 as ISO-8859-1, which loses nothing."""
    try:
        return lines.cast(pl.String).fill_null("").alias(ORIGINAL)
    except pl.exceptions.ComputeError:
        pass
    decoded: list[str] = []
    for row, line in enumerate(lines.to_list()):
        try:
            decoded.append((line or b"").decode())
        except UnicodeDecodeError:
            decoded.append(line.decode("iso-8859-1"))
            notes.setdefault(row, []).append(NOT_UTF8)
    return pl.Series(ORIGINAL, decoded, dtype=pl.String)


def split_lines(text: pl.Series, received: pl.Series) -> pl.DataFrame:
    """`LINE_SCHEMA` and the facts of the syslog header, in the order of the lines."""
    rows = pl.Series("row", range(len(text)), dtype=pl.UInt32)
    if (text.str.starts_with("{") & text.str.ends_with("}")).all():  # nothing to strip, nothing but JSON
        return _bare_lines(rows, text)
    stripped = text.str.strip_prefix("\ufeff").str.strip_chars_end("\r\n\0")
    bare = stripped.str.contains(BARE)
    if bare.all():
        return _bare_lines(rows, stripped.str.strip_chars_start())
    if not bare.any():
        return _headed_lines(rows, stripped, received)
    headed = _headed_lines(rows.filter(~bare), stripped.filter(~bare), received.filter(~bare))
    plain = _bare_lines(rows.filter(bare), stripped.filter(bare).str.strip_chars_start())
    return pl.concat([plain, headed], how="diagonal").sort("row")


def _headed_lines(rows: pl.Series, text: pl.Series, received: pl.Series) -> pl.DataFrame:
    headed = split_headers(text, received).with_columns(rows)
    if not headed["payload"].str.contains(COOKIE, literal=True).any():
        return headed
    return headed.with_columns(pl.col("payload").str.replace(rf"^\s*{COOKIE}\s*", ""))


def _bare_lines(rows: pl.Series, text: pl.Series) -> pl.DataFrame:
    nothing = pl.lit(None, dtype=pl.String)
    return pl.DataFrame({"row": rows, "payload": text}).with_columns(
        syslog=pl.lit(value=False),
        program=nothing,
        pid=nothing,
        structured_data=nothing,
        **{
            "syslog.host": nothing,
            "syslog.time": pl.lit(None, dtype=UTC_MICROSECONDS),
            "syslog.naive": pl.lit(value=False),
        },
    )


def read_lines(
    lines: pl.DataFrame, notes: Notes, pinned: Format | None = None
) -> tuple[list[Piece], list[Inner], pl.DataFrame]:
    """Offer the lines to each format in turn: pieces, lines that carry another, and what no format reads.

    Args:
        lines: `LINE_SCHEMA`.
        notes: Remarks on rows; those of the formats are added.
        pinned: Is offered all lines first, whether it would recognise them or not.
    """
    pieces: list[Piece] = []
    inner: list[Inner] = []
    left = lines
    for form in (pinned, *(form for form in FORMATS if form is not pinned)) if pinned is not None else FORMATS:
        if left.is_empty():
            break
        recognised = left.select(ALL.alias("is"))["is"] if form is pinned else form.recognised(left)
        if not recognised.any():
            continue
        parsed = form.parse(left if recognised.all() else left.filter(recognised))
        pieces += parsed.pieces
        inner += parsed.inner
        _note(notes, parsed.remarks)
        _note(notes, parsed.rejects)
        rejected = pl.Series("row", list(parsed.rejects), dtype=pl.UInt32)
        left = left.filter(~recognised | left["row"].is_in(rejected.implode()))
    return pieces, inner, left


def _read_inner(inner: list[Inner], received: pl.Series, notes: Notes) -> tuple[pl.DataFrame, list[Piece]]:
    """Read the lines that JSON carried as its `message`, each within the log source that the JSON declared.

    What a format makes of the text counts where it names the declared product; where it does not, or where none
    reads it, the declaration stands. A carrier within a carrier is not opened.
    """
    lines: list[pl.DataFrame] = []
    pieces: list[Piece] = []
    by_source: dict[LogSource, list[Inner]] = {}
    for item in inner:
        by_source.setdefault(item.declared, []).append(item)
    for declared, items in by_source.items():
        rows = pl.Series("row", [row for item in items for row in item.rows], dtype=pl.UInt32)
        text = pl.Series("text", [text for item in items for text in item.texts], dtype=pl.String)
        part = split_lines(text, received[rows]).with_columns(rows)
        apart: Notes = {}
        found, _, _ = read_lines(part, apart)
        opened = [piece for piece in found if piece.logsource.product == declared.product]
        read = pl.concat([pl.Series("row", [], dtype=pl.UInt32), *(piece.rows for piece in opened)])
        rest = part if read.is_empty() else part.filter(~part["row"].is_in(read.implode()))
        pieces += opened
        if rest.height:
            pieces.append(_unread(rest, declared, "json.declared"))
        for row in apart.keys() & read.to_list() if apart else ():
            notes.setdefault(row, []).extend(apart[row])
        # Bare and headed lines have their columns in another order: only these are put together.
        lines.append(part.select("row", "syslog.time", "syslog.naive", "syslog.host"))
    return pl.concat(lines), pieces


def _unread(left: pl.DataFrame, logsource: LogSource, dataset: str) -> Piece:
    return Piece(logsource, dataset, left["row"], left.select(pl.col("payload").alias("message")), EnvelopeNames())


def _note(notes: Notes, remarks: Mapping[int, str]) -> None:
    for row, remark in remarks.items():
        notes.setdefault(row, []).append(visible(remark))

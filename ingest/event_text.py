r"""Event files that are text: a line an event, JSON documents, and tables (.csv); in whichever encoding Windows chose.

Lines are the fast way and the common one: pieces of some megabytes are cut at once, without looking at or copying a
line.
JSON that is not one object a line (pretty-printed, arrays, CloudTrail's `{"Records": [...]}`) is cut into values,
each of which becomes a line of compact JSON, so that only one form of a JSON event reaches the formats. A row of a
table becomes a JSON object with the names of the header.

Encoding: UTF-16 is told by its byte order mark or by its zero bytes; anything else is passed on as bytes, which formats
read as UTF-8 or else ISO-8859-1.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from array import array
from collections.abc import Callable, Iterator
from typing import Final, Literal

import orjson
import polars as pl
import pyarrow as pa

from ingest.event_source import ByteSource, ReadItem, ReadLimits, Rows, SourceProblem
from ingest.json_values import Broken, JsonValues, Piece

TextKind = Literal["lines", "json", "csv"]

BATCH_LINES: Final = 20_000
SURPLUS: Final = "_surplus"
"""Field for the values of a row that has more of them than the header has names."""

CARRIAGE_RETURN: Final = ord("\r")
UTF8_MARK: Final = codecs.BOM_UTF8
JSON_BEGINS: Final = re.compile(rb'\{\s*["}]|\[\s*[\[{\]]')


def read_text(source: ByteSource, kind: TextKind, limits: ReadLimits) -> Iterator[ReadItem]:
    """Yield the events of a text file as lines; `kind` is what `text_kind` said of it."""
    return READERS[kind](source, limits)


def text_kind(head: bytes, extension: str) -> TextKind | None:
    """How a text file holds its events, from its first bytes; None if it is not text.

    Args:
        head: The first bytes of the file.
        extension: The end of its name, in lower case, with the dot: only tables are told by it.
    """
    encoding = utf16(head)
    text = head.decode(encoding, "replace").encode() if encoding else head.removeprefix(UTF8_MARK)
    if b"\x00" in text[:1024]:
        return None
    if extension == ".csv":
        return "csv"
    return "json" if _is_document(text.lstrip(b" \t\r\n\x1e")) else "lines"


def looks_like_json(head: bytes) -> bool:
    """Whether a file begins as JSON objects do: the test for files whose name says nothing."""
    encoding = utf16(head)
    text = head.decode(encoding, "replace").encode() if encoding else head.removeprefix(UTF8_MARK)
    return JSON_BEGINS.match(text.lstrip()) is not None


def utf16(head: bytes) -> str | None:
    """The UTF-16 codec of a text, or None if it is in another encoding."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = head[:512]
    if len(sample) >= 4 and len(sample) % 2 == 0:
        half = len(sample) // 2
        if sample[1::2].count(0) > half * 0.7 and not sample[::2].count(0):
            return "utf-16-le"
        if sample[::2].count(0) > half * 0.7 and not sample[1::2].count(0):
            return "utf-16-be"
    return None


def _is_document(text: bytes) -> bool:
    """Whether JSON text must be cut into values, because it is not one event a line."""
    # Not every text with a bracket is JSON: "[Mon Sep 11 ...] [error]" is how Apache begins a line.
    if not JSON_BEGINS.match(text):
        return False
    if text.startswith(b"[") or b"\n\x1e" in text:  # RFC 7464: each value after a record separator
        return True
    # A log that was cut at its head begins with half an object: other lines of it are whole all the same.
    whole = next((line for line in text.split(b"\n") if line.startswith(b"{") and _loads_object(line)), None)
    return whole is None or _unwrap(orjson.loads(whole)) is not None


def _loads_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _utf8_chunks(source: ByteSource) -> Iterator[bytes]:
    """The bytes of a text file as UTF-8 (or as they are, if they are not UTF-16), without a byte order mark."""
    encoding = utf16(source.head)
    if encoding is None:
        first = True
        for chunk in source.chunks():
            yield chunk.removeprefix(UTF8_MARK) if first else chunk
            first = False
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for chunk in source.chunks():
        yield decoder.decode(chunk).removeprefix("\ufeff").encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def _read_lines(source: ByteSource, limits: ReadLimits) -> Iterator[ReadItem]:
    """A line an event. Empty lines are no events, but are counted, so that a row is a line number."""
    row, rest = 1, b""
    for chunk in _utf8_chunks(source):
        begin, end = chunk.find(b"\n") + 1, chunk.rfind(b"\n") + 1
        if not begin:
            # One byte beyond the limit is kept of a line that goes on: it is enough to know that the line is too long.
            rest = (rest + chunk)[: limits.line_bytes + 1]
            continue
        # The line that the chunk before began is a line by itself: to put all of this chunk behind it would copy it.
        first = (rest + chunk[:begin]).removesuffix(b"\n").removesuffix(b"\r")
        lines = pl.concat([pl.Series("line", [first], dtype=pl.Binary), cut_lines(chunk, begin, end)])
        rest = chunk[end:][: limits.line_bytes + 1]
        yield from _bounded(source.name, row, lines, limits.line_bytes)
        row += len(lines)
    if rest:
        marks = {0: f"the file is damaged here: {source.damage}"} if source.damage else {}
        yield from _bounded(source.name, row, pl.Series("line", [rest], dtype=pl.Binary), limits.line_bytes, marks)


def cut_lines(text: bytes, begin: int, end: int) -> pl.Series:
    """The lines of `text[begin:end]`, which ends with a line feed, as a Binary column that shares its memory.

    A CR before the line feed belongs to the end of the line.
    """
    ends: list[int] = []
    nexts = [begin]  # where each line begins, and last the end
    while (feed := text.find(b"\n", nexts[-1], end)) >= 0:
        ends.append(feed)
        nexts.append(feed + 1)
    if b"\r" in text:
        pairs = zip(nexts, ends, strict=False)
        ends = [feed - 1 if feed > start and text[feed - 1] == CARRIAGE_RETURN else feed for start, feed in pairs]
    # Offsets of an Arrow array leave no gaps, so the ends of lines are elements too: each line, then its end.
    offsets = [begin] * (2 * len(ends) + 1)
    offsets[0::2] = nexts
    offsets[1::2] = ends
    buffers = [None, pa.py_buffer(array("q", offsets)), pa.py_buffer(text)]
    lines_and_ends = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 2 * len(ends), buffers)
    return pl.Series("line", lines_and_ends).gather_every(2)


def _bounded(
    name: str, row: int, lines: pl.Series, limit: int, marks: dict[int, str] | None = None
) -> Iterator[ReadItem]:
    """The lines, those beyond the limit cut to it, marked and reported."""
    marks = marks or {}
    sizes = lines.bin.size()
    for index in (sizes > limit).arg_true():
        marks[index] = f"line longer than {limit} bytes, cut"
        yield SourceProblem(name, f"line {row + index}", f"longer than {limit:,} bytes; the rest is lost", "damaged")
    yield Rows(row, lines.bin.head(limit) if len(marks) else lines, marks)


def _read_json(source: ByteSource, limits: ReadLimits) -> Iterator[ReadItem]:
    """Values of JSON documents; rows count values."""
    values = JsonValues(limits.value_bytes)
    # surrogateescape: bytes that are not UTF-8 go through text and come out as they were.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    row = 1
    for chunk in _utf8_chunks(source):
        for rows in _batched(values.feed(decoder.decode(chunk)), row):
            yield rows
            row += len(rows.lines)
    for piece in (values.feed(decoder.decode(b"", final=True)), values.end()):
        for rows in _batched(piece, row):
            yield rows
            row += len(rows.lines)


def _batched(pieces: Iterator[Piece], row: int) -> Iterator[Rows]:
    lines: list[bytes] = []
    marks: dict[int, str] = {}
    for piece in pieces:
        if isinstance(piece, Broken):
            marks[len(lines)] = f"broken JSON from line {piece.line}: {piece.reason}"
            lines.append(piece.text.encode("utf-8", "surrogateescape"))
        else:
            events = _unwrap(piece.value)
            lines.extend(compact(event) for event in ([piece.value] if events is None else events))
        if len(lines) >= BATCH_LINES:
            yield Rows(row, lines, marks)
            row, lines, marks = row + len(lines), [], {}
    if lines:
        yield Rows(row, lines, marks)


def _unwrap(value: object) -> list[object] | None:
    """The events of a document that wraps them, None if it wraps none.

    CloudTrail delivers `{"Records": [...]}`, the Azure and Microsoft Graph APIs `{"value": [...]}`, a search in
    Elasticsearch `{"hits": {"hits": [{"_source": ...}]}}`.
    """
    if not isinstance(value, dict):
        return None
    hits = value.get("hits")
    if isinstance(hits, dict) and isinstance(found := hits.get("hits"), list):
        return [hit.get("_source", hit) if isinstance(hit, dict) else hit for hit in found]
    for name in ("Records", "value"):
        records = value.get(name)
        if isinstance(records, list) and records and all(isinstance(record, dict) for record in records):
            return list(records)
    return None


def compact(value: object) -> bytes:
    """A value as JSON in one line."""
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, halves of surrogate pairs, bytes that were not UTF-8
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def _read_table(source: ByteSource, limits: ReadLimits) -> Iterator[ReadItem]:
    """Rows of a table as JSON objects; rows count from 1 after the header."""
    del limits  # the csv module bounds a field at 128 kB itself
    lines = _text_lines(source)
    header = next(lines, "")
    try:
        names = next(csv.reader([header], delimiter=_delimiter(header)), [])
    except csv.Error as error:
        yield SourceProblem(source.name, "", f"broken table: header: {error}", "unreadable")
        return
    row, batch = 1, list[bytes]()
    try:
        for values in csv.reader(lines, delimiter=_delimiter(header)):
            record: dict[str, object] = {name: value for name, value in zip(names, values, strict=False) if value}
            if len(values) > len(names):
                record[SURPLUS] = values[len(names) :]
            if not record:
                continue
            batch.append(compact(record))
            if len(batch) >= BATCH_LINES:
                yield Rows(row, batch)
                row, batch = row + len(batch), []
    except csv.Error as error:
        yield SourceProblem(source.name, f"row {row + len(batch)}", f"broken table: {error}", "damaged")
    if batch:
        yield Rows(row, batch)


def _delimiter(header: str) -> str:
    """Comma, semicolon (spreadsheets where the comma is the decimal sign) or tab: whichever the header has most of."""
    return max(",;\t", key=header.count)


def _text_lines(source: ByteSource) -> Iterator[str]:
    """Lines with their ends, as the csv module wants them: a quoted field may hold line breaks."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    rest = ""
    for chunk in _utf8_chunks(source):
        *lines, rest = (rest + decoder.decode(chunk)).split(
            "\n"
        )  # splitlines() also splits at vertical tabs and the like
        for line in lines:
            yield line + "\n"
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


READERS: Final[dict[TextKind, Callable[[ByteSource, ReadLimits], Iterator[ReadItem]]]] = {
    "lines": _read_lines,
    "json": _read_json,
    "csv": _read_table,
}
"""How a text file holds its events -> what reads it."""

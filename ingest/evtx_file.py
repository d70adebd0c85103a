"""Windows event log files (.evtx): each record as one line of JSON, and an account of the records that are lost.

A file is a header of 4,096 bytes, then chunks of 65,536. A chunk stands by itself: it holds its records and the
strings and templates they refer to. So chunks are parsed one at a time under a header of our own making: memory stays
flat, a broken file header costs nothing, and a broken chunk costs itself only. The parser reads a cut chunk without
complaint, so records are counted beforehand: the count of what was lost is ours. Bytes behind a chunk's free-space
offset are left-overs of older chunks, not events.
Source: libevtx, "Windows XML Event Log (EVTX) format": file header, chunk, event record.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Final

from evtx import PyEvtxParser

from ingest.event_source import ByteSource, ReadItem, Rows, SourceProblem

FILE_MAGIC: Final = b"ElfFile\x00"
CHUNK_MAGIC: Final = b"ElfChnk\x00"
RECORD_MAGIC: Final = b"**\x00\x00"
FILE_HEADER_BYTES: Final = 4096
CHUNK_BYTES: Final = 65536
CHUNK_HEADER_BYTES: Final = 512
RECORD_HEADER_BYTES: Final = 24
FREE_SPACE_OFFSET: Final = 48
TABLES: Final = slice(
    128, CHUNK_HEADER_BYTES
)  # offsets of shared strings and templates: a cache, rebuilt if it is broken
BATCH_CHUNKS: Final = 64


def read_evtx(source: ByteSource) -> Iterator[ReadItem]:
    """Yield the records of an event log as lines `{"Event": ...}`; rows count from 1."""
    first, lines, readable = 1, list[bytes](), False
    header = source.read(FILE_HEADER_BYTES)
    if not header.startswith(FILE_MAGIC):
        yield SourceProblem(source.name, "", "the file header is broken; the chunks were read without it", "damaged")
    number = 0
    while chunk := source.read(CHUNK_BYTES):
        number += 1
        records, lost = _read_chunk(chunk)
        readable = readable or bool(records)
        lines.extend(records)
        if lost:
            yield SourceProblem(source.name, f"chunk {number}", lost, "damaged")
        if number % BATCH_CHUNKS == 0 and lines:
            yield Rows(first, lines)
            first, lines = first + len(lines), []
    if lines:
        yield Rows(first, lines)
    if number == 0 and len(header) < FILE_HEADER_BYTES:
        yield SourceProblem(source.name, "", "cut in the file header", "unreadable")


def _read_chunk(chunk: bytes) -> tuple[list[bytes], str | None]:
    """The records of a chunk, and what is lost of it."""
    if not chunk.startswith(CHUNK_MAGIC):
        # Event logs are allocated ahead of their use: an empty chunk is no damage.
        return [], None if not any(chunk) else "no chunk header; its records are lost"
    expected, end = _count_records(chunk)
    padded = chunk.ljust(CHUNK_BYTES, b"\x00")
    if len(chunk) < CHUNK_BYTES:  # else the parser would read the record that is cut, filled up with zeros, as an event
        padded = padded[:FREE_SPACE_OFFSET] + struct.pack("<I", end) + padded[FREE_SPACE_OFFSET + 4 :]
    records, error = _parse_chunk(padded)
    if error is not None and len(records) < expected:
        again, error_again = _parse_chunk(
            padded[: TABLES.start] + bytes(TABLES.stop - TABLES.start) + padded[TABLES.stop :]
        )
        if len(again) > len(records):
            records, error = again, error_again
    if len(chunk) < CHUNK_BYTES:
        return records, f"cut after {len(chunk)} of {CHUNK_BYTES} bytes; {len(records)} records were read"
    if error is not None or len(records) < expected:
        return records, f"{max(expected - len(records), 0)} of {expected} records are unreadable ({error or 'cut'})"
    return records, None


def _count_records(chunk: bytes) -> tuple[int, int]:
    """Whole records that the chunk holds by its own account (before its free space), and where they end."""
    end = min(struct.unpack_from("<I", chunk.ljust(CHUNK_HEADER_BYTES, b"\x00"), FREE_SPACE_OFFSET)[0], len(chunk))
    position, count = CHUNK_HEADER_BYTES, 0
    while position + RECORD_HEADER_BYTES <= end and chunk[position : position + 4] == RECORD_MAGIC:
        size = int.from_bytes(chunk[position + 4 : position + 8], "little")
        if size < RECORD_HEADER_BYTES or position + size > end:
            break
        count += 1
        position += size
    return count, position


def _parse_chunk(chunk: bytes) -> tuple[list[bytes], str | None]:
    """Parse one whole chunk under a file header of our own; the first error, and every record that is readable."""
    header = struct.pack("<8sQQQIHHHH", FILE_MAGIC, 0, 0, 0, 128, 1, 3, FILE_HEADER_BYTES, 1)
    records: list[bytes] = []
    first_error: str | None = None
    try:
        stream = io.BytesIO(header.ljust(FILE_HEADER_BYTES, b"\x00") + chunk)
        found = PyEvtxParser(stream, number_of_threads=1, indent=False).records_json()
    except (RuntimeError, OSError) as error:
        return [], _short(error)
    # An error does not end the iteration: the next record may be whole. Every error passes at least one record or the
    # chunk, of which there are at most as many as fit.
    for _ in range(CHUNK_BYTES // RECORD_HEADER_BYTES):
        try:
            record = next(found)
        except StopIteration:
            break
        except (RuntimeError, OSError) as error:
            first_error = first_error or _short(error)
        else:
            if record is not None:
                records.append(record["data"].encode("utf-8", "replace"))
    return records, first_error


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]

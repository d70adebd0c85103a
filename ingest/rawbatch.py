"""Raw batches: what `collect` puts on the bus, and the ids of what comes off it.

One bus record holds thousands of frames of one tenant and one peer as a sealed Arrow IPC stream (`ingest.ipc`), so that
the cost of a record is shared by its lines. `collect` does not parse: a frame is bytes, with the facts only the
listener knows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import polars as pl

from ingest.bus import Message, Record
from ingest.envelope import EVENT_ID, UTC_MICROSECONDS
from ingest.ipc import FrameDecodeError, decode_frame, encode_frame

RAW_SCHEMA: Final[dict[str, pl.DataType]] = {
    "line": pl.Binary(),  # the frame without its transport framing
    "received": UTC_MICROSECONDS,
    "mark": pl.String(),  # null, or what the framing found wrong: the line is kept all the same
    "tenant": pl.String(),
    "peer": pl.String(),
}
"""Columns of a raw batch."""

BATCH_ID: Final = "batch"
"""Header: `run:number` of the batch, where `run` is 64 random bits of the collector's process. A batch that is
published again, because nobody knew whether it had arrived, has the id it had before (docs/decisions/0009)."""

BATCH_ROW: Final = "batch-row"
"""Header of a part of a batch: how many lines of the batch come before it."""

BATCH_LINES: Final = "lines"
"""Header: how many lines the message holds."""

BATCH_FORMAT: Final = "format"
"""Header: name of the format that these lines are offered first, where the channel says so (`ingest.topic_intake`)."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """One frame as a listener hands it on."""

    line: bytes
    received: datetime
    tenant: str
    peer: str
    mark: str | None = None


def encode_lines(lines: list[RawLine]) -> bytes:
    """Pack frames into one sealed Arrow IPC stream with `RAW_SCHEMA`."""
    frame = pl.DataFrame(
        {
            "line": [item.line for item in lines],
            "received": [item.received for item in lines],
            "mark": [item.mark for item in lines],
            "tenant": [item.tenant for item in lines],
            "peer": [item.peer for item in lines],
        },
        schema=RAW_SCHEMA,
    )
    return encode_frame(frame)


def decode_record(record: Record) -> pl.DataFrame:
    """Unpack a bus record into `RAW_SCHEMA` plus the event id of each row (`topic:partition:offset:row`).

    Raises:
        FrameDecodeError: The value is not a sealed, undamaged Arrow IPC stream with the columns of `RAW_SCHEMA`.
    """
    frame = decode_frame(record.value, RAW_SCHEMA)
    place = f"{record.topic}:{record.partition}:{record.offset}:"
    return (
        frame.with_row_index("row")
        .with_columns(pl.concat_str([pl.lit(place), pl.col("row").cast(pl.String)]).alias(EVENT_ID))
        .drop("row")
    )


def split_message(message: Message, max_bytes: int) -> list[Message]:
    """A raw batch in parts of at most `max_bytes` of lines, or of one line; each says which part of the batch it is."""
    try:
        frame = decode_frame(message.value, RAW_SCHEMA)
    except FrameDecodeError:
        return [message]  # no batch of ours: the bus must take it as it is
    first = int(message.headers.get(BATCH_ROW, "0"))
    parts: list[Message] = []
    start, size = 0, 0
    for row, length in enumerate(frame["line"].bin.size().to_list()):
        if row > start and size + length > max_bytes:
            parts.append(_part(message, frame, start, row, first))
            start, size = row, 0
        size += length
    return [*parts, _part(message, frame, start, frame.height, first)] if parts else [message]


def _part(message: Message, frame: pl.DataFrame, start: int, end: int, first: int) -> Message:
    where = {BATCH_ROW: str(first + start), BATCH_LINES: str(end - start)}
    return replace(message, value=encode_frame(frame[start:end]), headers={**message.headers, **where})

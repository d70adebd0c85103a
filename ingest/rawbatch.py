"""Raw batches: what `collect` puts on the bus, and the ids of what comes off it.

One bus record holds thousands of frames of one tenant and one peer as a sealed Arrow IPC stream (`ingest.ipc`), so that
the cost of a record is shared by its lines. `collect` does not parse: a frame is bytes, with the facts only the
listener knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from ingest.bus import Record
from ingest.envelope import EVENT_ID, UTC_MICROSECONDS
from ingest.ipc import decode_frame, encode_frame

RAW_SCHEMA: Final[dict[str, pl.DataType]] = {
    "line": pl.Binary(),  # the frame without its transport framing
    "received": UTC_MICROSECONDS,
    "mark": pl.String(),  # null, or what the framing found wrong: the line is kept all the same
    "tenant": pl.String(),
    "peer": pl.String(),
}
"""Columns of a raw batch."""


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

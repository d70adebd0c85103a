"""Arrow IPC streams with a known schema: the value of a bus record that carries a frame."""

from __future__ import annotations

import io
from collections.abc import Mapping

import polars as pl


class FrameDecodeError(ValueError):
    """Bytes that are not an Arrow IPC stream of the schema asked for: quarantine them, with this reason."""


def encode_frame(frame: pl.DataFrame) -> bytes:
    """Pack a frame into one Arrow IPC stream, compressed with zstd."""
    sink = io.BytesIO()
    frame.write_ipc_stream(sink, compression="zstd")
    return sink.getvalue()


def decode_frame(value: bytes, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Unpack an Arrow IPC stream.

    Raises:
        FrameDecodeError: The bytes are not a stream, or its columns are not those of `schema`.
    """
    try:
        frame = pl.read_ipc_stream(io.BytesIO(value))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise FrameDecodeError(f"not an Arrow IPC stream: {error}") from error
    if dict(frame.schema) != dict(schema):
        raise FrameDecodeError(f"columns {dict(frame.schema)} are not the {len(schema)} expected")
    return frame

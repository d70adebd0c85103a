"""Sealed Arrow IPC streams with a known schema: the value of a bus record that carries a frame.

The reader of Arrow IPC trusts the lengths and offsets that a stream claims. A stream with one byte changed may make it
panic, or ask for more memory than there is, which ends the process and leaves nothing to catch; and the next start
would read the same record again. So a frame is sealed: `MAGIC`, then the CRC-32 of the stream (4 bytes, big-endian),
then the stream; and the checksum is compared before anything is decoded. It finds damage, not forgery: who may write
to the bus is for the bus to say.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import Final

import polars as pl

MAGIC: Final = b"TCF1"
"""First bytes of a sealed frame: Tocsin, frame, version 1."""

_CHECKSUM: Final = slice(len(MAGIC), len(MAGIC) + 4)


class FrameDecodeError(ValueError):
    """Bytes that are not a sealed frame of the schema asked for: quarantine them, with this reason."""


def encode_frame(frame: pl.DataFrame) -> bytes:
    """Pack a frame into one Arrow IPC stream, compressed with zstd, and seal it."""
    sink = io.BytesIO()
    frame.write_ipc_stream(sink, compression="zstd")
    return seal(sink.getvalue())


def decode_frame(value: bytes, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Unpack a sealed frame.

    Raises:
        FrameDecodeError: The bytes are not a sealed frame, were damaged, or hold other columns than those of `schema`.
    """
    stream = _unseal(value)
    try:
        frame = pl.read_ipc_stream(io.BytesIO(stream))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise FrameDecodeError(f"not an Arrow IPC stream: {error}") from error
    except pl.exceptions.PanicException as error:  # a BaseException: the clause above lets it through
        raise FrameDecodeError(f"not an Arrow IPC stream: its reader failed: {error}") from error
    if dict(frame.schema) != dict(schema):
        raise FrameDecodeError(f"columns {dict(frame.schema)} are not the {len(schema)} expected")
    return frame


def seal(stream: bytes) -> bytes:
    """A stream with what `decode_frame` checks before it."""
    return b"".join((MAGIC, zlib.crc32(stream).to_bytes(4), stream))


def _unseal(value: bytes) -> memoryview:
    if not value.startswith(MAGIC):
        raise FrameDecodeError(f"not a frame: it begins with {value[: len(MAGIC)]!r}, not {MAGIC!r}")
    stream = memoryview(value)[_CHECKSUM.stop :]
    said, found = value[_CHECKSUM].hex(), zlib.crc32(stream).to_bytes(4).hex()
    if said != found:
        raise FrameDecodeError(f"damaged frame: its checksum is {found}, and should be {said}")
    return stream

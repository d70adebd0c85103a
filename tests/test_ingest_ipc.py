"""Sealed frames: what was packed comes out, and no damaged byte reaches the reader of Arrow IPC."""

from __future__ import annotations

import io

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.bus import Record
from ingest.ipc import MAGIC, FrameDecodeError, decode_frame, encode_frame, seal
from ingest.rawbatch import decode_record

FRAME = pl.DataFrame({"a": [b"abc", b"defg"] * 3, "b": ["x", None] * 3})
SEALED = encode_frame(FRAME)


def stream(frame: pl.DataFrame = FRAME) -> bytes:
    sink = io.BytesIO()
    frame.write_ipc_stream(sink, compression="zstd")
    return sink.getvalue()


def test_a_frame_comes_back_whole() -> None:
    assert decode_frame(SEALED, FRAME.schema).equals(FRAME)
    assert seal(stream()) == SEALED


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_a_changed_byte_is_named_before_anything_is_decoded(at: int, change: int) -> None:
    damaged = bytearray(SEALED)
    damaged[at] ^= change
    with pytest.raises(FrameDecodeError, match="not a frame" if at < len(MAGIC) else "checksum"):
        decode_frame(bytes(damaged), FRAME.schema)


@pytest.mark.parametrize("value", [b"", MAGIC, SEALED[:-1], SEALED + b"\0", stream(), b"no frame at all"])
def test_what_is_no_sealed_frame_is_an_error(value: bytes) -> None:
    with pytest.raises(FrameDecodeError, match=r"not a frame|checksum"):
        decode_frame(value, FRAME.schema)
    with pytest.raises(FrameDecodeError):
        decode_record(Record("t", 0, 0, "k", value))


@pytest.mark.parametrize("inside", [b"", b"sealed, but no stream"])
def test_a_seal_around_something_else_is_an_error(inside: bytes) -> None:
    with pytest.raises(FrameDecodeError, match="not an Arrow IPC stream"):
        decode_frame(seal(inside), FRAME.schema)


def test_other_columns_are_an_error() -> None:
    with pytest.raises(FrameDecodeError, match="are not the 1 expected"):
        decode_frame(SEALED, {"a": pl.Binary()})


def test_a_panic_of_the_reader_is_an_error() -> None:
    hostile = bytearray(stream())
    hostile[117] = 1
    with pytest.raises(pl.exceptions.PanicException):  # else this test would show nothing
        pl.read_ipc_stream(io.BytesIO(bytes(hostile)))
    with pytest.raises(FrameDecodeError, match="its reader failed"):
        decode_frame(seal(bytes(hostile)), FRAME.schema)

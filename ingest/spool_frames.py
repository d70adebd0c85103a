"""How bus messages lie in a spool segment: framed, numbered, sealed; and what can be read of a damaged one.

    segment = frame*
    frame   = head, seal of the head, body
    head    = "TSP1", number (8 bytes), time (8, microseconds since 1970), length (4) and CRC-32 (4) of the body
    body    = length (4), JSON [topic, key, headers], value

All numbers are big-endian. Head and body are sealed apart: where a body is damaged its length can still be trusted, and
the next frame is looked for behind it; where a head is damaged the next whole frame is searched for.

A process that is killed while it writes leaves a frame without its end. That is a torn tail: what was cut off was never
promised to anyone. Everything else that is no frame is damage, and what lies behind it is still read.

Trap: a value holds what senders wrote, and could hold what looks like a frame. A search after damage would then read a
message that a sender made up. So the checksums begin from the segment's salt, which no sender knows. They find damage
and such accidents; who may write to the folder is for the file system to say.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import orjson

from ingest.bus import Message

MAGIC: Final = b"TSP1"
_HEAD: Final = struct.Struct(">4sQQII")
_WORD: Final = struct.Struct(">I")
HEAD_SIZE: Final = _HEAD.size + _WORD.size
"""Bytes of a frame before its body."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a whole frame lies in what was scanned.

    Attributes:
        number: Of the record; they grow from one to the next.
        when: When it was spooled, in microseconds since 1970 UTC.
        start: Its first byte.
        end: The byte behind its last.
    """

    number: int
    when: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found.

    Attributes:
        frames: Whole frames, in order.
        damaged: Stretches (first byte, byte behind the last) that are no frames.
        end: Where the torn tail begins, or the length of what was scanned.
    """

    frames: list[Frame]
    damaged: list[tuple[int, int]]
    end: int


def encode_record(number: int, when: int, message: Message, salt: int) -> bytes:
    """A message as a frame."""
    meta = orjson.dumps([message.topic, message.key, dict(message.headers)])
    body = b"".join((_WORD.pack(len(meta)), meta, message.value))
    head = _HEAD.pack(MAGIC, number, when, len(body), zlib.crc32(body, salt))
    return b"".join((head, _WORD.pack(zlib.crc32(head, salt)), body))


def decode_record(data: bytes, frame: Frame) -> Message:
    """The message of a frame that `scan` found in the data."""
    start = frame.start + HEAD_SIZE
    value = start + _WORD.size + _WORD.unpack_from(data, start)[0]
    topic, key, headers = orjson.loads(data[start + _WORD.size : value])
    return Message(topic, key, data[value : frame.end], headers)


def scan(data: bytes, salt: int) -> Scan:
    """Find the whole frames in a segment, or in what it holds from the end of one of its frames on."""
    view = memoryview(data)
    frames: list[Frame] = []
    damaged: list[tuple[int, int]] = []
    at = 0
    while at < len(data):
        frame = _frame(view, at, salt)
        if frame is not None:
            frames.append(frame)
            at = frame.end
        elif _is_torn(view, at, salt):
            return Scan(frames, damaged, at)
        else:
            behind = _search(data, view, at, salt)
            damaged.append((at, behind))
            at = behind
    return Scan(frames, damaged, at)


def _frame(view: memoryview, at: int, salt: int) -> Frame | None:
    """The frame that begins here, if it is whole."""
    head = _head(view, at, salt)
    if head is None:
        return None
    number, when, length, checksum = head
    start = at + HEAD_SIZE
    if start + length > len(view) or zlib.crc32(view[start : start + length], salt) != checksum:
        return None
    return Frame(number, when, at, start + length)


def _head(view: memoryview, at: int, salt: int) -> tuple[int, int, int, int] | None:
    head = view[at : at + _HEAD.size]
    if at + HEAD_SIZE > len(view) or zlib.crc32(head, salt) != _WORD.unpack_from(view, at + _HEAD.size)[0]:
        return None
    magic, number, when, length, checksum = _HEAD.unpack(head)
    return (number, when, length, checksum) if magic == MAGIC else None


def _is_torn(view: memoryview, at: int, salt: int) -> bool:
    """Whether what lies here is the beginning of a frame that was never written to its end."""
    rest = view[at:]
    if len(rest) < HEAD_SIZE:
        return bytes(rest[: len(MAGIC)]) == MAGIC[: len(rest)] or _is_zeros(rest)
    head = _head(view, at, salt)
    if head is not None:
        return at + HEAD_SIZE + head[2] > len(view)
    return _is_zeros(rest)  # a file system that lost its power may leave zeros where nothing was written yet


def _is_zeros(rest: memoryview) -> bool:
    return not bytes(rest).strip(b"\0")


def _search(data: bytes, view: memoryview, at: int, salt: int) -> int:
    """Where the next frame begins behind damage, or the torn tail, or the end."""
    head = _head(view, at, salt)
    if head is not None:  # and the body is damaged: `_is_torn` was asked
        return at + HEAD_SIZE + head[2]
    while (at := data.find(MAGIC, at + 1)) >= 0:
        if _head(view, at, salt) is not None:
            return at
    return len(data)

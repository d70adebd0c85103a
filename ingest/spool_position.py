"""How far a spool has been published: one number on disk that survives being killed while it is written.

Two slots in one small file are written in turn, each with a checksum; the greater number of those that hold counts. The
file is overwritten in place, so that a full disk does not stop it. Where it is lost, the spool is published from its
beginning: readers know what they have.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Final, cast

import structlog

_SLOT: Final = struct.Struct(">QI")
_APART: Final = 512
"""Bytes from slot to slot: a disk sector, which is written whole or not at all."""

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class PositionFile:
    """The number of the next record to be published. Numbers only grow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._writes = 0
        self._failing = False

    def load(self) -> int:
        """What was stored last; 0 where nothing was, or nothing can be read."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return 0
        found = [0]
        for start in (0, _APART):
            slot = data[start : start + _SLOT.size]
            if len(slot) == _SLOT.size:
                number, checksum = _SLOT.unpack(slot)
                if zlib.crc32(slot[:8]) == checksum:
                    found.append(number)
                    self._writes = (start == 0) if number == max(found) else self._writes
        return max(found)

    def store(self, number: int) -> None:
        """Have it on disk. A disk that refuses is said once: the price is that records are published again."""
        try:
            if self._file is None:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            slot = number.to_bytes(8)
            os.pwrite(self._file, slot + zlib.crc32(slot).to_bytes(4), _APART * (self._writes % 2))
            os.fdatasync(self._file)
        except OSError as error:
            if not self._failing:
                _log.error("the position of the spool cannot be stored", file=str(self.path), error=str(error))
            self._failing = True
        else:
            self._writes += 1
            self._failing = False

    def close(self) -> None:
        """Release the file."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

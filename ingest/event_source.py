"""What reading event files hands on: batches of raw lines, and what could not be read.

A file that a hunt is pointed at was collected in haste from a machine that was attacked: it is cut, encrypted, of
another kind than its name says. So damage is data on the same path as the events: a reader yields what is readable,
and a `SourceProblem` for the rest, and never raises for the content of a file.

A `ByteSource` is a stream of bytes with a name: a file, or a member of an archive, whose own decompression may fail
in the middle. Such a failure ends the stream and is remembered in `damage`; every reader then treats it as an early
end of file.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Final, Literal, Protocol

import polars as pl

READ_BYTES: Final = 16 * 1024 * 1024
"""Bytes read at a time: with events of 1 kB, a batch of some 16,000, which is what the engine likes."""

HEAD_BYTES: Final = 64 * 1024
"""Bytes looked at to tell the kind of a file."""

LINE_BYTES: Final = 16 * 1024 * 1024
"""A longer line is cut and marked, so that a file without line breaks cannot fill the memory."""

VALUE_BYTES: Final = 128 * 1024 * 1024
"""A longer JSON value is kept as broken text. CloudTrail puts all events of a file into one value."""

DECOMPRESSED_BYTES: Final = 16 * 1024**3
"""What one archive may hold once decompressed (a zip bomb of 42 kB holds 4.5 petabytes)."""

ARCHIVE_DEPTH: Final = 4
"""Archives within archives that are opened: a .tar.gz is two. A gzip file can hold itself without end."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on what files written by strangers may cost.

    Attributes:
        decompressed_bytes: Bytes that one archive may hold once decompressed, all its members together.
        line_bytes: Bytes of one line.
        value_bytes: Characters of one value of a JSON document.
        archive_depth: Archives within archives that are opened.
    """

    decompressed_bytes: int = DECOMPRESSED_BYTES
    line_bytes: int = LINE_BYTES
    value_bytes: int = VALUE_BYTES
    archive_depth: int = ARCHIVE_DEPTH


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """What of a source was not read, and why.

    Attributes:
        source: The file, or the archive and its member.
        place: Where in the source ("line 12", "chunk 3"); empty for the whole of it.
        reason: What was wrong.
        kind: `skipped`: not an event file, left alone; `damaged`: the rest of the source was read;
            `unreadable`: nothing of it could be read.
    """

    source: str
    place: str
    reason: str
    kind: Literal["skipped", "damaged", "unreadable"]

    def __str__(self) -> str:
        """One line: source, place, reason."""
        place = f", {self.place}" if self.place else ""
        return f"{self.source}{place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Some events of one source, in the order in which it holds them.

    Attributes:
        source: The file, or the archive and its member (`archive.zip!member.json`).
        raw: `RAW_SCHEMA` columns and `event.id`, which is `source:row`; rows count from 1 and are the line numbers of
            files that have lines.
    """

    source: str
    raw: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Rows:
    """Raw rows of a source before they become a batch: `first` is the row number of the first one.

    `lines` may be a Binary column, in which lines that were cut out of one piece of text share its memory.
    """

    first: int
    lines: Sequence[bytes] | pl.Series
    marks: dict[int, str] = field(default_factory=dict)  # index in `lines` -> what was wrong with it


ReadItem = Rows | SourceProblem
"""What a reader of one kind of file yields."""


class Readable(Protocol):
    """A stream of bytes that can be read."""

    def read(self, size: int, /) -> bytes:
        """Read up to `size` bytes; empty at the end."""
        ...


@dataclass(slots=True)
class Budget:
    """Bytes that an archive and all that is in it may still give."""

    total: int
    spent: int = 0

    def take(self, count: int) -> bool:
        """Spend `count` bytes; False once there are none left."""
        self.spent += count
        return self.spent <= self.total


class ByteSource:
    """A named stream of bytes whose damage ends it instead of raising; see the module docstring.

    Args:
        name: How reports name it.
        stream: Where the bytes come from.
        budget: What may still be read, for a member of an archive.
        file: The stream again if it is a real file that can seek.
    """

    __slots__ = ("_budget", "_read_some", "_unread", "damage", "file", "head", "name")

    def __init__(
        self, name: str, stream: Readable, budget: Budget | None = None, file: IO[bytes] | None = None
    ) -> None:
        # A name that is not UTF-8 reaches Python as lone surrogates, which no column of text can hold.
        self.name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self.damage: str | None = None
        self.file = file
        # read1: what a decompressor has before it fails. read() of a size would throw that away with the error.
        self._read_some = stream.read1 if isinstance(stream, io.BufferedIOBase) else stream.read
        self._budget = budget
        self._unread = b""
        self.head = self.read(HEAD_BYTES)
        self._unread = self.head

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes, or what there is until the end or the damage."""
        parts = [self._unread[:size]] if self._unread else []
        self._unread = self._unread[size:]
        missing = size - sum(map(len, parts))
        while missing > 0 and self.damage is None:
            part = self._read_stream(missing)
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)  # join copies even a single one beside an empty one

    def chunks(self, size: int = READ_BYTES) -> Iterator[bytes]:
        """The rest of the stream in pieces of `size` bytes."""
        while chunk := self.read(size):
            yield chunk

    def _read_stream(self, size: int) -> bytes:
        try:
            part = self._read_some(size)
        except READ_ERRORS as error:
            self.damage = f"{type(error).__name__}: {error}"
            return b""
        if self._budget is not None and not self._budget.take(len(part)):
            self.damage = f"larger than {self._budget.total:,} bytes once decompressed; the rest was not read"
            return b""
        return part


# What gzip, zipfile, tarfile and the file system raise in the middle of a stream. zipfile raises a bare RuntimeError
# for a wrong password and NotImplementedError for a compression method it does not know.
READ_ERRORS: Final = (
    OSError,  # gzip.BadGzipFile is one
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,
    NotImplementedError,
)


def copy_to(source: ByteSource, target: IO[bytes]) -> None:
    """Copy what can be read of `source` into a seekable file, and rewind that."""
    for chunk in source.chunks(1024 * 1024):
        target.write(chunk)
    target.seek(0)

"""The spool: bus messages that wait on disk, in order, while the bus is away.

Segments are files of frames (`ingest.spool_frames`), written at the end of the last one and read from the beginning of
the first one; a segment all of whose records are on the bus is deleted. The position says up to which record that is.

Promised:
- When `append` returns, the records are on disk (fsync): neither `kill -9` nor a power cut takes them back. If it
  raises, none of them was taken.
- Records come out in the order they went in, each until `advance` has passed it. A process that is killed between a
  publish and `advance` publishes these records again; their headers name them, so that readers know (`tocsin.resends`).
- A damaged record is kept aside, in the folder `damaged`, and counted; those behind it come out.
- `max_bytes` is never passed; `damaged` is not counted.

Not promised: anything after the disk is lost. One process owns the folder (a lock that the kernel drops with it).

Traps:
- After a failed fsync nobody knows what is on disk: the segment is cut back to what was promised, and left.
- A disk without room must not be needed to get room: the position is overwritten in place.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, cast

import structlog

from ingest.bus import Message
from ingest.disk import disk_reason
from ingest.listeners import CollectError
from ingest.spool_frames import Frame, decode_record, encode_record, scan
from ingest.spool_position import PositionFile

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""About the size of a segment: the first one is read into memory as a whole."""

_NAME: Final = re.compile(r"(\d{20})-([0-9a-f]{8})\.spool")
"""Number of the first record, and the salt of the checksums."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class SpoolError(CollectError):
    """The spool cannot take more now: it is full, or its disk is; the message says which, and why."""


class SpoolInUseError(SpoolError):
    """Another process owns the folder."""


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """Where the spool lies, and how large it may become.

    Attributes:
        path: Its folder, made if it is not there.
        max_bytes: What all segments together may take on disk.
        segment_bytes: About the size of a segment.
    """

    path: Path
    max_bytes: int
    segment_bytes: int = SEGMENT_BYTES


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """The spool as it stands.

    Attributes:
        bytes: What its segments take on disk.
        records: Messages that wait.
        oldest: When the first of them was spooled, as far as that was read; None if nothing waits.
        replayed: Messages that left it for the bus since the process started.
        damaged: Stretches of segments that could not be read since then, kept aside.
        full_seconds: How long nothing more could be taken since then.
    """

    bytes: int
    records: int
    oldest: datetime | None
    replayed: int
    damaged: int
    full_seconds: float


@dataclass(frozen=True, slots=True)
class Spooled:
    """A message that waits, under its number."""

    number: int
    message: Message


@dataclass(slots=True)
class _Segment:
    path: Path
    first: int
    salt: int
    size: int


class Spool:
    """See the module. Used by one thread at a time, but for `stats` and `empty`.

    Args:
        settings: Where, and how large.
        clock: The time, for the age of what waits.
        seconds: A monotonic clock.
    """

    def __init__(
        self,
        settings: SpoolSettings,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._seconds = seconds
        self._lock: int | None = None
        self._position = PositionFile(settings.path / "position")
        self._segments: deque[_Segment] = deque()
        self._tail: int | None = None  # descriptor of the last segment, while it is written
        self._data = b""  # what was read last of the first segment
        self._frames: deque[Frame] = deque()  # in `_data`, not yet passed
        self._read = 0  # how much of the first segment was read
        self._bytes = 0
        self._head = self._next = 0
        self._oldest: datetime | None = None
        self._replayed = self._damaged = 0
        self._full_since: float | None = None
        self._full_seconds = 0.0

    # -- life --------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the folder, and find what an earlier process left in it.

        Raises:
            SpoolInUseError: Another process has it.
            SpoolError: It cannot be made or read.
        """
        if self._lock is not None:
            return
        try:
            self.settings.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.settings.path / "lock")
            self._find()
        except OSError as error:
            self.close()
            raise SpoolError(f"spool {self.settings.path}: cannot be opened: {disk_reason(error)}") from error
        if not self.empty:
            _log.info("lines of an earlier run wait on disk", records=self._next - self._head, bytes=self._bytes)

    def _find(self) -> None:
        self._head = self._position.load()
        self._frames.clear()
        self._read = 0
        found = sorted((int(name[1]), int(name[2], 16), path) for path, name in _segment_files(self.settings.path))
        self._segments = deque(_Segment(path, first, salt, path.stat().st_size) for first, salt, path in found)
        self._next = self._head
        if self._segments:
            self._next = max(self._head, self._cut_tail(self._segments[-1]))
            self._head = max(self._head, self._segments[0].first)
        self._bytes = sum(segment.size for segment in self._segments)
        self._load()

    def _cut_tail(self, segment: _Segment) -> int:
        """Cut off what a killed process did not write to its end; the number behind the last record."""
        found = scan(segment.path.read_bytes(), segment.salt)
        if found.end < segment.size:
            _log.warning("cut off a record that was not written to its end", file=str(segment.path), at=found.end)
            with suppress(OSError):  # a disk that is read-only: it is passed over at the next start as well
                os.truncate(segment.path, found.end)
            segment.size = found.end
        return found.frames[-1].number + 1 if found.frames else segment.first + 1

    def close(self) -> None:
        """Leave the folder to others. What waits stays."""
        self._close_tail()
        self._position.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    # -- in ----------------------------------------------------------------------------------------------------

    def append(self, messages: Sequence[Message]) -> int:
        """Write messages behind the others; the number of the first. They have consecutive numbers.

        Raises:
            SpoolError: There is no room, or the disk refuses; nothing was taken.
        """
        try:
            self.open()
            first = self._append(messages)
        except OSError as error:
            self._is_full()
            raise SpoolError(f"spool {self.settings.path}: {disk_reason(error)}") from error
        except SpoolError:
            self._is_full()
            raise
        if self._full_since is not None:
            self._full_seconds += self._seconds() - self._full_since
            self._full_since = None
        return first

    def _append(self, messages: Sequence[Message]) -> int:
        now = self._clock()
        when = (now - _EPOCH) // _MICROSECOND
        first = self._next
        try:
            segment = self._writable()
            data = b"".join(encode_record(first + i, when, each, segment.salt) for i, each in enumerate(messages))
            if self._bytes + len(data) > self.settings.max_bytes:
                used = f"{self._bytes} of {self.settings.max_bytes} bytes are taken"
                raise SpoolError(f"spool {self.settings.path}: full: {used}, and {len(data)} more are wanted")
            _write(cast("int", self._tail), data)
        except OSError:
            self._give_up_tail()
            raise
        segment.size += len(data)
        self._bytes += len(data)
        if self.empty:
            self._oldest = now
        self._next += len(messages)
        return first

    def _writable(self) -> _Segment:
        """The last segment if this process began it and it has room; else a new one."""
        if self._tail is not None and self._segments[-1].size < self.settings.segment_bytes:
            return self._segments[-1]
        self._close_tail()
        salt = secrets.randbits(32)
        path = self.settings.path / f"{self._next:020}-{salt:08x}.spool"
        self._tail = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._segments.append(_Segment(path, self._next, salt, 0))
        folder = os.open(self.settings.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # the name of the new file, too, must survive
        finally:
            os.close(folder)
        return self._segments[-1]

    def _give_up_tail(self) -> None:
        """Cut the last segment back to what was promised, and write no more to it."""
        if self._tail is not None:
            segment = self._segments[-1]
            with suppress(OSError):
                if segment.size:
                    os.truncate(segment.path, segment.size)
                else:
                    self._segments.pop()
                    segment.path.unlink()
        self._close_tail()

    def _close_tail(self) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            with suppress(OSError):  # what was promised is on disk by fsync, whatever close says
                os.close(tail)

    def _is_full(self) -> None:
        if self._full_since is None:
            self._full_since = self._seconds()

    # -- out ---------------------------------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._head == self._next

    def head(self, max_records: int, max_bytes: int) -> list[Spooled]:
        """The first messages that wait, up to about so many; none only if nothing waits."""
        taken: list[Spooled] = []
        size = 0
        self._load()
        for frame in self._frames:
            if len(taken) == max_records or (taken and size + frame.end - frame.start > max_bytes):
                break
            size += frame.end - frame.start
            taken.append(Spooled(frame.number, decode_record(self._data, frame)))
        return taken

    def advance(self, number: int) -> None:
        """Everything before this number is on the bus: it need not come out again, and may go."""
        while self._frames and self._frames[0].number < number:
            self._frames.popleft()
            self._replayed += 1
        self._head = max(self._head, number)
        self._position.store(self._head)
        self._load()

    def _load(self) -> None:
        """Have the next frames at hand, and delete the segments that are passed."""
        while not self._frames and self._segments:
            segment = self._segments[0]
            if self._read < segment.size:
                self._read_on(segment)
            else:
                self._drop(segment)
        if self._frames:
            self._head = self._frames[0].number
            self._oldest = _EPOCH + self._frames[0].when * _MICROSECOND
        else:
            self._head = self._next  # what is missing was damaged
            self._oldest, self._data = None, b""

    def _read_on(self, segment: _Segment) -> None:
        try:
            with segment.path.open("rb") as file:
                file.seek(self._read)
                self._data = file.read(segment.size - self._read)
        except OSError as error:
            self._damaged += 1
            _log.error("a spool file cannot be read: kept aside", file=str(segment.path), error=str(error))
            self._forget(segment)
            self._keep_aside(segment.path.name, segment.path)
            return
        found = scan(self._data, segment.salt)
        for start, end in [*found.damaged, *([(found.end, len(self._data))] if found.end < len(self._data) else [])]:
            self._damaged += 1
            place = self._read + start
            _log.error("damage in a spool file: kept aside", file=str(segment.path), at=place, bytes=end - start)
            self._keep_aside(f"{segment.path.stem}-{place}.damaged", self._data[start:end])
        self._read = segment.size
        self._frames = deque(frame for frame in found.frames if frame.number >= self._head)

    def _keep_aside(self, name: str, what: bytes | Path) -> None:
        """Put a file, or a part of one, into the folder `damaged`."""
        try:
            folder = self.settings.path / "damaged"
            folder.mkdir(exist_ok=True)
            if isinstance(what, Path):
                what.rename(folder / name)
            else:
                (folder / name).write_bytes(what)
        except OSError as error:
            _log.error("damage cannot be kept aside", name=name, error=error.strerror or str(error))

    def _drop(self, segment: _Segment) -> None:
        self._forget(segment)
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:  # read-only: the position says that it was published
            _log.warning("a spool file cannot be deleted", file=str(segment.path), error=error.strerror or str(error))

    def _forget(self, segment: _Segment) -> None:
        if len(self._segments) == 1:
            self._close_tail()
        self._segments.popleft()
        self._bytes -= segment.size
        self._read = 0

    def stats(self) -> SpoolStats:
        """The spool as it stands."""
        full = self._full_seconds + (0.0 if self._full_since is None else self._seconds() - self._full_since)
        return SpoolStats(self._bytes, self._next - self._head, self._oldest, self._replayed, self._damaged, full)


def _locked(path: Path) -> int:
    """A descriptor that holds the folder's lock: the kernel drops it when the process ends, however it ends."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise SpoolInUseError(f"spool {path.parent}: another process uses it") from error
        raise
    return lock


def _segment_files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    return [(path, name) for path in folder.iterdir() if (name := _NAME.fullmatch(path.name)) is not None]


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it, and have it on disk."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fdatasync(descriptor)

"""What reaches `tocsin.raw` twice, and how it is told from what is merely alike (docs/decisions/0009-sent-again.md).

Two things come twice:

- A batch that the collector published again, not knowing whether it had arrived. It carries the id it had, and which of
  its lines it holds, so it is recognised exactly: lines that are there already are left out.
- Lines that a RELP sender sends again in a new session, because the one before broke ahead of the acknowledgement.
  They can only be recognised by what they are: the first lines of a session that repeat, in the same order and to the
  byte, lines of an earlier session of the same hospital and address. They are kept and marked, since two honest lines
  may be equal, and not matched again, since their like was matched.

What is known of a record depends on a window of the records before it in its partition, and on nothing else: not on how
they were polled, nor on when a process began. So a stage that was killed reads the window back and says the same again.
The window is the longest run of records before it within `Bounds`; what came twice at a greater distance goes unseen.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl
import structlog

from ingest.batching import RELP_FIRST, RELP_SESSION
from ingest.bus import Bus, Partition, Record
from ingest.envelope import EVENT_ID, EventFrame
from ingest.ipc import FrameDecodeError
from ingest.rawbatch import BATCH_ID, BATCH_LINES, BATCH_ROW, decode_record
from ingest.visible import visible

log = structlog.get_logger()

SENT_AGAIN: Final = "sent again: this line came before, in a RELP session that broke"

REPEATABLE: Final = 4096
"""How many lines at the beginning of a session, and at the end of an earlier one, are compared."""

SESSIONS: Final = 16
"""How many earlier sessions of a sender are compared with, the latest ones."""

STEP: Final = 64
LONGEST_STEP: Final = 4096
"""Records read at once on the way back."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far back a record is compared; all of it hangs on the records alone, so that it is the same at each start.

    Attributes:
        bytes: Of records on the bus.
        records: Their number.
        lines: Lines of RELP sessions in them.
    """

    bytes: int = 64 * 1024 * 1024
    records: int = 32_768
    lines: int = 1_000_000


DEFAULT_BOUNDS: Final = Bounds()


@dataclass(frozen=True, slots=True)
class Sifted:
    """A record's lines, told apart.

    Attributes:
        rows: As `ingest.rawbatch.decode_record` gives them, without those that were published before; those that were
            sent again are marked.
        known: How many were left out.
        again: Ids of the events that were sent again.
    """

    rows: pl.DataFrame
    known: int
    again: list[str]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is remembered of a record.

    Attributes:
        key: Hospital and address of the sender.
        size: Bytes on the bus.
        batch: Id of its batch; empty: it has none, or could not be read.
        order: Number of the batch: those of a session grow.
        first: Row of the batch that its first line is.
        count: Its lines.
        session: RELP session, or empty.
        opening: Whether some of them are among the first of the session.
        hashes: Of its lines, if they came by RELP. Python's own hash of bytes is keyed anew in each process, so nobody
            can write a line that passes for another.
    """

    key: str
    size: int
    batch: str = ""
    order: int = 0
    first: int = 0
    count: int = 0
    session: str = ""
    opening: bool = False
    hashes: array[int] = field(default_factory=lambda: array("q"))


class _Window:
    """The last records of a partition, as far as `Bounds` go."""

    def __init__(self, bounds: Bounds, start: int) -> None:
        self.next = start
        self._bounds = bounds
        self._entries: deque[_Entry] = deque()
        self._by_batch: dict[str, deque[_Entry]] = {}
        self._by_sender: dict[str, deque[_Entry]] = {}
        self._bytes = self._lines = 0

    def push(self, offset: int, entry: _Entry) -> None:
        """A record was read."""
        self.next = offset + 1
        self._entries.append(entry)
        self._bytes += entry.size
        self._lines += len(entry.hashes)
        if entry.batch:
            self._by_batch.setdefault(entry.batch, deque()).append(entry)
        if entry.session:
            self._by_sender.setdefault(entry.key, deque()).append(entry)
        while self.full:
            self._forget(self._entries.popleft())

    @property
    def full(self) -> bool:
        """Whether it goes beyond its bounds."""
        bounds = self._bounds
        return self._bytes > bounds.bytes or len(self._entries) > bounds.records or self._lines > bounds.lines

    def _forget(self, entry: _Entry) -> None:
        self._bytes -= entry.size
        self._lines -= len(entry.hashes)
        for known, name in ((self._by_batch, entry.batch), (self._by_sender, entry.key if entry.session else "")):
            if name:
                known[name].popleft()  # the first of the window is the first of its batch, and of its sender
                if not known[name]:
                    del known[name]

    def fresh(self, entry: _Entry) -> Sequence[int]:
        """Which lines of the record were not there before, by their index."""
        before = self._by_batch.get(entry.batch, ())
        return _uncovered(entry, [(known.first, known.first + known.count) for known in before])

    def repeated(self, entry: _Entry, fresh: Sequence[int]) -> list[int]:
        """Which of the fresh lines of a record were sent before, by their place among these."""
        if not entry.opening:
            return []
        sessions: dict[str, list[_Entry]] = {}
        for known in self._by_sender.get(entry.key, ()):
            records = sessions[known.session] = sessions.pop(known.session, [])  # as late as its last record
            records.append(known)
        mine = [known for known in sessions.pop(entry.session, []) if known.opening]
        places: dict[tuple[int, int], int] = {}
        opening: array[int] = array("q")
        for part, rows in _in_order([*mine, entry]):
            places.update(((part.order, part.first + row), len(opening) + at) for at, row in enumerate(rows))
            opening.extend(part.hashes[row] for row in rows)
        opening = opening[:REPEATABLE]
        earlier = (_lines(entries)[-REPEATABLE:] for entries in list(sessions.values())[-SESSIONS:])
        longest = max((longest_repeat(opening, lines) for lines in earlier), default=0)
        return [at for at, row in enumerate(fresh) if places[entry.order, entry.first + row] < longest]


def _uncovered(entry: _Entry, known: Sequence[tuple[int, int]]) -> Sequence[int]:
    if not known:
        return range(entry.count)
    rows = range(entry.first, entry.first + entry.count)
    return [at for at, row in enumerate(rows) if not any(start <= row < end for start, end in known)]


def _in_order(entries: Iterable[_Entry]) -> Iterator[tuple[_Entry, Sequence[int]]]:
    """Records of a session and which of their lines to take, so that each is taken once, in the order it was sent.

    A publish of which only a part arrived, and then all of it, leaves records in another order, and some of them twice.
    """
    batch, known = "", list[tuple[int, int]]()
    for entry in sorted(entries, key=lambda entry: (entry.order, entry.first)):
        if entry.batch != batch or not batch:
            batch, known = entry.batch, []
        yield entry, _uncovered(entry, known)
        known.append((entry.first, entry.first + entry.count))


def _last(entries: Sequence[_Entry]) -> Sequence[_Entry]:
    """The last records of a session, with enough lines also if each of them is there twice."""
    lines = 0
    for at in range(len(entries) - 1, -1, -1):
        lines += entries[at].count
        if lines >= 2 * REPEATABLE:
            return entries[at:]
    return entries


def _lines(entries: Sequence[_Entry]) -> array[int]:
    """The hashes of the last lines of a session."""
    lines: array[int] = array("q")
    for entry, rows in _in_order(_last(entries)):
        lines.extend(entry.hashes if len(rows) == entry.count else array("q", [entry.hashes[row] for row in rows]))
    return lines


def longest_repeat(new: Sequence[int], old: Sequence[int]) -> int:
    """How many of the first items of `new` stand together somewhere in `old`.

    By the Z-function (Gusfield, "Algorithms on Strings, Trees, and Sequences", 1.3), in the time of both lengths: lines
    that are all alike must not cost their square.
    """
    if not new or new[0] not in old:
        return 0
    text: list[int | None] = [*new, None, *old]
    lengths = [0] * len(text)
    left = right = longest = 0
    for at in range(1, len(text)):
        length = min(right - at, lengths[at - left]) if at < right else 0
        while at + length < len(text) and text[length] == text[at + length]:
            length += 1
        lengths[at] = length
        if at + length > right:
            left, right = at, at + length
        if at > len(new):
            longest = max(longest, length)
    return longest


class Resends:
    """Reads records, and says what of them came before. Used by one thread, each partition in the order of offsets.

    Args:
        bus: Where the window is read back from at the first record of a partition, and wherever offsets do not follow
            on: the partition was another worker's meanwhile.
        bounds: The size of the window.
    """

    def __init__(self, bus: Bus, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self._bus = bus
        self._bounds = bounds
        self._windows: dict[Partition, _Window] = {}

    def read(self, record: Record) -> Sifted:
        """The lines of a record, told apart.

        Raises:
            FrameDecodeError: It is no batch of lines (`ingest.rawbatch.decode_record`).
            BusError: The window cannot be read back.
        """
        window = self._windows.get(record.place)
        if window is None or window.next != record.offset:
            window = self._windows[record.place] = self._read_back(record.place, record.offset)
        try:
            rows = decode_record(record)
        except FrameDecodeError:
            window.push(record.offset, _Entry(record.key, len(record.value)))
            raise
        entry = _entry(record, rows)
        fresh = window.fresh(entry)
        if len(fresh) < entry.count:
            rows = rows[fresh]
        repeated = window.repeated(entry, fresh)
        window.push(record.offset, entry)
        sifted = Sifted(_marked(rows, repeated), entry.count - len(fresh), rows[EVENT_ID][repeated].to_list())
        _say(record, sifted)
        return sifted

    def _read_back(self, partition: Partition, offset: int) -> _Window:
        """The window before an offset."""
        window = _Window(self._bounds, offset)
        steps: list[list[_Entry]] = []
        size = count = lines = 0
        end, step = offset, STEP
        while end > 0 and size <= self._bounds.bytes and count <= self._bounds.records and lines <= self._bounds.lines:
            records = self._bus.read(partition, max(0, end - step), end)
            if not records:
                break
            steps.append([_remembered(record) for record in records])
            size += sum(entry.size for entry in steps[-1])
            count += len(records)
            lines += sum(len(entry.hashes) for entry in steps[-1])
            end -= step
            room = (self._bounds.bytes - size) * count // max(1, size)  # records that are likely still to fit
            step = max(STEP, min(2 * step, room, LONGEST_STEP))
        for entries in reversed(steps):
            for entry in entries:
                window.push(offset - 1, entry)
        return window


def _remembered(record: Record) -> _Entry:
    try:
        return _entry(record, decode_record(record))
    except FrameDecodeError:  # in quarantine since it was first read
        return _Entry(record.key, len(record.value))


def _entry(record: Record, rows: pl.DataFrame) -> _Entry:
    headers = record.headers
    session = headers.get(RELP_SESSION, "")
    ours = headers.get(BATCH_LINES) == str(rows.height)  # else another program wrote it, and its ids mean nothing
    batch = headers.get(BATCH_ID, "") if ours else ""
    return _Entry(
        record.key,
        len(record.value),
        batch,
        _number(batch.partition(":")[2]),
        _number(headers.get(BATCH_ROW, "")),
        rows.height,
        session,
        opening=bool(session) and RELP_FIRST in headers,
        hashes=array("q", map(hash, rows["line"])) if session else array("q"),
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _marked(rows: pl.DataFrame, repeated: Sequence[int]) -> pl.DataFrame:
    if not repeated:
        return rows
    at = pl.Series(repeated, dtype=pl.UInt32).implode()
    both = pl.concat_str([pl.col("mark"), pl.lit(SENT_AGAIN)], separator="; ", ignore_nulls=True)
    mark = pl.when(pl.int_range(pl.len(), dtype=pl.UInt32).is_in(at)).then(both).otherwise("mark")
    return rows.with_columns(mark.alias("mark"))


def _say(record: Record, sifted: Sifted) -> None:
    place = {"partition": record.partition, "offset": record.offset, "sender": visible(record.key)}
    if sifted.known:
        log.info("lines that were published twice are left out", lines=sifted.known, **place)
    if sifted.again:
        log.info("lines were sent again in a new RELP session", lines=len(sifted.again), **place)


def unrepeated(frames: Iterable[EventFrame], again: Sequence[str]) -> Iterator[EventFrame]:
    """The events that were not sent again: what rules are to see."""
    ids = pl.Series(again, dtype=pl.String).implode()
    for frame in frames:
        events = frame.events.filter(~pl.col(EVENT_ID).is_in(ids)) if again else frame.events
        yield EventFrame(frame.logsource, events)

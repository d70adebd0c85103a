"""Matches that were read and wait until those beside them are there too.

Several workers match, each at its own pace: one of them is killed, and its part of what a hospital sent comes a minute
after the rest. Were the rest correlated meanwhile, that part would be late. So matches wait until all of a *cut* of
`tocsin.raw` is matched and read: all records that it held at one moment, told by their offsets and by no clock. A match
names its raw record by the id of its event.

Bounded: what waits longer than is bearable, or is more than there is room for, goes on without the rest, in the order
of the bus; but for ten times as long not before what lies before it in its own partition of `tocsin.raw`. That may come
later on the bus: a worker that stood still publishes what it had read while its successor begins at the last commit.

The waiting is that of this process: what a worker's clock wrote beside its matches has no say, since a clock that was
wrong and is put right would let newer matches pass those that wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from ingest.bus import Partition

_OFFSET = "\x00offset"
_RAW_PARTITION = "\x00raw partition"
_RAW_OFFSET = "\x00raw offset"
_OURS = (_OFFSET, _RAW_PARTITION, _RAW_OFFSET)


@dataclass(frozen=True, slots=True)
class Ready:
    """Matches that wait no more.

    Attributes:
        matches: `MATCH_SCHEMA`, in the order of the bus.
        read: When they were read, by this process's clock.
    """

    matches: pl.DataFrame
    read: datetime


@dataclass(slots=True)
class _Chunk:
    rows: pl.DataFrame
    read: datetime
    since: timedelta


class HeldMatches:
    """The matches of one partition that wait. Used by one thread."""

    def __init__(self) -> None:
        self.bytes = 0
        self._chunks: deque[_Chunk] = deque()

    def add(self, records: Mapping[int, pl.DataFrame], read: datetime, since: timedelta) -> None:
        """Hold matches.

        Args:
            records: Offset of a record -> its matches (`MATCH_SCHEMA`).
            read: When they were read.
            since: The time spent waiting so far, of whoever holds them: what `older` is compared with.
        """
        named = [frame.with_columns(pl.lit(at, pl.Int64).alias(_OFFSET)) for at, frame in records.items()]
        rows = pl.concat(named)
        if rows.is_empty():
            return
        place = pl.col("event_id").str.extract_groups(r"^[^:]*:(?<partition>\d+):(?<offset>\d+):")
        rows = rows.with_columns(
            place.struct.field("partition").cast(pl.Int64, strict=False).alias(_RAW_PARTITION),
            place.struct.field("offset").cast(pl.Int64, strict=False).alias(_RAW_OFFSET),
        )
        self._chunks.append(_Chunk(rows, read, since))
        self.bytes += int(rows.estimated_size())

    def within(self, cut: Mapping[Partition, int]) -> list[Ready]:
        """Let go of the matches of raw records that lie before the cut, and of those that name no such record.

        Args:
            cut: Partition of `tocsin.raw` -> the offset behind its last record.
        """
        before = _before(cut)
        return list(self._let_go(lambda _: before))

    def older(self, since: timedelta) -> list[Ready]:
        """Let go of all that was held at `since` or before it: the time spent waiting until then, as in `add`."""
        return list(self._let_go(lambda chunk: pl.lit(chunk.since <= since)))

    def overdue(self, since: timedelta, done: Mapping[Partition, int]) -> list[Ready]:
        """Let go of what was held at `since`, as far as all before it in its raw partition is here, and goes with it.

        Args:
            since: As in `older`.
            done: Partition of `tocsin.raw` -> the offset before which all is matched and read; the rest stays.
        """
        before = _before(done)
        old = [chunk.rows.filter(before)[_RAW_PARTITION] for chunk in self._chunks if chunk.since <= since]
        partitions = {partition for rows in old for partition in rows.unique()}
        goes = before & pl.col(_RAW_PARTITION).is_in([one for one in partitions if one is not None])
        if None in partitions:
            goes |= pl.col(_RAW_PARTITION).is_null()
        return list(self._let_go(lambda _: goes)) if partitions else []

    def oldest(self) -> list[Ready]:
        """Let go of what was read first."""
        first = self._chunks[0] if self._chunks else None
        return list(self._let_go(lambda chunk: pl.lit(chunk is first)))

    def first(self) -> int | None:
        """The lowest offset of a record of which matches wait; None if none does."""
        offsets = [chunk.rows[_OFFSET].min() for chunk in self._chunks]
        return min((offset for offset in offsets if isinstance(offset, int)), default=None)

    def _let_go(self, ready: Callable[[_Chunk], pl.Expr]) -> Iterator[Ready]:
        kept: deque[_Chunk] = deque()
        for chunk in self._chunks:
            let_go = ready(chunk).fill_null(value=False)
            gone = chunk.rows.filter(let_go)
            if gone.is_empty():
                kept.append(chunk)
                continue
            yield Ready(gone.drop(_OURS), chunk.read)
            if gone.height < chunk.rows.height:
                kept.append(replace(chunk, rows=chunk.rows.filter(~let_go)))
        self._chunks = kept
        self.bytes = sum(int(chunk.rows.estimated_size()) for chunk in kept)


def _before(ends: Mapping[Partition, int]) -> pl.Expr:
    """Whether a match is of a raw record before these ends, or names no such record."""
    before = pl.col(_RAW_OFFSET).is_null()
    for partition, end in ends.items():
        before |= (pl.col(_RAW_PARTITION) == partition.partition) & (pl.col(_RAW_OFFSET) < end)
    return before

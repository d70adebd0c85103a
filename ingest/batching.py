"""Batches of raw lines on their way to the bus: how much goes together, how much waits. No I/O, time as an argument.

A bus record has a cost of its own, so lines travel in batches, one batch a (tenant, peer). A batch is ready when it is
full (`max_lines`, `max_bytes`) or when its first line has waited `max_seconds`. Batches of one peer leave in the order
of their lines, which the bus then keeps, their key being the same.

`waiting` counts, in bytes of memory, everything from `add` until `release`: the collector's back-pressure hangs on it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

import polars as pl

from ingest.bus import TOPIC_RAW, Message
from ingest.envelope import UTC_MICROSECONDS
from ingest.framing import Lines
from ingest.ipc import encode_frame
from ingest.rawbatch import RAW_SCHEMA

LINE_COST: Final = 64
"""What a line costs in memory beside its bytes (object header, list slots), so that empty-ish lines count too."""

BATCH_COST: Final = 1024
"""What a batch costs beside its lines: a datagram sender that forges its address opens a batch for each."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(slots=True)
class Batch:
    """Lines of one peer, as columns.

    Attributes:
        tenant: The hospital the listener is bound to.
        peer: Address of the sender.
        opened: When the first line came, in seconds of a monotonic clock.
        lines: The frames.
        received: When each came, in microseconds since 1970 UTC.
        marks: Index into `lines` -> what the framing found wrong.
        size: Sum of the lengths of `lines`.
    """

    tenant: str
    peer: str
    opened: float
    lines: list[bytes] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    marks: dict[int, str] = field(default_factory=dict)
    size: int = 0

    @property
    def key(self) -> str:
        """The key of the bus record."""
        return f"{self.tenant}/{self.peer}"

    @property
    def cost(self) -> int:
        """Bytes of memory this batch is counted with."""
        return self.size + LINE_COST * len(self.lines) + BATCH_COST

    def message(self) -> Message:
        """The batch as a bus message: an Arrow IPC stream of `RAW_SCHEMA`."""
        marks = [self.marks.get(index) for index in range(len(self.lines))] if self.marks else [None] * len(self.lines)
        frame = pl.DataFrame(
            {
                "line": pl.Series(self.lines, dtype=pl.Binary),
                "received": pl.Series(self.received, dtype=pl.Int64).cast(UTC_MICROSECONDS),
                "mark": pl.Series(marks, dtype=pl.String),
            }
        ).with_columns(pl.lit(self.tenant).alias("tenant"), pl.lit(self.peer).alias("peer"))
        return Message(TOPIC_RAW, self.key, encode_frame(frame.select(list(RAW_SCHEMA))))

    def split(self, max_bytes: int) -> list[Batch]:
        """The same lines in batches of at most `max_bytes` (or of one line)."""
        parts = []
        start = 0
        while start < len(self.lines):
            end = start + _fitting(self.lines[start:], max_bytes)
            lines = self.lines[start:end]
            marks = {index - start: mark for index, mark in self.marks.items() if start <= index < end}
            size = sum(map(len, lines))
            parts.append(Batch(self.tenant, self.peer, self.opened, lines, self.received[start:end], marks, size))
            start = end
        return parts


class Batcher:
    """Gathers lines into batches.

    Args:
        max_lines: Lines in a full batch.
        max_bytes: Bytes of lines in a full batch; a longer line is a batch of its own.
        max_seconds: How long the first line of a batch waits for others.
    """

    def __init__(self, max_lines: int, max_bytes: int, max_seconds: float) -> None:
        self.max_lines = max_lines
        self.max_bytes = max_bytes
        self.max_seconds = max_seconds
        self.waiting = 0
        self._full: list[Batch] = []
        self._open: dict[tuple[str, str], Batch] = {}  # in the order of `opened`, as dicts keep insertion order

    def add(self, tenant: str, peer: str, chunk: Lines, received: datetime, now: float) -> None:
        """Add lines that came together."""
        microseconds = (received - _EPOCH) // _MICROSECOND
        key = (tenant, peer)
        start, count = 0, len(chunk.lines)
        while start < count:
            batch = self._open.get(key)
            if batch is None:
                batch = self._open[key] = Batch(tenant, peer, now)
                self.waiting += BATCH_COST
            piece = chunk.lines[start : start + self.max_lines - len(batch.lines)]
            size = sum(map(len, piece))
            full = len(batch.lines) + len(piece) == self.max_lines
            if batch.size + size > self.max_bytes:
                piece = piece[: _fitting(piece, self.max_bytes - batch.size, at_least=0 if batch.lines else 1)]
                size = sum(map(len, piece))
                full = True
            if chunk.marks:
                shift = len(batch.lines) - start
                end = start + len(piece)
                batch.marks.update((at + shift, mark) for at, mark in chunk.marks.items() if start <= at < end)
            batch.lines += piece
            batch.received += [microseconds] * len(piece)
            batch.size += size
            self.waiting += size + LINE_COST * len(piece)
            start += len(piece)
            if full:
                self._full.append(self._open.pop(key))

    def due(self) -> float | None:
        """When the next batch is ready, in seconds of the monotonic clock (past if one is); None if nothing waits."""
        if self._full:
            return self._full[0].opened
        first = next(iter(self._open.values()), None)
        return None if first is None else first.opened + self.max_seconds

    def take(self, now: float, limit: int, *, everything: bool = False) -> list[Batch]:
        """Ready batches, in order, up to about `limit` bytes of memory; also those not yet ready if `everything`."""
        ready = [key for key, batch in self._open.items() if everything or batch.opened + self.max_seconds <= now]
        self._full += [self._open.pop(key) for key in ready]
        total, count = 0, 0
        for batch in self._full:
            if total >= limit:
                break
            total += batch.cost
            count += 1
        taken, self._full = self._full[:count], self._full[count:]
        return taken

    def release(self, batches: list[Batch]) -> None:
        """The batches are durable: they no longer wait."""
        self.waiting -= sum(batch.cost for batch in batches)


def _fitting(lines: list[bytes], room: int, *, at_least: int = 1) -> int:
    """How many of the first lines fit into `room` bytes."""
    return max(at_least, bisect_right(list(accumulate(map(len, lines))), room))

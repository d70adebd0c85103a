"""Batches of raw lines on their way to the bus: how much goes together, how much waits. No I/O, time as an argument.

A bus record has a cost of its own, so lines travel in batches, one batch a (tenant, peer, RELP session). A batch is
ready when it is full (`max_lines`, `max_bytes`) or when its first line has waited `max_seconds`; one in which a sender
awaits an acknowledgement is ready after `ACKNOWLEDGE_SECONDS`, for that sender stands still when its window is full.
Batches of one channel leave in the order of their lines, which the bus then keeps, their key being the same.

Fairness: hospitals take turns. `take` gives a batch of each hospital that has one, again and again, so what one of them
has waiting says nothing about when another's next line leaves.

`waiting` counts, in bytes of memory, everything from `add` until `release`: the collector's back-pressure hangs on it.
A hospital may fill memory in proportion to what is free (Choudhury and Hahne, "Dynamic queue length thresholds for
shared-memory packet switches", 1998): with a share of one half, one flood fills a half, two floods a third each, n
floods all but 1/(n+1). Whatever they do, there is room for the next quiet hospital, and the total stays bounded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

import polars as pl

from ingest.bus import TOPIC_RAW, Message
from ingest.channel import Channel
from ingest.envelope import UTC_MICROSECONDS
from ingest.framing import Lines
from ingest.ipc import encode_frame
from ingest.rawbatch import RAW_SCHEMA

LINE_COST: Final = 64
"""What a line costs in memory beside its bytes (object header, list slots), so that empty-ish lines count too."""

BATCH_COST: Final = 1024
"""What a batch costs beside its lines: a datagram sender that forges its address opens a batch for each."""

ACKNOWLEDGE_SECONDS: Final = 0.002
"""How long a line whose sender awaits an acknowledgement waits for others: about as long as the rest of a RELP window
takes to come in."""

RELP_SESSION: Final = "relp-session"
"""Header of a bus message whose lines came by RELP: `collector:number` of the session."""

RELP_FIRST: Final = "relp-first"
"""Header, "1" if the message holds some of the first lines of its session: those may have been sent before."""

Done = Callable[[], None]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Countdown:
    """Calls `done` once all parts of something are done."""

    __slots__ = ("_done", "left")

    def __init__(self, parts: int, done: Done) -> None:
        self.left = parts
        self._done = done

    def __call__(self) -> None:
        """A part is done."""
        self.left -= 1
        if self.left == 0:
            self._done()


@dataclass(slots=True)
class Batch:
    """Lines of one channel, as columns.

    Attributes:
        tenant: The hospital of the channel.
        peer: Address of the sender.
        opened: When the first line came, in seconds of a monotonic clock.
        lines: The frames.
        received: When each came, in microseconds since 1970 UTC.
        marks: Index into `lines` -> what the framing found wrong.
        size: Sum of the lengths of `lines`.
        session: The RELP session, or empty.
        first: Whether some lines are among the first of their RELP session.
        patient_data: Whether identifiers of patients are to be made pseudonyms before it leaves memory.
        done: To be called on the event loop, in order, once the bus has the whole batch on disk (`settle`); without a
            session, whose sender is told nothing, also once the spool has it.
    """

    tenant: str
    peer: str
    opened: float
    lines: list[bytes] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    marks: dict[int, str] = field(default_factory=dict)
    size: int = 0
    session: str = ""
    first: bool = False
    patient_data: bool = False
    done: list[Done] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The key of the bus record."""
        return f"{self.tenant}/{self.peer}"

    @property
    def cost(self) -> int:
        """Bytes of memory this batch is counted with."""
        return self.size + LINE_COST * len(self.lines) + BATCH_COST

    @property
    def headers(self) -> dict[str, str]:
        """Of the bus message."""
        if not self.session:
            return {}
        return {RELP_SESSION: self.session, RELP_FIRST: "1"} if self.first else {RELP_SESSION: self.session}

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
        return Message(TOPIC_RAW, self.key, encode_frame(frame.select(list(RAW_SCHEMA))), self.headers)

    def settle(self) -> None:
        """The bus has the batch on disk: tell those who asked."""
        for done in self.done:
            done()
        self.done = []

    def split(self, max_bytes: int) -> list[Batch]:
        """The same lines in batches of at most `max_bytes` (or of one line). All must settle before this one does."""
        parts = []
        start = 0
        while start < len(self.lines):
            end = start + _fitting(self.lines[start:], max_bytes)
            lines = self.lines[start:end]
            marks = {index - start: mark for index, mark in self.marks.items() if start <= index < end}
            part = Batch(self.tenant, self.peer, self.opened, lines, self.received[start:end], marks)
            part.size, part.session, part.first = sum(map(len, lines)), self.session, self.first
            part.patient_data = self.patient_data
            parts.append(part)
            start = end
        if self.done:
            whole = Countdown(len(parts), self.settle)
            for part in parts:
                part.done.append(whole)
        return parts


_Key = tuple[str, str, str, bool]


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
        self._of: dict[str, int] = {}  # tenant -> what of `waiting` is its
        self._ready: dict[str, deque[Batch]] = {}  # tenant -> its batches; the first tenant is the next to be served
        self._open: dict[_Key, Batch] = {}  # in the order of `opened`, as dicts keep insertion order
        self._hasty: dict[_Key, float] = {}  # open batches that a sender waits for -> when they are ready, in order

    def add(
        self, channel: Channel, chunk: Lines, received: datetime, now: float, *dones: Done, awaited: bool = False
    ) -> int:
        """Add lines that came together, and say how many bytes that is.

        Args:
            channel: Where they came from.
            chunk: The lines.
            received: When they came.
            now: The same, in seconds of a monotonic clock.
            dones: To be called once all these lines are durable.
            awaited: Whether a sender waits for that.
        """
        microseconds = (received - _EPOCH) // _MICROSECOND
        key = (channel.tenant, channel.peer, channel.session, channel.patient_data)
        touched: list[Batch] = []
        start, count, before, added = 0, len(chunk.lines), self.waiting, 0
        while start < count:
            batch = self._open.get(key)
            if batch is None:
                batch = self._open[key] = Batch(
                    channel.tenant, channel.peer, now, session=channel.session, patient_data=channel.patient_data
                )
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
            if piece:
                batch.lines += piece
                batch.received += [microseconds] * len(piece)
                batch.size += size
                added += size
                batch.first |= chunk.first
                self.waiting += size + LINE_COST * len(piece)
                start += len(piece)
                touched.append(batch)
            if full:
                self._close(key)
        if awaited and key in self._open:
            self._hasty.setdefault(key, now + ACKNOWLEDGE_SECONDS)
        self._of[channel.tenant] = self._of.get(channel.tenant, 0) + self.waiting - before
        for done in dones:
            part = done if len(touched) == 1 else Countdown(len(touched), done)
            for batch in touched:
                batch.done.append(part)
        return added

    def _close(self, key: _Key) -> None:
        """An open batch is ready."""
        batch = self._open.pop(key)
        self._hasty.pop(key, None)
        self._ready.setdefault(batch.tenant, deque()).append(batch)

    def due(self) -> float | None:
        """When the next batch is ready, in seconds of the monotonic clock (past if one is); None if nothing waits."""
        for batches in self._ready.values():
            return batches[0].opened
        for batch in self._open.values():
            due = batch.opened + self.max_seconds
            return min(due, next(iter(self._hasty.values()), due))
        return None

    def take(self, now: float, limit: int, *, everything: bool = False) -> list[Batch]:
        """Ready batches, hospitals in turn and each in its order, up to about `limit` bytes of memory.

        Args:
            now: Seconds of the monotonic clock.
            limit: Bytes after which no further batch is taken.
            everything: Whether also batches are taken that are not yet ready.
        """
        for key in [key for key, due in self._hasty.items() if due <= now]:
            self._close(key)
        for key in [key for key, batch in self._open.items() if everything or batch.opened + self.max_seconds <= now]:
            self._close(key)
        taken: list[Batch] = []
        total = 0
        while self._ready and total < limit:
            tenant = next(iter(self._ready))
            batches = self._ready.pop(tenant)
            batch = batches.popleft()
            taken.append(batch)
            total += batch.cost
            if batches:
                self._ready[tenant] = batches  # behind the others now
        return taken

    def release(self, batches: list[Batch]) -> None:
        """The batches no longer wait in memory."""
        for batch in batches:
            self.waiting -= batch.cost
            left = self._of[batch.tenant] - batch.cost
            if left:
                self._of[batch.tenant] = left
            else:
                del self._of[batch.tenant]

    def waiting_of(self, tenant: str) -> int:
        """What of `waiting` is one hospital's."""
        return self._of.get(tenant, 0)

    def over(self, tenant: str, queue_bytes: int, share: float) -> bool:
        """Whether a hospital has so much waiting that no more of it should be read. Arguments as for `room`."""
        return self.waiting_of(tenant) >= self.room(tenant, queue_bytes, share)

    def room(self, tenant: str, queue_bytes: int, share: float) -> float:
        """How much a hospital may have waiting, as things stand.

        Args:
            tenant: The hospital.
            queue_bytes: The memory that lines may take.
            share: The most of it that one hospital may fill.
        """
        # own <= share / (1 - share) * free, solved for `own` with what the others have: no division by nothing at 1
        others = self.waiting - self.waiting_of(tenant)
        return max(0.0, share * (queue_bytes - others))


def _fitting(lines: list[bytes], room: int, *, at_least: int = 1) -> int:
    """How many of the first lines fit into `room` bytes."""
    return max(at_least, bisect_right(list(accumulate(map(len, lines))), room))

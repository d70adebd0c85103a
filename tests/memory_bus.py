"""A bus that keeps what is published, for the tests of collecting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from ingest.bus import BusCounts, Message, Partition, Position, Record, StartAt, Subscription
from ingest.rawbatch import decode_record

Hook = Callable[[Sequence[Message]], None]


class MemoryBus:
    """A bus in memory. `before` runs ahead of each publish, and `after` behind it: both may block or raise."""

    def __init__(self, before: Hook = lambda _: None, after: Hook = lambda _: None) -> None:
        self.before = before
        self.after = after
        self.messages: list[Message] = []
        self.publishes: list[list[Message]] = []

    def ensure_topics(self, topics: Sequence[str]) -> None:
        raise NotImplementedError

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        self.before(messages)
        first = len(self.messages)
        self.messages += messages
        self.publishes.append(list(messages))
        self.after(messages)
        return [Position(message.topic, 0, first + at) for at, message in enumerate(messages)]

    def subscribe(self, group: str, topics: Sequence[str], start_at: StartAt | None = None) -> Subscription:
        raise NotImplementedError

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        raise NotImplementedError

    def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        raise NotImplementedError

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        raise NotImplementedError

    def counts(self) -> BusCounts:
        raise NotImplementedError

    def finish_within(self, seconds: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def frames(self) -> list[pl.DataFrame]:
        """The raw batches."""
        return [
            decode_record(Record(message.topic, 0, offset, message.key, message.value))
            for offset, message in enumerate(self.messages)
        ]

    def rows(self) -> list[tuple[str, bytes, str | None]]:
        """Hospital, line and mark of all that was published."""
        return [
            (row["tenant"], row["line"], row["mark"]) for frame in self.frames() for row in frame.iter_rows(named=True)
        ]

    def pairs(self) -> list[tuple[str, bytes]]:
        """Hospital and line."""
        return [(tenant, line) for tenant, line, _ in self.rows()]

    def marked(self) -> list[tuple[bytes, str | None]]:
        """Line and mark."""
        return [(line, mark) for _, line, mark in self.rows()]

    def lines(self, hospital: str | None = None) -> list[bytes]:
        """The lines, of one hospital or of all."""
        return [line for tenant, line, _ in self.rows() if hospital in (None, tenant)]

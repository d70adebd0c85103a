"""Counts what a bus does, for `Bus.counts`: a few additions under a lock for each call, not for each record."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from ingest.bus import BusCounts, Message, Record, Volume


class BusCounter:
    """The counts of one bus. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._published: dict[str, Volume] = {}
        self._read: dict[str, Volume] = {}
        self._publish_errors = 0
        self._commits = 0
        self._commit_errors = 0
        self._rebalances = 0
        self._assigned = 0
        self._revoked = 0
        self._lost = 0

    def published(self, messages: Sequence[Message]) -> None:
        """These messages are durable."""
        sums = _volumes((item.topic, len(item.key) + len(item.value)) for item in messages)
        with self._lock:
            _add(self._published, sums)

    def not_published(self) -> None:
        """A call of `publish` raised."""
        with self._lock:
            self._publish_errors += 1

    def read(self, records: Sequence[Record]) -> None:
        """These records were handed out."""
        if not records:
            return
        sums = _volumes((item.topic, len(item.key) + len(item.value)) for item in records)
        with self._lock:
            _add(self._read, sums)

    def committed(self) -> None:
        """Positions were stored."""
        with self._lock:
            self._commits += 1

    def not_committed(self) -> None:
        """A call of `commit` raised."""
        with self._lock:
            self._commit_errors += 1

    def rebalanced(self, *, assigned: int = 0, revoked: int = 0, lost: int = 0) -> None:
        """Partitions came or went."""
        if not (assigned or revoked or lost):
            return
        with self._lock:
            self._rebalances += 1
            self._assigned += assigned
            self._revoked += revoked
            self._lost += lost

    def counts(self) -> BusCounts:
        """The counts now."""
        with self._lock:
            return BusCounts(
                published=dict(self._published),
                read=dict(self._read),
                publish_errors=self._publish_errors,
                commits=self._commits,
                commit_errors=self._commit_errors,
                rebalances=self._rebalances,
                assigned=self._assigned,
                revoked=self._revoked,
                lost=self._lost,
            )


def _volumes(sizes: Iterable[tuple[str, int]]) -> dict[str, Volume]:
    sums: dict[str, tuple[int, int]] = {}
    for topic, size in sizes:
        records, total = sums.get(topic, (0, 0))
        sums[topic] = records + 1, total + size
    return {topic: Volume(records, total) for topic, (records, total) in sums.items()}


def _add(to: dict[str, Volume], sums: Mapping[str, Volume]) -> None:
    for topic, more in sums.items():
        held = to.get(topic, Volume())
        to[topic] = Volume(held.records + more.records, held.bytes + more.bytes)

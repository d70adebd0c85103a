"""How long the embedded bus keeps records, and until when it may not let them go.

Theory. A record has no time of its own; beside the records lie marks: about every `MARK_SECONDS` a topic notes when its
next offset was dealt out (Kafka's time index does the same). All records before a mark are at least as old as it says.

A record goes when it is older than its topic's days AND every group of the topic has read it: a group that has ever
committed a position, and those that are known to read the topic, which may not have begun yet. Detection that stood
still for a fortnight therefore finds every line, and the file grows meanwhile.

The bound of the file: what the topics hold at most at one time, of which the pages are used again, and the write-ahead
log beside it (`ingest.bus_embedded_file.LOG_SIZE_LIMIT`). The file itself does not shrink.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400.0

MARK_SECONDS: Final = 600
"""Seconds between two marks of a topic: by so much a record may stay longer than it must."""

STEPS_BEHIND: Final = DAY
"""Seconds that a mark may lie in the future; beyond, it counts as made now. A clock that was years ahead and was put
right would else keep everything for years."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """What retention did with one topic."""

    topic: str
    before: int  # records before this offset may go: they are old enough and read
    held_by: str = ""  # the group that has not read all that is old enough, if there is one
    held: int = 0  # how many such records there are at most


class Marks:
    """When a topic was last marked by this process. Used under the bus's write lock."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}

    def mark(self, writer: sqlite3.Connection, topic: int, offset: int, now: float) -> None:
        """Note, if it is time, that this offset is dealt out now."""
        last = self._last.get(topic)
        if last is not None and 0 <= now - last < MARK_SECONDS:
            return
        writer.execute("INSERT OR IGNORE INTO marks VALUES (?, ?, ?)", (topic, offset, int(now)))

    def marked(self, topics: Collection[int], now: float) -> None:
        """The marks of these topics are durable."""
        for topic in topics:
            last = self._last.get(topic)
            if last is None or not 0 <= now - last < MARK_SECONDS:
                self._last[topic] = now


def expiry(writer: sqlite3.Connection, topic: str, days: float, readers: Collection[str], now: float) -> Expiry | None:
    """Up to where the records of a topic may go; None: there is no such topic.

    Args:
        writer: A connection in a write transaction.
        topic: The topic.
        days: How long records stay.
        readers: Groups known to read it, whether or not they have begun.
        now: Seconds since the epoch.
    """
    row = writer.execute("SELECT id, next_offset FROM topics WHERE name = ?", (topic,)).fetchone()
    if row is None:
        return None
    topic_id, end = row
    writer.execute("UPDATE marks SET published = ? WHERE published > ?", (int(now), int(now + STEPS_BEHIND)))
    # Before the first mark that is too young everything is old enough, up to MARK_SECONDS after the mark ahead of it
    [[before]] = writer.execute(
        "SELECT coalesce(min(first_offset), ?) FROM marks WHERE topic = ? AND published >= ?",
        (end, topic_id, int(now - days * DAY - MARK_SECONDS)),
    )
    writer.execute("DELETE FROM marks WHERE topic = ? AND first_offset < ?", (topic_id, before))
    positions: dict[str, int] = dict.fromkeys(readers, 0)
    positions |= dict(
        writer.execute("SELECT member_group, next_offset FROM positions WHERE topic = ?", (topic_id,)).fetchall()
    )
    slowest = min(positions, key=lambda group: positions[group], default=None)
    if slowest is None or positions[slowest] >= before:
        return Expiry(topic, before)
    return Expiry(topic, positions[slowest], slowest, before - positions[slowest])

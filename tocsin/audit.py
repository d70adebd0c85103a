"""When to look at the books of `storage.source_marks`, and when a look is complete.

It is complete once `detect` has committed everything before the ends, and the counts that it published before that are
all stored. Used by the stage that stores them, whenever it has read all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from ingest.bus import TOPIC_RAW, TOPIC_SOURCES, Bus, Partition
from storage.source_store import SourceStore
from tocsin.stages import DETECT_GROUP

AUDIT_EVERY: Final = timedelta(seconds=10)


class Audit:
    """Looks at the books, one look after the other.

    Args:
        bus: Asked where topics end, and what is committed.
        store: The books.
    """

    def __init__(self, bus: Bus, store: SourceStore) -> None:
        self._bus = bus
        self._store = store
        self._looked: datetime | None = None
        self._counts: Mapping[Partition, int] | None = None  # ends of `tocsin.sources` once detect was through

    def look(self, now: datetime) -> None:
        """Go on with the look that is under way, or begin one."""
        if self._counts is not None:
            if all((self._store.position(place) or 0) >= end for place, end in self._counts.items()):
                self._store.end_mark(now)
                self._counts = None
            return
        if self._looked is not None and timedelta(0) <= now - self._looked < AUDIT_EVERY:
            return
        self._looked = now
        mark = self._store.open_mark()
        if mark is None:
            ends = self._bus.ends([TOPIC_RAW])
            self._store.begin_mark({place.partition: end for place, end in ends.items()}, now)
            mark = self._store.open_mark()
        committed = self._bus.committed(DETECT_GROUP, [TOPIC_RAW])
        ends_then = mark[1] if mark is not None else {}
        if all(committed.get(Partition(TOPIC_RAW, place), 0) >= end for place, end in ends_then.items()):
            self._counts = self._bus.ends([TOPIC_SOURCES])

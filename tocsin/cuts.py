"""Moments of the raw topic, and when all that it held at one of them has been matched and read.

A cut is a moment and the ends of `tocsin.raw` at it. It is *matched* when `detect` has committed up to there; what
follows from its lines is then on `tocsin.matches`, before the ends asked for after that commit was seen. It is
*complete* when those are read. No clock has a say in it.

Bounded. Were no cut added while many wait, nothing of what came after them would have one until a backlog of `detect`
is worked off. So there are always cuts from the oldest that waits up to now, further apart the longer it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ingest.bus import Partition

MOST_CUTS: Final = 32
"""Cuts that may wait; when there are more, one goes, where they are closest together."""


@dataclass(slots=True)
class Cut:
    """A moment.

    Attributes:
        at: When.
        raw: What the bus held of raw lines then: partition -> the offset behind its last record.
        matches: What it held of matches once those lines were matched; None until then.
    """

    at: datetime
    raw: Mapping[Partition, int]
    matches: Mapping[Partition, int] | None = None


class Cuts:
    """The cuts that wait, and how far the work of `detect` is known to have been read. Used by one thread."""

    def __init__(self) -> None:
        self.done: Mapping[Partition, int] = {}
        """Partition of `tocsin.raw` -> the offset up to which all is matched, committed and read."""

        self._waiting: list[Cut] = []
        self._doing: Cut | None = None

    @property
    def oldest(self) -> Cut | None:
        """The one that has waited longest."""
        return self._waiting[0] if self._waiting else None

    def add(self, at: datetime, raw: Mapping[Partition, int]) -> None:
        """A new cut."""
        self._waiting.append(Cut(at, raw))
        if len(self._waiting) > MOST_CUTS:
            waiting = self._waiting
            gaps = [after.at - before.at for before, after in zip(waiting, waiting[2:], strict=False)]
            del waiting[gaps.index(min(gaps)) + 1]  # never the oldest: else none would ever be complete

    def follow(
        self,
        at: datetime,
        matched: Mapping[Partition, int],
        ends: Callable[[], Mapping[Partition, int]],
        has_read: Callable[[Mapping[Partition, int]], bool],
    ) -> Cut | None:
        """The newest cut that is complete; it and those before it are done with.

        Args:
            at: Now.
            matched: What `detect` has committed.
            ends: Asks for the ends of `tocsin.matches`, after `matched` was: `detect` publishes before it commits.
            has_read: Whether matches are read up to there.
        """
        asked: Mapping[Partition, int] | None = None
        for cut in self._waiting:
            if cut.matches is None:
                if any(matched.get(partition, 0) < end for partition, end in cut.raw.items()):
                    break
                cut.matches = asked = ends() if asked is None else asked
        if self._doing is None:
            self._doing = Cut(at, matched, ends() if asked is None else asked)
        if self._doing.matches is not None and has_read(self._doing.matches):
            self.done, self._doing = self._doing.raw, None
        complete: Cut | None = None
        while self._waiting and (wanted := self._waiting[0].matches) is not None and has_read(wanted):
            complete = self._waiting.pop(0)
        return complete

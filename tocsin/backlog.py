"""How long the oldest record that a stage has yet to read has waited, told from counts alone.

A bus says how many records wait, not since when. But what was read and what waits add up to what had arrived, so a row
of such sums over time says when each record was there: the oldest one waiting is that which made the sum first exceed
what has been read by now. What waited already at the first look counts as come then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

KEPT: Final = 512
"""Moments kept. When they are full, every other one of the older half goes: the age is then rounded up by little."""


@dataclass(slots=True)
class Backlog:
    """The arrivals of one stage, as seen now and then. Used under the lock of who holds it."""

    _arrivals: deque[tuple[float, int]] = field(default_factory=deque)  # (moment, records that had come by then)
    _read: int = 0

    def see(self, moment: float, read: int, lag: int) -> None:
        """Note what was read so far, and what waits.

        Args:
            moment: Seconds, never less than before.
            read: Records read since the stage began; only grows.
            lag: Records that wait.
        """
        arrived, seen = read + lag, self._arrivals
        # Fewer than before: partitions left for another worker, and those that are left had come by the first of these
        while seen and seen[-1][1] > arrived:
            moment, _ = seen.pop()
        while seen and seen[0][1] <= read:
            seen.popleft()
        if arrived > read and (not seen or seen[-1][1] < arrived):
            seen.append((moment, arrived))
        self._read = read
        if len(seen) > KEPT:
            kept = list(seen)
            self._arrivals = deque(kept[: KEPT // 2 : 2] + kept[KEPT // 2 :])

    def age(self, moment: float) -> float:
        """Seconds that the oldest record has waited; 0 if none waits."""
        return max(0.0, moment - self._arrivals[0][0]) if self._arrivals else 0.0

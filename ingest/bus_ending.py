"""The last calls of a process that is ending: what a bus that is away may still cost it.

A process asked to end first makes its work durable, call after call, and each call would wait its full time for a
cluster that does not answer: minutes in all, while the system's service manager kills it after 90 s (systemd,
TimeoutStopSec). So the process says once by when it wants to be done, and no wait begun later goes far beyond that.
What does not become durable then is read again, or waits in the spool: nothing was promised for it.
"""

from __future__ import annotations

import math
import time
from typing import Final

SHORTEST_WAIT: Final = 0.5
"""Seconds that a call may take even when the time is over: a cluster that is there answers within them."""


class Ending:
    """When a bus should be done, if it was told. Safe to share between threads."""

    def __init__(self) -> None:
        self._at = math.inf

    def within(self, seconds: float) -> None:
        """Be done in so many seconds."""
        self._at = min(self._at, time.monotonic() + seconds)

    @property
    def begun(self) -> bool:
        """Whether it was told to end."""
        return self._at != math.inf

    def cap(self, seconds: float) -> float:
        """How long a call may wait that would wait so many seconds."""
        return min(seconds, max(SHORTEST_WAIT, self._at - time.monotonic()))

    def left(self, begun: float, seconds: float) -> float:
        """How much longer a call may wait that began then (`time.monotonic`), to wait so many seconds."""
        return min(begun + seconds, max(begun + SHORTEST_WAIT, self._at)) - time.monotonic()

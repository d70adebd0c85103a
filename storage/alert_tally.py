"""How many alerts there are of each level, status and hospital, without counting ten million rows for every page.

Counts of all alerts are kept in memory: counted once when the store is opened, then changed with each commit. Counts
that a filter by rule, host, text or time narrows are read from the file and kept until the next write, since a page
asks for several of them.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from storage.alert import Level, Status
from storage.alert_queue import AlertCounts, AlertFilter

Kind = tuple[Level, Status, str]
"""Level, status and hospital."""

KEPT: Final = 64


class Tally:
    """Alerts by kind: of all, and of the narrowed questions that were asked last. Safe to share between threads."""

    def __init__(self, kinds: Mapping[Kind, int]) -> None:
        self._lock = threading.Lock()
        self._all = Counter(kinds)
        self._narrowed: OrderedDict[tuple[AlertFilter, str], Mapping[Kind, int]] = OrderedDict()

    def change(self, kinds: Mapping[Kind, int]) -> None:
        """Take note of what a commit added, and (negative) took away."""
        with self._lock:
            for kind, number in kinds.items():
                self._all[kind] += number
                if not self._all[kind]:
                    del self._all[kind]

    def renew(self, kinds: Mapping[Kind, int]) -> None:
        """Begin anew from what was counted."""
        with self._lock:
            self._all = Counter(kinds)
            self._narrowed.clear()

    def tenants(self) -> list[str]:
        """The hospitals that have alerts, in order."""
        with self._lock:
            return sorted({tenant for _, _, tenant in self._all})

    def counts(self, asked: AlertFilter, marker: str, read: Callable[[AlertFilter], Mapping[Kind, int]]) -> AlertCounts:
        """How many alerts a filter meets.

        Args:
            asked: The filter.
            marker: Of the store, as it was before this.
            read: Counts what a filter meets in the file.
        """
        narrowed = replace(asked, tenants=None, levels=None, statuses=None)
        if narrowed == AlertFilter():
            with self._lock:
                return _counted(asked, list(self._all.items()))
        key = (narrowed, marker)
        with self._lock:
            kinds = self._narrowed.get(key)
        if kinds is None:
            kinds = read(narrowed)
            with self._lock:
                self._narrowed[key] = kinds
                while len(self._narrowed) > KEPT:
                    self._narrowed.popitem(last=False)
        return _counted(asked, kinds.items())


def _counted(asked: AlertFilter, kinds: Iterable[tuple[Kind, int]]) -> AlertCounts:
    levels: Counter[Level] = Counter()
    statuses: Counter[Status] = Counter()
    tenants: Counter[str] = Counter()
    for (level, status, tenant), number in kinds:
        if (
            (asked.levels is None or level in asked.levels)
            and (asked.statuses is None or status in asked.statuses)
            and (asked.tenants is None or tenant in asked.tenants)
        ):
            levels[level] += number
            statuses[status] += number
            tenants[tenant] += number
    return AlertCounts(levels.total(), dict(levels), dict(statuses), dict(tenants))

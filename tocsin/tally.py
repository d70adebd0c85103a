"""What passed through, counted by hospital: the proof that logs arrive and are understood.

One tally is shared by the threads of a process. Counting is per batch, not per line, so a lock is cheap.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

import polars as pl

from console.pulse import HospitalPulse
from ingest.envelope import DATASET, RECEIVED, REMARK, TENANT, EventFrame


class Flow(StrEnum):
    """Places in the pipe where things are counted."""

    MATCHES = "matches"  # published by detect
    ALERTS = "alerts"  # published by correlate
    CORRELATIONS = "correlations"  # alerts of correlations among them
    SILENCED = "silenced"  # matches that give no alert, being only material for correlations
    LATE = "late"  # matches that came too late to be correlated
    UNCORRELATED = "uncorrelated"  # matches without the field to group by, or without the number to count
    FORGOTTEN = "forgotten"  # groups and events that correlations dropped to keep within their bounds
    STORED = "stored"  # read by the store, known ones included
    QUARANTINED = "quarantined"  # bus records that could not be read
    TWICE = "twice"  # lines left out because their batch was published twice
    AGAIN = "again"  # lines that a sender sent again: kept and marked, and not matched again
    UNMATCHED = "unmatched"  # events that the rules could not be tried on, by a defect
    UNFLUSHED = "unflushed"  # flushes of the lake that failed, and are done again


class Measure(StrEnum):
    """Things that are measured each time, and kept as histograms."""

    FLUSH_SECONDS = "flush seconds"  # of what detect makes durable in the lake
    FLUSH_ROWS = "flush rows"
    ALERT_SECONDS = "alert seconds"  # from line received to alert stored, of a plain rule
    CORRELATION_SECONDS = "correlation seconds"  # from last line received to alert stored, of a correlation


BOUNDS: Final[Mapping[Measure, tuple[float, ...]]] = {
    Measure.FLUSH_SECONDS: (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    Measure.FLUSH_ROWS: (1, 10, 100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000),
    **dict.fromkeys(
        (Measure.ALERT_SECONDS, Measure.CORRELATION_SECONDS),
        (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
    ),
}
"""Upper bounds of the buckets of a histogram, inclusive; what is beyond the last one is counted too."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """What was measured: how many values lie in each bucket, one more than there are bounds, and their sum."""

    bounds: tuple[float, ...]
    numbers: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.numbers)


@dataclass(frozen=True, slots=True)
class Counted:
    """Events of one hospital in some frames: how many, and when the last was received."""

    tenant: str
    received: int
    unknown: int
    marked: int
    last: datetime


def count(frames: Sequence[EventFrame]) -> list[Counted]:
    """Count the events of frames by hospital."""
    parts = [
        frame.events.lazy()
        .group_by(TENANT)
        .agg(
            pl.len().alias("received"),
            (pl.col(DATASET) == "unknown").sum().alias("unknown"),
            pl.col(REMARK).is_not_null().sum().alias("marked"),
            pl.col(RECEIVED).max().alias("last"),
        )
        for frame in frames
    ]
    return [Counted(*row) for part in pl.collect_all(parts) for row in part.iter_rows()]


class Tally:
    """Counts by hospital, and of what passed where. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hospitals: dict[str, HospitalPulse] = {}
        self._flow: Counter[Flow] = Counter()
        self._levels: Counter[str] = Counter()
        self._groups = 0
        self._numbers = {measure: [0] * (len(bounds) + 1) for measure, bounds in BOUNDS.items()}
        self._sums = dict.fromkeys(BOUNDS, 0.0)
        self._settled: datetime | None = None

    def count(self, parts: Sequence[Counted]) -> None:
        """Add what was counted of events that are now durable."""
        with self._lock:
            for part in parts:
                self._add(part)

    def _add(self, part: Counted) -> None:
        old = self._hospitals.get(part.tenant, HospitalPulse(part.tenant))
        self._hospitals[part.tenant] = replace(
            old,
            received=old.received + part.received,
            understood=old.understood + part.received - part.unknown,
            unknown=old.unknown + part.unknown,
            marked=old.marked + part.marked,
            last_event=part.last if old.last_event is None else max(old.last_event, part.last),
        )

    def expect(self, tenants: Iterable[str]) -> None:
        """Hospitals that should send: one that never did is then seen to be silent, and not merely absent."""
        with self._lock:
            for tenant in filter(None, tenants):  # a listener for several hospitals names none
                self._hospitals.setdefault(tenant, HospitalPulse(tenant))

    def add(self, flow: Flow, number: int) -> None:
        """Add to what passed a place in the pipe."""
        with self._lock:
            self._flow[flow] += number

    def passed(self, flow: Flow) -> int:
        """What passed a place in the pipe since the process started."""
        with self._lock:
            return self._flow[flow]

    def alerted(self, levels: Iterable[str]) -> None:
        """Count new alerts in the store by their levels."""
        with self._lock:
            self._levels.update(levels)

    @property
    def levels(self) -> dict[str, int]:
        """Level -> new alerts in the store since the process started."""
        with self._lock:
            return dict(self._levels)

    def hold(self, groups: int) -> None:
        """Take note of the groups that correlations hold now."""
        with self._lock:
            self._groups = groups

    @property
    def groups(self) -> int:
        """Groups that correlations hold."""
        with self._lock:
            return self._groups

    def measure(self, measure: Measure, values: Iterable[float]) -> None:
        """Add what was measured."""
        bounds = BOUNDS[measure]
        with self._lock:
            for value in values:
                self._numbers[measure][bisect_left(bounds, value)] += 1
                self._sums[measure] += value

    def histogram(self, measure: Measure) -> Histogram:
        """What was measured since the process started."""
        with self._lock:
            return Histogram(BOUNDS[measure], tuple(self._numbers[measure]), self._sums[measure])

    def settle(self, moment: datetime) -> None:
        """All that was received before this moment has been matched and correlated."""
        with self._lock:
            self._settled = moment

    @property
    def settled(self) -> datetime | None:
        """The last such moment; None where nothing is correlated."""
        with self._lock:
            return self._settled

    @property
    def hospitals(self) -> tuple[HospitalPulse, ...]:
        """The counts by hospital since the process started."""
        with self._lock:
            return tuple(self._hospitals.values())

    @property
    def received(self) -> int:
        """Lines read from the bus, of all hospitals."""
        return sum(count.received for count in self.hospitals)

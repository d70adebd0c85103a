"""What passed through, counted by hospital: the proof that logs arrive and are understood.

One tally is shared by the threads of a process. Counting is per batch, not per line, so a lock is cheap.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

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
            for tenant in tenants:
                self._hospitals.setdefault(tenant, HospitalPulse(tenant))

    def add(self, flow: Flow, number: int) -> None:
        """Add to what passed a place in the pipe."""
        with self._lock:
            self._flow[flow] += number

    def passed(self, flow: Flow) -> int:
        """What passed a place in the pipe since the process started."""
        with self._lock:
            return self._flow[flow]

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

"""What passed through, counted by hospital: the proof that logs arrive and are understood.

One tally is shared by the threads of a process. Counting is per batch, not per line, so a lock is cheap.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

import polars as pl

from console.pulse import HospitalPulse
from ingest.envelope import DATASET, RECEIVED, REMARK, TENANT, EventFrame


class Flow(StrEnum):
    """Places in the pipe where things are counted."""

    MATCHES = "matches"  # published by detect
    ALERTS = "alerts"  # published by correlate
    STORED = "stored"  # read by the store, known ones included
    QUARANTINED = "quarantined"  # bus records that could not be read


class Tally:
    """Counts by hospital, and of what could not be read at all. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hospitals: dict[str, HospitalPulse] = {}
        self._flow: Counter[Flow] = Counter()

    def count(self, frames: Sequence[EventFrame]) -> None:
        """Add the events of parsed frames."""
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
        with self._lock:
            for part in pl.collect_all(parts):
                for tenant, received, unknown, marked, last in part.iter_rows():
                    self._add(tenant, received, unknown, marked, last)

    def _add(self, tenant: str, received: int, unknown: int, marked: int, last: datetime) -> None:
        old = self._hospitals.get(tenant, HospitalPulse(tenant))
        self._hospitals[tenant] = replace(
            old,
            received=old.received + received,
            understood=old.understood + received - unknown,
            unknown=old.unknown + unknown,
            marked=old.marked + marked,
            last_event=last if old.last_event is None else max(old.last_event, last),
        )

    def add(self, flow: Flow, number: int) -> None:
        """Add to what passed a place in the pipe."""
        with self._lock:
            self._flow[flow] += number

    def passed(self, flow: Flow) -> int:
        """What passed a place in the pipe since the process started."""
        with self._lock:
            return self._flow[flow]

    @property
    def hospitals(self) -> tuple[HospitalPulse, ...]:
        """The counts by hospital since the process started."""
        with self._lock:
            return tuple(self._hospitals.values())

    @property
    def received(self) -> int:
        """Lines read from the bus, of all hospitals."""
        return sum(count.received for count in self.hospitals)

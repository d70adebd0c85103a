"""The vital signs of a process: what its stages, its collector and its stores say of themselves while they work.

Stages tell it (it is their `Watch`); `tocsin.metrics` and `tocsin.health_report` read it. It holds numbers and
references only: whatever is slow to find out is found out by who asks.

A stage that hangs does not say so. So each step is noted when it ends, and a stage that has not ended a step for
`STUCK_SECONDS` is stuck. A start may take longer: correlations read back what they know from the bus.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tocsin.backlog import Backlog
from tocsin.tally import Tally

if TYPE_CHECKING:
    from ingest.bus import Bus
    from ingest.collect import CollectorStats
    from storage.alerts import AlertStore
    from tocsin.rule_watch import RuleWatch

STUCK_SECONDS: Final = 60.0
"""The longest that a step may take: one flush of the lake over a slow network, at most."""

STUCK_STARTING: Final = 900.0
"""The longest that a stage may take to begin: sixty days of matches are read back in minutes."""

RATE_SECONDS: Final = 60.0
SAMPLE_SECONDS: Final = 5.0
"""Lines a second are those of the last minute, from samples this far apart."""


@dataclass(frozen=True, slots=True)
class StageSigns:
    """One stage at one moment.

    Attributes:
        name: Of the stage.
        lag: Records it has yet to read, as of a second ago; None if not known yet.
        lag_seconds: How long the oldest of them has waited, as far as this process saw.
        idle: Seconds since its last step ended, or since it began.
        starting: Whether it has not made a step yet.
        records: Records read since the process began.
        failing: Why it pauses; None if it works.
        failures: How often it had to pause.
        stuck: Whether its step takes too long.
    """

    name: str
    lag: int | None
    lag_seconds: float
    idle: float
    starting: bool
    records: int
    failing: str | None
    failures: int
    stuck: bool


@dataclass(slots=True)
class _Stage:
    """What is known of one stage."""

    seen: float
    patience: float | None = None
    starting: bool = True
    lag: int | None = None
    records: int = 0
    failing: str | None = None
    failures: int = 0
    backlog: Backlog = field(default_factory=Backlog)


class Vitals:
    """What is at work in this process, and how it fares. Safe to share between threads.

    Args:
        role: What the process does: "run", "detect", ...
        tally: Its counts.
        clock: Seconds, monotonic.
        now: The time, UTC.

    Attributes:
        ready: Whether everything has been started.
        stopping: Whether the process has been asked to end.
        bus: The bus, once there is one; so too `store`, `rules` and `listeners`.
        collector: What the collector said last; None without one.
        channels: (Hospital, listener) -> lines that came to it.
    """

    def __init__(
        self,
        role: str,
        tally: Tally | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.role = role
        self.tally = tally or Tally()
        self.clock = clock
        self.now = now
        self.began = now()
        self.ready = self.stopping = False
        self.bus: Bus | None = None
        self.store: AlertStore | None = None
        self.rules: RuleWatch | None = None
        self.listeners: Mapping[str, tuple[str, int]] = {}
        self.collector: CollectorStats | None = None
        self.channels: Mapping[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._stages: dict[str, _Stage] = {}
        self._others: dict[str, str] = {}  # what fails beside the stages -> why
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque()

    # -- what stages say (see `Watch`) -------------------------------------------------------------------------

    def beginning(self, stage: str, patience: float | None = None) -> None:
        """A stage is being made, or made anew; `patience`: how many seconds a step may take, if not the usual."""
        with self._lock:
            known = self._stages.setdefault(stage, _Stage(self.clock()))
            known.seen, known.starting, known.patience = self.clock(), True, patience

    def stepped(self, stage: str, records: int = 0) -> None:
        """A stage has ended a step, in which it read so many records."""
        with self._lock:
            known = self._stages.setdefault(stage, _Stage(self.clock()))
            known.seen, known.starting = self.clock(), False
            known.records += records

    def ended(self, stage: str) -> None:
        """A stage was asked to end, and has: it no longer steps."""
        with self._lock:
            self._stages.pop(stage, None)

    def lag(self, stage: str, records: int) -> None:
        """Records that a stage has yet to read."""
        with self._lock:
            known = self._stages.setdefault(stage, _Stage(self.clock()))
            known.lag = records
            known.backlog.see(self.clock(), known.records, records)

    def failing(self, stage: str, reason: str | None) -> None:
        """Why a stage pauses, or something beside the stages fails; None once it works again."""
        with self._lock:
            known = self._stages.get(stage)
            if known is not None:
                known.failures += reason is not None
                known.failing = reason
                known.seen = self.clock()
            elif reason is None:
                self._others.pop(stage, None)
            else:
                self._others[stage] = reason

    def collected(self, stats: CollectorStats, channels: Mapping[tuple[str, str], int]) -> None:
        """What the collector has done so far; `channels` is (hospital, listener) -> lines."""
        self.collector, self.channels = stats, channels

    # -- what is read ------------------------------------------------------------------------------------------

    def stages(self) -> tuple[StageSigns, ...]:
        """The stages now, by name."""
        with self._lock:
            moment = self.clock()
            return tuple(_signs(name, stage, moment) for name, stage in sorted(self._stages.items()))

    def faults(self) -> dict[str, str]:
        """What fails -> why, stages included."""
        with self._lock:
            stages = {name: stage.failing for name, stage in self._stages.items() if stage.failing is not None}
            return {**self._others, **stages}

    @property
    def dropped(self) -> int:
        """Datagrams lost so far, here or in the kernel."""
        listeners = () if self.collector is None else self.collector.listeners.values()
        return sum(seen.dropped + seen.kernel_dropped for seen in listeners)

    def received(self) -> dict[str, int]:
        """Hospital -> lines that came: to the collector here, else those that detect has made durable."""
        if self.collector is None:
            return {seen.tenant: seen.received for seen in self.tally.hospitals}
        lines: Counter[str] = Counter()
        for (tenant, _), number in self.channels.items():
            lines[tenant] += number
        return dict(lines)

    def heard(self) -> dict[str, datetime | None]:
        """Hospital -> when its last line came, None where none did; hospitals that should send included."""
        found: dict[str, datetime | None] = {seen.tenant: seen.last_event for seen in self.tally.hospitals}
        for (tenant, _), peer in () if self.collector is None else self.collector.peers.items():
            before = found.get(tenant)
            found[tenant] = peer.heard if before is None else max(before, peer.heard)
        return found

    def sample(self) -> None:
        """Note what has come; to be called every `SAMPLE_SECONDS`."""
        lines = self.received()
        with self._lock:
            self._samples.append((self.clock(), lines))
            while self._samples[-1][0] - self._samples[0][0] > RATE_SECONDS + SAMPLE_SECONDS / 2:
                self._samples.popleft()

    def rates(self) -> dict[str, float]:
        """Hospital -> lines a second over the last minute, or since the process began."""
        lines = self.received()
        with self._lock:
            if not self._samples:
                return {}
            moment, before = self._samples[0]
        span = self.clock() - moment
        return {tenant: (number - before.get(tenant, 0)) / span for tenant, number in lines.items()} if span else {}

    def uptime(self) -> timedelta:
        """How long the process has run."""
        return self.now() - self.began


def _signs(name: str, stage: _Stage, moment: float) -> StageSigns:
    idle = max(0.0, moment - stage.seen)
    limit = STUCK_STARTING if stage.starting else stage.patience or STUCK_SECONDS
    return StageSigns(
        name=name,
        lag=stage.lag,
        lag_seconds=stage.backlog.age(moment),
        idle=idle,
        starting=stage.starting,
        records=stage.records,
        failing=stage.failing,
        failures=stage.failures,
        stuck=idle > limit,
    )

"""The pulse: what an analyst must know of the system itself before trusting a quiet queue.

A queue is quiet when nothing happens, and just as quiet when a hospital's forwarder stopped yesterday. So every page
carries what came in, what was understood, and when each hospital was last heard. The composition that runs the stages
supplies it; the console only shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class HospitalPulse:
    """What was heard of one hospital since counting began.

    Attributes:
        tenant: The hospital.
        received: Events received.
        understood: Events a format understood.
        unknown: Lines no format understood; kept whole, and still seen by keyword rules.
        marked: Events kept with a remark: cut, broken, or with a time that was not usable.
        last_event: When the last one was received, UTC; None if never.
    """

    tenant: str
    received: int = 0
    understood: int = 0
    unknown: int = 0
    marked: int = 0
    last_event: datetime | None = None

    def silent(self, now: datetime, after: timedelta) -> bool:
        """Whether nothing was heard for longer than `after`."""
        return self.last_event is None or now - self.last_event > after


@dataclass(frozen=True, slots=True)
class SystemPulse:
    """The state of the whole system at one moment.

    Attributes:
        at: When it was taken, UTC.
        hospitals: One entry a hospital that is known.
        rules_loaded: Rules that run.
        rules_refused: Rules that could not be compiled; the others run.
        lag: Bus records received and not yet searched by the rules; None if not known.
        quarantined: Bus records that could not be read.
        failing: Stages that fail now, each with its reason: "detect: lake /srv/lake: cannot append".
        dropped: Datagrams dropped before they were kept.
    """

    at: datetime
    hospitals: tuple[HospitalPulse, ...] = ()
    rules_loaded: int = 0
    rules_refused: int = 0
    lag: int | None = None
    quarantined: int = 0
    failing: tuple[str, ...] = ()
    dropped: int = 0

    @property
    def hospitals_known(self) -> bool:
        """Whether this console knows what was heard: one that runs apart from the other stages does not."""
        return bool(self.hospitals)

    @property
    def rules_known(self) -> bool:
        """Whether this console knows which rules run; none at all is only known where hospitals are."""
        return self.hospitals_known or self.rules_loaded > 0 or self.rules_refused > 0

    @property
    def received(self) -> int:
        """Events received from all hospitals."""
        return sum(hospital.received for hospital in self.hospitals)

    @property
    def understood(self) -> int:
        """Events understood, of all hospitals."""
        return sum(hospital.understood for hospital in self.hospitals)

    @property
    def unknown(self) -> int:
        """Lines no format understood, of all hospitals."""
        return sum(hospital.unknown for hospital in self.hospitals)

    @property
    def marked(self) -> int:
        """Events kept with a remark, of all hospitals."""
        return sum(hospital.marked for hospital in self.hospitals)

    @property
    def last_event(self) -> datetime | None:
        """When anything was last received."""
        return max((seen.last_event for seen in self.hospitals if seen.last_event is not None), default=None)

    def silent_hospitals(self, now: datetime, after: timedelta) -> frozenset[str]:
        """Hospitals not heard for longer than `after`."""
        return frozenset(seen.tenant for seen in self.hospitals if seen.silent(now, after))


Pulse = Callable[[], SystemPulse | None]
"""Asked at each page; must answer at once (from memory), and may answer None while nothing is known yet."""

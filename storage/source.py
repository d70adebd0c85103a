"""Sources of log lines, as the store keeps and counts them: who speaks, how much, since when, and what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True, order=True)
class SourceName:
    """Who speaks, as far as lines show it.

    Attributes:
        tenant: The hospital, from the channel.
        address: The sender's, from the channel; "*" with the others for all that is beyond the bound.
        host: Named by the lines; empty if they name none.
        family: Of the format that reads them; "unknown" if none does.
    """

    tenant: str
    address: str
    host: str
    family: str


@dataclass(frozen=True, slots=True)
class SourceRow:
    """What came from a source.

    Attributes:
        id: Its number in the store.
        name: Who.
        lines: All lines, also those recognised as sent again.
        understood: Lines that a format read.
        marked: Lines kept with a remark.
        again: Lines recognised as sent before; they are kept, and marked.
        bytes: Of the lines.
        first_received: When the first line came; so too `last_received`. By our clock.
        last_received: See `first_received`.
        last_event: The latest event time.
        skew: Seconds by which its lines come after their own times: distance of the clocks, and delay; None if they
            bear no times.
        rate: Lines a minute in the last hour.
        usual: Lines a minute at this hour in the weeks before; None while nothing is known.
        recent: Lines of the last 24 hours.
        recent_understood: Of `recent`, those that a format read.
    """

    id: int
    name: SourceName
    lines: int
    understood: int
    marked: int
    again: int
    bytes: int
    first_received: datetime
    last_received: datetime
    last_event: datetime | None = None
    skew: float | None = None
    rate: float = 0.0
    usual: float | None = None
    recent: int = 0
    recent_understood: int = 0


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of a hospital's lines: received = stored + quarantined + outstanding + missing + cut off + earlier.

    It is worked out for each run of a collector and then added up, so that what one run has too many never hides what
    another has too few.

    Attributes:
        received: Lines that collectors have taken; of a run of which more was read than it said, those that were read.
        stored: Lines in the lake.
        again: Of these, lines recognised as sent before.
        quarantined: Lines of raw records that could not be read.
        missing: Lines that were on the bus, and are neither of both though all that was on it then has been read.
        cut_off: Lines that a collector held which is not heard of any more: on its disk, if it has a spool; else those
            of senders that are told what arrived (RELP) come again, and the others are lost.
        earlier: Missing or cut off in runs that ended more than a week ago.
        surplus: Of `received`, lines beyond what their collector, which has ended, said before it did.
        unsaid: Records that could not be read and do not say how many lines they hold.
        overdue: Of what is outstanding, what had been taken some minutes ago already.
        reported: Whether any collector has said what it took.
    """

    received: int = 0
    stored: int = 0
    again: int = 0
    quarantined: int = 0
    missing: int = 0
    cut_off: int = 0
    earlier: int = 0
    surplus: int = 0
    unsaid: int = 0
    overdue: int = 0
    reported: bool = True

    @property
    def outstanding(self) -> int:
        """Lines on their way: with a collector at work, or on the bus and not yet read."""
        return self.received - self.stored - self.quarantined - self.missing - self.cut_off - self.earlier


@dataclass(frozen=True, slots=True)
class RunCount:
    """What is known of the lines of one hospital in one run of a collector.

    Attributes:
        taken: As the run said last; 0 if it said nothing.
        durable: Of these, lines that the bus is known to have.
        stored: Lines in the lake.
        quarantined: Lines of records that could not be read.
        missing: Lines found missing (`storage.source_marks`).
        before: Lines taken some minutes ago already.
        said: Whether the run has reported.
        working: Whether it is at work, as far as is known.
        old: Whether this is the sum of old runs.
    """

    taken: int = 0
    durable: int = 0
    stored: int = 0
    quarantined: int = 0
    missing: int = 0
    before: int = 0
    said: bool = True
    working: bool = True
    old: bool = False

    def balance(self) -> Balance:
        """The equation of this run alone."""
        counted = self.stored + self.quarantined + self.missing
        received = max(self.taken, counted)
        gap = received - counted
        unread = gap if self.working else min(gap, max(0, self.durable - counted))
        return Balance(
            received=received,
            stored=self.stored,
            quarantined=self.quarantined,
            missing=0 if self.old else self.missing,
            cut_off=0 if self.old else gap - unread,
            earlier=self.missing + gap if self.old else 0,
            surplus=received - self.taken if self.said and not (self.working or self.old) else 0,
            overdue=0 if self.old else min(unread, max(0, self.before - counted)),
            reported=self.said,
        )


def added(balances: Iterable[Balance]) -> Balance:
    """The sum of balances."""
    found = list(balances)
    names = [member.name for member in fields(Balance) if member.name != "reported"]
    sums = {name: sum(getattr(balance, name) for balance in found) for name in names}
    return Balance(**sums, reported=any(balance.reported for balance in found))


@dataclass(frozen=True, slots=True)
class Drops:
    """What a hospital's senders sent and we did not keep.

    Attributes:
        queue: Datagrams dropped because too much was waiting.
        kernel: Datagrams that the kernel dropped.
        refused: Reason -> connections and datagrams refused.
    """

    queue: int = 0
    kernel: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CollectorRow:
    """The newest report of a run of a collector; `ingest.collector_report` says what the members mean."""

    run: str
    at: datetime
    final: bool
    spool_bytes: int = 0
    spool_oldest: datetime | None = None
    waiting_bytes: int = 0


class Scope(StrEnum):
    """What fell silent."""

    SOURCE = "source"
    ADDRESS = "address"  # all that came from one sender
    HOSPITAL = "hospital"
    EXPECTED = "expected"  # a source of the registry that never sent; `host` holds its name there
    MANY = "many"  # so many sources of a hospital that each is not said by itself
    PLATFORM = "platform"  # ourselves: nothing is heard of the collectors, or what they took is not read


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence that an alert was raised for.

    Attributes:
        alert_id: The alert.
        scope: What is silent.
        name: Who; members that the scope does not need are empty.
        last_seen: The last line; None if there never was one.
        raised: When it was held to be a silence.
        returned: When a line came again.
    """

    alert_id: str
    scope: Scope
    name: SourceName
    last_seen: datetime | None
    raised: datetime
    returned: datetime | None = None

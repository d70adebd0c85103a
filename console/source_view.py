"""What the sources page, its API and `tocsin sources` show: hospitals, what each sends, and what is missing.

Pure over what the store holds: sources are matched with those that the registry expects, lines that nothing understood
count with the host that sent them, and the worst comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from ingest.hospital import Hospital, Hospitals
from ingest.readings import source_of
from ingest.source_counts import OTHER, UNKNOWN_FAMILY
from storage.source import Balance, CollectorRow, Drops, Scope, Silence, SourceName, SourceRow
from storage.source_store import SourceStore

NEW: Final = timedelta(days=1)
"""For so long a source is new: its rhythm is not known yet."""

SKEWED: Final = 60.0
"""Seconds between a source's clock and ours that are worth a warning."""

UNDERSTOOD_LEAST: Final = 0.9
"""A share of lines understood below this is worth a warning."""

TOGETHER: Final = timedelta(seconds=60)


class State(StrEnum):
    """How a source or a hospital fares, worst first."""

    SILENT = "silent"
    NEVER = "never"
    NEW = "new"
    OK = "ok"


class Verdict(StrEnum):
    """What the equation of a hospital says, worst first."""

    MISSING = "missing"  # all that was on the bus is read, and these are not among it
    CUT_OFF = "cut_off"  # held by a collector that is not heard of any more
    DELAYED = "delayed"  # taken minutes ago, and waiting
    SURPLUS = "surplus"  # more was read than a collector, which has ended, had said
    UNSAID = "unsaid"  # no collector says what it took
    IN_FLIGHT = "in_flight"
    BALANCED = "balanced"


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One source.

    Attributes:
        name: Who.
        known_as: Its name in the registry; empty if it has none.
        state: How it fares.
        first: First line; None if there never was one.
        last: Last line.
        rate: Lines a minute in the last hour.
        usual: The same at such an hour; None while it is not known.
        lines: All lines.
        understood: Share of its lines that were understood in the last day, else ever; None without a line.
        skew: Seconds between the times of its lines and their receipt.
        marked: Lines kept with a remark.
        again: Lines recognised as sent again.
        since: Since when it is silent.
        alert_id: The alert that says so.
    """

    name: SourceName
    known_as: str = ""
    state: State = State.OK
    first: datetime | None = None
    last: datetime | None = None
    rate: float = 0.0
    usual: float | None = None
    lines: int = 0
    understood: float | None = None
    skew: float | None = None
    marked: int = 0
    again: int = 0
    alert_id: str = ""

    @property
    def skewed(self) -> bool:
        """Whether its clock, or its delay, is worth a warning."""
        return self.skew is not None and abs(self.skew) > SKEWED

    @property
    def troubled(self) -> bool:
        """Whether somebody should look at it."""
        misread = self.understood is not None and self.understood < UNDERSTOOD_LEAST
        return self.state in (State.SILENT, State.NEVER) or self.skewed or misread

    @property
    def rest(self) -> bool:
        """Whether it stands for all sources beyond the bound."""
        return self.name.address == OTHER


@dataclass(frozen=True, slots=True)
class HospitalSources:
    """A hospital and what it sends.

    Attributes:
        tenant: The hospital.
        title: As people write it.
        state: Silent if the whole of it is.
        sources: Worst first.
        balance: What became of its lines.
        verdict: What that says.
        drops: What was lost or refused.
        last: Last line of any source.
        alert_id: The alert on the silence of all of it.
    """

    tenant: str
    title: str
    state: State
    sources: tuple[SourceLine, ...]
    balance: Balance
    verdict: Verdict
    drops: Drops
    last: datetime | None
    alert_id: str = ""

    @property
    def troubled(self) -> bool:
        """Whether somebody should look at it."""
        lost = self.verdict in (Verdict.MISSING, Verdict.CUT_OFF, Verdict.DELAYED)
        return lost or self.state is State.SILENT or bool(self.count(State.SILENT) or self.count(State.NEVER))

    def count(self, state: State) -> int:
        """How many of its sources are in a state."""
        return sum(source.state is state for source in self.sources)


@dataclass(frozen=True, slots=True)
class SourcesView:
    """Everything at one moment.

    Attributes:
        at: The moment.
        hospitals: The worst first.
        shared: What was lost or refused on listeners where several hospitals send.
        collectors: Those at work, or that ended within a day.
        lag: Records on the bus that are not yet read; None if not known.
        platform: Silences of our own.
    """

    at: datetime
    hospitals: tuple[HospitalSources, ...]
    shared: Drops
    collectors: tuple[CollectorRow, ...]
    lag: int | None
    platform: tuple[Silence, ...]

    @property
    def troubled(self) -> int:
        """Hospitals at which somebody should look."""
        return sum(seen.troubled for seen in self.hospitals)

    @property
    def missing(self) -> int:
        """Lines that are missing, of all hospitals."""
        return sum(seen.balance.missing for seen in self.hospitals)


@dataclass(frozen=True, slots=True)
class SourceBook:
    """Where the view comes from.

    Attributes:
        store: Counts.
        hospitals: Gives the registry as it stands.
        lag: Gives the records of the bus that are not yet read; None if it cannot be known.
    """

    store: SourceStore
    hospitals: Callable[[], Hospitals]
    lag: Callable[[], int | None]

    def view(self, now: datetime, tenant: str | None = None) -> SourcesView:
        """What is known now, of all hospitals or of one."""
        silences = self.store.silences()
        drops, balances, lag = self.store.drops(), self.store.balances(now), self.lag()
        collectors = [row for row in self.store.collectors() if now - row.at < timedelta(days=1)]
        registered = self.hospitals().by_id
        rows: dict[str, list[SourceRow]] = {}
        for row in self.store.rows(now, tenant):
            rows.setdefault(row.name.tenant, []).append(row)
        known = {*rows, *registered, *(name for name in balances if name)}
        wanted = sorted(known if tenant is None else known & {tenant})
        found = []
        for name in wanted:
            ours = [silence for silence in silences if silence.name.tenant == name]
            balance = balances.get(name, Balance())
            verdict = verdict_of(balance)
            seen = hospital_sources(name, registered.get(name), rows.get(name, []), ours, now)
            found.append(replace(seen, balance=balance, verdict=verdict, drops=drops.get(name, Drops())))
        platform = tuple(silence for silence in silences if silence.scope is Scope.PLATFORM)
        found.sort(key=_worst_hospital)
        return SourcesView(now, tuple(found), drops.get("", Drops()), tuple(collectors), lag, platform)


def verdict_of(balance: Balance) -> Verdict:
    """What the equation of a hospital says."""
    found = (
        (balance.missing, Verdict.MISSING),
        (balance.cut_off, Verdict.CUT_OFF),
        (balance.overdue, Verdict.DELAYED),
        (balance.received and not balance.reported, Verdict.UNSAID),
        (balance.surplus, Verdict.SURPLUS),
        (balance.outstanding, Verdict.IN_FLIGHT),
    )
    return next((verdict for held, verdict in found if held), Verdict.BALANCED)


def hospital_sources(
    tenant: str, hospital: Hospital | None, rows: Sequence[SourceRow], silences: Sequence[Silence], now: datetime
) -> HospitalSources:
    """A hospital with its sources, the worst first."""
    lines = [_line(row, share, hospital, silences, now) for row, share in _folded(rows)]
    named = {line.known_as for line in lines}
    for expected in hospital.sources if hospital is not None else ():
        if expected.name not in named:
            name = SourceName(tenant, expected.address or "", expected.host or "", "")
            alert = next(
                (s.alert_id for s in silences if s.scope is Scope.EXPECTED and s.name.host == expected.name), ""
            )
            lines.append(SourceLine(name, expected.name, State.NEVER, alert_id=alert))
    whole = next((silence for silence in silences if silence.scope is Scope.HOSPITAL), None)
    last = max((row.last_received for row in rows), default=None)
    state = State.SILENT if whole is not None else State.NEVER if last is None else State.OK
    return HospitalSources(
        tenant=tenant,
        title=hospital.title if hospital is not None else tenant,
        state=state,
        sources=tuple(sorted(lines, key=_worst)),
        balance=Balance(),
        verdict=Verdict.BALANCED,
        drops=Drops(),
        last=last,
        alert_id=whole.alert_id if whole is not None else "",
    )


def _folded(rows: Iterable[SourceRow]) -> list[tuple[SourceRow, float | None]]:
    """Sources with the share of lines understood of their host; lines that no format read count with its largest."""
    by_host: dict[tuple[str, str], list[SourceRow]] = {}
    for row in rows:
        by_host.setdefault((row.name.address, row.name.host), []).append(row)
    found = []
    for host in by_host.values():
        share = _share(host)
        known = [row for row in host if row.name.family != UNKNOWN_FAMILY]
        if not known:
            found += [(row, share) for row in host]
            continue
        main = max(known, key=lambda row: row.lines)
        for row in known:
            found.append((_with(row, [other for other in host if other not in known]) if row is main else row, share))
    return found


def _share(rows: Sequence[SourceRow]) -> float | None:
    recent, lines = sum(row.recent for row in rows), sum(row.lines for row in rows)
    if recent:
        return sum(row.recent_understood for row in rows) / recent
    return sum(row.understood for row in rows) / lines if lines else None


def _with(row: SourceRow, unknown: Sequence[SourceRow]) -> SourceRow:
    return replace(
        row,
        lines=row.lines + sum(other.lines for other in unknown),
        marked=row.marked + sum(other.marked for other in unknown),
        again=row.again + sum(other.again for other in unknown),
        rate=row.rate + sum(other.rate for other in unknown),
        last_received=max([row.last_received, *(other.last_received for other in unknown)]),
    )


def _line(
    row: SourceRow, share: float | None, hospital: Hospital | None, silences: Sequence[Silence], now: datetime
) -> SourceLine:
    name = row.name
    expected = source_of(hospital, name.address, name.host or None) if hospital is not None else None
    silence = next((silence for silence in silences if _covers(silence, row)), None)
    new = now - row.first_received < NEW
    return SourceLine(
        name=name,
        known_as=expected.name if expected is not None else "",
        state=State.SILENT if silence is not None else State.NEW if new else State.OK,
        first=row.first_received,
        last=row.last_received,
        rate=row.rate,
        usual=row.usual,
        lines=row.lines,
        understood=share,
        skew=row.skew,
        marked=row.marked,
        again=row.again,
        alert_id=silence.alert_id if silence is not None else "",
    )


def _covers(silence: Silence, row: SourceRow) -> bool:
    """Whether a source is silent as a silence says."""
    if silence.scope is Scope.SOURCE:
        return silence.name == row.name
    within = silence.last_seen is not None and row.last_received <= silence.last_seen
    recent = silence.last_seen is not None and row.last_received >= silence.last_seen - TOGETHER
    if silence.scope is Scope.ADDRESS:
        return within and recent and silence.name.address == row.name.address
    return silence.scope is Scope.HOSPITAL and within and recent


_STATES: Final[Mapping[State, int]] = {state: place for place, state in enumerate(State)}
_VERDICTS: Final[Mapping[Verdict, int]] = {verdict: place for place, verdict in enumerate(Verdict)}


def _worst(line: SourceLine) -> tuple[int, bool, float, int, SourceName]:
    understood = 1.0 if line.understood is None else line.understood
    return _STATES[line.state], not line.skewed, round(understood, 2), -line.lines, line.name


def _worst_hospital(seen: HospitalSources) -> tuple[bool, bool, bool, int, bool, str]:
    lost = seen.verdict is not Verdict.MISSING
    silent = not seen.count(State.SILENT), _VERDICTS[seen.verdict], not seen.count(State.NEVER)
    return lost, seen.state is not State.SILENT, *silent, seen.tenant

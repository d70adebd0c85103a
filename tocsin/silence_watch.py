"""The watch over silences: who has said nothing for longer than its rhythm allows becomes an alert.

What is not the source's silence must not be taken for it:
- Where nothing is heard of the collectors, or a partition of what they took is not read, the platform is at fault: one
  alert says so, and nobody is judged beyond the moment up to which everything was heard. Hearing begins anew when the
  collectors are back: what was missed meanwhile is nobody's silence.
- What falls silent together is said once: a hospital from which nothing came since, else a sender.
- Of one hospital at most `MOST_OPEN` silences are said one by one, then once that there are many.

A silence's deadline is worked out once, when the source has been quiet for the shortest time that counts; from then on
it is only compared with the clock. So the cost is that of sources going quiet, at most `LEARNED_A_LOOK` at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from detections.silence import HISTORY_HOURS, Deadline, hour_of, learn
from ingest.bus import TOPIC_ALERTS, TOPIC_RAW, Bus, Message, Partition
from ingest.hospital import DEFAULT_TIME_ZONE, Hospitals
from ingest.source_counts import OTHER, UNKNOWN_FAMILY
from ingest.visible import visible
from storage.alert_codec import encode_alert
from storage.alerts import AlertStore
from storage.source import Scope, Silence, SourceName
from storage.source_store import SourceStore
from tocsin.silence import PLATFORM_TENANT, expected_as, silence_alert
from tocsin.stages import DETECT_GROUP

log = structlog.get_logger()

LOOK_EVERY: Final = timedelta(seconds=15)
EXPECT_EVERY: Final = timedelta(minutes=5)
TOGETHER: Final = timedelta(seconds=60)
"""Sources that fell silent within this fell silent together."""

STUCK: Final = timedelta(seconds=60)
"""A partition with records to read, of which none is read for so long, is not being read."""

TRAVEL: Final = timedelta(seconds=5)
"""How long a line may take from its receipt to the bus; while a collector has it in its spool, that is known."""

MOST_OPEN: Final = 20
LEARNED_A_LOOK: Final = 50
NOTE_WITHIN: Final = timedelta(hours=1)
"""An alert that is not in the store after this will not come: its silence ends without a note."""

AUTHOR: Final = "tocsin"


@dataclass(frozen=True, slots=True)
class Quiet:
    """A source that has not been heard for a while."""

    id: int
    name: SourceName
    first: datetime
    last: datetime


class SilenceWatch:
    """Looks for silences. Used by one thread.

    Args:
        bus: Asked how far `tocsin.raw` is read.
        sources: What was heard, and when.
        alerts: Where alerts go.
        hospitals: The registry as it stands.
        shortest: No silence below this is one.
        never_seen: After which an expected source that never sent is said.
    """

    def __init__(
        self,
        bus: Bus,
        sources: SourceStore,
        alerts: AlertStore,
        hospitals: Callable[[], Hospitals],
        *,
        shortest: timedelta,
        never_seen: timedelta,
    ) -> None:
        self._bus = bus
        self._sources = sources
        self._alerts = alerts
        self._hospitals = hospitals
        self._shortest = shortest
        self._never_seen = never_seen
        self._begun: datetime | None = None
        self._looked: datetime | None = None
        self._expected: datetime | None = None
        self._stuck: dict[Partition, tuple[int, datetime]] = {}
        self._deadlines: dict[int, tuple[datetime, Deadline | None]] = {}

    def look(self, now: datetime) -> None:
        """Raise what is due and end what is over; does nothing if it has just looked."""
        if self._looked is not None and timedelta(0) <= now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        self._begun = self._begun or now
        self._end(now)
        until = self._platform(now)
        hearing = self._hearing()
        latest = self._sources.latest()
        self._judge(now, until, hearing, latest)
        if self._expected is None or now - self._expected >= EXPECT_EVERY:
            self._expected = now
            self._expect(now)

    # -- ourselves ---------------------------------------------------------------------------------------------

    def _platform(self, now: datetime) -> datetime:
        """Raise what is wrong with ourselves; returns up to when everything that was received has been read."""
        begun = self._begun or now
        stuck = min((since for _, since in self._unread(now).values()), default=now)
        if now - stuck > STUCK:
            self._raise_platform("detect", stuck, now)
        read = self._sources.read_through()
        through = max((through for _, through in self._sources.hearing().values()), default=None)
        if through is not None and now - max(through, begun) > max(self._shortest, STUCK):
            self._raise_platform("collect", through, now)
        # what lies on the bus unread may be what a source said: a detect that catches up is nobody's silence
        return read - TRAVEL if read is not None else datetime.min.replace(tzinfo=UTC)

    def _raise_platform(self, stage: str, since: datetime, now: datetime) -> None:
        name = SourceName(PLATFORM_TENANT, "", stage, "")
        if any(open_.scope is Scope.PLATFORM and open_.name == name for open_ in self._sources.silences()):
            return
        self._say(Scope.PLATFORM, name, since, now, more={"stage": stage})

    def _unread(self, now: datetime) -> dict[Partition, tuple[int, datetime]]:
        """Partitions with records to read: how far they are read, and since when they are no farther."""
        ends = self._bus.ends([TOPIC_RAW])
        committed = self._bus.committed(DETECT_GROUP, [TOPIC_RAW])
        unread: dict[Partition, tuple[int, datetime]] = {}
        for partition, end in ends.items():
            offset = committed.get(partition, 0)
            if offset < end:
                before = self._stuck.get(partition)
                unread[partition] = before if before is not None and before[0] == offset else (offset, now)
        self._stuck = unread
        return unread

    def _hearing(self) -> Callable[[str], tuple[datetime, datetime] | None]:
        """What tells of a hospital since when and until when its senders could be heard."""
        hearing, listeners = self._sources.hearing(), self._sources.listeners()

        def of(tenant: str) -> tuple[datetime, datetime] | None:
            own = listeners.get(tenant, frozenset()) | listeners.get("", frozenset())
            heard = [hearing[name] for name in own if name in hearing] or list(hearing.values())
            return max(heard, key=lambda span: span[1], default=None)

        return of

    # -- sources -----------------------------------------------------------------------------------------------

    def _judge(
        self,
        now: datetime,
        until: datetime,
        hearing: Callable[[str], tuple[datetime, datetime] | None],
        latest: Mapping[tuple[str, str], tuple[datetime, int]],
    ) -> None:
        quiet = [Quiet(*row) for row in self._sources.quiet(now - self._shortest)]
        self._deadlines = {seen.id: self._deadlines[seen.id] for seen in quiet if seen.id in self._deadlines}
        open_ = self._sources.silences()
        said = {silence.name for silence in open_ if silence.scope in (Scope.SOURCE, Scope.ADDRESS)}
        learned = 0
        for seen in quiet:
            span = hearing(seen.name.tenant)
            if span is None or seen.name.address == OTHER or seen.name in said:
                continue
            since = max(seen.last, span[0])
            known = self._deadlines.get(seen.id)
            if known is None or known[0] != since:
                if learned >= LEARNED_A_LOOK:
                    continue
                learned += 1
                known = (since, self._deadline(seen, since))
                self._deadlines[seen.id] = known
            deadline = known[1]
            if deadline is not None and deadline.at <= min(until, span[1]):
                self._say_silent(seen, deadline, now, latest)

    def _deadline(self, seen: Quiet, since: datetime) -> Deadline | None:
        siblings = [
            number for number, name in self._siblings(seen.name) if name.family == UNKNOWN_FAMILY or number == seen.id
        ]
        if seen.name.family == UNKNOWN_FAMILY and len(self._siblings(seen.name)) > 1:
            return None  # lines of a host that is understood otherwise: they count with it
        minutes = self._sources.hours({seen.id, *siblings}, seen.last - timedelta(hours=HISTORY_HOURS + 1))
        zone = self._zone(seen.name.tenant)
        return learn(minutes, hour_of(seen.first), hour_of(seen.last), zone).deadline(since, self._shortest)

    def _siblings(self, name: SourceName) -> list[tuple[int, SourceName]]:
        return self._sources.same_host(name)

    def _zone(self, tenant: str) -> tzinfo:
        hospital = self._hospitals().by_id.get(tenant)
        return ZoneInfo(hospital.time_zone if hospital is not None else DEFAULT_TIME_ZONE)

    def _say_silent(
        self,
        seen: Quiet,
        deadline: Deadline,
        now: datetime,
        latest: Mapping[tuple[str, str], tuple[datetime, int]],
    ) -> None:
        """One alert for all that fell silent together: the hospital, the sender, or the source alone."""
        tenant, address = seen.name.tenant, seen.name.address
        of_hospital, _ = latest[tenant, ""]
        of_address, sources = latest[tenant, address]
        if of_hospital <= seen.last + TOGETHER:
            self._say(Scope.HOSPITAL, SourceName(tenant, "", "", ""), of_hospital, now, deadline=deadline)
        elif sources > 1 and of_address <= seen.last + TOGETHER:
            self._say(Scope.ADDRESS, SourceName(tenant, address, "", ""), of_address, now, deadline=deadline)
        else:
            self._say(Scope.SOURCE, seen.name, seen.last, now, deadline=deadline, more=self._usual(seen))

    def _usual(self, seen: Quiet) -> Mapping[str, str]:
        """What was to be expected of a source when it was heard last."""
        rows = self._sources.rows(seen.last, seen.name.tenant)
        usual = next((row.usual for row in rows if row.id == seen.id and row.usual is not None), None)
        return {} if usual is None else {"usual lines a minute": f"{usual:.3g}"}

    def _say(
        self,
        scope: Scope,
        name: SourceName,
        since: datetime | None,
        now: datetime,
        *,
        deadline: Deadline | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Raise the alert of a silence, once."""
        expected = expected_as(self._hospitals().by_id.get(name.tenant), name) if scope is Scope.SOURCE else None
        known_as = expected.name if expected is not None else ""
        alert = silence_alert(scope, name, since, now, known_as=known_as, deadline=deadline, more=more)
        open_ = self._sources.silences()
        if any(silence.alert_id == alert.id for silence in open_):
            return
        if scope in (Scope.SOURCE, Scope.ADDRESS, Scope.EXPECTED):
            ours = [silence for silence in open_ if silence.name.tenant == name.tenant]
            if any(silence.scope is Scope.MANY for silence in ours):
                return
            if len(ours) >= MOST_OPEN:
                whole = SourceName(name.tenant, "", "", "")
                self._say(Scope.MANY, whole, since or now, now, more={"silent sources": f"{len(ours)} or more"})
                return
        # over the bus, so that a store that is built anew from it has them too; the id is that of the silence, so twice
        # is once
        self._bus.publish([Message(TOPIC_ALERTS, alert.tenant, encode_alert(alert))])
        self._sources.silence(Silence(alert.id, scope, name, since, now))
        shown = visible(f"{name.tenant} {name.address} {name.host} {name.family}".strip())
        log.warning("silence", scope=scope.value, source=shown, since=str(since), alert=alert.id)

    # -- the end of silences -----------------------------------------------------------------------------------

    def _end(self, now: datetime) -> None:
        """Note where lines come again. The alert stays as analysts left it, with a note in its journal."""
        open_ = self._sources.silences()
        for silence in open_:
            returned = self._returned(silence, now, open_)
            if returned is not None and (self._note(silence, returned) or now - silence.raised > NOTE_WITHIN):
                self._sources.end(silence.alert_id, returned)

    def _returned(self, silence: Silence, now: datetime, open_: list[Silence]) -> datetime | None:
        if silence.scope is Scope.PLATFORM:
            return self._platform_returned(silence, now)
        if silence.scope is Scope.MANY:
            left = sum(other.name.tenant == silence.name.tenant for other in open_) - 1
            return now if left < MOST_OPEN // 2 else None
        if silence.scope is Scope.EXPECTED:
            return self._expected_returned(silence, now)
        last = self._sources.last_line(silence.name)
        return last if last is not None and (silence.last_seen is None or last > silence.last_seen) else None

    def _platform_returned(self, silence: Silence, now: datetime) -> datetime | None:
        if silence.name.host == "detect":
            return now if all(now - since < STUCK for _, since in self._unread(now).values()) else None
        through = max((through for _, through in self._sources.hearing().values()), default=None)
        late = through is None or (silence.last_seen is not None and through <= silence.last_seen)
        return None if late else through

    def _expected_returned(self, silence: Silence, now: datetime) -> datetime | None:
        hospital = self._hospitals().by_id.get(silence.name.tenant)
        wanted = silence.name.host
        if hospital is None or all(source.name != wanted for source in hospital.sources):
            return now  # it is expected no longer
        for name in self._sources.names(silence.name.tenant):
            found = expected_as(hospital, name)
            if found is not None and found.name == wanted:
                return self._sources.last_line(name)
        return None

    def _note(self, silence: Silence, returned: datetime) -> bool:
        """Say it in the alert's journal; False if the alert is not in the store yet."""
        row = self._alerts.get(silence.alert_id)
        if row is None:
            return False
        at = returned.astimezone(self._zone(silence.name.tenant)).isoformat(" ", "seconds")
        note = f"De retour : {at}. / Back: {at}."
        self._alerts.decide(silence.alert_id, row.status, note, AUTHOR)
        return True

    # -- expected sources --------------------------------------------------------------------------------------

    def _expect(self, now: datetime) -> None:
        """Say which sources of the registry never sent, a hospital that never sent anything only once."""
        hospitals = self._hospitals().by_id
        self._sources.expect({id_: [source.name for source in h.sources] for id_, h in hospitals.items()}, now)
        since = self._sources.expected_since()
        for tenant, hospital in hospitals.items():
            seen = {found.name for name in self._sources.names(tenant) if (found := expected_as(hospital, name))}
            for source in hospital.sources:
                begun = since.get((tenant, source.name))
                if source.name not in seen and begun is not None and now - begun >= self._never_seen:
                    name = SourceName(tenant, source.address or "", source.name, "")
                    self._say(Scope.EXPECTED, name, None, now, more={"expected": source.name})

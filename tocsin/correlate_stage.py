"""Matches to alerts: the stage that has state.

Each partition of `tocsin.matches` has a correlator of its own, since a hospital's matches lie in one partition and
partitions come and go with the workers. A partition that comes is read back (`tocsin.correlation_state`); one that goes
is forgotten.

Order: alerts and firings are durable before the position of the matches behind them is committed. What fired twice, on
either side of a crash, has one id.

Cuts. Alerts of plain rules go out as soon as their match is read. Correlations see a match only when all that lay on
`tocsin.raw` at one moment, its cut, has been matched and read here (`tocsin.held_matches`): so it makes no difference
how many workers match, which of them is behind or was killed, nor how what they found was cut into batches.

Idle hospitals. A hospital's event time is moved by its matches; where none comes, "A and not B" and the last burst of a
night would wait for ever. So time goes on by the clock, from the hospital's newest event, as far as is known that
nothing is still on its way: up to the moment of the last cut.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
import structlog

from detections.correlate import alert_of_correlation, correlate
from detections.correlation import Correlation
from detections.correlation_evidence import EvidenceMemory
from detections.correlation_set import CorrelationSet
from detections.correlator import DEFAULT_MAX_GROUPS, Correlator, Counters
from detections.match import MATCH_SCHEMA
from ingest.bus import TOPIC_ALERTS, TOPIC_FIRINGS, TOPIC_MATCHES, TOPIC_RAW, Bus, Message, Partition, Record
from ingest.ipc import FrameDecodeError, decode_frame
from storage.alert_codec import encode_alert
from tocsin.correlation_state import SLICE, Pace, faster, paces_of, read_back, rebuild
from tocsin.cuts import Cuts
from tocsin.held_matches import HeldMatches, Ready
from tocsin.readback_matches import in_slices
from tocsin.stages import DETECT_GROUP, PUBLISHED, RECORDS_A_STEP, next_offsets, quarantined
from tocsin.tally import Flow, Tally

log = structlog.get_logger()

CORRELATE_GROUP: Final = "tocsin-correlate"

REPORT: Final = timedelta(seconds=60)
"""How often what was not correlated is said, once for each hospital or rule."""

LONGEST_PATIENCES: Final = 10
"""After so many patiences a match goes on in any case: of a line that no `detect` worker commits."""

LONGEST_TICK: Final = timedelta(seconds=5)
"""The most that one look adds to how long matches have waited: a process that stood still has not waited."""

_BY_TENANT: Final = frozenset({"late", "future"})

_REPORTED: Final[Mapping[str, Flow]] = {
    "late": Flow.LATE,
    "missing_group_field": Flow.UNCORRELATED,
    "bad_values": Flow.UNCORRELATED,
    "capped_events": Flow.FORGOTTEN,
    "evicted_groups": Flow.FORGOTTEN,
}
"""Counter of the engine -> where it is counted here."""

_SAID: Final[Mapping[str, str]] = {
    "late": "matches came too late to be correlated",
    "missing_group_field": "matches lack the field to group by: not correlated",
    "bad_values": "matches lack the number to count: not counted",
    "capped_events": "a correlation's window held too many events: the oldest were forgotten",
    "evicted_groups": "a correlation has too many groups: the least recent were forgotten",
}


@dataclass(frozen=True, slots=True)
class Correlating:
    """How to correlate.

    Attributes:
        rules: The correlations, and the rules that they silence.
        lateness: How much older than the hospital's newest event an event may be when it comes.
        max_groups: Bound of the groups held, of all partitions together.
        idle: How often a cut is made, which is also how often the clock moves hospitals from which no match comes.
        patience: How long a match waits for the other lines of its cut, at most. A worker that was killed is replaced
            within the session timeout of the bus; one that is an hour behind must not keep all hospitals waiting. For
            what lies before it in its own partition of `tocsin.raw` it waits `LONGEST_PATIENCES` as long.
        held_bytes: Bound of the matches that wait.
    """

    rules: CorrelationSet = field(default_factory=CorrelationSet)
    lateness: timedelta = timedelta(seconds=5)
    max_groups: int = DEFAULT_MAX_GROUPS
    idle: timedelta = timedelta(seconds=2)
    patience: timedelta = timedelta(seconds=60)
    held_bytes: int = 128 * 1024 * 1024


@dataclass(slots=True)
class _Share:
    """What is known of one partition."""

    correlator: Correlator
    paces: dict[str, Pace]
    told: Counters
    held: HeldMatches = field(default_factory=HeldMatches)


def steady_clock(
    wall: Callable[[], datetime] = lambda: datetime.now(UTC), seconds: Callable[[], float] = time.monotonic
) -> Callable[[], datetime]:
    """The machine's time of this moment, going on without steps.

    The time of idle hospitals follows it. Were the machine's clock followed and put forward by minutes, all that comes
    in those minutes would be late; put back, no cut would be made until it is where it was.
    """
    start, begun = wall(), seconds()
    return lambda: start + timedelta(seconds=seconds() - begun)


class CorrelateStage:
    """Matches to alerts. Without correlations it has no state.

    Args:
        bus: Where matches come from and alerts go.
        tally: Counts what passes.
        how: Correlations and bounds.
        clock: The time, without steps; it moves idle hospitals, and dates what is published. None: `steady_clock`.
    """

    name = "correlate"

    def __init__(
        self, bus: Bus, tally: Tally, how: Correlating | None = None, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._bus = bus
        self._tally = tally
        self._how = how or Correlating()
        self._clock = clock = clock or steady_clock()
        self._rules = self._how.rules
        self._needed = sorted(self._rules.needed)
        self._titles = {rule.id: rule.title for rule in self._rules.rules}
        self._memory = EvidenceMemory(self._rules.needed)
        self._shares: dict[Partition, _Share] = {}
        self._gained: dict[Partition, int] = {}
        self._read: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._cuts = Cuts()
        self._waited = timedelta()
        self._checked = self._reported = clock()
        # Asked before the subscription, which may ask `_gain` at once
        self._partitions = max(1, len(bus.ends([TOPIC_MATCHES]))) if self._rules.rules else 1
        self._subscription = bus.subscribe(CORRELATE_GROUP, [TOPIC_MATCHES], self._gain if self._rules.rules else None)

    def step(self, timeout: float) -> int:
        """Read matches, publish what follows from them, commit; let time go on where no match comes."""
        records = self._subscription.poll(timeout, RECORDS_A_STEP)
        self._follow_assignment()
        if self._rules.rules:  # what came from a partition that has left is the next owner's
            records = [record for record in records if record.place in self._shares]
        if records:
            self._publish(self._take(records), [])
        if self._rules.rules:
            self._read |= next_offsets(records)
            passed = self._clock() - self._checked
            if passed >= self._how.idle:
                self._checked = self._clock()
                self._waited += min(passed, LONGEST_TICK)
                self._let_time_pass()
                self._tally.hold(sum(share.correlator.groups for share in self._shares.values()))
            self._end_waiting()
            self._commit()
        elif records:
            self._subscription.commit(next_offsets(records))
        if self._clock() - self._reported >= REPORT:
            self._report()
        return len(records)

    def _commit(self) -> None:
        """Commit what was read, up to the first match that still waits."""
        ends = {}
        for partition, share in self._shares.items():
            waits = share.held.first()
            ends[partition] = self._read[partition] if waits is None else waits
        moved = {partition: end for partition, end in ends.items() if end > self._committed[partition]}
        if moved:
            self._subscription.commit(moved)
            self._committed |= moved

    def _gain(self, partition: Partition) -> int | None:
        """A partition comes: note from where on it is read, and so up to where it must be read back."""
        position = self._bus.committed(CORRELATE_GROUP, [TOPIC_MATCHES]).get(partition)
        self._gained[partition] = position or 0
        return position

    def _follow_assignment(self) -> None:
        """Forget the partitions that left, and read back those that came."""
        if not self._rules.rules:
            return
        mine = self._subscription.partitions()
        for partition in self._shares.keys() - mine | self._shares.keys() & self._gained.keys():
            self._report()
            del self._shares[partition]
            self._read.pop(partition, None)
            self._committed.pop(partition, None)
        for partition in sorted(mine & self._gained.keys(), key=lambda place: place.partition):
            self._read[partition] = self._committed[partition] = self._gained.pop(partition)
            self._shares[partition] = self._share(partition, self._read[partition])

    def _share(self, partition: Partition, position: int) -> _Share:
        correlator = Correlator(
            self._rules.rules,
            lateness=self._how.lateness,
            max_groups=max(1, self._how.max_groups // self._partitions),
        )
        reach = self._how.lateness + correlator.lookback
        found = read_back(self._bus, partition, position, self._rules.rules, self._needed, reach, self._clock())
        with closing(found.matches):
            for matches in rebuild(correlator, found):
                self._memory.add(matches)
        self._memory.add_restored(found.firings, {rule.id: rule for rule in self._rules.rules})
        if found.records:
            log.info(
                "correlations read back",
                partition=partition.partition,
                records=found.records,
                matches=found.matches.height,
                firings=len(found.firings),
                groups=correlator.counters.groups,
            )
        return _Share(correlator, found.paces, correlator.counters)

    def _take(self, records: Sequence[Record]) -> list[Message]:
        """Records to the messages of what cannot be read and of plain alerts; what correlations look at waits."""
        messages: list[Message] = []
        frames: dict[Partition, dict[int, pl.DataFrame]] = {}
        for record in records:
            try:
                frames.setdefault(record.place, {})[record.offset] = decode_frame(record.value, MATCH_SCHEMA)
            except FrameDecodeError as error:
                self._tally.add(Flow.QUARANTINED, 1)
                messages.append(quarantined(record, str(error)))
        for partition, parts in frames.items():
            matches = pl.concat(parts.values())
            alerts = list(correlate(matches, self._rules.silenced))
            self._tally.add(Flow.ALERTS, len(alerts))
            self._tally.add(Flow.SILENCED, matches.height - len(alerts))
            messages += [Message(TOPIC_ALERTS, alert.tenant, encode_alert(alert)) for alert in alerts]
            if partition in self._shares:
                needed = pl.col("rule_id").is_in(self._needed)
                wanted = {offset: part.filter(needed) for offset, part in parts.items()}
                self._shares[partition].held.add(wanted, self._clock(), self._waited)
        return messages

    def _feed(self, share: _Share, ready: Sequence[Ready]) -> list[Correlation]:
        """Give the engine what waits no more: in the order of event time, as within a lateness it came by chance."""
        if not ready:
            return []
        for part in ready:
            self._memory.add(part.matches)
            for tenant, pace in paces_of(part.matches, part.read).items():
                share.paces[tenant] = faster(share.paces.get(tenant), pace)
        matches = pl.concat([part.matches for part in ready])
        return [fired for part in in_slices(matches, SLICE) for fired in share.correlator.feed(part)]

    def _publish(self, messages: Sequence[Message], fired: Sequence[Correlation]) -> None:
        if not messages and not fired:
            return
        self._memory.add_firings(fired)
        headers = {PUBLISHED: self._clock().isoformat()}
        answers = [*messages]
        heard = 0
        for correlation, evidence in zip(fired, self._memory.of(fired), strict=True):
            alert = alert_of_correlation(correlation, evidence)
            value = encode_alert(alert)
            answers.append(Message(TOPIC_FIRINGS, alert.tenant, value, headers))
            if alert.rule_id not in self._rules.silenced:
                answers.append(Message(TOPIC_ALERTS, alert.tenant, value))
                heard += 1
        self._bus.publish(answers)
        self._tally.add(Flow.ALERTS, heard)
        self._tally.add(Flow.CORRELATIONS, heard)

    def _let_time_pass(self) -> None:
        """Correlate what lies within the newest cut that is complete, and move each hospital's time on to it."""
        self._cuts.add(self._clock(), self._bus.ends([TOPIC_RAW]))
        matched = self._bus.committed(DETECT_GROUP, [TOPIC_RAW])
        complete = self._cuts.follow(self._clock(), matched, lambda: self._bus.ends([TOPIC_MATCHES]), self._has_read)
        if complete is not None:
            fired = [
                fired for share in self._shares.values() for fired in self._feed(share, share.held.within(complete.raw))
            ]
            fired += [
                correlation
                for share in self._shares.values()
                for tenant, pace in share.paces.items()
                for correlation in share.correlator.advance(tenant, pace.at(complete.at))
            ]
            self._publish([], fired)
            self._tally.settle(complete.at)

    def _end_waiting(self) -> None:
        """Let go of matches that have waited enough, and of the oldest where more wait than there is room for.

        Of a raw partition of its own, what comes first is let go first: nothing passes what its `detect` has yet to do.
        """
        patience, shares, done = self._how.patience, self._shares.values(), self._cuts.done
        for share in shares:
            self._let_go(share, share.held.overdue(self._waited - patience, done))
            self._let_go(share, share.held.older(self._waited - LONGEST_PATIENCES * patience))
        while sum(share.held.bytes for share in shares) > self._how.held_bytes:
            fullest = max(shares, key=lambda share: share.held.bytes)
            self._let_go(fullest, fullest.held.overdue(self._waited, done) or fullest.held.oldest())

    def _let_go(self, share: _Share, ready: Sequence[Ready]) -> None:
        """Correlate matches whose cut is not complete: if others of their time come later, those may be late."""
        if ready:
            count = sum(part.matches.height for part in ready)
            log.warning("matches are correlated without waiting for those that detect has yet to find", count=count)
            self._publish([], self._feed(share, ready))

    def _has_read(self, ends: Mapping[Partition, int]) -> bool:
        """Whether our partitions were read up to there: under steady load the lag is hardly ever nought."""
        read_up_to = all(self._read.get(partition, 0) >= ends.get(partition, 0) for partition in self._shares)
        return read_up_to or self._subscription.lag() == 0  # offsets may have holes, at the end too

    def _report(self) -> None:
        """Count and say what was not correlated since the last time: never in silence, and not for each match."""
        self._reported = self._clock()
        oldest = self._cuts.oldest
        if oldest is not None and self._reported - oldest.at > REPORT:
            waits_for = "detect" if oldest.matches is None else "correlate"
            log.warning("time stands still for idle hospitals", since=oldest.at.isoformat(), waits_for=waits_for)
        for share in self._shares.values():
            now, before = share.correlator.counters, share.told
            share.told = now
            for kind, flow in _REPORTED.items():
                more = Counter(getattr(now, kind))
                more.subtract(getattr(before, kind))
                for who, count in more.items():
                    if count > 0:
                        log.warning(_SAID[kind], count=count, **self._named(kind, who))
                        self._tally.add(flow, count)

    def _named(self, kind: str, who: str) -> dict[str, str]:
        return {"tenant": who} if kind in _BY_TENANT else {"rule": self._titles.get(who, who), "rule_id": who}

    def lag(self) -> int:
        """Records waiting on `tocsin.matches`."""
        return self._subscription.lag()

    def close(self) -> None:
        """Leave the group."""
        self._report()
        self._subscription.close()

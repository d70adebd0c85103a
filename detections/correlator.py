"""Sigma correlations over a stream of matches, in event time. Pure: no clock, no bus, no store.

Time. A tenant's *watermark* is the newest event time seen less the lateness: what is older is final, and only that is
judged, in the order of (event time, place on the bus). So how matches were cut into batches, and in which order they
came within the lateness, changes nothing. A match older than the watermark is late: counted, and not correlated. An
event moves the watermark no further than to the time it was received, and an event dated later than that by more than
`MAX_SKEW` is correlated at the time it was received: a clock that runs ahead, or an attacker's date, makes nothing
late.

State is a function of the matches since `needed_from` and of the firings since then. A worker that starts again makes
a new `Correlator`, gives it the firings (`restore`) and the matches up to the committed position (`replay`), and goes
on with `feed`. Firings older than the watermark reached so are taken as they were; younger ones are computed again and
come out again under the same ids. Firings must be durable before the position of the matches behind them is committed.

Bounds. Groups: `max_groups` over all tenants and correlations; beyond it, the least recently touched group goes, of the
table that grew if that holds more than its share, else of the largest, and `evicted_groups` counts it. Events of a
group: `correlation_window.MAX_EVENTS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import polars as pl

from detections.correlation import (
    Correlation,
    CorrelationError,
    Firing,
    GroupKey,
    firing_id,
    to_moment,
    to_time,
)
from detections.correlation_fields import FiringRow, MatchRows, natural_order
from detections.correlation_intake import Lane, in_time, items_of, key_of, lane_of, value_of
from detections.correlation_judgement import judgement_of
from detections.correlation_rule import CorrelationRule
from detections.correlation_table import LAST, NEXT, RESTORED, Fired, Item, Plan, Table

MAX_SKEW: Final = timedelta(minutes=1)
"""How far an event may be dated after it was received before its date is not believed."""

DEFAULT_MAX_GROUPS: Final = 1_000_000
"""About 0.7 GB of groups with one event each."""

_BEGINNING: Final = -(1 << 62)
_END: Final = 1 << 62
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of the matches, and what the state holds.

    Attributes:
        late: Tenant -> matches older than the watermark: not correlated. Matches delivered again after they were final
            are among them.
        future: Tenant -> matches dated after they were received, correlated at the time they were received.
        missing_group_field: Correlation id -> matches without a value for an entry of `group_by`: not correlated.
        bad_values: Correlation id -> events whose counted field was missing or no number: not counted.
        capped_events: Correlation id -> events that a group forgot early because its window held too many.
        evicted_groups: Correlation id -> groups dropped to keep `max_groups`.
        groups: Groups held.
        pending: Matches that wait for the watermark, one for each correlation that looks at them.
    """

    late: Mapping[str, int]
    future: Mapping[str, int]
    missing_group_field: Mapping[str, int]
    bad_values: Mapping[str, int]
    capped_events: Mapping[str, int]
    evicted_groups: Mapping[str, int]
    groups: int
    pending: int


class Correlator:
    """Correlations of one rule set. Used by one thread.

    Args:
        rules: In any order; all that they refer to is among them or is a plain rule.
        lateness: How much older than the newest event an event may be when it comes.
        max_groups: Bound of the groups held.

    Raises:
        CorrelationError: The rules refer to each other in a circle, share an id, or lack a condition.
    """

    def __init__(
        self, rules: Sequence[CorrelationRule], *, lateness: timedelta, max_groups: int = DEFAULT_MAX_GROUPS
    ) -> None:
        self._plans = {
            rule.id: Plan(rule, judgement_of(rule), rule.timespan // _MICROSECOND)
            for rule in in_dependency_order(rules)
        }
        self._lanes: dict[str, list[Lane]] = {}
        for plan in self._plans.values():
            for place, reference in enumerate(plan.rule.references):
                self._lanes.setdefault(reference, []).append(lane_of(plan, place))
        self._wanted = [rule_id for rule_id in self._lanes if rule_id not in self._plans]
        self._lateness = lateness // _MICROSECOND
        self._max_groups = max_groups
        self._watermarks: dict[str, int] = {}
        self._tables: dict[str, dict[str, Table]] = {}
        self._groups = 0
        self._table_count = 0
        self._serial = 0
        self._replaying = False
        self._late: Counter[str] = Counter()
        self._future: Counter[str] = Counter()
        self._missing: Counter[str] = Counter()
        self._evicted: Counter[str] = Counter()

    def feed(self, matches: pl.DataFrame) -> list[Correlation]:
        """Take a frame of `MATCH_SCHEMA`, in any order, and say what became true for good.

        Matches of rules that no correlation refers to cost next to nothing.
        """
        self.resume()
        return self._take(matches)

    def advance(self, tenant: str, to: datetime) -> list[Correlation]:
        """Move a tenant's watermark as an event at `to` would: for idle times, when no match comes to do it.

        Only call it when nothing waits on the bus: what is older than `to` less the lateness is late from then on.
        """
        self.resume()
        self._raise_watermark(tenant, to_moment(to) - self._lateness)
        return self._drain([tenant])

    def end(self) -> list[Correlation]:
        """All is final: judge every window as if nothing more came. What is fed afterwards is late."""
        self.resume()
        tenants = list(self._tables)
        for tenant in tenants:
            self._watermarks[tenant] = _END
        return self._drain(tenants)

    def restore(self, firings: Iterable[Firing]) -> None:
        """Begin again: what fired earlier, at least everything since `needed_from`. Call it once, before `replay`.

        Firings of rules that are not among the correlations any more are passed over.
        """
        self._replaying = True
        known: dict[str, tuple[Firing, GroupKey]] = {}
        for firing in firings:
            plan = self._plans.get(firing.rule_id)
            key = None if plan is None else key_of(firing.group, plan.rule.group_by)
            if key is not None:
                identity = firing_id(firing.rule_id, firing.tenant, key, to_moment(firing.timestamp))
                known[identity] = firing, key
        for identity, (firing, key) in known.items():
            moment = to_moment(firing.timestamp)
            source = FiringRow(firing.sample, dict(firing.group), restored=True)
            item = Item(moment, "", identity, RESTORED, self._next_serial(), key, None, source, 0)
            self._table(self._plans[firing.rule_id], firing.tenant).pending.append(item)
            self._hand_on(firing, source, identity, moment, self._place_of(firing, known))

    def replay(self, matches: pl.DataFrame, ahead: Mapping[str, datetime] | None = None) -> None:
        """Take matches again that were fed before the restart, in the order of the bus; nothing fires.

        Args:
            matches: The matches.
            ahead: Tenant -> the earliest time of what will be fed next: that must not be late, so the watermark stays
                before it, and what fired after it is computed again.
        """
        self._replaying = True
        self._take(matches, ahead or {})

    def resume(self) -> None:
        """End the replay; `feed`, `advance` and `end` do so too."""
        if not self._replaying:
            return
        self._replaying = False
        for tables in self._tables.values():
            for table in tables.values():
                table.forget_restored()

    def watermark(self, tenant: str) -> datetime | None:
        """What is older is final; None before the tenant's first match."""
        moment = self._watermarks.get(tenant)
        return None if moment is None else to_time(moment)

    def needed_from(self, tenant: str) -> datetime | None:
        """Event time from which matches and firings must be read back to rebuild this state; None: there is none."""
        moment = self._watermarks.get(tenant)
        return None if moment is None else to_time(moment - self.lookback // _MICROSECOND)

    @property
    def lookback(self) -> timedelta:
        """How far before the watermark matches still matter: the longest window, twice where it has a range."""
        return max((plan.lookback for plan in self._plans.values()), default=0) * _MICROSECOND

    @property
    def groups(self) -> int:
        """Groups held, which costs nothing to ask."""
        return self._groups

    @property
    def counters(self) -> Counters:
        """Counts since the start."""
        tables = [table for tables in self._tables.values() for table in tables.values()]
        bad_values: Counter[str] = Counter()
        capped: Counter[str] = Counter()
        for table in tables:
            bad_values[table.plan.rule.id] += table.bad_values
            capped[table.plan.rule.id] += table.capped_events
        return Counters(
            late=dict(self._late),
            future=dict(self._future),
            missing_group_field=dict(self._missing),
            bad_values={rule: count for rule, count in bad_values.items() if count},
            capped_events={rule: count for rule, count in capped.items() if count},
            evicted_groups=dict(self._evicted),
            groups=self._groups,
            pending=sum(len(table.pending) for table in tables),
        )

    def state_bytes(self) -> int:
        """Bytes of all groups, estimated from a sample of them; matches that wait for the watermark come on top."""
        return sum(table.state_bytes() for tables in self._tables.values() for table in tables.values())

    def _take(self, matches: pl.DataFrame, ahead: Mapping[str, datetime] = MappingProxyType({})) -> list[Correlation]:
        wanted = matches.filter(pl.col("rule_id").is_in(self._wanted))
        if wanted.is_empty():
            return []
        reached: dict[str, int] = {}
        for part in wanted.partition_by(["tenant", "rule_id"], maintain_order=True):
            tenant, rule_id = str(part["tenant"][0]), str(part["rule_id"][0])
            timed = in_time(part, self._watermarks.get(tenant, _BEGINNING), MAX_SKEW // _MICROSECOND)
            if timed.late:
                self._late[tenant] += timed.late
            if timed.future:
                self._future[tenant] += timed.future
            self._enter(timed.rows, tenant, rule_id)
            if timed.reach is not None:
                reached[tenant] = max(timed.reach, reached.get(tenant, _BEGINNING))
        for tenant, reach in reached.items():  # only now: all of a batch is judged by the watermark before it
            limit = to_moment(ahead[tenant]) if tenant in ahead else _END
            self._raise_watermark(tenant, min(reach - self._lateness, limit))
        return self._drain(list(reached))

    def _enter(self, rows: pl.DataFrame, tenant: str, rule_id: str) -> None:
        if rows.is_empty():
            return
        source = MatchRows(rows)
        for lane in self._lanes[rule_id]:
            items, missing = items_of(rows, source, lane, self._serial)
            self._serial += rows.height
            if missing:
                self._missing[lane.plan.rule.id] += missing
            self._table(lane.plan, tenant).pending.extend(items)

    def _drain(self, tenants: Iterable[str]) -> list[Correlation]:
        found: list[Fired] = []
        for tenant in tenants:
            limit = self._watermarks.get(tenant, _BEGINNING)
            tables = self._tables.get(tenant, {})
            for rule_id in self._plans:  # what is referred to comes before what refers to it
                if rule_id not in tables:
                    continue
                fired = tables[rule_id].drain(limit, muted=self._replaying)
                for moment, place, correlation in fired:
                    source = FiringRow(correlation.sample, correlation.group, restored=False)
                    self._hand_on(correlation.firing, source, correlation.id, moment, place)
                found.extend(fired)
        found.sort(key=lambda fired: (fired.moment, fired.place, fired.correlation.tenant, fired.correlation.id))
        return [fired.correlation for fired in found]

    def _hand_on(self, firing: Firing, source: FiringRow, identity: str, moment: int, place: str) -> None:
        """Give a firing to the correlations that refer to its rule."""
        for lane in self._lanes.get(firing.rule_id, ()):
            key = key_of(firing.group, lane.group_by)
            if key is None:
                self._missing[lane.plan.rule.id] += 1
                continue
            value = value_of(firing.group, lane)
            item = Item(moment, place, identity, lane.reference, self._next_serial(), key, value, source, 0)
            self._table(lane.plan, firing.tenant).pending.append(item)

    def _place_of(self, firing: Firing, known: Mapping[str, tuple[Firing, GroupKey]]) -> str:
        """The place that a firing had among events of its time: right after the event that completed it."""
        plan = self._plans[firing.rule_id]
        if plan.judgement.at_close:
            return LAST
        completing = known.get(firing.event_id)
        if completing is not None and completing[0].rule_id in plan.rule.references:
            return self._place_of(completing[0], known) + NEXT
        return str(natural_order(pl.Series([firing.event_id]))[0]) + NEXT

    def _raise_watermark(self, tenant: str, to: int) -> None:
        self._watermarks[tenant] = max(to, self._watermarks.get(tenant, _BEGINNING))

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial - 1

    def _table(self, plan: Plan, tenant: str) -> Table:
        tables = self._tables.setdefault(tenant, {})
        table = tables.get(plan.rule.id)
        if table is None:
            table = tables[plan.rule.id] = Table(plan, tenant, self._keep_bound)
            self._table_count += 1
        return table

    def _keep_bound(self, table: Table, change: int) -> None:
        """Called by a table whose number of groups changed."""
        self._groups += change
        if self._groups <= self._max_groups:
            return
        if len(table) * self._table_count < self._max_groups:  # its share: then another must have more
            table = max((each for tables in self._tables.values() for each in tables.values()), key=len)
        table.evict()
        self._groups -= 1
        self._evicted[table.plan.rule.id] += 1


def in_dependency_order(rules: Sequence[CorrelationRule]) -> list[CorrelationRule]:
    """The rules, each after those it refers to; otherwise as they come.

    Raises:
        CorrelationError: They refer to each other in a circle, or two share an id.
    """
    by_id = {rule.id: rule for rule in rules}
    if len(by_id) < len(rules):
        raise CorrelationError("two correlations share an id")
    ordered: dict[str, CorrelationRule] = {}
    waiting = list(rules)
    while waiting:
        ready = [rule for rule in waiting if all(r in ordered or r not in by_id for r in rule.references)]
        if not ready:
            names = ", ".join(f"{rule.title} ({rule.id})" for rule in waiting)
            raise CorrelationError(f"correlations refer to each other in a circle: {names}")
        ordered.update((rule.id, rule) for rule in ready)
        waiting = [rule for rule in waiting if rule.id not in ordered]
    return list(ordered.values())

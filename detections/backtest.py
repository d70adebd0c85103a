"""What rules would have done: their matches on past events, summed up, and what a change of them adds and removes.

Matches come in frames (`MATCH_SCHEMA`), those of the new rules and those of the old ones for the same events. The two
are compared frame by frame, so that nothing but sums is kept, however long the past is. A rule is held against the rule
of the same id; where there is one rule on each side, those two are held against each other whatever their ids.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final, Literal, TypedDict, cast

import orjson
import polars as pl

from detections.plan import Plan
from detections.rule import Rule

EXAMPLES: Final = 3
"""Events of a rule that are kept to be shown."""

MAX_DISTINCT: Final = 20_000
"""Distinct values of a field that are counted; beyond, the rarer half is forgotten and counts become lower bounds."""


class MatchedEvent(TypedDict):
    """A match as far as it is shown."""

    rule_id: str
    event_id: str
    tenant: str | None
    timestamp: datetime
    host: str | None
    user: str | None
    matched: str


_SHOWN: Final = tuple(MatchedEvent.__annotations__)


@dataclass(frozen=True, slots=True)
class Change:
    """An event that only the new rules match (`+`), or only the old ones (`-`); `rule_id` is of the new rule."""

    sign: Literal["+", "-"]
    rule_id: str
    event: MatchedEvent


@dataclass(slots=True)
class ValueCounts:
    """Values of a field and how often each was in a match.

    Attributes:
        cut: Whether rare values were forgotten.
    """

    counts: Counter[str] = field(default_factory=Counter)
    cut: bool = False

    def add(self, value: str, times: int) -> None:
        """Count a value."""
        self.counts[value] += times
        if len(self.counts) > MAX_DISTINCT:
            self.counts = Counter(dict(self.counts.most_common(MAX_DISTINCT // 2)))
            self.cut = True


@dataclass(slots=True)
class RuleRecord:
    """What one rule would have done.

    Attributes:
        matches: Events matched.
        days: Day (UTC) and hospital ("" where an event has none) -> matches.
        hosts: Host -> matches; so too `users`.
        values: Field of the rule -> the values it had where the rule matched.
        first: Time of the first match; so too `last`.
        examples: The first events that came.
        added: Matches that the old rule did not have; None where there is nothing to compare with.
        removed: Matches that only the old rule had.
    """

    rule_id: str
    title: str
    level: str
    matches: int = 0
    days: Counter[tuple[date, str]] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    users: Counter[str] = field(default_factory=Counter)
    values: dict[str, ValueCounts] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    examples: list[MatchedEvent] = field(default_factory=list)
    added: int | None = None
    removed: int | None = None

    def per_day(self) -> dict[date, int]:
        """Matches a day, by day."""
        counts: Counter[date] = Counter()
        for (day, _), count in self.days.items():
            counts[day] += count
        return dict(sorted(counts.items()))

    def per_tenant(self) -> dict[str, int]:
        """Matches a hospital, most first; events of files have none."""
        counts: Counter[str] = Counter()
        for (_, tenant), count in self.days.items():
            if tenant:
                counts[tenant] += count
        return dict(counts.most_common())

    def add(self, matches: pl.DataFrame) -> None:
        """Take matches of this rule."""
        self.matches += matches.height
        by_day = matches.group_by(pl.col("timestamp").dt.date().alias("day"), pl.col("tenant").fill_null("")).len()
        self.days.update({(day, tenant): count for day, tenant, count in by_day.iter_rows()})
        for name, counts in (("host", self.hosts), ("user", self.users)):
            for value, count in matches.get_column(name).drop_nulls().value_counts().iter_rows():
                counts[value] += count
        for matched, count in matches.get_column("matched").value_counts(sort=True).iter_rows():
            for name, value in cast("dict[str, str | None]", orjson.loads(matched)).items():
                if value is not None:
                    self.values.setdefault(name, ValueCounts()).add(value, count)
        times = matches.get_column("timestamp")
        self.first = min(filter(None, (self.first, cast("datetime", times.min()))))
        self.last = max(filter(None, (self.last, cast("datetime", times.max()))))
        if len(self.examples) < EXAMPLES:
            self.examples += _events(matches.head(EXAMPLES - len(self.examples)))


class Backtest:
    """Sums over the past, frame by frame.

    Args:
        new: The rules in question.
        old: The rules they are held against, or None.
    """

    def __init__(self, new: Plan, old: Plan | None = None) -> None:
        self._records = {compiled.rule.id: _record(compiled.rule) for compiled in new.rules}
        self._renamed: dict[str, str] = {}
        if old is None:
            return
        if len(new.rules) == len(old.rules) == 1:
            self._renamed[old.rules[0].rule.id] = new.rules[0].rule.id
        for compiled in old.rules:
            if compiled.rule.id not in self._renamed:
                self._records.setdefault(compiled.rule.id, _record(compiled.rule))
        for record in self._records.values():
            record.added = record.removed = 0

    def add(self, new: pl.DataFrame, old: pl.DataFrame | None = None) -> list[Change]:
        """Take the matches of the new rules, and of the old ones, on the same events; return how they differ."""
        for (rule_id,), matches in new.partition_by("rule_id", as_dict=True, maintain_order=True).items():
            self._records[cast("str", rule_id)].add(matches)
        return [] if old is None else self._changes(new, old)

    def records(self) -> list[RuleRecord]:
        """What each rule did, in the order of the new rules; then rules that only the old side has."""
        return list(self._records.values())

    def _changes(self, new: pl.DataFrame, old: pl.DataFrame) -> list[Change]:
        old = old.with_columns(pl.col("rule_id").replace(self._renamed))
        on = ["rule_id", "event_id"]
        added = [Change("+", event["rule_id"], event) for event in _events(new.join(old, on=on, how="anti"))]
        removed = [Change("-", event["rule_id"], event) for event in _events(old.join(new, on=on, how="anti"))]
        for change in added:
            record = self._records[change.rule_id]
            record.added = (record.added or 0) + 1
        for change in removed:
            record = self._records[change.rule_id]
            record.removed = (record.removed or 0) + 1
        return sorted([*added, *removed], key=lambda change: change.event["timestamp"])


def _record(rule: Rule) -> RuleRecord:
    return RuleRecord(rule.id, rule.title, rule.level)


def _events(matches: pl.DataFrame) -> list[MatchedEvent]:
    return cast("list[MatchedEvent]", matches.select(_SHOWN).to_dicts())

r"""Tests of correlations: in the test file beside them, cases whose events come one after another.

    match:
      - name: ten failures of one account, then a logon
        events:
          - {at: 0s, times: 10, every: 3s, rule: failed_logon, event: {EventID: 4625, TargetUserName: ana}}
          - {at: 1m, rule: logon, event: {EventID: 4624, TargetUserName: ANA}}
    no_match:
      - {name: three are not enough, events: [{at: 0s, times: 3, rule: failed_logon, event: {...}}]}

`rule` is the name or id of the rule that the event must match; it says the event's log source as well. Without it the
log source is that of the test file (`logsource`), or the one that all rules of the correlation share. A `line` stands
for an `event` as it arrives. `at` is the time since the beginning. Where a file holds several correlations, `of` names
the one that a case is about. All goes through the same `Plan` and the same engine as in production.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

from detections.correlation_pass import CorrelationPass
from detections.correlation_resolve import rules_below
from detections.correlation_rule import CorrelationRule
from detections.plan import Plan
from detections.rule import Rule, RulePack
from ingest.envelope import EVENT_ID, RECEIVED, TIMESTAMP, EventFrame
from ingest.logsource import LogSource

EVENTS: Final = "events"
OF: Final = "of"

MAX_EVENTS: Final = 10_000
"""Events of one case."""

_CASE_KEYS: Final = frozenset({"name", EVENTS, OF})
_EVENT_KEYS: Final = frozenset({"at", "times", "every", "rule", "event", "line"})
_TIME: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

MakeFrames = Callable[[str, Mapping[str, object], LogSource], list[EventFrame]]
"""Place, case with `event` or `line`, log source -> frames: as the tests of plain rules make them."""


class CorrelationTestError(ValueError):
    """A case that is not of the form above."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One event of a case."""

    at: timedelta
    rule: str | None
    given: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TestedCorrelation:
    """A correlation, with all that it stands on.

    Attributes:
        rule: It.
        below: The correlations to run, itself last.
        rules: The rules that they look at.
        plan: Those rules, compiled.
    """

    rule: CorrelationRule
    below: tuple[CorrelationRule, ...]
    rules: tuple[Rule, ...]
    plan: Plan

    __test__ = False  # pytest takes classes named so for tests


def tested_correlation(
    rule: CorrelationRule, pack: RulePack, compiled: Callable[[Sequence[Rule]], Plan]
) -> TestedCorrelation:
    """A correlation of a pack, ready to be tested."""
    by_id = {other.id: other for other in pack.correlations}
    needed = rules_below(rule, by_id)
    chosen = {rule.id}
    for other in reversed(pack.correlations):  # each after those it refers to
        if other.id in chosen:
            chosen.update(other.references)
    rules = tuple(other for other in pack.rules if other.id in needed)
    below = tuple(other for other in pack.correlations if other.id in chosen)
    return TestedCorrelation(rule, below, rules, compiled(rules))


def is_about(case: Mapping[str, object], rule: CorrelationRule) -> bool:
    """Whether a case is about this correlation of its file."""
    return OF not in case or case[OF] in (rule.id, rule.name, rule.title)


def judge(
    tested: TestedCorrelation, place: str, case: Mapping[str, object], source: LogSource | None, frames_of: MakeFrames
) -> tuple[bool, str]:
    """Whether a correlation fires on a case, and what was seen.

    Args:
        tested: The correlation.
        place: Of the case, for messages.
        case: It.
        source: Log source of events that name no rule, if the test file says one.
        frames_of: Makes the frames of one event.

    Raises:
        CorrelationTestError: The case is not of the form above, or an event does not match the rule it names.
    """
    passed = CorrelationPass(tested.below, [rule.id for rule in tested.rules])
    matched: Counter[str] = Counter()
    for number, step in enumerate(_steps(place, case)):
        where = f"{place}: event {number + 1}"
        rule = _rule_named(where, step.rule, tested)
        logsource = rule.logsource if rule is not None else source or _shared_source(where, tested)
        ids: list[str] = []
        for frame in frames_of(where, step.given, logsource):
            matches = tested.plan.match(_at(frame, step.at, number))
            ids += matches["rule_id"].to_list()
            passed.add(matches)
        if rule is not None and rule.id not in ids:
            raise CorrelationTestError(f"{where} does not match {step.rule!r}")
        matched.update(ids)
    fired = any(correlation.rule.id == tested.rule.id for correlation, _, _ in passed.fired())
    titles = {rule.id: rule.title for rule in tested.rules}
    seen = ", ".join(f"{count} of {titles[own]!r}" for own, count in matched.items()) or "none"
    return fired, f"matches: {seen}"


def _steps(place: str, case: Mapping[str, object]) -> list[_Step]:
    unknown = case.keys() - _CASE_KEYS
    if unknown:
        raise CorrelationTestError(f"{place}: unknown keys {sorted(unknown)}; known: {sorted(_CASE_KEYS)}")
    events = case[EVENTS]
    if not isinstance(events, list) or not events:
        raise CorrelationTestError(f"{place}: {EVENTS} is not a list of events")
    steps = [step for number, event in enumerate(events, 1) for step in _repeated(f"{place}: event {number}", event)]
    if len(steps) > MAX_EVENTS:
        raise CorrelationTestError(f"{place}: more than {MAX_EVENTS} events")
    return steps


def _repeated(place: str, event: object) -> Iterator[_Step]:
    if not isinstance(event, dict) or not event.keys() <= _EVENT_KEYS:
        raise CorrelationTestError(f"{place} is not a map of {sorted(_EVENT_KEYS)}")
    times = event.get("times", 1)
    if not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= MAX_EVENTS:
        raise CorrelationTestError(f"{place}: times is not a number from 1 to {MAX_EVENTS}")
    at, every = (_duration(place, key, event.get(key, 0)) for key in ("at", "every"))
    rule = event.get("rule")
    given = {key: event[key] for key in ("event", "line") if key in event}
    for number in range(times):
        yield _Step(at + number * every, None if rule is None else str(rule), given)


def _duration(place: str, key: str, value: object) -> timedelta:
    found = _TIME.fullmatch(str(value))
    if found is None or isinstance(value, bool):
        raise CorrelationTestError(f"{place}: {key}: {value!r} is not a time such as 90s, 5m, 1h")
    try:
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    except OverflowError as error:
        raise CorrelationTestError(f"{place}: {key}: {value!r} is too long") from error


def _rule_named(place: str, name: str | None, tested: TestedCorrelation) -> Rule | None:
    if name is None:
        return None
    for rule in tested.rules:
        if name in (rule.id, rule.name, rule.title):
            return rule
    known = ", ".join(repr(rule.name or rule.id) for rule in tested.rules)
    raise CorrelationTestError(f"{place}: the correlation looks at no rule {name!r}; it looks at {known}")


def _shared_source(place: str, tested: TestedCorrelation) -> LogSource:
    sources = {rule.logsource for rule in tested.rules}
    if len(sources) != 1:
        raise CorrelationTestError(f"{place}: name its rule: the rules have several log sources")
    return sources.pop()


def _at(frame: EventFrame, at: timedelta, number: int) -> EventFrame:
    """The frame at the time of its step, and with ids of its own."""
    # Whatever time a line says: the test says when
    start = frame.events[RECEIVED].min()
    ids = pl.concat_str(pl.lit(f"test:{number}:"), pl.int_range(pl.len()).cast(pl.String))
    when = pl.lit(start).cast(frame.events.schema[TIMESTAMP]) + at
    return EventFrame(
        frame.logsource,
        frame.events.with_columns(ids.alias(EVENT_ID), when.alias(TIMESTAMP), when.alias(RECEIVED)),
    )

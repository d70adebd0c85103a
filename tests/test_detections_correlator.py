"""Correlations against a second implementation, straight from the text of the semantics, and cut in every way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correlation_matches import RULES, Match, correlation_rule, frame_of, run, seconds
from detections.correlation import Correlation
from detections.correlation_rule import CorrelationCondition, CorrelationRule
from detections.correlator import Correlator

ALIASED = "alias"


# The second implementation: no state, every window looked at from scratch


@dataclass(frozen=True)
class Event:
    at: float
    order: tuple[object, ...]
    id: str
    references: frozenset[str]
    value: object

    @property
    def key(self) -> tuple[float, tuple[object, ...]]:
        return self.at, self.order


OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "neq": lambda a, b: a != b,
}


def look_up(fields: Mapping[str, str], name: str) -> str | None:
    if name in fields:
        return fields[name]
    return next((value for key, value in fields.items() if key.lower() == name.lower()), None)


def naive_events(rule: CorrelationRule, matches: Sequence[Match]) -> dict[tuple[object, ...], list[Event]]:
    found: dict[tuple[object, ...], dict[str, Event]] = {}
    for match in sorted(matches, key=lambda match: match.rule):
        if match.rule not in rule.references:
            continue
        group = [look_up(match.fields, rule.field_of(name, match.rule)) for name in rule.group_by]
        if None in group:
            continue
        value: object = None
        if rule.condition is not None and rule.condition.fields and rule.kind.startswith("value_"):
            values = [look_up(match.fields, rule.field_of(name, match.rule)) for name in rule.condition.fields]
            if rule.kind == "value_count":
                value = None if None in values else tuple(str(v).lower() for v in values)
            else:
                value = float(values[0]) if values[0] is not None and values[0].lstrip("-").isdigit() else None
        key = (match.tenant, *(str(part).lower() for part in group))
        order = (match.number,)
        events = found.setdefault(key, {})
        known = events.get(match.event_id)
        references = frozenset({match.rule}) | (known.references if known else frozenset())
        first_value = known.value if known is not None and known.value is not None else value
        events[match.event_id] = Event(match.at, order, match.event_id, references, first_value)
    counted = rule.kind.startswith("value_")
    return {
        key: sorted((e for e in events.values() if not counted or e.value is not None), key=lambda e: e.key)
        for key, events in found.items()
    }


def longest_chain(references: Sequence[str], window: Sequence[Event]) -> int:
    """By trying every choice of references, longest first."""
    for size in range(len(references), 0, -1):
        for chosen in itertools.combinations(references, size):
            if in_order(chosen, window):
                return size
    return 0


def in_order(references: Sequence[str], window: Sequence[Event]) -> bool:
    place = 0
    for event in window:
        if place < len(references) and references[place] in event.references:
            place += 1
    return place == len(references)


def naive_measure(rule: CorrelationRule, window: Sequence[Event]) -> float | None:
    numbers = sorted(cast("float", event.value) for event in window) if rule.kind in NUMERIC else []
    if rule.kind == "event_count":
        return len(window)
    if rule.kind == "value_count":
        return len({event.value for event in window})
    if rule.kind == "temporal":
        return len({reference for event in window for reference in event.references})
    if rule.kind == "temporal_ordered":
        return longest_chain(rule.references, window)
    if not numbers:
        return None
    if rule.kind == "value_sum":
        return float(sum(Fraction(number) for number in numbers))
    if rule.kind == "value_avg":
        return float(sum(Fraction(number) for number in numbers) / len(numbers))
    assert rule.condition is not None
    percentile = 50 if rule.kind == "value_median" else cast("float", rule.condition.percentile)
    position = (len(numbers) - 1) * percentile / 100
    low, high = numbers[math.floor(position)], numbers[math.ceil(position)]
    return low if low == high else low * (1 - position % 1) + high * (position % 1)


NUMERIC = ("value_sum", "value_avg", "value_median", "value_percentile")
Expressed = tuple[str, Callable[[frozenset[str], Sequence[Event]], bool], bool, frozenset[str]]


def naive(rule: CorrelationRule, matches: Sequence[Match], expressed: Expressed | None = None) -> set[tuple[Any, ...]]:
    """(tenant, folded group, time) of every firing."""
    span = rule.timespan.total_seconds()
    if expressed is None:
        condition = rule.condition or CorrelationCondition((("gte", len(rule.references)),))
        bounds = [(OPERATORS[name], bound) for name, bound in condition.bounds]
        names = {name for name, _ in condition.bounds}
        at_close = bool(names - {"gt", "gte"})
        upper = [(OPERATORS["lte" if n == "eq" else n], b) for n, b in condition.bounds if n in {"lt", "lte", "eq"}]
        ranged = bool(upper and names & {"gt", "gte", "eq"}) and rule.kind not in NUMERIC
        openers = frozenset(rule.references)
    else:
        bounds, upper, ranged = [], [], False
        at_close, openers = expressed[2], expressed[3]

    def holds(window: Sequence[Event]) -> bool:
        if expressed is not None:
            return expressed[1](frozenset(r for event in window for r in event.references), window)
        measured = naive_measure(rule, window)
        return measured is not None and all(compare(measured, bound) for compare, bound in bounds)

    def too_many(window: Sequence[Event]) -> bool:
        measured = naive_measure(rule, window)
        return measured is not None and not all(compare(measured, bound) for compare, bound in upper)

    found: set[tuple[Any, ...]] = set()
    for key, events in naive_events(rule, matches).items():
        silent_until = -math.inf
        for event in events:
            if at_close:
                moment = event.at + span
                window = [e for e in events if event.at <= e.at <= moment]
                around = [[e for e in events if x.at - span <= e.at and e.key <= x.key] for x in window]
                true = holds(window) and bool(event.references & openers)
                true = true and not (ranged and any(too_many(other) for other in around))
            else:
                moment = event.at
                true = holds([e for e in events if moment - span <= e.at and e.key <= event.key])
            if true and moment > silent_until:
                found.add((*key, moment))
                silent_until = moment + span
    return found


def outcome(correlations: Sequence[Correlation]) -> set[tuple[Any, ...]]:
    return {(c.tenant, *(value.lower() for value in c.group.values()), seconds(c.timestamp)) for c in correlations}


# Strategies


USERS = st.sampled_from(["ana", "ANA", "bob", "Éva", "éva", None])
VALUES = st.sampled_from(["1", "2", "-3", "40", "x", "X", None])


@st.composite
def streams(draw: st.DrawFn, size: int = 24) -> list[Match]:
    """Matches in order of the bus, times anywhere; events that match several rules, and copies."""
    matches: list[Match] = []
    for number in range(draw(st.integers(0, size))):
        fields = {"User": draw(USERS), "Value": draw(VALUES), "Other": draw(st.sampled_from(["ana", "p", None]))}
        event = {name: value for name, value in fields.items() if value is not None}
        if draw(st.integers(0, 5)) == 0:
            event = {name.lower(): value for name, value in event.items()}
        time, tenant = draw(st.integers(0, 40)), draw(st.sampled_from(["brest", "brest", "quimper"]))
        rules = draw(st.lists(st.sampled_from(RULES), min_size=1, max_size=4))
        matches += [Match(rule, time, number, event, tenant) for rule in rules]
    return matches


@st.composite
def correlation_rules(draw: st.DrawFn) -> CorrelationRule:
    kind = draw(
        st.sampled_from(["event_count", "value_count", "temporal", "temporal_ordered", *NUMERIC]),
    )
    references = draw(st.permutations(RULES))[: draw(st.integers(1, 3))]
    operators = draw(st.lists(st.sampled_from(sorted(OPERATORS)), min_size=1, max_size=2, unique=True))
    bounds: list[tuple[str, float]] | None = [(operator, draw(st.integers(0, 5))) for operator in operators]
    if kind.startswith("temporal") and draw(st.booleans()):
        bounds = None
    fields = ["Value"]
    if kind == "value_count" and draw(st.booleans()):
        fields.append("User")
    group_by = draw(st.sampled_from([(), ("User",), ("User", "Other"), (ALIASED,)]))
    return correlation_rule(
        kind,
        references,
        span=draw(st.integers(1, 15)),
        group_by=group_by,
        bounds=bounds,
        fields=fields,
        percentile=draw(st.sampled_from([0, 25, 50, 90, 99.5, 100])),
        aliases={ALIASED: {"rule-a": "User", "rule-b": "Other", "rule-c": "User"}},
    )


def batches(data: st.DataObject, matches: Sequence[Match], lateness: int) -> Iterator[list[Match]]:
    """The same matches in an order the lateness allows, in batches."""
    jitter = [data.draw(st.floats(0, lateness)) for _ in matches]
    arriving = [match for _, match in sorted(zip(jitter, matches, strict=True), key=lambda p: p[1].at + p[0])]
    while arriving:
        size = data.draw(st.integers(1, 8))
        yield arriving[:size]
        arriving = arriving[size:]


# The properties


@settings(max_examples=250, deadline=None)
@given(rule=correlation_rules(), matches=streams())
def test_it_says_what_the_semantics_say(rule: CorrelationRule, matches: list[Match]) -> None:
    correlations = run([rule], matches)
    assert outcome(correlations) == naive(rule, matches)
    assert len({c.id for c in correlations}) == len(correlations)


EXPRESSIONS: list[Expressed] = [
    ("rule-a and not rule-b", lambda s, _: "rule-a" in s and "rule-b" not in s, True, frozenset({"rule-a"})),
    ("rule-a and rule-b", lambda s, _: {"rule-a", "rule-b"} <= s, False, frozenset(RULES)),
    ("rule-a or rule-c", lambda s, _: bool({"rule-a", "rule-c"} & s), False, frozenset(RULES)),
    (
        "(rule-a or rule-b) and not rule-c",
        lambda s, _: bool({"rule-a", "rule-b"} & s) and "rule-c" not in s,
        True,
        frozenset({"rule-a", "rule-b"}),
    ),
    ("not rule-a", lambda s, _: "rule-a" not in s, True, frozenset()),
    ("not (not rule-a or rule-c)", lambda s, _: "rule-a" in s and "rule-c" not in s, True, frozenset({"rule-a"})),
    (
        "rule-a and not rule-b or rule-b and not rule-a",
        lambda s, _: ("rule-a" in s) != ("rule-b" in s),
        True,
        frozenset({"rule-a", "rule-b"}),
    ),
]

ORDERED: list[Expressed] = [
    ("rule-b and rule-a", lambda _, w: in_order(("rule-a", "rule-b"), w), False, frozenset(RULES)),
    (
        "rule-a and rule-b and not rule-c",
        lambda s, w: "rule-c" not in s and in_order(("rule-a", "rule-b"), w),
        True,
        frozenset({"rule-a", "rule-b"}),
    ),
    (
        "rule-a and (rule-b or rule-c)",
        lambda _, w: in_order(("rule-a", "rule-b"), w) or in_order(("rule-a", "rule-c"), w),
        False,
        frozenset(RULES),
    ),
]


@settings(max_examples=25, deadline=None)
@given(matches=streams(), span=st.integers(1, 15))
@pytest.mark.parametrize("expressed", EXPRESSIONS, ids=lambda expressed: expressed[0])
def test_expressions_say_what_the_semantics_say(expressed: Expressed, matches: list[Match], span: int) -> None:
    rule = correlation_rule("temporal", RULES, bounds=None, expression=expressed[0], span=span)
    assert outcome(run([rule], matches)) == naive(rule, matches, expressed)


@settings(max_examples=25, deadline=None)
@given(matches=streams(), span=st.integers(1, 15))
@pytest.mark.parametrize("expressed", ORDERED, ids=lambda expressed: expressed[0])
def test_ordered_expressions_say_what_the_semantics_say(expressed: Expressed, matches: list[Match], span: int) -> None:
    rule = correlation_rule("temporal_ordered", RULES, bounds=None, expression=expressed[0], span=span)
    assert outcome(run([rule], matches)) == naive(rule, matches, expressed)


def chained() -> list[CorrelationRule]:
    """A correlation over a correlation over a correlation, given before those it refers to."""
    return [
        correlation_rule("temporal", ("then", "silence"), id="both", bounds=None, span=30),
        correlation_rule("temporal_ordered", ("many", "rule-b"), id="then", bounds=None, span=12),
        correlation_rule("event_count", ("rule-a",), id="many", bounds=[("gte", 2)], span=5),
        correlation_rule(
            "temporal", ("rule-a", "rule-c"), id="silence", bounds=None, span=4, expression="rule-a and not rule-c"
        ),
        correlation_rule("event_count", ("rule-a", "rule-b"), id="three", bounds=[("eq", 3)], span=6),
        correlation_rule(
            "value_count", ("many", "silence"), id="users", bounds=[("gte", 2)], span=20, group_by=(), fields=("User",)
        ),
    ]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), matches=streams(), lateness=st.integers(0, 20), extra=correlation_rules())
def test_batches_and_order_within_the_lateness_change_nothing(
    data: st.DataObject, matches: list[Match], lateness: int, extra: CorrelationRule
) -> None:
    rules = [*chained(), extra]
    whole = run(rules, matches)
    correlator = Correlator(rules, lateness=timedelta(seconds=lateness))
    cut: list[Correlation] = []
    for batch in batches(data, matches, lateness):
        cut += correlator.feed(frame_of(batch))
    cut += correlator.end()
    assert sorted(cut, key=lambda c: c.id) == sorted(whole, key=lambda c: c.id)
    assert not correlator.counters.late


@settings(max_examples=40, deadline=None)
@given(data=st.data(), matches=streams(40), lateness=st.integers(0, 10), extra=correlation_rules())
def test_a_worker_that_starts_again_says_what_one_says_that_never_stopped(
    data: st.DataObject, matches: list[Match], lateness: int, extra: CorrelationRule
) -> None:
    rules = [*chained(), extra]
    every = list(batches(data, matches, lateness))
    whole = {c.id: c for c in run(rules, matches)}
    correlator = Correlator(rules, lateness=timedelta(seconds=lateness))
    published: dict[str, Correlation] = {}
    stop = data.draw(st.integers(0, len(every)))
    for batch in every[:stop]:
        published.update((c.id, c) for c in correlator.feed(frame_of(batch)))
    committed = data.draw(st.integers(0, stop))  # a crash between publishing and committing: some come again
    again = Correlator(rules, lateness=timedelta(seconds=lateness))
    again.restore(c.firing for c in published.values())
    position = Correlator(rules, lateness=timedelta(seconds=lateness))
    for batch in every[:committed]:
        position.feed(frame_of(batch))
    for batch in every[:committed]:
        kept = [m for m in batch if (since := position.needed_from(m.tenant)) is None or m.at >= seconds(since)]
        again.replay(frame_of(kept))
    for batch in every[committed:]:
        published.update((c.id, c) for c in again.feed(frame_of(batch)))
    published.update((c.id, c) for c in again.end())
    assert published == whole

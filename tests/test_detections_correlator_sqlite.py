"""Correlations against pySigma's SQLite backend, its SQL executed over the same events.

Rules go through the loader, events through the plan and its matches through the correlator; SQLite gets the same YAML
and the same rows. The backend names every event at which a window holds; ours is silent for the timespan after it
fired, so of theirs those are kept that ours would not be silent for. Where the two mean different things is in
`DIFFERENCES`, each shown by an example; the random correlations keep out of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from detections.correlator import Correlator
from detections.plan import Plan
from ingest.envelope import RECEIVED, TIMESTAMP
from ingest.logsource import LogSource
from sigma_strategies import NOW, Content, event_frame, loaded
from sqlite_oracle import correlate_sql

pytestmark = pytest.mark.timeout(240)  # hypothesis draws much, and machines are slow

Row = Mapping[str, str | None]
Found = set[tuple[tuple[tuple[str, str], ...], float]]
"""Group and time of each firing."""

SPAN: Final = 10
SOURCE: Final = LogSource("windows", None, "security")
HORIZON: Final = 1000
"""Seconds after which all windows are closed."""


def base_rule(name: str) -> Content:
    """A rule of the events whose field `Kind` holds its name."""
    return {
        "title": name,
        "name": name,
        "id": f"00000000-0000-4000-8000-00000000000{name}",
        "logsource": {"product": "windows"},
        "detection": {"sel": {"Kind|contains": name}, "condition": "sel"},
    }


BASES: Final = [base_rule(name) for name in ("a", "b", "c")]


def correlation(
    kind: str, condition: object, rules: Sequence[str] = ("a",), group: Sequence[str] = ("User",)
) -> Content:
    body: Content = {"type": kind, "rules": list(rules), "timespan": f"{SPAN}s", "condition": condition}
    if group:
        body["group-by"] = list(group)
    return {"title": "correlation", "id": "00000000-0000-4000-8000-0000000000ff", "correlation": body}


def ours(content: Content, times: Sequence[int], rows: Sequence[Row]) -> Found:
    """The firings of our correlator."""
    pack = loaded([*BASES, content])
    assert not pack.refused, pack.refused
    columns = {name: [row.get(name) for row in rows] for name in ("Kind", "User", "Host", "Value")}
    frame = event_frame(columns, SOURCE, rows=len(rows))
    moments = pl.Series([NOW + timedelta(seconds=time) for time in times], dtype=frame.events.schema[TIMESTAMP])
    events = frame.events.with_columns(moments.alias(TIMESTAMP), moments.alias(RECEIVED))
    matches = Plan.build(pack.rules).match(type(frame)(SOURCE, events))
    correlator = Correlator(pack.correlations, lateness=timedelta(seconds=0))
    firings = [*correlator.feed(matches.sort("timestamp", maintain_order=True)), *correlator.end()]
    return {
        (
            tuple(sorted((name, value.lower()) for name, value in firing.group.items())),
            (firing.timestamp - NOW).total_seconds(),
        )
        for firing in firings
    }


def theirs(content: Content, times: Sequence[int], rows: Sequence[Row]) -> Found:
    """The occurrences of the SQL, less those within a timespan of the one before."""
    timed = [{"time": time, **row} for time, row in zip(times, rows, strict=True)]
    alerts = correlate_sql([*BASES, content], timed, observation_end=HORIZON)
    kept: dict[tuple[tuple[str, str], ...], float] = {}
    found: Found = set()
    for alert in alerts:
        if alert.occurred > kept.get(alert.group, -HORIZON) + SPAN:
            kept[alert.group] = alert.occurred
            found.add((alert.group, alert.occurred))
    return found


# --- random correlations over random events

REFERENCES: Final = st.lists(st.sampled_from("abc"), min_size=2, max_size=3, unique=True)
BOUND: Final = st.sampled_from(["gte", "gt"])
EXPRESSIONS: Final = (
    "a and b",
    "a or b",
    "( a or b ) and c",
    "a and not b",
    "a and not b and not c",
    "a and b and not c",
    "a and not ( b or c )",
)
"""Conditions over the names of rules; absence is known when the window closes."""
GROUPS: Final = st.sampled_from([("User",), ("User", "Host"), ()])


@st.composite
def correlations(draw: st.DrawFn) -> Content:
    """A correlation of any of the eight types, in what both sides mean alike."""
    kind = draw(st.sampled_from(KINDS))
    group = draw(GROUPS)
    if kind == "temporal" and draw(st.booleans()):
        expression = draw(st.sampled_from(EXPRESSIONS))
        return correlation(kind, expression, [name for name in "abc" if name in expression.split()], group)
    if kind.startswith("temporal"):
        rules = draw(REFERENCES)
        return correlation(kind, {"gte": len(rules)}, rules, group)
    rules = draw(st.sampled_from([["a"], ["a", "b"]]))
    if kind == "event_count":
        return correlation(kind, {draw(BOUND): draw(st.integers(1, 4))}, rules, group)
    if kind == "value_count":
        return correlation(kind, {"field": "Host", draw(BOUND): draw(st.integers(1, 3))}, rules, group)
    condition: Content = {"field": "Value", draw(BOUND): draw(st.sampled_from([1, 3, 8, 20]))}
    if kind == "value_percentile":
        condition["percentile"] = draw(st.sampled_from([5, 50, 90, 100]))
    return correlation(kind, condition, rules, group)


def _field_of(content: Content) -> str | None:
    """The field whose values a correlation counts or sums."""
    body = content["correlation"]
    condition = body["condition"] if isinstance(body, dict) else None
    return str(condition["field"]) if isinstance(condition, dict) and "field" in condition else None


KINDS: Final = (
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "value_sum",
    "value_avg",
    "value_percentile",
    "value_median",
)
EVENTS: Final = st.lists(
    st.fixed_dictionaries(
        {
            "Kind": st.sampled_from(["a", "b", "c", "ab", "a", "none"]),
            "User": st.sampled_from(["eve", "EVE", "bob", "bob", None]),
            "Host": st.sampled_from(["pc1", "PC1", "pc2", "pc3", None]),
            "Value": st.sampled_from(["1", "2", "5", "7.5", "12", None]),
        }
    ),
    max_size=14,
)
STEPS: Final = st.lists(st.sampled_from([1, 1, 2, 3, 5, 9, 10, 11, 25]), min_size=14, max_size=14)
SEEN: Final = Counter[str]()


@settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(correlations(), EVENTS, STEPS)
def test_random_correlations_fire_alike(content: Content, rows: list[Row], steps: list[int]) -> None:
    needed = _field_of(content)
    rows = [row for row in rows if needed is None or row[needed] is not None]  # see "an event without the value"
    times = [sum(steps[: place + 1]) for place in range(len(rows))]
    expected = theirs(content, times, rows)
    SEEN.update(examples=1, fired=bool(expected))
    assert ours(content, times, rows) == expected


def test_random_correlations_did_fire() -> None:
    if not SEEN:
        pytest.skip("runs after the test above")
    assert SEEN["fired"] > 20


# --- where the two differ


@dataclass(frozen=True, slots=True)
class Difference:
    """A correlation that the SQL understands otherwise.

    Attributes:
        reason: What it does, and why ours stands.
        events: Time, `Kind`, `User` of each event.
        ours, theirs: Times of the firings.
        values: `Value` of each event, where it matters.
    """

    reason: str
    content: Content
    events: Sequence[tuple[int, str, str]]
    ours: set[float]
    theirs: set[float]
    values: Sequence[str | None] = ()


DIFFERENCES: Final[dict[str, Difference]] = {
    "order within one second": Difference(
        "syslog clocks tick in seconds: events of one time are in the order of the bus; the SQL has them in none",
        correlation("temporal_ordered", {"gte": 2}, ["a", "b"]),
        [(1, "a", "eve"), (1, "b", "eve")],
        {1.0}, set(),
    ),
    "case of groups beyond ASCII": Difference(
        "SQLite folds A to Z only",
        correlation("event_count", {"gte": 2}),
        [(1, "a", "rené"), (2, "a", "RENÉ")],
        {2.0}, set(),
    ),
    "fewer than": Difference(
        "how few there are is known when a window closes; the SQL judges at each event: the first of many fires",
        correlation("event_count", {"lt": 2}),
        [(1, "a", "eve"), (2, "a", "eve"), (3, "a", "eve")],
        {3.0 + SPAN}, {1.0},
    ),
    "an event without the value": Difference(
        "it takes no part, so nothing is judged at its time; the SQL judges the window that ends with it",
        correlation("value_sum", {"field": "Value", "gte": 1}),
        [(1, "a", "eve"), (2, "a", "eve"), (4, "a", "eve"), (13, "a", "eve")],
        {1.0}, {1.0, 13.0},
        values=("1", "1", "1", None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENCES)
def test_difference(name: str) -> None:
    known = DIFFERENCES[name]
    times = [time for time, _, _ in known.events]
    values = known.values or [None] * len(times)
    rows = [
        {"Kind": kind, "User": user, "Value": value}
        for (_, kind, user), value in zip(known.events, values, strict=True)
    ]
    assert {time for _, time in ours(known.content, times, rows)} == known.ours
    assert {time for _, time in theirs(known.content, times, rows)} == known.theirs

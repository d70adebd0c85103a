"""What rules would have done, summed over frames, and what a change adds and removes; and what rules cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import polars as pl
import pytest

from detections import backtest as module
from detections.backtest import EXAMPLES, Backtest, ValueCounts
from detections.load import load_rules
from detections.plan import Plan
from detections.profile import Profile
from detections.rule_tests import event_frame
from ingest.envelope import EVENT_ID, HOST, TENANT, TIMESTAMP, USER, EventFrame
from ingest.logsource import UNKNOWN, LogSource

PROCESS = LogSource("windows", "process_creation", "sysmon")
RULE = r"""title: {title}
id: 00000000-0000-4000-8000-00000000000{n}
logsource: {{product: windows, category: process_creation}}
level: high
detection: {{sel: {{{field}: {value}}}, condition: sel}}
"""
START = datetime(2026, 1, 1, 23, tzinfo=UTC)


def plan(folder: Path, *rules: tuple[int, str, str]) -> Plan:
    folder.mkdir(exist_ok=True)
    for n, field, value in rules:
        (folder / f"{n}.yml").write_text(RULE.format(title=f"Rule {n}", n=n, field=field, value=value))
    return Plan.build(load_rules([folder]).rules)


def frame(*images: str, start: int = 0) -> EventFrame:
    """Events an hour apart, of two hosts and two hospitals by turns."""
    events = pl.concat([event_frame({"Image": image, "CommandLine": image}, PROCESS).events for image in images])
    rows = range(start, start + len(images))
    return EventFrame(
        PROCESS,
        events.with_columns(
            pl.Series(EVENT_ID, [f"e{row}" for row in rows]),
            pl.Series(TENANT, [f"chu-{row % 2}" for row in rows]),
            pl.Series(TIMESTAMP, [START + timedelta(hours=row) for row in rows], dtype=pl.Datetime("us", "UTC")),
            pl.Series(HOST, [f"pc-{row % 2}" for row in rows]),
            pl.Series(USER, ["anna" if row % 2 else None for row in rows], dtype=pl.String),
        ),
    )


def test_sums_over_frames(tmp_path: Path) -> None:
    new = plan(tmp_path, (1, "Image", "[a, b]"), (2, "Image", "zzz"))
    backtest = Backtest(new)
    for part in (frame("a", "b", "c"), frame("A", "a", start=3)):
        assert backtest.add(new.match(part)) == []
    first, quiet = backtest.records()
    assert (first.rule_id, first.level, first.matches) == ("00000000-0000-4000-8000-000000000001", "high", 4)
    assert first.per_day() == {date(2026, 1, 1): 1, date(2026, 1, 2): 3}
    assert first.per_tenant() == {"chu-0": 2, "chu-1": 2}
    assert (dict(first.hosts), dict(first.users)) == ({"pc-0": 2, "pc-1": 2}, {"anna": 2})
    assert dict(first.values["Image"].counts) == {"a": 2, "b": 1, "A": 1}
    assert (first.first, first.last) == (START, START + timedelta(hours=4))
    assert [event["event_id"] for event in first.examples] == ["e0", "e1", "e3"]
    assert len(first.examples) == EXAMPLES
    assert (first.added, first.removed) == (None, None)
    assert (quiet.matches, quiet.first, quiet.per_day(), quiet.examples) == (0, None, {}, [])


def test_what_a_change_adds_and_removes(tmp_path: Path) -> None:
    new, old = plan(tmp_path / "new", (1, "Image", "[a, b]")), plan(tmp_path / "old", (1, "Image", "[b, c]"))
    backtest = Backtest(new, old)
    events = frame("a", "b", "c", "d")
    changes = backtest.add(new.match(events), old.match(events))
    assert [(change.sign, change.event["event_id"]) for change in changes] == [("+", "e0"), ("-", "e2")]
    record = backtest.records()[0]
    assert (record.matches, record.added, record.removed) == (2, 1, 1)


def test_one_rule_on_each_side_is_compared_whatever_its_id(tmp_path: Path) -> None:
    new, old = plan(tmp_path / "new", (1, "Image", "[a, b]")), plan(tmp_path / "old", (2, "Image", "b"))
    backtest = Backtest(new, old)
    events = frame("a", "b")
    changes = backtest.add(new.match(events), old.match(events))
    assert [(change.sign, change.event["event_id"]) for change in changes] == [("+", "e0")]
    assert [record.rule_id[-1] for record in backtest.records()] == ["1"]


def test_rules_that_came_and_went(tmp_path: Path) -> None:
    new = plan(tmp_path / "new", (1, "Image", "a"), (2, "Image", "b"))
    old = plan(tmp_path / "old", (2, "Image", "b"), (3, "Image", "c"))
    backtest = Backtest(new, old)
    events = frame("a", "b", "c")
    backtest.add(new.match(events), old.match(events))
    found = {record.rule_id[-1]: (record.matches, record.added, record.removed) for record in backtest.records()}
    assert found == {"1": (1, 1, 0), "2": (1, 0, 0), "3": (0, 0, 1)}


def test_rare_values_are_forgotten_before_memory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DISTINCT", 10)
    counts = ValueCounts()
    for number in range(100):
        counts.add("often", 5)
        counts.add(str(number), 1)
    assert counts.cut
    assert len(counts.counts) <= 10
    assert counts.counts["often"] == 500


def ticks() -> Iterator[float]:
    return (float(tick) for tick in count())


def test_profile_counts_events_candidates_and_matches(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "x.yml").write_text(
        RULE.format(title="X", n=5, field="Image|contains", value="abc").replace(
            "condition: sel", "other: {CommandLine|re: 'abcd'}, condition: sel and other"
        )
    )
    rules = plan(tmp_path / "r", (6, "Image|re", "'[ab]+'"), (7, "Hashes", "x"))
    clock = ticks()
    profile = Profile(rules, clock=lambda: next(clock))
    profile.add(frame("abc", "abcd", "xyz"))
    costs = {cost.compiled.rule.title: cost for cost in profile.costs()}
    assert set(costs) == {"X", "Rule 6", "Rule 7"}
    found = costs["X"]
    assert (found.events, found.candidates, found.matches) == (3, 2, 1)
    assert found.reasons == ("regex", "many candidates")
    assert (costs["Rule 6"].candidates, costs["Rule 6"].matches) == (3, 2)
    assert "no literal" in costs["Rule 6"].reasons
    assert (costs["Rule 7"].events, costs["Rule 7"].candidates, costs["Rule 7"].matches) == (3, 0, 0)
    assert (profile.events, profile.plan_seconds, profile.rule_seconds) == (3, 1.0, 3.0)


def test_profile_agrees_with_the_plan(tmp_path: Path) -> None:
    rules = plan(tmp_path, (1, "Image|contains", "a"), (2, "Image", "b"), (3, "Image|endswith", "c"))
    events = frame("a", "b", "abc", "bca", "c" * 70_000)
    profile = Profile(rules)
    profile.add(events)
    found = {cost.compiled.rule.id: cost.matches for cost in profile.costs() if cost.matches}
    assert found == dict(rules.match(events).group_by("rule_id").len().iter_rows())


def test_rules_of_other_sources_cost_nothing(tmp_path: Path) -> None:
    profile = Profile(plan(tmp_path, (1, "Image", "a")))
    profile.add(EventFrame(UNKNOWN, frame("a").events))
    profile.add(EventFrame(LogSource("linux"), frame("a").events))
    assert (profile.costs(), profile.events) == ([], 2)

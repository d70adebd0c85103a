"""Properties of every engine over random rules and random events, beyond what any other engine understands.

The plain engine is the yardstick of the fast one: they must give the same rows, with the same evidence. And what is
true of the plain one by its meaning must hold whatever way the events come: cut into slices, among other columns, with
other rules beside a rule, or as code pasted into a notebook.
"""

from __future__ import annotations

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from detections.atoms import atoms_of
from detections.evidence import KEYWORD
from detections.match import MATCH_SCHEMA
from detections.plan import EngineName, Plan
from detections.render import RenderError, needed_columns, render
from ingest.envelope import EVENT_ID, EventFrame
from sigma_strategies import Content, event_frames, loaded, rule_packs

pytestmark = pytest.mark.timeout(240)  # hypothesis draws much, and machines are slow

ENGINES: tuple[EngineName, ...] = ("plain", "fast")
RANDOM = settings(
    max_examples=50,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes longer than a test may
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def plan_of(contents: list[Content], engine: EngineName = "plain") -> Plan:
    """Random rules all load, and compile but for those that are true for every event."""
    pack = loaded(contents)
    assert not pack.refused, [str(refusal) for refusal in pack.refused]
    plan = Plan.build(pack.rules, engine=engine)
    assert all("every event" in refusal.reason for refusal in plan.refused), [str(item) for item in plan.refused]
    return plan


def rows_of(plan: Plan, frame: EventFrame) -> set[tuple[str, str]]:
    return set(plan.match(frame).select("rule_id", "event_id").iter_rows())


def evidence(matches: pl.DataFrame) -> list[dict[str, object]]:
    """What is said of each match; the engines look at a rule's parts in orders of their own."""
    said = [orjson.loads(text) for text in matches.get_column("matched")]
    return [
        {key: sorted(value.split(", ")) if key == KEYWORD else value for key, value in item.items()} for item in said
    ]


@RANDOM
@given(rule_packs(), event_frames())
def test_engines_give_the_same_matches(contents: list[Content], frame: EventFrame) -> None:
    plain = plan_of(contents)
    fast = Plan(plain.rules, plain.refused, "fast")
    expected = plain.match(frame)
    assert expected.schema == MATCH_SCHEMA
    for _ in range(2):  # what the first pass remembered changes nothing
        found = fast.match(frame)
        assert found.drop("matched").equals(expected.drop("matched"))
        assert evidence(found) == evidence(expected)


@RANDOM
@given(rule_packs(), event_frames(max_rows=20), st.integers(0, 20), st.sampled_from(ENGINES))
def test_cutting_a_frame_changes_nothing(
    contents: list[Content], frame: EventFrame, cut: int, engine: EngineName
) -> None:
    plan = plan_of(contents, engine)
    parts = [EventFrame(frame.logsource, part) for part in (frame.events[:cut], frame.events[cut:])]
    whole = plan.match(frame)
    assert pl.concat([plan.match(part) for part in parts]).equals(whole)


@RANDOM
@given(rule_packs(), event_frames(repeated=False), st.sampled_from(ENGINES))
def test_the_order_of_events_and_columns_changes_nothing(
    contents: list[Content], frame: EventFrame, engine: EngineName
) -> None:
    plan = plan_of(contents, engine)
    turned = frame.events.select(*reversed(frame.events.columns)).reverse()
    assert rows_of(plan, EventFrame(frame.logsource, turned)) == rows_of(plan, frame)


@RANDOM
@given(rule_packs(min_size=2), event_frames(), st.sampled_from(ENGINES))
def test_rules_do_not_change_each_other(contents: list[Content], frame: EventFrame, engine: EngineName) -> None:
    together = rows_of(plan_of(contents, engine), frame)
    alone = [rows_of(plan_of([content], engine), frame) for content in contents]
    assert together == set().union(*alone)


@RANDOM
@given(rule_packs(), event_frames(), st.sampled_from(ENGINES))
def test_a_column_without_a_value_is_no_column(contents: list[Content], frame: EventFrame, engine: EngineName) -> None:
    plan = plan_of(contents, engine)
    empty = [name for name in frame.fields if frame.events.get_column(name).null_count() == frame.events.height]
    missing = [name for name in ("Image", "CommandLine", "Size", "IpAddress", "EventID") if name not in frame.fields]
    without = EventFrame(frame.logsource, frame.events.drop(empty))
    more = EventFrame(
        frame.logsource, frame.events.with_columns(pl.lit(None, pl.String).alias(name) for name in missing)
    )
    expected = rows_of(plan, frame)
    assert rows_of(plan, without) == expected
    assert rows_of(plan, more) == expected


@RANDOM
@given(rule_packs(), event_frames())
def test_code_for_a_notebook_says_the_same(contents: list[Content], frame: EventFrame) -> None:
    plan = plan_of(contents)
    found = rows_of(plan, frame)
    columns = {name.lower(): name for name in frame.events.columns}
    for compiled in plan.rules:
        if not compiled.rule.logsource.meets(frame.logsource) or any(
            atom.field is None for atom in atoms_of(compiled.expression)
        ):
            continue  # a frame in a notebook has no raw line that keywords might find
        try:
            code = render(compiled.expression)
        except RenderError:
            continue
        needed = {
            name: pl.col(columns[name.lower()]) if name.lower() in columns else pl.lit(None, pl.String)
            for name in needed_columns(compiled.expression)
        }
        events = frame.events.select(EVENT_ID, **needed) if EVENT_ID not in needed else frame.events.select(**needed)
        chosen = events.filter(eval(code, {"pl": pl})).get_column(EVENT_ID)  # noqa: S307 - the code just written
        assert {(compiled.rule.id, event) for event in chosen} == {
            (rule, event) for rule, event in found if rule == compiled.rule.id
        }, code


@pytest.mark.parametrize("engine", ENGINES)
def test_the_strategies_make_matches(engine: EngineName) -> None:
    """Without it, all of the above would hold for an engine that finds nothing."""
    seen = {"rules": 0, "matching": 0, "slow": 0}

    @settings(RANDOM, max_examples=60, phases=[Phase.generate], derandomize=True, database=None)
    @given(rule_packs(), event_frames())
    def count(contents: list[Content], frame: EventFrame) -> None:
        plan = plan_of(contents, engine)
        found = plan.match(frame)
        seen["rules"] += len(plan.rules)
        seen["matching"] += found.get_column("rule_id").n_unique()
        seen["slow"] += len(plan.slow)

    count()
    assert seen["rules"] > 60
    assert seen["matching"] > 8
    assert seen["slow"] > 0

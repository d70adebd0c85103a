"""Which rules can match what was seen, what the others lack, and what of ATT&CK that leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detections.atoms import And, Atom, Expression, Not, Or, all_of, any_of, negate
from detections.attack import attack_counts, navigator_layer, tactics, techniques
from detections.compile import CompiledRule
from detections.coverage import DATASETS, MAX_VALUES, RuleCoverage, Seen, coverage, datasets_of
from detections.fields_needed import missing_fields, needed_fields, without_fields
from detections.load import load_rules
from detections.plan import Plan
from detections.reach import given_logsources
from detections.rule_tests import event_frame
from ingest.envelope import EventFrame
from ingest.logsource import UNKNOWN, LogSource

PROCESS = LogSource("windows", "process_creation", "sysmon")
SECURITY = LogSource("windows", None, "security")

RULE = """title: {title}
id: 00000000-0000-4000-8000-00000000000{n}
logsource: {{{source}}}
tags: [attack.execution, attack.t1059.001, attack.g0032, attack.s0002]
detection:
  sel: {detection}
  condition: {condition}
"""


def compiled(tmp_path: Path, *rules: tuple[str, str, str]) -> tuple[CompiledRule, ...]:
    """Rules of (log source, detection, condition)."""
    for n, (source, detection, condition) in enumerate(rules):
        text = RULE.format(title=f"Rule {n}", n=n, source=source, detection=detection, condition=condition)
        (tmp_path / f"{n}.yml").write_text(text)
    plan = Plan.build(load_rules([tmp_path]).rules)
    assert plan.refused == ()
    return plan.rules


def seen(*frames: EventFrame) -> Seen:
    found = Seen()
    for frame in frames:
        found.add(frame)
    return found


def one(tmp_path: Path, source: str, detection: str, *frames: EventFrame, condition: str = "sel") -> RuleCoverage:
    return coverage(compiled(tmp_path, (source, detection, condition)), seen(*frames))[0]


WINDOWS = "product: windows, category: process_creation"


@pytest.mark.parametrize(
    ("source", "detection", "condition", "state"),
    [
        (WINDOWS, "{Image: a, CommandLine: b}", "sel", "can_match"),
        (WINDOWS, "{image: a}", "sel", "can_match"),  # fields are found without regard to case
        (WINDOWS, "{Image: a, Hashes: b}", "sel", "field_never_seen"),
        (WINDOWS, "{User: a}", "sel", "field_never_seen"),  # there, and null in every event
        (WINDOWS, "{User: null}", "sel", "can_match"),
        (WINDOWS, "{Hashes: a}", "not sel", "can_match"),
        (WINDOWS, "[{Image: a}, {Hashes: b}]", "sel", "can_match"),
        ("product: windows, service: security", "{EventID: 4625}", "sel", "value_never_seen"),
        ("product: windows, service: security", "{EventID: 4624}", "sel", "can_match"),
        ("product: windows, service: security", "{EventID: 4624}", "not sel", "value_never_seen"),
        ("product: windows, service: security", "{EventID: [4624, 4625]}", "sel", "can_match"),
        ("product: linux, service: sshd", "{message: a}", "sel", "source_never_seen"),
        ("product: windows, category: proces_creation", "{Image: a}", "sel", "no_format"),
        ("product: linux, service: sshd", "[keyword]", "sel", "source_never_seen"),
    ],
)
def test_states(tmp_path: Path, source: str, detection: str, condition: str, state: str) -> None:
    process = event_frame({"EventID": 1, "Image": "x", "CommandLine": "y", "User": None}, PROCESS)
    logon = event_frame({"EventID": 4624}, SECURITY)
    assert one(tmp_path, source, detection, process, logon, condition=condition).state == state


def test_a_source_that_no_format_gives_counts_once_it_was_seen(tmp_path: Path) -> None:
    frame = event_frame({"cs-uri": "x"}, LogSource("zeek", None, "http"))
    item = one(tmp_path, "product: zeek, service: http", "{cs-uri: a}", frame)
    assert (item.state, item.reachable, item.datasets) == ("can_match", False, ())


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    frame = event_frame({"Image": "x"}, PROCESS)
    detection = "[{Image: a, CommandLine: b}, {Image: a, ParentImage: c}]"
    item = one(tmp_path, WINDOWS, detection, frame)
    assert item.state == "field_never_seen"
    assert item.needed == (("Image",), ("CommandLine", "ParentImage"))
    assert item.sources[0].missing == (("CommandLine", "ParentImage"),)
    assert item.sources[0].present == ("Image",)
    assert (item.sources[0].events, item.sources[0].datasets) == (1, ("test",))


def test_the_values_asked_for_are_named(tmp_path: Path) -> None:
    frame = event_frame({"EventID": 4624}, SECURITY)
    item = one(tmp_path, "product: windows, service: security", "{EventID: [4625, 4776]}", frame)
    assert item.sources[0].values == {"EventID": ("4625", "4776")}


def test_too_many_values_are_held_against_nobody(tmp_path: Path) -> None:
    frames = [event_frame({"EventID": number}, SECURITY) for number in range(10_000, 10_001 + MAX_VALUES)]
    item = one(tmp_path, "product: windows, service: security", "{EventID: 4625}", *frames)
    assert item.state == "can_match"


def test_the_source_with_the_best_chance_decides(tmp_path: Path) -> None:
    poor = event_frame({"Other": "x"}, LogSource("windows", "process_creation", "security"))
    rich = event_frame({"Image": "x"}, PROCESS)
    item = one(tmp_path, WINDOWS, "{Image: a}", poor, rich)
    assert item.state == "can_match"
    assert [source.can_match for source in item.sources] == [True, False]


def test_keywords_see_lines_of_no_known_format(tmp_path: Path) -> None:
    line = event_frame({"message": "x"}, UNKNOWN)
    assert one(tmp_path, "product: linux", "[mimikatz]", line).state == "can_match"
    assert one(tmp_path, "product: linux", "{message: a}", line).state == "source_never_seen"


EVENTS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2", None]), max_size=3)
ATOMS = st.builds(Atom, st.sampled_from(["a", "b", "c", "EventID"]), st.just("eq"), st.sampled_from("12")) | st.builds(
    Atom, st.sampled_from("abc"), st.just("null"), st.just("")
)
EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds(negate, inner)
        | st.lists(inner, min_size=2, max_size=3).map(all_of)
        | st.lists(inner, min_size=2, max_size=3).map(any_of)
    ),
    max_leaves=8,
)


def holds(expression: Expression, event: Mapping[str, str | None]) -> bool:
    """The semantics of expressions, spelled out."""
    if isinstance(expression, bool):
        return expression
    if isinstance(expression, Atom):
        value = event.get(expression.field or "")
        return value is None if expression.operator == "null" else value == expression.value
    if isinstance(expression, Not):
        return not holds(expression.part, event)
    parts = [holds(part, event) for part in expression.parts]
    return all(parts) if isinstance(expression, And) else any(parts)


@given(EXPRESSIONS, EVENTS)
def test_what_an_event_satisfies_misses_nothing(expression: Expression, event: dict[str, str | None]) -> None:
    """Never blind where it matches: the one thing a coverage report must not get wrong."""
    if holds(expression, event):
        present = {name.lower() for name, value in event.items() if value is not None}
        assert missing_fields(expression, present) == ()
        for group in needed_fields(expression):
            assert present & {name.lower() for name in group}


@given(EXPRESSIONS, st.sets(st.sampled_from("abc")))
def test_missing_fields_are_enough_to_unblock(expression: Expression, present: set[str]) -> None:
    groups = missing_fields(expression, present)
    everything = {name.lower() for group in groups for name in group} | present
    absent = {"a", "b", "c", "eventid"} - everything
    assert not groups or without_fields(expression, {"a", "b", "c", "eventid"} - present) is False
    if expression is not False:
        assert without_fields(expression, absent) is not False
    assert isinstance(expression, And | Or | Not | Atom | bool)


def test_coverage_agrees_with_the_plan_on_sigmahq(shared_data: Path) -> None:
    rules = Plan.build(load_rules([shared_data / "sigmahq" / "rules" / "windows"]).rules)
    frame = event_frame({"Image": "x", "CommandLine": "y", "TargetFilename": "z"}, PROCESS)
    ours = {item.compiled.rule.id for item in coverage(rules.rules, seen(frame)) if item.state != "can_match"}
    assert ours == {item.rule.id for item in rules.blind({frame.logsource: frame.events.columns})}


def test_every_log_source_that_formats_give_has_its_formats() -> None:
    given = given_logsources()
    assert [str(source) for source in given if not datasets_of(source, given)] == []
    assert datasets_of(LogSource("linux", None, "sshd"), given) == ("linux.sshd",)
    assert all(datasets for datasets in DATASETS.values())


def test_tags_to_attack() -> None:
    tags = ["attack.t1059.001", "attack.T1003", "attack.defense-evasion", "attack.g0032", "cve.2021-1", "attack.s0002"]
    assert techniques(tags) == ("T1059.001", "T1003")
    assert tactics([*tags, "attack.lateral_movement"]) == ("defense-evasion", "lateral-movement")


def test_attack_counts_and_layer(tmp_path: Path) -> None:
    rules = compiled(tmp_path, (WINDOWS, "{Image: a}", "sel"), (WINDOWS, "{Hashes: a}", "sel"))
    by_technique, by_tactic = attack_counts(coverage(rules, seen(event_frame({"Image": "x"}, PROCESS))))
    assert [(count.name, count.running, count.blind) for count in by_technique] == [("T1059.001", 1, 1)]
    assert [(count.name, count.running, count.blind) for count in by_tactic] == [("execution", 1, 1)]
    layer = navigator_layer(by_technique, "ours")
    assert (layer["versions"], layer["domain"], layer["name"]) == ({"layer": "4.5"}, "enterprise-attack", "ours")
    assert [(item["techniqueID"], item["score"]) for item in layer["techniques"]] == [("T1059.001", 1)]


def test_frames_without_rows_are_nothing_seen() -> None:
    frame = event_frame({"Image": "x"}, PROCESS)
    found = seen(EventFrame(PROCESS, frame.events.clear()))
    assert (found.events, found.sources[PROCESS].fields) == (0, {})
    assert isinstance(frame.events, pl.DataFrame)

"""Rules and events made to hurt: enormous, pathological, of the wrong shape. Bounded, and refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detections.atoms import FIELD_OPERATORS, TIME_OPERATORS, Atom, Operator
from detections.compile import CompiledRule, compile_rule
from detections.load import load_rules
from detections.masks import atom_masks, resolve_fields
from detections.plan import EngineName, Plan
from detections.rule import Refusal
from ingest.envelope import EventFrame
from rules_by_hand import SOURCE, frame_of, write_rule


def rule_file(folder: Path, detection: str) -> Path:
    path = folder / "rule.yml"
    path.write_text(
        f"title: T\nlogsource: {{product: windows}}\ndetection:\n  sel: {detection}\n  condition: sel\n", "utf-8"
    )
    return path


@pytest.mark.parametrize(
    ("modifiers", "number"),
    [("", 10_000), ("|contains|all", 10_000), ("|re", 10_000), ("|base64offset|contains", 3000), ("|windash", 2000)],
)
def test_ten_thousand_values_compile_in_bounded_time(tmp_path: Path, modifiers: str, number: int) -> None:
    values = ", ".join(f"'v{value} -x'" for value in range(number))  # the last two make three and five of each
    started = process_time()
    compiled = compile_rule(write_rule(tmp_path, f"sel: {{A{modifiers}: [{values}]}}"))
    assert isinstance(compiled, CompiledRule)
    assert process_time() - started < 20


def test_ten_thousand_wildcards_decide_in_bounded_time(tmp_path: Path) -> None:
    values = ", ".join(f"'v*{number}?x'" for number in range(10_000))
    started = process_time()
    plan = Plan.build([write_rule(tmp_path, f"sel: {{A: [{values}]}}")])
    assert plan.match(frame_of([{"A": "v-9999-x"}, {"A": "w"}])).height == 1
    assert process_time() - started < 20


def test_a_value_of_a_megabyte_is_refused_with_its_file_or_matches(tmp_path: Path) -> None:
    text = "a" * 1_000_000
    assert Plan.build([write_rule(tmp_path, f"sel: {{A|contains: {text}}}")]).match(frame_of([{"A": text}])).height == 1
    (refusal,) = load_rules([rule_file(tmp_path, f"{{A: {text + 'a' * 100_000}}}")]).refused
    assert "too large for a rule" in refusal.reason


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize(
    "detection", ["{A|contains: TEXT}", "{A|cased|contains: TEXT}", "[TEXT]", "{A|fieldref|contains: B}"]
)
def test_a_long_text_is_sought_in_time_that_is_not_its_square(
    tmp_path: Path, detection: str, engine: EngineName
) -> None:
    text = "x" * 200_000
    rule = write_rule(tmp_path, f"sel: {detection.replace('TEXT', text)}")
    plan = Plan.build([rule], engine=engine)
    frame = frame_of([{"A": f"a{text}b", "B": text}])
    started = process_time()
    assert plan.match(frame).height == 1
    assert plan.match(frame_of([{"A": text[1:], "B": text}])).height == (detection == "[TEXT]")
    assert process_time() - started < 5


PATHOLOGICAL = [
    "{A|re: '(a{1000}){1000}'}",
    "{A|re: '((a{100}){100}){100}'}",
    "{A|re: '(a*)*(?!b)'}",
    "{A|re: '(a|aa)+(b|bb)+(?!c)(x+x+)+'}",
    "{A|expand: '%x%'}",
    "['*']",
    "['']",
]


@pytest.mark.parametrize("detection", PATHOLOGICAL)
def test_pathological_rules_are_refused_and_the_others_run(tmp_path: Path, detection: str) -> None:
    path = rule_file(tmp_path, detection)
    good = tmp_path / "good.yml"
    good.write_text("title: G\nlogsource: {product: windows}\ndetection:\n  sel: {A: x}\n  condition: sel\n")
    plan = Plan.build(load_rules([path, good]).rules)
    assert [compiled.rule.title for compiled in plan.rules] == ["G"]
    (refusal,) = plan.refused
    assert (refusal.path, refusal.line) == (path, 4)
    assert len(refusal.reason) < 500


@pytest.mark.parametrize("escape", [r"\ud800", r"\udfff", r"x\ud83dy"])
def test_lone_surrogates_are_refused_with_their_line(tmp_path: Path, escape: str) -> None:
    (refusal,) = load_rules([rule_file(tmp_path, f'{{A: "{escape}"}}')]).refused
    assert refusal.line == 4
    assert "Unicode" in refusal.reason


MODIFIERS = ["re", "contains", "cidr", "gt", "exists", "base64", "wide|base64", "windash", "fieldref", "hour", "neq"]
MORE_MODIFIERS = ["cased", "expand", "all", "utf16", "re|i|contains", ""]
keys = st.sampled_from(["A", "", "|", "|all", "A||", *(f"A|{names}" for names in (*MODIFIERS, *MORE_MODIFIERS))])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.text("\\*?%-/[({|^$1", max_size=8)
)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.lists(st.lists(scalars, max_size=2), max_size=2))
detections = st.recursive(
    st.one_of(scalars, st.dictionaries(keys, values, max_size=3)), lambda inner: st.lists(inner, max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(detections)
def test_any_detection_is_a_rule_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, detection: object) -> None:
    path = tmp_path_factory.mktemp("r") / "rule.yml"  # JSON is YAML, but for NaN
    content = {"title": "T", "logsource": {"product": "windows"}, "detection": {"sel": detection, "condition": "sel"}}
    path.write_text(json.dumps(content), "utf-8")
    pack = load_rules([path])
    assert len(pack.rules) + len(pack.refused) == 1
    for rule in pack.rules:
        compiled = compile_rule(rule, {"x": ["y"]})
        assert isinstance(compiled, CompiledRule | Refusal)
        if isinstance(compiled, CompiledRule):
            Plan([compiled]).match(frame_of([{"A": "1"}, {"A": None}, {"A": "\x00\n*"}]))


ATOMS = [
    *(Atom("A", operator, "x") for operator in ("eq", "contains", "startswith", "endswith", "null", "exists")),
    *(Atom("A", operator, "x") for operator in ("like", "re", "re_slow")),
    *(Atom("A", operator, "5") for operator in ("lt", "lte", "gt", "gte")),
    *(Atom("A", operator, "B") for operator in sorted(FIELD_OPERATORS)),
    *(Atom("A", operator, "hour 5") for operator in sorted(TIME_OPERATORS)),
    Atom("A", "cidr", "10.0.0.0/8"),
    Atom("A", "cidr", "fe80::/10"),
    Atom(None, "contains", "x"),
    Atom(None, "re", "x"),
]
VALUES: list[list[str | None]] = [
    [],
    [None],
    ["", "\x00", "\x00x\x00", "\ufffd", "\U0010ffff", "a\u0300", "\r\n"],
    ["x" * 1_000_000, "y" * 1_000_000],
    ["1" * 5000, "9" * 400, "1e999", "-0", "nan", "0x5"],
    ["9" * 19, "9999999999", "0000-00-00", "0000-01-01T00:00Z", "9999-12-31T23:59-23:59"],
    ["1.2.3.4.5", "::ffff:999.1.1.1", "fe80::1%eth0", "10.0.0.1/8", "１0.0.0.1"],
]


@pytest.mark.parametrize("atom", ATOMS, ids=lambda atom: f"{atom.field}-{atom.operator}-{atom.value}")
@pytest.mark.parametrize("number", range(len(VALUES)))
def test_no_value_raises(atom: Atom, number: int) -> None:
    own = pl.DataFrame({"A": pl.Series(VALUES[number], dtype=pl.String)})
    for events in (own, own.with_columns(pl.col("A").alias("B")), own.rename({"A": "C"}), own.select()):
        mask = atom_masks(events, [atom], resolve_fields(events.columns))[atom]
        assert isinstance(mask, bool) or (len(mask) == events.height and mask.null_count() == 0)


OPERATORS: list[Operator] = ["eq", "contains", "gt", "time_eq", "field_eq_cased", "cidr"]


def test_every_operator_is_tried() -> None:
    assert {atom.operator for atom in ATOMS} >= set(OPERATORS) | FIELD_OPERATORS | TIME_OPERATORS


def test_frames_without_rows_or_fields(tmp_path: Path) -> None:
    plan = Plan.build([write_rule(tmp_path, "sel: {A|hour: 5, B|fieldref|cased: C, D|cidr: 10.0.0.0/8, E: null}")])
    empty = frame_of([{"A": "x"}])
    assert plan.match(EventFrame(SOURCE, empty.events.clear())).height == 0
    assert plan.match(frame_of([{}])).height == 0

"""Processing pipelines: what they change, in which order, and that they change nothing else."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from sigma.processing.pipeline import ProcessingPipeline

from detections import pipelines
from detections.compile import CompiledRule, compile_rule
from detections.pipelines import PipelineError, load_pipelines
from detections.plan import Plan
from detections.rule import Refusal, Rule
from ingest.logsource import LogSource
from rules_by_hand import SOURCE, frame_of, write_rule

MAPPING = "transformations:\n  - {type: field_name_mapping, mapping: {Image: process.executable}}\n"


def write(folder: Path, text: str, name: str = "p.yml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def through(rule: Rule, folder: Path, text: str) -> CompiledRule:
    compiled = compile_rule(rule, {}, load_pipelines([write(folder, text)]))
    assert isinstance(compiled, CompiledRule), compiled
    return compiled


def fields(compiled: CompiledRule) -> set[str]:
    return {field for atom in compiled.positive for field in atom.fields}


def test_fields_are_renamed_and_the_rule_given_stays(tmp_path: Path) -> None:
    rule = write_rule(tmp_path, "sel: {Image|endswith: cmd.exe, User: x}")
    assert fields(through(rule, tmp_path, MAPPING)) == {"process.executable", "User"}
    plain = compile_rule(rule)
    assert isinstance(plain, CompiledRule)
    assert fields(plain) == {"Image", "User"}


def test_one_pipeline_serves_many_rules_and_keeps_nothing_of_them(tmp_path: Path) -> None:
    text = """transformations:
  - {id: mapped, type: field_name_mapping, mapping: {Image: process.executable}}
  - {type: set_state, key: seen, val: "1", rule_conditions: [{type: contains_field, field: process.executable}]}
  - type: field_name_prefix
    prefix: late.
    rule_conditions: [{type: processing_state, key: seen, val: "1"}]
"""
    pipeline = load_pipelines([write(tmp_path, text)])
    first = write_rule(tmp_path, "sel: {Image: a}")
    second = write_rule(tmp_path, "sel: {User: a}")
    for _ in range(2):
        for rule, expected in ((first, {"late.process.executable"}), (second, {"User"})):
            compiled = compile_rule(rule, None, pipeline)
            assert isinstance(compiled, CompiledRule)
            assert fields(compiled) == expected


@pytest.mark.parametrize(("negated", "expected"), [("false", ["e0"]), ("true", ["e1"])])
def test_conditions_are_added(tmp_path: Path, negated: str, expected: list[str]) -> None:
    text = f"transformations:\n  - {{type: add_condition, conditions: {{Channel: S}}, negated: {negated}}}\n"
    rule = write_rule(tmp_path, "sel: {Image: a}\nother: {Image: b}", "sel or other")
    plan = Plan.build([rule], None, load_pipelines([write(tmp_path, text)]))
    frame = frame_of([{"Image": "b", "Channel": "s"}, {"Image": "a", "Channel": "x"}])
    assert plan.match(frame).get_column("event_id").to_list() == expected  # negated is what is added, and not the rule


def test_the_log_source_follows(tmp_path: Path) -> None:
    text = "transformations:\n  - {type: change_logsource, product: linux, service: sshd}\n"
    rule = write_rule(tmp_path, "sel: {Image: a}")
    pipeline = load_pipelines([write(tmp_path, text)])
    compiled = compile_rule(rule, None, pipeline)
    assert isinstance(compiled, CompiledRule)
    assert compiled.rule.logsource == LogSource("linux", None, "sshd")
    assert (compiled.rule.id, compiled.rule.digest) == (rule.id, rule.digest)
    assert rule.logsource == LogSource("windows", "process_creation", None)
    plan = Plan.build([rule], None, pipeline)
    assert plan.match(frame_of([{"Image": "a"}], SOURCE)).height == 0
    assert plan.match(frame_of([{"Image": "a"}], LogSource("linux", None, "sshd"))).height == 1


DROPPING = """transformations:
  - {type: drop_detection_item, field_name_conditions: [{type: include_fields, fields: [D]}]}"""
VALUES: list[tuple[str, str, dict[str, str | None], bool]] = [
    (
        "{A|expand: '%x%'}",
        "vars: {x: [one, 'tw*']}\ntransformations:\n  - {type: value_placeholders}",
        {"A": "two"},
        True,
    ),
    ("{A|expand: 'a%x%'}", "transformations:\n  - {type: wildcard_placeholders}", {"A": "abc"}, True),
    (
        "{A|expand|base64: '%x%'}",
        "vars: {x: [one]}\ntransformations:\n  - {type: value_placeholders}",
        {"A": "b25l"},
        True,
    ),
    ("{A: b}", "transformations:\n  - {type: replace_string, regex: b, replacement: c}", {"A": "c"}, True),
    ("{A: b}", "transformations:\n  - {type: map_string, mapping: {b: [c, d]}}", {"A": "d"}, True),
    ("{A: b}", "transformations:\n  - {type: set_value, value: 5}", {"A": "5"}, True),
    ("{A: b}", "transformations:\n  - {type: field_name_mapping, mapping: {A: [B, C]}}", {"C": "b"}, True),
    (
        "{A|fieldref: B}",
        "transformations:\n  - {type: field_name_mapping, mapping: {B: C}}",
        {"A": "x", "C": "x"},
        True,
    ),
    (
        "{A: b, D: e}",
        DROPPING,
        {"A": "b"},
        True,
    ),
    (
        "{A: b}",
        "transformations:\n  - type: nest\n    items:\n      - {type: field_name_suffix, suffix: .x}",
        {"A.x": "b"},
        True,
    ),
    ("{A: 'x*'}", "transformations:\n  - {type: regex, method: plain}", {"A": "xyz"}, True),
    ("{A: Ab}", "transformations:\n  - {type: case, method: upper}", {"A": "ab"}, True),
    ("{A: '5'}", "transformations:\n  - {type: convert_type, target_type: num}", {"A": "5"}, True),
]  # fmt: skip


@pytest.mark.parametrize(("detection", "pipeline", "event", "expected"), VALUES)
def test_transformations(
    tmp_path: Path, detection: str, pipeline: str, event: dict[str, str | None], expected: bool
) -> None:
    plan = Plan.build(
        [write_rule(tmp_path, f"sel: {detection}")], None, load_pipelines([write(tmp_path, pipeline + "\n")])
    )
    assert not plan.refused, plan.refused
    assert (plan.match(frame_of([event])).height == 1) is expected


REFUSED_RULES = [
    ("{A: b}", "{type: rule_failure, message: not ours}", "not ours"),
    ("{A: b}", "{type: detection_item_failure, message: no such field}", "no such field"),
    ("{A: b}", "{type: drop_detection_item}", "nothing is left"),
    ("{A|expand: '%x%'}", "{type: value_placeholders}", "x"),
    ("{A: b}", "{type: convert_type, target_type: num}", "refused by the pipeline"),
    ("{A: b}", "{type: map_string, mapping: 5}", "cannot be applied"),
]


@pytest.mark.parametrize(("detection", "transformation", "reason"), REFUSED_RULES)
def test_what_a_pipeline_makes_impossible_is_refused(
    tmp_path: Path, detection: str, transformation: str, reason: str
) -> None:
    pipeline = load_pipelines([write(tmp_path, f"transformations:\n  - {transformation}\n")])
    refusal = compile_rule(write_rule(tmp_path, f"sel: {detection}"), None, pipeline)
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason
    assert refusal.line in {5, 6}


def test_pipelines_are_joined_by_priority_then_by_name(tmp_path: Path) -> None:
    def suffix(letter: str, priority: int) -> str:
        return f"priority: {priority}\ntransformations:\n  - {{type: field_name_suffix, suffix: {letter}}}\n"

    folder = tmp_path / "pipelines"
    write(folder, suffix("b", 20), "a.yml")
    write(folder, suffix("c", 20), "sub/b.yaml")
    write(folder, "not a pipeline", "README.md")
    first = write(tmp_path, suffix("a", 10), "z.yml")
    compiled = compile_rule(write_rule(tmp_path, "sel: {F: x}"), None, load_pipelines([folder, str(first)]))
    assert isinstance(compiled, CompiledRule)
    assert fields(compiled) == {"Fabc"}


def test_installed_pipelines_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = write_rule(tmp_path, "sel: {Image: x}")
    with monkeypatch.context() as patch:
        patch.setattr(pipelines, "_installed", lambda: {"mine": lambda: ProcessingPipeline.from_yaml(MAPPING)})
        compiled = compile_rule(rule, None, load_pipelines(["mine"]))
    assert isinstance(compiled, CompiledRule)
    assert fields(compiled) == {"process.executable"}
    # pySigma's own sample, which it lists only under pytest
    with pytest.raises(PipelineError, match=r"another_test: this pipeline is for other backends"):
        load_pipelines(["another_test"])


def test_no_pipeline_changes_nothing(tmp_path: Path) -> None:
    rule = write_rule(tmp_path, "sel: {Image: x}")
    plain, piped = compile_rule(rule), compile_rule(rule, None, load_pipelines([]))
    assert isinstance(plain, CompiledRule)
    assert isinstance(piped, CompiledRule)
    assert plain.expression == piped.expression


UNUSABLE = [
    ("[]", "YAML map"),
    ("", "0 YAML documents"),
    ("priority: 1\npriority: 2", "p.yml:2: key 'priority' is given twice"),
    ("{", "not YAML"),
    ("a: b: c", "p.yml:1: not YAML"),
    ("nonsense: 1", "nonsense"),
    ("transformations: 5", "wrong shape"),
    ("transformations:\n  - {type: nothing}", "nothing"),
    ("transformations:\n  - 5", "wrong shape"),
    ("transformations:\n  - {type: field_name_mapping}", "mapping"),
    ("transformations:\n  - {type: query_expression_placeholders, expression: x}", "query expressions"),
    ("transformations:\n  - {type: nest, items: [{type: query_expression_placeholders}]}", "transformation 1.1"),
    ("transformations:\n  - {type: command_placeholders, cmd: id}", "from outside"),
    ("transformations:\n  - {type: http_placeholders, url: 'http://127.0.0.1/'}", "from outside"),
    ("postprocessing:\n  - {type: embed, prefix: x}", "postprocessing"),
    ("finalizers:\n  - {type: concat}", "finalizers"),
    ("allowed_backends: [splunk]", "other backends (splunk)"),
    ("!!python/object:os.system {}", "not YAML"),
]


@pytest.mark.parametrize(("text", "reason"), UNUSABLE)
def test_unusable_pipelines_are_one_line_with_the_file(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(PipelineError) as error:
        load_pipelines([write(tmp_path, text)])
    assert reason in str(error.value)
    assert "p.yml" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"nosuch: no pipeline file.*installed: .*another_test"):
        load_pipelines(["nosuch"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(PipelineError, match="no pipeline in this folder"):
        load_pipelines([tmp_path / "empty"])
    (tmp_path / "latin.yml").write_bytes(b"a: 1\nname: \xe9\n")
    with pytest.raises(PipelineError, match=r"latin.yml:2: not UTF-8"):
        load_pipelines([tmp_path / "latin.yml"])
    (tmp_path / "big.yml").write_bytes(b" " * (1 << 21))
    with pytest.raises(PipelineError, match="too large"):
        load_pipelines([tmp_path / "big.yml"])


def test_the_plan_is_that_of_rules_written_for_the_mapped_names(tmp_path: Path) -> None:
    rule = write_rule(tmp_path, "sel: {Image|endswith: '.exe'}\nfilter: {User: system}", "sel and not filter")
    plan = Plan.build([rule], None, load_pipelines([write(tmp_path, MAPPING)]))
    events: list[dict[str, str | None]] = [
        {"process.executable": "a.EXE", "User": "ann"},
        {"process.executable": "a.exe", "User": "SYSTEM"},
        {"Image": "a.exe"},
    ]
    assert plan.match(frame_of(events)).get_column("event_id").equals(pl.Series("event_id", ["e0"]))

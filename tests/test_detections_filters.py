"""Filters: which rules they reach, what they do there, and what is refused, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sigma.collection import SigmaCollection
from sigma.processing.pipeline import ProcessingPipeline

from detections.atoms import atoms_of
from detections.compile import CompiledRule, compile_rule
from detections.condition import Joined, Named
from detections.load import load_rules
from detections.plan import Plan
from detections.rule import Refusal, Rule, RulePack
from detections.rule_tests import event_frame
from ingest.logsource import LogSource

A, B, C = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
PROCESS = LogSource("windows", "process_creation", "sysmon")

RULES = f"""title: Process
id: {A}
name: process
logsource: {{product: windows, category: process_creation}}
detection:
  sel: {{Image|endswith: cmd.exe}}
  sel_two: {{CommandLine|contains: whoami}}
  condition: 1 of sel* or all of them
---
title: Security
id: {B}
logsource: {{product: windows, service: security}}
detection: {{sel: {{EventID: 4625}}, condition: sel}}
---
title: Linux
id: {C}
name: linux
logsource: {{product: linux}}
detection: {{words: [backdoor], condition: words}}
"""


def filter_text(
    rules: str = "any",
    condition: str = "not selection",
    logsource: str = "{product: windows}",
    detections: str = "selection: {User|startswith: adm_}",
) -> str:
    """A filter with logsource on line 2, rules on 4, detections on 5, condition on 6."""
    return (
        f"title: Administrators\nlogsource: {logsource}\nfilter:\n  rules: {rules}\n"
        f"  {detections}\n  condition: {condition}\n"
    )


def load(folder: Path, *filters: str, rules: str = RULES) -> RulePack:
    (folder / "m_rules.yml").write_text(rules)
    for number, text in enumerate(filters):
        (folder / f"{number}.yml").write_text(text)  # files of filters come first
    return load_rules([folder])


def filtered(pack: RulePack) -> list[str]:
    return [rule.title for rule in pack.rules if rule.filters]


def matches(rule: Rule, event: dict[str, str], source: LogSource = PROCESS) -> bool:
    plan = Plan.build([rule])
    assert plan.refused == ()
    return bool(plan.match(event_frame(event, source)).height)


def test_a_filter_takes_matches_away(tmp_path: Path) -> None:
    pack = load(tmp_path, filter_text("process"))
    assert pack.refused == ()
    assert pack.remarks == ()
    assert filtered(pack) == ["Process"]
    process = pack.rules[0]
    assert process.filters == ("Administrators",)
    assert matches(process, {"Image": "cmd.exe", "User": "bob"})
    assert matches(process, {"Image": "cmd.exe"})
    assert not matches(process, {"Image": "cmd.exe", "User": "ADM_bob"})
    assert not matches(process, {"User": "bob"})


def test_names_of_filters_clash_with_nothing_and_patterns_do_not_reach_them(tmp_path: Path) -> None:
    detections = "sel: {User: a}\n  sel_two: {User: b}\n  _filter_1_sel: {User: c}"
    pack = load(tmp_path, filter_text("process", "not 1 of them and not _filter_1_sel", detections=detections))
    (rule, *_) = pack.rules
    assert list(rule.sigma.detection.detections) == [
        *("sel", "sel_two", "_filter_1_sel", "_filter_1_sel_two", "_filter_1__filter_1_sel")
    ]
    assert rule.sigma.detection.condition == [
        "(1 of sel* or all of them) and ((not (_filter_1_sel or _filter_1_sel_two)) and (not _filter_1__filter_1_sel))"
    ]
    assert matches(rule, {"Image": "cmd.exe"})  # `all of them` of the rule is still of two detections
    assert matches(rule, {"CommandLine": "whoami", "User": "d"})
    assert not any(matches(rule, {"Image": "cmd.exe", "User": user}) for user in "abc")


def test_a_name_that_a_condition_cannot_spell(tmp_path: Path) -> None:
    detections = "'a (b': {User: a}\n  'a _b': {User: b}"
    rule = load(tmp_path, filter_text("process", "not 1 of them", detections=detections)).rules[0]
    assert list(rule.sigma.detection.detections)[2:] == ["_filter_1_a__b", "_filter_1_a__b_"]
    assert [matches(rule, {"Image": "cmd.exe", "User": user}) for user in "abc"] == [False, False, True]


def test_several_filters_and_several_conditions(tmp_path: Path) -> None:
    rules = RULES.replace("condition: 1 of sel* or all of them", "condition: [sel, sel_two]")
    second = filter_text(f"[{A}, linux]", logsource="{category: process_creation}").replace("User", "Host")
    pack = load(tmp_path, filter_text(), second, rules=rules)
    process, security, linux = pack.rules
    assert (process.filters, security.filters, linux.filters) == (("Administrators",) * 2, ("Administrators",), ())
    assert process.sigma.detection.condition == [
        f"({name}) and (not _filter_1_selection) and (not _filter_2_selection)" for name in ("sel", "sel_two")
    ]
    assert not matches(process, {"CommandLine": "whoami", "Host": "adm_1"})
    assert not matches(process, {"CommandLine": "whoami", "User": "adm_1"})
    assert matches(process, {"CommandLine": "whoami"})


def test_hundreds_of_filters_on_a_rule(tmp_path: Path) -> None:
    text = "---\n".join(filter_text().replace("adm_", f"adm{number}_") for number in range(300))
    rule = load(tmp_path, text).rules[0]
    assert isinstance(compile_rule(rule), CompiledRule)
    assert not matches(rule, {"Image": "cmd.exe", "User": "adm299_x"})


def test_the_digest_changes_with_the_filter(tmp_path: Path) -> None:
    digests = {
        load(tmp_path, text).rules[0].digest
        for text in (
            filter_text("linux", logsource="{product: linux}"),  # does not reach it
            filter_text(),
            "# a comment\n" + filter_text(),
            filter_text().replace("adm_", "adm"),
            filter_text(condition="selection"),
        )
    }
    assert len(digests) == 4


LOG_SOURCES = [
    ("{product: windows}", ["Process", "Security"]),
    ("{category: process_creation}", ["Process"]),
    ("{product: windows, category: process_creation}", ["Process"]),
    ("{product: windows, service: security}", ["Security"]),
    ("{product: windows, category: process_creation, service: sysmon}", []),
    ("{product: Windows}", []),
    ("{product: linux}", ["Linux"]),
    ("{product: linux, definition: x}", ["Linux"]),
]


@pytest.mark.parametrize(("logsource", "titles"), LOG_SOURCES)
def test_a_filter_reaches_rules_within_its_log_source_as_in_pysigma(
    tmp_path: Path, logsource: str, titles: list[str]
) -> None:
    pack = load(tmp_path, filter_text(logsource=logsource))
    assert filtered(pack) == titles
    theirs = SigmaCollection.from_yaml(RULES + "---\n" + filter_text(logsource=logsource))
    assert [rule.title for rule in theirs.rules if len(rule.detection.detections) > 2] == [  # type: ignore[union-attr]
        title for title in titles if title == "Process"
    ]
    assert bool(pack.remarks) == (not titles)


@pytest.mark.parametrize("rules", ["any", "ANY", f"[{A}, {B}]", "[process, " + B + "]"])
def test_rules_are_named_by_id_or_name_or_all_at_once(tmp_path: Path, rules: str) -> None:
    assert filtered(load(tmp_path, filter_text(rules))) == ["Process", "Security"]


FAULTS: list[tuple[str, int, str]] = [
    ("title: F\nlogsource: {product: windows}\nfilter: []\n", 3, "filter is a map"),
    ("title: F\nlogsource: {product: windows}\nfilter: {}\n", 3, "a filter has rules: a list of ids or names, or any"),
    (filter_text().replace("title: Administrators", "title: 3"), 1, "title"),
    (filter_text("[]"), 4, "a filter has rules: a list of ids or names, or any"),
    (filter_text("{process: x}"), 4, "a filter has rules"),
    (filter_text("null"), 4, "a filter has rules"),
    (filter_text("[process, 5]"), 4, "and not of 5"),
    (filter_text("gone"), 4, "no rule has the id or name 'gone'"),
    (filter_text("Process"), 4, "a title is no reference: refer to process"),
    (filter_text("often"), 4, "'often' is a correlation, and a filter is for the rules that it refers to"),
    (filter_text(condition="[selection]"), 6, "a filter has one condition, a text"),
    (filter_text().replace("  condition: not selection\n", ""), 3, "a filter has one condition"),
    (filter_text(condition="not gone"), 6, "names 'gone', which the rule does not define"),
    (filter_text(condition="not 1 of filter*"), 6, "no detection is named like 'filter*'"),
    (filter_text(condition="not (selection"), 6, "not closed"),
    (filter_text(logsource="{}"), 2, "log source"),
    (filter_text().replace("logsource: {product: windows}\n", "level: low\n"), 1, "log source"),
    (filter_text(detections="timeframe: 5m"), 3, "No detections"),
    (filter_text(detections="selection: {}"), 5, "empty"),
    (filter_text(detections="selection: {A|foo: x}"), 5, "selection: Unknown modifier 'foo'"),
    (filter_text(detections="selection: {A|re: '(a'}"), 5, "(a"),
    (filter_text(detections="selection: []"), 5, "empty"),
    (filter_text(detections="selection: ['*']"), 5, "an empty keyword would match every event"),
    (filter_text().replace("title:", "id: 5\ntitle:"), 1, "an id is text"),
    (filter_text() + "detection: {}\n", 3, "a document with filter is a filter"),
]


@pytest.mark.parametrize(("text", "line", "reason"), FAULTS)
def test_a_fault_is_named_and_the_rules_stay_as_they_are(tmp_path: Path, text: str, line: int, reason: str) -> None:
    often = "title: O\nname: often\ncorrelation: {type: temporal, rules: [process, linux], timespan: 5m}\n"
    (tmp_path / "z.yml").write_text(often)
    pack = load(tmp_path, text)
    assert (len(pack.rules), filtered(pack), pack.filters) == (3, [], ())
    (refusal,) = pack.refused
    assert reason in refusal.reason
    assert (refusal.path, refusal.line) == (tmp_path / "0.yml", line)


REMARKS: list[tuple[str, int, str]] = [
    (filter_text(f"[gone, {A}]"), 4, "no rule has the id or name 'gone'; it is for the other rules"),
    (filter_text(f"[{A}, linux]"), 4, "rule 'Linux' has log source linux/_/_, not within windows/_/_"),
    (filter_text("linux"), 2, "none of its rules has a log source within windows/_/_: it does nothing"),
    (filter_text(logsource="{product: aix}"), 2, "no rule has a log source within aix/_/_: it does nothing"),
    (filter_text(condition="selection"), 6, "an exception is written `not selection`"),
]


@pytest.mark.parametrize(("text", "line", "reason"), REMARKS)
def test_remarks(tmp_path: Path, text: str, line: int, reason: str) -> None:
    pack = load(tmp_path, text)
    assert (pack.refused, len(pack.filters)) == ((), 1)
    (remark,) = pack.remarks
    assert reason in remark.reason
    assert (remark.path, remark.line, remark.rule) == (tmp_path / "0.yml", line, "Administrators")


def test_the_example_of_the_specification_keeps_what_its_condition_says(tmp_path: Path) -> None:
    rule = load(tmp_path, filter_text(f"[{A}]", condition="selection")).rules[0]
    assert matches(rule, {"Image": "cmd.exe", "User": "adm_bob"})
    assert not matches(rule, {"Image": "cmd.exe", "User": "bob"})


def test_a_broken_condition_is_not_made_whole_by_a_filter(tmp_path: Path) -> None:
    rules = RULES.replace("condition: 1 of sel* or all of them", "condition: sel) or (sel_two")
    rule = load(tmp_path, filter_text(), rules=rules).rules[0]
    assert rule.filters == ()
    refusal = compile_rule(rule)
    assert isinstance(refusal, Refusal)
    assert "unexpected ')'" in refusal.reason


def test_a_filter_may_need_placeholders_that_are_known_later(tmp_path: Path) -> None:
    rule = load(tmp_path, filter_text(detections="selection: {User|expand: '%admins%'}")).rules[0]
    assert isinstance(compile_rule(rule, {"admins": ["root"]}), CompiledRule)
    refusal = compile_rule(rule)
    assert isinstance(refusal, Refusal)
    assert "placeholder %admins% has no values here" in refusal.reason


def test_values_of_filters_are_amended_as_those_of_rules(tmp_path: Path) -> None:
    rule = load(tmp_path, filter_text(detections="selection: {Ip|cidr: 10.1.2.3/8}\n  timeframe: 5m")).rules[0]
    assert not matches(rule, {"Image": "cmd.exe", "Ip": "10.9.9.9"})
    assert matches(rule, {"Image": "cmd.exe", "Ip": "11.9.9.9"})


def test_a_pipeline_changes_the_filter_of_each_rule_once(tmp_path: Path) -> None:
    prefix = "transformations: [{id: prefix, type: field_name_prefix, prefix: win.}]"
    for rule in load(tmp_path, filter_text()).rules[:2]:
        compiled = compile_rule(rule, pipeline=ProcessingPipeline.from_yaml(prefix))
        assert isinstance(compiled, CompiledRule)
        fields = {atom.field for atom in atoms_of(compiled.expression)}
        assert "win.User" in fields
        assert all(str(field).count("win.") == 1 for field in fields)


def test_a_filter_takes_nothing_from_global_and_can_be_repeated(tmp_path: Path) -> None:
    text = (
        "action: global\nlogsource: {product: linux}\n---\n" + filter_text() + "---\n"
        "action: repeat\ntitle: Hosts\nfilter: {selection: {User|startswith: svc_}}\n"
    )
    pack = load(tmp_path, text)
    assert pack.refused == ()
    assert [item.title for item in pack.filters] == ["Administrators", "Hosts"]
    assert [item.logsource for item in pack.filters] == [LogSource("windows")] * 2
    assert pack.filters[1].tree == Joined("not", (Named("selection"),))
    for user, matched in (("adm_a", False), ("svc_a", False), ("a", True)):
        assert matches(pack.rules[0], {"Image": "cmd.exe", "User": user}) == matched


CONDITIONS = st.recursive(
    st.sampled_from(["one", "two", "one_more", "1 of one*", "all of them", "1 of them"]),
    lambda parts: st.one_of(
        parts.map("not ({})".format),
        st.tuples(parts, st.sampled_from(["and", "or", "AND"]), parts).map("({0[0]}) {0[1]} {0[2]}".format),
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(condition=CONDITIONS, event=st.fixed_dictionaries({name: st.sampled_from("xyz") for name in "ABC"}))
def test_a_rule_with_a_filter_is_the_rule_and_the_filter(tmp_path: Path, condition: str, event: dict[str, str]) -> None:
    detections = "one: {A: x}\n  two: {B: x}\n  one_more: {C: x}"
    rules = RULES.replace("{EventID: 4625}", "{A: [x, y]}")
    pack = load(tmp_path, filter_text(B, condition, detections=detections), rules=rules)
    body = detections.replace("\n  ", "\n    ")
    alone = (
        f"title: Alone\nlogsource: {{product: windows}}\ndetection:\n    {body}\n"
        f"    rule: {{A: [x, y]}}\n    condition: rule and ({condition})\n"
    )
    names = {"all of them": "(one and two and one_more)", "1 of them": "(one or two or one_more)"}
    for pattern, written in names.items():
        alone = alone.replace(pattern, written)
    folder = tmp_path / "alone"
    folder.mkdir(exist_ok=True)
    (folder / "alone.yml").write_text(alone)
    (expected,) = load_rules([folder]).rules
    source = LogSource("windows", None, "security")
    joined = next(rule for rule in pack.rules if rule.id == B)
    compiled = [compile_rule(joined), compile_rule(expected)]
    if pack.refused or any(isinstance(item, Refusal) for item in compiled):
        return  # true, or false, for every event
    assert matches(joined, event, source) == matches(expected, event, source)

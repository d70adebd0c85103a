"""Correlations as loaded: what the specification's examples mean, and what is refused, with its line."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detections.condition import (
    ConditionError,
    Joined,
    Named,
    Tree,
    condition_text,
    is_true,
    names_in,
    parse_condition,
    rename,
)
from detections.correlation_load import satisfiable
from detections.correlation_resolve import rules_below, silenced_by
from detections.correlation_rule import CorrelationCondition, CorrelationOperator, CorrelationRule
from detections.load import load_rules
from detections.rule import RulePack

A, B, C = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))


def rule(number: int, name: str | None) -> str:
    named = f"name: {name}\n" if name else ""
    return (
        f"title: Rule {number}\nid: 00000000-0000-4000-8000-00000000000{number}\n{named}"
        "logsource: {product: windows}\ndetection: {sel: {EventID: 1}, condition: sel}\n"
    )


RULES = "---\n".join([rule(1, "rule_a"), rule(2, "rule_b"), rule(3, "other")])


def write(folder: Path, text: str, name: str = "correlation.yml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def load(folder: Path, *texts: str) -> RulePack:
    """Three rules, and each text as a file of its own."""
    write(folder, RULES, "z_rules.yml")
    for number, text in enumerate(texts):
        write(folder, text, f"{number:05}.yml")
    return load_rules([folder])


def one(folder: Path, text: str) -> CorrelationRule:
    pack = load(folder, text)
    assert pack.refused == ()
    (correlation,) = pack.correlations
    return correlation


def body(*lines: str, title: str = "Many") -> str:
    """A correlation whose `correlation:` is line 2, with these lines from line 3 on."""
    return f"title: {title}\ncorrelation:\n" + "".join(f"  {line}\n" for line in lines)


COUNT = ("type: event_count", "rules: [rule_a]", "timespan: 5m", "condition: {gte: 3}")


def test_a_correlation_has_what_the_file_says(tmp_path: Path) -> None:
    text = (
        "title: Many\nid: 0E95725D-7320-415D-80F7-004DA920FC11\nname: many\nlevel: high\nstatus: test\n"
        "tags: [attack.t1110]\ncorrelation:\n  type: event_count\n  rules:\n    - rule_a\n    - " + B + "\n"
        "  group-by: [Computer, User, User]\n  timespan: 1h\n  condition:\n    gt: 100\n    lte: 200.0\n"
        "  generate: true\n"
    )
    correlation = one(tmp_path, text)
    expected = CorrelationRule(
        id="0e95725d-7320-415d-80f7-004da920fc11",
        name="many",
        title="Many",
        level="high",
        status="test",
        tags=("attack.t1110",),
        kind="event_count",
        references=(A, B),
        names={A: "rule_a", B: B},
        group_by=("Computer", "User"),
        aliases={},
        timespan=timedelta(hours=1),
        condition=CorrelationCondition((("gt", 100), ("lte", 200))),
        expression=None,
        generate=True,
        path=tmp_path / "00000.yml",
        digest=correlation.digest,
        lines={},
    )
    assert correlation == expected
    assert (correlation.lines["correlation.rules.1"], correlation.lines["correlation.condition.lte"]) == (11, 16)


def test_without_an_id_it_gets_one_that_stays(tmp_path: Path) -> None:
    first = one(tmp_path, body(*COUNT))
    assert one(tmp_path, "level: low\n" + body(*COUNT)).id == first.id
    assert one(tmp_path, "name: many\n" + body(*COUNT)).id != first.id
    assert (first.level, first.status, first.name, first.generate) == ("medium", "", None, False)


def test_digest_is_of_the_content_and_of_the_rules_it_means(tmp_path: Path) -> None:
    first = one(tmp_path, body(*COUNT))
    assert one(tmp_path, "# a comment\n" + body(*COUNT)).digest == first.digest
    assert one(tmp_path, body(*COUNT).replace("5m", "6m")).digest != first.digest
    write(tmp_path, RULES.replace("rule_a", "rule_x").replace("rule_b", "rule_a"), "z_rules.yml")
    write(tmp_path, body(*COUNT), "00000.yml")
    (moved,) = load_rules([tmp_path]).correlations
    assert moved.references == (B,)
    assert moved.digest != first.digest


TIMESPANS = [("30s", 30), ("90m", 5400), ("24h", 86400), ("2d", 172800), ("1w", 604800), ("30d", 2592000), ("007s", 7)]


@pytest.mark.parametrize(("text", "seconds"), TIMESPANS)
def test_timespans(tmp_path: Path, text: str, seconds: int) -> None:
    assert one(tmp_path, body(*COUNT).replace("5m", text)).timespan == timedelta(seconds=seconds)


CONDITIONS: list[tuple[str, str, CorrelationCondition]] = [
    ("event_count", "{eq: 3}", CorrelationCondition((("eq", 3),))),
    ("event_count", "{neq: 3}", CorrelationCondition((("neq", 3),))),
    ("event_count", "{gte: 2.5}", CorrelationCondition((("gte", 2.5),))),
    ("event_count", "{gte: '10'}", CorrelationCondition((("gte", 10),))),
    ("event_count", "{lt: 5, gt: 1, neq: 3}", CorrelationCondition((("lt", 5), ("gt", 1), ("neq", 3)))),
    ("value_count", "{field: User, gte: 10}", CorrelationCondition((("gte", 10),), ("User",))),
    ("value_count", "{field: [User, Host], gte: 10}", CorrelationCondition((("gte", 10),), ("User", "Host"))),
    ("value_sum", "{field: Bytes, gt: 50000}", CorrelationCondition((("gt", 50000),), ("Bytes",))),
    ("value_avg", "{field: [Bytes], lt: -0.5}", CorrelationCondition((("lt", -0.5),), ("Bytes",))),
    ("value_median", "{field: Bytes, gt: 0, lt: 1}", CorrelationCondition((("gt", 0), ("lt", 1)), ("Bytes",))),
    ("value_percentile", "{field: B, gte: 9, percentile: 95}", CorrelationCondition((("gte", 9),), ("B",), 95)),
    ("value_percentile", "{field: B, gte: 9, percentile: 99.5}", CorrelationCondition((("gte", 9),), ("B",), 99.5)),
    ("TEMPORAL", "{gte: 2}", CorrelationCondition((("gte", 2),))),
    ("temporal_ordered", "{gt: 1}", CorrelationCondition((("gt", 1),))),
]


@pytest.mark.parametrize(("kind", "condition", "expected"), CONDITIONS)
def test_conditions(tmp_path: Path, kind: str, condition: str, expected: CorrelationCondition) -> None:
    text = body(f"type: {kind}", "rules: [rule_a, rule_b, other]", "timespan: 5m", f"condition: {condition}")
    correlation = one(tmp_path, text)
    assert (correlation.kind, correlation.condition) == (kind.lower(), expected)


@pytest.mark.parametrize("kind", ["temporal", "temporal_ordered"])
def test_a_temporal_type_without_condition_needs_all_rules(tmp_path: Path, kind: str) -> None:
    correlation = one(tmp_path, body(f"type: {kind}", "rules: [rule_b, rule_a]", "timespan: 5m", "group-by: User"))
    assert correlation.condition == CorrelationCondition((("gte", 2),))
    assert (correlation.references, correlation.group_by, correlation.expression) == ((B, A), ("User",), None)


def test_one_rule_need_not_be_a_list(tmp_path: Path) -> None:
    assert one(tmp_path, body(*COUNT).replace("[rule_a]", A.replace("-", "").upper())).references == (A,)


EXPRESSIONS: list[tuple[str, Tree]] = [
    ("rule_a and rule_b", Joined("and", (Named("rule_a"), Named("rule_b")))),
    ("rule_a AND NOT rule_b", Joined("and", (Named("rule_a"), Joined("not", (Named("rule_b"),))))),
    (f"{A} or rule_b", Joined("or", (Named("rule_a"), Named("rule_b")))),
    ("1 of rule_*", Joined("or", (Named("rule_a"), Named("rule_b")))),
    ("all of them", Joined("and", (Named("rule_a"), Named("rule_b")))),
    ("1 of 00000000*", Joined("or", (Named("rule_a"), Named("rule_b")))),
    ("(rule_b)  or (rule_a)", Joined("or", (Named("rule_b"), Named("rule_a")))),
]


@pytest.mark.parametrize("kind", ["temporal", "temporal_ordered", "temporal_extended", "temporal_ordered_extended"])
@pytest.mark.parametrize(("condition", "tree"), EXPRESSIONS)
def test_conditions_over_rules(tmp_path: Path, kind: str, condition: str, tree: Tree) -> None:
    text = body(f"type: {kind}", "rules: [rule_a, rule_b]", "timespan: 5m", f"condition: {condition}")
    correlation = one(tmp_path, text)
    assert (correlation.kind, correlation.condition) == (kind.removesuffix("_extended"), None)
    assert correlation.expression == tree


def test_a_condition_may_name_the_rules_itself(tmp_path: Path) -> None:
    text = body("type: temporal", "timespan: 5m", f"condition: other and ({A} or rule_b) and not rule_b")
    correlation = one(tmp_path, text)
    assert correlation.references == (C, A, B)
    assert correlation.names == {C: "other", A: A, B: "rule_b"}


def test_aliases_of_the_specification(tmp_path: Path) -> None:
    text = """title: Internal error followed by a new connection
correlation:
    type: temporal
    rules:
        - rule_a
        - rule_b
    group-by:
        - internal_ip
        - remote_ip
    timespan: 10s
    aliases:
        internal_ip:
            rule_a: destination.ip
            rule_b: source.ip
        remote_ip:
            rule_a: source.ip
            rule_b: destination.ip
"""
    correlation = one(tmp_path, text)
    assert correlation.aliases["internal_ip"] == {A: "destination.ip", B: "source.ip"}
    assert correlation.field_of("remote_ip", B) == "destination.ip"
    assert correlation.field_of("Host", B) == "Host"


def test_generate_stands_beside_or_within_correlation(tmp_path: Path) -> None:
    assert one(tmp_path, body(*COUNT) + "generate: true\n").generate
    assert one(tmp_path, body(*COUNT, "generate: true")).generate
    assert not one(tmp_path, body(*COUNT, "generate: false") + "generate: false\n").generate


TEMPORAL = ("type: temporal", "rules: [rule_a, rule_b]", "timespan: 5m")
VALUE = ("type: value_sum", "rules: [rule_a]", "timespan: 5m")

FAULTS: list[tuple[str, int, str]] = [
    ("title: T\ncorrelation: []\n", 2, "correlation is a map"),
    ("title: T\ncorrelation: null\n", 2, "correlation is a map"),
    ("title: T\ncorrelation: {}\n", 2, "there is no type; known: event_count"),
    ("level: high\ncorrelation: {type: event_count}\n", 1, "title"),
    ("title: T\nlevel: huge\ncorrelation: {}\n", 2, "huge"),
    ("title: T\nid: 5\ncorrelation: {}\n", 2, "an id is text"),
    ("title: T\nname: ''\ncorrelation: {}\n", 2, "name"),
    (body("type: event_sum", *COUNT[1:]), 3, "unknown type 'event_sum'"),
    (body("type: [temporal]", *COUNT[1:]), 3, "unknown type ['temporal']"),
    (body("type: event_count", *COUNT[2:]), 2, "there are no rules"),
    (body(COUNT[0], "rules: []", *COUNT[2:]), 4, "there are no rules"),
    (body(COUNT[0], "rules: {rule_a: 1}", *COUNT[2:]), 4, "rules is a text or a list of texts"),
    (body(COUNT[0], "rules: [rule_a, 5]", *COUNT[2:]), 4, "and not 5"),
    (body(COUNT[0], "rules: [' ']", *COUNT[2:]), 4, "and not ' '"),
    (body(COUNT[0], "rules:", "  - rule_a", "  - gone", *COUNT[2:]), 6, "no rule has the id or name 'gone'"),
    (body(COUNT[0], "rules: Rule 1", *COUNT[2:]), 4, "a title is no reference: refer to rule_a"),
    (body(*COUNT[:2], COUNT[3]), 2, "there is no timespan"),
    *(
        (body(*COUNT).replace("5m", span), 5, reason)
        for span, reason in [
            ("0s", "longer than nothing"),
            ("-5m", "is not a whole number and one of"),
            ("5", "timespan 5 is not a whole number"),
            ("5 m", "is not a whole number"),
            ("5M5", "is not a whole number"),
            ("1.5h", "is not a whole number"),
            ("5µ", "is not a whole number"),
            ("٥m", "is not a whole number"),
            ("[5m]", "is not a whole number"),
            ("31d", "timespan 31d is longer than 30 days"),
            ("1M", "longer than 30 days"),
            ("999999999y", "longer than 30 days"),
            ("9999999999s", "is not a whole number"),
        ]
    ),
    (body(*COUNT[:3]), 2, "event_count needs a condition"),
    (body(*VALUE), 2, "value_sum needs a condition"),
    (body(*COUNT[:3], "condition: rule_a"), 6, "is for temporal types; that of event_count is a map"),
    (body(*COUNT[:3], "condition: [3]"), 6, "a condition is a map"),
    (body(*COUNT[:3], "condition: 3"), 6, "a condition is a map"),
    (body(*COUNT[:3], "condition: {}"), 6, "the condition has none of gt, gte"),
    (body(*COUNT[:3], "condition: {field: User}"), 6, "the condition has none of gt, gte"),
    (body(*COUNT[:3], "condition:", "  gte: 3", "  more: 4"), 8, "unknown in correlation condition: 'more'"),
    (body(*COUNT[:3], "condition: {greater: 4}"), 6, "unknown in correlation condition: 'greater'"),
    (body(*COUNT[:3], "condition: {ge: 4}"), 6, "did you mean gte?"),
    *(
        (body(*COUNT[:3], "condition:", f"  gte: {number}"), 7, "gte is a number, and not")
        for number in ("many", "true", "null", "[3]", ".nan", ".inf", "'1e999'", "''")
    ),
    *(
        (body(*COUNT[:3], f"condition: {{{bounds}}}"), 6, "can never be true of a count")
        for bounds in ("gte: 5, lt: 3", "gt: 3, lt: 4", "eq: 0", "lt: 1", "lte: 0", "eq: 2.5", "eq: 3, neq: 3")
    ),
    (body(*VALUE, "condition: {field: B, gt: 3, lt: 3}"), 6, "gt 3 and lt 3 can never be true"),
    (body(*VALUE, "condition: {gt: 3}"), 6, "the condition of value_sum needs a field"),
    (body(*VALUE, "condition: {gt: 3, field: []}"), 6, "needs a field"),
    (body(*VALUE, "condition: {gt: 3, field: [A, B]}"), 6, "only value_count counts combinations"),
    (body(*VALUE, "condition: {gt: 3, field: 5}"), 6, "field is a text or a list of texts"),
    (body(*COUNT[:3], "condition: {gte: 3, field: A}"), 6, "event_count counts matches and has no field"),
    (body(*TEMPORAL, "condition: {gte: 2, field: A}"), 6, "temporal counts matches and has no field"),
    (body(*VALUE, "condition: {gt: 3, field: A, percentile: 9}"), 6, "value_sum has no percentile"),
    *(
        (body("type: value_percentile", *VALUE[1:], f"condition: {{gt: 3, field: A{percentile}}}"), 6, reason)
        for percentile, reason in [
            ("", "needs a percentile, from 0 to 100"),
            (", percentile: 101", "percentile 101 is not from 0 to 100"),
            (", percentile: -1", "percentile -1 is not from 0 to 100"),
            (", percentile: high", "percentile is a number"),
        ]
    ),
    (body(*TEMPORAL, "condition: {gte: 3}"), 6, "only 2 rules are given"),
    (body(*TEMPORAL, "condition: rule_a"), 6, "'rule_b' is among the rules, and the condition never asks for it"),
    (body(*TEMPORAL, "condition: rule_a and rule_b and other"), 6, "'other', which is not among its rules"),
    (body(*TEMPORAL, "condition: rule_a and"), 6, "ends too early"),
    (body(*TEMPORAL, "condition: (rule_a or rule_b"), 6, "not closed"),
    (body(*TEMPORAL, "condition: 1 of sel*"), 6, "no rule is named like 'sel*'"),
    (body(*TEMPORAL, "condition: ''"), 6, "the condition is empty"),
    (body(*TEMPORAL, "condition: not rule_a and not rule_b"), 6, "would fire on silence"),
    (body(*TEMPORAL, "condition: rule_a or not rule_b"), 6, "would fire on silence"),
    (body(*TEMPORAL, "condition: rule_a and rule_b and not rule_a"), 6, "the condition can never be true"),
    (body(*TEMPORAL, "condition: " + "(" * 70 + "rule_a and rule_b" + ")" * 70), 6, "nests deeper"),
    (body(TEMPORAL[0], TEMPORAL[2], "condition: rule_a and gone"), 5, "no rule has the id or name 'gone'"),
    (body(TEMPORAL[0], TEMPORAL[2], "condition: 1 of rule_*"), 5, "no rules are given to choose from"),
    (body(TEMPORAL[0], TEMPORAL[2], "condition: ''"), 5, "the condition is empty"),
    (body(TEMPORAL[0], TEMPORAL[2]), 2, "there are no rules"),
    (body("type: temporal_ordered", f"rules: [rule_a, rule_b, {A}]", TEMPORAL[2]), 4, f"'{A}' is there twice"),
    (body(*COUNT, "group-by: [User, 5]"), 7, "group-by is a text or a list of texts, and not 5"),
    (body(*COUNT, "group-by: {User: 1}"), 7, "group-by is a text or a list of texts"),
    (body(*COUNT, "aliases: [a]"), 7, "aliases is a map of alias to rule to field"),
    (body(*COUNT, "aliases:", "  ip: source.ip"), 8, "alias 'ip' is not a map of rule to field"),
    (body(*COUNT, "aliases:", "  ip: {}"), 8, "alias 'ip' is not a map"),
    (body(*COUNT, "aliases:", "  5: {rule_a: x}"), 8, "alias 5 is not a map"),
    (body(*COUNT, "aliases:", "  ip: {rule_a: [x]}"), 8, "'rule_a': ['x'] is not a rule and a field"),
    (body(*COUNT, "aliases:", "  ip: {rule_b: x}"), 8, "names 'rule_b', which is not among the rules"),
    (body(*COUNT, "aliases:", "  ip: {gone: x}"), 8, "no rule has the id or name 'gone'"),
    (body(*COUNT, "aliases:", f"  ip: {{rule_a: x, {A}: y}}"), 8, "gives two fields"),
    (body(*COUNT, "generate: 'yes'"), 7, "generate is true or false"),
    (body(*COUNT) + "generate: 1\n", 7, "generate is true or false"),
    (body(*COUNT, "generate: false") + "generate: true\n", 7, "generate is both true and false"),
    (body(*COUNT, "group_by: User"), 7, "unknown in correlation: 'group_by' (did you mean group-by?)"),
    (body(*COUNT, "timeframe: 5m", "window: x"), 7, "'timeframe', 'window' (did you mean timespan?)"),
    (body(*COUNT) + "detection: {}\n", 2, "a document with correlation is a correlation"),
    (body(*COUNT, title="Me").replace("title: Me", "title: Me\nname: me").replace("rule_a", "me"), 5, "in a cycle"),
    (f"id: {A}\n" + body(*COUNT), 1, ""),
]


@pytest.mark.parametrize(("text", "line", "reason"), FAULTS)
def test_a_fault_is_named_and_the_others_load(tmp_path: Path, text: str, line: int, reason: str) -> None:
    good = body(*COUNT, title="Good")
    write(tmp_path, good + "---\n" + RULES, "a.yml")
    bad = write(tmp_path, text, "bad.yml")
    pack = load_rules([tmp_path])
    assert [correlation.title for correlation in pack.correlations] == ["Good"]
    assert len(pack.rules) == 3
    (refusal,) = pack.refused
    assert reason in refusal.reason
    assert (refusal.path, refusal.line) == (bad, line)


def test_a_reference_to_what_was_refused_says_so(tmp_path: Path) -> None:
    broken = rule(4, "broken").replace("condition: sel", "condition: []").replace("EventID", "EventID|foo")
    pack = load(
        tmp_path,
        broken,
        body(*COUNT).replace("rule_a", "broken"),
        body(*COUNT, title="T").replace("rule_a", A[:-1] + "4"),
    )
    assert pack.correlations == ()
    reasons = [refusal.reason for refusal in pack.refused[1:]]
    assert reasons == [
        f"it refers to 'broken', which was itself refused ({tmp_path / '00000.yml'}:5)",
        f"it refers to '{A[:-1]}4', which was itself refused ({tmp_path / '00000.yml'}:5)",
    ]


def test_a_name_of_two_rules_is_no_reference_and_their_ids_are(tmp_path: Path) -> None:
    again = rule(4, "rule_a")
    pack = load(tmp_path, again, body(*COUNT), body(*COUNT, title="By id").replace("rule_a", A))
    assert [correlation.title for correlation in pack.correlations] == ["By id"]
    (refusal,) = pack.refused
    assert refusal.reason.startswith("'rule_a' stands for 2 rules: 'Rule 4'")


def test_an_id_that_is_the_name_of_another_rule_is_no_reference(tmp_path: Path) -> None:
    text = rule(4, None).replace(A[:-1] + "4", "rule_a")
    pack = load(tmp_path, text, body(*COUNT))
    assert "'rule_a' stands for 2 rules" in pack.refused[0].reason


def test_the_second_of_two_with_one_id_is_refused(tmp_path: Path) -> None:
    write(tmp_path, f"id: {A}\nname: again\n" + body(*COUNT, title="T"), "zz.yml")
    write(tmp_path, body(*COUNT, title="U").replace("rule_a", "again"), "zzz.yml")
    pack = load(tmp_path, body(*COUNT), body(*COUNT).replace("5m", "6m"))
    assert [correlation.timespan for correlation in pack.correlations] == [timedelta(minutes=5)]
    assert [refusal.reason for refusal in pack.refused] == [
        f"its id is already that of 'Many' in {tmp_path / '00000.yml'}",
        f"its id is already that of 'Rule 1' in {tmp_path / 'z_rules.yml'}",
        f"it refers to 'again', which was itself refused ({tmp_path / 'zz.yml'}:1)",
    ]


def chain(number: int, *rules: str, timespan: str = "5m") -> str:
    count = ("type: event_count", f"rules: [{', '.join(rules)}]", f"timespan: {timespan}", "condition: {gte: 2}")
    return f"name: c{number}\n" + body(*count, title=f"C{number}")


def test_each_correlation_comes_after_those_it_refers_to(tmp_path: Path) -> None:
    pack = load(tmp_path, chain(1, "c2", "c3"), chain(2, "c3"), chain(3, "rule_a"))
    assert pack.refused == ()
    assert [correlation.name for correlation in pack.correlations] == ["c3", "c2", "c1"]
    by_id = {correlation.id: correlation for correlation in pack.correlations}
    assert rules_below(pack.correlations[2], by_id) == {A}


def test_cycles_are_refused_with_their_path_and_so_is_what_stands_on_them(tmp_path: Path) -> None:
    texts = [
        chain(1, "c2", "rule_a"),
        chain(2, "c3"),
        chain(3, "c1"),
        chain(4, "c2"),
        chain(5, "c4"),
        chain(6, "rule_a"),
    ]
    pack = load(tmp_path, *texts)
    assert [correlation.name for correlation in pack.correlations] == ["c6"]
    reasons = {str(refusal.rule)[:2]: refusal.reason for refusal in pack.refused}
    told = "correlations refer to one another in a cycle: "
    assert reasons == {
        "C1": told + "'C1' -> 'C2' -> 'C3' -> 'C1'",
        "C2": told + "'C2' -> 'C3' -> 'C1' -> 'C2'",
        "C3": told + "'C3' -> 'C1' -> 'C2' -> 'C3'",
        "C4": f"it refers to 'c2', which was itself refused ({tmp_path / '00001.yml'}:5)",
        "C5": f"it refers to 'c4', which was itself refused ({tmp_path / '00003.yml'}:5)",
    }


def test_two_cycles_and_what_is_between_them(tmp_path: Path) -> None:
    pack = load(tmp_path, chain(1, "c2"), chain(2, "c1", "c3"), chain(3, "c4"), chain(4, "c5"), chain(5, "c4"))
    assert pack.correlations == ()
    cyclic = [str(refusal.rule)[:2] for refusal in pack.refused if "in a cycle" in refusal.reason]
    assert sorted(cyclic) == ["C1", "C2", "C4", "C5"]


def test_thousands_of_correlations_in_a_cycle_or_a_chain_are_refused_in_time(tmp_path: Path) -> None:
    count = 3000
    cycle = "---\n".join(chain(number, f"c{(number + 1) % count}") for number in range(count))
    tail = "---\n".join(chain(number, f"c{number - 1}") for number in range(count, count + 500))
    write(tmp_path, cycle, "cycle.yml")
    write(tmp_path, tail, "tail.yml")
    started = process_time()
    pack = load_rules([tmp_path])
    assert process_time() - started < 15
    assert (len(pack.correlations), len(pack.refused)) == (0, count + 500)
    assert max(len(refusal.reason) for refusal in pack.refused) < 400
    assert f"({count} in all)" in pack.refused[0].reason


def test_correlations_on_one_another_are_bounded_in_number_and_in_time(tmp_path: Path) -> None:
    pack = load(tmp_path, *[chain(number, f"c{number - 1}" if number else "rule_a") for number in range(18)])
    assert len(pack.correlations) == 16
    assert [refusal.reason[:40] for refusal in pack.refused] == [
        "more than 16 correlations stand on one a",
        "it refers to 'c16', which was itself ref",
    ]
    for number in range(18):
        (tmp_path / f"{number:05}.yml").unlink()
    pack = load(tmp_path, chain(0, "rule_a", timespan="20d"), chain(1, "c0", timespan="11d"))
    assert len(pack.correlations) == 1
    assert "it looks back 31 days, 0:00:00, which is more than 30 days" in pack.refused[0].reason


def test_silenced_unless_some_correlation_generates(tmp_path: Path) -> None:
    pack = load(
        tmp_path,
        chain(1, "rule_a", "rule_b"),
        chain(2, "rule_b", "other"),
        "generate: true\n" + chain(3, "other", "c1"),
        chain(4, "c2", "rule_a"),
    )
    by_name = {correlation.name: correlation.id for correlation in pack.correlations}
    assert silenced_by(pack) == {A: ("C1", "C4"), B: ("C1", "C2"), by_name["c2"]: ("C4",)}


def test_a_refused_correlation_silences_nothing(tmp_path: Path) -> None:
    assert silenced_by(load(tmp_path, body(*COUNT[:3]))) == {}


def test_remarks(tmp_path: Path) -> None:
    lines = ("group-by: [ip]", "aliases: {ip: {rule_a: source.ip}, unused: {rule_a: x, rule_b: y}}")
    pack = load(tmp_path, body("type: temporal", f"rules: [rule_a, rule_b, {A}]", "timespan: 5m", *lines))
    assert pack.refused == ()
    assert pack.correlations[0].references == (A, B)
    assert [(item.line, item.reason) for item in pack.remarks] == [
        (4, f"'{A}' is there twice and counts once"),
        (4, "alias 'ip' names no field of 'rule_b'; there the field 'ip' itself is read"),
        (4, "alias 'unused' is in no group-by and does nothing"),
    ]


def test_an_alias_may_be_of_a_correlation_and_of_a_counted_field(tmp_path: Path) -> None:
    count = ("type: value_count", "rules: [c1, rule_b]", "timespan: 5m", "condition: {field: who, gte: 2}")
    aliases = "aliases: {who: {c1: User, rule_b: TargetUserName}}"
    pack = load(tmp_path, chain(1, "rule_a"), body(*count, aliases))
    assert (pack.refused, pack.remarks) == ((), ())
    inner, outer = pack.correlations
    assert outer.field_of("who", inner.id) == "User"


def test_the_collection_actions_reach_rules_and_not_correlations(tmp_path: Path) -> None:
    text = (
        "action: global\nlevel: critical\nlogsource: {product: windows}\n"
        "detection: {sel: {A: x}, condition: sel}\n---\n"
        f"title: First\nname: first\n---\n{body(*COUNT).replace('rule_a', 'first')}---\n"
        "action: repeat\ntitle: Second\nname: second\n---\n"
        "action: repeat\ntitle: Slow\ncorrelation: {timespan: 1h}\n"
    )
    pack = load_rules([write(tmp_path, text)])
    assert pack.refused == ()
    assert [(item.title, item.level) for item in pack.rules] == [("First", "critical"), ("Second", "critical")]
    assert [(item.title, item.level, item.timespan) for item in pack.correlations] == [
        ("Many", "medium", timedelta(minutes=5)),
        ("Slow", "medium", timedelta(hours=1)),
    ]


def test_a_correlation_is_not_shared(tmp_path: Path) -> None:
    pack = load_rules([write(tmp_path, "action: global\ntitle: T\ncorrelation: {timespan: 5m}\n---\n" + RULES)])
    assert [refusal.reason for refusal in pack.refused] == [
        "rules share no correlation: it stands in a document of its own"
    ]
    assert len(pack.rules) == 3


def test_the_example_of_the_specification(tmp_path: Path) -> None:
    failed, success = rule(1, "failed_login"), rule(2, "successful_login")
    text = "---\n".join(
        [
            "level: high\n"
            + body("type: temporal_ordered", "rules: [multiple_failed_login, successful_login]", "timespan: 10m"),
            "name: multiple_failed_login\n"
            + body(
                "type: event_count", "rules: [failed_login]", "timespan: 10m", "condition: {gte: 10}", title="Failed"
            ),
            failed,
            success,
        ]
    )
    pack = load_rules([write(tmp_path, text)])
    assert pack.refused == ()
    inner, outer = pack.correlations
    assert outer.references == (inner.id, B)
    assert outer.names == {inner.id: "multiple_failed_login", B: "successful_login"}
    assert set(silenced_by(pack)) == {inner.id, A, B}


def test_the_shared_correlation_lane_loads(shared_data: Path) -> None:
    pack = load_rules([shared_data / "lanes" / "correlation_rules.yml"])
    assert pack.refused == ()
    assert [(item.kind, item.references) for item in pack.correlations] == [
        ("event_count", ("perf-auth-failure",)),
        ("value_count", ("perf-auth-failure",)),
        ("value_sum", ("perf-auth-failure",)),
        ("temporal_ordered", ("perf-auth-failure", "perf-auth-success")),
    ]
    assert len(pack.remarks) == 6


def test_the_order_of_files_changes_nothing_but_the_order(tmp_path: Path) -> None:
    texts = [chain(1, "c2", "rule_a"), chain(2, "c3"), chain(3, "other"), chain(4, "c2"), RULES]
    seen = set()
    for seed in range(6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        order = texts[:]
        random.Random(seed).shuffle(order)  # noqa: S311 - a shuffle for a test
        for number, text in enumerate(order):
            write(folder, text, f"{number}.yml")
        pack = load_rules([folder])
        assert pack.refused == ()
        seen.add(tuple(sorted(repr(replace(item, path=Path())) for item in pack.correlations)))
    assert len(seen) == 1


OPERATORS: tuple[CorrelationOperator, ...] = ("gt", "gte", "lt", "lte", "eq", "neq")
HOLDS = {
    "gt": float.__gt__,
    "gte": float.__ge__,
    "lt": float.__lt__,
    "lte": float.__le__,
    "eq": float.__eq__,
    "neq": float.__ne__,
}


@given(bounds=st.dictionaries(st.sampled_from(OPERATORS), st.integers(-8, 24).map(lambda n: n / 4), min_size=1))
def test_bounds_are_refused_exactly_where_no_number_meets_them(bounds: dict[CorrelationOperator, float]) -> None:
    def met(number: float) -> bool:
        return all(HOLDS[operator](number, bound) for operator, bound in bounds.items())

    given_bounds = tuple(bounds.items())
    assert satisfiable(given_bounds, whole=True) == any(met(float(number)) for number in range(1, 20))
    assert satisfiable(given_bounds, whole=True, most=4) == any(met(float(number)) for number in range(1, 5))
    assert satisfiable(given_bounds, whole=False) == any(met(number / 16) for number in range(-400, 400))


NAMES = ["a", "b_1", "not-x", "and_", "of", "Ünï"]
TREES = st.recursive(
    st.sampled_from(NAMES).map(Named),
    lambda parts: st.one_of(
        parts.map(lambda part: Joined("not", (part,))),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(parts, min_size=2, max_size=4)).map(
            lambda drawn: Joined(drawn[0], tuple(drawn[1]))
        ),
    ),
    max_leaves=12,
)


@given(tree=TREES, there=st.sets(st.sampled_from(NAMES)))
def test_a_condition_written_as_text_is_read_as_the_same(tree: Tree, there: set[str]) -> None:
    text = condition_text(tree)
    read = parse_condition(text, NAMES)
    assert read == tree
    renamed = rename(tree, {name: "n_" + name for name in NAMES})
    assert is_true(renamed, {"n_" + name for name in there}) == is_true(tree, there)


def test_names_in_a_condition_without_rules() -> None:
    assert names_in("a and (b or not a) AND c") == ["a", "b", "c"]
    with pytest.raises(ConditionError, match="no rules are given"):
        names_in("1 of them")

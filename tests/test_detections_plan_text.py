"""How a rule runs, as text: the tree, what it needs, and the clause that must be true."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from test_detections_coverage import EVENTS, EXPRESSIONS, holds

from detections.atoms import Atom, Expression
from detections.compile import CompiledRule
from detections.load import load_rules
from detections.necessary import clause_cost, has_literals, necessary_clause
from detections.plan import Plan
from detections.plan_text import PlanText, atom_text, correlation_condition, plan_text

RULE = r"""title: Dump
id: 00000000-0000-4000-8000-000000000001
logsource: {product: windows, category: process_creation}
detection:
  sel:
    Image|endswith: '\procdump.exe'
    CommandLine|contains: [lsass, ' -ma ']
  filter: {User: SYSTEM}
  condition: sel and not filter
"""


def compiled(tmp_path: Path, detection: str | None = None) -> CompiledRule:
    head, _, _ = RULE.partition("detection:")
    (tmp_path / "r.yml").write_text(RULE if detection is None else f"{head}detection: {detection}\n")
    plan = Plan.build(load_rules([tmp_path / "r.yml"]).rules)
    assert plan.refused == ()
    return plan.rules[0]


def text(tmp_path: Path, detection: str | None = None) -> PlanText:
    return plan_text(compiled(tmp_path, detection))


def test_the_tree_shows_what_is_evaluated(tmp_path: Path) -> None:
    found = text(tmp_path)
    assert found.tree == (
        "and",
        r"  Image endswith '\procdump.exe' (lower case)",
        "  or",
        "    CommandLine contains 'lsass' (lower case)",
        "    CommandLine contains ' -ma ' (lower case)",
        "  not",
        "    User eq 'system' (lower case)",
    )
    assert found.needed == (("Image",), ("CommandLine",))
    assert found.polars is not None
    assert "procdump" in found.polars
    assert (found.keyword_only, found.slow, found.ungated, found.literals) == (False, None, False, True)
    assert found.clause is not None
    assert [atom.value for atom in found.clause] == ["\\procdump.exe"]


def test_what_is_unusual_is_said(tmp_path: Path) -> None:
    assert text(tmp_path, "{sel: [mimikatz], condition: sel}").keyword_only
    ungated = text(tmp_path, "{sel: {Image: a}, condition: not sel}")
    assert (ungated.ungated, ungated.clause, ungated.needed, ungated.literals) == (True, None, (), False)
    slow = text(tmp_path, "{sel: {Image|re: 'a(?!b)'}, condition: sel}")
    assert slow.slow is not None
    assert slow.polars is None
    assert "look-around" in (slow.polars_refusal or "")
    regex = text(tmp_path, "{sel: {Image|re: '[ab]+'}, condition: sel}")
    assert (regex.literals, regex.clause is not None) == (False, True)


@pytest.mark.parametrize(
    ("atom", "shown"),
    [
        (Atom("Image", "eq", "Ab", cased=True), "Image eq 'Ab' (as it is)"),
        (Atom("a", "field_eq", "b"), "a field_eq b (two columns, in lower case)"),
        (Atom("a", "null", ""), "a null"),
        (Atom(None, "contains", "x"), "keyword contains 'x' (every text column and the raw line, lower case)"),
    ],
)
def test_atoms_as_text(atom: Atom, shown: str) -> None:
    assert atom_text(atom) == shown


def test_the_rarer_part_is_chosen(tmp_path: Path) -> None:
    clause = compiled(tmp_path, "{sel: {Image: a, CommandLine|contains: 'sekurlsa::logonpasswords'}, condition: sel}")
    assert [atom.field for atom in necessary_clause(clause.expression) or ()] == ["CommandLine"]
    assert clause_cost((Atom("a", "eq", "long enough"),)) < clause_cost((Atom("a", "contains", "long enough"),))
    assert clause_cost((Atom("a", "re", "x"),)) > clause_cost((Atom("a", "contains", "xy"),))
    assert not has_literals((Atom("a", "contains", "x"), Atom("a", "gt", "1")))


@given(EXPRESSIONS, EVENTS)
def test_a_clause_is_true_wherever_the_rule_is(expression: Expression, event: dict[str, str | None]) -> None:
    clause = necessary_clause(expression)
    if clause is not None and holds(expression, event):
        assert any(holds(atom, event) for atom in clause)


CORRELATION = """title: Many
id: 00000000-0000-4000-8000-000000000009
correlation:
  type: value_count
  rules: [00000000-0000-4000-8000-000000000001]
  group-by: [User]
  timespan: 5m
  condition: {gte: 10, lt: 20, field: Image}
"""


def test_a_correlation_says_what_it_asks_of_a_group(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(f"{RULE}---\n{CORRELATION}")
    pack = load_rules([tmp_path])
    assert pack.refused == ()
    assert correlation_condition(pack.correlations[0]) == "value_count(Image) >= 10 and value_count(Image) < 20"

"""The conformance table of `docs/sigma.md`: whole, and each test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from sigma.correlations import SigmaCorrelationType
from sigma.modifiers import modifier_mapping

from correlation_matches import Match, run, seconds
from detections.load import load_rules
from detections.plan import Plan
from detections.rule import RulePack

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "sigma.md").read_text("utf-8")
ROWS = [
    re.split(r"(?<!\\)\|", line.strip().strip("|"))
    for line in PAGE.split("| construct |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
]
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(test_\w+)(?:\[([^\]`]+)\])?)?`", PAGE)))
EXAMPLES = re.findall(r"```yaml\n(title: .*?)```", PAGE, re.DOTALL)
ALSO_CALLED = {"ignorecase": "i", "multiline": "m", "dotall": "s"}


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse((REPOSITORY / "tests" / name).read_text("utf-8"))


def test_each_row_says_what_runs_which_test_shows_it_and_the_oracle() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        assert len(row) == 4, row
        assert all(cell.strip() for cell in row[:2]), row
        assert "test_" in row[2], row


@pytest.mark.parametrize(("file", "function", "section"), NAMED)
def test_each_test_that_is_named_is_there(file: str, function: str, section: str) -> None:
    nodes = list(ast.walk(parsed(file)))
    if function:
        assert function in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    if section:
        assert section in {node.value for node in nodes if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("modifier", sorted({*modifier_mapping, "utf16le"} - ALSO_CALLED.keys()))
def test_each_modifier_has_a_row(modifier: str) -> None:
    constructs = " ".join(row[0] for row in ROWS)
    assert re.search(rf"(?:`|\|){modifier}(?:`|\\)", constructs)


@pytest.mark.parametrize("kind", list(SigmaCorrelationType), ids=lambda kind: kind.name)
def test_each_type_of_correlation_has_a_row(kind: SigmaCorrelationType) -> None:
    name = kind.name.lower().removeprefix("extended_")
    assert f"`{name}`" in " ".join(row[0] for row in ROWS)


@pytest.fixture
def examples(tmp_path: Path) -> RulePack:
    """The rules, correlations and filters of the page, in one pack."""
    for number, text in enumerate(EXAMPLES):
        (tmp_path / f"{number}.yml").write_text(text, "utf-8")
    return load_rules([tmp_path])


def test_the_examples_load_compile_and_need_no_remark(examples: RulePack) -> None:
    assert (len(examples.rules), len(examples.correlations), len(examples.filters)) == (4, 4, 1)
    assert (examples.refused, examples.remarks) == ((), ())
    assert not Plan.build(examples.rules).refused
    assert [rule.name for rule in examples.rules if rule.filters] == ["failed_logon", "logon"]


def test_the_examples_fire_as_the_page_says(examples: RulePack) -> None:
    ids = {rule.name or "": rule.id for rule in examples.rules}
    ann = {"TargetUserName": "ann", "IpAddress": "192.0.2.99"}
    guessing = [Match(ids["failed_logon"], place, place, ann) for place in range(10)]
    spraying = [
        Match(ids["failed_logon"], 1000 + place, 100 + place, ann | {"TargetUserName": f"user{place}"})
        for place in range(20)
    ]
    backup = [Match(ids["backup_began"], 2000, 200, {"Computer": "srv1"})]
    found = run(examples.correlations, [*guessing, Match(ids["logon"], 9, 10, ann), *spraying, *backup])
    assert {(item.rule.title, seconds(item.timestamp)) for item in found} == {
        ("Many Failed Logons of One Account", 9),
        ("Password Guessed", 9),
        ("One Address Tries Many Accounts", 1019),
        ("Backup Did Not End", 2000 + 12 * 3600),
    }

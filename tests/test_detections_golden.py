"""Golden summaries: over real attacks, every SigmaHQ rule matches as often in every archive as is on record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from detections.plan import Plan
from detections.rule import RulePack
from golden_hunts import CORPORA, FOLDER, Difference, differences, golden, hunted, sigmahq, told


@pytest.fixture(scope="module")
def rules(shared_data: Path) -> tuple[RulePack, Plan]:
    return sigmahq(shared_data)


@pytest.mark.timeout(300)  # half a minute on one core for 300,000 events, with room for a busy machine
@pytest.mark.parametrize("corpus", CORPORA)
def test_hunts_find_what_is_on_record(corpus: str, rules: tuple[RulePack, Plan], shared_data: Path) -> None:
    pack, plan = rules
    summary, tally = hunted(plan, shared_data / corpus)
    assert tally.lost == tally.unmatched == 0
    assert set(tally.problems) <= {"skipped"}
    found = list(differences(golden(corpus), summary))
    assert not found, f"record the reason in tests/golden/README.md:\n{told(found, pack)}"


def test_a_difference_names_rule_source_and_both_counts() -> None:
    old = {"a.zip!x.json": {"one": 2, "two": 1}, "gone.zip": {"one": 1}}
    new = {"a.zip!x.json": {"one": 3, "two": 1}, "new.zip": {"two": 4}}
    assert list(differences(old, new)) == [
        Difference("a.zip!x.json", "one", 2, 3),
        Difference("gone.zip", "one", 1, 0),
        Difference("new.zip", "two", 0, 4),
    ]
    assert list(differences(old, old)) == []
    lines = told(list(differences(old, new)), RulePack((), (), ()))
    assert "(one): a.zip!x.json: 2 -> 3" in lines


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_record_holds_ids_and_counts_only(corpus: str) -> None:
    summary = json.loads((FOLDER / f"{corpus}.json").read_text("utf-8"))
    assert len(summary) > 40
    for source, counts in summary.items():
        assert not source.startswith("/")
        assert all(re.fullmatch(r"[0-9a-f-]{36}", rule) and count > 0 for rule, count in counts.items())


def test_the_record_is_explained() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    for corpus in CORPORA:
        total = sum(sum(counts.values()) for counts in golden(corpus).values())
        assert f"| {corpus} | {total:,} |" in readme, f"{corpus}.json has {total:,} matches: tell so and why"

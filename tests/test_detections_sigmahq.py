"""SigmaHQ's rules: all load, and all compile but those that ask for what only the user can give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import process_time

import polars as pl
import pytest

from detections.atoms import atoms_of
from detections.load import load_rules
from detections.plan import Plan
from detections.render import RenderError, render
from detections.rule import RulePack
from detections.rule_tests import event_frame
from ingest.logsource import LogSource

LOADING_SECONDS = 30
"""CPU time that reading and compiling all rules may take: 3 s measured on one core, with room for a slow one."""


@dataclass(frozen=True)
class Loaded:
    pack: RulePack
    plan: Plan
    seconds: float


@pytest.fixture(scope="module")
def sigmahq(shared_data: Path) -> Loaded:
    folders = [shared_data / "sigmahq" / name for name in ("rules", "rules-emerging-threats", "rules-threat-hunting")]
    started = process_time()
    pack = load_rules(folders)
    plan = Plan.build(pack.rules)
    return Loaded(pack, plan, process_time() - started)


def test_all_load(sigmahq: Loaded) -> None:
    assert len(sigmahq.pack.rules) > 3700
    assert sigmahq.pack.refused == ()


def test_all_compile_but_for_placeholders(sigmahq: Loaded) -> None:
    others = [str(refusal) for refusal in sigmahq.plan.refused if "placeholder %" not in refusal.reason]
    assert others == []
    assert len(sigmahq.plan.refused) <= 5
    assert sigmahq.plan.slow == ()


def test_loading_is_quick(sigmahq: Loaded) -> None:
    assert sigmahq.seconds < LOADING_SECONDS


def test_most_atoms_are_shared_or_plain(sigmahq: Loaded) -> None:
    atoms = [atom for compiled in sigmahq.plan.rules for atom in atoms_of(compiled.expression)]
    assert len(set(atoms)) < 0.8 * len(atoms)
    assert sum(atom.operator in {"like", "re"} for atom in atoms) < 0.03 * len(atoms)


def test_every_rule_has_code_that_runs(sigmahq: Loaded) -> None:
    for compiled in sigmahq.plan.rules:
        try:
            code = render(compiled.expression)
        except RenderError as error:
            pytest.fail(f"{compiled.rule.path}: {error}")
        fields = {field for atom in atoms_of(compiled.expression) for field in atom.fields}
        frame = pl.DataFrame({field: pl.Series(["x"]) for field in {*fields, "message"}})
        frame.lazy().filter(eval(code, {"pl": pl})).collect_schema()  # noqa: S307 - the code just written


def test_a_known_attack_is_seen(sigmahq: Loaded) -> None:
    event = {
        "EventID": "1",
        "Image": r"C:\Users\Public\Music\mimikatz.exe",
        "OriginalFileName": "mimikatz.exe",
        "CommandLine": 'mimikatz.exe "privilege::debug" "sekurlsa::logonpasswords" exit',
        "ParentImage": r"C:\Windows\System32\cmd.exe",
        "User": r"CHU\admin",
    }
    found = sigmahq.plan.match(event_frame(event, LogSource("windows", "process_creation", "sysmon")))
    assert "HackTool - Mimikatz Execution" in found.get_column("rule_title").to_list()
    ordinary = event | {"Image": r"C:\Windows\notepad.exe", "OriginalFileName": "notepad", "CommandLine": "notepad.exe"}
    assert sigmahq.plan.match(event_frame(ordinary, LogSource("windows", "process_creation", "sysmon"))).height == 0

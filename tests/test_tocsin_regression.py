"""SigmaHQ's regression data through the command: each rule fires on its events, from .evtx and from .json alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

RULES = ("rules", "rules-emerging-threats", "rules-threat-hunting")

COUNTS_OF_OURS = {
    # The rule names procdump.exe, procdump64.exe and procdump64a.exe: the three are in the log, one is counted there.
    "8fbf3271-1ef6-4e94-8210-03c2317947f6.evtx": 3,
}
"""Where the data tells another number than the rule gives."""


@dataclass(frozen=True)
class Case:
    """One rule and its events.

    Attributes:
        wanted: Number of matches, where it is told.
    """

    rule: str
    evtx: Path
    json: Path
    wanted: int | None


def cases(folder: Path) -> Iterator[Case]:
    for info in sorted(folder.rglob("info.yml")):
        told = yaml.safe_load(info.read_text("utf-8"))
        counts = {Path(test["path"]).name: test.get("match_count") for test in told.get("regression_tests_info") or []}
        for evtx in sorted(info.parent.glob("*.evtx")):
            for rule in told["rule_metadata"]:
                yield Case(rule["id"], evtx, evtx.with_suffix(".json"), counts.get(evtx.name))


def hunted(shared_data: Path, ending: str, folder: Path) -> Counter[tuple[str, str]]:
    """(event file, rule id) -> lines that `tocsin hunt --json` prints, over the event files of one kind alone."""
    files = sorted((shared_data / "sigmahq" / "regression_data").rglob(f"*{ending}"))
    rules = [str(shared_data / "sigmahq" / name) for name in RULES]
    result = subprocess.run(
        [sys.executable, "-m", "tocsin", "hunt", "--json", "--rules", *rules, "--events", *map(str, files)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        cwd=folder,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "could not be read" not in result.stderr
    matches = [json.loads(line) for line in result.stdout.splitlines()]
    return Counter((match["source"], match["rule_id"]) for match in matches)


@pytest.mark.timeout(240)
def test_every_case_gives_its_matches_from_evtx_and_json_alike(shared_data: Path, tmp_path: Path) -> None:
    wanted = list(cases(shared_data / "sigmahq" / "regression_data"))
    assert len(wanted) >= 100
    assert len({case.rule for case in wanted}) >= 95
    from_evtx, from_json = hunted(shared_data, ".evtx", tmp_path), hunted(shared_data, ".json", tmp_path)
    missed = [
        f"{case.rule} on {path.name}"
        for case in wanted
        for path, found in ((case.evtx, from_evtx), (case.json, from_json))
        if path.exists() and not found[str(path), case.rule]
    ]
    assert missed == []
    told = {
        case.evtx.name: from_evtx[str(case.evtx), case.rule]
        for case in wanted
        if case.wanted is not None and from_evtx[str(case.evtx), case.rule] != case.wanted
    }
    assert told == COUNTS_OF_OURS
    unlike = {
        case.evtx.name: (from_evtx[str(case.evtx), case.rule], from_json[str(case.json), case.rule])
        for case in wanted
        if case.json.exists() and from_evtx[str(case.evtx), case.rule] != from_json[str(case.json), case.rule]
    }
    assert unlike == {}

"""Golden summaries: how many events of each real archive each SigmaHQ rule matches.

    python tests/golden_hunts.py          # compare, as the test does
    python tests/golden_hunts.py --write  # write them anew; then say why in tests/golden/README.md

The files hold ids and counts, which are facts about a result; rules and events are not copied.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from detections.load import load_rules
from detections.plan import Plan
from detections.rule import RulePack
from ingest.event_files import read_events
from tocsin.hunt import HuntTally, hunt_files

FOLDER = Path(__file__).parent / "golden"
CORPORA = ("otrf", "evtx-attack-samples")
RULES = ("rules", "rules-emerging-threats", "rules-threat-hunting")

Summary = Mapping[str, Mapping[str, int]]
"""Source, relative to the corpus -> rule id -> matches."""


@dataclass(frozen=True)
class Difference:
    """A count that is not the golden one."""

    source: str
    rule_id: str
    golden: int
    found: int


def sigmahq(shared: Path) -> tuple[RulePack, Plan]:
    """All of SigmaHQ's rules."""
    pack = load_rules([shared / "sigmahq" / name for name in RULES])
    return pack, Plan.build(pack.rules)


def hunted(plan: Plan, corpus: Path) -> tuple[Summary, HuntTally]:
    """Hunt in a corpus as `tocsin hunt` does."""
    counts: dict[str, dict[str, int]] = {}
    tally = HuntTally()
    for item in hunt_files(plan, read_events([corpus], now=datetime.now(UTC)), tally):
        if isinstance(item, pl.DataFrame):
            for source, rule_id, count in item.group_by("source", "rule_id").len().iter_rows():
                by_rule = counts.setdefault(source.removeprefix(f"{corpus}/"), {})
                by_rule[rule_id] = by_rule.get(rule_id, 0) + count
    return counts, tally


def golden(corpus: str) -> Summary:
    """The summary on record."""
    summary: Summary = json.loads((FOLDER / f"{corpus}.json").read_text("utf-8"))
    return summary


def write(corpus: str, summary: Summary) -> None:
    """Put a summary on record."""
    text = json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False)
    (FOLDER / f"{corpus}.json").write_text(f"{text}\n", "utf-8")


def differences(old: Summary, new: Summary) -> Iterator[Difference]:
    """Every count that is not the same."""
    for source in sorted(old.keys() | new.keys()):
        before, after = old.get(source, {}), new.get(source, {})
        for rule_id in sorted(before.keys() | after.keys()):
            if before.get(rule_id, 0) != after.get(rule_id, 0):
                yield Difference(source, rule_id, before.get(rule_id, 0), after.get(rule_id, 0))


def told(found: list[Difference], pack: RulePack) -> str:
    """Differences as lines: rule, source, old count, new count."""
    titles = {rule.id: rule.title for rule in pack.rules}
    return "\n".join(
        f"{titles.get(item.rule_id, 'a rule that is not loaded')} ({item.rule_id}): {item.source}: "
        f"{item.golden} -> {item.found}"
        for item in found
    )


def main() -> int:
    """Compare or write; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the summaries anew")
    asked = parser.parse_args()
    shared = Path(os.environ.get("TOCSIN_SHARED_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data")))
    pack, plan = sigmahq(shared)
    changed = False
    for corpus in CORPORA:
        summary, _ = hunted(plan, shared / corpus)
        found = list(differences(golden(corpus) if (FOLDER / f"{corpus}.json").exists() else {}, summary))
        changed = changed or bool(found)
        sys.stdout.write(f"{corpus}: {len(found)} differences\n{told(found, pack)}\n")
        if asked.write:
            write(corpus, summary)
    return int(changed and not asked.write)


if __name__ == "__main__":
    raise SystemExit(main())

"""Random faults over a real Kafka and over the embedded bus: nothing lost, nothing twice, the same alerts.

A short run of each is among the ordinary tests. `make soak` makes the long ones; these variables scale them:

    TOCSIN_SOAK_SEED      names the plan of faults; else one is drawn, and printed
    TOCSIN_SOAK_FAULTS    faults over Kafka (300); over the embedded bus a fifth of them
    TOCSIN_SOAK_LINES     lines over Kafka (5,000,000); over the embedded bus a tenth of them
    TOCSIN_SOAK_MINUTES   over which Kafka's faults are spread (25); the embedded bus's over a fifth of that
    TOCSIN_SOAK_PACE      lines a second, at most (6,000)
    TOCSIN_SOAK_REPORTS   folder for the reports; else the test's own
"""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from detections.correlate import alert_of_correlation, correlate
from detections.correlation_set import correlation_set
from detections.correlator import Correlator
from detections.load import load_rules
from detections.plan import Plan
from fault_check import Findings, check_lines
from fault_lines import EPISODES, EVERY, Script, write_rules
from fault_region import Layout
from fault_run import Run, run
from ingest.bus import Position
from ingest.parse import parse
from raw_lines import batch
from storage.lake import Lake

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

BEGINNING = datetime(2026, 3, 1, 6, tzinfo=UTC)
SHORT_SEED = 14
ONE_EACH = Layout(collect=1, detect=1, correlate=1)


def soak(name: str, default: float) -> float:
    return float(os.environ.get(f"TOCSIN_SOAK_{name}", "") or default)


def seed() -> int:
    return int(soak("SEED", 0)) or random.randrange(1, 1 << 30)  # noqa: S311 - faults, no secrets


def hold(folder: Path, what: Run, broker_type: type[KafkaBroker] | None) -> None:
    """Run it; write and print the report; nothing may be amiss."""
    report = run(folder / "run", what, broker_type)
    path = report.write(Path(os.environ.get("TOCSIN_SOAK_REPORTS") or folder))
    print(f"\n{report.verdict}\n{path}")
    assert not report.findings.problems, f"{report.verdict}\n{path}\n{report.findings}"[:6000]


@pytest.mark.timeout(180)
def test_a_few_faults_over_the_embedded_bus(tmp_path: Path) -> None:
    hold(
        tmp_path,
        Run(SHORT_SEED, 5, 5_000, 5, senders=3, pace=1500, layout=ONE_EACH, longest=2, drain=90, quiet=15),
        None,
    )


def test_a_few_faults_over_kafka(tmp_path: Path, kafka_broker: KafkaBroker) -> None:
    what = Run(SHORT_SEED, 5, 5_000, 5, senders=3, pace=1500, layout=Layout(1, 2, 1), longest=2, drain=90, quiet=15)
    hold(tmp_path, what, type(kafka_broker))


@pytest.mark.soak
def test_many_faults_over_kafka(tmp_path: Path, kafka_broker: KafkaBroker) -> None:
    faults, lines = int(soak("FAULTS", 300)), int(soak("LINES", 5_000_000))
    what = Run(seed(), faults, lines, soak("MINUTES", 25) * 60, pace=soak("PACE", 6000), aways=faults // 75, drain=1800)
    hold(tmp_path, what, type(kafka_broker))


@pytest.mark.soak
def test_many_faults_over_the_embedded_bus(tmp_path: Path) -> None:
    faults, lines = int(soak("FAULTS", 300)) // 5, int(soak("LINES", 5_000_000)) // 10
    seconds = soak("MINUTES", 25) * 12
    what = Run(seed(), faults, lines, seconds, pace=soak("PACE", 6000), layout=ONE_EACH, drain=1800)
    hold(tmp_path, what, None)


@pytest.mark.parametrize("lines", [EVERY * len(EPISODES) * 2, 4_321])
def test_the_script_says_what_the_engine_finds(tmp_path: Path, lines: int) -> None:
    write_rules(tmp_path / "rules")
    pack = load_rules([tmp_path / "rules"])
    plan, script = Plan.build(pack.rules), Script(3, BEGINNING)
    rules = correlation_set(pack, {compiled.rule.id for compiled in plan.rules})
    frames = parse(batch([script.line(number) for number in range(lines)], tenant=script.hospital))
    matches = pl.concat([plan.match(frame) for frame in frames])
    correlator = Correlator(rules.rules, lateness=timedelta(seconds=5))
    fired = [*correlator.feed(matches.filter(pl.col("rule_id").is_in(rules.needed))), *correlator.end()]
    alerts = [*correlate(matches, rules.silenced)]
    alerts += [alert_of_correlation(found) for found in fired if found.rule.id not in rules.silenced]
    behind = {alert.id: [*alert.event_ids] for alert in alerts}
    found = [(alert.rule_title, alert.tenant, numbers_of(alert.id, behind)) for alert in alerts]
    assert sorted(found) == sorted(script.alerts(lines))
    assert {rule for rule, _, _ in found} >= {"spark", "many", "doors", "pair", "order", "gone", "chain"}


def numbers_of(event: str, behind: dict[str, list[str]]) -> tuple[int, ...]:
    """Numbers of the lines behind an event, which may be an alert."""
    if event not in behind:
        return (int(event.rsplit(":", 1)[1]),)
    return tuple(sorted(number for one in behind[event] for number in numbers_of(one, behind)))


def test_what_is_lost_twice_or_invented_is_found(tmp_path: Path) -> None:
    script, other = Script(1, BEGINNING), Script(7, BEGINNING)
    lines = [script.line(number) for number in range(10) if number != 4]
    lines += [script.line(6), script.line(12), other.line(0)]
    lake, rows = Lake(tmp_path), batch(lines, tenant=script.hospital)
    writer = lake.writer()
    writer.add(parse(rows), Position("t", 0, 0))
    writer.flush()
    found = Findings()
    check_lines(lake, {"s1": (script, 10)}, frozenset(), found)
    assert found.duplicated == ["s1 line 6: 2 times (0 marked beside)"]
    assert sorted(found.invented) == [
        "1 lines of 's7' at 'hospital-1', 0 to 0",
        "10 lines of 's1' at 'hospital-1', 0 to 12",
    ]
    assert found.lost == ["s1 line 4"]

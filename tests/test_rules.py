"""The rules we ship: all load and compile, and each lies beside events that must and must not match it."""

from __future__ import annotations

from pathlib import Path

import pytest

from detections.check import check_rules
from detections.correlate import correlate
from detections.correlation_rule import CorrelationRule
from detections.load import load_rules
from detections.plan import Plan
from detections.rule import Rule
from detections.rule_tests import RuleTestResult, _cases, path_of_tests, run_rule_tests
from storage.alert_codec import decode_alert, encode_alert

RULES = Path(__file__).resolve().parent.parent / "rules"
PACK = load_rules([RULES])


@pytest.fixture(scope="module")
def results() -> list[RuleTestResult]:
    return run_rule_tests([RULES])


def test_every_rule_runs() -> None:
    report = check_rules([RULES])
    assert report.running
    assert report.ok, "\n".join(report.lines())


def test_every_test_passes(results: list[RuleTestResult]) -> None:
    failed = [f"{item.path}: {item.name}: {item.reason}" for item in results if not item.passed]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("rule", [*PACK.rules, *PACK.correlations], ids=lambda rule: rule.title)
def test_every_rule_has_a_match_and_a_near_miss(rule: Rule | CorrelationRule, results: list[RuleTestResult]) -> None:
    expected = {item.expected for item in results if item.rule_id == rule.id}
    assert expected == {"match", "no_match"}, f"{path_of_tests(rule.path)} wants at least one of each"


@pytest.mark.parametrize("rule", load_rules([RULES]).rules, ids=lambda rule: rule.path.stem)
def test_every_match_is_an_alert_that_the_bus_carries(rule: Rule) -> None:
    plan = Plan.build([rule])
    carried = 0
    for _, expected, frames in _cases(rule):
        alerts = [alert for frame in frames for alert in correlate(plan.match(frame))]
        assert bool(alerts) == (expected == "match")
        assert [decode_alert(encode_alert(alert)) for alert in alerts] == alerts
        carried += len(alerts)
    assert carried


def test_every_test_file_has_its_rule() -> None:
    stray = [path for path in RULES.rglob("*.tests.yml") if not path.with_name(f"{path.name[:-10]}.yml").exists()]
    assert not stray

"""Tests of correlations: what passes, what fails, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from detections.rule_tests import RuleTestResult, run_rule_tests

PACK = """
title: Failed logon
id: 7b2d0f0e-52d5-4e0c-9c4c-0d5c5c1f0a01
name: failed_logon
logsource: {product: windows, service: security}
detection: {selection: {EventID: 4625}, condition: selection}
---
title: Service installed
id: 7b2d0f0e-52d5-4e0c-9c4c-0d5c5c1f0a03
name: service
logsource: {product: windows, service: system}
detection: {selection: {EventID: 7045}, condition: selection}
---
title: Many failed logons
id: 7b2d0f0e-52d5-4e0c-9c4c-0d5c5c1f0a02
name: many
correlation:
    type: event_count
    rules: [failed_logon]
    group-by: [TargetUserName]
    timespan: 5m
    condition: {gte: 3}
---
title: Many, then a service
id: 7b2d0f0e-52d5-4e0c-9c4c-0d5c5c1f0a04
correlation:
    type: temporal_ordered
    rules: [many, service]
    timespan: 1h
"""

FAIL = "rule: failed_logon, event: {EventID: 4625, TargetUserName: ana}"


def results(tmp_path: Path, tests: str) -> list[RuleTestResult]:
    (tmp_path / "pack.yml").write_text(PACK)
    (tmp_path / "pack.tests.yml").write_text(tests)
    return run_rule_tests([tmp_path / "pack.yml"])


def case(events: str, of: str = "many", expected: str = "match") -> str:
    return f"{expected}:\n  - {{name: case, of: '{of}', events: [{events}]}}\n"


def test_events_one_after_another(tmp_path: Path) -> None:
    tests = f"""
match:
  - {{name: single, rule: failed_logon, event: {{EventID: 4625}}}}
  - {{name: three, of: many, events: [{{at: 0s, times: 3, every: 2.5m, {FAIL}}}]}}
  - name: then a service
    of: Many, then a service
    events:
      - {{at: 1m, times: 3, {FAIL}}}
      - {{at: 1h, rule: service, event: {{EventID: 7045}}}}
no_match:
  - {{name: single, rule: failed_logon, event: {{EventID: 4624}}}}
  - {{name: too slow, of: many, events: [{{at: 0s, times: 3, every: 151s, {FAIL}}}]}}
  - name: service first
    of: Many, then a service
    events: [{{at: 0, rule: service, event: {{EventID: 7045}}}}, {{at: 1m, times: 3, {FAIL}}}]
"""
    found = results(tmp_path, tests)
    assert [(item.title, item.name, item.expected) for item in found] == [
        ("Failed logon", "single", "match"),
        ("Failed logon", "single", "no_match"),
        ("Many failed logons", "three", "match"),
        ("Many failed logons", "too slow", "no_match"),
        ("Many, then a service", "then a service", "match"),
        ("Many, then a service", "service first", "no_match"),
    ]
    assert [item.reason for item in found if not item.passed] == []


def test_a_line_is_an_event_at_the_time_of_the_test(tmp_path: Path) -> None:
    line = (
        '\'{"EventTime":"1999-01-01T00:00:00Z","Channel":"Security","EventID":4625,"TargetUserName":"ana",'
        '"SourceName":"Microsoft-Windows-Security-Auditing","Hostname":"DC01"}\''
    )
    (found,) = results(tmp_path, case(f"{{at: 0, times: 3, every: 1s, rule: failed_logon, line: {line}}}"))
    assert (found.passed, found.reason) == (True, "")


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        (case(f"{{at: 0, times: 2, {FAIL}}}"), "does not fire (matches: 2 of 'Failed logon')"),
        (case(f"{{at: 0, times: 3, {FAIL}}}", expected="no_match"), "fires (matches: 3 of 'Failed logon')"),
        (case("{at: 0, event: {EventID: 1}}"), "does not fire (matches: none)"),
        (case("{at: 0, rule: failed_logon, event: {EventID: 1}}"), "event 1 does not match 'failed_logon'"),
        (case("{at: 0, rule: service, event: {EventID: 1}}"), "looks at no rule 'service'; it looks at 'failed_logon'"),
        (case("{at: 0, event: {EventID: 1}}", "Many, then a service"), "the rules have several log sources"),
        (case("{at: soon, event: {}}"), "event 1: at: 'soon' is not a time such as 90s, 5m, 1h"),
        (case("{at: -1s, event: {}}"), "'-1s' is not a time"),
        (case("{every: 99999999999999d, event: {}}"), "is too long"),
        (case("{times: 0, event: {}}"), "times is not a number from 1 to 10000"),
        (case("{times: true, event: {}}"), "times is not a number"),
        (case("{times: 9999, event: {}}, {times: 2, event: {}}"), "more than 10000 events"),
        (case("{at: 0, evnt: {}}"), "event 1 is not a map of"),
        (case("{at: 0}"), "event 1: one of event, line, lines is wanted"),
        (case(""), "events is not a list of events"),
        ("match:\n  - {events: [{event: {}}], of: many, rule: x}", "unknown keys ['rule']"),
        (case("{at: 0, event: {}}", "mny"), "there is no correlation in this file named 'mny'"),
        ("match:\n  - {event: {EventID: 4625}, rule: failed}", "there is no rule in this file named 'failed'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, tests: str, reason: str) -> None:
    (found, *_) = [item for item in results(tmp_path, tests) if not item.passed]
    assert reason in found.reason
    assert "pack.yml" in str(found.path)

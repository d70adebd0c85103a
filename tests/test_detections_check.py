"""Checking, testing and explaining rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from detections.check import check_rules
from detections.explain import Explanation, explain, explain_text
from detections.load import load_rules
from detections.rule import Refusal
from detections.rule_tests import event_frame, run_rule_tests
from ingest.logsource import LogSource

RULE = """title: Dump
id: 00000000-0000-4000-8000-000000000001
logsource: {product: windows, category: process_creation}
detection:
  sel:
    Image|endswith: '\\procdump.exe'
    CommandLine|contains: [lsass, ' -ma ']
  filter: {User: SYSTEM}
  condition: sel and not filter
"""

TESTS = r"""match:
  - {name: by hand, event: {Image: 'C:\procdump.exe', CommandLine: 'procdump LSASS', EventID: 1}}
no_match:
  - {name: by the system, event: {Image: 'C:\procdump.exe', CommandLine: 'lsass', User: System}}
  - {event: {Image: 'C:\notepad.exe', CommandLine: lsass}}
"""


def put(folder: Path, rule: str = RULE, tests: str | None = TESTS) -> Path:
    path = folder / "dump.yml"
    path.write_text(rule)
    if tests is not None:
        (folder / "dump.tests.yml").write_text(tests)
    return path


def test_check_counts_and_names(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "a.yml").write_text(RULE.replace("00001", "00002").replace("sel and not filter", "nothing"))
    (tmp_path / "b.yml").write_text(RULE.replace("00001", "00003").replace("sel and not filter", "not filter"))
    (tmp_path / "c.yml").write_text(RULE.replace("00001", "00004").replace("{User: SYSTEM}", "{User|re: 'a(?!b)'}"))
    (tmp_path / "d.yml").write_text("title: C\ncorrelation: {}\n")
    report = check_rules([tmp_path])
    assert (report.running, len(report.refused), len(report.unsupported)) == (3, 2, 0)
    assert not report.ok
    assert str(tmp_path / "d.yml:2: C: there is no type") in report.lines()[0]
    assert f"{tmp_path / 'a.yml'}:9: Dump" in report.lines()[1]
    assert [item.rule.path.name for item in report.ungated] == ["b.yml"]
    assert [item.rule.path.name for item in report.slow] == ["c.yml"]
    assert (
        report.lines()[-1]
        == "3 rules run, 2 refused, 0 not run here, 1 slow, 1 without a gate, 0 out of reach of any format, "
        "0 correlations, 0 rules silenced by them, 0 filters on 0 rules"
    )


def test_check_names_log_sources_that_no_format_gives(tmp_path: Path) -> None:
    sources = [
        "{product: windows, category: proces_creation}",
        "{product: windows, category: process_creation}",
        "{product: windows, category: registry_event}",
        "{product: linux, service: auth}",
        "{product: linux, category: process_creation}",
        "{product: aws, service: cloudtrail}",
        "{product: azure, service: signinlogs}",
        "{product: azure, service: auditlogs}",
        "{service: ssdh}",
        "{product: window}",
    ]
    for number, source in enumerate(sources):
        text = RULE.replace("00001", f"0010{number}").replace("{product: windows, category: process_creation}", source)
        (tmp_path / f"{number}.yml").write_text(text)
    report = check_rules([tmp_path])
    assert report.ok
    assert report.running == 10
    assert report.unreachable == 5
    assert [(str(group.logsource), len(group.rules), group.hint) for group in report.unreached] == [
        ("_/_/ssdh", 1, "sshd"),
        ("azure/_/_", 2, None),
        ("window/_/_", 1, "windows"),
        ("windows/proces_creation/_", 1, "process_creation"),
    ]
    assert report.lines()[-2] == (
        f"{tmp_path / '0.yml'}: Dump: no format gives events of windows/proces_creation/_ "
        "(did you mean process_creation?); only JSON that declares it does"
    )
    assert ", 5 out of reach of any format, " in report.lines()[-1]


CORRELATION = """title: Often
correlation: {type: event_count, rules: 00000000-0000-4000-8000-000000000001, timespan: 5m, condition: {gte: 3}}
"""


def test_check_names_rules_that_correlations_silence(tmp_path: Path) -> None:
    path = put(tmp_path)
    (tmp_path / "often.yml").write_text(CORRELATION)
    (tmp_path / "f.yml").write_text(
        "title: F\nlogsource: {product: windows}\nfilter: {rules: any, s: {User: adm}, condition: not s}\n"
    )
    report = check_rules([tmp_path])
    assert report.ok
    assert (report.running, report.correlations, report.filters, report.filtered) == (1, 1, 1, 1)
    assert [(item.rule.title, item.by) for item in report.silenced] == [("Dump", ("Often",))]
    assert report.lines()[0].startswith(f"{path}: Dump: gives no alerts of its own, only to correlation 'Often'")
    assert report.lines()[-1].endswith("1 correlations, 1 rules silenced by them, 1 filters on 1 rules")
    (tmp_path / "often.yml").write_text(CORRELATION + "generate: true\n")
    assert check_rules([tmp_path]).silenced == ()


def test_what_refers_to_a_rule_that_does_not_compile_is_refused_and_silences_nothing(tmp_path: Path) -> None:
    put(tmp_path, RULE.replace("sel and not filter", "nothing"))
    (tmp_path / "often.yml").write_text("name: often\n" + CORRELATION)
    text = "title: Twice\ncorrelation: {type: event_count, rules: often, timespan: 5m, condition: {gte: 2}}\n"
    (tmp_path / "twice.yml").write_text(text)
    report = check_rules([tmp_path])
    assert (report.running, report.correlations, report.silenced) == (0, 0, ())
    assert [refusal.reason for refusal in report.refused[1:]] == [
        "'00000000-0000-4000-8000-000000000001' cannot run, and so neither can what refers to it",
        "'often' cannot run, and so neither can what refers to it",
    ]


def test_rule_tests_pass(tmp_path: Path) -> None:
    results = run_rule_tests([put(tmp_path)])
    assert [(item.name, item.expected, item.passed) for item in results] == [
        ("by hand", "match", True),
        ("by the system", "no_match", True),
        ("no_match 2", "no_match", True),
    ]


def test_rule_tests_fail_with_a_reason(tmp_path: Path) -> None:
    results = run_rule_tests(
        [put(tmp_path, tests=TESTS.replace("no_match", "x").replace("match", "no_match", 1)[:110])]
    )
    assert [item.passed for item in results] == [False]
    tests = "match:\n  - {event: {Image: x}}\nno_match:\n  - {event: {Image: '\\procdump.exe', CommandLine: lsass}}\n"
    results = run_rule_tests([put(tmp_path, tests=tests)])
    assert [item.passed for item in results] == [False, False]
    assert "does not match" in results[0].reason
    assert results[1].reason.startswith("matches (log source windows/process_creation/_)")


def test_rule_tests_take_whole_numbers_of_any_size(tmp_path: Path) -> None:
    rule = f"title: N\nlogsource: {{product: windows}}\ndetection: {{s: {{A: {10**30}}}, condition: s}}\n"
    tests = f"match: [{{event: {{A: {10**30}, 5: [{10**30}]}}}}]\nno_match: [{{event: {{A: {10**30 + 1}}}}}]\n"
    assert [item.passed for item in run_rule_tests([put(tmp_path, rule, tests)])] == [True, True]


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("match: [", "not YAML"),
        ("mach: []\n", "unknown keys ['mach']"),
        ("match: x\n", "not a list"),
        ("match: [x]\n", "not a map"),
        ("match: [{name: n}]\n", "one of event, line, lines"),
        ("match: [{name: n, event: x}]\n", "not a map of fields"),
        ("match: [{name: n, line: 3}]\n", "not text"),
        ("logsource: x\n", "logsource"),
        ("logsource: {products: x}\n", "logsource"),
    ],
)
def test_a_broken_test_file_fails_with_its_reason(tmp_path: Path, tests: str, reason: str) -> None:
    results = run_rule_tests([put(tmp_path, tests=tests)])
    assert [item.passed for item in results] == [False]
    assert reason in results[0].reason


def test_a_refused_rule_fails_its_tests(tmp_path: Path) -> None:
    for rule in ("title: [", RULE.replace("sel and not filter", "nothing")):
        results = run_rule_tests([put(tmp_path, rule)])
        assert [item.passed for item in results] == [False]


def test_lines_go_through_the_parser(tmp_path: Path) -> None:
    rule = "title: K\nlogsource: {product: linux, service: sshd}\ndetection: {words: [backdoor], condition: words}\n"
    tests = "match: [{line: '%% a BACKDOOR %%'}, {lines: [nothing, backdoor]}]\nno_match: [{line: nothing}]\n"
    results = run_rule_tests([put(tmp_path, rule, tests)])
    assert [item.passed for item in results] == [True, True, True]


def test_another_log_source_is_not_met(tmp_path: Path) -> None:
    results = run_rule_tests([put(tmp_path, tests="logsource: {product: linux}\n" + TESTS)])
    assert [item.passed for item in results] == [False, False, False]
    assert results[1].reason == "the rule does not see linux/_/_: no such event could match"


def test_a_line_that_no_format_understands_shows_nothing(tmp_path: Path) -> None:
    results = run_rule_tests([put(tmp_path, tests=TESTS + "  - {line: '%% nothing %%'}\n")])
    assert [item.passed for item in results] == [True, True, True, False]
    assert results[3].reason == "no format understands this line: it matches no rule but one with keywords"


def test_one_case_among_others_may_be_of_another_log_source(tmp_path: Path) -> None:
    line = "<38>Jan  1 00:00:00 h sshd[1]: Failed password for root from 192.0.2.1 port 22 ssh2"
    results = run_rule_tests([put(tmp_path, tests=f"{TESTS}  - {{line: '{line}'}}\n")])
    assert [item.passed for item in results] == [True, True, True, True]
    results = run_rule_tests([put(tmp_path, tests=f"no_match:\n  - {{line: '{line}'}}\n")])
    assert [item.reason for item in results] == ["the rule does not see linux/_/sshd: no such event could match"]


def test_a_correlation_case_of_another_log_source_shows_nothing(tmp_path: Path) -> None:
    case = "no_match: [{events: [{at: 0s, event: {A: x}}]}]\n"
    put(tmp_path, f"{RULE}---\n{CORRELATION}", case)
    assert [item.passed for item in run_rule_tests([tmp_path])] == [True]
    put(tmp_path, f"{RULE}---\n{CORRELATION}", "logsource: {product: linux}\n" + case)
    (result,) = run_rule_tests([tmp_path])
    assert result.reason == "the rule does not see linux/_/_: no such event could match"


def test_explain_shows_each_item(tmp_path: Path) -> None:
    (rule,) = load_rules([put(tmp_path)]).rules
    frame = event_frame(
        {"Image": r"C:\procdump.exe", "CommandLine": "lsass", "User": "system"},
        LogSource("windows", "process_creation", "sysmon"),
    )
    explained = explain(rule, frame)
    assert isinstance(explained, list)
    (explanation,) = explained
    assert isinstance(explanation, Explanation)
    assert (explanation.matched, explanation.meets) == (False, True)
    assert explanation.detections == {"sel": True, "filter": True}
    assert [(item.field, item.wanted, item.true) for item in explanation.items] == [
        ("Image", r"*\procdump.exe", True),
        ("CommandLine", "*lsass*", True),
        ("CommandLine", "* -ma *", False),
        ("User", "SYSTEM", True),
    ]
    text = explain_text(explanation)
    assert text[0] == "event test:0: does not match"
    assert "+ filter" in text
    assert any("User eq 'SYSTEM' (event: 'system')" in line for line in text)


def test_explain_says_that_the_log_source_is_another(tmp_path: Path) -> None:
    (rule,) = load_rules([put(tmp_path)]).rules
    explained = explain(rule, event_frame({"Image": "x"}, LogSource("linux")))
    assert isinstance(explained, list)
    assert explain_text(explained[0])[1] == "the rule does not see this log source"


def test_explain_refuses_what_does_not_compile(tmp_path: Path) -> None:
    (rule,) = load_rules([put(tmp_path, RULE.replace("sel and not filter", "nothing"))]).rules
    assert isinstance(explain(rule, event_frame({"Image": "x"}, LogSource("windows"))), Refusal)

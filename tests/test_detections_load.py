"""Loading: every fault is named with its file and line, and the other rules load."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detections.compile import CompiledRule, compile_rule
from detections.load import load_rules
from detections.rule import RulePathError
from ingest.logsource import LogSource

GOOD = """title: Good
id: 00000000-0000-4000-8000-000000000001
status: test
tags: [attack.t1003.001, attack.credential-access]
logsource: {product: windows, category: process_access, definition: Sysmon}
detection:
  sel: {TargetImage|endswith: lsass.exe}
  condition: sel
"""


def write(folder: Path, text: str | bytes, name: str = "rule.yml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_rule_has_what_the_file_says(tmp_path: Path) -> None:
    pack = load_rules([write(tmp_path, GOOD)])
    (rule,) = pack.rules
    assert (rule.id, rule.title, rule.status) == ("00000000-0000-4000-8000-000000000001", "Good", "test")
    assert rule.level == "medium"  # the rule says none
    assert rule.tags == ("attack.t1003.001", "attack.credential-access")
    assert rule.logsource == LogSource("windows", "process_access", None)
    assert rule.lines["detection.condition"] == 8


def test_digest_is_of_the_content_not_the_layout(tmp_path: Path) -> None:
    first = load_rules([write(tmp_path, GOOD)]).rules[0]
    again = load_rules([write(tmp_path, "# a comment\n" + GOOD.replace("{TargetImage", "{ TargetImage"))]).rules[0]
    other = load_rules([write(tmp_path, GOOD.replace("lsass", "lsasx"))]).rules[0]
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_a_whole_number_may_be_of_any_size(tmp_path: Path) -> None:
    digests = set()
    for number, value in enumerate([10**20, 10**20 + 1, f"'{10**20}'", -(10**20), 2**64 - 1, 2**64, 10**400]):
        path = write(tmp_path, GOOD.replace("lsass.exe", f"{value}, {10**20}: x"), f"{number}.yml")
        pack = load_rules([path])
        assert pack.refused[0].reason.startswith("sel: "), pack.refused  # a key that is no text
        text = GOOD.replace("lsass.exe", str(value)).replace("tags:", f"custom: {{{10**20}: [{value}]}}\ntags:")
        (rule,) = load_rules([write(tmp_path, text, f"{number}.yml")]).rules
        digests.add(rule.digest)
    assert len(digests) == 7


TWO = """title: Two
id: 00000000-0000-4000-8000-000000000001
logsource: {product: windows}
detection:
  one: {A: x}
  condition: one and two
  timeframe: 5m
  two:
    - {A: x}
    - FAULT
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("{A|nosuch: x}", "two: Unknown modifier 'nosuch'"),
        ("{A|base64: 'a*'}", "two: "),
        ("{A|re: '('}", "two: "),
        ("{A|hour: 24}", "two: hour is a whole number from 0 to 23"),
        ("{5: x}", "two: a part of the rule has the wrong shape"),
        ("{A: {B: x}}", "two: "),
    ],
)
def test_the_line_is_that_of_the_detection_at_fault(tmp_path: Path, fault: str, reason: str) -> None:
    (refusal,) = load_rules([write(tmp_path, TWO.replace("FAULT", fault))]).refused
    assert refusal.line == 8
    assert refusal.reason.startswith(reason)


def test_a_rule_without_id_gets_one_that_stays(tmp_path: Path) -> None:
    text = GOOD.replace("id: 00000000-0000-4000-8000-000000000001\n", "")
    assert load_rules([write(tmp_path, text)]).rules[0].id == load_rules([write(tmp_path, text, "b.yml")]).rules[0].id


FAULTS: list[tuple[str | bytes, int | None, str]] = [
    ("title: [", 2, "not YAML"),
    ("a: b\n\tc: d\n", 2, "not YAML"),
    ("- just\n- a list\n", 1, "not a list"),
    ("text", 1, "not a str"),
    (b"title: \xff\n", 1, "not UTF-8"),
    ("title: \x01\n", None, "not YAML"),
    ("x" * (1 << 20) + "x", None, "too large"),
    (GOOD.replace("title: Good", "title: 3"), 1, "title"),
    (GOOD.replace("status: test", "status: none"), 3, "status"),
    (GOOD.replace("id: 0", "id: x 0"), 2, "is no UUID, nor a text of"),
    (GOOD.replace("00000000-0000-4000-8000-000000000001", '"a\\eb"'), 2, "is no UUID, nor a text of"),
    (GOOD.replace("00000000-0000-4000-8000-000000000001", "2024-01-01"), 2, "an id is text, best a UUID"),
    (GOOD.replace("00000000-0000-4000-8000-000000000001", "7"), 2, "an id is text, best a UUID"),
    (GOOD.replace("id: 0", f"id: {'x' * 120}0"), 2, "is no UUID"),
    (GOOD.replace("status: test", "level: huge"), 3, "level"),
    (GOOD.replace("{product: windows, category: process_access, definition: Sysmon}", "{}"), 5, "log source"),
    (GOOD.replace("{product: windows, category: process_access, definition: Sysmon}", "[]"), 5, "logsource"),
    (GOOD.replace("  condition: sel\n", ""), 6, "condition"),
    (GOOD.replace("|endswith", "|endwith"), 7, "sel: Unknown modifier 'endwith'"),
    (GOOD.replace("lsass.exe}", "lsass.exe, TargetImage|endswith: b}"), 7, "given twice"),
    (GOOD.replace("  sel: {", "  sel: {1: x, "), 7, "wrong shape"),
    (GOOD.replace("{TargetImage|endswith: lsass.exe}", "{Ip|cidr: 10.0.0.0/99}"), 7, "CIDR"),
    (GOOD.replace("{TargetImage|endswith: lsass.exe}", "{A|re: '(a'}"), 7, "(a"),
    (GOOD.replace("{TargetImage|endswith: lsass.exe}", "{}"), 7, "empty"),
    (GOOD + "action: nothing\n", 9, "unknown action 'nothing'"),
    (GOOD + "action: [repeat]\n", 9, "unknown action ['repeat']"),
    (GOOD + "action: {a: b}\n", 9, "unknown action"),
    (GOOD + "correlation: {}\n", 9, "a document with correlation is a correlation"),
    (GOOD + "filter: {}\n", 9, "a document with filter is a filter"),
    (GOOD.replace("status: test", "date: 2024-13-45"), None, ""),
    ("", 1, "no rule in this file"),
    ("# nothing yet\n---\n", 1, "no rule in this file"),
    ("action: global\ntitle: T\n", 1, "no rule in this file"),
    (GOOD + "x: &x [*x]\n", 9, "stands within what it names"),
    ("title: T\ndetection: " + "[" * 3000 + "]" * 3000 + "\n", 2, "nests deeper than 100"),
    ("title: T\ndetection: " + "[" * 500_000, 2, "nests deeper than 100"),
    ("title: T\ndetection: " + "{a: " * 200_000, 2, "nests deeper than 100"),
    ("title: T\ndetection:\n" + "- " * 400_000 + "a\n", 3, "nests deeper than 100"),
    ("detection:\r" + "- " * 400_000 + "a\r", None, "nests deeper than 100"),
    ("title: T\n" + "".join(f"{' ' * level}a:\n" for level in range(1200)), None, "nests deeper than 100"),
]


@pytest.mark.parametrize(("text", "line", "reason"), FAULTS)
def test_a_fault_is_named_and_the_others_load(tmp_path: Path, text: str | bytes, line: int | None, reason: str) -> None:
    write(tmp_path, GOOD.replace("00001", "00002"), "z_good.yml")
    bad = write(tmp_path, text, "bad.yml")
    pack = load_rules([tmp_path])
    assert [rule.path.name for rule in pack.rules] == ["z_good.yml"]
    (refusal,) = pack.refused
    assert refusal.path == bad
    assert reason in refusal.reason
    if line is not None:
        assert refusal.line == line
        assert str(refusal).startswith(f"{bad}:{line}: ")


def test_aliases_that_write_out_to_too_much_are_refused_at_once(tmp_path: Path) -> None:
    bomb = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]\n" for level in range(1, 12)
    )
    started = monotonic()
    pack = load_rules([write(tmp_path, GOOD + bomb)])
    assert monotonic() - started < 2
    (refusal,) = pack.refused
    assert "aliases" in refusal.reason
    assert refusal.line is not None
    assert refusal.line > 9


def test_aliases_may_be_used(tmp_path: Path) -> None:
    text = GOOD.replace("sel: {", "other: &other {User: a}\n  again: *other\n  sel: {")
    assert len(load_rules([write(tmp_path, text)]).rules) == 1


def test_what_is_named_like_a_rule_and_is_no_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "good.yml")
    (tmp_path / "dangling.yml").symlink_to(tmp_path / "nowhere.yml")
    (tmp_path / "itself.yml").symlink_to(tmp_path / "itself.yml")
    (tmp_path / "folder.yml").mkdir()
    os.mkfifo(tmp_path / "pipe.yml")  # reading it would wait for ever
    pack = load_rules([tmp_path])
    assert len(pack.rules) == 1
    assert {refusal.path.name: refusal.reason for refusal in pack.refused} == {
        "dangling.yml": "cannot be read: a link to a file that does not exist",
        "folder.yml": "a folder that is named like a rule file",
        "itself.yml": "cannot be read: a link to a file that does not exist",
        "pipe.yml": "not a file",
    }


def test_the_documents_before_a_broken_one_load(tmp_path: Path) -> None:
    pack = load_rules([write(tmp_path, GOOD + "---\ntitle: [\n")])
    assert [rule.title for rule in pack.rules] == ["Good"]
    assert len(pack.refused) == 1


def test_second_rule_with_an_id_is_refused_and_the_first_named(tmp_path: Path) -> None:
    first = write(tmp_path, GOOD, "a.yml")
    write(tmp_path, GOOD.replace("title: Good", "title: Copy"), "b.yml")
    pack = load_rules([tmp_path])
    assert [rule.title for rule in pack.rules] == ["Good"]
    assert pack.refused[0].line == 2
    assert "'Good'" in pack.refused[0].reason
    assert str(first) in pack.refused[0].reason


def test_folders_files_and_what_is_skipped(tmp_path: Path) -> None:
    for number, name in enumerate(["b/one.yml", "a/two.yaml", "three.yml", "a/not.txt"]):
        write(tmp_path, GOOD.replace("00001", f"0010{number}"), name)
    for name in ["three.tests.yml", "scenarios/s.yml", "a/pipelines/p.yml"]:
        write(tmp_path, "nothing: here\n", name)
    pack = load_rules([tmp_path, tmp_path / "three.yml"])
    assert [str(rule.path.relative_to(tmp_path)) for rule in pack.rules] == ["a/two.yaml", "b/one.yml", "three.yml"]
    assert not pack.refused


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(RulePathError, match="nowhere"):
        load_rules([tmp_path / "nowhere"])


def test_global_repeat_and_reset(tmp_path: Path) -> None:
    text = """action: global
title: Shared
level: high
logsource: {product: windows}
---
id: 00000000-0000-4000-8000-000000000011
detection: {sel: {A: x}, condition: sel}
---
action: repeat
id: 00000000-0000-4000-8000-000000000012
detection: {sel: {A: y}}
---
action: reset
---
id: 00000000-0000-4000-8000-000000000013
detection: {sel: {A: z}, condition: sel}
"""
    pack = load_rules([write(tmp_path, text)])
    assert [(rule.title, rule.level) for rule in pack.rules] == [("Shared", "high"), ("Shared", "high")]
    assert len(pack.refused) == 1


def test_reset_ends_global_and_not_repeat(tmp_path: Path) -> None:
    text = GOOD + "---\naction: reset\n---\naction: repeat\nid: 00000000-0000-4000-8000-000000000002\nlevel: low\n"
    pack = load_rules([write(tmp_path, text)])
    assert [(rule.title, rule.level) for rule in pack.rules] == [("Good", "medium"), ("Good", "low")]
    assert not pack.refused


def test_repeat_leaves_the_rule_before_it_and_what_is_shared_as_they_are(tmp_path: Path) -> None:
    text = """action: global
title: Shared
logsource: {product: windows}
detection: {sel: {A: x}, condition: sel}
---
action: repeat
id: 00000000-0000-4000-8000-000000000011
detection: {other: {B: y}, condition: sel and other}
---
id: 00000000-0000-4000-8000-000000000012
"""
    first, second = load_rules([write(tmp_path, text)]).rules
    assert list(first.sigma.detection.detections) == ["sel", "other"]
    assert list(second.sigma.detection.detections) == ["sel"]


def test_documents_that_cannot_be_joined_are_refused_and_the_others_load(tmp_path: Path) -> None:
    shared = "action: global\nlogsource: {product: windows}\ndetection: {sel: {A: x}, condition: sel}\n---\n"
    text = shared + "title: T\ndetection: text\n---\ntitle: U\n"
    pack = load_rules([write(tmp_path, text)])
    assert [rule.title for rule in pack.rules] == ["U"]
    (refusal,) = pack.refused
    assert (refusal.line, refusal.rule) == (6, "T")
    assert "detection is a map in one of the documents" in refusal.reason


def test_an_id_need_not_be_a_uuid_and_is_remarked_upon(tmp_path: Path) -> None:
    pack = load_rules([write(tmp_path, GOOD.replace("00000000-0000-4000-8000-000000000001", "perf-auth:1"))])
    assert pack.rules[0].id == "perf-auth:1"
    assert [(item.line, item.reason) for item in pack.remarks] == [
        (2, "its id 'perf-auth:1' is not a UUID; it is used as it is")
    ]


def test_a_uuid_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    spelled = GOOD.replace("00000000-0000-4000-8000-000000000001", "ABCDEF00-0000-4000-8000-000000000001")
    write(tmp_path, spelled, "a.yml")
    write(tmp_path, spelled.replace("ABCDEF00-0000", "'{abcdef00-0000").replace("000001\n", "000001}'\n"), "b.yml")
    pack = load_rules([tmp_path])
    assert [rule.id for rule in pack.rules] == ["abcdef00-0000-4000-8000-000000000001"]
    assert "its id is already that of" in pack.refused[0].reason
    assert not pack.remarks


def test_a_rule_has_the_name_that_others_refer_to(tmp_path: Path) -> None:
    assert load_rules([write(tmp_path, "name: good_one\n" + GOOD)]).rules[0].name == "good_one"


def test_ten_thousand_values_and_a_wildcard_alone_load(tmp_path: Path) -> None:
    many = "[" + ", ".join(f"v{number}" for number in range(10_000)) + "]"
    write(tmp_path, GOOD.replace("lsass.exe}", f"{many}}}"), "many.yml")
    write(tmp_path, GOOD.replace("00001", "00002").replace("|endswith: lsass.exe", ": '*'"), "any.yml")
    pack = load_rules([tmp_path])
    assert len(pack.rules) == 2
    assert [type(compile_rule(rule)) for rule in pack.rules] == [CompiledRule, CompiledRule]


def test_a_rule_too_large_for_its_file_is_refused(tmp_path: Path) -> None:
    values = "[" + ", ".join("a" for _ in range(210_000)) + "]"
    pack = load_rules([write(tmp_path, GOOD.replace("lsass.exe}", f"{values}}}"))])
    assert "more than 200000 values" in pack.refused[0].reason


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=200), st.text(alphabet=" \n-:[]{}&*!|>'\"#ab%", max_size=120).map(str.encode)))
def test_no_file_raises(tmp_path: Path, data: bytes) -> None:
    pack = load_rules([write(tmp_path, data)])
    assert not pack.rules
    assert pack.refused


def test_timeframe_is_no_detection(tmp_path: Path) -> None:
    pack = load_rules([write(tmp_path, GOOD.replace("  condition: sel", "  timeframe: 5m\n  condition: all of them"))])
    assert list(pack.rules[0].sigma.detection.detections) == ["sel"]


def test_a_folder_that_cannot_be_listed_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    listing = os.scandir

    def scandir(path: str) -> object:  # root may list any folder, so permissions would show nothing here
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(RulePathError, match=r"closed: Permission denied"):
        load_rules([tmp_path])


def test_a_linked_folder_is_named_since_what_it_holds_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rules" / "pipelines").mkdir(parents=True)
    (tmp_path / "rules" / "custom").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "rules" / "scenarios").symlink_to(tmp_path / "elsewhere")
    (refusal,) = load_rules([tmp_path / "rules"]).refused
    assert (refusal.path.name, "link to a folder" in refusal.reason) == ("custom", True)
    (tmp_path / "all").symlink_to(tmp_path / "rules")
    assert len(load_rules([tmp_path / "all"]).refused) == 1

"""Loading: every fault is named with its file and line, and the other rules load."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import pytest

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
    (GOOD.replace("id: 0", "id: x0"), 2, "UUID"),
    (GOOD.replace("status: test", "level: huge"), 3, "level"),
    (GOOD.replace("{product: windows, category: process_access, definition: Sysmon}", "{}"), 5, "log source"),
    (GOOD.replace("{product: windows, category: process_access, definition: Sysmon}", "[]"), 5, "logsource"),
    (GOOD.replace("  condition: sel\n", ""), 6, "condition"),
    (GOOD.replace("|endswith", "|endwith"), 6, "endwith"),
    (GOOD.replace("lsass.exe}", "lsass.exe, TargetImage|endswith: b}"), 7, "given twice"),
    (GOOD.replace("  sel: {", "  sel: {1: x, "), 6, "wrong shape"),
    (GOOD.replace("{TargetImage|endswith: lsass.exe}", "{Ip|cidr: 10.0.0.0/99}"), 6, "CIDR"),
    (GOOD.replace("{TargetImage|endswith: lsass.exe}", "{A|re: '(a'}"), 6, "(a"),
    (GOOD.replace("{TargetImage|endswith: lsass.exe}", "{}"), 6, "empty"),
    (GOOD + "action: nothing\n", 1, "unknown action"),
    (GOOD.replace("status: test", "date: 2024-13-45"), None, ""),
    ("", 1, "no rule in this file"),
    ("# nothing yet\n---\n", 1, "no rule in this file"),
    ("action: global\ntitle: T\n", 1, "no rule in this file"),
    (GOOD + "x: &x [*x]\n", 9, "stands within what it names"),
    ("title: T\ndetection: " + "[" * 3000 + "]" * 3000 + "\n", None, ""),
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


def test_correlations_and_filters_are_kept_apart(tmp_path: Path) -> None:
    text = (
        GOOD
        + "---\ntitle: Many\ncorrelation: {type: event_count, rules: [x]}\n"
        + "---\ntitle: F\nfilter: {rules: [x]}\n"
    )
    pack = load_rules([write(tmp_path, text)])
    assert len(pack.rules) == 1
    assert [(item.rule, item.reason) for item in pack.unsupported] == [
        ("Many", "not run here yet: correlation"),
        ("F", "not run here yet: filter"),
    ]
    assert not pack.refused


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

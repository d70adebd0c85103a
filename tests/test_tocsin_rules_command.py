"""`tocsin rules coverage | backtest | profile | explain --plan`: what they print and return."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from ingest.bus import Position
from ingest.event_files import read_events
from ingest.event_source import SourceBatch
from ingest.parse import parse
from storage.lake import Lake
from tocsin.cli import tocsin
from tocsin.json_line import json_line

NOW = datetime(2026, 8, 5, 12, tzinfo=UTC)

WHOAMI = r"""title: Whoami Run
id: 11111111-1111-4111-8111-111111111111
logsource: {product: windows, category: process_creation}
tags: [attack.discovery, attack.t1033]
detection:
    selection:
        Image|endswith: '\whoami.exe'
    condition: selection
level: high
"""
HASHES = """title: Known Hash
id: 22222222-2222-4222-8222-222222222222
logsource: {product: windows, category: process_creation}
tags: [attack.t1204.002]
detection:
    selection:
        Hashes|contains: MD5=00
    condition: selection
"""
LINUX = """title: Anything Else
id: 33333333-3333-4333-8333-333333333333
logsource: {product: linux, service: sshd}
detection:
    selection:
        message: x
    condition: not selection
"""


def sysmon(image: str, record: int) -> bytes:
    system = {
        "Provider": {"#attributes": {"Name": "Microsoft-Windows-Sysmon"}},
        "EventID": 1,
        "TimeCreated": {"#attributes": {"SystemTime": f"2026-01-{record:02}T03:04:05.500000Z"}},
        "EventRecordID": record,
        "Channel": "Microsoft-Windows-Sysmon/Operational",
        "Computer": f"pc-{record}",
    }
    return json.dumps({"Event": {"System": system, "EventData": {"Image": image, "CommandLine": image}}}).encode()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    for name, text in (("whoami", WHOAMI), ("hashes", HASHES), ("linux", LINUX)):
        (folder / f"{name}.yml").write_text(text)
    return folder


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.json"
    images = ["C:\\Windows\\whoami.exe", "C:\\notepad.exe", "C:\\x\x1b[31m\u202e\u009b\\WHOAMI.EXE", "D:\\whoami.exe"]
    path.write_bytes(b"\n".join(sysmon(image, record) for record, image in enumerate(images, 1)))
    return path


@pytest.fixture
def lake(events: Path, tmp_path: Path) -> Path:
    writer = Lake(tmp_path / "lake").writer()
    for offset, item in enumerate(read_events([events], now=NOW)):
        assert isinstance(item, SourceBatch)
        writer.add(parse(item.raw.with_columns(pl.lit("chu-brest").alias("tenant"))), Position("tocsin.raw", 0, offset))
    writer.flush()
    return tmp_path / "lake"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(tocsin, ["rules", *(str(arg) for arg in args)])


def lines(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_coverage_tells_what_each_rule_lacks(rules: Path, events: Path) -> None:
    found = {
        line["rule_title"]: line for line in lines(run("coverage", "--rules", rules, "--events", events, "--json"))
    }
    assert {title: line["state"] for title, line in found.items()} == {
        "Whoami Run": "can_match",
        "Known Hash": "field_never_seen",
        "Anything Else": "source_never_seen",
    }
    hashes = found["Known Hash"]
    assert hashes["reason"] == "blind: field Hashes never seen"
    assert (hashes["needed"], hashes["gated"], hashes["techniques"]) == ([["Hashes"]], True, ["T1204.002"])
    assert hashes["sources"] == [
        {
            "logsource": "windows/process_creation/sysmon",
            "events": 4,
            "datasets": ["windows.evtx"],
            "can_match": False,
            "present": [],
            "missing": [["Hashes"]],
            "values": {},
        }
    ]
    assert (found["Anything Else"]["gated"], found["Anything Else"]["datasets"]) == (False, ["linux.sshd"])


def test_coverage_as_text(rules: Path, events: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer.json"
    result = run("coverage", "--rules", rules, "--events", events, "--attack-navigator", layer)
    assert result.exit_code == 0, result.output
    for text in (
        "1  can match",
        "windows/process_creation/sysmon       4",
        "blind: field Hashes never seen",
        "Without a gate",
        "linux.yml: Anything Else (linux/_/sshd)",
        "T1033                     1      0",
        "T1204.002                 0      1",
        "windows.*",
    ):
        assert text in result.stdout, text
    assert "4 events in " in result.stderr
    assert {item["techniqueID"]: item["score"] for item in json.loads(layer.read_text())["techniques"]} == {
        "T1033": 1,
        "T1204.002": 0,
    }
    verbose = run("coverage", "--rules", rules, "--events", events, "--verbose").stdout
    assert "Whoami Run (11111111" in verbose
    assert "Whoami Run (11111111" not in result.stdout


def test_coverage_of_the_lake_is_that_of_the_files(rules: Path, events: Path, lake: Path) -> None:
    files = run("coverage", "--rules", rules, "--events", events, "--json")
    in_lake = run("coverage", "--rules", rules, "--lake-path", lake, "--json")
    assert lines(files) == lines(in_lake)


def test_coverage_without_events_tells_what_formats_give(rules: Path) -> None:
    found = lines(run("coverage", "--rules", rules, "--json"))
    assert {line["state"] for line in found} == {"source_never_seen"}


def test_backtest_sums_up(rules: Path, events: Path) -> None:
    found = lines(run("backtest", "--rules", rules, "--events", events, "--json"))
    first = next(line for line in found if line["rule_title"] == "Whoami Run")
    assert (first["matches"], first["hosts"], first["users"], first["tenants"]) == (3, 3, 0, {})
    assert first["days"] == {"2026-01-01": 1, "2026-01-03": 1, "2026-01-04": 1}
    assert (first["added"], first["removed"]) == (None, None)
    result = run("backtest", "--rules", rules, "--events", events)
    for text in (
        "3 matches, 3 days",
        "2026-01-03 1",
        "for example: 2026-01-01 03:04:05 pc-1",
        "2 rules without a match",
    ):
        assert text in result.stdout, text
    assert not set(result.stdout) & {"\x1b", "\u202e", "\u009b"}
    named = run("backtest", "--rules", rules, "--events", events, "--all").stdout
    assert "Known Hash" in named


def test_backtest_of_the_lake_reads_part_of_it(rules: Path, lake: Path) -> None:
    both = ("--rules", rules / "whoami.yml", "--lake-path", lake, "--json")
    whole = lines(run("backtest", *both))[0]
    assert (whole["matches"], whole["tenants"]) == (3, {"chu-brest": 3})
    part = lines(run("backtest", *both, "--since", "2026-01-02", "--until", "2026-01-04T00:00:00"))[0]
    assert (part["matches"], part["days"]) == (1, {"2026-01-03": 1})
    assert lines(run("backtest", *both, "--tenant", "chu-brest", "elsewhere"))[0]["matches"] == 3
    assert lines(run("backtest", *both, "--tenant", "elsewhere"))[0]["matches"] == 0
    assert "0 events in" in run("backtest", "--rules", rules / "linux.yml", "--lake-path", lake).stderr


def test_the_lake_gives_only_what_rules_look_at(lake: Path) -> None:
    frames = list(Lake(lake).read(fields=lambda source: ["image"] if source.category == "process_creation" else ()))
    assert [frame.fields for frame in frames] == [["Image"]]
    assert frames[0].events.get_column("event.original").null_count() == frames[0].events.height == 4
    assert frames[0].events.get_column("host.name").to_list() == [f"pc-{row}" for row in range(1, 5)]
    assert list(Lake(lake).read(fields=lambda _: ())) == []
    assert next(Lake(lake).read(fields=lambda _: None)).events.get_column("event.original").null_count() == 0


def test_backtest_keywords_search_all_of_the_lake(tmp_path: Path, lake: Path) -> None:
    (tmp_path / "word.yml").write_text(
        "title: Word\nid: 44444444-4444-4444-8444-444444444444\nlogsource: {product: windows}\n"
        "detection: {words: [EventRecordID], condition: words}\n"
    )
    assert lines(run("backtest", "--rules", tmp_path / "word.yml", "--lake-path", lake, "--json"))[0]["matches"] == 4


def test_backtest_against_the_rules_as_they_were(rules: Path, events: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.yml"
    new.write_text(WHOAMI.replace(r"Image|endswith: '\whoami.exe'", r"Image|contains: [notepad, 'D:\']"))
    arguments = ("--rules", new, "--against", rules / "whoami.yml", "--events", events)
    found = lines(run("backtest", *arguments, "--json"))
    changes = [(line["change"], line["host"]) for line in found if "change" in line]
    assert changes == [("-", "pc-1"), ("+", "pc-2"), ("-", "pc-3")]
    assert (found[-1]["matches"], found[-1]["added"], found[-1]["removed"]) == (2, 1, 2)
    text = run("backtest", *arguments, "--limit", "1").stdout
    assert "against the old rules: +1 -2 =1" in text
    assert "and 2 more (--limit 0 names all)" in text
    assert "  - 2026-01-01" in text


def test_profile_names_the_slowest(rules: Path, events: Path) -> None:
    found = lines(run("profile", "--rules", rules, "--events", events, "--json"))
    assert {line["rule_title"]: (line["events"], line["matches"]) for line in found} == {
        "Whoami Run": (4, 3),
        "Known Hash": (4, 0),
    }
    assert sum(float(str(line["share"])) for line in found) == pytest.approx(1, abs=1e-4)
    result = run("profile", "--rules", rules, "--events", events)
    assert "all rules together: " in result.stdout
    assert "many candidates" in result.stdout
    assert lines(run("profile", "--rules", rules, "--events", events, "--json", "--most", "2"))[0]["events"] == 2


def test_explain_shows_how_a_rule_runs_without_events(rules: Path) -> None:
    result = run("explain", "--plan", rules / "whoami.yml")
    assert result.exit_code == 0, result.output
    for text in (
        "Whoami Run (11111111-1111-4111-8111-111111111111), log source windows/process_creation/_",
        r"  Image endswith '\whoami.exe' (lower case)",
        "needs: Image",
        "one of these must be true:",
        'pl.col("Image")',
    ):
        assert text in result.stdout, text
    assert "without a gate" in run("explain", "--plan", rules / "linux.yml").stdout


def test_explain_shows_plan_and_events_together(rules: Path, events: Path) -> None:
    both = run("explain", "--plan", rules / "whoami.yml", "--events", events).stdout
    assert "expression:" in both
    assert "4 events explained" in both


def test_explain_shows_correlations(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(
        f"{WHOAMI}---\ntitle: Often\nid: 55555555-5555-4555-8555-555555555555\ncorrelation:\n  type: event_count\n"
        "  rules: [11111111-1111-4111-8111-111111111111]\n  group-by: [Computer]\n  timespan: 5m\n"
        "  condition: {gte: 3}\nlevel: high\n"
    )
    shown = run("explain", "--plan", tmp_path / "r.yml").stdout
    for text in (
        "Often (55555555-5555-4555-8555-555555555555), a correlation",
        "type: event_count of Whoami Run (11111111-1111-4111-8111-111111111111)",
        "window: 0:05:00",
        "group by: Computer",
        "condition: event_count >= 3",
    ):
        assert text in shown, text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["coverage", "--rules", "nowhere"], "nowhere: no such file or folder"),
        (["coverage", "--rules", "{rules}", "--events", "{events}", "--lake"], "say either --events PATH... or --lake"),
        (["coverage", "--rules", "{rules}", "--attack-navigator", "/no/such/folder/x"], "/no/such/folder/x: cannot be"),
        (["backtest", "--rules", "{rules}"], "say either --events PATH... or --lake"),
        (["backtest", "--rules", "{rules}", "--events", "nowhere"], "nowhere: no such file or folder"),
        (["backtest", "--rules", "{rules}", "--lake-path", "nowhere"], "nowhere: no lake there"),
        (["backtest", "--rules", "{rules}", "--against", "nowhere", "--events", "{events}"], "nowhere: no such file"),
        (["profile", "--rules", "{events}", "--events", "{events}"], "no rules to run in"),
        (["explain", "{rules}/whoami.yml"], "say --events PATH..., --plan, or both"),
        (["explain", "--plan", "{events}"], "no rule that runs"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(args: list[str], message: str, rules: Path, events: Path) -> None:
    result = run(*(arg.format(rules=rules, events=events) for arg in args))
    assert result.exit_code != 0
    assert message in str(result.exception) + result.stderr
    assert result.exception is not None
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("command", ["coverage", "backtest", "profile"])
def test_a_source_that_cannot_be_read_is_exit_1(command: str, rules: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not a zip")
    result = run(command, "--rules", rules, "--events", tmp_path / "bad.zip")
    assert result.exit_code == 1
    assert "unreadable: " in result.stderr


CHECKED = """title: Accounts
id: 66666666-6666-4666-8666-666666666666
name: accounts
logsource: {product: windows, category: process_creation}
detection:
    selection: {Account|expand: 'adm-%admins%'}
    condition: selection
---
title: Often
correlation: {type: event_count, rules: accounts, timespan: 5m, condition: {gte: 3}}
---
title: Known Machine
logsource: {product: windows}
filter:
    rules: any
    selection: {Computer: pc-1}
    condition: not selection
---
title: For Nobody
logsource: {product: aix}
filter: {rules: any, selection: {A: x}, condition: not selection}
"""
PIPELINE = """name: accounts
priority: 10
transformations:
  - {id: user, type: field_name_mapping, mapping: {Account: User}}
"""


@pytest.fixture
def checked(tmp_path: Path) -> list[Path | str]:
    """A pack that needs placeholders, and what it is checked with."""
    for name, text in (("r.yml", CHECKED), ("admins.txt", "ann\n"), ("p.yml", PIPELINE)):
        (tmp_path / name).write_text(text)
    return ["check", tmp_path / "r.yml", "--expand", tmp_path / "admins.txt", "--pipeline", tmp_path / "p.yml"]


def test_check_counts_correlations_filters_and_remarks(checked: list[Path | str]) -> None:
    result = run(*checked)
    assert result.exit_code == 0, result.output
    *findings, counts = result.stdout.splitlines()
    assert counts == (
        "1 rules run, 0 refused, 0 not run here, 0 slow, 0 without a gate, 0 out of reach of any format, "
        "1 correlations run, 1 silenced by a correlation, 2 filters, 1 filtered, 1 remarks"
    )
    assert [text for text in findings if "Accounts: gives no alerts of its own, only to correlation 'Often'" in text]
    assert [text for text in findings if "For Nobody: no rule has a log source within aix/_/_" in text]


def test_check_compiles_with_placeholders_and_pipelines(checked: list[Path | str], tmp_path: Path) -> None:
    without = run(*checked[:2])
    assert without.exit_code == 1
    assert f"{tmp_path / 'r.yml'}:6: Accounts" in without.stdout
    assert "placeholder %admins% has no values here" in without.stdout
    (tmp_path / "p.yml").write_text(
        PIPELINE.replace("field_name_mapping, mapping: {Account: User}", "rule_failure, message: not here")
    )
    failed = run(*checked)
    assert failed.exit_code == 1
    assert "not here" in failed.stdout


def test_json_hides_nothing_and_obeys_nothing() -> None:
    text = "é\x1b\u202e\u009b\x7f\U000e0001"
    line = json_line({"a": text})
    assert json.loads(line) == {"a": text}
    assert "é" in line
    assert line.isprintable()


def test_a_folder_without_rules_is_a_fault(tmp_path: Path) -> None:
    result = run("check", tmp_path)
    assert result.exit_code == 1
    assert f"no rule in {tmp_path}" in result.stderr


def test_rules_without_tests_are_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "whoami.yml").write_text(WHOAMI)
    result = run("test", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "no tests beside these rules\n")

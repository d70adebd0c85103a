"""`tocsin hunt`: what it prints and returns, and that real attacks are found in real files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml
from click.testing import CliRunner, Result

from detections.load import load_rules
from detections.plan import Plan
from ingest.bus import Position
from ingest.event_files import read_events
from ingest.event_source import SourceBatch
from ingest.parse import parse
from storage.lake import Lake
from tocsin.hunt import HuntTally, hunt, hunt_files
from tocsin.hunt_lines import match_lines
from tocsin.hunt_report import MatchTable
from tocsin.path_lists import repeat_options

NOW = datetime(2026, 8, 5, 12, tzinfo=UTC)
KEYS = ["source", "rule_id", "rule_title", "level", "event_id", "timestamp", "matched"]

WHOAMI = """\
title: Whoami Run [bold]
id: 11111111-1111-4111-8111-111111111111
status: test
logsource: {product: windows, category: process_creation}
detection:
    selection:
        Image|endswith: '\\whoami.exe'
    condition: selection
level: high
"""
SHELL = """\
title: A Shell
id: 22222222-2222-4222-8222-222222222222
logsource: {product: windows, category: process_creation}
detection:
    selection:
        ParentImage|endswith: '\\cmd.exe'
    condition: selection
level: low
"""
CORRELATION = """\
title: Many Whoami
id: 33333333-3333-4333-8333-333333333333
correlation:
    type: event_count
    rules: [11111111-1111-4111-8111-111111111111]
    group-by: [Computer]
    timespan: 10s
    condition: {gte: 2}
level: critical
---
title: Shell, Then Many Whoami
id: 44444444-4444-4444-8444-444444444444
correlation:
    type: temporal_ordered
    rules: [22222222-2222-4222-8222-222222222222, 33333333-3333-4333-8333-333333333333]
    group-by: [Computer]
    timespan: 1m
    generate: true
level: medium
"""
SUM = """\
title: Weights
id: 55555555-5555-4555-8555-555555555555
correlation:
    type: value_sum
    rules: [11111111-1111-4111-8111-111111111111]
    group-by: [Computer]
    timespan: 10s
    condition: {gte: 200, field: Weight}
level: low
---
"""
BROKEN = "title: Broken\nlogsource: {product: windows}\ndetection: {selection: {a: 1}, condition: selction}\n"


def sysmon(image: str, record: int, parent: str = "C:\\Windows\\explorer.exe") -> bytes:
    return json.dumps(
        {
            "Event": {
                "System": {
                    "Provider": {"#attributes": {"Name": "Microsoft-Windows-Sysmon"}},
                    "EventID": 1,
                    "TimeCreated": {"#attributes": {"SystemTime": f"2026-01-02T03:04:{record:02}.500000Z"}},
                    "EventRecordID": record,
                    "Channel": "Microsoft-Windows-Sysmon/Operational",
                    "Computer": "pc-01",
                },
                "EventData": {"Image": image, "ParentImage": parent, "CommandLine": image},
            }
        }
    ).encode()


FAILED_LOGIN = """
title: Failed Login
id: 66666666-6666-4666-8666-666666666666
status: test
level: low
logsource: {product: linux, service: sshd}
detection: {a: {message|contains: Failed password}, condition: a}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "whoami.yml").write_text(WHOAMI)
    (folder / "shell.yml").write_text(SHELL)
    (folder / "broken.yml").write_text(BROKEN)
    return folder


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.json"
    path.write_bytes(
        b"\n".join(
            [
                sysmon("C:\\Windows\\System32\\whoami.exe", 1),
                sysmon("C:\\Windows\\notepad.exe", 2),
                b"",
                sysmon("C:\\x\x1b[31m\u202e\u009b\\WHOAMI.EXE", 4, "C:\\Windows\\System32\\cmd.exe"),
            ]
        )
    )
    return path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(hunt, [str(arg) for arg in args])


def found(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_has_a_line_a_match_with_exactly_these_keys(rules: Path, events: Path) -> None:
    result = run("--rules", rules, "--events", events, "--json")
    assert result.exit_code == 0, result.stderr
    matches = found(result)
    assert [list(match) for match in matches] == [KEYS] * 3
    assert matches[0] == {
        "source": str(events),
        "rule_id": "11111111-1111-4111-8111-111111111111",
        "rule_title": "Whoami Run [bold]",
        "level": "high",
        "event_id": f"{events}:1",
        "timestamp": "2026-01-02T03:04:01.500000Z",
        "matched": {"Image": "C:\\Windows\\System32\\whoami.exe"},
    }
    assert [(match["event_id"], match["rule_title"]) for match in matches[1:]] == [
        (f"{events}:4", "A Shell"),
        (f"{events}:4", "Whoami Run [bold]"),
    ]


def test_control_characters_reach_no_terminal_and_are_not_lost(rules: Path, events: Path) -> None:
    result = run("--rules", rules, "--events", events, "--json")
    assert result.stdout.isprintable() or all(line.isprintable() for line in result.stdout.splitlines())
    assert found(result)[2]["matched"] == {"Image": "C:\\x\x1b[31m\u202e\u009b\\WHOAMI.EXE"}
    table = run("--rules", rules, "--events", events).stdout
    assert not set(table) & {"\x1b", "\u202e", "\u009b"}
    assert "\\x1b[31m\\u202e\\x9b" in table


def test_the_table_groups_by_rule_worst_first(rules: Path, events: Path) -> None:
    result = run("--rules", rules, "--events", events)
    assert result.exit_code == 0
    assert result.stdout.index("Whoami Run [bold]") < result.stdout.index("A Shell")
    assert "pc-01" in result.stdout
    assert "2026-01-02 03:04:01" in result.stdout
    assert "events.json:1" in result.stdout


def test_the_sums_are_on_stderr(rules: Path, events: Path) -> None:
    stderr = run("--rules", rules, "--events", events, "--json").stderr
    assert "2 rules run, 1 refused" in stderr
    assert "3 events: 3 understood, 0 of no known format, 0 with a remark" in stderr
    assert "3 matches in" in stderr
    assert "broken.yml" not in stderr
    assert "broken.yml:3" in run("--rules", rules, "--events", events, "--json", "--show-refused").stderr


def test_level_leaves_out_lesser_rules(rules: Path, events: Path) -> None:
    matches = found(run("--rules", rules, "--events", events, "--json", "--level", "medium"))
    assert {match["rule_title"] for match in matches} == {"Whoami Run [bold]"}


def test_correlations_run_at_the_end_whatever_the_order_of_the_files(rules: Path, tmp_path: Path) -> None:
    (rules / "correlations.yml").write_text(CORRELATION)
    late, early = tmp_path / "a.json", tmp_path / "b.json"
    late.write_bytes(b"\n".join(sysmon("C:\\whoami.exe", second) for second in (9, 40)))
    early.write_bytes(sysmon("C:\\x.exe", 1, "C:\\cmd.exe") + b"\n" + sysmon("C:\\WHOAMI.exe", 5))
    result = run("--rules", rules, "--events", late, early, "--json")
    lines = found(result)
    assert [line["rule_title"] for line in lines] == ["A Shell", "Many Whoami", "Shell, Then Many Whoami"]
    many, shell = lines[1:]
    assert list(many) == KEYS
    assert (many["source"], many["event_id"]) == (str(late), f"{late}:1")
    assert many["timestamp"] == "2026-01-02T03:04:09.500000Z"
    assert many["matched"] == {"Computer": "pc-01", "event_count": "2", "timespan": "10s"}
    assert (shell["source"], shell["event_id"]) == (str(late), f"{late}:1")  # the last event of what it rests on
    assert shell["matched"] == {
        "Computer": "pc-01",
        "temporal_ordered": "2",
        "event_count": "2",
        "timespan": "1m",
    }
    assert "3 matches in" in result.stderr
    assert "2 of the matches are correlations" in result.stderr
    assert "3 matches are not shown: their rules are only material" in result.stderr
    assert "2 correlations" in result.stderr


def test_a_correlation_has_its_rules_whatever_their_level(rules: Path, tmp_path: Path) -> None:
    (rules / "correlations.yml").write_text(CORRELATION.replace("level: medium", "level: critical"))
    path = tmp_path / "more.json"
    path.write_bytes(
        b"\n".join(sysmon(f"C:\\{name}.exe", n, "C:\\cmd.exe") for n, name in enumerate(("x", "whoami", "whoami")))
    )
    shown = found(run("--rules", rules, "--events", path, "--level", "critical", "--json"))
    assert {line["rule_title"] for line in shown} == {"Many Whoami", "Shell, Then Many Whoami"}
    high = found(run("--rules", rules, "--events", path, "--level", "high", "--json"))
    assert {line["rule_title"] for line in high} == {"Many Whoami", "Shell, Then Many Whoami"}


def test_a_correlation_that_is_refused_silences_nothing(rules: Path, events: Path) -> None:
    broken = CORRELATION.replace("condition: {gte: 2}", "condition: {gte: 2, lt: 1}")
    (rules / "correlations.yml").write_text(broken)
    result = run("--rules", rules, "--events", events, "--json")
    assert {line["rule_title"] for line in found(result)} == {"Whoami Run [bold]", "A Shell"}
    assert "3 refused" in result.stderr


def test_an_event_without_the_group_is_counted(rules: Path, tmp_path: Path) -> None:
    (rules / "correlations.yml").write_text(CORRELATION.replace("[Computer]", "[Nowhere]"))
    path = tmp_path / "events.json"
    path.write_bytes(sysmon("C:\\whoami.exe", 1))
    result = run("--rules", rules, "--events", path, "--json")
    assert found(result) == []
    assert "1 times a match could not be correlated" in result.stderr
    assert "\n  correlation 'Many Whoami': no field 'Nowhere' in any of 1 matches\n" in result.stderr


def test_a_field_that_only_some_matches_lack_is_counted(rules: Path, tmp_path: Path) -> None:
    (rules / "correlations.yml").write_text(SUM + CORRELATION.replace("[Computer]", "[Color, Computer]"))
    declared = {"product": "windows", "category": "process_creation", "Image": "C:\\whoami.exe", "Computer": "pc"}
    path = tmp_path / "events.json"
    path.write_text(
        "\n".join(
            json.dumps({**declared, **more})
            for more in ({"Color": "red", "Weight": 1}, {"Weight": "much"}, {"Color": "blue"}, {"Weight": "2"})
        )
    )
    result = run("--rules", rules, "--events", path, "--json")
    assert found(result) == []
    said = [line for line in result.stderr.splitlines() if line.startswith("  correlation")]
    assert said == [
        "  correlation 'Many Whoami': no field 'Color' in 2 of 4 matches",
        "  correlation 'Weights': no number in field 'Weight' in 2 of 4 matches",
    ]


def test_only_the_worst_gaps_are_named(rules: Path, tmp_path: Path) -> None:
    names = ", ".join(f"F{n}" for n in range(8))
    (rules / "correlations.yml").write_text(CORRELATION.replace("[Computer]", f"[{names}]", 1))
    path = tmp_path / "events.json"
    path.write_bytes(sysmon("C:\\whoami.exe", 1))
    result = run("--rules", rules, "--events", path, "--json")
    assert result.stderr.count("no field 'F") == 5
    assert "\n  and 3 more such fields\n" in result.stderr


def timed(*values: object) -> bytes:
    event = {"product": "windows", "category": "process_creation", "Image": "C:\\whoami.exe", "Computer": "pc"}
    return b"\n".join(json.dumps({**event, "timestamp": value}).encode() for value in values)


def test_events_without_a_time_of_their_own_are_told(rules: Path, tmp_path: Path) -> None:
    (rules / "correlations.yml").write_text(CORRELATION)
    path = tmp_path / "events.json"
    path.write_bytes(timed("2026-03-01T10:00:00Z", "yesterday", None, "noon"))
    result = run("--rules", rules, "--events", path, "--json")
    assert [line["rule_title"] for line in found(result)] == ["Many Whoami"]
    assert "\n3 events without a time of their own: they have the time of receipt\n" in result.stderr
    assert "\n3 matches that correlations looked at have no time of their own: " in result.stderr


def test_events_with_their_times_under_usual_keys_are_not_at_once(rules: Path, tmp_path: Path) -> None:
    (rules / "correlations.yml").write_text(CORRELATION)
    path = tmp_path / "events.json"
    path.write_bytes(timed("2026-03-01T10:00:00Z", "2026-03-02T10:00:00+01:00", 1772532000, 1772618400000))
    result = run("--rules", rules, "--events", path, "--json")
    assert found(result) == []
    assert "of their own" not in result.stderr


def test_the_lane_of_correlations(shared_data: Path) -> None:
    lanes = shared_data / "lanes"
    result = run("--rules", lanes / "correlation_rules.yml", "--events", lanes / "correlation.ndjson.gz", "--json")
    counts = Counter(str(line["rule_title"]) for line in found(result))
    # RSigma with --suppress 5m gives as many; all events are of one moment, so each group fires once
    assert sum(counts.values()) == 220
    assert counts["Authentication Failure Burst by User"] == 100
    assert counts["Authentication Failure Then Success"] == 100


def test_nothing_found_is_no_failure(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "quiet.log").write_text("a line\n")
    result = run("--rules", rules, "--events", tmp_path / "quiet.log", "--json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "1 events: 0 understood, 1 of no known format" in result.stderr


def test_options_take_many_paths(rules: Path, events: Path) -> None:
    one, two = rules / "whoami.yml", rules / "shell.yml"
    spaced = run("--rules", one, two, "--events", events, events, "--json")
    repeated = run("--rules", one, "--rules", two, "--events", events, "--json")
    equals = run(f"--rules={one}", two, "--json", "--events", events)
    assert spaced.exit_code == 0, spaced.stderr
    assert len(found(spaced)) == 3
    assert spaced.stdout == repeated.stdout == equals.stdout


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ("--rules a b --events c", "--rules a --rules b --events c"),
        ("--rules a --json --events b c", "--rules a --json --events b --events c"),
        ("--rules=a b --level high --events=c d", "--rules=a --rules b --level high --events=c --events d"),
        ("--rules a b -- c d", "--rules a --rules b -- c d"),
        ("--rules --events a", "--rules --events a"),
        ("", ""),
    ],
)
def test_list_options_are_repeated(args: str, expected: str) -> None:
    assert list(repeat_options(args.split(), {"--rules", "--events"})) == expected.split()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rules", "{rules}"], "say either --events PATH... or --lake"),
        (["--rules", "{rules}", "--events", "{events}", "--lake"], "say either --events PATH... or --lake"),
        (["--rules", "{rules}", "--events", "nowhere"], "nowhere: no such file or folder"),
        (["--rules", "nowhere", "--events", "{events}"], "nowhere: no such file or folder"),
        (["--rules", "{rules}/broken.yml", "--events", "{events}"], "no rules to run in"),
        (["--rules", "{rules}", "--lake-path", "nowhere"], "nowhere: no lake there"),
        (["--rules", "{rules}", "--events", "{events}", "--time-zone", "Europe/Brest"], "Europe/Brest is no time zone"),
        (["--rules", "{rules}", "--events", "{events}", "--format", "nonsuch"], "'nonsuch' is not one of"),
    ],
)
def test_what_cannot_be_hunted_is_one_line_and_exit_2(args: list[str], message: str, rules: Path, events: Path) -> None:
    result = run(*(arg.format(rules=rules, events=events) for arg in args))
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert (result.stdout, "Traceback" in result.stderr) == ("", False)


def test_local_times_and_a_pinned_format(tmp_path: Path) -> None:
    rule = tmp_path / "rule.yml"
    rule.write_text(FAILED_LOGIN)
    lines = tmp_path / "auth.log"
    lines.write_bytes(b"Jul  1 13:30:00 h app: Failed password for root from 192.0.2.7 port 22 ssh2\n")
    args = ("--rules", rule, "--events", lines, "--json")
    assert found(run(*args)) == []  # the program is not sshd
    (match,) = found(run(*args, "--format", "linux.sshd", "--time-zone", "Europe/Paris"))
    assert str(match["timestamp"]).endswith("-07-01T11:30:00.000000Z")


def test_one_unreadable_source_does_not_stop_the_others(rules: Path, events: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not a zip")
    result = run("--rules", rules, "--events", tmp_path / "bad.zip", events, "--json")
    assert result.exit_code == 0
    assert len(found(result)) == 3
    assert f"unreadable: {tmp_path}/bad.zip: not a readable zip file" in result.stderr
    assert run("--rules", rules, "--events", tmp_path / "bad.zip").exit_code == 1


def test_the_source_of_a_member_names_archive_and_member(rules: Path, events: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(events, "deep/events.json")
        archive.writestr("readme.md", "not events")
    result = run("--rules", rules, "--events", tmp_path / "all.zip", "--json")
    assert {match["source"] for match in found(result)} == {f"{tmp_path}/all.zip!deep/events.json"}
    assert "skipped: " in result.stderr


def test_two_runs_print_the_same(rules: Path, events: Path) -> None:
    assert run("--rules", rules, "--events", events, "--json").stdout_bytes == (
        run("--rules", rules, "--events", events, "--json").stdout_bytes
    )


def test_matches_come_in_the_order_of_the_sources(rules: Path, tmp_path: Path) -> None:
    plan = Plan.build(load_rules([rules]).rules)
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.json").write_bytes(
            b"\n".join(sysmon("whoami.exe" if row % 2 else "C:\\whoami.exe", row, "C:\\cmd.exe") for row in range(9))
        )
    items = read_events([tmp_path / f"{name}.json" for name in "bac"], now=NOW)
    matches = pl.concat([item for item in hunt_files(plan, items, HuntTally()) if isinstance(item, pl.DataFrame)])
    places = [
        (Path(source).name, int(event_id.rsplit(":", 1)[1]))
        for source, event_id in matches.select("source", "event_id").iter_rows()
    ]
    assert places == sorted(places, key=lambda place: ("bac".index(place[0][0]), place[1]))
    assert len(places) == 3 * (9 + 5)


def test_a_hunt_in_the_lake_finds_what_a_hunt_in_files_finds(rules: Path, events: Path, tmp_path: Path) -> None:
    writer = Lake(tmp_path / "lake").writer()
    for offset, item in enumerate(read_events([events], now=NOW)):
        assert isinstance(item, SourceBatch)
        raw = item.raw.with_columns(pl.lit("chu-brest").alias("tenant"))
        writer.add(parse(raw), Position("tocsin.raw", 0, offset))
    writer.flush()
    in_lake = run("--rules", rules, "--lake", "--lake-path", tmp_path / "lake", "--json")
    assert in_lake.exit_code == 0, in_lake.stderr
    strip = [{key: match[key] for key in KEYS if key != "source"} for match in found(in_lake)]
    in_files = found(run("--rules", rules, "--events", events, "--json"))
    assert sorted(map(json.dumps, strip)) == sorted(
        json.dumps({key: match[key] for key in KEYS if key != "source"}) for match in in_files
    )


def test_a_closed_pipe_ends_the_hunt_quietly(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "many.json").write_bytes(b"\n".join([sysmon("C:\\whoami.exe", 1)] * 20_000))
    code = "from tocsin.hunt import hunt; hunt()"
    args = ["--rules", str(rules), "--events", str(tmp_path / "many.json"), "--json"]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["level"] == "high"
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "Broken" not in errors


def test_an_example_is_shown_as_it_is_and_not_as_markup() -> None:
    match = {
        "source": "s",
        "rule_id": "id",
        "rule_title": "[red]title[/red]",
        "level": "low",
        "event_id": "/a/b.zip!c/d.json:7",
        "timestamp": NOW,
        "host": None,
        "matched": json.dumps({"[link]": ":smile: " + "x" * 500, "n": None}),
    }
    out = io.StringIO()
    table = MatchTable(out)
    matches = pl.DataFrame([match] * 5)
    table.matches(matches)
    table.end()
    shown = out.getvalue()
    assert "[red]title[/red]" in shown.replace("\n", "")
    assert shown.count("d.json:7") == 3
    assert ":smile:" in shown
    assert "[link]" in shown
    assert "…" in shown
    lines = match_lines(matches)
    assert len(lines) == 5
    assert json.loads(lines[4])["matched"]["[link]"] == ":smile: " + "x" * 500


REGRESSION_RULES = ("rules", "rules-emerging-threats", "rules-threat-hunting")
COUNTS_OF_OURS = {
    # The rule names procdump.exe, procdump64.exe and procdump64a.exe: the three are in the log, one is counted there.
    "8fbf3271-1ef6-4e94-8210-03c2317947f6.evtx": 3,
}


@pytest.fixture(scope="module")
def regression(shared_data: Path) -> dict[tuple[str, str], int]:
    """(file, rule id) -> matches, over all of SigmaHQ's regression data at once."""
    folder = shared_data / "sigmahq"
    pack = load_rules([folder / name for name in REGRESSION_RULES])
    plan = Plan.build(pack.rules)
    tally = HuntTally()
    counts: dict[tuple[str, str], int] = {}
    for item in hunt_files(plan, read_events([folder / "regression_data"], now=datetime.now(UTC)), tally):
        if isinstance(item, pl.DataFrame):
            for source, rule in item.select("source", "rule_id").iter_rows():
                counts[source, rule] = counts.get((source, rule), 0) + 1
    assert tally.lost == 0
    assert set(tally.problems) <= {"skipped"}
    return counts


def cases(folder: Path) -> Iterator[tuple[Path, str, int | None]]:
    """(event file, rule that must match it, number of matches where it is told)."""
    for info in sorted(folder.rglob("info.yml")):
        told = yaml.safe_load(info.read_text())
        counts = {Path(test["path"]).name: test.get("match_count") for test in told.get("regression_tests_info") or []}
        for file in sorted(info.parent.iterdir()):
            for rule in told["rule_metadata"] if file != info else []:
                yield file, rule["id"], counts.get(file.name)


def test_every_rule_fires_on_its_regression_data(shared_data: Path, regression: dict[tuple[str, str], int]) -> None:
    wanted = list(cases(shared_data / "sigmahq" / "regression_data"))
    assert len(wanted) > 200
    assert {file.suffix for file, _, _ in wanted} == {".evtx", ".json", ".jsoncls", ".raw"}
    missed = [f"{file.name} ({rule})" for file, rule, _ in wanted if not regression.get((str(file), rule))]
    assert missed == []
    differ = {
        file.name: regression[str(file), rule]
        for file, rule, count in wanted
        if count is not None and regression[str(file), rule] != count
    }
    assert differ == COUNTS_OF_OURS


def test_a_real_attack_is_found_in_its_archive(shared_data: Path) -> None:
    archive = next((shared_data / "otrf").rglob("rdp_interactive_taskmanager_lsass_dump.zip"))
    result = run("--rules", shared_data / "sigmahq" / "rules", "--events", archive, "--json", "--level", "high")
    assert result.exit_code == 0, result.stderr
    matches = found(result)
    assert "LSASS Process Memory Dump Creation Via Taskmgr.EXE" in {match["rule_title"] for match in matches}
    member = "rdp_interactive_taskmanager_lsass_dump_2020-09-22043748.json"
    assert {match["source"] for match in matches} == {f"{archive}!{member}"}
    assert all(str(match["event_id"]).startswith(f"{archive}!{member}:") for match in matches)


def test_a_defect_in_matching_is_counted_and_stays_off_stdout(tmp_path: Path) -> None:
    """Run as a process of its own, whose engine meets a defect on every event."""
    (tmp_path / "x.log").write_text("one line\n")
    (tmp_path / "rule.yml").write_text(
        "title: One\nid: 2b1f7c0e-51f5-4b9c-9a43-6f7f0f6d1c55\nlogsource: {product: linux}\n"
        "detection: {a: ['one line'], condition: a}\n"
    )
    program = (
        "import sys; from detections.plan import Plan; from tocsin.cli import main\n"
        "match = Plan.match\n"
        "def fail(self, frame, **options):\n"
        "    if frame.events.height: raise ValueError('a defect')\n"
        "    return match(self, frame, **options)\n"
        "Plan.match = fail; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "hunt", "--rules", "rule.yml", "--events", "x.log", "--json"],
        cwd=tmp_path,
        env=os.environ | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == ""
    assert "ValueError: a defect" in result.stderr
    assert "1 events could not be tried by the rules" in result.stderr

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from benchmarks import rsigma
from benchmarks.compare import Match, compared, counts_compared
from benchmarks.lanes import REPOSITORY
from benchmarks.measure import MeasureError, run_once
from benchmarks.report import report, table
from benchmarks.results import load as load_results
from benchmarks.results import save, shown


@pytest.mark.timeout(180)
def test_the_driver_measures_a_lane_and_writes_a_report(shared_data: Path, tmp_path: Path) -> None:
    assert shared_data.is_dir()
    results, written = tmp_path / "results", tmp_path / "REPORT.md"
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--lane", "cisco_syslog"]
    subprocess.run(
        [*command, "--results", str(results), "--report", str(written)], cwd=REPOSITORY, check=True, timeout=170
    )
    (result,) = load_results(results)
    data = result["data"]
    assert isinstance(data, dict)
    assert data["events"] == 200
    assert next(engine["engine"] for engine in data["engines"]) == "Tocsin"
    assert all(engine["peak_mb"] > 1 for engine in data["engines"])
    text = written.read_text(encoding="utf-8")
    assert "| cisco_syslog | 200 |" in text
    assert str(REPOSITORY) not in text


def test_every_pair_of_a_rule_and_a_line_is_compared() -> None:
    both, ours, theirs = Match("a", 1), Match("a", 2), Match("b", 7)
    found = compared({both, ours}, {both, theirs, Match("b", 5)}, {ours: "nested"})
    assert (found.tocsin, found.rsigma, found.both, found.same) == (2, 3, 1, False)
    assert [(d.rule, d.only, d.count, d.line, d.reason) for d in found.differences] == [
        ("a", "Tocsin", 1, 2, "nested"),
        ("b", "RSigma", 2, 5, "not explained"),
    ]
    assert compared({both}, {both}, {}).same
    assert counts_compared({"a": 1}, {"b": 2}) == [
        {"rule": "a", "tocsin": 1, "rsigma": 0},
        {"rule": "b", "tocsin": 0, "rsigma": 2},
    ]


def test_rsigma_repeats_events_and_every_equal_line_gets_the_match(tmp_path: Path) -> None:
    events, output = tmp_path / "events", tmp_path / "output"
    events.write_bytes(b'{"a":1,"b":"x"}\n{"a":2}\n{"b":"x","a":1}\n')
    output.write_bytes(b'{"rule_id":"r","event":{"b":"x","a":1}}\n' * 2)
    assert list(rsigma.read_matches(output, events)) == [Match("r", 1), Match("r", 3)]
    output.write_bytes(b'{"rule_id":"r","event":{"c":1}}\n')
    with pytest.raises(rsigma.RSigmaError, match="not in"):
        list(rsigma.read_matches(output, events))


@pytest.mark.parametrize(
    ("stderr", "count"),
    [
        ("Processed 10 events, 3 matches.", 3),
        ("Processed 10 events, 3 detection matches, 4 correlation matches.", 7),
    ],
)
def test_rsigma_counts_rules_and_correlations(stderr: str, count: int) -> None:
    assert rsigma.matches_told(stderr) == count


def test_a_command_is_measured_by_itself(tmp_path: Path) -> None:
    held = bytearray(200 << 20)  # what this process holds is not the command's
    usage = run_once([sys.executable, "-I", "-S", "-c", "import sys; sys.stderr.write('done')"])
    assert usage.stderr == "done"
    assert usage.peak_rss_kb < 100 << 10
    assert len(held) == 200 << 20
    events = tmp_path / "events"
    events.write_bytes(b"x\n" * 10)
    counted = tmp_path / "counted"
    lines = "import sys; print(sum(1 for _ in sys.stdin))"
    run_once([sys.executable, "-I", "-S", "-c", lines], output=counted, repeat_stdin=(events, 3))
    assert counted.read_text().split() == ["30"]


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(MeasureError, match="ended with 3"):
        run_once([sys.executable, "-I", "-S", "-c", "raise SystemExit(3)"])


def test_results_hold_no_path_of_the_machine(tmp_path: Path) -> None:
    folder = REPOSITORY / ".build" / "benchmarks"
    assert shown(["taskset", "/somewhere/bin/rsigma", "-e", f"@{folder / 'x.ndjson'}"]) == (
        "taskset rsigma -e @.build/benchmarks/x.ndjson"
    )
    save(tmp_path, "x", "groups", {"rows": []})
    (path,) = tmp_path.iterdir()
    assert orjson.loads(path.read_bytes())["name"] == "x"
    assert str(Path.home()) not in path.read_text()


def test_a_table_keeps_its_columns_whatever_is_in_them() -> None:
    assert table(["a", "b"], [["x|y\nz", 1234], ["w", 1234.5]]) == (
        "| a | b |\n| --- | ---: |\n| x\\|y z | 1,234 |\n| w | 1,234 |\n"
    )
    assert "Nothing has been measured" in report([])

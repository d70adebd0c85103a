"""How cost grows: with the number of rules, of events, with the size of a batch, with the number of groups.

Events in number come from one small file sent over and over: `tocsin hunt` is given its path that many times, and
RSigma's stdin is fed by a `cat` that is not measured.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import hunt, rsigma
from benchmarks.head_to_head import measure_lane
from benchmarks.lanes import REPOSITORY, Lane
from benchmarks.measure import MeasureError, Usage, run_once
from benchmarks.results import Json, shown
from benchmarks.rule_sets import rule_pack

GROUP_EVENTS: Final = 20_000  # as tocsin.hunt groups the events of files
PYTHON: Final = sys.executable


def grow_rules(lane: Lane, sizes: Sequence[int], program: Path | None, runs: int) -> Json:
    """The same events under ever more rules."""
    rows = [
        {"rules": size, **measure_lane(dataclasses.replace(lane, rules=rule_pack(size)), program, runs)}
        for size in sizes
    ]
    return {"lane": lane.name, "events": lane.events, "rows": rows}


def grow_events(lane: Lane, totals: Sequence[int], program: Path | None) -> Json:
    """The same rules over ever more events; once each, since the longest take minutes."""
    rows: list[Json] = []
    for total in totals:
        times = max(1, total // lane.events)
        with tempfile.TemporaryDirectory(prefix="events-", dir=lane.path.parent) as folder:
            rows.append(
                _row("Tocsin", times * lane.events, run_once(hunt.command(lane.rules, _links(lane, times, folder))))
            )
        if program is not None:
            usage = run_once(rsigma.command(program, lane, None), repeat_stdin=(lane.path, times))
            rows.append(_row("RSigma", times * lane.events, usage))
    return {"lane": lane.name, "rows": rows}


def _links(lane: Lane, times: int, folder: str) -> list[Path]:
    """The file of a lane under so many names: a hunt reads each file once."""
    links = [Path(folder, f"{number:05}.ndjson") for number in range(times)]
    for link in links:
        link.hardlink_to(lane.path)
    return links


def _row(engine: str, events: int, usage: Usage) -> Json:
    return {
        "engine": engine,
        "events": events,
        "cpu_s": usage.cpu,
        "wall_s": usage.wall,
        "events_per_s": events / usage.cpu,
        "peak_mb": usage.peak_rss_kb / 1024,
    }


def load_rules_twice(rules: Path, program: Path | None, runs: int) -> Json:
    """`tocsin hunt` over no events: the first time, with nothing in any cache of its own, and again."""
    rows: list[Json] = []
    with tempfile.TemporaryDirectory(prefix="tocsin-loading-") as folder:
        empty = Path(folder) / "empty.ndjson"
        empty.touch()
        command = hunt.command(rules, [empty])
        for _ in range(runs):
            cache = Path(folder) / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            kept = {"TOCSIN_CACHE": str(cache), "XDG_CACHE_HOME": str(cache)}
            rows += [_load_row(name, run_once(command, environment=kept)) for name in ("Tocsin, cold", "Tocsin, again")]
            if program is not None:
                theirs = [str(program), "engine", "eval", "-r", str(rules), "-e", f"@{empty}"]
                rows.append(_load_row("RSigma", run_once(theirs)))
    best = [
        min((row for row in rows if row["engine"] == name), key=lambda row: float(str(row["cpu_s"])))
        for name in dict.fromkeys(str(row["engine"]) for row in rows)
    ]
    return {"command": shown(command), "rows": best}


def _load_row(engine: str, usage: Usage) -> Json:
    return {"engine": engine, "cpu_s": usage.cpu, "wall_s": usage.wall, "peak_mb": usage.peak_rss_kb / 1024}


def grow_batches(lane: Lane, sizes: Sequence[int]) -> Json:
    """`Plan.match` alone, by the size of its batches; a process a size, so that no size warms another."""
    rows = []
    for size in sizes:
        command = [PYTHON, "-m", "benchmarks.in_process", str(lane.path), "--rules", str(lane.rules)]
        told = _run_module([*command, "--batch", str(size)])
        rows += [{**row, "peak_mb": told["peak_rss_kb"] / 1024} for row in told["batches"]]
    return {"lane": lane.name, "events": lane.events, "rows": rows}


def steps(lanes: Sequence[Lane]) -> Json:
    """Reading, parsing and matching apart."""
    rows: list[Json] = []
    for lane in lanes:
        command = [PYTHON, "-m", "benchmarks.in_process", str(lane.path), "--rules", str(lane.rules)]
        told = _run_module([*command, "--batch", str(GROUP_EVENTS)])
        rows.append({**told["batches"][0], "lane": lane.name, "read_s": told["read_s"]})
    return {"rows": rows}


def grow_groups(sizes: Sequence[tuple[int, int]]) -> Json:
    """The correlator alone, by the number of groups: pairs of groups and matches."""
    module = [PYTHON, "-m", "benchmarks.correlator_load"]
    rows = [_run_module([*module, "--groups", str(groups), "--matches", str(matches)]) for groups, matches in sizes]
    return {"rows": rows}


METHODS: Final = {
    "Zircolite's method (a SQL query a rule)": "zircolite_method.py",
    "Naive Polars (a filter a rule)": "naive_polars.py",
}
"""Other ways to run Sigma rules -> the script that does so."""


def other_methods(lane: Lane) -> Json:
    """Other ways over a few events: each script times itself, reading included and loading not."""
    rows: list[Json] = []
    for name, script in METHODS.items():
        path = REPOSITORY / "benchmarks" / script
        if path.is_file():
            arguments = ["--rules", str(lane.rules), "--events", str(lane.path)]
            rows.append({"engine": name, **_run_module([PYTHON, str(path), *arguments])})
    return {"lane": lane.name, "events": lane.events, "rows": rows}


def _run_module(command: Sequence[str]) -> dict[str, Any]:
    """What a script printed as JSON."""
    with tempfile.TemporaryDirectory(prefix="tocsin-script-") as folder:
        output = Path(folder) / "output"
        run_once(command, output=output)
        told = json.loads(output.read_text())
    if not isinstance(told, dict):
        raise MeasureError(f"{shown(command)} printed no JSON object")
    return told

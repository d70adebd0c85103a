"""One lane, each engine in turn: what it costs, and what it finds.

The engines alternate, so that whatever else the machine does in these minutes falls on both. Loading the rules is
measured by the same command over a file without events, and taken off for the rate "net of loading"; the rate of the
whole command is given as well, since that is what a person waits for.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import hunt, rsigma
from benchmarks.compare import Comparison, compared, counts_compared
from benchmarks.differences import reasons, rules_by_id
from benchmarks.lanes import Lane
from benchmarks.measure import Runs, pinned, rate, run_once
from benchmarks.results import Json, shown


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that runs rules over a file of events.

    Attributes:
        name: As in the report.
        command: Its command line for a file.
        matches: Reads the number of matches from what it wrote on stderr.
        stdin: Whether the events may come on stdin instead, with None for the file.
    """

    name: str
    command: Callable[[Lane, Path | None], list[str]]
    matches: Callable[[str], int | None]
    stdin: bool


def engines(program: Path | None) -> list[Engine]:
    """Tocsin, and RSigma where it is there."""
    found = [
        Engine("Tocsin", lambda lane, path: hunt.command(lane.rules, [path or lane.path]), hunt.matches_told, False)
    ]
    if program is not None:
        found.append(
            Engine("RSigma", lambda lane, path: rsigma.command(program, lane, path), rsigma.matches_told, True)
        )
    return found


def measure_lane(lane: Lane, program: Path | None, runs: int) -> Json:
    """What each engine costs on a lane."""
    with tempfile.TemporaryDirectory(prefix="tocsin-lane-") as folder:
        empty = Path(folder) / "empty.ndjson"
        empty.touch()
        chosen = engines(program)
        for engine in chosen:  # what is cached is there before anything is timed
            run_once(engine.command(lane, empty))
        loading = _alternate(chosen, lane, empty, runs)
    working = _alternate(chosen, lane, lane.path, runs)
    rows = [figures(engine, lane, loading[engine.name], working[engine.name]) for engine in chosen]
    return {"lane": lane.name, "about": lane.about, "events": lane.events, "engines": rows, "ratio": _ratio(rows)}


def _alternate(chosen: Sequence[Engine], lane: Lane, events: Path, runs: int) -> dict[str, Runs]:
    usages = {engine.name: [run_once(engine.command(lane, events))] for engine in chosen}
    for _ in range(runs - 1):
        for engine in chosen:
            usages[engine.name].append(run_once(engine.command(lane, events)))
    return {
        engine.name: Runs(tuple(pinned(engine.command(lane, events))), tuple(usages[engine.name])) for engine in chosen
    }


def figures(engine: Engine, lane: Lane, loading: Runs, working: Runs) -> Json:
    """A row of the report."""
    best = working.best
    return {
        "engine": engine.name,
        "command": shown(working.command),
        "runs": len(working.usages),
        "matches": engine.matches(best.stderr),
        "load_cpu_s": loading.best.cpu,
        "load_wall_s": loading.best.wall,
        "cpu_s": best.cpu,
        "cpu_median_s": working.median_cpu,
        "wall_s": min(usage.wall for usage in working.usages),
        "wall_median_s": working.median_wall,
        "events_per_s": lane.events / best.cpu,
        "net_events_per_s": rate(lane.events, best.cpu - loading.best.cpu),
        "net_median_events_per_s": rate(lane.events, working.median_cpu - loading.median_cpu),
        "peak_mb": working.peak_mb,
    }


def _ratio(rows: Sequence[Json]) -> Json | None:
    """How many times RSigma's events a second Tocsin reaches."""
    if len(rows) != 2:
        return None
    tocsin, theirs = rows
    ratios: Json = {}
    for key in ("events_per_s", "net_events_per_s"):
        mine, other = tocsin[key], theirs[key]
        ratios[key] = mine / other if isinstance(mine, float) and isinstance(other, float) else None
    return ratios


def compare_lane(lane: Lane, program: Path) -> Json:
    """Which matches both engines have, and why one has some alone. Correlations are compared by their number."""
    with tempfile.TemporaryDirectory(prefix="tocsin-compare-") as folder:
        ours, theirs = Path(folder) / "tocsin", Path(folder) / "rsigma"
        run_once(hunt.command(lane.rules, [lane.path]), output=ours)
        run_once(rsigma.command(program, lane, lane.path, include_event=True), output=theirs)
        if lane.rules.is_file():
            return {"counts": counts_compared(hunt.rule_counts(ours), rsigma.rule_counts(theirs))}
        return _as_json(_compared(lane, program, ours, theirs))


def _compared(lane: Lane, program: Path, ours: Path, theirs: Path) -> Comparison:
    rules = rules_by_id(lane.rules)
    tocsin, found = hunt.read_matches(ours), set(rsigma.read_matches(theirs, lane.path))
    return compared(tocsin.keys(), found, reasons(program, lane, rules, tocsin, found))


def _as_json(comparison: Comparison) -> Json:
    return {**dataclasses.asdict(comparison), "same": comparison.same}

"""Run the benchmarks and write the report: `make bench`, or `python -m benchmarks.run --lane otrf`.

Each measurement is kept as a file of its own as soon as it is done, and the report is made of all that are there, so a
part can be run again alone. `--quick` shows in a few minutes that all of it works; its figures mean nothing, and go
elsewhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import growth, rsigma
from benchmarks.head_to_head import compare_lane, measure_lane
from benchmarks.lanes import LANES, REPOSITORY, SCRATCH, SIGMAHQ, Lane, make_lane
from benchmarks.report import report
from benchmarks.results import Json, load, save
from benchmarks.rule_sets import rule_pack


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        runs: Of each command.
        times: Repeats of a generated lane.
        limit: Events of a lane before repeating; all by default.
        rules: How many of SigmaHQ's rules; all by default.
        rule_sizes, event_totals, batch_sizes: What growth is measured at.
        groups: Groups and matches, likewise.
        few: Events for the slow methods.
    """

    runs: int
    times: int
    limit: int | None
    rules: int | None
    rule_sizes: tuple[int, ...]
    event_totals: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]
    few: int


FULL = Scale(
    runs=3,
    times=50,
    limit=None,
    rules=None,
    rule_sizes=(100, 1_000, 3_500, 10_000),
    event_totals=(1_000_000, 10_000_000),
    batch_sizes=(100, 1_000, 10_000, 100_000),
    groups=((1_000, 1_000_000), (100_000, 1_000_000), (1_000_000, 2_000_000), (2_000_000, 2_000_000)),
    few=10_000,
)
FEWER_TIMES = {"correlation": 10, "correlation_timed": 10, "process_creation": 10}
"""Lanes that are repeated less: what RSigma spends on a correlation grows with the events of its window."""
LONGEST = 100_000_000
PART = 60_000
"""Events of the OTRF archives that are enough to see where the time goes."""

QUICK = Scale(
    runs=1,
    times=1,
    limit=200,
    rules=100,
    rule_sizes=(20, 50),
    event_totals=(200, 600),
    batch_sizes=(50, 200),
    groups=((100, 1_000),),
    few=200,
)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run of the benchmarks: how much, with which RSigma, and where results go."""

    scale: Scale
    program: Path | None
    results: Path

    def lane(self, name: str, times: int | None = None, limit: int | None = None) -> Lane:
        """A lane at this scale, or with other repeats or fewer events."""
        usual = min(self.scale.times, FEWER_TIMES.get(name, self.scale.times))
        made = make_lane(name, times or usual, self.scale.limit or limit)
        if self.scale.rules is not None and made.rules == SIGMAHQ:
            return dataclasses.replace(made, rules=rule_pack(self.scale.rules))
        return made

    def head_to_head(self, name: str) -> None:
        """Measure and compare one lane; matches are compared on the lane unrepeated."""
        data = measure_lane(self.lane(name), self.program, self.scale.runs)
        if self.program is not None:
            data["comparison"] = compare_lane(self.lane(name, times=1), self.program)
        save(self.results, name, "lane", data)

    def steps(self) -> None:
        """Where Tocsin's time goes; of the large archives a part, since all frames are held."""
        names = [name for name in LANES if not name.startswith("correlation")]
        lanes = [
            self.lane(name, times=1 if name == "process_creation" else None, limit=PART if name == "otrf" else None)
            for name in names
        ]
        save(self.results, "all", "steps", growth.steps(lanes))

    def loading(self) -> None:
        """Loading the rules, cold and again."""
        rules = self.lane("structured_windows").rules
        save(self.results, "all", "loading", growth.load_rules_twice(rules, self.program, self.scale.runs))

    def rules(self) -> None:
        """More rules."""
        for name in ("structured_windows", "process_creation"):
            lane = self.lane(name, times=min(self.scale.times, 10) if name == "structured_windows" else 1)
            save(self.results, name, "rules", growth.grow_rules(lane, self.scale.rule_sizes, self.program, 1))

    def events(self) -> None:
        """More events."""
        lane = self.lane("sysmon_file_event")
        data: Json = growth.grow_events(lane, self.scale.event_totals, self.program)
        save(self.results, lane.name, "events", data)

    def batches(self) -> None:
        """The size of a batch."""
        for name in ("process_creation", "structured_windows"):
            lane = self.lane(name, times=1 if name == "process_creation" else None)
            save(self.results, name, "batches", growth.grow_batches(lane, self.scale.batch_sizes))

    def groups(self) -> None:
        """The correlator alone."""
        save(self.results, "correlator", "groups", growth.grow_groups(self.scale.groups))

    def methods(self) -> None:
        """Other methods."""
        for name in ("structured_windows", "otrf"):
            lane = self.lane(name, times=1, limit=self.scale.few)
            save(self.results, name, "methods", growth.other_methods(lane))


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "steps": Bench.steps,
    "loading": Bench.loading,
    "rules": Bench.rules,
    "events": Bench.events,
    "batches": Bench.batches,
    "groups": Bench.groups,
    "methods": Bench.methods,
}
"""Section beside the lanes -> what measures it."""


def arguments(given: Sequence[str]) -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--lane", action="append", choices=sorted(LANES), help="only this lane; may be repeated")
    options.add_argument("--section", action="append", choices=sorted(SECTIONS), help="only this; may be repeated")
    options.add_argument("--runs", type=int, help="of each command on a lane (3)")
    options.add_argument("--quick", action="store_true", help="a few events and rules: does it work at all?")
    options.add_argument("--long", action="store_true", help=f"{LONGEST:,} events as well: takes an hour or more")
    options.add_argument("--report-only", action="store_true", help="write the report of the results that are there")
    options.add_argument("--results", type=Path, help="folder of the results (benchmarks/figures)")
    options.add_argument("--report", type=Path, help="the report (benchmarks/REPORT.md)")
    return options.parse_args(given)


def scale_of(chosen: argparse.Namespace) -> Scale:
    """What the options ask for."""
    scale = QUICK if chosen.quick else FULL
    if chosen.runs:
        scale = dataclasses.replace(scale, runs=chosen.runs)
    if chosen.long:
        scale = dataclasses.replace(scale, event_totals=(*scale.event_totals, LONGEST))
    return scale


def main(given: Sequence[str]) -> int:
    chosen = arguments(given)
    home = SCRATCH / "quick" if chosen.quick else REPOSITORY / "benchmarks"
    results = chosen.results or home / "figures"
    path = chosen.report or home / "REPORT.md"
    if not chosen.report_only:
        _measure(chosen, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report(load(results)), encoding="utf-8")
    print(f"Report: {path}")
    return 0


def _measure(chosen: argparse.Namespace, results: Path) -> None:
    if not SIGMAHQ.is_dir():
        sys.exit(f"{SIGMAHQ} is not there: TOCSIN_SHARED_DATA names the folder with SigmaHQ's rules and the lanes")
    program: Path | None = None
    try:
        program = rsigma.install(compiling=not chosen.quick)
    except rsigma.RSigmaError as error:
        print(error, file=sys.stderr)
    bench = Bench(scale_of(chosen), program, results)
    everything = not chosen.lane and not chosen.section
    for name in LANES if everything else chosen.lane or ():
        print(f"lane {name}", flush=True)
        bench.head_to_head(name)
    for name in SECTIONS if everything else chosen.section or ():
        print(f"section {name}", flush=True)
        SECTIONS[name](bench)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

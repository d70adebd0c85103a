"""Figures from inside the engine, in a process of its own: `python -m benchmarks.in_process EVENTS --rules DIR ...`.

`tocsin hunt` reads, parses, matches and prints; this takes these steps apart. For each size of batch the lane is read
and parsed into frames first, and then only `Plan.match` is timed, in CPU seconds: over the whole lane with a new plan,
and over its second half, when everything that is made once per log source has been made.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import polars as pl

from benchmarks.measure import rate
from detections.load import load_rules
from detections.plan import Plan
from detections.rule import Rule
from ingest.envelope import EventFrame
from ingest.event_files import read_events
from ingest.event_source import SourceBatch
from ingest.parse import parse

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` gives, and the CPU seconds it took."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def batches_of(raw: pl.DataFrame, size: int) -> Iterator[list[EventFrame]]:
    """The frames of each `size` lines."""
    for first in range(0, raw.height, size):
        yield parse(raw[first : first + size])


def read_raw(path: Path) -> pl.DataFrame:
    """All raw lines of a file."""
    return pl.concat([item.raw for item in read_events([path], now=datetime.now(UTC)) if isinstance(item, SourceBatch)])


def match_all(plan: Plan, batches: Sequence[Sequence[EventFrame]]) -> int:
    """The number of matches in all batches."""
    return sum(plan.match(frame).height for batch in batches for frame in batch)


def measure_batches(rules: Sequence[Rule], raw: pl.DataFrame, size: int) -> dict[str, float | None]:
    """What batches of one size cost: to parse, to match all of them anew, and to match once warm."""
    batches, parsing = timed(lambda: list(batches_of(raw, size)))
    half = max(1, len(batches) // 2)
    plan, building = timed(lambda: Plan.build(list(rules)))
    first, first_half = timed(lambda: match_all(plan, batches[:half]))
    second, second_half = timed(lambda: match_all(plan, batches[half:]))
    warm_events = sum(frame.events.height for batch in batches[half:] for frame in batch)
    return {
        "batch": size,
        "events": raw.height,
        "matches": first + second,
        "build_s": building,
        "parse_s": parsing,
        "match_s": first_half + second_half,
        "parse_events_per_s": rate(raw.height, parsing),
        "match_events_per_s": rate(raw.height, first_half + second_half),
        "warm_match_events_per_s": rate(warm_events, second_half),
    }


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("events", type=Path)
    options.add_argument("--rules", type=Path, required=True)
    options.add_argument("--batch", type=int, action="append", required=True)
    chosen = options.parse_args(arguments)
    pack, loading = timed(lambda: load_rules([chosen.rules]))
    raw, reading = timed(lambda: read_raw(chosen.events))
    rows = [measure_batches(pack.rules, raw, size) for size in chosen.batch]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    json.dump(
        {"load_s": loading, "read_s": reading, "rules": len(pack.rules), "batches": rows, "peak_rss_kb": peak},
        sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

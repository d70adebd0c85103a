"""The naive way in Polars, for comparison: one wide frame of all events, one lazy filter a rule.

Rules are compiled by Tocsin and written out by `detections.render`, the code that `sigma convert -t polars` gives, so
that each filter means what the rule means. Events pass through Tocsin's formats, as in production, and the frames of
all log sources are joined into one; a rule's log source becomes a condition on a column. Rules share nothing.

    python benchmarks/naive_polars.py --rules DIR --events FILE
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Final

import polars as pl

from detections.compile import CompiledRule
from detections.load import load_rules
from detections.plan import Plan
from detections.render import RenderError, needed_columns, render
from ingest.envelope import EventFrame
from ingest.event_files import read_events
from ingest.event_source import SourceBatch
from ingest.logsource import LogSource
from ingest.parse import parse

SOURCE: Final = "\x00source"


def frames(path: Path) -> Iterator[EventFrame]:
    """The events of a file, a frame a log source and batch."""
    for item in read_events([path], now=datetime.now(UTC)):
        if isinstance(item, SourceBatch):
            yield from parse(item.raw)


def wide_frame(path: Path) -> tuple[pl.DataFrame, list[LogSource]]:
    """All events in one frame; `SOURCE` holds the place of an event's log source in the list."""
    sources: dict[LogSource, int] = {}
    parts = [
        frame.events.with_columns(pl.lit(sources.setdefault(frame.logsource, len(sources))).alias(SOURCE))
        for frame in frames(path)
    ]
    return pl.concat(parts, how="diagonal") if parts else pl.DataFrame({SOURCE: pl.Series([], dtype=pl.Int32)}), list(
        sources
    )


def filter_of(compiled: CompiledRule, sources: list[LogSource]) -> pl.Expr:
    """A rule as one expression over the wide frame."""
    met = [place for place, source in enumerate(sources) if compiled.rule.logsource.meets(source)]
    condition: pl.Expr = eval(render(compiled.expression), {"pl": pl})  # noqa: S307 - code that `render` wrote
    return pl.col(SOURCE).is_in(met) & condition


def run(rules: Path, events: Path) -> dict[str, float | int]:
    """All rules of a folder over a file; the figures of a benchmark's row."""
    started = process_time()
    plan = Plan.build(load_rules([rules]).rules)
    compiled = process_time()
    wide, sources = wide_frame(events)
    names = {name.lower(): name for name in wide.columns}
    matches = matching_rules = refused = 0
    for rule in plan.rules:
        needed = needed_columns(rule.expression)
        lacking = [pl.lit(None, pl.String).alias(field) for field in needed if field.lower() not in names]
        renamed = [
            pl.col(names[field.lower()]).alias(field) for field in needed if names.get(field.lower(), field) != field
        ]
        try:
            found = (
                wide.lazy()
                .with_columns(*lacking, *renamed)
                .filter(filter_of(rule, sources))
                .select(pl.len())
                .collect()
                .item()
            )
        except RenderError:
            refused += 1
            continue
        matches += found
        matching_rules += found > 0
    return {
        "events": wide.height,
        "seconds": round(process_time() - compiled, 3),
        "convert_seconds": round(compiled - started, 3),
        "matches": matches,
        "matching_rules": matching_rules,
        "rules": len(plan.rules) - refused,
        "refused": len(plan.refused) + refused,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One lazy Polars filter a rule over one wide frame.")
    parser.add_argument("--rules", type=Path, required=True, help="folder of Sigma rules")
    parser.add_argument(
        "--events", type=Path, required=True, help="a file of events, of any kind that tocsin hunt reads"
    )
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.rules, arguments.events)))


if __name__ == "__main__":
    main()

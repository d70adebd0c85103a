"""The correlator alone: `python -m benchmarks.correlator_load --groups N --matches M` prints JSON.

Matches of one rule come in event-time order, group after group, all within one window, so that every group stays in the
state: how fast it takes them, and what a group costs in memory, both by its own count and by the process's growth.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from detections.correlator import DEFAULT_MAX_GROUPS, Correlator
from detections.load import load_rules
from detections.match import MATCH_SCHEMA

STARTED: Final = datetime(2026, 7, 28, 11, tzinfo=UTC)
WINDOW: Final = timedelta(hours=1)
BATCH: Final = 50_000
ENOUGH: Final = 50_000
"""Groups from which the growth of the process says something of a group: below, it is mostly the allocator's."""

RULES: Final = """\
title: Sign-in failed
id: 0b9b7a4e-4a0b-4f0e-9a7a-6d2b8d0f7a01
name: sign_in_failed
logsource: {category: authentication}
detection:
    selection: {EventType: failure}
    condition: selection
---
title: Many failures of a user
id: 0b9b7a4e-4a0b-4f0e-9a7a-6d2b8d0f7a02
correlation:
    type: event_count
    rules: [sign_in_failed]
    group-by: [User]
    timespan: 1h
    condition: {gte: 100}
"""


def correlator(max_groups: int) -> tuple[Correlator, str]:
    """A correlator of one rule, and the id of the rule whose matches it takes."""
    with tempfile.TemporaryDirectory(prefix="tocsin-correlator-") as folder:
        path = Path(folder) / "rules.yml"
        path.write_text(RULES)
        pack = load_rules([path])
    return Correlator(pack.correlations, lateness=timedelta(0), max_groups=max_groups), pack.rules[0].id


def frames(rule: str, groups: int, matches: int) -> Iterator[pl.DataFrame]:
    """Matches in frames of `MATCH_SCHEMA`: round after round over the groups, the window as long as all of them."""
    step = WINDOW * 0.9 / matches
    for first in range(0, matches, BATCH):
        rows = range(first, min(first + BATCH, matches))
        yield pl.DataFrame(
            {
                "rule_id": [rule] * len(rows),
                "rule_title": ["Sign-in failed"] * len(rows),
                "level": ["low"] * len(rows),
                "tags": pl.Series([[]] * len(rows), dtype=pl.List(pl.String)),
                "event_id": [f"events:{row}" for row in rows],
                "tenant": ["hospital"] * len(rows),
                "timestamp": [STARTED + step * row for row in rows],
                "received": [STARTED + step * row for row in rows],
                "logsource": ["_/authentication/_"] * len(rows),
                "host": [f"host-{row % 500}" for row in rows],
                "user": [f"user-{row % groups:07d}" for row in rows],
                "source_ip": pl.Series([None] * len(rows), dtype=pl.String),
                "destination_ip": pl.Series([None] * len(rows), dtype=pl.String),
                "matched": ['{"EventType":"failure"}'] * len(rows),
                "event": [f'{{"EventType":"failure","User":"user-{row % groups:07d}"}}' for row in rows],
                "original": [f'{{"EventType":"failure","User":"user-{row % groups:07d}"}}' for row in rows],
            },
            schema=MATCH_SCHEMA,
        )


def resident_bytes() -> int:
    """What this process holds in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--groups", type=int, required=True)
    options.add_argument("--matches", type=int, required=True)
    options.add_argument("--max-groups", type=int, default=DEFAULT_MAX_GROUPS)
    chosen = options.parse_args(arguments)
    state, rule = correlator(chosen.max_groups)
    fired, cpu = 0, 0.0
    for frame in frames(rule, min(chosen.groups, BATCH), BATCH):  # so that what Polars keeps for itself is there before
        frame.clear()
    before = resident_bytes()
    for frame in frames(rule, chosen.groups, chosen.matches):
        started = time.process_time()
        fired += len(state.feed(frame))
        cpu += time.process_time() - started
    held = state.counters
    grown = resident_bytes() - before
    json.dump(
        {
            "groups": chosen.groups,
            "matches": chosen.matches,
            "matches_per_s": chosen.matches / cpu if cpu else 0.0,
            "groups_held": held.groups,
            "pending": held.pending,
            "evicted": sum(held.evicted_groups.values()),
            "fired": fired,
            "state_mb": state.state_bytes() / 2**20,
            "grown_mb": grown / 2**20,
            "state_bytes_per_group": state.state_bytes() / max(1, held.groups),
            "resident_bytes_per_group": grown / held.groups if held.groups >= ENOUGH else None,
        },
        sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

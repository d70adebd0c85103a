"""Matches that are read back come in the order of event time, whatever of them was put on the disk."""

from __future__ import annotations

import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detections.match import MATCH_SCHEMA
from tocsin.readback_matches import ReadbackMatches, in_slices

BEGUN = datetime(2026, 3, 1, tzinfo=UTC)
STEPS = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8), max_size=8)
"""Steps of the bus, oldest first: (timestamp, received) of each match."""


def frames(steps: list[list[tuple[int, int]]]) -> list[pl.DataFrame]:
    """Matches whose event id says where they stand on the bus."""
    made: list[pl.DataFrame] = []
    number = 0
    for step in steps:
        rows: list[dict[str, object]] = []
        for claimed, received in step:
            times = {
                "timestamp": BEGUN + timedelta(seconds=claimed),
                "received": BEGUN + timedelta(seconds=received),
            }
            rows.append({"event_id": f"e{number}", **times})
            number += 1
        filled = [{name: row.get(name) for name in MATCH_SCHEMA} for row in rows]
        made.append(pl.DataFrame(filled, schema=MATCH_SCHEMA))
    return made


@settings(deadline=None)
@given(steps=STEPS, most=st.sampled_from([0, 300, 2_000, 1 << 20]), rows=st.integers(1, 9))
def test_the_order_is_that_of_the_whole_at_once(steps: list[list[tuple[int, int]]], most: int, rows: int) -> None:
    made = frames(steps)
    whole = pl.concat([pl.DataFrame(schema=MATCH_SCHEMA), *made])
    wanted = whole.sort(pl.min_horizontal("timestamp", "received"), maintain_order=True)
    with closing(ReadbackMatches(most, rows)) as matches:
        for frame in reversed(made):
            matches.add_before(frame)
        slices = list(matches.in_order())
        assert matches.height == whole.height
    assert all(part.height <= rows for part in slices)
    assert all(part.schema == wanted.schema for part in slices)
    assert pl.concat([wanted.clear(), *slices]).equals(wanted)
    assert pl.concat([wanted.clear(), *in_slices(whole, rows)]).equals(wanted)


def test_what_is_more_than_the_bound_lies_in_files_until_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    matches = ReadbackMatches(200, 3)
    for frame in frames([[(n, n)] for n in range(20)]):
        matches.add_before(frame)
        assert sum(part.estimated_size() for part in matches._parts) <= 400
    assert len(list(tmp_path.rglob("*.parquet"))) > 1
    assert sum(part.height for part in matches.in_order()) == 20
    matches.close()
    assert list(tmp_path.iterdir()) == []

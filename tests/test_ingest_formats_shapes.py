from __future__ import annotations

import json
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.envelope import EVENT_ID
from ingest.event_text import cut_lines
from ingest.formats import shapes
from ingest.formats.columns import MAX_FIELDS, Json, as_text
from ingest.formats.shapes import FULL, LARGE, Shape, alike, frames_of, runs_within_limits, transposed
from ingest.formats.syslog import MAX_PID, MAX_PROGRAM
from ingest.formats.times import iso_time, iso_times
from ingest.logsource import LogSource
from ingest.parse import parse
from raw_lines import batch, read

scalars: st.SearchStrategy[Json] = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False)
values: st.SearchStrategy[Json] = st.one_of(scalars, st.text(max_size=3), st.lists(st.integers(), max_size=2))
objects = st.dictionaries(st.sampled_from(["a", "A", "b", "B", "c d", "x", "y"]), values, max_size=6)


def expected(event: dict[str, Json]) -> dict[str, str]:
    """The definition: of names that differ only by case, the first that holds a value; as text; without nulls."""
    found: dict[str, str] = {}
    for name, value in event.items():
        text = as_text(value)
        if text is not None:
            found.setdefault(name.lower(), text)
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(objects, min_size=1, max_size=12), st.sampled_from([1, 2, LARGE]), st.sampled_from([0, 5, 1_000_000]))
def test_frames_hold_what_the_events_say(events: list[dict[str, Json]], large: int, most_empty: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "LARGE", large)
        patch.setattr(shapes, "MAX_EMPTY", most_empty)
        frames = list(frames_of([transposed(same) for same in alike(enumerate(events))]))
    rows = {}
    for places, frame in frames:
        assert set(frame.dtypes) <= {pl.String()}
        named = frame.rows(named=True) or [{}] * frame.height
        for row, said in zip(places.to_list(), named, strict=True):
            rows[row] = {name.lower(): value for name, value in said.items() if value is not None}
    assert rows == {row: expected(event) for row, event in enumerate(events)}


def test_frames_keep_to_their_limits() -> None:
    hostile = [Shape([row], {f"k{row}_{number}": ["v"] for number in range(300)}) for row in range(20)]
    runs = list(runs_within_limits(hostile))
    assert [len(run) for run in runs] == [3] * 6 + [2]
    assert all(len(set().union(*(shape.columns for shape in run))) <= MAX_FIELDS for run in runs)
    long = [Shape([0] * 9_000, {f"k{row}_{number}": [] for number in range(60)}) for row in range(4)]
    assert [len(run) for run in runs_within_limits(long)] == [1] * 4
    assert list(runs_within_limits([])) == []


def test_events_of_one_log_source_share_a_frame() -> None:
    """Whatever their event ids and keys; those before and after a shape is full too."""
    lines = [
        json.dumps({"EventID": 4000 + row % 7, "Channel": "Security", f"Field{row % 7}": row}).encode()
        for row in range(7 * FULL + 70)
    ]
    raw = batch(lines)
    (frame,) = parse(raw)
    assert frame.logsource == LogSource("windows", None, "security")
    assert sorted(frame.events[EVENT_ID]) == sorted(raw[EVENT_ID])
    assert all(column.n_chunks() == 1 for column in frame.events)
    for name in (f"Field{number}" for number in range(7)):
        said = frame.events.filter(pl.col(name).is_not_null())
        assert said["event.original"].to_list() == [
            line.decode() for line in map(lines.__getitem__, map(int, said[name]))
        ]


def test_one_shape_may_hold_several_log_sources() -> None:
    lines = [
        json.dumps({"EventID": number, "Channel": "Microsoft-Windows-Sysmon/Operational", "EventType": kind}).encode()
        for number, kind in ((1, "x"), (12, "CreateKey"), (12, "DeleteKey"), (12, "RenameKey"), (True, "x"), (1.0, "x"))
    ]
    found = {str(frame.logsource): frame.events["EventID"].to_list() for frame in parse(batch(lines))}
    assert found == {
        "windows/process_creation/sysmon": ["1", "1"],
        "windows/registry_add/sysmon": ["12"],
        "windows/registry_delete/sysmon": ["12"],
        "windows/registry_event/sysmon": ["12"],
        "windows/_/sysmon": ["true"],
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\xff", b"x" * 20]), max_size=20), st.integers(0, 4))
def test_lines_are_cut_as_split_cuts_them(parts: list[bytes], begin: int) -> None:
    text = b"".join(parts) + b"\n"
    begin = min(begin, len(text))
    cut = cut_lines(text, begin, len(text))
    # what stands before `begin` is of another line: a CR there does not belong to this one
    lines = text[begin:].split(b"\n")[:-1]
    assert cut.to_list() == [line.removesuffix(b"\r") for line in lines]


TAGS = [
    ("p" * MAX_PROGRAM, True),
    ("p" * (MAX_PROGRAM + 1), False),
    ("é" * MAX_PROGRAM, True),
    (f"app[{'1' * MAX_PID}]", True),
    (f"app[{'1' * (MAX_PID + 1)}]", False),
    ("app[]", False),
    ("%app", False),
]


@pytest.mark.parametrize(("tag", "known"), TAGS)
def test_only_short_tags_are_programs(tag: str, known: bool) -> None:
    _, row = read(f"<13>Feb 28 10:00:00 web01 {tag}: hello".encode())
    named = re.fullmatch(r"([^\[]+)(?:\[.*\])?", tag)
    assert named is not None
    assert row.get("process.name") == (named[1] if known else None)
    assert str(row["message"]) == ("hello" if known else f"{tag}: hello")


times = st.sampled_from(
    ["2026-02-28T10:00:00Z", "2026-02-28 10:00:00.123", "2026-02-28T10:00:00+02:00", "2026-02-30T10:00:00", "-", "",
     "2026-02-28T10:00:00.1234567Z", "2026-02-28 10:00", "2026-02-28T10:00:60", "2026-02-28 10:00:00 -0530",
     "0001-01-01T00:00:00"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.none() | times, min_size=1, max_size=4), st.booleans())
def test_times_of_a_column_are_those_of_its_texts(texts: list[str | None], assume_utc: bool) -> None:
    column = pl.Series("text", texts, dtype=pl.String)
    one_by_one = column.to_frame().select(iso_time(pl.col("text"), assume_utc=assume_utc)).to_series()
    assert iso_times(column, assume_utc=assume_utc).to_list() == one_by_one.to_list()

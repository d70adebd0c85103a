from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.bus import Partition, Position
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import LogSource
from storage import lake_compact, lake_removal, lake_rest
from storage.errors import LakeError
from storage.lake import Lake
from storage.lake_commits import commits_between
from storage.lake_compact import FAN_IN, OVERLAP, Compacted, Job, compact, merge_files, plan, wanted_bytes
from storage.lake_merge import Unit, sweep
from storage.lake_removal import REMOVALS, LakeFile, RemovalConflict, files_of, remove_action, replace_files
from storage.lake_scan import ScanCounts

REPOSITORY = Path(__file__).resolve().parent.parent
TOPIC = "tocsin.raw"
PROCESS = LogSource("windows", "process_creation", "sysmon")
TABLE = "events/windows.process_creation.sysmon"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
BIG = 128 << 20
MIB = 1 << 20


def tomorrow() -> datetime:
    """When all that these tests write has settled."""
    return datetime.now(UTC) + timedelta(days=1)


def record(
    offset: int,
    times: Sequence[datetime | None],
    fields: Sequence[dict[str, str]] = (),
    *,
    tenant: str | None = "chu-brest",
    partition: int = 0,
) -> EventFrame:
    rows = len(times)
    envelope: dict[str, Sequence[object]] = {name: [None] * rows for name in ENVELOPE}
    envelope |= {
        "event.id": [f"{TOPIC}:{partition}:{offset}:{row}" for row in range(rows)],
        "organization.id": [tenant] * rows,
        "@timestamp": times,
        "event.created": times,
        "host.name": [f"host-{(offset * 7 + row) % 5}" for row in range(rows)],
        "event.original": [f"raw {offset} {row}" for row in range(rows)],
    }
    names = sorted({name for row in fields for name in row})
    extra = {name: [row.get(name) for row in fields] for name in names}
    data = pl.DataFrame({**envelope, **extra}, schema_overrides={**ENVELOPE, **dict.fromkeys(names, pl.String())})
    return EventFrame(PROCESS, data)


def store(lake: Lake, frame: EventFrame, offset: int, partition: int = 0) -> None:
    writer = lake.writer()
    writer.add([frame], Position(TOPIC, partition, offset))
    writer.flush()


def fill(lake: Lake, files: int = 20, rows: int = 3) -> None:
    for offset in range(files):
        times = [NEW_YEAR + timedelta(minutes=offset, seconds=row) for row in range(rows)]
        store(lake, record(offset, times, [{"A": f"a{offset}"}] * rows), offset)


def opened(lake: Lake) -> DeltaTable:
    return DeltaTable(lake.place.uri(TABLE))


def rows_of(lake: Lake) -> list[dict[str, object]]:
    found = (row for part in lake.read() for row in part.events.iter_rows(named=True))
    filled = [{name: value for name, value in row.items() if value is not None} for row in found]
    return sorted(filled, key=lambda row: str(row["event.id"]))


def file(name: str, size: int, first: int | None, last: int | None, *, day: int = 1, age: float = 7200.0) -> LakeFile:
    def moment(seconds: int | None) -> datetime | None:
        return None if seconds is None else NEW_YEAR + timedelta(seconds=seconds)

    written = NEW_YEAR + timedelta(days=9, seconds=-age)
    return LakeFile(name, size, size // 100, date(2026, 1, day), "h", moment(first), moment(last), written)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


# What is put together


NOW = NEW_YEAR + timedelta(days=9)


def names(jobs: Sequence[Job]) -> list[list[str]]:
    return [[one.path for one in job.files] for job in jobs]


def test_a_growing_day_waits_until_there_are_enough_files_of_one_size() -> None:
    few = [file(f"s{at}", 1000, at, at, day=10) for at in range(FAN_IN - 1)]
    large = [file(f"l{at}", 3 * MIB, at, at, day=10) for at in range(3)]
    assert plan([*few, *large], NOW, BIG) == []
    (job,) = plan([*few, *large, file("s9", 2000, 9, 9, day=10)], NOW, BIG)
    assert names([job]) == [[*(f"s{at}" for at in range(FAN_IN - 1)), "s9"]]


def test_very_new_files_and_those_that_are_large_enough_are_left_alone() -> None:
    new = [file(f"n{at}", 1000, at, at, day=10, age=30) for at in range(FAN_IN)]
    done = [file(f"d{at}", BIG * 3 // 4, at, at, day=10) for at in range(FAN_IN)]
    assert plan([*new, *done], NOW, BIG) == []


def test_a_past_day_that_still_grows_is_not_rewritten_for_each_late_file() -> None:
    run = file("run", BIG, 0, 80_000)
    assert plan([run, file("late", 1000, 5, 6, age=60)], NOW, BIG) == []
    assert names(plan([run, file("late", 1000, 5, 6, age=4000)], NOW, BIG)) == [["run", "late"]]


def test_a_settled_day_becomes_one_run() -> None:
    small = [file("b", 1000, 10, 20), file("a", 1000, 0, 5)]
    large = [file("c", BIG, 30, 40), file("d", BIG, 41, 50)]
    overlapping = [file("e", BIG, 60, 70), file("f", BIG, 65, 75)]
    assert names(plan([*overlapping, *large, *small], NOW, BIG)) == [["a", "b"], ["e", "f"]]
    assert plan([*large, file("x", 1000, 80, 90)], NOW, BIG) == []


def test_events_of_one_moment_do_not_count_as_overlapping() -> None:
    assert plan([file("a", BIG, 0, 100), file("b", BIG, 99, 200)], NOW, BIG) == []
    assert len(plan([file("a", BIG, 0, 100), file("b", BIG, 98, 200)], NOW, BIG)) == 1


def test_days_and_hospitals_are_never_mixed_and_jobs_are_bounded() -> None:
    files = [file(f"{day}-{at}", BIG // 4, 0, 80_000, day=day) for day in (1, 2) for at in range(40)]
    jobs = plan(files, NOW, BIG)
    assert all(len({one.partition for one in job.files}) == 1 for job in jobs)
    assert max(job.bytes for job in jobs) <= 4 * BIG
    found = [one.path for job in jobs for one in job.files]
    assert len(found) == len(set(found)) == 80


def test_files_without_times_are_put_together_too() -> None:
    files = [file("a", 1000, None, None), file("b", 1000, None, None), file("c", 1000, 1, 2)]
    assert names(plan(files, NOW, BIG)) == [["a", "b"]]


def test_files_without_a_day_are_put_together_by_the_day_they_were_written() -> None:
    """Retention counts from that day, so it must outlive compaction."""
    aged = [("a", 7200.0), ("b", 7201.0), ("c", 90_000.0), ("d", 90_001.0)]
    undated = [replace(file(name, 1000, None, None, age=age), day=None) for name, age in aged]
    dated = replace(undated[0], path="e", day=undated[0].written.date())
    assert sorted(names(plan([*undated, dated], NOW, MIB))) == [["a", "b"], ["c", "d"]]


def test_what_has_no_day_is_not_younger_for_having_been_compacted(lake: Lake) -> None:
    for offset in range(3):
        store(lake, record(offset, [None] * 2), offset)
    before = files_of(opened(lake))
    assert {one.day for one in before} == {None}
    time.sleep(0.01)
    assert compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow).files_after == 1
    assert [one.written for one in files_of(opened(lake))] == [max(one.written for one in before)]


def test_wide_tables_get_smaller_files() -> None:
    assert wanted_bytes(BIG, 100) == BIG
    assert wanted_bytes(BIG, 2000) == BIG // 10
    assert wanted_bytes(MIB, 2000) == MIB


# Nothing lost, nothing twice


FIELDS = st.dictionaries(st.sampled_from(["User", "user", "a b", "date", "é", "n1", "n2", "n3"]), st.text(max_size=3))
TIMES = st.one_of(
    st.none(),
    st.integers(0, 3 * 86_400).map(lambda seconds: NEW_YEAR + timedelta(seconds=seconds)),
    st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]),
)
TENANTS = st.sampled_from(["chu-brest", "CH de l'Été/2", "100%", "", None])
RECORDS = st.lists(st.tuples(TENANTS, st.lists(st.tuples(TIMES, FIELDS), min_size=1, max_size=4)), max_size=12)


@settings(max_examples=12, deadline=None)
@given(records=RECORDS, held=st.sampled_from([20_000, 1 << 20]), columns=st.sampled_from([16, 20, 2000]))
def test_the_same_events_before_and_after(
    records: list[tuple[str | None, list[tuple[datetime | None, dict[str, str]]]]], held: int, columns: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake_rest, "MAX_COLUMNS", columns)
        patch.setattr("storage.lake_table.MAX_COLUMNS", columns)
        patch.setattr(lake_compact, "sweep", partial(sweep, held_bytes=held, chunk_bytes=held // 2))
        patch.setattr("storage.lake_sorted.GROUP_BYTES", held // 10)
        lake = Lake(Path(folder))
        for offset, (tenant, rows) in enumerate(records):
            # of two spellings that differ by case, a row has one
            fields = [{k: v for k, v in row.items() if k != "user" or "User" not in row} for _, row in rows]
            store(lake, record(offset, [time for time, _ in rows], fields, tenant=tenant), offset)
        if not records:
            return
        before = rows_of(lake)
        partitions = {one.partition for one in files_of(opened(lake))}
        compact(lake.place, TABLE, file_bytes=MIB, now=tomorrow)
        assert rows_of(lake) == before
        files = files_of(opened(lake))
        assert {one.partition for one in files} == partitions
        assert sum(one.rows for one in files) == len(before)
        again = compact(lake.place, TABLE, file_bytes=MIB, now=tomorrow)
        assert again == Compacted()
        assert opened(lake).transaction_version(f"{TOPIC}/0") == len(records) - 1


def test_many_files_become_one_that_is_sorted_and_says_so(lake: Lake) -> None:
    fill(lake)
    before = rows_of(lake)
    done = compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow)
    assert (done.files_before, done.files_after, done.rows, done.conflicts) == (20, 1, 60, 0)
    assert rows_of(lake) == before
    (one,) = files_of(opened(lake))
    assert (one.first, one.last) == (NEW_YEAR, NEW_YEAR + timedelta(minutes=19, seconds=2, milliseconds=1))
    content = lake.place.read(f"{TABLE}/{one.path}")
    found = pq.read_table(pa.BufferReader(content))
    times = micros(found)
    assert times == sorted(times)
    metadata = pq.read_metadata(pa.BufferReader(content))
    statistics = metadata.row_group(0).column(found.schema.get_field_index("host.name")).statistics
    assert statistics is not None
    assert (statistics.min, statistics.max) == ("host-0", "host-4")
    version = opened(lake).version()
    (commit,) = commits_between(lake.place, TABLE, version, version)
    assert commit.added[0].sha256 == hashlib.sha256(content).hexdigest()
    assert list(commit.removed.values()) == [False] * 20


def test_events_are_found_by_their_ids_and_the_offsets_stay_known(lake: Lake) -> None:
    fill(lake)
    store(lake, record(0, [NEW_YEAR], partition=5), 0, partition=5)
    compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow)
    wanted = [f"{TOPIC}:0:7:1", f"{TOPIC}:5:0:0", f"{TOPIC}:0:99:0"]
    assert [found["event.id"] for found in lake.find(wanted)] == wanted[:2]
    assert lake.find(wanted, tenants=["elsewhere"]) == lake.find(wanted, tenants=[]) == []
    assert lake.held(TOPIC) == {Partition(TOPIC, 0): 19, Partition(TOPIC, 5): 0}
    store(lake, record(7, [NEW_YEAR]), 7)  # replayed
    assert lake.count() == 61


def test_what_is_appended_meanwhile_is_kept(lake: Lake) -> None:
    fill(lake)
    offsets = iter(range(20, 24))

    def append_and_go_on() -> bool:
        offset = next(offsets, None)
        if offset is not None:  # also a new column, which moves the table's schema
            store(lake, record(offset, [NEW_YEAR], [{f"New{offset}": "x"}]), offset)
        return False

    done = compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow, stop=append_and_go_on)
    assert done.conflicts == 0
    assert len(rows_of(lake)) == 64
    assert opened(lake).transaction_version(f"{TOPIC}/0") == 23


def test_of_two_compactors_one_loses_and_nothing_is_twice(lake: Lake) -> None:
    fill(lake)
    before = rows_of(lake)
    others: list[Compacted] = []

    def let_another_be_faster() -> bool:
        if not others:
            others.append(Compacted())
            others[0] = compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow)
        return False

    done = compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow, stop=let_another_be_faster)
    assert others[0].files_before == 20
    assert (done.files_before, rows_of(lake)) == (0, before)


def test_a_commit_that_comes_second_is_refused(lake: Lake) -> None:
    fill(lake)
    before = rows_of(lake)
    first, second = opened(lake), opened(lake)
    for delta, refused in ((first, False), (second, True)):
        job = Job(tuple(files_of(delta)))
        written = merge_files(lake.place, TABLE, delta, job, BIG, lambda: False)
        assert written is not None
        actions = [one.action for one in written]
        if refused:
            with pytest.raises(RemovalConflict):
                replace_files(delta, job.files, actions, data_change=False)
        else:
            replace_files(delta, job.files, actions, data_change=False)
    assert rows_of(lake) == before
    assert opened(lake).transaction_version(REMOVALS) is not None


def test_a_commit_whose_answer_was_lost_is_not_made_twice(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake)
    before = rows_of(lake)
    delta = opened(lake)
    job = Job(tuple(files_of(delta)))
    written = merge_files(lake.place, TABLE, delta, job, BIG, lambda: False)
    assert written is not None
    commit = DeltaTable.create_write_transaction
    made: list[int] = []

    def commit_and_lose_the_answer(*args: object, **kwargs: object) -> None:
        made.append(1)
        commit(*args, **kwargs)  # type: ignore[arg-type]
        raise CommitFailedError("the connection was reset")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", commit_and_lose_the_answer)
    replace_files(delta, job.files, [one.action for one in written], data_change=False)
    assert len(made) == len(files_of(opened(lake))) == 1
    assert rows_of(lake) == before


def test_removes_name_the_files_as_they_are_called(lake: Lake) -> None:
    store(lake, record(0, [NEW_YEAR], tenant="CH de l'Été/2"), 0)
    delta = opened(lake)
    (one,) = files_of(delta)
    assert lake.place.read(f"{TABLE}/{one.path}")
    replace_files(delta, [one], [], data_change=True)
    assert files_of(opened(lake)) == []
    assert remove_action(one, data_change=False).data_change is False


def test_a_crash_before_the_commit_leaves_the_table_as_it_was(lake: Lake, tmp_path: Path) -> None:
    fill(lake)
    before = rows_of(lake)
    script = f"""
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from storage import lake_compact
from storage.lake import Lake
lake_compact.replace_files = lambda *_, **__: os._exit(9)
lake = Lake(Path({str(tmp_path / "lake")!r}))
lake_compact.compact(lake.place, {TABLE!r}, file_bytes={BIG}, now=lambda: datetime.now(UTC) + timedelta(days=1))
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False).returncode == 9
    assert len([path for path in lake.place.files(TABLE) if "/sorted-" in path]) == 1
    assert rows_of(lake) == before
    assert compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow).files_before == 20
    assert rows_of(lake) == before


def test_a_job_that_is_stopped_leaves_nothing(lake: Lake) -> None:
    fill(lake)
    files = lake.place.files(TABLE)
    asked = iter([False, True])
    assert compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow, stop=lambda: next(asked)) == Compacted()
    assert lake.place.files(TABLE) == files


def test_rows_that_would_be_lost_stop_the_commit(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake)
    files = lake.place.files(TABLE)

    def short(units: Sequence[Unit], *rest: object) -> Iterator[object]:
        return sweep(units[1:], *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(lake_compact, "sweep", short)
    with pytest.raises(LakeError, match="60 rows to put together, 57 written"):
        compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow)
    assert lake.place.files(TABLE) == files


def test_a_damaged_file_is_named_and_stops_nothing_else(lake: Lake) -> None:
    fill(lake, files=2)
    victim = next(path for path in lake.place.files(TABLE) if path.endswith(".parquet"))
    lake.place.write(victim, b"not parquet")
    with pytest.raises(LakeError, match=r"process_creation\.sysmon: cannot compact"):
        compact(lake.place, TABLE, file_bytes=BIG, now=tomorrow)


# The sweep


def table_of(values: Sequence[int]) -> pa.Table:
    times = pa.array(values, pa.timestamp("us", "UTC"))
    zeros = pa.array([0] * len(values), pa.int64())
    return pa.table({"@timestamp": times, "bus.partition": zeros.cast(pa.int32()), "bus.offset": zeros})


def micros(rows: pa.Table) -> list[int]:
    return [value for value in rows.column("@timestamp").cast(pa.int64()).to_pylist() if value is not None]


@pytest.mark.parametrize("moment", [None, 5])
def test_events_without_a_time_or_of_one_moment_are_not_cut_into_many_files(moment: int | None) -> None:
    rows = table_of([0, 0])
    times = pa.array([moment, moment], rows.schema.field("@timestamp").type)
    rows = rows.set_column(0, "@timestamp", times)
    units = [Unit(at, 0, moment, 100) for at in range(10)]
    found = list(sweep(units, lambda _: rows, rows.schema, held_bytes=150, chunk_bytes=50))
    assert sum(stretch.rows.num_rows for stretch in found) == 20
    assert [stretch.begins for stretch in found] == [True] + [False] * (len(found) - 1)


@given(
    parts=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), max_size=10),
    held=st.integers(1, 600),
    chunk=st.integers(1, 200),
)
def test_the_sweep_gives_every_row_once_and_each_stretch_in_order(
    parts: list[list[int]], held: int, chunk: int
) -> None:
    units = [Unit(at, 0, min(part), 20 * len(part)) for at, part in enumerate(parts)]
    schema = table_of([0]).schema
    runs: list[list[int]] = []
    for stretch in sweep(units, lambda unit: table_of(parts[unit.file]), schema, held_bytes=held, chunk_bytes=chunk):
        if stretch.begins:
            runs.append([])
        runs[-1] += micros(stretch.rows)
    assert sorted(value for run in runs for value in run) == sorted(value for part in parts for value in part)
    assert all(run == sorted(run) for run in runs)
    if held == 600 and sum(map(len, parts)) * 20 <= held:
        assert len(runs) <= 1


def test_a_day_that_came_all_at_once_becomes_one_run_in_little_memory(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_compact, "sweep", partial(sweep, held_bytes=60_000, chunk_bytes=20_000))
    monkeypatch.setattr("storage.lake_sorted.GROUP_BYTES", 8_000)
    monkeypatch.setattr(lake_compact, "wanted_bytes", lambda *_: 12_000)
    chance = random.Random(7)  # noqa: S311 - a repeatable choice
    for offset in range(24):
        times = [NEW_YEAR + timedelta(seconds=chance.randrange(86_400)) for _ in range(100)]
        store(lake, record(offset, times), offset)
    before = rows_of(lake)
    done = compact(lake.place, TABLE, file_bytes=MIB, now=tomorrow)
    assert rows_of(lake) == before
    files = sorted(files_of(opened(lake)), key=lambda one: one.first or NEW_YEAR)
    pairs = list(pairwise(files))
    assert pairs
    assert all(one.last and two.first and two.first >= one.last - OVERLAP for one, two in pairs)
    assert done.rows < 12 * len(before)  # every row was written a few times
    assert plan(files, tomorrow(), 12_000) == []


# What it is for


def test_a_search_for_an_hour_leaves_most_files_out(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_compact, "wanted_bytes", lambda *_: 6000)
    monkeypatch.setattr("storage.lake_sorted.GROUP_BYTES", 8_000)
    chance = random.Random(3)  # noqa: S311 - a repeatable choice
    for offset in range(30):
        times = [NEW_YEAR + timedelta(seconds=chance.randrange(86_400)) for _ in range(50)]
        store(lake, record(offset, times), offset)
    since, until = NEW_YEAR + timedelta(hours=8), NEW_YEAR + timedelta(hours=9)

    def searched() -> tuple[int, ScanCounts]:
        counts = ScanCounts()
        found = sum(part.events.height for part in lake.read(since=since, until=until, counts=counts))
        return found, counts

    found, counts = searched()
    assert (counts.tables, counts.files, counts.skipped_files, counts.share) == (1, 30, 0, 0.0)
    compact(lake.place, TABLE, file_bytes=MIB, now=tomorrow)
    again, counts = searched()
    assert again == found == lake.count(since=since, until=until)
    assert counts.files - counts.skipped_files <= 2 < counts.files
    assert counts.share > 0.5
    assert 0 < counts.skipped_bytes < counts.bytes


def test_a_remover_that_goes_wrong_says_so_after_some_attempts(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lake, files=2)
    monkeypatch.setattr(lake_removal, "_ATTEMPTS", 0)
    with pytest.raises(RemovalConflict, match="0 other commits"):
        replace_files(opened(lake), [], [], data_change=True)

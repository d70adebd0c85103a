from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.bus import Partition, Position
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import UNKNOWN, LogSource
from storage import lake_rest, lake_scan, lake_table, lake_writer
from storage.errors import LakeError
from storage.lake import Lake
from storage.lake_columns import FIXED_COLUMNS, encode_name
from storage.lake_place import LocalPlace
from storage.lake_rest import MAX_COLUMNS, REST
from storage.lake_table import CHECKPOINT_EVERY
from storage.lake_writer import LakeWriter

REPOSITORY = Path(__file__).resolve().parent.parent
TOPIC = "tocsin.raw"
PROCESS = LogSource("windows", "process_creation", "sysmon")
SSHD = LogSource("linux", None, "sshd")
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def frame(
    offset: int,
    fields: Mapping[str, Sequence[str | None]],
    *,
    logsource: LogSource = PROCESS,
    partition: int = 0,
    first_row: int = 0,
    tenant: str = "chu-brest",
    at: datetime = NEW_YEAR,
    received: datetime = NEW_YEAR,
) -> EventFrame:
    rows = len(next(iter(fields.values())))
    envelope: dict[str, Sequence[object]] = {name: [None] * rows for name in ENVELOPE}
    envelope |= {
        "event.id": [f"{TOPIC}:{partition}:{offset}:{first_row + row}" for row in range(rows)],
        "organization.id": [tenant] * rows,
        "@timestamp": [at] * rows,
        "event.created": [received] * rows,
        "event.original": [f"raw {row}" for row in range(rows)],
    }
    data = pl.DataFrame({**envelope, **fields}, schema_overrides={**ENVELOPE, **dict.fromkeys(fields, pl.String())})
    return EventFrame(logsource, data)


def store(lake: Lake, *frames: EventFrame, offset: int = 0, partition: int = 0) -> None:
    writer = lake.writer()
    writer.add(frames, Position(TOPIC, partition, offset))
    assert writer.flush() == {Partition(TOPIC, partition): offset + 1}


def events(lake: Lake) -> pl.DataFrame:
    return pl.concat([part.events for part in lake.read()], how="diagonal").sort("event.id")


def ids(lake: Lake) -> list[str]:
    return sorted(event_id for part in lake.read() for event_id in part.events["event.id"])


def folder_of(lake: Lake) -> Path:
    assert isinstance(lake.place, LocalPlace)
    return lake.place.root


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_frames_come_back_as_they_went_in(lake: Lake) -> None:
    written = frame(0, {"CommandLine": ["whoami", None], "a b": ["x", "y"], "date": [None, "z"], "nul\0;=": ["1", "2"]})
    store(lake, written)
    (read,) = lake.read()
    assert read.logsource == PROCESS
    assert list(read.events.schema.items())[: len(ENVELOPE)] == list(ENVELOPE.items())
    assert read.events.equals(written.events)


def test_columns_without_a_value_are_left_out(lake: Lake) -> None:
    store(lake, frame(0, {"A": ["x"], "B": [None]}))
    store(lake, frame(1, {"C": ["y"]}, logsource=SSHD), offset=1)
    assert [part.fields for part in lake.read()] == [["C"], ["A"]]


def test_new_columns_join_and_case_differences_meet(lake: Lake) -> None:
    store(lake, frame(0, {"CommandLine": ["one"]}))
    store(lake, frame(1, {"commandline": ["two"], "New": ["n"]}), offset=1)
    assert events(lake).select("CommandLine", "New").rows() == [("one", None), ("two", "n")]


def test_a_frame_of_another_shape_is_refused_whole(lake: Lake) -> None:
    writer = lake.writer()
    good = frame(0, {"A": ["x"]})
    typed = EventFrame(SSHD, good.events.with_columns(Number=pl.lit(1)))
    bare = EventFrame(SSHD, good.events.drop("host.name"))
    for bad, named in ((typed, "Number"), (bare, "host.name")):
        with pytest.raises(LakeError, match=named):
            writer.add([good, bad], Position(TOPIC, 0, 0))
    assert (writer.buffered_rows, writer.buffered_bytes, writer.flush()) == (0, 0, {})


def test_the_writer_says_what_it_holds(lake: Lake) -> None:
    writer = lake.writer()
    writer.add(
        [frame(0, {"A": ["x", "y"]}), frame(0, {"B": ["z"]}, logsource=SSHD, first_row=2)], Position(TOPIC, 0, 0)
    )
    writer.add([], Position(TOPIC, 1, 41))
    assert writer.buffered_rows == 3
    assert writer.buffered_bytes > 0
    assert writer.flush() == {Partition(TOPIC, 0): 1, Partition(TOPIC, 1): 42}
    assert (writer.buffered_rows, writer.buffered_bytes, writer.written_rows) == (0, 0, 3)
    assert writer.flush() == {}


def test_a_record_delivered_twice_is_taken_once(lake: Lake) -> None:
    writer = lake.writer()
    for _ in range(2):
        writer.add([frame(5, {"A": ["x"]})], Position(TOPIC, 0, 5))
    writer.flush()
    writer.add([frame(5, {"A": ["x"]})], Position(TOPIC, 0, 5))
    writer.flush()
    assert len(ids(lake)) == 1


def test_a_failed_flush_is_finished_by_the_next(lake: Lake) -> None:
    writer = lake.writer()
    writer.add([frame(0, {"A": ["x"]}), frame(0, {"B": ["y"]}, logsource=SSHD, first_row=1)], Position(TOPIC, 0, 0))
    obstacle = folder_of(lake) / "events" / "linux._.sshd"
    obstacle.parent.mkdir()
    obstacle.write_text("not a folder")
    with pytest.raises(LakeError, match=r"linux\._\.sshd"):
        writer.flush()
    obstacle.unlink()
    assert writer.flush() == {Partition(TOPIC, 0): 1}
    assert len(ids(lake)) == 2
    assert writer.written_rows == 2


# Exactly once, whatever happens


def record(offset: int, partition: int) -> list[EventFrame]:
    """What parsing makes of a bus record: always the same for the same record."""
    wanted = random.Random(f"{partition}:{offset}")  # noqa: S311 - a repeatable choice
    frames = []
    for row, logsource in enumerate(wanted.sample([PROCESS, SSHD, UNKNOWN], wanted.randrange(4))):
        name = wanted.choice(["User", "user", "Image", "a b"])
        frames.append(frame(offset, {name: ["v"]}, logsource=logsource, partition=partition, first_row=row))
    return frames


def expected_ids(ends: Mapping[int, int]) -> list[str]:
    return sorted(
        event_id
        for partition, end in ends.items()
        for offset in range(end)
        for part in record(offset, partition)
        for event_id in part.events["event.id"]
    )


class Worker:
    """A detect worker reduced to its offsets: reads on from what it committed, loses all else in a crash."""

    def __init__(self, lake: Lake, committed: dict[int, int]) -> None:
        self.writer: LakeWriter = lake.writer()
        self.committed = committed
        self.read = dict(committed)

    def add(self, partition: int) -> None:
        offset = self.read[partition]
        self.writer.add(record(offset, partition), Position(TOPIC, partition, offset))
        self.read[partition] = offset + 1

    def flush(self) -> None:
        self.committed |= {place.partition: offset for place, offset in self.writer.flush().items()}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 1)),
        st.tuples(st.sampled_from(["flush", "crash", "flush, then crash before the commit"]), st.just(0)),
        st.tuples(st.just("crash inside flush"), st.integers(0, 2)),
    ),
    max_size=14,
)


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_every_event_is_in_the_lake_once_whatever_crashes(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        committed, ends = {0: 0, 1: 0}, {0: 0, 1: 0}
        worker = Worker(lake, committed)
        for step, choice in steps:
            if step == "add":
                worker.add(choice)
                ends[choice] = max(ends[choice], worker.read[choice])
            elif step == "flush":
                worker.flush()
            elif step == "flush, then crash before the commit":
                worker.writer.flush()
            elif step == "crash inside flush":
                crash_inside_flush(lake, worker, choice)
            if "crash" in step:
                worker = Worker(lake, committed)
        for partition, end in ends.items():
            while worker.read[partition] < end:
                worker.add(partition)
        worker.flush()
        assert committed == ends
        assert ids(lake) == expected_ids(ends)


def crash_inside_flush(lake: Lake, worker: Worker, choice: int) -> None:
    """Flush with one table out of reach: those before it are written, those after it are not."""
    table = folder_of(lake) / "events" / ("windows.process_creation.sysmon", "linux._.sshd", "_._._")[choice]
    aside = table.with_name("aside")
    table.parent.mkdir(exist_ok=True)
    if table.exists():
        table.rename(aside)
    table.write_text("not a folder")
    with suppress(LakeError):
        worker.writer.flush()
    table.unlink()
    if aside.exists():
        aside.rename(table)


WORKER_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from ingest.bus import Position
from storage.lake import Lake
from test_storage_lake import TOPIC, record
writer = Lake(Path(sys.argv[1])).writer()
partition = int(sys.argv[2])
for offset in range(int(sys.argv[3])):
    writer.add(record(offset, partition), Position(TOPIC, partition, offset))
    if offset % 3 == 2:
        writer.flush()
        print(offset, flush=True)
writer.flush()
"""


def start_worker(lake: Lake, partition: int, records: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER_SCRIPT, str(folder_of(lake)), str(partition), str(records)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_a_worker_killed_at_any_moment_adds_nothing_twice(lake: Lake) -> None:
    for delay in (0.0, 0.013, 0.041):
        with start_worker(lake, 0, 3000) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline()
            time.sleep(delay)
            os.kill(worker.pid, signal.SIGKILL)
    survivor = Worker(lake, {0: 0})
    for _ in range(60):
        survivor.add(0)
    survivor.flush()
    found = ids(lake)
    assert len(found) == len(set(found))
    assert set(found) >= set(expected_ids({0: 60}))


def test_workers_of_different_partitions_append_side_by_side(lake: Lake) -> None:
    workers = [start_worker(lake, partition, 30) for partition in (0, 1)]
    assert [worker.wait(50) for worker in workers] == [0, 0]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.close()
    assert ids(lake) == expected_ids({0: 30, 1: 30})


def test_two_workers_that_both_believe_to_own_a_partition_add_nothing_twice(lake: Lake) -> None:
    def run(batch: int) -> None:
        worker = Worker(lake, {0: 0})
        for offset in range(24):
            worker.add(0)
            if offset % batch == 0:
                worker.flush()
        worker.flush()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, (2, 5)))
    assert ids(lake) == expected_ids({0: 24})


def test_offsets_survive_checkpoints(lake: Lake) -> None:
    writer = lake.writer()
    for offset in range(CHECKPOINT_EVERY + 2):
        writer.add([frame(offset, {"A": ["x"]})], Position(TOPIC, 0, offset))
        writer.flush()
    table = folder_of(lake) / "events" / "windows.process_creation.sysmon"
    assert list((table / "_delta_log").glob("*.checkpoint.parquet"))
    store(lake, frame(7, {"A": ["x"]}), offset=7)
    assert lake.count() == CHECKPOINT_EVERY + 2


# More fields and more tables than fit


def fields_of(lake: Lake) -> dict[str, dict[str, str]]:
    """Of each event its fields that have a value."""
    return {
        event["event.id"]: {name: event[name] for name in part.fields if event[name] is not None}
        for part in lake.read()
        for event in part.events.iter_rows(named=True)
    }


def table_of(lake: Lake) -> Path:
    return folder_of(lake) / "events" / "windows.process_creation.sysmon"


def test_a_table_has_a_ceiling_of_columns_and_loses_no_field(lake: Lake) -> None:
    writer = lake.writer()
    for offset in range(3):
        keys = {f"{offset} key {number}": [str(number)] for number in range(1000)}
        writer.add([frame(offset, {"Image": ["x.exe"], **keys})], Position(TOPIC, 0, offset))
    writer.flush()
    store(lake, frame(3, {"Image": ["y.exe"], "2 KEY 999": ["late"], "fields.rest": ["own"]}), offset=3)
    assert len(DeltaTable(str(table_of(lake))).schema().fields) == MAX_COLUMNS
    read = fields_of(lake)
    for offset in range(3):
        wanted = {f"{offset} key {number}": str(number) for number in range(1000)} | {"Image": "x.exe"}
        assert read[f"{TOPIC}:0:{offset}:0"] == wanted
    late = read[f"{TOPIC}:0:3:0"]
    assert {name.lower(): value for name, value in late.items()} == {
        "image": "y.exe",
        "2 key 999": "late",
        "fields.rest": "own",
    }
    (found,) = lake.find([f"{TOPIC}:0:2:0"])
    assert found["2 key 999"] == "999"
    packed = f"""json_extract_string("{REST}", '$."2 key 999"')"""
    sql = f'SELECT {packed} FROM "{table_of(lake).name}" WHERE "bus.offset" = 2'  # noqa: S608 - names of this test
    assert lake.query(sql).item() == "999"


FIELD_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
ROWS = st.lists(
    st.dictionaries(FIELD_NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=6), min_size=1
)


@settings(max_examples=30, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(0, 8), st.sampled_from([1, 60, 10**6]))
def test_every_field_comes_back_whatever_fits(records: list[list[dict[str, str]]], room: int, cells: int) -> None:
    spelling: dict[str, str] = {}  # one spelling a field: which one of several is kept is not the matter here
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lake_table, "MAX_COLUMNS", len(FIXED_COLUMNS) + 1 + room)
        for module in (lake_table, lake_scan, lake_rest):
            patch.setattr(module, "MAX_CELLS", cells)
        lake = Lake(Path(folder))
        writer = lake.writer()
        wanted: dict[str, dict[str, str]] = {}
        for offset, rows in enumerate(records):
            alike = [{spelling.setdefault(encode_name(k).lower(), k): v for k, v in row.items()} for row in rows]
            names = list(dict.fromkeys(name for row in alike for name in row)) or ["none"]
            given = frame(offset, {name: [row.get(name) for row in alike] for name in names})
            wanted |= dict(zip(given.events["event.id"], alike, strict=True))
            writer.add([given], Position(TOPIC, 0, offset))
            if offset % 2:
                writer.flush()
        writer.flush()
        assert fields_of(lake) == wanted
        assert len(DeltaTable(str(table_of(lake))).schema().fields) <= len(FIXED_COLUMNS) + 1 + room


def test_an_append_writes_only_the_columns_that_have_values(lake: Lake) -> None:
    store(lake, frame(0, {f"key{number}": ["x"] for number in range(300)}))
    before = set(table_of(lake).rglob("*.parquet"))
    store(lake, frame(1, {"key7": ["y"], "key8": [None]}), offset=1)
    (written,) = set(table_of(lake).rglob("*.parquet")) - before
    assert set(pl.read_parquet_schema(written)) - set(FIXED_COLUMNS) == {"key7"}
    assert pl.read_delta(str(table_of(lake))).sort("bus.offset")["key8"].to_list() == ["x", None]
    assert DeltaTable(str(table_of(lake))).optimize.compact()["numFilesRemoved"] == 2
    assert fields_of(lake)[f"{TOPIC}:0:1:0"] == {"key7": "y"}
    assert len(fields_of(lake)[f"{TOPIC}:0:0:0"]) == 300


def test_frames_too_wide_for_their_rows_are_cut(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_table, "MAX_COLUMNS", len(FIXED_COLUMNS) + 1)
    writer = lake.writer()
    for offset in range(20):
        writer.add([frame(offset, {f"key{offset}": ["x"]})], Position(TOPIC, 0, offset))
    writer.flush()
    monkeypatch.setattr(lake_rest, "MAX_CELLS", 200)
    parts = list(lake.read())
    assert len(parts) > 1
    assert all(part.events.height * part.events.width <= 200 for part in parts)
    assert sorted(name for part in parts for name in part.fields) == sorted(f"key{offset}" for offset in range(20))


def test_many_records_of_different_columns_are_written_in_bounded_frames(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_table, "MAX_CELLS", 200)
    writer = lake.writer()
    for offset in range(20):
        writer.add([frame(offset, {f"key{offset}": ["x"]})], Position(TOPIC, 0, offset))
    writer.flush()
    files = list(table_of(lake).rglob("part-*.parquet"))
    assert 1 < len(files) < 20
    assert DeltaTable(str(table_of(lake))).version() == 2  # made, columns added, all rows in one commit
    assert len(fields_of(lake)) == 20


def test_a_writer_keeps_a_bounded_number_of_tables_open(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_writer, "OPEN_TABLES", 3)
    writer = lake.writer()
    for offset in range(3):
        frames = [
            frame(offset, {"A": ["x"]}, logsource=LogSource(f"product{number}"), first_row=number)
            for number in range(5)
        ]
        writer.add(frames, Position(TOPIC, 0, offset))
        writer.flush()
        assert writer.open_tables == 3
    assert len(ids(lake)) == 15


def test_the_lake_says_up_to_where_it_holds_the_bus(lake: Lake) -> None:
    assert lake.held(TOPIC) == {}
    writer = lake.writer()
    for partition, offset, logsource in ((0, 4, PROCESS), (0, 9, SSHD), (3, 2, PROCESS), (3, 1, SSHD)):
        part = frame(offset, {"A": ["x"]}, logsource=logsource, partition=partition)
        writer.add([part], Position(TOPIC, partition, offset))
    writer.add([frame(7, {"A": ["x"]}, partition=1)], Position("other", 1, 7))
    writer.flush()
    assert lake.held(TOPIC) == {Partition(TOPIC, 0): 9, Partition(TOPIC, 3): 2}
    assert lake.held("other") == {Partition("other", 1): 7}
    store(lake, frame(10, {"A": ["x"]}), offset=10)
    DeltaTable(str(table_of(lake))).optimize.compact()
    assert lake.held(TOPIC) == {Partition(TOPIC, 0): 10, Partition(TOPIC, 3): 2}
    DeltaTable(str(table_of(lake))).create_checkpoint()
    assert lake.held(TOPIC) == {Partition(TOPIC, 0): 10, Partition(TOPIC, 3): 2}
    for part_of_log in (table_of(lake) / "_delta_log").iterdir():
        part_of_log.write_text("broken")
    with pytest.raises(LakeError, match=r"windows\.process_creation\.sysmon"):
        lake.held(TOPIC)


# Reading


def test_the_last_event_of_a_file_is_read_to_the_microsecond(lake: Lake) -> None:
    at = NEW_YEAR + timedelta(microseconds=123_456)
    store(lake, frame(0, {"A": ["x"]}, at=at), offset=0)
    assert lake.count(since=at) == 1
    assert lake.count(since=at - timedelta(microseconds=156)) == 1
    assert lake.count(since=at + timedelta(microseconds=1)) == 0
    assert lake.count(until=at) == 0
    assert [part.events.height for part in lake.read(since=at)] == [1]


def test_reading_is_narrowed_by_source_time_and_hospital(lake: Lake) -> None:
    day = timedelta(days=1)
    store(lake, frame(0, {"A": ["x"]}, tenant="chu", at=NEW_YEAR), offset=0)
    store(lake, frame(1, {"A": ["x", "y"]}, tenant="ch", at=NEW_YEAR + day), offset=1)
    store(lake, frame(2, {"A": ["x", "y", "z"]}, logsource=SSHD, at=NEW_YEAR + 2 * day), offset=2)
    assert lake.tables() == [SSHD, PROCESS]
    assert lake.count() == 6
    assert lake.count([LogSource("windows"), LogSource("macos")]) == 3
    assert lake.count([LogSource(service="auth")]) == 3
    assert lake.count(since=NEW_YEAR + day) == 5
    assert lake.count(until=NEW_YEAR + day) == 1
    assert lake.count(tenants=["ch"]) == 2
    assert lake.count(tenants=[]) == 0
    assert [part.events.height for part in lake.read(tenants=["ch", "chu"], until=NEW_YEAR + day)] == [1]
    with pytest.raises(ValueError, match="time zone"):
        lake.count(since=datetime(2026, 1, 1))  # noqa: DTZ001 - the fault under test


def test_batches_are_bounded_and_small_files_are_joined(lake: Lake) -> None:
    writer = lake.writer()
    for offset in range(6):
        writer.add([frame(offset, {"A": ["x"] * 3})], Position(TOPIC, 0, offset))
        writer.flush()
    assert [part.events.height for part in lake.read(batch_rows=7)] == [6, 6, 6]
    assert [part.events.height for part in lake.read(batch_rows=2)] == [2, 1] * 6
    assert [part.events.height for part in lake.read()] == [18]


def test_times_of_any_year_are_kept_and_a_broken_clock_makes_no_folders(lake: Lake) -> None:
    times = [datetime(1601, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), NEW_YEAR]
    written = pl.concat([frame(0, {"A": [str(at)]}, at=at, first_row=row).events for row, at in enumerate(times)])
    far = written.with_columns(pl.lit(2**62).cast(pl.Datetime("us", "UTC")).alias("@timestamp")).head(1)
    far = far.with_columns(pl.lit(f"{TOPIC}:0:0:9").alias("event.id"))
    store(lake, EventFrame(PROCESS, pl.concat([written, far])))
    assert events(lake).equals(pl.concat([written, far]).sort("event.id"))
    assert lake.query('SELECT DISTINCT date FROM "windows.process_creation.sysmon"').rows() == [(date(2026, 1, 1),)]
    assert lake.count(until=datetime(1700, 1, 1, tzinfo=UTC)) == 1


@pytest.mark.parametrize("tenant", ["chu brest/é%20", "..", "a=b", "x" * 300, "é" * 120])
def test_any_name_of_a_hospital_works(lake: Lake, tenant: str) -> None:
    store(lake, frame(0, {"A": ["x"]}, tenant=tenant))
    assert events(lake)["organization.id"].to_list() == [tenant]
    assert lake.count(tenants=[tenant]) == 1


def test_events_are_found_by_id(lake: Lake) -> None:
    store(lake, frame(0, {"A": ["x", "y"]}), frame(0, {"B b": ["z"]}, logsource=SSHD, first_row=2))
    store(lake, frame(1, {"A": ["w"]}, tenant="ch"), offset=1)
    found = lake.find([f"{TOPIC}:0:1:0", "file.evtx:3", f"{TOPIC}:0:0:2", f"{TOPIC}:0:7:0"])
    assert [event["event.id"] for event in found] == [f"{TOPIC}:0:1:0", f"{TOPIC}:0:0:2"]
    assert found[1]["B b"] == "z"
    assert found[1]["logsource"] == "linux/_/sshd"
    assert lake.find([f"{TOPIC}:0:1:0"], tenants=["chu-brest"]) == []
    assert lake.find(["file.evtx:3"]) == []


def test_each_event_keeps_the_offset_of_its_record(lake: Lake) -> None:
    worker = Worker(lake, {0: 0, 1: 0})
    for step in range(40):
        worker.add(step % 2)
    worker.flush()
    for folder in ("windows.process_creation.sysmon", "linux._.sshd"):
        place = """concat_ws(':', "bus.topic", "bus.partition", "bus.offset", '')"""
        sql = f'SELECT DISTINCT starts_with("event.id", {place}) FROM "{folder}"'  # noqa: S608 - names of this test
        assert lake.query(sql).rows() == [(True,)]
    wanted = expected_ids({0: 20, 1: 20})
    assert [event["event.id"] for event in lake.find(wanted)] == wanted


def test_a_reader_sees_the_lake_as_it_was(lake: Lake) -> None:
    store(lake, frame(0, {"A": ["x"] * 4}))
    reading = lake.read(batch_rows=2)
    first = next(reading)
    store(lake, frame(1, {"A": ["y"] * 4}), offset=1)
    assert first.events.height + sum(part.events.height for part in reading) == 4


def test_queries_see_the_tables_and_nothing_else(lake: Lake) -> None:
    assert lake.query("SELECT count(*) AS n FROM events").rows() == [(0,)]
    store(lake, frame(0, {"A b": ["x", "y"]}), frame(0, {"B": ["z"]}, logsource=SSHD, first_row=2))
    counted = lake.query("SELECT logsource, count(*) FROM events GROUP BY 1 ORDER BY 1").rows()
    assert counted == [("linux/_/sshd", 1), ("windows/process_creation/sysmon", 2)]
    assert lake.query('SELECT "A%20b" FROM "windows.process_creation.sysmon" ORDER BY 1').rows() == [("x",), ("y",)]
    assert lake.query('SELECT max("@timestamp") AS t FROM events').item() == NEW_YEAR
    assert lake.query(f"SELECT count(*) FROM events WHERE date = '{NEW_YEAR.date()}'").item() == 3  # noqa: S608
    for refused in (
        "SELECT * FROM read_csv('/etc/hostname')",
        "ATTACH '/tmp/other.duckdb'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT no_such_column FROM events",
        "SELEC",
        "LOAD httpfs",
        "COPY (SELECT 1) TO '/tmp/out.csv'",
    ):
        with pytest.raises(LakeError):
            lake.query(refused)


def test_other_readers_understand_the_tables(lake: Lake) -> None:
    store(lake, frame(0, {"A": ["x", "y"]}, tenant="chu brest"))
    table = folder_of(lake) / "events" / "windows.process_creation.sysmon"
    delta = DeltaTable(str(table))
    files = [str(path) for path in table.rglob("*.parquet")]
    assert pl.read_delta(str(table))["organization.id"].to_list() == ["chu brest"] * 2
    assert pl.DataFrame(delta.scan(predicate="\"A\" = 'x'"))["A"].to_list() == ["x"]
    assert delta.to_pyarrow_table(filters=[("@timestamp", ">=", NEW_YEAR)]).num_rows == 2
    assert delta.file_uris(file_pruning_predicate=[("@timestamp", ">", NEW_YEAR + timedelta(seconds=1))]) == []
    with duckdb.connect() as connection:
        sql = 'SELECT "organization.id", date FROM read_parquet(?, hive_partitioning = true)'
        assert connection.execute(sql, [files]).fetchall() == [("chu brest", date(2026, 1, 1))] * 2


def test_delta_compaction_keeps_every_event_and_the_offsets(lake: Lake) -> None:
    writer = lake.writer()
    for offset in range(4):
        writer.add([frame(offset, {"A": ["x"]})], Position(TOPIC, 0, offset))
        writer.flush()
    delta = DeltaTable(str(folder_of(lake) / "events" / "windows.process_creation.sysmon"))
    assert delta.optimize.compact()["numFilesRemoved"] == 4
    store(lake, frame(3, {"A": ["x"]}), offset=3)
    assert lake.count(since=NEW_YEAR) == 4
    assert len(lake.find([f"{TOPIC}:0:2:0"])) == 1


def test_a_table_that_cannot_be_read_is_named(lake: Lake) -> None:
    store(lake, frame(0, {"A": ["x"]}))
    (parquet,) = (folder_of(lake) / "events").rglob("*.parquet")
    parquet.write_bytes(b"PAR1 broken")
    with pytest.raises(LakeError, match=r"windows\.process_creation\.sysmon"):
        list(lake.read())
    with pytest.raises(LakeError):
        lake.query('SELECT "A" FROM "windows.process_creation.sysmon"')


def test_a_lake_without_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match="cannot make its folder"):
        Lake(tmp_path / "file")

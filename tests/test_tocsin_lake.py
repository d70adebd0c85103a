from __future__ import annotations

import io
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from ingest.bus import Position
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import LogSource
from storage.errors import LakeError
from storage.lake import Lake
from storage.signing import open_signer
from tocsin import lake_maintenance
from tocsin.chores import EXPIRY_WAITS, Chore, read_notes
from tocsin.cli import tocsin
from tocsin.lake_maintain_command import keep_in_order, summary
from tocsin.lake_maintenance import LOCK, LakeMaintenance, Round, maintenance_of, noting_rounds
from tocsin.settings import Settings
from tocsin.vitals import Vitals

NOON = datetime.now(UTC).replace(hour=12, minute=0)  # rows some minutes apart are then of one day, at whatever hour
ROWS = 30


def fill(folder: Path, tables: int = 1) -> Lake:
    lake = Lake(folder)
    writer = lake.writer()
    for offset in range(ROWS):
        at = NOON - timedelta(days=3, minutes=offset)
        for number in range(tables):
            envelope: dict[str, list[object]] = {name: [None] for name in ENVELOPE}
            envelope |= {"event.id": [f"tocsin.raw:0:{offset}:{number}"], "organization.id": ["CH de Kermor"]}
            envelope |= {"@timestamp": [at], "event.created": [at], "host.name": [f"pc-{offset % 3}\x1b[2J\u202e"]}
            frame = EventFrame(LogSource("linux", None, f"s{number}"), pl.DataFrame(envelope, schema=ENVELOPE))
            writer.add([frame], Position("tocsin.raw", number, offset))
        writer.flush()
    return lake


def settings_of(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


def ask(tmp_path: Path, *arguments: str) -> tuple[int, bytes, str]:
    result = CliRunner().invoke(tocsin, ["lake", *arguments, "--set", f"data_dir={tmp_path}"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout_bytes, result.stderr


BY_HOST = 'SELECT "host.name" AS host, count(*) AS n FROM events GROUP BY 1 ORDER BY 1'


def test_a_query_gives_a_table_whose_controls_are_visible(tmp_path: Path) -> None:
    fill(tmp_path / "lake")
    code, out, err = ask(tmp_path, "query", BY_HOST)
    assert (code, err) == (0, "")
    shown = [line.split() for line in out.decode().splitlines()]
    assert shown == [["host", "n"], *([f"pc-{at}\\x1b[2J\\u202e", "10"] for at in range(3))]


def test_the_other_formats_keep_the_values(tmp_path: Path) -> None:
    fill(tmp_path / "lake")
    values = [(f"pc-{at}\x1b[2J\u202e", 10) for at in range(3)]
    _, text, _ = ask(tmp_path, "query", BY_HOST, "--format", "json")
    assert [tuple(orjson.loads(line).values()) for line in text.splitlines()] == values
    _, text, _ = ask(tmp_path, "query", BY_HOST, "--format", "csv")
    assert pl.read_csv(io.BytesIO(text)).rows() == values
    target = tmp_path / "out.parquet"
    code, text, _ = ask(tmp_path, "query", BY_HOST, "--format", "parquet", "--output", str(target))
    assert (code, text, pl.read_parquet(target).rows()) == (0, b"", values)


def test_a_limit_is_kept_and_said(tmp_path: Path) -> None:
    fill(tmp_path / "lake")
    every = 'SELECT "event.id" FROM events'
    _, out, err = ask(tmp_path, "query", every, "--limit", "7", "--format", "csv")
    assert (len(out.splitlines()), "first 7 rows" in err) == (8, True)
    _, out, err = ask(tmp_path, "query", every, "--limit", str(ROWS), "--format", "csv")
    assert (len(out.splitlines()), err) == (ROWS + 1, "")


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "SELECT * FROM nowhere", "SELECT * FROM read_csv('/etc/passwd')", "SET x=1"]
)
def test_what_cannot_be_asked_is_one_line_and_leaves_no_file(tmp_path: Path, sql: str) -> None:
    fill(tmp_path / "lake")
    target = tmp_path / "out.csv"
    with pytest.raises(LakeError) as caught:
        ask(tmp_path, "query", sql, "--format", "csv", "--output", str(target))
    assert "\n" not in str(caught.value)
    assert not target.exists()


def test_tables_says_what_there_is(tmp_path: Path) -> None:
    fill(tmp_path / "lake", tables=2)
    _, out, _ = ask(tmp_path, "tables")
    lines = out.decode().splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [["linux._.s0", "30", "30"], ["linux._.s1", "30", "30"]]
    assert lines[3].startswith("2 tables, 60 events, 60 files, ")


def test_a_round_puts_files_together_seals_and_says_so(tmp_path: Path) -> None:
    lake = fill(tmp_path / "lake", tables=2)
    maintenance = LakeMaintenance(
        lake.place,
        settings_of(tmp_path).lake,
        open_signer(tmp_path / "keys"),
        lambda: datetime.now(UTC) + timedelta(hours=2),
    )
    done = maintenance.round()
    assert (done.tables, done.compacted.files_before, done.compacted.files_after, done.sealed) == (2, 60, 2, 2)
    assert (done.failures, done.busy, lake.count()) == ((), False, 60)


def test_a_table_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    lake = fill(tmp_path / "lake", tables=2)
    victim = next(path for path in lake.place.files("events/linux._.s0") if path.endswith(".parquet"))
    lake.place.write(victim, b"torn")
    maintenance = LakeMaintenance(
        lake.place,
        settings_of(tmp_path).lake,
        open_signer(tmp_path / "keys"),
        lambda: datetime.now(UTC) + timedelta(hours=2),
    )
    done = maintenance.round()
    assert (len(done.failures), "linux._.s0" in done.failures[0]) == (1, True)
    assert (done.compacted.files_after, maintenance.failures) == (1, 1)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    lake = fill(tmp_path / "lake")
    maintenance = maintenance_of(settings_of(tmp_path))
    with lake.place.lock(LOCK):
        assert maintenance.round().busy
        code, out, _ = ask(tmp_path, "maintain", "--once")
        assert (code, b"Another process" in out) == (1, True)
    assert not maintenance.round().busy


def test_the_command_makes_one_round(tmp_path: Path) -> None:
    fill(tmp_path / "lake")
    code, out, _ = ask(tmp_path, "maintain", "--once")
    assert code == 0
    assert out.decode().splitlines()[0] == "1 tables looked at"


def test_the_loop_goes_on_until_it_is_stopped_and_tells_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "lake")
    maintenance = maintenance_of(settings_of(tmp_path))
    monkeypatch.setattr(lake_maintenance, "lower_priority", lambda: None)
    stop = threading.Event()
    told: list[tuple[str, ...]] = []

    def fail(*_: object, **__: object) -> None:
        raise LakeError("the disk is full")

    monkeypatch.setattr(lake_maintenance, "compact", fail)

    def tell(done: Round) -> None:
        told.append(done.failures)
        if len(told) == 2:
            stop.set()

    maintenance.run(stop, 0.01, tell)
    assert told == [("compaction linux._.s0: the disk is full",)] * 2
    assert maintenance.rounds == 2


def test_what_a_dead_writer_left_half_written_goes_after_an_hour(tmp_path: Path) -> None:
    lake = fill(tmp_path / "lake")
    left = [tmp_path / "lake" / folder / ".x.partial" for folder in ("keep", "events/linux._.s0/_delta_log")]
    fresh = left[0].with_name(".y.partial")
    for path in (*left, fresh):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    for path in left:
        os.utime(path, (time.time() - 3700,) * 2)
    done = maintenance_of(settings_of(tmp_path)).round()
    assert (done.partial, done.failures, [path.exists() for path in left]) == (2, (), [False, False])
    assert fresh.exists()
    assert lake.count() == ROWS
    assert "2 half-written files of dead writers deleted" in summary(done)


def test_a_time_in_doubt_is_a_reason_to_wait_and_no_failure(tmp_path: Path) -> None:
    lake = fill(tmp_path / "lake")
    settings = settings_of(tmp_path)
    moved = timedelta(days=1000)
    signer = open_signer(tmp_path / "keys")
    maintenance = LakeMaintenance(lake.place, settings.lake, signer, lambda: datetime.now(UTC) + moved)
    failing: list[str | None] = []
    tell = noting_rounds(tmp_path, failing.append)
    with capture_logs() as logged:
        for _ in range(2):
            done = maintenance.round()
            tell(done)
    assert (done.failures, failing, lake.count()) == ((), [None, None], ROWS)
    assert "nothing expires" in done.waiting
    assert [entry["log_level"] for entry in logged if entry["event"] == "lake: expiry waits"] == ["warning", "debug"]
    note = read_notes(tmp_path)[Chore.MAINTAIN]
    assert (note.ok, note.reason, note.figures) == (True, done.waiting, {EXPIRY_WAITS: 1.0})
    assert any(line.startswith("Expiry waits: ") for line in summary(done))


def test_its_health_shows_that_it_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "lake")
    monkeypatch.setattr(lake_maintenance, "lower_priority", lambda: None)
    monkeypatch.setattr(lake_maintenance, "STEP_SECONDS", 0.01)
    settings, vitals, stop = settings_of(tmp_path), Vitals("maintain"), threading.Event()
    steps: list[bool] = []
    stepped = vitals.stepped

    def seen(stage: str, records: int = 0) -> None:
        stepped(stage, records)
        steps.append(Chore.MAINTAIN in read_notes(tmp_path))
        if steps.count(True) == 5:
            stop.set()

    monkeypatch.setattr(vitals, "stepped", seen)
    keep_in_order(maintenance_of(settings), settings, vitals, stop)
    assert steps.count(False) > 1, "within the round"
    assert [(one.name, one.starting, one.stuck) for one in vitals.stages()] == [("maintain", False, False)]


def test_a_thread_that_is_lower_already_is_left_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError("raising a priority takes a right")

    monkeypatch.setattr("os.getpriority", lambda *_: 19)
    monkeypatch.setattr("os.setpriority", refuse)
    lake_maintenance.lower_priority()
    monkeypatch.setattr("os.getpriority", lambda *_: 0)
    with pytest.raises(PermissionError):
        lake_maintenance.lower_priority()

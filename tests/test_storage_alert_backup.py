from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.bus import Partition
from storage.alert import Alert, Level, Status, alert_id
from storage.alert_backup import backups_in, check_backup, keep_newest, made_at, read_manifest
from storage.alert_queue import AlertFilter
from storage.alert_restore import import_export, make_empty, make_from, restore, verify_backup
from storage.alerts import AlertStore
from storage.errors import StoreError, StoreHeld
from storage.migrations import MIGRATIONS
from storage.source import Scope, Silence, SourceName
from storage.source_store import SourceStore

ALERTS = Partition("tocsin.alerts", 0)
SOURCES = Partition("tocsin.sources", 2)
NOON = datetime(2026, 8, 27, 12, tzinfo=UTC)
MEMORY = "256MB"


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def alert(number: int) -> Alert:
    return Alert(
        id=alert_id("rule", "CH", str(number)),
        rule_id="rule",
        rule_title=f"Rule {number}",
        level=list(Level)[number % 5],
        tenant=f"CH-{number % 3}",
        timestamp=NOON + timedelta(microseconds=number),
        received=NOON,
        logsource="a/b/c",
        host=None if number % 7 == 0 else f"PC-{number}",
        event_ids=("x", "y"),
        matched={"a": None, "b": "\0\U0001f514"},
        original="nul\0 \x1b[31m é",
        tags=(),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alerts.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[AlertStore]:
    with AlertStore(path, Clock()) as opened:
        fill(opened)
        yield opened


def fill(store: AlertStore) -> None:
    store.record([alert(number) for number in range(50)], {ALERTS: 50, SOURCES: 3})
    for number in (3, 4, 3):
        store.decide(alert(number).id, Status.TRUE_POSITIVE if number == 3 else Status.CLOSED, "why \0 é", "alice")
    name = SourceName("CH", "192.0.2.1", "pc", "linux")
    SourceStore(store.database).silence(Silence("s", Scope.SOURCE, name, NOON, NOON, None))


def everything(store: AlertStore) -> tuple[object, ...]:
    names = store.database.select("SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1")
    tables = [str(name) for (name,) in names if name != "migrations"]
    rows = [store.database.select(f"SELECT to_json(t)::VARCHAR FROM {table} t ORDER BY ALL") for table in tables]  # noqa: S608
    return tables, rows, store.queue(AlertFilter(), 1000), store.counts(AlertFilter()), store.journal_head()


def test_a_backup_restores_everything(store: AlertStore, tmp_path: Path) -> None:
    made = store.backup(tmp_path / "backups")
    assert made == read_manifest(made.folder)
    assert check_backup(made) == []
    assert (made.rows("alerts"), made.rows("decisions"), made.head) == (50, 3, store.journal_head())
    (tmp_path / "new").mkdir()
    restored = restore(made.folder, tmp_path / "new" / "alerts.duckdb", MEMORY)
    assert (restored.alerts, restored.decisions, restored.aside) == (50, 3, None)
    with AlertStore(tmp_path / "new" / "alerts.duckdb") as new:
        assert everything(new) == everything(store)
        assert new.verify() == []
        assert new.position(ALERTS) == 50
        assert new.record([alert(1), alert(50)], {ALERTS: 51}) == 1  # what the bus gives again is known
    assert [found.name for found in (tmp_path / "new").iterdir()] == ["alerts.duckdb"]


def test_an_empty_store_is_backed_up_too(tmp_path: Path) -> None:
    with AlertStore(tmp_path / "a.duckdb") as store:
        made = store.backup(tmp_path / "backups")
    restore(made.folder, tmp_path / "b.duckdb", MEMORY)
    with AlertStore(tmp_path / "b.duckdb") as new:
        assert new.verify() == []
        assert new.counts(AlertFilter()).total == 0


def test_a_backup_of_every_older_version_is_restored(tmp_path: Path) -> None:
    from test_storage_alert_migrations import old_store

    from storage.alert_backup import write_backup

    for version in range(1, len(MIGRATIONS) + 1):
        old_store(tmp_path / f"{version}.duckdb", version)
        with duckdb.connect(str(tmp_path / f"{version}.duckdb")) as connection:
            made = write_backup(connection, tmp_path / "backups", NOON + timedelta(seconds=version))
        assert made.version == version
        restore(made.folder, tmp_path / f"new-{version}.duckdb", MEMORY)
        with AlertStore(tmp_path / f"new-{version}.duckdb") as new:
            assert new.verify() == []
            assert [row.status for row in new.queue(AlertFilter()).items] == [Status.FALSE_POSITIVE, Status.NEW]


def test_writes_go_on_while_a_backup_is_made_and_it_is_of_one_moment(store: AlertStore, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 50
        while not stop.is_set():
            store.record([alert(number), alert(number + 1)], {ALERTS: number + 2})
            store.decide(alert(number).id, Status.CLOSED, "", "bob")
            number += 2

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = [store.backup(tmp_path / "backups") for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    assert made[-1].rows("alerts") > made[0].rows("alerts")
    for number, backup in enumerate(made):
        new = tmp_path / f"{number}.duckdb"
        restore(backup.folder, new, MEMORY)
        with AlertStore(new) as restored:
            assert restored.verify() == []
            assert restored.counts(AlertFilter()).total == restored.position(ALERTS)
            assert restored.journal_head() == backup.head
            assert backup.head[0] in (3 + (backup.rows("alerts") - 50) // 2, 2 + (backup.rows("alerts") - 50) // 2)


def test_a_backup_is_whole_or_not_there(store: AlertStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "backups"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("storage.alert_backup._write_manifest", full)
        with pytest.raises(StoreError, match="No space left"):
            store.backup(folder)
    assert list(folder.iterdir()) == []
    (folder / ".alerts-20200101T000000.000000Z.1.partial").mkdir()  # of a process that was killed
    made = store.backup(folder)
    assert list(folder.iterdir()) == [made.folder]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot back up"):
        store.backup(tmp_path / "file")


def test_the_newest_backups_are_kept(store: AlertStore, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    made = [store.backup(folder).folder for _ in range(4)]
    (folder / "notes.txt").write_text("mine")
    assert backups_in(folder) == made[::-1]
    assert keep_newest(folder, 2) == [made[1], made[0]]
    assert backups_in(folder) == [made[3], made[2]]
    assert made_at(made[3]) == read_manifest(made[3]).made
    assert (folder / "notes.txt").exists()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["alerts.parquet", "decisions.parquet", "positions.parquet", "manifest.json"])
def test_one_flipped_bit_is_found_before_anything_is_touched(
    store: AlertStore, path: Path, tmp_path: Path, name: str
) -> None:
    made = store.backup(tmp_path / "backups")
    store.close()
    before = path.read_bytes()
    flip(made.folder / name)
    with pytest.raises(StoreError, match=name):
        restore(made.folder, path, MEMORY, force=True)
    assert path.read_bytes() == before
    assert sorted(found.name for found in tmp_path.iterdir()) == ["alerts.duckdb", "backups"]


@pytest.mark.parametrize(("written", "instead"), [(b'"rows": 50', b'"rows": 49'), (b"2026-08", b"2026-09")])
def test_a_manifest_that_was_changed_is_refused(
    store: AlertStore, tmp_path: Path, written: bytes, instead: bytes
) -> None:
    manifest = store.backup(tmp_path / "backups").folder / "manifest.json"
    assert written in manifest.read_bytes()
    manifest.write_bytes(manifest.read_bytes().replace(written, instead))
    with pytest.raises(StoreError, match="does not have the hash that it says"):
        restore(manifest.parent, tmp_path / "new.duckdb", MEMORY)


def test_a_backup_without_one_of_its_files_is_refused(store: AlertStore, tmp_path: Path) -> None:
    made = store.backup(tmp_path / "backups")
    (made.folder / "alerts.parquet").unlink()
    with pytest.raises(StoreError, match=r"alerts\.parquet: cannot be read"):
        restore(made.folder, tmp_path / "new.duckdb", MEMORY)
    shutil.rmtree(made.folder)
    with pytest.raises(StoreError, match="no backup"):
        restore(made.folder, tmp_path / "new.duckdb", MEMORY)


def test_what_is_there_is_moved_aside_and_only_if_asked(store: AlertStore, path: Path, tmp_path: Path) -> None:
    made = store.backup(tmp_path / "backups")
    store.decide(alert(9).id, Status.CLOSED, "later", "alice")
    store.close()
    with pytest.raises(StoreError, match="--force"):
        restore(made.folder, path, MEMORY)
    restored = restore(made.folder, path, MEMORY, force=True)
    assert restored.aside is not None
    with AlertStore(restored.aside) as old, AlertStore(path) as new:
        assert (old.journal_head()[0], new.journal_head()[0]) == (4, 3)


def test_a_store_that_somebody_holds_is_not_replaced(store: AlertStore, path: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    made = store.backup(tmp_path / "backups")
    store.close()
    script = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('go', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StoreHeld, match=f"process {holder.pid}"):
            restore(made.folder, path, MEMORY, force=True)
        holder.kill()


def test_a_damaged_store_can_be_replaced(store: AlertStore, path: Path, tmp_path: Path) -> None:
    made = store.backup(tmp_path / "backups")
    store.close()
    path.write_bytes(b"torn" * 5000)
    assert restore(made.folder, path, MEMORY, force=True).alerts == 50


def rewritten(folder: Path, table: str, change: pl.Expr) -> None:
    """A backup whose hashes are right, and whose rows were changed all the same."""
    path = folder / f"{table}.parquet"
    schema = pq.read_schema(path)
    changed = pl.read_parquet(path).with_columns(change)
    pq.write_table(changed.to_arrow().cast(schema), path)
    import storage.alert_backup as module

    said = orjson.loads((folder / "manifest.json").read_bytes())
    said.pop("check")
    said["tables"][table] |= {"bytes": path.stat().st_size, "sha256": module._sha256(path)}
    (folder / "manifest.json").write_bytes(orjson.dumps({**said, "check": module._check(said)}))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (pl.when(pl.col("seq") == 2).then(pl.lit("x")).otherwise(pl.col("note")).alias("note"), "entry 2"),
        ((pl.col("seq") + 1).alias("seq"), "journal"),
    ],
)
def test_a_forged_journal_is_found(store: AlertStore, tmp_path: Path, change: pl.Expr, fault: str) -> None:
    made = store.backup(tmp_path / "backups")
    rewritten(made.folder, "decisions", change)
    assert check_backup(read_manifest(made.folder)) == []
    assert fault in verify_backup(made.folder)[1][0] or "entry" in verify_backup(made.folder)[1][0]
    with pytest.raises(StoreError, match=fault):
        restore(made.folder, tmp_path / "new.duckdb", MEMORY)
    assert not (tmp_path / "new.duckdb").exists()


# Exports


def test_an_export_is_imported_with_its_decisions(store: AlertStore, tmp_path: Path) -> None:
    store.export_parquet(tmp_path / "out")
    made = make_from(tmp_path / "out", tmp_path / "new.duckdb", MEMORY)
    assert (made.alerts, made.decisions, made.head) == (50, 3, store.journal_head())
    with AlertStore(tmp_path / "new.duckdb") as new:
        assert new.verify() == []
        assert new.queue(AlertFilter(), 1000) == store.queue(AlertFilter(), 1000)
        assert new.position(ALERTS) is None  # the bus is read from its beginning, and what is known left out
        assert new.record([alert(number) for number in range(52)], {ALERTS: 52}) == 2


def foreign(folder: Path) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(folder / "alerts.parquet")


def torn(folder: Path) -> None:
    data = (folder / "alerts.parquet").read_bytes()
    (folder / "alerts.parquet").write_bytes(data[: len(data) // 2])


def absent(folder: Path) -> None:
    (folder / "decisions.parquet").unlink()


def fewer_alerts(folder: Path) -> None:
    table = pq.read_table(folder / "alerts.parquet")
    pq.write_table(table.slice(20), folder / "alerts.parquet")


def twice(folder: Path) -> None:
    table = pq.read_table(folder / "alerts.parquet")
    pq.write_table(pa.concat_tables([table, table]), folder / "alerts.parquet")


def fewer_decisions(folder: Path) -> None:
    pq.write_table(pq.read_table(folder / "decisions.parquet").slice(1), folder / "decisions.parquet")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (foreign, r"alerts\.parquet: not written by"),
        (torn, r"alerts\.parquet: cannot be read"),
        (absent, r"decisions\.parquet: cannot be read"),
        (fewer_alerts, "which is not there"),
        (twice, r"alerts\.parquet: its rows are not those of alerts"),
        (fewer_decisions, "entry 1 is missing"),
    ],
)
def test_a_damaged_export_gives_a_clear_error(store: AlertStore, tmp_path: Path, damage: object, fault: str) -> None:
    store.export_parquet(tmp_path / "out")
    assert callable(damage)
    damage(tmp_path / "out")
    with pytest.raises(StoreError, match=fault) as refused:
        import_export(tmp_path / "out", tmp_path / "new.duckdb", MEMORY)
    assert "\n" not in str(refused.value)
    assert not [found for found in tmp_path.iterdir() if found.name.startswith("new")]


def test_an_empty_store_is_made(tmp_path: Path) -> None:
    make_empty(tmp_path / "new.duckdb", MEMORY)
    with AlertStore(tmp_path / "new.duckdb") as new:
        assert new.verify() == []


# Verifying


@pytest.mark.parametrize(
    ("tampering", "fault"),
    [
        ("UPDATE decisions SET note = 'x' WHERE seq = 2", "entry 2"),
        ("UPDATE state SET status = 4 WHERE n = 1", "1 alerts do not stand where"),
        ("UPDATE state SET decision = 1 WHERE n = 4", "1 alerts do not stand where"),
        ("DELETE FROM state WHERE n = 7", "1 alerts do not stand where the journal puts them; the first is 7"),
        ("INSERT INTO state SELECT * REPLACE (99 AS n) FROM state WHERE n = 7", "1 rows of the state are of no alert"),
        ("INSERT INTO state SELECT * FROM state WHERE n = 7", "1 rows of the state are of no alert"),
        ("DELETE FROM alerts WHERE n = 4", "2 decisions are on alerts that are not there"),
        ("UPDATE positions SET next_offset = -1 WHERE topic = 'tocsin.alerts'", "1 positions are below zero"),
    ],
)
def test_what_does_not_hold_is_said(store: AlertStore, path: Path, tampering: str, fault: str) -> None:
    assert store.verify() == []
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(tampering)
    with AlertStore(path) as opened:
        assert any(fault in line for line in opened.verify()), opened.verify()

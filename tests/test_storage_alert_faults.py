"""What the alert store survives: its process killed in the middle of anything, and a disk that is full."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from ingest.bus import Partition
from storage.alert import Alert, Level, Status, alert_id
from storage.alert_backup import backups_in, check_backup, read_manifest
from storage.alert_queue import AlertFilter
from storage.alert_restore import restore
from storage.alerts import AlertStore, utc_now
from storage.errors import StoreError

REPOSITORY = Path(__file__).resolve().parent.parent
ALERTS = Partition("tocsin.alerts", 0)
BATCH = 20
KILLS = 20


def alert(number: int, filling: str = "") -> Alert:
    now = utc_now()
    return Alert(
        id=alert_id("rule", "CH", str(number)),
        rule_id="rule",
        rule_title=f"Rule {number}",
        level=Level.HIGH,
        tenant="CH",
        timestamp=now,
        received=now,
        logsource="a/b/c",
        original=f"line {number} {filling}",
    )


WRITER = """
import sys, threading
from pathlib import Path
sys.path.insert(0, "tests")
from storage.alerts import AlertStore
from storage.alert import Status
from test_storage_alert_faults import ALERTS, BATCH, alert

path, backups = Path(sys.argv[1]), Path(sys.argv[2])
store = AlertStore(path)
start = store.position(ALERTS) or 0
decided = store.journal_head()[0]
print("open", start, decided, flush=True)

def backup():
    while True:
        print("backup", store.backup(backups).folder, flush=True)

def checkpoint():
    while True:
        with store.database.reading("checkpoint") as connection:
            try:
                connection.execute("CHECKPOINT")
            except Exception as error:
                if "transactions" not in str(error):
                    raise

for work in (backup, checkpoint):
    threading.Thread(target=work, daemon=True).start()
for batch in range(start, 10**6):
    first = max(0, batch * BATCH - 3)  # some are known: the bus gives them twice
    store.record([alert(number) for number in range(first, (batch + 1) * BATCH)], {ALERTS: batch + 1})
    print("stored", batch + 1, flush=True)
    decided = store.journal_head()[0]
    store.decide(alert(batch * BATCH).id, Status.IN_PROGRESS, "looking", "alice", expected_seq=0)
    print("decided", decided + 1, flush=True)
"""


def test_a_process_killed_at_any_moment_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    path, backups = tmp_path / "alerts.duckdb", tmp_path / "backups"
    dice = random.Random(4)  # noqa: S311
    stored = decided = 0
    promised: list[str] = []
    for _ in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(path), str(backups)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            opened = writer.stdout.readline().split()
            assert opened[:1] == ["open"]
            time.sleep(dice.uniform(0.0, 0.6))
            os.kill(writer.pid, signal.SIGKILL)
            lines = [line.split() for line in writer.stdout.read().splitlines()]
        for said in lines:
            if len(said) == 2 and said[0] == "stored":
                stored = int(said[1])
            elif len(said) == 2 and said[0] == "decided":
                decided = int(said[1])
            elif len(said) == 2:
                promised.append(said[1])
        with AlertStore(path) as store:
            assert store.verify() == []
            position = store.position(ALERTS) or 0
            assert stored <= position <= stored + 1
            assert decided <= store.journal_head()[0] <= decided + 1
            assert store.counts(AlertFilter()).total == position * BATCH
            assert store.database.number("SELECT count(DISTINCT id) FROM alerts") == position * BATCH
            stored, decided = position, store.journal_head()[0]
    assert stored > KILLS
    made = backups_in(backups)
    assert {str(backup) for backup in made} >= set(promised)
    assert made
    for backup in [made[0], *dice.sample(made, 3)]:
        assert check_backup(read_manifest(backup)) == []
        restore(backup, tmp_path / "new.duckdb", "256MB", force=True)
        with AlertStore(tmp_path / "new.duckdb") as new:
            assert new.verify() == []
            assert new.counts(AlertFilter()).total == (new.position(ALERTS) or 0) * BATCH


@pytest.fixture
def small_disk(tmp_path: Path, require: Callable[[bool, str], None]) -> Iterator[Path]:
    """A file system of its own of 32 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    mounted = (
        mount is not None
        and umount is not None
        and subprocess.run([mount, "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], check=False).returncode == 0
    )
    require(mounted, "a small file system cannot be mounted here (needs root)")
    yield place
    subprocess.run([str(umount), "-l", str(place)], check=True)


def filling() -> str:
    return random.randbytes(2000).hex()  # noqa: S311 - does not compress


def fill_up(store: AlertStore, stored: int) -> tuple[int, StoreError]:
    """Store batches until the disk is full; how many are stored, and what it said."""
    while True:
        try:
            store.record([alert(stored * BATCH + n, filling()) for n in range(BATCH)], {ALERTS: stored + 1})
            stored += 1
        except StoreError as error:
            return stored, error


def test_a_full_disk_stops_the_store_cleanly_and_it_goes_on_when_there_is_room(small_disk: Path) -> None:
    path, ballast = small_disk / "alerts.duckdb", small_disk / "ballast"
    stored = 0
    for megabytes in (24, 20, 15, 10):  # full at other moments: in a write, in a checkpoint
        ballast.write_bytes(bytes(megabytes << 20))
        with AlertStore(path) as store:
            for _ in range(2):
                stored, error = fill_up(store, stored)
                assert str(path) in str(error)
                assert "\n" not in str(error)
                assert store.counts(AlertFilter()).total == stored * BATCH
                assert store.position(ALERTS) == stored
            with suppress(StoreError):  # it may find the room that the failed write gave back
                store.decide(alert(0).id, Status.CLOSED, "x" * 100_000, "alice")
            with pytest.raises(StoreError) as refused:
                store.backup(small_disk / "backups")
            assert "\n" not in str(refused.value)
            assert list((small_disk / "backups").iterdir()) == [] if (small_disk / "backups").exists() else True
            ballast.unlink()
            store.record([alert(stored * BATCH + n, filling()) for n in range(BATCH)], {ALERTS: stored + 1})
            stored += 1
            assert store.verify() == []
        with AlertStore(path) as store:
            assert store.verify() == []
            assert store.counts(AlertFilter()).total == stored * BATCH


def test_a_file_that_duckdb_gave_up_is_opened_anew(tmp_path: Path) -> None:
    with AlertStore(tmp_path / "alerts.duckdb") as store:
        store.record([alert(1)], {ALERTS: 1})
        with pytest.raises(StoreError, match="given up"), store.database.reading("read"):
            raise duckdb.FatalException("given up\n\nStack trace:\n...")
        given_up = store.database._root
        assert store.queue(AlertFilter()).total == 1
        assert store.database._root is not given_up
        assert store.record([alert(1), alert(2)], {ALERTS: 2}) == 1
        assert [row.n for row in store.queue(AlertFilter()).items] == [2, 1]
        assert store.verify() == []

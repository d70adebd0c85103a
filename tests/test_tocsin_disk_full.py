"""Full disks, with the processes as they run in life, each kind of data on a small disk of its own.

What must hold of each: intake stops cleanly or goes on elsewhere, nothing that was acknowledged is lost and nothing is
there twice, the process lives and says why it waits, once in its log and for as long as it lasts at /readyz, what is
stored can still be read, and within seconds of there being room it goes on by itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from full_disk import DISKS, REPOSITORY, ROLES, SmallDisk, SmallRegion, repeated, wait_for

from fault_lines import Script
from fault_senders import RelpSender
from ingest.disk import DISK_FULL
from storage.alert_backup import backups_in, check_backup, read_manifest
from storage.alerts import AlertStore
from storage.errors import LakeError
from storage.lake import Lake

Require = Callable[[bool, str], None]
GONE_ON = 25.0
"""Seconds within which all must be ready again: up to 5 to the next attempt, 10 without an error, on a busy machine."""

NEEDS_ROOT = "a small file system cannot be mounted here (needs root)"
NUMBERS = "regexp_extract(\"event.original\", 'tocsinfault (\\d+) s', 1)"
HALF = (".partial", ".tmp", ".part")

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallRegion]:
    region = SmallRegion(tmp_path_factory.mktemp("region"))
    try:
        if all(disk.mount(64) for disk in region.disks.values()):
            region.open()
        yield region
    finally:
        region.close()


@pytest.fixture(scope="module")
def sender(region: SmallRegion) -> Iterator[RelpSender]:
    script = Script(0, datetime.now(UTC) - timedelta(hours=1))
    sender = RelpSender(script, "127.0.0.1", region.ports["hospital-0"], 1500, 3000, closing=1)
    yield sender
    sender.finishing.set()


def running(region: SmallRegion, sender: RelpSender, require: Require) -> None:
    require(bool(region.processes), NEEDS_ROOT)
    if not sender.is_alive():
        sender.start()
    before = sender.acknowledged
    wait_for(lambda: sender.acknowledged > before + 1000, 30)


@pytest.mark.parametrize(
    ("full", "waits"),
    [
        (["lake"], {"detect"}),
        pytest.param(
            ["bus"], {"detect"}, marks=pytest.mark.soak
        ),  # the spool keeps the lines, and RELP is answered when they are on the bus
        pytest.param(["alerts"], {"console"}, marks=pytest.mark.soak),
        pytest.param(["spool"], set(), marks=pytest.mark.soak),  # nobody needs it
        pytest.param(["bus", "spool"], {"detect", "collect"}, marks=pytest.mark.soak),
        (list(DISKS), {"detect", "collect"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_a_full_disk_is_waited_for(
    region: SmallRegion, sender: RelpSender, require: Require, full: Sequence[str], waits: set[str]
) -> None:
    running(region, sender, require)
    marks = {name: process.mark() for name, process in region.processes.items()}
    try:
        for name in full:
            region.disks[name].fill()
        for name in sorted(waits):
            process = region.processes[name]
            wait_for(lambda process=process: DISK_FULL in str(process.ready()), 25, process)  # type: ignore[misc]
            assert process.ready()[0] == 503
        acknowledged = sender.acknowledged
        time.sleep(3)
        if "bus" in full:
            assert sender.acknowledged == acknowledged  # they wait, and are not told that their lines are safe
        else:
            assert sender.acknowledged > acknowledged + 1000
        assert region.page("/") == 200
        if "lake" in full:
            assert Lake(region.disks["lake"].path / "lake").count() > 0
    finally:
        for disk in region.disks.values():
            disk.free()

    acknowledged = sender.acknowledged
    wait_for(lambda: sender.acknowledged > acknowledged + 1000, GONE_ON)
    wait_for(lambda: all(process.ready()[0] == 200 for process in region.processes.values()), GONE_ON)
    for name, process in region.processes.items():
        assert process.popen.poll() is None
        said = process.troubles(marks[name])
        assert len(said) <= 3, said
        # once of each place: all disks have room again within a moment of each other, and between two of them it may
        # find the next one full
        assert not repeated([":".join(text.split(":")[:2]) for text in said]), said
        assert not any("Traceback" in text for text in said)


def test_after_all_that_every_line_is_there_once_and_nothing_half_written(
    region: SmallRegion, sender: RelpSender, require: Require
) -> None:
    running(region, sender, require)
    sender.finishing.set()
    wait_for(sender.is_through, 30)
    lines = sender.lines
    lake = Lake(region.disks["lake"].path / "lake")
    wait_for(lambda: lake.count() >= lines + 1, 40)
    spark = [number for rule, _, (number, *_) in sender.script.alerts(lines) if rule == "spark"]
    time.sleep(2)
    for name in reversed(ROLES):
        assert region.processes[name].end() < 20
        assert region.processes[name].status == 0
    sent = lake.query(f"SELECT {NUMBERS} AS number, count(*) AS times FROM events GROUP BY ALL")  # noqa: S608
    times = {int(number): int(count) for number, count in sent.iter_rows()}
    assert set(times) == set(range(lines + 1))  # and the one that closes
    assert set(times.values()) == {1}
    with AlertStore(region.disks["alerts"].path / "alerts.duckdb") as store:
        assert store.verify() == []
        [[alerts]] = store.database.select("SELECT count(*) FROM alerts WHERE rule_title = 'spark'")
        assert alerts == len(spark)
    for name, disk in region.disks.items():
        assert not [file for file in disk.files() if file.endswith(HALF) or ".room" in file], name
    assert {Path(file).suffix for file in region.disks["spool"].files()} <= {""}  # no segment is left


@pytest.fixture
def disk(tmp_path: Path, require: Require) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk")
    require(disk.mount(8), NEEDS_ROOT)
    yield disk
    disk.unmount()


def tocsin(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    settings = folder.parent / "tocsin.toml"
    rules = folder.parent / "rules"
    rules.mkdir(exist_ok=True)
    (rules / "one.yml").write_text(
        "title: One\nid: 4d3e8f6e-9a58-4bb1-8b0a-5a4a4f3f5b10\nlogsource: {product: linux}\n"
        "detection: {selection: ['x'], condition: selection}\nlevel: high\n"
    )
    settings.write_text(
        f'data_dir = "{folder}/data"\nrules = ["{rules}"]\n[console]\nport = 0\n'
        '[[collect.listeners]]\nname = "one"\nhospital = "A"\nport = 0\n'
    )
    return subprocess.run(
        [sys.executable, "-m", "tocsin", *words, "--config", str(settings)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", ["detect", "console"])
def test_a_disk_that_is_full_from_the_start_is_one_line_and_status_2(disk: SmallDisk, command: str) -> None:
    disk.fill()
    ended = tocsin(disk.path, command)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("tocsin: ")] == [
        ended.stderr.splitlines()[-1]
    ]
    assert "full" in ended.stderr.splitlines()[-1] or "No space" in ended.stderr.splitlines()[-1]


def test_the_lake_says_that_its_disk_is_full_and_leaves_nothing(disk: SmallDisk) -> None:
    writer = Lake(disk.path / "lake").writer()
    writer.check()
    disk.fill()
    with pytest.raises(LakeError, match=DISK_FULL):
        writer.check()
    disk.free()
    writer.check()
    assert disk.files() == set()


def test_a_backup_that_a_full_disk_breaks_off_leaves_nothing(disk: SmallDisk, tmp_path: Path) -> None:
    from storage.errors import StoreError

    with AlertStore(tmp_path / "alerts.duckdb") as store:
        good = store.backup(disk.path / "backups")
        disk.fill()
        with pytest.raises(StoreError):
            store.backup(disk.path / "backups")
        disk.free()
        assert backups_in(disk.path / "backups") == [good.folder]
        assert not list((disk.path / "backups").glob(".*"))
        assert check_backup(read_manifest(good.folder)) == []

"""Memory that is bounded, seen from outside: what the kernel says that real processes took (VmHWM, VmRSS).

The largest cases are measured by `benchmarks/memory.py`; here are those that show within seconds that a bound holds.
"""

from __future__ import annotations

import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from full_disk import SmallRegion, wait_for

from detections.plan import Plan
from fault_lines import Script
from fault_senders import RelpSender
from ingest.bus import TOPIC_RAW, TOPICS, Message
from ingest.bus_embedded import EmbeddedBus
from ingest.rawbatch import RawLine, encode_lines
from storage.lake import Lake
from tocsin import stages
from tocsin.stages import DetectStage, Flush
from tocsin.tally import Tally

MIB = 1024 * 1024
HEAD = b"<86>1 2026-11-23T10:00:00Z bastion sshd 7 - - "
OPEN = b"1 open 30 relp_version=0\ncommands=syslog\n"
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)

pytestmark = pytest.mark.timeout(180)


def dense(lines: int) -> Message:
    """A record that is small on the bus and large in memory."""
    line = b"<86>1 2026-11-23T10:00:00Z bastion sshd 7 - - " + b"the same again and again " * 40
    return Message(TOPIC_RAW, "CH A", encode_lines([RawLine(line, NOW, "CH A", "192.0.2.1")] * lines))


def stop_between_writes(region: SmallRegion, names: tuple[str, ...]) -> None:
    """Stop processes where none of them holds the bus's one lock: no writer could go on beside one that does."""
    for _ in range(50):
        for name in names:
            region.processes[name].popen.send_signal(signal.SIGSTOP)
        with closing(sqlite3.connect(region.folder / "disks" / "bus" / "bus.sqlite", timeout=2)) as bus:
            bus.isolation_level = None
            with suppress(sqlite3.OperationalError):
                bus.execute("BEGIN IMMEDIATE")
                bus.execute("ROLLBACK")
                return
        for name in names:
            region.processes[name].popen.send_signal(signal.SIGCONT)
        time.sleep(0.1)
    pytest.fail("the lock of the bus was held whenever they were stopped")


@pytest.fixture
def region(tmp_path: Path) -> Iterator[SmallRegion]:
    region = SmallRegion(tmp_path / "region", {"collect": f"queue_bytes = {8 * MIB}"}, spool_bytes=0)
    yield region
    region.close()


def test_a_step_unpacks_no_more_at_once_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = vars(stages)["parse_contained"]

    def watched(rows: pl.DataFrame, *others: object) -> object:
        parsed.append(int(rows.estimated_size()))
        return parse(rows, *others)

    monkeypatch.setattr(stages, "parse_contained", watched)
    bus = EmbeddedBus(tmp_path / "bus.sqlite")
    bus.ensure_topics(TOPICS)
    bus.publish([dense(4000) for _ in range(16)])  # 4 MB each, some kilobytes on the bus
    lake = Lake(tmp_path / "lake")
    stage = DetectStage(bus, lake, Plan.build([]), Tally(), Flush(rows=10_000, bytes=1 << 40, seconds=1e9))
    assert stage.step(1.0) == 16
    assert len(parsed) >= 3
    assert max(parsed) < stages.BYTES_A_PASS + 8 * MIB
    assert lake.count() >= 40_000  # what waits is flushed within a step as well
    stage.close()
    bus.close()
    assert lake.count() == 64_000


def test_a_flood_that_the_bus_does_not_take_stays_at_the_senders(region: SmallRegion) -> None:
    bus = EmbeddedBus(region.folder / "disks" / "bus" / "bus.sqlite")
    bus.ensure_topics(TOPICS)
    region.open(["collect"])
    collect = region.processes["collect"]
    before = collect.memory("VmRSS")
    sent = 0
    hold = sqlite3.connect(bus.path, isolation_level=None)
    hold.execute("BEGIN IMMEDIATE")  # publishing waits for this, as it would for a disk that hangs
    frame = HEAD + b"x" * (64 * 1024)
    try:
        with socket.create_connection(("127.0.0.1", region.ports["hospital-0"]), 10) as connection:
            connection.sendall(OPEN)
            connection.recv(4096)
            connection.settimeout(2)
            with suppress(TimeoutError):
                while sent < 256 * MIB:
                    connection.sendall(b"%d syslog %d %b\n" % (sent // len(frame) + 2, len(frame), frame))
                    sent += len(frame)
            assert sent < 64 * MIB  # RELP's own window, the queue and the buffers of the kernel
            assert collect.memory("VmRSS") - before < 64 * MIB
    finally:
        hold.execute("ROLLBACK")
        hold.close()
        bus.close()


def test_while_detect_stands_still_collect_goes_on_and_takes_no_more_memory(region: SmallRegion) -> None:
    region.open()
    script = Script(0, datetime.now(UTC) - timedelta(hours=1))
    sender = RelpSender(script, "127.0.0.1", region.ports["hospital-0"], 4000, 4000, closing=1)
    sender.start()
    wait_for(lambda: sender.acknowledged > 4000, 30)
    stop_between_writes(region, ("detect", "console"))
    before = {name: region.processes[name].memory("VmRSS") for name in ("collect", "correlate")}
    reached = sender.acknowledged
    time.sleep(8)
    assert sender.acknowledged > reached + 8000
    for name, size in before.items():
        assert region.processes[name].memory("VmRSS") < size + 32 * MIB, name
    for name in ("detect", "console"):
        region.processes[name].popen.send_signal(signal.SIGCONT)

    # and all are asked to end under full load: what was acknowledged is in the lake once they have run again
    for name in ("collect", "detect", "correlate", "console"):
        assert region.processes[name].end() < 20
        assert region.processes[name].status == 0
    region.open()
    sender.finishing.set()
    wait_for(sender.is_through, 30)
    lake = Lake(region.disks["lake"].path / "lake")
    wait_for(lambda: lake.count() >= sender.lines + 1, 40)
    fresh = 'SELECT count(DISTINCT "event.original") AS n FROM events'
    assert lake.query(fresh).item() == sender.lines + 1

"""Patients' data at the door and behind it: one hospital's missing keys, broken vault or flood is its own affair."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ingest.batching import Batch, Batcher
from ingest.channel import REFUSED_KEYLESS, Channel, Door, Refusal
from ingest.collect import Collector, UndeliveredError
from ingest.framing import Lines
from ingest.hospital import ExpectedSource, Hospital, Hospitals
from ingest.hospital_keys import KeysError, keys_path, make_keys
from ingest.listeners import ListenerSettings, Transport
from ingest.patient_guard import PatientGuard
from ingest.publisher import Publisher
from ingest.vault import VaultError
from memory_bus import MemoryBus

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KERMOR = Hospital("kermor", "CH Kermor", networks=("127.0.1.0/24",))
ROSTREN = Hospital("rostren", "CH Rostren", networks=("127.0.2.0/24",))
BOTH = Hospitals.of([KERMOR, ROSTREN])
ADAPTER = """
name = "dpi"
kind = "csv"
delimiter = ";"
columns = ["agent", "code"]
[logsource]
product = "dpi"
[patients]
columns = [{columns}]
"""


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        await asyncio.sleep(0.005)


def send_from(collector: Collector, address: str, data: bytes) -> socket.socket:
    kind = socket.SOCK_DGRAM if collector.stats().listeners["in"].transport == "udp" else socket.SOCK_STREAM
    sender = socket.socket(socket.AF_INET, kind)
    sender.settimeout(10)
    sender.bind((address, 0))
    sender.connect(collector.addresses["in"])
    sender.sendall(data)
    return sender


def listener(transport: Transport = "tcp") -> ListenerSettings:
    return ListenerSettings("in", transport, "127.0.0.1", 0, by_address=True, patient_data=True)


@asynccontextmanager
async def collecting(
    bus: MemoryBus, guard: PatientGuard, transport: Transport = "tcp", lost: bool = False, **more: int
) -> AsyncIterator[Collector]:
    collector = Collector(bus, [listener(transport)], registry=lambda: BOTH, batch_seconds=0.01, patients=guard, **more)  # type: ignore[arg-type]
    await collector.start()
    running = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        if lost:
            with pytest.raises(UndeliveredError):
                await collector.stop(patience=0.2)
        else:
            await collector.stop()
        await running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry with the keys of one hospital; a second has none."""
    make_keys(tmp_path, "rostren", tmp_path / "rostren.key", NOON)
    return tmp_path


def give_keys(folder: Path) -> None:
    make_keys(folder, "kermor", folder / "kermor.key", NOON)


# -- the door ----------------------------------------------------------------------------------------------------


def test_a_door_refuses_who_has_no_keys_until_there_are_some() -> None:
    door = Door("", True, (), BOTH, frozenset({"kermor"}))
    assert door.tenant("127.0.1.1") == Refusal(REFUSED_KEYLESS)
    assert door.tenant("127.0.2.1") == "rostren"
    assert door.protected("kermor") == Refusal(REFUSED_KEYLESS)
    door.renew(BOTH)
    assert door.tenant("127.0.1.1") == "kermor"


@pytest.mark.parametrize("transport", ["tcp", "udp", "relp"])
def test_without_keys_senders_are_refused_and_later_keys_are_taken_up(folder: Path, transport: Transport) -> None:
    bus = MemoryBus()
    opened = b"1 open 30 relp_version=0\ncommands=syslog\n"
    line = opened + b"2 syslog 13 IPP: 80012345\n" if transport == "relp" else b"IPP: 80012345\n"

    async def scenario() -> None:
        async with collecting(bus, PatientGuard(folder, folder / "vault"), transport) as collector:
            refused = send_from(collector, "127.0.1.1", line)
            await until(lambda: collector.stats().listeners["in"].refusals.get(REFUSED_KEYLESS) == 1)
            if transport != "udp":  # closed, and nothing is acknowledged
                refused.setblocking(False)
                with suppress(ConnectionResetError):  # closed with bytes unread
                    assert await asyncio.get_running_loop().sock_recv(refused, 100) == b""
            refused.close()
            with send_from(collector, "127.0.2.1", line):
                await until(lambda: len(bus.lines("rostren")) == 1)
            assert bus.lines("kermor") == []
            assert collector.keyless == {"kermor"}
            give_keys(folder)
            await until(lambda: not collector.keyless)
            with send_from(collector, "127.0.1.1", line):
                await until(lambda: len(bus.lines("kermor")) == 1)

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert b"80012345" not in b"".join(bus.lines("kermor") + bus.lines("rostren"))
    assert any(entry["event"] == "refused" and entry["reason"] == REFUSED_KEYLESS for entry in logs)
    assert [entry["hospital"] for entry in logs if entry["event"] == "patients' data is refused"] == ["kermor"]


def test_keys_that_cannot_be_read_are_none(folder: Path) -> None:
    guard = PatientGuard(folder, folder / "vault")
    assert guard.keyless([listener()], BOTH) == {"kermor"}
    assert guard.keyless([replace(listener(), patient_data=False)], BOTH) == frozenset()
    path = keys_path(folder, "kermor")
    path.write_text("keys = 1\n")
    assert guard.keyless([listener()], BOTH) == {"kermor"}
    path.unlink()
    give_keys(folder)
    assert guard.keyless([listener()], BOTH) == frozenset()


# -- behind the door ---------------------------------------------------------------------------------------------


def test_one_hospitals_failing_vault_holds_back_nobody_else(folder: Path) -> None:
    give_keys(folder)
    bus, broken = MemoryBus(), folder / "vault" / "kermor"
    (folder / "vault").mkdir()
    broken.write_text("no folder")  # whoever runs the tests may write anywhere, so permissions would not do

    async def scenario() -> None:
        guard = PatientGuard(folder, folder / "vault")
        async with collecting(bus, guard, queue_bytes=8 << 20) as collector:
            flood = send_from(collector, "127.0.1.1", b"IPP: 80012345 first\n")
            await until(lambda: collector.stats().held_hospitals == {"kermor"})
            flood.setblocking(False)
            more = asyncio.get_running_loop().create_task(
                asyncio.get_running_loop().sock_sendall(flood, b"IPP: 80012345 %s\n" % (b"x" * 1000) * 20_000)
            )
            await until(lambda: collector.stats().paused_hospitals == {"kermor"})
            for number in range(20):
                with send_from(collector, "127.0.2.1", b"IPP: 70012345\n"):
                    await until(lambda at=number + 1: len(bus.lines("rostren")) == at, 2)  # type: ignore[misc]
            assert bus.lines("kermor") == []
            assert not more.done()  # back-pressure: the sender waits
            more.cancel()
            broken.unlink()
            await until(lambda: not collector.stats().held_hospitals)
            await until(lambda: len(bus.lines("kermor")) > 1000)
            flood.close()

    asyncio.run(scenario())
    lines = bus.lines("kermor")
    assert lines[0].endswith(b" first")
    assert all(line.startswith(b"IPP: PSN-IPP-") for line in lines[:-1])


def test_what_cannot_be_protected_in_the_end_is_said_to_be_lost_and_the_rest_is_not(folder: Path) -> None:
    give_keys(folder)
    (folder / "vault").mkdir()
    (folder / "vault" / "kermor").write_text("no folder")
    bus = MemoryBus()

    async def scenario() -> None:
        guard = PatientGuard(folder, folder / "vault")
        async with collecting(bus, guard, lost=True) as collector:
            with send_from(collector, "127.0.1.1", b"IPP: 80012345\n"):
                await until(lambda: collector.stats().held_hospitals == {"kermor"})
            with send_from(collector, "127.0.2.1", b"IPP: 70012345\n"):
                await until(lambda: len(bus.lines("rostren")) == 1)

    asyncio.run(scenario())
    assert bus.lines("kermor") == []


class Intake:
    """A batcher with a publisher behind it, as the collector holds them."""

    def __init__(self, bus: MemoryBus, protect: Callable[[Batch], Batch]) -> None:
        self.batcher = Batcher(10, 1 << 20, 0.01)
        self.publisher = Publisher(bus, self.batcher, hurried=lambda: False, released=lambda: None, protect=protect)

    def take(self, hospital: str, lines: list[bytes], patient_data: bool = True) -> None:
        channel = Channel(hospital, "192.0.2.1", patient_data=patient_data)
        self.batcher.add(channel, Lines(lines), NOON, asyncio.get_running_loop().time())
        self.publisher.wake()


@asynccontextmanager
async def publishing(intake: Intake, left: int = 0, patience: float = 20) -> AsyncIterator[None]:
    await intake.publisher.start()
    run = asyncio.create_task(intake.publisher.run())
    try:
        yield
    finally:
        intake.publisher.finish()
        await asyncio.wait({run}, timeout=patience)
        run.cancel()
        await asyncio.wait({run})
        assert await intake.publisher.abandon() == left
        assert intake.batcher.waiting == 0 or left


def test_a_flood_of_patients_delays_others_by_one_batch_and_what_has_none_by_nothing() -> None:
    bus = MemoryBus()
    protected: list[str] = []

    def slow(batch: Batch) -> Batch:
        time.sleep(0.05)
        protected.append(batch.tenant)
        return replace(batch, lines=[b"x" + line for line in batch.lines])

    async def scenario() -> None:
        intake = Intake(bus, slow)
        async with publishing(intake):
            intake.take("kermor", [b"%d" % number for number in range(300)])  # 30 batches: 1.5 s
            await until(lambda: len(protected) == 2)
            intake.take("rostren", [b"patient"])
            intake.take("quiet", [b"plain"], patient_data=False)
            await until(lambda: bus.lines("quiet") == [b"plain"] and bus.lines("rostren") == [b"xpatient"])
            assert Counter(protected)["kermor"] < 15
            assert bus.lines("kermor")  # published as it gets ready, not when all is

    asyncio.run(scenario())
    assert bus.lines("kermor") == [b"x%d" % number for number in range(300)]


def test_batches_of_a_hospital_keep_their_order_through_failures() -> None:
    bus = MemoryBus()
    failing = iter([True, False, True, True, False, False])

    def sometimes(batch: Batch) -> Batch:
        if batch.tenant == "kermor" and next(failing, False):
            raise VaultError("no space left")
        return batch

    async def scenario() -> None:
        intake = Intake(bus, sometimes)
        async with publishing(intake):
            intake.take("kermor", [b"%d" % number for number in range(35)])
            intake.take("rostren", [b"other"])
            await until(lambda: bus.lines("rostren") == [b"other"])
        assert not intake.publisher.protection.held

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert bus.lines("kermor") == [b"%d" % number for number in range(35)]
    assert sum(entry["event"] == "patients' data can be protected again" for entry in logs) == 2


def test_an_error_nobody_foresaw_ends_the_publisher() -> None:
    def wrong(batch: Batch) -> Batch:
        raise ZeroDivisionError(batch.tenant)

    async def scenario() -> None:
        intake = Intake(MemoryBus(), wrong)
        run = asyncio.create_task(_run(intake))
        await asyncio.sleep(0)
        intake.take("kermor", [b"x"])
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(run, 5)

    async def _run(intake: Intake) -> None:
        await intake.publisher.start()
        await intake.publisher.run()

    asyncio.run(scenario())


def test_missing_keys_behind_the_door_hold_the_lines_and_drop_none() -> None:
    bus = MemoryBus()
    there: list[bool] = []

    def protect(batch: Batch) -> Batch:
        if not there:
            raise KeysError("no keys")
        return batch

    async def scenario() -> None:
        intake = Intake(bus, protect)
        async with publishing(intake):
            intake.take("kermor", [b"original"])
            await until(lambda: intake.publisher.protection.held == {"kermor"})
            assert bus.messages == []
            there.append(True)

    asyncio.run(scenario())
    assert bus.lines("kermor") == [b"original"]


# -- the guard ---------------------------------------------------------------------------------------------------


def test_changed_adapters_are_read_again_and_broken_ones_are_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.adapter_watch.LOOK_SECONDS", 0.0)
    source = ExpectedSource("dpi", address="192.0.2.1", format="adapter.dpi")
    hospitals = Hospitals.of([replace(ROSTREN, sources=(source,))])
    guard = PatientGuard(folder, folder / "vault", lambda: hospitals, {})
    guard._adapters._seconds = 0.0
    path = folder / "adapters" / "dpi.toml"
    path.parent.mkdir()

    def protected() -> bytes:
        batch = Batch("rostren", "192.0.2.1", 0.0, [b"leroy;KERVELLA"], [0], patient_data=True)
        return guard.protect(batch).lines[0]

    assert b"line sealed" in protected()  # pinned to an adapter that is not there
    path.write_text(ADAPTER.format(columns='"code"'))
    assert protected().startswith(b"leroy;PSN-OTH-")
    path.write_text(ADAPTER.format(columns='"code", "agent"'))
    assert protected().startswith(b"PSN-OTH-")
    path.write_text(ADAPTER.format(columns='"nowhere"') + "wrong = 1\n")
    with capture_logs() as logs:
        assert protected().startswith(b"PSN-OTH-")
    assert [entry["event"] for entry in logs] == ["changed adapters are not taken up"]
    guard.close()


def test_what_was_done_is_counted_by_hospital_and_said_at_the_end(folder: Path) -> None:
    bus = MemoryBus()

    async def scenario() -> None:
        async with collecting(bus, PatientGuard(folder, folder / "vault")) as collector:
            with send_from(collector, "127.0.2.1", b"IPP: 70012345\nplain\n<Patient><x>\n"):
                await until(lambda: len(bus.lines("rostren")) == 3)
            seen = collector.stats().patients["rostren"]
            assert (seen.lines, seen.changed, seen.sealed) == (3, 1, 1)
            seen.reasons.clear()  # a copy
            assert sum(collector.stats().patients["rostren"].reasons.values()) == 1

    with capture_logs() as logs:
        asyncio.run(scenario())
    ended = [entry for entry in logs if entry["event"] == "patients' data"]
    assert [(entry["hospital"], entry["changed"], entry["sealed"]) for entry in ended] == [("rostren", 1, 1)]

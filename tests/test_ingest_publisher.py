"""The publisher: order and count whatever the bus does, with and without a spool; real processes and a real broker."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.batching import Batcher
from ingest.bus import TOPIC_RAW, Bus, BusError, Message, Record
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings
from ingest.channel import Channel
from ingest.collect import Collector, UndeliveredError
from ingest.framing import Lines
from ingest.listeners import ListenerSettings
from ingest.publisher import SMALL_BATCH, Publisher
from ingest.rawbatch import BATCH_ID, BATCH_LINES, BATCH_ROW, decode_record
from ingest.spool import Spool, SpoolInUseError, SpoolSettings, SpoolStats
from memory_bus import MemoryBus
from tocsin.resends import Bounds, Resends

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def lines_of(message: Message) -> list[bytes]:
    return decode_record(Record(message.topic, 0, 0, message.key, message.value))["line"].to_list()


def refuse(_: Sequence[Message]) -> None:
    raise BusError("away")


def fine(_: Sequence[Message]) -> None: ...


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        await asyncio.sleep(0.005)


class Intake:
    """A batcher with a publisher behind it, as the collector holds them."""

    def __init__(self, bus: Bus, spool: Path | None, max_bytes: int = 1 << 24) -> None:
        self.batcher = Batcher(10, 1 << 20, 0.01)
        self.spool = None if spool is None else Spool(SpoolSettings(spool, max_bytes, 20_000))
        self.publisher = Publisher(bus, self.batcher, hurried=lambda: False, released=lambda: None, spool=self.spool)
        self.sent: list[bytes] = []
        self.acknowledged: list[int] = []

    def take(self, count: int = 5, session: str = "", size: int = 20) -> None:
        lines = [b"line %d " % (len(self.sent) + at) + os.urandom(size // 2).hex().encode() for at in range(count)]
        self.sent += lines
        number = len(self.sent)
        channel = Channel("kermor", "192.0.2.1", session=session)
        done = lambda: self.acknowledged.append(number)  # noqa: E731 - a callback
        now = asyncio.get_running_loop().time()
        self.batcher.add(channel, Lines(lines), NOON, now, done, awaited=bool(session))
        self.publisher.wake()


@asynccontextmanager
async def publishing(intake: Intake, patience: float = 10.0, left: int = 0) -> AsyncIterator[Intake]:
    await intake.publisher.start()
    run = asyncio.create_task(intake.publisher.run())
    try:
        yield intake
    finally:
        intake.publisher.finish()
        await asyncio.wait({run}, timeout=patience)
        run.cancel()
        await asyncio.wait({run})
        assert await intake.publisher.abandon() == left
    if not run.cancelled():
        run.result()


def test_while_the_bus_is_away_lines_wait_on_disk_in_order(tmp_path: Path) -> None:
    bus = MemoryBus()

    async def scenario() -> Intake:
        async with publishing(Intake(bus, tmp_path)) as intake:
            spool = intake.spool
            assert spool is not None
            intake.take()
            await until(lambda: intake.publisher.lines == 5)
            bus.before = refuse
            for _ in range(20):
                intake.take()
                await asyncio.sleep(0.01)
            await until(lambda: spool.stats().records > 0 and intake.batcher.waiting == 0)
            assert intake.publisher.lines == 5
            bus.before = fine
            await until(lambda: spool.empty)
            intake.take()
        return intake

    intake = asyncio.run(scenario())
    assert bus.lines() == intake.sent
    assert intake.publisher.lines == len(intake.sent)
    stats = intake.publisher.spool_stats()
    assert stats is not None
    assert (stats.records, stats.bytes, stats.damaged) == (0, 0, 0)
    assert stats.replayed > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "position"]


def test_each_batch_has_an_id_of_its_own_and_says_how_many_lines_it_holds() -> None:
    bus = MemoryBus()

    async def scenario() -> None:
        async with publishing(Intake(bus, None)) as intake:
            intake.take(25)

    asyncio.run(scenario())
    ids = [message.headers[BATCH_ID] for message in bus.messages]
    run = ids[0].split(":")[0]
    assert len(run) == 16
    assert ids == [f"{run}:{number}" for number in range(3)]
    assert [message.headers[BATCH_LINES] for message in bus.messages] == ["10", "10", "5"]


def test_a_sender_is_told_only_when_the_bus_has_its_lines(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.before = refuse

    async def scenario() -> Intake:
        async with publishing(Intake(bus, tmp_path)) as intake:
            for _ in range(3):
                intake.take(session="s:1")
                await asyncio.sleep(0.05)
            await until(lambda: intake.batcher.waiting == 0)
            assert intake.acknowledged == []
            bus.before = fine
            await until(lambda: intake.acknowledged == [5, 10, 15])
        return intake

    intake = asyncio.run(scenario())
    assert intake.acknowledged == [5, 10, 15]
    assert bus.lines() == intake.sent


def test_a_publish_without_an_answer_goes_to_disk_and_counts_when_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.publisher.SPOOL_AFTER", 0.1)
    bus = MemoryBus()
    answer = threading.Event()
    bus.before = lambda _: assert_set(answer)

    async def scenario() -> Intake:
        async with publishing(Intake(bus, tmp_path)) as intake:
            spool = intake.spool
            assert spool is not None
            intake.take()
            await until(lambda: spool.stats().records == 1)
            intake.take()
            await until(lambda: spool.stats().records == 2)
            assert intake.batcher.waiting == 0
            answer.set()
            await until(lambda: spool.empty)
        return intake

    intake = asyncio.run(scenario())
    assert bus.lines() == intake.sent
    assert intake.publisher.failures == 0


def assert_set(event: threading.Event) -> None:
    assert event.wait(30)


def test_what_may_have_arrived_is_published_again_under_its_id(tmp_path: Path) -> None:
    bus = MemoryBus()
    refusals = iter([True, True, True, False, True])

    def fail(_: Sequence[Message]) -> None:
        if next(refusals, False):
            raise BusError("no answer")

    bus.after = fail

    async def scenario() -> Intake:
        async with publishing(Intake(bus, tmp_path)) as intake:
            for _ in range(4):
                intake.take()
                await asyncio.sleep(0.1)
            await until(lambda: intake.publisher.lines == 20)
        return intake

    intake = asyncio.run(scenario())
    by_id = {message.headers[BATCH_ID]: lines_of(message) for message in bus.messages}
    assert len(bus.messages) > len(by_id)
    assert [line for lines in by_id.values() for line in lines] == intake.sent


@pytest.mark.parametrize("spooled", [False, True])
def test_a_batch_too_large_for_the_bus_goes_in_parts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spooled: bool,
) -> None:
    monkeypatch.setattr("ingest.publisher.FIRST_RETRY", 0.001)
    bus = MemoryBus()

    def fail(messages: Sequence[Message]) -> None:
        if any(len(message.value) > 400_000 for message in messages):
            raise BusError("record too large")

    bus.before = fail

    async def scenario() -> Intake:
        async with publishing(Intake(bus, tmp_path if spooled else None)) as intake:
            intake.take(12, size=160_000)
            intake.take(3)
            await until(lambda: intake.publisher.lines == 15)
        return intake

    intake = asyncio.run(scenario())
    assert bus.lines() == intake.sent
    rows: Counter[str] = Counter()
    for message in bus.messages:
        lines = lines_of(message)
        assert sum(map(len, lines)) <= SMALL_BATCH
        assert int(message.headers.get(BATCH_ROW, "0")) == rows[message.headers[BATCH_ID]]
        assert message.headers[BATCH_LINES] == str(len(lines))
        rows[message.headers[BATCH_ID]] += len(lines)


def test_a_full_spool_leaves_lines_in_memory_until_there_is_room(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.before = refuse

    async def scenario() -> Intake:
        async with publishing(Intake(bus, tmp_path, max_bytes=30_000)) as intake:
            spool = intake.spool
            assert spool is not None
            for _ in range(60):
                intake.take(10, size=200)
                await asyncio.sleep(0.003)
            await until(lambda: spool.stats().full_seconds > 0)
            assert intake.batcher.waiting > 0
            assert spool.stats().bytes <= 30_000
            bus.before = fine
            await until(lambda: intake.publisher.lines == 600)
            assert spool.empty
        return intake

    intake = asyncio.run(scenario())
    assert bus.lines() == intake.sent


def test_a_disk_that_fails_is_a_full_spool_and_recovers(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()  # no folder can be made here
    bus = MemoryBus()
    bus.before = refuse

    async def scenario() -> Intake:
        async with publishing(Intake(bus, tmp_path / "spool")) as intake:
            spool = intake.spool
            assert spool is not None
            intake.take()
            await until(lambda: intake.publisher.failures > 1)
            assert intake.batcher.waiting > 0
            (tmp_path / "spool").unlink()
            await until(lambda: spool.stats().records == 1)
            bus.before = fine
        return intake

    intake = asyncio.run(scenario())
    assert bus.lines() == intake.sent


def test_what_a_dead_bus_did_not_take_is_published_at_the_next_start(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.before = refuse

    async def scenario() -> list[bytes]:
        sent: list[bytes] = []
        for patience in (0.0, 0.3, 5.0):
            async with publishing(Intake(bus, tmp_path), patience) as intake:
                intake.take(25)
            sent += intake.sent
            assert bus.messages == []
        bus.before = fine
        async with publishing(Intake(bus, tmp_path)) as intake:
            intake.take(7)
        assert intake.publisher.lines == 7
        return sent + intake.sent

    sent = asyncio.run(scenario())
    assert bus.lines() == sent


def test_without_a_spool_what_a_dead_bus_did_not_take_is_said() -> None:
    bus = MemoryBus()
    bus.before = refuse

    async def scenario() -> None:
        async with publishing(Intake(bus, None), 0.2, left=25) as intake:
            intake.take(25)

    asyncio.run(scenario())


def test_an_unforeseen_error_while_replaying_ends_run(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.before = refuse

    def fail(_: Sequence[Message]) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with publishing(Intake(bus, tmp_path), 5.0) as intake:
            intake.take()
            await until(lambda: intake.batcher.waiting == 0)
            bus.before = fail
            await asyncio.sleep(0.5)
            intake.take()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(scenario())


# -- the collector -------------------------------------------------------------------------------------------------


def tcp() -> ListenerSettings:
    return ListenerSettings("tcp", "tcp", "127.0.0.1", 0, "kermor")


def test_a_line_lost_on_the_spools_disk_is_not_acknowledged_by_the_ones_behind_it(tmp_path: Path) -> None:
    """RELP's answers go by their number alone: one that is left out must not be given by the next."""
    bus = MemoryBus()
    bus.before = refuse

    async def scenario() -> tuple[bytes, int]:
        collector = Collector(bus, [relp()], spool=SpoolSettings(tmp_path, 1 << 24, segment_bytes=1))
        await collector.start()
        running = asyncio.create_task(collector.run())
        reader, writer = await asyncio.open_connection(*collector.addresses["relp"])
        writer.write(b"1 open 30 relp_version=0\ncommands=syslog\n")
        for number in range(2, 7):
            writer.write(b"%d syslog 6 line %d\n" % (number, number))
            await until(lambda: spooled(collector) == number - 1)  # noqa: B023 - waited for at once
        damage_third(tmp_path)
        bus.before = fine
        answers = await reader.read()  # up to the end: the sender must send again
        writer.close()
        await until(lambda: spooled(collector) == 0)
        await collector.stop()
        await running
        return answers, collector.stats().listeners["relp"].connections

    answers, connections = asyncio.run(scenario())
    assert bus.lines() == [b"line 2", b"line 3", b"line 5", b"line 6"]
    assert re.findall(rb"(\d) rsp 6 200 OK", answers) == [b"2", b"3"]
    assert connections == 0


def test_sessions_that_broke_while_the_bus_is_away_take_no_memory_for_their_answers(tmp_path: Path) -> None:
    """A client whose patience ends comes again with all its lines, and again: an outage may last for hours."""
    bus = MemoryBus()
    bus.before = refuse
    count = 500

    async def scenario() -> int:
        collector = Collector(bus, [relp()], spool=SpoolSettings(tmp_path, 1 << 24))
        await collector.start()
        running = asyncio.create_task(collector.run())
        sessions = []
        for turn in range(3):
            reader, writer = await asyncio.open_connection(*collector.addresses["relp"])
            writer.write(b"1 open 30 relp_version=0\ncommands=syslog\n")
            writer.write(b"".join(b"%d syslog 4 line\n" % number for number in range(2, count + 2)))
            await until(lambda: collector.stats().listeners["relp"].unacknowledged == count)
            await until(lambda: spooled(collector) > turn)  # noqa: B023 - waited for at once
            (connection,) = collector._listeners["relp"].connections  # type: ignore[attr-defined]
            sessions.append(connection)
            writer.close()
            await until(lambda: collector.stats().listeners["relp"].connections == 0)
            assert await reader.read() != b""  # the answer to its opening
        left: int = sum(connection.unacknowledged for connection in sessions)
        bus.before = fine
        await until(lambda: collector.stats().lines == 3 * count)
        await collector.stop()
        await running
        return left

    assert asyncio.run(scenario()) == 0


def damage_third(folder: Path) -> None:
    third = sorted(folder.glob("*.spool"))[2]
    third.write_bytes(third.read_bytes()[:-1] + b"?")


def spooled(collector: Collector) -> int:
    spool = collector.stats().spool
    return -1 if spool is None else spool.records


def test_two_collectors_cannot_share_a_spool(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = Collector(MemoryBus(), [tcp()], spool=SpoolSettings(tmp_path, 1 << 20))
        await first.start()
        second = Collector(MemoryBus(), [tcp()], spool=SpoolSettings(tmp_path, 1 << 20))
        with pytest.raises(SpoolInUseError):
            await second.start()
        await first.stop()
        third = Collector(MemoryBus(), [tcp()], spool=SpoolSettings(tmp_path, 1 << 20))
        await third.start()
        await third.stop()

    asyncio.run(scenario())


def test_stopped_while_the_bus_is_away_a_collector_leaves_lines_on_disk(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.before = refuse
    lines = [b"<13>line %d" % number for number in range(5000)]

    async def scenario() -> None:
        collector = Collector(bus, [tcp()], spool=SpoolSettings(tmp_path, 1 << 20))
        await collector.start()
        running = asyncio.create_task(collector.run())
        with socket.create_connection(collector.addresses["tcp"]) as connection:
            connection.sendall(b"\n".join(lines) + b"\n")
        await collector.stop(patience=0.5)
        await running
        stats = collector.stats()
        assert stats.spool is not None
        assert (stats.lines, stats.spool.records > 0) == (0, True)
        full = Collector(bus, [tcp()], spool=SpoolSettings(tmp_path / "small", 10))
        await full.start()
        with socket.create_connection(full.addresses["tcp"]) as connection:
            connection.sendall(b"<13>a\n<13>b\n")
        with pytest.raises(UndeliveredError, match="did not take 2 lines"):
            await full.stop(patience=0.2)
        bus.before = fine
        last = Collector(bus, [tcp()], spool=SpoolSettings(tmp_path, 1 << 20))
        await last.start()
        await last.stop()

    asyncio.run(scenario())
    assert bus.lines() == lines
    assert {message.topic for message in bus.messages} == {TOPIC_RAW}


def test_with_spool_and_memory_full_datagrams_are_dropped_and_counted_and_nothing_else(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.before = refuse
    lines = [b"<13>%d %s" % (number, os.urandom(500).hex().encode()) for number in range(8000)]
    udp = ListenerSettings("udp", "udp", "127.0.0.1", 0, "kermor")

    async def scenario() -> Collector:
        spool = SpoolSettings(tmp_path, 1 << 20)
        collector = Collector(bus, [tcp(), udp], queue_bytes=1 << 20, hospital_share=1.0, spool=spool)
        await collector.start()
        running = asyncio.create_task(collector.run())
        sending = asyncio.create_task(asyncio.to_thread(send_slowly, collector.addresses["tcp"], lines, 0.1))
        await until(lambda: is_full(collector.stats().spool) and collector.stats().paused)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                sender.sendto(b"<13>too much", collector.addresses["udp"])
        await until(lambda: collector.stats().listeners["udp"].dropped == 3)
        stats = collector.stats()
        assert stats.spool is not None
        assert 0 < stats.spool.bytes <= 1 << 20
        assert stats.waiting_bytes >= 1 << 20
        bus.before = fine
        await sending
        await until(lambda: collector.stats().lines == len(lines))
        await collector.stop()
        await running
        return collector

    asyncio.run(scenario())
    assert bus.lines() == lines


def is_full(spool: SpoolStats | None) -> bool:
    return spool is not None and spool.full_seconds > 0.2


def test_an_answer_that_comes_late_passes_nothing_that_is_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool's folder comes back, with lines of an earlier run, while a publish is under way."""
    monkeypatch.setattr("ingest.publisher.SPOOL_AFTER", 0.1)
    bus = MemoryBus()
    bus.before = refuse
    answer = threading.Event()

    async def scenario() -> list[bytes]:
        async with publishing(Intake(bus, tmp_path / "spool"), 0.3) as earlier:
            earlier.take()
        (tmp_path / "spool").rename(tmp_path / "away")
        (tmp_path / "spool").touch()
        bus.before = lambda _: assert_set(answer)
        async with publishing(Intake(bus, tmp_path / "spool")) as intake:
            intake.take()
            await asyncio.sleep(0.3)
            (tmp_path / "spool").unlink()
            (tmp_path / "away").rename(tmp_path / "spool")
            assert intake.spool is not None
            await until(lambda: intake.batcher.waiting == 0)
            answer.set()
            await until(lambda: intake.publisher.lines == 5)
        return earlier.sent + intake.sent

    sent = asyncio.run(scenario())
    assert set(bus.lines()) == set(sent)


# -- real faults ---------------------------------------------------------------------------------------------------


class RelpSender(threading.Thread):
    """A RELP client as librelp is one: it keeps what is not answered, and sends it again in its next session."""

    WINDOW = 60

    def __init__(self, address: tuple[str, int], lines: Sequence[bytes]) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.lines = lines
        self.answered = 0
        self.sessions = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while self.answered < len(self.lines) and not self.ended.is_set():
            try:
                with socket.create_connection(self.address, timeout=30) as connection:
                    self.sessions += 1
                    self.session(connection)
            except OSError:  # refused, reset, or nothing was answered
                time.sleep(0.05)

    def session(self, connection: socket.socket) -> None:
        connection.sendall(b"1 open 30 relp_version=0\ncommands=syslog\n")
        first, sent, replies = self.answered, self.answered, b""
        opened = False
        while self.answered < len(self.lines):
            while opened and sent < min(len(self.lines), self.answered + self.WINDOW):
                line = self.lines[sent]
                connection.sendall(b"%d syslog %d %s\n" % (sent - first + 2, len(line), line))
                sent += 1
            data = connection.recv(65_536)
            if not data:
                return
            *whole, replies = (replies + data).split(b"\n")
            opened = opened or any(reply.startswith(b"1 rsp ") for reply in whole)
            numbers = [int(match[1]) for reply in whole if (match := re.match(rb"(\d+) rsp 6 200 OK$", reply))]
            self.answered = max(self.answered, *(first + number - 1 for number in numbers if number > 1), 0)


def relp() -> ListenerSettings:
    return ListenerSettings("relp", "relp", "127.0.0.1", 0, "kermor")


def told_apart(bus: Bus, bounds: Bounds) -> tuple[Counter[bytes], Counter[bytes]]:
    """Lines on the bus by what detect says of them: new ones, and those that were sent again."""
    fresh, again = Counter[bytes](), Counter[bytes]()
    resends = Resends(bus, bounds)
    for partition, end in bus.ends([TOPIC_RAW]).items():
        for record in bus.read(partition, 0, end):
            rows = resends.read(record).rows
            repeated = rows["mark"].fill_null("").str.contains("sent again")
            fresh.update(rows.filter(~repeated)["line"])
            again.update(rows.filter(repeated)["line"])
    return fresh, again


def send_slowly(address: tuple[str, int], lines: Sequence[bytes], seconds: float) -> None:
    with socket.create_connection(address) as connection:
        for at in range(0, len(lines), 100):
            connection.sendall(b"".join(line + b"\n" for line in lines[at : at + 100]))
            time.sleep(seconds * 100 / len(lines))


@pytest.mark.timeout(300)
def test_a_broker_that_is_killed_and_restarted_costs_no_line(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    broker = type(kafka_broker)(tmp_path / "broker")
    broker.start()
    bus = KafkaBus(KafkaSettings(bootstrap_servers=(broker.bootstrap_servers,), partitions=2, request_timeout=2.0,
                                 delivery_timeout=4.0))  # fmt: skip
    bus.ensure_topics([TOPIC_RAW])
    plain = [b"<13>plain %d" % number for number in range(40_000)]
    asked = [b"<13>asked %d" % number for number in range(5_000)]

    async def scenario() -> Collector:
        collector = Collector(
            bus, [tcp(), relp()], queue_bytes=4 << 20, spool=SpoolSettings(tmp_path / "spool", 1 << 26)
        )
        await collector.start()
        running = asyncio.create_task(collector.run())
        sender = RelpSender(collector.addresses["relp"], asked)
        sender.start()
        sending = asyncio.create_task(asyncio.to_thread(send_slowly, collector.addresses["tcp"], plain, 6.0))
        await until(lambda: collector.stats().lines > 2000, 60)
        broker.kill()
        await sending
        spool = collector.stats().spool
        assert spool is not None
        assert spool.records > 0
        assert sender.answered < len(asked)
        broker.start()  # on this thread: the kernel ends a broker with the thread that started it
        await until(lambda: collector.stats().lines == 45_000, 120)
        await until(lambda: sender.answered == len(asked))
        assert sender.sessions == 1
        await collector.stop()
        await running
        return collector

    try:
        stats = asyncio.run(scenario()).stats()
        fresh, again = told_apart(bus, Bounds())
    finally:
        bus.close()
        broker.stop()
    assert fresh == Counter([*plain, *asked])
    assert again == Counter()
    assert stats.spool is not None
    assert stats.spool.replayed > 0


COLLECTOR = """
import asyncio, random, sys
from pathlib import Path
from ingest import publisher
from ingest.bus import BusError
from ingest.bus_embedded import EmbeddedBus
from ingest.collect import Collector
from ingest.listeners import ListenerSettings
from ingest.spool import SpoolSettings

publisher.FIRST_RETRY, publisher.LONGEST_RETRY = 0.01, 0.1
folder, port, seed, healthy = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "healthy"
chance = random.Random(seed)

class UnsureBus(EmbeddedBus):
    def publish(self, messages):
        if not healthy and chance.random() < 0.6:
            raise BusError("away")
        positions = super().publish(messages)
        if not healthy and chance.random() < 0.3:
            raise BusError("no answer")
        return positions

async def main():
    bus = UnsureBus(folder / "bus.sqlite")
    bus.ensure_topics(["tocsin.raw"])
    listener = ListenerSettings("relp", "relp", "127.0.0.1", port, "kermor")
    collector = Collector(bus, [listener], spool=SpoolSettings(folder / "spool", 1 << 24, 3000))
    await collector.start()
    print(collector.addresses["relp"][1], flush=True)
    running = asyncio.create_task(collector.run())
    await asyncio.to_thread(sys.stdin.read)
    await collector.stop()
    await running

asyncio.run(main())
"""


def start_collector(folder: Path, port: int, seed: int, health: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", COLLECTOR, str(folder), str(port), str(seed), health]
    log = (folder / "collector.log").open("a")
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    log.close()
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdigit():
            return process, int(line)
    pytest.fail((folder / "collector.log").read_text())


def test_a_collector_killed_again_and_again_costs_no_line(tmp_path: Path) -> None:
    lines = [b"<13>line %d" % number for number in range(6000)]
    process, port = start_collector(tmp_path, 0, 0, "failing")
    sender = RelpSender(("127.0.0.1", port), lines)
    sender.start()
    for turn in range(1, 6):
        before = sender.answered
        deadline = time.monotonic() + 3
        while sender.answered < min(before + 150 * turn, len(lines)) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.communicate()
        process, _ = start_collector(tmp_path, port, turn, "healthy" if turn == 5 else "failing")
    sender.join(40)
    assert sender.answered == len(lines)
    process.communicate("")  # its standard input ends, so it stops in good order
    assert process.returncode == 0
    bus = EmbeddedBus(tmp_path / "bus.sqlite")
    fresh, again = told_apart(bus, Bounds())
    bus.close()
    assert fresh == Counter(lines)
    assert sender.sessions > 4
    assert set(again) < set(lines)

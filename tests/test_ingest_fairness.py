"""Hospitals take turns: what one of them floods us with says nothing about when another's next line leaves."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.batching import ACKNOWLEDGE_SECONDS, BATCH_COST, LINE_COST, RELP_FIRST, RELP_SESSION, Batch, Batcher
from ingest.bus import Message, Position
from ingest.channel import Channel
from ingest.collect import Collector
from ingest.framing import Lines
from ingest.listeners import ListenerSettings, Transport
from ingest.publisher import PUBLISH_BYTES
from memory_bus import MemoryBus

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class SlowBus(MemoryBus):
    """A bus that takes its time for each publish, and keeps what it was given."""

    def __init__(self, seconds: float = 0.0, gate: threading.Event | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.gate = gate

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        if self.gate is not None:
            assert self.gate.wait(30)
        time.sleep(self.seconds)
        return super().publish(messages)


@asynccontextmanager
async def collecting(collector: Collector) -> AsyncIterator[Collector]:
    await collector.start()
    running = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        await collector.stop()
        await running


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        await asyncio.sleep(0.005)


def of(tenant: str, transport: Transport = "tcp") -> ListenerSettings:
    return ListenerSettings(tenant, transport, "127.0.0.1", 0, tenant)


def flood(address: tuple[str, int], stop: threading.Event) -> None:
    """As fast as it goes, over several connections."""
    block = b"".join(b"<13>flood %d %s\n" % (number, b"x" * 400) for number in range(500))
    senders = [socket.create_connection(address) for _ in range(5)]
    for sender in senders:
        sender.settimeout(0.05)
    while not stop.is_set():
        for sender in senders:
            try:
                sender.send(block)  # a part of it, when the collector makes us wait
            except TimeoutError:
                continue
    for sender in senders:
        sender.close()


@pytest.mark.timeout(120)
def test_a_flood_delays_another_hospital_by_two_publishes_at_most() -> None:
    """The quiet hospital's line leaves with the publish after the one under way, whatever waits of the flood."""
    bus = SlowBus(0.05)
    stop = threading.Event()
    delays: list[int] = []

    async def scenario() -> Collector:
        collector = Collector(bus, [of("loud"), of("quiet")], queue_bytes=8 << 20, batch_seconds=0.01)
        async with collecting(collector):
            flooding = asyncio.create_task(asyncio.to_thread(flood, collector.addresses["loud"], stop))
            await until(lambda: "loud" in collector.stats().paused_hospitals)
            with socket.create_connection(collector.addresses["quiet"]) as sender:
                for number in range(20):
                    before = len(bus.publishes)
                    sender.sendall(b"<13>alert %d\n" % number)
                    await until(lambda wanted=number + 1: len(bus.lines("quiet")) == wanted)  # type: ignore[misc]
                    delays.append(len(bus.publishes) - before)
                    assert "quiet" not in collector.stats().paused_hospitals
            stop.set()
            await flooding
        return collector

    collector = asyncio.run(scenario())
    assert bus.lines("quiet") == [b"<13>alert %d" % number for number in range(20)]
    assert max(delays) <= 3, delays  # under way, its own, and one that began before the test looked
    frames = collector.stats().listeners["loud"].frames
    assert frames > 10_000
    assert len(bus.lines("loud")) == frames  # nothing of the flood is lost either


def test_a_full_hospital_pauses_alone_and_its_datagrams_alone_drop() -> None:
    gate = threading.Event()
    bus = SlowBus(0.0, gate)
    limit = 2 << 20

    async def scenario() -> Collector:
        listeners = [
            of("loud"),
            replace(of("loud", "udp"), name="loud-udp"),
            replace(of("quiet", "udp"), name="quiet-udp"),
        ]
        async with collecting(Collector(bus, listeners, queue_bytes=limit)) as collector:
            stop = threading.Event()
            flooding = asyncio.create_task(asyncio.to_thread(flood, collector.addresses["loud"], stop))
            await until(lambda: collector.stats().paused_hospitals == {"loud"})
            waiting = collector.stats().waiting_bytes
            assert limit // 2 <= waiting <= limit // 2 + (1 << 20)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for name in ("loud-udp", "quiet-udp"):
                    for _ in range(5):
                        sender.sendto(b"<13>datagram", collector.addresses[name])
            await until(lambda: collector.stats().listeners["quiet-udp"].frames == 5)
            await until(lambda: collector.stats().listeners["loud-udp"].dropped == 5)
            gate.set()
            stop.set()
            await flooding
        return collector

    stats = asyncio.run(scenario()).stats()
    assert (stats.listeners["quiet-udp"].dropped, stats.listeners["loud-udp"].frames) == (0, 0)
    assert len(bus.lines("quiet")) == 5
    assert (stats.paused_hospitals, stats.waiting_bytes) == (frozenset(), 0)


# -- batches, without sockets --------------------------------------------------------------------------------------


def add(batcher: Batcher, tenant: str, count: int, now: float = 0.0, peer: str = "p") -> None:
    batcher.add(Channel(tenant, peer), Lines([b"x" * 100] * count), NOON, now)


def test_hospitals_take_turns() -> None:
    batcher = Batcher(10, 1 << 20, 0.2)
    add(batcher, "loud", 100)
    add(batcher, "b", 20)
    add(batcher, "c", 5)
    taken = [batcher.take(1.0, 1)[0].tenant for _ in range(6)]
    assert taken == ["loud", "b", "c", "loud", "b", "loud"]
    add(batcher, "d", 10)
    assert [batch.tenant for batch in batcher.take(1.0, PUBLISH_BYTES)][:2] == ["loud", "d"]


@pytest.mark.parametrize(
    ("share", "floods", "each"), [(0.5, 1, 1 / 2), (0.5, 2, 1 / 3), (0.5, 4, 1 / 5), (1.0, 1, 1.0)]
)
def test_what_floods_leave_free(share: float, floods: int, each: float) -> None:
    """However many there are, a hospital that has nothing waiting may send."""
    batcher, queue = Batcher(10_000, 1 << 20, 0.2), 10 << 20
    going = True
    while going:
        going = False
        for number in range(floods):
            if not batcher.over(f"loud {number}", queue, share):
                add(batcher, f"loud {number}", 50)
                going = True
    for number in range(floods):
        assert batcher.waiting_of(f"loud {number}") == pytest.approx(each * queue, rel=0.05)
    assert batcher.over("quiet", queue, share) == (share == 1.0)


turns = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "s:1", "s:2"]), st.integers(1, 9), st.floats(0, 0.1)),
    max_size=30,
)


@settings(deadline=None)
@given(turns=turns, max_lines=st.integers(1, 8), limit=st.integers(1, 5000))
def test_all_is_called_back_once_and_only_when_all_parts_are_durable(
    turns: list[tuple[str, str, int, float]], max_lines: int, limit: int
) -> None:
    batcher = Batcher(max_lines, 300, 0.2)
    called: Counter[int] = Counter()
    durable: Counter[int] = Counter()
    now, waiting = 0.0, []

    def done(number: int) -> Callable[[], None]:
        def call() -> None:
            assert durable[number] == turns[number][2], "called back before all lines were durable"
            called[number] += 1

        return call

    def publish(batches: list[Batch]) -> None:
        for batch in batches:
            parts = batch.split(250)
            assert {part.headers == batch.headers for part in parts} == {True}
            for part in parts:
                durable.update(int(line.split()[0]) for line in part.lines)
                part.settle()
            assert batch.done == []
        batcher.release(batches)

    for number, (tenant, session, count, seconds) in enumerate(turns):
        lines = Lines([b"%d %s" % (number, b"x" * (7 * index)) for index in range(count)], first=number % 2 == 0)
        batcher.add(Channel(tenant, "p", session=session), lines, NOON, now, done(number), awaited=bool(session))
        now += seconds
        waiting.append(batcher.waiting)
        assert batcher.waiting == sum(batcher.waiting_of(name) for name in "abc")
        if number % 3 == 0:
            publish(batcher.take(now, limit))
    while batcher.due() is not None:
        publish(batcher.take(now, limit, everything=True))
    assert called == Counter(range(len(turns)))
    assert batcher.waiting == 0


def test_a_line_that_is_awaited_does_not_wait_for_others() -> None:
    batcher = Batcher(1000, 1 << 20, 0.2)
    batcher.add(Channel("t", "plain"), Lines([b"a"]), NOON, 0.0)
    assert batcher.due() == 0.2
    batcher.add(Channel("t", "relp", session="s:1"), Lines([b"b"]), NOON, 0.01, awaited=True)
    assert batcher.due() == 0.01 + ACKNOWLEDGE_SECONDS
    assert batcher.take(0.01, 1000) == []
    (batch,) = batcher.take(0.02, 1000)
    assert (batch.peer, batch.lines) == ("relp", [b"b"])
    assert batcher.due() == 0.2
    batcher.release([batch])
    assert batcher.waiting == 1 + LINE_COST + BATCH_COST


def test_the_bus_is_told_of_sessions_and_of_their_first_lines() -> None:
    batcher = Batcher(1000, 1 << 20, 0.2)
    batcher.add(Channel("t", "p"), Lines([b"plain"]), NOON, 0.0)
    batcher.add(Channel("t", "p", session="c:1"), Lines([b"first"], first=True), NOON, 0.0)
    batcher.add(Channel("t", "p", session="c:1"), Lines([b"second"]), NOON, 0.0)
    batcher.add(Channel("t", "p", session="c:2"), Lines([b"later"]), NOON, 0.0)
    plain, first, later = (batch.message() for batch in batcher.take(1.0, 1 << 20))
    assert {plain.key, first.key, later.key} == {"t/p"}
    assert (dict(plain.headers), dict(later.headers)) == ({}, {RELP_SESSION: "c:2"})
    assert dict(first.headers) == {RELP_SESSION: "c:1", RELP_FIRST: "1"}

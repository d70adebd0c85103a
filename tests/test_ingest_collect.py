"""Collect over real sockets on loopback; the bus is a fake at its seam, so that it can refuse, block and break."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.batching import Batch, Batcher
from ingest.bus import TOPIC_RAW, Bus, BusError, Message, Record
from ingest.bus_embedded import EmbeddedBus
from ingest.channel import Channel
from ingest.collect import Collector, UndeliveredError
from ingest.framing import MARK_BROKEN, MARK_CUT, MARK_UNTERMINATED, Lines, mark_truncated
from ingest.listeners import ListenError, ListenerSettings, ListenerStats, bind
from ingest.publisher import SMALL_BATCH
from ingest.rawbatch import RAW_SCHEMA, RawLine, decode_record, encode_lines
from memory_bus import MemoryBus

NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, UTC)


def tcp(name: str = "tcp", port: int = 0, **more: float) -> ListenerSettings:
    return listener(name, "tcp", port, **more)


def udp(name: str = "udp", port: int = 0, **more: float) -> ListenerSettings:
    return listener(name, "udp", port, **more)


def listener(name: str, transport: Literal["udp", "tcp"], port: int, **more: float) -> ListenerSettings:
    max_frame, max_connections = int(more.get("max_frame", 1 << 18)), int(more.get("max_connections", 1000))
    idle = more.get("idle_timeout", 0.0)
    return ListenerSettings(name, transport, "127.0.0.1", port, "chu-brest", max_frame, max_connections, idle)


@asynccontextmanager
async def collecting(collector: Collector) -> AsyncIterator[Collector]:
    await collector.start()
    running = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        await collector.stop()
        await running


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        await asyncio.sleep(0.005)


def send(collector: Collector, data: bytes, name: str = "tcp") -> None:
    with socket.create_connection(collector.addresses[name]) as connection:
        connection.sendall(data)


def send_datagrams(collector: Collector, *datagrams: bytes, name: str = "udp") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, collector.addresses[name])


def test_lines_reach_the_bus_with_what_only_the_listener_knows() -> None:
    bus = MemoryBus()

    async def scenario() -> None:
        async with collecting(Collector(bus, [tcp()], clock=lambda: NOON)) as collector:
            send(collector, b"<13>one\n<13>\xff\xfe\nlast")

    asyncio.run(scenario())
    (message,) = bus.messages
    (frame,) = bus.frames()
    assert (message.topic, message.key) == (TOPIC_RAW, "chu-brest/127.0.0.1")
    assert frame.drop("event.id").rows() == [
        (b"<13>one", NOON, None, "chu-brest", "127.0.0.1"),
        (b"<13>\xff\xfe", NOON, None, "chu-brest", "127.0.0.1"),
        (b"last", NOON, MARK_UNTERMINATED, "chu-brest", "127.0.0.1"),
    ]


def test_both_framings_and_datagrams_side_by_side() -> None:
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(Collector(bus, [tcp("a"), tcp("b"), udp()], batch_seconds=0.01)) as collector:
            send(collector, b"5 a one9 a two\nend", "a")
            send(collector, b"b one\r\nb two\0", "a")
            send(collector, b"5 b one12x\n", "b")
            send(collector, b"9 cut", "b")
            send_datagrams(collector, b"u one\n", b"u two\0", b"\n")
        return collector

    collector = asyncio.run(scenario())
    assert sorted(bus.marked(), key=str) == sorted(
        [
            *[(b"a one", None), (b"a two\nend", None), (b"b one", None), (b"b two", None), (b"b one", None)],
            *[(b"12x", MARK_BROKEN), (b"cut", MARK_CUT), (b"u one", None), (b"u two", None)],
        ],
        key=str,
    )
    stats = collector.stats()
    assert (stats.lines, stats.waiting_bytes, stats.failures) == (9, 0, 0)
    assert stats.batches == len(bus.messages)
    seen = stats.listeners
    assert {name: (of.accepted, of.connections, of.frames, of.empty) for name, of in seen.items()} == {
        "a": (2, 0, 4, 0),
        "b": (2, 0, 3, 0),
        "udp": (0, 0, 2, 1),
    }
    assert dict(seen["b"].marked) == {"truncated": 0, "broken": 1, "cut": 1, "unterminated": 0}
    assert (seen["a"].bytes, seen["b"].bytes, seen["udp"].bytes) == (31, 16, 13)


def test_many_lines_keep_their_order_in_bounded_batches() -> None:
    bus = MemoryBus()
    lines = [b"<13>line %d %s" % (index, b"x" * (index % 90)) for index in range(20_000)]

    async def scenario() -> None:
        async with collecting(Collector(bus, [tcp()], batch_lines=700, batch_bytes=30_000)) as collector:
            await asyncio.to_thread(send, collector, b"\n".join(lines) + b"\n")

    asyncio.run(scenario())
    assert bus.lines() == lines
    assert all(frame.height <= 700 for frame in bus.frames())
    assert all(sum(map(len, frame["line"])) <= 30_000 for frame in bus.frames())


def test_an_over_long_line_is_kept_up_to_the_limit() -> None:
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(Collector(bus, [tcp(max_frame=100), udp(max_frame=100)])) as collector:
            await asyncio.to_thread(send, collector, b"y" * 5_000_000 + b"\n<13>next\n")
            send_datagrams(collector, b"z" * 101)
        return collector

    stats = asyncio.run(scenario()).stats().listeners
    mark = mark_truncated(100)
    assert sorted(bus.marked(), key=str) == [(b"<13>next", None), (b"y" * 100, mark), (b"z" * 100, mark)]
    assert [stats[name].marked["truncated"] for name in ("tcp", "udp")] == [1, 1]
    assert [stats[name].skipped for name in ("tcp", "udp")] == [4_999_900, 1]


def test_what_the_bus_refuses_is_published_again_in_order() -> None:
    refusals = iter([True, False, True, True])

    def refuse(_: Sequence[Message]) -> None:
        if next(refusals, False):
            raise BusError("broker not available")

    bus = MemoryBus(refuse)
    lines = [b"<13>%d" % index for index in range(500)]

    async def scenario() -> Collector:
        async with collecting(Collector(bus, [tcp()], batch_lines=50, batch_seconds=0.01)) as collector:
            send(collector, b"\n".join(lines[:250]) + b"\n")
            await until(lambda: collector.stats().lines == 250)
            send(collector, b"\n".join(lines[250:]) + b"\n")
        return collector

    assert asyncio.run(scenario()).stats().failures == 3
    assert bus.lines() == lines


def test_a_batch_too_large_for_the_bus_does_not_block_it_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.publisher.FIRST_RETRY", 0.001)

    def refuse(messages: Sequence[Message]) -> None:
        if any(len(message.value) > 400_000 for message in messages):
            raise BusError("record too large")

    bus = MemoryBus(refuse)
    lines = [os.urandom(50_000).hex().encode() for _ in range(20)]

    async def scenario() -> Collector:
        async with collecting(Collector(bus, [tcp()])) as collector:
            await asyncio.to_thread(send, collector, b"\n".join(lines) + b"\n")
        return collector

    stats = asyncio.run(scenario()).stats()
    assert bus.lines() == lines
    assert stats.failures >= 3
    assert all(sum(map(len, frame["line"])) <= SMALL_BATCH for frame in bus.frames())


def test_a_blocked_bus_makes_tcp_wait_and_datagrams_drop() -> None:
    free = threading.Event()
    bus = MemoryBus(lambda _: assert_freed(free))
    lines = [b"<13>%d %s" % (index, b"x" * 1000) for index in range(20_000)]
    limit = 1 << 20

    async def scenario() -> Collector:
        async with collecting(Collector(bus, [tcp(), udp()], queue_bytes=limit)) as collector:
            sender = asyncio.create_task(asyncio.to_thread(send, collector, b"\n".join(lines) + b"\n"))
            await until(lambda: collector.stats().paused)
            send_datagrams(collector, b"<13>too much", b"<13>too much")
            await until(lambda: collector.stats().listeners["udp"].dropped == 2)
            await asyncio.sleep(0.2)
            assert limit // 2 <= collector.stats().waiting_bytes <= limit // 2 + (1 << 20)
            assert not sender.done()
            free.set()
            await sender
            await until(lambda: collector.stats().lines == len(lines))
            assert not collector.stats().paused
        return collector

    stats = asyncio.run(scenario()).stats()
    assert bus.lines() == lines
    assert (stats.listeners["udp"].dropped, stats.listeners["udp"].frames) == (2, 0)


def assert_freed(free: threading.Event) -> None:
    assert free.wait(30)


@pytest.mark.parametrize("sockets", [1, 3])
def test_datagrams_that_the_kernel_drops_are_counted(sockets: int) -> None:
    bus = MemoryBus()

    async def scenario() -> Collector:
        settings = ListenerSettings("udp", "udp", "127.0.0.1", 0, "chu", receive_buffer=8192, sockets=sockets)
        async with collecting(Collector(bus, [settings])) as collector:
            send_datagrams(collector, *[b"x" * 1000] * 200)  # nothing reads meanwhile: this is the loop's thread
        return collector

    stats = asyncio.run(scenario()).stats().listeners["udp"]
    assert stats.kernel_dropped > 0
    assert stats.frames + stats.kernel_dropped == 200


class FailingSocket(socket.socket):
    """A UDP socket whose third read fails, as when the kernel has no memory for it."""

    reads = 0

    def recvfrom_into(self, buffer: bytearray) -> tuple[int, tuple[str, int]]:  # type: ignore[override]
        self.reads += 1
        if self.reads == 3:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        return super().recvfrom_into(buffer)


def test_a_failing_read_keeps_the_datagrams_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryBus()

    async def bind_failing(settings: ListenerSettings, kind: socket.SocketKind, **how: bool) -> socket.socket:
        bound = await bind(settings, kind, **how)
        return FailingSocket(fileno=bound.detach())

    monkeypatch.setattr("ingest.udp_listener.bind", bind_failing)

    async def scenario() -> None:
        async with collecting(Collector(bus, [udp()])) as collector:
            send_datagrams(collector, b"<13>one", b"<13>two", b"<13>three")
            await until(lambda: collector.stats().listeners["udp"].frames == 3)

    asyncio.run(scenario())
    assert bus.lines() == [b"<13>one", b"<13>two", b"<13>three"]


def test_stop_reads_what_is_already_in() -> None:
    bus = MemoryBus()

    async def scenario() -> None:
        collector = Collector(bus, [tcp(), udp()], batch_seconds=60)
        await collector.start()
        for index in range(50):  # connected, sent and closed before the loop has accepted even one
            send(collector, b"<13>%d\n" % index)
        send_datagrams(collector, b"<13>50")
        await asyncio.gather(collector.stop(), collector.stop())

    asyncio.run(scenario())
    assert sorted(bus.lines()) == sorted(b"<13>%d" % index for index in range(51))


def test_stop_says_what_a_dead_bus_did_not_take() -> None:
    def refuse(_: Sequence[Message]) -> None:
        raise BusError("no broker")

    async def scenario() -> None:
        collector = Collector(MemoryBus(refuse), [tcp()])
        await collector.start()
        running = asyncio.create_task(collector.run())
        send(collector, b"<13>a\n<13>b\n")
        with pytest.raises(UndeliveredError, match=r"^the bus did not take 2 lines within 0\.3 seconds$"):
            await collector.stop(patience=0.3)
        await running

    asyncio.run(scenario())


def test_an_unforeseen_error_ends_run() -> None:
    def fail(_: Sequence[Message]) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        collector = Collector(MemoryBus(fail), [tcp()], batch_seconds=0)
        await collector.start()
        send(collector, b"<13>a\n")
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(collector.run(), 10)
        with pytest.raises(ZeroDivisionError):
            await collector.stop()

    asyncio.run(scenario())


def test_connections_beyond_the_limit_are_refused_and_counted() -> None:
    bus = MemoryBus()

    async def scenario() -> None:
        async with collecting(Collector(bus, [tcp(max_connections=2)])) as collector:
            address = collector.addresses["tcp"]

            def seen() -> ListenerStats:
                return collector.stats().listeners["tcp"]

            with socket.create_connection(address):
                with socket.create_connection(address), socket.create_connection(address) as third:
                    await until(lambda: seen().refused == 1)
                    assert seen().connections == 2
                    third.settimeout(5)
                    assert third.recv(1) == b""
                await until(lambda: seen().connections == 1)
                send(collector, b"<13>room again\n")
                await until(lambda: seen().frames == 1)

    asyncio.run(scenario())
    assert bus.lines() == [b"<13>room again"]


def test_a_silent_connection_is_closed_and_what_it_left_is_kept() -> None:
    bus = MemoryBus()

    async def scenario() -> None:
        async with collecting(Collector(bus, [tcp(idle_timeout=0.1)])) as collector:
            with socket.create_connection(collector.addresses["tcp"]) as sender:
                sender.sendall(b"<13>whole\n<13>half")
                await until(lambda: collector.stats().listeners["tcp"].idled == 1)
                sender.settimeout(5)
                assert await asyncio.to_thread(sender.recv, 1) == b""  # the loop has yet to close it

    asyncio.run(scenario())
    assert bus.marked() == [(b"<13>whole", None), (b"<13>half", MARK_UNTERMINATED)]


def test_a_reset_connection_leaves_its_half_line() -> None:
    bus = MemoryBus()

    async def scenario() -> None:
        async with collecting(Collector(bus, [tcp()])) as collector:
            with socket.create_connection(collector.addresses["tcp"]) as sender:
                sender.sendall(b"100 <13>half")
                await until(lambda: collector.stats().listeners["tcp"].bytes == 12)
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await until(lambda: collector.stats().listeners["tcp"].connections == 0)

    asyncio.run(scenario())
    assert bus.marked() == [(b"<13>half", MARK_CUT)]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_port_in_use_is_one_clear_line_and_leaves_nothing_open(kind: Literal["tcp", "udp"]) -> None:
    async def scenario() -> None:
        taken = Collector(MemoryBus(), [listener("taken", kind, 0)])
        await taken.start()
        port = taken.addresses["taken"][1]
        other = Collector(MemoryBus(), [tcp("first"), listener("second", kind, port)])
        with pytest.raises(
            ListenError,
            match=rf"^listener 'second': cannot listen on {kind} 127.0.0.1:{port}: Address already in use$",
        ):
            await other.start()
        assert other.addresses == {}
        await taken.stop()
        again = Collector(MemoryBus(), [listener("again", kind, port)])
        await again.start()
        await again.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([tcp(), tcp()], "listener 'tcp': two listeners have this name"),
        ([tcp(port=70_000)], "listener 'tcp': port 70000 is not between 0 and 65535"),
        ([tcp(max_frame=0)], "listener 'tcp': max_frame, max_connections and sockets must be at least 1"),
        ([listener("x", "dtls", 0)], "listener 'x': transport 'dtls' is none of tcp, tls, relp, relp-tls, udp"),  # type: ignore[arg-type]
        ([ListenerSettings("x", "tcp", "127.0.0.1", 0)], "listener 'x': nothing says whose lines come in"),
        ([ListenerSettings("x", "tcp", "192.0.2.1", 0, "t")], "listener 'x': cannot listen on tcp 192.0.2.1:0: Can"),
        ([ListenerSettings("x", "udp", "a b", 0, "t")], "listener 'x': cannot listen on udp a b:0: "),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_one_clear_line(settings: list[ListenerSettings], message: str) -> None:
    with pytest.raises(ListenError) as caught:
        asyncio.run(Collector(MemoryBus(), settings).start())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_lines_survive_on_the_embedded_bus(tmp_path: Path) -> None:
    bus: Bus = EmbeddedBus(tmp_path / "bus.sqlite")
    bus.ensure_topics([TOPIC_RAW])

    async def scenario() -> None:
        async with collecting(Collector(bus, [tcp()])) as collector:
            send(collector, b"<13>a\n<13>b\n")

    asyncio.run(scenario())
    subscription = bus.subscribe("test", [TOPIC_RAW])
    (record,) = subscription.poll(5.0)
    assert decode_record(record)["line"].to_list() == [b"<13>a", b"<13>b"]
    subscription.close()
    bus.close()


# -- batches, without sockets --------------------------------------------------------------------------------------


def test_a_batch_is_encoded_as_the_contract_says() -> None:
    batch = Batch("t", "p", 0.0, [b"a", b"b"], [1_795_435_200_123_456] * 2, {1: "odd"}, 2)
    received = datetime(2026, 11, 23, 12, 0, 0, 123456, UTC)
    expected = encode_lines([RawLine(b"a", received, "t", "p"), RawLine(b"b", received, "t", "p", "odd")])
    frames = [
        decode_record(Record(TOPIC_RAW, 0, 0, "t/p", value)) for value in (batch.message().value, expected)
    ]  # fmt: skip
    assert frames[0].equals(frames[1])
    assert list(frames[0].columns)[: len(RAW_SCHEMA)] == list(RAW_SCHEMA)


chunks = st.lists(
    st.tuples(
        st.sampled_from(["p", "q"]),
        st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.sampled_from([None, None, "odd"])), max_size=12),
        st.floats(0, 0.1),
    ),
    max_size=15,
)


@settings(deadline=None)
@given(chunks=chunks, max_lines=st.integers(1, 8), max_bytes=st.integers(1, 60), limit=st.integers(1, 5000))
def test_batches_keep_lines_marks_and_order_and_stay_small(
    chunks: list[tuple[str, list[tuple[bytes, str | None]], float]], max_lines: int, max_bytes: int, limit: int
) -> None:
    batcher = Batcher(max_lines, max_bytes, 0.2)
    taken: list[Batch] = []
    now = 0.0
    for peer, rows, seconds in chunks:
        marks = {index: mark for index, (_, mark) in enumerate(rows) if mark is not None}
        batcher.add(Channel("t", peer), Lines([line for line, _ in rows], marks), NOON, now)
        now += seconds
        due = batcher.due()
        ready = batcher.take(now, limit)
        assert bool(ready) == (due is not None and due <= now)
        taken += ready
    while batcher.due() is not None:
        taken += batcher.take(now, limit, everything=True)
    for peer in ("p", "q"):
        of_peer = [batch for batch in taken if batch.peer == peer]
        got = [(line, batch.marks.get(index)) for batch in of_peer for index, line in enumerate(batch.lines)]
        assert got == [row for of, rows, _ in chunks if of == peer for row in rows]
    for batch in taken:
        assert 0 < len(batch.lines) == len(batch.received) <= max_lines
        assert batch.size == sum(map(len, batch.lines))
        assert batch.size <= max_bytes or len(batch.lines) == 1
    assert batcher.waiting == sum(batch.cost for batch in taken)
    batcher.release(taken)
    assert batcher.waiting == 0


@settings(deadline=None)
@given(lines=st.lists(st.binary(max_size=20), max_size=20), max_bytes=st.integers(1, 50))
def test_a_split_batch_holds_the_same_lines(lines: list[bytes], max_bytes: int) -> None:
    marks = {index: f"odd {index}" for index in range(0, len(lines), 3)}
    parts = Batch("t", "p", 0.0, lines, list(range(len(lines))), marks, sum(map(len, lines))).split(max_bytes)
    rows = [(part.lines[i], part.received[i], part.marks.get(i)) for part in parts for i in range(len(part.lines))]
    assert rows == [(line, index, marks.get(index)) for index, line in enumerate(lines)]
    assert all(part.size <= max_bytes or len(part.lines) == 1 for part in parts)

"""Whose a channel is: by listener, by address; senders that may not send are refused, counted, and logged sparingly."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ingest import channel
from ingest.channel import Door, Refusal, tenant_of_certificate
from ingest.collect import Collector
from ingest.framing import MARK_CUT, mark_truncated
from ingest.hospital import Certificate, Hospital, Hospitals
from ingest.listeners import MAX_REFUSED_SENDERS, Counts, ListenerSettings, ListenerStats, Transport
from memory_bus import MemoryBus

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@asynccontextmanager
async def collecting(
    bus: MemoryBus, listener: ListenerSettings, hospitals: Callable[[], Hospitals] = Hospitals
) -> AsyncIterator[Collector]:
    collector = Collector(bus, [listener], registry=hospitals, batch_seconds=0.01)
    await collector.start()
    running = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        await collector.stop()
        await running


def listener(transport: Transport = "tcp", tenant: str = "chu", **more: object) -> ListenerSettings:
    settings = ListenerSettings("in", transport, "127.0.0.1", 0, tenant)
    return replace(settings, **more)  # type: ignore[arg-type]


def seen(collector: Collector) -> ListenerStats:
    return collector.stats().listeners["in"]


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        await asyncio.sleep(0.005)


def send_from(collector: Collector, address: str, data: bytes) -> None:
    """127.0.0.0/8 is this machine whatever the address: several senders on one loopback."""
    kind = socket.SOCK_DGRAM if seen(collector).transport == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sender:
        sender.bind((address, 0))
        sender.connect(collector.addresses["in"])
        sender.sendall(data)


KERMOR = Hospital("ch-kermor", "Kermor", networks=("127.0.1.0/24",))
BREST = Hospital("chu-brest", "Brest", networks=("127.0.0.0/16", "2001:db8::/32"))
BOTH = Hospitals.of([KERMOR, BREST])


@pytest.mark.parametrize(
    ("tenant", "by_address", "allow", "address", "expected"),
    [
        ("chu", False, (), "192.0.2.1", "chu"),
        ("chu", False, (), "unknown", "chu"),
        ("chu", False, ("192.0.2.0/24",), "192.0.2.1", "chu"),
        ("chu", False, ("192.0.2.9/24",), "192.0.2.1", "chu"),  # bits of the host are no mistake
        ("chu", False, ("198.51.100.0/24", "192.0.2.1"), "192.0.2.1", "chu"),
        ("chu", False, ("192.0.2.0/24",), "198.51.100.1", Refusal(channel.REFUSED_ADDRESS)),
        ("chu", False, ("192.0.2.0/24",), "2001:db8::1", Refusal(channel.REFUSED_ADDRESS)),
        ("chu", False, ("192.0.2.0/24",), "unknown", Refusal(channel.REFUSED_ADDRESS)),
        ("chu", False, ("fe80::/10",), "fe80::1%eth0", "chu"),
        ("", True, (), "127.0.1.7", "ch-kermor"),  # the narrowest network
        ("", True, (), "127.0.2.7", "chu-brest"),
        ("", True, (), "2001:db8::1", "chu-brest"),
        ("", True, (), "192.0.2.1", Refusal(channel.REFUSED_SENDER)),
        ("", True, ("192.0.2.0/24",), "127.0.1.7", Refusal(channel.REFUSED_ADDRESS)),
        ("", False, (), "192.0.2.1", ""),  # only a certificate can say
    ],
)
def test_the_door(tenant: str, by_address: bool, allow: tuple[str, ...], address: str, expected: str | Refusal) -> None:
    door = Door(tenant, by_address, allow, BOTH)
    assert door.tenant(address) == expected
    assert door.tenant(address) == expected  # and again, remembered


def test_a_door_forgets_what_the_registry_no_longer_says() -> None:
    door = Door("", True, (), BOTH)
    assert door.tenant("127.0.1.7") == "ch-kermor"
    door.renew(Hospitals.of([BREST]))
    assert door.tenant("127.0.1.7") == "chu-brest"


@given(address=st.text(max_size=40))
def test_an_address_never_raises(address: str) -> None:
    assert Door("", True, ("192.0.2.0/24",), BOTH).tenant(address) == Refusal(channel.REFUSED_ADDRESS)


GOOD = Certificate("aa", "1", NOW - DAY, NOW + DAY)


@pytest.mark.parametrize(
    ("certificate", "bound", "expected"),
    [
        (GOOD, "", "ch-kermor"),
        (GOOD, "ch-kermor", "ch-kermor"),
        (GOOD, "chu-brest", Refusal(channel.REFUSED_OTHER)),
        (replace(GOOD, fingerprint="bb"), "", Refusal(channel.REFUSED_UNKNOWN)),
        (replace(GOOD, fingerprint="bb"), "ch-kermor", "ch-kermor"),  # signed by the authority: enough when bound
        (replace(GOOD, revoked=NOW - DAY), "", Refusal(channel.REFUSED_REVOKED)),
        (replace(GOOD, revoked=NOW - DAY), "ch-kermor", Refusal(channel.REFUSED_REVOKED)),
        (replace(GOOD, not_after=NOW - DAY), "", Refusal(channel.REFUSED_EXPIRED)),
        (replace(GOOD, not_before=NOW + DAY), "", Refusal(channel.REFUSED_EARLY)),
    ],
)
def test_whose_a_certificate_is(certificate: Certificate, bound: str, expected: str | Refusal) -> None:
    hospitals = Hospitals.of([replace(KERMOR, certificates=(certificate,)), BREST])
    assert tenant_of_certificate("aa", bound, hospitals, NOW) == expected


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_senders_address_says_whose_the_lines_are(transport: Transport) -> None:
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(bus, listener(transport, "", by_address=True), lambda: BOTH) as collector:
            send_from(collector, "127.0.1.1", b"<13>organization.id=chu-brest\n")
            send_from(collector, "127.0.2.1", b"<13>b\n")
            send_from(collector, "127.1.0.1", b"<13>c\n")
            await until(lambda: seen(collector).frames == 2 and seen(collector).refused == 1)
        return collector

    with capture_logs() as logs:
        collector = asyncio.run(scenario())
    assert sorted(bus.rows()) == [("ch-kermor", b"<13>organization.id=chu-brest", None), ("chu-brest", b"<13>b", None)]
    assert dict(seen(collector).refusals) == {channel.REFUSED_SENDER: 1}
    (entry,) = [log for log in logs if log["event"] == "refused"]
    assert (entry["peer"], entry["reason"]) == ("127.1.0.1", channel.REFUSED_SENDER)
    peers = collector.stats().peers
    assert {key: (peer.frames, peer.bytes, peer.durable) for key, peer in peers.items()} == {
        ("ch-kermor", "127.0.1.1"): (1, 29, 1),
        ("chu-brest", "127.0.2.1"): (1, 5, 1),
    }


@pytest.mark.parametrize("transport", ["udp", "tcp", "relp"])
def test_networks_that_may_not_send_are_refused_and_logged_at_doubling_intervals(transport: Transport) -> None:
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(bus, listener(transport, allow=("127.0.1.0/24",))) as collector:
            for _ in range(20):
                send_from(collector, "127.0.2.1", b"<13>no\n")
            await until(lambda: seen(collector).refused == 20)
        return collector

    with capture_logs() as logs:
        stats = seen(asyncio.run(scenario()))
    assert (bus.rows(), dict(stats.refusals), stats.accepted) == ([], {channel.REFUSED_ADDRESS: 20}, 0)
    assert [log["refused"] for log in logs if log["event"] == "refused"] == [1, 2, 4, 8, 16]


def refused_in_log(counts: Counts, reason: str, peers: Iterable[str], **more: str) -> list[tuple[str, int]]:
    """(peer, how often) of each refusal that is logged while these senders are refused one after the other."""
    with capture_logs() as logs:
        for peer in peers:
            counts.refuse(listener("tls"), reason, peer, **more)
    return [(log["peer"], log["refused"]) for log in logs]


def test_a_sender_that_is_refused_all_night_hides_no_other_from_the_log() -> None:
    counts, reason = Counts(), channel.REFUSED_HANDSHAKE
    assert len(refused_in_log(counts, reason, ["192.0.2.1"] * 5000)) == 13
    assert refused_in_log(counts, reason, ["192.0.2.2"]) == [("192.0.2.2", 1)]
    assert counts.refusals == {reason: 5001}


def test_forged_addresses_flood_neither_log_nor_memory_and_hide_no_certificate() -> None:
    counts, reason = Counts(), channel.REFUSED_SENDER
    forged = [f"192.0.2.{number}" for number in range(5 * MAX_REFUSED_SENDERS)]
    assert len(refused_in_log(counts, reason, forged)) < MAX_REFUSED_SENDERS + 20
    assert len(counts.refused_senders) == MAX_REFUSED_SENDERS + 1
    expired = refused_in_log(counts, channel.REFUSED_EXPIRED, ["192.0.2.1"] * 2, subject="CN=ch-kermor")
    assert expired == [("192.0.2.1", 1), ("192.0.2.1", 2)]
    assert counts.refusals.total() == len(forged) + 2


def test_a_network_that_leaves_the_registry_takes_its_connections_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.collect.REVIEW_SECONDS", 0.02)
    bus = MemoryBus()
    registry = [BOTH]

    async def scenario() -> None:
        async with collecting(bus, listener("tcp", "", by_address=True), lambda: registry[-1]) as collector:
            with socket.socket() as sender:
                sender.bind(("127.0.1.1", 0))
                sender.connect(collector.addresses["in"])
                sender.sendall(b"<13>a\n")
                await until(lambda: seen(collector).frames == 1)
                registry.append(Hospitals.of([BREST]))
                await until(lambda: seen(collector).revoked == 1)
                assert seen(collector).connections == 0

    asyncio.run(scenario())
    assert bus.rows() == [("ch-kermor", b"<13>a", None)]


# -- what nobody should do -----------------------------------------------------------------------------------------


def test_a_frame_that_trickles_in_is_ended_and_kept() -> None:
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(bus, listener(frame_timeout=0.3)) as collector:
            with socket.create_connection(collector.addresses["in"]) as slow:
                slow.sendall(b"10 ")
                begun = time.monotonic()
                while seen(collector).stalled == 0 and time.monotonic() < begun + 10:
                    if seen(collector).frames == 0:
                        slow.sendall(b"x")
                    await asyncio.sleep(0.07)
                assert 0.2 < time.monotonic() - begun < 5
        return collector

    stats = seen(asyncio.run(scenario()))
    assert (stats.stalled, stats.connections) == (1, 0)
    ((_, line, mark),) = bus.rows()
    assert (set(line), mark) == ({0x78}, MARK_CUT)


def test_whole_frames_now_and_then_are_no_trickle() -> None:
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(bus, listener(frame_timeout=0.2)) as collector:
            with socket.create_connection(collector.addresses["in"]) as sender:
                for _ in range(8):
                    sender.sendall(b"<13>a\n<13>b")  # a frame is always begun, but never the same
                    await asyncio.sleep(0.06)
                    sender.sendall(b"c\n")
                assert seen(collector).stalled == 0
        return collector

    assert seen(asyncio.run(scenario())).frames == 16


@pytest.mark.parametrize("data", [b"999999999 " + b"x" * 5000, b"<" + b"x" * 5000], ids=["counted", "no end"])
def test_a_billion_bytes_announced_cost_what_they_bring(data: bytes) -> None:
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(bus, listener(max_frame=1000, frame_timeout=0.2)) as collector:
            with socket.create_connection(collector.addresses["in"]) as sender:
                sender.sendall(data)
                await until(lambda: seen(collector).stalled == 1)
        return collector

    asyncio.run(scenario())
    ((_, line, mark),) = bus.rows()
    assert (len(line), mark) == (1000, mark_truncated(1000))


@pytest.fixture
def descriptors() -> Iterator[Callable[[int], None]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_ten_thousand_idle_connections_are_carried(descriptors: Callable[[int], None]) -> None:
    """As many as the limit of file descriptors allows: both ends of each are in this process."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = 20_400 if hard == resource.RLIM_INFINITY else min(hard, 20_400)
    descriptors(limit)
    count = min(10_000, (limit - 400) // 2)
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(bus, listener(max_connections=count)) as collector:
            with ExitStack() as senders:
                for number in range(count):
                    senders.enter_context(socket.create_connection(collector.addresses["in"]))
                    if number % 100 == 99:
                        await until(lambda opened=number + 1: seen(collector).connections == opened)  # type: ignore[misc]
                with socket.create_connection(collector.addresses["in"]) as more:
                    more.settimeout(5)
                    await until(lambda: seen(collector).refused == 1)
                    assert more.recv(1) == b""
        return collector

    stats = seen(asyncio.run(scenario()))
    assert (stats.accepted, dict(stats.refusals)) == (count, {channel.REFUSED_LIMIT: 1})
    assert count >= 1000


def test_connections_are_refused_before_the_descriptors_run_out(descriptors: Callable[[int], None]) -> None:
    """And when they ran out all the same, accepting goes on once there are some again."""
    bus = MemoryBus()

    async def scenario() -> Collector:
        async with collecting(bus, listener()) as collector:
            with ExitStack() as senders:
                with socket.socket() as probe:
                    descriptors(probe.fileno() + 200)
                for _ in range(90):
                    senders.enter_context(socket.create_connection(collector.addresses["in"]))
                await until(lambda: seen(collector).accepted + seen(collector).refused == 90)
                refused = seen(collector).refused
                assert dict(seen(collector).refusals) == {channel.REFUSED_DESCRIPTORS: refused}
                assert 0 < refused < 90
                pairs = senders.enter_context(ExitStack())
                last = senders.enter_context(socket.socket())
                with suppress(OSError):  # too many open files
                    for _ in range(500):
                        pairs.enter_context(socket.socket())
                last.connect(collector.addresses["in"])
                await until(lambda: seen(collector).refused > refused)
                pairs.close()
            send_from(collector, "127.0.0.1", b"<13>still here\n")
            await until(lambda: seen(collector).frames == 1)
        return collector

    asyncio.run(scenario())
    assert bus.rows() == [("chu", b"<13>still here", None)]


def test_garbage_on_a_relp_port_ends_that_session_only() -> None:
    bus = MemoryBus()
    offers = b"relp_version=0\ncommands=syslog"
    opening = b"1 open %d %b\n" % (len(offers), offers)

    async def scenario() -> Collector:
        async with collecting(bus, listener("relp")) as collector:
            for data in (b"GET / HTTP/1.0\r\n\r\n", b"<13>plain\n", opening + b"2 syslog 5 <13>a\n3 syslog 1 ab"):
                with socket.create_connection(collector.addresses["in"]) as sender:
                    sender.settimeout(10)
                    sender.sendall(data)
                    answer = b""
                    while data := await asyncio.to_thread(sender.recv, 4096):
                        answer += data
            assert answer.endswith(b"2 rsp 6 200 OK\n0 serverclose 0\n")  # the line before the fault is answered
            await until(lambda: seen(collector).connections == 0)
        return collector

    stats = seen(asyncio.run(scenario()))
    assert dict(stats.faults) == {"not a RELP frame": 2, "frame without LF at its end": 1}
    assert (stats.sessions, stats.frames) == (1, 1)
    assert bus.rows() == [("chu", b"<13>a", None)]

"""TLS listeners over loopback: whose a certificate is, who is refused, and that no peer stops the others."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hospital_certificates import Registry, serial_of
from ingest.authority import create_authority, issue_server
from ingest.channel import (
    REFUSED_EXPIRED,
    REFUSED_HANDSHAKE,
    REFUSED_LIMIT,
    REFUSED_OTHER,
    REFUSED_REVOKED,
    REFUSED_UNKNOWN,
)
from ingest.collect import Collector
from ingest.hospital import Hospital
from ingest.listeners import ListenError, ListenerSettings, ListenerStats
from memory_bus import MemoryBus

Require = Callable[[bool, str], None]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.made(tmp_path / "registry")


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
    for _ in range(int(seconds * 200)):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("did not come about in time")


def seen(collector: Collector) -> ListenerStats:
    return collector.stats().listeners["tls"]


async def send(collector: Collector, context: ssl.SSLContext, data: bytes) -> None:
    """Send over TLS and part in good order; raises what a refused client meets."""
    host, port = collector.addresses["tls"]
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.write(data)
    await writer.drain()
    writer.close()
    with suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    del reader


async def fails_to_send(collector: Collector, context: ssl.SSLContext) -> None:
    """In TLS 1.3 a client learns that its certificate is refused only when it reads."""
    host, port = collector.addresses["tls"]
    with suppress(ConnectionError, ssl.SSLError):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(b"<13>not mine to send\n")
        assert await reader.read() == b""
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@pytest.mark.parametrize("data", [b"<13>a\n<13>b\n", b"5 <13>a5 <13>b"], ids=["newline", "octets"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_certificate_says_whose_the_lines_are(registry: Registry, data: bytes, version: ssl.TLSVersion) -> None:
    bus = MemoryBus()
    registry.issue("chu-brest")
    context = registry.client_context(registry.issue("ch-kermor"))
    context.minimum_version = context.maximum_version = version

    async def scenario() -> Collector:
        collector = Collector(bus, [registry.listener()], registry=registry.hospitals)
        async with collecting(collector):
            await send(collector, context, data)
            await until(lambda: seen(collector).frames == 2)
        return collector

    stats = seen(asyncio.run(scenario()))
    assert bus.pairs() == [("ch-kermor", b"<13>a"), ("ch-kermor", b"<13>b")]
    assert bus.messages[0].key == "ch-kermor/127.0.0.1"
    assert (stats.accepted, stats.refused, stats.connections) == (1, 0, 0)


def test_a_line_that_claims_another_hospital_stays_with_the_channel(registry: Registry) -> None:
    bus = MemoryBus()
    registry.issue("chu-brest")
    context = registry.client_context(registry.issue("ch-kermor"))
    claim = b'<13>1 - chu-brest app - - [tenant@32473 organization.id="chu-brest"] tenant=chu-brest'

    async def scenario() -> None:
        collector = Collector(bus, [registry.listener()], registry=registry.hospitals)
        async with collecting(collector):
            await send(collector, context, claim + b"\n")
            await until(lambda: seen(collector).frames == 1)

    asyncio.run(scenario())
    assert bus.pairs() == [("ch-kermor", claim)]


def revoke(registry: Registry) -> None:
    registry.change("ch-kermor", revoked=datetime.now(UTC))


def lapse(registry: Registry) -> None:
    registry.change("ch-kermor", not_after=datetime.now(UTC) - timedelta(seconds=1))


def forget(registry: Registry) -> None:
    registry.put(Hospital("ch-kermor", "Kermor"))


@pytest.mark.parametrize(
    ("change", "bound", "reason"),
    [
        (revoke, "", REFUSED_REVOKED),
        (lapse, "", REFUSED_EXPIRED),
        (forget, "", REFUSED_UNKNOWN),
        (revoke, "ch-kermor", REFUSED_REVOKED),
        (lambda _: None, "chu-brest", REFUSED_OTHER),
    ],
    ids=["revoked", "expired in the registry", "unknown", "revoked, bound listener", "of another hospital"],
)
def test_who_is_refused_is_counted_and_named(
    registry: Registry, change: Callable[[Registry], None], bound: str, reason: str
) -> None:
    bus = MemoryBus()
    context = registry.client_context(registry.issue("ch-kermor"))
    change(registry)

    async def scenario() -> Collector:
        collector = Collector(bus, [registry.listener(tenant=bound)], registry=registry.hospitals)
        async with collecting(collector):
            await fails_to_send(collector, context)
            await until(lambda: seen(collector).refused == 1)
        return collector

    with capture_logs() as logs:
        stats = seen(asyncio.run(scenario()))
    assert bus.pairs() == []
    assert (dict(stats.refusals), stats.accepted, stats.frames) == ({reason: 1}, 0, 0)
    (entry,) = [log for log in logs if log["event"] == "refused"]
    assert (entry["reason"], entry["peer"], entry["subject"]) == (reason, "127.0.0.1", "CN=ch-kermor")
    assert re.fullmatch("[0-9a-f]{30,40}", entry["serial"])


def test_an_expired_certificate_is_refused_by_its_own_dates_and_named(registry: Registry) -> None:
    pair = registry.issue("ch-kermor", days_ago=4000)  # which has run out since
    registry.change("ch-kermor", not_after=datetime.now(UTC) + timedelta(days=1))  # whatever the registry says
    bus = MemoryBus()

    async def scenario() -> Collector:
        collector = Collector(bus, [registry.listener()], registry=registry.hospitals)
        async with collecting(collector):
            await fails_to_send(collector, registry.client_context(pair))
            await until(lambda: seen(collector).refused == 1)
        return collector

    with capture_logs() as logs:
        stats = seen(asyncio.run(scenario()))
    assert dict(stats.refusals) == {REFUSED_EXPIRED: 1}
    assert [log["subject"] for log in logs if log["event"] == "refused"] == ["CN=ch-kermor"]
    assert bus.pairs() == []


def test_what_is_no_handshake_is_refused_and_the_others_go_on(registry: Registry, tmp_path: Path) -> None:
    """No certificate, one of a stranger's authority, TLS 1.1, plain text, and a client that only connects."""
    bus = MemoryBus()
    pair = registry.issue("ch-kermor")
    stranger = Registry.made(tmp_path / "stranger")
    forged = stranger.issue("ch-kermor")
    listener = replace(registry.listener(), handshake_timeout=0.3)

    async def scenario() -> Collector:
        collector = Collector(bus, [listener], registry=registry.hospitals)
        async with collecting(collector):
            await fails_to_send(collector, registry.client_context(None))
            await fails_to_send(collector, registry.client_context(forged))
            with socket.create_connection(collector.addresses["tls"]) as plain:
                plain.sendall(b"<13>in clear\n" + os.urandom(4096))
            with socket.create_connection(collector.addresses["tls"]) as silent:
                await until(lambda: seen(collector).refused == 4)
                silent.setblocking(False)
                await send(collector, registry.client_context(pair), b"<13>ours\n")
            await until(lambda: seen(collector).frames == 1)
        return collector

    with capture_logs() as logs:
        stats = seen(asyncio.run(scenario()))
    assert dict(stats.refusals) == {REFUSED_HANDSHAKE: 4}
    assert bus.pairs() == [("ch-kermor", b"<13>ours")]
    errors = [log["error"] for log in logs if log["event"] == "refused"]
    assert len(errors) == 3  # the first, the second and the fourth
    assert "(the sender shows no certificate)" in errors[0]
    assert "(our authority did not sign it)" in errors[1]
    assert all(errors)


def test_a_listener_bound_to_a_hospital_needs_no_registry(registry: Registry) -> None:
    bus = MemoryBus()
    pair = registry.issue("ch-kermor", known=False)

    async def scenario() -> None:
        collector = Collector(bus, [registry.listener(tenant="CH de Kermor")])
        async with collecting(collector):
            await send(collector, registry.client_context(pair), b"<13>a\n")
            await until(lambda: seen(collector).frames == 1)

    asyncio.run(scenario())
    assert bus.pairs() == [("CH de Kermor", b"<13>a")]


def test_an_open_connection_ends_when_its_certificate_is_revoked(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.collect.REVIEW_SECONDS", 0.02)
    bus = MemoryBus()
    kermor, brest = registry.issue("ch-kermor"), registry.issue("chu-brest")

    async def scenario() -> Collector:
        collector = Collector(bus, [registry.listener()], registry=registry.hospitals)
        async with collecting(collector):
            host, port = collector.addresses["tls"]
            reader, writer = await asyncio.open_connection(host, port, ssl=registry.client_context(kermor))
            other = await asyncio.open_connection(host, port, ssl=registry.client_context(brest))
            writer.write(b"<13>whole\n<13>half")
            await until(lambda: seen(collector).frames == 1)
            registry.change("ch-kermor", revoked=datetime.now(UTC))
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
            other[1].write(b"<13>still there\n")
            await until(lambda: seen(collector).frames == 3)
            assert (seen(collector).revoked, seen(collector).connections) == (1, 1)
            other[1].close()
            with suppress(ConnectionError, ssl.SSLError):
                await other[1].wait_closed()
        return collector

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert bus.pairs() == [("ch-kermor", b"<13>whole"), ("ch-kermor", b"<13>half"), ("chu-brest", b"<13>still there")]
    (entry,) = [log for log in logs if log.get("reason") == REFUSED_REVOKED]
    assert entry["subject"] == "CN=ch-kermor"


def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.tls.LOOK_SECONDS", 0.0)
    context = registry.client_context(registry.issue("ch-kermor"))
    path = registry.authority / "server.pem"

    async def served(collector: Collector) -> int:
        reader, writer = await asyncio.open_connection(*collector.addresses["tls"], ssl=context)
        shown = writer.get_extra_info("ssl_object").getpeercert()
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        del reader
        return int(shown["serialNumber"], 16)

    async def scenario() -> None:
        collector = Collector(MemoryBus(), [registry.listener()], registry=registry.hospitals)
        async with collecting(collector):
            first = serial_of(path)
            assert await served(collector) == first
            issue_server(registry.authority, ["127.0.0.1"], datetime.now(UTC), new_key=True)
            second = serial_of(path)
            assert await served(collector) == second != first
            path.write_text("no certificate")
            assert await served(collector) == second

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert any("not taken up" in log["event"] and str(path) in log["error"] for log in logs)


def test_files_that_cannot_be_used_are_one_clear_line(registry: Registry, tmp_path: Path) -> None:
    good, missing = registry.listener(), tmp_path / "nothing.pem"
    create_authority(tmp_path / "old", "Old", datetime.now(UTC) - timedelta(days=365 * 30))
    other = Registry.made(tmp_path / "other").authority / "server.key"
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    cases: list[tuple[ListenerSettings, str]] = [
        (replace(good, certificate=missing), f"{missing}: No such file or directory; make it with `tocsin authority i"),
        (replace(good, key=missing), f"{missing}: No such file or directory; make it with `tocsin authority init`"),
        (replace(good, client_ca=missing), f"{missing}: No such file or directory; make it with `tocsin authority in"),
        (replace(good, client_ca=None), "certificate, key and client_ca are needed for tls; make them with `tocsin"),
        (replace(good, client_ca=empty), f"{empty} holds no certificate in PEM form"),
        (replace(good, client_ca=tmp_path / "old" / "ca.pem"), f"{tmp_path / 'old' / 'ca.pem'}: the authority has exp"),
        (replace(good, key=other), f"{good.certificate} and {other} cannot be used: "),
    ]
    for settings, message in cases:
        with pytest.raises(ListenError) as caught:
            asyncio.run(Collector(MemoryBus(), [settings]).start())
        assert str(caught.value).startswith(f"listener 'tls': {message}")
        assert "\n" not in str(caught.value)


def test_handshakes_under_way_count_as_connections(registry: Registry) -> None:
    bus = MemoryBus()
    listener = replace(registry.listener(), max_connections=3, handshake_timeout=30.0)

    async def scenario() -> Collector:
        collector = Collector(bus, [listener], registry=registry.hospitals)
        async with collecting(collector):
            senders = [socket.create_connection(collector.addresses["tls"]) for _ in range(5)]
            await until(lambda: seen(collector).refused == 2)
            for sender in senders:
                sender.close()
            await until(lambda: seen(collector).refused == 5)
        return collector

    assert dict(seen(asyncio.run(scenario())).refusals) == {REFUSED_LIMIT: 2, REFUSED_HANDSHAKE: 3}


def test_stop_does_not_wait_for_a_handshake_that_never_ends(registry: Registry) -> None:
    async def scenario() -> None:
        collector = Collector(MemoryBus(), [registry.listener()], registry=registry.hospitals)
        async with collecting(collector):
            with socket.create_connection(collector.addresses["tls"]):
                await asyncio.sleep(0.1)
                await asyncio.wait_for(collector.stop(), 5)

    asyncio.run(scenario())


def test_openssl_s_client(registry: Registry, require: Require) -> None:
    """Another TLS than Python's; and it asks for a renegotiation (R), which nobody gets."""
    require(shutil.which("openssl") is not None, "openssl is not installed")
    bus = MemoryBus()
    certificate, key = registry.issue("ch-kermor")

    def client(port: int, lines: bytes, *options: str) -> bytes:
        place = ["-connect", f"127.0.0.1:{port}", "-CAfile", str(registry.ca), "-verify_return_error"]
        pair = ["-cert", str(certificate), "-key", str(key)]
        command = ["openssl", "s_client", *place, *pair, "-no_ign_eof", *options]
        run = subprocess.run(command, input=lines, capture_output=True, timeout=30, check=False)
        return run.stdout + run.stderr

    async def scenario() -> Collector:
        collector = Collector(bus, [registry.listener()], registry=registry.hospitals)
        async with collecting(collector):
            port = collector.addresses["tls"][1]
            await asyncio.to_thread(client, port, b"<13>one\n")
            said = await asyncio.to_thread(client, port, b"R\n", "-tls1_2")
            assert b"no renegotiation" in said
            said = await asyncio.to_thread(client, port, b"<13>old\n", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
            assert b"no peer certificate available" in said
            await asyncio.to_thread(client, port, b"<13>two\n", "-tls1_2")
            await until(lambda: seen(collector).frames >= 2)
        return collector

    asyncio.run(scenario())
    assert [line for _, line in bus.pairs()] == [b"<13>one", b"<13>two"]

"""The front door under attack: what one peer can cost the others, and what must not open it."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import socket
import ssl
import subprocess
import time
from asyncio import sslproto
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from hospital_certificates import Registry
from ingest import registry as registry_module
from ingest.authority import AuthorityError, check_host, create_authority, issue_client, issue_server
from ingest.certificates import make_authority, make_key
from ingest.channel import REFUSED_HANDSHAKE, REFUSED_LIMIT, REFUSED_SHARE, Channel, Door
from ingest.channel_ledger import Entry, Ledger
from ingest.collect import Collector
from ingest.framing import Framer, Lines
from ingest.hospital import Certificate, Hospital, Hospitals
from ingest.hospital_file import RegistryError, hospital_of_toml
from ingest.listeners import ListenerSettings, ListenerStats, peer_address
from ingest.places import Places
from ingest.readings import Readings
from ingest.receipt_text import read_lines, write_receipt
from ingest.receipts import ReceiptSettings
from ingest.registry import ABANDONED, RegistryWatch, changing, write_file, write_hospital
from ingest.tls import READ_BYTES, PeerCertificate, TlsFiles, TlsIdentity
from ingest.visible import hidden
from memory_bus import MemoryBus

Require = Callable[[bool, str], None]
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.made(tmp_path / "registry")


@asynccontextmanager
async def collecting(
    registry: Registry, listener: ListenerSettings, receipts: ReceiptSettings | None = None
) -> AsyncIterator[Collector]:
    collector = Collector(MemoryBus(), [listener], registry=registry.hospitals, receipts=receipts)
    await collector.start()
    running = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        await collector.stop()
        await running


def seen(collector: Collector) -> ListenerStats:
    (stats,) = collector.stats().listeners.values()
    return stats


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    for _ in range(int(seconds * 200)):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("did not come about in time")


async def sends(collector: Collector, context: ssl.SSLContext, *, end: bool = True) -> asyncio.StreamWriter | None:
    """Whether a TLS client gets in and sends a line."""
    ((host, port),) = collector.addresses.values()
    with suppress(ConnectionError, ssl.SSLError):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(b"<13>a line\n")
        await writer.drain()
        if end:
            writer.close()
            await writer.wait_closed()
        return writer
    return None


# -- whose a channel is, among thousands -------------------------------------------------------------------------


def many(count: int) -> Hospitals:
    def one(number: int) -> Hospital:
        certificate = Certificate(f"{number:064x}", f"{number + 1:x}", NOW, NOW + timedelta(days=1))
        network = f"10.{number // 256}.{number % 256}.0/24"
        return Hospital(f"h{number}", "H", networks=(network,), certificates=(certificate,))

    return Hospitals.of(map(one, range(count)))


def test_a_flood_of_forged_addresses_costs_no_search_through_the_hospitals() -> None:
    def cost(hospitals: Hospitals) -> float:
        door = Door("", True, (), hospitals)
        start = time.process_time()
        for number in range(3000):
            door.tenant(f"172.16.{number // 256}.{number % 256}")
            hospitals.certificate("f" * 64)
        return time.process_time() - start

    assert cost(many(10_000)) < 10 * cost(many(10))  # one by one it was 1,000 times


networks = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: str(ip_network(pair, strict=False)))


@given(st.lists(networks, max_size=8, unique=True), st.one_of(st.ip_addresses(), st.just(ip_address("fe80::1%eth0"))))
def test_the_narrowest_network_holds(texts: list[str], address: object) -> None:
    hospitals = Hospitals.of(Hospital(f"h{number}", "H", networks=(text,)) for number, text in enumerate(texts))
    sought = ip_address(str(address))
    mapped = IPv6Address("::ffff:0:0")
    holding = [ip_network(text) for text in texts if sought in ip_network(text)]
    found = hospitals.at_address(str(address))
    if any(mapped in ip_network(text) and ip_network(text).prefixlen >= 96 for text in texts):
        return  # IPv4 written as IPv6: see below
    assert (found is None) == (not holding)
    if found is not None:
        assert ip_network(found.networks[0]).prefixlen == max(network.prefixlen for network in holding)


def test_ipv4_is_ipv4_however_it_is_written() -> None:
    hospitals = Hospitals.of([Hospital("a", "A", networks=("::ffff:10.0.0.0/104",))])
    found = hospitals.at_address(peer_address(("::ffff:10.1.2.3", "514")))
    assert found is not None
    assert Door("a", False, ("::ffff:10.0.0.0/104",), hospitals).tenant("10.1.2.3") == "a"
    assert peer_address(("::ffff:0:10.1.2.3", "514")) == "::ffff:0:10.1.2.3"  # RFC 2765: translated, not mapped
    written = hospital_of_toml('id = "a"\ntitle = "A"\nnetworks = ["::ffff:10.0.0.0/104"]', "a.toml")
    assert written.networks == ("10.0.0.0/8",)


# -- the registry ------------------------------------------------------------------------------------------------

HEAD = 'id = "a"\ntitle = "A"\n'


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "x = " + "[" * 100_000,
        HEAD + "x = " + "9" * 5000,
        HEAD + 'networks = ["fe80::1%$(reboot)"]',
        HEAD + f'[[certificates]]\nfingerprint = "{"0" * 64}"\nserial = "1"\n'
        "not_before = 0001-01-01T00:00:00+14:00\nnot_after = 2026-01-01T00:00:00Z",
    ],
    ids=["brackets", "digits", "zone", "year 0"],
)
def test_a_hostile_file_is_a_fault_and_no_crash(text: str) -> None:
    with pytest.raises(RegistryError, match=r"a\.toml: "):
        hospital_of_toml(text, "a.toml")


def test_what_is_no_file_does_not_stop_a_running_collector(tmp_path: Path) -> None:
    write_hospital(tmp_path, Hospital("a", "A"))
    watch = RegistryWatch(tmp_path, 0)
    odd = tmp_path / "hospitals" / "b.toml"
    odd_ones: list[Callable[[], None]] = [lambda: odd.symlink_to("b.toml"), lambda: os.mkfifo(odd), odd.mkdir]
    for make in odd_ones:
        make()
        assert not watch.look(time.monotonic())
        assert watch.fault is not None
        assert "b.toml" in watch.fault
        assert list(watch.current.by_id) == ["a"]
        odd.rmdir() if odd.is_dir() else odd.unlink()
    watch.look(time.monotonic())
    assert watch.fault is None


def test_a_folder_that_is_gone_does_not_close_the_door_on_everyone(tmp_path: Path) -> None:
    write_hospital(tmp_path, Hospital("a", "A"))
    watch = RegistryWatch(tmp_path, 0)
    (tmp_path / "hospitals").rename(tmp_path / "away")
    assert not watch.look(time.monotonic())
    assert (watch.fault or "").endswith("is gone")
    assert list(watch.current.by_id) == ["a"]
    (tmp_path / "away").rename(tmp_path / "hospitals")
    (tmp_path / "hospitals" / "a.toml").unlink()
    assert watch.look(time.monotonic())
    assert not watch.current.by_id


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        write_hospital(tmp_path, Hospital(f"h{number}", "H"))
    watch = RegistryWatch(tmp_path, 0)
    read: list[str] = []
    reading = registry_module._read_file

    def noted(path: Path) -> Hospital:
        read.append(path.stem)
        return reading(path)

    monkeypatch.setattr(registry_module, "_read_file", noted)
    file = tmp_path / "hospitals" / "h7.toml"
    file.write_text(file.read_text().replace('"H"', '"changed"'))
    assert watch.look(time.monotonic())
    assert read == ["h7"]
    assert watch.current.by_id["h7"].title == "changed"


def test_halves_of_files_that_may_hold_keys_do_not_stay(tmp_path: Path) -> None:
    for folder in ("hospitals", "authority", "keys"):
        (tmp_path / folder).mkdir()
    old = [
        tmp_path / "authority" / ".ca.key.abcd1234",
        tmp_path / "keys" / ".a.toml.abcd_234",
        tmp_path / ".a.zip.abcdefgh",
    ]
    kept = [
        tmp_path / "authority" / ".server.key.abcd1234",
        tmp_path / "authority" / "ca.key",
        tmp_path / ".b.zip.abcdefgh",
    ]
    for path in (*old, *kept):
        path.touch()
    for path in (*old, *kept[1:]):
        os.utime(path, (time.time() - 2 * ABANDONED,) * 2)
    with changing(tmp_path):
        write_file(tmp_path / "a.zip", b"", 0o600)
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        create_authority(tmp_path / "r" / "authority", "Test", NOW)
        write_hospital(tmp_path / "r", Hospital("a", "A"))
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes["r/authority/ca.key"] == 0o600
    assert modes["r/hospitals/a.toml"] == 0o640
    assert not any(mode & 0o022 for mode in modes.values())
    assert not any(modes[folder] & 0o007 for folder in ("r", "r/authority", "r/hospitals"))


# -- the authority -----------------------------------------------------------------------------------------------


def test_an_interrupted_init_can_be_begun_again(tmp_path: Path) -> None:
    create_authority(tmp_path, "Test", NOW)
    key = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.pem").unlink()
    create_authority(tmp_path, "Test", NOW)
    assert (tmp_path / "ca.key").read_bytes() == key
    issue_server(tmp_path, ["collect.example.org"], NOW)
    issue_client(tmp_path, "a", NOW)
    (tmp_path / "ca.pem").unlink()  # it was at work: what is missing now was lost, and is in every bundle
    with pytest.raises(AuthorityError, match="is not overwritten"):
        create_authority(tmp_path, "Test", NOW)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "fe80::1%$(reboot)", 'fe80::1%"\x1b[2J'])
def test_a_zone_gets_into_no_configuration(host: str) -> None:
    with pytest.raises(AuthorityError) as caught:
        check_host(host)
    assert not any(hidden(character) for character in str(caught.value))


def test_a_hostile_subject_is_short_and_visible() -> None:
    authority, key = make_authority("Test", NOW, 1)
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "\x1b[2J\n" * 10) for _ in range(1000)]
    made = (
        x509.CertificateBuilder()
        .issuer_name(authority.subject)
        .subject_name(x509.Name(organisations))
        .public_key(make_key().public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
        .sign(key, SHA256())
    )
    subject = PeerCertificate.of(made.public_bytes(Encoding.DER)).subject
    assert len(subject) < 2000
    assert not any(hidden(character) for character in subject)


# -- TLS ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["", "ch-kermor"])
@pytest.mark.parametrize("kind", ["another authority", "the collector's own", "the authority's own"])
def test_no_other_certificate_opens_the_door(registry: Registry, tmp_path: Path, kind: str, bound: str) -> None:
    if kind == "another authority":
        pair = Registry.made(tmp_path / "other").issue("ch-kermor")
    else:
        name = "server" if kind == "the collector's own" else "ca"
        pair = registry.authority / f"{name}.pem", registry.authority / f"{name}.key"
    registry.issue("ch-kermor")
    context = registry.client_context(pair)

    async def scenario() -> ListenerStats:
        async with collecting(registry, registry.listener(tenant=bound)) as collector:
            await sends(collector, context)
            await until(lambda: seen(collector).refused == 1)
        return seen(collector)

    stats = asyncio.run(scenario())
    assert (stats.accepted, stats.frames) == (0, 0)


def test_a_session_taken_up_again_does_not_pass_by_the_registry(registry: Registry, require: Require) -> None:
    """TLS 1.2 remembers sessions by their id, tickets or not: the certificate that was shown is asked about again."""
    require(shutil.which("openssl") is not None, "openssl is not installed")
    certificate, key = registry.issue("ch-kermor")
    session = registry.folder / "session"

    def dial(port: int, *more: str) -> str:
        run = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-cert", certificate, "-key", key,
             "-CAfile", registry.ca, *more],
            input=b"Q\n", capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        return run.stdout.decode()

    async def scenario() -> ListenerStats:
        async with collecting(registry, registry.listener()) as collector:
            port = collector.addresses["tls"][1]
            await asyncio.to_thread(dial, port, "-sess_out", str(session))
            again = await asyncio.to_thread(dial, port, "-sess_in", str(session))
            assert "Reused, TLSv1.2" in again
            registry.change("ch-kermor", revoked=NOW)
            await until(lambda: collector.hospitals is registry.snapshot)
            await asyncio.to_thread(dial, port, "-sess_in", str(session))
            await until(lambda: seen(collector).refused == 1)
        return seen(collector)

    stats = asyncio.run(scenario())
    assert (dict(stats.refusals), stats.accepted) == ({"certificate revoked": 1}, 2)


def test_old_versions_and_tickets_are_not_spoken(registry: Registry) -> None:
    listener = registry.listener()
    assert listener.certificate is not None
    assert listener.key is not None
    context = TlsIdentity(TlsFiles(listener.certificate, listener.key, registry.ca), "x", time.monotonic).context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_TICKET
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.num_tickets == 0


def test_sessions_that_are_remembered_are_few(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.tls.MAX_SESSIONS", 3)
    monkeypatch.setattr("ingest.tls.LOOK_SECONDS", 0.0)
    contexts = set()
    making = registry.client_context(registry.issue("ch-kermor"))
    making.maximum_version = ssl.TLSVersion.TLSv1_2
    listener = registry.listener()
    assert listener.certificate is not None
    assert listener.key is not None
    identity = TlsIdentity(TlsFiles(listener.certificate, listener.key, registry.ca), "x", time.monotonic)
    for _ in range(12):
        context = identity.context()
        contexts.add(context)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            shake_hands(context, ours, making, theirs)
        assert context.session_stats()["number"] <= 4
    assert len(contexts) == 3


def shake_hands(server: ssl.SSLContext, ours: socket.socket, client: ssl.SSLContext, theirs: socket.socket) -> None:
    """A whole TLS connection, ended in good order, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(5):
        for side in (asking, serving):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    for _ in range(2):
        for side in (asking, serving):
            with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                side.unwrap()
    del ours, theirs


def test_handshakes_that_do_not_end_keep_nobody_out(registry: Registry) -> None:
    """One address holds every place with handshakes; another comes in all the same, and the first loses one."""
    listener = replace(registry.listener(), max_connections=5, handshake_timeout=30.0)
    context = registry.client_context(registry.issue("ch-kermor"))

    async def scenario() -> ListenerStats:
        async with collecting(registry, listener) as collector:
            with ExitStack() as stuck:
                for _ in range(8):
                    stuck.enter_context(
                        socket.create_connection(collector.addresses["tls"], source_address=("127.0.9.9", 0))
                    )
                await until(lambda: seen(collector).refused == 3)
                for _ in range(2):
                    assert await sends(collector, context) is not None
                await until(lambda: seen(collector).frames == 2)
                between = dict(seen(collector).refusals)
            await until(lambda: REFUSED_HANDSHAKE in seen(collector).refusals)
        assert between == {REFUSED_LIMIT: 4}  # the second found the place that the first one had left
        return seen(collector)

    assert asyncio.run(scenario()).accepted == 2


def test_a_handshake_takes_little_memory(registry: Registry) -> None:
    async def scenario() -> list[int]:
        async with collecting(registry, registry.listener()) as collector:
            with socket.create_connection(collector.addresses["tls"]):
                protocols: list[sslproto.SSLProtocol] = []
                for _ in range(1000):
                    protocols = [one for one in gc.get_objects() if isinstance(one, sslproto.SSLProtocol)]
                    if protocols:
                        break
                    await asyncio.sleep(0.005)
                return [len(vars(one)["_ssl_buffer"]) for one in protocols]

    sizes = asyncio.run(scenario())
    assert sizes
    assert max(sizes) == READ_BYTES


# -- places ------------------------------------------------------------------------------------------------------


def test_the_last_places_are_for_those_who_have_few() -> None:
    places: Places[int] = Places(100, several=True)
    assert sum(places.take("mad") for _ in range(200)) == 90
    assert [places.take(f"h{number}") for number in range(11)] == [True] * 10 + [True]
    places = Places(100, several=False)
    assert sum(places.take("only") for _ in range(100)) == 100


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["expect", "forget", "way", "take", "leave"]))))
def test_places_are_counted(steps: list[tuple[str, str]]) -> None:
    places: Places[int] = Places(5, several=True)
    expected: dict[str, list[int]] = {"a": [], "b": []}
    held = {"a": 0, "b": 0}
    for number, (who, step) in enumerate(steps):
        if step == "expect":
            places.expect(number, who)
            expected[who].append(number)
        elif step == "forget" and expected[who]:
            places.forget(expected[who].pop(), who)
            places.forget(-1, who)
        elif step == "way":
            other = "b" if who == "a" else "a"
            wanted = expected[other][0] if len(expected[other]) > len(expected[who]) else None
            assert places.give_way(who) == wanted
            if wanted is not None:
                del expected[other][0]
        elif step == "take":
            assert places.take(who)
            held[who] += 1
        elif step == "leave" and held[who]:
            places.leave(who)
            held[who] -= 1
        assert places.full == (sum(held.values()) + sum(map(len, expected.values())) >= 5)


def test_one_hospital_cannot_take_every_connection(registry: Registry) -> None:
    mad, other = (registry.client_context(registry.issue(name)) for name in ("mad", "other"))

    async def scenario() -> ListenerStats:
        async with collecting(registry, replace(registry.listener(), max_connections=20)) as collector:
            writers = [await sends(collector, mad, end=False) for _ in range(20)]
            await until(lambda: seen(collector).refused == 2)
            assert await sends(collector, other) is not None
            await until(lambda: seen(collector).accepted == 19)
            for writer in writers:
                if writer is not None:
                    writer.close()
        return seen(collector)

    assert dict(asyncio.run(scenario()).refusals) == {REFUSED_SHARE: 2}


def test_frames_that_do_not_end_fill_no_memory_and_what_came_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.tcp_connection.MAX_HELD", 1000)
    listener = ListenerSettings("in", "tcp", "127.0.0.1", 0, "ch-kermor")

    async def scenario() -> Collector:
        collector = Collector(MemoryBus(), [listener])
        await collector.start()
        running = asyncio.create_task(collector.run())
        with ExitStack() as opened:
            senders = [opened.enter_context(socket.create_connection(collector.addresses["in"])) for _ in range(4)]
            for number, sender in enumerate(senders):
                sender.sendall(b"<13>" + b"x" * (300 + number))
            await until(lambda: seen(collector).stalled == 1)
            await until(lambda: seen(collector).connections == 3)
            assert seen(collector).frames == 1
            senders[0].sendall(b"\n")
            await until(lambda: seen(collector).frames == 2)
        await collector.stop()
        await running
        return collector

    assert seen(asyncio.run(scenario())).frames == 4


# -- framing, receipts -------------------------------------------------------------------------------------------


def test_nothing_but_newlines_between_counted_frames_costs_no_more_than_frames() -> None:
    def cost(data: bytes) -> float:
        framer = Framer()
        framer.receive_lines(b"5 hello")
        start = time.process_time()
        framer.receive_lines(data)
        return time.process_time() - start

    assert cost(b"\n" * 262_144) < cost(b"5 hello" * (262_144 // 7))  # byte by byte it was 10 times as much
    framer = Framer()
    lines = framer.receive_lines(b"1 a" + b"\r\n\0" * 100 + b"1 b\n\n")
    assert (lines.lines, framer.counts.empty) == ([b"a", b"b"], 302)


@pytest.mark.parametrize("kept", [b"4194304 ", b"<"], ids=["octets", "newline"])
def test_a_byte_at_a_time_costs_the_same_at_the_end_as_at_the_beginning(kept: bytes) -> None:
    framer = Framer(4 << 20)
    framer.receive_lines(kept)

    def cost() -> float:
        start = time.process_time()
        for _ in range(20_000):
            framer.receive_lines(b"a")
        return time.process_time() - start

    first = cost()
    framer.receive_lines(b"a" * 3_000_000)
    assert cost() < 5 * first


@pytest.mark.parametrize("target", [b"//[x", b"//[::1/receipt", b"http://[/receipt"])
def test_a_target_that_is_none_is_answered(registry: Registry, target: bytes) -> None:
    listener = registry.listener()
    assert listener.certificate is not None
    assert listener.key is not None
    where = ReceiptSettings("127.0.0.1", 0, listener.certificate, listener.key, registry.ca)
    context = registry.client_context(registry.issue("ch-kermor"))

    async def scenario() -> bytes:
        async with collecting(registry, listener, where) as collector:
            assert collector.receipts is not None
            reader, writer = await asyncio.open_connection(*collector.receipts.address, ssl=context)
            writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            return answer

    assert asyncio.run(scenario()).startswith(b"HTTP/1.1 400 ")


def test_a_waiting_request_does_not_look_through_all_senders() -> None:
    ledger = Ledger(lambda: NOW)
    for number in range(5):
        for hospital in ("a", "b"):
            ledger.hear(Channel(hospital, f"192.0.2.{number}"), Lines([b"x"]), NOW)
            assert ledger.newest(hospital) is ledger.of(hospital)[0]
    still = ledger.snapshot("a", 2)
    assert [entry.peer for entry in still] == [f"192.0.2.{number}" for number in (4, 3, 2, 1, 0)]
    assert still[0] is not ledger.newest("a")
    assert ledger.newest("c") is None


def test_lines_that_are_hard_to_read_do_not_hold_a_receipt_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.receipt_text.MAX_READ", 100)
    lines = [b"<13>" + b"x" * 500, b"<13>" + b"y" * 60, b"<13>" + b"z" * 60, b"<13>w"]
    entries = [Entry("t", f"192.0.2.{number}", NOW, 1, 1, 1, NOW, 1, line) for number, line in enumerate(lines)]
    text, verdict = write_receipt("t", entries, NOW, "en", Readings())
    assert verdict == "not_understood"  # the newest is read, however long
    assert sorted(read_lines(entries, Readings())) == [0, 1, 3]
    assert text.count("too long for a receipt") == 1


def test_a_hospital_that_asks_without_end_keeps_no_other_waiting(registry: Registry) -> None:
    listener = registry.listener()
    assert listener.certificate is not None
    assert listener.key is not None
    where = ReceiptSettings("127.0.0.1", 0, listener.certificate, listener.key, registry.ca)

    async def scenario() -> list[str]:
        served: list[str] = []
        async with collecting(registry, listener, where) as collector:
            assert collector.receipts is not None

            async def ask(hospital: str) -> None:
                assert collector.receipts is not None
                async with collector.receipts.turn(hospital):
                    served.append(hospital)
                    await asyncio.sleep(0.02)

            asked = [asyncio.create_task(ask(hospital)) for hospital in ["mad"] * 10 + ["other"]]
            await asyncio.gather(*asked)
        return served

    assert asyncio.run(scenario())[:2] == ["mad", "other"]

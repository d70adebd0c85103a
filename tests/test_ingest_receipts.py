"""Receipts over real TLS, asked for with curl and with raw sockets; and their text, without either."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hospital_certificates import Registry
from ingest.bus import Message, Position
from ingest.channel import REFUSED_HANDSHAKE, REFUSED_REVOKED, Channel
from ingest.channel_ledger import MAX_KEPT_BYTES, OTHERS, Entry, Ledger
from ingest.collect import Collector
from ingest.framing import Lines
from ingest.readings import Readings
from ingest.receipt_text import Language, write_receipt
from ingest.receipts import ReceiptSettings
from ingest.visible import hidden
from memory_bus import MemoryBus

Require = Callable[[bool, str], None]
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SSHD = b"<38>1 2026-11-23T12:00:00Z srv-1 sshd 42 - - Failed password for root from 192.0.2.7 port 4242 ssh2"
STRANGE = b"\x1b[2Jnobody knows this"


class WaitingBus(MemoryBus):
    """A bus that takes messages once `free` is set."""

    def __init__(self, *, free: bool = True) -> None:
        super().__init__()
        self.free = free

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        deadline = datetime.now(UTC) + timedelta(seconds=20)
        while not self.free and datetime.now(UTC) < deadline:
            pass
        return super().publish(messages)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.made(tmp_path / "registry")


@asynccontextmanager
async def collecting(registry: Registry, *, free: bool = True) -> AsyncIterator[Collector]:
    listener = registry.listener()
    assert listener.certificate is not None
    assert listener.key is not None
    assert listener.client_ca is not None
    where = ReceiptSettings("127.0.0.1", 0, listener.certificate, listener.key, listener.client_ca)
    bus = WaitingBus(free=free)
    collector = Collector(bus, [listener], registry=registry.hospitals, receipts=where)
    await collector.start()
    running = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        bus.free = True
        await collector.stop()
        await running


async def talk(address: tuple[str, int], context: ssl.SSLContext, data: bytes) -> bytes:
    """Send and read to the end; empty if the other side does not want to talk."""
    answer = b""
    with suppress(ConnectionError, ssl.SSLError):
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await writer.wait_closed()
    return answer


async def send(collector: Collector, context: ssl.SSLContext, data: bytes) -> None:
    frames = collector.stats().listeners["tls"].frames
    _, writer = await asyncio.open_connection(*collector.addresses["tls"], ssl=context)
    writer.write(data)
    writer.close()
    with suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    while collector.stats().listeners["tls"].frames == frames:  # noqa: ASYNC110 - nothing says so
        await asyncio.sleep(0.005)


def receipts(collector: Collector) -> tuple[str, int]:
    assert collector.receipts is not None
    return collector.receipts.address


@pytest.mark.parametrize(
    ("line", "lang", "verdict"),
    [
        (SSHD, "en", "received, understood"),
        (SSHD, "fr", "reçu, compris"),
        (STRANGE, "en", "received, not understood"),
        (STRANGE, "fr", "reçu, non compris"),
        (None, "en", "nothing received yet"),
        (None, "fr", "rien reçu pour l'instant"),
    ],
)
def test_curl_is_told_in_the_last_line(
    registry: Registry, require: Require, monkeypatch: pytest.MonkeyPatch, line: bytes | None, lang: str, verdict: str
) -> None:
    require(shutil.which("curl") is not None, "curl is not installed")
    monkeypatch.setattr("ingest.receipts.WAIT_SECONDS", 3.0 if line else 0.1)
    kermor, brest = registry.issue("ch-kermor"), registry.issue("chu-brest")

    async def scenario() -> str:
        async with collecting(registry) as collector:
            await send(collector, registry.client_context(brest), b"<13>the neighbour's own\n")
            if line is not None:
                await send(collector, registry.client_context(kermor), line + b"\n")
            url = f"https://127.0.0.1:{receipts(collector)[1]}/receipt?lang={lang}"
            place = ["--cacert", str(registry.ca), "--cert", str(kermor[0]), "--key", str(kermor[1])]
            run = await asyncio.create_subprocess_exec(
                "curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "20", *place, url,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await run.communicate()
            assert run.returncode == 0
            return out.decode()

    text = asyncio.run(scenario())
    assert text.splitlines()[-1] == verdict
    assert "ch-kermor" in text
    assert "neighbour" not in text
    assert "chu-brest" not in text
    assert "\x1b" not in text
    if line is SSHD and lang == "en":
        assert "  lines: 1 received, 1 on the bus" in text
        assert "Failed password for root" in text
        assert "(linux/_/sshd)" in text


def test_a_line_that_the_bus_does_not_have_is_not_received_in_full(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.receipts.WAIT_SECONDS", 0.1)
    context = registry.client_context(registry.issue("ch-kermor"))

    async def scenario() -> bytes:
        async with collecting(registry, free=False) as collector:
            await send(collector, context, SSHD + b"\n")
            return await talk(receipts(collector), context, b"GET /receipt?lang=en HTTP/1.1\r\nHost: x\r\n\r\n")

    answer = asyncio.run(scenario()).decode()
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.splitlines()[-1] == "received, not yet on the bus"
    assert "  lines: 1 received, 0 on the bus" in answer


@pytest.mark.parametrize("lang", ["fr", "en"])
def test_what_patients_listeners_take_is_not_shown(lang: Language) -> None:
    entry = Entry("t", "192.0.2.1", NOON, frames=1, durable=1, durable_at=NOON, newest=1, last=SSHD, patient_data=True)
    text, verdict = write_receipt("t", [entry], NOON, lang, Readings())
    assert verdict == "understood"
    assert "Failed" not in text
    assert "Failed" in write_receipt("t", [replace(entry, patient_data=False)], NOON, lang, Readings())[0]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /receipt/../receipt HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"POST /receipt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"GET /receipt HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (b"\x00\x01\x02\r\n\r\n", b"400"),
        (b"GET /receipt HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"400"),
        (b"GET /receipt HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, b"400"),
    ],
    ids=["another path", "dots", "POST", "no Host", "no HTTP", "a huge header", "headers without end"],
)
def test_other_requests_are_answered_in_short(registry: Registry, request_: bytes, status: bytes) -> None:
    context = registry.client_context(registry.issue("ch-kermor"))

    async def scenario() -> bytes:
        async with collecting(registry) as collector:
            return await talk(receipts(collector), context, request_)

    answer = asyncio.run(scenario())
    assert answer == b"" or answer.split()[1] == status  # a client that still writes may see a reset instead
    assert answer or len(request_) > 8192


def test_a_request_that_never_ends_is_given_up(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.receipts.REQUEST_SECONDS", 0.2)
    context = registry.client_context(registry.issue("ch-kermor"))

    async def scenario() -> bytes:
        async with collecting(registry) as collector:
            return await asyncio.wait_for(talk(receipts(collector), context, b"GET /receipt HT"), 5)

    assert asyncio.run(scenario()) == b""


def test_who_is_not_known_is_told_nothing(registry: Registry) -> None:
    kermor, brest = registry.issue("ch-kermor"), registry.issue("chu-brest")
    registry.change("chu-brest", revoked=datetime.now(UTC))
    ask = b"GET /receipt HTTP/1.1\r\nHost: x\r\n\r\n"

    async def scenario() -> dict[str, int]:
        async with collecting(registry) as collector:
            await send(collector, registry.client_context(kermor), SSHD + b"\n")
            assert await talk(receipts(collector), registry.client_context(brest), ask) == b""
            assert await talk(receipts(collector), registry.client_context(None), ask) == b""
            assert collector.receipts is not None
            return dict(collector.receipts.stats().refusals)

    assert asyncio.run(scenario()) == {REFUSED_REVOKED: 1, REFUSED_HANDSHAKE: 1}


# -- the ledger and the text ---------------------------------------------------------------------------------------


def test_only_the_newest_line_says_whether_all_is_on_the_bus() -> None:
    ledger = Ledger(lambda: NOON)
    channel = Channel("t", "192.0.2.1")
    _, first = ledger.hear(channel, Lines([SSHD]), NOON)
    _, second = ledger.hear(channel, Lines([SSHD]), NOON)

    def verdict() -> str:
        return write_receipt("t", ledger.of("t"), NOON, "en", Readings())[1]

    assert verdict() == "not_durable"
    first()
    assert verdict() == "not_durable"
    second()
    assert verdict() == "understood"
    assert [(entry.frames, entry.durable) for entry in ledger.of("t")] == [(2, 2)]
    _, third = ledger.hear(Channel("t", "192.0.2.2"), Lines([STRANGE]), NOON)
    third()
    assert verdict() == "not_understood"


def test_forged_senders_do_not_fill_the_memory_and_no_line_goes_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.channel_ledger.MAX_PEERS", 100)
    ledger = Ledger(lambda: NOON)
    accounts = [
        ledger.hear(Channel(f"t{number % 2}", f"192.0.2.{number}"), Lines([b"x" * 10] * 3), NOON)
        for number in range(1000)
    ]
    for _, settle in accounts:
        settle()
    stats = ledger.stats()
    assert len(stats) == 102
    assert {tenant for tenant, peer in stats if peer == OTHERS} == {"t0", "t1"}
    assert sum(peer.frames for peer in stats.values()) == sum(peer.durable for peer in stats.values()) == 3000


def test_lines_are_let_go_before_they_fill_the_memory() -> None:
    ledger = Ledger(lambda: NOON)
    line = b"x" * (MAX_KEPT_BYTES // 8)
    for number in range(20):
        _, settle = ledger.hear(Channel("t", f"192.0.2.{number}"), Lines([line[:-1] + b"%d" % (number % 10)]), NOON)
        settle()
    kept = [entry.last is not None for entry in ledger.of("t")]
    assert kept == [True] * 8 + [False] * 12  # the most recent first
    text, verdict = write_receipt("t", ledger.of("t")[8:], NOON, "en", Readings())
    assert "the line is no longer at hand" in text
    assert verdict == "not_understood"


@settings(deadline=None, max_examples=50)
@given(line=st.binary(min_size=1, max_size=400), peer=st.text(max_size=20))
def test_any_line_can_be_shown(line: bytes, peer: str) -> None:
    entry = Entry("t", peer, NOON, frames=1, durable=1, durable_at=NOON, newest=1, last=line)
    text, _ = write_receipt("t", [entry], NOON, "fr", Readings())
    assert not any(hidden(character) for character in text if character != "\n")
    assert text.splitlines()[-1] in ("reçu, compris", "reçu, non compris")

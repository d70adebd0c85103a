"""Receipts: where a hospital asks, with its certificate, what became of the lines it sent.

    GET /receipt?lang=fr|en   ->   text/plain, for the hospital of the certificate and for no other

HTTP/1.1 over TLS, one request a connection (h11). Admission is that of the TLS listeners: the same authority, the same
registry, the same refusals. A request that comes right behind a line waits a little for the bus, so that the answer of
a first test is not "not yet".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast
from urllib.parse import parse_qs, urlsplit

import h11
import structlog

from ingest.channel_ledger import Ledger
from ingest.framing import Framer
from ingest.listeners import Intake, ListenerSettings
from ingest.readings import Readings
from ingest.receipt_text import MAX_SENDERS, Language, verdict_before_reading, write_receipt
from ingest.tcp_connection import Stream, TcpConnection
from ingest.tcp_listener import TcpListener

MAX_REQUEST: Final = 8192
"""Bytes of a request with its headers. Precedent: nginx, Apache and IIS take 8 to 16 KiB."""

REQUEST_SECONDS: Final = 10.0
"""How long a connection may take, from its handshake to the end of its request."""

WAIT_SECONDS: Final = 3.0
"""How long a request waits for the bus to have the newest line."""

MAX_CONNECTIONS: Final = 100
MAX_READING: Final = 2
"""Receipts for which lines are read at once, of different hospitals."""

_TICK: Final = 0.05

_REASONS: Final[Mapping[int, bytes]] = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 405: b"Method Not Allowed"}

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


@dataclass(frozen=True, slots=True)
class ReceiptSettings:
    """Where receipts are asked for.

    Attributes:
        host: Address or name of an interface of this machine.
        port: 0 lets the system choose.
        certificate: Ours and its chain, PEM.
        key: Its key, PEM.
        client_ca: Who must have signed the clients' certificates, PEM.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    client_ca: Path


class ReceiptListener(TcpListener):
    """Answers hospitals. As a listener it hears nothing: no line ever comes from it.

    Args:
        settings: Where.
        intake: Whom it asks for the registry and the time.
        ledger: What came from each sender.
    """

    def __init__(self, settings: ReceiptSettings, intake: Intake, ledger: Ledger) -> None:
        place = ListenerSettings(
            "receipts",
            "tls",
            settings.host,
            settings.port,
            max_connections=MAX_CONNECTIONS,
            certificate=settings.certificate,
            key=settings.key,
            client_ca=settings.client_ca,
            idle_timeout=REQUEST_SECONDS,
        )
        super().__init__(place, intake, lambda _, peer, tenant: _ReceiptConnection(self, peer, tenant))
        self.ledger = ledger
        self._turns: dict[str, asyncio.Lock] = {}
        self._reading = asyncio.Semaphore(MAX_READING)

    @asynccontextmanager
    async def turn(self, hospital: str) -> AsyncIterator[None]:
        """Read for this hospital: one receipt of it after the other, so that its requests keep no other waiting."""
        async with self._turns.setdefault(hospital, asyncio.Lock()), self._reading:
            yield


class _ReceiptConnection(TcpConnection):
    """One request and its answer."""

    def __init__(self, owner: ReceiptListener, peer: str, tenant: str) -> None:
        super().__init__(owner, peer, tenant)
        self._ledger = owner.ledger
        self._turn_of = owner.turn
        self._received = 0
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)
        self._answering: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def make_stream(self) -> Stream:
        """Nothing is framed here."""
        return Framer(1)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `TcpConnection`."""
        super().connection_made(transport)
        self._deadline = self._loop.call_later(REQUEST_SECONDS, self._too_late)

    def data_received(self, data: bytes) -> None:
        """Read the request."""
        if self._ended or self._answering is not None:
            return
        self._received += len(data)
        if self._received > MAX_REQUEST:
            self._respond(400, "request too long\n")
            return
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._respond(error.error_status_hint if error.error_status_hint in _REASONS else 400, "bad request\n")
            return
        if isinstance(event, h11.Request):
            self._answering = self._loop.create_task(self._answer(event))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `TcpConnection`."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._answering is not None and exc is not None:
            self._answering.cancel()
        super().connection_lost(exc)

    def _too_late(self) -> None:
        if self._answering is None:
            self.close()

    async def _answer(self, request: h11.Request) -> None:
        try:
            target = urlsplit(request.target.decode("latin-1"))
        except ValueError:  # half an IPv6 address, as in //[
            self._respond(400, "bad request\n")
            return
        if target.path != "/receipt":
            self._respond(404, "GET /receipt?lang=fr\n")
        elif request.method != b"GET":
            self._respond(405, "GET /receipt?lang=fr\n")
        else:
            language: Language = "en" if parse_qs(target.query).get("lang", ["fr"])[0] == "en" else "fr"
            self._respond(200, await self._receipt(language))

    async def _receipt(self, language: Language) -> str:
        tenant, intake = self.channel.tenant, self._owner.intake
        deadline = self._loop.time() + WAIT_SECONDS
        while verdict_before_reading(self._ledger.newest(tenant)) is not None and self._loop.time() < deadline:  # noqa: ASYNC110 - seldom, and briefly
            await asyncio.sleep(_TICK)
        # Lines are read by the parsers, which take their time with an odd one: not on the loop that takes lines in.
        async with self._turn_of(tenant):
            entries, now = self._ledger.snapshot(tenant, MAX_SENDERS), intake.now()
            text, verdict = await asyncio.to_thread(
                write_receipt, tenant, entries, now, language, Readings(intake.hospitals)
            )
        _log.info("receipt", hospital=tenant, peer=self.channel.peer, verdict=verdict)
        return text

    def _respond(self, status: int, text: str) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        body = text.encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ]
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = h11.Response(status_code=status, headers=headers, reason=_REASONS[status])
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self._transport.write(self._http.send(event) or b"")
        self.close()

"""Syslog over TCP: one framer a connection (RFC 6587).

`_TcpConnection.connection_made` is the one place that says whose a connection is: a transport that authenticates its
peers has that one place to change.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import cast

import structlog

from ingest.framing import Framer
from ingest.listeners import (
    BACKLOG,
    Counts,
    Intake,
    ListenerSettings,
    ListenerStats,
    bind,
    bound_address,
    peer_address,
    worth_logging,
)

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class TcpListener:
    """Syslog over TCP."""

    def __init__(self, settings: ListenerSettings, intake: Intake) -> None:
        self.settings = settings
        self.intake = intake
        self.counts = Counts()
        self.connections: set[_TcpConnection] = set()
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """See `Listener`."""
        self._socket = await bind(self.settings, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _TcpConnection(self), sock=self._socket, backlog=BACKLOG)

    @property
    def address(self) -> tuple[str, int]:
        """See `Listener`."""
        return bound_address(self._socket)

    def pause(self) -> None:
        """See `Listener`."""
        for connection in self.connections:
            connection.pause()

    def resume(self) -> None:
        """See `Listener`."""
        for connection in self.connections:
            connection.resume()

    def unread(self) -> bool:
        """See `Listener`."""
        poll = select.poll()
        for descriptor in (self._socket, *(connection.socket for connection in self.connections)):
            if descriptor is not None and descriptor.fileno() >= 0:
                poll.register(descriptor.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """See `Listener`."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.close()

    @property
    def closed(self) -> bool:
        """See `Listener`."""
        return not self.connections

    def stats(self) -> ListenerStats:
        """See `Listener`."""
        return self.counts.stats(self.settings, connections=len(self.connections))


class _TcpConnection(asyncio.Protocol):
    """One sender: bytes into its framer, lines into the intake."""

    def __init__(self, listener: TcpListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._framer = Framer(listener.settings.max_frame, listener.counts.framing)
        self._tenant = self._peer = ""
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.socket: socket.socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._tenant = self._listener.settings.tenant
        self._peer = peer_address(transport.get_extra_info("peername"))
        counts, limit = self._listener.counts, self._listener.settings.max_connections
        if len(self._listener.connections) >= limit:
            counts.refused += 1
            if worth_logging(counts.refused):
                name = self._listener.settings.name
                _log.warning("connection refused", listener=name, peer=self._peer, limit=limit, refused=counts.refused)
            self._transport.abort()
            return
        counts.accepted += 1
        self._listener.connections.add(self)
        self.socket = transport.get_extra_info("socket")
        _keep_alive(self.socket)
        if self._listener.intake.full:
            self.pause()
        self._watch_silence()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        lines = self._framer.receive_lines(data)
        if lines.lines:
            self._listener.intake.take(self._tenant, self._peer, lines)

    def connection_lost(self, exc: Exception | None) -> None:
        if self not in self._listener.connections:
            return
        self._listener.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        lines = self._framer.close_lines()
        if lines.lines:
            self._listener.intake.take(self._tenant, self._peer, lines)
        _log.debug("connection closed", listener=self._listener.settings.name, peer=self._peer, error=str(exc or ""))

    def pause(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._heard = self._loop.time()  # it was we who did not listen
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _watch_silence(self) -> None:
        """Close if silent for too long, else look again when that could be."""
        timeout = self._listener.settings.idle_timeout
        if not timeout or self._transport is None or self._transport.is_closing():
            return
        left = self._heard + timeout - self._loop.time()
        if left > 0 or not self._transport.is_reading():
            self._timer = self._loop.call_later(left if left > 0 else timeout, self._watch_silence)
            return
        self._listener.counts.idled += 1
        _log.info("connection closed for silence", listener=self._listener.settings.name, peer=self._peer)
        self._transport.close()


def _keep_alive(connection: socket.socket | None) -> None:
    """Find out within some minutes that a peer has vanished."""
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

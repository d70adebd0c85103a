"""One RELP connection: as TCP, but each line is answered once the bus has it on disk.

The connection outlives its reading: after a fault, the client's close, or the collector's stop, it stays until the
lines it brought are answered, since each answer spares the sender from sending a line again.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from typing import cast

import structlog

from ingest.framing import Lines
from ingest.listeners import worth_logging
from ingest.relp import SERVER_CLOSE, RelpSession
from ingest.tcp_connection import Owner, Stream, TcpConnection
from ingest.visible import visible

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class RelpConnection(TcpConnection):
    """One RELP sender. See `TcpConnection`."""

    def __init__(self, owner: Owner, peer: str, tenant: str) -> None:
        super().__init__(owner, peer, tenant)
        self._choked = False  # the sender does not read our answers
        self._handed = 0  # lines that the intake was given
        self._settled = 0  # of these, lines that the bus has: answers go by their number alone, so none may be left out
        self._told = False  # the client was told that we close

    def make_stream(self) -> Stream:
        """See `TcpConnection`."""
        self._session = RelpSession(self._owner.settings.max_frame, self._owner.counts.framing)
        return self._session

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `TcpConnection`."""
        super().connection_made(transport)
        if not self._ended:
            self.channel = replace(self.channel, session=self._owner.intake.new_session())

    def data_received(self, data: bytes) -> None:
        """See `TcpConnection`."""
        _acknowledge_at_once(self.socket)
        before = self._session.opened
        super().data_received(data)
        self._owner.counts.sessions += self._session.opened and not before
        self._answer()
        if self._session.ended and not self._ended:
            self._end_session()
        elif self._session.crowded:
            self.set_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `TcpConnection`."""
        super().connection_lost(exc)
        self._session.forget()  # its lines may wait on disk for hours, and come again session after session

    def hand_on(self, lines: Lines) -> None:
        """See `TcpConnection`."""
        first, count = self._handed, len(lines.lines)
        self._handed += count
        self._owner.intake.take(self.channel, lines, lambda: self._durable(first, count))

    @property
    def unacknowledged(self) -> int:
        """See `TcpConnection`."""
        return self._session.unacknowledged

    @property
    def wants_pause(self) -> bool:
        """See `TcpConnection`."""
        return self._choked or self._session.crowded

    def pause_writing(self) -> None:
        """The sender does not read its answers: it is not read either."""
        self._choked = True
        self.set_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._choked = False
        self.set_reading()

    def close(self) -> None:
        """End the connection when all is answered."""
        self.end_reading()
        if self._session.unacknowledged == 0:
            self.part()

    def part(self) -> None:
        """End the connection now; what is not answered the client will send again."""
        self.end_reading()
        if self._transport is None or self._transport.is_closing():
            return
        if not self._told:
            self._told = True
            self._transport.write(SERVER_CLOSE)
        self._transport.close()

    def _durable(self, first: int, count: int) -> None:
        """The bus has `count` lines, from the `first` on. If those before it were lost, the client must send again."""
        if self._transport is None or self._transport.is_closing():
            return  # nobody is there to be told
        if first != self._settled:
            peer, name = visible(self.channel.peer), self._owner.settings.name
            _log.error(
                "lines were lost behind the collector: their sender is to send them again", listener=name, peer=peer
            )
            self.part()
            return
        self._settled += count
        self._session.acknowledge(count)
        self._answer()
        if self._transport.is_closing():
            return
        if self._ended and self._session.unacknowledged == 0:
            self.part()
        else:
            self.set_reading()

    def _answer(self) -> None:
        replies = self._session.take_replies()
        if replies and self._transport is not None and not self._transport.is_closing():
            self._transport.write(replies)
        self._told |= self._session.closed

    def _end_session(self) -> None:
        """The client has closed, or does not speak RELP."""
        if self._session.fault is not None:
            counts, name = self._owner.counts, self._owner.settings.name
            counts.faults[self._session.fault] += 1
            sessions = counts.faults[self._session.fault]
            if worth_logging(sessions):
                peer, fault = visible(self.channel.peer), self._session.fault
                _log.warning("RELP session ended", listener=name, peer=peer, fault=fault, sessions=sessions)
        self.close()


def _acknowledge_at_once(connection: socket.socket | None) -> None:
    """Have the kernel acknowledge what it received without its usual delay of 40 ms.

    A client's kernel holds back the last, small segment of a window until the ones before are acknowledged (Nagle),
    while ours waits for an answer to send along, which we give only to whole frames: both would wait for each other,
    once a window. The option does not last (tcp(7)), so it is set each time.
    """
    if connection is not None and hasattr(socket, "TCP_QUICKACK"):
        with suppress(OSError):  # the connection has just ended
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

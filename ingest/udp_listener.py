"""Syslog over UDP: one datagram, one message (RFC 5426).

Lost datagrams are the price of UDP, and are at least counted: those that came while too much of the hospital was
waiting for the bus, and those that the kernel dropped since a buffer was full (`SO_MEMINFO`).

Several sockets may share the port (SO_REUSEPORT): the kernel deals senders out to them by their address, so each has a
buffer of its own behind it, and a sender's lines keep their order.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, cast

import structlog

from ingest.channel import Channel, Refusal
from ingest.framing import Lines, frame_datagram
from ingest.listeners import (
    Counts,
    Intake,
    ListenerSettings,
    ListenerStats,
    bind,
    bound_address,
    door_of,
    peer_address,
    renew_door,
    worth_logging,
)

_BURST: Final = 512  # datagrams read in one turn of the event loop
_BURST_BYTES: Final = 1 << 20  # and their bytes: whether there is room is asked once a burst
_DATAGRAM: Final = 65_536
_SO_RCVBUFFORCE: Final = 33  # Linux; not in the socket module
_SO_MEMINFO: Final = 55  # Linux 4.12; nine 32-bit counters, the last of which is the drops
_MEMINFO: Final = struct.Struct("=9I")

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


@dataclass(slots=True)
class _Sender:
    """A sender in one burst: whose it is, what it sent, and whether there is room for it."""

    channel: Channel | Refusal
    full: bool = False
    lines: Lines = field(default_factory=Lines)


class UdpListener:
    """Syslog over UDP. Not an asyncio transport: that one reads a single datagram a turn of the loop."""

    def __init__(self, settings: ListenerSettings, intake: Intake) -> None:
        self.settings = settings
        self.intake = intake
        self.counts = Counts()
        self.door = door_of(settings, intake)
        self._sockets: list[socket.socket] = []
        self._buffer = bytearray(_DATAGRAM)
        self._kernel_dropped = 0
        self._failures = 0

    async def open(self) -> None:
        """See `Listener`."""
        self._sockets = await self._bind()
        loop = asyncio.get_running_loop()
        for udp in self._sockets:
            granted, asked = _ask_receive_buffer(udp, self.settings.receive_buffer), self.settings.receive_buffer
            if granted < asked:
                _log.info("small receive buffer", listener=self.settings.name, granted=granted, asked=asked)
            loop.add_reader(udp.fileno(), partial(self._read, udp))

    async def _bind(self) -> list[socket.socket]:
        """The sockets, on one port. A port that another process shares would cost us its share of the lines."""
        first = await bind(self.settings, socket.SOCK_DGRAM)
        if self.settings.sockets == 1:
            return [first]
        settings = replace(self.settings, port=bound_address(first)[1])
        first.close()  # it has shown that the port is free, also of sockets that would share it
        return [await bind(settings, socket.SOCK_DGRAM, shared=True) for _ in range(settings.sockets)]

    @property
    def address(self) -> tuple[str, int]:
        """See `Listener`."""
        return bound_address(self._sockets[0] if self._sockets else None)

    def pause(self, tenant: str) -> None:
        """A UDP sender cannot be made to wait: `_read` drops and counts."""

    def resume(self, tenant: str) -> None:
        """See `pause`."""

    def review(self) -> None:
        """See `Listener`."""
        renew_door(self.door, self.settings, self.intake)

    def unread(self) -> bool:
        """See `Listener`."""
        poll = select.poll()
        for udp in self._sockets:
            poll.register(udp.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """See `Listener`."""
        self._kernel_dropped = self._drops()
        for udp in self._sockets:
            asyncio.get_running_loop().remove_reader(udp.fileno())
            udp.close()
        self._sockets = []

    async def finish(self) -> None:
        """See `Listener`."""

    def stats(self) -> ListenerStats:
        """See `Listener`."""
        return self.counts.stats(self.settings, kernel_dropped=self._drops() if self._sockets else self._kernel_dropped)

    def _drops(self) -> int:
        return sum(_drops(udp) for udp in self._sockets) if self._sockets else self._kernel_dropped

    # -- reading -----------------------------------------------------------------------------------------------

    def _read(self, udp: socket.socket) -> None:
        """Read what is there, up to a burst, and hand it on a sender at a time."""
        heard: dict[str, _Sender] = {}
        receive: Callable[[bytearray], tuple[int, tuple[str, int]]] = udp.recvfrom_into
        taken = 0
        for _ in range(_BURST):
            if taken >= _BURST_BYTES:
                break
            try:
                length, address = receive(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:  # such as ENOBUFS: what came before it was taken from the kernel and is ours alone
                self._fail(error)
                break
            taken += length
            sender = heard.get(address[0])
            if sender is None:
                sender = heard[address[0]] = self._meet(peer_address(cast("tuple[str, ...]", address)))
            self._hear(sender, length, address[0])
        for sender in heard.values():
            if sender.lines.lines and isinstance(sender.channel, Channel):
                self.intake.take(sender.channel, sender.lines)

    def _meet(self, peer: str) -> _Sender:
        tenant = self.door.tenant(peer)
        if isinstance(tenant, Refusal):
            return _Sender(tenant)
        channel = Channel(tenant, peer, self.settings.name, self.settings.patient_data)
        return _Sender(channel, self.intake.full(tenant))

    def _hear(self, sender: _Sender, length: int, address: str) -> None:
        """One datagram, which lies in the buffer."""
        if isinstance(sender.channel, Refusal):
            self.counts.refuse(self.settings, sender.channel.reason, peer_address((address,)))
            return
        if sender.full:
            self._drop(sender.channel.tenant)
            return
        frame = frame_datagram(bytes(memoryview(self._buffer)[:length]), self.settings.max_frame, self.counts.framing)
        if frame is not None:
            lines = sender.lines
            if frame.mark is not None:
                lines.marks[len(lines.lines)] = frame.mark
            lines.lines.append(frame.line)

    def _fail(self, error: OSError) -> None:
        self._failures += 1
        if worth_logging(self._failures):
            _log.error("cannot read datagrams", listener=self.settings.name, error=str(error), failures=self._failures)

    def _drop(self, tenant: str) -> None:
        self.counts.dropped += 1
        if worth_logging(self.counts.dropped):
            name, dropped = self.settings.name, self.counts.dropped
            _log.error("datagrams dropped: too much waits", listener=name, hospital=tenant, dropped=dropped)


def _ask_receive_buffer(udp: socket.socket, asked: int) -> int:
    """Ask for a large buffer, and return what the kernel gave (it reports twice the usable size)."""
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, asked)
    except OSError:  # needs CAP_NET_ADMIN
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, asked)
    return udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def _drops(udp: socket.socket) -> int:
    """Datagrams the kernel dropped on this socket; 0 where it does not say."""
    try:
        return int(_MEMINFO.unpack(udp.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1])
    except (OSError, struct.error):
        return 0

"""Syslog over UDP: one datagram, one message (RFC 5426).

Lost datagrams are the price of UDP, and are at least counted: those that came while too much was waiting for the bus,
and those that the kernel dropped since its buffer was full (`SO_MEMINFO`).
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Final, cast

import structlog

from ingest.framing import Lines, frame_datagram
from ingest.listeners import (
    Counts,
    Intake,
    ListenerSettings,
    ListenerStats,
    bind,
    bound_address,
    peer_address,
    worth_logging,
)

RECEIVE_BUFFER: Final = 32 * 1024 * 1024
"""Kernel buffer asked for: one second of 100,000 lines of 300 bytes. The kernel gives no more than net.core.rmem_max
unless the process may override it."""

_BURST: Final = 512  # datagrams read in one turn of the event loop
_DATAGRAM: Final = 65_536
_SO_RCVBUFFORCE: Final = 33  # Linux; not in the socket module
_SO_MEMINFO: Final = 55  # Linux 4.12; nine 32-bit counters, the last of which is the drops
_MEMINFO: Final = struct.Struct("=9I")

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class UdpListener:
    """Syslog over UDP. Not an asyncio transport: that one reads a single datagram a turn of the loop."""

    def __init__(self, settings: ListenerSettings, intake: Intake) -> None:
        self.settings = settings
        self.intake = intake
        self.counts = Counts()
        self._socket: socket.socket | None = None
        self._buffer = bytearray(_DATAGRAM)
        self._kernel_dropped = 0
        self._failures = 0

    async def open(self) -> None:
        """See `Listener`."""
        self._socket = await bind(self.settings, socket.SOCK_DGRAM)
        granted = _ask_receive_buffer(self._socket)
        if granted < RECEIVE_BUFFER:
            _log.info("small receive buffer", listener=self.settings.name, granted=granted, asked=RECEIVE_BUFFER)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    @property
    def address(self) -> tuple[str, int]:
        """See `Listener`."""
        return bound_address(self._socket)

    def pause(self) -> None:
        """A UDP sender cannot be made to wait: `_read` drops and counts."""

    def resume(self) -> None:
        """See `pause`."""

    def unread(self) -> bool:
        """See `Listener`."""
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """See `Listener`."""
        if self._socket is not None:
            self._kernel_dropped = _drops(self._socket)
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    @property
    def closed(self) -> bool:
        """See `Listener`."""
        return self._socket is None

    def stats(self) -> ListenerStats:
        """See `Listener`."""
        kernel_dropped = self._kernel_dropped if self._socket is None else _drops(self._socket)
        return self.counts.stats(self.settings, kernel_dropped=kernel_dropped)

    def _read(self) -> None:
        """Read what is there, up to a burst, and hand it on a sender at a time."""
        heard: dict[str, Lines] = {}
        for _ in range(_BURST):
            try:
                length, address = cast("socket.socket", self._socket).recvfrom_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:  # such as ENOBUFS: what came before it was taken from the kernel and is ours alone
                self._fail(error)
                break
            if self.intake.full:
                self._drop()
                continue
            data = bytes(memoryview(self._buffer)[:length])
            frame = frame_datagram(data, self.settings.max_frame, self.counts.framing)
            if frame is not None:
                lines = heard.setdefault(address[0], Lines())
                if frame.mark is not None:
                    lines.marks[len(lines.lines)] = frame.mark
                lines.lines.append(frame.line)
        for host, lines in heard.items():
            self.intake.take(self.settings.tenant, peer_address((host,)), lines)

    def _fail(self, error: OSError) -> None:
        self._failures += 1
        if worth_logging(self._failures):
            _log.error("cannot read datagrams", listener=self.settings.name, error=str(error), failures=self._failures)

    def _drop(self) -> None:
        self.counts.dropped += 1
        if worth_logging(self.counts.dropped):
            _log.error("datagrams dropped: too much waits", listener=self.settings.name, dropped=self.counts.dropped)


def _ask_receive_buffer(udp: socket.socket) -> int:
    """Ask for a large buffer, and return what the kernel gave (it reports twice the usable size)."""
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:  # needs CAP_NET_ADMIN
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def _drops(udp: socket.socket) -> int:
    """Datagrams the kernel dropped on this socket; 0 where it does not say."""
    try:
        return int(_MEMINFO.unpack(udp.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[-1])
    except (OSError, struct.error):
        return 0

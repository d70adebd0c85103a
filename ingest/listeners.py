"""What listeners have in common: their settings, what they count, and where they put what they hear.

A listener is a socket on one side and an `Intake` on the other; it knows nothing of batches or of the bus. It is bound
to one hospital: the tenant comes from the channel, never from what a message says of itself.

Back-pressure differs by transport. TCP can make a sender wait, so a full intake stops the reading and nothing is lost.
UDP cannot: datagrams that come while the intake is full are dropped and counted. A hospital that cannot afford that
uses TCP. The transports: `ingest.tcp_listener`, `ingest.udp_listener`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from ingest.framing import DEFAULT_MAX_FRAME, FramingCounts, Lines

DEFAULT_MAX_CONNECTIONS: Final = 1000
"""Open connections of one listener. Precedents: rsyslog imtcp 200 sessions, syslog-ng 10 (raised by most)."""

DEFAULT_IDLE_TIMEOUT: Final = 86_400.0
"""Seconds of silence after which a connection is closed. Long on purpose: a plain TCP sender learns of the close only
after it wrote its next line into it, and that line is lost. Peers that vanished are found by TCP keep-alive instead."""

BACKLOG: Final = 1024
"""Connections the kernel completes before we accept them."""


class CollectError(Exception):
    """Root of what the collect stage raises."""


class ListenError(CollectError):
    """A listener cannot be opened; the message names the listener, the address and the cause."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One socket to listen on.

    Attributes:
        name: What logs and statistics call it; unique.
        transport: Syslog over UDP (RFC 5426) or over TCP (RFC 6587, both framings).
        host: Address or name of an interface of this machine.
        port: 0 lets the system choose.
        tenant: The hospital whose logs come in here.
        max_frame: Longest line kept whole, in bytes.
        max_connections: TCP: further connections are refused.
        idle_timeout: TCP: seconds of silence after which a connection is closed; 0 for never.
    """

    name: str
    transport: Literal["udp", "tcp"]
    host: str
    port: int
    tenant: str
    max_frame: int = DEFAULT_MAX_FRAME
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT


@dataclass(frozen=True, slots=True)
class ListenerStats:
    """What a listener has seen so far.

    Attributes:
        name: Of the settings.
        transport: Of the settings.
        connections: Open now.
        accepted: Connections since the start.
        refused: Connections beyond `max_connections`.
        idled: Connections closed for silence.
        frames: Lines handed on.
        bytes: Received, framing included.
        marked: Kind of fault -> lines that have it.
        empty: Frames with nothing in them.
        skipped: Bytes of over-long lines that were not kept.
        dropped: Datagrams dropped because too much was waiting for the bus.
        kernel_dropped: Datagrams the kernel dropped because its buffer was full.
    """

    name: str
    transport: str
    connections: int
    accepted: int
    refused: int
    idled: int
    frames: int
    bytes: int
    marked: Mapping[str, int]
    empty: int
    skipped: int
    dropped: int
    kernel_dropped: int


class Intake(Protocol):
    """Where listeners put lines."""

    @property
    def full(self) -> bool:
        """Whether so much is waiting that no more should be read."""

    def take(self, tenant: str, peer: str, lines: Lines) -> None:
        """Take lines that were received just now. Never refuses: `full` is asked before reading."""


class Listener(Protocol):
    """What `tcp` and `udp` listeners have in common. All methods belong to the event loop's thread."""

    settings: ListenerSettings

    async def open(self) -> None:
        """Bind and begin to read.

        Raises:
            ListenError: The address cannot be bound.
        """

    @property
    def address(self) -> tuple[str, int]:
        """Host and port bound."""

    def pause(self) -> None:
        """Stop reading, if the transport can make its senders wait."""

    def resume(self) -> None:
        """Read again."""

    def unread(self) -> bool:
        """Whether the kernel holds connections or data that we have not read."""

    def close(self) -> None:
        """Stop listening, and close the connections; what they left unfinished reaches the intake soon after."""

    @property
    def closed(self) -> bool:
        """Whether nothing more can come."""

    def stats(self) -> ListenerStats:
        """What was seen so far."""


@dataclass(slots=True)
class Counts:
    """The live counts of a listener, which `stats` freezes."""

    accepted: int = 0
    refused: int = 0
    idled: int = 0
    dropped: int = 0
    framing: FramingCounts = field(default_factory=FramingCounts)

    def stats(self, settings: ListenerSettings, *, connections: int = 0, kernel_dropped: int = 0) -> ListenerStats:
        """A frozen copy."""
        framing = self.framing
        return ListenerStats(
            name=settings.name,
            transport=settings.transport,
            connections=connections,
            accepted=self.accepted,
            refused=self.refused,
            idled=self.idled,
            frames=framing.frames,
            bytes=framing.bytes,
            marked={kind: getattr(framing, kind) for kind in ("truncated", "broken", "cut", "unterminated")},
            empty=framing.empty,
            skipped=framing.skipped,
            dropped=self.dropped,
            kernel_dropped=kernel_dropped,
        )


async def bind(settings: ListenerSettings, kind: socket.SocketKind) -> socket.socket:
    """A socket bound to the settings' address, and listening if it is TCP.

    Raises:
        ListenError: The address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    place = f"listener {settings.name!r}: cannot listen on {settings.transport} {settings.host}:{settings.port}"
    try:
        found = await loop.getaddrinfo(settings.host or None, settings.port, type=kind, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"{place}: {error.strerror or error}") from error
    family, _, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setblocking(False)
        if kind is socket.SOCK_STREAM:  # for UDP it would let two processes share the port, and the lines
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        if kind is socket.SOCK_STREAM:
            bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise ListenError(f"{place}: {error.strerror or error}") from error
    return bound


def bound_address(bound: socket.socket | None) -> tuple[str, int]:
    """Host and port of a bound socket."""
    if bound is None:
        raise ListenError("a listener has an address only while it is open")
    host, port = bound.getsockname()[:2]
    return str(host), int(port)


def peer_address(address: tuple[str, ...] | None) -> str:
    """The sender's address; IPv4 as such also when it came through an IPv6 socket."""
    return str(address[0]).removeprefix("::ffff:") if address else "unknown"


def worth_logging(count: int) -> bool:
    """The first, second, fourth, eighth ...: a flood must not become a flood of logs."""
    return count & (count - 1) == 0

"""What listeners have in common: their settings, what they count, and where they put what they hear.

A listener is a socket on one side and an `Intake` on the other; it knows nothing of batches or of the bus. It says
whose the lines are: the tenant comes from the channel (`ingest.channel`), never from what a message says of itself.

Back-pressure differs by transport. TCP can make a sender wait, so an intake that has enough of a hospital stops the
reading of that hospital's connections and nothing is lost. UDP cannot: datagrams that come meanwhile are dropped and
counted. A hospital that cannot afford that uses TCP, and one that must know what became of each line uses RELP.
The transports: `ingest.tcp_listener` (TCP, TLS, RELP), `ingest.udp_listener`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol, cast

import structlog

from ingest.channel import Channel, Door
from ingest.framing import DEFAULT_MAX_FRAME, FramingCounts, Lines
from ingest.hospital import Hospitals
from ingest.visible import visible

Transport = Literal["udp", "tcp", "tls", "relp", "relp-tls"]

DEFAULT_MAX_CONNECTIONS: Final = 1000
"""Open connections of one listener. Precedents: rsyslog imtcp 200 sessions, syslog-ng 10 (raised by most)."""

DEFAULT_IDLE_TIMEOUT: Final = 86_400.0
"""Seconds of silence after which a connection is closed. Long on purpose: a plain TCP sender learns of the close only
after it wrote its next line into it, and that line is lost. Peers that vanished are found by TCP keep-alive instead."""

DEFAULT_FRAME_TIMEOUT: Final = 60.0
"""Seconds that a begun frame may take to end: a sender that trickles a byte now and then is no sender."""

DEFAULT_HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds that a TLS handshake may take. Precedent: asyncio 60, nginx 60, HAProxy's advice 10."""

DEFAULT_RECEIVE_BUFFER: Final = 32 * 1024 * 1024
"""Kernel buffer asked for each UDP socket: one second of 100,000 lines of 300 bytes. The kernel gives no more than
net.core.rmem_max unless the process may override it."""

MAX_REFUSED_SENDERS: Final = 1000
"""Refused senders that a listener tells apart in its log; forged addresses must fill neither memory nor log. As many
again for certificates, which our authority signed: scanners must not hide a hospital whose certificate expired."""

_FIRST_FREE_PORT: Final = 1024  # net.ipv4.ip_unprivileged_port_start, if nobody changed it

BACKLOG: Final = 1024
"""Connections the kernel completes before we accept them."""


class CollectError(Exception):
    """Root of what the collect stage raises."""


class ListenError(CollectError):
    """A listener cannot be opened; the message names the listener, the address and the cause."""


_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One socket to listen on (UDP: perhaps several).

    Attributes:
        name: What logs and statistics call it; unique.
        transport: Syslog over UDP (RFC 5426), TCP (RFC 6587, both framings), TLS (RFC 5425), or RELP, plain or in TLS.
        host: Address or name of an interface of this machine.
        port: 0 lets the system choose.
        tenant: The hospital whose logs come in here; empty if address or certificate say whose they are.
        max_frame: Longest line kept whole, in bytes.
        max_connections: TCP: further connections are refused.
        idle_timeout: TCP: seconds of silence after which a connection is closed; 0 for never.
        by_address: Whether the hospital is the one whose networks in the registry hold the sender.
        allow: Networks that may send here; empty for all.
        patient_data: Whether identifiers of patients are made pseudonyms before the bus.
        frame_timeout: TCP: seconds that a begun frame may take to end; 0 for ever.
        handshake_timeout: TLS: seconds for the handshake.
        sockets: UDP: how many share the port (SO_REUSEPORT).
        receive_buffer: UDP: bytes asked of the kernel for each socket.
        certificate: TLS: our certificate and its chain, PEM.
        key: TLS: its key, PEM.
        client_ca: TLS: who must have signed the clients' certificates, PEM.
    """

    name: str
    transport: Transport
    host: str
    port: int
    tenant: str = ""
    max_frame: int = DEFAULT_MAX_FRAME
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    idle_timeout: float = DEFAULT_IDLE_TIMEOUT
    by_address: bool = False
    allow: tuple[str, ...] = ()
    patient_data: bool = False
    frame_timeout: float = DEFAULT_FRAME_TIMEOUT
    handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT
    sockets: int = 1
    receive_buffer: int = DEFAULT_RECEIVE_BUFFER
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    @property
    def encrypted(self) -> bool:
        """Whether the transport is TLS, with client certificates."""
        return self.transport in ("tls", "relp-tls")


@dataclass(frozen=True, slots=True)
class ListenerStats:
    """What a listener has seen so far.

    Attributes:
        name: Of the settings.
        transport: Of the settings.
        connections: Open now.
        accepted: Connections since the start that may send: not refused, their TLS handshake done.
        refused: Connections refused, and datagrams of senders that may not send.
        refusals: Reason (`ingest.channel.REFUSED_*`) -> how many of `refused`.
        idled: Connections closed for silence.
        stalled: Connections closed because a begun frame did not end in time.
        revoked: Connections closed because their certificate or address no longer holds.
        faults: RELP: what was wrong with the protocol -> sessions ended by it.
        sessions: RELP: sessions opened since the start.
        unacknowledged: RELP: lines whose acknowledgement is still to be sent, now.
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
    refusals: Mapping[str, int]
    idled: int
    stalled: int
    revoked: int
    faults: Mapping[str, int]
    sessions: int
    unacknowledged: int
    frames: int
    bytes: int
    marked: Mapping[str, int]
    empty: int
    skipped: int
    dropped: int
    kernel_dropped: int


class Intake(Protocol):
    """Where listeners put lines, and what they ask."""

    @property
    def hospitals(self) -> Hospitals:
        """The registry as it stands."""

    @property
    def keyless(self) -> frozenset[str]:
        """Hospitals without keys for patients' data: refused by listeners marked `patient_data`."""

    def now(self) -> datetime:
        """The time, with its zone."""

    def full(self, tenant: str) -> bool:
        """Whether so much of a hospital is waiting that no more of it should be read."""

    def take(self, channel: Channel, lines: Lines, done: Callable[[], None] | None = None) -> None:
        """Take lines that were received just now. Never refuses: `full` is asked before reading.

        Args:
            channel: Where they came from.
            lines: At least one.
            done: Called on the event loop once the bus has all of them on disk; the sender waits for it.
        """

    def new_session(self) -> str:
        """A name for a RELP session that no other ever has."""


class Listener(Protocol):
    """What the listeners have in common. All methods belong to the event loop's thread."""

    settings: ListenerSettings

    async def open(self) -> None:
        """Bind and begin to read.

        Raises:
            ListenError: The address cannot be bound, or a certificate cannot be used.
        """

    @property
    def address(self) -> tuple[str, int]:
        """Host and port bound."""

    def pause(self, tenant: str) -> None:
        """Stop reading from a hospital, if the transport can make its senders wait."""

    def resume(self, tenant: str) -> None:
        """Read from it again."""

    def review(self) -> None:
        """Time has passed, and the registry may have changed: close what may no longer send."""

    def unread(self) -> bool:
        """Whether the kernel holds connections or data that we have not read."""

    def close(self) -> None:
        """Stop listening and reading; what was left unfinished is in the intake when this returns."""

    async def finish(self) -> None:
        """After `close`, once no more acknowledgements can come: part with those who are still there."""

    def stats(self) -> ListenerStats:
        """What was seen so far."""


@dataclass(slots=True)
class Counts:
    """The live counts of a listener, which `stats` freezes."""

    accepted: int = 0
    idled: int = 0
    stalled: int = 0
    revoked: int = 0
    dropped: int = 0
    sessions: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    refused_senders: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    framing: FramingCounts = field(default_factory=FramingCounts)

    def refuse(self, settings: ListenerSettings, reason: str, peer: str, **more: object) -> None:
        """Count a refusal, and log the first, second, fourth ... of its reason and sender.

        Of its sender too: a hospital that dials in vain all night must not keep another's first refusal out of the log.
        A sender is the subject of a certificate where one was proved, and an address elsewhere.
        """
        self.refusals[reason] += 1
        subject = more.get("subject")
        sender = (reason, peer if subject is None else str(subject))
        limit = MAX_REFUSED_SENDERS if subject is None else 2 * MAX_REFUSED_SENDERS
        if sender not in self.refused_senders and len(self.refused_senders) >= limit:
            sender = (reason, "")
        self.refused_senders[sender] += 1
        times = self.refused_senders[sender]
        if worth_logging(times):
            shown = {key: visible(str(value)) for key, value in more.items()}
            _log.warning("refused", listener=settings.name, reason=reason, peer=peer, refused=times, **shown)

    def stats(
        self, settings: ListenerSettings, *, connections: int = 0, kernel_dropped: int = 0, unacknowledged: int = 0
    ) -> ListenerStats:
        """A frozen copy."""
        framing = self.framing
        return ListenerStats(
            name=settings.name,
            transport=settings.transport,
            connections=connections,
            accepted=self.accepted,
            refused=self.refusals.total(),
            refusals=dict(self.refusals),
            idled=self.idled,
            stalled=self.stalled,
            revoked=self.revoked,
            faults=dict(self.faults),
            sessions=self.sessions,
            unacknowledged=unacknowledged,
            frames=framing.frames,
            bytes=framing.bytes,
            marked={kind: getattr(framing, kind) for kind in ("truncated", "broken", "cut", "unterminated")},
            empty=framing.empty,
            skipped=framing.skipped,
            dropped=self.dropped,
            kernel_dropped=kernel_dropped,
        )


def door_of(settings: ListenerSettings, intake: Intake) -> Door:
    """The door of a listener, as things stand."""
    keyless = intake.keyless if settings.patient_data else frozenset()
    return Door(settings.tenant, settings.by_address, settings.allow, intake.hospitals, keyless)


def renew_door(door: Door, settings: ListenerSettings, intake: Intake) -> None:
    """The registry has changed, or who has keys."""
    door.renew(intake.hospitals, intake.keyless if settings.patient_data else frozenset())


async def bind(settings: ListenerSettings, kind: socket.SocketKind, *, shared: bool = False) -> socket.socket:
    """A socket bound to the settings' address, and listening if it is TCP.

    Args:
        settings: The listener's.
        kind: Stream or datagrams.
        shared: Whether other sockets may be bound to the same port (by this user only: the kernel sees to it).

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
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
        if kind is socket.SOCK_STREAM:
            bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        low = error.errno == errno.EACCES and settings.port < _FIRST_FREE_PORT
        hint = " (ports below 1024 are for root, or for CAP_NET_BIND_SERVICE: take a higher one)" if low else ""
        raise ListenError(f"{place}: {error.strerror or error}{hint}") from error
    return bound


def bound_address(bound: socket.socket | None) -> tuple[str, int]:
    """Host and port of a bound socket."""
    if bound is None:
        raise ListenError("a listener has an address only while it is open")
    host, port = bound.getsockname()[:2]
    return str(host), int(port)


def peer_address(address: tuple[str, ...] | None) -> str:
    """The sender's address; IPv4 as such also when it came through an IPv6 socket."""
    if not address:
        return "unknown"
    text = str(address[0])
    mapped = text.removeprefix("::ffff:")
    return mapped if "." in mapped and ":" not in mapped else text


def worth_logging(count: int) -> bool:
    """The first, second, fourth, eighth ...: a flood must not become a flood of logs."""
    return count & (count - 1) == 0

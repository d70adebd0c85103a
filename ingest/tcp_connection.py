"""One TCP or TLS connection: bytes into its framer, lines into the intake.

`connection_made` is the one place that says whose a connection is. A connection that must not go on is ended in two
steps: `end_reading` hands what was left unfinished to the intake, then the transport is closed.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import datetime
from typing import Final, Protocol, cast

import structlog
from cryptography.x509 import InvalidVersion

from ingest.channel import REFUSED_SHARE, REFUSED_UNKNOWN, Channel, Door, Refusal
from ingest.framing import Framer, Lines
from ingest.listeners import Counts, Intake, ListenerSettings, worth_logging
from ingest.places import Places
from ingest.tls import PeerCertificate

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))

MAX_HELD: Final = 256 * 1024 * 1024
"""Bytes of frames that have not ended, of all connections of a listener. A thousand connections that each hold back the
end of a frame of 4 MiB would else take 4 GiB."""

_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 30), ("TCP_KEEPCNT", 4))


class Owner(Protocol):
    """The listener, as its connections know it."""

    settings: ListenerSettings
    intake: Intake
    counts: Counts
    door: Door
    connections: set[TcpConnection]
    places: Places[TcpConnection]
    held: int


class Stream(Protocol):
    """Bytes in, lines out: `Framer`, or a `RelpSession`."""

    @property
    def unfinished(self) -> bool:
        """Whether a frame was begun that has not ended."""

    @property
    def held_bytes(self) -> int:
        """What is held of it."""

    def receive_lines(self, data: bytes) -> Lines:
        """Lines completed by `data`."""

    def close_lines(self) -> Lines:
        """What the end of the connection left unfinished."""


class TcpConnection(asyncio.Protocol):
    """One sender.

    Args:
        owner: Its listener.
        peer: Address of the sender.
        tenant: The hospital, as far as the address tells: with TLS the certificate has the last word.
    """

    def __init__(self, owner: Owner, peer: str, tenant: str) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._stream: Stream = self.make_stream()
        self.channel = Channel(tenant, peer, owner.settings.name, owner.settings.patient_data)
        self._certificate: PeerCertificate | None = None
        self._heard = self._loop.time()
        self._begun: float | None = None  # when the frame began that has not ended
        self._timer: asyncio.TimerHandle | None = None
        self.held = 0  # bytes of the frame that has not ended
        self._held = False  # the intake has enough of this hospital
        self._ended = False
        self.socket: socket.socket | None = None

    def make_stream(self) -> Stream:
        """What frames the bytes."""
        return Framer(self._owner.settings.max_frame, self._owner.counts.framing)

    # -- of the transport --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say whose the connection is, or refuse it."""
        self._transport = cast("asyncio.Transport", transport)
        self._owner.places.forget(self, self.channel.peer)
        if (self._owner.settings.encrypted and not self._authenticate()) or not self._take_place():
            self._ended = True
            self._transport.abort()
            return
        self._owner.counts.accepted += 1
        self._owner.connections.add(self)
        self.socket = transport.get_extra_info("socket")
        _keep_alive(self.socket)
        if self._owner.intake.full(self.channel.tenant):
            self.pause()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Frame, and hand on."""
        if self._ended:
            return
        self._heard = self._loop.time()
        lines = self._stream.receive_lines(data)
        if not self._stream.unfinished:
            self._begun = None
        elif lines.lines or self._begun is None:
            self._begun = self._heard
        if lines.lines:
            self.hand_on(lines)
        self._count_held(self._stream.held_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.end_reading()
        if self in self._owner.connections:
            self._owner.connections.discard(self)
            self._owner.places.leave(self.channel.tenant)
            name = self._owner.settings.name
            _log.debug("connection closed", listener=name, peer=self.channel.peer, error=str(exc or ""))

    # -- of the listener ---------------------------------------------------------------------------------------

    def hand_on(self, lines: Lines) -> None:
        """Lines into the intake."""
        self._owner.intake.take(self.channel, lines)

    @property
    def unacknowledged(self) -> int:
        """Lines whose sender awaits an acknowledgement."""
        return 0

    @property
    def wants_pause(self) -> bool:
        """Whether this connection should not be read now, whatever the intake says."""
        return False

    def pause(self) -> None:
        """The intake has enough of this hospital."""
        self._held = True
        self.set_reading()

    def resume(self) -> None:
        """The intake takes more of this hospital."""
        self._held = False
        self.set_reading()

    def set_reading(self) -> None:
        """Read, or do not, as things stand."""
        if self._transport is None or self._transport.is_closing():
            return
        reading = not (self._held or self._ended or self.wants_pause)
        if reading == self._transport.is_reading():
            return
        if reading:
            self._heard = self._loop.time()  # it was we who did not listen
            self._begun = None if self._begun is None else self._heard
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def still_holds(self) -> Refusal | None:
        """Why this connection may no longer send; None while it may."""
        owner, now = self._owner, self._owner.intake.now()
        found = owner.door.tenant(self.channel.peer)
        if self._certificate is not None and not isinstance(found, Refusal):
            found = self._of_certificate(self._certificate, now)
        if isinstance(found, Refusal):
            return found
        return None if found == self.channel.tenant else Refusal("of another hospital now")

    def drop(self, reason: str) -> None:
        """Part with a sender that may no longer send; what it sent so far stays."""
        owner = self._owner
        shown = self._certificate.shown() if self._certificate is not None else {}
        _log.warning(
            "connection closed",
            listener=owner.settings.name,
            hospital=self.channel.tenant,
            peer=self.channel.peer,
            reason=reason,
            **shown,
        )
        self.end_reading()
        self.abort()

    def end_reading(self) -> None:
        """Nothing more is read; what was left unfinished is handed on."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        lines = self._stream.close_lines()
        if lines.lines:
            self.hand_on(lines)
        self._count_held(0)
        self.set_reading()

    def close(self) -> None:
        """End the connection, once what is to be sent is sent."""
        self.end_reading()
        if self._transport is not None:
            self._transport.close()

    def part(self) -> None:
        """End the connection now, though more could be said."""
        self.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- certificate, silence ----------------------------------------------------------------------------------

    def _authenticate(self) -> bool:
        """Take the tenant from the client's certificate; False if it is refused."""
        owner, transport = self._owner, cast("asyncio.Transport", self._transport)
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            certificate = self._certificate = PeerCertificate.of(der)
        except (ValueError, InvalidVersion) as error:  # OpenSSL reads more than is allowed to be written
            owner.counts.refuse(owner.settings, REFUSED_UNKNOWN, self.channel.peer, error=error)
            return False
        found = self._of_certificate(certificate, owner.intake.now())
        if isinstance(found, Refusal):
            owner.counts.refuse(owner.settings, found.reason, self.channel.peer, **certificate.shown())
            return False
        self.channel = Channel(found, self.channel.peer, self.channel.listener, self.channel.patient_data)
        return True

    def _of_certificate(self, certificate: PeerCertificate, now: datetime) -> str | Refusal:
        owner = self._owner
        found = certificate.tenant(owner.settings.tenant, owner.intake.hospitals, now)
        return found if isinstance(found, Refusal) else owner.door.protected(found)

    def _count_held(self, size: int) -> None:
        """Bound what all connections hold of frames that have not ended: beyond it the one that holds most is ended."""
        self._owner.held += size - self.held
        self.held = size
        if self._owner.held > MAX_HELD:
            largest = max(self._owner.connections, key=lambda connection: connection.held)
            self._owner.counts.stalled += 1
            largest.drop("too much of frames that have not ended")

    def _take_place(self) -> bool:
        """Take a place for the hospital; False if those that are left are for others."""
        if self._owner.places.take(self.channel.tenant):
            return True
        owner, hospital = self._owner, self.channel.tenant
        owner.counts.refuse(owner.settings, REFUSED_SHARE, self.channel.peer, hospital=hospital)
        return False

    def _watch(self) -> None:
        """Close if silent for too long, or in the middle of a frame; else look again when that could be."""
        settings = self._owner.settings
        if self._transport is None or self._transport.is_closing() or self._ended:
            return
        periods = [seconds for seconds in (settings.idle_timeout, settings.frame_timeout) if seconds]
        if not periods:
            return
        now, left = self._loop.time(), min(periods)
        if self._transport.is_reading():
            if settings.idle_timeout:
                left = min(left, self._heard + settings.idle_timeout - now)
            if settings.frame_timeout and self._begun is not None:
                left = min(left, self._begun + settings.frame_timeout - now)
        if left > 0:
            self._timer = self._loop.call_later(left, self._watch)
            return
        counts, peer = self._owner.counts, self.channel.peer
        if settings.idle_timeout and self._heard + settings.idle_timeout <= now:
            counts.idled += 1
            _log.info("connection closed for silence", listener=settings.name, peer=peer)
        else:
            counts.stalled += 1
            if worth_logging(counts.stalled):
                reason = "connection closed: a frame did not end in time"
                _log.warning(reason, listener=settings.name, peer=peer, stalled=counts.stalled)
        self.close()


def _keep_alive(connection: socket.socket | None) -> None:
    """Find out within some minutes that a peer has vanished."""
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

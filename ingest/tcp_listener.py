"""Syslog over TCP and TLS, and RELP over both: the socket that accepts, and the connections it has accepted.

Who may not send is turned away before a byte of it is read, and before it costs a TLS handshake: by its address, by the
number of connections (handshakes under way included), and by the file descriptors that are left. Descriptors are given
out from the lowest free number on, so the number of a new one says how near the end is.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import select
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, cast

import structlog

from ingest.channel import (
    REFUSED_DESCRIPTORS,
    REFUSED_HANDSHAKE,
    REFUSED_LIMIT,
    Refusal,
)
from ingest.listeners import (
    Counts,
    Intake,
    ListenError,
    ListenerSettings,
    ListenerStats,
    bind,
    bound_address,
    door_of,
    peer_address,
    renew_door,
)
from ingest.places import Places
from ingest.relp_connection import RelpConnection
from ingest.tcp_connection import TcpConnection
from ingest.tls import SHUTDOWN_SECONDS, TlsFiles, TlsIdentity

SPARE_DESCRIPTORS: Final = 64
"""File descriptors that connections leave to the bus, the spool, the lake and the console."""

EXHAUSTED_SECONDS: Final = 1.0
"""How long nothing is accepted after the kernel had no descriptor left. Precedent: asyncio's own second."""

FINISH_SECONDS: Final = 2.0
"""How long `finish` waits for connections to end by themselves."""

_A_TURN: Final = 128  # connections accepted in one turn of the event loop
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Serve = Callable[["TcpListener", str, str], TcpConnection]
"""(listener, address of the peer, hospital as far as the address tells) -> what serves the connection."""

CONNECTIONS: Final[Mapping[str, Serve]] = {
    "tcp": TcpConnection,
    "tls": TcpConnection,
    "relp": RelpConnection,
    "relp-tls": RelpConnection,
}
"""Transport -> what serves a connection."""

_DISTRUSTED: Final = "the sender refuses our certificate: the name it dials, its clock, or its ca.pem"
_HUNG_UP: Final = (
    "the sender hung up: mostly it refuses our certificate, for the name it dials, its clock, or its ca.pem"
)
_NOT_TLS: Final = "the sender speaks no TLS"
_FOREIGN: Final = "our authority did not sign it"
_MEANT: Final[Mapping[str, str]] = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "HTTP_REQUEST": _NOT_TLS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the sender shows no certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": _DISTRUSTED,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _DISTRUSTED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _DISTRUSTED,
    "TLSV1_ALERT_UNKNOWN_CA": _DISTRUSTED,
    "unable to get local issuer certificate": _FOREIGN,
    "self-signed certificate": _FOREIGN,
    "self-signed certificate in certificate chain": _FOREIGN,
}
"""What OpenSSL and `ssl` say of a handshake -> what it mostly comes from."""

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class TcpListener:
    """A listener of connections. See `ingest.listeners.Listener`.

    Args:
        settings: Where, and for whom.
        intake: Where lines go.
        serve: What serves a connection; None for what the transport wants.
    """

    def __init__(self, settings: ListenerSettings, intake: Intake, serve: Serve | None = None) -> None:
        self.settings = settings
        self._serve = serve or CONNECTIONS[settings.transport]
        self.intake = intake
        self.counts = Counts()
        self.door = door_of(settings, intake)
        self.connections: set[TcpConnection] = set()
        self.held = 0
        self.places: Places[TcpConnection] = Places(settings.max_connections, several=not settings.tenant)
        self._socket: socket.socket | None = None
        self._tls: TlsIdentity | None = None
        self._joining: dict[TcpConnection, tuple[asyncio.Task[None], socket.socket]] = {}
        self._asleep: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """See `Listener`."""
        self._loop = asyncio.get_running_loop()
        if self.settings.encrypted:
            self._tls = TlsIdentity(_tls_files(self.settings), f"listener {self.settings.name!r}", self._loop.time)
            self._tls.context()
        self._socket = await bind(self.settings, socket.SOCK_STREAM)
        self._loop.add_reader(self._socket.fileno(), self._accept)

    @property
    def address(self) -> tuple[str, int]:
        """See `Listener`."""
        return bound_address(self._socket)

    def pause(self, tenant: str) -> None:
        """See `Listener`."""
        for connection in self.connections:
            if connection.channel.tenant == tenant:
                connection.pause()

    def resume(self, tenant: str) -> None:
        """See `Listener`."""
        for connection in self.connections:
            if connection.channel.tenant == tenant:
                connection.resume()

    def review(self) -> None:
        """See `Listener`."""
        renew_door(self.door, self.settings, self.intake)
        for connection in tuple(self.connections):
            refusal = connection.still_holds()
            if refusal is not None:
                self.counts.revoked += 1
                connection.drop(refusal.reason)

    def unread(self) -> bool:
        """See `Listener`."""
        poll = select.poll()
        for descriptor in (self._socket, *(connection.socket for connection in self.connections)):
            if descriptor is not None and descriptor.fileno() >= 0:
                poll.register(descriptor.fileno(), select.POLLIN)
        return bool(self._joining) or any(events & select.POLLIN for _, events in poll.poll(0))

    def close(self) -> None:
        """See `Listener`."""
        if self._asleep is not None:
            self._asleep.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for task, _ in self._joining.values():
            task.cancel()
        for connection in tuple(self.connections):
            connection.close()

    async def finish(self) -> None:
        """See `Listener`."""
        await asyncio.gather(*(task for task, _ in self._joining.values()), return_exceptions=True)
        for connection in tuple(self.connections):
            connection.part()
        await self._gone()
        for connection in tuple(self.connections):
            connection.abort()
        await self._gone()

    async def _gone(self) -> None:
        deadline = self._loop.time() + FINISH_SECONDS
        while self.connections and self._loop.time() < deadline:  # noqa: ASYNC110 - at the end only, and briefly
            await asyncio.sleep(0.001)

    def stats(self) -> ListenerStats:
        """See `Listener`."""
        unacknowledged = sum(connection.unacknowledged for connection in self.connections)
        return self.counts.stats(self.settings, connections=len(self.connections), unacknowledged=unacknowledged)

    # -- accepting ---------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(_A_TURN):
            if self._socket is None:
                return
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._sleep(error)
                    return
                continue  # the peer was gone before we looked (accept(2): treat it like EAGAIN)
            accepted.setblocking(False)
            self._admit(accepted, peer_address(address))

    def _admit(self, accepted: socket.socket, peer: str) -> None:
        """Serve a connection, or turn it away."""
        tenant = self.door.tenant(peer)
        reason = tenant.reason if isinstance(tenant, Refusal) else self._no_room(accepted, peer)
        if reason is not None or isinstance(tenant, Refusal):
            self.counts.refuse(self.settings, reason or "", peer)
            accepted.close()
            return
        connection = self._serve(self, peer, tenant)
        self.places.expect(connection, peer)
        task = self._loop.create_task(self._join(accepted, connection))
        self._joining[connection] = task, accepted
        task.add_done_callback(lambda _: self._joining.pop(connection))

    def _no_room(self, accepted: socket.socket, peer: str) -> str | None:
        if self.places.full and not self._make_room(peer):
            return REFUSED_LIMIT
        if accepted.fileno() >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_DESCRIPTORS:
            return REFUSED_DESCRIPTORS
        return None

    def _make_room(self, peer: str) -> bool:
        """End a handshake of an address that has more of them than this one; False if there is none."""
        connection = self.places.give_way(peer) if self._tls is not None else None
        if connection is None:
            return False
        if connection in self._joining:
            with suppress(OSError):  # it has just ended
                self._joining[connection][1].shutdown(socket.SHUT_RDWR)
        return True

    async def _join(self, accepted: socket.socket, connection: TcpConnection) -> None:
        """Make the connection, with its handshake where it is TLS."""
        peer = connection.channel.peer
        try:
            if self._tls is None:
                await self._loop.connect_accepted_socket(lambda: connection, accepted)
            else:
                await self._loop.connect_accepted_socket(
                    lambda: connection,
                    accepted,
                    ssl=self._tls.context(),
                    ssl_handshake_timeout=self.settings.handshake_timeout,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS,
                )
        except OSError as error:  # SSLError and TimeoutError are OSErrors
            accepted.close()
            reason = REFUSED_HANDSHAKE if self.places.expects(connection, peer) else REFUSED_LIMIT  # it gave way
            self.counts.refuse(self.settings, reason, peer, error=handshake_fault(error))
        except asyncio.CancelledError:
            accepted.close()
            raise
        finally:
            self.places.forget(connection, peer)

    def _sleep(self, error: OSError) -> None:
        """No descriptor is left: accept nothing for a while, or the loop would do nothing else."""
        if self._socket is None:
            return
        self.counts.refuse(self.settings, REFUSED_DESCRIPTORS, "", error=error)
        self._loop.remove_reader(self._socket.fileno())
        self._asleep = self._loop.call_later(EXHAUSTED_SECONDS, self._wake)

    def _wake(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._accept)


def handshake_fault(error: OSError) -> str:
    """What was wrong with a handshake: OpenSSL's word for it, and what that mostly comes from."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said, meant = f"the certificate was not verified: {error.verify_message}", _MEANT.get(error.verify_message)
    else:
        said = str(getattr(error, "reason", None) or str(error) or type(error).__name__)
        meant = _HUNG_UP if isinstance(error, ConnectionError) else _MEANT.get(said)
    return f"{said} ({meant})" if meant else said


def _tls_files(settings: ListenerSettings) -> TlsFiles:
    if settings.certificate is None or settings.key is None or settings.client_ca is None:
        raise ListenError(
            f"listener {settings.name!r}: certificate, key and client_ca are needed for {settings.transport}; "
            "make them with `tocsin authority init`"
        )
    return TlsFiles(settings.certificate, settings.key, settings.client_ca)

"""TLS for the collector: our certificate, whom we trust, and what a client's certificate says.

RFC 5425 asks that both sides show certificates. A client's must be signed by the authority in `client_ca`; which
hospital it is, and whether it still holds, says the registry (`ingest.channel.tenant_of_certificate`).

OpenSSL is told not to look at dates (X509_V_FLAG_NO_CHECK_TIME), because its refusal would keep the certificate from
us: an expired certificate is the failure that happens, and the log must say whose it was. The dates of the client's
certificate are checked here, and an authority that has expired is not trusted to begin with.

Files are looked at again for new connections: a certificate that was renewed on disk is taken up without a restart, and
one that cannot be used leaves the old one in place.
"""

from __future__ import annotations

import hashlib
import ssl
from asyncio import sslproto
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ingest.channel import REFUSED_EARLY, REFUSED_EXPIRED, Refusal, tenant_of_certificate
from ingest.hospital import Hospitals
from ingest.listeners import ListenError
from ingest.visible import visible

LOOK_SECONDS: Final = 1.0
"""How often the files are looked at, at most."""

SHUTDOWN_SECONDS: Final = 1.0
"""How long a peer may take to answer our goodbye."""

MAX_SESSIONS: Final = 256
"""Sessions of TLS 1.2 that a context remembers before another takes its place: clients choose how large they are."""

LONGEST_SUBJECT: Final = 256
"""Characters of a certificate's subject that are shown."""

READ_BYTES: Final = 64 * 1024
"""Read at once of a TLS connection. asyncio sets 256 KiB aside for each, its handshake included, which comes to 2.5 GB
for 10,000 connections; a TLS record has 16 KiB."""

sslproto.SSLProtocol.max_size = READ_BYTES

_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, OpenSSL 1.1.0; not in the ssl module

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))

_Stamps = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM form.

    Attributes:
        certificate: Ours, and its chain.
        key: Its key, without a password.
        client_ca: Who must have signed the clients' certificates.
    """

    certificate: Path
    key: Path
    client_ca: Path


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a client has shown and proved to hold.

    Attributes:
        fingerprint: SHA-256 of its DER form, in lower-case hexadecimal.
        serial: Serial number in hexadecimal, as `tocsin hospital show` writes it.
        subject: As text fit to be shown, and no longer. Who may have anything signed chooses it: never to be trusted.
        not_before: Valid from.
        not_after: Valid until.
    """

    fingerprint: str
    serial: str
    subject: str
    not_before: datetime
    not_after: datetime

    @classmethod
    def of(cls, der: bytes) -> PeerCertificate:
        """From DER that OpenSSL has verified.

        Raises:
            ValueError: It is not to be read.
        """
        certificate = x509.load_der_x509_certificate(der)
        return cls(
            hashlib.sha256(der).hexdigest(),
            f"{certificate.serial_number:x}",
            visible(certificate.subject.rfc4514_string()[:LONGEST_SUBJECT]),
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
        )

    def shown(self) -> dict[str, str]:
        """For a log line: what finds it in `tocsin hospital show`. Who may have anything signed chooses the subject."""
        return {"subject": visible(self.subject), "serial": self.serial, "fingerprint": self.fingerprint}

    def tenant(self, bound: str, hospitals: Hospitals, now: datetime) -> str | Refusal:
        """Whose it is (see `tenant_of_certificate`), or why it is refused."""
        found = tenant_of_certificate(self.fingerprint, bound, hospitals, now)
        if isinstance(found, Refusal):
            return found
        if now > self.not_after:
            return Refusal(REFUSED_EXPIRED)
        return Refusal(REFUSED_EARLY) if now < self.not_before else found


class TlsIdentity:
    """A server's TLS, renewed when its files change.

    Args:
        files: Where it lies.
        owner: Whom errors and logs name, such as "listener 'chu-tls'".
        clock: Seconds, monotonic.
    """

    def __init__(self, files: TlsFiles, owner: str, clock: Callable[[], float]) -> None:
        self._files = files
        self._owner = owner
        self._clock = clock
        self._looked = 0.0
        self._stamps: _Stamps = ()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """For the next connection.

        Raises:
            ListenError: The files cannot be used, and never could; the message names the file and the reason.
        """
        now = self._clock()
        if self._context is not None and now - self._looked < LOOK_SECONDS:
            return self._context
        self._looked = now
        try:
            stamps = self._stamp()
            changed = stamps != self._stamps
            if self._context is None or changed or self._context.session_stats()["number"] > MAX_SESSIONS:
                self._context = make_context(self._files, self._owner)
                if self._stamps and changed:
                    _log.info("certificate taken up", owner=self._owner, file=str(self._files.certificate))
                self._stamps = stamps
        except ListenError as error:
            if self._context is None:
                raise
            _log.error("certificate not taken up: the old one holds", error=str(error))
            self._stamps = ()  # to be looked at again, and told again
            self._looked = now + 60 * LOOK_SECONDS
        return self._context

    def _stamp(self) -> _Stamps:
        stamps = []
        for path in (self._files.certificate, self._files.key, self._files.client_ca):
            try:
                found = path.stat()
            except OSError as error:
                raise _missing(self._owner, path, error) from error
            stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return tuple(stamps)


def make_context(files: TlsFiles, owner: str) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer, client certificates required.

    Raises:
        ListenError: A file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    # No tickets, and no renegotiation, by which a client makes a server work (CVE-2011-1473). Sessions of TLS 1.2 can
    # still be taken up again by their id, which the ssl module cannot forbid: they carry the certificate then shown,
    # and the registry is asked about it as in a full handshake (`TlsIdentity` bounds the memory they take).
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 0
    for path in (files.certificate, files.key):
        if not path.is_file():
            raise _missing(owner, path, FileNotFoundError("no such file"))
    try:
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ValueError) as error:  # SSLError is an OSError
        reason = _reason(error)
        raise ListenError(f"{owner}: {files.certificate} and {files.key} cannot be used: {reason}") from error
    try:
        context.load_verify_locations(cadata=_trusted(files.client_ca, owner))
    except ssl.SSLError as error:
        raise ListenError(f"{owner}: {files.client_ca} cannot be used: {_reason(error)}") from error
    return context


def _trusted(path: Path, owner: str) -> bytes:
    """The authorities of a file that have not expired, in DER form."""
    try:
        authorities = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise _missing(owner, path, error) from error
    except ValueError as error:
        raise ListenError(f"{owner}: {path} holds no certificate in PEM form: {error}") from error
    now = datetime.now(UTC)
    good = [authority for authority in authorities if now <= authority.not_valid_after_utc]
    if not good:
        raise ListenError(f"{owner}: {path}: the authority has expired; renew it with `tocsin authority`")
    return b"".join(authority.public_bytes(Encoding.DER) for authority in good)


def _missing(owner: str, path: Path, error: OSError) -> ListenError:
    reason = error.strerror or error
    return ListenError(f"{owner}: {path}: {reason}; make it with `tocsin authority init`, or name another file")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)

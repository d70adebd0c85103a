"""Our own small certificate authority: one key that signs the collector's certificate and those of the hospitals.

    ca.pem, ca.key           the authority: ten years, may sign nothing that signs
    server.pem, server.key   the collector: its names as SAN, a year and a month
    crl.pem                  what was revoked, for programs other than ours

A hospital's certificate names its id (CN) and is good for a year. Its key is made here, handed over once, and kept
nowhere: the registry holds the fingerprint (SHA-256 of the DER form), the serial number and the dates. That register is
what decides: a certificate that it does not hold, or holds as revoked, opens nothing, whoever signed it.

The authority is private, so what browsers want of public ones (SCTs, lifetimes in weeks) is of no use here. It belongs
on the machine that enrols hospitals; the collector needs ca.pem, server.pem and server.key alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from ingest.certificates import (
    certificate_pem,
    hosts_of,
    key_pem,
    make_authority,
    make_key,
    record_of,
    sign_client,
    sign_revocations,
    sign_server,
)
from ingest.hospital import Certificate, Hospitals
from ingest.registry import RegistryError, check_id, write_file
from ingest.visible import visible

FOLDER: Final = "authority"
"""Its folder in the registry."""

AUTHORITY_DAYS: Final = 3653
SERVER_DAYS: Final = 397
CLIENT_DAYS: Final = 365
CRL_DAYS: Final = 397
"""The list is written anew with each certificate; programs that read it refuse everyone once it is too old."""

KEY_MODE: Final = 0o600
CERTIFICATE_MODE: Final = 0o644

PKCS12_PASSWORD: Final = "tocsin"  # noqa: S105 - Windows wants one; the PEM file beside it has none
"""Of the PKCS #12 file; it protects nothing, the zip does."""

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
"""RFC 1123, 2.1. Names of other alphabets are written as they stand in DNS (xn--)."""


class AuthorityError(RegistryError):
    """The authority is missing, is there already, or holds what cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A hospital's new certificate with its key, to be handed over: nothing of it is kept here but `record`.

    Attributes:
        certificate: In PEM form.
        key: In PEM form (PKCS #8), not encrypted.
        pkcs12: Both and the authority's certificate, as Windows reads them; under `PKCS12_PASSWORD`.
        authority: The authority's certificate, in PEM form.
        record: What the registry holds of it.
    """

    certificate: bytes
    key: bytes
    pkcs12: bytes
    authority: bytes
    record: Certificate

    def __repr__(self) -> str:
        """Without the key, which would otherwise come to stand in a log."""
        return f"Issued(record={self.record!r})"


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The collector's certificate.

    Attributes:
        hosts: Names and addresses that it is good for; the first is its CN too.
        record: Fingerprint, serial number and dates.
    """

    hosts: tuple[str, ...]
    record: Certificate


def authority_folder(registry: Path) -> Path:
    """The authority's folder in a registry."""
    return registry / FOLDER


def create_authority(folder: Path, title: str, now: datetime) -> Certificate:
    """Make the authority, once.

    Args:
        folder: Its folder.
        title: Whose it is; stands in its certificate.
        now: The time.

    Raises:
        AuthorityError: One is there already (it is never overwritten), or the title cannot stand in a certificate.
        RegistryError: The disk refuses.
    """
    key_path, path = folder / "ca.key", folder / "ca.pem"
    # A key alone is what an interrupted command left: nothing was ever signed with it, and it is as good as another.
    half_made = key_path.exists() and not path.exists() and not (folder / "server.pem").exists()
    for taken in (key_path, path):
        if taken.exists() and not half_made:
            raise AuthorityError(
                f"{taken}: is there already, and is not overwritten: every hospital depends on it; "
                "`tocsin authority server --host NAME` gives the collector other names"
            )
    try:
        old_key = _load_key(key_path) if half_made else None
        certificate, key = make_authority(f"{title} CA", now, AUTHORITY_DAYS, old_key)
    except ValueError as error:  # 1 to 64 characters (RFC 5280, appendix A)
        raise AuthorityError(f"{title!r} cannot be the name of an authority: {error}") from error
    if not half_made:
        write_file(key_path, key_pem(key), KEY_MODE, replace=False)
    write_file(path, certificate_pem(certificate), CERTIFICATE_MODE, replace=False)
    return record_of(certificate)


def issue_server(folder: Path, hosts: Sequence[str], now: datetime, *, new_key: bool = False) -> ServerCertificate:
    """Issue the collector's certificate, in the place of the one that may be there.

    The key stays the same unless another is asked for: certificate and key are two files, and a collector that starts
    between two renamings would meet a pair that does not match.

    Raises:
        AuthorityError: There is no authority, it has expired, or a name is none.
        RegistryError: The disk refuses.
    """
    names = tuple(dict.fromkeys(check_host(host) for host in hosts))
    if not names:
        raise AuthorityError("a collector needs at least one name or address by which it is reached")
    authority, authority_key = _load_authority(folder, now)
    key_path = folder / "server.key"
    made = new_key or not key_path.exists()
    key = make_key() if made else _load_key(key_path)
    certificate = sign_server(authority, authority_key, key.public_key(), names, now, SERVER_DAYS)
    if made:
        write_file(key_path, key_pem(key), KEY_MODE)
    write_file(folder / "server.pem", certificate_pem(certificate), CERTIFICATE_MODE)
    return ServerCertificate(names, record_of(certificate))


def issue_client(folder: Path, hospital_id: str, now: datetime) -> Issued:
    """Issue a hospital's certificate and its key; the caller enters `record` into the registry.

    Raises:
        AuthorityError: There is no authority, or it has expired.
        RegistryError: That is no id.
    """
    authority, authority_key = _load_authority(folder, now)
    key = make_key()
    certificate = sign_client(authority, authority_key, key.public_key(), check_id(hospital_id), now, CLIENT_DAYS)
    encryption = serialization.BestAvailableEncryption(PKCS12_PASSWORD.encode())
    packed = pkcs12.serialize_key_and_certificates(hospital_id.encode(), key, certificate, [authority], encryption)
    return Issued(
        certificate_pem(certificate), key_pem(key), packed, certificate_pem(authority), record_of(certificate)
    )


def write_revocations(folder: Path, hospitals: Hospitals, now: datetime) -> Path:
    """Write `crl.pem`: the revoked certificates of all hospitals, signed by the authority.

    Raises:
        AuthorityError: There is no authority, or it has expired.
        RegistryError: The disk refuses.
    """
    authority, authority_key = _load_authority(folder, now)
    everyone = (certificate for hospital in hospitals.by_id.values() for certificate in hospital.certificates)
    revoked = sorted((one.serial, one.revoked) for one in everyone if one.revoked is not None)
    path = folder / "crl.pem"
    write_file(path, sign_revocations(authority, authority_key, revoked, now, CRL_DAYS), CERTIFICATE_MODE)
    return path


def read_authority(folder: Path) -> Certificate:
    """The authority's certificate.

    Raises:
        AuthorityError: There is none, or it cannot be read.
    """
    return record_of(_load_certificate(folder / "ca.pem"))


def read_server(folder: Path) -> ServerCertificate:
    """The collector's certificate.

    Raises:
        AuthorityError: There is none, or it cannot be read.
    """
    certificate = _load_certificate(folder / "server.pem")
    hosts = hosts_of(certificate)
    if not hosts:
        raise AuthorityError(f"{folder / 'server.pem'}: names no host")
    return ServerCertificate(hosts, record_of(certificate))


def check_host(host: str) -> str:
    """A host name or an address, in its usual form.

    Raises:
        AuthorityError: It is neither.
    """
    text = host.strip()
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
        if "%" not in text:  # a zone, such as %eth0, is an interface of one machine, and may be any text
            return str(address)
        raise AuthorityError(f"{visible(repr(text))} names a zone, which means nothing on another machine")
    except ValueError:
        if not _HOST_NAME.fullmatch(text):
            raise AuthorityError(f"{text!r} is no host name or address, such as collect.example.org") from None
        return text.lower()


def _load_authority(folder: Path, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = folder / "ca.pem"
    certificate, key = _load_certificate(path), _load_key(folder / "ca.key")
    if certificate.public_key() != key.public_key():
        raise AuthorityError(f"{folder}: ca.key is not the key of ca.pem")
    if now >= certificate.not_valid_after_utc:
        raise AuthorityError(f"{path}: the authority expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    return certificate, key


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise AuthorityError(f"{path}: no certificate in PEM form") from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (TypeError, ValueError) as error:  # TypeError: it is encrypted
        raise AuthorityError(f"{path}: no private key in PEM form without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{path}: the key is not one of an elliptic curve")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise AuthorityError(f"{path}: is not there; `tocsin authority init --host NAME` makes it") from error
    except OSError as error:
        raise AuthorityError(f"{path}: cannot be read: {error.strerror}") from error

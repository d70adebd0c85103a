"""X.509 certificates and keys, made and written as PEM; no I/O. What is signed for whom, `ingest.authority` decides.

Everything is ECDSA: P-384 for the authority, P-256 for what it signs, which every syslog daemon of this decade takes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ingest.hospital import Certificate

BACKDATED: Final = timedelta(hours=1)
"""A hospital's clock may be behind ours, and a certificate of the future is refused."""

_HASH: Final = hashes.SHA384()


def make_authority(
    title: str, now: datetime, days: int, key: ec.EllipticCurvePrivateKey | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate that signs itself and others, but nothing that signs (pathlen 0), and its key.

    Args:
        title: Its CN.
        now: From when it is good.
        days: For how long.
        key: Its key; a new one if not given.

    Raises:
        ValueError: The title cannot be a name in a certificate.
    """
    key = ec.generate_private_key(ec.SECP384R1()) if key is None else key
    name = _name(title)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, _HASH)
    )
    return certificate, key


def make_key() -> ec.EllipticCurvePrivateKey:
    """A key for a server or a client."""
    return ec.generate_private_key(ec.SECP256R1())


def sign_server(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    hosts: Sequence[str],
    now: datetime,
    days: int,
) -> x509.Certificate:
    """A server's certificate: its hosts as SAN, the first as CN too, since librelp looks there."""
    return (
        _leaf(authority, _name(hosts[0][:64]), key, now, days)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .sign(authority_key, _HASH)
    )


def sign_client(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    name: str,
    now: datetime,
    days: int,
) -> x509.Certificate:
    """A client's certificate, with its name as CN."""
    return (
        _leaf(authority, _name(name), key, now, days)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority_key, _HASH)
    )


def sign_revocations(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    revoked: Sequence[tuple[str, datetime]],
    now: datetime,
    days: int,
) -> bytes:
    """A CRL in PEM form (RFC 5280, section 5) of serial numbers and the times when they were revoked."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(_seconds(now))
        .next_update(_seconds(now) + timedelta(days=days))
        .add_extension(_authority_identifier(authority), critical=False)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)  # must grow (5.2.3)
    )
    for serial, moment in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(_seconds(moment))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority_key, _HASH).public_bytes(serialization.Encoding.PEM)


def record_of(certificate: x509.Certificate) -> Certificate:
    """What the registry holds of a certificate."""
    return Certificate(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def hosts_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses that a server's certificate is good for; none if it has no SAN."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate in PEM form."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key in PEM form (PKCS #8), not encrypted: what protects it is where it lies."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _leaf(
    authority: x509.Certificate, name: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    until = min(now + timedelta(days=days), authority.not_valid_after_utc)
    return (
        _builder(authority.subject, name, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority_identifier(authority), critical=False)
    )


def _builder(
    issuer: x509.Name, name: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_seconds(now - BACKDATED))
        .not_valid_after(_seconds(until))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _seconds(moment: datetime) -> datetime:
    """Certificates know whole seconds alone (RFC 5280, 4.1.2.5)."""
    return moment.astimezone(UTC).replace(microsecond=0)

"""Whose a channel is. The tenant of a line is decided here, before its first byte is read, and by nothing inside it.

Three ways, from the weakest to the strongest:

- a listener bound to one hospital, perhaps to some networks;
- the sender's address, looked up in the networks of the registry. An address can be forged in UDP, and is only as
  good as the network that carries it;
- the client's certificate, looked up in the registry by its SHA-256 fingerprint. TLS has proved by then that the peer
  holds the key and that our authority signed the certificate; the registry says whose it is, and whether it still
  holds.

No I/O here: the registry's state and the time are arguments.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ingest.hospital import Certificate, Hospitals, Network, network_of

REFUSED_ADDRESS: Final = "address not allowed"
REFUSED_SENDER: Final = "unknown sender"
REFUSED_UNKNOWN: Final = "certificate unknown"
REFUSED_REVOKED: Final = "certificate revoked"
REFUSED_EXPIRED: Final = "certificate expired"
REFUSED_EARLY: Final = "certificate not yet valid"
REFUSED_OTHER: Final = "certificate of another hospital"
REFUSED_HANDSHAKE: Final = "TLS handshake failed"
REFUSED_KEYLESS: Final = "no keys for patients' data"
REFUSED_LIMIT: Final = "too many connections"
REFUSED_SHARE: Final = "too many connections of one hospital"
REFUSED_DESCRIPTORS: Final = "out of file descriptors"

MAX_REMEMBERED: Final = 10_000
"""Addresses whose answer a door remembers: datagrams with forged addresses must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Where lines come from, as the listener knows it.

    Attributes:
        tenant: The hospital.
        peer: Address of the sender.
        listener: Name of the listener.
        patient_data: Whether identifiers of patients in the lines are to be made pseudonyms before the bus.
        session: RELP: `collector:number` of the session; empty otherwise. Lines of two sessions share no batch.
    """

    tenant: str
    peer: str
    listener: str = ""
    patient_data: bool = False
    session: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a channel is refused; one of the `REFUSED_*` texts."""

    reason: str


class Door:
    """Who may come in by a listener that knows its senders by their address.

    Args:
        tenant: The hospital the listener is bound to; empty if the address or a certificate says whose it is.
        by_address: Whether the hospital is looked up by the sender's address.
        allow: Networks that may send; empty for all.
        hospitals: The registry.
        keyless: Hospitals whose lines could not be protected, at a listener where that must be.
    """

    def __init__(
        self,
        tenant: str,
        by_address: bool,
        allow: tuple[str, ...],
        hospitals: Hospitals,
        keyless: frozenset[str] = frozenset(),
    ) -> None:
        self._tenant = tenant
        self._by_address = by_address
        self._allow: tuple[Network, ...] = tuple(network_of(text) for text in allow)
        self._hospitals = hospitals
        self._keyless = keyless
        self._known: dict[str, str | Refusal] = {}

    def renew(self, hospitals: Hospitals, keyless: frozenset[str] = frozenset()) -> None:
        """The registry has changed, or who has keys."""
        self._hospitals = hospitals
        self._keyless = keyless
        self._known.clear()

    def tenant(self, address: str) -> str | Refusal:
        """The hospital of a sender, or why it may not send. Empty where only a certificate can say."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known

    def _look_up(self, address: str) -> str | Refusal:
        if self._allow and not self._allowed(address):
            return Refusal(REFUSED_ADDRESS)
        if not self._by_address:
            return self.protected(self._tenant)
        hospital = self._hospitals.at_address(address)
        return Refusal(REFUSED_SENDER) if hospital is None else self.protected(hospital.id)

    def protected(self, tenant: str) -> str | Refusal:
        """The hospital, unless its lines could not be protected here: its senders had better keep them."""
        return Refusal(REFUSED_KEYLESS) if tenant in self._keyless else tenant

    def _allowed(self, address: str) -> bool:
        try:
            sought = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(sought in network for network in self._allow)


def tenant_of_certificate(fingerprint: str, bound: str, hospitals: Hospitals, now: datetime) -> str | Refusal:
    """The hospital to which a certificate was issued, or why it is refused.

    Args:
        fingerprint: SHA-256 of the certificate in DER form, in lower-case hexadecimal.
        bound: The hospital the listener is bound to, or empty. A bound listener also takes certificates that the
            registry does not know (its authority signed them), but none that was revoked or is another hospital's.
        hospitals: The registry.
        now: The time, with its zone.
    """
    found = hospitals.certificate(fingerprint)
    if found is None:
        return bound or Refusal(REFUSED_UNKNOWN)
    hospital, certificate = found
    if (reason := _lapse(certificate, now)) is not None:
        return Refusal(reason)
    if bound and hospital.id != bound:
        return Refusal(REFUSED_OTHER)
    return hospital.id


def _lapse(certificate: Certificate, now: datetime) -> str | None:
    if certificate.revoked is not None:
        return REFUSED_REVOKED
    if now > certificate.not_after:
        return REFUSED_EXPIRED
    return REFUSED_EARLY if now < certificate.not_before else None

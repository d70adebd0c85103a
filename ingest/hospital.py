"""A hospital as the pipeline knows it: who it is, how its channel proves it, and what it should send.

The registry (`ingest.registry`) keeps one file a hospital; this module is what it holds. Two things depend on it: whose
lines a connection carries (its certificate, or its address), and how the lines of a source are read (its time zone, and
its format where that is pinned). Neither is ever taken from what a message says of itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

DEFAULT_TIME_ZONE: Final = "Europe/Paris"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED: Final = 96  # bits before an IPv4 address within IPv6


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client certificate issued to a hospital.

    Attributes:
        fingerprint: SHA-256 of the certificate in DER form, in lower-case hexadecimal.
        serial: Serial number in hexadecimal.
        not_before: Valid from.
        not_after: Valid until.
        revoked: When it was revoked; None while it is good.
    """

    fingerprint: str
    serial: str
    not_before: datetime
    not_after: datetime
    revoked: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExpectedSource:
    """Something in the hospital that sends logs, and how they are to be read.

    A line is of this source if the sender's address is in `address`, or, behind a relay, if the host in its syslog
    header is `host`; if both are given, both must hold.

    Attributes:
        name: What people call it, such as "pare-feu".
        address: Address or network of the sender, or None.
        host: Name in the syslog header, compared without case, or None.
        format: Name of the format its lines are in, as in docs/formats.md; None to recognise each line.
        time_zone: Of times that name no zone; None for the hospital's.
    """

    name: str
    address: str | None = None
    host: str | None = None
    format: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom to call.

    Attributes:
        name: Of a person or a desk.
        role: Such as "RSSI" or "astreinte".
        phone: Empty if unknown.
        email: Empty if unknown.
    """

    name: str
    role: str = ""
    phone: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class Hospital:
    """A hospital.

    Attributes:
        id: Its tenant name, everywhere in the pipeline: lower-case letters, digits and hyphens.
        title: Its name as people write it.
        finess_ej: FINESS number of the legal entity (9 characters), or empty.
        finess_et: FINESS numbers of its sites.
        ght: Its GHT, or empty.
        region: Its region, or empty.
        ose: Whether it is an "opérateur de services essentiels".
        contacts: Whom to call, in this order.
        time_zone: Of times that name no zone.
        networks: Addresses it sends from, where a listener knows hospitals by their address.
        sources: What it should send.
        certificates: Issued to it, revoked ones included.
    """

    id: str
    title: str
    finess_ej: str = ""
    finess_et: tuple[str, ...] = ()
    ght: str = ""
    region: str = ""
    ose: bool = False
    contacts: tuple[Contact, ...] = ()
    time_zone: str = DEFAULT_TIME_ZONE
    networks: tuple[str, ...] = ()
    sources: tuple[ExpectedSource, ...] = ()
    certificates: tuple[Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class Hospitals:
    """All hospitals, to be asked whose a channel is: at each connection, and at each datagram of an unknown sender.

    So that a flood of forged addresses costs no search, certificates and networks are found in tables, made once.

    Attributes:
        by_id: Id -> hospital.
    """

    by_id: Mapping[str, Hospital] = field(default_factory=dict)
    _certificates: Mapping[str, tuple[Hospital, Certificate]] = field(init=False, repr=False, compare=False)
    _networks: Mapping[tuple[int, int], Mapping[int, Hospital]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the tables; of two that claim the same, which the registry refuses, the first holds."""
        certificates: dict[str, tuple[Hospital, Certificate]] = {}
        networks: dict[tuple[int, int], dict[int, Hospital]] = {}
        for hospital in self.by_id.values():
            for certificate in hospital.certificates:
                certificates.setdefault(certificate.fingerprint, (hospital, certificate))
            for text in hospital.networks:
                network = network_of(text)
                of_width = networks.setdefault((network.version, network.prefixlen), {})
                of_width.setdefault(int(network.network_address), hospital)
        narrowest_first = {width: networks[width] for width in sorted(networks, key=lambda width: -width[1])}
        object.__setattr__(self, "_certificates", certificates)
        object.__setattr__(self, "_networks", narrowest_first)

    @classmethod
    def of(cls, hospitals: Iterable[Hospital]) -> Hospitals:
        """Hospitals by their ids."""
        return cls({hospital.id: hospital for hospital in hospitals})

    def certificate(self, fingerprint: str) -> tuple[Hospital, Certificate] | None:
        """The hospital to which the certificate with this fingerprint was issued; None if to no one."""
        return self._certificates.get(fingerprint)

    def at_address(self, address: str) -> Hospital | None:
        """The hospital whose networks hold this address, the narrowest network first; None if there is none."""
        try:
            sought = ipaddress.ip_address(address)
        except ValueError:
            return None
        number = int(sought)
        for (version, width), networks in self._networks.items():
            if version == sought.version:
                spare = sought.max_prefixlen - width
                found = networks.get(number >> spare << spare)
                if found is not None:
                    return found
        return None


def network_of(text: str) -> Network:
    """An address or a network. IPv4 written within IPv6 (RFC 4291, 2.5.5.2) is IPv4, as senders' addresses are here.

    Raises:
        ValueError: It is neither, or names a zone (`fe80::1%eth0`): that is an interface of one machine.
    """
    if "%" in text:
        raise ValueError(f"{text!r} names a zone")
    network = ipaddress.ip_network(text, strict=False)
    mapped = network.network_address.ipv4_mapped if network.version == 6 else None
    if mapped is None or network.prefixlen < _MAPPED:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED))

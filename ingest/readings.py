"""How the lines of a source are to be read, where that is known: its time zone, and its format.

Most lines say both themselves. What they do not say is in the registry: old syslog headers and many devices write local
time without a zone, and a hospital's clocks show Paris or Réunion; a format may be pinned where lines are too plain to
be recognised, or be one that only this hospital has (an adapter). A source is told by its hospital, the sender's
address, and, behind a relay, the host in the syslog header; never by what the content claims.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ingest.formats.piece import Format
from ingest.formats.times import UTC_ZONE
from ingest.hospital import ExpectedSource, Hospital, Hospitals


@dataclass(frozen=True, slots=True)
class Reading:
    """How some lines are to be read.

    Attributes:
        zone: Time zone (IANA) of times that name none.
        format: Name of the format that is offered them first, or None.
    """

    zone: str = UTC_ZONE
    format: str | None = None


AS_THEY_SAY: Final = Reading()


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings of all sources.

    Attributes:
        hospitals: The registry.
        formats: Formats that only the registry names, by their names.
        others: How lines are read that are of no hospital of the registry.
        format: Name of the format that all lines are offered first, if the channel says so: it counts before what the
            registry says of the source.
    """

    hospitals: Hospitals = field(default_factory=Hospitals)
    formats: Mapping[str, Format] = field(default_factory=dict)
    others: Reading = AS_THEY_SAY
    format: str | None = None

    def __bool__(self) -> bool:
        """Whether anything is known of any source."""
        return bool(self.hospitals.by_id) or self.others != AS_THEY_SAY or self.format is not None

    def needs_host(self, tenants: set[str]) -> bool:
        """Whether the host in the header makes a difference for one of these hospitals."""
        known = (self.hospitals.by_id.get(tenant) for tenant in tenants)
        return any(source.host is not None for hospital in known if hospital for source in hospital.sources)

    def of(self, tenant: str, peer: str, host: str | None) -> Reading:
        """The reading of the lines of one source; the first source of the hospital that fits counts."""
        reading = self._of(tenant, peer, host)
        return reading if self.format is None else replace(reading, format=self.format)

    def _of(self, tenant: str, peer: str, host: str | None) -> Reading:
        hospital = self.hospitals.by_id.get(tenant)
        if hospital is None:
            return self.others
        source = source_of(hospital, peer, host)
        if source is None:
            return Reading(hospital.time_zone)
        return Reading(source.time_zone or hospital.time_zone, source.format)


def offered_first(readings: Readings | None, name: str) -> Readings | None:
    """The same readings, with all lines offered to the format of this name first; as they are where it is empty."""
    return replace(readings or Readings(), format=name) if name else readings


def source_of(hospital: Hospital, peer: str, host: str | None) -> ExpectedSource | None:
    """The first expected source of a hospital that lines from this address, with this host in their header, are of."""
    return next((source for source in hospital.sources if _fits(source, peer, host)), None)


def _fits(source: ExpectedSource, peer: str, host: str | None) -> bool:
    if source.address is None and source.host is None:
        return False
    if source.host is not None and source.host.lower() != (host or "").lower():
        return False
    return source.address is None or _within(peer, source.address)


def _within(peer: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(peer) in ipaddress.ip_network(network, strict=False)
    except ValueError:  # a peer without an address
        return False

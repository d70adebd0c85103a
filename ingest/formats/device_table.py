"""The formats of network and security devices and of servers, in the order in which a line is offered to them.

Each is recognised by how its lines begin, so none looks into what it does not know; only of FortiGate must the line
also hold ` logid=`. Squid comes before the web servers, whose form it borrows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import polars as pl

from ingest.formats import (
    cef,
    cisco_asa,
    dns_servers,
    fortigate,
    generic_pairs,
    leef,
    openvpn,
    palo_alto,
    squid,
    stormshield,
    web_access,
)
from ingest.formats.palo_alto_columns import COLUMNS
from ingest.formats.piece import Format, Parsed
from ingest.logsource import LogSource

_PAYLOAD: Final = pl.col("payload")

_PROGRAM: Final = pl.col("program")


def _holds(*texts: str) -> pl.Expr:
    """Whether the payload holds one of these."""
    if len(texts) == 1:
        return _PAYLOAD.str.contains(texts[0], literal=True)
    return _PAYLOAD.str.contains_any(list(texts))


def _format(name: str, recognise: pl.Expr, parse: Callable[[pl.DataFrame], Parsed], hint: pl.Expr) -> Format:
    """A format that rejects what it does not recognise: pinned to a source, it is offered whatever that sends."""

    def parse_recognised(lines: pl.DataFrame) -> Parsed:
        known = form.recognised(lines)
        if known.all():
            return parse(lines)
        others = dict.fromkeys(lines["row"].filter(~known).to_list(), f"no line of {name}")
        parsed = parse(lines.filter(known)) if known.any() else Parsed([])
        return replace(parsed, rejects={**parsed.rejects, **others})

    form = Format(name, recognise, parse_recognised, hint)
    return form


DEVICES: Final[tuple[Format, ...]] = (
    _format(
        stormshield.DATASET,
        _PAYLOAD.str.contains(stormshield.RECORD),
        stormshield.parse_stormshield,
        _holds("firewall"),
    ),
    _format(fortigate.DATASET, fortigate.RECOGNISE, fortigate.parse_fortigate, _holds(" logid=")),
    _format(
        palo_alto.DATASET,
        _PAYLOAD.str.contains(palo_alto.RECORD),
        palo_alto.parse_palo_alto,
        _holds(*(f",{log}," for log in COLUMNS)),
    ),
    _format(cef.DATASET, cef.RECOGNISE, cef.parse_cef, _holds("CEF:") | (_PROGRAM == "CEF").fill_null(value=False)),
    _format(
        leef.DATASET, leef.RECOGNISE, leef.parse_leef, _holds("LEEF:") | (_PROGRAM == "LEEF").fill_null(value=False)
    ),
    _format(
        cisco_asa.DATASET, _PAYLOAD.str.contains(cisco_asa.TAG), cisco_asa.parse_asa, _holds("%ASA-", "%FTD-", "%PIX-")
    ),
    _format(squid.DATASET, squid.RECOGNISE, squid.parse_squid, _holds(*squid.RESULTS)),
    _format(
        web_access.ACCESS_DATASET, _PAYLOAD.str.contains(web_access.COMBINED), web_access.parse_access, _holds('] "')
    ),
    _format(web_access.ERROR_DATASET, web_access.ERROR, web_access.parse_errors, _holds("] ")),
    _format("dns.bind", dns_servers.RECOGNISE_BIND, dns_servers.parse_bind, _holds(": quer")),
    _format(
        "dns.dnsmasq",
        dns_servers.RECOGNISE_DNSMASQ,
        dns_servers.parse_dnsmasq,
        _PROGRAM.str.starts_with("dnsmasq"),
    ),
    _format(
        openvpn.DATASET,
        openvpn.RECOGNISE,
        openvpn.parse_openvpn,
        openvpn.PROGRAM.fill_null(value=False) | _PAYLOAD.str.starts_with("20"),
    ),
)
"""Before the formats of any syslog line."""

PAIRS: Final = _format(
    generic_pairs.DATASET,
    _PAYLOAD.str.contains(generic_pairs.MOSTLY),
    generic_pairs.parse_pairs,
    _PAYLOAD.str.count_matches("=", literal=True) >= 3,
)
"""After every format that knows whose pairs they are."""

_FORTIGATE: Final = (*fortigate.TYPES, *fortigate.CATEGORIES)
_PALO_ALTO: Final = {"traffic": "firewall", "globalprotect": "appliance"}

LOGSOURCES: Final = frozenset(
    {
        *(LogSource("stormshield", stormshield.CATEGORIES.get(kind), kind) for kind in stormshield.LOGTYPES),
        *(LogSource("fortigate", fortigate.CATEGORIES.get(kind), kind.partition("/")[0]) for kind in _FORTIGATE),
        *(LogSource("paloalto", _PALO_ALTO.get(log.lower()), log.lower()) for log in COLUMNS),
        *(LogSource("paloalto", category, "threat") for category in ("proxy", "antivirus")),
        *(family.logsource for family in cisco_asa.FAMILIES.values()),
        *(LogSource("cef"), leef.LOGSOURCE, squid.LOGSOURCE, openvpn.LOGSOURCE),
        *(LogSource(server, "webserver", server) for server in ("apache", "nginx", None)),
        *(LogSource(server, None, server) for server in ("apache", "nginx")),
        *(LogSource(server, "dns") for server in ("bind", "dnsmasq")),
    }
)
"""Every log source that these give."""

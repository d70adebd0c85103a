"""What levels, statuses and tags are called on the pages."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from console.languages import N_
from storage.alert import Level, Status

LEVEL_NAMES: Final[Mapping[Level, str]] = {
    Level.CRITICAL: N_("Critical"),
    Level.HIGH: N_("High"),
    Level.MEDIUM: N_("Medium"),
    Level.LOW: N_("Low"),
    Level.INFORMATIONAL: N_("Informational"),
}
"""Worst first, as the queue is."""

STATUS_NAMES: Final[Mapping[Status, str]] = {
    Status.NEW: N_("New"),
    Status.IN_PROGRESS: N_("In progress"),
    Status.TRUE_POSITIVE: N_("True positive"),
    Status.FALSE_POSITIVE: N_("False positive"),
    Status.CLOSED: N_("Closed"),
}

STATUS_KEYS: Final[Mapping[Status, str]] = {
    Status.IN_PROGRESS: "a",
    Status.TRUE_POSITIVE: "t",
    Status.FALSE_POSITIVE: "f",
    Status.CLOSED: "x",
}
"""The key that gives an alert this status."""

SINCE: Final[Mapping[str, tuple[str, timedelta]]] = {
    "1h": (N_("Last hour"), timedelta(hours=1)),
    "24h": (N_("Last 24 hours"), timedelta(hours=24)),
    "7d": (N_("Last 7 days"), timedelta(days=7)),
    "30d": (N_("Last 30 days"), timedelta(days=30)),
}

RULE_TITLES: Final[Mapping[str, str]] = {
    "4b1f6c0e-6a53-4f1e-9d57-0c6b4a8e2d11": N_("A log source has fallen silent"),
    "8f0d3e52-1c7b-4a86-b7f4-53d19a0c6e22": N_("All log sources behind one sender have fallen silent"),
    "c2a97d48-5e3f-4d0b-8a61-f7b80e914a33": N_("A hospital has fallen silent"),
    "1d64b8fa-92c0-4e7d-a35c-6e2f07b1cd44": N_("An expected log source has never sent"),
    "e6750c9b-3d28-4b14-9cf2-18a4d5f3b955": N_("Many log sources of a hospital have fallen silent"),
    "70e2f5d1-b84a-4c69-86de-9a3c1b7f0e66": N_("The logs that come in are not being received or read"),
}
"""Rule id -> title, of the alerts that the platform raises itself; a Sigma rule keeps its author's language."""

_TECHNIQUE: Final = re.compile(r"attack\.(t\d{4}(?:\.\d{3})?|[gs]\d{4})", re.IGNORECASE)


def short_host(host: str) -> str:
    """A host's name without its domain; an address, or a name that is no DNS name, stays whole."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.partition(".")[0] or host
    return host


def tag_name(tag: str) -> str:
    """A Sigma tag as people write it: `T1021.001` for `attack.t1021.001`, `lateral movement` for a tactic."""
    technique = _TECHNIQUE.fullmatch(tag)
    if technique:
        return technique[1].upper()
    if tag.lower().startswith("attack."):
        return tag[len("attack.") :].replace("_", " ").replace("-", " ")
    return tag

"""Silences as alerts: which rule speaks, of what, and with which evidence. No I/O.

The alert of a silence has the id of who is silent and since when, so that it is raised once however often it is looked
at, and again when the source spoke in between. Titles are English here; the console has them in its catalogs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from detections.silence import Deadline
from ingest.hospital import ExpectedSource, Hospital
from ingest.readings import source_of
from ingest.source_counts import OTHER
from storage.alert import Alert, Level, alert_id
from storage.source import Scope, SourceName

LOGSOURCE: Final = "tocsin/_/sources"
PLATFORM_TENANT: Final = "tocsin"
"""The "hospital" of alerts about ourselves."""


@dataclass(frozen=True, slots=True)
class SilenceRule:
    """What is said of a kind of silence: its id, its title and its level."""

    id: str
    title: str
    level: Level


RULES: Final[Mapping[Scope, SilenceRule]] = {
    Scope.SOURCE: SilenceRule("4b1f6c0e-6a53-4f1e-9d57-0c6b4a8e2d11", "A log source has fallen silent", Level.MEDIUM),
    Scope.ADDRESS: SilenceRule(
        "8f0d3e52-1c7b-4a86-b7f4-53d19a0c6e22", "All log sources behind one sender have fallen silent", Level.MEDIUM
    ),
    Scope.HOSPITAL: SilenceRule("c2a97d48-5e3f-4d0b-8a61-f7b80e914a33", "A hospital has fallen silent", Level.HIGH),
    Scope.EXPECTED: SilenceRule(
        "1d64b8fa-92c0-4e7d-a35c-6e2f07b1cd44", "An expected log source has never sent", Level.MEDIUM
    ),
    Scope.MANY: SilenceRule(
        "e6750c9b-3d28-4b14-9cf2-18a4d5f3b955", "Many log sources of a hospital have fallen silent", Level.HIGH
    ),
    Scope.PLATFORM: SilenceRule(
        "70e2f5d1-b84a-4c69-86de-9a3c1b7f0e66", "The logs that come in are not being received or read", Level.HIGH
    ),
}
"""Scope -> its rule. The ids never change: analysts' decisions hang on them."""


def silence_id(scope: Scope, name: SourceName, since: datetime | None) -> str:
    """The id of the alert of a silence that began at `since`."""
    who = f"{name.address}\x00{name.host}\x00{name.family}"
    moment = "never" if since is None else since.astimezone(UTC).isoformat()
    return alert_id(RULES[scope].id, name.tenant, f"{who}\x00{moment}")


def silence_alert(
    scope: Scope,
    name: SourceName,
    since: datetime | None,
    now: datetime,
    *,
    known_as: str = "",
    deadline: Deadline | None = None,
    more: Mapping[str, str] | None = None,
) -> Alert:
    """The alert of a silence.

    Args:
        scope: What is silent.
        name: Who; members that the scope does not need are empty.
        since: The last line; None if there never was one.
        now: When it is raised.
        known_as: What people call it (the registry).
        deadline: When and by which slots the silence became remarkable.
        more: Further evidence.
    """
    rule = RULES[scope]
    matched = {"last line": "never" if since is None else since.astimezone(UTC).isoformat(timespec="seconds")}
    if known_as:
        matched["source"] = known_as
    said = {"address": name.address, "host": name.host, "family": name.family, **(more or {})}
    event = {**matched, "scope": scope.value, **{key: value for key, value in said.items() if value}}
    if deadline is not None:
        event["remarkable since"] = deadline.at.astimezone(UTC).isoformat(timespec="seconds")
        event["judged by"] = f"empty {deadline.scale.value}s"
        event["surprise"] = f"{deadline.bound:.1f}"
    return Alert(
        id=silence_id(scope, name, since),
        rule_id=rule.id,
        rule_title=rule.title,
        level=rule.level,
        tenant=name.tenant,
        timestamp=now,
        received=now,
        logsource=LOGSOURCE,
        host=known_as or name.host or None,
        source_ip=name.address or None,
        matched={**matched, **(more or {})},
        event=event,
        tags=("attack.t1562.006",) if scope is not Scope.PLATFORM else (),
    )


def expected_as(hospital: Hospital | None, name: SourceName) -> ExpectedSource | None:
    """The source of the registry that a source is; None if it is none of them."""
    if hospital is None or name.address == OTHER:
        return None
    return source_of(hospital, name.address, name.host or None)

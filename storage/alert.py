"""Alerts, and what analysts decide about them: the values the store keeps.

An alert's state is a fold over its decisions (docs/decisions/0005-decisions-are-events.md): nothing is overwritten.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass, field
from datetime import datetime


class Level(enum.StrEnum):
    """Sigma levels (Sigma specification, "Level"), best first in the queue by `rank`."""

    INFORMATIONAL = "informational"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 (informational) to 4 (critical)."""
        return list(Level).index(self)


class Status(enum.StrEnum):
    """Where an alert stands."""

    NEW = "new"
    IN_PROGRESS = "in_progress"
    TRUE_POSITIVE = "true_positive"
    FALSE_POSITIVE = "false_positive"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One event behind the alert of a correlation, as the analyst sees it in a list.

    Attributes:
        event_id: The event; of a correlation that others rest on, the id of its alert.
        timestamp: Event time, UTC.
        rule_title: The rule that it matched.
        host: Host, where known; so too user, source_ip.
        matched: As that of an alert.
    """

    event_id: str
    timestamp: datetime
    rule_title: str
    host: str | None = None
    user: str | None = None
    source_ip: str | None = None
    matched: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, as `correlate` publishes it and the store keeps it.

    Attributes:
        id: `alert_id(...)`: the same evidence gives the same id on every run.
        rule_id: Sigma rule id (UUID), or a hash of the rule where it has none.
        rule_title: For people.
        level: Sigma level; a rule without one counts as medium.
        tenant: Hospital.
        timestamp: Event time of the (last) evidence, UTC.
        received: When the collector had the evidence, UTC.
        logsource: `product/category/service`.
        host: Host of the evidence, where known; so too user, source_ip, destination_ip.
        event_ids: Evidence, by event id.
        matched: Field -> value that made the rule fire; None where it fired because the event lacks the field.
        event: All fields of the (last) event, without the raw line.
        original: Raw line of the (last) event.
        tags: The rule's tags (`attack.t1021.001`, ...).
        evidence: Of a correlation: the newest of the events behind it, oldest first. Empty for a plain rule.
    """

    id: str
    rule_id: str
    rule_title: str
    level: Level
    tenant: str
    timestamp: datetime
    received: datetime
    logsource: str
    host: str | None = None
    user: str | None = None
    source_ip: str | None = None
    destination_ip: str | None = None
    event_ids: tuple[str, ...] = ()
    matched: dict[str, str | None] = field(default_factory=dict)
    event: dict[str, str] = field(default_factory=dict)
    original: str = ""
    tags: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def alert_id(rule_id: str, tenant: str, evidence: str) -> str:
    """The id of an alert: 32 hex digits of SHA-256 over rule, tenant and evidence (event ids or window)."""
    joined = f"{rule_id}\x00{tenant}\x00{evidence}"
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry of an alert's journal: who set which status when, and why."""

    alert_id: str
    at: datetime
    author: str
    status: Status
    note: str

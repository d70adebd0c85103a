"""Models of the JSON API: what a client may rely on, apart from how the store keeps it. All times are UTC."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from console.deciding import NOTE_MAX
from console.pulse import SystemPulse
from console.rule_text import RuleText
from storage.alert import Decision, Level, Status
from storage.alert_queue import AlertRow


class DecisionModel(BaseModel):
    """One entry of an alert's journal."""

    alert_id: str
    at: datetime
    author: str
    status: Status
    note: str

    @classmethod
    def of(cls, decision: Decision) -> DecisionModel:
        """From the store's value."""
        return cls(
            alert_id=decision.alert_id,
            at=decision.at,
            author=decision.author,
            status=decision.status,
            note=decision.note,
        )


class AlertModel(BaseModel):
    """An alert as a list shows it."""

    id: str
    rule_id: str
    rule_title: str
    level: Level
    status: Status
    tenant: Annotated[str, Field(description="Hospital.")]
    timestamp: Annotated[datetime, Field(description="Event time of the last evidence.")]
    received: Annotated[datetime, Field(description="When the collector had the evidence.")]
    logsource: Annotated[str, Field(description="product/category/service")]
    host: str | None
    user: str | None
    source_ip: str | None
    destination_ip: str | None
    matched: Annotated[
        dict[str, str | None], Field(description="Field -> value that made the rule fire; null: absent.")
    ]
    tags: list[str]
    last_decision: DecisionModel | None

    @classmethod
    def of(cls, row: AlertRow) -> AlertModel:
        """From the store's value."""
        return cls.model_validate(_summary(row))


class RuleModel(BaseModel):
    """What a rule says of itself."""

    description: str
    falsepositives: list[str]
    references: list[str]
    source: Annotated[str, Field(description="The rule in YAML.")]

    @classmethod
    def of(cls, text: RuleText) -> RuleModel:
        """From the composition's value."""
        return cls(
            description=text.description,
            falsepositives=list(text.falsepositives),
            references=list(text.references),
            source=text.source,
        )


class EvidenceModel(BaseModel):
    """One event behind the alert of a correlation."""

    event_id: Annotated[str, Field(description="The event; or the id of the alert of a correlation.")]
    timestamp: datetime
    rule_title: Annotated[str, Field(description="The rule that the event matched.")]
    host: str | None
    user: str | None
    source_ip: str | None
    matched: Annotated[dict[str, str | None], Field(description="As that of an alert; long values are cut.")]


class AlertDetailModel(AlertModel):
    """An alert with its evidence."""

    event_ids: list[str]
    evidence: Annotated[list[EvidenceModel], Field(description="Of a correlation: the newest events, oldest first.")]
    event: Annotated[dict[str, str], Field(description="Every field of the last event.")]
    original: Annotated[str, Field(description="Raw line of the last event.")]
    rule: Annotated[RuleModel | None, Field(description="Null where the rule is not known (any more).")]

    @classmethod
    def detailed(cls, row: AlertRow, text: RuleText | None) -> AlertDetailModel:
        """From the store's value and the rule's text."""
        alert = row.alert
        evidence = {
            "event_ids": list(alert.event_ids),
            "evidence": [asdict(piece) for piece in alert.evidence],
            "event": alert.event,
            "original": alert.original,
        }
        rule = RuleModel.of(text) if text else None
        return cls.model_validate({**_summary(row), **evidence, "rule": rule})


def _summary(row: AlertRow) -> dict[str, object]:
    alert = row.alert
    return {
        "id": alert.id,
        "rule_id": alert.rule_id,
        "rule_title": alert.rule_title,
        "level": alert.level,
        "status": row.status,
        "tenant": alert.tenant,
        "timestamp": alert.timestamp,
        "received": alert.received,
        "logsource": alert.logsource,
        "host": alert.host,
        "user": alert.user,
        "source_ip": alert.source_ip,
        "destination_ip": alert.destination_ip,
        "matched": alert.matched,
        "tags": list(alert.tags),
        "last_decision": DecisionModel.of(row.decision) if row.decision else None,
    }


class AlertPageModel(BaseModel):
    """One page of alerts, worst first, then newest."""

    items: list[AlertModel]
    total: Annotated[int, Field(description="Alerts that match, on all pages.")]
    next_cursor: Annotated[str | None, Field(description="`cursor` of the next page; null on the last.")]
    searched: Annotated[
        int | None, Field(description="How many alerts, the newest to arrive, `q` was sought in; null if in all.")
    ]


class DecideModel(BaseModel):
    """A decision to write."""

    model_config = ConfigDict(extra="forbid")

    status: Status
    note: Annotated[str, Field(max_length=NOTE_MAX, description="Required for false_positive and closed.")] = ""
    expected: Annotated[
        Status | None, Field(description="The status you saw; if it has changed since, the answer is 409.")
    ] = None


class ChangesModel(BaseModel):
    """Whether anything changed since a token was given out."""

    token: str
    changed: bool
    ever: Annotated[int | None, Field(description="Alerts that match, whatever their status; null if unchanged.")]


class HospitalPulseModel(BaseModel):
    """What was heard of one hospital."""

    tenant: str
    received: int
    understood: int
    unknown: int
    marked: int
    last_event: datetime | None
    silent: bool


class PulseModel(BaseModel):
    """State of the system itself; everything is null where nothing supplies it."""

    at: datetime | None = None
    hospitals: list[HospitalPulseModel] = []
    rules_loaded: int | None = None
    rules_refused: int | None = None
    lag: Annotated[int | None, Field(description="Bus records received and not yet searched by the rules.")] = None
    quarantined: Annotated[int | None, Field(description="Bus records that could not be read.")] = None
    failing: Annotated[list[str], Field(description="Stages that fail now, each with its reason.")] = []
    dropped: Annotated[int | None, Field(description="Datagrams dropped before they were kept.")] = None

    @classmethod
    def of(cls, pulse: SystemPulse, silent: frozenset[str]) -> PulseModel:
        """From the composition's value and the names of the silent hospitals."""
        return cls(
            at=pulse.at,
            hospitals=[
                HospitalPulseModel(
                    tenant=seen.tenant,
                    received=seen.received,
                    understood=seen.understood,
                    unknown=seen.unknown,
                    marked=seen.marked,
                    last_event=seen.last_event,
                    silent=seen.tenant in silent,
                )
                for seen in pulse.hospitals
            ],
            rules_loaded=pulse.rules_loaded if pulse.rules_known else None,
            rules_refused=pulse.rules_refused if pulse.rules_known else None,
            lag=pulse.lag,
            quarantined=pulse.quarantined,
            failing=list(pulse.failing),
            dropped=pulse.dropped,
        )


class HealthModel(BaseModel):
    """That the console answers."""

    status: str


class FaultModel(BaseModel):
    """One thing wrong with a request."""

    where: str
    message: str


class ProblemModel(BaseModel):
    """An error (RFC 9457, `application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FaultModel] = []

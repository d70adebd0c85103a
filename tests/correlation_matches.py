"""The language of the tests of correlations: rules and matches in a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import orjson
import polars as pl

from detections.condition import parse_condition
from detections.correlation import Correlation
from detections.correlation_rule import (
    CorrelationCondition,
    CorrelationOperator,
    CorrelationRule,
    CorrelationType,
)
from detections.correlator import Correlator
from detections.match import MATCH_SCHEMA

EPOCH = datetime(2026, 3, 2, 8, tzinfo=UTC)
RULES = ("rule-a", "rule-b", "rule-c")
FAR = timedelta(days=400)
"""A lateness that lets nothing be late."""


def correlation_rule(
    kind: str = "event_count",
    references: Sequence[str] = ("rule-a",),
    *,
    id: str = "correlation",  # noqa: A002 - as the rule has it
    span: float = 10,
    group_by: Sequence[str] = ("User",),
    bounds: Sequence[tuple[str, float]] | None = (("gte", 3),),
    fields: Sequence[str] = (),
    percentile: float | None = None,
    expression: str | None = None,
    aliases: Mapping[str, Mapping[str, str]] | None = None,
) -> CorrelationRule:
    condition = CorrelationCondition(
        cast("tuple[tuple[CorrelationOperator, float], ...]", tuple(bounds or ())), tuple(fields), percentile
    )
    return CorrelationRule(
        id=id,
        name=None,
        title=f"Title of {id}",
        level="high",
        status="test",
        tags=("attack.t1110",),
        kind=cast("CorrelationType", kind),
        references=tuple(references),
        names={reference: reference for reference in references},
        group_by=tuple(group_by),
        aliases=aliases or {},
        timespan=timedelta(seconds=span),
        condition=None if bounds is None else condition,
        expression=None if expression is None else parse_condition(expression, references),
        generate=False,
        path=Path("rule.yml"),
        digest="",
        lines={},
    )


@dataclass(frozen=True)
class Match:
    """A row of a match frame, as the tests write it."""

    rule: str
    at: float
    number: int
    fields: Mapping[str, str] = field(default_factory=dict)
    tenant: str = "brest"
    host: str | None = None

    @property
    def event_id(self) -> str:
        return f"tocsin.raw:0:{self.number}:0"


def frame_of(matches: Sequence[Match], received: datetime | None = None) -> pl.DataFrame:
    rows: list[dict[str, object]] = [
        {
            "rule_id": match.rule,
            "rule_title": match.rule,
            "level": "low",
            "tags": [],
            "event_id": match.event_id,
            "tenant": match.tenant,
            "timestamp": EPOCH + timedelta(seconds=match.at),
            "received": received or EPOCH + timedelta(seconds=match.at),
            "logsource": "windows//security",
            "host": match.host,
            "user": None,
            "source_ip": None,
            "destination_ip": None,
            "matched": "{}",
            "event": orjson.dumps(match.fields).decode(),
            "original": f"raw {match.number}",
        }
        for match in matches
    ]
    return pl.DataFrame(rows, schema=MATCH_SCHEMA)


def seconds(time: datetime) -> float:
    return (time - EPOCH).total_seconds()


def run(rules: Sequence[CorrelationRule], matches: Sequence[Match]) -> list[Correlation]:
    correlator = Correlator(rules, lateness=FAR)
    return [*correlator.feed(frame_of(matches)), *correlator.end()]


def fired(rules: Sequence[CorrelationRule], matches: Sequence[Match]) -> list[tuple[str, float]]:
    return [(c.rule.id, seconds(c.timestamp)) for c in run(rules, matches)]


def at(*times: float, rule: str = "rule-a", user: str | None = "ana", start: int = 0) -> list[Match]:
    fields = {} if user is None else {"User": user}
    return [Match(rule, time, start + number, fields) for number, time in enumerate(times)]

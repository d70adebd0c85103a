"""From matches and correlations to alerts, and from the alerts of correlations back to what the engine must know.

Every match of a plain rule is an alert of its own, under an id made from rule, tenant and event: the same match read
twice is the same alert. Rules that a correlation looks at give none, unless it says `generate: true`. A correlation
that fired is an alert under the id that the engine gave it (rule, tenant, group, time). Pure: state is in the engine
(`detections.correlator`), what is read and written in the stage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypedDict, cast

import orjson
import polars as pl

from detections.correlation import Correlation, Firing, Sample
from detections.correlation_rule import CorrelationRule
from storage.alert import Alert, Evidence, Level, alert_id

LEVEL_OF_A_RULE_WITHOUT_ONE: Final = Level.MEDIUM

EVENT_COUNT: Final = "event_count"
TIMESPAN: Final = "timespan"
"""Entries of `matched` beside the group: how many events, and within which time."""

_EXACT: Final = 1e15
"""Whole numbers below it are written out."""

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60))


class _Match(TypedDict):
    """A row of `MATCH_SCHEMA` as Python values."""

    rule_id: str
    rule_title: str
    level: str | None
    tags: list[str] | None
    event_id: str
    tenant: str
    timestamp: datetime
    received: datetime
    logsource: str
    host: str | None
    user: str | None
    source_ip: str | None
    destination_ip: str | None
    matched: str
    event: str
    original: str


def correlate(matches: pl.DataFrame, silenced: Collection[str] = ()) -> Iterator[Alert]:
    """The alerts that a frame of `MATCH_SCHEMA` gives by itself, in its order.

    Args:
        matches: The matches.
        silenced: Ids of the rules that are only material for correlations.
    """
    heard = matches.filter(~pl.col("rule_id").is_in(sorted(silenced))) if silenced else matches
    for row in heard.iter_rows(named=True):
        yield _alert_of(cast("_Match", row))


def _alert_of(match: _Match) -> Alert:
    return Alert(
        id=alert_id(match["rule_id"], match["tenant"], match["event_id"]),
        rule_id=match["rule_id"],
        rule_title=match["rule_title"],
        level=Level(match["level"]) if match["level"] else LEVEL_OF_A_RULE_WITHOUT_ONE,
        tenant=match["tenant"],
        timestamp=match["timestamp"],
        received=match["received"],
        logsource=match["logsource"],
        host=match["host"],
        user=match["user"],
        source_ip=match["source_ip"],
        destination_ip=match["destination_ip"],
        event_ids=(match["event_id"],),
        matched=orjson.loads(match["matched"]),
        event=orjson.loads(match["event"]),
        original=match["original"],
        tags=tuple(match["tags"] or ()),
    )


def alert_of_correlation(correlation: Correlation, evidence: Sequence[Evidence] = ()) -> Alert:
    """The alert of a correlation that fired.

    Its event, host, user and addresses are those of the newest evidence; `matched` holds the group, what was counted
    and the timespan.
    """
    rule, sample = correlation.rule, correlation.sample
    return Alert(
        id=correlation.id,
        rule_id=rule.id,
        rule_title=rule.title,
        level=Level(rule.level) if rule.level else LEVEL_OF_A_RULE_WITHOUT_ONE,
        tenant=correlation.tenant,
        timestamp=correlation.timestamp,
        received=sample.received or correlation.timestamp,
        logsource=sample.logsource or "",
        host=sample.host,
        user=sample.user,
        source_ip=sample.source_ip,
        destination_ip=sample.destination_ip,
        event_ids=correlation.event_ids,
        matched=matched_of(correlation),
        event=_fields(sample.event),
        original=sample.original,
        tags=rule.tags,
        evidence=tuple(evidence),
    )


def matched_of(correlation: Correlation) -> dict[str, str | None]:
    """Why a correlation fired: its group, what was counted, how many events there were, and within which time."""
    rule = correlation.rule
    counted = {
        _counted_name(rule): _number(correlation.value),
        EVENT_COUNT: str(correlation.count),
        TIMESPAN: _duration(rule.timespan),
    }
    fields = {**correlation.group, **counted}
    return {**fields, **correlation.group}  # a group's own field of such a name is the one that is read back


def firing_of(alert: Alert, rules: Mapping[str, CorrelationRule]) -> Firing | None:
    """What the engine must be told of a correlation that fired earlier; None where its rule is not among `rules`."""
    rule = rules.get(alert.rule_id)
    if rule is None or not alert.event_ids:
        return None
    group = {name: value for name in rule.group_by if (value := alert.matched.get(name)) is not None}
    sample = Sample(
        received=alert.received,
        logsource=alert.logsource,
        host=alert.host,
        user=alert.user,
        source_ip=alert.source_ip,
        destination_ip=alert.destination_ip,
        event=orjson.dumps(alert.event).decode(),
        original=alert.original,
    )
    return Firing(rule.id, alert.tenant, group, alert.timestamp, alert.event_ids[-1], sample)


def _counted_name(rule: CorrelationRule) -> str:
    fields = rule.condition.fields if rule.condition is not None else ()
    if not fields:
        return rule.kind
    return f"{rule.kind}({', '.join(fields)})"


def _number(value: float) -> str:
    return str(int(value)) if abs(value) < _EXACT and value == int(value) else f"{value:.6g}"


def _duration(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    for unit, length in _UNITS:
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _fields(event: str) -> dict[str, str]:
    """The event as the match holds it; one that is no object of texts has no fields to show."""
    try:
        fields = orjson.loads(event)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(fields, dict):
        return {}
    return {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in fields.items()}

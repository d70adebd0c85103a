"""From matches to alerts.

Every match of a plain rule is an alert of its own, under an id made from rule, tenant and event: the same match read
twice is the same alert. This is the place where Sigma correlations, which need state and event time, join in; what is
here has no state, so any number of workers may run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, TypedDict, cast

import orjson
import polars as pl

from storage.alert import Alert, Level, alert_id

LEVEL_OF_A_RULE_WITHOUT_ONE: Final = Level.MEDIUM


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


def correlate(matches: pl.DataFrame) -> Iterator[Alert]:
    """The alerts that a frame of `MATCH_SCHEMA` gives, in its order."""
    for row in matches.iter_rows(named=True):
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

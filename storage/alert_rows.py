"""Alerts as rows of the table `alerts`: a frame goes in at once, since DuckDB is slow row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from ingest.envelope import UTC_MICROSECONDS
from storage.alert import Alert
from storage.alert_codec import dump_evidence, dump_fields, in_utc, storable

ALERT_SCHEMA: Final[dict[str, pl.DataType]] = {
    "n": pl.Int64(),
    "id": pl.String(),
    "rule_id": pl.String(),
    "rule_title": pl.String(),
    "level": pl.String(),
    "tenant": pl.String(),
    "timestamp": UTC_MICROSECONDS,
    "received": UTC_MICROSECONDS,
    "logsource": pl.String(),
    "host": pl.String(),
    "user": pl.String(),
    "source_ip": pl.String(),
    "destination_ip": pl.String(),
    "event_ids": pl.List(pl.String()),
    "matched": pl.String(),
    "event": pl.String(),
    "original": pl.String(),
    "tags": pl.List(pl.String()),
    "evidence": pl.String(),
}
"""Columns of `alerts`."""


def alert_rows(alerts: Sequence[Alert], first: int) -> pl.DataFrame:
    """Alerts as rows of the table `alerts`, numbered from `first`."""
    columns: dict[str, list[object]] = {"n": list(range(first, first + len(alerts)))}
    for name in ("id", "rule_id", "rule_title", "tenant", "logsource", "host", "user", "source_ip", "destination_ip"):
        columns[name] = [_storable_or_none(getattr(alert, name)) for alert in alerts]
    columns["original"] = [storable(alert.original) for alert in alerts]
    columns["level"] = [alert.level.value for alert in alerts]
    columns["timestamp"] = [in_utc(alert.timestamp) for alert in alerts]
    columns["received"] = [in_utc(alert.received) for alert in alerts]
    columns["event_ids"] = [[storable(item) for item in alert.event_ids] for alert in alerts]
    columns["tags"] = [[storable(item) for item in alert.tags] for alert in alerts]
    columns["matched"] = [dump_fields(alert.matched) for alert in alerts]
    columns["event"] = [dump_fields(alert.event) for alert in alerts]
    columns["evidence"] = [dump_evidence(alert.evidence) for alert in alerts]
    return pl.DataFrame(columns, schema_overrides=ALERT_SCHEMA)


def _storable_or_none(text: str | None) -> str | None:
    return None if text is None else storable(text)

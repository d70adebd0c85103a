"""Matches: what a plan says of an event frame, and what travels on `tocsin.matches`.

A match is (rule, event) with enough of the event to judge it without reading the lake. On the bus it is an Arrow IPC
stream (`ingest.ipc`), one record a batch.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.envelope import UTC_MICROSECONDS

MATCH_SCHEMA: Final[dict[str, pl.DataType]] = {
    "rule_id": pl.String(),
    "rule_title": pl.String(),
    "level": pl.String(),
    "tags": pl.List(pl.String()),
    "event_id": pl.String(),
    "tenant": pl.String(),
    "timestamp": UTC_MICROSECONDS,
    "received": UTC_MICROSECONDS,
    "logsource": pl.String(),  # product/category/service
    "host": pl.String(),
    "user": pl.String(),
    "source_ip": pl.String(),
    "destination_ip": pl.String(),
    "matched": pl.String(),  # JSON object: field -> value of the detection items that were true
    "event": pl.String(),  # JSON object: every Sigma field of the event that is not null
    "original": pl.String(),
}
"""Columns of a match frame."""

"""The events behind the alert of a correlation, for the analyst: what the engine knows only by id.

The engine keeps the ids of the events in its windows and nothing more of them. What is shown of an event (time, host,
rule, what matched) is kept here, beside it: the newest matches, as the frames they came in, up to a number of bytes.
An event that is not here any more is still in the alert by its id, and in the lake.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypedDict, cast

import orjson
import polars as pl

from detections.correlation import Correlation, Firing, firing_id, to_moment
from detections.correlation_intake import key_of
from detections.correlation_rule import CorrelationRule
from detections.match import MATCH_SCHEMA
from storage.alert import Evidence

MAX_SHOWN: Final = 50
"""Events that an alert shows: the newest. Their ids are all there, up to `correlation.MAX_EVIDENCE`."""

MAX_VALUE: Final = 200
"""Characters of a value that is shown."""

DEFAULT_BYTES: Final = 64 * 1024 * 1024

_KEPT: Final = ("event_id", "rule_id", "rule_title", "timestamp", "host", "user", "source_ip", "matched")


class _Row(TypedDict):
    event_id: str
    rule_id: str
    rule_title: str
    timestamp: datetime
    host: str | None
    user: str | None
    source_ip: str | None
    matched: str


class EvidenceMemory:
    """What was seen lately of the events that correlations look at.

    Args:
        rules: Ids of the rules whose matches are kept.
        most: Bytes to keep; at least the newest frame is kept whole.
    """

    def __init__(self, rules: Collection[str], most: int = DEFAULT_BYTES) -> None:
        self._rules = sorted(rules)
        self._most = most
        self._frames: deque[tuple[pl.DataFrame, int]] = deque()
        self._bytes = 0

    def add(self, matches: pl.DataFrame) -> None:
        """Keep what is shown of these matches (`MATCH_SCHEMA`)."""
        self._keep(matches.filter(pl.col("rule_id").is_in(self._rules)).select(_KEPT))

    def add_firings(self, correlations: Sequence[Correlation]) -> None:
        """Keep what is shown of correlations, since others may rest on them."""
        self._keep_fired((correlation.id, correlation.rule, correlation.firing) for correlation in correlations)

    def add_restored(self, firings: Iterable[Firing], rules: Mapping[str, CorrelationRule]) -> None:
        """The same of correlations that fired before a start, read back."""
        known = [(firing, rules[firing.rule_id]) for firing in firings if firing.rule_id in rules]
        keys = [key_of(firing.group, rule.group_by) for firing, rule in known]
        self._keep_fired(
            (firing_id(rule.id, firing.tenant, key, to_moment(firing.timestamp)), rule, firing)
            for (firing, rule), key in zip(known, keys, strict=True)
            if key is not None
        )

    def _keep_fired(self, fired: Iterable[tuple[str, CorrelationRule, Firing]]) -> None:
        rows = [
            (
                identity,
                rule.id,
                rule.title,
                firing.timestamp,
                firing.sample.host,
                firing.sample.user,
                firing.sample.source_ip,
                orjson.dumps(dict(firing.group)).decode(),
            )
            for identity, rule, firing in fired
        ]
        self._keep(pl.DataFrame(rows, schema={name: MATCH_SCHEMA[name] for name in _KEPT}, orient="row"))

    def _keep(self, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        size = int(frame.estimated_size())
        self._frames.append((frame, size))
        self._bytes += size
        while self._bytes > self._most and len(self._frames) > 1:
            self._bytes -= self._frames.popleft()[1]

    def of(self, correlations: Sequence[Correlation]) -> list[tuple[Evidence, ...]]:
        """The evidence of each correlation, oldest first; what is not kept any more is left out."""
        wanted = {event_id for correlation in correlations for event_id in _shown(correlation)}
        if not wanted or not self._frames:
            return [()] * len(correlations)
        found = pl.concat([frame for frame, _ in self._frames]).filter(pl.col("event_id").is_in(sorted(wanted)))
        rows: dict[str, list[_Row]] = {}
        for row in found.unique(["event_id", "rule_id"], keep="last", maintain_order=True).iter_rows(named=True):
            rows.setdefault(row["event_id"], []).append(cast("_Row", row))
        return [_evidence(correlation, rows) for correlation in correlations]


def _shown(correlation: Correlation) -> tuple[str, ...]:
    return correlation.event_ids[-MAX_SHOWN:]


def _evidence(correlation: Correlation, rows: dict[str, list[_Row]]) -> tuple[Evidence, ...]:
    references = correlation.rule.references
    pieces = []
    for event_id in _shown(correlation):
        own = [row for row in rows.get(event_id, ()) if row["rule_id"] in references]
        if own:
            matched: dict[str, str | None] = {}
            for row in own:
                matched |= _fields(row["matched"])
            first = own[0]
            titles = ", ".join(row["rule_title"] for row in own)
            pieces.append(
                Evidence(
                    event_id, first["timestamp"], titles, first["host"], first["user"], first["source_ip"], matched
                )
            )
    return tuple(pieces)


def _fields(text: str) -> dict[str, str | None]:
    return {name[:MAX_VALUE]: None if value is None else _cut(value) for name, value in orjson.loads(text).items()}


def _cut(value: str) -> str:
    return value if len(value) <= MAX_VALUE else f"{value[:MAX_VALUE]}…"

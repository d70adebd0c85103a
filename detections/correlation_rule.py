"""Correlation rules as plain values: what to count, over which rules, by which group, within which time.

`detections.correlation_load` makes these from YAML; `detections.correlator` runs them. Source: Sigma specification 2.1,
"Sigma Correlation Rules". Every reference is resolved to the id of a rule or of another correlation of the same pack,
so that what runs needs no names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias

from detections.condition import Tree
from detections.rule import Refusal

CorrelationType: TypeAlias = Literal[
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "value_sum",
    "value_avg",
    "value_percentile",
    "value_median",
]
CorrelationOperator: TypeAlias = Literal["gt", "gte", "lt", "lte", "eq", "neq"]

MAX_TIMESPAN: Final = timedelta(days=30)
"""Longest window, and longest sum of the windows of correlations on one another: matches are read back this far when a
worker starts, and the bus must still hold them."""


@dataclass(frozen=True, slots=True)
class CorrelationCondition:
    """What a group must come to.

    Attributes:
        bounds: Operator and number; all must hold, so that two make a range.
        fields: Fields whose values are counted or summed; several only with `value_count`, where a combination of
            values counts as one.
        percentile: 0 to 100, with `value_percentile` only.
    """

    bounds: tuple[tuple[CorrelationOperator, float], ...]
    fields: tuple[str, ...] = ()
    percentile: float | None = None


@dataclass(frozen=True, slots=True)
class CorrelationRule:
    """One Sigma correlation.

    Attributes:
        id: The rule's UUID, or the text that it has in its place; without one, a UUID made from its name or title.
        kind: The correlation type.
        references: Ids of the rules and correlations it looks at, in the order written, each once.
        names: Id -> the name under which the condition's `expression` knows it: the reference as written.
        group_by: Fields, or aliases of fields, by whose values matches are grouped; empty: one group a tenant.
        aliases: Alias -> rule id -> field of that rule's events.
        timespan: Length of the window, which includes both its ends.
        condition: Counts and sums; for `temporal` and `temporal_ordered` how many of the references must be there.
            None exactly where `expression` says it: a temporal type without a condition has `gte` all references.
        expression: An extended condition: a tree over the names of `references` (temporal types only).
        generate: Whether the rules referred to give alerts of their own as well.
        level, status, tags, path, digest, lines: As those of `Rule`.
    """

    id: str
    name: str | None
    title: str
    level: str
    status: str
    tags: tuple[str, ...]
    kind: CorrelationType
    references: tuple[str, ...]
    names: Mapping[str, str]
    group_by: tuple[str, ...]
    aliases: Mapping[str, Mapping[str, str]]
    timespan: timedelta
    condition: CorrelationCondition | None
    expression: Tree | None
    generate: bool
    path: Path
    digest: str
    lines: Mapping[str, int] = field(repr=False, compare=False)

    def field_of(self, group_field: str, rule_id: str) -> str:
        """The field of a rule's events that an entry of `group_by` means."""
        return self.aliases.get(group_field, {}).get(rule_id, group_field)

    def refuse(self, reason: str, key: str = "correlation") -> Refusal:
        """Refuse this rule, pointing at the line of `key`."""
        line = self.lines.get(key, self.lines.get("correlation"))
        return Refusal(self.path, line, f"{self.title} ({self.id})", reason)

"""What a correlation says when it is true, and what a worker that starts again must be told of what it said before.

A firing is named by rule, tenant, group and time, so that the same evidence gives the same id on every run. A firing
is a match as well: correlations that refer to its rule see an event at its time whose fields are its group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

import orjson

from detections.atoms import lower_case
from detections.correlation_rule import CorrelationRule
from storage.alert import alert_id

GroupKey: TypeAlias = tuple[str, ...] | str
"""Folded group values: a text where `group_by` has one entry (a tuple less a group), otherwise a tuple."""

MAX_EVIDENCE: Final = 100
"""Event ids that a firing names: the newest of its window. `count` says how many there were."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LAST_MOMENT: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_FIRST_MOMENT: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class CorrelationError(ValueError):
    """Correlations that cannot run: a cycle, two of one id, or a condition that is missing or too large."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The match that an analyst is shown: the newest evidence of a firing. Columns of `MATCH_SCHEMA`."""

    received: datetime | None = None
    logsource: str | None = None
    host: str | None = None
    user: str | None = None
    source_ip: str | None = None
    destination_ip: str | None = None
    event: str = "{}"
    original: str = ""


@dataclass(frozen=True, slots=True)
class Firing:
    """An earlier firing, read back from the alerts that were published (`Correlator.restore`).

    Attributes:
        rule_id: The correlation's id.
        tenant: Hospital.
        group: Entry of `group_by` -> value, in any case.
        timestamp: When it became true.
        event_id: The last of its `event_ids`: its place among events of the same time.
        sample: Shown again where a correlation of this correlation fires; may stay empty.
    """

    rule_id: str
    tenant: str
    group: Mapping[str, str]
    timestamp: datetime
    event_id: str
    sample: Sample = field(default_factory=Sample)


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation that became true.

    Attributes:
        id: Alert id: hash of rule, tenant, folded group and `timestamp`.
        rule: The correlation rule; level and tags are the rule's.
        tenant: Hospital.
        group: Entry of `group_by` -> value as the newest evidence writes it.
        first: Event time of the oldest evidence in the window.
        last: Event time of the newest.
        timestamp: When it became true: the event that completed it, or the close of the window where the condition
            can only be judged then.
        event_ids: The newest evidence, oldest first, at most `MAX_EVIDENCE`. A firing of another correlation is
            named by its `id`.
        count: How many events the window holds as evidence.
        value: What the condition was compared with: the count, sum, average, percentile or number of references.
        sample: The newest evidence.
    """

    id: str
    rule: CorrelationRule
    tenant: str
    group: Mapping[str, str]
    first: datetime
    last: datetime
    timestamp: datetime
    event_ids: tuple[str, ...]
    count: int
    value: float
    sample: Sample

    @property
    def firing(self) -> Firing:
        """What a later run must be told of it."""
        return Firing(self.rule.id, self.tenant, self.group, self.timestamp, self.event_ids[-1], self.sample)


def fold_group(values: tuple[str, ...]) -> GroupKey:
    """The key of a group from its values as written: case does not distinguish groups."""
    folded = tuple(lower_case(value) for value in values)
    return folded[0] if len(folded) == 1 else folded


def firing_id(rule_id: str, tenant: str, key: GroupKey, moment: int) -> str:
    """The alert id of a firing at `moment` (microseconds of the Unix epoch)."""
    values = [key] if isinstance(key, str) else list(key)
    return alert_id(rule_id, tenant, f"{moment}\x00{orjson.dumps(values).decode()}")


def to_moment(time: datetime) -> int:
    """Microseconds of the Unix epoch; exact, where a float of seconds is not."""
    return (time - _EPOCH) // _MICROSECOND


def to_time(moment: int) -> datetime:
    """The time of a moment; one outside the calendar is moved to its end."""
    return _EPOCH + timedelta(microseconds=min(max(moment, _FIRST_MOMENT), _LAST_MOMENT))

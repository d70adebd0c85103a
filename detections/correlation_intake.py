"""From match frames to items: the columns that a correlation looks at, read once a batch.

A lane is one reference of one correlation. The matches of a rule go down every lane that refers to it, and on each
they have a group key and a value of their own, since an alias may name another field there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import polars as pl

from detections.atoms import lower_case
from detections.correlation import GroupKey, fold_group
from detections.correlation_fields import (
    ENVELOPE_COLUMNS,
    MatchRows,
    as_number,
    field_of_group,
    fold_values,
    natural_order,
    read_values,
)
from detections.correlation_rule import CorrelationRule
from detections.correlation_table import Item, Plan
from detections.correlation_window import Value


class Lane(NamedTuple):
    """A reference of a correlation, and what is read of its matches.

    Attributes:
        plan: The correlation.
        reference: Place of the reference in `rule.references`.
        group_by: Fields of these matches that make the group.
        counted: Fields of these matches whose values are counted.
    """

    plan: Plan
    reference: int
    group_by: tuple[str, ...]
    counted: tuple[str, ...]


class Timed(NamedTuple):
    """Matches of one rule and one tenant that are in time.

    Attributes:
        rows: Columns of `MATCH_SCHEMA`, `moment` (microseconds) and `place` (`natural_order`).
        late: How many were not.
        future: How many are dated after they were received.
        reach: The time to which they may move the watermark, late ones among them; None without any.
    """

    rows: pl.DataFrame
    late: int
    future: int
    reach: int | None


def lane_of(plan: Plan, place: int) -> Lane:
    """The lane of the reference at `place`."""
    rule: CorrelationRule = plan.rule
    reference = rule.references[place]
    return Lane(
        plan,
        place,
        tuple(rule.field_of(name, reference) for name in rule.group_by),
        tuple(rule.field_of(name, reference) for name in plan.judgement.counted),
    )


def in_time(matches: pl.DataFrame, watermark: int, skew: int) -> Timed:
    """Tell matches that are late, and date those at their reception that claim to be from after it."""
    claimed, received = pl.col("timestamp").to_physical(), pl.col("received").to_physical()
    dated = matches.with_columns(
        moment=pl.when(claimed > received + skew).then(received).otherwise(claimed),
        reach=pl.min_horizontal(claimed, received),
        future=(claimed > received + skew).fill_null(value=False),
    )
    reach = dated["reach"].max()
    timely = dated.filter(pl.col("moment") >= watermark)
    return Timed(
        rows=timely.with_columns(place=natural_order(timely["event_id"])),
        late=matches.height - timely.height,
        future=int(timely["future"].sum()),
        reach=reach if isinstance(reach, int) else None,
    )


def items_of(rows: pl.DataFrame, source: MatchRows, lane: Lane, serial: int) -> tuple[list[Item], int]:
    """The items of one lane, and how many matches lack a value to be grouped by.

    Args:
        rows: Of `in_time`.
        source: The same rows.
        lane: Where they go.
        serial: Of the first; no two items of a table may share one.
    """
    slim = rows.select("event", *ENVELOPE_COLUMNS.values())
    keys = [fold_values(read_values(slim, name)).alias(f"key{at}") for at, name in enumerate(lane.group_by)]
    read = rows.select("moment", "place", "event_id").with_columns(*keys, *_counted(slim, lane)).with_row_index("row")
    names = [key.name for key in keys]
    whole = read.drop_nulls(names) if names else read
    reference = lane.reference
    items = [
        Item(moment, place, event_id, reference, serial + row, key, value, source, row)
        for moment, place, event_id, row, key, value in zip(
            whole["moment"].to_list(),
            whole["place"].to_list(),
            whole["event_id"].to_list(),
            whole["row"].to_list(),
            _tuples(whole, names),
            _values(whole, lane),
            strict=True,
        )
    ]
    return items, read.height - whole.height


def key_of(group: Mapping[str, str], fields: Iterable[str]) -> GroupKey | None:
    """The group key of a firing by these fields; None where it lacks one."""
    values = [field_of_group(group, field) for field in fields]
    found = tuple(value for value in values if value is not None)
    return fold_group(found) if len(found) == len(values) else None


def value_of(group: Mapping[str, str], lane: Lane) -> Value:
    """What a firing contributes to a correlation that counts values."""
    if not lane.counted:
        return None
    values = [field_of_group(group, field) for field in lane.counted]
    if lane.plan.judgement.numeric:
        return as_number(values[0])
    folded = tuple(lower_case(value) for value in values if value is not None)
    if len(folded) < len(values):
        return None
    return folded[0] if len(folded) == 1 else folded


def _counted(rows: pl.DataFrame, lane: Lane) -> list[pl.Series]:
    columns = [read_values(rows, name) for name in lane.counted]
    if lane.plan.judgement.numeric:
        return [pl.Series("value0", [as_number(value) for value in columns[0].to_list()], dtype=pl.Float64)]
    return [fold_values(column).alias(f"value{at}") for at, column in enumerate(columns)]


def _tuples(rows: pl.DataFrame, names: list[str]) -> Iterable[GroupKey]:
    if not names:
        return [()] * rows.height
    if len(names) == 1:
        return rows[names[0]].to_list()
    return rows.select(names).rows()


def _values(rows: pl.DataFrame, lane: Lane) -> Iterable[Value]:
    names = [f"value{at}" for at in range(len(lane.counted))]
    if not names:
        return [None] * rows.height
    if len(names) == 1:
        return rows[names[0]].to_list()
    return [None if None in values else values for values in rows.select(names).rows()]

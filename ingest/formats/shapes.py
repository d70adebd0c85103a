"""Events by shape: those with the same keys in the same order become columns in one step.

Loggers write an event of one kind with the same keys each time: of 20,000 events some hundred shapes come. So whatever
depends on the keys alone (which format, what a column is called) is decided once a shape, and the values of a shape are
transposed in C. Frames are put together of such columns.

Names are folded, since Delta and DuckDB fold the case of column names: `ProcessId` and `processid` share a column, and
where both hold a value in one event, that event's first is kept (the raw line has both). Only the spelling of a column
may depend on other events, and not where a later step knows the name (`spellings`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import polars as pl

from ingest.formats.columns import MAX_FIELDS, Json, flatten, plain_name, text_series

MAX_EMPTY: Final = 1_000_000
"""Most cells of a frame that stand empty because shapes share it; an empty cell costs 16 bytes. Beyond it another frame
is begun."""

FULL: Final = 1_000
"""Events of one shape that are made columns of at once (`ingest.formats.json_objects.read_objects`)."""

LARGE: Final = 500
"""A shape of as many events has text columns of its own; smaller ones wait to be put together with others, since to
make a column costs as much as 500 of its values."""

Key = tuple[str, ...]
Values = Sequence[Json] | pl.Series
"""Values of a column: as they came, or already as text."""


@dataclass(frozen=True, slots=True)
class Alike:
    """Events with the same keys in the same order.

    Attributes:
        rows: Their places in the batch.
        events: As many objects.
    """

    rows: list[int]
    events: list[dict[str, Json]]

    @property
    def keys(self) -> KeysView[str]:
        """The keys that all of them have."""
        return self.events[0].keys()

    def values(self, key: str) -> list[Json]:
        """The value of one key in each event; nulls if they have no such key."""
        if key not in self.events[0]:
            return [None] * len(self.events)
        return [event[key] for event in self.events]


@dataclass(frozen=True, slots=True)
class Shape:
    """Events with the same keys, by column: key -> the value of each event."""

    rows: list[int]
    columns: dict[str, Values]


def alike(events: Iterable[tuple[int, dict[str, Json]]]) -> list[Alike]:
    """Events put together by their keys, in the order in which these come."""
    found: dict[Key, Alike] = {}
    for row, event in events:
        key = tuple(event)
        same = found.get(key)
        if same is None:
            same = found[key] = Alike([], [])
        same.rows.append(row)
        same.events.append(event)
    return list(found.values())


def split_by(same: Alike, choices: Sequence[int]) -> dict[int, Alike]:
    """The events by the choice made for each."""
    found: dict[int, Alike] = {}
    for choice, row, event in zip(choices, same.rows, same.events, strict=True):
        part = found.get(choice)
        if part is None:
            part = found[choice] = Alike([], [])
        part.rows.append(row)
        part.events.append(event)
    return found


def transposed(same: Alike) -> Shape:
    """The same events by column."""
    return _settled(same.rows, _transposed(same))


def _transposed(same: Alike) -> dict[str, Sequence[Json]]:
    columns = zip(*[event.values() for event in same.events], strict=True)
    return dict(zip(same.keys, columns, strict=True))


def _settled(rows: list[int], columns: dict[str, Sequence[Json]]) -> Shape:
    if len(rows) < LARGE:
        return Shape(rows, {**columns})
    return Shape(rows, {key: text_series(key, values) for key, values in columns.items()})


def flattened(same: Alike) -> tuple[list[Shape], list[int]]:
    """(the events with nested objects as dotted names, by column; rows of which fields were left out)."""
    columns = _transposed(same)
    if len(columns) <= MAX_FIELDS and not any(dict in map(type, values) for values in columns.values()):
        return [_settled(same.rows, columns)], []
    flat = [(row, *flatten(event)) for row, event in zip(same.rows, same.events, strict=True)]
    return (
        [transposed(part) for part in alike((row, fields) for row, fields, _ in flat)],
        [row for row, _, left_out in flat if left_out],
    )


def frames_of(
    shapes: Sequence[Shape],
    column_name: Callable[[str], str] = plain_name,
    spellings: Mapping[str, str] | None = None,
    most: int = MAX_FIELDS,
) -> Iterator[tuple[pl.Series, pl.DataFrame]]:
    """Frames of events, as few as the limits allow: (rows of the batch, String columns).

    Args:
        shapes: Events of one log source.
        column_name: Key -> column name; two keys may give one name.
        spellings: Name in lower case -> how its column is called, however the events spell it.
        most: Most columns of a frame; fewer than `MAX_FIELDS` where columns are added to it afterwards.
    """
    for run in runs_within_limits(sorted(shapes, key=lambda shape: len(shape.columns)), most):
        rows = pl.Series("row", list(chain.from_iterable(shape.rows for shape in run)), dtype=pl.UInt32)
        yield rows, _joined(run, column_name, spellings or {})


def runs_within_limits(shapes: Sequence[Shape], most: int = MAX_FIELDS) -> Iterator[list[Shape]]:
    """Cut shapes into runs whose frame keeps to `most` columns and `MAX_EMPTY`: no hostile names can widen it."""
    run: list[Shape] = []
    keys: set[str] = set()
    rows = cells = 0
    for shape in shapes:
        merged = keys.union(shape.columns)
        rows += len(shape.rows)
        cells += len(shape.rows) * len(shape.columns)
        if run and (len(merged) > most or rows * len(merged) - cells > MAX_EMPTY):
            yield run
            run, merged = [], set(shape.columns)
            rows, cells = len(shape.rows), len(shape.rows) * len(shape.columns)
        run.append(shape)
        keys = merged
    if run:
        yield run


def _joined(shapes: list[Shape], column_name: Callable[[str], str], spellings: Mapping[str, str]) -> pl.DataFrame:
    """One row an event, one String column a name; null where a shape has no such name."""
    spelling: dict[str, str] = {}
    parts: dict[str, list[tuple[int, Values]]] = {}
    height = 0
    for shape in shapes:
        for name, values in _folded(shape, column_name, spellings, spelling).items():
            parts.setdefault(name, []).append((height, values))
        height += len(shape.rows)
    if not parts:
        return pl.DataFrame(height=height)
    return pl.DataFrame([_column(spelling[name], found, height) for name, found in parts.items()])


def _column(name: str, parts: list[tuple[int, Values]], height: int) -> pl.Series:
    """One column of (first row, values) of several shapes, null between them.

    The work grows with the values and not with the shapes: hostile senders write every event in a shape of its own.
    """
    untyped: list[Json] = [None] * height
    columns: list[pl.Series] = []
    start = 0
    for first, values in parts:
        if isinstance(values, pl.Series):
            if first > start:
                columns.append(text_series(name, untyped[start:first]))
            columns.append(values.alias(name))
            start = first + len(values)
        else:
            untyped[first : first + len(values)] = values
    if start < height:
        columns.append(text_series(name, untyped[start:]))
    return columns[0] if len(columns) == 1 else pl.concat(columns, rechunk=True)


def _folded(
    shape: Shape, column_name: Callable[[str], str], spellings: Mapping[str, str], spelling: dict[str, str]
) -> dict[str, Values]:
    """The columns of a shape under their names in lower case; of keys that share one, the first that holds a value."""
    columns: dict[str, Values] = {}
    for key, values in shape.columns.items():
        wanted = column_name(key)
        folded = wanted.lower()
        if folded not in spelling:
            spelling[folded] = spellings.get(folded, wanted)
        known = columns.get(folded)
        columns[folded] = values if known is None else _first_of(known, values)
    return columns


def _first_of(known: Values, more: Values) -> Values:
    if isinstance(known, pl.Series) and isinstance(more, pl.Series):
        return known.zip_with(known.is_not_null(), more)
    return [value if first is None else first for first, value in zip(known, more, strict=True)]

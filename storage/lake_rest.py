"""What does not fit: fields beyond a table's ceiling of columns, as one JSON object of text a row.

Whoever sends JSON chooses its keys, and a source that writes identifiers as keys has no end of them. A Delta schema is
written out whole in every change of it and every file names its columns, so a table that takes each key as a column
slows down for everyone who shares it. A table therefore stops at `MAX_COLUMNS`; fields that come later go to the column
`fields.rest`, under their own names, and come back as fields when they are read. Elasticsearch has the same ceiling
(`index.mapping.total_fields.limit`, 1,000 unless set) and, beyond it, the type `flattened`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import orjson
import polars as pl

REST: Final = "fields.rest"

MAX_COLUMNS: Final = 2_000
"""Columns of a table, its own included. Parsing keeps 1,000 fields of an event, so the widest event fits whole."""

MAX_CELLS: Final = 16_000_000
"""Rows times columns of a frame that storage makes itself: 256 MB at the 16 bytes Polars takes even for a null."""


def packed(events: pl.DataFrame, fields: Iterable[Sequence[str]]) -> pl.Series:
    """The column `fields.rest`: of each row, an object of the fields that have a value, or null if none has.

    Args:
        events: Rows.
        fields: The fields to pack, each with all its spellings; the first one names it.
    """
    rows: list[dict[str, str]] = [{} for _ in range(events.height)]
    for spellings in fields:
        for spelling in reversed(spellings):
            column = events.get_column(spelling)
            for row, value in zip(column.is_not_null().arg_true(), column.drop_nulls(), strict=True):
                rows[row][spellings[0]] = value
    return pl.Series(REST, [orjson.dumps(row).decode() if row else None for row in rows], dtype=pl.String())


def unpacked(rests: pl.Series, width: int) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """The objects of consecutive rows with the first row's number, cut so that rows times columns stay bounded.

    Args:
        rests: The column `fields.rest`.
        width: Columns the rows have besides.

    Raises:
        ValueError: A value is not an object of text.
    """
    first = 0
    waiting: list[dict[str, str]] = []
    names: set[str] = set()
    for row, text in enumerate(rests):
        found = {} if text is None else _object(text)
        names.update(found)
        if waiting and (len(waiting) + 1) * (width + len(names)) > MAX_CELLS:
            yield first, waiting
            first, waiting, names = row, [], set(found)
        waiting.append(found)
    if waiting:
        yield first, waiting


def _object(text: str) -> dict[str, str]:
    found = orjson.loads(text)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"column {REST} holds {text[:80]!r}, not an object of text")
    return found

"""Why an event matched: the fields and values that made a rule true, as the analyst reads them.

Computed for hits only. What is shown is every positive comparison of the rule that held on this event; comparisons
under `not` speak for a match by failing and are not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
import polars as pl

from detections.atoms import Atom
from detections.masks import atom_masks, find_column, text_column
from ingest.envelope import ENVELOPE

KEYWORD: Final = "keyword"
"""Key of `matched` under which the keywords that were found stand, joined by ", "."""


def matched_json(events: pl.DataFrame, atoms: Sequence[Atom], names: Mapping[str, str]) -> list[str]:
    """For each event the JSON object field -> value of those of `atoms` that are true on it."""
    found: list[dict[str, str | None]] = [{} for _ in range(events.height)]
    masks = atom_masks(events, atoms, names)
    for atom in atoms:
        mask = masks[atom]
        rows = range(events.height) if mask is True else [] if mask is False else mask.arg_true().to_list()
        if not rows:
            continue
        if atom.field is None:
            for row in rows:
                earlier = found[row].get(KEYWORD)
                found[row][KEYWORD] = atom.text if earlier is None else f"{earlier}, {atom.text}"
            continue
        for field in atom.fields:
            column = find_column(field, names)
            values = None if column is None else text_column(events, column)
            for row in rows:
                found[row][field] = None if values is None else values[row]
    return [orjson.dumps(item).decode() for item in found]


def event_json(events: pl.DataFrame) -> list[str]:
    """For each event the JSON object of its own fields that are not null."""
    fields = [column for column in events.columns if column not in ENVELOPE]
    if not fields:
        return ["{}"] * events.height
    return [
        orjson.dumps({name: value for name, value in event.items() if value is not None}).decode()
        for event in events.select(fields).iter_rows(named=True)
    ]

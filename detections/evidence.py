"""Why an event matched: the fields and values that made a rule true, as the analyst reads them.

Computed for hits only. What is shown is every positive comparison of the rule that held on this event; comparisons
under `not` speak for a match by failing and are not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
import polars as pl

from detections.atoms import Atom, any_of
from detections.fast_columns import RowColumns
from detections.masks import atom_masks, find_column, resolve_fields, text_column
from detections.row_tests import decidable, row_test
from ingest.envelope import ENVELOPE

KEYWORD: Final = "keyword"
"""Key of `matched` under which the keywords that were found stand, joined by ", "."""


def matched_json(events: pl.DataFrame, atoms: Sequence[Atom], names: Mapping[str, str]) -> list[str]:
    """For each event the JSON object field -> value of those of `atoms` that are true on it."""
    return [orjson.dumps(item).decode() for item in _matched(events, atoms, names)]


def _matched(events: pl.DataFrame, atoms: Sequence[Atom], names: Mapping[str, str]) -> list[dict[str, str | None]]:
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
    return found


class Evidence:
    """What of one rule speaks for a match, for rows as the fast engine holds them; says the same as `matched_json`."""

    def __init__(self, atoms: Sequence[Atom]) -> None:
        fields: dict[str, list[Atom]] = {}
        keywords: list[Atom] = []
        self._others: list[Atom] = []
        for atom in atoms:
            if not decidable(atom):
                self._others.append(atom)
            elif atom.field is None:
                keywords.append(atom)
            else:
                fields.setdefault(atom.field, []).append(atom)
        self._fields = [(field, row_test(any_of(group))) for field, group in fields.items()]
        self._keywords = [(atom.text, row_test(atom)) for atom in keywords]

    def of(self, columns: RowColumns, places: Sequence[int]) -> list[str]:
        """For each row, in the order of `places`, the JSON object field -> value of what is true there."""
        found: dict[int, dict[str, str | None]] = {place: {} for place in places}
        for field, test in self._fields:
            held = test.run(places, columns.lists(test.columns))
            values = columns.originals(field, held)
            for place, value in zip(held, values, strict=True):
                found[place][field] = value
        if self._keywords:
            columns.expect_keywords(places)  # of a line of unknown source, a rule may have been tried on less
            words: dict[int, list[str]] = {}
            for text, test in self._keywords:
                for place in test.run(places, columns.lists(test.columns)):
                    words.setdefault(place, []).append(text)
            for place, texts in words.items():
                found[place][KEYWORD] = ", ".join(texts)
        if self._others:
            events = columns.part(places, self._others)
            others = _matched(events, self._others, resolve_fields(events.columns))
            for place, more in zip(places, others, strict=True):
                if KEYWORD in more and KEYWORD in found[place]:
                    more[KEYWORD] = f"{found[place][KEYWORD]}, {more[KEYWORD]}"
                found[place] |= more
        return [orjson.dumps(found[place]).decode() for place in places]


def event_json(events: pl.DataFrame) -> list[str]:
    """For each event the JSON object of its own fields that are not null."""
    fields = [
        column for column in events.columns if column not in ENVELOPE and events[column].null_count() < events.height
    ]
    if not fields:
        return ["{}"] * events.height
    return [
        orjson.dumps({name: value for name, value in event.items() if value is not None}).decode()
        for event in events.select(fields).iter_rows(named=True)
    ]

"""Columns as lists, for the rows that are candidates of some rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

import polars as pl

from detections.atoms import Atom, lower_column
from detections.masks import SEPARATOR, keyword_columns, text_column
from detections.row_tests import KEYWORDS, NOTHING, Column, Values
from ingest.envelope import EVENT_ID

SPARSE: Final = 2
"""If fewer than one row in so many is a candidate, those rows are put together first."""


class RowColumns:
    """The candidate rows of a frame, their columns made into lists as they are asked for.

    Attributes:
        events: The rows: all of the frame's, or only the candidates where these are few.
        names: `resolve_fields` of the frame.
    """

    def __init__(
        self, events: pl.DataFrame, names: Mapping[str, str], candidates: Iterable[Sequence[int]] | None = None
    ) -> None:
        self.names = names
        wanted = None if candidates is None else set(chain.from_iterable(candidates))
        self._rows: list[int] | None = None
        self._place: dict[int, int] = {}
        if wanted is not None and len(wanted) * SPARSE < events.height:
            self._rows = sorted(wanted)
            self._place = {row: place for place, row in enumerate(self._rows)}
            events = events[self._rows]
        self.events = events
        self._lists: dict[Column, Values] = {}
        self._worded: set[int] = set()
        self._texts: dict[bool, list[str]] = {}

    def expect_keywords(self, places: Iterable[int]) -> None:
        """Keywords will be asked of these places too: the text of a whole event is long, and is made for them only."""
        new = set(places) - self._worded
        self._worded |= new
        for cased, values in self._texts.items():
            self._fill(values, new, cased=cased)

    def places(self, rows: Sequence[int]) -> Sequence[int]:
        """Rows of the frame as places in the lists."""
        if self._rows is None:
            return rows
        place = self._place
        return [place[row] for row in rows]

    def rows(self, places: list[int]) -> list[int]:
        """Places in the lists as rows of the frame."""
        rows = self._rows
        return places if rows is None else [rows[place] for place in places]

    def lists(self, columns: Iterable[Column]) -> list[Values]:
        """The columns, null being `NOTHING`, and a column that is not there being all null."""
        return [self._list(column) for column in columns]

    def part(self, places: Sequence[int], atoms: Iterable[Atom]) -> pl.DataFrame:
        """Some of the rows, with no more columns than these atoms look at."""
        wanted: dict[str, None] = {}
        for atom in atoms:
            if atom.field is None:
                wanted |= dict.fromkeys(keyword_columns(self.events.columns))
            wanted |= {name: None for field in atom.fields if (name := self.names.get(field.lower())) is not None}
        return self.events.select(list(wanted) or [EVENT_ID])[list(places)]

    def originals(self, field: str, places: list[int]) -> list[str | None]:
        """The values of a field as they came."""
        name = self.names.get(field.lower())
        if name is None:
            return [None] * len(places)
        return text_column(self.events, name).gather(places).to_list()

    def _list(self, column: Column) -> Values:
        values = self._lists.get(column)
        if values is None:
            values = self._lists[column] = self._made(column)
        return values

    def _made(self, column: Column) -> Values:
        field, cased = column
        if field == KEYWORDS:
            return self._words(cased=cased)
        name = self.names.get(field)
        if name is None:
            return [NOTHING] * self.events.height
        text = text_column(self.events, name)
        values = (text if cased else lower_column(text)).to_list()
        return [NOTHING if value is None else value for value in values] if text.null_count() else values

    def _words(self, *, cased: bool) -> Values:
        """The text of all fields, for the places of which it is asked."""
        values = self._texts[cased] = [NOTHING] * self.events.height
        self._fill(values, self._worded, cased=cased)
        return values

    def _fill(self, values: list[str], wanted: set[int], *, cased: bool) -> None:
        if not wanted:
            return
        places = sorted(wanted)
        names = keyword_columns(self.events.columns)
        text = self.events[places].select(pl.concat_str(names, separator=SEPARATOR, ignore_nulls=True)).to_series()
        for place, value in zip(places, (text if cased else lower_column(text)).to_list(), strict=True):
            values[place] = value

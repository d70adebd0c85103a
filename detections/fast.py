"""The fast engine: most rules are never looked at.

For each log source, once:

1. for every rule a clause is chosen, needles of which one must be there (`detections.needles`), the rarest by a sample
   of the events that came;
2. the needles of each field become one scanner (`detections.scan`).

For each frame:

3. every field that has needles is scanned in one pass, which leaves a few candidate rules a row;
4. those are tried on their rows, one by one (`detections.row_tests`);
5. where a row test cannot decide (regexes, networks, numbers), the plain engine decides, on the rows that are left.

Rules without a clause are tried on every row (only exceptions) or go to the plain engine whole (only a regex). The
plain engine also takes what overwhelms this one: lines that hold the needles of many rules. The result is that of the
plain engine for every frame, whatever the sample was: a needle that is badly chosen costs time only. When more
candidates come than were expected, clauses are chosen anew from what comes now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from detections.atoms import Expression, atoms_of
from detections.compile import CompiledRule
from detections.evidence import Evidence
from detections.fast_columns import RowColumns
from detections.fast_index import Index, build_index
from detections.masks import SEPARATOR, atom_masks, keyword_columns, resolve_fields, text_column
from detections.plain import CHUNK_ROWS, HITS_SCHEMA, SCOPES_KEPT, Candidates
from detections.row_tests import KEYWORDS, RowTest, row_test
from detections.verdict import combine
from ingest.envelope import EventFrame
from ingest.logsource import LogSource

JOINED_ROWS: Final = 2048
"""Rows below which a scan's own price, times the columns, is more than that of putting them together."""

MOST_CANDIDATES: Final = 64
"""Rules a row, of rows of `ORDINARY_BYTES`, beyond which a part of a frame is left to the plain engine."""

ORDINARY_BYTES: Final = 4096
FEW_CANDIDATES: Final = 2048

CHUNK_BYTES: Final = 1 << 30
"""Bytes of a frame scanned at once: a buffer's places must fit 32 bits."""


class _Hits:
    """What is found in one chunk, column by column."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._rules: list[int] = []
        self._matched: list[str] = []

    def add(self, rule: int, rows: Sequence[int], matched: Sequence[str]) -> None:
        """Rows for which a rule is true."""
        self._rows += rows
        self._rules += [rule] * len(rows)
        self._matched += matched

    def frame(self, start: int) -> pl.DataFrame:
        """`HITS_SCHEMA`, of a chunk that begins at row `start` of its frame."""
        hits = pl.DataFrame({"row": self._rows, "rule": self._rules, "matched": self._matched}, schema=HITS_SCHEMA)
        return hits.with_columns(pl.col("row") + start) if start else hits


class FastEngine:
    """See the module; arguments as those of `PlainEngine`."""

    def __init__(self, rules: Sequence[CompiledRule], met: Callable[[LogSource], Candidates]) -> None:
        self._rules = rules
        self._met = met
        self._indexes: dict[LogSource, Index] = {}
        self._learning = threading.Lock()
        self._tests: dict[tuple[int, bool], RowTest] = {}
        self._evidence: dict[int, Evidence] = {}

    def hits(self, frame: EventFrame) -> Iterator[pl.DataFrame]:
        """See `detections.plain.Engine`."""
        if frame.events.is_empty() or not self._met(frame.logsource):
            return
        index = self._index(frame)
        if index.rest is not None:
            yield from index.rest.hits(frame)
        if not index.fields and not index.everywhere:
            return
        for start, events in _chunks(frame.events):
            yield from self._chunk_hits(index, EventFrame(frame.logsource, events), start)

    def _index(self, frame: EventFrame) -> Index:
        """The index of a log source, made or made anew from this frame where that is due."""
        index = self._indexes.get(frame.logsource)
        if index is not None and not index.misjudged():
            return index
        with self._learning:
            now = self._indexes.get(frame.logsource)
            if now is None or now is index:
                now = build_index(self._rules, self._met(frame.logsource), frame, index)
                self._indexes.pop(frame.logsource, None)
                if len(self._indexes) >= SCOPES_KEPT:
                    del self._indexes[next(iter(self._indexes))]
                self._indexes[frame.logsource] = now
        return now

    def _chunk_hits(self, index: Index, chunk: EventFrame, start: int) -> Iterator[pl.DataFrame]:
        """What is true in a part of a frame that begins at row `start`."""
        events, unknown = chunk.events, chunk.logsource.unknown
        names = resolve_fields(events.columns)
        rows_of = _candidate_rows(index, events, names)
        candidates = sum(map(len, rows_of.values()))
        index.count(events.height, candidates)
        hits = _Hits()
        if _overwhelming(candidates, events):
            for part in index.indexed.hits(chunk):
                yield part.with_columns(pl.col("row") + start)
        else:
            self._try(index, rows_of, RowColumns(events, names, rows_of.values()), hits, unknown=unknown)
        if index.everywhere:
            all_rows = range(events.height)
            everywhere: dict[int, Sequence[int]] = dict.fromkeys(index.everywhere, all_rows)
            self._try(index, everywhere, RowColumns(events, names), hits, unknown=unknown)
        yield hits.frame(start)

    def _try(
        self, index: Index, rows_of: Mapping[int, Sequence[int]], columns: RowColumns, hits: _Hits, *, unknown: bool
    ) -> None:
        """Try rules on their candidate rows, and add what is true to the hits."""
        trials = [
            (rule, self._test(rule, index.expressions[rule], unknown=unknown), columns.places(candidates))
            for rule, candidates in rows_of.items()
        ]
        for _, test, places in trials:
            if any(field == KEYWORDS for field, _ in test.columns):
                columns.expect_keywords(places)
        for rule, test, places in trials:
            found = test.run(places, columns.lists(test.columns))
            if found and not test.exact:
                found = _confirmed(index.expressions[rule], columns, found)
            if found:
                hits.add(rule, columns.rows(found), self._evidence_of(rule).of(columns, found))

    def _test(self, rule: int, expression: Expression, *, unknown: bool) -> RowTest:
        test = self._tests.get((rule, unknown))
        if test is None:
            test = self._tests[rule, unknown] = row_test(expression)
        return test

    def _evidence_of(self, rule: int) -> Evidence:
        evidence = self._evidence.get(rule)
        if evidence is None:
            evidence = self._evidence[rule] = Evidence(self._rules[rule].positive)
        return evidence


def _chunks(events: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """A frame in parts of few enough rows and bytes, with the place of each."""
    size = max(1, int(events.estimated_size()) // events.height)
    rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // size))
    for start in range(0, events.height, rows):
        yield start, events.slice(start, rows)


def _overwhelming(candidates: int, events: pl.DataFrame) -> bool:
    """Whether so many rules are left for so many rows that columns are the cheaper way.

    Rules are public: a sender can write every needle into every line.
    """
    weight = max(1.0, events.estimated_size() / events.height / ORDINARY_BYTES)
    return candidates > FEW_CANDIDATES and candidates * weight > MOST_CANDIDATES * events.height


def _candidate_rows(index: Index, events: pl.DataFrame, names: Mapping[str, str]) -> dict[int, list[int]]:
    """Rule -> the rows in which one of its needles is, each once, ascending."""
    found: dict[int, list[list[int]]] = {}
    for field in index.fields:
        for values in _sought(field.name, events, names):
            for needle, rows in field.scanner.find(values).items():
                for rule in field.all_rules if field.scanner.stands_for_all(needle) else field.rules[needle]:
                    found.setdefault(rule, []).append(rows)
    return {
        rule: parts[0] if len(parts) == 1 else sorted({row for part in parts for row in part})
        for rule, parts in found.items()
    }


def _sought(field: str | None, events: pl.DataFrame, names: Mapping[str, str]) -> Iterator[pl.Series]:
    """The columns in which a field's needles are sought: for keywords every one, put together where rows are few."""
    if field is not None:
        column = names.get(field)
        columns = [] if column is None else [column]
    else:
        columns = [name for name in keyword_columns(events.columns) if events[name].null_count() < events.height]
        if columns and events.height < JOINED_ROWS:
            yield events.select(pl.concat_str(columns, separator=SEPARATOR, ignore_nulls=True)).to_series()
            return
    for column in columns:
        values = text_column(events, column)
        if values.null_count() < len(values):
            yield values


def _confirmed(expression: Expression, columns: RowColumns, places: list[int]) -> list[int]:
    """Of rows that may match, those that do, by the plain engine's own means."""
    atoms = dict.fromkeys(atoms_of(expression))
    events = columns.part(places, atoms)
    mask = combine(expression, atom_masks(events, atoms, resolve_fields(events.columns)))
    if isinstance(mask, bool):
        return places if mask else []
    return [place for place, true in zip(places, mask.to_list(), strict=True) if true]

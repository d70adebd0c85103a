"""The index of a log source: which needles are sought in which field, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from detections.atoms import Expression, atoms_of, lower_column
from detections.compile import CompiledRule
from detections.masks import SEPARATOR, keyword_columns, resolve_fields, text_column
from detections.needles import EDGE, Needle, choose_clause, prior
from detections.plain import Candidates, PlainEngine
from detections.row_tests import decidable
from detections.scan import Scanner
from ingest.envelope import EventFrame

SAMPLE_ROWS: Final = 500
SAMPLE_CHARACTERS: Final = 65_536
"""Rows, and characters of each field, by which needles are weighed."""

FIRST_REVIEW: Final = 20_000
"""Rows after which it is looked at whether the sample told the truth; four times as many each time after."""

TOLERANCE: Final = 2.0
"""Candidates a row, over what was expected, past which clauses are chosen anew; the same again is added flat."""


@dataclass(frozen=True, slots=True)
class IndexedField:
    """The needles of one field.

    Attributes:
        name: Field in lower case; None: keywords, sought in every column.
        scanner: Finds the needles.
        rules: Place of a needle -> the rules whose clause it is in.
        all_rules: Every rule with a needle here.
    """

    name: str | None
    scanner: Scanner
    rules: tuple[tuple[int, ...], ...]
    all_rules: tuple[int, ...]


@dataclass(slots=True)
class Index:
    """What is sought in the events of one log source.

    Attributes:
        fields: The fields that are scanned.
        expressions: Rule -> what of it is to be decided.
        everywhere: Rules without a clause that row tests decide: they are tried on every row.
        rest: Decides the other rules without a clause; None if there are none.
        indexed: Decides the rules that have one, where needles are no help.
        expected: Candidate rules a row, by the sample.
        review: Rows after which `expected` is held against what came.
    """

    fields: tuple[IndexedField, ...]
    expressions: Mapping[int, Expression]
    everywhere: tuple[int, ...]
    rest: PlainEngine | None
    indexed: PlainEngine
    expected: float
    review: int = FIRST_REVIEW
    _rows: int = field(default=0, init=False)
    _candidates: int = field(default=0, init=False)

    def count(self, rows: int, candidates: int) -> None:
        """Take note of what a frame gave. Threads may lose a count of each other's, which costs nothing but time."""
        self._rows += rows
        self._candidates += candidates

    def misjudged(self) -> bool:
        """Whether many more candidates came than the sample made expect."""
        rows, candidates = self._rows, self._candidates  # once: other threads count on
        if rows < self.review:
            return False
        if candidates / rows > TOLERANCE * (self.expected + 1):
            return True
        self._rows = self._candidates = 0
        self.review *= 4
        return False


def build_index(
    rules: Sequence[CompiledRule], candidates: Candidates, frame: EventFrame, before: Index | None
) -> Index:
    """Choose clauses by a sample of a frame, and compile their needles.

    Args:
        rules: All rules of the plan.
        candidates: Those that meet the frame's log source.
        frame: What comes from there.
        before: The index that it replaces.
    """
    sample = _Sample(frame.events, FIRST_REVIEW if before is None else before.review)
    clauses: dict[int, tuple[Needle, ...]] = {}
    everywhere: list[int] = []
    rest: list[tuple[int, Expression]] = []
    expected = 0.0
    for rule, expression in candidates:
        chosen = choose_clause(expression, sample.frequency)
        if chosen is not None:
            expected += chosen[0]
            clauses[rule] = chosen[1]
        elif all(decidable(atom) for atom in atoms_of(expression)):
            everywhere.append(rule)
        else:
            rest.append((rule, expression))
    left = tuple(rest)
    indexed = tuple((rule, expression) for rule, expression in candidates if rule in clauses)
    return Index(
        fields=_fields(clauses),
        expressions=dict(candidates),
        everywhere=tuple(everywhere),
        rest=PlainEngine(rules, lambda _: left) if left else None,
        indexed=PlainEngine(rules, lambda _: indexed),
        expected=expected,
        review=FIRST_REVIEW if before is None else before.review * 4,
    )


def _fields(clauses: Mapping[int, Sequence[Needle]]) -> tuple[IndexedField, ...]:
    owners: dict[str | None, dict[str, list[int]]] = {}
    for rule, clause in clauses.items():
        for needle in clause:
            owners.setdefault(needle.field, {}).setdefault(needle.text, []).append(rule)
    return tuple(
        IndexedField(
            name,
            Scanner(list(texts), edges=name is not None),
            tuple(tuple(rules) for rules in texts.values()),
            tuple(dict.fromkeys(rule for rules in texts.values() for rule in rules)),
        )
        for name, texts in owners.items()
    )


class _Sample:
    """How often needles occur in some rows of a frame."""

    def __init__(self, events: pl.DataFrame, seed: int) -> None:
        self._seed = seed
        self._events = events.gather_every(max(1, events.height // SAMPLE_ROWS)).head(SAMPLE_ROWS)
        self._names = resolve_fields(events.columns)
        self._texts: dict[str | None, str | None] = {}
        self._known: dict[Needle, float] = {}

    def frequency(self, needle: Needle) -> float:
        """Finds a row to expect; what did not occur is told apart by its length."""
        known = self._known.get(needle)
        if known is None:
            text = self._text(needle.field)
            seen = 0.0 if text is None else text.count(needle.text) / self._events.height
            known = self._known[needle] = seen + prior(needle)
        return known

    def _text(self, name: str | None) -> str | None:
        if name not in self._texts:
            self._texts[name] = self._joined(name)
        return self._texts[name]

    def _joined(self, name: str | None) -> str | None:
        if name is None:
            columns = keyword_columns(self._events.columns)
            values = self._events.select(pl.concat_str(columns, separator=SEPARATOR, ignore_nulls=True)).to_series()
        else:
            column = self._names.get(name)
            if column is None:
                return None
            values = text_column(self._events, column).drop_nulls()
        share = max(64, SAMPLE_CHARACTERS // max(1, 3 * len(values)))
        return EDGE + EDGE.join(lower_column(_shortened(values, share, self._seed)).to_list()) + EDGE


def _shortened(values: pl.Series, share: int, seed: int) -> pl.Series:
    """Long values as three pieces: how they begin, how they end, and one from anywhere between, elsewhere in each."""
    length = pl.col("value").str.len_chars().cast(pl.Int64)
    room = (length - 2 * share).clip(1)
    anywhere = share + (pl.int_range(pl.len()) * 7919 + seed) % room
    value = pl.col("value").str
    pieces = pl.concat_str(
        [value.slice(0, share), pl.lit("\x01"), value.slice(anywhere, share), pl.lit("\x01"), value.tail(share)]
    )
    frame = pl.DataFrame({"value": values})
    return frame.select(pl.when(length <= 3 * share).then(pl.col("value")).otherwise(pieces)).to_series()

"""The plain engine: rules as masks over columns, and the yardstick for any faster one.

A frame passes four gates, each cheaper than what it spares:

1. log source: rules of other sources do not meet the frame;
2. columns: atoms on fields the frame does not have are constants, and many rules fold to False;
3. buckets: events are split by the few values of event id, channel and provider; within a bucket atoms on those are
   constants, and most of the remaining rules fold to False (98 of 100 in Windows channels);
4. atoms: each distinct atom of what is left is decided once for all rules; only then are rules combined.

Every step is a partial evaluation whose result can be read. Gates 1 to 3 depend on names and constants only and are
remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import polars as pl

from detections.atoms import Atom, Expression, atoms_of, fold
from detections.compile import CompiledRule
from detections.evidence import matched_json
from detections.keywords import through_keywords
from detections.masks import Mask, atom_masks, column_masks, find_column, resolve_fields
from detections.memo import Memo
from detections.verdict import combine
from ingest.envelope import EventFrame
from ingest.logsource import LogSource

BUCKET_FIELDS: Final = ("EventID", "Channel", "Provider_Name")
"""Fields by which frames are split, if they have few values."""

MAX_BUCKET_VALUES: Final = 64
"""Distinct values above which a field is no good for splitting."""

MIN_BUCKET_ROWS: Final = 32
"""Rows a bucket on average below which more fields do not split a frame: a bucket has its price, however small."""

CHUNK_ROWS: Final = 65_536
"""Rows evaluated at once: bounds the memory of masks (a bit an atom and row)."""

SCOPES_KEPT: Final = 512
"""Log sources, sets of fields and buckets of which the gates' results are remembered."""

_ROW: Final = "\x00row"

HITS_SCHEMA: Final[dict[str, pl.DataType]] = {"row": pl.UInt32(), "rule": pl.UInt32(), "matched": pl.String()}
"""What an engine finds: place of the event in its frame, index of the rule, JSON object of what matched."""

Candidates = tuple[tuple[int, Expression], ...]
"""Index of a rule in the plan, and what is left of it to decide."""

Constants = tuple[tuple[str, str | None], ...]
"""Fields in lower case with the one value they have in a bucket."""


class Engine(Protocol):
    """Finds which rules are true for which events."""

    def hits(self, frame: EventFrame) -> Iterator[pl.DataFrame]:
        """Frames of `HITS_SCHEMA`, in no order; each (row, rule) at most once."""


class RulesBySource:
    """Which rules meet a log source, and what of them counts there."""

    def __init__(self, rules: Sequence[CompiledRule]) -> None:
        self._rules = rules
        self._keyword_only = tuple(
            (index, left)
            for index, compiled in enumerate(rules)
            if (left := through_keywords(compiled.expression)) is not False
        )
        self._met: Memo[LogSource, Candidates] = Memo(SCOPES_KEPT)

    def met(self, source: LogSource) -> Candidates:
        """The rules that see events of a log source; of an unknown one, those that keywords alone make true."""
        if source.unknown:
            return self._keyword_only
        return self._met.get(
            source,
            lambda: tuple(
                (index, compiled.expression)
                for index, compiled in enumerate(self._rules)
                if compiled.rule.logsource.meets(source)
            ),
        )


@dataclass(frozen=True, slots=True)
class _Source:
    """The rules that meet a log source, and the fields they name, in lower case."""

    rules: Candidates
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Residual:
    """What is left of the rules for one bucket."""

    candidates: Candidates
    atoms: tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Events that share the values of some fields; `_ROW` holds their place in the frame."""

    constants: Constants
    events: pl.DataFrame


class PlainEngine:
    """Rules as masks over columns.

    Args:
        rules: All rules of the plan.
        met: Log source -> the rules to decide there.
    """

    def __init__(self, rules: Sequence[CompiledRule], met: Callable[[LogSource], Candidates]) -> None:
        self._rules = rules
        self._met = met
        self._sources: Memo[LogSource, _Source] = Memo(SCOPES_KEPT)
        self._scopes: Memo[tuple[LogSource, frozenset[str]], Candidates] = Memo(SCOPES_KEPT)
        self._residuals: Memo[tuple[LogSource, frozenset[str], Constants], _Residual] = Memo(SCOPES_KEPT)

    def alive(self, source: LogSource, columns: Iterable[str]) -> Candidates:
        """The rules that may be true for frames of this log source with these columns."""
        return self._scope(source, self._relevant(source, resolve_fields(columns)))

    def hits(self, frame: EventFrame) -> Iterator[pl.DataFrame]:
        """See `Engine`."""
        names = resolve_fields(frame.events.columns)
        relevant = self._relevant(frame.logsource, names)
        alive = self._scope(frame.logsource, relevant)
        for start in range(0, frame.events.height if alive else 0, CHUNK_ROWS):
            for bucket in _buckets(frame.events.slice(start, CHUNK_ROWS), start, names):
                yield from self._bucket_hits(bucket, self._residual(frame.logsource, relevant, bucket), names)

    def _source(self, source: LogSource) -> _Source:
        """The rules that meet a log source."""

        def compute() -> _Source:
            met = self._met(source)
            fields = {field for _, expression in met for atom in atoms_of(expression) for field in atom.fields}
            return _Source(met, frozenset(field.lower() for field in fields))

        return self._sources.get(source, compute)

    def _relevant(self, source: LogSource, names: Mapping[str, str]) -> frozenset[str]:
        """Of the fields of a frame, in lower case, those that rules name: frames differ in many others."""
        return self._source(source).fields.intersection(names)

    def _scope(self, source: LogSource, relevant: frozenset[str]) -> Candidates:
        """The rules that may be true for frames of this log source that have these fields."""

        def decide(atom: Atom) -> bool | None:
            if all(field.lower() in relevant for field in atom.fields):
                return None
            return atom.operator == "null"

        return self._scopes.get((source, relevant), lambda: _fold_all(self._source(source).rules, decide))

    def _residual(self, source: LogSource, relevant: frozenset[str], bucket: _Bucket) -> _Residual:
        """What is left of the rules once the constants of a bucket are put in."""

        def compute() -> _Residual:
            scope = self._scope(source, relevant)
            candidates = _fold_all(scope, _constant_atoms(scope, dict(bucket.constants)).get)
            atoms = dict.fromkeys(atom for _, expression in candidates for atom in atoms_of(expression))
            return _Residual(candidates, tuple(atoms))

        return self._residuals.get((source, relevant, bucket.constants), compute)

    def _bucket_hits(self, bucket: _Bucket, residual: _Residual, names: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        """For each rule true somewhere in a bucket: row, rule and what matched."""
        if not residual.candidates:
            return
        events = bucket.events.drop(_ROW)
        masks = atom_masks(events, residual.atoms, names)
        for index, expression in residual.candidates:
            mask = combine(expression, masks)
            if mask is False:
                continue
            hit = bucket.events if mask is True else bucket.events.filter(mask)
            yield pl.DataFrame(
                {
                    "row": hit.get_column(_ROW),
                    "rule": pl.repeat(index, hit.height, dtype=pl.UInt32, eager=True),
                    "matched": matched_json(hit.drop(_ROW), self._rules[index].positive, names),
                }
            )


def _fold_all(rules: Candidates, decide: Callable[[Atom], bool | None]) -> Candidates:
    """Fold every rule and drop those that became False."""
    folded = ((index, fold(expression, decide)) for index, expression in rules)
    return tuple((index, expression) for index, expression in folded if expression is not False)


def _constant_atoms(scope: Candidates, constants: Mapping[str, str | None]) -> dict[Atom, bool]:
    """Decide the atoms on fields whose one value in a bucket is known; by the same code as any other."""
    by_field: dict[str, dict[Atom, None]] = {}
    for _, expression in scope:
        for atom in atoms_of(expression):
            if len(atom.fields) == 1 and atom.fields[0].lower() in constants:
                by_field.setdefault(atom.fields[0].lower(), {})[atom] = None
    known: dict[Atom, bool] = {}
    for field, atoms in by_field.items():
        masks = column_masks(pl.Series([constants[field]], dtype=pl.String), list(atoms))
        known |= {atom: _one(mask) for atom, mask in masks.items()}
    return known


def _one(mask: Mask) -> bool:
    return mask if isinstance(mask, bool) else bool(mask[0])


def _buckets(events: pl.DataFrame, start: int, names: Mapping[str, str]) -> Iterator[_Bucket]:
    """Split events by the columns that have few values; with each, its constants."""
    events = events.with_row_index(_ROW, offset=start)
    found = dict.fromkeys(column for field in BUCKET_FIELDS if (column := find_column(field, names)) is not None)
    most = max(MAX_BUCKET_VALUES, events.height // MIN_BUCKET_ROWS)
    splitting: list[str] = []
    for column in found:
        if events.schema[column] != pl.String or events.get_column(column).n_unique() > MAX_BUCKET_VALUES:
            continue
        # Senders choose these values: 64 event ids of 64 providers must not become a bucket a row
        if not splitting or events.select(*splitting, column).n_unique() <= most:
            splitting.append(column)
    if not splitting:
        yield _Bucket((), events)
        return
    for values, part in events.partition_by(splitting, maintain_order=True, as_dict=True).items():
        yield _Bucket(tuple((field.lower(), value) for field, value in zip(splitting, values, strict=True)), part)

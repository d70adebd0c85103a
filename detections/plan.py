"""The plan: all rules, compiled for whatever event frames come.

A frame passes four gates, each cheaper than what it spares:

1. log source: rules of other sources do not meet the frame;
2. columns: atoms on fields the frame does not have are constants, and many rules fold to False;
3. buckets: events are split by the few values of event id, channel and provider; within a bucket atoms on those are
   constants, and most of the remaining rules fold to False (98 of 100 in Windows channels);
4. atoms: each distinct atom of what is left is decided once for all rules; only then are rules combined.

This is the plain engine: every step is a partial evaluation whose result can be read, and it is the yardstick for any
faster one. Gates 1 to 3 depend on names and constants only and are remembered. A plan is immutable and may be shared by
threads.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import polars as pl
import structlog

from detections.atoms import Atom, Expression, atoms_of, fold
from detections.bounded_regex import BoundedRegex, bounded_regex
from detections.compile import CompiledRule, Placeholders, compile_rule
from detections.evidence import event_json, matched_json
from detections.keywords import through_keywords
from detections.masks import Mask, atom_masks, column_masks, find_column, resolve_fields
from detections.match import MATCH_SCHEMA
from detections.rule import Refusal, Rule
from detections.verdict import combine
from ingest.envelope import (
    DESTINATION_IP,
    EVENT_ID,
    HOST,
    ORIGINAL,
    RECEIVED,
    SOURCE_IP,
    TENANT,
    TIMESTAMP,
    USER,
    EventFrame,
)
from ingest.logsource import LogSource

BUCKET_FIELDS: Final = ("EventID", "Channel", "Provider_Name")
"""Fields by which frames are split, if they have few values."""

MAX_BUCKET_VALUES: Final = 64
"""Distinct values above which a field is no good for splitting."""

MIN_BUCKET_ROWS: Final = 32
"""Rows a bucket on average below which more fields do not split a frame: a bucket has its price, however small."""

CHUNK_ROWS: Final = 65_536
"""Rows evaluated at once: bounds the memory of masks (a bit an atom and row)."""

_ROW: Final = "\x00row"
_SCOPES_KEPT: Final = 512

Candidates = tuple[tuple[int, Expression], ...]
"""Index of a rule in the plan, and what is left of it to decide."""

Constants = tuple[tuple[str, str | None], ...]
"""Fields in lower case with the one value they have in a bucket."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Memo(Generic[K, V]):
    """The last results of a pure function; safe for threads, which at worst compute one twice."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._results: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K, compute: Callable[[], V]) -> V:
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        result = compute()
        with self._lock:
            self._results[key] = result
            while len(self._results) > self._size:
                self._results.popitem(last=False)
        return result


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


class Plan:
    """Compiled rules, ready for event frames.

    Attributes:
        rules: The rules that run, in the order given.
        refused: Those that do not compile, with reasons.
    """

    def __init__(self, rules: Sequence[CompiledRule], refused: Sequence[Refusal] = ()) -> None:
        self.rules = tuple(rules)
        self.refused = tuple(refused)
        self._heads = pl.DataFrame(
            {
                "rule_id": [compiled.rule.id for compiled in rules],
                "rule_title": [compiled.rule.title for compiled in rules],
                "level": [compiled.rule.level for compiled in rules],
                "tags": [list(compiled.rule.tags) for compiled in rules],
            },
            schema={name: MATCH_SCHEMA[name] for name in ("rule_id", "rule_title", "level", "tags")},
        )
        self._keyword_only = tuple(
            (index, left)
            for index, compiled in enumerate(rules)
            if (left := through_keywords(compiled.expression)) is not False
        )
        self._bounded = {index: _bounded(compiled) for index, compiled in enumerate(rules) if compiled.slow}
        self._told: set[int] = set()
        self._sources: _Memo[LogSource, _Source] = _Memo(_SCOPES_KEPT)
        self._scopes: _Memo[tuple[LogSource, frozenset[str]], Candidates] = _Memo(_SCOPES_KEPT)
        self._residuals: _Memo[tuple[LogSource, frozenset[str], Constants], _Residual] = _Memo(_SCOPES_KEPT)

    @classmethod
    def build(cls, rules: Sequence[Rule], placeholders: Placeholders | None = None) -> Plan:
        """Compile rules; what does not compile is in `refused`."""
        results = [compile_rule(rule, placeholders) for rule in rules]
        return cls(
            [result for result in results if isinstance(result, CompiledRule)],
            [result for result in results if isinstance(result, Refusal)],
        )

    @property
    def ungated(self) -> tuple[CompiledRule, ...]:
        """Rules that ask for nothing positive: every event of their log source may match."""
        return tuple(compiled for compiled in self.rules if compiled.ungated)

    @property
    def slow(self) -> tuple[CompiledRule, ...]:
        """Rules that run row by row."""
        return tuple(compiled for compiled in self.rules if compiled.slow)

    @property
    def given_up(self) -> dict[str, int]:
        """Rule id -> values that its look-around did not decide in time, each counted as no match; this process."""
        counts = {self.rules[index].rule.id: _given_up(bounded) for index, bounded in self._bounded.items()}
        return {rule_id: count for rule_id, count in counts.items() if count}

    def blind(self, seen: Mapping[LogSource, Collection[str]]) -> tuple[CompiledRule, ...]:
        """Rules that cannot match what has been seen: their log source or the fields they need never came.

        Args:
            seen: Log source -> columns of the frames that came from it.
        """
        alive = {
            index
            for source, columns in seen.items()
            for index, _ in self._scope(source, self._relevant(source, resolve_fields(columns)))
        }
        return tuple(compiled for index, compiled in enumerate(self.rules) if index not in alive)

    def match(self, frame: EventFrame) -> pl.DataFrame:
        """Find which rules are true for which events.

        Returns:
            `MATCH_SCHEMA`: one row a (event, rule), by the order of the events, then of the rules.
        """
        names = resolve_fields(frame.events.columns)
        relevant = self._relevant(frame.logsource, names)
        alive = self._scope(frame.logsource, relevant)
        hits = [
            hit
            for start in range(0, frame.events.height if alive else 0, CHUNK_ROWS)
            for bucket in _buckets(frame.events.slice(start, CHUNK_ROWS), start, names)
            for hit in self._bucket_hits(bucket, self._residual(frame.logsource, relevant, bucket), names)
        ]
        if self._bounded:
            self._tell_given_up()
        if not hits:
            return pl.DataFrame(schema=MATCH_SCHEMA)
        return self._matches(frame, pl.concat(hits).sort("row", "rule"))

    def _tell_given_up(self) -> None:
        """Name, once each, the rules with values that were not decided in time: an attack may be among them."""
        # Always on stderr: a hunt, which sets up no log, writes its matches on stdout
        log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
        for index, bounded in self._bounded.items():
            if index not in self._told and (count := _given_up(bounded)):
                self._told.add(index)
                rule, reason = self.rules[index].rule, self.rules[index].slow
                log.warning("regex not decided in time", rule=rule.title, rule_id=rule.id, values=count, reason=reason)

    def _source(self, source: LogSource) -> _Source:
        """The rules that meet a log source."""

        def compute() -> _Source:
            met = (
                self._keyword_only
                if source.unknown
                else tuple(
                    (index, compiled.expression)
                    for index, compiled in enumerate(self.rules)
                    if compiled.rule.logsource.meets(source)
                )
            )
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
                    "matched": matched_json(hit.drop(_ROW), self.rules[index].positive, names),
                }
            )

    def _matches(self, frame: EventFrame, hits: pl.DataFrame) -> pl.DataFrame:
        """Hits to `MATCH_SCHEMA`."""
        rows = hits.get_column("row").unique(maintain_order=True)
        events = frame.events[rows]
        described = events.select(
            pl.Series("row", rows),
            pl.col(EVENT_ID).alias("event_id"),
            pl.col(TENANT).alias("tenant"),
            pl.col(TIMESTAMP).alias("timestamp"),
            pl.col(RECEIVED).alias("received"),
            pl.lit(str(frame.logsource)).alias("logsource"),
            pl.col(HOST).alias("host"),
            pl.col(USER).alias("user"),
            pl.col(SOURCE_IP).alias("source_ip"),
            pl.col(DESTINATION_IP).alias("destination_ip"),
            pl.Series("event", event_json(events), dtype=pl.String),
            pl.col(ORIGINAL).alias("original"),
        )
        heads = self._heads.with_row_index("rule")
        return (
            hits.join(heads, on="rule", how="left", maintain_order="left")
            .join(described, on="row", how="left", maintain_order="left")
            .select(list(MATCH_SCHEMA))
        )


def _fold_all(rules: Candidates, decide: Callable[[Atom], bool | None]) -> Candidates:
    """Fold every rule and drop those that became False."""
    folded = ((index, fold(expression, decide)) for index, expression in rules)
    return tuple((index, expression) for index, expression in folded if expression is not False)


def _bounded(compiled: CompiledRule) -> tuple[BoundedRegex, ...]:
    """The regexes of a rule that run within a bound of time."""
    return tuple({bounded_regex(atom.value) for atom in atoms_of(compiled.expression) if atom.operator == "re_slow"})


def _given_up(bounded: Iterable[BoundedRegex]) -> int:
    return sum(item.given_up for item in bounded)


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

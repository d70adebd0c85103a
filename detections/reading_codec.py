"""What a rule file gave, compiled, as plain lists: what `detections.rule_cache` keeps.

Paths are no part of it: a file is known by its content, wherever it lies. A file that holds a filter is not kept: there
are few, and what they do is joined to the rules anew at each load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, cast, get_args

from detections.atoms import Atom
from detections.compile import CompiledRule
from detections.correlation_load import CorrelationDraft
from detections.correlation_rule import CorrelationCondition, CorrelationOperator, CorrelationRule, CorrelationType
from detections.expression_codec import AtomTable, CodecError, Plain, decode_atom, decode_atoms, decode_expression
from detections.lazy_sigma import FileSigma
from detections.rule import Refusal, Rule
from detections.rule_collection import Reading, RefusedDocument
from ingest.logsource import LogSource

_KINDS: Final = frozenset(get_args(CorrelationType))
_LEVELS: Final = ("informational", "low", "medium", "high", "critical")
_BOUNDS: Final = frozenset(get_args(CorrelationOperator))


@dataclass(slots=True)
class KnownFile:
    """A rule file that has been read.

    Attributes:
        content: SHA-256 of its content.
        path: Where it was read.
        readings: What it holds.
        outcomes: (Place of a rule in `readings`, filters applied to it) -> what compiling it gave. The rule within is
            the one without filters, of a log source that a pipeline may have changed.
    """

    content: str
    path: Path
    readings: tuple[Reading, ...]
    outcomes: dict[tuple[int, str], CompiledRule | Refusal] = field(default_factory=dict)

    def at(self, path: Path) -> KnownFile | None:
        """The same content in another place; None where it has to be read again, since it holds a filter."""
        if path == self.path:
            return self
        table = AtomTable()
        try:
            plain = encode_file(self, table)
        except CodecError:
            return None
        return decode_file(self.content, path, plain, decode_atoms(table.rows))


def encode_file(known: KnownFile, table: AtomTable) -> Plain:
    """A file as plain lists, its atoms in the table.

    Raises:
        CodecError: It holds a filter, or a rule with what pySigma made of it.
    """
    outcomes: list[Plain] = [
        [place, filters, _encode_outcome(outcome, known.readings[place], table)]
        for (place, filters), outcome in known.outcomes.items()
    ]
    return [[_encode_reading(reading) for reading in known.readings], outcomes]


def _encode_reading(reading: Reading) -> Plain:
    if isinstance(reading, Rule):
        source = reading.logsource
        if not isinstance(reading.parsed, FileSigma):
            raise CodecError("what pySigma made of a rule is not kept")
        return ["rule", *_head(reading), source.product, source.category, source.service, reading.parsed.readable]
    if isinstance(reading, RefusedDocument):
        refusal = reading.refusal
        return ["refused", refusal.line, refusal.rule, refusal.reason, list(reading.bears)]
    if isinstance(reading, CorrelationDraft):
        return ["correlation", *_head(reading.rule), *_encode_draft(reading)]
    raise CodecError("a filter is not kept")


def _head(rule: Rule | CorrelationRule) -> list[Plain]:
    tags, lines = cast("list[Plain]", list(rule.tags)), cast("dict[str, Plain]", dict(rule.lines))
    return [rule.id, rule.name, rule.title, rule.level, rule.status, tags, rule.digest, lines]


def _encode_draft(draft: CorrelationDraft) -> list[Plain]:
    rule, condition = draft.rule, draft.rule.condition
    bounds = None if condition is None else [[list(bound) for bound in condition.bounds], list(condition.fields)]
    return cast(
        "list[Plain]",
        [
            rule.kind,
            list(rule.references),
            list(rule.group_by),
            {alias: dict(fields) for alias, fields in rule.aliases.items()},
            rule.timespan // timedelta(seconds=1),
            bounds,
            None if condition is None else condition.percentile,
            draft.expression,
            rule.generate,
        ],
    )


def _encode_outcome(outcome: CompiledRule | Refusal, rule: Reading, table: AtomTable) -> Plain:
    if isinstance(outcome, Refusal):
        return [outcome.line, outcome.rule, outcome.reason]
    own = rule.logsource if isinstance(rule, Rule) else None
    source = outcome.rule.logsource
    moved: Plain = None if source == own else [source.product, source.category, source.service]
    positive: list[Plain] = [table.place(atom) for atom in outcome.positive]
    return [table.encode(outcome.expression), positive, outcome.slow, outcome.ungated, moved]


def decode_file(content: str, path: Path, plain: Plain, atoms: Sequence[Atom]) -> KnownFile:
    """A file from plain lists.

    Raises:
        CodecError: They are not what was written.
    """
    try:
        readings, outcomes = cast("list[list[list[Plain]]]", plain)
        read = tuple(_decode_reading(item, path, content, place) for place, item in enumerate(readings))
        compiled: dict[tuple[int, str], CompiledRule | Refusal] = {}
        for place, filters, outcome in outcomes:
            rule = read[_number(place)]
            if not isinstance(rule, Rule):
                raise CodecError("what is compiled is no rule")
            compiled[_number(place), _text(filters)] = _decode_outcome(outcome, rule, atoms)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise CodecError(str(error)) from error
    return KnownFile(content, path, read, compiled)


def _decode_reading(plain: list[Plain], path: Path, content: str, place: int) -> Reading:
    kind, *rest = plain
    if kind == "refused":
        line, rule, reason, bears = rest
        return RefusedDocument(_refusal(path, line, rule, reason), _texts(bears))
    own, name, title, level, status, tags, digest, lines, *rest = rest
    head = {
        "id": _text(own),
        "name": _text_or_none(name),
        "title": _text(title),
        "level": _level(level),
        "status": _text(status),
        "tags": _texts(tags),
        "digest": _text(digest),
    }
    if kind == "correlation":
        return _decode_draft(head, _lines(lines), path, rest)
    if kind != "rule":
        raise CodecError("neither a rule, a correlation nor refused")
    product, category, service, readable = rest
    return Rule(
        **head,  # type: ignore[arg-type]  # each by its name, checked above
        logsource=_logsource(product, category, service),
        path=path,
        parsed=FileSigma(path, content, place, _truth(readable)),
        lines=_lines(lines),
    )


def _decode_draft(
    head: Mapping[str, object], lines: Mapping[str, int], path: Path, plain: list[Plain]
) -> CorrelationDraft:
    kind, references, group_by, aliases, seconds, bounds, percentile, expression, generate = plain
    if kind not in _KINDS or not isinstance(aliases, dict):
        raise CodecError("no correlation")
    rule = CorrelationRule(
        **head,  # type: ignore[arg-type]  # each by its name, checked by the caller
        kind=cast("CorrelationType", kind),
        references=_texts(references),
        names={},
        group_by=_texts(group_by),
        aliases={alias: _text_map(fields) for alias, fields in aliases.items()},
        timespan=timedelta(seconds=_number(seconds)),
        condition=None if bounds is None else _condition(bounds, percentile),
        expression=None,
        generate=_truth(generate),
        path=path,
        lines=lines,
    )
    return CorrelationDraft(rule, _text_or_none(expression))


def _condition(plain: Plain, percentile: Plain) -> CorrelationCondition:
    bounds, fields = cast("list[list[list[Plain]]]", plain)
    for operator, number in bounds:
        if operator not in _BOUNDS or not isinstance(number, int | float):
            raise CodecError("no bound")
    if not (percentile is None or isinstance(percentile, int | float)):
        raise CodecError("no percentile")
    checked = cast("list[tuple[CorrelationOperator, float]]", bounds)
    names = _texts(cast("Plain", fields))
    return CorrelationCondition(tuple((name, float(number)) for name, number in checked), names, percentile)


def _decode_outcome(plain: Plain, rule: Rule, atoms: Sequence[Atom]) -> CompiledRule | Refusal:
    parts = cast("list[Plain]", plain)
    if len(parts) == 3:
        return _refusal(rule.path, *parts)
    expression, positive, slow, ungated, moved = parts
    if moved is not None:
        rule = dataclasses.replace(rule, logsource=_logsource(*cast("list[Plain]", moved)))
    return CompiledRule(
        rule=rule,
        expression=decode_expression(expression, atoms),
        positive=tuple(decode_atom(place, atoms) for place in cast("list[Plain]", positive)),
        slow=_text_or_none(slow),
        ungated=_truth(ungated),
    )


def _refusal(path: Path, line: Plain, rule: Plain, reason: Plain) -> Refusal:
    return Refusal(path, None if line is None else _number(line), _text_or_none(rule), _text(reason))


def _logsource(product: Plain, category: Plain, service: Plain) -> LogSource:
    return LogSource(_text_or_none(product), _text_or_none(category), _text_or_none(service))


def _text(plain: Plain) -> str:
    if type(plain) is not str:
        raise CodecError("not a text")
    return plain


def _level(plain: Plain) -> str:
    if plain not in _LEVELS:
        raise CodecError("no level")
    return _text(plain)


def _text_or_none(plain: Plain) -> str | None:
    return None if plain is None else _text(plain)


def _texts(plain: Plain) -> tuple[str, ...]:
    if type(plain) is not list:
        raise CodecError("no list")
    return tuple(map(_text, plain))


def _number(plain: Plain) -> int:
    if type(plain) is not int or plain < 0:
        raise CodecError("not a number")
    return plain


def _truth(plain: Plain) -> bool:
    if type(plain) is not bool:
        raise CodecError("neither true nor false")
    return plain


def _lines(plain: Plain) -> dict[str, int]:
    if type(plain) is not dict or not all(type(line) is int for line in plain.values()):
        raise CodecError("no lines")
    return cast("dict[str, int]", plain)


def _text_map(plain: Plain) -> dict[str, str]:
    if type(plain) is not dict or not all(type(text) is str for text in plain.values()):
        raise CodecError("no map of texts")
    return cast("dict[str, str]", plain)

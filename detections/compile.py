"""Sigma detections to boolean expressions over atoms.

pySigma has parsed values and applied modifiers; what remains is a table from its value types to atoms. Strings become
the cheapest comparison that says the same: equality, prefix, suffix, substring, and a regex only for wildcards in the
middle. A rule that cannot be expressed exactly is refused with a reason: a rule that runs but means something else is
worse than one that is known not to run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import polars as pl
import regex
from sigma.conditions import ConditionAND
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaRule
from sigma.types import (
    CompareOperators,
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SigmaTimestampPart,
    SigmaType,
    SpecialChars,
)

from detections.atoms import (
    Atom,
    Expression,
    Operator,
    all_of,
    any_of,
    atoms_of,
    fold,
    lower_case,
    negate,
    positive_atoms,
)
from detections.bounded_regex import bounded_regex
from detections.condition import ConditionError, Named, Tree, parse_condition
from detections.rule import Refusal, Rule

Placeholders = Mapping[str, Sequence[str]]
"""Values for `%name%` under the `expand` modifier."""

_COMPARISONS: Final[dict[CompareOperators, Operator]] = {
    CompareOperators.LT: "lt",
    CompareOperators.LTE: "lte",
    CompareOperators.GT: "gt",
    CompareOperators.GTE: "gte",
}
_REGEX_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
_REPEATED_REPEAT: Final = re.compile(r"[*+}][^()]*\)[*+{]")
"""A repeated group that holds a repeat: its time can be exponential in an engine that backtracks.

The most common case, refused so that its author mends it; what this does not see is bounded when it runs.
"""
_SHOWN: Final = 60
"""Characters of a value in a message."""


class CompileError(ValueError):
    """A rule that this engine cannot run exactly.

    Attributes:
        key: The part of the rule at fault, as in `Rule.lines`.
    """

    def __init__(self, reason: str, key: str = "detection") -> None:
        super().__init__(reason)
        self.key = key


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule as the engine runs it.

    Attributes:
        positive: The atoms whose truth speaks for a match, each once.
        slow: Why the rule is slow, or None.
        ungated: Whether an event with none of the rule's fields would match: nothing positive is asked for.
    """

    rule: Rule
    expression: Expression
    positive: tuple[Atom, ...]
    slow: str | None
    ungated: bool


def compile_rule(rule: Rule, placeholders: Placeholders | None = None) -> CompiledRule | Refusal:
    """Compile one rule; `placeholders` gives the values that `expand` needs."""
    try:
        expression = compile_detections(rule.sigma, placeholders or {})
    except CompileError as error:
        return rule.refuse(str(error), error.key)
    except RecursionError:
        return rule.refuse("the detections nest too deep")
    if isinstance(expression, bool):
        return rule.refuse(f"the rule is {str(expression).lower()} for every event")
    slow = [shortened(atom.text) for atom in atoms_of(expression) if atom.operator == "re_slow"]
    return CompiledRule(
        rule=rule,
        expression=expression,
        positive=tuple(dict.fromkeys(positive_atoms(expression))),
        slow=f"regex {slow[0]!r} needs look-around or a backreference and runs row by row" if slow else None,
        ungated=fold(expression, lambda atom: atom.operator == "null") is True,
    )


def compile_detections(sigma: SigmaRule, placeholders: Placeholders) -> Expression:
    """Compile the detections and conditions of a parsed rule; several conditions are joined by "or".

    Raises:
        CompileError: The rule cannot be run exactly.
    """
    compiled = compile_named(sigma, placeholders)
    try:
        trees = [parse_condition(str(item.condition), compiled) for item in sigma.detection.parsed_condition]
    except ConditionError as error:
        raise CompileError(str(error), "detection.condition") from error
    return any_of(_resolve(tree, compiled) for tree in trees)


def compile_named(sigma: SigmaRule, placeholders: Placeholders) -> dict[str, Expression]:
    """Compile each detection of a rule by itself.

    Raises:
        CompileError: One of them cannot be run exactly.
    """
    compiled: dict[str, Expression] = {}
    for name, detection in sigma.detection.detections.items():
        try:
            compiled[name] = _detection(detection, placeholders)
        except CompileError as error:
            raise CompileError(f"{name}: {error}", f"detection.{name}") from error
    return compiled


def _resolve(tree: Tree, compiled: Mapping[str, Expression]) -> Expression:
    """Put the compiled detections in the place of their names."""
    if isinstance(tree, Named):
        return compiled[tree.name]
    parts = [_resolve(part, compiled) for part in tree.parts]
    if tree.operator == "not":
        return negate(parts[0])
    return all_of(parts) if tree.operator == "and" else any_of(parts)


def _detection(detection: SigmaDetection, placeholders: Placeholders) -> Expression:
    parts = [
        _detection(item, placeholders) if isinstance(item, SigmaDetection) else _item(item, placeholders)
        for item in detection.detection_items
    ]
    return all_of(parts) if detection.item_linking is ConditionAND else any_of(parts)


def _item(item: SigmaDetectionItem, placeholders: Placeholders) -> Expression:
    """One `field|modifiers: values` line."""
    if not item.value:
        raise CompileError(f"{item.field or 'keywords'}: an empty list of values")
    parts = [_value(item.field, value, placeholders) for value in item.value]
    joined = all_of(parts) if item.value_linking is ConditionAND else any_of(parts)
    return negate(joined) if item.negated else joined


def _value(field: str | None, value: SigmaType, placeholders: Placeholders) -> Expression:
    """One value of an item: through the table of types, after `expand`."""
    if isinstance(value, SigmaExpansion):
        return any_of(_value(field, part, placeholders) for part in value.values)
    if isinstance(value, SigmaString | SigmaRegularExpression) and value.contains_placeholder():
        return any_of(_value(field, part, {}) for part in _expand(value, placeholders))
    for kind, convert in _CONVERSIONS.items():
        if isinstance(value, kind):
            return convert(field, value)
    raise CompileError(f"{field or 'keywords'}: {type(value).__name__} is not supported")


def _expand(
    value: SigmaString | SigmaRegularExpression, placeholders: Placeholders
) -> Sequence[SigmaString | SigmaRegularExpression]:
    """Put the values of placeholders in."""

    def values(placeholder: Placeholder) -> Iterator[str]:
        if placeholder.name not in placeholders:
            raise CompileError(f"placeholder %{placeholder.name}% has no values here")
        yield from placeholders[placeholder.name]

    return value.replace_placeholders(values)


def _string(field: str | None, value: SigmaType) -> Expression:
    """A string with or without wildcards; `?` is one character and `*` any number, line ends included."""
    assert isinstance(value, SigmaString)  # noqa: S101 - by the table
    parts = _merged(value)
    cased = isinstance(value, SigmaCasedString)
    if not cased:
        parts = [lower_case(part) if isinstance(part, str) else part for part in parts]
    make = partial(Atom, field, cased=cased, text=str(value))
    anywhere = SpecialChars.WILDCARD_MULTI
    if field is None:  # a keyword may stand anywhere: wildcards at its ends say nothing
        parts = parts[parts[:1] == [anywhere] :]
        parts = parts[: len(parts) - (parts[-1:] == [anywhere])]
        if not parts:
            raise CompileError("an empty keyword would match every event")
        plain = parts[0] if len(parts) == 1 else None
        return (
            make("contains", plain) if isinstance(plain, str) else make("like", _tried(f"(?s:{_regex(parts)})", value))
        )
    match parts:
        case []:
            return make("eq", "")
        case [str(text)]:
            return make("eq", text)
        case [SpecialChars.WILDCARD_MULTI]:
            return make("exists", "")
        case [SpecialChars.WILDCARD_MULTI, str(text), SpecialChars.WILDCARD_MULTI]:
            return make("contains", text)
        case [SpecialChars.WILDCARD_MULTI, str(text)]:
            return make("endswith", text)
        case [str(text), SpecialChars.WILDCARD_MULTI]:
            return make("startswith", text)
    start = "" if parts[0] is anywhere else r"\A"
    end = "" if parts[-1] is anywhere else r"\z"
    inner = parts[parts[0] is anywhere : len(parts) - (parts[-1] is anywhere)]
    return make("like", _tried(f"{start}(?s:{_regex(inner)}){end}", value))


def _merged(value: SigmaString) -> list[str | SpecialChars]:
    """Parts with neighbouring texts joined and runs of `*` made one."""
    parts: list[str | SpecialChars] = []
    for part in value.s:
        if isinstance(part, Placeholder):
            raise CompileError(f"placeholder %{part.name}% has no values here")
        if parts and isinstance(part, str) and isinstance(parts[-1], str):
            parts[-1] += part
        elif not (parts and part is SpecialChars.WILDCARD_MULTI and parts[-1] is part):
            parts.append(part)
    return parts


def _regex(parts: Sequence[str | SpecialChars]) -> str:
    """Wildcard parts as a Rust regex."""
    wildcards = {SpecialChars.WILDCARD_MULTI: ".*", SpecialChars.WILDCARD_SINGLE: "."}
    return "".join(_REGEX_SPECIAL.sub(r"\\\g<0>", part) if isinstance(part, str) else wildcards[part] for part in parts)


def _tried(pattern: str, value: SigmaString) -> str:
    """The regex of a text with wildcards, tried now: thousands of `?` are more than Rust's engine takes."""
    refusal = rust_refusal(pattern)
    if refusal is not None:
        raise CompileError(f"the text with wildcards {shortened(str(value))!r} makes too large a regex: {refusal}")
    return pattern


def shortened(text: str) -> str:
    """The beginning of a text that may be too long for a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _number(field: str | None, value: SigmaType) -> Expression:
    """A number equals its text: every field is text (docs/decisions/0003-fields-are-text.md)."""
    return _string(field, SigmaString.from_str(str(value)))


def _truth(field: str | None, value: SigmaType) -> Expression:
    return _string(field, SigmaString.from_str(str(value).lower()))


def _pattern(field: str | None, value: SigmaType) -> Expression:
    """A regex: Rust's engine if it takes the pattern, else one that backtracks, row by row, with a time bound."""
    assert isinstance(value, SigmaRegularExpression)  # noqa: S101 - by the table
    source = str(value.regexp)
    pattern = value.escape((), escape_escape_char=False) if value.flags else source  # type: ignore[arg-type]
    refusal = rust_refusal(pattern)
    if refusal is None:
        return Atom(field, "re", pattern, cased=True, text=source)
    try:
        bounded_regex(pattern)
    except regex.error as error:
        raise CompileError(f"regex {source!r}: {refusal}; {error}") from error
    if _REPEATED_REPEAT.search(pattern):
        raise CompileError(
            f"regex {source!r} needs a backtracking engine, where its nested repeats take exponential time"
        )
    return Atom(field, "re_slow", pattern, cased=True, text=source)


def rust_refusal(pattern: str) -> str | None:
    """Why Rust's regex engine does not take a pattern, or None if it does."""
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        reasons = re.findall(r"error: (.+)", str(error))
        return reasons[-1] if reasons else str(error).splitlines()[0]
    return None


def _network(field: str | None, value: SigmaType) -> Expression:
    assert isinstance(value, SigmaCIDRExpression)  # noqa: S101 - by the table
    return Atom(_named(field, "cidr"), "cidr", str(value.network), text=value.cidr)


def _comparison(field: str | None, value: SigmaType) -> Expression:
    assert isinstance(value, SigmaCompareExpression)  # noqa: S101 - by the table
    if value.op not in _COMPARISONS:
        raise CompileError(f"{field}: comparison {value.op.name} is not supported")
    number = str(value.number)
    return Atom(_named(field, "a comparison"), _COMPARISONS[value.op], number, text=number)


def _null(field: str | None, value: SigmaType) -> Expression:  # noqa: ARG001 - by the table
    return Atom(_named(field, "null"), "null", "", text="null")


def _exists(field: str | None, value: SigmaType) -> Expression:
    operator: Operator = "exists" if isinstance(value, SigmaExists) and value.exists else "null"
    return Atom(_named(field, "exists"), operator, "", text="exists")


def _reference(field: str | None, value: SigmaType) -> Expression:
    assert isinstance(value, SigmaFieldReference)  # noqa: S101 - by the table
    operators: dict[tuple[bool, bool], Operator] = {
        (False, False): "field_eq",
        (True, False): "field_startswith",
        (False, True): "field_endswith",
        (True, True): "field_contains",
    }
    operator = operators[value.starts_with, value.ends_with]
    return Atom(_named(field, "fieldref"), operator, value.field, text=value.field)


def _timestamp(field: str | None, value: SigmaType) -> Expression:
    raise CompileError(f"{field}: time modifiers (minute, hour, day, week, month, year) are not supported: {value}")


def _named(field: str | None, what: str) -> str:
    if field is None:
        raise CompileError(f"{what} needs a field")
    return field


_CONVERSIONS: Final[dict[type[SigmaType], Callable[[str | None, SigmaType], Expression]]] = {
    SigmaNull: _null,
    SigmaExists: _exists,
    SigmaString: _string,
    SigmaTimestampPart: _timestamp,  # before SigmaNumber, which it extends
    SigmaNumber: _number,
    SigmaBool: _truth,
    SigmaRegularExpression: _pattern,
    SigmaCIDRExpression: _network,
    SigmaCompareExpression: _comparison,
    SigmaFieldReference: _reference,
}

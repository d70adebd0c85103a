"""One value of a rule to an atom: a table from pySigma's types of values to comparisons.

Strings become the cheapest comparison that says the same: equality, prefix, suffix, substring, and a regex only for
wildcards in the middle. What cannot be expressed exactly is refused with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Final

import polars as pl
import regex
from sigma.modifiers import SigmaCaseSensitiveModifier, SigmaEndswithModifier, SigmaStartswithModifier
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
    SigmaQueryExpression,
    SigmaRegularExpression,
    SigmaString,
    SigmaTimestampPart,
    SigmaType,
    SpecialChars,
)

from detections.atoms import Atom, Expression, Operator, any_of, lower_case
from detections.bounded_regex import bounded_regex
from detections.encodings import Modifier

_COMPARISONS: Final[dict[CompareOperators, Operator]] = {
    CompareOperators.LT: "lt",
    CompareOperators.LTE: "lte",
    CompareOperators.GT: "gt",
    CompareOperators.GTE: "gte",
}
_TIME_COMPARISONS: Final[dict[CompareOperators, Operator]] = {
    CompareOperators.LT: "time_lt",
    CompareOperators.LTE: "time_lte",
    CompareOperators.GT: "time_gt",
    CompareOperators.GTE: "time_gte",
}
_REFERENCES: Final[dict[bool, dict[tuple[bool, bool], Operator]]] = {
    False: {
        (False, False): "field_eq",
        (True, False): "field_startswith",
        (False, True): "field_endswith",
        (True, True): "field_contains",
    },
    True: {
        (False, False): "field_eq_cased",
        (True, False): "field_startswith_cased",
        (False, True): "field_endswith_cased",
        (True, True): "field_contains_cased",
    },
}
"""Whether case counts, then the ends that the other field's value stands at."""

_REGEX_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")
_REPEATED_REPEAT: Final = re.compile(r"[*+}][^()]*\)[*+{]")
"""A repeated group that holds a repeat: its time can be exponential in an engine that backtracks.

The most common case, refused so that its author mends it; what this does not see is bounded when it runs.
"""
TOO_LARGE: Final = "size limit"
"""Said by Rust of a pattern whose syntax it takes; an engine that backtracks would only take longer to fail."""

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


def compare_value(field: str | None, value: SigmaType, modifiers: Sequence[Modifier]) -> Expression:
    """The expression of one value, its modifiers applied: through the table of types.

    Args:
        field: The field, or None for a keyword.
        value: The value, its placeholders filled.
        modifiers: Those of the item it stands in, for what pySigma's values forget of them.

    Raises:
        CompileError: The value cannot be compared exactly.
    """
    if isinstance(value, SigmaExpansion):
        return any_of(compare_value(field, part, modifiers) for part in value.values)
    for kind, convert in _CONVERSIONS.items():
        if isinstance(value, kind):
            return convert(field, value, modifiers)
    if isinstance(value, SigmaQueryExpression):
        raise CompileError(f"{field or 'keywords'}: the pipeline puts in a query expression, which nothing here runs")
    raise CompileError(f"{field or 'keywords'}: {type(value).__name__} is not supported")


def _string(field: str | None, value: SigmaType, modifiers: Sequence[Modifier]) -> Expression:
    """A string with or without wildcards; `?` is one character and `*` any number, line ends included."""
    assert isinstance(value, SigmaString)  # noqa: S101 - by the table
    parts = _merged(value)
    # pySigma forgets the class of cased strings under `windash` and `expand`
    cased = isinstance(value, SigmaCasedString) or SigmaCaseSensitiveModifier in modifiers
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


def _number(field: str | None, value: SigmaType, modifiers: Sequence[Modifier]) -> Expression:
    """A number equals its text: every field is text (docs/decisions/0003-fields-are-text.md)."""
    return _string(field, SigmaString.from_str(str(value)), modifiers)


def _truth(field: str | None, value: SigmaType, modifiers: Sequence[Modifier]) -> Expression:
    return _string(field, SigmaString.from_str(str(value).lower()), modifiers)


def _pattern(field: str | None, value: SigmaType, modifiers: Sequence[Modifier]) -> Expression:
    """A regex: Rust's engine if it takes the pattern, else one that backtracks, row by row, with a time bound."""
    assert isinstance(value, SigmaRegularExpression)  # noqa: S101 - by the table
    source = str(value.regexp)
    pattern = _anchored(source, modifiers)
    if value.flags:
        pattern = f"(?{''.join(sorted(value.sigma_to_re_flag[flag] for flag in value.flags))}){pattern}"
    shown = shortened(source)
    refusal = rust_refusal(pattern)
    if refusal is None:
        return Atom(field, "re", pattern, cased=True, text=source)
    if TOO_LARGE in refusal:
        raise CompileError(f"regex {shown!r}: {refusal}")
    try:
        bounded_regex(pattern)
    except regex.error as error:
        raise CompileError(f"regex {shown!r}: {refusal}; {error}") from error
    if _REPEATED_REPEAT.search(pattern):
        raise CompileError(
            f"regex {shown!r} needs a backtracking engine, where its nested repeats take exponential time"
        )
    return Atom(field, "re_slow", pattern, cased=True, text=source)


def _anchored(source: str, modifiers: Sequence[Modifier]) -> str:
    """`re|startswith` and `re|endswith`: pySigma leaves the other end open, but does not fix this one."""
    start = r"\A" if SigmaStartswithModifier in modifiers else ""
    end = r"\z" if SigmaEndswithModifier in modifiers else ""
    return f"{start}(?:{source}){end}" if start or end else source


@lru_cache(maxsize=4096)
def rust_refusal(pattern: str) -> str | None:
    """Why Rust's regex engine does not take a pattern, or None if it does."""
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        reasons = re.findall(r"error: (.+)", str(error))
        return reasons[-1] if reasons else str(error).splitlines()[0]
    return None


def _network(field: str | None, value: SigmaType, _modifiers: Sequence[Modifier]) -> Expression:
    assert isinstance(value, SigmaCIDRExpression)  # noqa: S101 - by the table
    return Atom(_named(field, "cidr"), "cidr", str(value.network), text=value.cidr)


def _comparison(field: str | None, value: SigmaType, _modifiers: Sequence[Modifier]) -> Expression:
    assert isinstance(value, SigmaCompareExpression)  # noqa: S101 - by the table
    field = _named(field, "a comparison")
    if value.op not in _COMPARISONS:
        raise CompileError(f"{field}: comparison {value.op.name} is not supported")
    if isinstance(value.number, SigmaTimestampPart):
        return _time_atom(field, _TIME_COMPARISONS[value.op], value.number)
    number = str(value.number)
    return Atom(field, _COMPARISONS[value.op], number, text=number)


def _timestamp(field: str | None, value: SigmaType, _modifiers: Sequence[Modifier]) -> Expression:
    assert isinstance(value, SigmaTimestampPart)  # noqa: S101 - by the table
    return _time_atom(_named(field, "a part of a time"), "time_eq", value)


def _time_atom(field: str, operator: Operator, value: SigmaTimestampPart) -> Atom:
    wanted = f"{value.timestamp_part.name.lower()} {value.number}"
    return Atom(field, operator, wanted, text=wanted)


def _null(field: str | None, _value: SigmaType, _modifiers: Sequence[Modifier]) -> Expression:
    return Atom(_named(field, "null"), "null", "", text="null")


def _exists(field: str | None, value: SigmaType, _modifiers: Sequence[Modifier]) -> Expression:
    operator: Operator = "exists" if isinstance(value, SigmaExists) and value.exists else "null"
    return Atom(_named(field, "exists"), operator, "", text="exists")


def _reference(field: str | None, value: SigmaType, modifiers: Sequence[Modifier]) -> Expression:
    assert isinstance(value, SigmaFieldReference)  # noqa: S101 - by the table
    operators = _REFERENCES[SigmaCaseSensitiveModifier in modifiers]
    operator = operators[value.starts_with, value.ends_with]
    return Atom(_named(field, "fieldref"), operator, value.field, text=value.field)


def _named(field: str | None, what: str) -> str:
    if field is None:
        raise CompileError(f"{what} needs a field")
    return field


_CONVERSIONS: Final[dict[type[SigmaType], Callable[[str | None, SigmaType, Sequence[Modifier]], Expression]]] = {
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

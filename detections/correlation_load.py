"""One YAML map to one correlation, its references not yet resolved.

A parser of our own: pySigma's takes one bound and not a range, cuts numbers to integers, keeps silent on keys that it
does not know, and refers to names only that `[A-Za-z_0-9]` can spell. Whatever is wrong is named with its line; what
could never fire, or would fire on silence, is refused as well. Source: Sigma specification 2.1, "Sigma Correlation
Rules"; `neq`, `temporal_extended` and a condition that is text come from pySigma.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Final, get_args

from detections.correlation_rule import (
    MAX_TIMESPAN,
    CorrelationCondition,
    CorrelationOperator,
    CorrelationRule,
    CorrelationType,
)
from detections.documents import Document
from detections.read_rule import digest_of, read_head
from detections.rule import RuleContentError

TEMPORAL: Final = frozenset({"temporal", "temporal_ordered"})
COUNTS: Final = frozenset({"event_count", "value_count", *TEMPORAL})
"""Types whose number is a count: whole, and at least 1 where there is a group."""

_KINDS: Final[dict[str, CorrelationType]] = {
    **{kind: kind for kind in get_args(CorrelationType)},
    "temporal_extended": "temporal",
    "temporal_ordered_extended": "temporal_ordered",
}
_OPERATORS: Final[dict[str, CorrelationOperator]] = {name: name for name in get_args(CorrelationOperator)}
_KEYS: Final = frozenset({"type", "rules", "group-by", "timespan", "aliases", "condition", "generate"})
_MEANT: Final = {"group_by": "group-by", "groupby": "group-by", "timeframe": "timespan", "rule": "rules"}
_TIMESPAN: Final = re.compile(r"([0-9]{1,9})([smhdwMy])")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2629746, "y": 31556952}
"""Months and years are mean ones of the Gregorian calendar, as in pySigma; both are beyond `MAX_TIMESPAN`."""


@dataclass(frozen=True, slots=True)
class CorrelationDraft:
    """A correlation as written.

    Attributes:
        rule: Its `references`, and the keys below its `aliases`, are ids or names; `names` is empty.
        expression: The text of an extended condition.
    """

    rule: CorrelationRule
    expression: str | None


def read_correlation(path: Path, document: Document, content: Mapping[str, object]) -> CorrelationDraft:
    """Read one correlation.

    Raises:
        RuleContentError: One part is wrong.
        SigmaError: So is its head; pySigma raises all of `PYSIGMA_FAULTS`.
    """
    head = read_head(content, "correlation")
    body = content["correlation"]
    if not isinstance(body, dict):
        raise RuleContentError("correlation is a map", "correlation")
    _refuse_unknown(body, _KEYS, "correlation")
    kind = _kind(body.get("type"))
    condition, expression = _condition(kind, body.get("condition"))
    return CorrelationDraft(
        CorrelationRule(
            id=head.id,
            name=head.name,
            title=head.title,
            level=head.level,
            status=head.status,
            tags=head.tags,
            kind=kind,
            references=_rules(body.get("rules"), needed=expression is None),
            names={},
            group_by=tuple(dict.fromkeys(_texts(body.get("group-by"), "correlation.group-by", "group-by"))),
            aliases=_aliases(body.get("aliases")),
            timespan=_timespan(body.get("timespan")),
            condition=condition,
            expression=None,
            generate=_generate(body.get("generate"), content.get("generate")),
            path=path,
            digest=digest_of(content),
            lines=document.lines,
        ),
        expression,
    )


def _refuse_unknown(given: Mapping[object, object], known: frozenset[str], place: str) -> None:
    """A key that nothing reads is a key whose author thinks that it does something."""
    unknown = [key for key in given if key not in known]
    if not unknown:
        return
    name = str(unknown[0])
    close = [_MEANT[name]] if name in _MEANT else get_close_matches(name, sorted(known), n=1)
    hint = f" (did you mean {close[0]}?)" if close and close[0] in known else ""
    names = ", ".join(repr(str(key)) for key in unknown)
    raise RuleContentError(f"unknown in {place.replace('.', ' ')}: {names}{hint}", f"{place}.{name}")


def _kind(value: object) -> CorrelationType:
    kind = _KINDS.get(value.lower()) if isinstance(value, str) else None
    if kind is None:
        known = ", ".join(get_args(CorrelationType))
        said = "there is no type" if value is None else f"unknown type {value!r}"
        raise RuleContentError(f"{said}; known: {known}", "correlation.type")
    return kind


def _rules(value: object, *, needed: bool) -> tuple[str, ...]:
    """References; an extended condition may name the rules instead."""
    rules = _texts(value, "correlation.rules", "rules")
    if not rules and needed:
        raise RuleContentError("there are no rules to look at", "correlation.rules")
    return rules


def _texts(value: object, key: str, what: str) -> tuple[str, ...]:
    """A text or a list of texts."""
    items = [] if value is None else value if isinstance(value, list) else [value]
    for number, item in enumerate(items):
        if not isinstance(item, str) or not item.strip():
            raise RuleContentError(f"{what} is a text or a list of texts, and not {item!r}", f"{key}.{number}")
    return tuple(items)


def _timespan(value: object) -> timedelta:
    key = "correlation.timespan"
    if value is None:
        raise RuleContentError("there is no timespan", key)
    match = _TIMESPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise RuleContentError(f"timespan {value!r} is not a whole number and one of s, m, h, d, w, such as 5m", key)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
    if not seconds:
        raise RuleContentError("a timespan is longer than nothing", key)
    if seconds > MAX_TIMESPAN.total_seconds():
        raise RuleContentError(f"timespan {value} is longer than {MAX_TIMESPAN.days} days", key)
    return timedelta(seconds=seconds)


def _aliases(value: object) -> dict[str, dict[str, str]]:
    key = "correlation.aliases"
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RuleContentError("aliases is a map of alias to rule to field", key)
    aliases: dict[str, dict[str, str]] = {}
    for alias, fields in value.items():
        if not isinstance(alias, str) or not isinstance(fields, dict) or not fields:
            raise RuleContentError(f"alias {alias!r} is not a map of rule to field", f"{key}.{alias}")
        for rule, field in fields.items():
            if not isinstance(rule, str) or not isinstance(field, str) or not field.strip():
                raise RuleContentError(
                    f"alias {alias!r}: {rule!r}: {field!r} is not a rule and a field", f"{key}.{alias}"
                )
        aliases[alias] = dict(fields)
    return aliases


def _generate(inside: object, outside: object) -> bool:
    """The specification has `generate` beside `correlation`, pySigma within it: either is taken."""
    said = {value for value in (inside, outside) if isinstance(value, bool)}
    for value, key in ((inside, "correlation.generate"), (outside, "generate")):
        if value is not None and not isinstance(value, bool):
            raise RuleContentError(f"generate is true or false, and not {value!r}", key)
    if len(said) > 1:
        raise RuleContentError("generate is both true and false", "correlation.generate")
    return True in said


def _condition(kind: CorrelationType, value: object) -> tuple[CorrelationCondition | None, str | None]:
    """What a group must come to: numbers, or the text of an expression, or neither where the type has a default."""
    key = "correlation.condition"
    if value is None:
        if kind not in TEMPORAL:
            raise RuleContentError(f"{kind} needs a condition", key)
        return None, None
    if isinstance(value, str):
        if kind not in TEMPORAL:
            raise RuleContentError(f"a condition over rules is for temporal types; that of {kind} is a map", key)
        return None, value
    if not isinstance(value, dict):
        raise RuleContentError("a condition is a map, such as gte: 10", key)
    _refuse_unknown(value, frozenset({*_OPERATORS, "field", "percentile"}), key)
    bounds = tuple((_OPERATORS[name], _number(name, value[name])) for name in value if name in _OPERATORS)
    if not bounds:
        raise RuleContentError(f"the condition has none of {', '.join(_OPERATORS)}", key)
    condition = CorrelationCondition(bounds, _fields(kind, value.get("field")), _percentile(kind, value))
    if not satisfiable(bounds, whole=kind in COUNTS):
        said = " and ".join(f"{name} {number:g}" for name, number in bounds)
        least = " of a count, which is whole and at least 1" if kind in COUNTS else ""
        raise RuleContentError(f"{said} can never be true{least}", f"{key}.{bounds[0][0]}")
    return condition, None


def _number(name: str, value: object) -> float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise RuleContentError(f"{name} is a number, and not {str(value)[:40]!r}", f"correlation.condition.{name}")
    return number


def _fields(kind: CorrelationType, value: object) -> tuple[str, ...]:
    key = "correlation.condition.field"
    fields = tuple(dict.fromkeys(_texts(value, key, "field")))
    if kind == "event_count" or kind in TEMPORAL:
        if value is not None:
            raise RuleContentError(f"{kind} counts matches and has no field", key)
    elif not fields:
        raise RuleContentError(f"the condition of {kind} needs a field", key)
    elif len(fields) > 1 and kind != "value_count":
        raise RuleContentError(f"{kind} takes one field; only value_count counts combinations", key)
    return fields


def _percentile(kind: CorrelationType, condition: Mapping[str, object]) -> float | None:
    key = "correlation.condition.percentile"
    value = condition.get("percentile")
    if kind != "value_percentile":
        if value is not None:
            raise RuleContentError(f"{kind} has no percentile", key)
        return None
    if value is None:
        raise RuleContentError("the condition of value_percentile needs a percentile, from 0 to 100", key)
    number = _number("percentile", value)
    if not 0 <= number <= 100:
        raise RuleContentError(f"percentile {number:g} is not from 0 to 100", key)
    return number


def satisfiable(bounds: tuple[tuple[CorrelationOperator, float], ...], *, whole: bool, most: float = math.inf) -> bool:
    """Whether any number is within all bounds; `whole` ones are counts, from 1 to `most`."""
    low, high = (1.0 if whole else -math.inf, False), (most, True)
    excluded = [number for operator, number in bounds if operator == "neq"]
    for operator, number in bounds:
        if operator in {"gt", "gte", "eq"}:
            low = max(low, (number, operator == "gt"))
        if operator in {"lt", "lte", "eq"}:
            high = min(high, (number, operator != "lt"))
    (least, above), (greatest, reached) = low, high
    if whole:
        least = math.floor(least) + 1 if above else math.ceil(least)
        if not math.isinf(greatest):
            greatest = math.floor(greatest) if reached else math.ceil(greatest) - 1
        above, reached = False, True
    if least == greatest:
        return not above and reached and least not in excluded
    return least < greatest

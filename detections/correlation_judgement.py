"""When a correlation's condition can be judged, and by which memory.

*At once*: the rule asks for lower bounds only (`gt`, `gte`, temporal without `not`). Each event closes a window
`[t - timespan, t]`, which is judged there and then.

*At the close*: an upper bound (`lt`, `lte`, `eq`, `neq`) or an absence (`not`) is not known before the window is over.
Each event opens a window `[t, t + timespan]`, which is judged at its end, so that is when the correlation fires. With
absence only events of a rule that the condition needs open a window: "A and not B" waits after an A, not after a B.

*Ranges*: a condition with a lower and an upper bound (`eq`; `gt` with `lte`) asks for so many and no more. The tail
of a larger burst holds every smaller number, so such a window counts only if no other window of that length around
its first event goes past the upper bound.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from detections.correlation import CorrelationError
from detections.correlation_order import Expression, Order, OrderedTerms, Presence
from detections.correlation_rule import CorrelationOperator, CorrelationRule
from detections.correlation_window import EventCount, ValueAverage, ValueCount, ValueRank, ValueSum, Window

_COMPARE: Final[dict[CorrelationOperator, Callable[[float, float], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "eq": operator.eq,
    "neq": operator.ne,
}
_NUMERIC: Final = frozenset({"value_sum", "value_avg", "value_percentile", "value_median"})
_GROWING: Final = frozenset({"event_count", "value_count", "temporal", "temporal_ordered"})
"""Types whose number can only grow with more events: a range can tell "not yet" from "too many"."""

MAX_REFERENCES: Final = 256
"""Rules that one correlation refers to; the memory of an ordered one grows with their square."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How one correlation is judged.

    Attributes:
        window: Makes the memory of a group.
        holds: Whether the condition is true of what the window measured.
        exceeds: Ranges of growing numbers: whether an upper bound is broken. None for all others.
        at_close: Windows open at an event and are judged at their end.
        openers: References whose events open a window, a bit each.
        numeric: The values are numbers.
        counted: Fields whose values are counted.
    """

    window: Callable[[], Window]
    holds: Callable[[float], bool]
    exceeds: Callable[[float], bool] | None
    at_close: bool
    openers: int
    numeric: bool
    counted: tuple[str, ...]


def judgement_of(rule: CorrelationRule) -> Judgement:
    """Compile the condition of a correlation.

    Raises:
        CorrelationError: There is none, or it lacks what its type needs.
    """
    if len(rule.references) > MAX_REFERENCES:
        raise CorrelationError(f"{rule.title} ({rule.id}): more than {MAX_REFERENCES} references")
    everyone = (1 << len(rule.references)) - 1
    if rule.expression is not None:
        return _extended(rule)
    if rule.condition is None:
        if not rule.kind.startswith("temporal"):
            raise CorrelationError(f"{rule.title} ({rule.id}): {rule.kind} needs a condition")
        bounds: tuple[tuple[CorrelationOperator, float], ...] = (("gte", len(rule.references)),)
        counted: tuple[str, ...] = ()
    else:
        bounds, counted = rule.condition.bounds, rule.condition.fields
    if rule.kind.startswith("value_") and not counted:
        raise CorrelationError(f"{rule.title} ({rule.id}): {rule.kind} needs a field")
    lower = any(name in {"gt", "gte", "eq"} for name, _ in bounds)
    upper = tuple(("lte" if name == "eq" else name, bound) for name, bound in bounds if name in {"lt", "lte", "eq"})
    ranged = lower and bool(upper) and rule.kind in _GROWING
    return Judgement(
        window=_window(rule),
        holds=_all_hold(bounds),
        exceeds=_any_fails(upper) if ranged else None,
        at_close=any(name not in {"gt", "gte"} for name, _ in bounds),
        openers=everyone,
        numeric=rule.kind in _NUMERIC,
        counted=counted if rule.kind.startswith("value_") else (),
    )


def _extended(rule: CorrelationRule) -> Judgement:
    if not rule.kind.startswith("temporal") or rule.expression is None:
        raise CorrelationError(f"{rule.title} ({rule.id}): only temporal correlations may name rules in the condition")
    bits = {rule.names[reference]: 1 << place for place, reference in enumerate(rule.references)}
    expression = Expression(rule.expression, bits)
    terms = expression.terms() if rule.kind == "temporal_ordered" else ()
    return Judgement(
        window=(lambda: OrderedTerms(terms)) if rule.kind == "temporal_ordered" else lambda: Presence(expression),
        holds=lambda _value: True,
        exceeds=None,
        at_close=bool(expression.forbidden),
        openers=expression.needed,
        numeric=False,
        counted=(),
    )


def _window(rule: CorrelationRule) -> Callable[[], Window]:
    percentile = 50.0 if rule.condition is None or rule.condition.percentile is None else rule.condition.percentile
    if rule.kind == "value_percentile" and not 0 <= percentile <= 100:
        raise CorrelationError(f"{rule.title} ({rule.id}): percentile {percentile} is not within 0 and 100")
    makers: dict[str, Callable[[], Window]] = {
        "event_count": EventCount,
        "value_count": ValueCount,
        "value_sum": ValueSum,
        "value_avg": ValueAverage,
        "value_median": lambda: ValueRank(50),
        "value_percentile": lambda: ValueRank(percentile),
        "temporal": Presence,
        "temporal_ordered": lambda: Order(len(rule.references)),
    }
    return makers[rule.kind]


def _all_hold(bounds: tuple[tuple[CorrelationOperator, float], ...]) -> Callable[[float], bool]:
    compared = [(_COMPARE[name], bound) for name, bound in bounds]
    if len(compared) == 1:  # nearly every rule: asked once an event
        compare_one, only = compared[0]
        return lambda value: compare_one(value, only)
    return lambda value: all(compare(value, bound) for compare, bound in compared)


def _any_fails(bounds: tuple[tuple[CorrelationOperator, float], ...]) -> Callable[[float], bool]:
    holds = _all_hold(bounds)
    return lambda value: not holds(value)

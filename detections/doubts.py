"""What a rule says and its author most likely did not mean: `tocsin rules check` says it, loading does not look for it.

Each doubt is a `Remark`: the rule runs as written. Told are a detection that the condition does not use, a `timeframe`,
`contains: ''`, a rule that no event can make true, a count that every event reaches, and what `action: global` puts in
the place of a rule's own. A part that is only sometimes beside the point is none of these: a remark that is wrong
teaches its reader to pass over the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from sigma.modifiers import SigmaContainsModifier, SigmaEndswithModifier, SigmaStartswithModifier
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaDetections
from sigma.types import SigmaString

from detections.atoms import And, Atom, Expression, Not, Or, fold
from detections.compile import CompiledRule
from detections.condition import ConditionError, Named, Tree, parse_condition
from detections.correlation_load import satisfiable
from detections.correlation_rule import CorrelationOperator, CorrelationRule
from detections.documents import DocumentError, read_documents
from detections.filters import FilterRule
from detections.read_rule import label_of
from detections.rule import Remark, Rule, line_of

_OPPOSITE: Mapping[CorrelationOperator, CorrelationOperator] = {
    "gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt", "eq": "neq", "neq": "eq",
}  # fmt: skip
_PART_MODIFIERS = {
    SigmaContainsModifier: "contains",
    SigmaStartswithModifier: "startswith",
    SigmaEndswithModifier: "endswith",
}


def doubts_of_rule(rule: Rule, compiled: CompiledRule | None) -> Iterator[Remark]:
    """What is doubtful in a rule as it was loaded, and in what it compiled to, if it did."""

    def remark(reason: str, key: str) -> Remark:
        return Remark(rule.path, line_of(rule.lines, key), f"{rule.title} ({rule.id})", reason)

    if "detection.timeframe" in rule.lines:
        reason = "timeframe within detection does nothing: write a correlation with a timespan"
        yield remark(reason, "detection.timeframe")
    detections = rule.sigma.detection
    for name in unused(detections):
        yield remark(f"the condition does not use detection {name!r}", f"detection.{name}")
    for name, detection in detections.detections.items():
        for item in _items(detection):
            if (modifier := _empty_part(item)) is not None:
                reason = f"{name}: {item.field}|{modifier} of an empty text is true wherever the field exists"
                yield remark(reason, f"detection.{name}")
    if compiled is not None and (contradiction := never_true(compiled.expression)) is not None:
        yield remark(f"no event can make the rule true: {contradiction}", "detection.condition")


def doubts_of_filter(rule: FilterRule) -> Iterator[Remark]:
    """What is doubtful in a filter."""
    if "filter.timeframe" in rule.lines:
        yield rule.remark("timeframe within filter does nothing", "filter.timeframe")
    used = _names(rule.tree)
    for name in rule.detection.sigma.detection.detections:
        if name not in used:
            yield rule.remark(f"the condition does not use detection {name!r}", f"filter.{name}")


def doubts_of_correlation(rule: CorrelationRule) -> Iterator[Remark]:
    """What is doubtful in a correlation: a count is at least 1 where there is a group at all."""
    if rule.kind != "event_count" or rule.condition is None:
        return
    bounds = rule.condition.bounds
    if not any(satisfiable(((_OPPOSITE[operator], number),), whole=True) for operator, number in bounds):
        said = " and ".join(f"{operator} {number:g}" for operator, number in bounds)
        reason = f"{said} holds of every event by itself: a count is at least 1"
        yield Remark(rule.path, line_of(rule.lines, "correlation.condition"), f"{rule.title} ({rule.id})", reason)


def unused(detections: SigmaDetections) -> list[str]:
    """Detections that no condition uses; those that filters brought in are their filters' concern."""
    used: set[str] = set()
    names = detections.detections
    try:
        for condition in detections.parsed_condition:
            used |= _names(parse_condition(str(condition.condition), names))
    except ConditionError:  # refused, with its reason, where rules are compiled
        return []
    return [name for name in names if name not in used and not name.startswith("_filter_")]


def _names(tree: Tree) -> set[str]:
    return {tree.name} if isinstance(tree, Named) else {name for part in tree.parts for name in _names(part)}


def _items(detection: SigmaDetection) -> Iterator[SigmaDetectionItem]:
    for item in detection.detection_items:
        if isinstance(item, SigmaDetection):
            yield from _items(item)
        else:
            yield item


def _empty_part(item: SigmaDetectionItem) -> str | None:
    """The modifier that asks for a part of a field's text, where one of the parts is empty."""
    for modifier, name in _PART_MODIFIERS.items():
        if item.field is not None and modifier in item.modifiers:
            empty = any(isinstance(value, SigmaString) and not value.s for value in item.original_value or ())
            return name if empty else None
    return None


def never_true(expression: Expression) -> str | None:
    """Why no event makes an expression true, or None where one may; not every such reason is found."""
    if isinstance(expression, Or):
        reasons = [never_true(part) for part in expression.parts]
        return reasons[0] if all(reasons) else None
    if not isinstance(expression, And):
        return None
    known: dict[Atom, bool] = {}
    equal: dict[str, Atom] = {}
    for part in expression.parts:
        if isinstance(part, Atom):
            known[part] = True
            if part.operator == "eq" and part.field is not None:
                other = equal.setdefault(part.field, part)
                if _differ(other, part):
                    return f"{part.field} cannot be both {other.text!r} and {part.text!r}"
        elif isinstance(part, Not) and isinstance(part.part, Atom):
            known[part.part] = False
    parts = set(expression.parts)
    for part in expression.parts:
        if isinstance(part, Not) and (part.part in parts or fold(part.part, known.get) is True):
            return f"it asks for {_said(part.part)} and for the contrary"
        if isinstance(part, Or) and fold(part, known.get) is False:
            return f"it asks for {_said(part)} and for the contrary"
    return next((reason for part in expression.parts if (reason := never_true(part)) is not None), None)


def _differ(one: Atom, other: Atom) -> bool:
    return one.value != other.value and one.cased == other.cased


def _said(expression: Expression) -> str:
    """An expression in short: its first atom."""
    if isinstance(expression, Atom):
        return f"{expression.field or 'keyword'} {expression.operator} {expression.text or expression.value!r}".strip()
    if isinstance(expression, Not):
        return f"not {_said(expression.part)}"
    return str(expression) if isinstance(expression, bool) else f"{_said(expression.parts[0])} ..."


def doubts_of_files(paths: Iterable[Path]) -> Iterator[Remark]:
    """What `action: global` puts in the place of what a rule of its file says itself."""
    for path in paths:
        try:
            data = path.read_bytes()
            if b"global" not in data or b"action" not in data:
                continue
            documents = list(read_documents(data.decode("utf-8-sig")))
        except (OSError, UnicodeDecodeError, DocumentError):  # refused, with its reason, where files are loaded
            continue
        shared: Mapping[str, object] = {}
        for document in documents:
            content = {key: value for key, value in document.content.items() if key != "action"}
            action = document.content.get("action")
            if action in ("global", "reset"):
                shared = content if action == "global" else {}
            elif action is None and not content.keys() & {"correlation", "filter"}:
                for key, own, other in _overridden(content, shared):
                    reason = (
                        f"{key} {other!r} of the document with action: global stands in the place of its own {own!r}"
                    )
                    line = line_of(document.lines, key) or document.line
                    yield Remark(path, line, label_of(content) or "", reason)


def _overridden(
    own: Mapping[str, object], shared: Mapping[str, object], place: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Keys that both have, with another value: key, own value, shared one."""
    for key, value in own.items():
        other = shared.get(key, value)
        name = f"{place}{key}"
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _overridden(value, other, f"{name}.")
        elif other != value:
            yield name, value, other

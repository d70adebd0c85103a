"""Sigma detections to boolean expressions over atoms.

pySigma has parsed values and applied modifiers; what remains is to apply the pipeline, fill placeholders, turn each
value into an atom (`detections.comparisons`) and put them together as the conditions say. A rule that cannot be
expressed exactly is refused with a reason: a rule that runs but means something else is worse than one that is known
not to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from sigma.conditions import ConditionAND
from sigma.exceptions import SigmaError
from sigma.processing.pipeline import ProcessingPipeline
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaRule
from sigma.types import Placeholder, SigmaExpansion, SigmaRegularExpression, SigmaString, SigmaType

from detections.atoms import Atom, Expression, all_of, any_of, atoms_of, fold, negate, positive_atoms
from detections.comparisons import CompileError, compare_value, shortened
from detections.condition import ConditionError, Named, Tree, parse_condition
from detections.encodings import apply_modifiers, late_modifiers
from detections.pipelines import apply_pipeline
from detections.rule import Refusal, Rule

__all__ = ["CompileError", "CompiledRule", "Placeholders", "compile_detections", "compile_named", "compile_rule"]

Placeholders = Mapping[str, Sequence[str]]
"""Values for `%name%` under the `expand` modifier, as a rule would write them: `*` and `?` are wildcards."""

MAX_EXPANDED: Final = 100_000
"""Values that one value with placeholders may become: two of a thousand each are a million."""


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


def compile_rule(
    rule: Rule, placeholders: Placeholders | None = None, pipeline: ProcessingPipeline | None = None
) -> CompiledRule | Refusal:
    """Compile one rule.

    Args:
        rule: The rule, which stays as it is.
        placeholders: The values that `expand` needs.
        pipeline: Applied to a copy of the rule first. Where it changes the log source, so has the rule of the result.
    """
    if pipeline is not None:
        applied = apply_pipeline(rule, pipeline)
        if isinstance(applied, Refusal):
            return applied
        rule = applied
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
    if not detection.detection_items:
        raise CompileError("nothing is left of it once the pipeline has dropped its fields")
    parts = [
        _detection(item, placeholders) if isinstance(item, SigmaDetection) else _item(item, placeholders)
        for item in detection.detection_items
    ]
    return all_of(parts) if detection.item_linking is ConditionAND else any_of(parts)


def _item(item: SigmaDetectionItem, placeholders: Placeholders) -> Expression:
    """One `field|modifiers: values` line."""
    if not item.value:
        raise CompileError(f"{item.field or 'keywords'}: an empty list of values")
    parts = [_value(item, value, placeholders) for value in item.value]
    joined = all_of(parts) if item.value_linking is ConditionAND else any_of(parts)
    return negate(joined) if item.negated else joined


def _value(item: SigmaDetectionItem, value: SigmaType, placeholders: Placeholders) -> Expression:
    """One value of an item: what `expand` and the modifiers after it make of it."""
    if isinstance(value, SigmaExpansion):
        return any_of(_value(item, part, placeholders) for part in value.values)
    values: Sequence[SigmaType] = [value]
    try:
        if isinstance(value, SigmaString | SigmaRegularExpression) and value.contains_placeholder():
            values = _expand(value, placeholders)
        if late := late_modifiers(item):
            values = apply_modifiers(item, values, late)
    except SigmaError as error:
        raise CompileError(f"{item.field or 'keywords'}: {error}") from error
    return any_of(compare_value(item.field, part, item.modifiers) for part in values)


def _expand(
    value: SigmaString | SigmaRegularExpression, placeholders: Placeholders
) -> Sequence[SigmaString | SigmaRegularExpression]:
    """Put the values of placeholders in: read as a rule's values are, or, within a regex, as parts of it."""
    is_regex = isinstance(value, SigmaRegularExpression)
    text = value.regexp if isinstance(value, SigmaRegularExpression) else value
    names = [part.name for part in text.s if isinstance(part, Placeholder)]
    for name in names:
        if not placeholders.get(name):
            raise CompileError(f"placeholder %{name}% has no values here")
    if prod(len(placeholders[name]) for name in names) > MAX_EXPANDED:
        raise CompileError(f"placeholders {', '.join(names)} make more than {MAX_EXPANDED} values together")

    def values(placeholder: Placeholder) -> Iterator[SigmaString]:
        yield from (SigmaString(text, escape=not is_regex) for text in placeholders[placeholder.name])

    try:
        return value.replace_placeholders(values)
    except OverflowError as error:  # pySigma tries the regex with Python's `re`
        raise CompileError(f"regex with {', '.join(names)}: {error}") from error

r"""How a rule runs, as lines for its author: what is left of it once compiled, and what an event must have.

    and
      Image endswith '\whoami.exe'
      not
        User eq 'SYSTEM'

The tree is what the engine evaluates, not what the file says: modifiers are applied, wildcards have become the
comparison they mean, equal parts are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from detections.atoms import FIELD_OPERATORS, And, Atom, Expression, Not, atoms_of
from detections.compile import CompiledRule
from detections.condition import condition_text
from detections.correlation_rule import CorrelationOperator, CorrelationRule
from detections.fields_needed import needed_fields
from detections.keywords import through_keywords
from detections.necessary import has_literals, necessary_clause
from detections.render import RenderError, render

INDENT: Final = "  "

_SIGNS: Final[dict[CorrelationOperator, str]] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "eq": "=", "neq": "!="}


@dataclass(frozen=True, slots=True)
class PlanText:
    """How one rule runs.

    Attributes:
        tree: The compiled expression, a part a line, indented.
        needed: Groups of fields: of each group at least one must be there, or the rule cannot be true.
        keyword_only: Whether keywords alone can make it true; such a rule also sees lines that no format understood.
        slow: Why it runs row by row, or None.
        ungated: Whether it asks for nothing positive.
        clause: The cheapest comparisons of which one must be true; None if there are none.
        literals: Whether each of `clause` holds a text to look for.
        polars: The Polars expression, or None where `polars_refusal` says why there is none.
    """

    tree: tuple[str, ...]
    needed: tuple[tuple[str, ...], ...]
    keyword_only: bool
    slow: str | None
    ungated: bool
    clause: tuple[Atom, ...] | None
    literals: bool
    polars: str | None
    polars_refusal: str | None


def plan_text(compiled: CompiledRule) -> PlanText:
    """Describe how a compiled rule runs."""
    try:
        polars, refusal = render(compiled.expression), None
    except RenderError as error:
        polars, refusal = None, str(error)
    clause = necessary_clause(compiled.expression)
    return PlanText(
        tree=tuple(expression_lines(compiled.expression)),
        needed=needed_fields(compiled.expression),
        keyword_only=through_keywords(compiled.expression) is not False,
        slow=compiled.slow,
        ungated=compiled.ungated,
        clause=clause,
        literals=has_literals(clause),
        polars=polars,
        polars_refusal=refusal,
    )


def expression_lines(expression: Expression, depth: int = 0) -> Iterator[str]:
    """An expression as an indented tree."""
    pad = INDENT * depth
    if isinstance(expression, Atom):
        yield f"{pad}{atom_text(expression)}"
    elif isinstance(expression, bool):
        yield f"{pad}{str(expression).lower()}"
    elif isinstance(expression, Not):
        yield f"{pad}not"
        yield from expression_lines(expression.part, depth + 1)
    else:
        yield f"{pad}{'and' if isinstance(expression, And) else 'or'}"
        yield from _parts(expression.parts, depth + 1)


def _parts(parts: Sequence[Expression], depth: int) -> Iterator[str]:
    for part in parts:
        yield from expression_lines(part, depth)


def atom_text(atom: Atom) -> str:
    """One comparison: field, operator, value as the engine compares it, and how the column is read."""
    field = "keyword" if atom.field is None else atom.field
    if atom.operator in {"null", "exists"}:
        return f"{field} {atom.operator}"
    if atom.operator in FIELD_OPERATORS:
        read = "as they are" if atom.operator.endswith("_cased") else "in lower case"
        return f"{field} {atom.operator} {atom.value} (two columns, {read})"
    read = "lower case" if atom.lowered else "as it is"
    if atom.field is None:
        read = f"every text column and the raw line, {read}"
    return f"{field} {atom.operator} '{atom.value}' ({read})"


def correlation_condition(correlation: CorrelationRule) -> str:
    """What a correlation asks of a group, in one line."""
    parts = [] if correlation.expression is None else [condition_text(correlation.expression)]
    if correlation.condition is not None:
        condition = correlation.condition
        counted = correlation.kind if not condition.fields else f"{correlation.kind}({', '.join(condition.fields)})"
        if condition.percentile is not None:
            counted = f"{counted} at {condition.percentile:g} %"
        parts += [f"{counted} {_SIGNS[operator]} {number:g}" for operator, number in condition.bounds]
    return " and ".join(parts)


def columns_of(expression: Expression) -> tuple[str, ...]:
    """The columns a rule looks at, each once, in the order written."""
    return tuple(dict.fromkeys(field for atom in atoms_of(expression) for field in atom.fields))

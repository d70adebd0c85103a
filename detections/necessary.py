"""The cheapest necessary clause of a rule: a few comparisons of which at least one must be true wherever the rule is.

An engine that looks for the literals of that clause first need not look at a rule at all where none is found. Of a
conjunction any part will do, so the best one is taken; a disjunction needs all its parts; what a negation demands is
absence, which nothing can be looked for. Which clause is cheapest depends on the events; without any, a longer literal
is taken to be rarer than a short one.
"""

from __future__ import annotations

import re
from typing import Final

from detections.atoms import And, Atom, Expression, Operator, Or

NO_LITERAL: Final = 1.0
"""Cost of a comparison that holds no literal: any event may satisfy it."""

_LETTER_SHARE: Final = 0.5
"""By how much a further character of a literal is taken to thin out the events."""

_ANCHORED: Final[dict[Operator, float]] = {"eq": 0.1, "startswith": 0.5, "endswith": 0.5, "contains": 1.0}
"""How much rarer a literal is where its place is told."""

_VAGUE: Final[dict[Operator, float]] = {"cidr": 0.3, "lt": 0.5, "lte": 0.5, "gt": 0.5, "gte": 0.5}
"""Comparisons that hold no literal and still rule most events out."""

_WILDCARD: Final = re.compile(r"(?<!\\)[*?]")


def necessary_clause(expression: Expression) -> tuple[Atom, ...] | None:
    """The cheapest atoms of which one must be true; None if the expression can be true with none true at all."""
    if isinstance(expression, Atom):
        return None if expression.operator == "null" else (expression,)
    if isinstance(expression, And):
        clauses = [clause for part in expression.parts if (clause := necessary_clause(part)) is not None]
        return min(clauses, key=clause_cost, default=None)
    if isinstance(expression, Or):
        union: dict[Atom, None] = {}
        for part in expression.parts:
            clause = necessary_clause(part)
            if clause is None:
                return None
            union.update(dict.fromkeys(clause))
        return tuple(union)
    return None


def clause_cost(clause: tuple[Atom, ...]) -> float:
    """About the share of events that satisfy one of these; an estimate that only orders clauses."""
    return sum(_atom_cost(atom) for atom in clause)


def has_literals(clause: tuple[Atom, ...] | None) -> bool:
    """Whether each comparison of a clause holds a text that can be looked for."""
    return clause is not None and all(_literal(atom) for atom in clause)


def _literal(atom: Atom) -> str:
    """The longest text that must be in the value, or ""; regexes are not looked into."""
    if atom.operator in _ANCHORED:
        return atom.value
    if atom.operator == "like":
        return max(_WILDCARD.split(atom.text), key=len, default="")
    return ""


def _atom_cost(atom: Atom) -> float:
    literal = _literal(atom)
    if not literal:
        return _VAGUE.get(atom.operator, NO_LITERAL)
    return _ANCHORED.get(atom.operator, 1.0) * max(_LETTER_SHARE ** len(literal), 1e-9)

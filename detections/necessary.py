"""The clause of a rule in its own comparisons, for people: what must be true wherever the rule is.

It is chosen as the engine chooses its needles (`detections.needles`), where no events tell which are rare: a longer
text is taken to be rarer than a short one. A comparison without a text that could be sought stands for the dearest.
"""

from __future__ import annotations

from typing import Final

from detections.atoms import Atom, Expression
from detections.needles import cheapest_clause, clauses_of, prior

NO_LITERAL: Final = 1e6
"""Cost of a comparison without a text to look for: any number of texts is better."""

REGEX: Final = 1.0
"""Added for a regex, so that a plain text is shown rather."""


def necessary_clause(expression: Expression) -> tuple[Atom, ...] | None:
    """The cheapest atoms of which one must be true; None if the expression can be true with none true at all."""
    chosen = cheapest_clause(expression, lambda atom: None if atom.operator == "null" else (_cost(atom), atom))
    return None if chosen is None else chosen[1]


def clause_cost(clause: tuple[Atom, ...]) -> float:
    """About how often one of these is there in an event; an estimate that only orders clauses."""
    return sum(map(_cost, clause))


def has_literals(clause: tuple[Atom, ...] | None) -> bool:
    """Whether each comparison of a clause holds a text that the engine can look for."""
    return clause is not None and all(_cost(atom) < NO_LITERAL for atom in clause)


def _cost(atom: Atom) -> float:
    cost = min(map(prior, clauses_of(atom)), default=NO_LITERAL)
    # Where a regex is true says less of what has to be looked at than where a plain text is
    return cost + REGEX if atom.operator in {"re", "re_slow"} else cost

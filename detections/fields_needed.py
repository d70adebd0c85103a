"""Which fields a rule needs: partial evaluation with fields left out says without which ones it is false for ever.

A rule `A and (B or C)` needs `A`, and one of `B` and `C`: two groups, of each of which at least one field must be
there.
"""

from __future__ import annotations

from collections.abc import Collection

from detections.atoms import Atom, Expression, atoms_of, fold

FieldGroups = tuple[tuple[str, ...], ...]
"""Groups of fields; of each group at least one is needed."""


def needed_fields(expression: Expression) -> FieldGroups:
    """The fields without which an expression is false for every event.

    Every group is necessary. All of them together need not be sufficient: `(A and B) or (C and D)` needs one of A and
    C, and one of B and D, and is still false with A and D alone. Keywords need no field.
    """
    return missing_fields(expression, ())


def missing_fields(expression: Expression, present: Collection[str]) -> FieldGroups:
    """What is missing for an expression to have a chance: `()` if events with these fields may satisfy it.

    Args:
        expression: The rule.
        present: The fields there are, in lower case.
    """
    spellings = {field.lower(): field for atom in atoms_of(expression) for field in atom.fields}
    absent = [name for name in spellings if name not in present]
    groups: list[tuple[str, ...]] = []
    while absent and without_fields(expression, absent) is False:
        needed = list(absent)
        for name in reversed(absent):  # so that the field named first in the rule is named first here
            fewer = [other for other in needed if other != name]
            if without_fields(expression, fewer) is False:
                needed = fewer
        if not needed:
            break
        groups.append(tuple(spellings[name] for name in needed))
        absent = [name for name in absent if name not in needed]
    return tuple(groups)


def without_fields(expression: Expression, absent: Collection[str]) -> Expression:
    """What is left of an expression for events that do not have these fields (in lower case)."""
    gone = frozenset(absent)

    def decide(atom: Atom) -> bool | None:
        if not any(field.lower() in gone for field in atom.fields):
            return None
        return atom.operator == "null"

    return fold(expression, decide)

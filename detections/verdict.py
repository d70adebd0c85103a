"""Rules over masks: an expression and what is known of its atoms, to the rows for which it is true."""

from __future__ import annotations

from collections.abc import Mapping

from detections.atoms import And, Atom, Expression, Not
from detections.masks import Mask


def combine(expression: Expression, masks: Mapping[Atom, Mask]) -> Mask:
    """Evaluate an expression; `False` as soon as no row can satisfy it.

    Polars does not short-circuit `&`; here a conjunction stops at its first part that no row satisfies, which is
    where most rules end.
    """
    if isinstance(expression, bool):
        return expression
    if isinstance(expression, Atom):
        return masks[expression]
    if isinstance(expression, Not):
        part = combine(expression.part, masks)
        if isinstance(part, bool):
            return not part
        return _or_false(~part)
    if isinstance(expression, And):
        return _every(expression.parts, masks)
    return _some(expression.parts, masks)


def _every(parts: tuple[Expression, ...], masks: Mapping[Atom, Mask]) -> Mask:
    if any(isinstance(part, Atom) and masks[part] is False for part in parts):
        return False
    total: Mask = True
    for part in parts:
        mask = combine(part, masks)
        if mask is False:
            return False
        if mask is not True:
            total = mask if isinstance(total, bool) else _or_false(total & mask)
            if total is False:
                return False
    return total


def _some(parts: tuple[Expression, ...], masks: Mapping[Atom, Mask]) -> Mask:
    total: Mask = False
    for part in parts:
        mask = combine(part, masks)
        if mask is True:
            return True
        if mask is not False:
            total = mask if isinstance(total, bool) else total | mask
    return total


def _or_false(mask: Mask) -> Mask:
    return False if isinstance(mask, bool) or not mask.any() else mask

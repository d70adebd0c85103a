"""Expressions as plain lists, for files: a table of distinct atoms, and expressions over the places in it.

    atom        [field | null, operator, value, cased, text]
    expression  place of an atom | ["and", part, ...] | ["or", part, ...] | ["not", part]

Whatever is read is checked: what is no such list raises `CodecError`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, get_args

from detections.atoms import And, Atom, Expression, Not, Operator, Or

Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None
"""What JSON can say."""

MAX_DEPTH: Final = 300
"""Expressions within one another; a rule has at most `documents.MAX_NESTING`, and as many parentheses."""

_OPERATORS: Final[dict[str, Operator]] = {name: name for name in get_args(Operator)}


class CodecError(ValueError):
    """What was read is not what was written."""


class AtomTable:
    """Distinct atoms, numbered as they come. Those that differ in their author's text alone are kept apart."""

    def __init__(self) -> None:
        self.rows: list[Plain] = []
        self._places: dict[tuple[Atom, str], int] = {}

    def place(self, atom: Atom) -> int:
        """The place of an atom, which is added if it is new."""
        known = self._places.setdefault((atom, atom.text), len(self.rows))
        if known == len(self.rows):
            self.rows.append([atom.field, atom.operator, atom.value, atom.cased, atom.text])
        return known

    def encode(self, expression: Expression) -> Plain:
        """An expression over places in this table."""
        if isinstance(expression, Atom):
            return self.place(expression)
        if isinstance(expression, Not):
            return ["not", self.encode(expression.part)]
        if isinstance(expression, bool):
            raise CodecError("a rule that is always true, or never, is no rule")
        return ["and" if isinstance(expression, And) else "or", *map(self.encode, expression.parts)]


def decode_atoms(rows: Plain) -> list[Atom]:
    """The atoms of a table.

    Raises:
        CodecError: It is none.
    """
    if not isinstance(rows, list):
        raise CodecError("no table of atoms")
    try:
        return [_atom(*row) for row in rows]  # type: ignore[misc]  # what does not fit is caught
    except (TypeError, KeyError) as error:
        raise CodecError(f"not an atom: {error}") from error


def _atom(field: Plain, operator: str, value: Plain, cased: Plain, text: Plain) -> Atom:
    if type(value) is str and type(text) is str and type(cased) is bool and (field is None or type(field) is str):
        return Atom(field, _OPERATORS[operator], value, cased, text)
    raise CodecError("not an atom")


def decode_expression(plain: Plain, atoms: Sequence[Atom], depth: int = 0) -> Expression:
    """An expression over the atoms of a table.

    Raises:
        CodecError: It is none.
    """
    if type(plain) is int:
        return decode_atom(plain, atoms)
    if type(plain) is not list or len(plain) < 2 or depth > MAX_DEPTH:
        raise CodecError("not an expression")
    parts = [decode_expression(part, atoms, depth + 1) for part in plain[1:]]
    if plain[0] == "not" and len(parts) == 1:
        return Not(parts[0])
    if plain[0] not in ("and", "or") or len(parts) < 2:
        raise CodecError("not an expression")
    return And(tuple(parts)) if plain[0] == "and" else Or(tuple(parts))


def decode_atom(plain: Plain, atoms: Sequence[Atom]) -> Atom:
    """The atom at a place of a table.

    Raises:
        CodecError: There is none.
    """
    if type(plain) is not int or not 0 <= plain < len(atoms):
        raise CodecError("no such atom")
    return atoms[plain]

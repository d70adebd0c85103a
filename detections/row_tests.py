r"""Rules over single rows: an expression to a Python function that says of which rows it is true.

After needles have been sought, a rule is left with a handful of rows, too few for a query: these are gone through one
by one. Python code is written out and compiled once a rule: several times faster than walking the expression.
For `Image endswith \cmd.exe and not CommandLine contains foo` it reads

    def test(rows, c):
        c0, c1 = c
        return [r for r in rows if (c0[r].endswith('\\cmd.exe') and not ('foo' in c1[r]))]

What rules hold comes into the code only as literals that `repr` wrote, names only from the numbering here; nothing of a
rule can become code. Python's `in`, `startswith` and `==` on text mean what Polars' do. Operators that do not have an
exact twin (regexes, networks, numbers, time) are taken to speak for a match, in either polarity: the function then lets
through too many rows, never too few, and `RowTest.exact` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from detections.atoms import And, Atom, Expression, Not, Operator, Or

NOTHING: Final = "\ud800"
"""Stands for null in a column as a list: no text of an event can hold it, nor be held by it."""

KEYWORDS: Final = ""
"""The column in which keywords are sought: the text of all fields; no field has an empty name."""

EXACT: Final[frozenset[Operator]] = frozenset({"eq", "contains", "startswith", "endswith", "null", "exists"})
"""Operators that mean the same here as over columns."""

_UNROLLED: Final = 12
"""Texts sought one by one in the code; more are gone through by a loop in C."""

Column: TypeAlias = tuple[str, bool]
"""Field in lower case (or `KEYWORDS`), and whether its values are as they came; else in lower case."""

Values: TypeAlias = Sequence[str]


@dataclass(frozen=True, slots=True)
class RowTest:
    """A compiled expression.

    Attributes:
        columns: What the function takes, in this order.
        exact: Whether every row it lets through is one for which the expression is true.
        run: (rows, columns as lists) -> rows for which the expression may be true, in the same order.
    """

    columns: tuple[Column, ...]
    exact: bool
    run: Callable[[Sequence[int], Sequence[Values]], list[int]]


def row_test(expression: Expression) -> RowTest:
    """Compile an expression; of one that nests too deep for Python's parser, every row may match."""
    writer = _Writer()
    try:
        condition = writer.condition(expression, wanted=True)
        return RowTest(tuple(writer.columns), writer.exact, _compiled(condition, len(writer.columns)))
    except (SyntaxError, RecursionError, MemoryError):
        return RowTest((), exact=False, run=lambda rows, _: list(rows))


def decidable(atom: Atom) -> bool:
    """Whether row tests decide an atom exactly."""
    if atom.operator not in EXACT:
        return False
    # Fields are joined by NUL for keywords: one that holds it could be found across two of them
    return atom.field is not None or (atom.operator == "contains" and "\x00" not in atom.value)


def column_of(atom: Atom) -> Column:
    """The column an atom looks at."""
    return (KEYWORDS if atom.field is None else atom.field.lower(), atom.cased)


def _compiled(condition: str, columns: int) -> Callable[[Sequence[int], Sequence[Values]], list[int]]:
    names = "".join(f"c{place}, " for place in range(columns))
    unpack = f"    {names[:-1]} = c\n" if columns else ""
    code = f"def test(rows, c):\n{unpack}    return [r for r in rows if {condition}]\n"
    space: dict[str, Callable[[Sequence[int], Sequence[Values]], list[int]]] = {}
    exec(compile(code, "<rule>", "exec"), {"__builtins__": {"any": any, "map": map}}, space)  # noqa: S102 - see above
    return space["test"]


class _Writer:
    """Writes conditions, numbering the columns they name."""

    def __init__(self) -> None:
        self.columns: dict[Column, int] = {}
        self.exact = True

    def condition(self, expression: Expression, *, wanted: bool) -> str:
        """Code that is true where the expression is; or where it may be `wanted`, as far as it cannot be told."""
        if isinstance(expression, bool):
            return str(expression)
        if isinstance(expression, Atom):
            if decidable(expression):
                return self._test(expression.operator, column_of(expression), [expression.value])
            self.exact = False
            return str(wanted)
        if isinstance(expression, Not):
            return f"(not {self.condition(expression.part, wanted=not wanted)})"
        if isinstance(expression, And):
            # What is refused is most often refused by what is asked for, not by what is excepted
            parts = sorted(expression.parts, key=lambda part: isinstance(part, Not))
            return f"({' and '.join(self.condition(part, wanted=wanted) for part in parts)})"
        return self._alternatives(expression, wanted=wanted)

    def _alternatives(self, expression: Or, *, wanted: bool) -> str:
        """A disjunction, with the plain texts of one column put together."""
        groups: dict[tuple[Operator, Column], list[str]] = {}
        others: list[Expression] = []
        for part in expression.parts:
            if isinstance(part, Atom) and decidable(part):
                groups.setdefault((part.operator, column_of(part)), []).append(part.value)
            else:
                others.append(part)
        codes = [self._test(operator, column, values) for (operator, column), values in groups.items()]
        codes += [self.condition(part, wanted=wanted) for part in others]
        return f"({' or '.join(codes)})"

    def _test(self, operator: Operator, column: Column, values: list[str]) -> str:
        """Whether a column's value stands in this relation to any of some texts."""
        value = f"c{self.columns.setdefault(column, len(self.columns))}[r]"
        if operator == "null":
            return f"({value} == {NOTHING!r})"
        if operator == "exists":
            return f"({value} != {NOTHING!r})"
        if operator == "eq":
            return f"({value} == {values[0]!r})" if len(values) == 1 else f"({value} in {{{_listed(values)}}})"
        if operator in {"startswith", "endswith"}:
            return f"{value}.{operator}(({_listed(values)},))" if _filled(values) else f"({value} != {NOTHING!r})"
        if not _filled(values):
            return f"({value} != {NOTHING!r})"  # the empty text is in every text, and not in null
        if len(values) <= _UNROLLED:
            return f"({' or '.join(f'{text!r} in {value}' for text in values)})"
        return f"any(map({value}.__contains__, ({_listed(values)},)))"


def _listed(values: list[str]) -> str:
    return ", ".join(map(repr, values))


def _filled(values: list[str]) -> bool:
    return all(values)

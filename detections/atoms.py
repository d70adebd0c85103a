"""Boolean expressions over atoms: what a rule says, free of YAML and of pySigma.

An `Atom` is one comparison of one field (or, for a keyword, of the whole event) with one value. Atoms are hashable and
carry no trace of their rule, so that the same comparison in many rules is one atom and is evaluated once. `True` and
`False` are expressions too; the constructors below fold them away.

The logic is two-valued: a field that is missing or null makes every atom on it false, except `null` itself. `not` of
such an atom is therefore true. (SQL's third value would make `not` of a missing field unknown, and silence the rule.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import polars as pl

Operator: TypeAlias = Literal[
    "eq", "contains", "startswith", "endswith",  # plain text
    "like",  # text with wildcards inside: `value` is the Rust regex it stands for
    "re",  # a rule's own regex, Rust syntax, flags inline
    "re_slow",  # a rule's own regex that only an engine which backtracks runs
    "cidr", "lt", "lte", "gt", "gte",
    "null", "exists",
    "field_eq", "field_contains", "field_startswith", "field_endswith",  # `value` names another field
    "field_eq_cased", "field_contains_cased", "field_startswith_cased", "field_endswith_cased",
    # a part of the time that the value is, against a number: `value` is such as "hour 18"
    "time_eq", "time_lt", "time_lte", "time_gt", "time_gte",
]  # fmt: skip
"""What an atom asks of a value."""

LOWERED: Final = frozenset({"eq", "contains", "startswith", "endswith", "like"})
"""Operators that, unless cased, look at the lower-cased value."""

FINAL_SIGMA: Final = "ς"
SIGMA: Final = "σ"

FIELD_OPERATORS: Final[frozenset[Operator]] = frozenset(
    {
        *("field_eq", "field_contains", "field_startswith", "field_endswith"),
        *("field_eq_cased", "field_contains_cased", "field_startswith_cased", "field_endswith_cased"),
    }
)
"""Operators whose `value` names another field; without regard to case unless `_cased`."""

TIME_OPERATORS: Final[frozenset[Operator]] = frozenset({"time_eq", "time_lt", "time_lte", "time_gt", "time_gte"})
"""Operators on a part of a time (`detections.times`); their `value` is the part's name, a space and a number."""


@dataclass(frozen=True, slots=True)
class Atom:
    """One comparison.

    Attributes:
        field: Field as the rule names it; None for a keyword, which any String field or the raw line may satisfy.
        operator: What is asked.
        value: Text, regex, network, number or field name, as the operator wants it; already in lower case if `lowered`.
        cased: Whether case counts.
        text: The value as the rule's author wrote it, for people; no part of the atom's identity.
    """

    field: str | None
    operator: Operator
    value: str
    cased: bool = False
    text: str = dataclasses.field(default="", compare=False)

    @property
    def lowered(self) -> bool:
        """Whether the atom looks at lower-cased values."""
        return self.operator in LOWERED and not self.cased

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields the atom looks at: none for a keyword, two for a comparison of fields."""
        if self.field is None:
            return ()
        return (self.field, self.value) if self.operator in FIELD_OPERATORS else (self.field,)


@dataclass(frozen=True, slots=True)
class And:
    """True if every part is."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True if any part is."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True if its part is not."""

    part: Expression


Expression: TypeAlias = And | Or | Not | Atom | bool
"""What a rule says of an event."""


def all_of(parts: Iterable[Expression]) -> Expression:
    """Conjunction, flattened, each part once, constants folded."""
    kept: dict[Expression, None] = {}
    for part in parts:
        if part is False:
            return False
        if isinstance(part, And):
            kept.update(dict.fromkeys(part.parts))
        elif part is not True:
            kept[part] = None
    if not kept:
        return True
    return next(iter(kept)) if len(kept) == 1 else And(tuple(kept))


def any_of(parts: Iterable[Expression]) -> Expression:
    """Disjunction, flattened, each part once, constants folded."""
    kept: dict[Expression, None] = {}
    for part in parts:
        if part is True:
            return True
        if isinstance(part, Or):
            kept.update(dict.fromkeys(part.parts))
        elif part is not False:
            kept[part] = None
    if not kept:
        return False
    return next(iter(kept)) if len(kept) == 1 else Or(tuple(kept))


def negate(part: Expression) -> Expression:
    """Negation; of a negation, what it negates."""
    if isinstance(part, bool):
        return not part
    return part.part if isinstance(part, Not) else Not(part)


def fold(expression: Expression, decide: Callable[[Atom], bool | None]) -> Expression:
    """Partially evaluate: put in what `decide` knows of each atom (None: nothing yet) and simplify.

    Parts that do not change are kept as they are, so that a fold that decides nothing allocates nothing.
    """
    if isinstance(expression, Atom):
        known = decide(expression)
        return expression if known is None else known
    if isinstance(expression, bool):
        return expression
    if isinstance(expression, Not):
        part = fold(expression.part, decide)
        return expression if part is expression.part else negate(part)
    parts = [fold(part, decide) for part in expression.parts]
    if all(new is old for new, old in zip(parts, expression.parts, strict=True)):
        return expression
    return all_of(parts) if isinstance(expression, And) else any_of(parts)


def atoms_of(expression: Expression) -> Iterator[Atom]:
    """Every atom, in the order written; one that occurs twice comes twice."""
    if isinstance(expression, Atom):
        yield expression
    elif isinstance(expression, Not):
        yield from atoms_of(expression.part)
    elif not isinstance(expression, bool):
        for part in expression.parts:
            yield from atoms_of(part)


def positive_atoms(expression: Expression, negated: bool = False) -> Iterator[Atom]:
    """The atoms whose truth speaks for a match: those under an even number of negations."""
    if isinstance(expression, Atom):
        if not negated:
            yield expression
    elif isinstance(expression, Not):
        yield from positive_atoms(expression.part, not negated)
    elif not isinstance(expression, bool):
        for part in expression.parts:
            yield from positive_atoms(part, negated)


def lower_case(text: str) -> str:
    """Lower-case as Polars lower-cases columns: both sides of a comparison must be folded by one function."""
    if text.isascii():
        return text.lower()
    return "".join(map(_lower_letter, text))


@lru_cache(maxsize=8192)
def _lower_letter(letter: str) -> str:
    # Letter by letter is the same as the whole: only a sigma's form depends on its neighbours, and one form is kept
    lowered: str = lower_column(pl.Series([letter]))[0]
    return lowered


def lower_column(values: pl.Series) -> pl.Series:
    """A text column in lower case.

    Unicode lowers a sigma at the end of a word to `ς`, elsewhere to `σ`: a part of a word would not be found in the
    whole. Both are the same letter, so the final form is not kept.
    """
    return values.str.to_lowercase().str.replace_all(FINAL_SIGMA, SIGMA, literal=True)

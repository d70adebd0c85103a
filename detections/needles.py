r"""What a rule cannot do without: for each rule, texts of which one must be there before the rule can be true.

Most rules are false for most events, and finding that out atom by atom is nearly all the work there is. So for each
rule one *clause* is chosen: needles (a short text in a field) of which at least one is in every event that the rule
is true for. An event with none of a rule's needles needs no further look. Which clause is best depends on the events
(`\powershell.exe` is rare in a hospital and everywhere in a lab), so candidates are weighed by how often their needles
occur in a sample.

Needles are in lower case and are sought without regard to case. A few letters beyond ASCII are ASCII ones in another
case (`WIDE_LETTERS`): a value that holds one of them counts as holding every needle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from detections.atoms import And, Atom, Expression, Not, Operator, Or, lower_case
from detections.regex_texts import regex_texts

WIDE_LETTERS: Final = ("\u212a", "\u0130", "\u017f")
"""Kelvin sign and I with a dot: in lower case `k`, and `i` with a combining dot (Unicode SpecialCasing). And the long
s, which meets `s` in a regex that does not mind case (Unicode CaseFolding)."""

LONGEST: Final = 24
"""Characters of a needle: a longer one is no rarer, and dearer to compile."""

LONGEST_BEYOND_ASCII: Final = 4
"""Characters of a needle with letters beyond ASCII: each has two spellings, and a hundred such cost a second."""

ENOUGH_ASCII: Final = 4
"""Characters of ASCII in a text that are needle enough."""

EDGE: Final = "\x00"
"""Stands before and after every value where needles are sought: what begins or ends with it is anchored."""

MOST_NEEDLES: Final = 4096
"""Needles of one clause; a rule of more alternatives (ten thousand hashes) is decided by the plain engine."""

PRIOR: Final = 0.02
"""How often a needle of one character is taken to occur in a value of which nothing is known; halved by each more."""


@dataclass(frozen=True, slots=True)
class Needle:
    """A text that must be somewhere in a field.

    Attributes:
        field: In lower case; None: anywhere in the event, as keywords are sought.
        text: In lower case (`atoms.lower_case`), with `EDGE` where it must begin or end the value.
    """

    field: str | None
    text: str


Clause = tuple[Needle, ...]
"""Needles of which one must be there."""

Frequency = Callable[[Needle], float]
"""How many times a needle is expected in an event."""


T = TypeVar("T")

Price = Callable[[Atom], tuple[float, T] | None]
"""What an atom costs as the part of a clause, and what stands for it there; None if it can be in none."""


def choose_clause(expression: Expression, frequency: Frequency) -> tuple[float, Clause] | None:
    """The clause of a rule that lets through the fewest events, and how many it is expected to; None if it has none."""

    def price(atom: Atom) -> tuple[float, Needle] | None:
        return min(
            ((frequency(needle), needle) for needle in clauses_of(atom)), default=None, key=lambda found: found[0]
        )

    return cheapest_clause(expression, price)


def cheapest_clause(expression: Expression, price: Price[T]) -> tuple[float, tuple[T, ...]] | None:
    """The cheapest set of parts of which one is there wherever the expression is true, and its cost; None if none is.

    Of a conjunction any part will do, so the best is taken; a disjunction needs all its parts; a negation asks for
    absence, which nothing can be looked for.
    """
    if isinstance(expression, Atom):
        priced = price(expression)
        return None if priced is None else (priced[0], (priced[1],))
    if isinstance(expression, bool | Not):
        return None
    if isinstance(expression, And):
        found = (cheapest_clause(part, price) for part in expression.parts)
        return min((clause for clause in found if clause), default=None, key=lambda found: (found[0], len(found[1])))
    return _union(expression, price)


def _union(expression: Or, price: Price[T]) -> tuple[float, tuple[T, ...]] | None:
    """A clause for each alternative, put together; None if one of them has none."""
    cost = 0.0
    parts: dict[T, None] = {}
    for part in expression.parts:
        chosen = cheapest_clause(part, price)
        if chosen is None:
            return None
        cost += chosen[0]
        parts.update(dict.fromkeys(chosen[1]))
        if len(parts) > MOST_NEEDLES:
            return None
    return cost, tuple(parts)


def clauses_of(atom: Atom) -> Iterator[Needle]:
    """Needles of which each must be there for an atom to be true; none if there is no text it cannot do without."""
    texts = _TEXTS.get(atom.operator)
    for text in () if texts is None else texts(atom.value):
        text = text if atom.lowered else lower_case(text)
        # Keywords stand anywhere in a value, and regexes are not read for their anchors
        needle = _trimmed(text if atom.field is not None else text.strip(EDGE))
        if needle.strip(EDGE):
            yield Needle(None if atom.field is None else atom.field.lower(), needle)


def _trimmed(text: str) -> str:
    """A part of a text that is not too long, at its anchored end if it has one."""
    longest = LONGEST
    if not text.isascii():
        run = max(re.findall(r"[\x00-\x7f]+", text), key=len, default="")
        if len(run.strip(EDGE)) >= ENOUGH_ASCII:
            text = run
        else:
            longest = LONGEST_BEYOND_ASCII
    if len(text) <= longest:
        return text
    return text[-longest:] if text.endswith(EDGE) and not text.startswith(EDGE) else text[:longest]


def wildcard_texts(pattern: str) -> list[str]:
    r"""The plain texts in the regex of a text with wildcards (`detections.compile`), anchored where they are.

    `\A(?s:ab.*c\.d)\z` gives `\0ab` and `c.d\0`.
    """
    start, end = pattern.startswith(r"\A"), pattern.endswith(r")\z")
    inner = pattern.removeprefix(r"\A").removesuffix(r"\z").removeprefix("(?s:").removesuffix(")")
    texts = [""]
    for token in re.findall(r"\\.|\.\*|.", inner, re.DOTALL):
        if token in {".", ".*"}:
            texts.append("")
        else:
            texts[-1] += token.removeprefix("\\") if len(token) == 2 else token
    if start:
        texts[0] = EDGE + texts[0]
    if end:
        texts[-1] += EDGE
    return [text for text in texts if text.strip(EDGE)]


_TEXTS: Final[Mapping[Operator, Callable[[str], Iterable[str]]]] = {
    "eq": lambda value: [f"{EDGE}{value}{EDGE}"],
    "contains": lambda value: [value],
    "startswith": lambda value: [EDGE + value],
    "endswith": lambda value: [value + EDGE],
    "like": wildcard_texts,
    "re": regex_texts,
    "re_slow": regex_texts,
}
"""Operator -> the texts that a value must hold for it."""


def prior(needle: Needle) -> float:
    """How often to expect a needle of which no sample tells."""
    return PRIOR * 0.5 ** len(needle.text)

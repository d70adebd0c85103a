"""Keywords on lines that no format understood.

Nothing is known of such a line, so every rule that a keyword alone makes true may meet it, whatever its log source. But
a short bare word proves little there: `aaa` is in a binary, a TLS hello or somebody's CSV by accident, and would wake
the analyst for a router nobody has. A rule is therefore heard only through a telling keyword: of at least
`TELLING_LENGTH` characters, or with one that is neither a letter nor a digit.
"""

from __future__ import annotations

import re
from typing import Final

from detections.atoms import And, Atom, Expression, Or, all_of, any_of, fold

TELLING_LENGTH: Final = 5
"""Letters and digits from which a word says something about a line of unknown origin."""

_WILDCARDS: Final = re.compile(r"(?<!\\)[*?]")


def telling(atom: Atom) -> bool:
    """Whether a keyword says something about a line of unknown origin; a regex is taken to."""
    if atom.field is not None:
        return False
    if atom.operator in {"re", "re_slow"}:
        return True
    word = _WILDCARDS.sub("", atom.text) if atom.operator == "like" else atom.value
    return len(word) >= TELLING_LENGTH or any(not char.isalnum() for char in word)


def through_keywords(expression: Expression) -> Expression:
    """What is left of a rule for a line whose fields nobody knows; False unless it then needs a telling keyword."""
    return _told(fold(expression, lambda atom: None if atom.field is None else atom.operator == "null"))


def _told(expression: Expression) -> Expression:
    """The part of an expression over keywords that is true only where a telling one is found."""
    if fold(expression, lambda atom: False if telling(atom) else None) is False:
        return expression
    if isinstance(expression, Or):
        return any_of(_told(part) for part in expression.parts)
    if isinstance(expression, And):
        parts = expression.parts
        return any_of(all_of((*parts[:at], _told(part), *parts[at + 1 :])) for at, part in enumerate(parts))
    return False

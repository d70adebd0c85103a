"""What a rule says of itself, for the analyst who meets its alert.

An alert carries the rule's title and what matched. What it means, what else looks the same and where to read on stand
in the rule (Sigma specification: `description`, `falsepositives`, `references`). The composition, which has the rules,
supplies them by rule id; an alert outlives its rule, so there may be nothing to show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from console.visible import hidden


@dataclass(frozen=True, slots=True)
class RuleText:
    """The parts of a rule that are written for people.

    Attributes:
        description: What it means when the rule fires.
        falsepositives: What else makes it fire.
        references: Where to read on; mostly addresses, but a rule may hold any text.
        source: The rule as it was written, in YAML.
    """

    description: str
    falsepositives: tuple[str, ...]
    references: tuple[str, ...]
    source: str


Rules = Callable[[str], RuleText | None]
"""Rule id -> its text, or None where the rule is not known; asked at each alert page, so it answers from memory."""


def linkable(reference: str) -> bool:
    """Whether a reference may be a link: http or https to some host, and nothing in it that cannot be seen."""
    if any(character.isspace() or hidden(character) for character in reference):
        return False
    try:
        address = urlsplit(reference)
    except ValueError:  # e.g. half an IPv6 address
        return False
    return address.scheme in ("http", "https") and bool(address.hostname)

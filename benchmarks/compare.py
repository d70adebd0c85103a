"""What two engines found in the same file: the same pairs of a rule and a line, or not.

Counts that agree may hide matches that do not, so the pairs themselves are compared, and every pair that only one
engine has gets a reason (`benchmarks.differences`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple


class Match(NamedTuple):
    """A rule matched a line: the rule's id, and the number of the line from 1."""

    rule: str
    line: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Matches of one rule that only one engine has, for one reason.

    Attributes:
        rule: Its id.
        only: Which engine has them.
        count: How many.
        line: The first of them.
        reason: Why the other has not.
    """

    rule: str
    only: str
    count: int
    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many matches two engines share, and what each has alone."""

    tocsin: int
    rsigma: int
    both: int
    differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """Whether there is no difference at all."""
        return self.tocsin == self.rsigma == self.both


def compared(tocsin: AbstractSet[Match], rsigma: AbstractSet[Match], reasons: Mapping[Match, str]) -> Comparison:
    """The comparison of two sets.

    Args:
        tocsin: What Tocsin found.
        rsigma: What RSigma found.
        reasons: Match that only one has -> why.
    """
    differences: list[Difference] = []
    for only, matches in (("Tocsin", tocsin - rsigma), ("RSigma", rsigma - tocsin)):
        grouped = Counter((match.rule, reasons.get(match, "not explained")) for match in matches)
        for (rule, reason), count in sorted(grouped.items(), key=lambda item: (-item[1], item[0])):
            line = min(m.line for m in matches if m.rule == rule and reasons.get(m, "not explained") == reason)
            differences.append(Difference(rule, only, count, line, reason))
    return Comparison(len(tocsin), len(rsigma), len(tocsin & rsigma), tuple(differences))


def counts_compared(tocsin: Mapping[str, int], rsigma: Mapping[str, int]) -> list[dict[str, object]]:
    """Rule id and the count of each engine, for what names no single line: correlations."""
    rules = sorted(set(tocsin) | set(rsigma))
    return [{"rule": rule, "tocsin": tocsin.get(rule, 0), "rsigma": rsigma.get(rule, 0)} for rule in rules]

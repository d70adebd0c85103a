"""Rules as loaded, and what could not be loaded: plain values that every later step reads.

A rule set is never refused for one bad rule: what is wrong becomes a `Refusal` that names file, line, rule and reason,
and the others run. What Sigma knows and this engine does not run yet (correlations, filters) is kept apart from what
is broken, because an author has nothing to mend there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sigma.rule import SigmaRule

from ingest.logsource import LogSource


class RuleError(Exception):
    """Root of what the rule stage raises; a broken rule is a `Refusal`, not an exception."""


class RulePathError(RuleError):
    """A path of rules does not exist or cannot be listed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule, or a file, that does not run, and why.

    Attributes:
        path: The file.
        line: Line of the fault, from 1, or None where it is the whole file.
        rule: Id or title of the rule, or None where the file could not be read so far.
        reason: One sentence for its author.
    """

    path: Path
    line: int | None
    rule: str | None
    reason: str

    def __str__(self) -> str:
        """`file:line: rule: reason`, as compilers write it."""
        place = str(self.path) if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.reason}" if self.rule is None else f"{place}: {self.rule}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One Sigma rule.

    Attributes:
        id: The rule's UUID; of a rule without one, a UUID made from its title.
        level: informational, low, medium, high or critical; "medium" where the rule says none.
        status: stable, test, experimental, deprecated, unsupported, or "" where the rule says none.
        tags: As written, such as `attack.t1003.001`.
        path: The file it came from.
        digest: SHA-256 of the rule's content, without regard to layout and comments.
        sigma: The rule as pySigma parsed it.
        lines: Line of each top-level key, and of each detection as `detection.NAME`.
    """

    id: str
    title: str
    level: str
    status: str
    tags: tuple[str, ...]
    logsource: LogSource
    path: Path
    digest: str
    sigma: SigmaRule = field(repr=False, compare=False)
    lines: Mapping[str, int] = field(repr=False, compare=False)

    def refuse(self, reason: str, key: str = "detection") -> Refusal:
        """Refuse this rule, pointing at the line of `key` (`condition` stands below `detection`)."""
        line = self.lines.get(key, self.lines.get("detection"))
        return Refusal(self.path, line, f"{self.title} ({self.id})", reason)


@dataclass(frozen=True, slots=True)
class RulePack:
    """What a set of rule files holds.

    Attributes:
        rules: In the order of their paths, then of their place in the file.
        refused: What is broken.
        unsupported: What is right, but is not run here yet.
    """

    rules: tuple[Rule, ...]
    refused: tuple[Refusal, ...]
    unsupported: tuple[Refusal, ...]

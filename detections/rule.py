"""Rules as loaded, and what could not be loaded: plain values that every later step reads.

A rule set is never refused for one bad rule: what is wrong becomes a `Refusal` that names file, line, rule and reason,
and the others run. What runs and yet may not do what its author thinks is a `Remark`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sigma.rule import SigmaRule

from ingest.logsource import LogSource

if TYPE_CHECKING:
    from detections.correlation_rule import CorrelationRule
    from detections.filters import FilterRule


class RuleError(Exception):
    """Root of what the rule stage raises; a broken rule is a `Refusal`, not an exception."""


class RulePathError(RuleError):
    """A path of rules does not exist or cannot be listed."""


class RuleChangedError(RuleError):
    """The file of a rule is no longer what it was when the rule was loaded, and more of it was asked for."""


class RuleContentError(RuleError):
    """One document is no rule, correlation or filter; whoever reads it makes a `Refusal` of this.

    Attributes:
        key: The part at fault, as in `Rule.lines`.
    """

    def __init__(self, reason: str, key: str) -> None:
        super().__init__(reason)
        self.key = key


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
        return _located(self.path, self.line, self.rule, self.reason)


@dataclass(frozen=True, slots=True)
class Remark:
    """What the author of a rule, correlation or filter that runs should know; attributes as those of `Refusal`."""

    path: Path
    line: int | None
    rule: str
    reason: str

    def __str__(self) -> str:
        """`file:line: rule: reason`, as compilers write it."""
        return _located(self.path, self.line, self.rule, self.reason)


def _located(path: Path, line: int | None, rule: str | None, reason: str) -> str:
    place = str(path) if line is None else f"{path}:{line}"
    return f"{place}: {reason}" if rule is None else f"{place}: {rule}: {reason}"


def line_of(lines: Mapping[str, int], key: str) -> int | None:
    """The line of a part such as `correlation.rules.0`, or of the closest part around it that has one."""
    while key not in lines and "." in key:
        key = key.rpartition(".")[0]
    return lines.get(key)


class ParsedLater(Protocol):
    """What gives a rule as pySigma parses it when that is asked for: most rules run without."""

    @property
    def readable(self) -> bool:
        """Whether each condition of the rule can be read by itself."""

    def __call__(self) -> SigmaRule:
        """See `Rule.sigma`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One Sigma rule.

    Attributes:
        id: The rule's UUID, or the text that it has in its place; of a rule without one, a UUID made from its title.
        level: informational, low, medium, high or critical; "medium" where the rule says none.
        status: stable, test, experimental, deprecated, unsupported, or "" where the rule says none.
        tags: As written, such as `attack.t1003.001`.
        path: The file it came from.
        digest: SHA-256 of the rule's content, and of that of its filters, without regard to layout and comments.
        parsed: The rule as pySigma parsed it, or what gives that when it is asked for.
        lines: Line of each top-level key, and of each detection as `detection.NAME`.
        name: The name under which correlations and filters may refer to it.
        filters: Titles of the filters applied to it.
    """

    id: str
    title: str
    level: str
    status: str
    tags: tuple[str, ...]
    logsource: LogSource
    path: Path
    digest: str
    parsed: SigmaRule | ParsedLater = field(repr=False, compare=False)
    lines: Mapping[str, int] = field(repr=False, compare=False)
    name: str | None = None
    filters: tuple[str, ...] = ()

    @property
    def sigma(self) -> SigmaRule:
        """The rule as pySigma parsed it; its filters are in its detections and condition.

        Raises:
            RuleChangedError: It has to be read again, and its file has changed or gone since.
        """
        return self.parsed if isinstance(self.parsed, SigmaRule) else self.parsed()

    def refuse(self, reason: str, key: str = "detection") -> Refusal:
        """Refuse this rule, pointing at the line of `key` (`condition` stands below `detection`)."""
        line = self.lines.get(key, self.lines.get("detection"))
        return Refusal(self.path, line, f"{self.title} ({self.id})", reason)


@dataclass(frozen=True, slots=True)
class RulePack:
    """What a set of rule files holds.

    Attributes:
        rules: In the order of their paths, then of their place in the file; filters are applied.
        refused: What is broken.
        unsupported: What is right, but is not run here; empty, since all of the language is.
        correlations: Each after those it refers to.
        filters: In the order of their paths.
        remarks: What runs, and may not do what its author thinks.
    """

    rules: tuple[Rule, ...]
    refused: tuple[Refusal, ...]
    unsupported: tuple[Refusal, ...]
    correlations: tuple[CorrelationRule, ...] = ()
    filters: tuple[FilterRule, ...] = ()
    remarks: tuple[Remark, ...] = ()

"""Check a rule set: what would run, what would not, and what an author should know before it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detections.compile import CompiledRule, Placeholders
from detections.load import load_rules
from detections.plan import Plan
from detections.reach import Unreached, unreached
from detections.rule import Refusal


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `tocsin rules check` says.

    Attributes:
        running: Rules that load and compile.
        refused: Broken files and rules that do not compile, with file, line and reason.
        unsupported: Correlations and filters, which are not run here.
        ungated: Rules that ask for nothing positive: each event of their log source may match.
        slow: Rules with a part that runs row by row (`CompiledRule.slow` says why).
        unreached: Rules of log sources that no format gives, in groups.
    """

    running: int
    refused: tuple[Refusal, ...]
    unsupported: tuple[Refusal, ...]
    ungated: tuple[CompiledRule, ...]
    slow: tuple[CompiledRule, ...]
    unreached: tuple[Unreached, ...]

    @property
    def unreachable(self) -> int:
        """How many rules run on what no format gives."""
        return sum(len(group.rules) for group in self.unreached)

    @property
    def ok(self) -> bool:
        """Whether every rule that can run here does."""
        return not self.refused

    def lines(self) -> list[str]:
        """The report as text, a finding a line, the counts last."""
        remarks = [
            *(f"{refusal}" for refusal in self.refused),
            *(f"{refusal}" for refusal in self.unsupported),
            *(f"{item.rule.path}: {item.rule.title}: slow: {item.slow}" for item in self.slow),
            *(
                f"{item.rule.path}: {item.rule.title}: nothing positive is asked for; "
                f"every event of {item.rule.logsource} may match"
                for item in self.ungated
            ),
            *(f"{group}" for group in self.unreached),
        ]
        counts = (
            f"{self.running} rules run, {len(self.refused)} refused, {len(self.unsupported)} not run here, "
            f"{len(self.slow)} slow, {len(self.ungated)} without a gate, {self.unreachable} out of reach of any format"
        )
        return [*remarks, counts]


def check_rules(paths: Sequence[Path], placeholders: Placeholders | None = None) -> CheckReport:
    """Load and compile rules, and report on all of them.

    Raises:
        RulePathError: A path does not exist.
    """
    pack = load_rules(paths)
    plan = Plan.build(pack.rules, placeholders)
    return CheckReport(
        running=len(plan.rules),
        refused=(*pack.refused, *plan.refused),
        unsupported=pack.unsupported,
        ungated=plan.ungated,
        slow=plan.slow,
        unreached=unreached(compiled.rule for compiled in plan.rules),
    )

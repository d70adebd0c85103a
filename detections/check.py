"""Check a rule set: what would run, what would not, and what an author should know before it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sigma.processing.pipeline import ProcessingPipeline

from detections.compile import CompiledRule, Placeholders
from detections.correlation_resolve import runnable, silenced_by
from detections.correlation_rule import CorrelationRule
from detections.doubts import doubts_of_correlation, doubts_of_files, doubts_of_filter, doubts_of_rule
from detections.load import load_rules
from detections.plan import Plan
from detections.reach import Unreached, unreached
from detections.rule import Refusal, Remark, Rule, RulePack


@dataclass(frozen=True, slots=True)
class Silenced:
    """A rule or correlation that gives no alerts of its own.

    Attributes:
        by: Titles of the correlations that refer to it, none of which says `generate: true`.
    """

    rule: Rule | CorrelationRule
    by: tuple[str, ...]

    def __str__(self) -> str:
        """As a line of the report."""
        titles = ", ".join(map(repr, self.by))
        reason = f"gives no alerts of its own, only to correlation {titles} (generate: true would change that)"
        return f"{self.rule.path}: {self.rule.title}: {reason}"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `tocsin rules check` says.

    Attributes:
        running: Rules that load and compile.
        refused: Broken files, rules that do not compile and what refers to them, with file, line and reason.
        unsupported: What is right and is not run here.
        ungated: Rules that ask for nothing positive: each event of their log source may match.
        slow: Rules with a part that runs row by row (`CompiledRule.slow` says why).
        unreached: Rules of log sources that no format gives, in groups.
        correlations: Correlations all of whose rules run.
        filters: Filters that are applied.
        filtered: Rules that have a filter.
        silenced: Rules and correlations that give no alerts of their own.
        remarks: What runs, and may not do what its author thinks.
    """

    running: int
    refused: tuple[Refusal, ...]
    unsupported: tuple[Refusal, ...]
    ungated: tuple[CompiledRule, ...]
    slow: tuple[CompiledRule, ...]
    unreached: tuple[Unreached, ...]
    correlations: int = 0
    filters: int = 0
    filtered: int = 0
    silenced: tuple[Silenced, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @property
    def unreachable(self) -> int:
        """How many rules run on what no format gives."""
        return sum(len(group.rules) for group in self.unreached)

    @property
    def empty(self) -> bool:
        """Whether nothing was found to be checked."""
        return not (self.running or self.refused or self.unsupported or self.correlations or self.filters)

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
            *(f"{item}" for item in self.silenced),
            *(f"{remark}" for remark in self.remarks),
        ]
        counts = (
            f"{self.running} rules run, {len(self.refused)} refused, {len(self.unsupported)} not run here, "
            f"{len(self.slow)} slow, {len(self.ungated)} without a gate, "
            f"{self.unreachable} out of reach of any format, "
            f"{self.correlations} correlations, {len(self.silenced)} rules silenced by them, "
            f"{self.filters} filters on {self.filtered} rules"
        )
        return [*remarks, counts]


def check_rules(
    paths: Sequence[Path], placeholders: Placeholders | None = None, pipeline: ProcessingPipeline | None = None
) -> CheckReport:
    """Load and compile rules, and report on all of them.

    Args:
        paths: Files and folders of rules.
        placeholders: Values that `expand` needs.
        pipeline: What each rule goes through first.

    Raises:
        RulePathError: A path does not exist.
    """
    pack = load_rules(paths)
    plan = Plan.build(pack.rules, placeholders, pipeline)
    correlations, broken = runnable(pack.correlations, {compiled.rule.id for compiled in plan.rules})
    pack = replace(pack, correlations=correlations)
    by_id: dict[str, Rule | CorrelationRule] = {rule.id: rule for rule in pack.rules}
    by_id |= {rule.id: rule for rule in correlations}
    return CheckReport(
        running=len(plan.rules),
        refused=(*pack.refused, *plan.refused, *broken),
        unsupported=pack.unsupported,
        ungated=plan.ungated,
        slow=plan.slow,
        unreached=unreached(compiled.rule for compiled in plan.rules),
        correlations=len(correlations),
        filters=len(pack.filters),
        filtered=sum(bool(rule.filters) for rule in pack.rules),
        silenced=tuple(Silenced(by_id[own], titles) for own, titles in silenced_by(pack).items()),
        remarks=(*pack.remarks, *_doubts(pack, plan)),
    )


def _doubts(pack: RulePack, plan: Plan) -> Iterator[Remark]:
    """What of a pack its authors most likely did not mean."""
    compiled = {item.rule.id: item for item in plan.rules}
    yield from doubts_of_files(dict.fromkeys(rule.path for rule in pack.rules))
    for rule in pack.rules:
        yield from doubts_of_rule(rule, compiled.get(rule.id))
    for item in pack.filters:
        yield from doubts_of_filter(item)
    for correlation in pack.correlations:
        yield from doubts_of_correlation(correlation)

"""The correlations of a pack that run, given the rules that do: what live detection, hunts and tests of rules share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from detections.correlation_resolve import rules_below, runnable, silenced_by
from detections.correlation_rule import CorrelationRule
from detections.rule import Refusal, RulePack


@dataclass(frozen=True, slots=True)
class CorrelationSet:
    """Correlations, and what follows from them for the rules they look at.

    Attributes:
        rules: Each after those it refers to.
        silenced: Ids of the rules and correlations that give no alerts of their own (`generate: false`).
        needed: Ids of the rules whose matches the correlations look at.
        refused: Correlations that cannot run because a rule of theirs does not.
    """

    rules: tuple[CorrelationRule, ...] = ()
    silenced: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()
    refused: tuple[Refusal, ...] = ()

    @property
    def ids(self) -> frozenset[str]:
        """Ids of the correlations."""
        return frozenset(rule.id for rule in self.rules)


def correlation_set(pack: RulePack, running: Collection[str]) -> CorrelationSet:
    """The correlations of a pack.

    Args:
        pack: Where they stand.
        running: Ids of the rules that compile.
    """
    kept, refused = runnable(pack.correlations, running)
    by_id = {rule.id: rule for rule in kept}
    return CorrelationSet(
        kept,
        frozenset(silenced_by(replace(pack, correlations=kept))),
        frozenset[str]().union(*(rules_below(rule, by_id) for rule in kept)),
        refused,
    )

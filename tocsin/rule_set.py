"""The rules at work, as one value that is never changed: whoever holds it has rules and correlations that go together.

Rules that have changed on disk become another such value (`tocsin.rule_watch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detections.correlation_rule import CorrelationRule
from detections.correlation_set import CorrelationSet, correlation_set
from detections.plan import Plan
from detections.plan_load import LoadedRules
from detections.rule import Refusal, Rule, RulePack
from detections.rule_cache import RuleCache
from tocsin.rule_loading import load_rule_plan
from tocsin.rule_options import RuleOptions, read_rule_options
from tocsin.settings import Settings


@dataclass(frozen=True, slots=True)
class RuleSource:
    """Where rules come from.

    Attributes:
        paths: Files and folders of rules.
        pipelines: As in the settings, so too `placeholders`.
        cache: Folder of compiled rules; None: none.
        compiled: Whether the rules are to run; the console only shows them.
    """

    paths: tuple[Path, ...]
    pipelines: tuple[str, ...] = ()
    placeholders: tuple[Path, ...] = ()
    cache: RuleCache | None = None
    compiled: bool = True

    @classmethod
    def of(cls, settings: Settings, *, compiled: bool = True) -> RuleSource:
        """What the settings say."""
        cache = RuleCache(settings.rules_cache_path)
        return cls(settings.rules, settings.pipelines, settings.placeholders, cache, compiled)


@dataclass(frozen=True)
class RuleSet:
    """Rules, compiled, and the correlations over them.

    Attributes:
        loaded: The pack, its plan, and what loading it again can do without.
        options: What it was compiled with.
        correlations: Those that run, and the rules that they silence.
    """

    loaded: LoadedRules
    options: RuleOptions
    correlations: CorrelationSet

    @property
    def pack(self) -> RulePack:
        """What the files hold."""
        return self.loaded.pack

    @property
    def plan(self) -> Plan:
        """The rules that run."""
        return self.loaded.plan

    @property
    def refused(self) -> Sequence[Refusal]:
        """All that does not run, and why."""
        return (*self.pack.refused, *self.plan.refused, *self.correlations.refused)

    @cached_property
    def by_id(self) -> dict[str, Rule | CorrelationRule]:
        """The rules and correlations of the pack by their ids."""
        rules: dict[str, Rule | CorrelationRule] = {rule.id: rule for rule in self.pack.rules}
        return rules | {rule.id: rule for rule in self.pack.correlations}

    def same_as(self, other: RuleSet) -> bool:
        """Whether nothing would change with the other in its place."""
        fingerprint = self.options.fingerprint
        return (
            fingerprint is not None
            and fingerprint == other.options.fingerprint
            and self.options.placeholders == other.options.placeholders
            and self.pack == other.pack
            and self.correlations == other.correlations
        )


def load_rule_set(source: RuleSource, before: RuleSet | None = None) -> RuleSet:
    """Load and compile rules, doing again only what has changed since `before`.

    Raises:
        RuleError: A path does not exist or cannot be listed, or a pipeline or a file of placeholders cannot be used.
    """
    options = read_rule_options(source.pipelines, source.placeholders)
    useful = before is not None and _alike(before.options, options)
    loaded = load_rule_plan(
        source.paths,
        options,
        source.cache,
        before=before.loaded if before is not None and useful else None,
        wanted=lambda _: source.compiled,
    )
    running = {compiled.rule.id for compiled in loaded.plan.rules}
    return RuleSet(loaded, options, correlation_set(loaded.pack, running) if source.compiled else CorrelationSet())


def _alike(before: RuleOptions, now: RuleOptions) -> bool:
    return before.fingerprint == now.fingerprint and before.placeholders == now.placeholders

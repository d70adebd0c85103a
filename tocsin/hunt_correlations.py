"""The correlations of a hunt: which of them and of their rules are asked for, and what the hunt prints of them.

A hunt shows what live detection would have shown: the matches of rules that are only material for a correlation are not
printed, but counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import orjson
import polars as pl

from detections.correlate import matched_of
from detections.correlation import Correlation
from detections.correlation_pass import CorrelationPass
from detections.correlation_rule import CorrelationRule
from detections.correlation_set import CorrelationSet, correlation_set
from detections.match import MATCH_SCHEMA
from detections.rule import Rule, RulePack

SHOWN_SCHEMA = {**MATCH_SCHEMA, "source": pl.String()}


@dataclass(frozen=True, slots=True)
class HuntedCorrelations:
    """What of a pack's correlations a hunt runs.

    Attributes:
        run: Those that are asked for, and those that they refer to.
        hidden: Ids of the rules and correlations whose matches are not printed.
        silenced: Of these, the ones that are hidden since they are material.
    """

    run: CorrelationSet
    hidden: frozenset[str]
    silenced: frozenset[str]


def wanted_rules(pack: RulePack, asked: Callable[[Rule | CorrelationRule], bool]) -> frozenset[str]:
    """Ids of the rules to compile: those asked for, and those that a correlation asked for looks at."""
    chosen = {rule.id for rule in pack.rules if asked(rule)}
    chosen |= correlation_set(replace(pack, correlations=_chosen(pack, asked)), {rule.id for rule in pack.rules}).needed
    return frozenset(chosen)


def hunted(
    pack: RulePack, running: frozenset[str], asked: Callable[[Rule | CorrelationRule], bool]
) -> HuntedCorrelations:
    """The correlations of a hunt.

    Args:
        pack: All rules.
        running: Ids of the rules that are compiled.
        asked: Which rules and correlations are to be shown.
    """
    run = correlation_set(replace(pack, correlations=_chosen(pack, asked)), running)
    everything: list[Rule | CorrelationRule] = [*pack.rules, *pack.correlations]
    unasked = {rule.id for rule in everything if not asked(rule)}
    # A correlation that is not asked for would silence its rules all the same in live detection
    all_that_load = correlation_set(pack, {rule.id for rule in pack.rules})
    refused = {refusal.rule for refusal in run.refused}
    kept = tuple(rule for rule in all_that_load.rules if f"{rule.title} ({rule.id})" not in refused)
    silenced = correlation_set(replace(pack, correlations=kept), {rule.id for rule in pack.rules}).silenced
    return HuntedCorrelations(run, frozenset(unasked) | silenced, silenced - unasked)


def _chosen(pack: RulePack, asked: Callable[[Rule | CorrelationRule], bool]) -> tuple[CorrelationRule, ...]:
    """The correlations asked for, and all below them."""
    chosen: set[str] = set()
    for rule in reversed(pack.correlations):  # each after those it refers to
        if asked(rule) or rule.id in chosen:
            chosen |= {rule.id, *rule.references}
    return tuple(rule for rule in pack.correlations if rule.id in chosen)


def shown_matches(matches: pl.DataFrame, hunt: HuntedCorrelations) -> tuple[pl.DataFrame, int]:
    """The matches that are printed, and how many are not since a correlation silences their rule."""
    if not hunt.hidden:
        return matches, 0
    ids = pl.col("rule_id")
    shown = matches.filter(~ids.is_in(sorted(hunt.hidden)))
    return shown, matches.filter(ids.is_in(sorted(hunt.silenced))).height


def shown_correlations(passed: CorrelationPass, hunt: HuntedCorrelations) -> pl.DataFrame:
    """The correlations that fire, as matches: `MATCH_SCHEMA` and `source`, each in the place of its last event."""
    return pl.DataFrame(list(_rows(passed, hunt)), schema=SHOWN_SCHEMA, orient="row")


def _rows(passed: CorrelationPass, hunt: HuntedCorrelations) -> Iterator[tuple[object, ...]]:
    for correlation, event_id, source in passed.fired():
        if correlation.rule.id not in hunt.hidden:
            row = {**_row(correlation), "event_id": event_id, "source": source}
            yield tuple(row[name] for name in SHOWN_SCHEMA)


def _row(correlation: Correlation) -> dict[str, object]:
    rule, sample = correlation.rule, correlation.sample
    return {
        "rule_id": rule.id,
        "rule_title": rule.title,
        "level": rule.level,
        "tags": list(rule.tags),
        "tenant": correlation.tenant,
        "timestamp": correlation.timestamp,
        "received": sample.received,
        "logsource": sample.logsource,
        "host": sample.host,
        "user": sample.user,
        "source_ip": sample.source_ip,
        "destination_ip": sample.destination_ip,
        "matched": orjson.dumps(matched_of(correlation)).decode(),
        "event": sample.event,
        "original": sample.original,
    }

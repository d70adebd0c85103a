"""Why matches were not correlated: the fields that they lack, by correlation.

The engine counts what it leaves out and goes on. After a hunt all matches are at hand, so it can be said which field
was missing: a field that no match has is a mistake in the rule rather than an oddity of the logs. Only correlations
that left something out are looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from detections.correlation import Correlation
from detections.correlation_fields import as_number, field_of_group, read_values
from detections.correlation_judgement import judgement_of
from detections.correlation_rule import CorrelationRule
from detections.correlator import Counters


@dataclass(frozen=True, slots=True)
class Gap:
    """A field that matches of a correlation lack.

    Attributes:
        title: Of the correlation.
        rule_id: Of the correlation.
        field: As it is looked for in these matches (an alias may name another field for each rule).
        lacking: Matches without it.
        matches: Matches of the rules in which it is looked for.
        number: It must hold a number; what holds none counts as lacking.
    """

    title: str
    rule_id: str
    field: str
    lacking: int
    matches: int
    number: bool = False


def gaps_of(
    rules: Sequence[CorrelationRule], counters: Counters, matches: pl.DataFrame, fired: Sequence[Correlation]
) -> list[Gap]:
    """What matches lack, worst first: what all of them lack, then by how many.

    Args:
        rules: The correlations.
        counters: Of the engine, at the end.
        matches: All that it was given: `MATCH_SCHEMA`.
        fired: All that fired: the matches of correlations that refer to others.
    """
    found: list[Gap] = []
    for rule in rules:
        if rule.id in counters.missing_group_field or rule.id in counters.bad_values:
            found += _gaps(rule, matches, fired)
    return sorted(found, key=lambda gap: (gap.lacking < gap.matches, -gap.lacking, gap.title, gap.field))


def _gaps(rule: CorrelationRule, matches: pl.DataFrame, fired: Sequence[Correlation]) -> Iterator[Gap]:
    judgement = judgement_of(rule)
    wanted = [(name, False) for name in rule.group_by]
    wanted += [(name, judgement.numeric) for name in judgement.counted]
    looked_for: dict[tuple[str, bool], list[str]] = {}
    for name, number in wanted:
        for reference in rule.references:
            looked_for.setdefault((rule.field_of(name, reference), number), []).append(reference)
    for (name, number), references in looked_for.items():
        values = _values(name, set(references), matches, fired)
        lacking = sum(value is None or (number and as_number(value) is None) for value in values)
        if lacking:
            yield Gap(rule.title, rule.id, name, lacking, len(values), number)


def _values(
    name: str, references: Collection[str], matches: pl.DataFrame, fired: Sequence[Correlation]
) -> list[str | None]:
    """The values of a field in all matches of some rules or correlations."""
    rows = matches.filter(pl.col("rule_id").is_in(sorted(references)))
    groups: list[Mapping[str, str]] = [firing.group for firing in fired if firing.rule.id in references]
    return [*read_values(rows, name).to_list(), *(field_of_group(group, name) for group in groups)]

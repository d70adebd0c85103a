"""Correlations of a pack: references to ids, conditions over rules to trees, and no cycles.

What refers to something refused is refused too, all the way up: a correlation over half of its rules would count too
little and stay silent. The order given is such that each comes after those it refers to. Source: Sigma specification
2.1, "Sigma Correlation Rules".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product
from typing import Final

from detections.condition import ConditionError, Named, Tree, is_true, names_in, parse_condition, rename
from detections.correlation_load import TEMPORAL, CorrelationDraft, satisfiable
from detections.correlation_rule import MAX_TIMESPAN, CorrelationCondition, CorrelationRule
from detections.read_rule import joined_digest
from detections.references import References
from detections.rule import Refusal, Remark, RuleContentError, RulePack, line_of

MAX_CHAIN: Final = 16
"""Correlations of correlations; what people write has two or three."""

_TRIED: Final = 10
"""Rules of a condition up to which every combination is tried for one that holds."""

_SHOWN: Final = 10
"""Members of a cycle in a message."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Attributes: the correlations, each after those it refers to; what is wrong; what their authors should know."""

    correlations: tuple[CorrelationRule, ...]
    refused: tuple[Refusal, ...]
    remarks: tuple[Remark, ...]


def resolve_correlations(drafts: Iterable[CorrelationDraft], references: References) -> Resolved:
    """Resolve the correlations of a pack."""
    resolved: dict[str, CorrelationRule] = {}
    refused: dict[str, Refusal] = {}
    remarks: list[Remark] = []
    for draft in drafts:
        try:
            resolved[draft.rule.id] = _resolve(draft, references, remarks)
        except RuleContentError as error:
            refused[draft.rule.id] = _refusal(draft.rule, str(error), error.key)
    for path in _cycles(resolved):
        for start, member in enumerate(path):
            reason = f"correlations refer to one another in a cycle: {_shown(path[start:] + path[:start], references)}"
            refused[member] = _refusal(resolved[member], reason, "correlation.rules")
    kept: dict[str, CorrelationRule] = {}
    chains: dict[str, tuple[int, timedelta]] = {}
    left = {own: rule for own, rule in resolved.items() if own not in refused}
    for own in _ordered({own: [ref for ref in rule.references if ref in left] for own, rule in left.items()}):
        rule = left[own]
        try:
            chains[rule.id] = _chain(rule, refused, chains)
            kept[rule.id] = rule
        except RuleContentError as error:
            refused[rule.id] = _refusal(rule, str(error), error.key)
    return Resolved(tuple(kept.values()), tuple(refused.values()), tuple(remarks))


def runnable(
    correlations: Iterable[CorrelationRule], rules: Collection[str]
) -> tuple[tuple[CorrelationRule, ...], tuple[Refusal, ...]]:
    """The correlations all of whose rules are among the ids `rules`, and why the others do not run.

    For rules that load and do not compile; `correlations` in the order of `RulePack`.
    """
    running = set(rules)
    kept: list[CorrelationRule] = []
    refused: list[Refusal] = []
    for rule in correlations:
        missing = [rule.names[own] for own in rule.references if own not in running]
        if missing:
            reason = f"{', '.join(map(repr, missing))} cannot run, and so neither can what refers to it"
            refused.append(_refusal(rule, reason, "correlation.rules"))
        else:
            kept.append(rule)
            running.add(rule.id)
    return tuple(kept), tuple(refused)


def rules_below(rule: CorrelationRule, correlations: Mapping[str, CorrelationRule]) -> frozenset[str]:
    """Ids of the rules (not correlations) that a correlation looks at, directly or through others."""
    below: set[str] = set()
    waiting, seen = list(rule.references), set(rule.references)
    while waiting:
        own = waiting.pop()
        if own not in correlations:
            below.add(own)
            continue
        new = [further for further in correlations[own].references if further not in seen]
        seen.update(new)
        waiting += new
    return frozenset(below)


def silenced_by(pack: RulePack) -> dict[str, tuple[str, ...]]:
    """Ids of the rules and correlations that give no alerts of their own -> titles of the correlations that say so.

    A rule that a correlation refers to is only material for it, unless some correlation that refers to it says
    `generate: true`.
    """
    titles: defaultdict[str, list[str]] = defaultdict(list)
    generated: set[str] = set()
    for correlation in pack.correlations:
        for own in correlation.references:
            titles[own].append(correlation.title)
        if correlation.generate:
            generated.update(correlation.references)
    return {own: tuple(names) for own, names in titles.items() if own not in generated}


def _refusal(rule: CorrelationRule, reason: str, key: str) -> Refusal:
    return Refusal(rule.path, line_of(rule.lines, key), f"{rule.title} ({rule.id})", reason)


def _resolve(draft: CorrelationDraft, references: References, remarks: list[Remark]) -> CorrelationRule:
    """Put ids in the place of references, and a tree in that of the text of a condition."""
    rule, key = draft.rule, "correlation.rules"
    written = rule.references
    if not written and draft.expression is not None:
        key = "correlation.condition"
        try:
            written = tuple(names_in(draft.expression))
        except ConditionError as error:
            raise RuleContentError(str(error), key) from error
    names: dict[str, str] = {}
    noted: list[str] = []
    for number, reference in enumerate(written):
        own = references.resolve(reference, f"{key}.{number}")
        if own in names:
            if rule.kind == "temporal_ordered":
                raise RuleContentError(f"{reference!r} is there twice; one rule has one place in the order", key)
            noted.append(f"{reference!r} is there twice and counts once")
        names.setdefault(own, reference)
    rule = replace(
        rule,
        references=tuple(names),
        names=names,
        aliases=_aliases(rule, names, references, noted),
        digest=joined_digest([rule.digest, *names]),
    )
    remarks += [Remark(rule.path, line_of(rule.lines, key), rule.title, reason) for reason in noted]
    if draft.expression is not None:
        return replace(rule, expression=_expression(draft.expression, rule, references))
    return replace(rule, condition=_count_of_rules(rule)) if rule.kind in TEMPORAL else rule


def _aliases(
    rule: CorrelationRule, names: Mapping[str, str], references: References, noted: list[str]
) -> dict[str, dict[str, str]]:
    aliases: dict[str, dict[str, str]] = {}
    for alias, fields in rule.aliases.items():
        key = f"correlation.aliases.{alias}"
        aliases[alias] = {}
        for reference, field in fields.items():
            own = references.resolve(reference, key)
            if own not in names:
                raise RuleContentError(f"alias {alias!r} names {reference!r}, which is not among the rules", key)
            if aliases[alias].setdefault(own, field) != field:
                raise RuleContentError(f"alias {alias!r} gives two fields of {reference!r}", key)
        fields_used = rule.condition.fields if rule.condition is not None else ()
        if alias not in rule.group_by and alias not in fields_used:
            noted.append(f"alias {alias!r} is in no group-by and does nothing")
        elif without := [name for own, name in names.items() if own not in aliases[alias]]:
            noted.append(f"alias {alias!r} names no field of {without[0]!r}; there the field {alias!r} itself is read")
    return aliases


def _count_of_rules(rule: CorrelationRule) -> CorrelationCondition:
    """How many of the rules must be there; all of them where nothing is said."""
    most = len(rule.references)
    if rule.condition is None:
        return CorrelationCondition((("gte", float(most)),))
    if not satisfiable(rule.condition.bounds, whole=True, most=most):
        raise RuleContentError(f"only {most} rules are given: the condition can never be true", "correlation.condition")
    return rule.condition


def _expression(text: str, rule: CorrelationRule, references: References) -> Tree:
    """The tree of a condition over rules, by the names under which the correlation refers to them."""
    key = "correlation.condition"
    known = {spelling: name for own, name in rule.names.items() for spelling in references.spellings(own)}
    known |= {name: name for name in rule.names.values()}
    try:
        tree = rename(parse_condition(text, known, "rule"), known)
    except ConditionError as error:
        raise RuleContentError(str(error), key) from error
    names = list(rule.names.values())
    mentioned = _mentioned(tree)
    unused = [name for name in names if name not in mentioned]
    if unused:
        raise RuleContentError(f"{unused[0]!r} is among the rules, and the condition never asks for it", key)
    if is_true(tree, ()):
        raise RuleContentError("the condition holds where no rule matched: it would fire on silence", key)
    if len(names) <= _TRIED and not any(
        is_true(tree, [name for name, there in zip(names, choice, strict=True) if there])
        for choice in product((False, True), repeat=len(names))
    ):
        raise RuleContentError("the condition can never be true", key)
    return tree


def _mentioned(tree: Tree) -> set[str]:
    names: set[str] = set()
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Named):
            names.add(part.name)
        else:
            waiting += part.parts
    return names


def _cycles(rules: Mapping[str, CorrelationRule]) -> list[list[str]]:
    """Cycles of references such that every correlation on one is in one of them."""
    refers = {own: [ref for ref in rule.references if ref in rules] for own, rule in rules.items()}
    for _ in range(2):  # peel off what is below all cycles, then, with the arrows turned, what is above them
        ordered = set(_ordered(refers))
        users: dict[str, list[str]] = {own: [] for own in refers if own not in ordered}
        for own in users:
            for ref in refers[own]:
                if ref in users:
                    users[ref].append(own)
        refers = users
    cycles: list[list[str]] = []
    found: set[str] = set()
    for own in refers:
        if own not in found and (path := _way_back(own, refers)) is not None:
            cycles.append(path)
            found.update(path)
    return cycles


def _way_back(start: str, refers: Mapping[str, Sequence[str]]) -> list[str] | None:
    """The shortest way from a correlation to itself."""
    came: dict[str, str] = {}
    waiting = [start]
    for own in waiting:
        for further in refers[own]:
            if further == start:
                path = [own]
                while path[-1] != start:
                    path.append(came[path[-1]])
                return path[::-1]
            if further not in came:
                came[further] = own
                waiting.append(further)
    return None


def _ordered(refers: Mapping[str, Sequence[str]]) -> list[str]:
    """What refers to one another, each after what it refers to; cycles, and what is above them, are left out."""
    waits = {own: len(refs) for own, refs in refers.items()}
    users: defaultdict[str, list[str]] = defaultdict(list)
    for own, refs in refers.items():
        for ref in refs:
            users[ref].append(own)
    ready = [own for own, count in waits.items() if not count]
    for own in ready:
        for user in users[own]:
            waits[user] -= 1
            if not waits[user]:
                ready.append(user)
    return ready


def _chain(
    rule: CorrelationRule, refused: Mapping[str, Refusal], chains: Mapping[str, tuple[int, timedelta]]
) -> tuple[int, timedelta]:
    """How many correlations stand on one another up to this one, and how far it looks back through them."""
    key = "correlation.rules"
    for own, name in rule.names.items():
        if own in refused:
            place = f"{refused[own].path}:{refused[own].line}"
            raise RuleContentError(f"it refers to {name!r}, which was itself refused ({place})", key)
    below = [chains[own] for own in rule.references if own in chains]
    depth = 1 + max((deep for deep, _ in below), default=0)
    back = rule.timespan + max((far for _, far in below), default=timedelta(0))
    if depth > MAX_CHAIN:
        raise RuleContentError(f"more than {MAX_CHAIN} correlations stand on one another", key)
    if back > MAX_TIMESPAN:
        far = f"with what it refers to, it looks back {back}"
        raise RuleContentError(f"{far}, which is more than {MAX_TIMESPAN.days} days", "correlation.timespan")
    return depth, back


def _shown(path: Sequence[str], references: References) -> str:
    names = [repr(references.title(own)) for own in path[:_SHOWN]]
    more = [f"... ({len(path)} in all)"] if len(path) > _SHOWN else []
    return " -> ".join([*names, *more, names[0]])

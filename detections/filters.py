"""Sigma filters: one exception for many rules.

A filter names rules, or says `any`, and has detections and a condition of its own. Every rule named whose log source
lies within the filter's gets its condition joined to its own: `(rule) and (filter)`, as pySigma joins them, so that an
exception is written `condition: not selection`. The names of a filter's detections are made `_filter_1_NAME` in the
rule: they clash with nothing, and `them` and patterns of the rule do not reach them. Source: Sigma specification 2.1,
"Sigma Filters"; `rules: any` from 2.2.

Filters make rules silent, so doubt is decided against them: one with no rule to apply to, with an empty list of rules,
or that does not compile is refused, and a rule whose own condition cannot be read stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from sigma.rule import SigmaDetections, SigmaRule

from detections.compile import compile_rule
from detections.condition import ConditionError, Tree, condition_text, is_true, parse_condition, rename
from detections.documents import Document
from detections.read_rule import digest_of, joined_digest, read_rule
from detections.references import References
from detections.rule import Refusal, Remark, Rule, RuleContentError, line_of
from ingest.logsource import LogSource

_WHITE: Final = str.maketrans(dict.fromkeys(" \t\r\n()|", "_"))
"""Characters that end a name in a condition."""


@dataclass(frozen=True, slots=True)
class FilterRule:
    """One Sigma filter.

    Attributes:
        id: Its id; without one, a UUID made from its title.
        rules: Ids or names of the rules it is for, as written; None means every rule that its log source covers.
        logsource: It is for rules whose log source has at least these parts.
        tree: Its condition, over the names of its detections.
        detection: Its detections and condition as a rule.
        digest: SHA-256 of its content.
        lines: As those of `Rule`, with `filter.NAME` for its parts.
    """

    id: str
    title: str
    rules: tuple[str, ...] | None
    logsource: LogSource
    path: Path
    digest: str
    tree: Tree = field(repr=False, compare=False)
    detection: Rule = field(repr=False, compare=False)
    lines: Mapping[str, int] = field(repr=False, compare=False)

    def covers(self, rule: LogSource) -> bool:
        """Whether each part of the log source that the filter names is that of the rule."""
        own = self.logsource
        return (
            own.product in (None, rule.product)
            and own.category in (None, rule.category)
            and own.service in (None, rule.service)
        )

    def refuse(self, reason: str, key: str) -> Refusal:
        """Refuse this filter, pointing at the line of `key`."""
        return Refusal(self.path, line_of(self.lines, key), self.title, reason)

    def remark(self, reason: str, key: str) -> Remark:
        """Say something of this filter, pointing at the line of `key`."""
        return Remark(self.path, line_of(self.lines, key), self.title, reason)


@dataclass(frozen=True, slots=True)
class Filtered:
    """Attributes: the rules, with filters applied; the filters that are right; what is wrong; what is worth saying."""

    rules: tuple[Rule, ...]
    filters: tuple[FilterRule, ...]
    refused: tuple[Refusal, ...]
    remarks: tuple[Remark, ...]


class _EveryPlaceholder(Mapping[str, Sequence[str]]):
    """Values for any placeholder: whether one has values is known only when rules compile."""

    def __getitem__(self, name: str) -> Sequence[str]:
        return ("value",)

    def __iter__(self) -> Iterator[str]:
        return iter(("placeholder",))

    def __len__(self) -> int:
        return 1  # not empty, as which `placeholders or {}` would drop it


_EVERY_PLACEHOLDER: Final = _EveryPlaceholder()


def detection_lines(document: Document) -> Document:
    """The document of a filter with the lines of its parts as those of detections, as which they are read."""
    lines = {
        "detection" + key.removeprefix("filter"): line
        for key, line in document.lines.items()
        if key.split(".")[0] == "filter"
    }
    return replace(document, lines={**document.lines, **lines})


def read_filter(path: Path, document: Document, content: Mapping[str, object]) -> FilterRule | Refusal:
    """Read one filter; `document` as `detection_lines` gives it.

    Raises:
        RuleContentError: One part is wrong.
        SigmaError: pySigma finds one wrong; it raises all of `PYSIGMA_FAULTS`.
    """
    body = content["filter"]
    if not isinstance(body, dict):
        raise RuleContentError("filter is a map", "filter")
    rules = _rules(body.get("rules"))
    condition = body.get("condition")
    if not isinstance(condition, str):
        raise RuleContentError("a filter has one condition, a text", "filter.condition")
    detection = {name: part for name, part in body.items() if name != "rules"}
    rule = read_rule(path, document, {**content, "detection": detection})
    tree = _tree(condition, rule)
    compiled = compile_rule(rule, _EVERY_PLACEHOLDER)
    if isinstance(compiled, Refusal):
        return compiled
    return FilterRule(
        id=rule.id,
        title=rule.title,
        rules=rules,
        logsource=rule.logsource,
        path=path,
        digest=digest_of({"logsource": content.get("logsource"), "filter": body}),
        tree=tree,
        detection=rule,
        lines=document.lines,
    )


def _rules(value: object) -> tuple[str, ...] | None:
    key = "filter.rules"
    if isinstance(value, str):
        return None if value.lower() == "any" else (value,)
    if not isinstance(value, list) or not value:
        raise RuleContentError("a filter has rules: a list of ids or names, or any for every rule", key)
    for number, item in enumerate(value):
        if not isinstance(item, str) or not item.strip():
            raise RuleContentError(f"rules is a list of ids and names, and not of {item!r}", f"{key}.{number}")
    return tuple(dict.fromkeys(value))


def _tree(condition: str, rule: Rule) -> Tree:
    try:
        return parse_condition(condition, rule.sigma.detection.detections)
    except ConditionError as error:
        raise RuleContentError(str(error), "filter.condition") from error


def apply_filters(rules: Iterable[Rule], filters: Iterable[FilterRule], references: References) -> Filtered:
    """Join filters to the rules they are for, in the order of the filters."""
    by_id = {rule.id: rule for rule in rules}
    chosen: dict[str, list[FilterRule]] = {}
    kept: list[FilterRule] = []
    refused: list[Refusal] = []
    remarks: list[Remark] = []
    for item in filters:
        named, faults = _named(item, by_id, references)
        if not named and faults:
            refused += [item.refuse(str(fault), fault.key) for fault in faults]
            continue
        remarks += [item.remark(f"{fault}; it is for the other rules", fault.key) for fault in faults]
        kept.append(item)
        met = [own for own in named if item.covers(by_id[own].logsource)]
        for own in met:
            chosen.setdefault(own, []).append(item)
        remarks += _remarks(item, named, met, by_id)
    changed = {own: _joined(by_id[own], items) for own, items in chosen.items()}
    return Filtered(tuple((by_id | changed).values()), tuple(kept), tuple(refused), tuple(remarks))


def _named(
    item: FilterRule, rules: Mapping[str, Rule], references: References
) -> tuple[Collection[str], list[RuleContentError]]:
    """Ids of the rules that a filter names, and what is wrong with its other references."""
    if item.rules is None:
        return rules, []
    named: dict[str, None] = {}
    faults: list[RuleContentError] = []
    for number, reference in enumerate(item.rules):
        key = f"filter.rules.{number}"
        try:
            own = references.resolve(reference, key)
        except RuleContentError as error:
            faults.append(error)
            continue
        if own in rules:
            named[own] = None
        else:
            reason = f"{reference!r} is a correlation, and a filter is for the rules that it refers to"
            faults.append(RuleContentError(reason, key))
    return named, faults


def _remarks(item: FilterRule, named: Collection[str], met: Sequence[str], rules: Mapping[str, Rule]) -> list[Remark]:
    """What a filter may not do as its author thinks."""
    remarks = []
    if not met:
        whom = "no rule" if item.rules is None else "none of its rules"
        remarks.append(item.remark(f"{whom} has a log source within {item.logsource}: it does nothing", "logsource"))
    elif item.rules is not None and len(met) < len(named):
        other = next(rules[own] for own in named if own not in met)
        reason = (
            f"rule {other.title!r} has log source {other.logsource}, not within {item.logsource}: it stays unfiltered"
        )
        remarks.append(item.remark(reason, "filter.rules"))
    if not is_true(item.tree, ()):
        reason = "its rules match only where its condition holds; an exception is written `not selection`"
        remarks.append(item.remark(reason, "filter.condition"))
    return remarks


def readable(sigma: SigmaRule) -> bool:
    """Whether each condition of a rule can be read by itself."""
    try:
        for condition in sigma.detection.condition:
            parse_condition(str(condition), sigma.detection.detections)
    except ConditionError:
        return False
    return True


@dataclass(slots=True)
class FilteredSigma:
    """A rule with filters in its detections and its conditions, put together when it is asked for."""

    rule: Rule
    filters: tuple[FilterRule, ...]
    readable: bool = True
    _sigma: SigmaRule | None = field(default=None, init=False)

    def __call__(self) -> SigmaRule:
        """See `Rule.sigma`."""
        if self._sigma is None:
            self._sigma = _joined_sigma(self.rule.sigma, self.filters)
        return self._sigma


def _joined(rule: Rule, filters: Sequence[FilterRule]) -> Rule:
    """A rule with filters; as it is where joining, of `a) or (b`, would make something readable of what is not."""
    if not (readable(rule.parsed) if isinstance(rule.parsed, SigmaRule) else rule.parsed.readable):
        return rule  # compiling it says why it cannot run
    return replace(
        rule,
        parsed=FilteredSigma(rule, tuple(filters)),
        digest=joined_digest([rule.digest, *(item.digest for item in filters)]),
        filters=tuple(item.title for item in filters),
    )


def _joined_sigma(original: SigmaRule, filters: Sequence[FilterRule]) -> SigmaRule:
    detections = dict(original.detection.detections)
    conditions = [str(condition) for condition in original.detection.condition]
    joined = ""
    for number, item in enumerate(filters, start=1):
        names = _names(item, number, detections)
        own = item.detection.sigma.detection.detections
        detections |= {names[name]: part for name, part in own.items()}  # shared: pipelines are applied to copies
        joined += f" and ({condition_text(rename(item.tree, names))})"
    sigma = copy.copy(original)
    sigma.detection = SigmaDetections(detections, [f"({condition}){joined}" for condition in conditions])
    return sigma


def _names(item: FilterRule, number: int, taken: Collection[str]) -> dict[str, str]:
    """Names of a filter's detections within a rule."""
    names: dict[str, str] = {}
    used = set(taken)
    for name in item.detection.sigma.detection.detections:
        new = f"_filter_{number}_{str(name).translate(_WHITE)}"
        while new in used:
            new += "_"
        used.add(new)
        names[name] = new
    return names

"""What rules say of themselves, by rule id, for the page of their alerts.

Rules at work do not hold their text: it is read from the rule's file when somebody looks, and remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from console.rule_text import RuleText
from detections.correlation_rule import CorrelationRule
from detections.rule import Rule, RuleChangedError

REMEMBERED: Final = 256


def rule_texts(rules: Callable[[], Mapping[str, Rule | CorrelationRule]]) -> Callable[[str], RuleText | None]:
    """What gives description, known false positives, references and the text of the file of a rule, by its id.

    Args:
        rules: The rules and correlations at work, by id; asked each time, since they may have changed.
    """

    @lru_cache(maxsize=REMEMBERED)
    def text(rule_id: str, path: Path, _digest: str) -> RuleText | None:
        rule = rules().get(rule_id)
        return None if rule is None else _text(rule, path)

    def of(rule_id: str) -> RuleText | None:
        rule = rules().get(rule_id)
        return None if rule is None else text(rule_id, rule.path, rule.digest)

    return of


def _text(rule: Rule | CorrelationRule, path: Path) -> RuleText:
    source = _source(path)
    if isinstance(rule, CorrelationRule):
        return RuleText("", (), (), source)
    try:
        sigma = rule.sigma
    except RuleChangedError:  # being changed right now: its file alone is shown
        return RuleText("", (), (), source)
    return RuleText(
        description=sigma.description or "",
        falsepositives=tuple(map(str, sigma.falsepositives)),
        references=tuple(map(str, sigma.references)),
        source=source,
    )


def _source(path: Path) -> str:
    """A rule file's text; one that has gone since shows as empty."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""

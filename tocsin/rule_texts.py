"""What rules say of themselves, by rule id, for the page of their alerts: held in memory, since a page asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from console.rule_text import RuleText
from detections.rule import Rule


def rule_texts(rules: Sequence[Rule]) -> dict[str, RuleText]:
    """Rule id -> description, known false positives, references, and the text of the rule's file."""
    return {
        rule.id: RuleText(
            description=rule.sigma.description or "",
            falsepositives=tuple(map(str, rule.sigma.falsepositives)),
            references=tuple(map(str, rule.sigma.references)),
            source=_text_of(rule.path),
        )
        for rule in rules
    }


@lru_cache(maxsize=16)
def _text_of(path: Path) -> str:
    """A rule file's text; rules of one file follow each other. A file that has gone since shows as empty."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""

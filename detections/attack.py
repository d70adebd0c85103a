"""ATT&CK by the tags of rules: which techniques and tactics the rules that can match stand for.

Tags are `attack.t1059.001` for a technique and `attack.execution` for a tactic (Sigma specification, "Tags"). Groups
(`g0032`) and software (`s0002`) say who, not what, and are left out. The layer is the file that the MITRE ATT&CK
Navigator opens (layer format 4.5); it holds technique ids and counts, and no text of MITRE's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypedDict

from detections.coverage import RuleCoverage

_TECHNIQUE: Final = re.compile(r"attack\.(t\d{4}(?:\.\d{3})?)", re.IGNORECASE)
_TACTIC: Final = re.compile(r"attack\.([a-z]+(?:[-_][a-z]+)*)", re.IGNORECASE)

LAYER_VERSION: Final = "4.5"
RUNNING_COLOUR: Final = "#7fc97f"
BLIND_COLOUR: Final = "#fdc086"


def techniques(tags: Iterable[str]) -> tuple[str, ...]:
    """The techniques that tags name, such as `T1059.001`."""
    return tuple(dict.fromkeys(found[1].upper() for tag in tags if (found := _TECHNIQUE.fullmatch(tag))))


def tactics(tags: Iterable[str]) -> tuple[str, ...]:
    """The tactics that tags name, such as `lateral-movement`."""
    return tuple(dict.fromkeys(found[1].lower().replace("_", "-") for tag in tags if (found := _TACTIC.fullmatch(tag))))


@dataclass(frozen=True, slots=True)
class AttackCount:
    """Rules that stand for one technique or tactic.

    Attributes:
        running: Rules that can match what was seen.
        blind: Rules that cannot.
    """

    name: str
    running: int
    blind: int


def attack_counts(covered: Iterable[RuleCoverage]) -> tuple[tuple[AttackCount, ...], tuple[AttackCount, ...]]:
    """Techniques and tactics, each by name."""
    by_technique: dict[str, list[int]] = {}
    by_tactic: dict[str, list[int]] = {}
    for item in covered:
        tags = item.compiled.rule.tags
        for names, counts in ((techniques(tags), by_technique), (tactics(tags), by_tactic)):
            for name in names:
                counts.setdefault(name, [0, 0])[item.state != "can_match"] += 1
    return _sorted(by_technique), _sorted(by_tactic)


def _sorted(counts: dict[str, list[int]]) -> tuple[AttackCount, ...]:
    return tuple(AttackCount(name, running, blind) for name, (running, blind) in sorted(counts.items()))


class LayerTechnique(TypedDict):
    """One technique of a layer."""

    techniqueID: str
    score: int
    color: str
    comment: str
    enabled: bool


class Layer(TypedDict):
    """A Navigator layer."""

    name: str
    versions: dict[str, str]
    domain: str
    description: str
    sorting: int
    hideDisabled: bool
    techniques: list[LayerTechnique]
    legendItems: list[dict[str, str]]


def navigator_layer(counts: Iterable[AttackCount], name: str) -> Layer:
    """Techniques as a layer for the Navigator: the score is the number of rules that can match.

    ATT&CK for ICS (T0800 and up) is another domain of the Navigator and is left out.
    """
    return {
        "name": name,
        "versions": {"layer": LAYER_VERSION},
        "domain": "enterprise-attack",
        "description": "Score: Sigma rules that can match what was seen. Orange: only blind rules.",
        "sorting": 3,  # by score, highest first
        "hideDisabled": False,
        "techniques": [
            {
                "techniqueID": count.name,
                "score": count.running,
                "color": RUNNING_COLOUR if count.running else BLIND_COLOUR,
                "comment": f"{count.running} rules can match, {count.blind} are blind",
                "enabled": True,
            }
            for count in counts
            if count.name.startswith("T1")
        ],
        "legendItems": [
            {"label": "a rule can match", "color": RUNNING_COLOUR},
            {"label": "blind rules only", "color": BLIND_COLOUR},
        ],
    }

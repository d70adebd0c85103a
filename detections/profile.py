"""What each rule costs, measured on events: which ones to mend when the engine is too slow.

Every rule is timed alone, through the plain steps: fold it for the fields a frame has, decide its atoms (`masks`),
combine them (`verdict`). That is what the rule would cost if it were the only one. Together rules cost less than the
sum, since the plan lower-cases each column once for all of them, decides equal atoms once, and splits frames by event
id; so shares compare rules with each other and do not add up to the time of the plan, which is measured beside.

What is not in the figures: reading, parsing, and gathering the fields that are shown of a match.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import polars as pl

from detections.atoms import Atom, Expression, atoms_of
from detections.compile import CompiledRule
from detections.fields_needed import without_fields
from detections.keywords import through_keywords
from detections.masks import Mask, atom_masks, find_column, resolve_fields
from detections.necessary import has_literals, necessary_clause
from detections.plan import Plan
from detections.verdict import combine
from ingest.envelope import EventFrame

Reason: TypeAlias = Literal[
    "look-around", "regex", "keywords", "wildcards", "no literal", "many candidates", "many values"
]

SLICE_ROWS: Final = 65_536
"""Events evaluated at once."""

MANY_CANDIDATES: Final = 0.2
"""Share of events above which the necessary literals of a rule spare little."""

MANY_VALUES: Final = 100
"""Comparisons of one rule above which their number is what costs."""


@dataclass(slots=True)
class RuleCost:
    """What one rule cost.

    Attributes:
        seconds: Processor time of its own evaluation, all cores together.
        events: Events of the log sources it meets.
        candidates: Events that hold one of its necessary literals, which any engine must look at more closely; all
            events where it has no such literal.
        matches: Events it is true for.
    """

    compiled: CompiledRule
    clause: tuple[Atom, ...] | None
    seconds: float = 0.0
    events: int = 0
    candidates: int = 0
    matches: int = 0

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What about the rule is costly, the worst first."""
        atoms = set(atoms_of(self.compiled.expression))
        operators = {atom.operator for atom in atoms}
        found: dict[Reason, bool] = {
            "look-around": "re_slow" in operators,
            "keywords": any(atom.field is None for atom in atoms),
            "regex": "re" in operators,
            "no literal": not has_literals(self.clause),
            "many candidates": self.candidates > MANY_CANDIDATES * self.events > 0,
            "many values": len(atoms) > MANY_VALUES,
            "wildcards": "like" in operators,
        }
        return tuple(reason for reason, true in found.items() if true)


class Profile:
    """The cost of rules over events, frame by frame.

    Attributes:
        events: Events so far.
        plan_seconds: Processor time of the whole plan on them, `Plan.match` with all it does.

    Args:
        plan: The rules.
        clock: Processor time in seconds.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.process_time) -> None:
        self.events = 0
        self.plan_seconds = 0.0
        self._plan = plan
        self._clock = clock
        self._costs = [RuleCost(compiled, necessary_clause(compiled.expression)) for compiled in plan.rules]
        self._unread = [through_keywords(compiled.expression) for compiled in plan.rules]

    def add(self, frame: EventFrame) -> None:
        """Measure on a frame."""
        started = self._clock()
        self._plan.match(frame)
        self.plan_seconds += self._clock() - started
        self.events += frame.events.height
        names = resolve_fields(frame.events.columns)
        for start in range(0, frame.events.height, SLICE_ROWS):
            events = frame.events.slice(start, SLICE_ROWS)
            for cost, unread in zip(self._costs, self._unread, strict=True):
                if frame.logsource.unknown:
                    self._measure(cost, unread, events, names)
                elif cost.compiled.rule.logsource.meets(frame.logsource):
                    self._measure(cost, cost.compiled.expression, events, names)

    def costs(self) -> list[RuleCost]:
        """The rules that met events, the slowest first."""
        return sorted((cost for cost in self._costs if cost.events), key=lambda cost: -cost.seconds)

    @property
    def rule_seconds(self) -> float:
        """Processor time of all rules, each alone."""
        return sum(cost.seconds for cost in self._costs)

    def _measure(self, cost: RuleCost, expression: Expression, events: pl.DataFrame, names: dict[str, str]) -> None:
        if expression is False:
            return
        cost.events += events.height
        started = self._clock()
        absent = {
            name.lower() for atom in atoms_of(expression) for name in atom.fields if find_column(name, names) is None
        }
        left = without_fields(expression, absent)
        if left is False:
            cost.seconds += self._clock() - started
            return
        masks = atom_masks(events, dict.fromkeys(atoms_of(left)), names)
        mask = combine(left, masks)
        cost.seconds += self._clock() - started
        cost.matches += _rows(mask, events.height)
        cost.candidates += _rows(_any_of(cost.clause, masks), events.height)


def _any_of(clause: tuple[Atom, ...] | None, masks: dict[Atom, Mask]) -> Mask:
    """Where one of a clause is true; atoms that were folded away are false."""
    if clause is None or not has_literals(clause):
        return True
    total: Mask = False
    for atom in clause:
        mask = masks.get(atom, False)
        if mask is True:
            return True
        if mask is not False:
            total = mask if isinstance(total, bool) else total | mask
    return total


def _rows(mask: Mask, height: int) -> int:
    if isinstance(mask, bool):
        return height if mask else 0
    return int(mask.sum() or 0)

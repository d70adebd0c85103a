"""Why a rule is true or false for an event: every detection and every comparison in it, with the value it met.

The items are decided by the same code as in production; only nothing is folded away, so that each can be shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl
from sigma.processing.pipeline import ProcessingPipeline

from detections.atoms import Atom, Expression, atoms_of
from detections.compile import Placeholders, compile_named
from detections.masks import Mask, atom_masks, find_column, resolve_fields, text_column
from detections.plan import Plan
from detections.rule import Refusal, Rule
from detections.verdict import combine
from ingest.envelope import EVENT_ID, EventFrame


@dataclass(frozen=True, slots=True)
class ItemTruth:
    """One comparison of a rule on one event.

    Attributes:
        field: The field, or None for a keyword.
        value: What the event has there; None if nothing, and for keywords.
    """

    detection: str
    field: str | None
    operator: str
    wanted: str
    value: str | None
    true: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """A rule on one event.

    Attributes:
        matched: What production says.
        meets: Whether the rule sees events of this log source at all.
        detections: Name of each detection -> whether it is true.
    """

    event_id: str
    matched: bool
    meets: bool
    detections: Mapping[str, bool]
    items: tuple[ItemTruth, ...]


def explain(
    rule: Rule,
    frame: EventFrame,
    placeholders: Placeholders | None = None,
    pipeline: ProcessingPipeline | None = None,
) -> list[Explanation] | Refusal:
    """Explain a rule on each event of a frame; a rule that does not compile is refused as ever."""
    plan = Plan.build([rule], placeholders, pipeline)
    if plan.refused:
        return plan.refused[0]
    rule = plan.rules[0].rule  # as the pipeline left it
    named = compile_named(rule.sigma, placeholders or {})
    matched = set(plan.match(frame).get_column("event_id"))
    names = resolve_fields(frame.events.columns)
    atoms = dict.fromkeys(atom for expression in named.values() for atom in atoms_of(expression))
    masks = atom_masks(frame.events, atoms, names)
    verdicts = {name: combine(expression, masks) for name, expression in named.items()}
    return [
        Explanation(
            event_id=event_id,
            matched=event_id in matched,
            meets=rule.logsource.meets(frame.logsource),
            detections={name: _at(mask, row) for name, mask in verdicts.items()},
            items=tuple(_items(named, masks, frame.events, names, row)),
        )
        for row, event_id in enumerate(frame.events.get_column(EVENT_ID))
    ]


def explain_text(explanation: Explanation) -> list[str]:
    """An explanation as lines: the verdict, then each detection with its items, `+` before what is true."""
    verdict = "matches" if explanation.matched else "does not match"
    lines = [f"event {explanation.event_id}: {verdict}"]
    if not explanation.meets:
        lines.append("the rule does not see this log source")
    for name, true in explanation.detections.items():
        lines.append(f"{'+' if true else '-'} {name}")
        lines += [
            f"  {'+' if item.true else '-'} {item.field or 'keyword'} {item.operator} {item.wanted!r}"
            + ("" if item.field is None else f" (event: {item.value!r})")
            for item in explanation.items
            if item.detection == name
        ]
    return lines


def _items(
    named: Mapping[str, Expression],
    masks: Mapping[Atom, Mask],
    events: pl.DataFrame,
    names: Mapping[str, str],
    row: int,
) -> Iterator[ItemTruth]:
    for name, expression in named.items():
        for atom in dict.fromkeys(atoms_of(expression)):
            column = None if atom.field is None else find_column(atom.field, names)
            yield ItemTruth(
                detection=name,
                field=atom.field,
                operator=atom.operator,
                wanted=atom.text,
                value=None if column is None else text_column(events, column)[row],
                true=_at(masks[atom], row),
            )


def _at(mask: Mask, row: int) -> bool:
    return mask if isinstance(mask, bool) else bool(mask[row])

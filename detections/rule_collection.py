"""The documents of one file: `action: global`, `repeat` and `reset` join them, as pySigma does.

`global` is what the rules after it share, until `reset`; `repeat` is the rule before it with other parts put in.
Correlations and filters take nothing from `global`: a log source or a level shared by rules is not theirs. pySigma
repeats rules only; here a `repeat` that has `correlation` or `filter` repeats the last of its kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from detections.correlation_load import CorrelationDraft, read_correlation
from detections.documents import Document
from detections.filters import FilterRule, detection_lines, read_filter
from detections.read_rule import PYSIGMA_FAULTS, read_rule, refuse_document
from detections.references import canonical_id
from detections.rule import Refusal, Rule, RuleContentError

KINDS: Final = ("correlation", "filter", "detection")
"""Sections that make a document what it is."""


@dataclass(frozen=True, slots=True)
class RefusedDocument:
    """A document that is no rule.

    Attributes:
        bears: Its id and name as far as they could be read: what refers to them is told that it was refused.
    """

    refusal: Refusal
    bears: tuple[str, ...] = ()


Reading = Rule | CorrelationDraft | FilterRule | RefusedDocument


class RuleCollection:
    """One file, document after document.

    Attributes:
        rules: How many documents were meant as rules.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rules = 0
        self._shared: dict[str, object] = {}
        self._previous: dict[str, dict[str, object]] = {}

    def read(self, document: Document) -> Iterator[Reading]:
        """Read the next document."""
        content = dict(document.content)
        action = content.pop("action", None)
        kind = next((kind for kind in KINDS if kind in content), "detection")
        try:
            if action == "global":
                self._share(content)
            elif action == "reset":
                self._shared = {}
            else:
                self.rules += 1
                content = self._previous[kind] = self._whole(action, kind, content)
                yield self._reading(document, kind, content)
        except RuleContentError as error:
            yield self._refused(document, content, error)

    def _whole(self, action: object, kind: str, content: dict[str, object]) -> dict[str, object]:
        """What a document is with what it takes from those before it."""
        if action == "repeat":
            return merged(self._previous.get(kind, {}), content)
        if action is not None:
            raise RuleContentError(f"unknown action {action!r}; known: global, repeat, reset", "action")
        return merged(content, self._shared) if self._shared and kind == "detection" else content

    def _share(self, content: dict[str, object]) -> None:
        self._shared = {key: value for key, value in content.items() if key not in KINDS or key == "detection"}
        self._previous["detection"] = self._shared
        for kind in KINDS:
            if kind in content and kind != "detection":
                raise RuleContentError(f"rules share no {kind}: it stands in a document of its own", kind)

    def _reading(self, document: Document, kind: str, content: Mapping[str, object]) -> Reading:
        if kind == "filter":
            document = detection_lines(document)
        if sum(other in content for other in KINDS) > 1:
            reason = f"a document with {kind} is a {kind}: its other parts stand in documents of their own"
            return self._refused(document, content, RuleContentError(reason, kind))
        try:
            if kind == "correlation":
                return read_correlation(self.path, document, content)
            if kind == "filter":
                reading = read_filter(self.path, document, content)
                return RefusedDocument(reading) if isinstance(reading, Refusal) else reading
            return read_rule(self.path, document, content)
        except (RuleContentError, *PYSIGMA_FAULTS) as error:
            return self._refused(document, content, error)

    def _refused(self, document: Document, content: Mapping[str, object], error: Exception) -> RefusedDocument:
        own, name = content.get("id"), content.get("name")
        bears = [canonical_id(own)] if isinstance(own, str) else []
        bears += [name] if isinstance(name, str) else []
        return RefusedDocument(refuse_document(self.path, document, content, error), tuple(bears))


def merged(below: Mapping[str, object], above: Mapping[str, object], place: str = "") -> dict[str, object]:
    """Two maps as one; where both have a map the two are merged, else that of `above` stands.

    Raises:
        RuleContentError: One has a map where the other has something else.
    """
    result = dict(below)
    for key, value in above.items():
        if not isinstance(value, dict):
            result[key] = value
            continue
        other = below.get(key, {})
        if not isinstance(other, dict):
            where = f"{place}.{key}" if place else str(key)
            raise RuleContentError(f"{where} is a map in one of the documents joined here, and not in the other", where)
        result[key] = merged(other, value, f"{place}.{key}" if place else str(key))
    return result

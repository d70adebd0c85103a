"""Ids and names to the rules they stand for, over a whole pack, whichever files they stand in.

Sigma refers to a rule by its `id` or its `name`; a title is no reference. An id or a name that stands for two rules is
refused where it is used: to take one of them would be to guess. Source: Sigma specification, "Related rules".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from detections.rule import Refusal, RuleContentError

_TEXT_ID: Final = re.compile(r"[\w.:/@+-]{1,128}")
_NAMESPACE: Final = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
"""RFC 4122, Appendix C: names that are URLs."""


def canonical_id(text: str) -> str:
    """A UUID as it is usually written; any other id as it is."""
    try:
        return str(UUID(text))
    except ValueError:
        return text


def made_id(kind: str, title: str) -> str:
    """The id of a rule, correlation or filter without one: the same for the same title."""
    return str(uuid5(_NAMESPACE, f"tocsin:{kind}:{title}"))


def read_id(content: Mapping[str, object]) -> str | None:
    """The id of a rule, correlation or filter.

    Raises:
        RuleContentError: It is no text, or has characters that an id has not.
    """
    value = content.get("id")
    if value is None:
        return None
    if not isinstance(value, str):
        raise RuleContentError(f"an id is text, best a UUID, and not {value!r}", "id")
    known = canonical_id(value)
    if not _TEXT_ID.fullmatch(known):
        raise RuleContentError(
            f"id {value!r} is no UUID, nor a text of 1 to 128 letters, digits and . : / @ + - _", "id"
        )
    return known


def is_uuid(text: str) -> bool:
    """Whether an id is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Referable:
    """What a reference may stand for: a rule or a correlation that has been read."""

    id: str
    name: str | None
    title: str
    path: Path


class References:
    """Every id and name of a pack.

    Args:
        items: Rules and correlations.
        refused: Id or name -> why what bears it was refused.
    """

    def __init__(self, items: Iterable[Referable], refused: Mapping[str, Refusal]) -> None:
        self._items: dict[str, Referable] = {}
        self._named: dict[str, list[Referable]] = {}
        self._titles: dict[str, Referable] = {}
        self._refused = refused
        for item in items:
            self._items[item.id] = item
            self._titles.setdefault(item.title, item)
            if item.name is not None:
                self._named.setdefault(item.name, []).append(item)

    def resolve(self, reference: str, key: str) -> str:
        """The id that an id or a name stands for; `key` is where it is written, as in `Rule.lines`.

        Raises:
            RuleContentError: It stands for nothing, or for more than one rule.
        """
        meant = {item.id: item for item in self._named.get(reference, ())}
        if (by_id := self._items.get(canonical_id(reference))) is not None:
            meant[by_id.id] = by_id
        if len(meant) == 1:
            return next(iter(meant))
        if meant:
            these = ", ".join(f"{item.title!r} ({item.path})" for item in list(meant.values())[:_SHOWN])
            raise RuleContentError(f"{reference!r} stands for {len(meant)} rules: {these}; refer to one by its id", key)
        refusal = self._refused.get(canonical_id(reference)) or self._refused.get(reference)
        if refusal is not None:
            place = refusal.path if refusal.line is None else f"{refusal.path}:{refusal.line}"
            raise RuleContentError(f"it refers to {reference!r}, which was itself refused ({place})", key)
        hint = ""
        if (titled := self._titles.get(reference)) is not None:
            hint = f"; a title is no reference: refer to {titled.name or titled.id}"
        raise RuleContentError(f"no rule has the id or name {reference!r}{hint}", key)

    def spellings(self, rule_id: str) -> list[str]:
        """The id of a rule, and its name if it has one."""
        item = self._items[rule_id]
        return [item.id] if item.name is None else [item.id, item.name]

    def title(self, rule_id: str) -> str:
        """The title of a rule or correlation."""
        return self._items[rule_id].title


_SHOWN: Final = 5
"""Rules named in a message."""

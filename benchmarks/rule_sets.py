"""Packs of rules of any size: the first of SigmaHQ's, or all of them and varied copies.

A copy is a rule with another id and title whose literals are others: without that, an engine that shares equal literals
between rules would be measured on rules it need not run. Ids, numbers, log sources and the fields that say what kind of
event it is stay as they are, so a copy costs what its model costs, and (almost) never matches.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from benchmarks.lanes import SCRATCH, SIGMAHQ

KEPT_FIELDS: Final = frozenset({"eventid", "channel", "provider_name", "eventsource", "eventname", "c-method", "type"})
KEPT_MODIFIERS: Final = frozenset({"re", "cidr", "exists", "fieldref", "expand", "lt", "lte", "gt", "gte"})
WORD: Final = re.compile(r"[A-Za-z]{4,}")
NAMESPACE: Final = uuid.UUID("6f3a1a52-5d0e-4b7c-9a55-0f6a4f1f6c11")


def rule_pack(size: int) -> Path:
    """A folder with so many rules."""
    folder = SCRATCH / f"rules-{size}"
    if (folder / ".complete").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, text in enumerate(_texts(size)):
        (folder / f"{number:05d}.yml").write_text(text)
    (folder / ".complete").touch()
    return folder


def _texts(size: int) -> Iterator[str]:
    """The first rules spread over all of SigmaHQ's, then copies, round after round."""
    files = sorted(SIGMAHQ.rglob("*.yml"))
    texts = [path.read_text(encoding="utf-8") for path in files]
    step = max(1, len(texts) // size)
    chosen = texts[::step][:size]
    yield from chosen
    left, copy = size - len(chosen), 1
    while left > 0:
        for text in texts[:left]:
            yield _copied(text, copy)
        left, copy = left - len(texts), copy + 1


def _copied(text: str, copy: int) -> str:
    rule = yaml.load(text, Loader=yaml.CSafeLoader)
    rule["id"] = str(uuid.uuid5(NAMESPACE, f"{rule['id']} {copy}"))
    rule["title"] = f"{rule['title']} ({copy})"
    rule.pop("name", None)
    rule.pop("related", None)
    detection = rule["detection"]
    rule["detection"] = {
        name: part if name in {"condition", "timeframe"} else _varied(part, "", copy)
        for name, part in detection.items()
    }
    return yaml.dump(rule, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)


def _varied(part: object, key: str, copy: int) -> object:
    field, *modifiers = key.split("|")
    if field.lower() in KEPT_FIELDS or KEPT_MODIFIERS.intersection(modifiers):
        return part
    match part:
        case dict():
            return {name: _varied(value, str(name), copy) for name, value in part.items()}
        case list():
            return [_varied(value, key, copy) for value in part]
        case str():
            words = WORD.findall(part)
            longest = max(words, key=len, default="")
            return part.replace(longest, f"{longest}{'qxzj'[copy % 4]}{copy}", 1) if longest else part
        case _:
            return part

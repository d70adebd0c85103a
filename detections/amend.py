r"""Where pySigma 1.5 reads a rule otherwise than the Sigma specification, and how it is put right.

`amend_detection` runs before pySigma sees the map, `amend_rule` after it has parsed the rule:

- `utf16le` is in the specification and unknown to pySigma; it is another name of `wide`;
- a CIDR with host bits (`10.1.2.3/8`) raises; the network it stands for is meant;
- `|gt: "5"`, a quoted number, raises;
- a number under `contains`, `startswith`, `endswith` or `re` raises; its text is meant;
- `base64` and `base64offset` encode an escaped wildcard with its backslash (`\*` as two bytes), count characters where
  bytes are meant, and write the byte-order mark of `utf16` in UTF-8. They are encoded again from the original values.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Iterator
from typing import Final

from sigma.modifiers import (
    SigmaAllModifier,
    SigmaBase64Modifier,
    SigmaBase64OffsetModifier,
    SigmaUTF16BEModifier,
    SigmaUTF16Modifier,
    SigmaWideModifier,
)
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaRule
from sigma.types import SigmaExpansion, SigmaString, SigmaType

_NUMBER_MODIFIERS: Final = frozenset({"gt", "gte", "lt", "lte"})
_TEXT_MODIFIERS: Final = frozenset(
    {"contains", "startswith", "endswith", "re", "windash", "cased", "base64", "base64offset"}
)
_BASE64: Final = (SigmaBase64Modifier, SigmaBase64OffsetModifier)
_ENCODINGS: Final[dict[type[object], Callable[[str], bytes]]] = {
    SigmaWideModifier: lambda text: text.encode("utf-16-le"),
    SigmaUTF16BEModifier: lambda text: text.encode("utf-16-be"),
    SigmaUTF16Modifier: lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
}


def amend_detection(definition: object) -> object:
    """Rewrite the keys and values of a detection that pySigma would misread or refuse."""
    if isinstance(definition, list):
        return [amend_detection(item) for item in definition]
    if not isinstance(definition, dict):
        return definition
    amended: dict[object, object] = {}
    for key, value in definition.items():
        if isinstance(key, str) and "|" in key:
            field, *modifiers = key.split("|")
            names = ["wide" if name == "utf16le" else name for name in modifiers]
            amended["|".join([field, *names])] = _amend_values(frozenset(names), value)
        else:
            amended[key] = value
    return amended


def _amend_values(modifiers: frozenset[str], value: object) -> object:
    if isinstance(value, list):
        return [_amend_values(modifiers, item) for item in value]
    if "cidr" in modifiers and isinstance(value, str):
        try:
            return str(ipaddress.ip_network(value.strip(), strict=False))
        except ValueError:
            return value  # pySigma says what is wrong with it
    if modifiers & _NUMBER_MODIFIERS and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if modifiers & _TEXT_MODIFIERS and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


def amend_rule(rule: SigmaRule) -> None:
    """Encode the values of `base64` and `base64offset` items again, in place.

    To be called on a rule as parsed, before any processing pipeline: a pipeline replaces the original values.
    """
    for detection in rule.detection.detections.values():
        for item in _items(detection):
            if any(modifier in _BASE64 for modifier in item.modifiers):
                item.value = _encode_again(item)


def _items(detection: SigmaDetection) -> Iterator[SigmaDetectionItem]:
    for item in detection.detection_items:
        if isinstance(item, SigmaDetection):
            yield from _items(item)
        else:
            yield item


def _encode_again(item: SigmaDetectionItem) -> list[SigmaType]:
    """Apply the modifiers of an item: up to base64 over bytes, and those after it as pySigma does."""
    index = next(place for place, modifier in enumerate(item.modifiers) if modifier in _BASE64)
    before = [modifier for modifier in item.modifiers[:index] if modifier is not SigmaAllModifier]
    encode = item.modifiers[index]
    values: list[SigmaType] = []
    for original in item.original_value or []:
        text = plain_text(original)
        if text is None or len(before) > 1 or not set(before) <= set(_ENCODINGS):
            return item.value  # windash or the like before base64: pySigma's reading stands
        data = _ENCODINGS[before[0]](text) if before else text.encode()
        if encode is SigmaBase64Modifier:
            values.append(SigmaString.from_str(base64.b64encode(data).decode()))
        else:
            values.append(SigmaExpansion([SigmaString.from_str(part) for part in base64_offsets(data)]))
    applied = list(item.modifiers[: index + 1])
    for modifier in item.modifiers[index + 1 :]:
        if modifier is not SigmaAllModifier:  # it changed the item when that was made
            values = [result for value in values for result in modifier(item, applied, item.source).apply(value)]
        applied.append(modifier)
    return values


def plain_text(value: SigmaType) -> str | None:
    """The text of a string without wildcards, its escapes resolved; else None."""
    if not isinstance(value, SigmaString) or any(not isinstance(part, str) for part in value.s):
        return None
    return "".join(part for part in value.s if isinstance(part, str))


def base64_offsets(data: bytes) -> tuple[str, str, str]:
    """The three forms that `data` can take inside a longer base64 text.

    At offset i the i bytes before it are unknown, and so are those after it; characters that hold any of their bits are
    left out: the first 0, 2 or 3, and at the end 0, 3 or 2 (with padding), as length + i is 0, 1 or 2 modulo 3.
    """
    forms = []
    for offset, start in enumerate((0, 2, 3)):
        end = (None, -3, -2)[(len(data) + offset) % 3]
        forms.append(base64.b64encode(b" " * offset + data)[start:end].decode())
    return forms[0], forms[1], forms[2]

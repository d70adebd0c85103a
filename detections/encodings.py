r"""The modifiers that encode: `wide` and its kin, `base64`, `base64offset`.

pySigma 1.5 encodes text where bytes are meant: an escaped wildcard with its backslash (`\*` as two bytes), characters
counted instead of bytes, the byte-order mark of `utf16` in UTF-8, and no letter beyond ASCII under `wide`. So the
values of items with these modifiers are made again here, from what the author wrote:

- before `base64` and `base64offset`, `wide` (`utf16le`), `utf16be` and `utf16` say into which bytes the text goes;
- without them they put the bytes into the value as text. Bytes that are no text (the UTF-16 of `é`) are refused, as by
  pySigma: no field could hold them;
- text with letters beyond ASCII travels through pySigma in a stand-in, since it would refuse it (`stand_in`).

Modifiers that follow `expand` wait until the placeholders have their values: `expand|base64` encodes values, not names.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from sigma.exceptions import SigmaValueError
from sigma.modifiers import (
    SigmaAllModifier,
    SigmaBase64Modifier,
    SigmaBase64OffsetModifier,
    SigmaExpandModifier,
    SigmaModifier,
    SigmaNegateModifier,
    SigmaUTF16BEModifier,
    SigmaUTF16Modifier,
    SigmaWideModifier,
    SigmaWindowsDashModifier,
)
from sigma.rule import SigmaDetection, SigmaDetectionItem
from sigma.types import SigmaExpansion, SigmaString, SigmaStringPartType, SigmaType

Modifier: TypeAlias = type[SigmaModifier[Any, Any]]  # the parameters are those of pySigma's own table

BYTE_ORDER_MARK: Final = "\ufeff"
_STAND_IN: Final = re.compile("\x1a([0-9a-f]+)\x1a")
_BASE64: Final = (SigmaBase64Modifier, SigmaBase64OffsetModifier)
_ENCODINGS: Final[dict[Modifier, Callable[[str], bytes]]] = {
    SigmaWideModifier: lambda text: text.encode("utf-16-le"),
    SigmaUTF16BEModifier: lambda text: text.encode("utf-16-be"),
    SigmaUTF16Modifier: lambda text: (BYTE_ORDER_MARK + text).encode("utf-16-le"),
}
_ENCODERS: Final[tuple[Modifier, ...]] = (*_BASE64, *_ENCODINGS)
_OF_LISTS: Final[tuple[Modifier, ...]] = (SigmaAllModifier, SigmaNegateModifier)
"""They changed the item when it was made, and leave values alone."""


def stand_in(text: str) -> str:
    """A text in ASCII that `_original` turns back."""
    return "".join(char if char.isascii() and char != "\x1a" else f"\x1a{ord(char):x}\x1a" for char in text)


def _original(value: SigmaType) -> SigmaType:
    if not isinstance(value, SigmaString):
        return value
    return _with_parts(
        _STAND_IN.sub(lambda found: chr(int(found[1], 16)), part) if isinstance(part, str) else part for part in value.s
    )


def _with_parts(parts: Iterator[SigmaStringPartType]) -> SigmaString:
    made = SigmaString()
    made.s = list(parts)
    return made


def encode_detection(detection: SigmaDetection) -> None:
    """Make the values of encoding items again, in place, up to `expand` where others follow it.

    To be called on a detection as parsed, before any processing pipeline: a pipeline replaces the original values.

    Raises:
        SigmaError: A value cannot be encoded.
    """
    for item in items_of(detection):
        if late_modifiers(item):
            before = item.modifiers[: item.modifiers.index(SigmaExpandModifier) + 1]
            item.value = apply_modifiers(item, item.original_value or [], before)
        elif any(modifier in _ENCODERS for modifier in item.modifiers):
            item.value = apply_modifiers(item, item.original_value or [], item.modifiers)


def items_of(detection: SigmaDetection) -> Iterator[SigmaDetectionItem]:
    """The items of a detection, and of those within it."""
    for item in detection.detection_items:
        if isinstance(item, SigmaDetection):
            yield from items_of(item)
        else:
            yield item


def late_modifiers(item: SigmaDetectionItem) -> Sequence[Modifier]:
    """The modifiers of an item that wait for placeholders' values: those after `expand`, if one of them encodes."""
    if SigmaExpandModifier not in item.modifiers:
        return ()
    after = item.modifiers[item.modifiers.index(SigmaExpandModifier) + 1 :]
    return after if any(modifier in (*_ENCODERS, SigmaWindowsDashModifier) for modifier in after) else ()


def apply_modifiers(
    item: SigmaDetectionItem, values: Sequence[SigmaType], modifiers: Sequence[Modifier]
) -> list[SigmaType]:
    """Apply modifiers to values: those that encode as this module says, the others as pySigma does.

    Raises:
        SigmaError: A modifier does not take such a value.
    """
    made = [_original(value) for value in values]
    applied: list[Modifier] = []
    for place, modifier in enumerate(modifiers):
        following = modifiers[place + 1] if place + 1 < len(modifiers) else None
        if modifier in _OF_LISTS or (modifier in _ENCODINGS and following in _BASE64):
            pass
        elif modifier in _ENCODINGS:
            made = [_each(value, partial(_as_text, modifier=modifier)) for value in made]
        elif modifier in _BASE64:
            encode = _ENCODINGS.get(modifiers[place - 1], str.encode) if place else str.encode
            offsets = modifier is SigmaBase64OffsetModifier
            made = [_each(value, partial(_base64, encode=encode, offsets=offsets)) for value in made]
        else:
            made = [result for value in made for result in modifier(item, applied, item.source).apply(value)]
        applied.append(modifier)
    return made


def _each(value: SigmaType, convert: Callable[[SigmaString], list[SigmaType]]) -> SigmaType:
    """Convert a text, or each text of an expansion."""
    if isinstance(value, SigmaExpansion):
        return SigmaExpansion([_each(part, convert) for part in value.values])
    if not isinstance(value, SigmaString):
        raise SigmaValueError(f"only text can be encoded, not {value}")
    made = convert(value)
    return made[0] if len(made) == 1 else SigmaExpansion(made)


def _as_text(value: SigmaString, modifier: Modifier) -> list[SigmaType]:
    """The UTF-16 bytes of a text as text: each letter of ASCII with a NUL."""
    encode = _ENCODINGS[SigmaWideModifier if modifier is SigmaUTF16Modifier else modifier]
    parts: list[SigmaStringPartType] = [BYTE_ORDER_MARK] if modifier is SigmaUTF16Modifier else []
    for part in value.s:
        try:
            parts.append(encode(part).decode() if isinstance(part, str) else part)
        except UnicodeDecodeError as error:
            raise SigmaValueError(
                f"the UTF-16 bytes of {part!r} are no text; let base64 or base64offset follow"
            ) from error
    return [_with_parts(iter(parts))]


def _base64(value: SigmaString, encode: Callable[[str], bytes], offsets: bool) -> list[SigmaType]:
    text = plain_text(value)
    if text is None:
        raise SigmaValueError(f"{str(value)!r}: a text with wildcards cannot be encoded in base64")
    data = encode(text)
    forms = base64_offsets(data) if offsets else (base64.b64encode(data).decode(),)
    return [SigmaString.from_str(form) for form in forms]


def plain_text(value: SigmaString) -> str | None:
    """The text of a string without wildcards, its escapes resolved; else None."""
    if any(not isinstance(part, str) for part in value.s):
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

r"""Where pySigma 1.5 reads a rule otherwise than the Sigma specification, and how it is put right.

`amend_detection` runs before pySigma sees the map, `amend_rule` after it has parsed the rule:

- `utf16le` is in the specification and unknown to pySigma; it is another name of `wide`;
- `all`, `neq` and `cased` say nothing of the value's form, and may stand anywhere; pySigma wants `re`, `cidr` and
  `exists` to come first, and `cased` before `fieldref`;
- a CIDR with host bits (`10.1.2.3/8`) raises; the network it stands for is meant;
- a quoted number raises under `gt`, `lt`, `hour` and the like; the number is meant. `hour: 5.5` would become 5;
- a number under `contains`, `startswith`, `endswith` or `re` raises; its text is meant;
- whole numbers become floats, and large ones lose their last digits;
- `windash` finds `-` and `/` in a rule, and not the other dashes of the specification; each dash makes five times as
  many values, without a bound;
- every regex is tried with Python's `re`, which does not know `\p{L}`, `\x{41}` or `(?<name>a)` and warns of
  `[[:alpha:]]`; Rust's engine and the one that backtracks decide here, and pySigma sees a stand-in;
- `expand|fieldref` would compare with a field named `%name%`;
- what encodes (`wide`, `base64`, ...) does so wrongly: see `detections.encodings`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

import regex
from sigma.exceptions import SigmaModifierError, SigmaRegularExpressionError, SigmaValueError
from sigma.modifiers import SigmaRegularExpressionModifier
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaRule
from sigma.types import SigmaRegularExpression, SigmaString, SigmaType

from detections.bounded_regex import bounded_regex
from detections.comparisons import TOO_LARGE, rust_refusal, shortened
from detections.encodings import encode_detection, items_of, stand_in

MAX_DASHES: Final = 5
"""Dashes of one value under `windash`: 3,125 ways to write them. SigmaHQ needs 3."""

TIME_PARTS: Final[dict[str, tuple[int, int]]] = {
    "minute": (0, 59), "hour": (0, 23), "day": (1, 31), "week": (1, 53), "month": (1, 12), "year": (1, 9999),
}  # fmt: skip
"""Parts of a time and the least and the greatest value each can have."""

_COMPARISONS: Final = frozenset({"gt", "gte", "lt", "lte"})
_NUMBER_MODIFIERS: Final = _COMPARISONS | TIME_PARTS.keys()
_AFFIXES: Final = frozenset({"contains", "startswith", "endswith"})
_WIDE: Final = frozenset({"wide", "utf16", "utf16be"})
_TEXT_MODIFIERS: Final = _AFFIXES | _WIDE | {"re", "windash", "cased", "base64", "base64offset", "expand"}
_FLOAT_BITS: Final = 53
_ANYWHERE: Final = ("all", "neq")
_OTHER_DASHES: Final = re.compile(r"\B[–—―]\b")
_DASHES: Final = re.compile(r"\B[-/–—―]\b")
_REGEX_STAND_IN: Final = re.compile("\x1are((?:[0-9a-f]{2})+)\x1a")
_SHOWN_STAND_IN: Final = re.compile(r"(?:\x1a|\\x1a)re((?:[0-9a-f]{2})+)(?:\x1a|\\x1a)")


def amend_detection(definition: object) -> object:
    """Rewrite the keys and values of a detection that pySigma would misread or refuse.

    Raises:
        SigmaError: Modifiers that cannot be combined, or a value that one of them does not take.
    """
    if isinstance(definition, list):
        return [amend_detection(item) for item in definition]
    if not isinstance(definition, dict):
        return _exact(definition)
    amended: dict[object, object] = {}
    for key, value in definition.items():
        if isinstance(key, str) and "|" in key:
            field, *modifiers = key.split("|")
            names = _ordered(["wide" if name == "utf16le" else name for name in modifiers])
            amended["|".join([field, *names])] = _amend_values(frozenset(names), value)
        else:
            amended[key] = [_exact(item) for item in value] if isinstance(value, list) else _exact(value)
    return amended


def _ordered(modifiers: Sequence[str]) -> list[str]:
    """Modifiers in an order that pySigma takes and that means the same."""
    if "fieldref" in modifiers and "expand" in modifiers:
        raise SigmaModifierError("fieldref takes the name of a field, which cannot come from a placeholder")
    names = [name for name in modifiers if name not in _ANYWHERE]
    if "fieldref" in names and "cased" in names:
        names = ["cased", *(name for name in names if name != "cased")]
    return [*names, *(name for name in _ANYWHERE if name in modifiers)]


def _amend_values(modifiers: frozenset[str], value: object) -> object:
    if isinstance(value, list):
        return [_amend_values(modifiers, item) for item in value]
    if modifiers & _NUMBER_MODIFIERS:
        return _number(modifiers, value)
    if isinstance(value, int | float) and not isinstance(value, bool) and modifiers & _TEXT_MODIFIERS:
        value = str(value)
    return _text(modifiers, value) if isinstance(value, str) else _exact(value)


def _exact(value: object) -> object:
    """A whole number beyond those that a float holds as its text, to which it is equal."""
    return str(value) if isinstance(value, int) and value.bit_length() > _FLOAT_BITS else value


def _number(modifiers: frozenset[str], value: object) -> object:
    """A number, quoted or not; whole where it is a part of a time."""
    if isinstance(value, str):
        text = value
        try:
            value = int(text) if text.isascii() and text.removeprefix("-").isdigit() else float(text)
        except ValueError:
            raise SigmaValueError(f"{text[:60]!r} is no number") from None
    parts = modifiers & TIME_PARTS.keys()
    if not parts or isinstance(value, bool) or not isinstance(value, int | float):
        return value  # pySigma says what is wrong with it
    if len(parts) > 1:
        raise SigmaModifierError(f"a time has one part at a time, not {' and '.join(sorted(parts))}")
    (part,) = parts
    least, most = TIME_PARTS[part]
    if not _is_whole(value) or not (modifiers & _COMPARISONS or least <= value <= most):
        raise SigmaValueError(f"{part} is a whole number from {least} to {most}, not {str(value)[:60]}")
    return value


def _is_whole(value: float) -> bool:
    return isinstance(value, int) or value.is_integer()  # as a float, a large one would overflow


def _text(modifiers: frozenset[str], value: str) -> str:
    if "cidr" in modifiers:
        try:
            return str(ipaddress.ip_network(value.strip(), strict=False))
        except ValueError:
            return value  # pySigma says what is wrong with it
    if "re" in modifiers:
        if not value and modifiers & _AFFIXES:
            raise SigmaRegularExpressionError("an empty regex")
        if "expand" not in modifiers:
            return _regex_stand_in(value)
        try:
            re.compile(value)
        except (OverflowError, RecursionError) as error:  # which pySigma lets through; re.error it explains
            raise SigmaRegularExpressionError(f"regex {value[:60]!r}: {error}") from error
        except re.error:
            return value
    if "windash" in modifiers:
        if len(_DASHES.findall(value)) > MAX_DASHES:
            raise SigmaValueError(f"{value[:60]!r}: windash takes at most {MAX_DASHES} dashes in one value")
        value = _OTHER_DASHES.sub("-", value)
    return stand_in(value) if modifiers & _WIDE else value


def _regex_stand_in(pattern: str) -> str:
    """A text that pySigma takes for a regex, if one of the engines that run regexes takes this one."""
    refusal = rust_refusal(pattern)
    if refusal is not None and TOO_LARGE not in refusal:  # compiling the rule says that it is too large
        try:
            bounded_regex(pattern)
        except (regex.error, OverflowError, RecursionError) as error:
            raise SigmaRegularExpressionError(f"regex {shortened(pattern)!r} is invalid: {refusal}; {error}") from error
    return f"\x1are{pattern.encode('utf-8', 'surrogatepass').hex()}\x1a" if pattern else pattern


def amend_rule(rule: SigmaRule) -> None:
    """Put regexes in the place of their stand-ins and encode the values of `wide`, `base64` and the like, in place.

    To be called on a rule as parsed, before any processing pipeline: a pipeline replaces the original values.

    Raises:
        SigmaError: A value cannot be encoded.
    """
    for detection in rule.detection.detections.values():
        amend_parsed(detection)


def amend_parsed(detection: SigmaDetection) -> None:
    """What `amend_rule` does, to one detection."""
    for item in items_of(detection):
        if SigmaRegularExpressionModifier in item.modifiers:
            _put_regexes(item)
    encode_detection(detection)


def _put_regexes(item: SigmaDetectionItem) -> None:
    """Put regexes in the place of their stand-ins."""
    for value in item.value:
        if isinstance(value, SigmaRegularExpression) and (found := _REGEX_STAND_IN.search(str(value.regexp))):
            # What `contains` and its kin have put around it makes no difference: a regex is sought anywhere
            value.regexp = SigmaString(_stood_for(found), escape=False)
    if item.original_value:
        item.original_value = [_as_written(value) for value in item.original_value]


def _as_written(value: SigmaType) -> SigmaType:
    if not isinstance(value, SigmaString) or not (found := _REGEX_STAND_IN.fullmatch(value.original)):
        return value
    return SigmaString(_stood_for(found))


def said(message: str) -> str:
    """A message of pySigma, with regexes in the place of their stand-ins."""
    return _SHOWN_STAND_IN.sub(_stood_for, message)


def _stood_for(found: re.Match[str]) -> str:
    return bytes.fromhex(found[1]).decode("utf-8", "surrogatepass")

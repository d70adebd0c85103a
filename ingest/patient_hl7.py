r"""Identifiers of patients in HL7 v2: messages and segments as gateways log them.

MSH-1 and MSH-2 say how fields, components, repetitions and sub-components are parted (HL7 v2.5.1, section 2.5.4); a
segment without its MSH is read with the usual signs. Segments end with CR; logs write that as LF, `#015`, `\\r`,
`<CR>` or a space, so a segment also begins wherever its name and separator stand alone.

Segments on the patient and the family are replaced field by field, except for the few that say nothing of who they
are: what a site puts into a field of its own is then replaced too. In other segments the fields of `PATIENT_FIELDS` are
replaced, and those of type XCN, which name staff, are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ingest.patient_identifier import cut_identifier
from ingest.patient_nodes import Kept, Nodes, Patient, Reader, UnreadableError

_IDS: Final = "IPP"
PERSON_SEGMENTS: Final[Mapping[str, tuple[frozenset[int], Mapping[int, str]]]] = {
    "PID": (
        frozenset({1, 8, 15, 24, 25, 30, 31, 32, 33, 34}),
        {
            2: _IDS, 3: _IDS, 4: _IDS, 5: "NAM", 6: "NAM", 7: "DOB", 9: "NAM", 11: "ADR", 12: "ADR", 13: "TEL",
            14: "TEL", 18: "NDA", 19: "INS", 20: _IDS, 21: _IDS, 23: "ADR", 29: "OTH",
        },
    ),
    "MRG": (frozenset(), {1: _IDS, 2: _IDS, 3: "NDA", 4: _IDS, 5: "NDA", 6: "NDA", 7: "NAM"}),
    "NK1": (
        frozenset({1, 3, 7, 8, 9, 14, 15}),
        {
            2: "NAM", 4: "ADR", 5: "TEL", 6: "TEL", 12: _IDS, 16: "DOB", 26: "NAM", 30: "NAM", 31: "TEL", 32: "ADR",
            33: _IDS, 37: "INS",
        },
    ),
    "GT1": (
        frozenset({1, 9, 10, 11, 13, 14}),
        {2: _IDS, 3: "NAM", 4: "NAM", 5: "ADR", 6: "TEL", 7: "TEL", 8: "DOB", 12: "INS", 42: "NAM", 45: "NAM"},
    ),
    "IN1": (
        frozenset({1, 2, 3, 4, 12, 13, 15, 17}),
        {16: "NAM", 18: "DOB", 19: "ADR", 36: _IDS, 49: _IDS, 5: "ADR", 6: "NAM", 7: "TEL"},
    ),
    "IN2": (frozenset(), {1: _IDS, 2: "INS", 6: _IDS, 8: _IDS, 22: "NAM", 25: "NAM", 40: "NAM", 61: _IDS}),
}  # fmt: skip
"""Segment -> fields that stay, and the kinds of those that do not; a field in neither is replaced as "OTH"."""

PATIENT_FIELDS: Final[Mapping[str, Mapping[int, str]]] = {
    "PV1": {5: "NDA", 19: "NDA", 50: "NDA"},
    "QPD": {3: "QRY", 4: "QRY", 5: "QRY", 6: "QRY", 7: "QRY", 8: "QRY"},
    "QRD": {8: _IDS, 11: "QRY"},
    "QRF": {4: "QRY", 5: "QRY"},
    "SPR": {3: "QRY", 4: "QRY"},
    "VTQ": {5: "QRY"},
    "ERQ": {3: "QRY"},
    "OBX": {5: "TXT"},
    "NTE": {3: "TXT"},
    "FTS": {2: "TXT"},
    "DSP": {3: "TXT"},
    "ACC": {5: "ADR"},
}
"""Segment -> field -> kind, in segments that are not on a person."""

STAFF_FIELDS: Final[Mapping[str, frozenset[int]]] = {
    "EVN": frozenset({5}),
    "PD1": frozenset({4}),
    "PV1": frozenset({7, 8, 9, 17, 52}),
    "PV2": frozenset({13}),
    "ORC": frozenset({10, 11, 12, 19}),
    "OBR": frozenset({10, 16, 28, 32, 33, 34, 35}),
    "OBX": frozenset({16, 25}),
    "TXA": frozenset({5, 9, 10, 11, 22, 23}),
    "ROL": frozenset({4}),
    "PRT": frozenset({5}),
    "DG1": frozenset({16}),
    "PR1": frozenset({8, 11, 12}),
    "AIP": frozenset({3}),
    "SCH": frozenset({12, 16, 20}),
    "QRD": frozenset({10}),
    "RXA": frozenset({10}),
}
"""Fields of type XCN: who did it."""

_STAFF_SEGMENTS: Final = frozenset({"MSH", "STF", "PRA", "MFE", "MFI", "AFF", "EDU", "BHS", "FHS", "SFT"})
_NAME_TYPE: Final = 6
_NAME_TYPES: Final = re.compile("[A-Z]{1,2}")

_PERSONS: Final = "|".join(PERSON_SEGMENTS)
ALONE: Final = ("PV1", "OBX", "NTE", "QPD", "QRD", "QRF", "SPR", "DSP")
"""Segments that are known by their names also where their message was cut into lines."""
_ALONE: Final = "|".join(ALONE)
SIGNS: Final = "!#$~¦"
"""Unusual separators of a segment without its message."""
LOOKS: Final = re.compile(
    rf"(?<![A-Za-z0-9])(?:MSH(?=\||[^A-Za-z0-9\s]{{5}}|[^A-Za-z0-9]\^~)"
    rf"|(?:{_PERSONS})(?=\||(?P<sign>[{SIGNS}])[0-9]{{0,4}}(?P=sign))|(?:{_ALONE})(?=\|[^|\r\n]{{0,80}}\|)"
    r"|msh(?=\|\^~)|pid(?=\|[0-9]{0,4}\|[^|]{0,80}\|[^|^]{1,80}\^))"
)
"""What must be readable HL7 if it stands in a line."""

_SIGNS: Final = (
    r"""(?P<field>[^A-Za-z0-9\s"'<>])(?P<component>[^A-Za-z0-9\s])(?P<repeat>[^A-Za-z0-9\s])"""
    r"(?P<escape>[^A-Za-z0-9\s])(?P=escape)?(?P<sub>[^A-Za-z0-9\s])"
)
_HEADER: Final = re.compile(rf"(?<![A-Za-z0-9])MSH{_SIGNS}[^A-Za-z0-9\s]{{0,2}}(?P=field)")
_SHORT_HEADER: Final = re.compile(
    r"(?<![A-Za-z0-9])MSH(?P<field>[|])(?P<component>\^)(?P<repeat>~)(?P<escape>\\)\\?(?P=field)"
)
_MESSAGE: Final = re.compile(r"(?<![A-Za-z0-9])MSH(?=\||[^A-Za-z0-9\s]{5}|[^A-Za-z0-9]\^~)")
_PERSON_INSIDE: Final = re.compile(rf"(?<![A-Za-z])(?:{_PERSONS})(?P<sign>[^A-Za-z0-9\s])[^A-Za-z]{{0,40}}(?P=sign)")
_PERSON_GLUED: Final = re.compile(rf"(?:{_PERSONS})(?P<sign>[^A-Za-z0-9\s])[^A-Za-z]{{0,40}}(?P=sign)")
_BREAK: Final = (
    r"(?:[\r\n\x0b\x1c]|#01[235]|#034|\\r|\\n|\\x0[bBdDaA]|\\u000[dDaA]|<CR>|<LF>|<?0x0[dDaA]>?|%0[dDaA]|\^M|\[CR\]"
    r"|\[LF\])"
)
_SEGMENT: Final = r"(?:[A-Z][A-Z0-9]{2})"


@dataclass(frozen=True, slots=True)
class _Signs:
    field: str = "|"
    component: str = "^"
    repeat: str = "~"
    sub: str = "&"


def field_kind(segment: str, number: int) -> str | None:
    """Kind of what a field holds; None if it stays."""
    person = PERSON_SEGMENTS.get(segment)
    if person is not None:
        kept, kinds = person
        return None if number in kept else kinds.get(number, "OTH")
    return PATIENT_FIELDS.get(segment, {}).get(number)


def read_hl7(text: str, depth: int, read: Reader) -> Nodes:
    """Text that `LOOKS` like HL7.

    Raises:
        UnreadableError: A message whose separators cannot be told.
    """
    signs = _signs(text)
    names = _PERSONS if _MESSAGE.search(text) is not None else f"{_PERSONS}|{_ALONE}"
    begins = list(_segments(signs, names).finditer(text))
    if not begins:
        raise UnreadableError("HL7: no segment can be told apart")
    nodes: Nodes = read(text[: begins[0].start("name")], depth + 1)
    ends = [begin.start() for begin in begins[1:]] + [len(text)]
    for begin, end, after in zip(begins, ends, [*begins[1:], None], strict=True):
        nodes += _read_segment(text[begin.start("name") : end], signs, depth, read)
        if after is not None:
            nodes.append(Kept(text[end : after.start("name")]))
    return nodes


def _signs(text: str) -> _Signs:
    headers = list(_MESSAGE.finditer(text))
    known: set[_Signs] = set()
    for header in headers:
        found = _HEADER.match(text, header.start())
        if found is not None:
            known.add(_Signs(found["field"], found["component"], found["repeat"], found["sub"]))
        elif _SHORT_HEADER.match(text, header.start()) is not None:
            known.add(_Signs())
        else:
            raise UnreadableError("HL7: MSH does not say how fields are parted")
    if not headers:
        return _signs_of_segment(text)
    if len(known) > 1:
        raise UnreadableError("HL7: two messages part their fields in different ways")
    signs = known.pop()
    if len({signs.field, signs.component, signs.repeat, signs.sub}) < len(("field", "component", "repeat", "sub")):
        raise UnreadableError("HL7: MSH uses one sign for two things")
    return signs


def _signs_of_segment(text: str) -> _Signs:
    """Of a segment without its message: the sign behind its name parts the fields."""
    found = LOOKS.search(text)
    if found is not None and found[0].islower():
        raise UnreadableError("HL7: it writes its names in another case")
    if found is None or text[found.end()] != "|":
        raise UnreadableError("HL7: a segment without MSH and with unusual separators")
    return _Signs()


def _segments(signs: _Signs, names: str) -> re.Pattern[str]:
    """Where segments begin: any name behind a break; messages and those of `names` also behind other text.

    Taking a value for a segment would shift the fields behind it: a name behind a separator is a value.
    """
    sign = re.escape(signs.field)
    inside = re.escape(signs.field + signs.component + signs.repeat + signs.sub)
    return re.compile(
        rf"(?:(?:^|{_BREAK}{{1,4}})[ \t]{{0,4}}(?={_SEGMENT}{sign})"
        rf"|(?<![A-Za-z0-9{inside}])(?=(?:MSH|{names}){sign}))(?P<name>{_SEGMENT})"
    )


def _read_segment(text: str, signs: _Signs, depth: int, read: Reader) -> Nodes:
    name = text[:3]
    inside = _PERSON_GLUED if name == "MSH" else _PERSON_INSIDE
    if name not in PERSON_SEGMENTS and inside.search(text, 1) is not None:
        raise UnreadableError("HL7: a segment on a person that no break parts from the one before")
    if name in _STAFF_SEGMENTS:
        return [Kept(text)]
    nodes: Nodes = []
    kept = name  # what goes on as it is, gathered: most fields are empty
    staff = STAFF_FIELDS.get(name, frozenset())
    for number, field in enumerate(text.split(signs.field)[1:], start=1):
        kept += signs.field
        kind = field_kind(name, number) if field and number not in staff else ""
        if kind == "":
            kept += field
            continue
        nodes.append(Kept(kept))
        kept = ""
        nodes += read(field, depth + 1) if kind is None else _read_field(field, kind, signs)
    return [*nodes, Kept(kept)]


def _read_field(field: str, kind: str, signs: _Signs) -> Nodes:
    nodes: Nodes = []
    whole = kind in ("QRY", "TXT", "OTH")  # one token for all of it: a separator may be part of the text
    for number, repetition in enumerate([field] if whole else field.split(signs.repeat)):
        if number:
            nodes.append(Kept(signs.repeat))
        nodes.append(_replaced(repetition, kind, signs))
    return nodes


def _replaced(repetition: str, kind: str, signs: _Signs) -> Kept | Patient:
    """One repetition: nothing, or HL7's `""` for "delete it", says nothing of anyone."""
    if not repetition.strip(f' \t\r\n"\\{signs.component}{signs.sub}'):
        return Kept(repetition)
    if kind == "NAM":
        return _replaced_name(repetition, signs)
    value, rest, kind = cut_identifier(repetition, kind, signs.component)
    return Patient(repetition, kind, value, after=rest)


def _replaced_name(repetition: str, signs: _Signs) -> Patient:
    """XPN: family, given and middle names make the pseudonym; the type of the name (L, D, M ...) stays."""
    parts = repetition.split(signs.component)
    names = [parts[0].partition(signs.sub)[0].strip() or parts[0], *parts[1:3]]
    kind_of_name = parts[_NAME_TYPE].strip() if len(parts) > _NAME_TYPE else ""
    after = signs.component * _NAME_TYPE + kind_of_name if _NAME_TYPES.fullmatch(kind_of_name) else ""
    value = "^".join(names).rstrip("^ ") or repetition
    return Patient(repetition, "NAM", value, after=after, original=repetition)

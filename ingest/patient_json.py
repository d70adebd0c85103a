"""Identifiers of patients in JSON: FHIR resources, DICOM JSON, and the records of whatever calls its fields by name.

JSON is cut at its values without being rebuilt (RFC 8259); what is not changed stays byte for byte. Where a value
stands says what it is:

    FHIR            everything in a Patient or RelatedPerson but codes; of an AuditEvent the entities, never the agents
    references      {"reference": "Patient/123", "display": "..."}
    DICOM JSON      keys 0010gggg
    other records   keys such as "ipp" or "nomPatient", everything in an object called "patient"; "nom" or "name" beside
                    one of these

An object called "user" or "agent" is staff, and kept, wherever it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ingest.patient_identifier import cut_identifier, identifier_kind
from ingest.patient_keys import KEY_KINDS, WEAK_KINDS, plain_key
from ingest.patient_nodes import Kept, Nested, Nodes, Patient, Plain, Reader, UnreadableError
from ingest.patient_text import SHORTEST_NUMBER, tag_kind
from ingest.pseudonyms import PSEUDONYM

DEEPEST: Final = 64
"""Objects within objects. Precedent: a FHIR bundle has about 15."""

_SHOWN_KINDS: Final = {"display": "NAM", "text": "NAM"}
"""Keys that are a patient's within a patient or a reference to one only."""
_BESIDE: Final = frozenset({"NAM", "TEL", "ADR", "DOB"})
_PERSONS: Final = frozenset({"patient", "patients", "relatedperson", "malade", "usager", "beneficiaire", "patientinfo"})
_PERSON_TYPES: Final = frozenset({"Patient", "RelatedPerson", "Person"})
_STAFF: Final = frozenset(
    {
        "user", "users", "agent", "agents", "utilisateur", "utilisateurs", "actor", "practitioner", "requestor",
        "requester", "operator", "operateur", "professionnel", "auteur", "author", "activeparticipant", "observer",

    }
)  # fmt: skip
_PERSON_KEPT: Final = frozenset(
    {
        "resourcetype", "system", "use", "code", "coding", "gender", "sexe", "sex", "active", "type", "url", "profile",
        "lastupdated", "versionid", "meta", "vr", "unit", "mode", "service", "uf", "status", "action", "rank",
    }
)  # fmt: skip
_ENTITY_KEYS: Final[Mapping[str, str]] = {
    "name": "NAM", "description": "TXT", "query": "QRY", "valuestring": "OTH", "valuebase64binary": "OTH",
    "display": "NAM", "reference": "IPP", "value": "IPP",
}  # fmt: skip
_STAFF_ROLES: Final = frozenset(
    {"2", "5", "6", "8", "11", "12", "13", "14", "15", "16", "17", "18", "20", "21", "22", "23"}
)
_REFERENCE: Final = re.compile(
    r"(?P<before>.{0,200}?\b(?:Patient|RelatedPerson)/)(?P<id>[^/\s?#|]{1,64})(?P<after>(?:[/?#|].{0,200})?)"
)
_OTHERS: Final = re.compile(r"(?:.{0,200}/)?(?:Practitioner|PractitionerRole|Device|Location|Organization|Group)/")
_NUMBERS: Final = frozenset({"INS", "IPP", "NDA"})
_LABELS: Final = frozenset({"name", "key", "field", "attribute", "parameter", "param", "label", "code", "nom", "champ"})
_DICOM: Final = re.compile(r"0010([0-9A-Fa-f]{4})")

LOOKS: Final = re.compile(
    rf'"(?:resourceType|0010[0-9A-F]{{4}}|{"|".join(sorted({*_PERSONS, *KEY_KINDS}))})"\s{{0,8}}:',
    re.IGNORECASE,
)
"""What must be readable JSON if it has it."""

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<string>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<mark>[{}\[\],:])|(?P<scalar>-?[0-9][0-9.eE+\-]*|true|false|null))',
    re.DOTALL,
)
_BEGIN: Final = re.compile(r'\{\s*["}]')


@dataclass(slots=True)
class _Group:
    """An object or a list: `key` is its name in what it stands in."""

    mark: str
    key: str
    parent: _Group | None
    values: dict[str, str] = field(default_factory=dict)  # key in lower case without signs -> scalar beside
    groups: dict[str, _Group] = field(default_factory=dict)
    pending: str | None = None  # the key whose value is awaited
    state: str = "first"  # what may come: first, value, next, colon, key


@dataclass(frozen=True, slots=True)
class _Value:
    start: int
    end: int
    said: str | None  # None: a key's own text or a number
    raw: str
    key: str
    group: _Group
    is_key: bool = False


def begin_of_object(text: str, at: int) -> int | None:
    """Where the next object may begin."""
    found = _BEGIN.search(text, at)
    return None if found is None else found.start()


def read_object(
    text: str, at: int, depth: int, read: Reader, named: Mapping[str, str] = MappingProxyType({})
) -> tuple[Nodes, int] | None:
    """The object that begins at `at`, and where it ends; None if this is no JSON.

    Args:
        text: The line.
        at: Where.
        depth: How many notations the text is within.
        read: Takes other text apart.
        named: Further keys, as `plain_key` writes them, and the kinds of what they hold.

    Raises:
        UnreadableError: This is no JSON, and looks like a patient's record.
    """
    try:
        values, end = _cut(text, at)
    except UnreadableError:
        if LOOKS.search(text, at) is not None:
            raise
        return None
    return _nodes(text, (at, end), values, depth, read, named), end


def _cut(text: str, at: int) -> tuple[list[_Value], int]:
    """The values of the object that begins here, and where it ends."""
    values: list[_Value] = []
    group: _Group | None = None
    depth = 0
    while True:
        token = _TOKEN.match(text, at)
        if token is None:
            raise UnreadableError("JSON: it cannot be read to its end")
        at = token.end()
        mark = token["mark"]
        if mark in ("{", "["):
            group = _opened(mark, group)
            depth += 1
            if depth > DEEPEST:
                raise UnreadableError(f"JSON: more than {DEEPEST} objects within one another")
        elif group is None:
            raise UnreadableError("JSON: it begins with no object")
        elif mark in ("}", "]"):
            if group.mark != ("{" if mark == "}" else "[") or group.state not in ("first", "next"):
                raise UnreadableError("JSON: objects or lists do not nest")
            depth -= 1
            group = group.parent
            if group is None:
                return values, at
            group.state = "next"
        elif mark == ",":
            _expect(group, "next")
            group.state = "key" if group.mark == "{" else "value"
        elif mark == ":":
            _expect(group, "colon")
            group.state = "value"
        else:
            values.append(_scalar(token, group))


def _expect(group: _Group, state: str) -> None:
    if group.state != state:
        raise UnreadableError("JSON: a sign where none may stand")


def _opened(mark: str, parent: _Group | None) -> _Group:
    if parent is None:
        return _Group(mark, "", None)
    if parent.state == "first" and parent.mark == "[":
        parent.state = "value"
    _expect(parent, "value")
    key = parent.pending if parent.mark == "{" and parent.pending is not None else parent.key
    group = _Group(mark, key, parent)
    parent.groups.setdefault(key, group)
    return group


def _scalar(token: re.Match[str], group: _Group) -> _Value:
    raw = token["string"] or token["scalar"]
    start = token.end() - len(raw)
    said = _said(raw) if token["string"] else None
    if group.mark == "{" and group.state in ("first", "key"):
        if said is None:
            raise UnreadableError("JSON: a key that is no text")
        group.pending = plain_key(said)
        group.state = "colon"
        return _Value(start, token.end(), said, raw, "", group, is_key=True)
    if group.state == "first":
        group.state = "value"
    _expect(group, "value")
    group.state = "next"
    key = group.pending if group.mark == "{" and group.pending is not None else group.key
    if key not in group.values or said in _PERSON_TYPES or _REFERENCE.fullmatch(said or ""):
        group.values[key] = raw if said is None else said  # of a key that stands twice, what says "patient" counts
    return _Value(start, token.end(), said, raw, key, group)


def _said(raw: str) -> str:
    if "\\" not in raw:
        return raw[1:-1]
    try:
        return str(json.loads(raw, strict=False))
    except ValueError as error:
        raise UnreadableError("JSON: an escape that does not exist") from error


def _nodes(
    text: str, whole: tuple[int, int], values: list[_Value], depth: int, read: Reader, named: Mapping[str, str]
) -> Nodes:
    nodes: Nodes = []
    at, end = whole
    for value in values:
        nodes.append(Kept(text[at : value.start]))
        if value.is_key:
            nodes += _key_node(value, depth, read)
        else:
            nodes += _node(value, named.get(value.key) or _kind(value), depth, read)
        at = value.end
    nodes.append(Kept(text[at:end]))
    return nodes


def _key_node(value: _Value, depth: int, read: Reader) -> Nodes:
    if len(value.raw) < SHORTEST_KEY:
        return [Kept(value.raw)]
    said = value.said or ""
    if sum(sign.isdigit() for sign in said) >= MANY_DIGITS and any(
        _of_patient(group) for group in _around(value.group)
    ):
        return [Patient(value.raw, identifier_kind(said), said, before='"', after='"')]
    return [Nested(value.raw, read(said, depth + 1), _quoted)]


def _node(value: _Value, kind: str | None, depth: int, read: Reader) -> Nodes:
    if kind == "" or (kind is None and value.said is None and len(value.raw) < SHORTEST_KEY):
        return [Kept(value.raw)]
    said = value.raw if value.said is None else value.said
    if kind is None:
        return [Nested(value.raw, read(said, depth + 1), _quoted)]
    if not said.strip() or PSEUDONYM.fullmatch(said) or value.raw in ("true", "false", "null"):
        return [Kept(value.raw)]
    reference = _REFERENCE.fullmatch(said)
    if reference is not None:
        number = Patient(reference["id"], "IPP", reference["id"])
        return [Nested(value.raw, [Plain(reference["before"]), number, Plain(reference["after"])], _quoted)]
    said, rest, kind = cut_identifier(said, kind)
    kind = identifier_kind(said, kind) if kind == "IPP" else kind
    return [Patient(value.raw, kind, said, before='"', after=_quoted(rest)[1:])]


MANY_DIGITS: Final = 6
"""Digits from which a key within a patient is a number and no name of a field."""
SHORTEST_KEY: Final = 10
"""Keys shorter than this are names of fields and not searched for identifiers; numbers likewise."""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _around(group: _Group) -> Iterator[_Group]:
    inner: _Group | None = group
    while inner is not None:
        yield inner
        inner = inner.parent


def _kind(value: _Value) -> str | None:
    """Kind of the identifier a value is; "" if it is to be kept; None if it is other text."""
    key = value.key
    dicom = _dicom_kind(value)
    if dicom is not None:
        return dicom
    whose = [group for group in _around(value.group) if group.mark == "{"]
    if any(_of_patient(group) for group in whose):
        if any(group.key == "generalpractitioner" for group in whose):
            return ""
        return None if key in _PERSON_KEPT else _person_kind(value)
    for group in whose:
        if group.key in _STAFF:  # what only a patient has is a patient's also here
            kind = KEY_KINDS.get(key)
            return kind if kind in _NUMBERS or (kind and "patient" in key) else ""
        if group.key == "entity":
            return _entity_kind(value, group)
    if key in KEY_KINDS:
        return KEY_KINDS[key]
    if key == "div" and value.group.key == "text":
        return "TXT"  # a narrative of FHIR: the resource again, for people
    if (labelled := _labelled_kind(value)) is not None:
        return labelled
    if key in _PERSONS:
        digits = sum(sign.isdigit() for sign in value.raw)
        return "IPP" if digits >= SHORTEST_NUMBER else "NAM"
    weak = WEAK_KINDS.get(key)
    beside = value.group.values
    if weak in _BESIDE and any(strong in KEY_KINDS for strong in beside) and not _STAFF & beside.keys():
        return weak
    if weak in _BESIDE and key in ("nom", "prenom", "prenoms") and any(strong in KEY_KINDS for strong in beside):
        return weak
    return None


def _labelled_kind(value: _Value) -> str | None:
    """Of {"name": "patientName", "value": "..."}: what another value of the object says of this one."""
    if not value.key.startswith(("value", "val", "content", "text", "data", "old", "new")):
        return None
    labels = (plain_key(text) for key, text in value.group.values.items() if key in _LABELS)
    return next((KEY_KINDS[label] for label in labels if label in KEY_KINDS), None)


def _of_patient(group: _Group) -> bool:
    """Whether an object is a patient, or a reference to one."""
    values = group.values
    return (
        group.key in _PERSONS
        or (group.key == "subject" and _in_resource(group) and not _OTHERS.match(values.get("reference", "")))
        or values.get("resourcetype") in _PERSON_TYPES
        or _REFERENCE.fullmatch(values.get("reference", "")) is not None
        or (values.get("type") in _PERSON_TYPES and group.key != "type")
    )


def _in_resource(group: _Group) -> bool:
    return any("resourcetype" in around.values for around in _around(group))


def _person_kind(value: _Value) -> str:
    for name in (value.key, *(group.key for group in _around(value.group))):
        kind = KEY_KINDS.get(name) or WEAK_KINDS.get(name) or _SHOWN_KINDS.get(name)
        if kind is not None and not (name == "value" and value.group.key == "telecom"):
            return kind
        if name in _PERSONS:
            break
    return "OTH"


def _entity_kind(value: _Value, entity: _Group) -> str | None:
    """AuditEvent.entity: who or what was touched (FHIR R4 and R5)."""
    role = entity.groups.get("role")
    code = role.values.get("code", "") if role is not None else ""
    what = entity.groups.get("what")
    reference = what.values.get("reference", "") if what is not None else ""
    if (code in _STAFF_ROLES and "Patient/" not in reference) or value.key in (
        "system",
        "code",
        "version",
        "type",
        "use",
    ):
        return None
    if value.key == "display" and value.group.key in ("type", "role", "lifecycle", "securitylabel", "coding"):
        return None
    if value.key == "reference":
        return "IPP" if _REFERENCE.fullmatch(value.said or "") else None
    return _ENTITY_KEYS.get(value.key) or KEY_KINDS.get(value.key)


def _dicom_kind(value: _Value) -> str | None:
    for group in _around(value.group):
        found = _DICOM.fullmatch(group.key)
        if found is not None:
            kept = value.key == "vr" or tag_kind(found[1]) is None
            return "" if kept else tag_kind(found[1])
    found = _DICOM.fullmatch(value.key)
    return tag_kind(found[1]) if found is not None else None

"""Audit messages of hospitals: IHE ATNA and DICOM, XML with the root element `AuditMessage`.

One message says who (ActiveParticipant, several), did what (EventIdentification), to what
(ParticipantObjectIdentification, several), as which system tells (AuditSourceIdentification). It comes within syslog,
RFC 5424 with the MSGID `IHE+RFC-3881` or `DICOM+RFC3881`, and is recognised by itself. Codes are written in two ways,
`csd-code`/`originalText` in DICOM's schema and `code`/`displayName` in RFC 3881's, and senders mix them: both are
read. A declaration of entities is refused (`ingest.formats.xml_text`); a message that was cut is read as far as it
goes, and remarked.

Where identifiers of patients lie is said here (`PATIENT_...`), since pseudonyms are put in their place before a line
reaches the bus. People of the staff (ActiveParticipant) are not among them: they are who must be accounted for.
Source: DICOM PS3.15, A.5; RFC 3881, section 5; IHE ITI TF-2, 3.20 (Record Audit Event).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree as ET

import polars as pl

from ingest.formats.atna_codes import code_name
from ingest.formats.audit_fields import AuditCode, AuditRecord, audit_pieces
from ingest.formats.columns import Json
from ingest.formats.piece import Parsed
from ingest.formats.xml_text import local_name, read_tree

DATASET: Final = "atna"

RECOGNISE: Final = (
    r"^(?:[ \t\r\n\x{feff}]|<\?[^>]*>|<!--[^>]*>)*<(?:!DOCTYPE[ \t\r\n]+)?(?:[A-Za-z0-9_.-]+:)?"
    r"(?:[Aa]udit[Mm]essage|AUDITMESSAGE)[ \t\r\n>/\[]"
)
"""An XML declaration, instructions and comments may stand before; a document type only to be refused by its reason.
ASCII classes: with those of Unicode a line costs a hundred times as much."""

PATIENT_OBJECT: Final = "ParticipantObjectIdentification"
"""The element that may be of a patient."""

PATIENT_ROLE: Final = ("ParticipantObjectTypeCodeRole", "1")
"""It is of a patient if this attribute has this value (RFC 3881, 5.5.2), whatever ParticipantObjectTypeCode says."""

PATIENT_ID_TYPES: Final = frozenset({"1", "2", "3", "4", "5", "6", "7"})
"""It is so as well if its ParticipantObjectIDTypeCode has one of these codes of RFC 3881 (5.5.4): medical record,
patient, encounter, enrollee, social security, account and guarantor number."""

PATIENT_ATTRIBUTES: Final = ("ParticipantObjectID",)
"""Attributes of such an element that identify the patient."""

PATIENT_ELEMENTS: Final = ("ParticipantObjectName", "ParticipantObjectQuery", "ParticipantObjectDescription")
"""Children of such an element whose text identifies the patient; the query is base64 and holds what was asked for."""

PATIENT_DETAIL: Final = ("ParticipantObjectDetail", "value")
"""A child of such an element, and its attribute, base64, that may hold anything on the patient."""

PATIENT_ELEMENTS_OF_ANY_OBJECT: Final = ("ParticipantObjectQuery",)
"""Children that hold patients' data whatever the object is: the text of a query names whom it asks for."""

_EVENT: Final = {
    name.lower(): name
    for name in ("EventActionCode", "EventDateTime", "EventOutcomeIndicator", "EventOutcomeDescription")
}
_PARTICIPANT: Final = {
    name.lower(): name
    for name in (
        *("UserID", "AlternativeUserID", "UserName", "UserIsRequestor"),
        *("NetworkAccessPointID", "NetworkAccessPointTypeCode"),
    )
}
_SOURCE: Final = {name.lower(): name for name in ("AuditSourceID", "AuditEnterpriseSiteID")}
_OBJECT: Final = {
    f"participantobject{name.lower()}": name
    for name in ("ID", "TypeCode", "TypeCodeRole", "DataLifeCycle", "Sensitivity", "Name", "Query")
}
_ENCODED: Final = frozenset({"Query"})


def parse_atna(lines: pl.DataFrame) -> Parsed:
    """Pieces of audit messages; XML that is none of them is a reject."""
    events: list[tuple[int, dict[str, Json]]] = []
    rejects: dict[int, str] = {}
    remarks: dict[int, str] = {}
    for row, payload in zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True):
        fields, remark = message_fields(payload)
        if fields is None:
            rejects[row] = remark or "no audit message"
            continue
        if remark is not None:
            remarks[row] = remark
        events.append((row, fields))
    return Parsed(audit_pieces(DATASET, events), rejects, remarks)


def message_fields(text: str) -> tuple[dict[str, Json] | None, str | None]:
    """(fields of one message, None or a remark), or (None, why it is not one)."""
    tree = read_tree(text.lstrip("\ufeff \t\r\n"))
    if tree.root is None:
        return None, tree.remark
    if local_name(tree.root.tag) != "auditmessage":
        return None, "XML, but no audit message"
    record = _record(tree.root)
    if record.empty:
        return None, tree.remark or "an audit message that says nothing"
    fields, left_out = record.fields()
    return fields, "; ".join(filter(None, (tree.remark, left_out))) or None


def _record(root: ET.Element) -> AuditRecord:
    record = AuditRecord()
    for part in root:
        kind = local_name(part.tag)
        if kind == "eventidentification":
            _read_event(record, part)
        elif kind == "activeparticipant":
            record.participants.append(_participant(part))
        elif kind == "auditsourceidentification":
            _read_source(record, part)
        elif kind == "participantobjectidentification":
            record.objects.append(_object(part))
    return record


def _attributes(part: ET.Element, known: dict[str, str]) -> dict[str, str]:
    """The attributes of an element that are known, under their usual names."""
    found = {}
    for key, value in part.items():
        name = known.get(local_name(key))
        if name is not None:
            found[name] = value
    return found


def _read_event(record: AuditRecord, part: ET.Element) -> None:
    record.event |= _attributes(part, _EVENT)
    for child in part:
        kind = local_name(child.tag)
        if kind == "eventid":
            record.identified(_code(child))
        elif kind == "eventtypecode":
            record.types.append(_code(child))
        elif kind == "purposeofuse":
            record.purposes.append(_code(child))
        elif kind in _EVENT:  # the description of the outcome is an element in DICOM's schema
            record.event[_EVENT[kind]] = child.text or ""


def _participant(part: ET.Element) -> dict[str, str]:
    found = _attributes(part, _PARTICIPANT)
    roles = [_code(child) for child in part if local_name(child.tag) == "roleidcode"]
    if roles:
        found["RoleIDCode"] = " ".join(role.code for role in roles)
        found["RoleName"] = ", ".join(role.name for role in roles if role.name)
    return found


def _read_source(record: AuditRecord, part: ET.Element) -> None:
    for name, value in _attributes(part, _SOURCE).items():
        record.event.setdefault(name, value)
    types = [_code(child).code for child in part if local_name(child.tag) == "auditsourcetypecode"]
    types.append(part.get("code", ""))  # DICOM's schema since 2011 has it here
    record.event.setdefault("AuditSourceTypeCode", " ".join(filter(None, types)))


def _object(part: ET.Element) -> dict[str, str]:
    found = _attributes(part, _OBJECT)
    details: list[str] = []
    descriptions: list[str] = []
    for child in part:
        kind = local_name(child.tag)
        if kind == "participantobjectidtypecode":
            code = _code(child)
            found["IDTypeCode"], found["IDTypeName"] = code.code, code.name
        elif kind == "participantobjectdetail":
            details.append(f"{child.get('type', '')}={decoded(child.get('value', ''))}")
        elif kind == "participantobjectdescription":
            descriptions += _texts(child)
        elif kind in _OBJECT:
            name, text = _OBJECT[kind], "".join(child.itertext()).strip()
            found[name] = decoded(text) if name in _ENCODED else text
    found["Detail"], found["Description"] = "; ".join(details), "; ".join(descriptions)
    return found


def _texts(part: ET.Element) -> Iterator[str]:
    """What an element and all within it say: texts, and attributes as `name=value`."""
    for element in part.iter():
        if element.text and element.text.strip():
            yield element.text.strip()
        for key, value in element.items():
            yield f"{key.rpartition('}')[2]}={value}"


def _code(part: ET.Element) -> AuditCode:
    """A coded value in either style; without a name of its own it gets that of the tables."""
    said = {local_name(key): value.strip() for key, value in part.items()}
    code = said.get("csd-code") or said.get("code") or (part.text or "").strip()
    system = said.get("codesystemname") or said.get("codesystem") or ""
    name = said.get("originaltext") or said.get("displayname") or code_name(code, system) or ""
    return AuditCode(code, system, name)


def decoded(text: str) -> str:
    """The text that is written as base64; whatever is not text in base64 stays as it is."""
    try:
        plain = base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return text
    return plain if plain.replace("\n", "").replace("\r", "").replace("\t", "").isprintable() else text

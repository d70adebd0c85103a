"""Identifiers of patients in XML: audit messages (IHE ATNA, DICOM), HL7 v2 in XML, CDA and FHIR.

Of an audit message `ParticipantObjectIdentification` says who or what was touched (DICOM PS3.15 A.5, RFC 3881
section 5.5; both write these names, and only their codes differ). Who acted, `ActiveParticipant`, is kept as it is.

    a patient             role 1 or 10 (guarantor), a code of identifier that is a person's, or a person who is no staff
                          -> ParticipantObjectID, Name, Query, Detail
    another person        roles of staff -> kept
    a study, a report, a query: the ID stays (a UID says nothing by itself); Name, Query, Detail, descriptions do not,
                          since systems write names into them

Not known here, and so replaced: any attribute or text of such an object that is on no list.
"""

from __future__ import annotations

import re
from typing import Final

from ingest.patient_hl7 import field_kind
from ingest.patient_identifier import identifier_kind
from ingest.patient_nodes import Nodes, Reader, UnreadableError
from ingest.patient_xml import COMMENT, Element, Piece, cut_xml, nodes_of

OBJECT: Final = "ParticipantObjectIdentification"
PATIENT_ROLES: Final = frozenset({"1", "7", "9", "10", "19"})
"""RFC 3881, 5.5.2: patient, list, subscriber, guarantor, customer."""
STAFF_ROLES: Final = frozenset(
    {"2", "5", "6", "8", "11", "12", "13", "14", "15", "16", "17", "18", "20", "21", "22", "23"}
)
"""Location, master file, user, doctor, security entity, group, resource and granularity, provider, destinations,
repositories, schedules, jobs, tables, routing: no patient."""
PATIENT_CODES: Final = {"1": "IPP", "2": "IPP", "3": "NDA", "4": "INS", "5": "INS", "6": "NDA", "7": "IPP"}
"""ParticipantObjectIDTypeCode (RFC 3881, 5.5.4) -> kind: record, patient, encounter, enrollee, social security, account
and guarantor number."""
DETAILS_KEPT: Final = frozenset(
    {"MSH-10", "QueryEncoding", "Repository Unique Id", "ihe:homeCommunityID", "urn:ihe:iti:xca:2010:homeCommunityId"}
)
"""Types of ParticipantObjectDetail that never speak of a person."""

_KEPT_ATTRIBUTES: Final = frozenset(
    {
        "ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole", "ParticipantObjectDataLifeCycle",
        "ParticipantObjectSensitivity", "csd-code", "code", "codeSystem", "codeSystemName", "codeSystemVersion",
        "originalText", "displayName", "UID", "NumberOfInstances", "type", "xmlns", "schemaLocation", "Anonymized",
        "Encrypted",
    }
)  # fmt: skip
_STAFF: Final = "ActiveParticipant"
_NAMES: Final = {
    name.lower(): name
    for name in (
        "AuditMessage", "EventIdentification", _STAFF, "AuditSourceIdentification", OBJECT, "Accession",
        "ParticipantObjectIDTypeCode", "ParticipantObjectName", "ParticipantObjectQuery", "ParticipantObjectDetail",
        "ParticipantObjectDescription",
    )
}  # fmt: skip

_HL7_FIELD: Final = re.compile(r"(PID|MRG|NK1|GT1|IN1|IN2|QPD|OBX|NTE)\.([0-9]{1,2})", re.IGNORECASE)
_PERSONS: Final = frozenset({"patient", "patientrole", "recordtarget", "relatedperson", "patientperson"})
_PERSON_KEPT: Final = frozenset(
    {
        "xmlns", "type", "root", "classcode", "determinercode", "typecode", "code", "codesystem", "codesystemname",
        "codesystemversion", "displayname", "use", "nullflavor", "unit", "assigningauthorityname", "schemalocation",
    }
)  # fmt: skip
_PERSON_KINDS: Final = {
    "id": "IPP", "identifier": "IPP", "extension": "IPP", "name": "NAM", "given": "NAM", "family": "NAM",
    "prefix": "NAM", "birthtime": "DOB", "birthdate": "DOB", "addr": "ADR", "address": "ADR", "telecom": "TEL",
    "line": "ADR", "city": "ADR",
}  # fmt: skip

LOOKS: Final = re.compile(
    r"ParticipantObject|</?(?:[\w.\-]+:)?(?:AuditMessage|recordTarget|patientRole|Patient|patientPerson|RelatedPerson"
    r"|(?:PID|MRG|NK1|GT1|IN1|IN2|QPD)(?:\.[0-9.]{1,6})?)(?=[\s/>#])",
    re.IGNORECASE,
)
"""What a line must be readable XML for, if it has it."""


def read_xml(text: str, depth: int, read: Reader) -> Nodes:
    """A line that `LOOKS` like XML on patients.

    Raises:
        UnreadableError: It cannot be read safely.
    """
    pieces = cut_xml(text)
    _gather(pieces)
    return nodes_of(pieces, _kind, read, depth)


def _gather(pieces: list[Piece]) -> None:
    """Note in each object what its IDTypeCode says; it is an element behind the ID."""
    for piece in pieces:
        element = piece.opens
        if element is not None and _NAMES.get(element.name.lower(), element.name) != element.name:
            raise UnreadableError("XML: an audit message that writes its names in another case")
        if element is not None and element.name == "ParticipantObjectIDTypeCode" and element.parent is not None:
            code = element.attributes.get("csd-code", element.attributes.get("code", ""))
            element.parent.facts["code"] = code.strip()
            system = element.attributes.get("codeSystemName", "")
            element.parent.facts["local"] = "" if system in ("", "RFC-3881", "RFC3881") else system


def _kind(piece: Piece) -> str | None:
    element = piece.element
    if piece.attribute == COMMENT:
        return "TXT"  # for people who debug: nobody reads it, and it may hold what the message says
    if element is None:
        return None
    within = element.within(OBJECT)
    if within is not None:
        return _object_kind(piece, element, within)
    if element.within(_STAFF) is not None:
        return ""
    return _segment_kind(piece, element) or _person_kind(piece, element)


def _is_patient(participant: Element) -> bool:
    role = _role(participant)
    person = participant.attributes.get("ParticipantObjectTypeCode", "" if role else "1").strip().lstrip("0") == "1"
    return role in PATIENT_ROLES or (person and role not in STAFF_ROLES)


def _role(participant: Element) -> str:
    return participant.attributes.get("ParticipantObjectTypeCodeRole", "").strip().lstrip("0")


def _object_kind(piece: Piece, element: Element, participant: Element) -> str | None:
    role = _role(participant)
    code = participant.facts.get("code", "")
    coded = PATIENT_CODES.get(code) if not participant.facts.get("local") else None
    if role in STAFF_ROLES and coded is None:
        return ""
    if piece.attribute in _KEPT_ATTRIBUTES:
        return None
    if element is participant:
        return _id_kind(piece, participant, coded)
    return _inner_kind(piece, element)


def _id_kind(piece: Piece, participant: Element, coded: str | None) -> str | None:
    """Of an object's own attributes, and of text that stands in it, which should not be there."""
    if piece.attribute == "ParticipantObjectID":
        if coded is not None or _is_patient(participant):
            return identifier_kind(piece.said, coded or "IPP")
        return None
    return "OTH" if piece.attribute or piece.said.replace("#012", "").replace("#015", "").strip() else None


def _inner_kind(piece: Piece, element: Element) -> str | None:
    if element.name == "ParticipantObjectName":
        return "NAM"
    if element.name == "ParticipantObjectQuery":
        return "QRY"
    if element.name == "ParticipantObjectDetail":
        kept = element.attributes.get("type", "") in DETAILS_KEPT
        return None if kept else "OTH"
    if element.name == "Accession":
        return "ACC"
    if element.name == "ParticipantObjectDescription" and not piece.attribute:
        return "TXT"
    return "OTH" if piece.said.replace("#012", "").replace("#015", "").strip() else None


def _segment_kind(piece: Piece, element: Element) -> str | None:
    """HL7 v2 in XML (the schema's names are SEGMENT.FIELD)."""
    around: Element | None = element
    while around is not None:
        named = _HL7_FIELD.fullmatch(around.name)
        if named is not None and not piece.attribute:
            kind = field_kind(named[1].upper(), int(named[2]))
            return identifier_kind(piece.said, kind) if kind else None
        around = around.parent
    return None


def _person_kind(piece: Piece, element: Element) -> str | None:
    """CDA and FHIR: everything below a person but codes."""
    around: Element | None = element
    kind = "OTH"
    while around is not None and around.name.lower() not in _PERSONS:
        kind = _PERSON_KINDS.get(around.name.lower(), kind) if kind == "OTH" else kind
        around = around.parent
    if around is None or piece.attribute.lower() in _PERSON_KEPT:
        return None
    kind = _PERSON_KINDS.get(piece.attribute, kind) if kind == "OTH" else kind
    return identifier_kind(piece.said, kind) if kind in ("IPP", "OTH") else kind

"""FHIR AuditEvent resources: the audit message of ATNA as JSON, in the shapes of STU3, R4 and R5.

R5 renamed much of R4: `type` became `category`, `subtype` became `code`, `outcome` an object, `network` three choices
of `networkString`, `networkUri` and `networkReference`, and codes that were a Coding are within a CodeableConcept. All
of them are read, whichever stand together. Fields and log source are those of ATNA (`ingest.formats.audit_fields`).

Where identifiers of patients lie is said here (`PATIENT_...`), since pseudonyms are put in their place before a line
reaches the bus.
Source: hl7.org/fhir, AuditEvent (STU3, R4, R5); IHE BALP (Basic Audit Log Patterns).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from ingest.formats.atna import decoded
from ingest.formats.atna_codes import IP_ADDRESS, PATIENT, code_name
from ingest.formats.audit_fields import AuditCode, AuditRecord, audit_pieces
from ingest.formats.columns import Json, as_text
from ingest.formats.piece import Piece
from ingest.formats.shapes import Alike, split_by

DATASET: Final = "fhir.auditevent"
RESOURCE: Final = "AuditEvent"

PATIENT_REFERENCE: Final = "Patient/"
"""An entity is a patient if its `what.reference` (`reference` in STU3) holds this, or its role or type has the code
1."""

PATIENT_PATHS: Final = (
    ("patient",),  # R5: whom the event is about
    ("text", "div"),  # the narrative repeats anything
    ("entity", "query"),  # of any entity, base64: the parameters of a search
)
"""Paths whose every value identifies patients, in any AuditEvent; lists on the way are walked through."""

PATIENT_ENTITY_PATHS: Final = (
    ("what", "reference"),
    ("what", "identifier", "value"),
    ("what", "display"),
    ("identifier", "value"),  # STU3
    ("reference", "reference"),  # STU3
    ("reference", "display"),
    ("name",),
    ("description",),
    ("detail", "valueString"),
    ("detail", "valueBase64Binary"),
    ("detail", "value"),  # STU3
)
"""Paths within an entity that is a patient."""

_FEW: Final = 200
"""Most items of a list that are looked at."""


def may_be_audit(keys: Container[str]) -> bool:
    """Whether objects with these keys may be AuditEvents."""
    return "resourceType" in keys and "recorded" in keys


def split_audit(same: Alike) -> tuple[Alike | None, Alike | None]:
    """(the AuditEvents of these objects, the others); None for none."""
    parts = split_by(same, [value == RESOURCE for value in same.values("resourceType")])
    return parts.get(True), parts.get(False)


def fhir_pieces(shapes: list[Alike], remarks: dict[int, str]) -> list[Piece]:
    """Pieces of AuditEvents; what was left out of one is remarked."""
    events: list[tuple[int, dict[str, Json]]] = []
    for same in shapes:
        for row, event in zip(same.rows, same.events, strict=True):
            fields, remark = event_fields(event)
            if remark is not None:
                remarks[row] = f"{remarks[row]}; {remark}" if row in remarks else remark
            events.append((row, fields))
    return audit_pieces(DATASET, events)


def event_fields(event: dict[str, Json]) -> tuple[dict[str, Json], str | None]:
    """(the fields of one AuditEvent; None, or what was left out of them)."""
    record = AuditRecord()
    what = next(_codes(event.get("category")), None) if "category" in event else None
    what = what or next(_codes(event.get("type")), None)
    if what is not None:
        record.identified(what)
    record.types += [*_codes(event.get("subtype")), *_codes(event.get("code"))]
    record.purposes += [
        *_codes(event.get("purposeOfEvent")),
        *_codes(event.get("authorization")),
        *(code for agent in _objects(event.get("agent")) for code in _codes(agent.get("purposeOfUse"))),
    ]
    record.event |= _event(event)
    record.participants += [_agent(agent) for agent in _objects(event.get("agent"))]
    record.objects += [_entity(entity) for entity in _objects(event.get("entity"))]
    patient = _reference(event.get("patient"))
    if patient and not any(thing.get("TypeCodeRole") == PATIENT for thing in record.objects):
        record.objects.append({"ID": patient, "TypeCode": "1", "TypeCodeRole": PATIENT})
    return record.fields()


def _event(event: dict[str, Json]) -> dict[str, str]:
    outcome = event.get("outcome")
    source = _object(event.get("source"))
    details = [_text(item.get("text")) for item in _objects(_object(outcome).get("detail"))]
    code = _text(outcome) if isinstance(outcome, str) else next((found.code for found in _codes(outcome)), "")
    return {
        "EventActionCode": _text(event.get("action")),
        "EventDateTime": _text(event.get("recorded")),
        "EventOutcomeIndicator": code,
        "EventOutcomeDescription": _text(event.get("outcomeDesc")) or "; ".join(filter(None, details)),
        "AuditSourceID": _reference(source.get("observer")) or _identifier(source.get("identifier")),
        "AuditEnterpriseSiteID": _text(source.get("site"))
        if isinstance(source.get("site"), str)
        else _reference(source.get("site")),
        "AuditSourceTypeCode": " ".join(found.code for found in _codes(source.get("type"))),
    }


def _agent(agent: dict[str, Json]) -> dict[str, str]:
    network = _object(agent.get("network"))
    address = _text(network.get("address")) or _text(agent.get("networkString")) or _text(agent.get("networkUri"))
    roles = [*_codes(agent.get("type")), *_codes(agent.get("role"))]
    kind = _text(network.get("type"))
    if address and not kind:  # R5 does not say which it is: an address is known by its looks
        kind = IP_ADDRESS if address.replace(".", "").isdigit() or address.count(":") > 1 else "1"
    return {
        "UserID": _reference(agent.get("who"))
        or _identifier(agent.get("userId"))
        or _reference(agent.get("reference")),
        "AlternativeUserID": _text(agent.get("altId")),
        "UserName": _text(agent.get("name")) or _text(_object(agent.get("who")).get("display")),
        "UserIsRequestor": _text(agent.get("requestor")),
        "RoleIDCode": " ".join(role.code for role in roles),
        "RoleName": ", ".join(role.name for role in roles if role.name),
        "NetworkAccessPointID": address,
        "NetworkAccessPointTypeCode": kind,
    }


def _entity(entity: dict[str, Json]) -> dict[str, str]:
    details = [
        f"{_text(item.get('type')) or _joined(item.get('type'))}={_detail(item)}"
        for item in _objects(entity.get("detail"))
    ]
    identity = (
        _reference(entity.get("what")) or _identifier(entity.get("identifier")) or _reference(entity.get("reference"))
    )
    role = next((code.code for code in _codes(entity.get("role"))), "")
    return {
        "ID": identity,
        "TypeCode": next((code.code for code in _codes(entity.get("type"))), ""),
        "TypeCodeRole": role or (PATIENT if PATIENT_REFERENCE in identity else ""),
        "DataLifeCycle": next((code.code for code in _codes(entity.get("lifecycle"))), ""),
        "Sensitivity": " ".join(code.code for code in _codes(entity.get("securityLabel"))),
        "Name": _text(entity.get("name")) or _text(_object(entity.get("what")).get("display")),
        "Description": _text(entity.get("description")),
        "Query": decoded(_text(entity.get("query"))),
        "Detail": "; ".join(details),
    }


def _detail(item: dict[str, Json]) -> str:
    for key, value in item.items():
        if key.startswith("value"):
            text = _text(value)
            return decoded(text) if key in ("value", "valueBase64Binary") else text
    return ""


def _text(value: Json) -> str:
    return "" if isinstance(value, (dict, list)) else as_text(value) or ""


def _object(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _objects(value: Json) -> list[dict[str, Json]]:
    """The objects of a list; an object alone is one."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items[:_FEW] if isinstance(item, dict)]


def _codes(value: Json) -> Iterator[AuditCode]:
    """The codes of Codings and CodeableConcepts, alone or in a list; a text alone is a code."""
    if isinstance(value, str):
        yield AuditCode(value)
        return
    for item in _objects(value):
        inner = item.get("coding", item.get("code") if isinstance(item.get("code"), dict) else None)
        if inner is not None:
            for coding in _objects(inner):
                yield _coding(coding)
        elif "code" in item:
            yield _coding(item)


def _coding(coding: dict[str, Json]) -> AuditCode:
    code, system = _text(coding.get("code")), _text(coding.get("system"))
    return AuditCode(code, system, _text(coding.get("display")) or code_name(code, system) or "")


def _joined(value: Json) -> str:
    return " ".join(code.code for code in _codes(value))


def _identifier(value: Json) -> str:
    return _text(_object(value).get("value"))


def _reference(value: Json) -> str:
    """What a Reference points to: its identifier, else its reference, else what it is called."""
    found = _object(value)
    return _identifier(found.get("identifier")) or _text(found.get("reference")) or _text(found.get("display"))

"""Codes of audit messages and what they mean.

DICOM defines the events and the roles of participants, RFC 3881 the small enumerations of the message itself. A sender
need not write the meaning beside a code, and writes it in its own words if it does; rules match codes, people read
names. Source: DICOM PS3.16, CID 400 (event ids), CID 401 (event types), CID 402 (roles), CID 404 (objects); RFC 3881,
sections 5.1 to 5.5.
"""

from __future__ import annotations

from typing import Final

EVENT_IDS: Final[dict[str, str]] = {
    "110100": "Application Activity",
    "110101": "Audit Log Used",
    "110102": "Begin Transferring DICOM Instances",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110105": "DICOM Study Deleted",
    "110106": "Export",
    "110107": "Import",
    "110108": "Network Entry",
    "110109": "Order Record",
    "110110": "Patient Record",
    "110111": "Procedure Record",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
}
"""What happened: the code of EventID."""

EVENT_TYPES: Final[dict[str, str]] = {
    "110120": "Application Start",
    "110121": "Application Stop",
    "110122": "Login",
    "110123": "Logout",
    "110124": "Attach",
    "110125": "Detach",
    "110126": "Node Authentication",
    "110127": "Emergency Override Started",  # "bris de glace"
    "110128": "Network Configuration",
    "110129": "Security Configuration",
    "110130": "Hardware Configuration",
    "110131": "Software Configuration",
    "110132": "Use of Restricted Function",
    "110133": "Audit Recording Stopped",
    "110134": "Audit Recording Started",
    "110135": "Object Security Attributes Changed",
    "110136": "Security Roles Changed",
    "110137": "User security Attributes Changed",
    "110138": "Emergency Override Stopped",
    "110139": "Remote Service Operation Started",
    "110140": "Remote Service Operation Stopped",
    "110141": "Local Service Operation Started",
    "110142": "Local Service Operation Stopped",
}
"""How it happened: the codes of EventTypeCode."""

ROLES: Final[dict[str, str]] = {
    "110150": "Application",
    "110151": "Application Launcher",
    "110152": "Destination Role ID",
    "110153": "Source Role ID",
    "110154": "Destination Media",
    "110155": "Source Media",
}
"""What a participant did: the codes of RoleIDCode; those of people are the hospital's own."""

OBJECT_ID_TYPES: Final[dict[str, str]] = {
    "110180": "Study Instance UID",
    "110181": "SOP Class UID",
    "110182": "Node ID",
    "113877": "Device Name",
}
"""What identifies an object, in DICOM's codes."""

DICOM_NAMES: Final[dict[str, str]] = {**EVENT_IDS, **EVENT_TYPES, **ROLES, **OBJECT_ID_TYPES}
"""All of the above: no code has two meanings."""

RFC_3881_ID_TYPES: Final[dict[str, str]] = {
    "1": "Medical Record Number",
    "2": "Patient Number",
    "3": "Encounter Number",
    "4": "Enrollee Number",
    "5": "Social Security Number",
    "6": "Account Number",
    "7": "Guarantor Number",
    "8": "Report Name",
    "9": "Report Number",
    "10": "Search Criteria",
    "11": "User Identifier",
    "12": "URI",
}
"""What identifies an object, in the codes of RFC 3881, 5.5.4."""

TECHNICAL_ROLES: Final = frozenset({"110150", "110152", "110153", "110154", "110155"})
"""Roles of programs, nodes and media: a participant without one of these may be a person."""

DESTINATION_ROLE: Final = "110152"

DICOM_SYSTEMS: Final = frozenset(
    {
        "dcm",
        "dicom",
        "1.2.840.10008.2.16.4",
        "urn:oid:1.2.840.10008.2.16.4",
        "http://dicom.nema.org/resources/ontology/dcm",
    }
)
"""Names of DICOM's code system in lower case; 1.2.840.10008.2.16.4 is its OID (PS3.16, chapter 8)."""

RFC_3881_SYSTEMS: Final = frozenset({"rfc-3881", "rfc3881", "rfc 3881"})

IP_ADDRESS: Final = "2"
"""NetworkAccessPointTypeCode of an address; 1 is a machine's name, 3 a telephone number (RFC 3881, 5.3.2)."""

PERSON: Final = "1"
"""ParticipantObjectTypeCode of a person (RFC 3881, 5.5.1)."""

PATIENT: Final = "1"
"""ParticipantObjectTypeCodeRole of the patient (RFC 3881, 5.5.2)."""


def code_name(code: str, system: str) -> str | None:
    """What a code means, or None where its code system is another's."""
    folded = system.strip().lower()
    if folded in RFC_3881_SYSTEMS:
        return RFC_3881_ID_TYPES.get(code)
    return DICOM_NAMES.get(code) if not folded or folded in DICOM_SYSTEMS else None

"""Fields of an audit message of a hospital, in whichever form it came: the XML of ATNA, or FHIR's AuditEvent.

Both hold the same (FHIR's AuditEvent is ATNA's message in another dress, and ATNA lets it be sent in its place), so
both have the same log source and the same fields, and one rule reads both.

| field | is |
| --- | --- |
| `EventID`, `EventName` | code and meaning of what happened |
| `EventTypeCode`, `EventTypeName`, then `EventTypeCode2`, ... | how; DICOM's codes before those of others |
| `EventActionCode`, `EventDateTime`, `EventOutcomeIndicator`, `EventOutcomeDescription`, `PurposeOfUse` | of it |
| `AuditSourceID`, `AuditEnterpriseSiteID`, `AuditSourceTypeCode` | the system that tells |
| `ActiveParticipant.UserID`, `.AlternativeUserID`, `.UserName`, `.UserIsRequestor`, `.RoleIDCode`, `.RoleName`,
  `.NetworkAccessPointID`, `.NetworkAccessPointTypeCode` | who, first of all the person that asked for it;
  the others are `ActiveParticipant2.UserID`, ... |
| `ParticipantObject.ID`, `.Name`, `.TypeCode`, `.TypeCodeRole`, `.IDTypeCode`, `.IDTypeName`, `.DataLifeCycle`,
  `.Sensitivity`, `.Query`, `.Detail`, `.Description` | to what, in its order; then `ParticipantObject2.ID`, ... |
| `PatientID` | the identifier of the first object that is a patient |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from ingest.formats.atna_codes import DESTINATION_ROLE, DICOM_SYSTEMS, IP_ADDRESS, PATIENT, TECHNICAL_ROLES, code_name
from ingest.formats.columns import Json
from ingest.formats.piece import EnvelopeNames, Piece, spellings_of
from ingest.formats.shapes import alike, frames_of, transposed
from ingest.logsource import LogSource

T = TypeVar("T")

LOGSOURCE: Final = LogSource("atna", "audit")
"""SigmaHQ has no log source for these. One product, whichever the form: it names the profile that both are of."""

MAX_PARTICIPANTS: Final = 16
MAX_OBJECTS: Final = 32
MAX_TYPES: Final = 8
"""An event has a few of each; a transfer of many studies names each of them, and the rest is in the raw line."""

NAMES: Final = EnvelopeNames(
    time=(("EventDateTime", True),),
    host=("AuditSourceID", "AuditEnterpriseSiteID"),
    user=("user.name",),
    source_ip=("source.ip",),
    destination_ip=("destination.ip",),
)
"""Of several participants only this module knows whose name and address count: it writes the envelope's own names."""

_SPELLINGS: Final = spellings_of(NAMES)
_TRUE: Final = frozenset({"true", "1"})


@dataclass(frozen=True, slots=True)
class AuditCode:
    """A coded value.

    Attributes:
        code: The code itself.
        system: Name, OID or URL of its code system, or empty.
        name: What it means, or empty.
    """

    code: str
    system: str = ""
    name: str = ""

    @property
    def of_dicom(self) -> bool:
        """Whether it is one of DICOM's codes."""
        return self.system.lower() in DICOM_SYSTEMS or (not self.system and code_name(self.code, "") is not None)


@dataclass(slots=True)
class AuditRecord:
    """What a message says, before its participants are put in order.

    Attributes:
        event: Fields of the event and its source.
        types: Its types.
        purposes: What the data was used for.
        participants: Names after `ActiveParticipant.` -> values.
        objects: Names after `ParticipantObject.` -> values.
    """

    event: dict[str, str] = field(default_factory=dict)
    types: list[AuditCode] = field(default_factory=list)
    purposes: list[AuditCode] = field(default_factory=list)
    participants: list[dict[str, str]] = field(default_factory=list)
    objects: list[dict[str, str]] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether it says nothing at all."""
        return not (self.event or self.types or self.participants or self.objects)

    def identified(self, code: AuditCode) -> None:
        """Note what happened."""
        self.event["EventID"], self.event["EventName"] = code.code, code.name

    def fields(self) -> tuple[dict[str, Json], str | None]:
        """(the fields, without those that say nothing; None, or what was left out of them)."""
        participants = sorted(self.participants, key=_rank)
        types = sorted(self.types, key=lambda code: not code.of_dicom)
        said: dict[str, str] = dict(self.event)
        for place, code in _numbered(types[:MAX_TYPES]):
            said[f"EventTypeCode{place}"], said[f"EventTypeName{place}"] = code.code, code.name
        said["PurposeOfUse"] = " ".join(code.code for code in self.purposes)
        for place, participant in _numbered(participants[:MAX_PARTICIPANTS]):
            said |= {f"ActiveParticipant{place}.{name}": value for name, value in participant.items()}
        for place, thing in _numbered(self.objects[:MAX_OBJECTS]):
            said |= {f"ParticipantObject{place}.{name}": value for name, value in thing.items()}
        said["PatientID"] = next((thing.get("ID", "") for thing in self.objects if is_patient(thing)), "")
        said |= _envelope(participants)
        return {name: value for name, value in said.items() if value}, self._left_out()

    def _left_out(self) -> str | None:
        limits = (
            ("event types", self.types, MAX_TYPES),
            ("participants", self.participants, MAX_PARTICIPANTS),
            ("objects", self.objects, MAX_OBJECTS),
        )
        beyond = [f"more than {limit} {what}" for what, found, limit in limits if len(found) > limit]
        return f"{' and '.join(beyond)}: those beyond are in the raw line only" if beyond else None


def is_patient(thing: dict[str, str]) -> bool:
    """Whether an object of a message is a patient."""
    return thing.get("TypeCodeRole") == PATIENT


def _numbered(items: Sequence[T]) -> Iterable[tuple[str, T]]:
    """The first without a number, then 2, 3, ..."""
    return zip(("", *map(str, range(2, len(items) + 1))), items, strict=False)


def _rank(participant: dict[str, str]) -> int:
    """People who asked for it, then programs that did, then whoever else took part."""
    if participant.get("UserIsRequestor", "").strip().lower() not in _TRUE:
        return 2
    return 1 if TECHNICAL_ROLES.intersection(participant.get("RoleIDCode", "").split()) else 0


def _envelope(participants: list[dict[str, str]]) -> dict[str, str]:
    """Who did it, from which address, to which: the first participant that says so."""
    source = [one for one in participants if not _is_destination(one) or _rank(one) == 0]
    return {
        "user.name": next((one["UserID"] for one in participants if one.get("UserID")), ""),
        "source.ip": _first_address(source),
        "destination.ip": _first_address([one for one in participants if _is_destination(one)]),
    }


def _is_destination(participant: dict[str, str]) -> bool:
    return DESTINATION_ROLE in participant.get("RoleIDCode", "").split()


def _first_address(participants: list[dict[str, str]]) -> str:
    for one in participants:
        address = one.get("NetworkAccessPointID", "").strip()
        if address and one.get("NetworkAccessPointTypeCode", IP_ADDRESS).strip() == IP_ADDRESS:
            return address
    return ""


def audit_pieces(dataset: str, events: Iterable[tuple[int, dict[str, Json]]]) -> list[Piece]:
    """Pieces of the log source of audit messages."""
    shapes = [transposed(same) for same in alike(events)]
    return [Piece(LOGSOURCE, dataset, rows, frame, NAMES) for rows, frame in frames_of(shapes, spellings=_SPELLINGS)]

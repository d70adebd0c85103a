from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.formats.atna import message_fields
from ingest.formats.atna_codes import EVENT_IDS, EVENT_TYPES, code_name
from ingest.formats.audit_fields import LOGSOURCE, MAX_OBJECTS, MAX_PARTICIPANTS
from ingest.formats.fhir_audit import event_fields
from ingest.logsource import UNKNOWN
from ingest.parse import parse
from raw_lines import Row, batch, read

# Written after the tables of DICOM PS3.15 A.5.3 and the example's structure of PS3.17 WW; all values are made up.
DICOM = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<AuditMessage xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
    '<EventIdentification EventActionCode="R" EventDateTime="2026-02-28T11:00:00.123+01:00" EventOutcomeIndicator="0">'
    '<EventID csd-code="110104" codeSystemName="DCM" originalText="DICOM Instances Transferred"/>'
    '<EventTypeCode csd-code="ITI-43" codeSystemName="IHE Transactions" originalText="Retrieve Document Set"/>'
    '<EventTypeCode csd-code="110122" codeSystemName="DCM"/>'
    "<EventOutcomeDescription>all sent</EventOutcomeDescription></EventIdentification>"
    '<ActiveParticipant UserID="123" AlternativeUserID="AETITLE=PACS1" UserIsRequestor="true" '
    'NetworkAccessPointID="192.0.2.20" NetworkAccessPointTypeCode="2">'
    '<RoleIDCode csd-code="110153" codeSystemName="DCM" originalText="Source Role ID"/></ActiveParticipant>'
    '<ActiveParticipant UserID="67562" UserIsRequestor="false" NetworkAccessPointID="192.0.2.30" '
    'NetworkAccessPointTypeCode="2"><RoleIDCode csd-code="110152" codeSystemName="DCM"/></ActiveParticipant>'
    '<ActiveParticipant UserID="a.morvan" UserName="Dr Morvan" UserIsRequestor="true"/>'
    '<AuditSourceIdentification AuditEnterpriseSiteID="CH Kermor" AuditSourceID="pacs-kermor" code="4"/>'
    '<ParticipantObjectIdentification ParticipantObjectID="1.2.3.4" ParticipantObjectTypeCode="2" '
    'ParticipantObjectTypeCodeRole="3"><ParticipantObjectIDTypeCode csd-code="110180" codeSystemName="DCM"/>'
    '<ParticipantObjectDescription><Accession Number="A17"/></ParticipantObjectDescription>'
    "</ParticipantObjectIdentification>"
    '<ParticipantObjectIdentification ParticipantObjectID="8001^^^KERMOR" ParticipantObjectTypeCode="1" '
    'ParticipantObjectTypeCodeRole="1"><ParticipantObjectIDTypeCode csd-code="2" codeSystemName="RFC-3881"/>'
    "<ParticipantObjectName>TESTU^ANNE</ParticipantObjectName>"
    f'<ParticipantObjectDetail type="motif" value="{base64.b64encode(b"relecture").decode()}"/>'
    "</ParticipantObjectIdentification></AuditMessage>"
)
RFC_3881 = (
    DICOM.replace("csd-code", "code")
    .replace("originalText", "displayName")
    .replace("UserID", "userid")
    .replace("EventDateTime", "eventDateTime")
)
SAID = {
    "EventID": "110104",
    "EventName": "DICOM Instances Transferred",
    "EventTypeCode": "110122",
    "EventTypeName": "Login",
    "EventTypeCode2": "ITI-43",
    "EventTypeName2": "Retrieve Document Set",
    "EventActionCode": "R",
    "EventOutcomeIndicator": "0",
    "EventOutcomeDescription": "all sent",
    "AuditSourceID": "pacs-kermor",
    "AuditEnterpriseSiteID": "CH Kermor",
    "AuditSourceTypeCode": "4",
    "ActiveParticipant.UserID": "a.morvan",
    "ActiveParticipant.UserName": "Dr Morvan",
    "ActiveParticipant2.UserID": "123",
    "ActiveParticipant2.AlternativeUserID": "AETITLE=PACS1",
    "ActiveParticipant2.RoleIDCode": "110153",
    "ActiveParticipant3.UserID": "67562",
    "ActiveParticipant3.RoleName": "Destination Role ID",
    "ParticipantObject.ID": "1.2.3.4",
    "ParticipantObject.IDTypeName": "Study Instance UID",
    "ParticipantObject.Description": "Number=A17",
    "ParticipantObject2.ID": "8001^^^KERMOR",
    "ParticipantObject2.IDTypeName": "Patient Number",
    "ParticipantObject2.Name": "TESTU^ANNE",
    "ParticipantObject2.Detail": "motif=relecture",
    "PatientID": "8001^^^KERMOR",
    "user.name": "a.morvan",
    "source.ip": "192.0.2.20",
    "destination.ip": "192.0.2.30",
    "host.name": "pacs-kermor",
    "event.dataset": "atna",
}
HEADERS = [
    "",
    "\ufeff",
    "<86>1 2026-02-28T10:00:01Z srv-pacs dcm4chee 812 IHE+RFC-3881 - ",
    "<86>1 2026-02-28T10:00:01Z srv-pacs dcm4chee 812 DICOM+RFC3881 - \ufeff",
    "<86>Feb 28 10:00:01 srv-pacs atna: ",
    "<86>Feb 28 10:00:01 srv-pacs ",
]


@pytest.mark.parametrize("message", [DICOM, RFC_3881], ids=["DICOM", "RFC 3881"])
@pytest.mark.parametrize("header", HEADERS)
def test_both_styles_under_every_header(header: str, message: str) -> None:
    logsource, row = read((header + message).encode())
    assert logsource == LOGSOURCE
    assert SAID.items() <= row.items()
    assert row["@timestamp"] == datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC)
    assert "error.message" not in row


@pytest.mark.parametrize(
    "before", ["<!-- from: a -->", '<?xml-stylesheet href="a.xsl"?>\n', '<?xml version="1.0"?>\n <!-- b -->']
)
def test_what_may_stand_before_the_root(before: str) -> None:
    logsource, row = read((before + DICOM.partition("?>")[2]).encode())
    assert (logsource, row["EventID"]) == (LOGSOURCE, "110104")


def test_a_namespace_and_another_case() -> None:
    text = (
        '<x:auditmessage xmlns:x="urn:a"><x:eventIdentification eventactioncode="E" eventoutcomeindicator="8">'
        '<x:EventID CODE="110114" CodeSystemName="DCM"/></x:eventIdentification></x:auditmessage>'
    )
    logsource, row = read(text.encode())
    assert logsource == LOGSOURCE
    assert (row["EventID"], row["EventName"], row["EventOutcomeIndicator"]) == ("110114", "User Authentication", "8")


@pytest.mark.parametrize(
    ("code", "system", "name"),
    [
        ("110127", "DCM", "Emergency Override Started"),
        ("110127", "1.2.840.10008.2.16.4", "Emergency Override Started"),
        ("110105", "", "DICOM Study Deleted"),
        ("110133", "DCM", "Audit Recording Stopped"),
        ("2", "RFC-3881", "Patient Number"),
        ("2", "DCM", None),
        ("110127", "urn:local", None),
    ],
)
def test_names_of_codes(code: str, system: str, name: str | None) -> None:
    assert code_name(code, system) == name


def test_no_code_has_two_meanings() -> None:
    assert not EVENT_IDS.keys() & EVENT_TYPES.keys()


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE AuditMessage [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1 or str()};" * 10}">' for n in range(1, 10))
    + "]><AuditMessage><EventIdentification EventActionCode='&a9;'/></AuditMessage>"
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        '<!DOCTYPE AuditMessage SYSTEM "http://192.0.2.1/a.dtd"><AuditMessage/>',
        (
            '<?xml version="1.0"?><!-- --><!DOCTYPE AuditMessage [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            "<AuditMessage><EventIdentification EventActionCode='&x;'/></AuditMessage>"
        ),
    ],
)
def test_entities_are_refused_and_the_line_is_kept(text: str) -> None:
    started = time.process_time()
    logsource, row = read(text.encode())
    assert time.process_time() - started < 1
    assert logsource == UNKNOWN
    assert "document type declaration refused" in str(row["error.message"])
    assert row["event.original"] == text


def test_a_declaration_within_text_is_none() -> None:
    fields, remark = message_fields(DICOM.replace("all sent", "<![CDATA[<!DOCTYPE a []>]]>"))
    assert fields is not None
    assert (fields["EventOutcomeDescription"], remark) == ("<!DOCTYPE a []>", None)


def test_cut_everywhere_is_kept_and_marked() -> None:
    told = 0
    for end in range(len(DICOM)):
        fields, remark = message_fields(DICOM[:end])
        assert remark is not None
        if fields is not None:
            told += 1
            assert "cut or broken XML" in remark
            assert all(isinstance(value, str) for value in fields.values())
    assert told > len(DICOM) * 0.8  # all that reach the first element with something in it
    fields, remark = message_fields(DICOM.partition("<ActiveParticipant")[0])
    assert fields is not None
    assert (fields["EventID"], fields["EventOutcomeDescription"]) == ("110104", "all sent")


def test_cut_within_a_text_keeps_its_beginning() -> None:
    fields, _ = message_fields(DICOM.partition("ANNE")[0])
    assert fields is not None
    assert fields["ParticipantObject2.Name"] == "TESTU^"


def test_forbidden_characters_are_replaced() -> None:
    fields, remark = message_fields(DICOM.replace("Dr Morvan", "Dr\x01Morvan"))
    assert fields is not None
    assert fields["ActiveParticipant.UserName"] == "Dr\ufffdMorvan"
    assert "read all the same" in str(remark)


def test_many_participants_and_objects_are_bounded_and_said() -> None:
    participant = '<ActiveParticipant UserID="u" UserIsRequestor="false"/>' * (MAX_PARTICIPANTS + 1)
    thing = '<ParticipantObjectIdentification ParticipantObjectID="1"/>' * (MAX_OBJECTS + 1)
    fields, remark = message_fields(f"<AuditMessage>{participant}{thing}</AuditMessage>")
    assert fields is not None
    assert f"ActiveParticipant{MAX_PARTICIPANTS}.UserID" in fields
    assert f"ActiveParticipant{MAX_PARTICIPANTS + 1}.UserID" not in fields
    assert remark == "more than 16 participants and more than 32 objects: those beyond are in the raw line only"


@pytest.mark.parametrize(
    "text",
    [
        "<AuditMessage>" + '<ParticipantObjectIdentification ParticipantObjectID="1"/>' * 17_000 + "</AuditMessage>",
        "<AuditMessage>" + "<a>" * 300_000,
        "<AuditMessage a='" + "&lt;" * 250_000 + "'/>",
        "<AuditMessage>" + "<!DOCTYPE" * 110_000,
        "<AuditMessage>" + "<![CDATA[<!DOCTYPE]]>" * 50_000 + "</AuditMessage>",
    ],
    ids=["objects", "depth", "attribute", "declarations", "cdata"],
)
def test_a_megabyte_is_read_in_time(text: str) -> None:
    started = time.process_time()
    frames = parse(batch([text.encode()]))
    assert sum(frame.events.height for frame in frames) == 1
    assert time.process_time() - started < 5


def test_an_address_that_is_a_name_is_no_address() -> None:
    text = DICOM.replace('TypeCode="2">', 'TypeCode="1">').replace('TypeCode="2"><Role', 'TypeCode="1"><Role')
    row = read(text.encode())[1]
    assert "source.ip" not in row


def test_nobody_asked_for_it() -> None:
    row = read(DICOM.replace('UserIsRequestor="true"', 'UserIsRequestor="false"').encode())[1]
    assert (row["user.name"], row["ActiveParticipant.UserID"]) == ("123", "123")


R5 = {
    "resourceType": "AuditEvent",
    "category": [{"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110113"}]}],
    "code": {"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110127"}]},
    "action": "E",
    "recorded": "2026-02-28T10:00:00Z",
    "outcome": {"code": {"code": "0"}, "detail": [{"text": "opened"}]},
    "authorization": [{"coding": [{"code": "ETREAT"}]}],
    "agent": [
        {"who": {"display": "gateway"}, "requestor": False, "networkString": "192.0.2.9"},
        {"who": {"reference": "Practitioner/f001"}, "requestor": True, "networkString": "192.0.2.4"},
    ],
    "source": {"observer": {"display": "dpi-1"}, "type": [{"coding": [{"code": "4"}]}]},
    "entity": [{"what": {"reference": "Patient/8001"}, "role": {"coding": [{"code": "1"}]}}],
}
R4 = {
    "resourceType": "AuditEvent",
    "type": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110113"},
    "subtype": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "110127"}],
    "action": "E",
    "recorded": "2026-02-28T10:00:00Z",
    "outcome": "0",
    "outcomeDesc": "opened",
    "purposeOfEvent": [{"coding": [{"code": "ETREAT"}]}],
    "agent": [
        {"who": {"display": "gateway"}, "requestor": False, "network": {"address": "192.0.2.9", "type": "2"}},
        {
            "who": {"reference": "Practitioner/f001"},
            "requestor": True,
            "network": {"address": "192.0.2.4", "type": "2"},
        },
    ],
    "source": {"observer": {"display": "dpi-1"}, "type": [{"code": "4"}]},
    "entity": [{"what": {"reference": "Patient/8001"}, "role": {"code": "1"}}],
}
STU3 = R4 | {
    "agent": [
        {"reference": {"display": "gateway"}, "requestor": False, "network": {"address": "192.0.2.9", "type": "2"}},
        {"userId": {"value": "Practitioner/f001"}, "requestor": True, "network": {"address": "192.0.2.4", "type": "2"}},
    ],
    "source": {"identifier": {"value": "dpi-1"}, "type": [{"code": "4"}]},
    "entity": [{"reference": {"reference": "Patient/8001"}, "role": {"code": "1"}}],
}
FHIR_SAID = {
    "EventID": "110113",
    "EventName": "Security Alert",
    "EventTypeCode": "110127",
    "EventTypeName": "Emergency Override Started",
    "EventActionCode": "E",
    "EventOutcomeIndicator": "0",
    "EventOutcomeDescription": "opened",
    "PurposeOfUse": "ETREAT",
    "AuditSourceID": "dpi-1",
    "AuditSourceTypeCode": "4",
    "ActiveParticipant.UserID": "Practitioner/f001",
    "ActiveParticipant2.UserID": "gateway",
    "ParticipantObject.ID": "Patient/8001",
    "ParticipantObject.TypeCodeRole": "1",
    "PatientID": "Patient/8001",
    "user.name": "Practitioner/f001",
    "source.ip": "192.0.2.4",
    "host.name": "dpi-1",
    "event.dataset": "fhir.auditevent",
}


@pytest.mark.parametrize("event", [R5, R4, STU3], ids=["R5", "R4", "STU3"])
def test_fhir_says_the_same_in_every_release(event: dict[str, object]) -> None:
    logsource, row = read(json.dumps(event).encode())
    assert logsource == LOGSOURCE
    assert FHIR_SAID.items() <= row.items()
    assert row["@timestamp"] == datetime(2026, 2, 28, 10, 0, tzinfo=UTC)


def test_other_resources_are_other_json() -> None:
    for event in ({"resourceType": "Patient", "recorded": "x"}, {"resourceType": ["AuditEvent"], "recorded": 1}):
        logsource, row = read(json.dumps(event).encode())
        assert (logsource, row["event.dataset"]) == (UNKNOWN, "json")
    both = [json.dumps(event).encode() for event in (R4, R4 | {"resourceType": "Observation"}, R4)]
    datasets = [row for frame in parse(batch(both)) for row in frame.events["event.dataset"].to_list()]
    assert sorted(datasets) == ["fhir.auditevent", "fhir.auditevent", "json"]


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["code", "coding", "system", "display", "reference", "identifier", "value", "detail", "a"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted({*R5, *R4, "patient"})), values, max_size=6))
def test_fhir_of_any_shape_is_read(event: dict[str, object]) -> None:
    line = json.dumps({"recorded": "x", **event, "resourceType": "AuditEvent"}).encode()
    logsource, row = read(line)
    assert (logsource, row["event.dataset"]) == (LOGSOURCE, "fhir.auditevent")


def test_too_many_agents_are_said() -> None:
    _, remark = event_fields({"agent": [{"altId": "a"}] * 20})
    assert remark == "more than 16 participants: those beyond are in the raw line only"


@st.composite
def broken(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from([DICOM, RFC_3881, BOMB]))
    start = draw(st.integers(0, len(text)))
    stop = draw(st.integers(start, min(len(text), start + 40)))
    return text[:start] + draw(st.text(max_size=8)) + text[stop:]


@settings(max_examples=120, deadline=None)
@given(st.lists(broken(), min_size=1, max_size=3))
def test_any_damage_gives_every_row_once(texts: list[str]) -> None:
    raw = batch([text.encode("utf-8", "surrogatepass") for text in texts])
    frames = parse(raw)
    ids = [name for frame in frames for name in frame.events["event.id"].to_list()]
    assert sorted(ids) == sorted(raw["event.id"].to_list())


def test_neighbours_do_not_matter() -> None:
    alone: Row = read(DICOM.encode())[1]
    (frame,) = parse(
        batch([DICOM.encode(), b"<AuditMessage><EventIdentification EventActionCode='E'/></AuditMessage>"])
    )
    row = frame.events.filter(frame.events["EventID"].is_not_null()).row(0, named=True)
    assert {name: value for name, value in row.items() if value is not None} == alone

"""Patients' identifiers in raw lines: what is found, what stays, and what is sealed when it cannot be read."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from html import escape
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.formats.adapter import AdapterDefinition
from ingest.logsource import LogSource
from ingest.patient_data import MARK_SEALED, PatientData, protect_line
from ingest.pseudonyms import PSEUDONYM, CollectorKeys, nir_key

KEYS = CollectorKeys("kermor", "AAAA", b"k" * 32, b"p" * 32)
NIR = f"1700129155034{nir_key('1700129155034'):02d}"
SPACED = f"{NIR[0]} {NIR[1:3]} {NIR[3:5]} {NIR[5:7]} {NIR[7:10]} {NIR[10:13]} {NIR[13:]}"
CORSICA = f"155062A004123{nir_key('155062A004123'):02d}"

INS, IPP, NAME, DOB = (
    KEYS.pseudonym(kind, value)
    for kind, value in (("INS", NIR), ("IPP", "8001234"), ("NAM", "KERVELLA^YANN"), ("DOB", "19700131"))
)


class Memory:
    """A vault that keeps in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def keep(self, originals: Sequence[tuple[str, bytes]]) -> int:
        new = {token: said for token, said in originals if token not in self.kept}
        self.kept |= new
        return len(new)


def out(line: str | bytes) -> str:
    """What goes on in the place of a line."""
    raw = line if isinstance(line, bytes) else line.encode()
    return protect_line(raw, KEYS).line.decode("utf-8", "surrogateescape")


def sealed(line: str | bytes) -> bool:
    raw = line if isinstance(line, bytes) else line.encode()
    done = protect_line(raw, KEYS)
    if done.sealed is not None:
        assert done.line.startswith(b"tocsin: line sealed, token PSN-LIN-AAAA-")
        assert done.line.endswith(f"{len(raw)} bytes".encode())
        assert [said for _, said in done.originals] == [raw]
    return done.sealed is not None


# -- text --------------------------------------------------------------------------------------------------------

TEXTS = [
    (f"INS {NIR} lu", f"INS {INS} lu"),
    (f"relu {SPACED}.", f"relu {INS}."),
    (f"nir={NIR[:13]}", f"nir={INS}"),
    (f"Corse {CORSICA}", f"Corse {KEYS.pseudonym('INS', CORSICA)}"),
    (f"GET /dossier?nir={NIR}&x=1", f"GET /dossier?nir={INS}&x=1"),
    ("né le 31/01/1970 à Brest", f"né le {DOB} à Brest"),
    ("née le 31 janvier 1970", f"née le {DOB}"),
    ("né(e) le 31.01.1970", f"né(e) le {DOB}"),
    ("DDN: 31-01-1970;", f"DDN: {DOB};"),
    ("DOB=19700131", f"DOB={DOB}"),
    ("birthDate: 1970-01-31", f"birthDate: {DOB}"),
    ("date de naissance = 1970-01-31", f"date de naissance = {DOB}"),
    ("IPP: 8001234 ouvert", f"IPP: {IPP} ouvert"),
    ("IPP8001234", f"IPP{IPP}"),
    ("ipp=0008001234&uf=12", f"ipp={IPP}&uf=12"),
    ("NIP n° 8001234", None),
    ("N° dossier patient : 8001234", f"N° dossier patient : {IPP}"),
    ("patient_id=8001234,", f"patient_id={IPP},"),
    ("/patients/8001234/documents", f"/patients/{IPP}/documents"),
    ("GET /fhir/Patient/8001234 HTTP/1.1", f"GET /fhir/Patient/{IPP} HTTP/1.1"),
    ("NDA=N778899 fermé", f"NDA={KEYS.pseudonym('NDA', 'N778899')} fermé"),
    ("Patient: KERVELLA^YANN, salle 3", f"Patient: {NAME}, salle 3"),
    ("Patient: KERVELLA Yann (chambre 12)", f"Patient: {NAME} (chambre 12)"),
    ('patientName="KERVELLA Yann"', f'patientName="{NAME}"'),
    ("(0010,0010) PN [KERVELLA^YANN]   # 14, 1 PatientName", f"(0010,0010) PN [{NAME}]   # 14, 1 PatientName"),
    ("(0010,0020) LO [8001234]", f"(0010,0020) LO [{IPP}]"),
    ("(0010, 0030) Patient's Birth Date   DA: '19700131'", f"(0010, 0030) Patient's Birth Date   DA: '{DOB}'"),
    ("(0010,0040) CS [M]", "(0010,0040) CS [M]"),
    ("Patient KERVELLA Yann, dossier de KERVELLA", f"Patient {NAME}, dossier de {NAME}"),
]


@pytest.mark.parametrize(("line", "want"), [pair for pair in TEXTS if pair[1] is not None])
def test_text(line: str, want: str) -> None:
    assert out(line) == want
    assert out("<13>Nov 23 10:00:00 srv app[12]: " + line) == "<13>Nov 23 10:00:00 srv app[12]: " + want


UNCHANGED = [
    "<13>1 2026-11-23T10:00:00.123Z srv sshd 12 - - Accepted password for root from 192.0.2.7 port 55022 ssh2",
    "1700000000000 epoch in milliseconds",
    "1700129155034 alone is no NIR: it has no key",
    f"{NIR[:13]}{(int(NIR[13:]) + 1) % 98:02d}",  # a wrong key
    f"9{NIR}",
    '{"EventID":4624,"Channel":"Security","TargetUserName":"e.lebras","IpAddress":"192.0.2.9"}',
    "patients: 12 en attente",
    "Patient list opened by Dr LE BRAS",
    "birthday party on 2026-11-23T10:00:00Z",
    "an instance of nothing, visitor 5",
    "<a><b>no audit</b>",
    "MSH is a word, and PID 4711 is a process",
    "pid=4711 (IN1) eth0",
    "",
    "{",
    '{"a": [1, {"b": "c"}], "d": null}',
]


@pytest.mark.parametrize("line", UNCHANGED)
def test_lines_without_patients_are_the_same_object(line: str) -> None:
    raw = line.encode()
    assert protect_line(raw, KEYS).line is raw


def test_a_name_is_replaced_wherever_the_line_repeats_it() -> None:
    line = "Patient: KERVELLA^YANN ; erreur pour kervella.yann.pdf, Kérvella ; DDN 31/01/1970 (1970-01-31)"
    done = out(line)
    assert "ervella" not in done.lower()
    assert "1970-01-31" not in done
    assert done.count(NAME) == 3
    assert done.count(DOB) == 2


@pytest.mark.parametrize("again", ["LECŒUR", "lecoeur", "Lecœur", "LE\u0301COEUR", "Le\u0301cœur"])
def test_a_name_is_found_in_any_writing(again: str) -> None:
    token = KEYS.pseudonym("NAM", "LECŒUR^ANNE")
    assert out(f"Patient: LECŒUR^ANNE; é voir {again}, salle 2") == f"Patient: {token}; é voir {token}, salle 2"


def test_a_day_of_birth_that_is_today_leaves_the_clock_alone() -> None:
    line = "<13>2026-11-23 10:00:00 srv app: 2026-11-23T10:00:00Z né le 23/11/2026"
    done = out(line)
    assert done.startswith("<13>2026-11-23 10:00:00 srv app: 2026-11-23T10:00:00Z né le PSN-DOB-")


def test_pseudonyms_are_left_alone() -> None:
    once = out(f"Patient: KERVELLA^YANN IPP: 8001234 INS {NIR} né le 31/01/1970")
    assert out(once) == once


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
def test_text_in_both_encodings(encoding: str) -> None:
    name = KEYS.pseudonym("NAM", "LE GOFF ANAIS")
    raw = "é ; Patient: LE GOFF^ANAÏS, née le 31/01/1970 à l'hôpital".encode(encoding)
    done = protect_line(raw, KEYS).line
    assert done == f"é ; Patient: {name}, née le {DOB} à l'hôpital".encode(encoding)


# -- HL7 ---------------------------------------------------------------------------------------------------------

SEGMENTS = [
    "MSH|^~\\&|GAM|CHKERMOR|DPI|CHKERMOR|20261123100000||ADT^A08|17|P|2.5",
    "EVN||20261123100000|||1001^LE BRAS^ANNE^^^DR",
    (
        f"PID|1||8001234^^^CHKERMOR&1.2.250.1.999&ISO^PI~{NIR}^^^ASIP&1.2.250.1.213.1.4.8&ISO^INS"
        "||KERVELLA^YANN^^^M^^L~KERVELLA^Yann^^^^^D||197001310000|M"
        "|||12 RUE DU PORT^^BREST^^29200||0298000000|||||V778899"
    ),
    "NK1|1|KERVELLA^SOAZIG|SPO|12 RUE DU PORT|0298000001",
    "PV1|1|I|CARDIO^12^1||||1001^LE BRAS^ANNE^^^DR|||||||||||I|V778899",
    "OBX|1|TX|CR||M. Kervella va mieux||||||F",
    "ZBE|1|KERVELLA mouvement",
]
GONE = [
    "8001234",
    NIR,
    "KERVELLA",
    "Kervella",
    "YANN",
    "Yann",
    "19700131",
    "RUE DU PORT",
    "29200",
    "0298000000",
    "V778899",
    "SOAZIG",
]
STAYS = ["1001^LE BRAS^ANNE^^^DR", "CHKERMOR&1.2.250.1.999&ISO^PI", "ADT^A08", "CARDIO^12^1", "GAM"]


@pytest.mark.parametrize("mark", ["\r", "\n", "\r\n", "#015", "#015#012", "\\r", "\\n", "\\x0d", "<CR>", "\x0b\r"])
@pytest.mark.parametrize("before", ["", "<13>1 2026-11-23T10:00:00Z gw mirth - - - ", "INFO received: ", "\x0b"])
def test_hl7_with_all_breaks(mark: str, before: str) -> None:
    line = before + mark.join(SEGMENTS)
    done = out(line)
    for gone in GONE:
        assert gone not in done, gone
    for stays in STAYS:
        assert stays in done, stays
    assert done.startswith(before)
    assert done.count(mark) == line.count(mark)
    assert f"{IPP}^^^CHKERMOR&1.2.250.1.999&ISO^PI~{INS}^^^ASIP" in done
    assert f"{NAME}^^^^^^L~{NAME}^^^^^^D" in done
    assert len([part for part in done.split(mark) if part[3:4] == "|" or "MSH|" in part]) == len(SEGMENTS)


def test_hl7_with_other_separators() -> None:
    line = "MSH#*+!%#GAM\rPID#1##8001234*5*M11+8001235##KERVELLA*YANN##19700131\rZZZ#Kervella"
    assert out(line) == (
        f"MSH#*+!%#GAM\rPID#1##{IPP}*5*M11+{KEYS.pseudonym('IPP', '8001235')}##{NAME}##{DOB}\rZZZ#{NAME}"
    )


def test_hl7_in_json_and_quoted() -> None:
    message = "\r".join(SEGMENTS)
    line = json.dumps({"level": "INFO", "message": message, "user": {"name": "KERVELLA"}})
    done = json.loads(out(line))
    assert not any(gone in done["message"] for gone in GONE)
    assert done["user"]["name"] == "KERVELLA"  # staff of the same name stays
    assert STAYS[0] in done["message"]


def test_a_segment_without_its_message() -> None:
    assert out("PID|1||8001234||KERVELLA^YANN||19700131") == f"PID|1||{IPP}||{NAME}||{DOB}"
    assert out("MRG|8001234~8001235") == f"MRG|{IPP}~{KEYS.pseudonym('IPP', '8001235')}"


def test_hl7_fields_that_nobody_foresaw_are_replaced() -> None:
    done = out("MSH|^~\\&|A|B\rPID|1||8001234|||||||||||||||||||||||||||||||||||KERVELLA")
    assert "KERVELLA" not in done
    assert "PSN-OTH-" in done


def test_hl7_empty_and_deleted_fields_stay() -> None:
    line = 'MSH|^~\\&|A|B\rPID|1||""||^^^||""|M'
    assert out(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "MSH||||||\rPID|1||8001234||KERVELLA^YANN",
        "MSH|^^^^|A\rPID|1||8001234||KERVELLA^YANN",
        "MSH|^~\\&|A\rPID|1\rMSH#*+!%#GAM\rPID#1##8001234",
        "PID#1##8001234##KERVELLA",
        "MSH|A|B",
        "MSH|^~\\&|A|B|PID|1||8001234||KERVELLA^YANN",
    ],
)
def test_hl7_that_cannot_be_read_is_sealed(line: str) -> None:
    assert sealed(line)


def test_a_value_that_looks_like_a_segment_shifts_nothing() -> None:
    done = out("MSH|^~\\&|A|B\rPID|1||123456^^^EDU|STF|KERVELLA^YANN||19700131")
    assert "KERVELLA" not in done
    assert "123456" not in done


# -- ATNA --------------------------------------------------------------------------------------------------------


def audit(object_id: str = "8001234^^^&amp;1.2.3&amp;ISO", name: str = "KERVELLA^YANN", code: str = "csd-code") -> str:
    system = "codeSystemName" if code == "csd-code" else "codeSystem"
    return (
        '<?xml version="1.0" encoding="UTF-8"?><AuditMessage>'
        f'<EventIdentification EventActionCode="R"><EventID {code}="110110" {system}="DCM" originalText="Patient Record"/>'  # noqa: E501
        "</EventIdentification>"
        '<ActiveParticipant UserID="kervella" AlternativeUserID="8001234" UserName="Yann Kervella" UserIsRequestor="true"/>'  # noqa: E501
        f'<ParticipantObjectIdentification ParticipantObjectID="{object_id}" ParticipantObjectTypeCode="1" '
        f'ParticipantObjectTypeCodeRole="1"><ParticipantObjectIDTypeCode {code}="2" {system}="RFC-3881" '
        f'originalText="Patient Number"/><ParticipantObjectName>{name}</ParticipantObjectName>'
        f"<ParticipantObjectQuery>{base64.b64encode(NIR.encode()).decode()}</ParticipantObjectQuery>"
        f'<ParticipantObjectDetail type="MSH-10" value="MTIz"/>'
        f'<ParticipantObjectDetail type="PID" value="{base64.b64encode(b"KERVELLA").decode()}"/>'
        "</ParticipantObjectIdentification>"
        '<ParticipantObjectIdentification ParticipantObjectID="1.2.840.99.1" ParticipantObjectTypeCode="2" '
        f'ParticipantObjectTypeCodeRole="3"><ParticipantObjectIDTypeCode {code}="110180" {system}="DCM"/>'
        "<ParticipantObjectName>IRM de M. Kervella</ParticipantObjectName>"
        '<ParticipantObjectDescription>genou<Accession Number="ACC123456"/><SOPClass UID="1.2.3" NumberOfInstances="4"/>'  # noqa: E501
        "</ParticipantObjectDescription></ParticipantObjectIdentification></AuditMessage>"
    )


STAFF = 'UserID="kervella" AlternativeUserID="8001234" UserName="Yann Kervella" UserIsRequestor="true"'


@pytest.mark.parametrize("code", ["csd-code", "code"])
def test_an_audit_message(code: str) -> None:
    line = "<85>1 2026-11-23T10:00:00Z pacs dcm4chee 1 DICOM+RFC3881 - \ufeff" + audit(code=code)
    done = out(line)
    assert STAFF in done
    body = done.replace(STAFF, "").replace("PSN-", "")
    for gone in (
        "8001234",
        "KERVELLA",
        "Kervella",
        "Yann",
        "genou",
        "ACC123456",
        "S0VSVkVMTEE",
        base64.b64encode(NIR.encode()).decode(),
    ):
        assert gone not in body, gone
    assert f'ParticipantObjectID="{IPP}^^^&amp;1.2.3&amp;ISO"' in done
    assert f"<ParticipantObjectName>{NAME}</ParticipantObjectName>" in done
    assert 'ParticipantObjectID="1.2.840.99.1"' in done
    assert 'value="MTIz"' in done
    assert 'NumberOfInstances="4"' in done
    ET.fromstring(done.partition("?>")[2])  # noqa: S314 - our own text


XML_WRITINGS = {
    "prefix": lambda text: text.replace("<AuditMessage", '<a:AuditMessage xmlns:a="u"').replace("</AuditM", "</a:AuditM")  # noqa: E501
    .replace("<Part", "<a:Part").replace("</Part", "</a:Part").replace("<Active", "<a:Active"),
    "single quotes": lambda text: text.replace('"', "'"),
    "line ends": lambda text: text.replace("><", ">\r\n  <").replace(" Part", "\n\tPart"),
    "rsyslog": lambda text: text.replace("><", ">#012<").replace(' ParticipantObjectType', '#012 ParticipantObjectType'),  # noqa: E501, Q000
    "cdata": lambda text: text.replace(">KERVELLA^YANN<", "><![CDATA[KERVELLA^YANN]]><"),
    "entities": lambda text: text.replace("KERVELLA^YANN", "&#75;ERVELLA&#x5e;YANN"),
    "order": lambda text: text.replace('ParticipantObjectTypeCode="1" ParticipantObjectTypeCodeRole="1">', ">")
    .replace("<ParticipantObjectIdentification P", '<ParticipantObjectIdentification ParticipantObjectTypeCodeRole="1" P', 1),  # noqa: E501
    "comment": lambda text: text.replace("<ParticipantObjectName>", "<!-- Patient: KERVELLA^YANN --><ParticipantObjectName>"),  # noqa: E501
    "no role": lambda text: text.replace('ParticipantObjectTypeCodeRole="1"', ""),
    "spaces": lambda text: text.replace('="', ' = "').replace("/>", " />"),
}  # fmt: skip


@pytest.mark.parametrize("writing", sorted(XML_WRITINGS))
def test_an_audit_message_in_other_writings(writing: str) -> None:
    text = XML_WRITINGS[writing](audit())
    assert text != audit()
    done = protect_line(text.encode(), KEYS)
    assert done.sealed is None
    said = done.line.decode()
    assert "KERVELLA" not in said
    assert "ERVELLA" not in said
    assert said.count("8001234") == 1  # the AlternativeUserID
    assert IPP in said
    assert "UserName" in said
    assert "Yann Kervella" in said
    ET.fromstring(said.partition("?>")[2].replace("#012", " "))  # noqa: S314


@pytest.mark.parametrize("role", ["6", "8", "11", "13", "15"])
def test_staff_that_was_touched_is_staff(role: str) -> None:
    line = (
        f'<AuditMessage><ParticipantObjectIdentification ParticipantObjectID="lebras" ParticipantObjectTypeCode="1" '
        f'ParticipantObjectTypeCodeRole="{role}"><ParticipantObjectIDTypeCode code="11"/><ParticipantObjectName>LE BRAS Anne'  # noqa: E501
        "</ParticipantObjectName></ParticipantObjectIdentification></AuditMessage>"
    )
    assert out(line) == line


@pytest.mark.parametrize(
    "line",
    [
        audit()[:-1],
        audit()[: len(audit()) // 2],
        audit().replace("</AuditMessage>", ""),
        audit().replace('UserIsRequestor="true"', "UserIsRequestor=true"),
        audit().replace("<AuditMessage>", '<!DOCTYPE a [<!ENTITY n "KERVELLA">]><AuditMessage>'),
        audit().replace("KERVELLA^YANN", "&nom;"),
        audit().replace('"', '\\"'),
        escape(audit()),
        f"<event><data>{audit()[40:]}",
        "<ParticipantObjectName>KERVELLA^YANN</ParticipantObjectName",
        'ParticipantObjectID="8001234" ParticipantObjectTypeCode="1"',
        "</ParticipantObjectIdentification>",
        "<AuditMessage>"
        + "<a>" * 100
        + "<ParticipantObjectName>K</ParticipantObjectName>"
        + "</a>" * 100
        + "</AuditMessage>",
        '{"resourceType": "Patient", "name": [{"family": "KERVELLA"',
        '{"ipp": 8001234, "nom": }',
        "I\0P\0P\0:\x008\x000\x000\x00",
        '{"a": ' * 70 + '{"ipp": "8001234"}' + "}" * 70,
    ],
)
def test_what_cannot_be_read_safely_is_sealed(line: str) -> None:
    assert sealed(line)


def test_xml_within_xml_and_json_is_read() -> None:
    inner = f"<Event><Data>{escape(audit())}</Data><ParticipantObjectNote/></Event>"
    done = out(inner)
    assert "KERVELLA" not in done
    assert "Yann Kervella" in done
    wrapped = json.loads(out(json.dumps({"message": audit()})))
    assert IPP in wrapped["message"]
    assert "KERVELLA" not in wrapped["message"]


def test_hl7_in_xml_cda_and_fhir_in_xml() -> None:
    v2 = "<ADT_A01><PID><PID.3><CX.1>8001234</CX.1></PID.3><PID.5><XPN.1><FN.1>KERVELLA</FN.1></XPN.1></PID.5><PID.8>M</PID.8></PID></ADT_A01>"  # noqa: E501
    assert "8001234" not in out(v2)
    assert "KERVELLA" not in out(v2)
    assert "<PID.8>M</PID.8>" in out(v2)
    cda = (
        '<ClinicalDocument><recordTarget><patientRole><id extension="8001234" root="1.2.250.1.213.1.4.8"/><patient><name>'  # noqa: E501
        '<family>KERVELLA</family></name><birthTime value="19700131"/></patient></patientRole></recordTarget>'
        "<author><name>LE BRAS</name></author></ClinicalDocument>"
    )
    done = out(cda)
    assert IPP in done
    assert DOB in done
    assert "KERVELLA" not in done
    assert 'root="1.2.250.1.213.1.4.8"' in done
    assert "LE BRAS" in done
    fhir = '<Patient xmlns="http://hl7.org/fhir"><id value="8001234"/><name><family value="KERVELLA"/></name></Patient>'
    assert "8001234" not in out(fhir)
    assert "KERVELLA" not in out(fhir)


# -- JSON --------------------------------------------------------------------------------------------------------


def test_a_fhir_audit_event() -> None:
    event = {
        "resourceType": "AuditEvent",
        "agent": [{"who": {"display": "Yann Kervella", "identifier": {"value": "8001234"}}, "requestor": True}],
        "entity": [
            {
                "what": {"display": "KERVELLA Yann", "reference": "https://h.example/fhir/Patient/8001234/_history/2",
                         "identifier": {"system": "urn:oid:1.2", "value": "8001234"}},
                "role": {"code": "1"}, "name": "KERVELLA Yann", "query": "S0VSVkVMTEE=",
                "detail": [{"type": "x", "valueString": "KERVELLA"}],
            },
            {"what": {"reference": "Practitioner/77"}, "role": {"code": "15"}, "name": "LE BRAS"},
        ],
        "patient": {"reference": "Patient/8001234", "display": "KERVELLA Yann"},
    }  # fmt: skip
    done = json.loads(out(json.dumps(event)))
    assert done["agent"] == event["agent"]
    rest = json.dumps([done["entity"], done["patient"]])
    for gone in ("8001234", "KERVELLA", "S0VSVkVMTEE"):
        assert gone not in rest
    assert done["entity"][0]["what"]["identifier"]["system"] == "urn:oid:1.2"
    assert done["entity"][0]["what"]["display"] == NAME
    assert done["entity"][1]["name"] == "LE BRAS"
    assert IPP in done["patient"]["reference"]


def test_a_fhir_patient() -> None:
    patient = {
        "resourceType": "Patient", "id": "8001234", "gender": "male", "birthDate": "1970-01-31", "active": True,
        "identifier": [{"system": "urn:oid:1.2.250.1.213.1.4.8", "value": NIR}],
        "name": [{"use": "official", "family": "KERVELLA", "given": ["YANN", "Erwan"]}],
        "telecom": [{"system": "phone", "value": "0298000000"}],
        "address": [{"line": ["12 RUE DU PORT"], "city": "BREST"}],
        "text": {"div": "<div>KERVELLA Yann</div>"},
        "generalPractitioner": [{"display": "LE BRAS"}],
        "contact": [{"name": {"family": "SOAZIG"}}],
    }  # fmt: skip
    bundle = {"resourceType": "Bundle", "entry": [{"resource": patient}]}
    done = json.loads(out(json.dumps(bundle)))["entry"][0]["resource"]
    text = json.dumps(done)
    for gone in ("8001234", NIR, "KERVELLA", "YANN", "Erwan", "0298000000", "PORT", "BREST", "1970", "SOAZIG"):
        assert gone not in text, gone
    assert done["identifier"][0]["value"] == INS
    assert (done["id"], done["birthDate"]) == (IPP, DOB)
    assert (done["gender"], done["active"], done["generalPractitioner"]) == (
        "male",
        True,
        patient["generalPractitioner"],
    )


RECORDS = [
    {"user": {"nom": "KERVELLA"}, "nom": "KERVELLA", "prenom": "YANN", "ipp": 8001234},
    {"utilisateur": {"nom": "LE BRAS"}, "patient": {"nom": "KERVELLA", "autre": "YANN", "service": "CARDIO"}},
    {"patient": "KERVELLA Yann", "action": "lecture"},
    {"patients": [{"id": 8001234}, {"id": "8001234"}]},
    {"numPatient": "8001234", "Date_Naissance": "31/01/1970", "matriculeINS": NIR},
    {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "KERVELLA^YANN"}]},
        "00100020": {"vr": "LO", "Value": ["8001234"]},
    },
    {"PatientName": "KERVELLA^YANN", "PatientID": "8001234", "StudyInstanceUID": "1.2.3"},
    {"message": f"Patient: KERVELLA^YANN (IPP: 8001234, {SPACED})"},
    {"message": "n\u00e9 le 31/01/1970"},
    {"subject": {"identifier": {"value": "8001234"}, "type": "Patient"}},
    {"log": {"original": json.dumps({"patientId": "8001234"})}},
]


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_records_in_json(record: dict[str, object], ascii_only: bool) -> None:
    done = out("<13>Nov 23 10:00:00 dpi app: " + json.dumps(record, ensure_ascii=ascii_only))
    after = json.loads(done.partition("app: ")[2])
    staff = {key: after.pop(key) for key in ("user", "utilisateur") if key in after}
    assert staff == {key: record[key] for key in staff}
    text = json.dumps(after)
    for gone in ("8001234", "KERVELLA", "YANN", "Yann", "1970", NIR, SPACED):
        assert gone not in text.replace(NAME, ""), gone
    assert PSEUDONYM.search(text)
    for key in ("action", "StudyInstanceUID"):
        assert after.get(key) == record.get(key)


# -- adapters ----------------------------------------------------------------------------------------------------

CSV = AdapterDefinition(
    "dpi", "csv", LogSource("patient_record"), ("date", "user", "ipp", "nom", "action"), ";", '"', header=True,
    patients=("ipp", "nom"),
)  # fmt: skip
OBJECTS = AdapterDefinition("api", "json", LogSource("patient_record"), patients=("cible.code",))


def adapted(line: str, definition: AdapterDefinition) -> tuple[str, bool]:
    done = protect_line(line.encode(), KEYS, adapters=lambda _: definition)
    return done.line.decode(), done.sealed is not None


@pytest.mark.parametrize("before", ["", "<13>Nov 23 10:00:00 dpi export: ", "<13>1 2026-11-23T10:00:00Z dpi - - - - "])
def test_rows_of_an_adapter(before: str) -> None:
    name = KEYS.pseudonym("NAM", "KERVELLA")
    assert adapted(f"{before}2026-11-23;kervella;8001234;KERVELLA;lecture", CSV) == (
        f"{before}2026-11-23;kervella;{IPP};{name};lecture", False,
    )  # fmt: skip
    assert adapted(f'{before}"2026-11-23";"le bras";"8001234";"KERVELLA";""', CSV)[0] == (
        f'{before}"2026-11-23";"le bras";"{IPP}";"{name}";""'
    )
    assert adapted(f"{before}date;user;ipp;nom;action", CSV) == (f"{before}date;user;ipp;nom;action", False)


@pytest.mark.parametrize(
    "row", ["a;b;c;KERVELLA", "a;b;8001234;KERVELLA;YANN;x", 'a;b;"8001234;KERVELLA;x', "KERVELLA"]
)
def test_rows_that_do_not_fit_are_sealed(row: str) -> None:
    assert adapted(row, CSV)[1]


def test_objects_of_an_adapter() -> None:
    done, was_sealed = adapted('{"cible": {"code": "8001234"}, "agent": "le bras"}', OBJECTS)
    assert not was_sealed
    assert "8001234" not in done
    assert '"agent": "le bras"' in done
    assert adapted("no object", OBJECTS)[1]


# -- batches -----------------------------------------------------------------------------------------------------


def test_a_batch_is_counted_marked_and_kept() -> None:
    vault = Memory()
    data = PatientData(KEYS, vault)
    lines = [b"nothing", b"IPP: 8001234", audit()[:-5].encode(), b"IPP: 8001234"]
    done, marks = data.protect_marked(lines, {2: "truncated"})
    assert done[0] is lines[0]
    assert done[1] == done[3] == f"IPP: {IPP}".encode()
    assert marks == {2: f"truncated; {MARK_SEALED}"}
    assert vault.kept[IPP] == b"8001234"
    assert lines[2] in vault.kept.values()
    stats = data.stats
    assert (stats.lines, stats.changed, stats.sealed, stats.identifiers, stats.new) == (4, 2, 1, 2, 2)
    assert data.protect(lines) == done


def test_text_that_names_a_patient_may_be_sealed_as_well() -> None:
    data = PatientData(KEYS, Memory(), seal_unknown=True)
    done = data.protect([b"IPP: 8001234, et Kervella", b"sshd: hello", audit().encode()])
    assert done[0].startswith(b"tocsin: line sealed")
    assert done[1] == b"sshd: hello"
    assert b"AuditMessage" in done[2]


# -- whatever comes ----------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "MSH|^~\\&|A", "PID|1||8001234||KERVELLA^YANN", "\r", "#015", "<AuditMessage>", "</AuditMessage>", "{", "}", '"', ":",  # noqa: E501
        "<ParticipantObjectIdentification ", 'ParticipantObjectID="8001234"', "/>", ">", "&#75;", "&x;", "<![CDATA[", "]]>",  # noqa: E501
        '{"ipp":"8001234"}', '"patient":', "[", "]", ",", "IPP: 8001234", SPACED, "(0010,0010)", " PN [", "né le 31/01/1970",  # noqa: E501
        "\\", "\\u00e9", "\0", "Patient/8001234", "Patient?name=", "<!--", "-->", "<?xml ", "PSN-IPP-AAAA-AAAAAAAAAAAAAAAA",  # noqa: E501
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=14).map("".join))
def test_any_text_is_read_or_sealed(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    done = protect_line(raw, KEYS)
    assert done.line is raw or done.originals
    again = protect_line(raw, KEYS)
    assert again == done


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"IPP: 8001234 " + tail))
def test_any_bytes_are_read_or_sealed(raw: bytes) -> None:
    done = protect_line(raw, KEYS)
    assert done.line is raw or done.originals
    if raw.startswith(b"IPP: 8001234 ") and done.sealed is None:
        assert done.line.startswith(f"IPP: {IPP} ".encode())
        assert done.line.endswith(raw[-1:])


WORDS = st.text(st.characters(categories=["Lu"], max_codepoint=0x17F), min_size=3, max_size=12)
NAMES = st.tuples(WORDS, WORDS)
NUMBERS = st.integers(10_000_000, 9_999_999_999).map(str)
DATES = st.dates()


def writings(name: tuple[str, str], number: str, place: int) -> str:
    """The patient in one of the formats."""
    family, given_name = name
    xml_name = escape(f"{family}^{given_name}")
    formats = [
        f"MSH|^~\\&|A|B\rPID|1||{number}^^^X||{family}^{given_name}||19700131\rZZZ|{family.lower()}",
        (
            f"<13>1 - h a - - - <AuditMessage><ParticipantObjectIdentification ParticipantObjectID='{number}' "
            f"ParticipantObjectTypeCode='1' ParticipantObjectTypeCodeRole='1'><ParticipantObjectName>{xml_name}"
            "</ParticipantObjectName></ParticipantObjectIdentification></AuditMessage>"
        ),
        json.dumps({"patientId": number, "patientName": f"{family} {given_name}", "message": f"dossier {number}"}),
        json.dumps({"patient": {"x": family, "y": given_name, "z": int(number)}}, ensure_ascii=False),
        json.dumps({"entity": [{"what": {"reference": f"Patient/{number}", "display": f"{given_name} {family}"}}]}),
        f"app: Patient: {family}^{given_name}, IPP: {number}, {family}",
        f"(0010,0010) PN [{family}^{given_name}] (0010,0020) LO [{number}]",
    ]
    return formats[place % len(formats)]


@settings(max_examples=200, deadline=None)
@given(NAMES, NUMBERS, st.integers(0, 6))
def test_no_identifier_survives(name: tuple[str, str], number: str, place: int) -> None:
    done = protect_line(writings(name, number, place).encode(), KEYS)
    if done.sealed is not None:  # a name such as MSH
        return
    left = PSEUDONYM.sub("", done.line.decode())
    left = json.dumps(json.loads(left), ensure_ascii=False) if left.startswith("{") else left
    assert number not in left
    frame = writings(("", ""), "0", place).upper()
    for word in name:
        assert word in frame or word not in left
    assert {said.decode() for _, said in done.originals} & {number, f"Patient/{number}"}


@pytest.mark.parametrize(
    "line",
    [
        "9 " * 500_000,
        "a" * 1_000_000,
        "patient " * 125_000,
        "IPP: 8001234 " * 76_000,
        "Patient: A^B " * 76_000,
        "(0010,0010) " * 80_000,
        "né le " * 150_000,
        '{"a":' * 200_000,
        "{}" * 500_000,
        '{"patient":' + '"' * 900_000,
        "<AuditMessage>" + "<a " * 330_000,
        "<AuditMessage>" + "&" * 900_000 + "</AuditMessage>",
        "<AuditMessage>" + "<ParticipantObjectName>X</ParticipantObjectName>" * 20_000 + "</AuditMessage>",
        "MSH|^~\\&|A" + "\rPID|1||8001234||A^B" * 45_000,
        "MSH|^~\\&|A\rPID|" + "|" * 900_000,
        "PID|" * 250_000,
        "0" * 1_000_000 + " IPP: 8001234",
        "1 70 01 29 " * 90_000,
        "Patient M. " + "Aa " * 330_000,
        "nom=" + "Aa-" * 330_000 + " patient",
    ],
)
def test_time_is_linear_in_the_length(line: str) -> None:
    raw = line.encode()[:1_048_576]
    begun = time.process_time()
    protect_line(raw, KEYS)
    whole = time.process_time() - begun
    assert whole < 20.0, f"{whole:.1f} s for {len(raw)} bytes"

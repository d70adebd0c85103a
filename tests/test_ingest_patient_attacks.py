"""What someone tried in order to get an identifier through: unusual writings of known formats, and escapes in text."""

from __future__ import annotations

import html
import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.patient_data import PatientData, protect_line
from ingest.patient_escapes import loosened
from ingest.pseudonyms import CollectorKeys

KEYS: Final = CollectorKeys("h", "7QXK", b"k" * 32, b"p" * 32)
NUMBER, NAME, BORN, NIR = "8001234567", "KERVELLA", "31/01/1970", "269054958815780"
HEADER: Final = "<86>1 2026-11-23T10:00:00Z dpi app 7 - - "
STAFF: Final = '<ActiveParticipant UserID="alb" UserName="LE BRAS"/>'
OBJECT: Final = (
    f'<ParticipantObjectIdentification ParticipantObjectID="{NUMBER}" ParticipantObjectTypeCode="1" '
    f'ParticipantObjectTypeCodeRole="1"><ParticipantObjectName>{NAME}</ParticipantObjectName>'
    "</ParticipantObjectIdentification>"
)
ATNA: Final = f"<AuditMessage>{STAFF}{OBJECT}</AuditMessage>"
MSH: Final = "MSH|^~\\&|GAM|CH|DPI|CH|20261123100000||ADT^A08|17|P|2.5"
PID: Final = f"PID|1||{NUMBER}^^^CH^PI||{NAME}^X||19700131|F"


def said(text: str) -> bytes:
    """What goes on of a line, searched as the collector searches it: with its quick look first."""

    class Memory:
        def keep(self, originals: object) -> int:
            return 1 if originals else 0

    return PatientData(KEYS, Memory()).protect([(HEADER + text).encode("utf-8", "surrogatepass")])[0]


ATTACKS: Final = {
    "names in lower case": ATNA.lower(),
    "names in capitals": ATNA.replace("ParticipantObject", "PARTICIPANTOBJECT"),
    "a comment beside": f"{ATNA}<!-- {NUMBER} {NAME} -->",
    "a comment inside": ATNA.replace("</AuditMessage>", f"<!-- {NUMBER} {NAME} --></AuditMessage>"),
    "a text of the event": ATNA.replace(STAFF, f'<EventIdentification><EventID originalText="{NAME}"/></EventIdentification>'),  # noqa: E501
    "a person in the role of a report": ATNA.replace('Role="1"', 'Role="3"'),
    "a role with a zero": ATNA.replace('Role="1"', 'Role="01"'),
    "a role that does not exist": ATNA.replace('Role="1"', 'Role="99"'),
    "XML in a URL": "GET /x?m=" + ATNA.replace("<", "%3C").replace(">", "%3E").replace(" ", "%20"),
    "no break": MSH + PID,
    "a break as a number": f"{MSH}0x0D{PID}",
    "a break of a terminal": f"{MSH}^M{PID}",
    "a break of a URL": f"{MSH}%0D{PID}",
    "a header that ends in letters": f"{MSH}||||FRA{PID}",
    "HL7 in lower case": f"{MSH}\r{PID}".lower(),
    "a lone PID in lower case": PID.lower(),
    "tabs part fields": f"{MSH}\r{PID}".replace("|", "\t"),
    "a broken bar parts fields": PID.replace("|", "\u00a6"),
    "HL7 in a URL": f"{MSH}\r{PID}".replace("|", "%7C").replace("\r", "%0D").replace("^", "%5E"),
    "a visit alone": f"PV1|1|I|CARD||{NUMBER}||1001^LE BRAS||||||||||||{NUMBER}",
    "a note alone": f"NTE|1||{NAME} {NUMBER}",
    "an observation alone": f"OBX|1|TX|1||{NAME} {NUMBER}",
    "a key twice": f'{{"resourceType":"Bundle","resourceType":"Patient","name":[{{"family":"{NAME}"}}]}}',
    "a subject without a reference": json.dumps(
        {"resourceType": "Observation", "subject": {"identifier": {"value": NUMBER}, "display": NAME}}
    ),
    "a contained patient": json.dumps(
        {"resourceType": "Observation", "contained": [{"resourceType": "Patient", "name": [{"family": NAME}]}],
         "subject": {"reference": "#p", "display": f"{NAME} {NUMBER}"}}
    ),
    "a narrative": json.dumps({"resourceType": "Observation", "text": {"div": f"<div>{NAME} {NUMBER}</div>"}}),
    "names and values": json.dumps([{"name": "patientName", "value": NAME}, {"key": "ipp", "value": NUMBER}]),
    "patients by number": json.dumps({"patients": {NUMBER: {"x": NAME}}}),
    "a patient in an agent": json.dumps({"agent": {"ipp": NUMBER, "patientName": NAME}}),
    "a tag without brackets": f"0010,0010: {NAME}^X 00100020={NUMBER}",
    "a QIDO query": f"GET /studies?00100020={NUMBER}&00100010={NAME}*",
    "elements of no known XML": f"<a:ipp>{NUMBER}</a:ipp><nomPatient><![CDATA[{NAME}]]></nomPatient>",
    "a birth date in an element": f"<dateNaissance>{BORN}</dateNaissance>",
    "NIR with tabs": "2\t69\t05\t49\t588\t157\t80",
    "NIR with slashes": "2/69/05/49/588/157/80",
    "NIR with two spaces": "2  69  05  49  588  157  80",
    "NIR with thin spaces": "2\u200969\u200905\u200949\u2009588\u2009157\u200980",
    "NIR in a word": f"id{NIR}x",
    "NIR in full-width digits": "".join(chr(ord(sign) + 0xFEE0) for sign in NIR),
    "NIR in entities": "".join(f"&#{ord(sign)};" for sign in NIR),
    "NIR in escapes": "".join(f"\\u{ord(sign):04x}" for sign in NIR),
    "NIR with rsyslog's spaces": "2#302#24069#302#24005#302#24049#302#240588#302#240157#302#24080",
    "a tab by rsyslog": f"IPP :#011{NUMBER}",
    "a label in a URL": f"ipp%3D{NUMBER}",
    "a digit in a URL": f"ipp=%38{NUMBER[1:]}",
    "a path in a URL": f"/patients%2F{NUMBER}",
    "an escape in a value": f"ipp=\\u0038{NUMBER[1:]}",
    "a label and a sign": f"IPP n\u00b0 {NUMBER}",
    "a label and a word": f"IPP num\u00e9ro {NUMBER}",
    "a dash": f"IPP - {NUMBER}",
    "a line break": f"IPP:\r\n{NUMBER}",
    "a list": f"IPP: 80011111, {NUMBER}",
    "a name and a number": f"patient {NAME} {NUMBER}",
    "octal letters": f"n#303#251 le {BORN}",
    "an accent apart": f"ne\u0301 le {BORN}",
    "a short label": f"DN: {BORN}",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_identifier_passes(attack: str) -> None:
    gone_on = said(ATTACKS[attack]).decode("utf-8", "surrogateescape")
    loose = loosened(gone_on)
    texts = [gone_on, gone_on.lower(), html.unescape(gone_on), loose[0] if loose is not None else ""]
    for text in texts:
        signs = "".join(sign for sign in text if sign.isalnum())
        for identifier in (NUMBER, NIR, NIR[1:]):
            assert identifier not in signs
        assert NAME not in text.upper()
        assert BORN not in text
        assert "19700131" not in text
    assert "PSN-" in gone_on


@pytest.mark.parametrize(
    "text",
    [
        ATNA,
        f"{MSH}\rEVN||20261123|||1001^LE BRAS\r{PID}",
        json.dumps({"user": {"nom": "LE BRAS", "birthDate": "1980-01-01"}, "ipp": NUMBER}),
        json.dumps({"resourceType": "Observation", "subject": {"reference": f"Patient/{NUMBER}"},
                    "performer": [{"display": "LE BRAS"}]}),
        json.dumps({"resourceType": "X", "subject": {"reference": "Practitioner/12", "display": "LE BRAS"}}),
        f"PV1|1|I|CARD||{NUMBER}||1001^LE BRAS",
        f"ouvert par LE BRAS, IPP%3D{NUMBER}",
    ],
)  # fmt: skip
def test_staff_stays(text: str) -> None:
    gone_on = said(text)
    assert b"LE BRAS" in gone_on
    assert NUMBER.encode() not in gone_on


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/v1/items/12?x=%C3%A9t%C3%A9 HTTP/1.1",
        "srv-patient-01 sshd[12]: Accepted publickey for alb#012port 22",
        "LIPID|1|x RAPID|2",
        "dn: cn=alb,ou=people",
        "uuid 8f14e45f-ceea-467f-a1d2-123456789012",
        "2026/11/23 10:00:00 1234567 bytes",
        '{"name": "alb", "value": "LE BRAS"}',
    ],
)
def test_what_has_no_patient_is_the_same_object(text: str) -> None:
    line = (HEADER + text).encode()
    assert protect_line(line, KEYS).line is line


def test_an_escaped_name_has_the_pseudonym_of_the_plain_one() -> None:
    plain = KEYS.pseudonym("NAM", "Kerv\u00e9lla").encode()
    for written in (
        "Kerv\u00e9lla",
        "Kerv#303#251lla",
        "Kerv%C3%A9lla",
        "Kerv%E9lla",
        "Kerv\\u00e9lla",
        "Kerv&eacute;lla",
    ):
        assert said(f"nomPatient={written}").endswith(b"nomPatient=" + plain), written


@given(st.text(st.sampled_from("a%C3A9#012\\uxe&;\u0301\uff11 "), max_size=40))
def test_each_sign_of_a_loosened_text_knows_its_place(text: str) -> None:
    loose = loosened(text)
    if loose is None:
        return
    plain, places = loose
    assert len(places) == len(plain) + 1
    assert places == sorted(places)
    assert places[-1] == len(text)

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.formats.hl7 import PATIENT_FIELDS, SERVICES, iso_text, message_fields, split_segments
from ingest.logsource import UNKNOWN, LogSource
from ingest.parse import parse
from raw_lines import batch, read

# Written after HL7 v2.5.1, chapters 2 and 3; all values are made up.
ADT = (
    "MSH|^~\\&|DPI|KERMOR|LABO|KERMOR2|20260228110000.123+0100|secret|ADT^A01^ADT_A01|MSG0042|P^T|2.5^FRA\r"
    "EVN|A01|20260228110000|||a.morvan^MORVAN^Anne\r"
    "PID|1||8001^^^KERMOR||TESTU^CHU\\robert||19700101|F\r"
    "PV1|1|I\r"
)
SAID = {
    "SendingApplication": "DPI",
    "SendingFacility": "KERMOR",
    "ReceivingApplication": "LABO",
    "ReceivingFacility": "KERMOR2",
    "MessageDateTime": "20260228110000.123+0100",
    "MessageType": "ADT",
    "TriggerEvent": "A01",
    "MessageStructure": "ADT_A01",
    "MessageControlID": "MSG0042",
    "ProcessingID": "P",
    "VersionID": "2.5",
    "OperatorID": "a.morvan",
    "Segments": "MSH EVN PID PV1",
}
CARRIERS = [
    ("a whole message", ADT),
    ("line feeds", ADT.replace("\r", "\n")),
    ("both", ADT.replace("\r", "\r\n")),
    ("MLLP's frame", f"\x0b{ADT}\x1c\r"),
    ("rsyslog", ADT.replace("\r", "#015")),
    ("rsyslog, both", ADT.replace("\r", "#015#012")),
    ("escaped CR", ADT.replace("\r", "\\r")),
    ("escaped CR and LF", ADT.replace("\r", "\\r\\n")),
    ("escaped twice", ADT.replace("\\", "\\\\").replace("\r", "\\\\r")),
    ("hexadecimal", ADT.replace("\r", "\\x0d")),
    ("named", ADT.replace("\r", "<CR>")),
    ("XML", ADT.replace("&", "&amp;").replace("\r", "&#13;")),
    ("in quotes", f'message="{ADT}"'),
    ("behind words", f"2026-02-28 11:00:00 INFO inbound from 192.0.2.9: {ADT}"),
]


@pytest.mark.parametrize("text", [text for _, text in CARRIERS], ids=[name for name, _ in CARRIERS])
@pytest.mark.parametrize("header", ["<13>Feb 28 11:00:00 gw1 mllp[3]: ", "<13>1 2026-02-28T10:00:00Z gw1 mllp 3 - - "])
def test_messages_however_carried(header: str, text: str) -> None:
    logsource, row = read((header + text).encode())
    assert logsource == LogSource("hl7", None, "adt")
    assert SAID.items() <= row.items()
    assert (row["user.name"], row["host.name"]) == ("a.morvan", "gw1")
    assert row["@timestamp"] == datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC)


def test_what_stands_before_is_the_message() -> None:
    row = read(f"<13>Feb 28 11:00:00 gw1 mllp: inbound from 192.0.2.9: {ADT}".encode())[1]
    assert row["message"] == "inbound from 192.0.2.9:"


@pytest.mark.parametrize(("field", "component"), [("#", "@"), ("$", "!"), ("^", "|"), (";", ":")])
def test_no_separator_is_assumed(field: str, component: str) -> None:
    text = ADT.replace("\\robert", "").replace("|", "\0").replace("^", component).replace("\0", field)
    fields = message_fields(text)
    assert fields is not None
    assert fields == {**SAID, "@timestamp": "2026-02-28T11:00:00.123+0100"}


def test_only_the_header() -> None:
    logsource, row = read(("<13>Feb 28 11:00:00 gw1 mllp: " + ADT.partition("\r")[0]).encode())
    assert (logsource.service, row["MessageControlID"], row["Segments"]) == ("adt", "MSG0042", "MSH")


ACKS: list[tuple[str, dict[str, str]]] = [
    ("MSA|AA|42", {"AcknowledgmentCode": "AA", "AcknowledgedControlID": "42"}),
    ("MSA|AA|42|fine", {"AcknowledgmentCode": "AA", "TextMessage": "fine"}),
    ("MSA|AE|42|no such patient", {"AcknowledgmentCode": "AE", "ErrorText": "no such patient"}),
    ("MSA|CR|42\rERR||PID^1^5|101^Required field missing|E|||why|for people",
     {"AcknowledgmentCode": "CR", "ErrorCode": "101^Required field missing", "ErrorSeverity": "E",
      "ErrorText": "why", "ErrorUserMessage": "for people"}),
]  # fmt: skip


@pytest.mark.parametrize(("segments", "said"), ACKS)
def test_acknowledgements(segments: str, said: dict[str, str]) -> None:
    logsource, row = read(f"<13>Feb 28 11:00:00 gw1 x: MSH|^~\\&|A|B|C|D|20260228||ACK|1|P|2.5\r{segments}".encode())
    assert logsource == LogSource("hl7", None, "ack")
    assert said.items() <= row.items()
    assert ("ErrorText" in row) == ("ErrorText" in said)


def test_a_sender_invents_no_service() -> None:
    for kind in ("ZZZ^Z01", "", "../adt", "A" * 5000):
        logsource, _ = read(f"<13>Feb 28 11:00:00 gw1 x: MSH|^~\\&|A|B|C|D|2026||{kind}|1|P|2.5".encode())
        assert logsource == LogSource("hl7", None, "mllp")
    assert all(service.islower() and len(service) == 3 for service in SERVICES)


@pytest.mark.parametrize(
    "text", ["MSHX|^~\\&|A", "xMSH|^~\\&|A", "the MSH segment", "MSH", "MSH|", "MSH|a|b", "MSH |^~\\& |"]
)
def test_what_is_no_message(text: str) -> None:
    assert message_fields(text) is None
    logsource, _ = read(f"<13>Feb 28 11:00:00 gw1 app: {text}".encode())
    assert logsource.product == "linux"
    assert read(text.encode())[0] == UNKNOWN


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("202602281100", "2026-02-28T11:00:00"),
        ("20260228110059", "2026-02-28T11:00:59"),
        ("20260228110059.1234-0500", "2026-02-28T11:00:59.1234-0500"),
        ("20260228", ""),
        ("2026022811", ""),
        ("", ""),
    ],
)
def test_times(text: str, time: str) -> None:
    assert iso_text(text) == time


def test_a_backslash_in_a_name_ends_no_segment() -> None:
    assert split_segments("MSH|^~\\&|A\\rPID|1||CHU\\robert\\rPV1|1", "|") == [
        "MSH|^~\\&|A",
        "PID|1||CHU\\robert",
        "PV1|1",
    ]


def test_where_patients_are() -> None:
    assert {2, 3, 4, 5, 6, 7, 9, 11, 13, 14, 18, 19, 20} <= set(PATIENT_FIELDS["PID"])
    assert all(place > 0 for places in PATIENT_FIELDS.values() for place in places)
    assert "EVN" not in PATIENT_FIELDS


def test_no_clinical_content_becomes_a_field() -> None:
    row = read(f"<13>Feb 28 11:00:00 gw1 x: {ADT}".encode())[1]
    del row["event.original"]
    assert "TESTU" not in str(row)
    assert "8001" not in str(row)


HOSTILE = [
    "\\r",
    "\r ",
    "MSH",
    "MSH|",
    "MSH||",
    "|",
    "\n",
    "\\",
    "\n)",
    "#015",
    "<CR>",
    "&amp;",
    "\rPID|",
    "MSH|^~\\&|",
]


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("before", ["", "MSH|^~\\&|", "MSH|^~\\&amp;|"])
def test_a_megabyte_is_read_in_time(before: str, unit: str) -> None:
    started = time.process_time()
    message_fields(before + unit * (1_000_000 // len(unit)) + "x")
    assert time.process_time() - started < 3


def test_every_cut() -> None:
    raw = batch([f"<13>Feb 28 11:00:00 gw1 x: {ADT[:end]}".encode() for end in range(len(ADT) + 1)])
    frames = parse(raw)
    ids = [name for frame in frames for name in frame.events["event.id"].to_list()]
    assert sorted(ids) == sorted(raw["event.id"].to_list())


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=20), st.sampled_from([*HOSTILE, ADT, "MSA|AE|", "ERR|", "^"])), max_size=8).map(
        "".join
    )
)
def test_any_text_is_a_message_or_none(text: str) -> None:
    fields = message_fields(text)
    assert fields is None or all(isinstance(value, str) and value for value in fields.values())
    frames = parse(batch([b"<13>Feb 28 11:00:00 gw1 x: " + text.encode("utf-8", "surrogatepass")]))
    assert sum(frame.events.height for frame in frames) == 1

r"""HL7 version 2 messages in the lines of gateways (MLLP listeners, interface engines): whole, or their MSH alone.

A message is segments that end with CR, of fields, of components; which characters separate them is said by the message
itself, in the first characters of MSH, and never assumed. A gateway writes its own words before the message, and what
was a CR is by then a CR, LF, `#015` of rsyslog, or `\r` and the like of whoever escaped it. All of these are read,
where a segment follows: `\r` within a name such as `CHU\robert` is none.

Only what names systems, staff and outcomes becomes fields: MSH, EVN, MSA and ERR. Clinical content stays in the raw
line. Where identifiers of patients lie is said here (`PATIENT_FIELDS`), since pseudonyms are put in their place before
a line reaches the bus.
Source: HL7 v2.5.1, chapter 2 (Control), 2.5 to 2.15; chapter 3 (Patient Administration); IHE PAM, French extension.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Final

import polars as pl

from ingest.formats.columns import Json
from ingest.formats.piece import EnvelopeNames, Parsed, Piece, spellings_of
from ingest.formats.shapes import alike, frames_of, transposed
from ingest.logsource import LogSource

PATIENT_FIELDS: Final[Mapping[str, tuple[int, ...]]] = {
    # ids, name, mother, birth, alias, address, county, telephones, account, SSN, licence, mother's id, birth place,
    # e-mail
    "PID": (2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 18, 19, 20, 21, 23, 29, 40),
    # the next of kin: name, address, telephones, job number, birth, mother, contact, ids, SSN, birth place
    "NK1": (2, 4, 5, 6, 12, 16, 19, 26, 30, 31, 32, 33, 37, 38, 40),
    # what was the patient's before a merge: ids, account, visit, name
    "MRG": (1, 2, 3, 4, 5, 6, 7),
    # the insured: group, name, birth, address, policy, id, birth place of the policy's holder
    "IN1": (8, 10, 16, 18, 19, 36, 44, 49, 52),
    "IN2": (1, 2, 3, 6, 7, 8, 9, 10, 22, 26, 40, 49, 52, 61, 62, 63, 64, 69, 70),
    "IN3": (25,),
    # the guarantor: ids, names, address, telephones, birth, SSN, employer's ids, contacts
    "GT1": (2, 3, 4, 5, 6, 7, 8, 12, 16, 17, 18, 19, 21, 29, 42, 45, 46, 51),
    "PV1": (5, 19, 50),  # pre-admission, visit and alternate visit numbers
    "PV2": (12,),  # description of the visit
    "ACC": (5, 6, 7, 11),  # an accident: place, person, address
    "QRD": (8,),  # who is asked for
    "QRF": (5,),
    "QPD": (3, 4, 5, 6, 7, 8, 9, 10),  # parameters of a query: name, birth date, identifiers
    "PDC": (),
    "ZFD": (1, 2, 3, 4, 5, 6),  # France: lunar birth date, INS queries and what they rest on
}
"""Segment -> its fields (1 is the first after the segment's name; MSH, whose field 1 is the separator, has none)."""

PATIENT_TEXT_SEGMENTS: Final = frozenset({"OBX", "NTE", "TXA", "DSP", "ADD"})
"""Segments with free text or documents (OBX-5, NTE-3): anything may stand there, names too."""

DATASET: Final = "hl7"

_SIGN: Final = r"[!-/:-@\[-^`{-~]"
"""What may separate fields: any printable ASCII character that is neither letter nor digit."""

RECOGNISE: Final = rf"(?:^|[^A-Za-z0-9])MSH{_SIGN}{_SIGN}{{1,9}}(?:amp;#?)?{_SIGN}"
_HEAD: Final = re.compile(
    rf"(?<![A-Za-z0-9])MSH(?P<field>{_SIGN})(?P<encoding>{_SIGN}{{1,9}}?|\^~\\{{1,4}}&amp;#?)(?P=field)"
)

SERVICES: Final = frozenset(
    {
        *("ack", "adt", "bar", "crm", "dft", "mcf", "mdm", "mfk", "mfn", "nmd", "oml", "omg", "omi", "omp", "oms"),
        *("orf", "orl", "orm", "orr", "oru", "osq", "pgl", "ppr", "qbp", "qck", "qry", "ras", "rde", "rds", "rgv"),
        *("rsp", "rtb", "siu", "sqm", "srm", "srr", "ssu", "suc", "udm", "vxq", "vxr", "vxu"),
    }
)
"""Message types (table 0076) that are a service of their own; each is a table of the lake, so a sender may not invent
others."""

MLLP: Final = "mllp"
"""The service of all others, and of messages whose type cannot be read."""

ACCEPTED: Final = ("AA", "CA")
"""MSA-1 of what was accepted (table 0008); AE, AR, CE and CR are errors and refusals."""

MAX_SEGMENTS: Final = 2_000
NAMES: Final = EnvelopeNames(time=(("@timestamp", True),), user=("OperatorID",))
_SPELLINGS: Final = spellings_of(NAMES)

_MSH: Final = {
    3: "SendingApplication",
    4: "SendingFacility",
    5: "ReceivingApplication",
    6: "ReceivingFacility",
    7: "MessageDateTime",
    10: "MessageControlID",
    11: "ProcessingID",
    12: "VersionID",
}
_SEGMENT_FIELDS: Final[dict[str, dict[int, str]]] = {
    "EVN": {5: "OperatorID"},  # who of the staff did it
    "MSA": {1: "AcknowledgmentCode", 2: "AcknowledgedControlID", 3: "TextMessage"},
    "ERR": {3: "ErrorCode", 4: "ErrorSeverity", 7: "ErrorText", 8: "ErrorUserMessage"},
}
_TIME: Final = re.compile(
    r"(?P<day>\d{8})(?P<clock>\d{4})(?P<second>\d{2})?(?P<fraction>\.\d{1,6})?(?P<zone>[+-]\d{4})?"
)
_ENDS: Final = r"(?:\r|\n|\x1c|#01[25]|\\{1,4}[rn]|\\{1,4}x0[dDaA]|\\{1,4}u000[dDaA]|<CR>|&#1[03];)"
"""What ends a segment, bounded so that no run of backslashes is gone over twice."""
_ENDINGS: Final = ("\r", "\n", "\x1c", "#015", "#012", "\\r", "\\n", "<CR>", " ")
_SEGMENT_NAME: Final = r"[A-Z][A-Z0-9]{2}"


def parse_hl7(lines: pl.DataFrame) -> Parsed:
    """Pieces of messages, one a service; a line without a message is a reject."""
    found: dict[str, list[tuple[int, dict[str, Json]]]] = {}
    rejects: dict[int, str] = {}
    for row, payload in zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True):
        fields = message_fields(payload)
        if fields is None:
            rejects[row] = "no HL7 message after all"
        else:
            kind = str(fields.get("MessageType") or "").lower()
            found.setdefault(kind if kind in SERVICES else MLLP, []).append((row, fields))
    pieces = [
        Piece(LogSource("hl7", None, service), DATASET, rows, frame, NAMES)
        for service, events in found.items()
        for rows, frame in frames_of([transposed(same) for same in alike(events)], spellings=_SPELLINGS)
    ]
    return Parsed(pieces, rejects)


def message_fields(text: str) -> dict[str, Json] | None:
    """The fields of the first message within a line, and what stands before it as `message`; None if there is none."""
    head = _HEAD.search(text)
    if head is None:
        return None
    before, body, separator = text[: head.start()], text[head.start() :], head["field"]
    quote = before[-1:]
    if quote in ('"', "'") and (last := body.rfind(quote)) > 0:
        body = body[:last]
    if "&amp;" in head["encoding"]:
        body = html.unescape(body)
    component = html.unescape(head["encoding"])[0]
    segments = split_segments(body, separator)
    fields: dict[str, str] = {}
    _read_header(fields, segments[0].split(separator), component)
    for segment in segments[1:]:
        parts = segment.split(separator)
        for place, name in _SEGMENT_FIELDS.get(parts[0], {}).items():
            if place < len(parts):
                fields.setdefault(name, _first(parts[place], component) if name == "OperatorID" else parts[place])
    if fields.get("AcknowledgmentCode") not in (*ACCEPTED, None) and fields.get("TextMessage"):
        fields.setdefault("ErrorText", fields["TextMessage"])
    fields["Segments"] = " ".join(segment[:3] for segment in segments)
    fields["message"] = before.strip()
    return {name: value for name, value in fields.items() if value.strip()}


def split_segments(body: str, separator: str) -> list[str]:
    """The segments of a message that begins at `body`.

    A segment ends where another begins, or the message ends. At most `MAX_SEGMENTS`; the last then holds the rest.
    """
    ends = re.compile(rf"{_ENDS}(?={_SEGMENT_NAME}(?:{re.escape(separator)}|$))")
    return [_without_end(segment) for segment in ends.split(body, MAX_SEGMENTS)]


def _without_end(segment: str) -> str:
    """A segment without what is left of its end: CR and LF are two, and an escaped backslash is some."""
    for _ in range(4):
        segment = segment.rstrip("\r\n\x1c ")
        ending = next((ending for ending in _ENDINGS if segment.endswith(ending)), None)
        if ending is None:
            return segment
        segment = segment.removesuffix(ending).rstrip("\\")
    return segment


def _first(value: str, component: str) -> str:
    return value.split(component, 1)[0]


def _read_header(fields: dict[str, str], parts: list[str], component: str) -> None:
    """MSH: its field 1 is the separator itself, so the part after `MSH` is field 2."""
    for place, name in _MSH.items():
        if place - 1 < len(parts):
            fields[name] = parts[place - 1].strip()
    for name in ("ProcessingID", "VersionID"):
        if name in fields:
            fields[name] = _first(fields[name], component)
    if len(parts) > 8:
        kind = parts[8].strip().split(component)
        fields.update(zip(("MessageType", "TriggerEvent", "MessageStructure"), kind, strict=False))
    fields["@timestamp"] = iso_text(fields.get("MessageDateTime", ""))


def iso_text(text: str) -> str:
    """A time of HL7 (`YYYYMMDDHHMM[SS[.S[S[S[S]]]]][+/-ZZZZ]`) as ISO 8601; empty if it has no time of day."""
    match = _TIME.match(text)
    if match is None:
        return ""
    day, clock = match["day"], match["clock"]
    date = f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:]}:{match['second'] or '00'}"
    return f"{date}{match['fraction'] or ''}{match['zone'] or ''}"

"""Windows events as XML, as the event log renders them and collectors forward them.

XML from a network is read with expat, which expands no entity that is not declared; and a document with a document type
declaration is refused, since no event has one: so there is no "billion laughs" and no file is fetched. Where such text
occurs at all, expat itself says whether it is a declaration: searching would be misled by a processing instruction
before it, and would refuse a command line within CDATA.
Characters that XML 1.0 forbids do occur in events (a service name with a control character): they become U+FFFD.
"""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree as ET
from xml.parsers import expat

import polars as pl

from ingest.formats.columns import Json
from ingest.formats.piece import Parsed
from ingest.formats.shapes import alike
from ingest.formats.windows_events import WindowsEvents
from ingest.formats.windows_json import SYSTEM_KEPT, unnamed_data

_FORBIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|&#(?:0*(?:[0-8]|1[124-9]|2[0-9]|3[01])|[xX]0*(?:[0-8bcefBCEF]|1[0-9a-fA-F]));"
)
_TEXT_CHILDREN: Final = (
    "EventID",
    "Channel",
    "Computer",
    "EventRecordID",
    "Level",
    "Task",
    "Opcode",
    "Keywords",
    "Version",
)
_ATTRIBUTES: Final = (
    ("Provider", "Name", "Provider_Name"),
    ("Provider", "Guid", "Provider_Guid"),
    ("TimeCreated", "SystemTime", "TimeCreated"),
    ("Execution", "ProcessID", "ExecutionProcessID"),
    ("Execution", "ThreadID", "ThreadID"),
    ("Security", "UserID", "UserID"),
    ("Correlation", "ActivityID", "ActivityID"),
)
_DOCTYPE: Final = "<!DOCTYPE"
_TO_BRACKET: Final = re.compile(r"[^\[>]*[\[>]|[^\[>]+")
DATASET: Final = "windows.xml"


def parse_xml(lines: pl.DataFrame) -> Parsed:
    """Windows events, and Sysmon for Linux, which writes the same XML."""
    events: list[tuple[int, dict[str, Json]]] = []
    rejects: dict[int, str] = {}
    remarks: dict[int, str] = {}
    for row, payload in zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True):
        fields, remark = event_fields(payload)
        if fields is None:
            rejects[row] = remark or "broken XML"
            continue
        if remark is not None:
            remarks[row] = remark
        events.append((row, fields))
    windows = WindowsEvents()
    for same in alike(events):
        windows.add(DATASET, same)
    return Parsed(windows.pieces(), rejects, remarks)


def event_fields(text: str) -> tuple[dict[str, Json] | None, str | None]:
    """(fields of one event, None or a remark), or (None, why it is not one)."""
    try:
        return _event_fields(text)
    except _DoctypeError:
        return None, "XML with a document type declaration refused"


class _DoctypeError(Exception):
    """The document has a document type declaration."""


def _refuse_doctype(*_: object) -> None:
    raise _DoctypeError


def _root(text: str) -> ET.Element:
    """The root element; raises `_DoctypeError` before any entity could be expanded, else ET.ParseError."""
    if _DOCTYPE in text:
        guard = expat.ParserCreate()
        guard.StartDoctypeDeclHandler = _refuse_doctype
        # Expat reads on after a handler raised, until the end of what it was given, and calls this one at `[` or `>`:
        # so it is given the text in pieces that end there.
        try:
            for piece in _TO_BRACKET.findall(text):
                guard.Parse(piece)
        except expat.ExpatError:
            pass  # broken before any declaration: told below
    return ET.fromstring(text)  # noqa: S314 (see the module docstring)


def _event_fields(text: str) -> tuple[dict[str, Json] | None, str | None]:
    remark = None
    try:
        root = _root(text)
    except ET.ParseError as error:
        repaired, count = _FORBIDDEN.subn("\ufffd", text)
        if not count:
            return None, f"broken XML: {error}"
        try:
            root = _root(repaired)
        except ET.ParseError as second:
            return None, f"broken XML: {second}"
        remark = f"not valid XML, read all the same: {error}"
    if _local(root) != "Event":
        return None, "XML, but not a Windows event"
    return _fields(root), remark


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _fields(root: ET.Element) -> dict[str, Json]:
    fields: dict[str, Json] = {}
    user_data: dict[str, Json] = {}
    for part in root:
        kind = _local(part)
        if kind == "System":
            fields |= _system(part)
        elif kind == "EventData":
            for name, value in _event_data(part).items():
                fields.setdefault(name, value)
        elif kind in ("UserData", "ProcessingErrorData"):
            user_data |= {_local(leaf): leaf.text for leaf in part.iter() if not len(leaf) and leaf is not part}
        elif kind == "RenderingInfo":
            fields["Message"] = next((leaf.text for leaf in part if _local(leaf) == "Message"), None)
    for name, value in user_data.items():
        if value is not None:
            if name in SYSTEM_KEPT and name in fields:
                fields[f"System.{name}"] = fields[name]
            fields[name] = value
    return fields


def _system(part: ET.Element) -> dict[str, Json]:
    children = {_local(child): child for child in part}
    fields: dict[str, Json] = {
        name: children[name].text for name in _TEXT_CHILDREN if name in children and children[name].text is not None
    }
    for child, attribute, name in _ATTRIBUTES:
        value = children[child].get(attribute) if child in children else None
        if value is not None:
            fields[name] = value
    return fields


def _event_data(part: ET.Element) -> dict[str, Json]:
    fields: dict[str, Json] = {}
    unnamed: list[str] = []
    for element in part:
        name = element.get("Name")
        if _local(element) != "Data":
            fields.setdefault(_local(element), element.text)
        elif name:
            fields.setdefault(name, element.text or "")  # `<Data/>` is empty, not absent: Sigma tells '' from null
        else:
            unnamed.append(element.text or "")
    return fields | unnamed_data(unnamed)

r"""Windows events as rendered text, from the forwarders that send it over syslog; French Windows writes them in French.

| forwarder | told by |
| --- | --- |
| NXLog `to_syslog_ietf`, Log Insight | structured data with an event id and a channel or provider |
| NXLog `to_syslog_bsd` | the provider as TAG |
| evtsys | the provider as TAG, `4624: AUDIT_SUCCESS` before the message |
| EventReporter, rsyslog Windows Agent | TAG `EvntSLog`, or the message alone |
| QRadar WinCollect | `AgentDevice=WindowsLog` |
| any other | the first words of a message that is known (`windows_messages.TITLES`) |

Snare is a module of its own. The events come out with the log source and the field names that JSON and XML give them.
Where no event id is sent, the first sentence of the message tells it.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from ingest.formats.columns import MAX_NAME, Json
from ingest.formats.piece import Parsed
from ingest.formats.shapes import alike
from ingest.formats.windows_events import WindowsEvents
from ingest.formats.windows_messages import SECURITY, beginning_words, begins_pattern
from ingest.formats.windows_rendered import described, message_fields

DATASET: Final = "windows.text"
MAX_EVENT_ID: Final = 5

_PROVIDER_TAG: Final = (
    r"^(?:Microsoft-Windows-[A-Za-z0-9_-]+|Security-Auditing|Service[_-]Control[_-]Manager|EvntSLog|Eventlog)$"
)
_SPACED_TAG: Final = r"^Service Control Manager(?:\[[0-9]{1,10}\])?: "
_EVENT_PARAMETER: Final = r"(?i)[\s]event_?id=\"[0-9]"
_ORIGIN_PARAMETER: Final = r"(?i)[\s](?:channel|provider_?name|source_?name|eventlog)=\""
RECOGNISE: Final = (
    pl.col("program").str.contains(_PROVIDER_TAG).fill_null(value=False)
    | pl.col("payload").str.contains(
        rf"{_SPACED_TAG}|^AgentDevice=WindowsLog\b|^[0-9]{{1,5}}: AUDIT_(?:SUCCESS|FAILURE)\b|{begins_pattern()}"
    )
    | (
        pl.col("structured_data").str.contains(_EVENT_PARAMETER)
        & pl.col("structured_data").str.contains(_ORIGIN_PARAMETER)
    ).fill_null(value=False)
)
"""Lines that are rendered Windows events."""

HINT: Final = (
    pl.col("payload").str.contains_any(
        ["Service Control Manager", "AgentDevice=WindowsLog", ": AUDIT_", *beginning_words()],
        ascii_case_insensitive=True,
    )
    | pl.col("program").str.contains_any(["Windows", "Security-Auditing", "Control", "EvntSLog", "Eventlog"])
    | pl.col("structured_data").str.contains_any(["eventid", "event_id"], ascii_case_insensitive=True)
)
"""Without regular expressions; see `ingest.formats.piece.Format`."""

_PARAMETER: Final = re.compile(r'([^\s="\]\[]{1,64})="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r'\\(["\\\]])')
_SYSTEM_NAMES: Final = {
    "eventid": "EventID",
    "event_id": "EventID",
    "channel": "Channel",
    "eventlog": "Channel",
    "providername": "Provider_Name",
    "provider_name": "Provider_Name",
    "sourcename": "Provider_Name",
    "source_name": "Provider_Name",
    "providerguid": "Provider_Guid",
    "hostname": "Computer",
    "computer": "Computer",
    "recordnumber": "EventRecordID",
    "recordid": "EventRecordID",
    "eventrecordid": "EventRecordID",
    "keywords": "Keywords",
    "level": "Level",
    "severityvalue": "SeverityValue",
    "task": "Task",
    "opcode": "Opcode",
    "eventtime": "EventTime",
    "message": "Message",
}
"""Names of parameters in lower case -> how JSON and XML events call them; others stay as they are."""

_EVTSYS: Final = re.compile(
    r"(?s)(?P<id>\d{1,5}): (?:(?P<kind>AUDIT_SUCCESS|AUDIT_FAILURE|INFORMATION|INFO|WARNING|ERROR|SUCCESS)\b:? ?)?"
)
_EVNTSLOG: Final = re.compile(
    r"(?s)(?:\d{1,3}: ?)?(?:\[(?P<kind>\w{3})\] )?(?P<time>[^/]{0,40}?): ?"
    r"(?P<host>[^\s/]{1,255})/(?P<channel>[^(]{1,255}?) "
    r"\((?P<id>\d{1,5})\) - "
)
_WINCOLLECT: Final = re.compile(
    r"(?:^|[\t ])(AgentDevice|AgentLogFile|PluginVersion|Source|Computer|OriginatingComputer|User|Domain|EventID"
    r"|EventIDCode|EventType|EventCategory|RecordNumber|TimeGenerated|TimeWritten|Level|Keywords|Task|Opcode)="
)
_WINCOLLECT_NAMES: Final = {
    "AgentLogFile": "Channel",
    "Source": "Provider_Name",
    "EventIDCode": "EventIDCode",
    "RecordNumber": "EventRecordID",
    "TimeGenerated": "EventTime",
}
CHANNELS: Final = {"sécurité": "Security", "securité": "Security", "système": "System", "systeme": "System"}
"""Names of logs in French, in lower case -> the channel."""

AUDITED: Final = {
    "success audit": "0x8020000000000000",
    "audit success": "0x8020000000000000",
    "audit_success": "0x8020000000000000",
    "succès de l'audit": "0x8020000000000000",
    "succès de l’audit": "0x8020000000000000",
    "aus": "0x8020000000000000",
    "failure audit": "0x8010000000000000",
    "audit failure": "0x8010000000000000",
    "audit_failure": "0x8010000000000000",
    "échec de l'audit": "0x8010000000000000",
    "échec de l’audit": "0x8010000000000000",
    "auf": "0x8010000000000000",
}
"""Type of an audit event as forwarders write it, in lower case -> the mask of the event log."""
SEVERITIES: Final = {
    "information": "4",
    "info": "4",
    "inf": "4",
    "warning": "3",
    "avertissement": "3",
    "wrn": "3",
    "error": "2",
    "erreur": "2",
    "err": "2",
    "critical": "1",
    "critique": "1",
}
"""The same of other events -> their level."""
CLEARED_BY: Final = "Microsoft-Windows-Eventlog"
PROVIDERS: Final = {"Security-Auditing": SECURITY[1], "Service_Control_Manager": "Service Control Manager"}
"""Short names of providers -> their own."""

NO_EVENT_ID: Final = "no event id in this Windows message, and its first words are not known"
Line = tuple[str, str | None, str | None]
"""(payload, program, structured data)."""


def parse_text(lines: pl.DataFrame) -> Parsed:
    """Every line is an event, if only with its message; one whose event id is not known is remarked."""
    events: list[tuple[int, dict[str, Json]]] = []
    remarks: dict[int, str] = {}
    for row, *line in lines.select("row", "payload", "program", "structured_data").iter_rows():
        event = text_event((line[0], line[1], line[2]))
        if "EventID" not in event:
            remarks[row] = NO_EVENT_ID
        events.append((row, event))
    windows = WindowsEvents()
    for same in alike(events):
        windows.add(DATASET, same)
    return Parsed(windows.pieces(), {}, remarks)


def text_event(line: Line) -> dict[str, Json]:
    """The fields of one event."""
    payload, program, structured_data = line
    if structured_data and "=" in structured_data:
        system = _parameters(structured_data)
        if "EventID" in system:
            return complete(system, str(system.get("Message") or payload))
    if payload.startswith("AgentDevice="):
        return _wincollect(payload)
    if program == "EvntSLog":
        return _evntslog(payload)
    return _tagged(payload, program)


def complete(system: dict[str, Json], message: str) -> dict[str, Json]:
    """The event of its system fields and its message; what the message says never replaces a field that was sent."""
    given = str(system.get("EventID") or "").strip()
    event_id, channel, provider = described(message, given[:MAX_EVENT_ID] if given.isdigit() else None)
    if not given and event_id is not None:
        system["EventID"] = event_id
    if provider == CLEARED_BY and str(system.get("Provider_Name") or "").lower() == "eventlog":
        system["Provider_Name"] = provider  # as evtsys and some agents shorten it
    said = str(system.get("Channel") or "")
    if said:
        system["Channel"] = CHANNELS.get(said.lower(), said)
    elif channel is not None and _agrees(system.get("Provider_Name"), provider):
        system["Channel"] = channel
    if provider is not None and not system.get("Provider_Name"):
        system["Provider_Name"] = provider
    sysmon = "sysmon" in str(system.get("Provider_Name") or said).lower()
    system["Message"] = message
    for name, value in message_fields(message, event_id or "", sysmon=sysmon).items():
        system.setdefault(name, value)
    return system


def _agrees(given: Json, told: str | None) -> bool:
    return not given or given == told


def judged(system: dict[str, Json], kind: str | None) -> None:
    """Keywords or level of an event, of the type that a forwarder gave it."""
    word = (kind or "").strip().lower()
    if word in AUDITED:
        system["Keywords"] = AUDITED[word]
    elif word in SEVERITIES:
        system["Level"] = SEVERITIES[word]


def _parameters(structured_data: str) -> dict[str, Json]:
    fields: dict[str, Json] = {}
    for name, value in _PARAMETER.findall(structured_data):
        known = _SYSTEM_NAMES.get(name.lower(), name[:MAX_NAME])
        fields.setdefault(known, _ESCAPED.sub(r"\1", value) if "\\" in value else value)
    return fields


def _wincollect(payload: str) -> dict[str, Json]:
    head, _, message = payload.partition("Message=")
    places = list(_WINCOLLECT.finditer(head))
    ends = [*(place.start() for place in places[1:]), len(head)]
    fields: dict[str, Json] = {}
    for place, end in zip(places, ends, strict=True):
        name = place[1]
        fields.setdefault(_WINCOLLECT_NAMES.get(name, name), head[place.end() : end].strip())
    for name in ("AgentDevice", "PluginVersion", "User", "Domain"):
        if not fields.get(name):
            fields.pop(name, None)
    level = fields.pop("Level", None)
    keywords = fields.pop("Keywords", None)
    judged(fields, str(level))
    judged(fields, str(keywords))
    return complete(fields, message)


def _evntslog(payload: str) -> dict[str, Json]:
    head = _EVNTSLOG.match(payload)
    if head is None:
        return complete({}, payload)
    fields: dict[str, Json] = {"EventID": head["id"], "Channel": head["channel"], "Computer": head["host"]}
    if head["time"]:
        fields["EventTime"] = head["time"]
    judged(fields, head["kind"])
    return complete(fields, payload[head.end() :].strip().removeprefix('"').removesuffix('"'))


def _tagged(payload: str, program: str | None) -> dict[str, Json]:
    fields: dict[str, Json] = {}
    spaced = re.match(_SPACED_TAG, payload)
    if spaced is not None:
        program, payload = "Service Control Manager", payload[spaced.end() :]
    if program is not None and re.match(_PROVIDER_TAG, program):
        fields["Provider_Name"] = PROVIDERS.get(program, program)
    elif spaced is not None:
        fields["Provider_Name"] = program
    head = _EVTSYS.match(payload)
    if head is not None and (fields or (head["kind"] or "").startswith("AUDIT_")):
        fields["EventID"] = head["id"]
        judged(fields, head["kind"])
        payload = payload[head.end() :]
    return complete(fields, payload)

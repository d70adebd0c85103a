"""Windows events as JSON: one function a shape, each giving the fields of the event under Sigma's names.

| shape | told by |
| --- | --- |
| flat (NXLog, OTRF) | `EventID` beside `Channel`, `SourceName` or `Provider_Name` |
| Winlogbeat 7 and later | `winlog` |
| Winlogbeat 6 and earlier | `log_name` or `event_data` beside `event_id` |
| nested (EVTX dumps, XML turned into JSON) | `Event` with `System` |

System fields win over EventData fields of the same name, but UserData fields win over both: SigmaHQ's rule on cleared
logs (event 104) reads `Channel` from UserData, where it is the log that was cleared.
Attributes of XML appear as `#attributes` (evtx_dump), `@Name` (xmltodict) or plain keys.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

from ingest.formats.columns import Json, as_text
from ingest.formats.shapes import Alike

SYSTEM_KEPT: Final = frozenset({"Channel", "EventID", "Provider_Name"})
"""System fields that stay, as `System.Channel` and so on, where UserData has a field of the same name."""

_EVENT_TYPE: Final = re.compile(r"^EventType: (\w{1,32})\r?$", re.MULTILINE)
_ABSENT: Final[dict[str, Json]] = {}


def is_flat(keys: Container[str]) -> bool:
    """Whether an event with these keys is flat JSON as NXLog and OTRF write it."""
    return "EventID" in keys and ("Channel" in keys or "SourceName" in keys or "Provider_Name" in keys)


def flat_dataset(keys: Container[str]) -> str:
    """Which flat writer it was."""
    return "windows.nxlog" if "EventReceivedTime" in keys or "SourceModuleType" in keys else "windows.json"


def restore_event_types(same: Alike) -> None:
    """Give Sysmon's EventType back where NXLog's own (INFO, its severity) took its place: the Message still has it."""
    if "EventType" not in same.keys or "Message" not in same.keys:
        return
    for event in same.events:
        if event["EventType"] == "INFO":
            message = event["Message"]
            # The literal first: most messages have none, and the expression tries every line of them.
            if isinstance(message, str) and "EventType: " in message and (found := _EVENT_TYPE.search(message)):
                event["EventType"] = found[1]


def may_be_nested(keys: Container[str]) -> bool:
    """Whether an event with these keys can be in one of the shapes with nested objects."""
    return "winlog" in keys or "event_id" in keys or "Event" in keys or "System" in keys


def nested_fields(event: dict[str, Json]) -> tuple[str, dict[str, Json]] | None:
    """(dataset, fields) of an event in one of the shapes with nested objects; None if it is in none of them."""
    winlog = event.get("winlog")
    if isinstance(winlog, dict):
        return "windows.winlogbeat", _winlogbeat(event, winlog)
    if ("log_name" in event or "event_data" in event) and "event_id" in event:
        return "windows.winlogbeat6", _winlogbeat6(event)
    inner = event.get("Event")
    if isinstance(inner, dict) and isinstance(inner.get("System"), dict):
        return "windows.evtx", _evtx(inner)
    if isinstance(event.get("System"), dict) and ("EventData" in event or "UserData" in event):
        return "windows.evtx", _evtx(event)
    return None


def _object(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else _ABSENT


def _joined(system: dict[str, Json], event_data: dict[str, Json], user_data: dict[str, Json]) -> dict[str, Json]:
    fields: dict[str, Json] = {name: value for name, value in system.items() if value is not None}
    for name, value in event_data.items():
        fields.setdefault(name, value)
    for name, value in user_data.items():
        if value is not None:
            if name in SYSTEM_KEPT and name in system:
                fields[f"System.{name}"] = system[name]  # what the log source is told by
            fields[name] = value
    return fields


def _winlogbeat(event: dict[str, Json], winlog: dict[str, Json]) -> dict[str, Json]:
    ecs = _object(event.get("event"))
    process = _object(winlog.get("process"))
    system: dict[str, Json] = {
        "EventID": winlog.get("event_id", ecs.get("code")),
        "Channel": winlog.get("channel"),
        "Provider_Name": winlog.get("provider_name", ecs.get("provider")),
        "Provider_Guid": winlog.get("provider_guid"),
        "Computer": winlog.get("computer_name", _object(event.get("host")).get("name")),
        "EventRecordID": winlog.get("record_id"),
        "Level": winlog.get("level", _object(event.get("log")).get("level")),
        "Task": winlog.get("task"),
        "Opcode": winlog.get("opcode"),
        "Keywords": winlog.get("keywords"),
        "Version": winlog.get("version"),
        "ExecutionProcessID": process.get("pid"),
        "ThreadID": _object(process.get("thread")).get("id"),
        "UserID": _object(winlog.get("user")).get("identifier"),
        "ActivityID": winlog.get("activity_id"),
        "Message": event.get("message"),
        "@timestamp": event.get("@timestamp"),
    }
    return _joined(system, _event_data(winlog.get("event_data")), _user_data(winlog.get("user_data")))


def _winlogbeat6(event: dict[str, Json]) -> dict[str, Json]:
    system: dict[str, Json] = {
        "EventID": event.get("event_id"),
        "Channel": event.get("log_name"),
        "Provider_Name": event.get("source_name"),
        "Provider_Guid": event.get("provider_guid"),
        "Computer": event.get("computer_name"),
        "EventRecordID": event.get("record_number"),
        "Level": event.get("level"),
        "Task": event.get("task"),
        "Opcode": event.get("opcode"),
        "Keywords": event.get("keywords"),
        "Version": event.get("version"),
        "ExecutionProcessID": event.get("process_id"),
        "ThreadID": event.get("thread_id"),
        "UserID": _object(event.get("user")).get("identifier"),
        "ActivityID": event.get("activity_id"),
        "Message": event.get("message"),
        "@timestamp": event.get("@timestamp"),
    }
    return _joined(system, _event_data(event.get("event_data")), _user_data(event.get("user_data")))


def _evtx(event: dict[str, Json]) -> dict[str, Json]:
    system = _object(event.get("System"))
    provider, execution = system.get("Provider"), system.get("Execution")
    fields: dict[str, Json] = {
        "EventID": _text_of(system.get("EventID")),
        "Channel": _text_of(system.get("Channel")),
        "Provider_Name": _attribute(provider, "Name"),
        "Provider_Guid": _attribute(provider, "Guid"),
        "Computer": _text_of(system.get("Computer")),
        "EventRecordID": _text_of(system.get("EventRecordID")),
        "Level": _text_of(system.get("Level")),
        "Task": _text_of(system.get("Task")),
        "Opcode": _text_of(system.get("Opcode")),
        "Keywords": _text_of(system.get("Keywords")),
        "Version": _text_of(system.get("Version")),
        "ExecutionProcessID": _attribute(execution, "ProcessID"),
        "ThreadID": _attribute(execution, "ThreadID"),
        "UserID": _attribute(system.get("Security"), "UserID"),
        "ActivityID": _attribute(system.get("Correlation"), "ActivityID"),
        "TimeCreated": _attribute(system.get("TimeCreated"), "SystemTime"),
        "Message": _text_of(_object(event.get("RenderingInfo")).get("Message")),
    }
    user_data = _user_data(event.get("UserData"))
    user_data |= _plain_children(_object(event.get("ProcessingErrorData")))
    return _joined(fields, _event_data(event.get("EventData")), user_data)


def _attribute(node: Json, name: str) -> Json:
    if not isinstance(node, dict):
        return None
    attributes = node.get("#attributes")
    if isinstance(attributes, dict) and name in attributes:
        return attributes[name]
    return node.get(f"@{name}", node.get(name))


def _text_of(node: Json) -> Json:
    """The text of an element that may have become an object because it has attributes."""
    return node.get("#text") if isinstance(node, dict) and ("#text" in node or "#attributes" in node) else node


def _event_data(node: Json) -> dict[str, Json]:
    if isinstance(node, list):  # several <EventData>, or its <Data> without the name
        node = {"Data": node}
    fields = _object(node)
    if "Data" not in fields and "#attributes" not in fields:
        return {name: _text_of(value) for name, value in fields.items()} if _has_object(fields) else fields
    plain = _plain_children({name: value for name, value in fields.items() if name != "Data"})
    return plain | _data_elements(fields.get("Data"))


def _has_object(fields: dict[str, Json]) -> bool:
    return any(type(value) is dict for value in fields.values())


def _plain_children(node: dict[str, Json]) -> dict[str, Json]:
    return {
        name: _text_of(value)
        for name, value in node.items()
        if name not in ("#attributes", "#text") and not name.startswith("@")
    }


def _data_elements(data: Json) -> dict[str, Json]:
    """<Data> elements: those with a Name are fields, the others are `Data` (joined) and `param1`, `param2`..."""
    named: dict[str, Json] = {}
    unnamed: list[Json] = []
    for element in data if isinstance(data, list) else [data]:
        name = _attribute(element, "Name")
        text = _text_of(element)
        if isinstance(name, str):
            named.setdefault(name, None if isinstance(text, dict) else text)
        elif isinstance(text, list):
            unnamed.extend(text)
        elif text is not None:
            unnamed.append(text)
    return named | unnamed_data([as_text(value) or "" for value in unnamed])


def unnamed_data(values: list[str]) -> dict[str, Json]:
    """`Data` and `param1`... of the <Data> elements that have no name."""
    if not values:
        return {}
    fields: dict[str, Json] = {"Data": "\n".join(values)}
    fields.update((f"param{number}", value) for number, value in enumerate(values, start=1))
    return fields


def _user_data(node: Json) -> dict[str, Json]:
    """The fields of UserData: those of its one element, whatever that is called."""
    fields: dict[str, Json] = {}
    for name, value in _object(node).items():
        if isinstance(value, dict) and "#text" not in value:
            fields.update(_plain_children(value))
        elif name not in ("#attributes", "xml_name") and not name.startswith("@"):
            fields[name] = _text_of(value)
    return fields

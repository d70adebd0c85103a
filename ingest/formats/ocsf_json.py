"""OCSF events: JSON with `class_uid`; the class, the activity and the device's system give Sigma's log source.

Nested objects become dotted names, and the names that rules use for the category stand beside them. Classes that Sigma
has no category for (findings, inventory) keep their names and have no log source.
Source: OCSF schema 1.x, classes 1001, 1005, 1007, 201001 and 201002 (Windows), 3002, 4001, 4002, 4003, 6003;
`device.os.type_id`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from ingest.formats.columns import Json
from ingest.formats.ecs_json import Source
from ingest.formats.piece import EnvelopeNames
from ingest.formats.renamed import Renames
from ingest.formats.shapes import Alike, split_by
from ingest.logsource import UNKNOWN, LogSource

DATASET: Final = "json.ocsf"
NAMES: Final = EnvelopeNames(
    time=(("time_dt", True), ("time", True), ("metadata.original_time", True)),
    host=("device.hostname", "device.name", "dst_endpoint.hostname", "src_endpoint.hostname"),
    user=("user.name", "actor.user.name", "process.user.name"),
    source_ip=("src_endpoint.ip", "device.ip"),
    destination_ip=("dst_endpoint.ip",),
)

PROCESS: Final[Renames] = {
    "Image": ("process.file.path", "process.path", "process.name"),
    "CommandLine": ("process.cmd_line",),
    "ParentImage": ("process.parent_process.file.path", "actor.process.file.path", "actor.process.name"),
    "ParentCommandLine": ("process.parent_process.cmd_line", "actor.process.cmd_line"),
    "CurrentDirectory": ("process.working_directory",),
    "ProcessId": ("process.pid",),
    "ParentProcessId": ("process.parent_process.pid", "actor.process.pid"),
    "IntegrityLevel": ("process.integrity",),
    "User": ("process.user.name", "actor.user.name"),
}
FILE: Final[Renames] = {
    "TargetFilename": ("file_result.path", "file.path"),
    "SourceFilename": ("file.path",),
    "Image": ("actor.process.file.path", "actor.process.name"),
    "User": ("actor.user.name", "actor.process.user.name"),
}
MODULE: Final[Renames] = {
    "ImageLoaded": ("module.file.path",),
    "Image": ("actor.process.file.path", "actor.process.name"),
}
REGISTRY: Final[Renames] = {
    "TargetObject": ("reg_value.path", "reg_key.path"),
    "Details": ("reg_value.data",),
    "Image": ("actor.process.file.path", "actor.process.name"),
}
CONNECTION: Final[Renames] = {
    "Image": ("actor.process.file.path", "actor.process.name"),
    "User": ("actor.user.name",),
    "SourceIp": ("src_endpoint.ip",),
    "SourcePort": ("src_endpoint.port",),
    "DestinationIp": ("dst_endpoint.ip",),
    "DestinationPort": ("dst_endpoint.port",),
    "DestinationHostname": ("dst_endpoint.hostname",),
    "Protocol": ("connection_info.protocol_name",),
}
FIREWALL: Final[Renames] = {
    "src_ip": ("src_endpoint.ip",),
    "src_port": ("src_endpoint.port",),
    "dst_ip": ("dst_endpoint.ip",),
    "dst_port": ("dst_endpoint.port",),
    "action": ("action", "disposition", "activity_name"),
}
DNS: Final[Renames] = {"query": ("query.hostname",), "record_type": ("query.type",), "answer": ("answers",)}
DNS_QUERY: Final[Renames] = {
    "QueryName": ("query.hostname",),
    "QueryResults": ("answers",),
    "Image": ("actor.process.file.path", "actor.process.name"),
}
WEB: Final[Renames] = {
    "cs-method": ("http_request.http_method",),
    "cs-uri-query": ("http_request.url.path", "http_request.url.query_string"),
    "cs-uri-stem": ("http_request.url.path",),
    "c-uri": ("http_request.url.url_string",),
    "c-uri-query": ("http_request.url.query_string",),
    "cs-host": ("http_request.url.hostname",),
    "r-dns": ("http_request.url.hostname",),
    "cs-user-agent": ("http_request.user_agent",),
    "c-useragent": ("http_request.user_agent",),
    "cs-referer": ("http_request.referrer",),
    "c-ip": ("src_endpoint.ip",),
    "sc-status": ("http_response.code",),
}
CLOUDTRAIL: Final[Renames] = {
    "eventName": ("api.operation",),
    "eventSource": ("api.service.name",),
    "errorCode": ("api.response.error",),
    "errorMessage": ("api.response.error_message",),
    "awsRegion": ("cloud.region",),
    "sourceIPAddress": ("src_endpoint.ip",),
    "userAgent": ("http_request.user_agent",),
    "userIdentity.type": ("actor.user.type",),
    "userIdentity.arn": ("actor.user.uid_alt",),
}
NOTHING: Final[Renames] = {}

ENDPOINT: Final[dict[tuple[int, int | None], tuple[str, Renames]]] = {
    (1007, 1): ("process_creation", PROCESS),
    (1007, 2): ("process_termination", PROCESS),
    (1001, 1): ("file_event", FILE),
    (1001, 2): ("file_access", FILE),
    (1001, 3): ("file_change", FILE),
    (1001, 4): ("file_delete", FILE),
    (1001, 5): ("file_rename", FILE),
    (1005, 1): ("image_load", MODULE),
    (4001, None): ("network_connection", CONNECTION),
    (4003, None): ("dns_query", DNS_QUERY),
    (201001, 1): ("registry_add", REGISTRY),
    (201001, 4): ("registry_delete", REGISTRY),
    (201001, 5): ("registry_rename", REGISTRY),
    (201002, 2): ("registry_set", REGISTRY),
    (201002, 3): ("registry_set", REGISTRY),
    (201002, 4): ("registry_delete", REGISTRY),
}
"""(class, activity or None for any) of something on a computer -> category and names."""

ANYWHERE: Final[dict[int, Source]] = {
    3002: (LogSource(None, "authentication"), NOTHING),
    4001: (LogSource(None, "firewall"), FIREWALL),
    4003: (LogSource(None, "dns"), DNS),
    4002: (LogSource(None, "webserver"), WEB),
}
"""Class of what is no computer's own -> log source and names."""

SYSTEMS: Final = {100: "windows", 200: "linux", 300: "macos"}
"""`device.os.type_id` -> product."""
_SYSTEM_NAMES: Final = {"windows": "windows", "linux": "linux", "macos": "macos", "mac os": "macos"}
API: Final = 6003

Combination = tuple[int, int, str, bool]
"""(class, activity, product or empty, whether a proxy or CloudTrail wrote it)."""


def is_ocsf(keys: Container[str]) -> bool:
    """Whether an event with these keys is an OCSF event."""
    return "class_uid" in keys and ("metadata" in keys or "category_uid" in keys or "activity_id" in keys)


def by_class(same: Alike) -> Iterator[tuple[LogSource, Renames, Alike]]:
    """The events by what their class is to Sigma, decided once for each combination of values."""
    combinations = [_combination(event) for event in same.events]
    chosen = {combination: _chosen(combination) for combination in dict.fromkeys(combinations)}
    found: list[Source] = []
    places: dict[Combination, int] = {}
    for combination, source in chosen.items():
        if source not in found:
            found.append(source)
        places[combination] = found.index(source)
    if len(found) == 1:
        yield *found[0], same
        return
    for place, part in split_by(same, [places[combination] for combination in combinations]).items():
        yield *found[place], part


def _number(value: Json) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _at(event: dict[str, Json], *path: str) -> Json:
    value: Json = event
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if value is not None else event.get(".".join(path))


def _combination(event: dict[str, Json]) -> Combination:
    number = _number(event.get("class_uid"))
    product = SYSTEMS.get(_number(_at(event, "device", "os", "type_id")), "")
    if not product:
        name = _at(event, "device", "os", "type")
        product = _SYSTEM_NAMES.get(name.lower(), "") if isinstance(name, str) and len(name) < 20 else ""
    if number == API:
        special = _at(event, "metadata", "product", "name") == "CloudTrail"
    else:
        special = "proxy" in event or "proxy_endpoint" in event
    return number, _number(event.get("activity_id")), product, special


def _chosen(combination: Combination) -> Source:
    number, activity, product, special = combination
    if number == API:
        return (LogSource("aws", None, "cloudtrail"), CLOUDTRAIL) if special else (UNKNOWN, NOTHING)
    if number == 4002 and special:
        return LogSource(None, "proxy"), WEB
    if number >= 201000:
        product = "windows"
    endpoint = ENDPOINT.get((number, activity)) or ENDPOINT.get((number, None))
    if endpoint is not None and product:
        return LogSource(product, endpoint[0]), endpoint[1]
    return ANYWHERE.get(number, (UNKNOWN, NOTHING))

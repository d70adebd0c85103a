# ruff: noqa: E501  (log lines are long)
"""Zeek, ECS and OCSF as JSON: log sources and names from their documentation, and SigmaHQ's rules on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detections.load import load_rules
from detections.plan import Plan
from ingest.envelope import EventFrame
from ingest.formats.sigma_taxonomy import PRODUCT_SERVICES
from ingest.formats.zeek_json import BY_KEYS
from ingest.logsource import UNKNOWN, LogSource
from ingest.parse import parse
from raw_lines import Row, batch, read

Event = dict[str, object]
CONNECTION: Event = {"ts": 1772272800.25, "uid": "C1", "id.orig_h": "192.0.2.1", "id.orig_p": 50000, "id.resp_h": "203.0.113.5",
                     "id.resp_p": 445}  # fmt: skip

ZEEK: list[tuple[str, Event, Row]] = [
    ("conn", {**CONNECTION, "proto": "tcp", "conn_state": "SF", "service": "ssl"}, {"conn_state": "SF"}),
    ("dns", {**CONNECTION, "proto": "udp", "query": "a.example", "qtype_name": "A", "rejected": False},
     {"query": "a.example", "rejected": "false"}),
    ("http", {**CONNECTION, "trans_depth": 1, "method": "GET", "host": "a.example", "uri": "/x", "user_agent": "u"},
     {"uri": "/x", "method": "GET"}),
    ("ssl", {**CONNECTION, "cipher": "TLS_AES", "established": True, "server_name": "a.example"}, {}),
    ("x509", {"ts": 1772272800.25, "fingerprint": "ab", "certificate.serial": "0A", "certificate.subject": "CN=x"},
     {"certificate.serial": "0A"}),
    ("smb_files", {**CONNECTION, "action": "SMB::FILE_WRITE", "path": "\\\\a\\C$", "name": "x"}, {"name": "x"}),
    ("smb_mapping", {**CONNECTION, "path": "\\\\a\\C$", "share_type": "DISK"}, {"share_type": "DISK"}),
    ("kerberos", {**CONNECTION, "request_type": "TGS", "client": "bob/CHU", "service": "krbtgt/CHU", "cipher": "rc4-hmac"},
     {"request_type": "TGS", "user.name": "bob/CHU"}),
    ("dce_rpc", {**CONNECTION, "endpoint": "svcctl", "operation": "CreateServiceW"}, {"endpoint": "svcctl"}),
    ("rdp", {**CONNECTION, "cookie": "bob", "result": "encrypted", "security_protocol": "HYBRID"}, {"cookie": "bob"}),
    ("ntlm", {**CONNECTION, "username": "bob", "server_nb_computer_name": "DC01"}, {"user.name": "bob"}),
    ("ssh", {**CONNECTION, "version": 2, "auth_attempts": 3}, {}),
    ("files", {"ts": 1772272800.25, "fuid": "F1", "source": "HTTP", "mime_type": "text/plain"}, {"fuid": "F1"}),
    ("notice", {"ts": 1772272800.25, "note": "Scan::Port_Scan", "actions": ["Notice::ACTION_LOG"], "src": "192.0.2.1"},
     {"note": "Scan::Port_Scan"}),
    ("dhcp", {"ts": 1772272800.25, "uids": ["C1"], "mac": "00:00:5e:00:53:01", "msg_types": ["ACK"]}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "event", "fields"), ZEEK)
@pytest.mark.parametrize("path", [False, True])
def test_zeek(path: bool, service: str, event: Event, fields: Row) -> None:
    logsource, row = read(json.dumps({"_path": service, **event} if path else event).encode())
    assert logsource == LogSource("zeek", None, service)
    assert row["event.dataset"] == "zeek"
    assert {name: row.get(name) for name in fields} == fields
    assert str(row["@timestamp"]).startswith("2026-02-28 10:00:00.25")
    if "id.orig_h" in event:
        assert (row["source.ip"], row["destination.ip"]) == ("192.0.2.1", "203.0.113.5")
        assert (row["id.orig_h"], row["id.resp_p"]) == ("192.0.2.1", "445")


def test_zeek_nested_and_of_logs_that_sigma_does_not_know() -> None:
    nested = {"ts": 1772272800.25, "uid": "C1", "id": {"orig_h": "192.0.2.1", "resp_h": "192.0.2.2"}, "conn_state": "SF", "proto": "tcp"}  # fmt: skip
    logsource, row = read(json.dumps(nested).encode())
    assert (logsource.service, row["id.orig_h"], row["source.ip"]) == ("conn", "192.0.2.1", "192.0.2.1")
    logsource, row = read(json.dumps({"_path": "weird", **CONNECTION}).encode())
    assert (logsource, row["event.dataset"]) == (LogSource("zeek"), "zeek")


def test_zeek_logs_of_one_shape_are_told_by_their_path() -> None:
    events = [{"_path": path, **CONNECTION} for path in ("conn", "dns", "conn", "x" * 99, "DNS", 7, None)]
    frames = parse(batch([json.dumps(event).encode() for event in events]))
    found = {str(row["event.id"]): frame.logsource.service for frame in frames for row in frame.events.rows(named=True)}
    assert [found[f"t:0:0:{row}"] for row in range(7)] == ["conn", "dns", "conn", None, "dns", None, None]


def test_every_zeek_service_is_one_of_sigma() -> None:
    assert {service for service, _ in BY_KEYS} <= PRODUCT_SERVICES["zeek"]


HEAD: Event = {"@timestamp": "2026-02-28T10:00:00.5Z", "ecs": {"version": "8.11"}, "agent": {"type": "filebeat"}, "host": {"name": "web1"}}  # fmt: skip
WEB: Event = {
    "http": {"request": {"method": "GET", "referrer": "-"}, "response": {"status_code": 200}},
    "url": {"original": "/a?b=1", "path": "/a", "query": "b=1", "domain": "intranet.example"},
    "user_agent": {"original": "curl/8"},
    "source": {"ip": "203.0.113.9", "port": 1},
    "destination": {"ip": "192.0.2.1", "port": 443},
    "user": {"name": "bob"},
}
PROCESS: Event = {
    "process": {
        "executable": "/bin/id",
        "command_line": "id -u",
        "pid": 7,
        "parent": {"executable": "/bin/sh", "pid": 1},
    },
    "user": {"name": "bob"},
}
ECS: list[tuple[Event, LogSource, Row]] = [
    ({"event": {"dataset": "nginx.access"}, **WEB}, LogSource("nginx", "webserver"),
     {"cs-method": "GET", "cs-uri-query": "/a?b=1", "sc-status": "200", "cs-user-agent": "curl/8", "c-ip": "203.0.113.9"}),
    ({"event": {"dataset": "squid.log"}, **WEB}, LogSource("squid", "proxy"),
     {"c-uri": "/a?b=1", "c-useragent": "curl/8", "cs-host": "intranet.example", "cs-method": "GET"}),
    ({"event.dataset": "system.auth", "message": "x"}, LogSource("linux", None, "auth"), {"message": "x"}),
    ({"event": {"dataset": "panw.panos", "action": "deny"}, **WEB}, LogSource("paloalto", "firewall"),
     {"src_ip": "203.0.113.9", "dst_port": "443", "action": "deny"}),
    ({"event": {"dataset": "network_traffic.dns"}, "dns": {"question": {"name": "a.example", "type": "A"}}},
     LogSource(None, "dns"), {"query": "a.example", "record_type": "A"}),
    ({"event": {"dataset": "zeek.dce_rpc"}, "zeek": {"dce_rpc": {"endpoint": "svcctl", "operation": "x"}}, **WEB},
     LogSource("zeek", None, "dce_rpc"), {"endpoint": "svcctl", "operation": "x", "id.orig_h": "203.0.113.9"}),
    ({"event": {"dataset": "aws.cloudtrail", "provider": "iam.amazonaws.com", "action": "CreateUser"}},
     LogSource("aws", None, "cloudtrail"), {"eventSource": "iam.amazonaws.com", "eventName": "CreateUser"}),
    ({"event": {"dataset": "my.own"}, **WEB}, UNKNOWN, {"http.request.method": "GET"}),
    ({"event": {"dataset": ["a", 1]}}, UNKNOWN, {}),
    ({"event": "text"}, UNKNOWN, {}),
]  # fmt: skip


@pytest.mark.parametrize(("event", "logsource", "fields"), ECS)
@pytest.mark.parametrize("header", ["", "<13>Feb 28 10:00:00 relay filebeat: ", "<13>Feb 28 10:00:00 relay x: @cee: "])
def test_ecs(header: str, event: Event, logsource: LogSource, fields: Row) -> None:
    found, row = read(f"{header}{json.dumps({**HEAD, **event})}".encode())
    assert found == logsource
    assert (row["event.dataset"], row["host.name"]) == ("json.ecs", "web1")
    assert {name: row.get(name) for name in fields} == fields
    if "source" in event:
        assert (row["source.ip"], row["user.name"]) == ("203.0.113.9", "bob")


@pytest.mark.parametrize(
    ("system", "kind", "dataset", "logsource"),
    [
        ("windows", ["start"], "endpoint.events.process", LogSource("windows", "process_creation")),
        ("linux", ["start"], "endpoint.events.process", LogSource("linux", "process_creation")),
        ("macos", ["info", "start"], "endpoint.events.process", LogSource("macos", "process_creation")),
        ("linux", ["end"], "endpoint.events.process", UNKNOWN),
        ("linux", ["creation"], "endpoint.events.file", LogSource("linux", "file_event")),
        (None, ["start"], "endpoint.events.process", UNKNOWN),
        (7, ["start"], "endpoint.events.process", UNKNOWN),
    ],
)
def test_ecs_of_endpoints(system: object, kind: object, dataset: str, logsource: LogSource) -> None:
    host = {"name": "pc1", "os": {"type": system}}
    event = {**HEAD, "event": {"dataset": dataset, "type": kind}, **PROCESS, "host": host}
    found, row = read(json.dumps(event).encode())
    assert found == logsource
    assert (row["host.name"], row["user.name"]) == ("pc1", "bob")
    if logsource.category == "process_creation":
        names = ("Image", "CommandLine", "ParentImage", "ProcessId", "User")
        assert [row[name] for name in names] == ["/bin/id", "id -u", "/bin/sh", "7", "bob"]


OCSF_HEAD: Event = {"category_uid": 1, "metadata": {"version": "1.3.0"}, "time": 1772272800500}
ACTOR: Event = {"actor": {"user": {"name": "bob"}, "process": {"file": {"path": "C:\\b.exe"}, "pid": 3}}}
WINDOWS: Event = {"device": {"hostname": "pc1", "os": {"type_id": 100}}}
ENDS: Event = {"src_endpoint": {"ip": "203.0.113.9", "port": 1}, "dst_endpoint": {"ip": "192.0.2.1", "port": 3389}}
OCSF: list[tuple[Event, LogSource, Row]] = [
    ({"class_uid": 1007, "activity_id": 1, **WINDOWS, **ACTOR,
      "process": {"cmd_line": "whoami /all", "file": {"path": "C:\\Windows\\System32\\whoami.exe"}, "pid": 9}},
     LogSource("windows", "process_creation"),
     {"Image": "C:\\Windows\\System32\\whoami.exe", "CommandLine": "whoami /all", "ParentImage": "C:\\b.exe",
      "ProcessId": "9", "ParentProcessId": "3", "User": "bob", "host.name": "pc1", "user.name": "bob"}),
    ({"class_uid": "1007", "activity_id": 2, **WINDOWS}, LogSource("windows", "process_termination"), {}),
    ({"class_uid": 1007, "activity_id": 1, "device": {"os": {"type": "Linux"}}}, LogSource("linux", "process_creation"), {}),
    ({"class_uid": 1001, "activity_id": 1, **WINDOWS, **ACTOR, "file": {"path": "C:\\x"}},
     LogSource("windows", "file_event"), {"TargetFilename": "C:\\x", "Image": "C:\\b.exe"}),
    ({"class_uid": 201002, "activity_id": 2, "reg_value": {"path": "HKLM\\x", "data": "1"}},
     LogSource("windows", "registry_set"), {"TargetObject": "HKLM\\x", "Details": "1"}),
    ({"class_uid": 3002, "activity_id": 1, "user": {"name": "bob"}, **ENDS}, LogSource(None, "authentication"),
     {"user.name": "bob", "source.ip": "203.0.113.9"}),
    ({"class_uid": 4001, "activity_id": 6, **WINDOWS, **ACTOR, **ENDS}, LogSource("windows", "network_connection"),
     {"DestinationIp": "192.0.2.1", "DestinationPort": "3389", "Image": "C:\\b.exe"}),
    ({"class_uid": 4001, "activity_id": 6, **ENDS}, LogSource(None, "firewall"), {"dst_port": "3389"}),
    ({"class_uid": 4003, "activity_id": 1, "query": {"hostname": "a.example", "type": "TXT"}}, LogSource(None, "dns"),
     {"query": "a.example", "record_type": "TXT"}),
    ({"class_uid": 6003, "activity_id": 1, "metadata": {"product": {"name": "CloudTrail"}},
      "api": {"operation": "CreateUser", "service": {"name": "iam.amazonaws.com"}}, "cloud": {"region": "eu-west-3"}},
     LogSource("aws", None, "cloudtrail"), {"eventName": "CreateUser", "eventSource": "iam.amazonaws.com"}),
    ({"class_uid": 2004, "activity_id": 1}, UNKNOWN, {"class_uid": "2004"}),
    ({"class_uid": None, "activity_id": [], "device": "x"}, UNKNOWN, {}),
    ({"class_uid": True, "activity_id": 1.5, "device": {"os": []}}, UNKNOWN, {}),
]  # fmt: skip


@pytest.mark.parametrize(("event", "logsource", "fields"), OCSF)
def test_ocsf(event: Event, logsource: LogSource, fields: Row) -> None:
    found, row = read(json.dumps({**OCSF_HEAD, **event}).encode())
    assert found == logsource
    assert row["event.dataset"] == "json.ocsf"
    assert str(row["@timestamp"]).startswith("2026-02-28 10:00:00.500000")
    assert {name: row.get(name) for name in fields} == fields


ADMIN_SHARE: Event = {**CONNECTION, "action": "SMB::FILE_OPEN", "path": "\\\\dc01\\ADMIN$"}
BROKER: Event = {**CONNECTION, "endpoint": "ITaskSchedulerService", "operation": "SchRpcRegisterTask"}
RULES: list[tuple[Event, str, bool]] = [
    ({**ADMIN_SHARE, "name": "SYSTEM32\\ab.tmp"}, "Possible Impacket SecretDump Remote Activity - Zeek", True),
    ({**ADMIN_SHARE, "name": "notes.txt"}, "Possible Impacket SecretDump Remote Activity - Zeek", False),
    (BROKER, "MITRE BZAR Indicators for Execution", True),
    ({"_path": "dce_rpc", **BROKER}, "MITRE BZAR Indicators for Execution", True),
    ({"_path": "dns", **BROKER}, "MITRE BZAR Indicators for Execution", False),
    ({**CONNECTION, "cookie": "x", "result": "encrypted", "id.orig_h": "203.0.113.9"}, "Publicly Accessible RDP Service", True),
    ({**CONNECTION, "cookie": "x", "result": "encrypted", "id.orig_h": "10.0.0.9"}, "Publicly Accessible RDP Service", False),
    ({**HEAD, "event": {"dataset": "nginx.access"}, **WEB, "url": {"original": "/x?a=../../../../etc/passwd"}},
     "Path Traversal Exploitation Attempts", True),
    ({**HEAD, "event": {"dataset": "nginx.access"}, **WEB}, "Path Traversal Exploitation Attempts", False),
]  # fmt: skip


@pytest.fixture(scope="module")
def rules(shared_data: Path) -> Plan:
    folder = shared_data / "sigmahq" / "rules"
    return Plan.build(load_rules([folder / "network" / "zeek", folder / "web"]).rules)


@pytest.mark.parametrize(("event", "title", "fires"), RULES)
def test_sigmahq_rules_fire(rules: Plan, event: Event, title: str, fires: bool) -> None:
    frames = parse(batch([json.dumps(event).encode()]))
    titles = {found for frame in frames for found in rules.match(frame).get_column("rule_title")}
    assert (title in titles) == fires


KEYS = ["_path", "ts", "uid", "id.orig_h", "id", "query", "rejected", "certificate", "@timestamp", "ecs", "event", "event.dataset",
        "agent", "host", "process", "class_uid", "activity_id", "metadata", "device", "user", "Image", "image", "User",
        "user.name", "source", "source.ip", "action", "src_ip", "product"]  # fmt: skip
LEAVES = st.sampled_from(
    [None, "", "conn", "nginx.access", "endpoint.events.process", 1, 1007, 4001, True, 2.5, "start", "linux"]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["dataset", "type", "os", "name", "type_id", "serial", "executable", "ip"]), inner, max_size=3),
    ),
    max_leaves=4,
)  # fmt: skip
EVENTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=9)


def said(frames: list[EventFrame]) -> dict[str, tuple[LogSource, Row]]:
    return {
        str(row["event.id"]): (frame.logsource, {k.lower(): v for k, v in row.items() if v is not None})
        for frame in frames
        for row in frame.events.rows(named=True)
    }


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_every_event_comes_out_once_and_alone_as_among_others(events: list[Event]) -> None:
    lines = [json.dumps(event).encode() for event in events]
    together = said(parse(batch(lines)))
    apart: dict[str, tuple[LogSource, Row]] = {}
    for place, line in enumerate(lines):
        apart |= said(parse(batch([line], first=place)))
    assert together == apart

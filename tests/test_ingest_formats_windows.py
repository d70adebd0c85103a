from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest

from ingest.formats.windows_xml import event_fields
from ingest.logsource import LogSource
from raw_lines import read

SYSMON = "Microsoft-Windows-Sysmon/Operational"
PROCESS = {"Image": "C:\\a.exe", "User": "CORP\\bob", "ProcessId": "7", "UtcTime": "2026-02-28 10:00:00.250"}
NXLOG = {
    "EventTime": "2026-02-28 11:00:00", "Hostname": "PC1", "Keywords": -9223372036854775808, "EventID": 1,
    "SourceName": "Microsoft-Windows-Sysmon", "Channel": SYSMON, "EventReceivedTime": "2026-02-28 11:00:01",
    "RecordNumber": 5, "SourceModuleType": "im_msvistalog", "Message": "Process Create", **PROCESS,
}  # fmt: skip
FLAT = {
    "@timestamp": "2026-02-28T10:00:00.250Z", "Hostname": "PC1", "Keywords": "0x8000000000000000", "EventID": "1",
    "Provider_Name": "Microsoft-Windows-Sysmon", "Channel": SYSMON, "RecordNumber": "5", "Message": "Process Create",
    **PROCESS,
}  # fmt: skip
WINLOGBEAT = {
    "@timestamp": "2026-02-28T10:00:00.250Z", "message": "Process Create", "event": {"code": "1"},
    "host": {"name": "wec"}, "log": {"level": "information"},
    "winlog": {"channel": SYSMON, "event_id": "1", "provider_name": "Microsoft-Windows-Sysmon", "record_id": 5,
               "computer_name": "PC1", "event_data": PROCESS, "keywords": ["Classic"]},
}  # fmt: skip
WINLOGBEAT6 = {
    "@timestamp": "2026-02-28T10:00:00.250Z", "message": "Process Create", "log_name": SYSMON, "event_id": 1,
    "source_name": "Microsoft-Windows-Sysmon", "computer_name": "PC1", "record_number": "5", "event_data": PROCESS,
    "level": "Information", "beat": {"name": "wec"}, "host": {"name": "wec"},
}  # fmt: skip
EVTX = {
    "Event": {
        "#attributes": {"xmlns": "http://schemas.microsoft.com/win/2004/08/events/event"},
        "System": {
            "Provider": {"#attributes": {"Name": "Microsoft-Windows-Sysmon", "Guid": "g"}},
            "EventID": {"#text": 1, "#attributes": {"Qualifiers": 0}}, "Level": 4, "EventRecordID": 5,
            "TimeCreated": {"#attributes": {"SystemTime": "2026-02-28T10:00:00.250123Z"}}, "Correlation": None,
            "Execution": {"#attributes": {"ProcessID": 9, "ThreadID": 8}}, "Channel": SYSMON, "Computer": "PC1",
            "Security": {"#attributes": {"UserID": "S-1-5-18"}},
        },
        "EventData": PROCESS,
        "RenderingInfo": {"Message": "Process Create"},
    }
}  # fmt: skip
XML_AS_JSON = {
    "Event": {
        "System": {
            "Provider": {"@Name": "Microsoft-Windows-Sysmon"}, "EventID": "1", "EventRecordID": "5", "Channel": SYSMON,
            "TimeCreated": {"@SystemTime": "2026-02-28T10:00:00.250Z"}, "Computer": "PC1",
        },
        "EventData": {"Data": [{"@Name": name, "#text": value} for name, value in PROCESS.items()]},
        "RenderingInfo": {"Message": "Process Create"},
    }
}  # fmt: skip
DATA = "".join(f'<Data Name="{name}">{value}</Data>' for name, value in PROCESS.items())
XML = (
    "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System>"
    "<Provider Name='Microsoft-Windows-Sysmon' Guid='{g}'/><EventID Qualifiers='0'>1</EventID><Level>4</Level>"
    "<TimeCreated SystemTime='2026-02-28T10:00:00.2501234Z'/><EventRecordID>5</EventRecordID>"
    f"<Execution ProcessID='9' ThreadID='8'/><Channel>{SYSMON}</Channel><Computer>PC1</Computer><Security/></System>"
    f"<EventData>{DATA}</EventData><RenderingInfo><Message>Process Create</Message></RenderingInfo></Event>"
)
SHAPES: list[tuple[str, bytes]] = [
    ("windows.nxlog", json.dumps(NXLOG).encode()),
    ("windows.json", json.dumps(FLAT).encode()),
    ("windows.winlogbeat", json.dumps(WINLOGBEAT).encode()),
    ("windows.winlogbeat6", json.dumps(WINLOGBEAT6).encode()),
    ("windows.evtx", json.dumps(EVTX).encode()),
    ("windows.evtx", json.dumps(EVTX["Event"]).encode()),
    ("windows.evtx", json.dumps(XML_AS_JSON).encode()),
    ("windows.xml", XML.encode()),
    ("windows.xml", b'<?xml version="1.0" encoding="utf-16"?>' + XML.encode()),
    ("windows.xml", b"<14>Feb 28 10:00:00 relay WinEvt: " + XML.encode()),
]


@pytest.mark.parametrize(("dataset", "line"), SHAPES)
def test_every_carrier_gives_the_same_event(dataset: str, line: bytes) -> None:
    logsource, row = read(line)
    assert logsource == LogSource("windows", "process_creation", "sysmon")
    expected = {
        **PROCESS, "event.dataset": dataset, "EventID": "1", "Channel": SYSMON, "EventRecordID": "5",
        "Provider_Name": "Microsoft-Windows-Sysmon", "Computer": "PC1", "Message": "Process Create",
        "host.name": "PC1", "user.name": "CORP\\bob",
    }  # fmt: skip
    assert expected.items() <= row.items()
    time = row["@timestamp"]
    assert isinstance(time, datetime)
    assert time.replace(microsecond=0) == datetime(2026, 2, 28, 10, tzinfo=UTC)
    assert time.microsecond // 1000 == 250
    assert "error.message" not in row


SOURCES: list[tuple[dict[str, object], str | None, str | None]] = [
    ({"Channel": SYSMON, "EventID": 12, "EventType": "CreateKey"}, "registry_add", "sysmon"),
    ({"Channel": SYSMON, "EventID": "12", "EventType": "DeleteValue"}, "registry_delete", "sysmon"),
    ({"Channel": SYSMON, "EventID": 12, "EventType": "INFO"}, "registry_event", "sysmon"),
    ({"Channel": SYSMON, "EventID": 13}, "registry_set", "sysmon"),
    ({"Channel": SYSMON.upper(), "EventID": 22}, "dns_query", "sysmon"),
    ({"Channel": SYSMON, "EventID": 26}, "file_delete", "sysmon"),
    ({"Channel": SYSMON, "EventID": 16}, "sysmon_status", "sysmon"),
    ({"Channel": SYSMON, "EventID": 255}, "sysmon_error", "sysmon"),
    ({"Channel": SYSMON, "EventID": 9999}, None, "sysmon"),
    ({"Channel": None, "SourceName": "Microsoft-Windows-Sysmon", "EventID": 1}, "process_creation", "sysmon"),
    ({"SourceName": "Microsoft-Windows-Security-Auditing", "EventID": 4625}, None, "security"),
    ({"Channel": "security", "EventID": 4625}, None, "security"),
    ({"Channel": "Security", "EventID": 4688}, "process_creation", "security"),
    ({"Channel": "Security", "EventID": 4657, "OperationType": "%%1905"}, "registry_set", "security"),
    ({"Channel": "Security", "EventID": 4657, "OperationType": "%%1906"}, "registry_delete", "security"),
    ({"Channel": "Windows PowerShell", "EventID": 400}, "ps_classic_start", "powershell-classic"),
    ({"Channel": "Windows PowerShell", "EventID": 600}, "ps_classic_provider_start", "powershell-classic"),
    ({"Channel": "Microsoft-Windows-PowerShell/Operational", "EventID": 4103}, "ps_module", "powershell"),
    ({"Channel": "PowerShellCore/Operational", "EventID": 4104}, "ps_script", "powershell"),
    ({"Channel": "Microsoft-Windows-Windows Defender/Operational", "EventID": 1116}, None, "windefend"),
    ({"Channel": "Microsoft-Windows-Unheard-Of/Operational", "EventID": 1}, None, None),
    ({"Channel": ["x"], "EventID": {"a": 1}}, None, None),
    ({"SourceName": "Microsoft-Windows-Kernel-File", "EventID": 27}, "file_rename", None),
]


@pytest.mark.parametrize(("event", "category", "service"), SOURCES)
def test_log_sources(event: dict[str, object], category: str | None, service: str | None) -> None:
    assert read(json.dumps(event).encode())[0] == LogSource("windows", category, service)


def test_the_event_type_of_sysmon_is_found_behind_that_of_nxlog() -> None:
    event = {
        "Channel": SYSMON,
        "EventID": 12,
        "EventType": "INFO",
        "Message": "Registry:\r\nEventType: CreateKey\r\nx: y",
    }
    logsource, row = read(json.dumps(event).encode())
    assert logsource == LogSource("windows", "registry_add", "sysmon")
    assert row["EventType"] == "CreateKey"


def test_sysmon_for_linux() -> None:
    line = XML.replace("Microsoft-Windows-Sysmon/", "Linux-Sysmon/").replace("Microsoft-Windows-Sysmon", "Linux-Sysmon")
    logsource, row = read(b"<14>Feb 28 10:00:00 web01 sysmon: " + line.encode())
    assert logsource == LogSource("linux", "process_creation", "sysmon")
    assert row["Image"] == "C:\\a.exe"


def test_a_security_process_creation_has_the_names_of_its_category() -> None:
    event = {
        "Channel": "Security", "EventID": 4688, "NewProcessName": "C:\\a.exe", "ParentProcessName": "C:\\p.exe",
        "CommandLine": "a -x", "NewProcessId": "0x10", "ProcessId": "0x4", "MandatoryLabel": "S-1-16-12288",
        "SubjectUserName": "bob", "SubjectDomainName": "CORP", "TargetUserName": "-", "TargetDomainName": "-",
    }  # fmt: skip
    row = read(json.dumps(event).encode())[1]
    expected = {
        "Image": "C:\\a.exe", "NewProcessName": "C:\\a.exe", "ParentImage": "C:\\p.exe", "CommandLine": "a -x",
        "ProcessId": "0x10", "ParentProcessId": "0x4", "IntegrityLevel": "High", "User": "CORP\\bob",
    }  # fmt: skip
    assert expected.items() <= row.items()
    assert row["user.name"] == "CORP\\bob"


def test_a_security_registry_change_has_the_names_of_its_category() -> None:
    event = {
        "Channel": "Security", "EventID": 4657, "ObjectName": "\\REGISTRY\\MACHINE\\SOFTWARE\\Run",
        "ObjectValueName": "x", "OperationType": "%%1904", "NewValueType": "%%1876", "NewValue": "1",
        "ProcessName": "C:\\a.exe",
    }  # fmt: skip
    row = read(json.dumps(event).encode())[1]
    expected = {
        "TargetObject": "HKLM\\SOFTWARE\\Run\\x", "Details": "DWORD (0x00000001)", "EventType": "SetValue",
        "Image": "C:\\a.exe", "ObjectName": "\\REGISTRY\\MACHINE\\SOFTWARE\\Run",
    }  # fmt: skip
    assert expected.items() <= row.items()


@pytest.mark.parametrize(
    "line",
    [
        b'{"Event":{"System":{"EventID":1,"Channel":"Application"},"EventData":{"Data":{"#text":["a","b"]}}}}',
        b'{"Event":{"System":{"EventID":1,"Channel":"Application"},"EventData":{"Data":["a",{"#text":"b"}],"Binary":null}}}',
        (
            b"<Event><System><EventID>1</EventID><Channel>Application</Channel></System>"
            b"<EventData><Data>a</Data><Data>b</Data></EventData></Event>"
        ),
        b'{"winlog":{"event_id":1,"channel":"Application","event_data":{"param1":"a","param2":"b"}}}',
    ],
)
def test_data_without_names(line: bytes) -> None:
    row = read(line)[1]
    assert (row["Data"], row["param1"], row["param2"]) == ("a\nb", "a", "b")


def test_data_of_a_carrier_that_gives_only_the_message() -> None:
    line = b'{"EventID":400,"Channel":"Windows PowerShell","Message":"HostApplication=powershell -enc"}'
    assert read(line)[1]["Data"] == "HostApplication=powershell -enc"


def test_user_data_is_flattened_and_wins() -> None:
    event = {
        "Event": {
            "System": {"EventID": 104, "Channel": "System", "Computer": "PC1"},
            "UserData": {"LogFileCleared": {"#attributes": {"xmlns": "y"}, "Channel": "Security", "BackupPath": None}},
        }
    }
    xml = (
        b"<Event><System><EventID>104</EventID><Channel>System</Channel></System>"
        b"<UserData><LogFileCleared xmlns='y'><Channel>Security</Channel><Path/></LogFileCleared></UserData></Event>"
    )
    for line in (json.dumps(event).encode(), xml):
        logsource, row = read(line)
        assert logsource == LogSource("windows", None, "system")
        assert (row["Channel"], row["System.Channel"]) == ("Security", "System")


def test_names_lose_their_spaces() -> None:
    event = {"EventID": 5007, "Channel": "Microsoft-Windows-Windows Defender/Operational", "New Value": "x"}
    assert read(json.dumps(event).encode())[1]["NewValue"] == "x"


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        (-9214364837600034816, "0x8020000000000000"),
        ("0x8010000000000000", "0x8010000000000000"),
        (["Audit Failure"], "0x8010000000000000"),
        (["other"], '["other"]'),
        ("\u00b2", "\u00b2"),
    ],
)
def test_keywords(keywords: object, expected: str) -> None:
    event = {"EventID": 4625, "Channel": "Security", "Keywords": keywords}
    assert read(json.dumps(event).encode())[1]["Keywords"] == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("::1", "::1"),
        ("fe80::1%12", "fe80::1%12"),
        ("-", None),
        ("", None),
        ("LOCAL", None),
    ],
)
def test_addresses(address: str, expected: str | None) -> None:
    event = {"EventID": 4624, "Channel": "Security", "IpAddress": address}
    assert read(json.dumps(event).encode())[1].get("source.ip") == expected


def test_characters_that_xml_forbids_are_replaced_and_remarked() -> None:
    line = XML.replace("C:\\a.exe", "C:\\&#x1;\x02.exe").encode()
    logsource, row = read(line)
    assert logsource == LogSource("windows", "process_creation", "sysmon")
    assert row["Image"] == "C:\\\ufffd\ufffd.exe"
    assert str(row["error.message"]).startswith("not valid XML, read all the same: ")


def test_entities_that_every_xml_has_are_expanded() -> None:
    row = read(XML.replace("C:\\a.exe", "&lt;!DOCTYPE a&gt; &amp;&#65;").encode())[1]
    assert row["Image"] == "<!DOCTYPE a> &A"


def test_an_empty_data_element_is_empty_and_not_absent() -> None:
    xml = (
        "<Event><System><EventID>1</EventID><Channel>Security</Channel></System><EventData>"
        "<Data Name='CommandLine'></Data><Data Name='Image'/><Data Name='User'>x</Data></EventData></Event>"
    )
    _, row = read(xml.encode())
    assert (row["CommandLine"], row["Image"], row["User"]) == ("", "", "x")


@pytest.mark.parametrize(
    "start",
    [
        "",
        "<?xml version='1.0'?>",
        "<?xml version='1.0'?><!-- <Event> <!DOCTYPE a> -->",
        "<?xml version='1.0'?><!-- \x01 <Event> -->",
        "<?a <!DOCTYPE [ ?>",
    ],
)
@pytest.mark.parametrize("doctype", ["Event [", "Event SYSTEM '[>' [", "Event\n[", "Event PUBLIC 'x' '[' ["])
def test_a_document_type_is_refused_wherever_it_stands(start: str, doctype: str) -> None:
    xml = f"{start}<!DOCTYPE {doctype}<!ENTITY a 'aaaa'>]><Event><EventData><Data>&a;</Data></EventData></Event>"
    assert event_fields(xml) == (None, "XML with a document type declaration refused")
    assert event_fields(f"{start}<!DOCTYPE Event><Event/>")[0] is None


def test_a_declaration_within_cdata_is_text() -> None:
    xml = (
        "<Event><System><EventID>1</EventID><Channel>Security</Channel></System><EventData>"
        "<Data Name='CommandLine'><![CDATA[<!DOCTYPE a [<!ENTITY b 'c'>]>]]></Data></EventData></Event>"
    )
    _, row = read(xml.encode())
    assert row["CommandLine"] == "<!DOCTYPE a [<!ENTITY b 'c'>]>"


def test_a_document_type_hidden_behind_an_instruction_expands_nothing() -> None:
    entities = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 7))
    document = f'<?xml-x <Event ?><!DOCTYPE Event [<!ENTITY e0 "aaaaaaaaaa">{entities}]>'
    document += "<Event><EventData><Data Name='a'>&e6;</Data></EventData></Event>"
    started = time.perf_counter()
    for _ in range(20):
        logsource, row = read(document.encode())
    assert time.perf_counter() - started < 1
    assert logsource.unknown
    assert "refused" in str(row["error.message"])
    assert "a" not in row

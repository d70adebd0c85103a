# ruff: noqa: E501  (log lines are long)
"""Windows events as text: what Microsoft's reference shows as XML and as text must come out alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windows_messages_fr import (
    EN_4625,
    FIELDS_4625,
    FR_1102,
    FR_4624,
    FR_4625,
    FR_4688,
    FR_4720,
    FR_4732,
    FR_4740,
    FR_7045,
    Message,
    as_lines,
    escaped,
    run_together,
)

from detections.load import load_rules
from detections.plan import Plan
from ingest.formats.windows_labels import LABELS, SECTIONS, label_of, section_of, without_accented, without_accents
from ingest.formats.windows_messages import LABEL_FIELDS, SECTION_FIELDS, TITLES, event_of
from ingest.formats.windows_rendered import coded, message_fields
from ingest.logsource import LogSource
from ingest.parse import parse
from raw_lines import Row, batch, read

SECURITY = LogSource("windows", None, "security")
SUBJECT = {
    "SubjectUserSid": "S-1-5-21-1-2-3-500",
    "SubjectUserName": "admin",
    "SubjectDomainName": "CHU",
    "SubjectLogonId": "0x5a1b",
}
FRENCH: list[tuple[str, Message, LogSource, Row]] = [
    ("4624", FR_4624, SECURITY, {
        "SubjectUserName": "SRV01$", "LogonType": "10", "ImpersonationLevel": "%%1833", "TargetUserName": "j.dupont",
        "TargetUserSid": "S-1-5-21-1-2-3-1104", "TargetLogonId": "0x5a1b", "IpAddress": "203.0.113.9", "IpPort": "0",
        "LogonGuid": "{00000000-0000-0000-0000-000000000000}", "ProcessName": r"C:\Windows\System32\winlogon.exe",
        "KeyLength": "0", "user.name": "j.dupont", "source.ip": "203.0.113.9"}),
    ("4625", FR_4625, SECURITY, dict(FIELDS_4625)),
    ("4625", EN_4625, SECURITY, dict(FIELDS_4625)),
    ("4688", FR_4688, LogSource("windows", "process_creation", "security"), {
        "SubjectUserName": "j.dupont", "SubjectLogonId": "0xAE1AC", "TargetUserName": "-", "NewProcessId": "0x3d74",
        "NewProcessName": r"C:\Windows\System32\whoami.exe", "TokenElevationType": "%%1938",
        "MandatoryLabel": "S-1-16-8192", "ParentProcessName": r"C:\Windows\System32\cmd.exe",
        "CommandLine": "whoami  /priv Sujet : x", "Image": r"C:\Windows\System32\whoami.exe", "IntegrityLevel": "Medium",
        "ParentImage": r"C:\Windows\System32\cmd.exe", "ProcessId": "0x3d74", "ParentProcessId": "0x4fe0",
        "User": r"CHU\j.dupont"}),
    ("4720", FR_4720, SECURITY, {
        **SUBJECT, "TargetSid": "S-1-5-21-1-2-3-1200", "TargetUserName": "support$", "TargetDomainName": "CHU",
        "SamAccountName": "support$", "DisplayName": "%%1793", "AccountExpires": "%%1794", "PrimaryGroupId": "513",
        "OldUacValue": "0x0", "NewUacValue": "0x15", "PrivilegeList": "-"}),
    ("4732", FR_4732, SECURITY, {
        **SUBJECT, "MemberSid": "S-1-5-21-1-2-3-1200", "MemberName": "CN=support,OU=Comptes,DC=chu,DC=example",
        "TargetSid": "S-1-5-32-544", "TargetUserName": "Administrateurs", "TargetDomainName": "Builtin",
        "PrivilegeList": "-"}),
    ("7045", FR_7045, LogSource("windows", None, "system"), {
        "ServiceName": "zqxv", "ImagePath": '%COMSPEC% /c powershell.exe -nop -w hidden -c "iex: x"',
        "ServiceType": "service en mode utilisateur", "StartType": "Démarrage à la demande",
        "AccountName": "LocalSystem", "Provider_Name": "Service Control Manager"}),
    ("1102", FR_1102, SECURITY, {**SUBJECT, "Provider_Name": "Microsoft-Windows-Eventlog"}),
    ("4740", FR_4740, SECURITY, {
        "SubjectUserName": "DC01$", "TargetUserName": "j.dupont", "TargetSid": "S-1-5-21-1-2-3-1104",
        "TargetDomainName": "PC-042"}),
]  # fmt: skip


def snare(event_id: str, message: Message, separator: str = "\t") -> str:
    provider = {"7045": "Service Control Manager", "1102": "Microsoft-Windows-Eventlog"}.get(
        event_id, "Microsoft-Windows-Security-Auditing"
    )
    log = "System" if event_id == "7045" else "Security"
    kind = "Information" if event_id == "7045" else "Success Audit"
    columns = ["MSWinEventLog", "1", log, "287", "sam. févr. 28 11:00:00 2026", event_id, provider, "CHU\\admin", "N/A"]
    return separator.join([*columns, kind, "dc01.chu.example", "Catégorie", "", run_together(message), "286"])


FORWARDERS: dict[str, Callable[[str, Message], str]] = {
    "the message alone": lambda _, message: f"<14>Feb 28 10:00:00 dc01 {escaped(message)}",
    "no header": lambda _, message: escaped(message),
    "RFC 5424": lambda _, message: f"<14>1 2026-02-28T10:00:00Z dc01 EventLog - - - \ufeff{escaped(message)}",
    "a line of spaces": lambda _, message: f"<14>Feb 28 10:00:00 dc01 {run_together(message)}",
    "snare": lambda event_id, message: f"<14>Feb 28 10:00:00 dc01 {snare(event_id, message)}",
    "snare with #011": lambda event_id, message: "<14>Feb 28 10:00:00 dc01#011" + snare(event_id, message, "#011"),
    "snare without header": lambda event_id, message: "dc01.chu.example\t" + snare(event_id, message),
    "log insight": lambda event_id, message: (
        f'<14>1 2026-02-28T10:00:00Z dc01 - - - [liagent@6876 eventid="{event_id}" '
        f'channel="{"System" if event_id == "7045" else "Security"}"] {escaped(message)}'
    ),
    "evtsys": lambda event_id, message: (
        f"<29>Feb 28 10:00:00 dc01 {_tag(event_id)}: {event_id}: "
        f"{'' if event_id == '7045' else 'AUDIT_SUCCESS '}{run_together(message)}"
    ),
    "nxlog": lambda event_id, message: (
        f"<14>Feb 28 10:00:00 dc01 {'Service Control Manager' if event_id == '7045' else _tag(event_id)}[620]: "
        f"{run_together(message)}"
    ),
    "wincollect": lambda event_id, message: (
        f"<13>Feb 28 10:00:00 dc01 AgentDevice=WindowsLog\tAgentLogFile={'System' if event_id == '7045' else 'Security'}\t"
        f"Source={_tag(event_id).replace(chr(95), chr(32))}\tComputer=dc01.chu.example\tUser=\tEventID={event_id}\tEventIDCode={event_id}\t"
        f"TimeGenerated=1772272800\tLevel=Log Always\tKeywords=Audit Success\tMessage={run_together(message)}"
    ),
    "eventreporter": lambda event_id, message: (
        f"<14>Feb 28 10:00:00 dc01 EvntSLog: [AUS] Sat Feb 28 10:00:00 2026: DC01/"
        f'{"System" if event_id == "7045" else "Security"} ({event_id}) - "{run_together(message)}"'
    ),
}


def _tag(event_id: str) -> str:
    tags = {"7045": "Service_Control_Manager", "1102": "Microsoft-Windows-Eventlog"}
    return tags.get(event_id, "Microsoft-Windows-Security-Auditing")


@pytest.mark.parametrize("forwarder", FORWARDERS)
@pytest.mark.parametrize(("event_id", "message", "logsource", "fields"), FRENCH)
def test_a_message_has_the_fields_of_its_xml(
    forwarder: str, event_id: str, message: Message, logsource: LogSource, fields: Row
) -> None:
    found, row = read(FORWARDERS[forwarder](event_id, message).encode())
    assert found == logsource
    assert row["EventID"] == event_id
    assert row["Channel"] == ("System" if event_id == "7045" else "Security")
    expected = {name: value for name, value in fields.items() if "\n" not in str(value)}
    assert {name: row.get(name) for name in expected} == expected
    assert "error.message" not in row


TYPOGRAPHY: dict[str, Callable[[str], str]] = {
    "straight apostrophes": lambda text: text.replace("’", "'"),
    "no-break spaces": lambda text: text.replace(" :", "\u00a0:"),
    "narrow no-break spaces": lambda text: text.replace(" :", "\u202f:"),
    "no space before the colon": lambda text: text.replace(" :", ":"),
    "no accents": lambda text: text.translate(str.maketrans("éèêàôùçÉ’", "eeeaoucE'")),
    "UTF-8 read as ISO-8859-1": lambda text: text.encode().decode("iso-8859-1"),
    "UTF-8 read as Windows-1252": lambda text: text.encode().decode("cp1252", "replace"),
    "accents lost": lambda text: text.encode("ascii", "replace").decode(),
    "accents left out": lambda text: text.encode("ascii", "ignore").decode(),
    "CP850 read as ISO-8859-1": lambda text: text.replace("’", "'").encode("cp850", "replace").decode("iso-8859-1"),
}


@pytest.mark.parametrize("way", TYPOGRAPHY)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("event_id", "message"), [("4625", FR_4625), ("4624", FR_4624), ("4732", FR_4732)])
def test_labels_are_known_however_they_are_written(way: str, together: bool, event_id: str, message: Message) -> None:
    text = TYPOGRAPHY[way](run_together(message) if together else escaped(message))
    row = read(f"<14>Feb 28 10:00:00 dc01 {text}".encode())[1]
    plain = read(f"<14>Feb 28 10:00:00 dc01 {escaped(message)}".encode())[1]
    free = {"event.original", "Message", "FailureReason", "ImpersonationLevel", "MemberName"}  # values have accents too
    assert row["EventID"] == event_id
    assert {name: value for name, value in row.items() if name not in free} == {
        name: value for name, value in plain.items() if name not in free
    }


def test_bytes_of_another_encoding_are_read_with_a_remark() -> None:
    line = f"<14>Feb 28 10:00:00 dc01 {escaped(FR_4625)}".encode("cp1252")
    row = read(line)[1]
    assert (row["EventID"], row["IpAddress"], row["FailureReason"]) == ("4625", "203.0.113.9", "%%2313")
    assert row["error.message"] == "not UTF-8: read as ISO-8859-1"


def test_text_and_json_say_the_same() -> None:
    event = {"EventID": 4625, "Channel": "Security", "SourceName": "Microsoft-Windows-Security-Auditing", **FIELDS_4625}
    logsource, row = read(json.dumps(event).encode())
    text_source, text = read(f"<14>Feb 28 10:00:00 dc01 {escaped(FR_4625)}".encode())
    assert text_source == logsource
    envelope = {"event.original", "@timestamp", "event.dataset", "host.name", "Message"}
    assert {k: v for k, v in text.items() if k not in envelope} == {k: v for k, v in row.items() if k not in envelope}


SIGMAHQ = [
    ("4624", FR_4624, "External Remote RDP Logon from Public IP"),
    ("4625", FR_4625, "Failed Logon From Public IP"),
    ("4720", FR_4720, "Hidden Local User Creation"),
    ("4732", FR_4732, "User Added to Local Administrator Group"),
    ("7045", FR_7045, "Suspicious Service Installation"),
    ("1102", FR_1102, "Security Eventlog Cleared"),
    ("4688", FR_4688, "Security Privileges Enumeration Via Whoami.EXE"),
]


@pytest.fixture(scope="module")
def windows_rules(shared_data: Path) -> Plan:
    folder = shared_data / "sigmahq" / "rules" / "windows"
    return Plan.build(load_rules([folder / "builtin", folder / "process_creation"]).rules)


@pytest.mark.parametrize(("event_id", "message", "title"), SIGMAHQ)
@pytest.mark.parametrize("forwarder", FORWARDERS)
def test_sigmahq_rules_fire_on_french_text(
    windows_rules: Plan, forwarder: str, event_id: str, message: Message, title: str
) -> None:
    (frame,) = parse(batch([FORWARDERS[forwarder](event_id, message).encode()]))
    assert title in windows_rules.match(frame).get_column("rule_title").to_list()


def test_a_command_line_cannot_end_itself_nor_name_another_account() -> None:
    command = (
        "cmd /c echo Security ID: S-1-5-18 Subject: Account Name: SYSTEM Token Elevation Type indicates & evil.exe"
    )
    message = [
        "A new process has been created.", "", "Creator Subject:", "\tSecurity ID:\t\tS-1-5-21-1-2-3-1104",
        "\tAccount Name:\t\tmallory", "", "Process Information:", "\tNew Process Name:\tC:\\Windows\\System32\\cmd.exe",
        f"\tProcess Command Line:\t{command}", "", "Token Elevation Type indicates the type of token.",
    ]  # fmt: skip
    for text in (escaped(message), run_together(message)):
        row = read(f"<14>Feb 28 10:00:00 pc1 {text}".encode())[1]
        assert (row["CommandLine"], row["SubjectUserName"], row["User" if "User" in row else "SubjectUserSid"]) == (
            command, "mallory", "S-1-5-21-1-2-3-1104",
        )  # fmt: skip
    lines = [*message[:8], "\tProcess Command Line:\tcmd /c x\n\n\tAccount Name:\tSYSTEM", *message[9:]]
    row = read(as_lines(lines).replace("\r", "#015").replace("\n", "#012").replace("\t", "#011").encode())[1]
    assert row["SubjectUserName"] == "mallory"
    assert "SYSTEM" in str(row["CommandLine"])


def test_lists_and_documents_are_kept_whole() -> None:
    privileges = ["Special privileges assigned to new logon.", "", "Subject:", "\tAccount Name:\t\ta", "",
                  "Privileges:\t\tSeDebugPrivilege", "\t\t\tSeBackupPrivilege"]  # fmt: skip
    assert message_fields(as_lines(privileges), "4672") == {
        "SubjectUserName": "a",
        "PrivilegeList": "SeDebugPrivilege\nSeBackupPrivilege",
    }
    task = ["Une tâche planifiée a été créée.", "", "Sujet :", "\tNom du compte :\t\ta", "",
            "Informations sur la tâche :", "\tNom de la tâche :\t\t\\x", '\tContenu de la tâche :\t\t<Task xmlns="http://a">',
            "  <Command>cmd: x</Command>", "</Task>"]  # fmt: skip
    assert message_fields(as_lines(task), "4698")["TaskContent"] == (
        '<Task xmlns="http://a">\n<Command>cmd: x</Command>\n</Task>'
    )


def test_unknown_labels_keep_their_own_text() -> None:
    message = [*FR_1102, "\tÉtiquette nouvelle :\tvaleur : deux", "\tÉtiquette nouvelle :\tautre"]
    row = read(escaped(message).encode())[1]
    assert row["Étiquettenouvelle"] == "valeur : deux"
    assert row["Subject.Étiquettenouvelle"] == "autre"


def test_sysmon_as_text_has_its_own_names() -> None:
    text = (
        "Process Create: RuleName: - UtcTime: 2026-02-28 10:00:00.123 ProcessGuid: {1} ProcessId: 7 Image: C:\\a b.exe "
        "CommandLine: a: -x User: CHU\\bob ParentImage: C:\\Windows\\explorer.exe"
    )
    columns = ["MSWinEventLog", "1", "Microsoft-Windows-Sysmon/Operational", "1", "Sat Feb 28 10:00:00 2026", "1"]
    line = "\t".join([*columns, "Microsoft-Windows-Sysmon", "SYSTEM", "User", "Information", "pc1", "x", "", text, "1"])
    logsource, row = read(f"<14>Feb 28 10:00:00 pc1 {line}".encode())
    assert logsource == LogSource("windows", "process_creation", "sysmon")
    assert (row["Image"], row["CommandLine"], row["User"]) == ("C:\\a b.exe", "a: -x", "CHU\\bob")


def test_snare_that_carries_json_or_no_columns() -> None:
    event = {"EventID": 4625, "Channel": "Security", "SourceName": "x", "TargetUserName": "bob"}
    logsource, row = read(b"<14>Feb 28 10:00:00 dc01 MSWinEventLog\t0\t" + json.dumps(event).encode())
    assert (logsource, row["TargetUserName"]) == (SECURITY, "bob")
    logsource, row = read(b"<14>Feb 28 10:00:00 dc01 MSWinEventLog\t1\tSecurity")
    assert "without its columns" in str(row["error.message"])


def test_snare_of_which_a_relay_made_the_tabs_spaces() -> None:
    line = f"<14>Feb 28 10:00:00 dc01 {snare('4625', FR_4625, ' ')}"
    logsource, row = read(line.encode())
    assert logsource == SECURITY
    assert (row["EventID"], row["TargetUserName"], row["IpAddress"]) == ("4625", "administrateur", "203.0.113.9")


def test_an_event_without_a_known_title_or_id_is_kept_and_remarked() -> None:
    logsource, row = read(b"<14>Feb 28 10:00:00 dc01 Microsoft-Windows-Kernel-General[4]: The system time has changed.")
    assert logsource.product == "windows"
    assert "no event id" in str(row["error.message"])


def test_every_title_is_told_from_every_other() -> None:
    for event_id, titles in TITLES.items():
        for title in titles:
            assert event_of(title) == event_id
            assert event_of(title.replace("'", "’") + ".\r\n\r\nSujet :") in (event_id, "4697")


def test_labels_and_sections_are_told_apart() -> None:
    for table, known in ((LABELS, label_of), (SECTIONS, section_of)):
        seen: dict[str, str] = {}
        for english, others in table.items():
            for spelling in (english, *others):
                assert known(spelling) == english
                for form in (without_accents(spelling), without_accented(spelling)):
                    assert seen.setdefault(form, english) == english
    assert set(LABEL_FIELDS) <= set(LABELS)
    assert set(SECTION_FIELDS) <= set(SECTIONS)
    assert {label for labels in SECTION_FIELDS.values() for label in labels} <= set(LABELS)


def test_access_rights_become_codes_only_if_all_are_known() -> None:
    assert coded("AccessList", "ReadData (or ListDirectory)\nWriteData (or AddFile)") == "%%4416\n%%4417"
    assert coded("AccessList", "%%4416") == "%%4416"
    assert coded("AccessList", "ReadData (or ListDirectory)\nSomething") == "ReadData (or ListDirectory)\nSomething"
    assert coded("AuditPolicyChanges", "Success removed, Failure removed") == "%%8448, %%8450"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400), st.sampled_from(["", "4624", "4688", "9"]), st.booleans())
def test_any_text_is_read(text: str, event_id: str, sysmon: bool) -> None:
    fields = message_fields(text, event_id, sysmon=sysmon)
    assert all(isinstance(value, str) for value in fields.values())


PIECES = st.lists(
    st.sampled_from(
        ["Sujet :", "Objet :", "\tNom du compte :", "Account Name:", "\r\n", "\n\n", " ", ":", "\t", "é", "#011", "x", "\x00",
         "Process Command Line:", "MSWinEventLog\t", "1\t", "AUDIT_SUCCESS ", "4625: ", "\ud7ff", "Message=", "[", '"']
    ),
    max_size=30,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(FORWARDERS)), PIECES), min_size=1, max_size=4))
def test_every_line_comes_out_once(lines: list[tuple[str, str]]) -> None:
    raw = batch([FORWARDERS[name]("4625", [text]).encode("utf-8", "replace") for name, text in lines])
    ids = [event_id for frame in parse(raw) for event_id in frame.events["event.id"]]
    assert sorted(ids) == sorted(raw["event.id"])


@pytest.mark.parametrize("forwarder", FORWARDERS)
def test_a_line_cut_anywhere_is_kept(forwarder: str) -> None:
    line = FORWARDERS[forwarder]("4625", FR_4625).encode()
    raw = batch([line[:end] for end in range(0, len(line), 7)])
    frames = parse(raw)
    assert sorted(event_id for frame in frames for event_id in frame.events["event.id"]) == sorted(raw["event.id"])
    windows = sum(frame.events.height for frame in frames if frame.logsource.product == "windows")
    assert windows > raw.height / 2


@pytest.mark.parametrize(
    "text",
    [" : " * 300_000, "\nx" * 400_000, "Subject: " * 100_000, "\n\ta:\tb" * 100_000, 'a="' * 300_000, "é" * 500_000],
)
def test_a_long_message_takes_no_long_time(text: str) -> None:
    started = process_time()
    message_fields(f"An account failed to log on. Account Name: {text}", "4625")
    message_fields(f"A new process has been created.\n\nProcess Command Line: {text}", "4688")
    assert process_time() - started < 10


@pytest.mark.parametrize(
    ("event_id", "words"),
    [("4728", "ajouté à un groupe global"), ("4729", "supprimé d’un groupe global"), ("4732", "ajouté à un groupe local"),
     ("4733", "supprimé d'un groupe local"), ("4756", "ajouté à un groupe universel"),
     ("4757", "supprimé d’un groupe universel")],
)  # fmt: skip
@pytest.mark.parametrize("secured", ["avec sécurité activée", "dont la sécurité est activée"])
def test_members_of_groups_in_both_wordings(secured: str, event_id: str, words: str) -> None:
    line = f"<13>Feb 28 11:00:00 dc01 Microsoft-Windows-Security-Auditing[7]: Un membre a été {words} {secured}."
    assert read(line.encode())[1]["EventID"] == event_id

# ruff: noqa: E501, ISC004  (log lines are long)
"""ESXi, Veeam and the accounts and sessions of Linux: value tables from their documentation, rules, and cut lines."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detections.load import load_rules
from detections.plan import Plan
from ingest.formats.veeam import veeam_fields
from ingest.logsource import LogSource
from ingest.parse import parse
from raw_lines import Row, batch, read

ESXI: list[tuple[str, str, Row]] = [
    ("<166>2026-02-28T10:00:00.123Z esx01.example Hostd: info hostd[2099] [Originator@6876 sub=Vimsvc.ha-eventmgr "
     "opID=1a2b user=root] Event 7 : User root@192.0.2.9 logged in as pyvmomi Python/3.8",
     "hostd", {"host.name": "esx01.example", "user.name": "root", "source.ip": "192.0.2.9", "action": "login",
               "user_agent": "pyvmomi Python/3.8", "level": "info", "sub": "Vimsvc.ha-eventmgr", "opID": "1a2b",
               "operator": "root", "event_number": "7", "process.name": "hostd", "process.pid": "2099"}),
    ("2026-02-28T10:00:00.123Z info hostd[2099] [Originator@6876 sub=Vimsvc.ha-eventmgr] Event 8 : Cannot login "
     "user admin@2001:db8::9: no permission",
     "hostd", {"user.name": "admin", "source.ip": "2001:db8::9", "action": "login_failed", "event_number": "8"}),
    ("2026-02-28T10:00:00.123Z In(166) Hostd[2099]: [Originator@6876 sub=Default] Rejected password for user root "
     "from 192.0.2.9", "hostd", {"user.name": "root", "source.ip": "192.0.2.9", "action": "password_rejected"}),
    ("<166>2026-02-28T10:00:00.123Z esx01 Hostd: info hostd[2099] [Originator@6876 sub=Vimsvc.TaskManager opID=2 "
     "user=vpxuser:CHU\\admin] Task Created : haTask-12-vim.VirtualMachine.powerOff-3",
     "hostd", {"task": "vim.VirtualMachine.powerOff", "operator": "vpxuser:CHU\\admin"}),
    ("<166>2026-02-28T10:00:00.123Z esx01 Hostd: info hostd[2099] [Originator@6876 sub=Vmsvc.vm:/vmfs/volumes/ds1/"
     "pacs01/pacs01.vmx] State Transition (VM_STATE_ON -> VM_STATE_POWERING_OFF)",
     "hostd", {"sub": "Vmsvc.vm:/vmfs/volumes/ds1/pacs01/pacs01.vmx"}),
    ("<166>1 2026-02-28T10:00:00.123Z esx01 Hostd 2099 - - In(166) Hostd[2099]: [Originator@6876 sub=Vimsvc.ha-eventmgr "
     "opID=3 user=root] Event 9 : User root@192.0.2.9 logged in as Mozilla/5.0 (Windows NT 10.0) Chrome",
     "hostd", {"user.name": "root", "sub": "Vimsvc.ha-eventmgr", "operator": "root", "event_number": "9",
               "user_agent": "Mozilla/5.0 (Windows NT 10.0) Chrome"}),
    ("<166>2026-02-28T10:00:00.123Z esx01 Hostd: info hostd[2099] [Originator@6876 sub=V] Event 9 : User root@192.0.2.9 "
     "logged out (login time: today, number of API invocations: 0, user agent: pyvmomi)",
     "hostd", {"user.name": "root", "action": "logout", "user_agent": None}),
    ("<166>2026-02-28T10:00:00.123Z esx01 Vpxa: verbose vpxa[2101] [Originator@6876 sub=vpxaInvtHost] Refreshing",
     "vpxa", {"level": "verbose", "sub": "vpxaInvtHost", "process.name": "vpxa"}),
    ("2026-02-28T10:00:00.483Z: [UserLevelCorrelator] 1019369886505us: [vob.user.ssh.session.opened] SSH session was "
     "opened for 'root@192.0.2.9'.",
     "vobd", {"vob": "vob.user.ssh.session.opened", "user.name": "root", "source.ip": "192.0.2.9",
              "action": "session_opened", "uptime_us": "1019369886505", "correlator": "UserLevelCorrelator"}),
    ("<14>2026-02-28T10:00:00.483Z esx01 vobd:  [UserLevelCorrelator] 7us: [vob.user.ssh.session.closed] SSH session "
     "was closed for 'root@192.0.2.9'.",
     "vobd", {"vob": "vob.user.ssh.session.closed", "host.name": "esx01", "action": "session_closed"}),
    ("2026-02-28T10:00:00Z In(14) vobd[2097521]:  [GenericCorrelator] 1us: [esx.audit.ssh.enabled] SSH access has been "
     "enabled.", "vobd", {"vob": "esx.audit.ssh.enabled", "text": "SSH access has been enabled."}),
    ("<14>2026-02-28T10:00:00Z esx01 shell[2100]: Interactive shell session started", "shell", {"host.name": "esx01"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "service", "fields"), ESXI)
def test_esxi(line: str, service: str, fields: Row) -> None:
    logsource, row = read(line.encode())
    assert logsource == LogSource("esxi", None, service)
    assert row["event.dataset"] == f"esxi.{service}"
    assert {name: row.get(name) for name in fields} == fields
    if line[0] != "<":
        assert "host.name" not in row


SHELL = [
    ("esxcli vm process list", "/bin/esxcli"),
    ("/sbin/esxcli network firewall get", "/sbin/esxcli"),
    ("cd /tmp; for i in $(esxcli vm process list | grep World); do echo $i; done", "/bin/esxcli"),
    ("nohup vim-cmd vmsvc/power.off 7 &", "/bin/vim-cmd"),
    ("FOO=1 ./encrypt /vmfs/volumes", "./encrypt"),
    ("cat /var/log/esxcli", "/bin/cat"),
    ("ls", "/bin/ls"),
]


@pytest.mark.parametrize(("command", "image"), SHELL)
@pytest.mark.parametrize(
    "header", ["2026-02-28T10:00:00Z ", "<14>2026-02-28T10:00:00Z esx01 ", "2026-02-28T10:00:00Z In(14) "]
)
def test_a_command_of_the_shell_is_a_process_creation(header: str, command: str, image: str) -> None:
    logsource, row = read(f"{header}shell[2100]: [root]: {command}".encode())
    assert logsource == LogSource("linux", "process_creation")
    assert (row["event.dataset"], row["Image"], row["CommandLine"]) == ("esxi.shell", image, command)
    assert (row["User"], row["user.name"], row["ParentProcessId"]) == ("root", "root", "2100")


@pytest.mark.parametrize(
    ("command", "title"),
    [
        ("esxcli vm process kill --type=force --world-id=42", "ESXi VM Kill Via ESXCLI"),
        ("esxcli vm process list", "ESXi VM List Discovery Via ESXCLI"),
        ("esxcli system syslog config set --loghost=''", "ESXi Syslog Configuration Change Via ESXCLI"),
        ("esxcli system account add -i x -p y -c y", "ESXi Account Creation Via ESXCLI"),
        ("esxcli system permission set --id x -r Admin", "ESXi Admin Permission Assigned To Account Via ESXCLI"),
    ],
)
def test_sigmahq_rules_fire_on_what_was_typed(linux_rules: Plan, command: str, title: str) -> None:
    (frame,) = parse(batch([f"<14>2026-02-28T10:00:00Z esx01 shell[2100]: [root]: {command}".encode()]))
    assert title in linux_rules.match(frame).get_column("rule_title").to_list()


@pytest.fixture(scope="module")
def linux_rules(shared_data: Path) -> Plan:
    return Plan.build(load_rules([shared_data / "sigmahq" / "rules" / "linux" / "process_creation"]).rules)


VEEAM_HEAD = '<14>1 2026-02-28T10:00:00.5+01:00 VBR01 Veeam_MP - - [origin enterpriseId="31023"] '
VEEAM: list[tuple[str, Row]] = [
    ('[categoryId=0 instanceId=110 JobSessionID="1" JobID="2" JobType="0" VbrHostName="vbr01.chu.example" Version="1" '
     "Description=\"Backup job 'Serveurs' has been started by user CHU\\alice.\"]",
     {"EventID": "110", "instanceId": "110", "categoryId": "0", "JobID": "2", "host.name": "vbr01.chu.example",
      "user.name": "CHU\\alice", "message": "Backup job 'Serveurs' has been started by user CHU\\alice."}),
    ('[categoryId=0 instanceId=10050 VmName="PACS01" Path="D:\\Backup\\" IsFull="True" UserFullInfo='
     '"<ModifiedUserInfo fullName="CHU\\bob" loginType="0" />" Description="Restore point for VM "PACS01" removed."]',
     {"EventID": "10050", "VmName": "PACS01", "Path": "D:\\Backup\\", "IsFull": "True", "user.name": "CHU\\bob",
      "Description": 'Restore point for VM "PACS01" removed.'}),
    ('[categoryId=0 instanceId=31000 UserName="CHU\\eve" Description=""]', {"EventID": "31000", "user.name": "CHU\\eve"}),
    ("[categoryId=0 instanceId=25300]", {"EventID": "25300"}),
    # the message behind the element, as the manual allows
    ('[categoryId=300 instanceId=190 JobName="J" Description=""] Job [J] has failed.',
     {"EventID": "190", "JobName": "J", "Description": "", "message": "Job [J] has failed."}),
]  # fmt: skip


@pytest.mark.parametrize(("event", "fields"), VEEAM)
@pytest.mark.parametrize("head", [VEEAM_HEAD, "<14>Feb 28 10:00:00 VBR01 Veeam_MP: ", "", VEEAM_HEAD.rstrip()])
def test_veeam(head: str, event: str, fields: Row) -> None:
    logsource, row = read(f"{head}{event}".encode())
    assert logsource == LogSource("veeam", None, "backup")
    assert row["event.dataset"] == "veeam.backup"
    assert {name: row.get(name) for name in fields} == fields
    assert "error.message" not in row


@pytest.mark.parametrize(
    "head",
    [
        "<14>2026-02-28T10:00:00+01:00 VBR01 Veeam_MP ",  # relayed with the header of RFC 3164: the tag has no colon
        "2026-02-28T10:00:00+01:00 <14> VBR01 Veeam_MP  ",  # as the manual prints it
        '1 2026-02-28T10:00:00+01:00 VBR01 Veeam_MP - - [origin enterpriseId="31023"] ',
    ],
)
def test_veeam_behind_headers_that_are_none(head: str) -> None:
    logsource, row = read(f'{head}[categoryId=0 instanceId=110 JobID="2" Description="Started."]'.encode())
    assert logsource == LogSource("veeam", None, "backup")
    assert (row["EventID"], row["host.name"]) == ("110", "VBR01")
    assert row["@timestamp"] == datetime(2026, 2, 28, 9, tzinfo=UTC)


def test_a_veeam_event_that_was_cut_is_read_as_far_as_it_goes() -> None:
    row = read(f'{VEEAM_HEAD}[categoryId=0 instanceId=41600 JobID="7" Description="Potential mal'.encode())[1]
    assert (row["EventID"], row["JobID"], row["Description"]) == ("41600", "7", "Potential mal")
    assert "cut Veeam event" in str(row["error.message"])
    logsource, row = read(b"[categoryId=0 what")
    assert logsource.unknown
    assert "without its instance id" in str(row["error.message"])


LINUX: list[tuple[str, str, str, Row]] = [
    ("su", "auth", "(to root) alice on pts/0",
     {"action": "su", "user.name": "alice", "target_user": "root", "tty": "pts/0"}),
    ("su[12]", "auth", "FAILED SU (to root) bob on pts/1",
     {"action": "su_failed", "user.name": "bob", "target_user": "root"}),
    ("su[12]", "auth", "Successful su for root by alice", {"action": "su", "user": "alice", "target_user": "root"}),
    ("su[12]", "auth", "- /dev/pts/1 bob:root", {"action": "su_failed", "user": "bob", "target_user": "root"}),
    ("su[12]", "auth", "pam_unix(su:session): session opened for user root(uid=0) by alice(uid=1000)",
     {"action": "session_opened", "user": "alice", "uid": "1000", "target_user": "root", "target_uid": "0",
      "pam_service": "su", "pam_type": "session"}),
    ("su[12]", "auth", "pam_unix(su-l:session): session opened for user root by (uid=0)",
     {"action": "session_opened", "target_user": "root", "uid": "0", "user.name": "root"}),
    ("sshd[9]", "sshd", "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= "
     "rhost=192.0.2.9  user=root",
     {"action": "authentication_failed", "source.ip": "192.0.2.9", "target_user": "root", "user.name": "root"}),
    ("sudo", "sudo", "pam_unix(sudo:session): session closed for user root",
     {"action": "session_closed", "target_user": "root"}),
    ("passwd[3]", "auth", "pam_unix(passwd:chauthtok): password changed for bob",
     {"action": "password_changed", "target_user": "bob"}),
    ("systemd-logind[4]", "auth", "New session 12 of user alice.",
     {"action": "session_opened", "session": "12", "user.name": "alice"}),
    ("systemd-logind[4]", "auth", "Removed session c2.", {"action": "session_closed", "session": "c2"}),
    ("useradd[7]", "auth",
     "new user: name=bob, UID=1001, GID=1001, home=/home/bob, shell=/bin/bash, from=/dev/pts/1",
     {"action": "user_created", "target_user": "bob", "target_uid": "1001", "home": "/home/bob", "shell": "/bin/bash",
      "tty": "/dev/pts/1"}),
    ("usermod[7]", "auth", "add 'bob' to group 'sudo'",
     {"action": "group_member_added", "target_user": "bob", "target_group": "sudo"}),
    ("gpasswd[7]", "auth", "user bob added by root to group wheel",
     {"action": "group_member_added", "target_user": "bob", "user": "root", "target_group": "wheel"}),
    ("groupadd[7]", "auth", "group added to /etc/group: name=vpn, GID=1002",
     {"action": "group_created", "target_group": "vpn", "target_gid": "1002"}),
    ("userdel[7]", "auth", "delete user 'bob'", {"action": "user_deleted", "target_user": "bob"}),
    ("usermod[7]", "auth", "change user 'bob' shell from '/bin/false' to '/bin/bash'",
     {"action": "user_changed", "target_user": "bob", "changed": "shell", "after": "/bin/bash"}),
    ("usermod[7]", "auth", "unlock user 'bob' password", {"action": "user_unlocked", "target_user": "bob"}),
    ("CRON[88]", "cron", "(root) CMD (   cd / && run-parts (x))",
     {"action": "command", "user.name": "root", "command": "   cd / && run-parts (x)"}),
    ("crontab[88]", "cron", "(www-data) REPLACE (www-data)", {"action": "table_replaced", "user": "www-data"}),
    ("systemd[1]", "syslog", "Started ssh.service - OpenBSD Secure Shell server.",
     {"action": "unit_started", "unit": "ssh.service", "description": "OpenBSD Secure Shell server"}),
    ("systemd[1]", "syslog", "Started Session 12 of user alice.",
     {"action": "unit_started", "description": "Session 12 of user alice"}),
    ("systemd[1]", "syslog", "auditd.service: Main process exited, code=killed, status=9/KILL",
     {"action": "unit_exited", "unit": "auditd.service", "code": "killed", "status": "9/KILL"}),
    ("systemd[1]", "syslog", "Reached target Network.", {}),
]  # fmt: skip


@pytest.mark.parametrize(("program", "service", "message", "fields"), LINUX)
@pytest.mark.parametrize("header", ["<86>Feb 28 10:00:00 web01", "2026-02-28T10:00:00.1+01:00 web01"])
def test_linux_auth(header: str, program: str, service: str, message: str, fields: Row) -> None:
    logsource, row = read(f"{header} {program}: {message}".encode())
    assert logsource == LogSource("linux", None, service)
    assert (row["event.dataset"], row["host.name"]) == ("linux.auth", "web01")
    assert {name: row.get(name) for name in fields} == fields
    assert str(row["message"]).strip() == message.strip()
    assert ("action" in row) == bool(fields)


def test_an_account_named_like_a_field_blames_nobody_else() -> None:
    line = "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.9  user=x user=root"
    row = read(f"<86>Feb 28 10:00:00 web01 sshd[9]: {line}".encode())[1]
    assert (row["source.ip"], row["target_user"]) == ("192.0.2.9", "x user=root")


LINES = [
    *(line for line, _, _ in ESXI),
    *(f"<14>2026-02-28T10:00:00Z esx01 shell[2100]: [root]: {command}" for command, _ in SHELL),
    *(VEEAM_HEAD + event for event, _ in VEEAM),
    *(f"<86>Feb 28 10:00:00 web01 {program}: {message}" for program, _, message, _ in LINUX),
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_cut_anywhere_is_kept(line: str) -> None:
    raw = batch([line.encode()[:end] for end in range(len(line.encode()))])
    assert sorted(event_id for frame in parse(raw) for event_id in frame.events["event.id"]) == sorted(raw["event.id"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=4), st.data())
def test_damaged_lines_come_out_once(lines: list[str], data: st.DataObject) -> None:
    damaged = []
    for line in lines:
        encoded = line.encode()
        start = data.draw(st.integers(0, len(encoded)))
        damaged.append(
            encoded[:start] + data.draw(st.binary(max_size=6)) + encoded[start + data.draw(st.integers(0, 9)) :]
        )
    raw = batch(damaged)
    assert sorted(event_id for frame in parse(raw) for event_id in frame.events["event.id"]) == sorted(raw["event.id"])


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list('[]="\\ <>/categoryId=0instanceId1é\n')), max_size=80))
def test_any_text_is_read_as_veeam(text: str) -> None:
    fields, _ = veeam_fields(f"[categoryId=0 {text}")
    assert all(isinstance(value, str) for value in fields.values())

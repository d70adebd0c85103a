from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ingest.logsource import LogSource
from raw_lines import read

SSHD = [
    ("Accepted publickey for root from 2001:db8::1 port 22 ssh2: RSA SHA256:x", "root", "2001:db8::1", "Accepted"),
    ("Failed password for bob from 203.0.113.9 port 4321 ssh2", "bob", "203.0.113.9", "Failed"),
    ("Failed password for invalid user admin from 203.0.113.9 port 4321 ssh2", "admin", "203.0.113.9", "Failed"),
    # the client chose this account's name to put the blame on 192.0.2.5
    ("Failed password for invalid user x from 192.0.2.5 port 22 from 203.0.113.9 port 4321 ssh2",
     "x from 192.0.2.5 port 22", "203.0.113.9", "Failed"),
    ("Invalid user admin from 203.0.113.9 port 4321", "admin", "203.0.113.9", None),
    ("Connection closed by authenticating user root 203.0.113.9 port 4321 [preauth]", "root", "203.0.113.9", None),
    ("Server listening on 0.0.0.0 port 22.", None, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("message", "user", "address", "outcome"), SSHD)
@pytest.mark.parametrize("program", ["sshd[812]", "sshd-session[812]"])
def test_sshd(program: str, message: str, user: str | None, address: str | None, outcome: str | None) -> None:
    logsource, row = read(f"<38>Feb 28 10:00:00 web01 {program}: {message}".encode())
    assert logsource == LogSource("linux", None, "sshd")
    assert (row.get("user.name"), row.get("source.ip"), row.get("outcome")) == (user, address, outcome)
    assert row["message"] == message


def test_sudo() -> None:
    line = b"Feb 28 10:00:00 web01 sudo:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/sh ; USER=x"
    logsource, row = read(line)
    assert logsource == LogSource("linux", None, "sudo")
    assert row["user.name"] == "alice"
    assert (row["TTY"], row["PWD"], row["target_user"]) == ("pts/0", "/home/alice", "root")
    assert row["COMMAND"] == "/bin/sh ; USER=x"


def test_sudo_refused() -> None:
    line = b"Feb 28 10:00:00 web01 sudo: bob : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/id"
    row = read(line)[1]
    assert (row["user.name"], row["problem"], row["COMMAND"]) == ("bob", "user NOT in sudoers", "/bin/id")


def test_sudo_without_a_record_keeps_the_message() -> None:
    logsource, row = read(b"Feb 28 10:00:00 web01 sudo: pam_unix(sudo:session): session opened for user root")
    assert logsource == LogSource("linux", None, "sudo")
    assert "COMMAND" not in row


AUDIT: list[tuple[str, dict[str, str]]] = [
    ('type=EXECVE msg=audit(1772272800.123:45): argc=2 a0="cat" a1=2F6574632F7061737377642078',
     {"type": "EXECVE", "argc": "2", "a0": "cat", "a1": "/etc/passwd x", "audit.serial": "45"}),
    ('type=SYSCALL msg=audit(1772272800.123:45): syscall=59 a0=55AA exit=0 uid=1000 comm="cat" key="exec"',
     {"type": "SYSCALL", "syscall": "59", "a0": "55AA", "uid": "1000", "comm": "cat", "key": "exec"}),
    ("type=PROCTITLE msg=audit(1772272800.123:45): proctitle=636174002F6574632F706173737764",
     {"proctitle": "cat /etc/passwd"}),
    ('type=CWD msg=audit(1772272800.123:45): cwd="/root"', {"cwd": "/root"}),
    ('type=PATH msg=audit(1772272800.123:45): item=0 name="/etc/shadow" nametype=NORMAL',
     {"name": "/etc/shadow", "nametype": "NORMAL"}),
    ("type=USER_LOGIN msg=audit(1772272800.123:46): pid=1 msg='op=login acct=\"root\" addr=203.0.113.9 res=failed'",
     {"op": "login", "acct": "root", "res": "failed", "user.name": "root",
      "source.ip": "203.0.113.9"}),
    ('node=h1 type=EXECVE msg=audit(1772272800.123:45): a0="ls"', {"node": "h1", "host.name": "h1", "a0": "ls"}),
]  # fmt: skip


@pytest.mark.parametrize(("record", "fields"), AUDIT)
@pytest.mark.parametrize("header", ["", "<13>Mar  1 11:00:00 web01 audispd: ", "<13>Mar  1 11:00:00 web01 audisp[3]: "])
def test_audit(header: str, record: str, fields: dict[str, str]) -> None:
    logsource, row = read((header + record).encode())
    assert logsource == LogSource("linux", None, "auditd")
    assert fields.items() <= row.items()
    assert row["@timestamp"] == datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC)

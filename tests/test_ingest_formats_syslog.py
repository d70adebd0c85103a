from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ingest.logsource import LogSource
from raw_lines import NOW, read

HEADERS: list[tuple[bytes, str | None, str | None, str | None, datetime, str]] = [
    # RFC 5424
    (b"<34>1 2026-02-28T10:00:00.003Z web01 app 812 ID47 - hello", "web01", "app", "812",
     datetime(2026, 2, 28, 10, 0, 0, 3000, tzinfo=UTC), "hello"),
    (b"<34>1 2026-02-28T10:00:00+02:00 web01 app - - - \xef\xbb\xbfhello", "web01", "app", None,
     datetime(2026, 2, 28, 8, tzinfo=UTC), "hello"),
    (b'<34>1 2026-02-28T10:00:00Z web01 app - - [a@1 b="c\\] \\" d"][e@1 f="]"] hello', "web01", "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<34>1 2026-02-28T10:00:00Z web01 app - - - a#011b", "web01", "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "a\tb"),
    (b"<34>1 - - app - - -", None, "app", None, NOW, ""),
    # RFC 3164 and its dialects
    (b"<13>Feb 28 10:00:00 web01 app[7]: hello", "web01", "app", "7", datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"Feb 28 10:00:00 web01 app: hello", "web01", "app", None, datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<13>Feb  8 10:00:00 web01 app: hello", "web01", "app", None, datetime(2026, 2, 8, 10, tzinfo=UTC), "hello"),
    (b"<13>Feb 8 10:00:00 web01 app: hello", "web01", "app", None, datetime(2026, 2, 8, 10, tzinfo=UTC), "hello"),
    (b"<13>Feb 28 10:00:00.250 web01 app: hello", "web01", "app", None,
     datetime(2026, 2, 28, 10, 0, 0, 250000, tzinfo=UTC), "hello"),
    (b"<13>2026-02-28T10:00:00+01:00 web01 app: hello", "web01", "app", None,
     datetime(2026, 2, 28, 9, tzinfo=UTC), "hello"),
    (b"<13>2026-02-28 10:00:00,123 web01 app: hello", "web01", "app", None,
     datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC), "hello"),
    (b"<13>Feb 28 10:00:00 app[7]: hello", None, "app", "7", datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<13>Feb 28 10:00:00 app: hello", None, "app", None, datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<13>app[7]: hello", None, "app", "7", NOW, "hello"),
    (b"<13>2025 Feb 28 10:00:00 web01 app: hello", "web01", "app", None,
     datetime(2025, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<13>Feb 28 2025 10:00:00 web01 app: hello", "web01", "app", None,
     datetime(2025, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<13>Feb 28 10:00:00 2025 web01 app: hello", "web01", "app", None,
     datetime(2025, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<13>Feb 28 10:00:00 UTC web01 app: hello", "web01", "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    # Cisco: counters, its own name, a colon (EMBLEM, NX-OS) before the time
    (b"<189>45: *Feb 28 10:00:00.250: app: hello", None, "app", None,
     datetime(2026, 2, 28, 10, 0, 0, 250000, tzinfo=UTC), "hello"),
    (b"<189>45: 000045: Feb 28 10:00:00: app: hello", None, "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<189>45: core-sw01: *Feb 28 10:00:00: app: hello", "core-sw01", "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<189>45: core-sw01: 000045: .Feb 28 10:00:00 UTC: app: hello", "core-sw01", "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<189>:Feb 28 10:00:00 UTC: app: hello", None, "app", None, datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<189>: 2026 Feb 28 10:00:00 UTC: app: hello", None, "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    (b"<13>Feb 28 10:00:00 2001:db8::1 app: hello", "2001:db8::1", "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "hello"),
    # what rsyslog escapes is undone for parsing
    (b"<13>Feb 28 10:00:00 web01 app: a#011b#015#012c #999 #0", "web01", "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "a\tb\r\nc #999 #0"),
    (b"<13>Feb 28 10:00:00 web01 app: two\nlines\n", "web01", "app", None,
     datetime(2026, 2, 28, 10, tzinfo=UTC), "two\nlines"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "host", "program", "pid", "time", "message"), HEADERS)
def test_headers(
    line: bytes, host: str | None, program: str | None, pid: str | None, time: datetime, message: str
) -> None:
    logsource, row = read(line)
    assert logsource == LogSource("linux", None, "syslog")
    assert row.get("host.name") == host
    assert row.get("process.name") == program
    assert row.get("process.pid") == pid
    assert row["@timestamp"] == time
    assert row.get("message", "") == message
    assert row["event.original"] == line.decode()
    assert "error.message" not in row


YEARS = [
    ("Dec 31 23:59:59", datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ("Jan  1 00:00:05", datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)),
    ("Mar  2 11:59:59", NOW, datetime(2026, 3, 2, 11, 59, 59, tzinfo=UTC)),
    ("Mar  2 12:00:01", NOW, datetime(2025, 3, 2, 12, 0, 1, tzinfo=UTC)),
    ("Feb 29 10:00:00", NOW, datetime(2024, 2, 29, 10, tzinfo=UTC)),
    ("Feb 30 10:00:00", NOW, NOW),
]


@pytest.mark.parametrize(("text", "received", "expected"), YEARS)
def test_a_time_without_a_year_gets_the_latest_that_is_not_in_the_future(
    text: str, received: datetime, expected: datetime
) -> None:
    assert read(f"<13>{text} web01 app: hello".encode(), received)[1]["@timestamp"] == expected


def test_a_tag_may_end_in_a_bracket_of_its_own() -> None:
    logsource, row = read(b"<86>Feb 28 10:00:00 pc01 gdm-password]: hello")
    assert logsource == LogSource("linux", None, "auth")
    assert (row["host.name"], row["process.name"], row["message"]) == ("pc01", "gdm-password", "hello")


def test_structured_data_is_kept() -> None:
    assert read(b'<34>1 - h app - - [a@1 b="c"] hello')[1]["structured_data"] == '[a@1 b="c"]'


@pytest.mark.parametrize(
    "line",
    [
        b"<13>Mar  1 11:00:00 PC1 Microsoft-Windows-Sysmon[7]: ",
        b"<13>Mar  1 11:00:00 PC1 ",
        b"<13>",
        b"<13>1 2026-03-01T11:00:00Z PC1 Microsoft-Windows-Sysmon 7 - - ",
        b'<13>1 2026-03-01T11:00:00Z PC1 nxlog - - [NXLOG@14506 a="b"] \xef\xbb\xbf',
        b"<13>Mar  1 11:00:00 PC1 nxlog: @cee: ",
        b"",
        b"  ",
    ],
)
def test_json_is_found_behind_every_header(line: bytes) -> None:
    event = b'{"EventID":3,"Channel":"Microsoft-Windows-Sysmon/Operational","Image":"a#011.exe"}'
    logsource, row = read(line + event)
    assert logsource == LogSource("windows", "network_connection", "sysmon")
    assert row["Image"] == "a#011.exe"
    assert "error.message" not in row


SERVICES = [
    ("app", "syslog"), ("CRON", "cron"), ("crond", "cron"), ("su", "auth"), ("systemd-logind", "auth"),
    ("clamd", "clamav"), ("vsftpd", "vsftpd"), ("guacd", "guacamole"), ("postfix/smtpd", "syslog"), ("sshd", "sshd"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "service"), SERVICES)
def test_the_program_gives_the_service(program: str, service: str) -> None:
    assert read(f"<13>Feb 28 10:00:00 web01 {program}[1]: hello".encode())[0] == LogSource("linux", None, service)


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("%AAA-5-USER_LOGGED: User x", "aaa"),
        ("%SYS-5-CONFIG_I: y", "syslog"),
        ("12: %BGP-3-NOTIFICATION: z", "bgp"),
        ("%PARSER-5-CFGLOG_LOGGEDCMD: User:a  logged command:no logging host", "aaa"),
    ],
)
def test_cisco(text: str, service: str) -> None:
    logsource, row = read(f"<189>Feb 28 10:00:00 sw03 {text}".encode())
    assert logsource == LogSource("cisco", None, service)
    assert row["host.name"] == "sw03"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%SYS-5-CONFIG_I: Configured from console by admin on vty0 (192.0.2.9)",
         {"user.name": "admin", "source.ip": "192.0.2.9"}),
        ("%SEC_LOGIN-4-LOGIN_FAILED: Login failed [user: admin] [Source: 192.0.2.9] [localport: 22] [Reason: x]",
         {"user.name": "admin", "source.ip": "192.0.2.9"}),
        ("%PARSER-5-CFGLOG_LOGGEDCMD: User:admin  logged command:no logging host 192.0.2.1",
         {"user.name": "admin", "command": "no logging host 192.0.2.1"}),
        ("%AAA-5-USER_LOGGED: User admin executed: show run", {"user.name": "admin", "command": "show run"}),
        ("%SYS-5-RESTART: System restarted", {}),
    ],
)  # fmt: skip
def test_who_did_what_on_a_cisco(text: str, said: dict[str, str]) -> None:
    row = read(f"<189>45: sw03: *Feb 28 10:00:00: {text}".encode())[1]
    names = ("user.name", "source.ip", "command")
    assert {name: row[name] for name in names if name in row} == said
    assert (row["host.name"], row["message"]) == ("sw03", text)

# ruff: noqa: E501  (log lines are long)
"""Whose line it is: each format of a system reads its own lines, and none of any other."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windows_messages_fr import EN_4625, FR_4624, FR_4720, escaped, run_together

from ingest.envelope import EventFrame
from ingest.formats.syslog import split_headers
from ingest.formats.system_table import SYSTEMS
from ingest.logsource import LogSource
from ingest.parse import parse, split_lines
from raw_lines import NOW, Row, batch, read

OWN = [
    ("windows.text", f"<14>Feb 28 10:00:00 dc01 {escaped(FR_4624)}"),
    ("windows.text", run_together(EN_4625)),
    (
        "windows.text",
        "<29>Feb 28 10:00:00 pc1 Security-Auditing: 4634: AUDIT_SUCCESS An account was logged off. Subject:",
    ),
    ("windows.text", "<13>Feb 28 10:00:00 pc1 AgentDevice=WindowsLog\tAgentLogFile=System\tEventID=7036\tMessage=x"),
    ("windows.text", '<14>1 2026-02-28T10:00:00Z pc1 x - - [a@1 EventID="7036" Channel="System"] The service stopped.'),
    (
        "windows.snare",
        "<14>Feb 28 10:00:00 pc1 MSWinEventLog\t1\tSystem\t7\tSat Feb 28 10:00:00 2026\t7036\tx\tN/A\tN/A",
    ),
    ("esxi.hostd", "<166>2026-02-28T10:00:00Z esx01 Hostd: info hostd[9] [Originator@6876 sub=x] y"),
    ("esxi.vobd", "2026-02-28T10:00:00Z: [UserLevelCorrelator] 1us: [vob.x] y"),
    ("esxi.shell", "2026-02-28T10:00:00Z shell[2100]: [root]: ls"),
    ("veeam.backup", '[origin enterpriseId="31023"] [categoryId=0 instanceId=110 Description="x"]'),
    ("linux.auth", "<86>Feb 28 10:00:00 web01 su: (to root) alice on pts/0"),
    ("linux.auth", "<86>Feb 28 10:00:00 web01 sshd[9]: pam_unix(sshd:session): session closed for user bob"),
    ("zeek", '{"ts":1772272800.0,"uid":"C1","id.orig_h":"192.0.2.1","conn_state":"SF","proto":"tcp"}'),
    ("json.ecs", '{"@timestamp":"2026-02-28T10:00:00Z","ecs":{"version":"8"},"message":"x"}'),
    ("json.ocsf", '{"class_uid":1007,"activity_id":1,"metadata":{}}'),
]
OTHERS = [
    '{"EventTime":"2026-02-28 10:00:00","EventID":1,"Channel":"Security","SourceModuleType":"im_msvistalog"}',
    '{"@timestamp":"2026-02-28T10:00:00Z","ecs":{"version":"8"},"event":{"code":1},"winlog":{"channel":"Security","event_id":1}}',
    '{"eventSource":"iam.amazonaws.com","eventName":"CreateUser","awsRegion":"eu-west-3","uid":1,"ts":2}',
    '{"EventID":1,"product":"windows","category":"process_creation","ts":1,"uid":2,"id":3}',
    '{"level":"info","event":{"dataset":"x"}}',
    '{"ts":1772272800,"message":"x"}',
    "<Event xmlns='x'><System><EventID>1</EventID></System></Event>",
    "type=USER_LOGIN msg=audit(1772272800.123:46): pid=1 msg='op=login acct=\"root\" addr=203.0.113.9 res=failed'",
    "<38>Feb 28 10:00:00 web01 sshd[812]: Failed password for root from 203.0.113.9 port 4321 ssh2",
    "<85>Feb 28 10:00:00 web01 sudo: alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/echo An account failed to log on",
    "<189>Feb 28 10:00:00 sw03 %AAA-5-USER_LOGGED: User x",
    '<13>1 2026-02-28T10:00:00Z fw1 asqd - - - id=firewall time="2026-02-28 10:00:00" fw="SN1" logtype="auth" user="a"',
    '<189>date=2026-02-28 time=10:00:00 devname="fw" logid="0100032002" type="event" subtype="system" user="a"',
    "<14>Feb 28 10:00:00 fw1 CEF:0|Vendor|Product|1|100|Login|5|src=192.0.2.1 suser=bob msg=An account failed",
    "LEEF:1.0|Vendor|Product|1|100|src=192.0.2.1\tusrName=bob",
    "<14>Feb 28 10:00:00 pa1 1,2026/02/28 10:00:00,0,GLOBALPROTECT,0,2561,2026/02/28 10:00:00,vsys1,gateway-auth",
    "1772272800.123     10 192.0.2.1 TCP_MISS/200 100 GET http://a.example/ bob DIRECT/192.0.2.2 text/html",
    '192.0.2.1 - bob [28/Feb/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "x"',
    "<30>Feb 28 10:00:00 ns1 named[7]: client 192.0.2.1#53 (a.example): query: a.example IN A + (192.0.2.2)",
    "<30>Feb 28 10:00:00 gw1 openvpn[7]: 192.0.2.1:1194 [bob] Peer Connection Initiated with [AF_INET]192.0.2.1:1194",
    "<110>1 2026-02-28T10:00:00Z pacs1 ATNA 1 IHE+RFC-3881 - <AuditMessage><EventIdentification/></AuditMessage>",
    "ERROR 2026-02-28 10:00:00,313 [Main Server Thread] com.mirth.connect.Server: An account failed to log on",
    "MSH|^~\\&|A|B|C|D|20260228100000||ADT^A01|1|P|2.5",
    "<13>Feb 28 10:00:00 web01 app[7]: hello",
    "<13>Feb 28 10:00:00 web01 shell: hello",
    "<13>Feb 28 10:00:00 web01 myhostd[7]: hello",
    "hello",
    "",
]


@pytest.mark.parametrize(("dataset", "line"), OWN)
def test_own_lines_are_read(dataset: str, line: str) -> None:
    assert read(line.encode())[1]["event.dataset"] == dataset


@pytest.mark.parametrize("line", OTHERS)
def test_lines_of_others_are_left_alone(line: str) -> None:
    found = str(read(line.encode())[1]["event.dataset"])
    assert found not in {dataset for dataset, _ in OWN}


@pytest.mark.parametrize("line", OTHERS)
def test_no_recogniser_takes_another_s_line(line: str) -> None:
    lines = split_lines(pl.Series("line", [line]), pl.Series("received", [NOW]))
    for form in SYSTEMS:
        assert not lines.select(form.recognise.fill_null(value=False).alias("is"))["is"].any(), form.name


HEADERS = [
    ("2026-02-28T10:00:00Z info hostd[2099] [Originator@6876 sub=x] y", None, "hostd[2099] [Originator@6876 sub=x] y"),
    ("2026-02-28T10:00:00Z info app[2099]: y", "info", "y"),
    ("2026-02-28T10:00:00Z In(14) vobd[1]:  y", None, " y"),
    ("2026-02-28T10:00:00Z Er(11)+ vobd[1]: y", None, "y"),
    ("2026-02-28T10:00:00Z web(14) vobd[1]: y", "web(14)", "y"),
    ("<14>Feb 28 10:00:00 pc1#011MSWinEventLog#0111", None, "pc1\tMSWinEventLog\t1"),
    ("<14>Feb 28 10:00:00 L'ouverture de session", None, "L'ouverture de session"),
    ("<14>Feb 28 10:00:00 L’ouverture de session", None, "L’ouverture de session"),
]


@pytest.mark.parametrize(("line", "host", "payload"), HEADERS)
def test_what_stands_where_a_host_might(line: str, host: str | None, payload: str) -> None:
    row = split_headers(pl.Series("line", [line]), pl.Series("received", [NOW])).row(0, named=True)
    assert (row["syslog.host"], row["payload"]) == (host, payload)


def test_titles_begin_a_line() -> None:
    for line in (f"x {run_together(FR_4720)}", "<13>Feb 28 10:00:00 web01 app[7]: said: An account failed to log on."):
        assert read(line.encode())[1]["event.dataset"] not in ("windows.text", "windows.snare")


def said(frames: list[EventFrame]) -> dict[str, tuple[LogSource, Row]]:
    return {
        str(row["event.id"]): (frame.logsource, {k.lower(): v for k, v in row.items() if v is not None})
        for frame in frames
        for row in frame.events.rows(named=True)
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([line for _, line in OWN] + OTHERS), min_size=1, max_size=8))
def test_no_line_depends_on_its_neighbours(lines: list[str]) -> None:
    raw = batch([line.encode() for line in lines])
    apart: dict[str, tuple[LogSource, Row]] = {}
    for place, line in enumerate(lines):
        apart |= said(parse(batch([line.encode()], first=place)))
    assert said(parse(raw)) == apart

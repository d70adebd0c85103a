# ruff: noqa: E501  (log lines are long)
"""Raw batches for the tests of parsing: what `collect` would have put on the bus."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
from hypothesis import strategies as st

import device_lines
from ingest.envelope import EVENT_ID
from ingest.logsource import LogSource
from ingest.parse import parse
from ingest.rawbatch import RAW_SCHEMA

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Row = dict[str, object]


def batch(
    lines: list[bytes],
    marks: list[str | None] | None = None,
    first: int = 0,
    tenant: str = "chu-a",
    received: datetime = NOW,
) -> pl.DataFrame:
    size = len(lines)
    return pl.DataFrame(
        {
            "line": lines,
            "received": [received] * size,
            "mark": marks or [None] * size,
            "tenant": [tenant] * size,
            "peer": ["192.0.2.1"] * size,
        },
        schema=RAW_SCHEMA,
    ).with_columns(pl.Series(EVENT_ID, [f"t:0:0:{first + row}" for row in range(size)], dtype=pl.String))


def read(line: bytes, received: datetime = NOW) -> tuple[LogSource, Row]:
    """The log source of one line, and what its event says (nulls left out)."""
    (frame,) = parse(batch([line], received=received))
    row = frame.events.row(0, named=True)
    return frame.logsource, {name: value for name, value in row.items() if value is not None}


SEEDS = [
    b'{"EventID":1,"Channel":"Security","EventTime":"2026-01-01 00:00:00","Keywords":-5,"Data":[1]}',
    b'{"winlog":{"event_data":{"a":1},"channel":"System","event_id":[]},"event":3}',
    b'{"Event":{"System":{"EventID":{"#text":1}},"EventData":{"Data":[{"@Name":"a","#text":"b"},"c",null]}}}',
    b'<34>1 2026-01-01T00:00:00Z h sshd 1 - [a b="c"] Failed password for x from 1.2.3.4 port 5',
    b"<13>Feb 30 10:00:00 h sudo: a : TTY=1 ; COMMAND=x",
    b"type=EXECVE msg=audit(1.2:3): a0=2F",
    b"<Event xmlns='x'><System><EventID>1</EventID></System><EventData><Data Name='a'>b</Data></EventData></Event>",
    b'{"message":"<13>x","product":"windows"}',
]

OF_EVERY_FORMAT = [
    *SEEDS,
    b"<85>Feb 28 10:00:00 web01 sudo: alice : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/id",
    b"<86>Feb 28 10:00:00 web01 su[12]: pam_unix(su:session): session opened for user root(uid=0) by alice(uid=1000)",
    b"<13>Feb 28 10:00:00 web01 app[7]: hello",
    b"<189>Feb 28 10:00:00 sw03 %AAA-5-USER_LOGGED: User x executed: show run",
    "<14>Feb 28 10:00:00 dc01 Échec d’ouverture de session d’un compte.#015#012#015#012Sujet :#015#012#011ID de sécurité :"
    "#011#011S-1-0-0#015#012#011Nom du compte :#011#011-#015#012Type d’ouverture de session :#011#0113".encode(),
    b"<14>Feb 28 10:00:00 dc01 Microsoft-Windows-Security-Auditing[4]: 4625: AUDIT_FAILURE An account failed to log on.",
    (
        b"<14>Feb 28 10:00:00 dc01 MSWinEventLog\t1\tSecurity\t287\tSat Feb 28 10:00:00 2026\t4625\t"
        b"Microsoft-Windows-Security-Auditing\tN/A\tN/A\tFailure Audit\tdc01\tLogon\t\tAn account failed to log on.\t1"
    ),
    (
        b'<14>1 2026-02-28T10:00:00Z vbr01 Veeam_MP - - [origin enterpriseId="31023"] [categoryId=0 instanceId=110 '
        b'UserName="a" Description="Backup job started"]'
    ),
    b"<14>2026-02-28T10:00:00Z esx01 shell[2100]: [root]: esxcli vm process list",
    b"2026-02-28T10:00:00.483Z info hostd[2099] [Originator@6876 sub=Vimsvc] User root@192.0.2.7 logged in as pyvmomi",
    (
        b"<86>1 2026-02-28T10:00:01Z dpi dpi 812 IHE+RFC-3881 - <AuditMessage><EventIdentification EventActionCode='E' "
        b"EventDateTime='2026-02-28T10:00:00Z' EventOutcomeIndicator='0'><EventID csd-code='110114' codeSystemName='DCM'/>"
        b"</EventIdentification><ActiveParticipant UserID='u' UserIsRequestor='true'/></AuditMessage>"
    ),
    b"<13>Feb 28 11:00:00 gw1 mllp[3]: in: MSH|^~\\&|DPI|K|LABO|K|20260228110000+0100||ADT^A01|42|P|2.5#015PID|1||7^^^K",
    b"<13>Feb 28 11:00:00 m mirth: ERROR 2026-02-28 10:05:23,313 [Main Server Thread] com.mirth.connect.X: message",
    b"<13>Feb 28 11:00:00 o Orthanc: W0228 10:05:23.313123             MAIN main.cpp:2041] message",
    b'{"resourceType":"AuditEvent","recorded":"2026-02-28T10:00:00Z","agent":[{"requestor":true}],"type":{"code":"rest"}}',
    b'{"_path":"conn","ts":1772272800.1,"uid":"C1","id.orig_h":"192.0.2.1","id.resp_h":"192.0.2.2"}',
    b'{"@timestamp":"2026-02-28T10:00:00Z","ecs":{"version":"8"},"event":{"dataset":"nginx.access"},"url":{"path":"/"}}',
    b'{"class_uid":1007,"activity_id":1,"metadata":{"version":"1.3.0"},"process":{"cmd_line":"id"},"time":1772272800000}',
    *(f"{case.headers[0]}{case.line}".encode() for case in device_lines.ALL),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real line with bytes put in, taken out, or cut off."""
    line = draw(st.sampled_from(SEEDS))
    start = draw(st.integers(0, len(line)))
    stop = draw(st.integers(start, min(len(line), start + 8)))
    return line[:start] + draw(st.binary(max_size=6)) + line[stop:]

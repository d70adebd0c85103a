"""Lines a second through `ingest.parse.parse`, format by format: `python -m benchmarks.parse_formats [--json FILE]`.

Lines are invented, each a little different, in batches of the size that `collect` sends. What is timed is everything
from raw bytes to event frames with their envelopes, in CPU seconds of one core; matching is not in it. A format that is
not recognised as itself ends the run: a rate of lines that nobody understood would be no figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from benchmarks.parse_lines import DEVICE_TEMPLATES, Template
from ingest.envelope import DATASET, EVENT_ID
from ingest.parse import parse
from ingest.rawbatch import RAW_SCHEMA

LINES: Final = 40_000
BATCH: Final = 4_000
TIMES: Final = 3
RECEIVED: Final = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)

_HEADER_5424: Final = "<134>1 2026-07-01T11:59:{second:02}.123Z srv-{n} {program} {pid} - - "
_HEADER_3164: Final = "<134>Jul  1 11:59:{second:02} srv-{n} {program}[{pid}]: "


def _headed(header: str, program: str, body: str) -> Template:
    """Lines of one program; `{n}` and `{ip}` in the body vary."""

    def line(number: int) -> str:
        head = header.format(second=number % 60, n=number % 97, program=program, pid=1000 + number % 5000)
        return head + body.replace("{n}", str(number)).replace("{ip}", f"192.0.2.{number % 250}")

    return line


def _nxlog(number: int) -> str:
    event = {
        "EventTime": f"2026-07-01T11:59:{number % 60:02}.123Z",
        "Hostname": f"pc-{number % 97}",
        "EventID": 4624,
        "SourceName": "Microsoft-Windows-Security-Auditing",
        "Channel": "Security",
        "Severity": "INFO",
        "RecordNumber": number,
        "ProcessID": 4,
        "SubjectUserSid": "S-1-5-18",
        "SubjectUserName": f"PC-{number % 97}$",
        "TargetUserName": f"user{number % 977}",
        "TargetDomainName": "KERMOR",
        "LogonType": "3",
        "IpAddress": f"192.0.2.{number % 250}",
        "LogonProcessName": "NtLmSsp",
        "EventReceivedTime": f"2026-07-01 11:59:{number % 60:02}",
        "SourceModuleType": "im_msvistalog",
    }
    head = _HEADER_5424.format(second=number % 60, n=number % 97, program="Microsoft-Windows-Security", pid=4)
    return head + json.dumps(event)


_SYSTEM_XML: Final = (
    "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System>"
    "<Provider Name='Microsoft-Windows-Security-Auditing'/><EventID>4625</EventID><Level>0</Level>"
    "<TimeCreated SystemTime='2026-07-01T11:59:00.1234567Z'/><EventRecordID>{n}</EventRecordID>"
    "<Channel>Security</Channel><Computer>pc-1</Computer></System><EventData>"
    "<Data Name='TargetUserName'>user{n}</Data><Data Name='IpAddress'>{ip}</Data><Data Name='LogonType'>3</Data>"
    "</EventData></Event>"
)

_ATNA: Final = (
    '<AuditMessage><EventIdentification EventActionCode="R" EventDateTime="2026-07-01T11:59:00Z" '
    'EventOutcomeIndicator="0"><EventID csd-code="110112" codeSystemName="DCM" originalText="Query"/>'
    '</EventIdentification><ActiveParticipant UserID="user{n}" UserIsRequestor="true" NetworkAccessPointID="{ip}" '
    'NetworkAccessPointTypeCode="2"/><AuditSourceIdentification AuditSourceID="PACS"/></AuditMessage>'
)

TEMPLATES: Final[Mapping[str, tuple[str, Template]]] = {
    "RFC 5424 + Windows JSON (NXLog)": ("windows.nxlog", _nxlog),
    "RFC 5424, any program": ("linux.syslog", _headed(_HEADER_5424, "app", "job {n} done for {ip} in 12 ms")),
    "RFC 3164, any program": ("linux.syslog", _headed(_HEADER_3164, "app", "job {n} done for {ip} in 12 ms")),
    "Windows XML": ("windows.xml", _headed(_HEADER_5424, "EvtxHub", _SYSTEM_XML)),
    "sshd": (
        "linux.sshd",
        _headed(_HEADER_3164, "sshd", "Failed password for invalid user u{n} from {ip} port 5{n} ssh2"),
    ),
    "sudo": (
        "linux.sudo",
        _headed(_HEADER_3164, "sudo", "   u{n} : TTY=pts/0 ; PWD=/home/u ; USER=root ; COMMAND=/usr/bin/id {n}"),
    ),
    "auditd": (
        "linux.auditd",
        lambda n: (
            f'type=EXECVE msg=audit(1782907140.{n % 1000:03}:{n}): argc=3 a0="curl" a1="-s" a2="http://192.0.2.7/{n}"'
        ),
    ),
    "Cisco AAA": (
        "cisco.syslog",
        lambda n: f"<189>Jul  1 11:59:00 core-sw01 %AAA-5-USER_LOGGED: User u{n} executed: show vlan {n}",
    ),
    "ATNA": ("atna", _headed(_HEADER_5424, "PACS", _ATNA)),
    **DEVICE_TEMPLATES,
}
"""Name -> the dataset its lines must be understood as, and what makes line number n."""


def batches_of(template: Template) -> list[pl.DataFrame]:
    """Raw batches as `collect` would have put them on the bus."""
    lines = [template(number).encode() for number in range(LINES)]
    return [_batch(lines[first : first + BATCH]) for first in range(0, LINES, BATCH)]


def _batch(lines: list[bytes]) -> pl.DataFrame:
    size = len(lines)
    columns = {"line": lines, "received": [RECEIVED] * size, "mark": [None] * size}
    columns |= {"tenant": ["ch-kermor"] * size, "peer": ["192.0.2.1"] * size}
    ids = pl.Series(EVENT_ID, [f"t:0:0:{row}" for row in range(size)], dtype=pl.String)
    return pl.DataFrame(columns, schema=RAW_SCHEMA).with_columns(ids)


def measure(dataset: str, template: Template) -> dict[str, float]:
    """The best of some runs over all batches.

    Raises:
        SystemExit: A line was understood as something else.
    """
    batches = batches_of(template)
    seen = {name for frame in parse(batches[0]) for name in frame.events[DATASET].unique()}
    if seen != {dataset}:
        raise SystemExit(f"{dataset}: the lines were understood as {sorted(seen)}")
    best = min(_timed(batches) for _ in range(TIMES))
    size = sum(int(batch["line"].bin.size().sum()) for batch in batches)
    return {"lines_per_s": LINES / best, "MB_per_s": size / best / 1e6, "bytes_a_line": size / LINES}


def _timed(batches: Sequence[pl.DataFrame]) -> float:
    started = time.process_time()
    for batch in batches:
        parse(batch)
    return time.process_time() - started


def main(arguments: Sequence[str]) -> int:
    """Measure every format, or those named, and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", help="Only formats whose name or dataset holds one of these.")
    options.add_argument("--json", type=Path, help="Where the figures go as well.")
    chosen = options.parse_args(arguments)
    figures: dict[str, dict[str, float]] = {}
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, polars {pl.__version__}")
    for name, (dataset, template) in TEMPLATES.items():
        if chosen.names and not any(part in f"{name} {dataset}" for part in chosen.names):
            continue
        figures[name] = found = measure(dataset, template)
        print(f"{name:34} {found['lines_per_s']:>11,.0f} lines/s {found['MB_per_s']:>8,.1f} MB/s")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"batch": BATCH, "formats": figures}, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    sys.exit(main(sys.argv[1:]))

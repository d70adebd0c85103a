"""The lines that a region of hospitals sends in `benchmarks.end_to_end`, and what in them rules match.

Half are process creations of Windows as NXLog writes them in JSON, a quarter sshd's, a quarter a firewall's. The
Windows events are those of the shared lane. More than half of that lane matches some rule, which no hospital's log
does, so events that match and those that do not are told apart beforehand, by the same rules, and the former are drawn
as seldom as asked for.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from benchmarks.lanes import _lane_lines
from ingest.envelope import EVENT_ID
from ingest.rawbatch import RAW_SCHEMA
from tocsin.containment import match_contained, parse_contained
from tocsin.rule_loading import load_rule_plan, user_cache
from tocsin.rule_options import read_rule_options


def frame_of(lines: Sequence[bytes], tenant: str, received: datetime) -> pl.DataFrame:
    """Raw lines as parsing wants them; the id of an event is its row."""
    height = len(lines)
    raw: dict[str, Sequence[object]] = {
        "line": lines,
        "received": [received] * height,
        "mark": [None] * height,
        "tenant": [tenant] * height,
        "peer": ["192.0.2.1"] * height,
    }
    return pl.DataFrame(raw, schema=RAW_SCHEMA).with_columns(
        pl.Series(EVENT_ID, [f"tocsin.raw:0:0:{row}" for row in range(height)])
    )


def split_by_rules(lines: Sequence[bytes], rules: Sequence[Path]) -> tuple[list[bytes], list[bytes]]:
    """The lines that no rule matches, and those that one does."""
    plan = load_rule_plan(rules, read_rule_options((), ()), user_cache(os.environ)).plan
    frames = parse_contained(frame_of(lines, "CH 0", datetime.now(UTC)))
    loud = {
        int(event_id.rpartition(":")[2])
        for frame in frames
        for event_id in match_contained(plan, frame)[0].get_column("event_id")
    }
    quiet = [line for row, line in enumerate(lines) if row not in loud]
    return quiet, [line for row, line in enumerate(lines) if row in loud]


def line_pool(size: int, rules: Sequence[Path], alerting: float) -> list[bytes]:
    """Lines to send, each in its octet-counted frame (RFC 6587, section 3.4.1); no two alike.

    Args:
        size: How many.
        rules: Files of rules.
        alerting: Share of all lines that are Windows events which some rule matches.
    """
    draw = random.Random(7)  # noqa: S311 - the same lines every time is the point
    quiet, loud = split_by_rules(_lane_lines("structured_windows"), rules)
    made: list[bytes] = []
    for number in range(size):
        host = f"pc-{draw.randrange(400)}"
        kind = number % 4
        if kind < 2:
            text = nxlog_text(draw, draw.choice(loud if draw.random() < 2 * alerting else quiet), host, number)
        else:
            text = sshd_text(draw) if kind == 2 else firewall_text(draw)
        line = f"<134>1 2026-11-20T10:00:00.{number % 1_000_000:06d}Z {host} {text}".encode()
        made.append(b"%d %b" % (len(line), line))
    return made


def nxlog_text(draw: random.Random, event: bytes, host: str, number: int) -> str:
    """A Windows event behind the header of syslog."""
    changed = {"ProcessId": draw.randrange(65536), "Hostname": host, "RecordNumber": number}
    return f"NXLog - - - {json.dumps({**json.loads(event), **changed})}"


def sshd_text(draw: random.Random) -> str:
    """Someone signs in, or leaves."""
    user, address = f"user{draw.randrange(900)}", f"192.0.2.{draw.randrange(256)}"
    said = draw.choice(["Accepted publickey for", "Accepted password for", "Disconnected from user"])
    return f"sshd {draw.randrange(65536)} - - {said} {user} from {address} port {draw.randrange(65536)} ssh2"


def firewall_text(draw: random.Random) -> str:
    """A connection through a FortiGate."""
    source, target = f"10.1.{draw.randrange(256)}.{draw.randrange(256)}", f"198.51.100.{draw.randrange(256)}"
    return (
        f"- - - - date=2026-11-20 time=10:00:{draw.randrange(60):02d} devname=fw-1 devid=FGT60F0000000001 "
        f"logid=0000000013 type=traffic subtype=forward level=notice vd=root srcip={source} "
        f"srcport={draw.randrange(65536)} dstip={target} dstport={draw.choice([53, 123, 443, 8443])} proto=6 "
        f"action={draw.choice(['accept', 'deny', 'close'])} sentbyte={draw.randrange(99999)} rcvdbyte=0"
    )

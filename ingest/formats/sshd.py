"""OpenSSH's sshd: who logged in, or tried to, from where.

Rules on sshd search its words, so the message is kept whole; the account and address are taken out for the envelope.
Trap: the account is whatever the client sent, spaces and all (`... for invalid user a from b from 1.2.3.4 port 22`):
so the LAST ` from ADDRESS port N` counts, as fail2ban learnt (CVE-2006-6302).
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

LOGSOURCE: Final = LogSource("linux", None, "sshd")
PROGRAMS: Final = ("sshd", "sshd-session", "sshd-auth")
NAMES: Final = EnvelopeNames(user=("user",), source_ip=("src_ip",))

_ATTEMPT: Final = (
    r"(?s)^(?P<outcome>Accepted|Failed|Postponed|Partial) (?P<method>[A-Za-z0-9_/-]+) for "
    r"(?P<invalid>invalid user )?(?P<user>.*) from "
    r"(?P<src_ip>[0-9A-Fa-f.:]{2,45}(?:%[A-Za-z0-9_]+)?|UNKNOWN) port (?P<src_port>[0-9]{1,5})(?: .*)?$"
)
_INVALID: Final = (
    r"(?s)^(?:Invalid user|Connection (?:closed|reset) by (?:authenticating|invalid) user"
    r"|Disconnected from (?:authenticating |invalid )?user) "
    r"(?P<user2>.*?)(?: from)? (?P<ip2>[0-9A-Fa-f.:]{2,45}) port (?P<port2>[0-9]{1,5})(?: .*)?$"
)


def parse_sshd(lines: pl.DataFrame) -> Parsed:
    """One piece; fields that a line does not have are null."""
    payload = pl.col("payload")
    groups = lines.select(
        pl.col("pid").alias("process.pid"),
        payload.alias("message"),
        payload.str.extract_groups(_ATTEMPT).alias("a"),
        payload.str.extract_groups(_INVALID).alias("b"),
    ).unnest("a", "b")
    fields = groups.select(
        pl.lit("sshd").alias("process.name"),
        "process.pid",
        "message",
        "outcome",
        "method",
        pl.coalesce("user", "user2").alias("user"),
        pl.coalesce("src_ip", "ip2").alias("src_ip"),
        pl.coalesce("src_port", "port2").alias("src_port"),
    )
    return Parsed([Piece(LOGSOURCE, "linux.sshd", lines["row"], fields, NAMES)])

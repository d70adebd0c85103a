"""Lines with a syslog header and a program's name that no closer format reads: Linux, and Cisco's `%FACILITY-n-NAME`.

The service is Sigma's name for the program where it has one, and `syslog` for every other.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

PROGRAM_SERVICES: Final[dict[str, str]] = {
    **dict.fromkeys(("sshd", "sshd-session", "sshd-auth"), "sshd"),
    "sudo": "sudo",
    **dict.fromkeys(("cron", "crond", "CRON", "anacron", "crontab"), "cron"),
    **dict.fromkeys(("clamd", "clamscan", "freshclam", "clamav"), "clamav"),
    "vsftpd": "vsftpd",
    **dict.fromkeys(("guacd", "guacamole"), "guacamole"),
    **dict.fromkeys(
        (
            *("su", "login", "passwd", "chpasswd", "chage", "chfn", "chsh", "gpasswd", "newgrp"),
            *("useradd", "usermod", "userdel", "groupadd", "groupmod", "groupdel"),
            *("systemd-logind", "polkitd", "pkexec", "gdm-password", "lightdm", "sssd", "doas"),
        ),
        "auth",
    ),
}
"""Program -> Sigma service; the last block is what Debian and Red Hat write to auth.log and secure."""

CISCO_TAG: Final = r"%(?P<facility>[A-Z][A-Z0-9_]{1,31})(?:-[A-Z0-9_]+)*-[0-7]-[A-Z0-9_]+: "
CISCO_SERVICES: Final[dict[str, str]] = {"AAA": "aaa", "PARSER": "aaa", "BGP": "bgp", "LDP": "ldp"}
"""Facility -> Sigma service. `PARSER` writes the commands of IOS (`log config`): rules on `aaa` ask for them."""

NAMES: Final = EnvelopeNames()
CISCO_NAMES: Final = EnvelopeNames(user=("user",), source_ip=("src_ip",))
_IP: Final = r"[0-9A-Fa-f.:]*[0-9A-Fa-f]"
_CISCO_USERS: Final = (
    rf"CONFIG_I: Configured from .* by (?P<user>\S+) on \S+(?: \((?P<src_ip>{_IP})\))?",
    rf"-LOGIN_(?:SUCCESS|FAILED): Login \w+ \[user: (?P<user>[^\]]*)\] \[Source: (?P<src_ip>{_IP})\]",
    r"CFGLOG_LOGGEDCMD: User:(?P<user>\S+) +logged command:(?P<command>.*)$",
    r"USER_LOGGED: User (?P<user>\S+) executed: (?P<command>.*)$",
)
"""How messages of IOS name who did what."""


def parse_program_lines(lines: pl.DataFrame) -> Parsed:
    """One piece a service, with `process.name`, `process.pid` and `message`."""
    fields = lines.select(
        "row",
        pl.col("program").replace_strict(PROGRAM_SERVICES, default="syslog", return_dtype=pl.String).alias("service"),
        pl.col("program").alias("process.name"),
        pl.col("pid").alias("process.pid"),
        pl.col("structured_data"),
        pl.col("payload").alias("message"),
    )
    pieces = [
        Piece(
            LogSource("linux", None, str(service)),
            "linux.syslog",
            part["row"],
            part.drop("row", "service"),
            NAMES,
        )
        for (service,), part in fields.partition_by("service", as_dict=True, maintain_order=True).items()
    ]
    return Parsed(pieces)


def parse_cisco(lines: pl.DataFrame) -> Parsed:
    """One piece a facility that has a Sigma service; others are `syslog`."""
    facility = pl.col("payload").str.extract(CISCO_TAG)
    fields = lines.select(
        "row",
        facility.replace_strict(CISCO_SERVICES, default="syslog", return_dtype=pl.String).alias("service"),
        pl.col("payload").alias("message"),
        *_cisco_user(pl.col("payload")),
    )
    pieces = [
        Piece(
            LogSource("cisco", None, str(service)),
            "cisco.syslog",
            part["row"],
            part.drop("row", "service"),
            CISCO_NAMES,
        )
        for (service,), part in fields.partition_by("service", as_dict=True, maintain_order=True).items()
    ]
    return Parsed(pieces)


def _cisco_user(text: pl.Expr) -> list[pl.Expr]:
    """Who did what from where, as far as a message says so."""
    ways = [(way, text.str.extract_groups(way)) for way in _CISCO_USERS]
    return [
        pl.coalesce([read.struct.field(name) for way, read in ways if f"?P<{name}>" in way]).alias(name)
        for name in ("user", "src_ip", "command")
    ]

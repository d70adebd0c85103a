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
CISCO_SERVICES: Final[dict[str, str]] = {"AAA": "aaa", "BGP": "bgp", "LDP": "ldp"}

NAMES: Final = EnvelopeNames()


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
    )
    pieces = [
        Piece(LogSource("cisco", None, str(service)), "cisco.syslog", part["row"], part.select("message"), NAMES)
        for (service,), part in fields.partition_by("service", as_dict=True, maintain_order=True).items()
    ]
    return Parsed(pieces)

"""The table of formats: in this order a line is offered to each that recognises it.

A new format is a module of its own and a line here. What none of them reads is kept whole as `unknown`.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats import auditd, linux_syslog, openvpn, sshd, sudo
from ingest.formats.device_table import DEVICES, PAIRS
from ingest.formats.hospital_table import ATNA, HOSPITAL
from ingest.formats.json_lines import parse_json
from ingest.formats.piece import Format
from ingest.formats.system_table import SYSTEMS
from ingest.formats.windows_xml import parse_xml

_PAYLOAD: Final = pl.col("payload")
_PROGRAM: Final = pl.col("program")


def _holds(text: str) -> pl.Expr:
    return _PAYLOAD.str.contains(text, literal=True)


FORMATS: Final[tuple[Format, ...]] = (
    Format("json", _PAYLOAD.str.contains(r"^\s*(?:\{|\[\s*\{\s*\")"), parse_json, _holds("{")),
    ATNA,
    Format(
        "windows.xml",
        _PAYLOAD.str.contains(r"^(?:<\?xml[^>]{0,200}>\s{0,8})?(?:<!DOCTYPE|<Event[\s>])"),
        parse_xml,
        _holds("<"),
    ),
    Format("linux.auditd", _PAYLOAD.str.contains(auditd.RECORD), auditd.parse_audit, _holds("msg=audit(")),
    *HOSPITAL,
    *SYSTEMS,
    Format("linux.sshd", _PROGRAM.is_in(sshd.PROGRAMS), sshd.parse_sshd),
    Format("linux.sudo", _PROGRAM == "sudo", sudo.parse_sudo),
    *DEVICES,
    Format(
        "cisco.syslog",
        pl.col("syslog") & _PAYLOAD.str.contains(rf"^[^%]{{0,64}}{linux_syslog.CISCO_TAG}"),
        linux_syslog.parse_cisco,
        _holds("%"),
    ),
    PAIRS,
    Format("linux.syslog", pl.col("syslog") & _PROGRAM.is_not_null(), linux_syslog.parse_program_lines),
)

BARE: Final = (
    r"^\s*(?:\{|<Event[\s>]|<\?xml|<!DOCTYPE|(?:node=[^ ]+ )?type=[A-Z0-9_\[\]]+ msg=audit\("
    rf"|{openvpn.FILE})"
)
"""Lines that need no syslog header: what files and hunts hold."""

"""Formats of systems, in the order in which they are offered a line: Windows as text, hypervisor, backup, Linux."""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats import esxi, linux_auth, snare, veeam, windows_text
from ingest.formats.piece import Format
from ingest.logsource import LogSource

_PAYLOAD: Final = pl.col("payload")
_PROGRAM: Final = pl.col("program")
_CATEGORY: Final = "[categoryId="

SYSTEMS: Final[tuple[Format, ...]] = (
    Format(
        "windows.snare",
        snare.RECOGNISE,
        snare.parse_snare,
        _PAYLOAD.str.contains(snare.MARK, literal=True) | _PROGRAM.str.starts_with(snare.MARK).fill_null(value=False),
    ),
    Format("windows.text", windows_text.RECOGNISE, windows_text.parse_text, windows_text.HINT),
    Format(
        "veeam.backup",
        veeam.RECOGNISE,
        veeam.parse_veeam,
        _PAYLOAD.str.contains(_CATEGORY, literal=True)
        | pl.col("structured_data").str.contains(_CATEGORY, literal=True).fill_null(value=False),
    ),
    Format(
        "esxi",
        esxi.RECOGNISE,
        esxi.parse_esxi,
        _PROGRAM.is_in(list(esxi.PROGRAMS)).fill_null(value=False)
        | _PAYLOAD.str.contains_any(["hostd", "vpxa", "Correlator]"]),
    ),
    # before sshd and sudo, which write lines of PAM too
    Format(
        "linux.auth",
        linux_auth.RECOGNISE,
        linux_auth.parse_auth,
        _PROGRAM.is_in(list(linux_auth.PROGRAMS)).fill_null(value=False) | _PAYLOAD.str.contains("pam_", literal=True),
    ),
)

LOGSOURCES: Final = frozenset(
    {veeam.LOGSOURCE, esxi.COMMANDS, *(LogSource("esxi", None, service) for service in esxi.PROGRAMS.values())}
)
"""Every log source that these give, besides those of Windows and of Linux' programs."""

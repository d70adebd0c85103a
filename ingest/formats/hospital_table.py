"""The hospital's own formats, as lines of the table of formats (`ingest.formats.table`).

`ATNA` stands before every other XML; the others before the formats of devices and of Linux, which take any line with a
program's name.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats import atna, hl7, mirth, orthanc
from ingest.formats.audit_fields import LOGSOURCE as AUDIT
from ingest.formats.piece import Format
from ingest.logsource import LogSource

_PAYLOAD: Final = pl.col("payload")
_PROGRAM: Final = pl.col("program")

ATNA: Final = Format(
    atna.DATASET,
    _PAYLOAD.str.contains(atna.RECOGNISE),
    atna.parse_atna,
    _PAYLOAD.str.contains_any(["auditmessage"], ascii_case_insensitive=True),
)

HOSPITAL: Final[tuple[Format, ...]] = (
    Format(
        mirth.DATASET,
        _PAYLOAD.str.contains(mirth.RECOGNISE)
        | (_PROGRAM.str.to_lowercase().is_in(mirth.PROGRAMS) & _PAYLOAD.str.contains(mirth.OF_ANY)),
        mirth.parse_mirth,
        _PAYLOAD.str.contains_any([f"{level} " for level in mirth.LEVELS]),
    ),
    Format(
        orthanc.DATASET,
        _PAYLOAD.str.contains(orthanc.RECOGNISE)
        | (_PROGRAM.is_in(orthanc.PROGRAMS) & _PAYLOAD.str.contains(orthanc.OF_ANY)),
        orthanc.parse_orthanc,
        _PAYLOAD.str.contains_any([".cpp:", ".lua:", ".h:"]) | _PROGRAM.is_in(orthanc.PROGRAMS),
    ),
    Format(
        hl7.DATASET, _PAYLOAD.str.contains(hl7.RECOGNISE), hl7.parse_hl7, _PAYLOAD.str.contains("MSH", literal=True)
    ),
)

LOGSOURCES: Final = frozenset(
    {
        *(AUDIT, mirth.LOGSOURCE, orthanc.LOGSOURCE),
        *(LogSource("hl7", None, service) for service in (*hl7.SERVICES, hl7.MLLP)),
    }
)
"""Every log source that these give; FHIR's AuditEvent, which is JSON, has that of ATNA."""

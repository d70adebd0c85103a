"""Orthanc, a DICOM server: lines as its own logger writes them.

`W0314 21:05:23.313123 ServerContext.cpp:123] message`, and since version 1.12.2 with the thread's name before the file:
`W0314 21:05:23.313123             MAIN main.cpp:123] message`. The first letter is the level; month and day follow,
and no year, so that the time of the event is that of its syslog header or of receipt, and `log.time` keeps what was
written. The form is the one quoted in the Orthanc Book; it is not specified anywhere, and glog, from which it comes,
is used by other programs. So a line is only taken for Orthanc's where the source file is C++ or a script of its
plugins, or by the name of the program in the syslog header.
Messages that say who asked for what are taken apart: association requests, and what was refused to whom.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

LOGSOURCE: Final = LogSource("orthanc", None, "server")
DATASET: Final = "orthanc"
NAMES: Final = EnvelopeNames(source_ip=("src_ip",))

PROGRAMS: Final = ("Orthanc", "orthanc")
_HEAD: Final = r"(?P<level>[IWETF])(?P<time>\d{4} \d\d:\d\d:\d\d\.\d{3,6})\s+(?:(?P<thread>[^\]\n]*?)\s+)?"
OF_ANY: Final = r"^[IWETF]\d{4} \d\d:\d\d:\d\d\.\d{3,6}\s"
"""Enough where the program's name is Orthanc's."""
RECOGNISE: Final = rf"{OF_ANY}(?:[^\]\n]*\s)?[A-Za-z0-9_-]+\.(?:cpp|lua|h):\d+\] "

_LINE: Final = rf"(?s)^{_HEAD}(?P<file>[A-Za-z0-9_./:-]+)\] ?(?P<message>.*)$"
_LEVELS: Final = {"I": "INFO", "W": "WARNING", "E": "ERROR", "T": "TRACE", "F": "FATAL"}
_ADDRESS: Final = r"(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+"
_REJECTED: Final = (
    rf"^DICOM authorization rejected for AET (?P<aet>.{{1,64}}?) on IP (?P<ip>{_ADDRESS}): (?P<reason>.*)$"
)
_UNKNOWN: Final = r"(?i)^Unknown (?:remote DICOM modality AET|modality|AET)[^\"]{0,40}\"([^\"\n]{1,64})\""
_REQUEST: Final = (
    r"^Association (?:Request |Received )?from (?:AET|AETitle) ?\"?(?P<aet>[^\"\n]{1,64}?)\"? on IP "
    rf"(?P<ip>{_ADDRESS})"
)


def parse_orthanc(lines: pl.DataFrame) -> Parsed:
    """One piece, with `level`, `source_file` and `message`; `aet`, `src_ip` and `reason` where the message has them."""
    payload = pl.col("payload")
    read = lines.select("row", payload, payload.str.extract_groups(_LINE).struct.unnest())
    broken = read["level"].is_null()
    rejects = dict.fromkeys(read.filter(broken)["row"].to_list(), "not as Orthanc writes its log")
    read = read.filter(~broken)
    if read.is_empty():
        return Parsed([], rejects)
    message = pl.col("message")
    rejected, request = message.str.extract_groups(_REJECTED), message.str.extract_groups(_REQUEST)
    fields = read.select(
        pl.col("level").replace_strict(_LEVELS, return_dtype=pl.String),
        pl.col("time").alias("log.time"),
        pl.col("thread").str.strip_chars(),
        pl.col("file").alias("source_file"),
        pl.coalesce(rejected.struct[0], request.struct[0], message.str.extract(_UNKNOWN)).alias("aet"),
        pl.coalesce(rejected.struct[1], request.struct[1]).alias("src_ip"),
        rejected.struct[2].alias("reason"),
        message,
    )
    return Parsed([Piece(LOGSOURCE, DATASET, read["row"], fields, NAMES)], rejects)

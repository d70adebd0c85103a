"""Lines that are mostly `name=value`, of devices and programs that no closer format knows.

A line behind a syslog header keeps the log source it has without this format (`linux.syslog`), and gains fields: no
rule that saw it before is blind to it now. A line in a file has no known source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from ingest.formats.device_fields import TIME, Columns, copied, device_pieces
from ingest.formats.key_values import pair_shapes
from ingest.formats.linux_syslog import PROGRAM_SERVICES
from ingest.formats.piece import EnvelopeNames, Parsed, Piece, spellings_of
from ingest.formats.shapes import Shape
from ingest.logsource import UNKNOWN, LogSource

MOSTLY: Final = r'^\s*(?:[A-Za-z_][A-Za-z0-9_.-]*=(?:"[^"]*"|[^\s"]*)[,;]?\s+){3}'
"""The first three words are pairs: prose that has a pair in it is not meant."""
DATASET: Final = "key_value"

NAMES: Final = EnvelopeNames(
    time=tuple((name, True) for name in (TIME, "timestamp", "time", "ts", "datetime", "date")),
    host=("hostname", "devname", "host"),
    user=("user", "username", "usrName", "suser", "acct"),
    source_ip=("src_ip", "srcip", "src", "client_ip", "clientip", "remote_ip", "ip"),
    destination_ip=("dst_ip", "dstip", "dst"),
)
_SPELLINGS: Final = spellings_of(NAMES)
_SIGMA: Final = {
    "src_ip": ("srcip", "src", "client_ip", "clientip", "remote_ip"),
    "dst_ip": ("dstip", "dst"),
    "src_port": ("srcport", "spt", "sport"),
    "dst_port": ("dstport", "dpt", "dport"),
}


def parse_pairs(lines: pl.DataFrame) -> Parsed:
    """One piece a service of Linux, and one of lines without a program."""
    pieces: list[Piece] = []
    rejects: dict[int, str] = {}
    remarks: dict[int, str] = {}
    tagged = pl.col("syslog") & pl.col("program").is_not_null()
    service = pl.col("program").replace_strict(PROGRAM_SERVICES, default="syslog", return_dtype=pl.String)
    chosen = lines.select("row", "payload", "program", "pid", pl.when(tagged).then(service).alias("service"))
    for (name,), part in chosen.partition_by("service", as_dict=True, maintain_order=True).items():
        read = pair_shapes(zip(part["row"].to_list(), part["payload"].to_list(), strict=True))
        source = UNKNOWN if name is None else LogSource("linux", None, str(name))
        shapes = read.shapes if name is None else _with_header(read.shapes, part)
        pieces += device_pieces(source, DATASET, shapes, NAMES, _derived, _column_name)
        rejects.update(dict.fromkeys(read.empty, "no pairs after all"))
        remarks.update(read.remarks)
    return Parsed(pieces, rejects, remarks)


def _with_header(shapes: list[Shape], lines: pl.DataFrame) -> list[Shape]:
    """The shapes and what `linux.syslog` gives a line: program, process and message."""
    known = zip(lines["program"].to_list(), lines["pid"].to_list(), lines["payload"].to_list(), strict=True)
    by_row = dict(zip(lines["row"].to_list(), known, strict=True))
    for shape in shapes:
        columns = zip(*(by_row[row] for row in shape.rows), strict=True)
        shape.columns.update(zip(("process.name", "process.pid", "message"), columns, strict=True))
    return shapes


def _column_name(name: str) -> str:
    return _SPELLINGS.get(name.lower(), name)


def _derived(columns: Columns) -> Mapping[str, pl.Series | None]:
    return {**copied(columns, _SIGMA), TIME: _day_and_clock(columns)}


def _day_and_clock(columns: Columns) -> pl.Series | None:
    """`date=2026-02-28 time=11:00:00` as one time, with `tz` where that is an offset (FortiMail, FortiWeb, Sophos)."""
    date, clock, zone = (columns.first(name) for name in ("date", "time", "tz"))
    if date is None or clock is None:
        return None
    silent = pl.Series("zone", [None], dtype=pl.String).new_from_index(0, len(date))
    frame = pl.DataFrame({"date": date, "clock": clock, "zone": silent if zone is None else zone})
    both = pl.col("date").str.contains(r"^\d{4}-\d\d-\d\d$") & pl.col("clock").str.contains(
        r"^\d\d:\d\d:\d\d(?:\.\d+)?$"
    )
    offset = pl.when(pl.col("zone").str.contains(r"^[+-]\d\d:?\d\d$")).then("zone").otherwise(pl.lit(""))
    joined = pl.concat_str(["date", pl.lit("T"), "clock", offset])
    return frame.select(pl.when(both).then(joined).alias(TIME)).to_series()

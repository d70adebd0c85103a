"""Palo Alto Networks PAN-OS: CSV, one list of columns a type of log.

`1,2026/02/28 10:00:00,SERIAL,TRAFFIC,end,2561,2026/02/28 09:59:59,192.0.2.7,...`. Versions add columns at the end, and
rarely say so: what lies beyond the list is `field_N`, N counted from 1 as in a spreadsheet, and a shorter line has
fewer fields. Values with a comma are quoted, and a quote within is doubled.

Times are the firewall's own without a zone, but for the high-resolution time that 10.0 added. The columns are called as
PAN-OS calls its variables. Source: Palo Alto Networks, PAN-OS Administrator's Guide, "Syslog Field Descriptions"
(9.1 to 11.x).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from ingest.formats.columns import as_text
from ingest.formats.device_fields import TIME, Columns, Derive, blocked, copied, device_pieces, with_derived
from ingest.formats.key_values import MAX_PAIRS, columns_of, split_shape
from ingest.formats.palo_alto_columns import COLUMNS, CONFIG_DETAILS, FILLER
from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.formats.shapes import Shape
from ingest.logsource import LogSource

RECORD: Final = (
    r'^\s*\d*,\d{4}[/-]\d\d[/-]\d\d[ T][0-9:.Z+-]{8,24},[^,"]{0,32},'
    rf"(?:{'|'.join(COLUMNS)}),"
)
DATASET: Final = "paloalto.panos"
MANY: Final = 100
"""Lines of one type and as many values from which on it pays to split them a column at a time."""
LEFT_OUT: Final = f"more than {MAX_PAIRS} columns: those beyond are in the raw line only"
ODD: Final = "a quote is not closed: cut line, or odd quoting"

NAMES: Final = EnvelopeNames(
    time=((TIME, True),),
    host=("device_name",),
    user=("srcuser", "user", "admin"),
    source_ip=("src", "public_ip", "ip", "host", "public_ipv6"),
    destination_ip=("dst",),
)

_URL: Final = "threat/url"
_VIRUS: Final = "threat/virus"
_FINER: Final = {
    ("THREAT", "url"): _URL,
    **dict.fromkeys((("THREAT", name) for name in ("virus", "wildfire-virus", "ml-virus", "wildfire")), _VIRUS),
}
_CATEGORIES: Final = {
    "traffic": "firewall",
    _URL: "proxy",
    _VIRUS: "antivirus",
    "globalprotect": "appliance",  # as SigmaHQ's rules have it
}
_SIGMA: Final = {"src_ip": ("src",), "dst_ip": ("dst",), "src_port": ("sport",), "dst_port": ("dport",)}
_BY_KIND: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "globalprotect": {"src_ip": ("public_ip", "public_ipv6")},
    "userid": {"src_ip": ("ip",)},
    "authentication": {"src_ip": ("ip",)},
    _URL: {**_SIGMA, "c-ip": ("src",), "c-useragent": ("user_agent",), "cs-method": ("http_method",)},
    _VIRUS: {**_SIGMA, "Filename": ("misc",), "Signature": ("threatid",)},
}


def parse_palo_alto(lines: pl.DataFrame) -> Parsed:
    """One piece a type, or several; threat logs of URLs and of viruses apart."""
    pieces: list[Piece] = []
    others: list[pl.DataFrame] = []
    payload = pl.col("payload")
    plain = ~payload.str.contains(r'["\r\n]') & ~payload.str.contains(
        ",CONFIG,", literal=True
    )  # rare, and in two forms
    told = lines.select(
        "row",
        "payload",
        pl.when(plain).then(payload.str.extract(r"^[^,]*,[^,]*,[^,]*,([A-Z]+),")).alias("log"),
        pl.when(plain).then(payload.str.count_matches(",", literal=True) + 1).alias("count"),
    )
    for (log, count), part in told.partition_by("log", "count", as_dict=True, maintain_order=True).items():
        if log is None or count > MAX_PAIRS or part.height < MANY:
            others.append(part)
        else:
            pieces += _plain_pieces(str(log), int(count), part)
    remarks: dict[int, str] = {}
    for part in others:
        pieces += _other_pieces(part, remarks)
    return Parsed(pieces, {}, remarks)


def _plain_pieces(log: str, count: int, lines: pl.DataFrame) -> list[Piece]:
    """Pieces of many lines that split at their commas into as many values."""
    values = lines["payload"].str.split_exact(",", count - 1).struct.unnest()
    values.columns = _names(log, count)
    fields = values.select(name for name in values.columns if not name.startswith(FILLER))
    fields = fields.with_columns(pl.when(pl.all() != "").then(pl.all()))  # an empty value is no value
    fields = fields.select(column for column in fields if column.null_count() < fields.height)
    kinds = _kinds(log, fields["subtype"].to_list() if "subtype" in fields.columns else [None] * lines.height)
    if len(set(kinds)) == 1:
        return [_piece(kinds[0], lines["row"], fields)]
    told = fields.with_columns(lines["row"], pl.Series(_KIND, kinds))
    return [
        _piece(str(kind), part["row"], part.drop("row", _KIND))
        for (kind,), part in told.partition_by(_KIND, as_dict=True, maintain_order=True).items()
    ]


_KIND: Final = "?"


def _piece(kind: str, rows: pl.Series, fields: pl.DataFrame) -> Piece:
    return Piece(_logsource(kind), DATASET, rows, with_derived(fields, _deriving(kind)), NAMES)


def _logsource(kind: str) -> LogSource:
    return LogSource("paloalto", _CATEGORIES.get(kind), kind.partition("/")[0])


def _other_pieces(lines: pl.DataFrame, remarks: dict[int, str]) -> list[Piece]:
    """Pieces of lines of any shape."""
    found: dict[tuple[str, int], tuple[list[int], list[list[str]]]] = {}
    for row, values in _rows(lines, remarks):
        rows, events = found.setdefault((values[3], len(values)), ([], []))
        rows.append(row)
        events.append(values)
    kinds: dict[str, list[Shape]] = {}
    for (log, count), (rows, events) in found.items():
        shape = _shape(_names(log, count), rows, events)
        subtypes = shape.columns.get("subtype") or [None] * len(rows)
        for kind, part in split_shape(shape, _kinds(log, [as_text(subtype) for subtype in subtypes])):
            kinds.setdefault(kind, []).append(part)
    return [
        piece
        for kind, shapes in kinds.items()
        for piece in device_pieces(_logsource(kind), DATASET, shapes, NAMES, _deriving(kind))
    ]


def _rows(lines: pl.DataFrame, remarks: dict[int, str]) -> Iterator[tuple[int, list[str]]]:
    """The values of each line; those of a line beyond the limit are left out, and remarked."""
    for row, text in zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True):
        values = split_values(text) if '"' in text else text.split(",")
        if text.count('"') % 2:
            remarks[row] = ODD
        if len(values) > MAX_PAIRS:
            remarks[row] = LEFT_OUT
            values = values[:MAX_PAIRS]
        if values[3] == "CONFIG" and _without_details(values):
            values[CONFIG_DETAILS:CONFIG_DETAILS] = ["", ""]
        yield row, values


def _without_details(values: list[str]) -> bool:
    """Whether a CONFIG log is in the default form, which leaves out what stood there before and after the change."""
    number, flags = (*values[CONFIG_DETAILS : CONFIG_DETAILS + 2], "", "")[:2]
    return number.isascii() and number.isdigit() and flags.startswith("0x")


def split_values(text: str) -> list[str]:
    """The values of a line with quotes; by its commas alone where it is no CSV."""
    try:
        values = next(csv.reader([text]), [])
    except csv.Error:  # a line break, or a value beyond 128 KiB
        values = []
    return values if len(values) > 3 else text.split(",")


def _names(log: str, count: int) -> list[str]:
    names = COLUMNS[log][:count]
    return [*names, *(f"field_{place}" for place in range(len(names) + 1, count + 1))]


def _shape(names: list[str], rows: list[int], events: list[list[str]]) -> Shape:
    """Columns without the fillers; an empty value is no value."""
    whole = columns_of(names, rows, events)
    return Shape(
        rows,
        {
            name: [value or None for value in values]
            for name, values in whole.columns.items()
            if not name.startswith(FILLER) and any(values)
        },
    )


def _kinds(log: str, subtypes: Sequence[str | None]) -> list[str]:
    """The type in lower case, and of threats what they are, of each event."""
    return [_FINER.get((log, subtype or ""), log.lower()) for subtype in subtypes]


def _deriving(kind: str) -> Derive:
    wanted = _BY_KIND.get(kind, _SIGMA)

    def derive(columns: Columns) -> Mapping[str, pl.Series | None]:
        more = {**copied(columns, wanted), "blocked": blocked(columns.first("action")), TIME: _time(columns)}
        if kind == _URL:
            more |= _web(columns)
        return more

    return derive


def _time(columns: Columns) -> pl.Series | None:
    time = columns.first("high_res_timestamp", "time_generated", "receive_time")
    return None if time is None else time.str.replace(r"^(\d{4})/(\d\d)/(\d\d) ", "${1}-${2}-${3}T")


def _web(columns: Columns) -> dict[str, pl.Series | None]:
    """Sigma's names of category proxy; PAN-OS writes the URL without its scheme."""
    url = columns.first("misc")
    return {"c-uri": url, "cs-host": None if url is None else url.str.extract(r"^(?:\w+://)?([^/:?]+)")}

r"""ArcSight's Common Event Format: `CEF:0|vendor|product|version|event class id|name|severity|key=value key=value`.

In the header `|` and `\` are written with a backslash before them, in values `=` and `\`, and a line break as `\n`.
Values are never quoted: one runs to the next word that ends in `=`. A field whose name says nothing (`cs1`) is
explained by a second (`cs1Label=Policy`); both are kept.

What a device means by it is its own: devices that Sigma knows get its names and log source, others are product `cef`.
Source: Micro Focus, "Implementing ArcSight Common Event Format (CEF)", version 26.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from ingest.formats import fortigate
from ingest.formats.columns import Json
from ingest.formats.device_fields import TIME, Columns, blocked, copied, device_pieces
from ingest.formats.device_times import moments
from ingest.formats.key_values import (
    LEFT_OUT,
    MAX_TEMPLATES,
    OFTEN,
    PairShapes,
    columns_of,
    extension_expression,
    read_extension,
    split_shape,
)
from ingest.formats.piece import EnvelopeNames, Parsed, Piece, spellings_of
from ingest.formats.shapes import Shape
from ingest.logsource import LogSource

RECOGNISE: Final = pl.col("payload").str.contains(r"^\s*CEF: ?[01]\|[^|]*\|") | (
    # what stands before the first colon was taken for a tag
    (pl.col("program") == "CEF") & pl.col("payload").str.contains(r"^\s*[01]\|[^|]*\|")
)
DATASET: Final = "cef"

HEADER: Final = (
    *("cef_version", "device_vendor", "device_product", "device_version"),
    *("device_event_class_id", "name", "severity"),
)
CUT: Final = "cut CEF header: only what is whole is read"

NAMES: Final = EnvelopeNames(
    time=((TIME, True),),
    host=("dvchost", "deviceHostName", "dvc"),
    user=("suser", "duser", "sourceUserName", "destinationUserName"),
    source_ip=("src", "c6a2", "sourceAddress"),
    destination_ip=("dst", "c6a3", "destinationAddress"),
)
_SPELLINGS: Final = spellings_of(NAMES)
_SIGMA: Final = {
    "src_ip": ("src", "sourceAddress"),
    "dst_ip": ("dst", "destinationAddress"),
    "src_port": ("spt", "sourcePort"),
    "dst_port": ("dpt", "destinationPort"),
    "action": ("act", "deviceAction"),
    "c-uri": ("request", "requestUrl"),
    "c-useragent": ("requestClientApplication",),
    "cs-method": ("requestMethod",),
    "Filename": ("filePath", "fname", "fileName"),
}
_TIMES: Final = ("rt", "deviceReceiptTime", "start", "end")
PALO_ALTO: Final = frozenset(
    {
        *(
            "traffic",
            "threat",
            "system",
            "config",
            "globalprotect",
            "hipmatch",
            "userid",
            "authentication",
            "decryption",
        ),
        *("correlation", "tunnel", "gtp", "sctp", "iptag", "auditlog"),
    }
)
"""Kinds of Palo Alto's logs, which stand in the name or the event class id of its CEF."""

_FIELD: Final = re.compile(r"(?:[^|\\]|\\.)*+", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\([\\|=nr])")
_MEANT: Final = {"n": "\n", "r": "\r"}


def parse_cef(lines: pl.DataFrame) -> Parsed:
    """One piece a device that Sigma knows and kind of log; all others in one."""
    shapes, remarks = _read(lines)
    kinds: dict[str, list[Shape]] = {}
    for shape in shapes:
        for kind, part in split_shape(shape, _kinds(shape)):
            kinds.setdefault(kind, []).append(part)
    pieces: list[Piece] = []
    for kind, parts in kinds.items():
        if kind == "fortigate":
            native = PairShapes([fortigate.native(part) for part in parts], [], {})
            pieces += fortigate.fortigate_pieces(native, fortigate.CEF_DATASET).pieces
        else:
            pieces += device_pieces(_logsource(kind), DATASET, parts, NAMES, _derived, _column_name)
    return Parsed(pieces, {}, remarks)


@dataclass(slots=True)
class _Same:
    """Records with the same names; once there are many, an expression of their own reads them."""

    rows: list[int] = field(default_factory=list)
    values: list[tuple[str, ...]] = field(default_factory=list)
    match: Callable[[str], re.Match[str] | None] | None = None


def _read(lines: pl.DataFrame) -> tuple[list[Shape], dict[int, str]]:
    """(events by shape, remarks)."""
    found: dict[tuple[str, ...], _Same] = {}
    often: list[_Same] = []
    remarks: dict[int, str] = {}
    for row, text in zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True):
        head = _header(text)
        extension = head.pop() if len(head) > len(HEADER) else None
        for same in often if "\\" not in text else ():
            match = None if same.match is None or extension is None else same.match(extension)
            if match is not None:
                same.rows.append(row)
                same.values.append((*match.groups(), *head))
                break
        else:
            fields, remark = _fields(head, extension)
            same = found.setdefault(tuple(fields), _Same())
            same.rows.append(row)
            same.values.append(tuple(fields.values()))
            if remark is not None:
                remarks[row] = remark
            elif len(same.rows) == OFTEN and len(often) < MAX_TEMPLATES:
                names = list(fields)[: -len(HEADER)]
                if names and not set(names).intersection(HEADER):
                    same.match = extension_expression(names)
                    often.append(same)
    return [columns_of(names, same.rows, same.values) for names, same in found.items()], remarks


def read_record(text: str) -> tuple[dict[str, str], str | None]:
    """(fields of one record, without its `CEF:` or with it; what was wrong with it)."""
    head = _header(text)
    return _fields(head, head.pop() if len(head) > len(HEADER) else None)


def _fields(head: list[str], extension: str | None) -> tuple[dict[str, str], str | None]:
    """The extension's fields, then those of the header, which no extension may take the place of."""
    header = {name: unescaped(value) for name, value in zip(HEADER, head, strict=False)}
    if extension is None:
        return header, CUT
    fields, left_out = read_extension(extension)
    for name in header:
        fields.pop(name, None)
    read = {name: unescaped(value) for name, value in fields.items()}
    return {**read, **header}, LEFT_OUT if left_out else None


def _header(text: str) -> list[str]:
    """The header's fields, the first without `CEF:`, and the extension if there is one."""
    head = text.split("|", len(HEADER))
    if "\\" in text and any(part.endswith("\\") for part in head[:-1]):
        head = _split_header(text)
    head[0] = head[0].strip().removeprefix("CEF:").strip()
    return head


def _split_header(text: str) -> list[str]:
    """The header's fields and the rest, where some `|` is escaped."""
    parts: list[str] = []
    at = 0
    while len(parts) < len(HEADER) and at <= len(text):
        match = _FIELD.match(text, at)
        end = at if match is None else match.end()
        if end < len(text) and text[end] != "|":  # a lone backslash at the end
            end = len(text)
        parts.append(text[at:end])
        at = end + 1
    return parts if at > len(text) else [*parts, text[at:]]


def unescaped(value: str) -> str:
    r"""Text without the backslashes that CEF puts in; of `C:\temp` the backslash is kept."""
    if "\\" not in value:
        return value
    return _ESCAPED.sub(lambda match: _MEANT.get(match[1], match[1]), value)


def _kinds(shape: Shape) -> list[str]:
    """`fortigate`, `paloalto/KIND` or nothing, of each event."""
    vendors, products = shape.columns[HEADER[1]], shape.columns.get(HEADER[2])
    if products is None:
        return [""] * len(shape.rows)
    classes = shape.columns.get(HEADER[4]) or products
    names = shape.columns.get(HEADER[5]) or products
    return [_kind(*event) for event in zip(vendors, products, classes, names, strict=True)]


def _kind(vendor: Json, product: Json, event_class: Json, name: Json) -> str:
    maker = str(vendor).lower()
    if maker == "fortinet" and str(product).lower().startswith(("fortigate", "fortios")):
        return "fortigate"
    if maker == "palo alto networks":
        for said in (name, event_class):
            kind = str(said).lower()
            if kind in PALO_ALTO:
                return f"paloalto/{kind}"
    return ""


def _logsource(kind: str) -> LogSource:
    if not kind:
        return LogSource("cef")
    service = kind.partition("/")[2]
    category = {"traffic": "firewall", "globalprotect": "appliance"}.get(service)
    return LogSource("paloalto", category, service)


def _column_name(name: str) -> str:
    return _SPELLINGS.get(name.lower(), name)


def _derived(columns: Columns) -> Mapping[str, pl.Series | None]:
    more = copied(columns, _SIGMA)
    more["blocked"] = blocked(columns.first("act", "deviceAction"))
    time = columns.first(*_TIMES)
    more[TIME] = None if time is None else moments(time)
    return more

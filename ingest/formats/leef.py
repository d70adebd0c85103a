r"""IBM QRadar's Log Event Extended Format: `LEEF:1.0|vendor|product|version|event id|key=value<TAB>key=value`.

Version 2.0 has a sixth header field, the character between the attributes, as itself or in hexadecimal (`x09`, `0x5E`);
empty or missing it is the tab. Many senders write spaces all the same: then a value runs to the next word that ends in
`=`. `devTimeFormat` says in Java's letters how `devTime` is written; without it that is an epoch in milliseconds or
`MMM dd yyyy HH:mm:ss`.
Source: IBM, "Log Event Extended Format (LEEF)", version 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Final

import polars as pl

from ingest.formats.device_fields import TIME, Columns, blocked, copied, device_pieces
from ingest.formats.device_times import chrono_form, declared_moments, moments
from ingest.formats.key_values import LEFT_OUT, MAX_PAIRS, columns_of, read_extension
from ingest.formats.piece import EnvelopeNames, Parsed, spellings_of
from ingest.formats.shapes import Shape
from ingest.logsource import LogSource

RECOGNISE: Final = pl.col("payload").str.contains(r"^\s*LEEF: ?[12](?:\.\d)?\|[^|]*\|") | (
    # what stands before the first colon was taken for a tag
    (pl.col("program") == "LEEF") & pl.col("payload").str.contains(r"^\s*[12](?:\.\d)?\|[^|]*\|")
)
DATASET: Final = "leef"
LOGSOURCE: Final = LogSource("leef")
HEADER: Final = ("leef_version", "device_vendor", "device_product", "device_version", "event_id")
CUT: Final = "cut LEEF header: only what is whole is read"
MAX_FORMS: Final = 8
"""Most forms of time told apart in a frame; one product has one."""

NAMES: Final = EnvelopeNames(
    time=((TIME, True),),
    host=("identHostName", "dvchost", "devName", "deviceName"),
    user=("usrName", "accountName", "suser"),
    source_ip=("src", "identSrc"),
    destination_ip=("dst",),
)
_SPELLINGS: Final = spellings_of(NAMES)
_SIGMA: Final = {
    "src_ip": ("src",),
    "dst_ip": ("dst",),
    "src_port": ("srcPort",),
    "dst_port": ("dstPort",),
    "action": ("act",),
    "c-uri": ("url",),
    "Filename": ("fileName", "filePath"),
}
_KEY: Final = re.compile(r"[A-Za-z_][\w.\[\]-]{0,127}")
_HEX: Final = re.compile(r"(?:0?x|\\x)([0-9A-Fa-f]{1,4})")


def parse_leef(lines: pl.DataFrame) -> Parsed:
    """One piece; a line that only looks like a record is a reject."""
    found: dict[tuple[str, ...], tuple[list[int], list[tuple[str, ...]]]] = {}
    remarks: dict[int, str] = {}
    for row, text in zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True):
        fields, remark = read_record(text)
        if remark is not None:
            remarks[row] = remark
        rows, values = found.setdefault(tuple(fields), ([], []))
        rows.append(row)
        values.append(tuple(fields.values()))
    shapes: list[Shape] = [columns_of(names, rows, values) for names, (rows, values) in found.items()]
    pieces = device_pieces(LOGSOURCE, DATASET, shapes, NAMES, _derived, _column_name)
    return Parsed(pieces, {}, remarks)


def read_record(text: str) -> tuple[dict[str, str], str | None]:
    """(fields of one record, without its `LEEF:` or with it; what was wrong with it)."""
    parts = text.split("|", len(HEADER))
    fields = dict(zip(HEADER, parts, strict=False))
    version = fields[HEADER[0]] = fields[HEADER[0]].strip().removeprefix("LEEF:").strip()
    if len(parts) <= len(HEADER):
        return fields, CUT
    rest = parts[-1]
    delimiter = "\t"
    if version.startswith("2"):
        declared, bar, after = rest.partition("|")
        found = _delimiter(declared) if bar else None
        if found is not None:
            delimiter, rest = found, after
    attributes, left_out = _attributes(rest, delimiter)
    return {**attributes, **fields}, LEFT_OUT if left_out else None


def _delimiter(declared: str) -> str | None:
    """The character that a header's sixth field stands for; None if it is none, and so not that field."""
    if len(declared) <= 1:
        return declared or "\t"
    code = _HEX.fullmatch(declared)
    return chr(int(code[1], 16)) if code is not None else None


def _attributes(text: str, delimiter: str) -> tuple[dict[str, str], bool]:
    if delimiter not in text or delimiter == " ":
        return read_extension(text)
    fields: dict[str, str] = {}
    last = ""
    parts = text.split(delimiter)
    for part in islice(parts, MAX_PAIRS):
        name, equals, value = part.partition("=")
        name = name.strip()
        if equals and _KEY.fullmatch(name):
            last = name if name not in fields else ""
            fields.setdefault(name, value)
        elif last:  # the delimiter stood in a value
            fields[last] += delimiter + part
    return fields, len(parts) > MAX_PAIRS


def _column_name(name: str) -> str:
    return _SPELLINGS.get(name.lower(), name)


def _derived(columns: Columns) -> Mapping[str, pl.Series | None]:
    more = copied(columns, _SIGMA)
    more["blocked"] = blocked(columns.first("act", "action"))
    more[TIME] = _times(columns)
    return more


def _times(columns: Columns) -> pl.Series | None:
    """`devTime` in the forms that its events declare, in the usual ones where that fails."""
    time, forms = columns.first("devTime"), columns.first("devTimeFormat")
    if time is None:
        return None
    found = moments(time)
    for java in [] if forms is None else forms.drop_nulls().unique(maintain_order=True).to_list()[:MAX_FORMS]:
        form = chrono_form(java)
        if form is not None:
            read = declared_moments(time, form).set((forms != java).fill_null(value=True), None)
            found = read.zip_with(read.is_not_null(), found)
    return found

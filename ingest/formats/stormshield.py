"""Stormshield SNS: firewalls that write WELF, `id=firewall time="..." fw="..." tz=+0100 ... logtype="connection"`.

`time` is the firewall's own and `tz` how far it is from UTC, so together they are a moment. The kind of log
(`l_filter`, `l_connection`, `l_auth` ... in files) is `logtype` at the end of a syslog line.
Source: Stormshield, SNS v4 user guide, "Description of audit logs".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from ingest.formats.device_fields import TIME, Columns, blocked, copied, device_pieces
from ingest.formats.key_values import pair_shapes, split_shape
from ingest.formats.piece import EnvelopeNames, Parsed, Piece, spellings_of
from ingest.formats.shapes import Shape
from ingest.logsource import LogSource

RECORD: Final = r'^\s*id="?firewall"? (?:time|fw)='
DATASET: Final = "stormshield.sns"
PRODUCT: Final = "stormshield"

LOGTYPES: Final = frozenset(
    {
        *("alarm", "auth", "authstat", "connection", "count", "date", "dmrouting", "filter", "filterstat", "ftp"),
        *("monitor", "plugin", "pop3", "pvm", "routerstat", "routing", "sandboxing", "server", "smtp", "ssl"),
        *("system", "vpn", "web", "xvpn", "ha", "sysevent"),
    }
)
CATEGORIES: Final = {"filter": "firewall", "connection": "firewall", "plugin": "firewall", "web": "proxy"}
"""Sigma's category of a kind of log; `ssl` is TLS inspection and names no URL."""

NAMES: Final = EnvelopeNames(
    time=((TIME, True), ("time", True)),
    host=("fw",),
    user=("user",),
    source_ip=("src", "address", "remote"),
    destination_ip=("dst",),
)
_SPELLINGS: Final = spellings_of(NAMES)

_FIREWALL: Final = {
    "src_ip": ("src", "address"),
    "dst_ip": ("dst",),
    "src_port": ("srcport",),
    "dst_port": ("dstport",),
}
_WEB: Final = {"cs-host": ("dstname",), "c-ip": ("src",), "sc-status": ("result",), "cs-method": ("op",)}


def parse_stormshield(lines: pl.DataFrame) -> Parsed:
    """One piece a kind of log."""
    read = pair_shapes(zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True))
    kinds: dict[str, list[Shape]] = {}
    for shape in read.shapes:
        for kind, part in split_shape(shape, _kinds(shape)):
            kinds.setdefault(kind, []).append(part)
    pieces: list[Piece] = []
    for kind, shapes in kinds.items():
        source = LogSource(PRODUCT, CATEGORIES.get(kind), kind or None)
        pieces += device_pieces(source, DATASET, shapes, NAMES, _derived, _column_name)
    return Parsed(pieces, dict.fromkeys(read.empty, "no pairs in this record"), read.remarks)


def _kinds(shape: Shape) -> list[str]:
    """`logtype` of each event where it is one of the known ones, else nothing: it names a table of the lake."""
    values = shape.columns.get("logtype")
    if values is None:
        return [""] * len(shape.rows)
    return [str(value) if value in LOGTYPES else "" for value in values]


def _column_name(name: str) -> str:
    return _SPELLINGS.get(name.lower(), name)


def _derived(columns: Columns) -> Mapping[str, pl.Series | None]:
    more = copied(columns, _FIREWALL)
    more["blocked"] = blocked(columns.first("action"))
    time, zone = columns.first("time"), columns.first("tz")
    if time is not None and zone is not None:
        more[TIME] = pl.select(pl.concat_str([pl.lit(time), pl.lit(zone)])).to_series()
    if not columns.lacks("cat_site") or not columns.lacks("arg"):
        more.update(copied(columns, _WEB))
        more["c-uri"] = _uri(columns)
    return more


def _uri(columns: Columns) -> pl.Series | None:
    """Host and path of what a web log says was asked for."""
    host, path = columns.first("dstname"), columns.first("arg")
    if host is None or path is None:
        return path
    return pl.select(pl.concat_str([pl.lit(host), pl.lit(path)])).to_series()

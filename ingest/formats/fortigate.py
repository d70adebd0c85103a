"""FortiGate (FortiOS): `date=... time=... devname="..." ... type="traffic" subtype="forward" ...`, or the same as CEF.

SigmaHQ's rules for fortigate/event name FortiOS' own fields (`action`, `cfgpath`), so in CEF its extension keys are
given back the names FortiOS has for them (`FTNTFGTcfgpath`, `act`, `src`).

Three fields hold the time: `eventtime` is an epoch (nanoseconds since 6.2, seconds before), `date` and `time` are
local, and `tz` says how far from UTC. Sources: Fortinet, FortiOS Log Message Reference, "Log field format" and
"FortiOS to CEF log field mapping guidelines".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from ingest.formats.device_fields import TIME, Columns, Derive, blocked, copied, device_pieces
from ingest.formats.device_times import epoch_moments
from ingest.formats.key_values import PairShapes, pair_shapes, split_shape
from ingest.formats.piece import EnvelopeNames, Parsed, Piece, spellings_of
from ingest.formats.shapes import Shape
from ingest.logsource import LogSource

_BEGINS: Final = r'^\s*(?:date="?\d{4}-\d\d-\d\d"? time="?\d\d:\d\d:\d\d"? |logver=\d+ )'
RECOGNISE: Final = pl.col("payload").str.contains(_BEGINS) & pl.col("payload").str.contains(" logid=", literal=True)
"""FortiMail and FortiWeb begin alike, but write `log_id`."""
DATASET: Final = "fortigate.syslog"
CEF_DATASET: Final = "fortigate.cef"
PRODUCT: Final = "fortigate"

TYPES: Final = frozenset({"traffic", "event", "utm", "voip", "dns", "anomaly"})
CATEGORIES: Final = {
    "traffic": "firewall",
    "utm/webfilter": "proxy",
    "utm/virus": "antivirus",
    "utm/dns": "dns",
}
"""Sigma's category by type, or type and subtype."""

NAMES: Final = EnvelopeNames(
    time=((TIME, True),),
    host=("devname", "dvchost"),
    user=("user", "unauthuser", "suser", "duser"),
    source_ip=("srcip", "remip", "src"),
    destination_ip=("dstip", "dst"),
)
_SPELLINGS: Final = spellings_of(NAMES)

_SIGMA: Final = {
    "src_ip": ("srcip", "remip"),
    "dst_ip": ("dstip",),
    "src_port": ("srcport",),
    "dst_port": ("dstport",),
}
_BY_CATEGORY: Final[Mapping[str | None, Mapping[str, tuple[str, ...]]]] = {
    "proxy": {"c-uri": ("url",), "cs-host": ("hostname",), "c-useragent": ("agent",), "c-ip": ("srcip",)},
    "antivirus": {"Signature": ("virus",), "Filename": ("filename",)},
    "dns": {"query": ("qname",), "record_type": ("qtype",), "answer": ("ipaddr",)},
}
_FROM_CEF: Final = {
    "srcip": ("src",),
    "srcport": ("spt",),
    "srcintf": ("deviceInboundInterface",),
    "dstip": ("dst",),
    "dstport": ("dpt",),
    "dstintf": ("deviceOutboundInterface",),
    "action": ("act",),
    "user": ("suser", "duser"),
    "devname": ("dvchost",),
    "devid": ("deviceExternalId",),
    "sessionid": ("externalId",),
    "url": ("request",),
    "hostname": ("dhost",),
    "filename": ("fname",),
    "sentbyte": ("out",),
    "rcvdbyte": ("in",),
    "service": ("app",),
    "agent": ("requestClientApplication",),
}
"""FortiOS' name -> CEF's, where the key has not FortiOS' name behind a prefix."""
_PREFIXES: Final = ("FTNTFGT", "FortinetFortiGate", "ad.")


def parse_fortigate(lines: pl.DataFrame) -> Parsed:
    """One piece a type and, for UTM, category."""
    read = pair_shapes(zip(lines["row"].to_list(), lines["payload"].to_list(), strict=True))
    return fortigate_pieces(read, DATASET)


def fortigate_pieces(read: PairShapes, dataset: str) -> Parsed:
    """Pieces of what was read: FortiOS' own lines, or CEF whose keys were given FortiOS' names (`native`)."""
    kinds: dict[str, list[Shape]] = {}
    for shape in read.shapes:
        for kind, part in split_shape(shape, _kinds(shape)):
            kinds.setdefault(kind, []).append(part)
    pieces: list[Piece] = []
    for kind, shapes in kinds.items():
        source = _logsource(kind)
        pieces += device_pieces(source, dataset, shapes, NAMES, _deriving(source.category), _column_name)
    return Parsed(pieces, dict.fromkeys(read.empty, "no pairs in this record"), read.remarks)


def _column_name(name: str) -> str:
    return _SPELLINGS.get(name.lower(), name)


def _kinds(shape: Shape) -> list[str]:
    """`type`, or for UTM `type/subtype`, of each event; nothing where it is not a known one."""
    types, subtypes = shape.columns.get("type"), shape.columns.get("subtype")
    if types is None:
        return [""] * len(shape.rows)
    if subtypes is None:
        return [_kind(str(kind), "") for kind in types]
    return [_kind(str(kind), str(subtype)) for kind, subtype in zip(types, subtypes, strict=True)]


def _kind(kind: str, subtype: str) -> str:
    kind, subtype = kind.lower(), subtype.lower()
    if kind not in TYPES:
        return ""
    both = f"{kind}/{subtype}"
    return both if both in CATEGORIES else kind


def _logsource(kind: str) -> LogSource:
    return LogSource(PRODUCT, CATEGORIES.get(kind), kind.partition("/")[0] or None)


def _deriving(category: str | None) -> Derive:
    wanted = {**_SIGMA, **_BY_CATEGORY.get(category, {})}

    def derive(columns: Columns) -> Mapping[str, pl.Series | None]:
        return {**copied(columns, wanted), "blocked": blocked(columns.first("action")), TIME: event_time(columns)}

    return derive


def event_time(columns: Columns) -> pl.Series | None:
    """The moment a record names: its epoch, else date and time with `tz`, else these alone."""
    epoch, date, clock, zone = (columns.first(name) for name in ("eventtime", "date", "time", "tz"))
    found = None if epoch is None else epoch_moments(epoch)
    if date is None or clock is None or (found is not None and not found.null_count()):
        return found
    parts = [pl.lit(date), pl.lit("T"), pl.lit(clock)]
    if zone is not None:
        parts.append(pl.lit(zone.set(~zone.str.contains(r"^[+-]\d\d:?\d\d$").fill_null(value=False), "")))
    text = pl.select(pl.concat_str(parts)).to_series()
    return text if found is None else found.zip_with(found.is_not_null(), text)


def native(shape: Shape) -> Shape:
    """Events read from CEF with FortiOS' names added for what CEF calls otherwise, and `type` and `subtype`."""
    columns = {_unprefixed(name): values for name, values in shape.columns.items()}
    for name, keys in _FROM_CEF.items():
        known = next((key for key in keys if key in columns), None)
        if known is not None:
            columns.setdefault(name, columns[known])
    if "cat" in columns and "type" not in columns:
        both = [str(value).partition(":") for value in columns["cat"]]
        columns["type"] = [kind for kind, _, _ in both]
        columns.setdefault("subtype", [subtype for _, _, subtype in both])
    return Shape(shape.rows, columns)


def _unprefixed(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            return name[len(prefix) :]
    return name

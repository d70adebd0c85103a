"""Squid: access.log in its native form, and in the `combined` form with Squid's own end.

`1772272800.123  45 192.0.2.7 TCP_MISS/200 5120 GET http://www.example.org/a alice HIER_DIRECT/198.51.100.8 text/html`:
an epoch, milliseconds, client, result and status, bytes, method, URL, user, how it was fetched from where, media type.
Of CONNECT the URL is host and port. Rules of category proxy read Sigma's names; what only Squid has keeps its own.
Source: Squid, configuration directive `logformat`; Sigma specification, taxonomy, "Proxy".
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.device_times import epoch_moments
from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.formats.web_access import COMBINED, request_parts
from ingest.logsource import LogSource

RESULTS: Final = ("TCP", "UDP", "NONE", "ICP", "TAG", "SWAPFAIL", "CLIENT")
"""How the name of a result begins."""
_RESULT: Final = rf"(?:{'|'.join(RESULTS)})[A-Z_]*"
NATIVE: Final = rf"^\s*\d{{9,11}}\.\d{{3}} +-?\d+ \S+ {_RESULT}/\d{{3}} \d+ "
RECOGNISE: Final = pl.col("payload").str.contains(rf'{NATIVE}|{COMBINED}.*" {_RESULT}:[A-Z_]+$')
DATASET: Final = "squid.access"
LOGSOURCE: Final = LogSource("squid", "proxy")
NAMES: Final = EnvelopeNames(
    time=(("@timestamp", True),), user=("cs-username",), source_ip=("c-ip",), destination_ip=("dst_ip",)
)

_NATIVE: Final = (
    r"(?s)^\s*(?P<time>\d{9,11}\.\d{3}) +(?P<elapsed>-?\d+) (?P<client>\S+) (?P<result_code>[A-Z_]+)/(?P<status>\d{3}) "
    r"(?P<bytes>\d+) (?P<method>\S+)(?: (?P<url>.*?) (?P<user>\S+) (?P<hierarchy>[A-Z_]+)/(?P<peer>\S+)"
    r"(?: (?P<content_type>\S+))?(?: (?P<rest>.*))?| (?P<cut>.*))?$"
)
_ADDRESS: Final = r"^[0-9A-Fa-f.:]*[.:][0-9A-Fa-f.:]*$"
_TAIL: Final = rf" (?P<result_code>{_RESULT}):(?P<hierarchy>[A-Z_]+)$"


def parse_squid(lines: pl.DataFrame) -> Parsed:
    """One piece a form."""
    native = lines["payload"].str.contains(NATIVE)
    pieces: list[Piece] = []
    remarks: dict[int, str] = {}
    if native.any():
        part = lines.filter(native)
        fields = _native(part)
        pieces.append(Piece(LOGSOURCE, DATASET, part["row"], fields.drop("cut"), NAMES))
        cut = part["row"].filter(fields["cut"].is_not_null() | fields["cs-method"].is_null()).to_list()
        remarks = dict.fromkeys(cut, "cut record: only what is whole is read")
    if not native.all():
        part = lines.filter(~native)
        pieces.append(Piece(LOGSOURCE, DATASET, part["row"], _combined(part), NAMES))
    return Parsed(pieces, {}, remarks)


def _native(lines: pl.DataFrame) -> pl.DataFrame:
    read = lines["payload"].str.extract_groups(_NATIVE).struct.unnest()
    tunnelled = pl.col("method") == "CONNECT"
    plain = read.select(
        epoch_moments(read["time"]).alias("@timestamp"),
        pl.col("client").alias("c-ip"),
        _unless_dash("user").alias("cs-username"),
        pl.col("method").alias("cs-method"),
        pl.coalesce("url", "cut").alias("c-uri"),
        pl.col("status").alias("sc-status"),
        pl.col("bytes").alias("sc-bytes"),
        pl.when(tunnelled).then(pl.col("url").str.extract(r"^\[?([^\]]+?)\]?(?::\d+)?$")).alias("tunnel_host"),
        pl.when(pl.col("peer").str.contains(_ADDRESS)).then("peer").alias("dst_ip"),
        *("elapsed", "result_code", "hierarchy", "peer", "cut"),
        _unless_dash("content_type").alias("content_type"),
        "rest",
    )
    return with_uri_parts(plain).drop("tunnel_host")


def _combined(lines: pl.DataFrame) -> pl.DataFrame:
    read = request_parts(lines["payload"])
    tail = lines["payload"].str.extract_groups(_TAIL).struct.unnest()
    plain = read.hstack(tail).select(
        *("@timestamp", "c-ip", "cs-username", "cs-method"),
        pl.col("target").alias("c-uri"),
        *("sc-status", "sc-bytes"),
        pl.when(pl.col("cs-method") == "CONNECT")
        .then(pl.col("target").str.extract(r"^\[?([^\]]+?)\]?(?::\d+)?$"))
        .alias("tunnel_host"),
        pl.col("cs-user-agent").fill_null("").alias("c-useragent"),  # SigmaHQ asks for an empty one
        pl.col("cs-referer").alias("cs-referrer"),
        *("cs-version", "result_code", "hierarchy"),
    )
    return with_uri_parts(plain).drop("tunnel_host")


def with_uri_parts(plain: pl.DataFrame) -> pl.DataFrame:
    """The frame and what rules of category proxy ask of its `c-uri` (and of `tunnel_host`, a CONNECT's)."""
    uri = pl.col("c-uri")
    stem = uri.str.extract(r"^(?:[\w+.-]+://[^/?#]*)?(/[^?#]*)")
    host = pl.coalesce(
        "tunnel_host", uri.str.extract(r"^[\w+.-]+://(?:[^/?#@]*@)?\[?([^/?#\]]+?)\]?(?::\d+)?(?:[/?#]|$)")
    )
    return plain.with_columns(
        host.alias("cs-host"),
        host.alias("r-dns"),
        uri.alias("cs-uri"),
        stem.alias("c-uri-stem"),
        stem.alias("cs-uri-stem"),
        uri.str.extract(r"\?([^#]*)").alias("c-uri-query"),
        stem.str.extract(r"\.(\w{1,16})$").alias("c-uri-extension"),
        pl.col("c-ip").alias("src_ip"),
    )


def _unless_dash(name: str) -> pl.Expr:
    return pl.when(pl.col(name) != "-").then(pl.col(name))

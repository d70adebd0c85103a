"""DNS servers: BIND's query log and dnsmasq's `log-queries`, as Sigma's category dns.

`client @0x7f 192.0.2.7#53124 (www.example.org): query: www.example.org IN A +E(0)K (192.0.2.53)` has the name twice:
the one in brackets is what the client is at, the one behind `query:` what it asks. dnsmasq writes a line for the
question and one for each step to the answer; only the first says who asked, unless `log-queries=extra` numbers them.
Other lines of these servers stay with `linux.syslog`. Sources: BIND 9 Administrator Reference Manual, "querylog";
dnsmasq(8).
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

_PAYLOAD: Final = pl.col("payload")
BIND: Final = (
    r"^\s*(?:\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d\.\d{1,6} )?(?:queries: |query-errors: |security: )?"
    r"(?:info: |debug \d: )?"
    r"client (?:@0x[0-9a-fA-F]+ )?[0-9A-Fa-f.:%\w]+#\d+(?:/key [^ ]+)?(?: \([^ ]*\))?: (?:view [^ ]+: "
    r")?quer(?:y: |y \(cache\) )"
)
DNSMASQ: Final = (
    r"^\s*(?:\d+ [0-9A-Fa-f.:]+(?:/\d+)? )?"
    r"(?:query\[[^\]]+\] [^ ]+ from |(?:reply|cached|config|forwarded|validation|DHCP|/[^ ]+) [^ ]+ (?:is|to) )"
)
RECOGNISE_BIND: Final = _PAYLOAD.str.contains(BIND)
RECOGNISE_DNSMASQ: Final = pl.col("program").str.starts_with("dnsmasq") & _PAYLOAD.str.contains(DNSMASQ)

NAMES: Final = EnvelopeNames(time=(("@timestamp", True),), source_ip=("src_ip",), destination_ip=("dst_ip",))

_QUERY: Final = (
    r"(?s)^\s*(?:(?P<time>\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d\.\d{1,6}) )?.{0,64}?client (?:@0x[0-9a-fA-F]+ )?"
    r"(?P<src_ip>[0-9A-Fa-f.:]+)(?:%\w+)?#(?P<src_port>\d+)(?:/key (?P<key>[^ ]+))?(?: \([^ ]*\))?: "
    r"(?:view (?P<view>[^ ]+): )?"
    r"(?:query: (?P<query>[^ ]+) (?P<class>[^ ]+) (?P<record_type>[^ ]+)(?: (?P<flags>[+-][^ ]*))?"
    r"(?: \((?P<dst_ip>[0-9A-Fa-f.:]+)(?:%\w+)?\))?"
    r"|query \(cache\) '(?P<query2>[^/']+)/(?P<record_type2>[^/']+)/(?P<class2>[^']+)' (?P<outcome>denied))?"
)
_STEP: Final = (
    r"(?s)^\s*(?:(?P<serial>\d+) (?P<asker>[0-9A-Fa-f.:]+)(?:/(?P<src_port>\d+))? )?"
    r"(?:query\[(?P<record_type>[^\]]+)\] (?P<query>[^ ]+) from (?P<src_ip>[^ ]+)"
    r"|(?P<step>[^ ]+) (?P<query2>[^ ]+) (?:is (?P<answer>.*)|to (?P<forwarder>[^ ]+)))?"
)


def parse_bind(lines: pl.DataFrame) -> Parsed:
    """One piece: queries, and those that were denied."""
    read = lines["payload"].str.extract_groups(_QUERY).struct.unnest()
    time = pl.col("time").str.to_datetime("%d-%b-%Y %H:%M:%S%.f", time_unit="us", strict=False)
    fields = read.select(
        time.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f").alias("@timestamp"),
        *("src_ip", "src_port", "dst_ip"),
        _without_dot(pl.coalesce("query", "query2")).alias("query"),
        _without_dot(pl.coalesce("query", "query2")).alias("QueryName"),
        pl.coalesce("record_type", "record_type2").alias("record_type"),
        pl.coalesce("class", "class2").alias("record_class"),
        *("flags", "view", "key", "outcome"),
    )
    return Parsed([Piece(LogSource("bind", "dns"), "dns.bind", lines["row"], fields, NAMES)])


def parse_dnsmasq(lines: pl.DataFrame) -> Parsed:
    """One piece: questions, and the steps to their answers."""
    read = lines["payload"].str.extract_groups(_STEP).struct.unnest()
    fields = read.select(
        pl.coalesce("src_ip", "asker").alias("src_ip"),
        *("src_port", "serial"),
        _without_dot(pl.coalesce("query", "query2")).alias("query"),
        _without_dot(pl.coalesce("query", "query2")).alias("QueryName"),
        "record_type",
        pl.coalesce("step", pl.when(pl.col("query").is_not_null()).then(pl.lit("query"))).alias("step"),
        *("answer", "forwarder"),
    )
    return Parsed([Piece(LogSource("dnsmasq", "dns"), "dns.dnsmasq", lines["row"], fields, NAMES)])


def _without_dot(name: pl.Expr) -> pl.Expr:
    return pl.when(name.str.len_bytes() > 1).then(name.str.strip_suffix(".")).otherwise(name)

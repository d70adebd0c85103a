"""OpenVPN: who connected from where, and who was refused.

A server's line begins with the peer, `alice/203.0.113.9:1194 ...` once its certificate or account is known and
`203.0.113.9:1194 ...` before. In a file a time without a zone stands before it. Only the account that the server itself
names (prefix, `username '...'`, certificate) is taken: a client chooses the rest.
Source: OpenVPN 2.6 reference manual, and the messages of its source.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

_IPV4: Final = r"\d{1,3}(?:\.\d{1,3}){3}"
_WORDS: Final = (
    r"(?:VERIFY |TLS |TLS: |MULTI|peer info: |PUSH: |SENT CONTROL |SIG[A-Z]|Connection reset|\[|Data Channel"
    r"|Control Channel)"
)
FILE: Final = rf"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d (?:us=\d+ )?(?:[^\s/]{{1,64}}/)?{_IPV4}:\d{{1,5}} {_WORDS}"
"""A line of a server's own file; without its words it could be anybody's."""
PROGRAM: Final = pl.col("program").str.starts_with("openvpn") | pl.col("program").str.starts_with("ovpn")
RECOGNISE: Final = PROGRAM.fill_null(value=False) | pl.col("payload").str.contains(f"^{FILE}")
DATASET: Final = "openvpn"
LOGSOURCE: Final = LogSource("openvpn", "vpn")
NAMES: Final = EnvelopeNames(time=(("@timestamp", True),), user=("user",), source_ip=("src_ip",))

_LINE: Final = (
    r"(?s)^\s*(?:(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:us=\d+ )?)?"
    rf"(?:(?:(?P<common_name>[^\s/]{{1,64}})/)?(?P<peer_ip>{_IPV4}):(?P<peer_port>\d{{1,5}}) )?(?P<message>.*)$"
)
_PEER: Final = rf"\[AF_INET6?\](?P<ip>{_IPV4}|[0-9A-Fa-f:]+):(?P<port>\d{{1,5}})"
_ACCOUNT: Final = (
    r"username '(?P<account>[^']*)'|^\[(?P<initiated>[^\]]{1,64})\] Peer Connection Initiated"
    r"|^VERIFY (?:OK|ERROR|KU OK|EKU OK): depth=0,.*?CN=(?P<certified>[^,/]+)"
)
_OUTCOMES: Final = (
    (r"Peer Connection Initiated|authentication succeeded|^VERIFY OK: depth=0", "success"),
    (r"AUTH_FAILED|Auth Error|verification failed|VERIFY ERROR|TLS Error|TLS handshake failed", "failure"),
)
_EVENTS: Final = (
    (r"^TLS: Initial packet", "connect"),
    (r"Peer Connection Initiated", "connected"),
    (r"authentication (?:succeeded|deferred)|Auth Error|AUTH_FAILED|^VERIFY", "authenticate"),
    (r"^MULTI(?:_sva)?: (?:pool returned|primary virtual IP|Learn)|^MULTI_sva", "address"),
    (r"^SIG[A-Z0-9]+\[|Connection reset", "disconnected"),
)
_ASSIGNED: Final = rf"(?:pool returned IPv4=|MULTI: Learn: |primary virtual IP for \S+ )(?P<assigned>{_IPV4})"


def parse_openvpn(lines: pl.DataFrame) -> Parsed:
    """One piece; `action` and `outcome` are told from the message where it is one of those that matter."""
    read = lines["payload"].str.extract_groups(_LINE).struct.unnest()
    message = pl.col("message")
    peer = message.str.extract_groups(_PEER)
    account = message.str.extract_groups(_ACCOUNT)
    fields = read.select(
        pl.col("time").alias("@timestamp"),
        "message",
        pl.coalesce("peer_ip", peer.struct.field("ip")).alias("src_ip"),
        pl.coalesce("peer_port", peer.struct.field("port")).alias("src_port"),
        pl.coalesce(
            account.struct.field("account"),
            account.struct.field("initiated"),
            "common_name",
            account.struct.field("certified"),
        ).alias("user"),
        pl.coalesce("common_name", account.struct.field("certified")).alias("common_name"),
        _first(_EVENTS).alias("action"),
        _first(_OUTCOMES).alias("outcome"),
        message.str.extract(_ASSIGNED).alias("assigned_ip"),
        message.str.extract(r"^(SIG[A-Z0-9]+\[[^\]]{1,64}\])").alias("reason"),
    )
    known = [pl.lit("openvpn").alias("process.name"), pl.col("pid").alias("process.pid")]
    return Parsed([Piece(LOGSOURCE, DATASET, lines["row"], fields.hstack(lines.select(known)), NAMES)])


def _first(words: tuple[tuple[str, str], ...]) -> pl.Expr:
    return pl.coalesce(*(pl.when(pl.col("message").str.contains(text)).then(pl.lit(said)) for text, said in words))

"""Cisco ASA and FTD: `%ASA-6-302013: Built inbound TCP connection ...`, the fields of the messages that matter most.

The number of a message says how its text is built; messages of one build are a family here. Of a family unknown here
the text is kept, with its number and severity. A connection names the outside first, whoever opened it: where the text
says `outbound`, source is the second. A teardown does not say: there the end with a port below 1024 is the destination
if the other has none, and else the order is kept. Events of Firepower (430001 to 430005) are lists of `Name: value`.

Commands are service `asa-command`, which rules on cisco/asa and cisco/aaa both see: SigmaHQ's rules on cisco/aaa look
for words of commands, and one of their words is `aaa`, so the messages of AAA itself stay with `asa`. What lets through
or stops packets is category `firewall`.
Source: Cisco, "Cisco Secure Firewall ASA Series Syslog Messages".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from ingest.formats.device_fields import blocked
from ingest.formats.piece import EnvelopeNames, Parsed, Piece
from ingest.logsource import LogSource

TAG: Final = r"^[^%]{0,64}%(?:ASA|FTD|PIX)-(?:\w{1,16}-)?[0-7]-\d{6}: "
DATASET: Final = "cisco.asa"

NAMES: Final = EnvelopeNames(user=("user",), source_ip=("src_ip",), destination_ip=("dst_ip",))

WELL_KNOWN: Final = 1024
"""Ports below it are those of services (RFC 6335: 0 to 1023)."""

_HEAD: Final = r"%(?:ASA|FTD|PIX)-(?:\w{1,16}-)?([0-7])-(\d{6}): "
_IP: Final = r"[0-9A-Fa-f.:]{2,45}"
_WHO: Final = r"(?: ?\([^()]*\))*"
"""Mapped address, identity-firewall user or security group behind an endpoint."""


@dataclass(frozen=True, slots=True)
class Family:
    """Messages that are built alike.

    Attributes:
        ids: Their numbers.
        logsource: What they are to rules.
        text: Expression with the names of the fields as groups; `a_` and `b_` are the ends of a connection.
    """

    ids: tuple[str, ...]
    logsource: LogSource
    text: str


_FIREWALL: Final = LogSource("cisco", "firewall", "asa")
_COMMAND: Final = LogSource("cisco", None, "asa-command")
_ASA: Final = LogSource("cisco", None, "asa")

FAMILIES: Final[dict[str, Family]] = {
    "connection": Family(
        ("302013", "302014", "302015", "302016", "302303", "302304"),
        _FIREWALL,
        r"^(?P<action>Built|Teardown) (?:(?P<direction>inbound|outbound) )?(?P<protocol>\w+)(?: "
        r"state-bypass)? connection "
        rf"(?P<connection_id>\d+) for (?P<a_interface>[^:]+):(?P<a_ip>{_IP})/(?P<a_port>\d+){_WHO} to "
        rf"(?P<b_interface>[^:]+):(?P<b_ip>{_IP})/(?P<b_port>\d+){_WHO}?"
        r"(?: duration (?P<duration>[\d:]+) bytes (?P<bytes>\d+)(?: (?P<reason>.*?))?)?(?: \((?P<user>[^()/]*)\))?$",
    ),
    "icmp": Family(
        ("302020", "302021"),
        _FIREWALL,
        r"^(?P<action>Built|Teardown) (?:(?P<direction>inbound|outbound) )?(?P<protocol>ICMP) connection for "
        rf"faddr (?P<a_ip>{_IP})/\d+{_WHO} gaddr (?P<mapped_ip>{_IP})/\d+ laddr (?P<b_ip>{_IP})/\d+{_WHO}"
        r"(?: type (?P<icmp_type>\d+) code (?P<icmp_code>\d+))?",
    ),
    "denied_icmp": Family(
        ("106010", "106014"),
        _FIREWALL,
        rf"^(?P<action>Deny) inbound (?P<protocol>.{{1,32}}?) src (?P<src_interface>[^:]+):(?P<src_ip>{_IP})"
        rf"(?:/(?P<src_port>\d+))?{_WHO} dst (?P<dst_interface>[^:]+):(?P<dst_ip>{_IP})(?:/(?P<dst_port>\d+))?",
    ),
    "spoofed": Family(
        ("106016", "106017"),
        _FIREWALL,
        rf"^(?P<action>Deny) IP (?:spoof|due to Land Attack) from \(?(?P<src_ip>{_IP})\)? to (?P<dst_ip>{_IP})"
        r"(?: on interface (?P<interface>[^ .]+))?",
    ),
    "itself": Family(
        ("710001", "710002", "710003", "710004", "710005"),
        _FIREWALL,
        r"^(?P<protocol>\w+) (?:access|request|connection) "
        rf"(?P<action>requested|permitted|denied|discarded|limit exceeded)(?: by ACL)? from (?P<src_ip>{_IP})"
        rf"(?:/(?P<src_port>\d+))? to (?P<interface>[^:]+):(?P<dst_ip>{_IP})(?:/(?P<dst_port>[\w-]+))?",
    ),
    "denied": Family(
        ("106001", "106006", "106007", "106015", "106021"),
        _FIREWALL,
        r"^(?:Inbound (?P<protocol2>\w+) connection )?(?P<action>denied|Deny) ?(?:inbound )?"
        rf"(?P<protocol>[\w-]+)?(?: \(no connection\)| reverse path check)? ?from (?P<src_ip>{_IP})"
        rf"(?:/(?P<src_port>\d+))? to "
        rf"(?P<dst_ip>{_IP})(?:/(?P<dst_port>\d+))?(?: flags (?P<flags>[A-Z ]+?))?(?: due to .*?)? "
        r"+on interface (?P<interface>[^ .]+)",
    ),
    "denied_by_group": Family(
        ("106023",),
        _FIREWALL,
        rf"^(?P<action>Deny) (?P<protocol>.{{1,32}}?) src (?P<src_interface>[^:]+):(?P<src_ip>{_IP})"
        rf"(?:/(?P<src_port>\d+))?"
        rf"{_WHO} dst (?P<dst_interface>[^:]+):(?P<dst_ip>{_IP})(?:/(?P<dst_port>\d+))?{_WHO}.{{0,64}}? "
        r'by access-group "?(?P<rule>[^" ]+)"?',
    ),
    "access_list": Family(
        ("106100", "106102", "106103"),
        _FIREWALL,
        r"^access-list (?P<rule>\S+) (?P<action>permitted|denied|est-allowed) (?P<protocol>\S+) (?:for "
        r"user '(?P<user>[^']*)' )?"
        rf"(?P<src_interface>[^/ ]+)/(?P<src_ip>{_IP})\((?P<src_port>\d+)\){_WHO} -> "
        rf"(?P<dst_interface>[^/ ]+)/(?P<dst_ip>{_IP})\((?P<dst_port>\d+)\){_WHO} hit-cnt (?P<hits>\d+)",
    ),
    "command": Family(
        ("111008", "111009", "111010"),
        _COMMAND,
        r"^User '?(?P<user>[^',]*)'?,?(?: running '?(?P<application>[^',]*)'? from IP (?P<src_ip>[^\s,]+),)? "
        r"executed (?:the '(?P<command>.*)' command\.?|cmd: (?P<command2>.*)|'?(?P<command3>.*?)'?)$",
    ),
    "aaa": Family(
        ("113004", "113005", "113008", "113012", "113013", "113014", "113015", "113016", "113017"),
        _ASA,
        r"^AAA (?:user )?(?P<aaa_type>.*?) (?P<outcome>Successful|Rejected|Error|not accessible|status \w+) ?:"
        r"(?: reason = (?P<reason>.*?) ?:)?(?: server = +(?P<server>\S+) ?[:,])?(?: (?P<database>local database) ?:)? "
        rf"[Uu]ser = (?P<user>.*?)(?: ?: user IP = (?P<src_ip>{_IP}))?$",
    ),
    "locked": Family(
        ("113006", "113007"),
        _ASA,
        r"^User '?(?P<user>.*?)'? (?P<outcome>locked out|unlocked)(?: on exceeding '?(?P<attempts>\d+)| by "
        r"(?P<admin>.*))?",
    ),
    "authenticated": Family(
        ("109005", "109006", "109007", "109008"),
        _ASA,
        r"^(?P<aaa_type>Authentication|Authorization) (?P<outcome>succeeded|failed|permitted|denied) for user "
        rf"'?(?P<user>.*)'? from (?P<src_ip>{_IP})/(?P<src_port>\d+) to (?P<dst_ip>{_IP})/(?P<dst_port>\d+) "
        r"on interface (?P<interface>\S+)",
    ),
    "login": Family(
        ("605004", "605005"),
        _ASA,
        rf"^Login (?P<outcome>denied|permitted) from (?P<src_ip>{_IP})/(?P<src_port>\d+) to "
        rf'(?P<interface>[^:]+):(?P<dst_ip>{_IP})/(?P<service>\S+) for user "(?P<user>.*)"$',
    ),
    "administrator": Family(
        ("611101", "611102", "611103"),
        _ASA,
        r"^User (?:authentication )?(?P<outcome>succeeded|failed|logged out):(?: IP address: "
        rf"(?P<src_ip>{_IP}),| (?P<src_ip2>{_IP}),)? Uname: (?P<user>.*)$",
    ),
    "session": Family(
        (
            *("113039", "716001", "716002", "716003", "716038", "716039", "716058", "716059"),
            *("722022", "722023", "722028", "722032", "722033", "722034", "722037", "722041", "722051", "722055"),
        ),
        _ASA,
        r"^Group <?(?P<group_policy>[^>]*?)>? User <?(?P<user>.*?)>? IP <?"
        rf"(?P<src_ip>{_IP})>? (?:IPv4 Address <(?P<assigned_ip>[^>]*)> )?(?:IPv6 [Aa]ddress "
        rf"<(?P<assigned_ipv6>[^>]*)> )?"
        r"(?P<session_event>.*)$",
    ),
    "disconnected": Family(
        ("113019",),
        _ASA,
        rf"^Group = (?P<group_policy>.*?), Username = (?P<user>.*), IP = (?P<src_ip>{_IP}), "
        rf"(?P<session_event>Session disconnected)"
        r"\.(?: Session Type: (?P<session_type>[^,]*), Duration: (?P<duration>[^,]*), Bytes xmt: (?P<bytes_sent>\d+), "
        r"Bytes rcv: (?P<bytes_received>\d+), Reason: (?P<reason>.*))?",
    ),
    "tls": Family(
        ("725001", "725002", "725003", "725006", "725007", "725016"),
        _ASA,
        r"^.{0,80}?\b(?P<peer>client|server) (?:[^:/\s]+:)?(?P<src_ip>[0-9A-Fa-f.:]+)/(?P<src_port>\d+)"
        rf"(?: to (?:[^:/\s]+:)?(?P<dst_ip>{_IP})/(?P<dst_port>\d+))?",
    ),
}
"""Family -> what it is. An address from which there is none is `0.0.0.0` or missing."""

_FIREPOWER: Final = {
    **dict.fromkeys(("430002", "430003"), _FIREWALL),
    **dict.fromkeys(("430001", "430004", "430005"), _ASA),
}
"""Events of Firepower's engine: connections, then intrusions, files and malware."""
_FIREPOWER_FIELDS: Final = {
    "src_ip": "SrcIP",
    "src_port": "SrcPort",
    "dst_ip": "DstIP",
    "dst_port": "DstPort",
    "protocol": "Protocol",
    "src_interface": "IngressInterface",
    "dst_interface": "EgressInterface",
    "action": "AccessControlRuleAction",
    "rule": "AccessControlRuleName",
    "user": "User",
    "url": "URL",
    "attack": "Message",
    "sid": "SID",
    "outcome": "InlineResult",
    "file": "FileName",
    "threat": "ThreatName",
}
"""Field -> its name in those events."""

_FAMILY_OF: Final = dict.fromkeys(_FIREPOWER, "firepower") | {
    number: name for name, family in FAMILIES.items() for number in family.ids
}
_ONE_NAME: Final = {"protocol": "protocol2", "command": ("command2", "command3"), "src_ip": "src_ip2"}
"""Field -> groups that stand for it where the text has another order."""


def parse_asa(lines: pl.DataFrame) -> Parsed:
    """One piece a family of messages."""
    payload = pl.col("payload")
    head = payload.str.extract_groups(_HEAD)
    read = lines.select(
        "row",
        head.struct[1].alias("message_id"),
        head.struct[0].alias("severity"),
        payload.str.replace(rf"^[^%]*{_HEAD}", "").str.strip_chars().alias("message"),
    ).with_columns(pl.col("message_id").replace_strict(_FAMILY_OF, default="", return_dtype=pl.String).alias("family"))
    pieces: list[Piece] = []
    for (name,), part in read.partition_by("family", as_dict=True, maintain_order=True).items():
        of_family = part.drop("family")
        pieces += _firepower(of_family) if name == "firepower" else [_piece(str(name), of_family)]
    return Parsed(pieces)


def _firepower(part: pl.DataFrame) -> list[Piece]:
    """Events of Firepower's engine: one piece a log source."""
    text = pl.col("message")
    said = [text.str.extract(rf"(?:^|, ){name}: ([^,]*)").alias(field) for field, name in _FIREPOWER_FIELDS.items()]
    fields = part.with_columns(said).with_columns(
        pl.when(pl.col("action").str.starts_with("Block"))
        .then(pl.lit("true"))
        .when(pl.col("action").is_in(["Allow", "Trust", "Fastpath", "Monitor"]))
        .then(pl.lit("false"))
        .alias("blocked"),
        pl.when(~pl.col("user").is_in(["No Authentication Required", "Unknown"])).then("user").alias("user"),
    )
    passed = pl.col("message_id").is_in([number for number, source in _FIREPOWER.items() if source is _FIREWALL])
    parts = ((_FIREWALL, fields.filter(passed)), (_ASA, fields.filter(~passed)))
    return [Piece(source, DATASET, of.get_column("row"), of.drop("row"), NAMES) for source, of in parts if of.height]


def _piece(name: str, part: pl.DataFrame) -> Piece:
    family = FAMILIES.get(name)
    if family is None:
        return Piece(_ASA, DATASET, part["row"], part.drop("row"), NAMES)
    fields = part.with_columns(pl.col("message").str.extract_groups(family.text).alias("read")).unnest("read")
    for field, others in _ONE_NAME.items():
        there = [other for other in ((others,) if isinstance(others, str) else others) if other in fields.columns]
        if there and field in fields.columns:
            fields = fields.with_columns(pl.coalesce(field, *there).alias(field)).drop(there)
    if "a_ip" in fields.columns:
        fields = _with_ends(fields)
    if "action" in fields.columns:
        stopped = blocked(fields["action"])
        fields = fields if stopped is None else fields.with_columns(stopped.alias("blocked"))
    return Piece(family.logsource, DATASET, part["row"], fields.drop("row"), NAMES)


def _with_ends(fields: pl.DataFrame) -> pl.DataFrame:
    """Source and destination of connections."""
    parts = [part for part in ("interface", "ip", "port") if f"a_{part}" in fields.columns]
    outbound = pl.col("direction") == "outbound"
    if "port" in parts:
        first, second = (pl.col(f"{end}_port").cast(pl.Int64, strict=False) for end in "ab")
        outbound = outbound.fill_null((first < WELL_KNOWN) & (second >= WELL_KNOWN))
    outbound = outbound.fill_null(value=False)
    ends = [
        pl.when(outbound).then(f"{other}_{part}").otherwise(f"{end}_{part}").alias(f"{name}_{part}")
        for name, end, other in (("src", "a", "b"), ("dst", "b", "a"))
        for part in parts
    ]
    return fields.with_columns(ends).drop(f"{end}_{part}" for end in "ab" for part in parts)

# ruff: noqa: E501, S104  (log lines are long, and 0.0.0.0 is what a device writes for no address)
"""Lines as network and security devices and servers write them, and what they say: for tests of formats.

Written after the vendors' documentation; every address, name and number is invented.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from ingest.logsource import LogSource


def at(year: int, month: int, day: int, hour: int, minute: int, second: int) -> datetime:
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


SENT = at(2026, 2, 28, 10, 0, 0)
"""What the headers below say; a record without a time of its own, and without a header, has that of its receipt."""
HEADERS = {
    "rfc3164": "<134>Feb 28 10:00:00 fw01 ",
    "rfc3164 without host": "<134>Feb 28 10:00:00 ",
    "rfc5424": "<134>1 2026-02-28T10:00:00Z fw01 - - - - ",
    "priority only": "<134>",
    "none": "",
}


HOSTED = ("<134>Feb 28 10:00:00 fw01 ", "<134>1 2026-02-28T10:00:00Z fw01 - - - - ", "<134>", "")
"""Without a host the first word of the line would be taken for one."""


@dataclass(frozen=True, slots=True)
class Case:
    """A line and what is to be read from it.

    Attributes:
        line: Without any syslog header.
        source: Its log source.
        dataset: The format that reads it.
        fields: Some of its fields and of its envelope, None where there must be none.
        headers: What may stand before it; more are tried for those that need no program's name.
    """

    line: str
    source: LogSource
    dataset: str
    fields: dict[str, object] = field(default_factory=dict)
    headers: tuple[str, ...] = tuple(HEADERS.values())


def stormshield(service: str | None, category: str | None = None) -> LogSource:
    return LogSource("stormshield", category, service)


STORMSHIELD = [
    Case(
        'id=firewall time="2026-02-28 10:59:58" fw="SN310A17B0000A7" tz=+0100 startime="2026-02-28 10:59:50" pri=5 '
        'confid=00 slotlevel=2 ruleid=12 srcif="Ethernet1" srcifname="in" ipproto=tcp proto=https src=192.0.2.7 '
        "srcport=54937 srcportname=ephemeral_fw_tcp srcname=poste-12 dst=198.51.100.9 dstport=443 dstportname=https "
        'dstname=www.example.org action=pass sent=1200 rcvd=5300 duration=8.20 logtype="connection"',
        stormshield("connection", "firewall"),
        "stormshield.sns",
        {"@timestamp": at(2026, 2, 28, 9, 59, 58), "src": "192.0.2.7", "src_ip": "192.0.2.7", "dst_ip": "198.51.100.9",
         "src_port": "54937", "dst_port": "443", "action": "pass", "blocked": "false", "host.name": "SN310A17B0000A7",
         "source.ip": "192.0.2.7", "destination.ip": "198.51.100.9", "srcifname": "in", "tz": "+0100",
         "time": "2026-02-28 10:59:58", "error.message": None},
    ),
    Case(
        'id=firewall time="2026-07-01 12:00:00" fw="chu-fw" tz=+0200 startime="2026-07-01 12:00:00" pri=4 ruleid=3 '
        'src=203.0.113.9 srcport=4321 dst=192.0.2.80 dstport=22 ipproto=tcp action=block logtype="filter"',
        stormshield("filter", "firewall"), "stormshield.sns",
        {"blocked": "true", "dst_port": "22", "rule": None,
         "error.message": "implausible event time 2026-07-01 12:00:00+0200: received time used"},
    ),
    Case(
        'id=firewall time="2026-02-28 11:00:00" fw="chu-fw" tz=+0100 startime="2026-02-28 11:00:00" user="a.durand" '
        'src=203.0.113.9 ruleid=1 method="OPENVPN" error=4 msg="Auth failed" totp=no confid=1 logtype="auth"',
        stormshield("auth"), "stormshield.sns",
        {"@timestamp": SENT, "user": "a.durand", "user.name": "a.durand", "source.ip": "203.0.113.9",
         "method": "OPENVPN", "totp": "no", "error": "4", "msg": "Auth failed"},
    ),
    Case(
        'id=firewall time="2026-02-28 11:00:00" fw="chu-fw" tz=+0100 startime="2026-02-28 11:00:00" error=0 '
        'user="a.durand" domain="chu.example" remotenet=10.60.0.2 src=203.0.113.9 msg="SSL tunnel created" '
        'logtype="xvpn"',
        stormshield("xvpn"), "stormshield.sns",
        {"user.name": "a.durand", "msg": "SSL tunnel created", "remotenet": "10.60.0.2", "error": "0"},
    ),
    Case(
        'id=firewall time="2026-02-28 11:00:00" fw="chu-fw" tz=+0100 startime="2026-02-28 11:00:00" error=0 user="admin" '
        'address=192.0.2.30 sessionid=1.0018 msg="CONFIG FILTER ACTIVATE" logtype="server"',
        stormshield("server"), "stormshield.sns",
        {"user.name": "admin", "source.ip": "192.0.2.30", "msg": "CONFIG FILTER ACTIVATE"},
    ),
    Case(
        'id=firewall time="2026-02-28 11:00:00" fw="chu-fw" tz=+0100 startime="2026-02-28 10:59:59" pri=1 src=203.0.113.9 '
        'srcport=4321 dst=192.0.2.80 dstport=443 msg="Possible SQL injection \\"or 1=1\\" in URL" class=protocol '
        'classification=0 alarmid=183 target=dst risk=80 action=block logtype="alarm"',
        stormshield("alarm"), "stormshield.sns",
        {"msg": 'Possible SQL injection "or 1=1" in URL', "alarmid": "183", "blocked": "true"},
    ),
    Case(
        'id=firewall time="2026-02-28 11:00:00" fw="chu-fw" tz=+0100 pri=5 src=192.0.2.7 dst=198.51.100.9 dstname=www.example.org '
        'op=GET result=200 cat_site="{news}" arg="/a/b.exe?x=1" action=pass logtype="web"',
        stormshield("web", "proxy"), "stormshield.sns",
        {"c-uri": "www.example.org/a/b.exe?x=1", "cs-method": "GET", "sc-status": "200", "cs-host": "www.example.org"},
    ),
    # files have no logtype, and an unknown one makes no table of its own
    Case('id=firewall time="2026-02-28 11:00:00" fw="chu-fw" tz=+0100 a=1 logtype="mine"', stormshield(None),
         "stormshield.sns", {"logtype": "mine"}),
]  # fmt: skip

FG = 'date=2026-02-28 time=11:00:00 devname="chu-fw" devid="FGT60FTK00000001" '
FORTIGATE = [
    Case(
        FG + 'eventtime=1772272800123456789 tz="+0100" logid="0000000013" type="traffic" subtype="forward" level="notice" '
        'vd="root" srcip=192.0.2.10 srcport=54190 srcintf="port12" dstip=198.51.100.235 dstport=443 dstintf="port11" '
        'sessionid=402 proto=6 action="close" policyid=1 service="HTTPS" dstcountry="United States" duration=2 '
        "sentbyte=3652 rcvdbyte=146668",
        LogSource("fortigate", "firewall", "traffic"), "fortigate.syslog",
        {"@timestamp": datetime(2026, 2, 28, 10, 0, 0, 123456, tzinfo=UTC), "host.name": "chu-fw", "src_ip": "192.0.2.10",
         "dst_ip": "198.51.100.235", "srcip": "192.0.2.10", "dst_port": "443", "action": "close", "blocked": "false",
         "dstcountry": "United States", "source.ip": "192.0.2.10", "destination.ip": "198.51.100.235",
         "error.message": None},
    ),
    Case(
        FG + 'logid="0000000013" type="traffic" subtype="forward" level="notice" srcip=203.0.113.9 srcport=4 '
        'dstip=192.0.2.80 dstport=3389 action="deny" tz="+0100"',
        LogSource("fortigate", "firewall", "traffic"), "fortigate.syslog",
        {"@timestamp": SENT, "blocked": "true", "action": "deny", "dst_port": "3389"},
    ),
    # FortiOS 6.0: seconds
    Case(
        FG + 'eventtime=1772272800 logid="0100044547" type="event" subtype="system" level="information" '
        'vd="root" logdesc="Object attribute configured" user="admin" ui="GUI(192.0.2.30)" action="Add" cfgtid=1245 '
        'cfgpath="system.admin" cfgobj="backdoor" cfgattr="password[*]" msg="Add system.admin backdoor"',
        LogSource("fortigate", None, "event"), "fortigate.syslog",
        {"@timestamp": SENT, "action": "Add", "cfgpath": "system.admin", "user.name": "admin", "cfgobj": "backdoor"},
    ),
    Case(
        FG + 'logid="0101039424" type="event" subtype="vpn" level="information" action="tunnel-up" tunneltype="ssl-web" '
        'remip=203.0.113.9 user="a.durand" group="vpn" msg="SSL tunnel established" reason="login successfully"',
        LogSource("fortigate", None, "event"), "fortigate.syslog",
        {"@timestamp": at(2026, 2, 28, 11, 0, 0), "source.ip": "203.0.113.9", "user.name": "a.durand", "blocked": None},
    ),
    Case(
        FG + 'logid="0317013312" type="utm" subtype="webfilter" eventtype="ftgd_allow" srcip=192.0.2.10 dstip=198.51.100.8 '
        'hostname="www.example.org" action="blocked" url="https://www.example.org/a" agent="curl/8.5" tz="+0100"',
        LogSource("fortigate", "proxy", "utm"), "fortigate.syslog",
        {"c-uri": "https://www.example.org/a", "cs-host": "www.example.org", "c-useragent": "curl/8.5", "blocked": "true"},
    ),
    Case(
        FG + 'logid="0211008192" type="utm" subtype="virus" action="blocked" service="HTTP" srcip=192.0.2.10 '
        'dstip=198.51.100.8 filename="a.zip" virus="EICAR_TEST_FILE" tz="+0100"',
        LogSource("fortigate", "antivirus", "utm"), "fortigate.syslog",
        {"Signature": "EICAR_TEST_FILE", "Filename": "a.zip"},
    ),
    Case(
        FG + 'logid="0419016384" type="utm" subtype="ips" attack="Log4j" srcip=203.0.113.9 dstip=192.0.2.80 tz="+0100" '
        'msg="a \\"quoted\\" C:\\temp"',
        LogSource("fortigate", None, "utm"), "fortigate.syslog",
        {"attack": "Log4j", "msg": 'a "quoted" C:\\temp', "@timestamp": SENT},
    ),
    # what a stranger wrote comes behind what the device wrote: the first counts
    Case(
        FG + 'logid="0100032002" type="event" subtype="system" user="x" srcip=203.0.113.9 user="admin" srcip=192.0.2.1',
        LogSource("fortigate", None, "event"), "fortigate.syslog",
        {"user.name": "x", "source.ip": "203.0.113.9", "error.message": "a name occurs twice: its first value is kept"},
    ),
    # cut within a value
    Case(
        FG + 'logid="0100032002" type="event" subtype="system" msg="Administrator a login fai',
        LogSource("fortigate", None, "event"), "fortigate.syslog",
        {"msg": "Administrator a login fai", "error.message": "a quote is not closed: cut line, or odd quoting"},
    ),
]  # fmt: skip

FORTIGATE_CEF = [
    Case(
        "CEF:0|Fortinet|Fortigate|v7.4.1|00013|traffic:forward close|3|deviceExternalId=FGT60FTK00000001 "
        "FTNTFGTeventtime=1772272800123456789 FTNTFGTtz=+0100 FTNTFGTlogid=0000000013 cat=traffic:forward "
        "FTNTFGTsubtype=forward FTNTFGTlevel=notice src=192.0.2.10 spt=54190 deviceInboundInterface=port12 "
        "dst=198.51.100.235 dpt=443 externalId=402 proto=6 act=close app=HTTPS FTNTFGTdstcountry=United States "
        "out=3652 in=146668 dvchost=chu-fw",
        LogSource("fortigate", "firewall", "traffic"), "fortigate.cef",
        {"@timestamp": datetime(2026, 2, 28, 10, 0, 0, 123456, tzinfo=UTC), "srcip": "192.0.2.10", "src": "192.0.2.10",
         "src_ip": "192.0.2.10", "dst_port": "443", "action": "close", "dstcountry": "United States",
         "sentbyte": "3652", "host.name": "chu-fw", "blocked": "false"},
    ),
    Case(
        "CEF: 0|Fortinet|Fortigate|v7.4.1|44547|event:system|2|FTNTFGTtz=+0100 FTNTFGTeventtime=1772272800 cat=event:system "
        "FTNTFGTlogdesc=Object attribute configured duser=admin FTNTFGTui=GUI(192.0.2.30) act=Add "
        "FTNTFGTcfgpath=firewall.policy msg=Add firewall.policy 7 dvchost=chu-fw",
        LogSource("fortigate", None, "event"), "fortigate.cef",
        {"action": "Add", "cfgpath": "firewall.policy", "user.name": "admin", "logdesc": "Object attribute configured",
         "type": "event", "subtype": "system"},
    ),
]  # fmt: skip


def pan(log: str, *values: str) -> str:
    return ",".join(("1", "2026/02/28 11:00:01", "007051000000001", log, *values))


PA_SESSION = (
    "192.0.2.7,198.51.100.9,203.0.113.1,198.51.100.9,Internet,chu\\a.durand,,ssl,vsys1,trust,untrust,ethernet1/2,"
)
PA_SESSION += "ethernet1/1,Forward,2026/02/28 11:00:00,72568134,1,49583,443,50464,443,0x400053,tcp"
PALO_ALTO = [
    Case(
        pan("TRAFFIC", "end", "2561", "2026/02/28 10:00:00", *PA_SESSION.split(","), "allow", "7312", "2228", "5084", "22",
            "2026/02/28 09:59:40", "16", "business-and-economy", "", "7253419", "0x8000000000000000", "France",
            "United States", "", "12", "10", "tcp-fin", "0", "0", "0", "0", "", "pa-chu-1", "from-policy"),
        LogSource("paloalto", "firewall", "traffic"), "paloalto.panos",
        {"@timestamp": SENT, "src": "192.0.2.7", "src_ip": "192.0.2.7", "dst_ip": "198.51.100.9", "dst_port": "443",
         "action": "allow", "blocked": "false", "user.name": "chu\\a.durand", "host.name": "pa-chu-1",
         "session_end_reason": "tcp-fin", "dstuser": None, "future_use_1": None, "from": "trust",
         "source.ip": "192.0.2.7", "destination.ip": "198.51.100.9", "bytes_received": "5084"},
    ),
    Case(
        pan("THREAT", "url", "2561", "2026/02/28 10:00:00", *PA_SESSION.split(","), "block-url",
            '"www.example.org/a,b?x=""1"""', "(9999)", "malware", "informational", "client-to-server", "77", "0x0", "France",
            "France", "", "text/html", "0", "", "", "1", '"Mozilla/5.0 (X11; Linux, like Gecko)"'),
        LogSource("paloalto", "proxy", "threat"), "paloalto.panos",
        {"misc": 'www.example.org/a,b?x="1"', "c-uri": 'www.example.org/a,b?x="1"', "cs-host": "www.example.org",
         "c-useragent": "Mozilla/5.0 (X11; Linux, like Gecko)", "blocked": "true", "error.message": None},
    ),
    Case(
        pan("THREAT", "virus", "2561", "2026/02/28 10:00:00", *PA_SESSION.split(","), "reset-both", "a.exe",
            "Eicar Test File(100000)", "any", "medium", "server-to-client", "78", "0x0"),
        LogSource("paloalto", "antivirus", "threat"), "paloalto.panos",
        {"Filename": "a.exe", "Signature": "Eicar Test File(100000)", "blocked": "true"},
    ),
    Case(
        pan("THREAT", "vulnerability", "2561", "2026/02/28 10:00:00", *PA_SESSION.split(","), "alert", "", "Log4j(91991)"),
        LogSource("paloalto", None, "threat"), "paloalto.panos", {"threatid": "Log4j(91991)", "misc": None},
    ),
    Case(
        pan("SYSTEM", "auth", "0", "2026/02/28 10:00:00", "", "auth-fail", "", "0", "0", "general", "medium",
            '"failed authentication for user \'admin\'. Reason: Invalid, From: 192.0.2.9."', "160444", "0x0",
            "0", "0", "0", "0", "", "pa-chu-1"),
        LogSource("paloalto", None, "system"), "paloalto.panos",
        {"eventid": "auth-fail", "opaque": "failed authentication for user 'admin'. Reason: Invalid, From: 192.0.2.9.",
         "host.name": "pa-chu-1"},
    ),
    Case(
        pan("CONFIG", "0", "0", "2026/02/28 10:00:00", "192.0.2.30", "", "commit", "admin", "Web", "Succeeded", "", "", "",
            "12", "0x0", "0", "0", "0", "0", "", "pa-chu-1"),
        LogSource("paloalto", None, "config"), "paloalto.panos",
        {"cmd": "commit", "user.name": "admin", "source.ip": "192.0.2.30", "result": "Succeeded"},
    ),
    # the default form has no details of the change, but what follows stands where it should
    Case(
        pan("CONFIG", "0", "0", "2026/02/28 10:00:00", "192.0.2.30", "", "set", "admin", "Web", "Succeeded", "mgt-config users",
            "12", "0x0", "0", "0", "0", "0", "", "pa-chu-1"),
        LogSource("paloalto", None, "config"), "paloalto.panos",
        {"path": "mgt-config users", "seqno": "12", "actionflags": "0x0", "host.name": "pa-chu-1",
         "before_change_detail": None},
    ),
    Case(
        pan("CONFIG", "0", "0", "2026/02/28 10:00:00", "192.0.2.30", "", "set", "admin", "Web", "Succeeded", "mgt-config users",
            "7", "8", "12", "0x0", "0", "0", "0", "0", "", "pa-chu-1"),
        LogSource("paloalto", None, "config"), "paloalto.panos",
        {"before_change_detail": "7", "after_change_detail": "8", "seqno": "12", "host.name": "pa-chu-1"},
    ),
    Case(
        pan("GLOBALPROTECT", "0", "2561", "2026/02/28 10:00:00", "vsys1", "gateway-auth", "login", "SAML", "", "a.durand",
            "FR", "LAPTOP-7", "203.0.113.9", "0.0.0.0", "10.9.0.4", "0.0.0.0", "aa-bb", "PF0", "6.2.1", "Windows", "11", "1",
            "", "", "", "success", "", "0", "user-logon", "0", "gp-portal", "7", "0x0",
            "2026-02-28T11:00:00.250+01:00"),
        LogSource("paloalto", "appliance", "globalprotect"), "paloalto.panos",
        {"@timestamp": datetime(2026, 2, 28, 10, 0, 0, 250000, tzinfo=UTC), "user.name": "a.durand",
         "source.ip": "203.0.113.9", "status": "success", "stage": "login", "eventid": "gateway-auth",
         "portal": "gp-portal", "src_ip": "203.0.113.9"},
    ),
    Case(
        pan("HIPMATCH", "0", "2561", "2026/02/28 10:00:00", "a.durand", "vsys1", "LAPTOP-7", "Windows", "10.9.0.4", "patched",
            "1", "profile"),
        LogSource("paloalto", None, "hipmatch"), "paloalto.panos",
        {"machinename": "LAPTOP-7", "source.ip": "10.9.0.4", "matchname": "patched", "matchtype": "profile"},
    ),
    Case(
        pan("USERID", "login", "2561", "2026/02/28 10:00:00", "vsys1", "192.0.2.7", "chu\\a.durand", "dc1", "0", "1", "2700",
            "0", "0", "active-directory"),
        LogSource("paloalto", None, "userid"), "paloalto.panos",
        {"user.name": "chu\\a.durand", "source.ip": "192.0.2.7", "subtype": "login", "datasource": "active-directory"},
    ),
    # a type whose columns are not known here, and a column more than a list has
    Case(pan("DECRYPTION", "0", "2561", "2026/02/28 10:00:00", "a", "b"), LogSource("paloalto", None, "decryption"),
         "paloalto.panos", {"field_8": "a", "field_9": "b", "@timestamp": SENT}),
]  # fmt: skip

FIREWALL, COMMAND, ASA = (
    LogSource("cisco", "firewall", "asa"), LogSource("cisco", None, "asa-command"), LogSource("cisco", None, "asa")
)  # fmt: skip
CISCO_ASA = [
    Case("%ASA-6-302013: Built inbound TCP connection 7 for outside:203.0.113.9/4321 (203.0.113.9/4321) to "
         "dmz:192.0.2.80/443 (198.51.100.2/443)", FIREWALL, "cisco.asa",
         {"message_id": "302013", "severity": "6", "src_ip": "203.0.113.9", "src_port": "4321", "dst_ip": "192.0.2.80",
          "dst_port": "443", "protocol": "TCP", "action": "Built", "blocked": "false", "src_interface": "outside"}),
    # the outside stands first, whoever opened the connection
    Case("%ASA-6-302013: Built outbound TCP connection 8 for outside:198.51.100.9/443 (198.51.100.9/443) to "
         "inside:192.0.2.7/51000 (203.0.113.1/51000) (a.durand)", FIREWALL, "cisco.asa",
         {"src_ip": "192.0.2.7", "dst_ip": "198.51.100.9", "src_interface": "inside", "user.name": "a.durand",
          "source.ip": "192.0.2.7", "destination.ip": "198.51.100.9", "direction": "outbound"}),
    Case("%ASA-6-302014: Teardown TCP connection 8 for outside:198.51.100.9/443 to inside:192.0.2.7/51000 duration "
         "0:01:02 bytes 5120 TCP FINs (a.durand)", FIREWALL, "cisco.asa",
         {"duration": "0:01:02", "bytes": "5120", "reason": "TCP FINs", "user.name": "a.durand", "action": "Teardown"}),
    Case("%ASA-6-302016: Teardown UDP connection 9 for outside:198.51.100.53/53 to inside:192.0.2.7/51001 duration "
         "0:00:00 bytes 120", FIREWALL, "cisco.asa",
         # it does not say who began; a service is asked, it does not ask
         {"protocol": "UDP", "bytes": "120", "dst_port": "53", "dst_interface": "outside", "source.ip": "192.0.2.7"}),
    Case("%ASA-6-302014: Teardown TCP connection 8 for outside:203.0.113.9/4321 to dmz:192.0.2.80/443 duration 0:00:01 bytes 1",
         FIREWALL, "cisco.asa", {"source.ip": "203.0.113.9", "destination.ip": "192.0.2.80", "dst_port": "443"}),
    Case("%ASA-6-302020: Built outbound ICMP connection for faddr 198.51.100.9/0 gaddr 203.0.113.1/1 laddr 192.0.2.7/1 type 8 "
         "code 0", FIREWALL, "cisco.asa",
         {"source.ip": "192.0.2.7", "destination.ip": "198.51.100.9", "protocol": "ICMP", "icmp_type": "8"}),
    Case("%ASA-3-106014: Deny inbound icmp src outside:203.0.113.9 dst dmz:192.0.2.80 (type 8, code 0)", FIREWALL, "cisco.asa",
         {"source.ip": "203.0.113.9", "destination.ip": "192.0.2.80", "protocol": "icmp", "blocked": "true"}),
    Case("%ASA-2-106016: Deny IP spoof from (203.0.113.9) to 192.0.2.80 on interface outside", FIREWALL, "cisco.asa",
         {"source.ip": "203.0.113.9", "destination.ip": "192.0.2.80", "interface": "outside"}),
    Case("%ASA-3-710003: TCP access denied by ACL from 203.0.113.9/4321 to outside:203.0.113.1/22", FIREWALL, "cisco.asa",
         {"source.ip": "203.0.113.9", "destination.ip": "203.0.113.1", "dst_port": "22", "blocked": "true"}),
    Case("%ASA-7-710005: UDP request discarded from 203.0.113.9/137 to outside:203.0.113.1/137", FIREWALL, "cisco.asa",
         {"source.ip": "203.0.113.9", "dst_port": "137", "blocked": "true"}),
    Case("%FTD-1-430002: EventPriority: Low, DeviceUUID: 0, InstanceID: 1, ConnectionID: 2, AccessControlRuleAction: Block with "
         "reset, SrcIP: 192.0.2.7, DstIP: 203.0.113.9, SrcPort: 51000, DstPort: 445, Protocol: tcp, IngressInterface: inside, "
         "EgressInterface: outside, User: No Authentication Required", FIREWALL, "cisco.asa",
         {"source.ip": "192.0.2.7", "destination.ip": "203.0.113.9", "dst_port": "445", "src_interface": "inside",
          "action": "Block with reset", "blocked": "true", "user.name": None}),
    Case("%FTD-1-430001: EventPriority: High, SrcIP: 203.0.113.9, DstIP: 192.0.2.80, SrcPort: 4321, DstPort: 445, GID: 1, "
         "SID: 1000001, User: a.durand", ASA, "cisco.asa",
         {"source.ip": "203.0.113.9", "sid": "1000001", "user.name": "a.durand"}),
    Case("%ASA-2-106001: Inbound TCP connection denied from 203.0.113.9/4321 to 192.0.2.80/22 flags SYN  on interface "
         "outside", FIREWALL, "cisco.asa",
         {"protocol": "TCP", "src_ip": "203.0.113.9", "dst_port": "22", "interface": "outside", "blocked": "true"}),
    Case("%ASA-6-106015: Deny TCP (no connection) from 203.0.113.9/4321 to 192.0.2.80/22 flags RST  on interface outside",
         FIREWALL, "cisco.asa", {"protocol": "TCP", "src_ip": "203.0.113.9", "flags": "RST", "blocked": "true"}),
    Case("%ASA-1-106021: Deny UDP reverse path check from 203.0.113.9 to 192.0.2.80 on interface outside",
         FIREWALL, "cisco.asa", {"protocol": "UDP", "src_ip": "203.0.113.9", "dst_ip": "192.0.2.80"}),
    Case('%ASA-4-106023: Deny tcp src outside:203.0.113.9/4321 dst dmz:192.0.2.80/3389 by access-group "outside_in" '
         "[0x0, 0x0]", FIREWALL, "cisco.asa",
         {"rule": "outside_in", "src_ip": "203.0.113.9", "dst_port": "3389", "action": "Deny", "blocked": "true"}),
    Case('%ASA-4-106023: Deny icmp src outside:203.0.113.9 dst dmz:192.0.2.80 (type 8, code 0) by access-group "o" [0x0, 0x0]',
         FIREWALL, "cisco.asa", {"protocol": "icmp", "dst_ip": "192.0.2.80", "rule": "o"}),
    Case("%ASA-6-106100: access-list inside_in permitted tcp inside/192.0.2.7(51000) -> outside/198.51.100.9(443) hit-cnt 1 "
         "first hit [0x1, 0x0]", FIREWALL, "cisco.asa",
         {"rule": "inside_in", "action": "permitted", "blocked": "false", "src_port": "51000", "dst_ip": "198.51.100.9"}),
    Case("%ASA-5-111008: User 'admin' executed the 'copy running-config tftp:' command.", COMMAND, "cisco.asa",
         {"user.name": "admin", "command": "copy running-config tftp:"}),
    Case("%ASA-5-111010: User 'admin', running 'CLI' from IP 192.0.2.30, executed 'no logging enable'", COMMAND, "cisco.asa",
         {"user.name": "admin", "source.ip": "192.0.2.30", "command": "no logging enable", "application": "CLI"}),
    Case("%ASA-6-113004: AAA user authentication Successful : server =  192.0.2.5 : user = a.durand", ASA, "cisco.asa",
         {"outcome": "Successful", "server": "192.0.2.5", "user.name": "a.durand", "aaa_type": "authentication"}),
    Case("%ASA-6-113005: AAA user authentication Rejected : reason = AAA failure : server = 192.0.2.5 : user = a.durand : "
         "user IP = 203.0.113.9", ASA, "cisco.asa",
         {"outcome": "Rejected", "reason": "AAA failure", "user.name": "a.durand", "source.ip": "203.0.113.9"}),
    # the account is what the client sent
    Case("%ASA-6-113005: AAA user authentication Rejected : reason = AAA failure : server = 192.0.2.5 : user = x : user IP = "
         "192.0.2.1 : user IP = 203.0.113.9", ASA, "cisco.asa",
         {"user.name": "x : user IP = 192.0.2.1", "source.ip": "203.0.113.9"}),
    Case("%ASA-6-113012: AAA user authentication Successful : local database : user = admin", ASA, "cisco.asa",
         {"outcome": "Successful", "database": "local database", "user.name": "admin"}),
    Case("%ASA-6-113015: AAA user authentication Rejected : reason = Invalid password : local database : user = admin : "
         "user IP = 203.0.113.9", ASA, "cisco.asa",
         {"outcome": "Rejected", "reason": "Invalid password", "user.name": "admin", "source.ip": "203.0.113.9"}),
    Case("%ASA-4-113019: Group = vpn, Username = a.durand, IP = 203.0.113.9, Session disconnected. Session Type: SSL, "
         "Duration: 1h:02m:03s, Bytes xmt: 10, Bytes rcv: 20, Reason: User Requested", ASA, "cisco.asa",
         {"user.name": "a.durand", "source.ip": "203.0.113.9", "session_type": "SSL", "bytes_received": "20"}),
    Case('%ASA-6-605004: Login denied from 203.0.113.9/4321 to outside:192.0.2.1/ssh for user "root"', ASA, "cisco.asa",
         {"outcome": "denied", "user.name": "root", "source.ip": "203.0.113.9", "service": "ssh"}),
    Case('%ASA-6-605005: Login permitted from 192.0.2.30/4321 to inside:192.0.2.1/https for user "admin"', ASA, "cisco.asa",
         {"outcome": "permitted", "user.name": "admin", "destination.ip": "192.0.2.1"}),
    Case("%ASA-6-611101: User authentication succeeded: IP address: 192.0.2.30, Uname: admin", ASA, "cisco.asa",
         {"outcome": "succeeded", "user.name": "admin", "source.ip": "192.0.2.30"}),
    Case("%ASA-6-611103: User logged out: Uname: admin", ASA, "cisco.asa", {"outcome": "logged out", "user.name": "admin"}),
    Case("%ASA-6-716001: Group <vpn> User <a.durand> IP <203.0.113.9> WebVPN session started.", ASA, "cisco.asa",
         {"group_policy": "vpn", "user.name": "a.durand", "session_event": "WebVPN session started."}),
    Case("%ASA-6-716002: Group <vpn> User <a.durand> IP <203.0.113.9> WebVPN session terminated: User Requested.", ASA,
         "cisco.asa", {"session_event": "WebVPN session terminated: User Requested."}),
    Case("%ASA-6-722022: Group <vpn> User <a.durand> IP <203.0.113.9> TCP SVC connection established without compression",
         ASA, "cisco.asa", {"source.ip": "203.0.113.9", "session_event": "TCP SVC connection established without compression"}),
    Case("%ASA-4-722051: Group <vpn> User <a.durand> IP <203.0.113.9> IPv4 Address <10.9.0.4> IPv6 address <::> assigned to "
         "session", ASA, "cisco.asa", {"assigned_ip": "10.9.0.4", "assigned_ipv6": "::", "user.name": "a.durand"}),
    Case("%ASA-6-725002: Device completed SSL handshake with client outside:203.0.113.9/4321 to 192.0.2.1/443 for TLSv1.2 "
         "session", ASA, "cisco.asa", {"source.ip": "203.0.113.9", "dst_port": "443", "peer": "client"}),
    Case("%FTD-6-725006: Device failed SSL handshake with client outside:203.0.113.9/4321", ASA, "cisco.asa",
         {"source.ip": "203.0.113.9", "message_id": "725006"}),
    # what has no family keeps its text
    Case("%ASA-3-199010: Signal 11 caught in process/fiber", ASA, "cisco.asa",
         {"message_id": "199010", "message": "Signal 11 caught in process/fiber"}),
    Case(": %ASA-session-6-302013: Built", FIREWALL, "cisco.asa", {"message_id": "302013", "src_ip": None}),
]  # fmt: skip

CEF = [
    Case(
        r"CEF:0|Example\|Works|Guard|1.2|100|worm \| stopped|8|rt=1772272800123 src=192.0.2.7 spt=1232 dst=198.51.100.9 "
        r"dpt=25 suser=a.durand act=blocked msg=a \= b\nc C:\temp request=http://x.example/?a\=b filePath=C:\\Temp\\a.exe "
        "cs1=gold cs1Label=Policy",
        LogSource("cef"), "cef",
        {"device_vendor": "Example|Works", "name": "worm | stopped", "severity": "8", "src_ip": "192.0.2.7",
         "@timestamp": datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC), "user.name": "a.durand", "blocked": "true",
         "msg": "a = b\nc C:\\temp", "request": "http://x.example/?a=b", "c-uri": "http://x.example/?a=b",
         "Filename": "C:\\Temp\\a.exe", "cs1": "gold", "cs1Label": "Policy", "cef_version": "0", "dst_port": "25"},
    ),
    Case("CEF:0|Example|Guard|1.2|100|login|3|rt=Feb 28 2026 10:00:00.500 UTC dvchost=guard1 duser=b src=192.0.2.7",
         LogSource("cef"), "cef",
         {"@timestamp": datetime(2026, 2, 28, 10, 0, 0, 500000, tzinfo=UTC), "host.name": "guard1", "user.name": "b"}),
    Case("CEF:0|Example|Guard|1.2|100|login|3|start=Feb 28 2026 11:00:00 GMT+01:00", LogSource("cef"), "cef",
         {"@timestamp": SENT}),
    Case("CEF:0|Palo Alto Networks|PAN-OS|11.0|end|TRAFFIC|1|rt=Feb 28 2026 10:00:00 src=192.0.2.7 dst=198.51.100.9 dpt=443 "
         "act=allow", LogSource("paloalto", "firewall", "traffic"), "cef", {"dst_ip": "198.51.100.9", "blocked": "false"}),
    Case("CEF:1|Example|Guard|1.2|100|no extension|3|", LogSource("cef"), "cef", {"name": "no extension"}),
    Case("CEF:0|Example|Guard|1.2", LogSource("cef"), "cef",
         {"device_product": "Guard", "error.message": "cut CEF header: only what is whole is read"}),
]  # fmt: skip

LEEF = [
    Case("LEEF:1.0|Example|Guard|1.2|login|devTime=Feb 28 2026 10:00:00\tusrName=a.durand\tsrc=192.0.2.7\tdst=198.51.100.9\t"
         "srcPort=4321\tmsg=a b=c d", LogSource("leef"), "leef",
         {"event_id": "login", "user.name": "a.durand", "src_ip": "192.0.2.7", "src_port": "4321", "msg": "a b=c d",
          "destination.ip": "198.51.100.9", "@timestamp": SENT, "leef_version": "1.0"}),
    Case("LEEF:2.0|Example|Guard|1.2|login|^|devTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ^devTime=2026-02-28T11:00:00.060+0100^"
         "usrName=a^name=b c", LogSource("leef"), "leef",
         {"@timestamp": datetime(2026, 2, 28, 10, 0, 0, 60000, tzinfo=UTC), "name": "b c", "user.name": "a"}),
    Case("LEEF:2.0|Example|Guard|1.2|login|x5E|usrName=a^devTimeFormat=dd/MM/yyyy HH:mm:ss^devTime=28/02/2026 10:00:00",
         LogSource("leef"), "leef", {"@timestamp": SENT, "user.name": "a"}),
    Case("LEEF:2.0|Example|Guard|1.2|login|usrName=a\tdevTime=1772272800000", LogSource("leef"), "leef",
         {"@timestamp": SENT, "user.name": "a"}),
    # spaces where tabs should be
    Case("LEEF:1.0|Example|Guard|1.2|login|usrName=a b src=192.0.2.7", LogSource("leef"), "leef",
         {"user.name": "a b", "source.ip": "192.0.2.7"}),
    Case("LEEF:1.0|Example|Guard", LogSource("leef"), "leef",
         {"error.message": "cut LEEF header: only what is whole is read"}),
]  # fmt: skip

SQUID_SOURCE = LogSource("squid", "proxy")
SQUID = [
    Case("1772272800.123     45 192.0.2.7 TCP_MISS/200 5120 GET http://www.example.org/a/b.exe?x=1 a.durand "
         "HIER_DIRECT/198.51.100.8 text/html", SQUID_SOURCE, "squid.access",
         {"@timestamp": datetime(2026, 2, 28, 10, 0, 0, 123000, tzinfo=UTC), "c-ip": "192.0.2.7", "source.ip": "192.0.2.7",
          "cs-username": "a.durand", "user.name": "a.durand", "cs-method": "GET", "sc-status": "200",
          "c-uri": "http://www.example.org/a/b.exe?x=1", "c-uri-query": "x=1", "c-uri-extension": "exe",
          "c-uri-stem": "/a/b.exe", "cs-host": "www.example.org", "r-dns": "www.example.org", "dst_ip": "198.51.100.8",
          "destination.ip": "198.51.100.8", "result_code": "TCP_MISS", "content_type": "text/html"}, HOSTED),
    Case("1772272800.123   2045 192.0.2.7 TCP_TUNNEL/200 5120 CONNECT www.example.org:443 - HIER_DIRECT/198.51.100.8 -",
         SQUID_SOURCE, "squid.access",
         {"cs-method": "CONNECT", "cs-host": "www.example.org", "cs-username": None, "c-uri": "www.example.org:443"}, HOSTED),
    Case("1772272800.123      0 192.0.2.7 TCP_DENIED/403 3900 GET http://user:pw@[2001:db8::1]:81/ - HIER_NONE/- text/html",
         SQUID_SOURCE, "squid.access", {"cs-host": "2001:db8::1", "dst_ip": None, "sc-status": "403"}, HOSTED),
    Case('192.0.2.7 - a.durand [28/Feb/2026:11:00:00 +0100] "GET http://www.example.org/ HTTP/1.1" 200 512 "-" "curl/8.5" '
         "TCP_MISS:HIER_DIRECT", SQUID_SOURCE, "squid.access",
         {"@timestamp": SENT, "cs-host": "www.example.org", "c-useragent": "curl/8.5", "result_code": "TCP_MISS"}, HOSTED),
    Case("1772272800.123      0 192.0.2.7 TCP_DENIED/403 3900 GET http://www.exam", SQUID_SOURCE, "squid.access",
         {"c-uri": "http://www.exam", "error.message": "cut record: only what is whole is read"}, HOSTED),
]  # fmt: skip

WEB = LogSource(None, "webserver")
WEB_ACCESS = [
    Case('203.0.113.9 - - [28/Feb/2026:11:00:00 +0100] "GET /owa/auth/x.aspx?cmd=id HTTP/1.1" 404 209', WEB, "web.access",
         {"@timestamp": SENT, "c-ip": "203.0.113.9", "source.ip": "203.0.113.9", "cs-method": "GET", "sc-status": "404",
          "cs-uri-query": "/owa/auth/x.aspx?cmd=id", "cs-uri-stem": "/owa/auth/x.aspx", "cs-username": None,
          "sc-bytes": "209", "cs-version": "HTTP/1.1", "cs-user-agent": None}, HOSTED),
    # behind a header without a tag, `2001:` would be one
    Case('2001:db8::9 - alice [28/Feb/2026:11:00:00 +0100] "POST /a HTTP/2.0" 200 - "https://r.example/" "curl \\"x\\" 8"', WEB,
         "web.access", {"source.ip": "2001:db8::9", "user.name": "alice", "cs-referer": "https://r.example/",
                        "cs-user-agent": 'curl \\"x\\" 8', "sc-bytes": None},
         headers=("", "<134>1 2026-02-28T10:00:00Z web01 - - - - ")),
    Case('www.example.org:443 203.0.113.9 - - [28/Feb/2026:11:00:00 +0100] "\\x16\\x03\\x01" 400 226 "-" "-"', WEB, "web.access",
         {"cs-host": "www.example.org:443", "source.ip": "203.0.113.9", "request": "\\x16\\x03\\x01", "cs-method": None,
          "cs-referer": None},
         headers=("", "<134>1 2026-02-28T10:00:00Z web01 - - - - ")),
    Case('203.0.113.9 - - [28/Feb/2026:11:00:00 +0100] "GET /a', WEB, "web.access",
         {"cs-method": "GET", "cs-uri-query": "/a", "error.message": "cut record"}, HOSTED),
    Case('203.0.113.9 - - [28/Feb/2026:11:00:00 +0100] "GET / HTTP/1.1" 200 1 "-" "x" "198.51.100.1"',
         LogSource("nginx", "webserver", "nginx"), "web.access", {"rest": '"198.51.100.1"'},
         headers=("<190>Feb 28 10:00:00 web01 nginx: ", "<134>1 2026-02-28T10:00:00Z web01 nginx - - - ")),
    Case('203.0.113.9 - - [28/Feb/2026:11:00:00 +0100] "GET / HTTP/1.1" 200 1', LogSource("apache", "webserver", "apache"),
         "web.access", {"sc-status": "200"}, headers=("<190>Feb 28 10:00:00 web01 httpd[12]: ",)),
]  # fmt: skip
WEB_ERROR = [
    Case('2026/02/28 10:00:00 [error] 12#34: *5 open() "/srv/a" failed (2: No such file or directory), client: 203.0.113.9, '
         'server: www.example.org, request: "GET /a HTTP/1.1", host: "www.example.org"', LogSource("nginx", None, "nginx"),
         "web.error", {"@timestamp": SENT, "level": "error", "c-ip": "203.0.113.9", "source.ip": "203.0.113.9",
                       "message": 'open() "/srv/a" failed (2: No such file or directory)',
                       "request": "GET /a HTTP/1.1", "cs-host": "www.example.org", "process.pid": "12"}, HOSTED),
    Case("2026/02/28 10:00:00 [alert] 12#12: worker process 13 exited on signal 6 (core dumped)",
         LogSource("nginx", None, "nginx"), "web.error",
         {"message": "worker process 13 exited on signal 6 (core dumped)", "c-ip": None}, HOSTED),
    Case("[Sat Feb 28 10:00:00.123456 2026] [core:error] [pid 12:tid 34] [client 203.0.113.9:4321] AH00126: Invalid URI",
         LogSource("apache", None, "apache"), "web.error",
         {"@timestamp": datetime(2026, 2, 28, 10, 0, 0, 123456, tzinfo=UTC), "level": "error", "code": "AH00126",
          "source.ip": "203.0.113.9", "c-port": "4321", "message": "Invalid URI", "module": "core"}),
    Case("[Sat Feb 28 10:00:00 2026] [notice] child pid 12 exit signal Segmentation fault (11)",
         LogSource("apache", None, "apache"), "web.error", {"@timestamp": SENT, "level": "notice"}),
]  # fmt: skip

NAMED = ("<30>Feb 28 10:00:00 ns1 named[12]: ", "<30>1 2026-02-28T10:00:00Z ns1 named 12 - - ", "")
MASQ = (
    "<30>Feb 28 10:00:00 gw dnsmasq[12]: ",
    "<30>1 2026-02-28T10:00:00Z gw dnsmasq 12 - - ",
    "Feb 28 10:00:00 dnsmasq[12]: ",
)
BIND = LogSource("bind", "dns")
DNSMASQ = LogSource("dnsmasq", "dns")
DNS = [
    Case("client @0x7f00a 192.0.2.7#53124 (www.example.org): query: www.example.org IN A +E(0)K (192.0.2.53)", BIND, "dns.bind",
         {"query": "www.example.org", "record_type": "A", "src_ip": "192.0.2.7", "source.ip": "192.0.2.7",
          "src_port": "53124", "destination.ip": "192.0.2.53", "flags": "+E(0)K", "QueryName": "www.example.org"}, NAMED),
    Case("28-Feb-2026 10:00:00.250 queries: info: client 2001:db8::7#53124 (x.example): view inside: query: x.example. IN TXT + "
         "(2001:db8::53)", BIND, "dns.bind",
         {"@timestamp": datetime(2026, 2, 28, 10, 0, 0, 250000, tzinfo=UTC), "query": "x.example", "view": "inside",
          "record_type": "TXT", "source.ip": "2001:db8::7"}, NAMED),
    Case("client @0x7f00a 203.0.113.9#53 (example.org): query (cache) 'example.org/ANY/IN' denied", BIND, "dns.bind",
         {"query": "example.org", "record_type": "ANY", "outcome": "denied", "source.ip": "203.0.113.9"}, NAMED),
    Case("query[TXT] aaa.stage.1.example.org from 192.0.2.7", DNSMASQ, "dns.dnsmasq",
         {"query": "aaa.stage.1.example.org", "record_type": "TXT", "source.ip": "192.0.2.7", "step": "query"}, MASQ),
    Case("12 192.0.2.7/53124 reply www.example.org is 198.51.100.9", DNSMASQ, "dns.dnsmasq",
         {"query": "www.example.org", "answer": "198.51.100.9", "step": "reply", "serial": "12", "source.ip": "192.0.2.7"}, MASQ),
    Case("forwarded www.example.org to 198.51.100.53", DNSMASQ, "dns.dnsmasq",
         {"forwarder": "198.51.100.53", "query": "www.example.org"}, MASQ),
]  # fmt: skip

VPN = LogSource("openvpn", "vpn")
OVPN = ("<29>Feb 28 10:00:00 gw openvpn[12]: ", "<29>Feb 28 10:00:00 gw ovpn-server[12]: ",
        "<29>1 2026-02-28T10:00:00Z gw openvpn 12 - - ", "2026-02-28 10:00:00 ")  # fmt: skip
OPENVPN = [
    Case("203.0.113.9:1194 TLS: Initial packet from [AF_INET]203.0.113.9:1194, sid=1 2", VPN, "openvpn",
         {"@timestamp": SENT, "source.ip": "203.0.113.9", "src_port": "1194", "action": "connect", "user.name": None}, OVPN),
    Case("203.0.113.9:1194 VERIFY OK: depth=0, C=FR, O=CHU, CN=a.durand", VPN, "openvpn",
         {"user.name": "a.durand", "outcome": "success", "action": "authenticate"}, OVPN),
    Case("203.0.113.9:1194 TLS: Username/Password authentication succeeded for username 'b.martin' ", VPN, "openvpn",
         {"user.name": "b.martin", "outcome": "success"}, OVPN),
    Case("203.0.113.9:1194 TLS Auth Error: Auth Username/Password verification failed for peer", VPN, "openvpn",
         {"outcome": "failure", "source.ip": "203.0.113.9"}, OVPN),
    Case("203.0.113.9:1194 [a.durand] Peer Connection Initiated with [AF_INET]203.0.113.9:1194", VPN, "openvpn",
         {"user.name": "a.durand", "action": "connected", "outcome": "success"}, OVPN),
    Case("a.durand/203.0.113.9:1194 MULTI_sva: pool returned IPv4=10.8.0.6, IPv6=(Not enabled)", VPN, "openvpn",
         {"user.name": "a.durand", "assigned_ip": "10.8.0.6", "source.ip": "203.0.113.9", "common_name": "a.durand"}, OVPN),
    Case("a.durand/203.0.113.9:1194 SIGTERM[soft,remote-exit] received, client-instance exiting", VPN, "openvpn",
         {"action": "disconnected", "reason": "SIGTERM[soft,remote-exit]"}, OVPN),
    Case("Initialization Sequence Completed", VPN, "openvpn", {"message": "Initialization Sequence Completed"}, OVPN[:3]),
]  # fmt: skip

LINUX = LogSource("linux", None, "syslog")
PAIRS = [
    Case('vendor=Example host=nac1 user=a.durand src=192.0.2.7 dst=198.51.100.9 msg="a b" ', LogSource(), "key_value",
         {"user.name": "a.durand", "source.ip": "192.0.2.7", "src_ip": "192.0.2.7", "msg": "a b", "host.name": "nac1"}),
    Case("IN=eth0 OUT= MAC=aa SRC=203.0.113.9 DST=192.0.2.80 PROTO=TCP SPT=4321 DPT=22", LINUX, "key_value",
         {"src": "203.0.113.9", "src_ip": "203.0.113.9", "dst_port": "22", "process.name": "kernel",
          "message": "IN=eth0 OUT= MAC=aa SRC=203.0.113.9 DST=192.0.2.80 PROTO=TCP SPT=4321 DPT=22",
          "source.ip": "203.0.113.9"},
         ("<4>Feb 28 10:00:00 gw kernel: ",)),
    # FortiMail, FortiWeb and Sophos: day and time of day apart
    Case("date=2026-02-28 time=10:00:00 device_id=FV400 log_id=20000010 type=attack src=203.0.113.9 dst=192.0.2.80 ", LogSource(),
         "key_value", {"@timestamp": SENT, "source.ip": "203.0.113.9", "error.message": None}),
    Case('device="SFW" date=2026-02-28 time=11:00:00 tz="+0100" log_id=1 src_ip=203.0.113.9 ', LogSource(), "key_value",
         {"@timestamp": SENT, "source.ip": "203.0.113.9", "error.message": None}),
    Case('time="2026-02-28T11:00:00+01:00" level=info msg="started" id=1 ', LINUX, "key_value",
         {"@timestamp": SENT, "msg": "started", "level": "info"}, ("<30>Feb 28 10:00:00 gw dockerd[7]: ",)),
]  # fmt: skip

ALL = [
    *STORMSHIELD, *FORTIGATE, *FORTIGATE_CEF, *PALO_ALTO, *CISCO_ASA, *CEF, *LEEF, *SQUID, *WEB_ACCESS, *WEB_ERROR, *DNS,
    *OPENVPN, *PAIRS,
]  # fmt: skip

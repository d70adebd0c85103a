# ruff: noqa: E501  (log lines are long)
"""SigmaHQ's rules fire on what devices and servers write: an invented line of each attack, and one beside it that is none.

The names of fields and log sources that the formats give are right only if rules that nobody wrote for us find them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from detections.load import load_rules
from detections.plan import Plan
from ingest.parse import parse
from raw_lines import batch

FOLDERS = (
    "rules/network", "rules/web", "rules/category", "rules/linux/process_creation",
    "rules/windows/builtin/security/account_management", "rules/windows/builtin/system/service_control_manager",
    "rules-emerging-threats/2024/Exploits/CVE-2024-3400",
)  # fmt: skip
FILES = (
    "rules/windows/builtin/security/win_security_audit_log_cleared.yml",
    "rules/windows/process_creation/proc_creation_win_susp_shadow_copies_deletion.yml",
)


@dataclass(frozen=True, slots=True)
class Attack:
    """A rule, a line that it must find, and one of the same device that it must not."""

    rule: str
    line: str
    other: str


CLEARTEXT = "d7fb8f0e-bd5f-45c2-b467-19571c490d7e"
TELEGRAM = "b494b165-6634-483d-8c47-2026a6c52372"
TELEGRAM_DNS = "c64c5175-5189-431b-a55e-6d9882158251"
KILLSWITCH = "3eaf6218-3bed-4d8a-8707-274096f12a18"
HACKTOOL = "fa0c05b6-8ad3-468d-8231-c1cbccb64fba"
RANSOMWARE = "4c6ca276-d4d0-4a8c-9e4c-d69832f8671f"
NO_LOGGING = "9e8f6035-88bf-4a63-96b6-b17c0508257e"
NEW_ADMIN = "cd0a4943-0edd-42cf-b50c-06f77a10d4c1"

FG = '<189>date=2026-02-28 time=11:00:00 devname="fw" devid="F" eventtime=1772272800123456789 tz="+0100" '
SNS = '<134>id=firewall time="2026-02-28 11:00:00" fw="SN" tz=+0100 startime="2026-02-28 11:00:00" '
PAN = "<14>Feb 28 10:00:00 pa 1,2026/02/28 10:00:00,0018,"
PAN_SESSION = (
    "2561,2026/02/28 10:00:00,192.0.2.7,203.0.113.9,0.0.0.0,0.0.0.0,r,,,web,vsys1,in,out,e1,e2,fwd,,1,1,51000,"
)
WEB = '<13>Feb 28 10:00:00 web1 apache2: 203.0.113.9 - - [28/Feb/2026:11:00:00 +0100] "GET {} HTTP/1.1" 200 512 "-" "Mozilla/5.0"'
SQUID = '<134>Feb 28 10:00:00 px squid[7]: 192.0.2.7 - - [28/Feb/2026:11:00:00 +0100] "GET http://www.example.org/a HTTP/1.1" 200 5120 "-" "{}" TCP_MISS:HIER_DIRECT'
BIND = "<30>Feb 28 10:00:00 ns1 named[12]: client @0x7f 192.0.2.7#53124 ({0}): query: {0} IN A +E(0)K (192.0.2.53)"
ASA = "<166>Feb 28 2026 10:00:00 asa1 : "
FG_AV = (
    FG
    + 'logid="0211008192" type="utm" subtype="virus" eventtype="infected" level="warning" vd="root" action="blocked" srcip=203.0.113.9 dstip=192.0.2.7 filename="a.exe" virus="{}"'
)
FG_ADD = (
    FG
    + 'logid="0100044547" type="event" subtype="system" level="information" vd="root" user="admin" action="Add" cfgpath="{}" cfgobj="x"'
)
FG_CEF = "<189>Feb 28 10:00:00 fw CEF: 0|Fortinet|Fortigate|v7.2.0|44547|event:system|2|cat=event:system FTNTFGTsubtype=system FTNTFGTlogid=0100044547 duser=admin act=Add FTNTFGTcfgpath={} FTNTFGTcfgobj=x"
FG_WEB = (
    FG
    + 'logid="0316013056" type="utm" subtype="webfilter" action="passthrough" srcip=192.0.2.7 dstip=203.0.113.9 hostname="{0}" url="https://{0}/a"'
)
SNS_WEB = (
    SNS
    + 'proto=ssl op=GET result=200 src=192.0.2.7 dst=203.0.113.9 dstname={} arg="/a" action=pass cat_site="x" logtype="web"'
)
SCM = "<13>Feb 28 11:00:00 srv1 Service_Control_Manager[600]: Un service a été installé sur le système.#015#012#015#012Nom du service :  {}#015#012Nom du fichier de service :  {}#015#012Type de service :  service en mode utilisateur#015#012Type de démarrage du service :  Démarrage à la demande#015#012Compte de service :  LocalSystem"
CREATED = (
    "<13>Feb 28 11:00:00 pc1 Microsoft-Windows-Security-Auditing[4]: Un nouveau processus a été créé.#015#012#015#012Objet créateur :"
    "#015#012#011Nom du compte :#011#011alice#015#012#015#012Informations sur le processus :#015#012#011ID du nouveau processus :#011#0110x1a4"
    "#015#012#011Nom du nouveau processus :#011C:\\Windows\\System32\\vssadmin.exe#015#012#011Ligne de commande du processus :#011vssadmin.exe {}"
)
SNARE = "<14>Feb 28 10:00:00 dc01 MSWinEventLog\t1\tSecurity\t287\tSat Feb 28 11:00:00 2026\t{}\t{}\tN/A\tN/A\tSuccess Audit\tdc01\tx\t\t{}\t12345"
MEMBER = "<13>Feb 28 11:00:00 dc01 Microsoft-Windows-Security-Auditing[4]: Un membre a été {} un groupe global dont la sécurité est activée.#015#012#015#012Objet :#015#012#011Nom du compte :#011#011admin"
RDP = '{{"_path":"rdp","ts":1772272800.1,"uid":"C1","id.orig_h":"{}","id.orig_p":4321,"id.resp_h":"192.0.2.80","id.resp_p":3389,"cookie":"a","result":"Success"}}'
TOR = '{{"ts":1772272800.1,"uid":"C1","id.orig_h":"192.0.2.7","id.orig_p":5353,"id.resp_h":"192.0.2.53","id.resp_p":53,"proto":"udp","query":"{}","qtype_name":"A","rejected":false}}'
GATE = (
    PAN
    + "GLOBALPROTECT,0,2561,2026/02/28 10:00:00,vsys1,gateway-auth,login,,,,FR,pc,203.0.113.9,,,,,,6.0,Linux,,1,,{},,failure"
)

ATTACKS: dict[str, Attack] = {
    "firewall, ASA built": Attack(CLEARTEXT,
        ASA + "%ASA-6-302013: Built outbound TCP connection 8 for outside:198.51.100.9/23 (198.51.100.9/23) to inside:192.0.2.7/51000 (203.0.113.1/51000)",
        ASA + "%ASA-6-302013: Built outbound TCP connection 8 for outside:198.51.100.9/443 (198.51.100.9/443) to inside:192.0.2.7/5900 (203.0.113.1/5900)"),
    "firewall, ASA access list": Attack(CLEARTEXT,
        ASA + "%ASA-6-106100: access-list in permitted tcp inside/192.0.2.7(51000) -> outside/198.51.100.9(21) hit-cnt 1 first hit [0x1, 0x0]",
        ASA + "%ASA-6-106100: access-list in denied tcp inside/192.0.2.7(51000) -> outside/198.51.100.9(21) hit-cnt 1 first hit [0x1, 0x0]"),
    "firewall, FortiGate": Attack(CLEARTEXT,
        FG + 'logid="0000000013" type="traffic" subtype="forward" srcip=192.0.2.7 srcport=51000 dstip=203.0.113.9 dstport=23 action="close"',
        FG + 'logid="0000000013" type="traffic" subtype="forward" srcip=192.0.2.7 srcport=51000 dstip=203.0.113.9 dstport=23 action="deny"'),
    "firewall, Stormshield": Attack(CLEARTEXT,
        SNS + 'src=192.0.2.7 srcport=51000 dst=203.0.113.9 dstport=3306 action=pass logtype="connection"',
        SNS + 'src=192.0.2.7 srcport=51000 dst=203.0.113.9 dstport=3306 action=block logtype="filter"'),
    "firewall, Palo Alto": Attack(CLEARTEXT,
        PAN + "TRAFFIC,end," + PAN_SESSION + "80,0,0,0x0,tcp,allow,1,1,1,1",
        PAN + "TRAFFIC,drop," + PAN_SESSION + "80,0,0,0x0,tcp,deny,1,1,1,1"),
    "proxy, Squid": Attack("c8557060-9221-4448-8794-96320e6f3e74",
        SQUID.format("Mozilla/5.0 (Windows NT; fr-FR) WindowsPowerShell/5.1.19041"), SQUID.format("Mozilla/5.0")),
    "proxy, Squid tunnel": Attack(TELEGRAM,
        "1772272800.123 345 192.0.2.7 TCP_TUNNEL/200 5120 CONNECT api.telegram.org:443 - HIER_DIRECT/203.0.113.9 -",
        "1772272800.123 345 192.0.2.7 TCP_TUNNEL/200 5120 CONNECT www.example.org:443 - HIER_DIRECT/203.0.113.9 -"),
    "proxy, FortiGate": Attack(TELEGRAM, FG_WEB.format("api.telegram.org"), FG_WEB.format("www.example.org")),
    "proxy, Stormshield": Attack(TELEGRAM, SNS_WEB.format("api.telegram.org"), SNS_WEB.format("www.example.org")),
    "proxy, Palo Alto": Attack(TELEGRAM,
        PAN + "THREAT,url," + PAN_SESSION + '443,0,0,0x0,tcp,alert,"api.telegram.org/bot1,2",(9999),any,informational,client-to-server',
        PAN + "THREAT,url," + PAN_SESSION + '443,0,0,0x0,tcp,alert,"www.example.org/bot",(9999),any,informational,client-to-server'),
    "webserver, SQL": Attack("5513deaf-f49a-46c2-a6c8-3f111b5cb453", WEB.format("/a?id=1%20UNION%20SELECT%201"), WEB.format("/a?id=1")),
    "webserver, JNDI": Attack("412d55bc-7737-4d25-9542-5b396867ce55", WEB.format("/a?x=/Basic/ReverseShell/203.0.113.9/1"), WEB.format("/a")),
    "webserver, traversal": Attack("7745c2ea-24a5-4290-b680-04359cb84b35", WEB.format("/cgi/../../../../../etc/passwd"), WEB.format("/etc/passwd")),
    "nginx": Attack("59ec40bb-322e-40ab-808d-84fa690d7e56",
        "<11>Feb 28 11:00:00 web1 nginx: 2026/02/28 11:00:00 [alert] 12#12: worker process 34 exited on signal 6 (core dumped)",
        "<11>Feb 28 11:00:00 web1 nginx: 2026/02/28 11:00:00 [alert] 12#12: worker process 34 exited on signal 9"),
    "apache": Attack("1da8ce0b-855d-4004-8860-7d64d42063b1",
        "[Sat Feb 28 11:00:00.123456 2026] [core:notice] [pid 12:tid 34] AH00051: child pid 56 exit signal Segmentation fault (11)",
        "[Sat Feb 28 11:00:00.123456 2026] [core:notice] [pid 12:tid 34] AH00094: Command line: '/usr/sbin/apache2'"),
    "dns, BIND": Attack(KILLSWITCH, BIND.format("iuqssfsodp9ifjaposdfjhgosurijfaewrwergwea.com"), BIND.format("www.example.org")),
    "dns, dnsmasq": Attack(TELEGRAM_DNS,
        "<30>Feb 28 10:00:00 gw dnsmasq[7]: query[A] api.telegram.org from 192.0.2.7",
        "<30>Feb 28 10:00:00 gw dnsmasq[7]: query[A] www.example.org from 192.0.2.7"),
    "dns, FortiGate": Attack(TELEGRAM_DNS,
        FG + 'logid="1500054000" type="utm" subtype="dns" eventtype="dns-query" srcip=192.0.2.7 dstip=192.0.2.53 qname="api.telegram.org" qtype="A" action="pass"',
        FG + 'logid="1500054000" type="utm" subtype="dns" eventtype="dns-query" srcip=192.0.2.7 dstip=192.0.2.53 qname="www.example.org" qtype="A" action="pass"'),
    "antivirus, FortiGate": Attack(HACKTOOL, FG_AV.format("W64/Mimikatz.A!tr"), FG_AV.format("EICAR_TEST_FILE")),
    "antivirus, Palo Alto": Attack(RANSOMWARE,
        PAN + "THREAT,virus," + PAN_SESSION + '80,0,0,0x0,tcp,reset-both,"a.exe",Ransom/Win32.lockbit.a(280000001),any,medium,server-to-client',
        PAN + "THREAT,virus," + PAN_SESSION + '80,0,0,0x0,tcp,reset-both,"a.exe",Eicar Test File(39040),any,medium,server-to-client'),
    "cisco, IOS": Attack(NO_LOGGING,
        "<189>45: sw01: *Feb 28 10:00:00.123: %PARSER-5-CFGLOG_LOGGEDCMD: User:admin  logged command:no logging host 192.0.2.9",
        "<189>45: sw01: *Feb 28 10:00:00.123: %PARSER-5-CFGLOG_LOGGEDCMD: User:admin  logged command:interface Vlan10"),
    "cisco, ASA": Attack(NO_LOGGING,
        ASA + "%ASA-5-111010: User 'admin', running 'CLI' from IP 192.0.2.30, executed 'no logging enable'",
        ASA + "%ASA-5-111010: User 'admin', running 'CLI' from IP 192.0.2.30, executed 'write memory'"),
    "fortigate, event": Attack(NEW_ADMIN, FG_ADD.format("system.admin"), FG_ADD.format("system.interface")),
    "fortigate, event as CEF": Attack(NEW_ADMIN, FG_CEF.format("system.admin"), FG_CEF.format("system.interface")),
    "paloalto": Attack("f130a5f1-73ba-42f0-bf1e-b66a8361cb8f", GATE.format("failed to unmarshal session(../../x)"), GATE.format("invalid")),
    "zeek, rdp": Attack("1fc0809e-06bf-4de3-ad52-25e5263b7623", RDP.format("203.0.113.9"), RDP.format("10.0.0.9")),
    "zeek, dns": Attack("a8322756-015c-42e7-afb1-436e85ed3ff5", TOR.format("a.onion.to"), TOR.format("www.example.org")),
    "linux, ESXi": Attack("5f1573a7-363b-4114-9208-ad7a61de46eb",
        "<14>2026-02-28T10:00:00Z esx01 shell[2100]: [root]: esxcli vm process list",
        "<14>2026-02-28T10:00:00Z esx01 shell[2100]: [root]: esxcli system version get"),
    "windows, French 4688": Attack("c947b146-0abc-4c87-9c64-b17e9d7274a2", CREATED.format("delete shadows /all /quiet"), CREATED.format("list shadows")),
    "windows, French 7045": Attack("42c575ea-e41e-41f1-b248-8093c3e82a28", SCM.format("PSEXESVC", r"%SystemRoot%\PSEXESVC.exe"), SCM.format("Veille", r"C:\veille.exe")),
    "windows, French 4728": Attack("c43c26be-2e87-46c7-8661-284588c5a53e", MEMBER.format("ajouté à"), MEMBER.format("supprimé d’")),
    "windows, Snare 1102": Attack("d99b79d2-0a6f-4f46-ad8b-260b6e17f982",
        SNARE.format(1102, "Microsoft-Windows-Eventlog", "The audit log was cleared.  Subject:  Account Name: admin"),
        SNARE.format(1100, "Microsoft-Windows-Eventlog", "The event logging service has shut down.")),
}  # fmt: skip


@pytest.fixture(scope="module")
def plan(shared_data: Path) -> Plan:
    pack = load_rules([shared_data / "sigmahq" / name for name in (*FOLDERS, *FILES)])
    return Plan.build(pack.rules)


def found(plan: Plan, line: str) -> set[str]:
    return {str(rule) for frame in parse(batch([line.encode()])) for rule in plan.match(frame)["rule_id"].to_list()}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_the_rule_finds_the_attack_and_not_its_neighbour(plan: Plan, attack: Attack) -> None:
    assert attack.rule in found(plan, attack.line)
    assert attack.rule not in found(plan, attack.other)

# ruff: noqa: E501  (log lines are long)
"""The lines that `benchmarks.parse_formats` measures of devices, systems and hospital programs: one template a format.

Every name and address is invented. In a template `{n}` is the number of the line, `{s}` its second, `{ip}` an address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

Template = Callable[[int], str]


def _line(text: str) -> Template:
    """Lines of one text in which the number, the second and the address vary."""

    def line(number: int) -> str:
        filled = text.replace("{n}", str(number)).replace("{s}", f"{number % 60:02}")
        return filled.replace("{ip}", f"192.0.2.{number % 250}")

    return line


_FORTIGATE: Final = (
    '<189>date=2026-07-01 time=13:59:{s} devname="fw01" devid="FGT60FTK00000001" eventtime=17829071{s}123456789 tz="+0200" '
    'logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip={ip} srcport=51{s} srcintf="lan" '
    'srcintfrole="lan" dstip=203.0.113.80 dstport=443 dstintf="wan1" dstintfrole="wan" srccountry="Reserved" '
    'dstcountry="France" sessionid={n} proto=6 action="close" policyid=12 policytype="policy" service="HTTPS" '
    'trandisp="snat" transip=198.51.100.2 transport=51{s} duration=30 sentbyte={n} rcvdbyte=9000 sentpkt=10 rcvdpkt=12'
)
_FORTIGATE_CEF: Final = (
    "<189>Jul  1 13:59:{s} fw01 CEF: 0|Fortinet|Fortigate|v7.2.8|00013|traffic:forward close|3|deviceExternalId=FGT60F "
    "FTNTFGTeventtime=17829071{s}123456789 FTNTFGTtz=+0200 FTNTFGTlogid=0000000013 cat=traffic:forward "
    "FTNTFGTsubtype=forward FTNTFGTlevel=notice FTNTFGTvd=root src={ip} spt=51{s} deviceInboundInterface=lan "
    "dst=203.0.113.80 dpt=443 deviceOutboundInterface=wan1 externalId={n} proto=6 act=close FTNTFGTpolicyid=12 app=HTTPS "
    "FTNTFGTdstcountry=France FTNTFGTduration=30 out={n} in=9000"
)
_STORMSHIELD: Final = (
    '<134>1 2026-07-01T13:59:{s}+02:00 SN310 asqd - - - id=firewall time="2026-07-01 13:59:{s}" fw="SN310" tz=+0200 '
    'startime="2026-07-01 13:59:{s}" pri=5 confid=01 slotlevel=2 ruleid={n} srcif="Ethernet1" srcifname="in" ipproto=tcp '
    'dstif="Ethernet0" dstifname="out" proto=https src={ip} srcport=51{s} srcportname=ephemeral_fw_tcp srcname=pc{n} '
    "dst=203.0.113.80 dstport=443 dstportname=https ipv=4 sent={n} rcvd=9000 duration=30.05 action=pass "
    'logtype="connection"'
)
_PALO_ALTO: Final = (
    "<14>Jul  1 13:59:{s} pa-1 1,2026/07/01 13:59:{s},007051000000001,TRAFFIC,end,2561,2026/07/01 13:59:{s},{ip},203.0.113.80,"
    "198.51.100.2,203.0.113.80,Internet,kermor\\u{n},,ssl,vsys1,trust,untrust,ethernet1/2,ethernet1/1,Forward,"
    "2026/07/01 13:59:{s},{n},1,51{s},443,51{s},443,0x400053,tcp,allow,7312,2228,5084,22,2026/07/01 13:59:00,16,business,0,{n},"
    "0x8000000000000000,10.0.0.0-10.255.255.255,France,0,12,10,tcp-fin,0,0,0,0,,pa-1,from-policy,,,0,,0,,N/A,0,0,0,0,uuid,0"
)
_ASA: Final = (
    "<166>Jul 01 2026 13:59:{s} asa1 : %ASA-6-302013: Built outbound TCP connection {n} for outside:203.0.113.80/443 "
    "(203.0.113.80/443) to inside:{ip}/51{s} (198.51.100.2/51{s})"
)
_CEF: Final = (
    "<134>Jul  1 13:59:{s} av1 CEF:0|Example|Sensor|4.1|100{s}|Process blocked|6|rt=17829071{s}123 src={ip} suser=u{n} "
    "dhost=pc{n} act=blocked filePath=/srv/data/f{n}.bin cs1Label=Policy cs1=Default servers msg=stopped before it ran"
)
_LEEF: Final = (
    "<134>Jul  1 13:59:{s} ids1 LEEF:1.0|Example|Sensor|4.1|{s}|devTime=17829071{s}123\tsrc={ip}\tdst=203.0.113.80\t"
    "srcPort=51{s}\tdstPort=443\tusrName=u{n}\tsev=5\tproto=TCP\tpolicy=Default servers"
)
_SQUID: Final = (
    "<134>Jul  1 13:59:{s} px1 squid[812]: 17829071{s}.123    45 {ip} TCP_TUNNEL/200 51{s} CONNECT www{n}.example.org:443 "
    "u{n} HIER_DIRECT/203.0.113.80 -"
)
_WEB: Final = (
    '<134>Jul  1 13:59:{s} web1 apache2: {ip} - u{n} [01/Jul/2026:13:59:{s} +0200] "GET /dossier/{n}?vue=a HTTP/1.1" 200 '
    '51{s} "https://intranet.example.org/" "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"'
)
_BIND: Final = (
    "<30>Jul  1 13:59:{s} ns1 named[812]: client @0x7f12 {ip}#53124 (h{n}.example.org): query: h{n}.example.org IN A "
    "+E(0)K (192.0.2.53)"
)
_SNARE: Final = (
    "<14>Jul  1 13:59:{s} dc01 MSWinEventLog\t1\tSecurity\t{n}\tWed Jul 01 13:59:{s} 2026\t4625\t"
    "Microsoft-Windows-Security-Auditing\tN/A\tN/A\tFailure Audit\tdc01\tLogon\t\tAn account failed to log on.    Subject:   "
    "Security ID:  S-1-0-0   Account Name:  -   Account Domain:  -   Logon ID:  0x0    Logon Type:   3    Account For Which "
    "Logon Failed:   Security ID:  S-1-0-0   Account Name:  u{n}   Account Domain:  KERMOR    Failure Information:   Failure "
    "Reason:  Unknown user name or bad password.   Status:   0xC000006D   Sub Status:  0xC0000064    Network Information:   "
    "Workstation Name: PC{s}   Source Network Address: {ip}   Source Port:  51{s}\t{n}"
)
_FRENCH: Final = (
    "<13>Jul  1 13:59:{s} dc01 Microsoft-Windows-Security-Auditing[712]: Échec d’ouverture de session d’un compte.#015#012#015#012"
    "Sujet :#015#012#011ID de sécurité :#011#011S-1-0-0#015#012#011Nom du compte :#011#011-#015#012#011Domaine du compte :"
    "#011#011-#015#012#015#012Type d’ouverture de session :#011#0113#015#012#015#012Compte pour lequel l’ouverture de session a "
    "échoué :#015#012#011ID de sécurité :#011#011S-1-0-0#015#012#011Nom du compte :#011#011u{n}#015#012#011Domaine du compte :"
    "#011#011KERMOR#015#012#015#012Informations sur l’échec :#015#012#011État :#011#0110xC000006D#015#012#011Sous-état :"
    "#011#0110xC0000064#015#012#015#012Informations sur le réseau :#015#012#011Nom de la station de travail :#011PC{s}#015#012"
    "#011Adresse du réseau source :#011{ip}#015#012#011Port source :#011#01151{s}"
)
_HOSTD: Final = (
    "<166>2026-07-01T11:59:{s}.123Z esx01 Hostd: info hostd[2099] [Originator@6876 sub=Vimsvc.ha-eventmgr opID=esxui-{n} "
    "user=root] Event {n} : User root@{ip} logged in as Mozilla/5.0"
)
_VEEAM: Final = (
    '<14>1 2026-07-01T13:59:{s}.123456+02:00 VBR01 Veeam_MP - - [origin enterpriseId="31023"] [categoryId=0 instanceId=110 '
    'JobSessionID="{n}" JobID="{n}" JobType="0" Platform="0" Flags="0" VbrHostName="vbr01.kermor.example" '
    'VbrVersion="13.0.1.180" Version="1" Description="Backup job \'Job {n}\' has been started."]'
)
_ZEEK: Final = (
    '{"ts":17829071{s}.123456,"uid":"C{n}","id.orig_h":"{ip}","id.orig_p":51000,"id.resp_h":"203.0.113.80","id.resp_p":443,'
    '"proto":"tcp","service":"ssl","duration":0.25,"orig_bytes":{n},"resp_bytes":9000,"conn_state":"SF","local_orig":true,'
    '"missed_bytes":0,"history":"ShADadFf","orig_pkts":10,"resp_pkts":12}'
)
_ECS: Final = (
    '{"@timestamp":"2026-07-01T11:59:{s}.123Z","ecs":{"version":"8.11"},"agent":{"type":"filebeat","version":"8.14.0"},'
    '"host":{"name":"web1"},"event":{"dataset":"nginx.access","module":"nginx"},"http":{"request":{"method":"GET"},'
    '"response":{"status_code":200,"body":{"bytes":{n}}},"version":"1.1"},"url":{"original":"/dossier/{n}?vue=a",'
    '"path":"/dossier/{n}","query":"vue=a"},"user_agent":{"original":"Mozilla/5.0"},"source":{"ip":"{ip}"},"user":{"name":"u{n}"}}'
)
_OCSF: Final = (
    '{"class_uid":3002,"class_name":"Authentication","category_uid":3,"activity_id":1,"type_uid":300201,"severity_id":1,'
    '"time":17829071{s}123,"user":{"name":"u{n}","domain":"KERMOR"},"src_endpoint":{"ip":"{ip}","port":51000},'
    '"dst_endpoint":{"hostname":"srv1"},"status_id":1,"metadata":{"version":"1.3.0","product":{"name":"Sensor","vendor_name":"Example"}}}'
)
_HL7: Final = (
    "<13>Jul  1 13:59:{s} eai1 gateway: MSH|^~\\&|DPI|KERMOR|LABO|KERMOR|202607011359{s}+0200||ADT^A01^ADT_A01|MSG{n}|P|2.5^FRA\r"
    "EVN||202607011359{s}|||u{n}\rPID|1||{n}^^^KERMOR^PI\rPV1|1|I|CARDIO^12^1"
)
_MIRTH: Final = (
    "<13>Jul  1 13:59:{s} eai1 mirth: ERROR 2026-07-01 13:59:{s},123 [TCP Receiver Thread on ADT Inbound "
    "(2fe30c1b-9a2e-4c1d-8f57-000000000001) < pool-1-thread-{s}] com.mirth.connect.connectors.tcp.TcpReceiver: message {n} refused."
)
_ORTHANC: Final = (
    "<13>Jul  1 13:59:{s} pacs1 Orthanc[812]: W0701 13:59:{s}.123123 MAIN CommandDispatcher.cpp:342] Association {n} rejected from "
    "AET MODALITY{s} on IP {ip}"
)
_FHIR: Final = (
    '{"resourceType":"AuditEvent","type":{"system":"http://dicom.nema.org/resources/ontology/DCM","code":"110110"},"action":"R",'
    '"recorded":"2026-07-01T11:59:{s}Z","outcome":"0","agent":[{"who":{"identifier":{"value":"u{n}"}},"requestor":true,'
    '"network":{"address":"{ip}","type":"2"}}],"source":{"observer":{"display":"dpi-1"}},'
    '"entity":[{"what":{"reference":"Patient/{n}"},"role":{"code":"1"}}]}'
)

DEVICE_TEMPLATES: Final[Mapping[str, tuple[str, Template]]] = {
    "Stormshield": ("stormshield.sns", _line(_STORMSHIELD)),
    "FortiGate, key=value": ("fortigate.syslog", _line(_FORTIGATE)),
    "FortiGate, CEF": ("fortigate.cef", _line(_FORTIGATE_CEF)),
    "Palo Alto": ("paloalto.panos", _line(_PALO_ALTO)),
    "Cisco ASA": ("cisco.asa", _line(_ASA)),
    "CEF, any device": ("cef", _line(_CEF)),
    "LEEF": ("leef", _line(_LEEF)),
    "Squid": ("squid.access", _line(_SQUID)),
    "Web access log (combined)": ("web.access", _line(_WEB)),
    "BIND": ("dns.bind", _line(_BIND)),
    "dnsmasq": ("dns.dnsmasq", _line("<30>Jul  1 13:59:{s} gw dnsmasq[812]: query[A] h{n}.example.org from {ip}")),
    "OpenVPN": (
        "openvpn",
        _line(
            "<29>Jul  1 13:59:{s} gw openvpn[812]: {ip}:1194 [u{n}] Peer Connection Initiated with [AF_INET]{ip}:1194"
        ),
    ),
    "Snare, English": ("windows.snare", _line(_SNARE)),
    "Windows text, French": ("windows.text", _line(_FRENCH)),
    "ESXi shell": (
        "esxi.shell",
        _line("<14>2026-07-01T11:59:{s}Z esx01 shell[2100]: [root]: esxcli vm process kill {n}"),
    ),
    "ESXi hostd": ("esxi.hostd", _line(_HOSTD)),
    "Veeam": ("veeam.backup", _line(_VEEAM)),
    "Zeek JSON": ("zeek", _line(_ZEEK)),
    "ECS JSON": ("json.ecs", _line(_ECS)),
    "OCSF JSON": ("json.ocsf", _line(_OCSF)),
    "PAM": (
        "linux.auth",
        _line(
            "<86>Jul  1 13:59:{s} srv1 sshd[{n}]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh "
            "ruser= rhost={ip}  user=u{n}"
        ),
    ),
    "HL7": ("hl7", _line(_HL7)),
    "Mirth": ("mirth", _line(_MIRTH)),
    "Orthanc": ("orthanc", _line(_ORTHANC)),
    "FHIR AuditEvent": ("fhir.auditevent", _line(_FHIR)),
}
"""Name -> the dataset its lines must be understood as, and what makes line number n."""

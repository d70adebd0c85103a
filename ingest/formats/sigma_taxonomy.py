"""The log sources that Sigma knows: which ones a sender's JSON may declare of itself.

Each log source is a frame for the rules and a table of the lake, so an endless choice of them would let one sender slow
down everybody. The names are those of SigmaHQ's rules and taxonomy ("Log Source" of the Sigma specification, SigmaHQ
`documentation/logsource-guides`) and those this package itself tells by content.
"""

from __future__ import annotations

from typing import Final

from ingest.formats.linux_syslog import CISCO_SERVICES, PROGRAM_SERVICES
from ingest.formats.palo_alto_columns import COLUMNS
from ingest.formats.stormshield import LOGTYPES
from ingest.formats.windows_logsource import CATEGORIES, CHANNEL_SERVICES, REFINED_CATEGORIES
from ingest.logsource import WIDER_CATEGORIES, LogSource

PRODUCT_SERVICES: Final[dict[str, frozenset[str]]] = {
    "windows": frozenset({*CHANNEL_SERVICES.values(), "threat-detection", "smbclient-operational"}),
    "linux": frozenset(
        {
            *PROGRAM_SERVICES.values(),
            *("auditd", "auth", "sysmon", "syslog", "apache", "nginx", "modsecurity", "rsyslog", "systemd", "vsftpd"),
        }
    ),
    "cisco": frozenset({*CISCO_SERVICES.values(), "asa", "asa-command", "duo", "ios", "syslog"}),
    "macos": frozenset({"unified_log"}),
    "aws": frozenset({"cloudtrail", "guardduty", "s3", "vpcflow", "waf"}),
    "azure": frozenset(
        {"activitylogs", "auditlogs", "azureactivity", "microsoft365portal", "pim", "riskdetection", "signinlogs"}
    ),
    "gcp": frozenset({"gcp.audit", "google_workspace.admin", "google_workspace.login"}),
    "m365": frozenset({"audit", "exchange", "threat_detection", "threat_management"}),
    "zeek": frozenset(
        {
            *("conn", "dce_rpc", "dhcp", "dns", "files", "ftp", "http", "kerberos", "notice", "ntlm", "rdp"),
            *("sip", "smb_files", "smb_mapping", "smtp", "snmp", "ssh", "ssl", "x509"),
        }
    ),
    "apache": frozenset({"apache"}),
    "bind": frozenset(),
    "bitbucket": frozenset({"audit"}),
    "cef": frozenset(),
    "django": frozenset({"application"}),
    "esxi": frozenset({"hostd", "shell", "vobd", "vpxa"}),
    "dnsmasq": frozenset(),
    "fortigate": frozenset({"anomaly", "dns", "event", "sslvpn", "traffic", "utm", "voip"}),
    "fortios": frozenset({"event", "sslvpnd", "traffic", "utm"}),
    "github": frozenset({"audit"}),
    "huawei": frozenset({"bgp"}),
    "juniper": frozenset({"bgp", "ldp"}),
    "jvm": frozenset({"application"}),
    "kubernetes": frozenset({"audit", "application"}),
    "leef": frozenset(),
    "nginx": frozenset({"nginx"}),
    "nodejs": frozenset({"application"}),
    "okta": frozenset({"okta"}),
    "onelogin": frozenset({"onelogin.events"}),
    "opencanary": frozenset({"application"}),
    "openvpn": frozenset(),
    "paloalto": frozenset(kind.lower() for kind in COLUMNS),
    "python": frozenset({"application"}),
    "rpc_firewall": frozenset({"application"}),
    "ruby_on_rails": frozenset({"application"}),
    "spring": frozenset({"application"}),
    "sql": frozenset({"application"}),
    "squid": frozenset(),
    "stormshield": LOGTYPES,
    "veeam": frozenset({"backup"}),
    "velocity": frozenset({"application"}),
}
"""Product -> its services."""

ENDPOINT_PRODUCTS: Final = frozenset({"windows", "linux", "macos"})
ENDPOINT_CATEGORIES: Final = frozenset({*CATEGORIES.values(), *REFINED_CATEGORIES.values()}).union(
    *WIDER_CATEGORIES.values()
)
"""What happens on a computer: processes, files, the registry."""

CATEGORIES_OF_ANY: Final = frozenset(
    {
        *("antivirus", "appliance", "application", "authentication", "database", "dns", "dns_query", "edr", "email"),
        *("firewall", "ids", "network_connection", "proxy", "vpn", "webserver"),
    }
)
"""Categories that any product may have."""

CATEGORISED_SERVICES: Final = frozenset({"auditd", "auth", "powershell", "powershell-classic", "security", "sysmon"})
"""Services that hold several categories: with these both may be declared."""

UNUSUAL: Final = frozenset(
    {
        LogSource("kubernetes", "application", "audit"),
        LogSource("paloalto", "appliance", "globalprotect"),
        LogSource("paloalto", "file_event", "globalprotect"),
    }
)
"""Log sources that SigmaHQ's rules have besides, and that fit no line above."""


def is_known(logsource: LogSource) -> bool:
    """Whether Sigma has such a log source; the product must be named."""
    product, category, service = logsource.product, logsource.category, logsource.service
    if logsource in UNUSUAL:
        return True
    if product is None or product not in PRODUCT_SERVICES:
        return False
    if service is not None and service not in PRODUCT_SERVICES[product]:
        return False
    if category is None:
        return True
    of_product = category in CATEGORIES_OF_ANY or (product in ENDPOINT_PRODUCTS and category in ENDPOINT_CATEGORIES)
    return of_product and (service is None or service in CATEGORISED_SERVICES)

"""Which Sigma log source a Windows event has: facts about channels and event ids, as tables.

The channel gives the service, and channel and event id give the category. Channel names are compared without case
(`security` and `Security` both occur); an event without a channel is placed by its provider where that is unambiguous.
A Sysmon registry event (id 12) needs its EventType too: created is `registry_add`, deleted is `registry_delete`.
Source: SigmaHQ `documentation/logsource-guides` and the Sigma taxonomy; Sysmon's own manifest for the event ids.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ingest.logsource import LogSource

SYSMON_CHANNEL: Final = "microsoft-windows-sysmon/operational"
LINUX_SYSMON_CHANNEL: Final = "linux-sysmon/operational"

CHANNEL_SERVICES: Final[dict[str, str]] = {
    "application": "application",
    "security": "security",
    "system": "system",
    SYSMON_CHANNEL: "sysmon",
    "dns server": "dns-server",
    "microsoft-ad fs/admin": "adfs",
    "ad fs/admin": "adfs",
    "microsoft-iis-configuration/administrative": "iis-configuration",
    "microsoft-iis-configuration/operational": "iis-configuration",
    "microsoft-servicebus-client": "microsoft-servicebus-client",
    "microsoft-servicebus-client/admin": "microsoft-servicebus-client",
    "microsoft-servicebus-client/operational": "microsoft-servicebus-client",
    "microsoft-windows-applocker/exe and dll": "applocker",
    "microsoft-windows-applocker/msi and script": "applocker",
    "microsoft-windows-applocker/packaged app-deployment": "applocker",
    "microsoft-windows-applocker/packaged app-execution": "applocker",
    "microsoft-windows-appmodel-runtime/admin": "appmodel-runtime",
    "microsoft-windows-appxdeploymentserver/operational": "appxdeployment-server",
    "microsoft-windows-appxpackaging/operational": "appxpackaging-om",
    "microsoft-windows-bitlocker/bitlocker management": "bitlocker",
    "microsoft-windows-bits-client/operational": "bits-client",
    "microsoft-windows-capi2/operational": "capi2",
    "microsoft-windows-certificateservicesclient-lifecycle-system/operational": (
        "certificateservicesclient-lifecycle-system"
    ),
    "microsoft-windows-codeintegrity/operational": "codeintegrity-operational",
    "microsoft-windows-dhcp-server/operational": "dhcp",
    "microsoft-windows-diagnosis-scripted/operational": "diagnosis-scripted",
    "microsoft-windows-dns client events/operational": "dns-client",
    "microsoft-windows-dns-client/operational": "dns-client",
    "microsoft-windows-dns-server/analytical": "dns-server-analytic",
    "microsoft-windows-dns-server/audit": "dns-server-audit",
    "microsoft-windows-dnsserver/analytical": "dns-server-analytic",
    "microsoft-windows-dnsserver/audit": "dns-server-audit",
    "microsoft-windows-driverframeworks-usermode/operational": "driver-framework",
    "microsoft-windows-hyper-v-worker-admin": "hyper-v-worker",
    "microsoft-windows-kernel-event tracing": "kernel-event-tracing",
    "microsoft-windows-kernel-shimengine/operational": "kernel-shimengine",
    "microsoft-windows-kernel-shimengine/diagnostic": "kernel-shimengine",
    "microsoft-windows-ldap-client/debug": "ldap",
    "microsoft-windows-lsa/operational": "lsa-server",
    "microsoft-windows-ntfs/operational": "ntfs",
    "microsoft-windows-ntlm/operational": "ntlm",
    "microsoft-windows-powershell/operational": "powershell",
    "microsoft-windows-printservice/admin": "printservice-admin",
    "microsoft-windows-printservice/operational": "printservice-operational",
    "microsoft-windows-security-mitigations/kernel mode": "security-mitigations",
    "microsoft-windows-security-mitigations/kernelmode": "security-mitigations",
    "microsoft-windows-security-mitigations/user mode": "security-mitigations",
    "microsoft-windows-security-mitigations/usermode": "security-mitigations",
    "microsoft-windows-shell-core/operational": "shell-core",
    "microsoft-windows-smbclient/audit": "smbclient-audit",
    "microsoft-windows-smbclient/connectivity": "smbclient-connectivity",
    "microsoft-windows-smbclient/security": "smbclient-security",
    "microsoft-windows-smbserver/audit": "smbserver-audit",
    "microsoft-windows-smbserver/connectivity": "smbserver-connectivity",
    "microsoft-windows-smbserver/security": "smbserver-security",
    "microsoft-windows-taskscheduler/operational": "taskscheduler",
    "microsoft-windows-terminalservices-localsessionmanager/operational": "terminalservices-localsessionmanager",
    "microsoft-windows-vhdmp/operational": "vhdmp",
    "microsoft-windows-windows defender/operational": "windefend",
    "microsoft-windows-windows firewall with advanced security/firewall": "firewall-as",
    "microsoft-windows-wmi-activity/operational": "wmi",
    "msexchange management": "msexchange-management",
    "openssh/operational": "openssh",
    "powershellcore/operational": "powershell",
    "windows powershell": "powershell-classic",
}
"""Channel in lower case -> Sigma service."""

PROVIDER_CHANNELS: Final[dict[str, str]] = {
    "linux-sysmon": LINUX_SYSMON_CHANNEL,
    "microsoft-windows-kernel-file": "microsoft-windows-kernel-file/analytic",
    "microsoft-windows-powershell": "microsoft-windows-powershell/operational",
    "microsoft-windows-security-auditing": "security",
    "microsoft-windows-sysmon": SYSMON_CHANNEL,
    "microsoft-windows-taskscheduler": "microsoft-windows-taskscheduler/operational",
    "microsoft-windows-windows defender": "microsoft-windows-windows defender/operational",
    "microsoft-windows-wmi-activity": "microsoft-windows-wmi-activity/operational",
    "powershell": "windows powershell",
    "powershellcore": "powershellcore/operational",
    "service control manager": "system",
}
"""Provider in lower case -> the one channel it writes to that rules care about."""

SYSMON_CATEGORIES: Final[dict[str, str]] = {
    "1": "process_creation",
    "2": "file_change",
    "3": "network_connection",
    "4": "sysmon_status",
    "5": "process_termination",
    "6": "driver_load",
    "7": "image_load",
    "8": "create_remote_thread",
    "9": "raw_access_thread",
    "10": "process_access",
    "11": "file_event",
    "12": "registry_event",  # refined by EventType below
    "13": "registry_set",
    "14": "registry_rename",
    "15": "create_stream_hash",
    "16": "sysmon_status",
    "17": "pipe_created",
    "18": "pipe_created",
    "19": "wmi_event",
    "20": "wmi_event",
    "21": "wmi_event",
    "22": "dns_query",
    "23": "file_delete",
    "24": "clipboard_capture",
    "25": "process_tampering",
    "26": "file_delete",
    "27": "file_block_executable",
    "28": "file_block_shredding",
    "29": "file_executable_detected",
    "255": "sysmon_error",
}

CATEGORIES: Final[dict[tuple[str, str], str]] = {
    **{(SYSMON_CHANNEL, event_id): category for event_id, category in SYSMON_CATEGORIES.items()},
    **{(LINUX_SYSMON_CHANNEL, event_id): category for event_id, category in SYSMON_CATEGORIES.items()},
    ("security", "4688"): "process_creation",
    ("security", "4689"): "process_termination",
    ("microsoft-windows-powershell/operational", "4103"): "ps_module",
    ("microsoft-windows-powershell/operational", "4104"): "ps_script",
    ("powershellcore/operational", "4103"): "ps_module",
    ("powershellcore/operational", "4104"): "ps_script",
    ("windows powershell", "400"): "ps_classic_start",
    ("windows powershell", "600"): "ps_classic_provider_start",
    ("windows powershell", "800"): "ps_classic_script",
    # The Kernel-File ETW provider, when an agent records it: Create (12) opens or creates, RenamePath (27) renames.
    ("microsoft-windows-kernel-file/analytic", "12"): "file_access",
    ("microsoft-windows-kernel-file/analytic", "19"): "file_rename",
    ("microsoft-windows-kernel-file/analytic", "27"): "file_rename",
}
"""(channel in lower case, event id) -> Sigma category."""

REFINED_BY: Final[dict[str, str]] = {"12": "EventType", "4657": "OperationType"}
"""Event id -> the field that its category depends on besides."""

REFINED_CATEGORIES: Final[dict[tuple[str, str, str], str]] = {
    (SYSMON_CHANNEL, "12", "createkey"): "registry_add",
    (SYSMON_CHANNEL, "12", "deletekey"): "registry_delete",
    (SYSMON_CHANNEL, "12", "deletevalue"): "registry_delete",
    ("security", "4657", "%%1904"): "registry_set",  # new value created
    ("security", "4657", "%%1905"): "registry_set",  # existing value modified
    ("security", "4657", "%%1906"): "registry_delete",
}


@lru_cache(maxsize=65536)
def windows_logsource(channel: str | None, event_id: str, provider: str | None, refined: str | None) -> LogSource:
    """The log source of a Windows event.

    Args:
        channel: As the event names it, in any case; None or empty if it does not.
        event_id: In decimal.
        provider: Provider name, used where there is no channel.
        refined: Value of the field that `REFINED_BY` names for this event id.
    """
    key = (channel or "").strip().lower() or PROVIDER_CHANNELS.get((provider or "").strip().lower(), "")
    if key == LINUX_SYSMON_CHANNEL:
        return LogSource("linux", CATEGORIES.get((key, event_id)), "sysmon")
    category = CATEGORIES.get((key, event_id))
    if refined is not None:
        category = REFINED_CATEGORIES.get((key, event_id, refined.strip().lower()), category)
    return LogSource("windows", category, CHANNEL_SERVICES.get(key))

"""ECS documents, as Filebeat, Auditbeat, Packetbeat and Elastic Agent write them, but for Winlogbeat's.

`event.dataset` (or `event.module`) names the source; where SigmaHQ has a log source for it, the event takes that and
gets the names its rules use beside ECS's own. All others keep their ECS names and their envelope, and no log source.
Events of Windows event logs have `winlog` and are read by `windows_json`.
Source: Elastic Common Schema 8, and the field reference of the integrations named below.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

from ingest.formats.columns import Json
from ingest.formats.piece import EnvelopeNames
from ingest.formats.renamed import Renames
from ingest.formats.shapes import Alike, split_by
from ingest.logsource import UNKNOWN, LogSource

DATASET: Final = "json.ecs"
NAMES: Final = EnvelopeNames(
    time=(("@timestamp", True),),
    host=("host.name", "host.hostname", "observer.name", "agent.hostname", "agent.name"),
    user=("user.name", "source.user.name", "client.user.name"),
    source_ip=("source.ip", "client.ip", "source.address"),
    destination_ip=("destination.ip", "server.ip", "destination.address"),
)

PROCESS: Final[Renames] = {
    "Image": ("process.executable", "process.name"),
    "CommandLine": ("process.command_line",),
    "ParentImage": ("process.parent.executable", "process.parent.name"),
    "ParentCommandLine": ("process.parent.command_line",),
    "CurrentDirectory": ("process.working_directory",),
    "ProcessId": ("process.pid",),
    "ParentProcessId": ("process.parent.pid", "process.ppid"),
    "OriginalFileName": ("process.pe.original_file_name",),
    "User": ("user.name",),
    "IntegrityLevel": ("process.Ext.token.integrity_level_name",),
}
FILE: Final[Renames] = {
    "TargetFilename": ("file.path",),
    "Image": ("process.executable", "process.name"),
    "User": ("user.name",),
}
CONNECTION: Final[Renames] = {
    "Image": ("process.executable", "process.name"),
    "User": ("user.name",),
    "SourceIp": ("source.ip",),
    "SourcePort": ("source.port",),
    "DestinationIp": ("destination.ip",),
    "DestinationPort": ("destination.port",),
    "DestinationHostname": ("destination.domain",),
    "Protocol": ("network.transport",),
}
WEB: Final[Renames] = {
    "cs-method": ("http.request.method",),
    "cs-uri-stem": ("url.path",),
    "cs-uri-query": ("url.original", "url.query"),
    "c-uri": ("url.full", "url.original"),
    "c-uri-query": ("url.query",),
    "c-uri-extension": ("url.extension",),
    "cs-host": ("url.domain", "destination.domain"),
    "r-dns": ("url.domain", "destination.domain"),
    "cs-user-agent": ("user_agent.original",),
    "c-useragent": ("user_agent.original",),
    "cs-referer": ("http.request.referrer",),
    "cs-username": ("user.name",),
    "c-ip": ("source.ip", "source.address"),
    "sc-status": ("http.response.status_code",),
}
DNS: Final[Renames] = {
    "query": ("dns.question.name",),
    "record_type": ("dns.question.type",),
    "answer": ("dns.answers.data", "dns.resolved_ip"),
}
DNS_QUERY: Final[Renames] = {"QueryName": ("dns.question.name",), "Image": ("process.executable",)}
FIREWALL: Final[Renames] = {
    "src_ip": ("source.ip",),
    "src_port": ("source.port",),
    "dst_ip": ("destination.ip",),
    "dst_port": ("destination.port",),
    "action": ("event.action",),
}
ZEEK: Final[Renames] = {
    "id.orig_h": ("source.ip", "source.address"),
    "id.orig_p": ("source.port",),
    "id.resp_h": ("destination.ip", "destination.address"),
    "id.resp_p": ("destination.port",),
    "query": ("dns.question.name", "zeek.dns.query"),
    "qtype_name": ("zeek.dns.qtype_name", "dns.question.type"),
    "uri": ("url.original",),
    "method": ("http.request.method",),
    "user_agent": ("user_agent.original",),
    "path": ("zeek.smb_files.path", "zeek.smb_mapping.path"),
    "name": ("zeek.smb_files.name", "file.name"),
    "endpoint": ("zeek.dce_rpc.endpoint",),
    "operation": ("zeek.dce_rpc.operation",),
    "request_type": ("zeek.kerberos.request_type",),
    "cipher": ("zeek.kerberos.cipher", "tls.cipher"),
}
CLOUDTRAIL: Final[Renames] = {
    "eventSource": ("event.provider",),
    "eventName": ("event.action",),
    "errorCode": ("aws.cloudtrail.error_code",),
    "errorMessage": ("aws.cloudtrail.error_message",),
    "sourceIPAddress": ("source.ip", "source.address"),
    "userAgent": ("user_agent.original",),
    "userIdentity.type": ("aws.cloudtrail.user_identity.type",),
    "userIdentity.arn": ("aws.cloudtrail.user_identity.arn",),
}
NOTHING: Final[Renames] = {}

Source = tuple[LogSource, Renames]

BY_DATASET: Final[dict[str, Source]] = {
    "apache.access": (LogSource("apache", "webserver"), WEB),
    "nginx.access": (LogSource("nginx", "webserver"), WEB),
    "iis.access": (LogSource("windows", "webserver"), WEB),
    "traefik.access": (LogSource(None, "webserver"), WEB),
    "haproxy.log": (LogSource(None, "webserver"), WEB),
    "squid.log": (LogSource("squid", "proxy"), WEB),
    "zscaler_zia.web": (LogSource("zscaler", "proxy"), WEB),
    "system.auth": (LogSource("linux", None, "auth"), NOTHING),
    "system.syslog": (LogSource("linux", None, "syslog"), NOTHING),
    "auditd.log": (LogSource("linux", None, "auditd"), NOTHING),
    "aws.cloudtrail": (LogSource("aws", None, "cloudtrail"), CLOUDTRAIL),
    "aws.guardduty": (LogSource("aws", None, "guardduty"), NOTHING),
    "azure.activitylogs": (LogSource("azure", None, "activitylogs"), NOTHING),
    "azure.auditlogs": (LogSource("azure", None, "auditlogs"), NOTHING),
    "azure.signinlogs": (LogSource("azure", None, "signinlogs"), NOTHING),
    "o365.audit": (LogSource("m365", None, "audit"), NOTHING),
    "gcp.audit": (LogSource("gcp", None, "gcp.audit"), NOTHING),
    "google_workspace.admin": (LogSource("gcp", None, "google_workspace.admin"), NOTHING),
    "google_workspace.login": (LogSource("gcp", None, "google_workspace.login"), NOTHING),
    "okta.system": (LogSource("okta", None, "okta"), NOTHING),
    "github.audit": (LogSource("github", None, "audit"), NOTHING),
    "kubernetes.audit_logs": (LogSource("kubernetes", None, "audit"), NOTHING),
    "fortinet_fortigate.log": (LogSource("fortigate", "firewall"), FIREWALL),
    "panw.panos": (LogSource("paloalto", "firewall"), FIREWALL),
    "cisco_asa.log": (LogSource("cisco", "firewall", "asa"), FIREWALL),
    "cisco.asa": (LogSource("cisco", "firewall", "asa"), FIREWALL),
    "network_traffic.dns": (LogSource(None, "dns"), DNS),
    "suricata.eve": (LogSource("suricata", "ids"), FIREWALL),
    **{
        f"zeek.{log}": (LogSource("zeek", None, service), ZEEK)
        for log, service in {
            **{
                name: name
                for name in (
                    *("conn", "dce_rpc", "dhcp", "dns", "files", "ftp", "http", "kerberos", "notice", "ntlm", "rdp"),
                    *("sip", "smb_files", "smb_mapping", "smtp", "snmp", "ssh", "ssl", "x509"),
                )
            },
            "connection": "conn",
        }.items()
    },
}
"""`event.dataset` -> log source, and the names its rules use."""

ENDPOINT: Final[dict[str, tuple[str, Renames]]] = {
    "endpoint.events.process": ("process_creation", PROCESS),
    "endpoint.events.file": ("file_event", FILE),
    "endpoint.events.network": ("network_connection", CONNECTION),
    "system_audit.process": ("process_creation", PROCESS),
    "auditd_manager.auditd": ("process_creation", PROCESS),
    "process": ("process_creation", PROCESS),  # Auditbeat, system module
}
"""`event.dataset` of endpoint agents -> category of the system that the event is of."""

STARTS: Final = frozenset({"start", "process_started", "executed", "exec", "fork_exec", "fork,exec"})
_SYSTEMS: Final = {"windows": "windows", "linux": "linux", "macos": "macos", "darwin": "macos"}
_MAX_TEXT: Final = 64


def is_ecs(keys: Container[str]) -> bool:
    """Whether an event with these keys is an ECS document."""
    if "@timestamp" not in keys:
        return False
    return "ecs" in keys or "ecs.version" in keys or "event.dataset" in keys or ("event" in keys and "agent" in keys)


def by_dataset(same: Alike) -> Iterator[tuple[LogSource, Renames, Alike]]:
    """The events by what their dataset is to Sigma, decided once for each combination of values."""
    combinations = [_combination(event) for event in same.events]
    chosen = {combination: _chosen(combination) for combination in dict.fromkeys(combinations)}
    if len(chosen) == 1:
        logsource, names = next(iter(chosen.values()))
        yield logsource, names, same
        return
    # By what was chosen, not by the combination: senders may write what they like into a dataset.
    found: list[Source] = []
    places: dict[tuple[str, str, str], int] = {}
    for combination, source in chosen.items():
        if source not in found:
            found.append(source)
        places[combination] = found.index(source)
    for place, part in split_by(same, [places[combination] for combination in combinations]).items():
        yield *found[place], part


def _combination(event: dict[str, Json]) -> tuple[str, str, str]:
    """(dataset, operating system, what was done) of an event."""
    dataset = (
        _text(event, "event", "dataset") or _text(event, "event", "module") or _text(event, "data_stream", "dataset")
    )
    if dataset not in ENDPOINT:
        return dataset, "", ""
    system = (
        _text(event, "host", "os", "type")
        or _text(event, "host", "os", "family")
        or _text(event, "host", "os", "platform")
    )
    return dataset, system.lower(), _text(event, "event", "type") or _text(event, "event", "action")


def _text(event: dict[str, Json], *path: str) -> str:
    """The text at a path, written nested or with dots; of a list, its first text."""
    value: Json = event.get(".".join(path))
    if value is None:
        value = event
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, list):
        starts = [item for item in value if isinstance(item, str) and item in STARTS]
        value = starts[0] if starts else next((item for item in value if isinstance(item, str)), None)
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _chosen(combination: tuple[str, str, str]) -> Source:
    dataset, system, done = combination
    if dataset in ENDPOINT:
        category, names = ENDPOINT[dataset]
        product = _SYSTEMS.get(system) or ("linux" if system in LINUX_FAMILIES or "auditd" in dataset else None)
        if product is not None and (category != "process_creation" or done in STARTS):
            return LogSource(product, category), names
        return UNKNOWN, NOTHING
    return BY_DATASET.get(dataset, (UNKNOWN, NOTHING))


LINUX_FAMILIES: Final = frozenset(
    {"debian", "redhat", "suse", "ubuntu", "centos", "rhel", "fedora", "sles", "opensuse", "arch", "alpine", "amzn"}
)

"""Windows events that scenarios use: what NXLog's im_msvistalog and to_json make of each.

A kind is named `Channel/EventID`. Its defaults are the fields that a scenario need not repeat; a scenario's own fields
go over them. Texts are French, as on the machines of a French hospital: rules must not depend on them. `${...}` are
placeholders of `exercise_lines`. Field names and their order: Microsoft's event documentation, Sysmon's manifest (15).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SECURITY: Final = "Microsoft-Windows-Security-Auditing"
SYSMON: Final = "Microsoft-Windows-Sysmon"
SYSMON_CHANNEL: Final = "Microsoft-Windows-Sysmon/Operational"
SERVICES: Final = "Service Control Manager"
DEFENDER: Final = "Microsoft-Windows-Windows Defender"
DEFENDER_CHANNEL: Final = "Microsoft-Windows-Windows Defender/Operational"

GUIDS: Final[dict[str, str]] = {
    SECURITY: "{54849625-5478-4994-A5BA-3E3B0328C30D}",
    SYSMON: "{5770385F-C22A-43E0-BF4C-06F5698FFBD9}",
    SERVICES: "{555908D1-A6D7-4695-8E1E-26931D2012F4}",
    DEFENDER: "{11CD958A-C507-4EF3-B3F2-5FD9DFBD2C78}",
    "Microsoft-Windows-Eventlog": "{FC65DDD8-D6EF-4962-83D5-6E5CFE9CE148}",
}
"""Provider -> its GUID, where the event has one."""


AUDIT_FAILURES: Final = frozenset({4625})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of Windows event.

    Attributes:
        task: The task's number, and `category` its localised name.
        message: First line of the localised text.
        defaults: Fields of the event's data.
    """

    channel: str
    event_id: int
    source: str
    task: int
    category: str
    message: str
    defaults: Mapping[str, str] = field(default_factory=dict)

    @property
    def failure(self) -> bool:
        """Whether it is an audit failure, which NXLog sends with severity ERROR."""
        return self.channel == "Security" and self.event_id in AUDIT_FAILURES


_SUBJECT: Final = {
    "SubjectUserSid": "S-1-5-18",
    "SubjectUserName": "${host}$$",
    "SubjectDomainName": "${netbios}",
    "SubjectLogonId": "0x3e7",
}
_LOGON: Final = {
    "SubjectUserSid": "S-1-0-0",
    "SubjectUserName": "-",
    "SubjectDomainName": "-",
    "SubjectLogonId": "0x0",
    "TargetDomainName": "${netbios}",
    "TargetLogonId": "${logon}",
    "LogonProcessName": "Kerberos",
    "AuthenticationPackageName": "Kerberos",
    "WorkstationName": "-",
    "LogonGuid": "${guid}",
    "TransmittedServices": "-",
    "LmPackageName": "-",
    "KeyLength": "0",
    "ProcessId": "0x0",
    "ProcessName": "-",
    "IpPort": "${port}",
    "ImpersonationLevel": "%%1833",
}
_TICKET: Final = {
    "TargetDomainName": "${domain_upper}",
    "TicketOptions": "0x40810000",
    "TicketEncryptionType": "0x12",
    "IpPort": "${port}",
    "Status": "0x0",
    "LogonGuid": "${guid}",
    "TransmittedServices": "-",
}
_GROUP: Final = {
    "MemberName": "-",
    "TargetDomainName": "${netbios}",
    "PrivilegeList": "-",
    "SubjectLogonId": "${logon}",
}
_PROCESS: Final = {"RuleName": "-", "UtcTime": "${utc}", "ProcessGuid": "${guid}", "ProcessId": "${pid}"}
_CREATED: Final = _PROCESS | {
    "FileVersion": "-",
    "Description": "-",
    "Product": "-",
    "Company": "-",
    "OriginalFileName": "-",
    "CurrentDirectory": "C:\\Windows\\system32\\",
    "LogonGuid": "${guid#logon}",
    "LogonId": "${logon}",
    "TerminalSessionId": "2",
    "IntegrityLevel": "Medium",
    "Hashes": "SHA256=${hex:64}",
    "ParentProcessGuid": "${guid#parent}",
    "ParentProcessId": "${pid#parent}",
    "ParentCommandLine": "-",
}
_CONNECTED: Final = _PROCESS | {
    "Protocol": "tcp",
    "Initiated": "true",
    "SourceIsIpv6": "false",
    "SourceIp": "${address}",
    "SourceHostname": "${fqdn}",
    "SourcePort": "${port}",
    "DestinationIsIpv6": "false",
    "DestinationHostname": "-",
    "DestinationPortName": "-",
}
_OPENED: Final = {
    "RuleName": "-",
    "UtcTime": "${utc}",
    "SourceProcessGUID": "${guid}",
    "SourceProcessId": "${pid}",
    "SourceThreadId": "${pid#thread}",
    "TargetProcessGUID": "${guid#target}",
    "TargetProcessId": "${pid#target}",
    "TargetImage": "C:\\Windows\\System32\\lsass.exe",
    "CallTrace": "C:\\Windows\\SYSTEM32\\ntdll.dll+${hex:5}|C:\\Windows\\System32\\KERNELBASE.dll+${hex:5#2}",
}
_SERVICE: Final = {"ServiceType": "service en mode utilisateur", "AccountName": "LocalSystem"}


def _security(event_id: int, task: int, category: str, message: str, **defaults: str) -> Kind:
    return Kind("Security", event_id, SECURITY, task, category, message, defaults)


def _sysmon(event_id: int, message: str, defaults: Mapping[str, str]) -> Kind:
    return Kind(SYSMON_CHANNEL, event_id, SYSMON, event_id, message, message, defaults)


def _system(event_id: int, source: str, message: str, **defaults: str) -> Kind:
    return Kind("System", event_id, source, 0, "Aucun", message, defaults)


_ALL: Final = (
    _security(4624, 12544, "Logon", "L'ouverture de session d'un compte s'est correctement déroulée.", **_LOGON),
    _security(4625, 12544, "Logon", "Échec d'ouverture de session d'un compte.", **_LOGON),
    _security(
        4634,
        12545,
        "Logoff",
        "Fermeture de session d'un compte.",
        TargetDomainName="${netbios}",
        TargetLogonId="${logon}",
    ),
    _security(
        4648,
        12544,
        "Logon",
        "Tentative d'ouverture de session en utilisant des informations d'identification explicites.",
        **_SUBJECT,
    ),
    _security(
        4672,
        12548,
        "Special Logon",
        "Privilèges spéciaux attribués à la nouvelle ouverture de session.",
        SubjectDomainName="${netbios}",
        SubjectLogonId="${logon}",
    ),
    _security(
        4768,
        14339,
        "Kerberos Authentication Service",
        "Un ticket d'authentification Kerberos (TGT) a été demandé.",
        **_TICKET,
        PreAuthType="2",
        ServiceName="krbtgt",
    ),
    _security(
        4769, 14337, "Kerberos Service Ticket Operations", "Un ticket de service Kerberos a été demandé.", **_TICKET
    ),
    _security(
        4776,
        14336,
        "Credential Validation",
        "L'ordinateur a tenté de valider les informations d'identification d'un compte.",
        PackageName="MICROSOFT_AUTHENTICATION_PACKAGE_V1_0",
        Status="0x0",
    ),
    _security(
        4662,
        14080,
        "Directory Service Access",
        "Une opération a été effectuée sur un objet.",
        ObjectServer="DS",
        OperationType="Object Access",
        HandleId="0x0",
        AccessMask="0x100",
        AccessList="%%7688",
        SubjectDomainName="${netbios}",
        SubjectLogonId="${logon}",
        ObjectType="%{19195a5b-6da0-11d0-afd3-00c04fd930c9}",
    ),
    _security(
        4725,
        13824,
        "User Account Management",
        "Un compte d'utilisateur a été désactivé.",
        TargetDomainName="${netbios}",
        SubjectDomainName="${netbios}",
        SubjectLogonId="${logon}",
    ),
    _security(
        4728,
        13826,
        "Security Group Management",
        "Un membre a été ajouté à un groupe global dont la sécurité est activée.",
        **_GROUP,
    ),
    _security(
        4732,
        13826,
        "Security Group Management",
        "Un membre a été ajouté à un groupe local dont la sécurité est activée.",
        **_GROUP,
    ),
    _security(
        4742,
        13825,
        "Computer Account Management",
        "Un compte d'ordinateur a été modifié.",
        **_SUBJECT,
        TargetDomainName="${netbios}",
        PasswordLastSet="-",
    ),
    _security(
        5140,
        12808,
        "File Share",
        "Un objet de partage réseau a fait l'objet d'un accès.",
        ObjectType="File",
        AccessMask="0x1",
        IpPort="${port}",
        SubjectDomainName="${netbios}",
        SubjectLogonId="${logon}",
    ),
    Kind(
        "Security",
        1102,
        "Microsoft-Windows-Eventlog",
        104,
        "Effacement de journal",
        "Le journal d'audit a été effacé.",
        {"SubjectDomainName": "${netbios}", "SubjectLogonId": "${logon}"},
    ),
    _system(7036, SERVICES, "Un service est entré dans un nouvel état.", param2="en cours d’exécution"),
    _system(
        7045, SERVICES, "Un service a été installé sur le système.", **_SERVICE, StartType="Démarrage à la demande"
    ),
    _system(
        5827,
        "NETLOGON",
        "Le service Netlogon a refusé une connexion de canal sécurisé Netlogon vulnérable "
        "provenant d'un compte d'ordinateur.",
    ),
    _system(
        56,
        "TermDD",
        "La couche sécurité du serveur Terminal Server a détecté une erreur dans le flux de "
        "protocole et a déconnecté le client.",
    ),
    _system(19, "Microsoft-Windows-WindowsUpdateClient", "Installation réussie : Windows a installé la mise à jour."),
    _system(
        37, "Microsoft-Windows-Time-Service", "Le fournisseur de temps NtpClient reçoit des données de temps valides."
    ),
    _sysmon(1, "Process Create", _CREATED),
    _sysmon(3, "Network connection detected", _CONNECTED),
    _sysmon(5, "Process terminated", _PROCESS),
    _sysmon(7, "Image loaded", _PROCESS | {"FileVersion": "-", "Hashes": "SHA256=${hex:64}"}),
    _sysmon(10, "Process accessed", _OPENED),
    _sysmon(11, "File created", _PROCESS | {"CreationUtcTime": "${utc}"}),
    _sysmon(13, "Registry value set", _PROCESS | {"EventType": "SetValue"}),
    _sysmon(17, "Pipe Created", _PROCESS | {"EventType": "CreatePipe"}),
    _sysmon(18, "Pipe Connected", _PROCESS | {"EventType": "ConnectPipe"}),
    _sysmon(22, "Dns query", _PROCESS | {"QueryStatus": "0"}),
    Kind(
        "Microsoft-Windows-TaskScheduler/Operational",
        201,
        "Microsoft-Windows-TaskScheduler",
        201,
        "Action terminée",
        "Le Planificateur de tâches a terminé une tâche.",
        {"ResultCode": "0"},
    ),
    Kind(
        "Microsoft-Windows-PrintService/Operational",
        307,
        "Microsoft-Windows-PrintService",
        26,
        "Impression d'un document",
        "Un document a été imprimé.",
    ),
    Kind(DEFENDER_CHANNEL, 1001, DEFENDER, 0, "Aucun", "L'analyse de l'Antivirus Microsoft Defender est terminée."),
    Kind(
        DEFENDER_CHANNEL,
        2000,
        DEFENDER,
        0,
        "Aucun",
        "La version de la veille de sécurité de l'Antivirus Microsoft Defender a été mise à jour.",
    ),
    Kind(
        "Microsoft-Windows-TerminalServices-LocalSessionManager/Operational",
        21,
        "Microsoft-Windows-TerminalServices-LocalSessionManager",
        0,
        "Aucun",
        "Services Bureau à distance : Ouverture de session réussie.",
    ),
)

KINDS: Final[dict[str, Kind]] = {f"{kind.channel}/{kind.event_id}": kind for kind in _ALL} | {
    f"Sysmon/{kind.event_id}": kind for kind in _ALL if kind.channel == SYSMON_CHANNEL
}
"""`Channel/EventID` -> kind; Sysmon's also as `Sysmon/EventID`."""

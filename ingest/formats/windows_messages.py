"""Which field each label of a rendered Windows event is, and which event a message is by its first sentence.

The same label means another field in another section (`Account Name` under `Subject` or `New Logon`) and in another
event (in a 4634 the subject is the target), so a field is looked up by event, section and label, then by section and
label, then by label. All in English; `windows_labels` brings French there.
Source: Microsoft's reference of advanced security audit events, where the XML and the text of each event stand side by
side; Service Control Manager and Eventlog for 7045, 104 and 1102.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from ingest.formats.windows_labels import folded

Fields = Mapping[str, str]


def _account(prefix: str, sid: str | None = None) -> dict[str, str]:
    """The fields of an account; `sid` where its SID is not called like the rest."""
    return {
        "Security ID": sid or f"{prefix}UserSid",
        "Account Name": f"{prefix}UserName",
        "Account Domain": f"{prefix}DomainName",
        "Domain Name": f"{prefix}DomainName",
        "Logon ID": f"{prefix}LogonId",
    }


_TARGET: Final = {
    **_account("Target", "TargetSid"),
    "Old Account Name": "OldTargetUserName",
    "New Account Name": "NewTargetUserName",
}
_LOGGED_ON: Final = {
    **_account("Target"),
    "Logon GUID": "LogonGuid",
    "Linked Logon ID": "TargetLinkedLogonId",
    "Network Account Name": "TargetOutboundUserName",
    "Network Account Domain": "TargetOutboundDomainName",
}

SECTION_FIELDS: Final[Mapping[str, Fields]] = {
    "Subject": {**_account("Subject"), "Logon GUID": "LogonGuid"},
    "Target Subject": _account("Target"),
    "New Logon": _LOGGED_ON,
    "Account For Which Logon Failed": _account("Target"),
    "Account Whose Credentials Were Used": {**_account("Target"), "Logon GUID": "TargetLogonGuid"},
    "Target Account": _TARGET,
    "New Account": _TARGET,
    "Account That Was Locked Out": _TARGET,
    "New Computer Account": _TARGET,
    "Computer Account That Was Changed": _TARGET,
    "Target Computer": _TARGET,
    "Member": {"Security ID": "MemberSid", "Account Name": "MemberName"},
    "Group": {
        **_TARGET,
        "Group Name": "TargetUserName",
        "Group Domain": "TargetDomainName",
    },
    "Account Information": {
        **_account("Target", "TargetSid"),
        "User ID": "TargetSid",
        "Supplied Realm Name": "TargetDomainName",
        "Logon GUID": "LogonGuid",
    },
    "Target Server": {"Additional Information": "TargetInfo"},
    "Network Information": {"Network Address": "IpAddress", "Port": "IpPort", "Source Address": "IpAddress"},
    "Task Information": {},
    "Directory Service": {"Name": "DSName", "Type": "DSType"},
    "Object": {"DN": "ObjectDN", "GUID": "ObjectGUID", "Class": "ObjectClass"},
    "Attribute": {
        "LDAP Display Name": "AttributeLDAPDisplayName",
        "Syntax (OID)": "AttributeSyntaxOID",
        "Value": "AttributeValue",
    },
    "Operation": {
        "Type": "OperationType",
        "Correlation ID": "OpCorrelationID",
        "Application Correlation ID": "AppCorrelationID",
        "Accesses": "AccessList",
    },
}
"""Section -> label -> field, for labels that mean something else elsewhere."""

LABEL_FIELDS: Final[Fields] = {
    "Security ID": "SubjectUserSid",
    "Account Name": "SubjectUserName",
    "Account Domain": "SubjectDomainName",
    "Domain Name": "SubjectDomainName",
    "Logon ID": "SubjectLogonId",
    "Logon GUID": "LogonGuid",
    "Logon Type": "LogonType",
    "Restricted Admin Mode": "RestrictedAdminMode",
    "Remote Credential Guard": "RemoteCredentialGuard",
    "Virtual Account": "VirtualAccount",
    "Elevated Token": "ElevatedToken",
    "Impersonation Level": "ImpersonationLevel",
    "Process ID": "ProcessId",
    "Process Name": "ProcessName",
    "Caller Process ID": "ProcessId",
    "Caller Process Name": "ProcessName",
    "Workstation Name": "WorkstationName",
    "Source Network Address": "IpAddress",
    "Source Port": "IpPort",
    "Source Address": "IpAddress",
    "Logon Process": "LogonProcessName",
    "Authentication Package": "AuthenticationPackageName",
    "Transited Services": "TransmittedServices",
    "Package Name (NTLM only)": "LmPackageName",
    "Key Length": "KeyLength",
    "Failure Reason": "FailureReason",
    "Status": "Status",
    "Sub Status": "SubStatus",
    "Privileges": "PrivilegeList",
    "Target Server Name": "TargetServerName",
    "New Process ID": "NewProcessId",
    "New Process Name": "NewProcessName",
    "Token Elevation Type": "TokenElevationType",
    "Mandatory Label": "MandatoryLabel",
    "Creator Process ID": "ProcessId",
    "Creator Process Name": "ParentProcessName",
    "Process Command Line": "CommandLine",
    "Exit Status": "Status",
    "Service Name": "ServiceName",
    "Service File Name": "ServiceFileName",
    "Service Type": "ServiceType",
    "Service Start Type": "ServiceStartType",
    "Service Account": "ServiceAccount",
    "Task Name": "TaskName",
    "Task Content": "TaskContent",
    "Task New Content": "TaskContentNew",
    "Category": "CategoryId",
    "Subcategory": "SubcategoryId",
    "Subcategory GUID": "SubcategoryGuid",
    "Changes": "AuditPolicyChanges",
    "SAM Account Name": "SamAccountName",
    "Display Name": "DisplayName",
    "User Principal Name": "UserPrincipalName",
    "Home Directory": "HomeDirectory",
    "Home Drive": "HomePath",
    "Script Path": "ScriptPath",
    "Profile Path": "ProfilePath",
    "User Workstations": "UserWorkstations",
    "Password Last Set": "PasswordLastSet",
    "Account Expires": "AccountExpires",
    "Primary Group ID": "PrimaryGroupId",
    "AllowedToDelegateTo": "AllowedToDelegateTo",
    "Old UAC Value": "OldUacValue",
    "New UAC Value": "NewUacValue",
    "User Account Control": "UserAccountControl",
    "User Parameters": "UserParameters",
    "SID History": "SidHistory",
    "Logon Hours": "LogonHours",
    "DNS Host Name": "DnsHostName",
    "Service Principal Names": "ServicePrincipalNames",
    "Group Name": "TargetUserName",
    "Group Domain": "TargetDomainName",
    "Caller Computer Name": "TargetDomainName",  # so the XML of a 4740 calls it
    "Service ID": "ServiceSid",
    "Client Address": "IpAddress",
    "Client Port": "IpPort",
    "Client Name": "ClientName",
    "Session Name": "SessionName",
    "Ticket Options": "TicketOptions",
    "Result Code": "Status",
    "Failure Code": "Status",
    "Ticket Encryption Type": "TicketEncryptionType",
    "Pre-Authentication Type": "PreAuthType",
    "Certificate Issuer Name": "CertIssuerName",
    "Certificate Serial Number": "CertSerialNumber",
    "Certificate Thumbprint": "CertThumbprint",
    "Logon Account": "TargetUserName",
    "Source Workstation": "Workstation",
    "Error Code": "Status",
    "Object Type": "ObjectType",
    "Object Server": "ObjectServer",
    "Object Name": "ObjectName",
    "Object Value Name": "ObjectValueName",
    "Handle ID": "HandleId",
    "Share Name": "ShareName",
    "Share Path": "ShareLocalPath",
    "Relative Target Name": "RelativeTargetName",
    "Access Mask": "AccessMask",
    "Accesses": "AccessList",
    "Access Reasons": "AccessReason",
    "Properties": "Properties",
    "Operation Type": "OperationType",
    "Old Value Type": "OldValueType",
    "Old Value": "OldValue",
    "New Value Type": "NewValueType",
    "New Value": "NewValue",
}
"""Label -> field, wherever it stands."""

_OWN_ACCOUNT: Final = {"Account Name": "AccountName", "Account Domain": "AccountDomain", "Logon ID": "LogonID"}

EVENT_FIELDS: Final[Mapping[str, Mapping[str, Fields]]] = {
    "4634": {"Subject": _account("Target")},
    "4647": {"Subject": _account("Target")},
    "4776": {"": {"Authentication Package": "PackageName"}},
    "4778": {"Subject": _OWN_ACCOUNT, "": {**_OWN_ACCOUNT, "Client Address": "ClientAddress"}},
    "4779": {"Subject": _OWN_ACCOUNT, "": {**_OWN_ACCOUNT, "Client Address": "ClientAddress"}},
    "7045": {
        "": {"Service File Name": "ImagePath", "Service Start Type": "StartType", "Service Account": "AccountName"}
    },
}
"""Event -> section ("" for any) -> label -> field, where an event has names of its own."""

SECURITY: Final = ("Security", "Microsoft-Windows-Security-Auditing")
SYSTEM: Final = ("System", "Service Control Manager")
CLEARED: Final = {"1102": ("Security", "Microsoft-Windows-Eventlog"), "104": ("System", "Microsoft-Windows-Eventlog")}

TITLES: Final[Mapping[str, tuple[str, ...]]] = {
    "4624": ("An account was successfully logged on", "L'ouverture de session d'un compte s'est correctement déroulée",
        "Un compte a été correctement connecté", "Ouverture de session réussie d'un compte"),
    "4625": ("An account failed to log on", "Échec d'ouverture de session d'un compte",
        "Un compte n'a pas pu ouvrir de session", "Échec de l'ouverture de session d'un compte",
        "Un compte n'a pas réussi à se connecter"),
    "4634": ("An account was logged off", "Fermeture de session d'un compte", "Un compte a été déconnecté"),
    "4647": ("User initiated logoff", "Fermeture de session initiée par l'utilisateur"),
    "4648": ("A logon was attempted using explicit credentials",
        "Tentative d'ouverture de session en utilisant des informations d'identification explicites",
        "Une tentative d'ouverture de session a été effectuée en utilisant des informations d'identification",
        "Une tentative de connexion a été effectuée avec des informations d'identification explicites"),
    "4657": ("A registry value was modified", "Une valeur de Registre a été modifiée"),
    "4662": ("An operation was performed on an object", "Une opération a été effectuée sur un objet"),
    "4663": ("An attempt was made to access an object", "Une tentative d'accès à un objet a été effectuée",
        "Tentative d'accès à un objet"),
    "4672": ("Special privileges assigned to new logon",
        "Privilèges spéciaux attribués à la nouvelle ouverture de session",
        "Privilèges spéciaux attribués à une nouvelle connexion"),
    "4688": ("A new process has been created", "Un nouveau processus a été créé"),
    "4689": ("A process has exited", "Un processus est terminé", "Un processus s'est terminé"),
    "4697": ("A service was installed in the system. Subject", "Un service a été installé dans le système. Sujet",
        "Un service a été installé sur le système. Sujet"),
    "4698": ("A scheduled task was created", "Une tâche planifiée a été créée"),
    "4699": ("A scheduled task was deleted", "Une tâche planifiée a été supprimée"),
    "4700": ("A scheduled task was enabled", "Une tâche planifiée a été activée"),
    "4701": ("A scheduled task was disabled", "Une tâche planifiée a été désactivée"),
    "4702": ("A scheduled task was updated", "Une tâche planifiée a été mise à jour"),
    "4719": ("System audit policy was changed", "La stratégie d'audit du système a été modifiée",
        "La stratégie d'audit système a été modifiée"),
    "4720": ("A user account was created", "Un compte d'utilisateur a été créé", "Un compte utilisateur a été créé"),
    "4722": ("A user account was enabled", "Un compte d'utilisateur a été activé"),
    "4723": ("An attempt was made to change an account's password",
        "Une tentative de modification du mot de passe d'un compte a été effectuée",
        "Une tentative de modification de mot de passe d'un compte a été effectuée"),
    "4724": ("An attempt was made to reset an account's password",
        "Une tentative de réinitialisation de mot de passe d'un compte a été effectuée",
        "Une tentative de réinitialisation du mot de passe d'un compte a été effectuée"),
    "4725": ("A user account was disabled", "Un compte d'utilisateur a été désactivé"),
    "4726": ("A user account was deleted", "Un compte d'utilisateur a été supprimé"),
    "4728": ("A member was added to a security-enabled global group",
        "Un membre a été ajouté à un groupe global avec sécurité activée",
        "Un membre a été ajouté à un groupe global dont la sécurité est activée",
        "Un membre a été ajouté à un groupe global de sécurité"),
    "4729": ("A member was removed from a security-enabled global group",
        "Un membre a été supprimé d'un groupe global avec sécurité activée",
        "Un membre a été supprimé d'un groupe global dont la sécurité est activée",
        "Un membre a été supprimé d'un groupe global de sécurité"),
    "4730": ("A security-enabled global group was deleted", "Un groupe global avec sécurité activée a été supprimé"),
    "4731": ("A security-enabled local group was created", "Un groupe local avec sécurité activée a été créé"),
    "4732": ("A member was added to a security-enabled local group",
        "Un membre a été ajouté à un groupe local avec sécurité activée",
        "Un membre a été ajouté à un groupe local dont la sécurité est activée",
        "Un membre a été ajouté à un groupe local sécurisé",
        "Un membre a été ajouté à un groupe local de sécurité"),
    "4733": ("A member was removed from a security-enabled local group",
        "Un membre a été supprimé d'un groupe local avec sécurité activée",
        "Un membre a été supprimé d'un groupe local dont la sécurité est activée",
        "Un membre a été supprimé d'un groupe local sécurisé"),
    "4734": ("A security-enabled local group was deleted", "Un groupe local avec sécurité activée a été supprimé"),
    "4735": ("A security-enabled local group was changed", "Un groupe local avec sécurité activée a été modifié"),
    "4738": ("A user account was changed", "Un compte d'utilisateur a été modifié"),
    "4740": ("A user account was locked out", "Un compte d'utilisateur a été verrouillé"),
    "4741": ("A computer account was created", "Un compte d'ordinateur a été créé"),
    "4742": ("A computer account was changed", "Un compte d'ordinateur a été modifié"),
    "4756": ("A member was added to a security-enabled universal group",
        "Un membre a été ajouté à un groupe universel avec sécurité activée",
        "Un membre a été ajouté à un groupe universel dont la sécurité est activée",
        "Un membre a été ajouté à un groupe universel de sécurité"),
    "4757": ("A member was removed from a security-enabled universal group",
        "Un membre a été supprimé d'un groupe universel avec sécurité activée",
        "Un membre a été supprimé d'un groupe universel dont la sécurité est activée"),
    "4767": ("A user account was unlocked", "Un compte d'utilisateur a été déverrouillé"),
    "4768": ("A Kerberos authentication ticket (TGT) was requested",
        "Un ticket d'authentification Kerberos (TGT) a été demandé"),
    "4769": ("A Kerberos service ticket was requested", "Un ticket de service Kerberos a été demandé"),
    "4771": ("Kerberos pre-authentication failed", "La pré-authentification Kerberos a échoué",
        "Échec de la pré-authentification Kerberos", "La préauthentification Kerberos a échoué"),
    "4776": ("The computer attempted to validate the credentials for an account",
        "The domain controller attempted to validate the credentials for an account",
        "L'ordinateur a tenté de valider les informations d'identification d'un compte",
        "L'ordinateur a essayé de valider les informations d'identification d'un compte",
        "Le contrôleur de domaine a tenté de valider les informations d'identification d'un compte"),
    "4778": ("A session was reconnected to a Window Station", "Une session a été reconnectée à une station Windows",
        "Une session a été reconnectée à une Window Station"),
    "4779": ("A session was disconnected from a Window Station", "Une session a été déconnectée d'une station Windows",
        "Une session a été déconnectée d'une Window Station"),
    "5136": ("A directory service object was modified", "Un objet du service d'annuaire a été modifié",
        "Un objet de service d'annuaire a été modifié"),
    "5140": ("A network share object was accessed", "Un objet de partage réseau a fait l'objet d'un accès",
        "Un objet de partage réseau a été consulté"),
    "5145": ("A network share object was checked to see whether client can be granted desired access",
        "Un objet de partage réseau a été vérifié afin de déterminer si l'accès souhaité peut être accordé au client",
        "Un objet de partage réseau a été vérifié pour déterminer si l'accès souhaité peut être accordé au client"),
    "1102": ("The audit log was cleared", "Le journal d'audit a été effacé"),
    "7045": ("A service was installed in the system", "Un service a été installé dans le système",
        "Un service a été installé sur le système"),
}  # fmt: skip
"""Event id -> how its message begins, in English and French (by version), up to where it may vary."""


def origin(event_id: str) -> tuple[str, str]:
    """(channel, provider) of an event that `TITLES` knows."""
    return CLEARED.get(event_id) or (SYSTEM if event_id == "7045" else SECURITY)


_LONGEST: Final = max(len(title) for titles in TITLES.values() for title in titles)
_BEGINNINGS: Final = sorted(
    {(form, event_id) for event_id, titles in TITLES.items() for title in titles for form in folded(title)},
    key=lambda beginning: -len(beginning[0]),
)
_FIRST_LETTERS: Final = 6
_BY_FIRST: Final[dict[str, list[tuple[str, str]]]] = {}
for _form, _event_id in _BEGINNINGS:
    _BY_FIRST.setdefault(_form[:_FIRST_LETTERS], []).append((_form, _event_id))


def event_of(message: str) -> str | None:
    """The id of the event that a message is of, by how it begins."""
    return _event_of(message[: _LONGEST + 30])


@lru_cache(maxsize=4096)
def _event_of(beginning: str) -> str | None:
    for form in folded(beginning):
        for title, event_id in _BY_FIRST.get(form[:_FIRST_LETTERS], ()):
            if form.startswith(title):
                return event_id
    return None


@lru_cache(maxsize=65536)
def field_of(event_id: str, section: str, label: str) -> str | None:
    """The field that an English label is in a section of an event."""
    own = EVENT_FIELDS.get(event_id, {})
    return (
        own.get(section, {}).get(label)
        or own.get("", {}).get(label)
        or SECTION_FIELDS.get(section, {}).get(label)
        or LABEL_FIELDS.get(label)
    )


def begins_pattern() -> str:
    """A regular expression (Rust) for lines that begin as a title does, whatever became of their accents."""
    stems = sorted({_stem(title) for titles in TITLES.values() for title in titles})
    return rf"(?i)^\s{{0,8}}(?:{'|'.join(stems)})"


def beginning_words() -> list[str]:
    """Of each title the longest word among its first characters that no wrong encoding changes."""
    runs = (re.findall(r"[A-Za-z]+", title[:_STEM]) for titles in TITLES.values() for title in titles)
    return sorted({max(words, key=len).lower() for words in runs})


_STEM: Final = 22


def _stem(title: str) -> str:
    """The first characters of a title: ASCII letters as they are, others as whatever may have come of them."""
    pattern = ""
    for char in title[:_STEM]:
        if char.isascii() and char.isalnum():
            pattern += char
        elif char == " ":
            pattern += r"\s"
        elif char == "'":
            pattern += r"[^a-z\s]{0,3}"
        elif char.isascii():
            pattern += rf"\{char}"
        else:
            pattern += rf"(?:{folded(char)[0]}|[^a-z\s]{{0,3}})"
    return pattern

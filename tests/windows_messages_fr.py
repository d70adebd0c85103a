"""Rendered Windows events for tests: in English and in French, as lines, behind syslog escapes, or run together."""

from __future__ import annotations

Message = list[str]
"""The lines of a message: a section has no tab, a label of a section begins with one."""


def as_lines(message: Message) -> str:
    """With the line ends of Windows."""
    return "\r\n".join(message)


def escaped(message: Message) -> str:
    """As rsyslog relays it: control characters as # and three octal digits."""
    return as_lines(message).replace("\r", "#015").replace("\n", "#012").replace("\t", "#011")


def run_together(message: Message) -> str:
    """As Snare and evtsys send it: spaces for line ends and tabs."""
    return as_lines(message).replace("\r\n", " ").replace("\t", " ")


def account(sid: str, name: str, domain: str, *, french: bool, logon: str | None = None) -> Message:
    """The labels of an account, in a section."""
    labels = (
        ("ID de sécurité :", "Nom du compte :", "Domaine du compte :", "ID d’ouverture de session :")
        if french
        else ("Security ID:", "Account Name:", "Account Domain:", "Logon ID:")
    )
    values = (sid, name, domain, logon)
    return [f"\t{label}\t\t{value}" for label, value in zip(labels, values, strict=True) if value is not None]


FR_4624 = [
    "L’ouverture de session d’un compte s’est correctement déroulée.",
    "",
    "Sujet :",
    *account("S-1-5-18", "SRV01$", "CHU", french=True, logon="0x3e7"),
    "",
    "Type d’ouverture de session :\t\t\t10",
    "",
    "Niveau d’emprunt d’identité :\t\tEmprunt d’identité",
    "",
    "Nouvelle ouverture de session :",
    *account("S-1-5-21-1-2-3-1104", "j.dupont", "CHU", french=True, logon="0x5a1b"),
    "\tGUID d’ouverture de session :\t\t{00000000-0000-0000-0000-000000000000}",
    "",
    "Informations sur le processus :",
    "\tID du processus :\t\t0x1d0",
    "\tNom du processus :\t\tC:\\Windows\\System32\\winlogon.exe",
    "",
    "Informations sur le réseau :",
    "\tNom de la station de travail :\tSRV01",
    "\tAdresse du réseau source :\t203.0.113.9",
    "\tPort source :\t\t0",
    "",
    "Informations détaillées sur l’authentification :",
    "\tProcessus d’ouverture de session :\t\tUser32 ",
    "\tPackage d’authentification :\tNegotiate",
    "\tServices en transit :\t-",
    "\tNom du package (NTLM uniquement) :\t-",
    "\tLongueur de la clé :\t\t0",
    "",
    "Cet événement est généré lors de la création d’une ouverture de session.",
    "",
    "Le champ Objet indique le compte : il est local.",
]
FR_4625 = [
    "Échec d’ouverture de session d’un compte.",
    "",
    "Sujet :",
    *account("S-1-0-0", "-", "-", french=True, logon="0x0"),
    "",
    "Type d’ouverture de session :\t\t\t3",
    "",
    "Compte pour lequel l’ouverture de session a échoué :",
    *account("S-1-0-0", "administrateur", "CHU", french=True),
    "",
    "Informations sur l’échec :",
    "\tRaison de l’échec :\t\tNom d’utilisateur inconnu ou mot de passe incorrect.",
    "\tÉtat :\t\t\t0xC000006D",
    "\tSous-état :\t\t0xC000006A",
    "",
    "Informations sur le processus :",
    "\tID du processus de l’appelant :\t0x0",
    "\tNom du processus de l’appelant :\t-",
    "",
    "Informations sur le réseau :",
    "\tNom de la station de travail :\tKALI",
    "\tAdresse du réseau source :\t203.0.113.9",
    "\tPort source :\t\t51234",
    "",
    "Informations détaillées sur l’authentification :",
    "\tProcessus d’ouverture de session :\t\tNtLmSsp ",
    "\tPackage d’authentification :\tNTLM",
    "\tServices en transit :\t-",
    "\tNom du package (NTLM uniquement) :\t-",
    "\tLongueur de la clé :\t\t0",
    "",
    "Cet événement est généré lorsqu’une demande d’ouverture de session échoue.",
]
EN_4625 = [
    "An account failed to log on.",
    "",
    "Subject:",
    *account("S-1-0-0", "-", "-", french=False, logon="0x0"),
    "",
    "Logon Type:\t\t\t3",
    "",
    "Account For Which Logon Failed:",
    *account("S-1-0-0", "administrateur", "CHU", french=False),
    "",
    "Failure Information:",
    "\tFailure Reason:\t\tUnknown user name or bad password.",
    "\tStatus:\t\t\t0xC000006D",
    "\tSub Status:\t\t0xC000006A",
    "",
    "Process Information:",
    "\tCaller Process ID:\t0x0",
    "\tCaller Process Name:\t-",
    "",
    "Network Information:",
    "\tWorkstation Name:\tKALI",
    "\tSource Network Address:\t203.0.113.9",
    "\tSource Port:\t\t51234",
    "",
    "Detailed Authentication Information:",
    "\tLogon Process:\t\tNtLmSsp ",
    "\tAuthentication Package:\tNTLM",
    "\tTransited Services:\t-",
    "\tPackage Name (NTLM only):\t-",
    "\tKey Length:\t\t0",
    "",
    "This event is generated when a logon request fails. It is generated on the computer where access was attempted.",
]
FIELDS_4625 = {
    "SubjectUserSid": "S-1-0-0",
    "SubjectUserName": "-",
    "SubjectDomainName": "-",
    "SubjectLogonId": "0x0",
    "LogonType": "3",
    "TargetUserSid": "S-1-0-0",
    "TargetUserName": "administrateur",
    "TargetDomainName": "CHU",
    "FailureReason": "%%2313",
    "Status": "0xC000006D",
    "SubStatus": "0xC000006A",
    "ProcessId": "0x0",
    "ProcessName": "-",
    "WorkstationName": "KALI",
    "IpAddress": "203.0.113.9",
    "IpPort": "51234",
    "LogonProcessName": "NtLmSsp",
    "AuthenticationPackageName": "NTLM",
    "TransmittedServices": "-",
    "LmPackageName": "-",
    "KeyLength": "0",
}
"""What the XML of that event holds."""
FR_4688 = [
    "Un nouveau processus a été créé.",
    "",
    "Objet créateur :",
    *account("S-1-5-21-1-2-3-1104", "j.dupont", "CHU", french=True)[:3],
    "\tID de connexion :\t\t0xAE1AC",
    "",
    "Objet cible :",
    *account("S-1-0-0", "-", "-", french=True)[:3],
    "\tID de connexion :\t\t0x0",
    "",
    "Informations sur le processus :",
    "\tID du nouveau processus :\t\t0x3d74",
    "\tNom du nouveau processus :\tC:\\Windows\\System32\\whoami.exe",
    "\tType d’élévation du jeton :\t%%1938",
    "\tÉtiquette obligatoire :\t\tS-1-16-8192",
    "\tID du processus créateur :\t0x4fe0",
    "\tNom du processus créateur :\tC:\\Windows\\System32\\cmd.exe",
    "\tLigne de commande du processus :\twhoami  /priv Sujet : x",
    "",
    "Le type d’élévation du jeton indique le type de jeton.",
]
FR_4720 = [
    "Un compte d’utilisateur a été créé.",
    "",
    "Sujet :",
    *account("S-1-5-21-1-2-3-500", "admin", "CHU", french=True, logon="0x5a1b"),
    "",
    "Nouveau compte :",
    *account("S-1-5-21-1-2-3-1200", "support$", "CHU", french=True),
    "",
    "Attributs :",
    "\tNom du compte SAM :\tsupport$",
    "\tNom complet :\t\t<valeur non définie>",
    "\tNom principal de l’utilisateur :\t-",
    "\tLe compte expire le :\t\t<jamais>",
    "\tID de groupe principal :\t513",
    "\tAncienne valeur UAC :\t\t0x0",
    "\tNouvelle valeur UAC :\t\t0x15",
    "\tContrôle du compte d’utilisateur :\t",
    "\t\tCompte désactivé",
    "\t\t’Mot de passe non requis’ - activé",
    "\tHoraire d’accès :\t\tTout",
    "",
    "Informations supplémentaires :",
    "\tPrivilèges:\t\t-",
]
FR_4732 = [
    "Un membre a été ajouté à un groupe local avec sécurité activée.",
    "",
    "Sujet :",
    *account("S-1-5-21-1-2-3-500", "admin", "CHU", french=True, logon="0x5a1b"),
    "",
    "Membre :",
    "\tID de sécurité :\t\tS-1-5-21-1-2-3-1200",
    "\tNom du compte :\t\tCN=support,OU=Comptes,DC=chu,DC=example",
    "",
    "Groupe :",
    "\tID de sécurité :\t\tS-1-5-32-544",
    "\tNom du groupe :\t\tAdministrateurs",
    "\tDomaine du groupe :\t\tBuiltin",
    "",
    "Informations supplémentaires :",
    "\tPrivilèges :\t\t-",
]
FR_7045 = [
    "Un service a été installé sur le système.",
    "",
    "Nom du service :  zqxv",
    'Nom du fichier de service :  %COMSPEC% /c powershell.exe -nop -w hidden -c "iex: x"',
    "Type de service :  service en mode utilisateur",
    "Type de démarrage du service :  Démarrage à la demande",
    "Compte de service :  LocalSystem",
]
FR_1102 = [
    "Le journal d’audit a été effacé.",
    "Sujet :",
    "\tID de sécurité :\tS-1-5-21-1-2-3-500",
    "\tNom du compte :\tadmin",
    "\tNom de domaine :\tCHU",
    "\tID d’ouverture de session :\t0x5a1b",
]
FR_4740 = [
    "Un compte d’utilisateur a été verrouillé.",
    "",
    "Sujet :",
    *account("S-1-5-18", "DC01$", "CHU", french=True, logon="0x3e7"),
    "",
    "Compte verrouillé :",
    "\tID de sécurité :\t\tS-1-5-21-1-2-3-1104",
    "\tNom du compte :\t\tj.dupont",
    "",
    "Informations supplémentaires :",
    "\tNom de l’ordinateur de l’appelant :\tPC-042",
]

"""The words of rendered Windows events: English labels and sections, and how French Windows writes them.

An event that is forwarded as text has lost the names of its fields: it has labels, in the language of the machine. A
label is brought to its English form first, so that only one table of fields is needed (`windows_messages`).

French is written in several ways (`Sujet` or `Objet` for Subject, by version; apostrophes straight or curly; no-break
spaces), and on its way loses accents or has them mangled. So words are compared folded to ASCII letters and digits, in
two forms: accents taken off (`securite`), and accented letters left out (`scurit`), which is also what is left when
they were read in the wrong encoding.
Source: the messages of Windows' own event providers, Windows 2008 R2 to Server 2022, English and French.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "Security ID": ("ID de sécurité", "ID sécurité", "Identificateur de sécurité"),
    "Account Name": ("Nom du compte", "Nom de compte"),
    "Account Domain": ("Domaine du compte", "Domaine de compte", "Domaine de comptes"),
    "Domain Name": ("Nom de domaine", "Nom du domaine"),
    "Logon ID": (
        "ID d'ouverture de session",
        "ID de connexion",
        "ID de la session",
        "Identificateur d'ouverture de session",
    ),
    "Logon GUID": ("GUID d'ouverture de session", "GUID de connexion"),
    "Logon Type": ("Type d'ouverture de session", "Type de connexion"),
    "Restricted Admin Mode": ("Mode administrateur restreint", "Mode Admin restreint"),
    "Remote Credential Guard": ("Remote Credential Guard",),
    "Virtual Account": ("Compte virtuel",),
    "Elevated Token": ("Jeton élevé", "Jeton avec élévation de privilèges"),
    "Impersonation Level": ("Niveau d'emprunt d'identité", "Niveau d'usurpation d'identité"),
    "Linked Logon ID": ("ID d'ouverture de session liée", "ID de connexion lié", "ID d'ouverture de session lié"),
    "Network Account Name": ("Nom du compte réseau", "Nom de compte réseau"),
    "Network Account Domain": ("Domaine du compte réseau", "Domaine de compte réseau"),
    "Process ID": ("ID du processus", "ID de processus", "Identificateur du processus"),
    "Process Name": ("Nom du processus", "Nom de processus"),
    "Caller Process ID": ("ID du processus de l'appelant", "ID du processus appelant", "ID de processus de l'appelant"),
    "Caller Process Name": (
        "Nom du processus de l'appelant",
        "Nom du processus appelant",
        "Nom de processus de l'appelant",
    ),
    "Workstation Name": ("Nom de la station de travail", "Nom de station de travail", "Nom du poste de travail"),
    "Source Network Address": ("Adresse du réseau source", "Adresse réseau source", "Adresse réseau de la source"),
    "Source Port": ("Port source", "Port de la source"),
    "Source Address": ("Adresse source", "Adresse de la source"),
    "Network Address": ("Adresse réseau", "Adresse du réseau"),
    "Port": ("Port",),
    "Logon Process": ("Processus d'ouverture de session", "Processus de connexion"),
    "Authentication Package": (
        "Package d'authentification",
        "Paquet d'authentification",
        "Module d'authentification",
    ),
    "Transited Services": ("Services en transit", "Services transités"),
    "Package Name (NTLM only)": ("Nom du package (NTLM uniquement)", "Nom du package (NTLM seulement)"),
    "Key Length": ("Longueur de la clé", "Longueur de clé"),
    "Failure Reason": ("Raison de l'échec", "Motif de l'échec"),
    "Status": ("État", "Statut"),
    "Sub Status": ("Sous-état", "Sous-statut"),
    "Privileges": ("Privilèges",),
    "Target Server Name": ("Nom du serveur cible", "Nom de serveur cible"),
    "Additional Information": ("Informations supplémentaires", "Informations complémentaires"),
    "New Process ID": ("ID du nouveau processus", "Nouvel ID de processus"),
    "New Process Name": ("Nom du nouveau processus", "Nouveau nom de processus"),
    "Token Elevation Type": ("Type d'élévation du jeton", "Type d'élévation de jeton"),
    "Mandatory Label": ("Étiquette obligatoire", "Label obligatoire"),
    "Creator Process ID": (
        "ID du processus créateur",
        "ID du processus du créateur",
        "ID de processus créateur",
        "ID de processus du créateur",
    ),
    "Creator Process Name": (
        "Nom du processus créateur",
        "Nom du processus du créateur",
        "Nom de processus du créateur",
    ),
    "Process Command Line": ("Ligne de commande du processus", "Ligne de commande de processus"),
    "Exit Status": ("État de fin", "État de sortie"),
    "Service Name": ("Nom du service", "Nom de service"),
    "Service File Name": ("Nom du fichier de service", "Nom de fichier du service", "Nom de fichier de service",
        "Nom du fichier du service"),
    "Service Type": ("Type de service", "Type du service"),
    "Service Start Type": ("Type de démarrage du service", "Type de démarrage de service"),
    "Service Account": ("Compte de service", "Compte du service"),
    "Task Name": ("Nom de la tâche", "Nom de tâche"),
    "Task Content": ("Contenu de la tâche", "Contenu de tâche"),
    "Task New Content": ("Nouveau contenu de la tâche", "Contenu nouveau de la tâche"),
    "Category": ("Catégorie",),
    "Subcategory": ("Sous-catégorie",),
    "Subcategory GUID": ("GUID de la sous-catégorie", "GUID de sous-catégorie", "GUID sous-catégorie"),
    "Changes": ("Modifications", "Changements"),
    "SAM Account Name": ("Nom du compte SAM", "Nom de compte SAM"),
    "Display Name": ("Nom affiché", "Nom complet", "Nom d'affichage"),
    "User Principal Name": (
        "Nom d'utilisateur principal",
        "Nom principal d'utilisateur",
        "Nom principal de l'utilisateur",
    ),
    "Home Directory": ("Répertoire de base", "Répertoire d'accueil", "Répertoire principal"),
    "Home Drive": ("Lecteur de base", "Lecteur d'accueil"),
    "Script Path": ("Chemin d'accès au script", "Chemin du script", "Chemin d'accès du script"),
    "Profile Path": ("Chemin d'accès au profil", "Chemin du profil", "Chemin d'accès du profil"),
    "User Workstations": ("Stations de travail utilisateurs", "Stations de travail utilisateur"),
    "Password Last Set": (
        "Dernière modification du mot de passe le",
        "Dernière modification du mot de passe",
        "Dernier mot de passe défini",
        "Dernière définition du mot de passe",
        "Mot de passe défini en dernier",
    ),
    "Account Expires": ("Le compte expire le", "Le compte expire", "Expiration du compte"),
    "Primary Group ID": ("ID du groupe principal", "ID de groupe principal"),
    "AllowedToDelegateTo": ("Délégué autorisé", "Délégation autorisée à", "Autorisé à déléguer à"),
    "Old UAC Value": ("Ancienne valeur UAC", "Ancienne valeur du contrôle de compte d'utilisateur"),
    "New UAC Value": ("Nouvelle valeur UAC", "Nouvelle valeur du contrôle de compte d'utilisateur"),
    "User Account Control": ("Contrôle de compte d'utilisateur", "Contrôle du compte d'utilisateur"),
    "User Parameters": ("Paramètres utilisateur", "Paramètres de l'utilisateur"),
    "SID History": ("Historique SID", "Historique de SID", "Historique des SID"),
    "Logon Hours": ("Horaire d'accès", "Horaires d'accès", "Heures d'ouverture de session"),
    "DNS Host Name": ("Nom d'hôte DNS", "Nom de l'hôte DNS"),
    "Service Principal Names": ("Noms principaux de service", "Noms principaux du service"),
    "Group Name": ("Nom du groupe", "Nom de groupe"),
    "Group Domain": ("Domaine du groupe", "Domaine de groupe"),
    "Caller Computer Name": (
        "Nom de l'ordinateur de l'appelant",
        "Nom de l'ordinateur appelant",
        "Nom d'ordinateur de l'appelant",
    ),
    "Supplied Realm Name": ("Nom de domaine Kerberos fourni", "Nom du domaine fourni", "Nom de domaine fourni"),
    "User ID": ("ID de l'utilisateur", "ID utilisateur", "ID d'utilisateur"),
    "Service ID": ("ID du service", "ID de service"),
    "Client Address": ("Adresse du client", "Adresse client"),
    "Client Port": ("Port client", "Port du client"),
    "Client Name": ("Nom du client", "Nom de client"),
    "Session Name": ("Nom de la session", "Nom de session"),
    "Ticket Options": ("Options de ticket", "Options du ticket"),
    "Result Code": ("Code de résultat", "Code du résultat"),
    "Failure Code": ("Code d'échec", "Code de l'échec"),
    "Ticket Encryption Type": ("Type de chiffrement du ticket", "Type de chiffrement de ticket"),
    "Pre-Authentication Type": ("Type de pré-authentification", "Type de préauthentification"),
    "Certificate Issuer Name": ("Nom de l'émetteur du certificat", "Nom de l'émetteur de certificat"),
    "Certificate Serial Number": ("Numéro de série du certificat", "Numéro de série de certificat"),
    "Certificate Thumbprint": ("Empreinte numérique du certificat", "Empreinte du certificat"),
    "Logon Account": ("Compte d'ouverture de session", "Compte de connexion"),
    "Source Workstation": ("Station de travail source", "Poste de travail source"),
    "Error Code": ("Code d'erreur", "Code de l'erreur"),
    "Object Type": ("Type d'objet", "Type de l'objet"),
    "Object Server": ("Serveur de l'objet", "Serveur d'objet", "Serveur d'objets"),
    "Object Name": ("Nom de l'objet", "Nom d'objet"),
    "Object Value Name": ("Nom de la valeur de l'objet", "Nom de valeur d'objet", "Nom de la valeur d'objet"),
    "Handle ID": ("ID du handle", "ID de handle", "ID du descripteur", "ID de descripteur"),
    "Share Name": ("Nom du partage", "Nom de partage"),
    "Share Path": ("Chemin d'accès du partage", "Chemin du partage", "Chemin d'accès de partage", "Chemin de partage"),
    "Relative Target Name": ("Nom de la cible relative", "Nom de cible relative", "Nom cible relatif"),
    "Access Mask": ("Masque d'accès",),
    "Accesses": ("Accès",),
    "Access Reasons": ("Raisons d'accès", "Motifs d'accès"),
    "Properties": ("Propriétés",),
    "Operation Type": ("Type d'opération", "Type de l'opération"),
    "Old Value Type": ("Type de l'ancienne valeur", "Ancien type de valeur"),
    "Old Value": ("Ancienne valeur",),
    "New Value Type": ("Type de la nouvelle valeur", "Nouveau type de valeur"),
    "New Value": ("Nouvelle valeur",),
    "Old Account Name": ("Ancien nom du compte", "Ancien nom de compte"),
    "New Account Name": ("Nouveau nom du compte", "Nouveau nom de compte"),
    "DN": ("Nom de domaine complet", "ND", "DN"),
    "GUID": ("GUID",),
    "Class": ("Classe",),
    "Name": ("Nom",),
    "Type": ("Type",),
    "LDAP Display Name": ("Nom complet LDAP", "Nom affiché LDAP", "Nom d'affichage LDAP", "Nom LDAP complet"),
    "Syntax (OID)": ("Syntaxe (OID)",),
    "Value": ("Valeur",),
    "Correlation ID": ("ID de corrélation",),
    "Application Correlation ID": ("ID de corrélation d'application", "ID de corrélation de l'application"),
}  # fmt: skip
"""English label -> what French Windows writes for it."""

SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Subject": ("Sujet", "Creator Subject", "Sujet du créateur", "Sujet créateur", "Objet créateur",
        "Objet du créateur"),
    "Target Subject": ("Sujet cible", "Objet cible", "Sujet de destination"),
    "New Logon": ("Nouvelle ouverture de session", "Nouvelle connexion"),
    "Logon Information": ("Informations d'ouverture de session", "Informations sur l'ouverture de session",
        "Informations de connexion"),
    "Account For Which Logon Failed": ("Compte pour lequel l'ouverture de session a échoué",
        "Compte dont l'ouverture de session a échoué", "Compte pour lequel la connexion a échoué"),
    "Account Whose Credentials Were Used": ("Compte dont les informations d'identification ont été utilisées",
        "Compte dont les informations d'authentification ont été utilisées"),
    "Failure Information": ("Informations sur l'échec", "Informations d'échec"),
    "Process Information": ("Informations sur le processus", "Informations de processus", "Informations du processus",
        "Process"),
    "Network Information": ("Informations sur le réseau", "Informations réseau", "Informations de réseau"),
    "Detailed Authentication Information": ("Informations détaillées sur l'authentification",
        "Informations d'authentification détaillées", "Informations détaillées d'authentification"),
    "Target Server": ("Serveur cible", "Serveur de destination"),
    "Target Account": ("Compte cible", "Compte de destination"),
    "New Account": ("Nouveau compte",),
    "Account That Was Locked Out": ("Compte verrouillé", "Compte qui a été verrouillé"),
    "New Computer Account": ("Nouveau compte d'ordinateur",),
    "Computer Account That Was Changed": ("Compte d'ordinateur modifié", "Compte d'ordinateur qui a été modifié"),
    "Target Computer": ("Ordinateur cible",),
    "Attributes": ("Attributs",),
    "Changed Attributes": ("Attributs modifiés",),
    "Additional Information": ("Informations supplémentaires", "Informations complémentaires"),
    "Member": ("Membre",),
    "Group": ("Groupe", "New Group", "Nouveau groupe", "Deleted Group", "Groupe supprimé"),
    "Account Information": ("Informations sur le compte", "Informations de compte", "Informations du compte"),
    "Service Information": ("Informations sur le service", "Informations sur les services", "Informations de service",
        "Informations du service"),
    "Certificate Information": ("Informations sur le certificat", "Informations de certificat"),
    "Task Information": ("Informations sur la tâche", "Informations de tâche", "Informations de la tâche"),
    "Audit Policy Change": ("Modification de la stratégie d'audit", "Modification de stratégie d'audit"),
    "Session": ("Session",),
    "Share Information": ("Informations sur le partage", "Informations de partage", "Informations du partage"),
    "Access Request Information": ("Informations sur la demande d'accès", "Informations de demande d'accès"),
    "Operation": ("Opération",),
    "Object": ("Objet",),
    "Directory Service": ("Service d'annuaire", "Service de répertoire"),
    "Attribute": ("Attribut",),
    "Change Information": ("Informations sur la modification", "Informations de modification"),
}  # fmt: skip
"""English section -> what else Windows writes for it, in English (by version) and in French."""

VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "ElevatedToken": {"yes": "%%1842", "oui": "%%1842", "no": "%%1843", "non": "%%1843"},
    "VirtualAccount": {"yes": "%%1842", "oui": "%%1842", "no": "%%1843", "non": "%%1843"},
    "ImpersonationLevel": {
        "anonymous": "%%1831",
        "anonyme": "%%1831",
        "identification": "%%1832",
        "impersonation": "%%1833",
        "empruntdidentite": "%%1833",
        "usurpationdidentite": "%%1833",
        "delegation": "%%1840",
    },
    "FailureReason": {
        "unknownusernameorbadpassword": "%%2313",
        "nomdutilisateurinconnuoumotdepasseincorrect": "%%2313",
        "accountlockedout": "%%2307",
        "compteverrouille": "%%2307",
        "lecompteestverrouille": "%%2307",
        "accountcurrentlydisabled": "%%2310",
        "compteactuellementdesactive": "%%2310",
        "lecompteestactuellementdesactive": "%%2310",
        "thespecifiedaccountspasswordhasexpired": "%%2309",
        "thespecifieduseraccounthasexpired": "%%2305",
        "anerroroccuredduringlogon": "%%2304",
        "anerroroccurredduringlogon": "%%2304",
        "uneerreursestproduitelorsdelouverturedesession": "%%2304",
    },
    "OperationType": {
        "newregistryvaluecreated": "%%1904",
        "existingregistryvaluemodified": "%%1905",
        "registryvaluedeleted": "%%1906",
        "valueadded": "%%14674",
        "valeurajoutee": "%%14674",
        "valuedeleted": "%%14675",
        "valeursupprimee": "%%14675",
    },
}
"""Field -> its rendered words, folded -> the message code that the event itself holds, which rules are written for."""

ACCESSES: Final[Mapping[str, str]] = {
    "delete": "%%1537",
    "readcontrol": "%%1538",
    "writedac": "%%1539",
    "writeowner": "%%1540",
    "synchronize": "%%1541",
    "accesssyssec": "%%1542",
    "readdataorlistdirectory": "%%4416",
    "readdataoulistdirectory": "%%4416",
    "writedataoraddfile": "%%4417",
    "writedataouaddfile": "%%4417",
    "appenddataoraddsubdirectoryorcreatepipeinstance": "%%4418",
    "appenddataouaddsubdirectoryoucreatepipeinstance": "%%4418",
    "readea": "%%4419",
    "writeea": "%%4420",
    "executetraverse": "%%4421",
    "deletechild": "%%4422",
    "readattributes": "%%4423",
    "writeattributes": "%%4424",
    "querykeyvalue": "%%4432",
    "setkeyvalue": "%%4433",
    "createsubkey": "%%4434",
    "enumeratesubkeys": "%%4435",
    "readfrommemory": "%%4484",
    "readmemory": "%%4484",
    "createchild": "%%7680",
    "deletechildobject": "%%7681",
    "listcontents": "%%7682",
    "writeself": "%%7683",
    "readproperty": "%%7684",
    "writeproperty": "%%7685",
    "deletetree": "%%7686",
    "listobject": "%%7687",
    "controlaccess": "%%7688",
}
"""A rendered access right, folded -> its message code."""

AUDIT_CHANGES: Final[Mapping[str, str]] = {
    "successremoved": "%%8448",
    "successadded": "%%8449",
    "failureremoved": "%%8450",
    "failureadded": "%%8451",
    "successupprime": "%%8448",
    "successupprimes": "%%8448",
    "succesajoute": "%%8449",
    "succesajoutes": "%%8449",
    "echecsupprime": "%%8450",
    "echecssupprimes": "%%8450",
    "echecajoute": "%%8451",
    "echecsajoutes": "%%8451",
}
"""A rendered change of the audit policy, folded -> its message code."""


def without_accents(text: str) -> str:
    """ASCII letters and digits in lower case, letters without their accents."""
    if text.isascii():
        return "".join(filter(str.isalnum, text)).lower()
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(filter(str.isalnum, plain)).lower()


def without_accented(text: str) -> str:
    """The same, accented letters left out: what is left of a text whose encoding was mistaken or lost."""
    return "".join(filter(str.isalnum, text.encode("ascii", "ignore").decode())).lower()


@lru_cache(maxsize=65536)
def folded(word: str) -> tuple[str, str]:
    """Both forms of a word."""
    return without_accents(word), without_accented(word)


def by_folded(words: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Either form of every spelling -> the English word; a form with accents wins over what is left of another."""
    table: dict[str, str] = {}
    for form in (without_accents, without_accented):
        for english, others in words.items():
            for spelling in (english, *others):
                table.setdefault(form(spelling), english)
    return table


LABEL_OF: Final[Mapping[str, str]] = by_folded(LABELS)
SECTION_OF: Final[Mapping[str, str]] = by_folded(SECTIONS)


@lru_cache(maxsize=65536)
def label_of(text: str) -> str | None:
    """The English label that a text is, or None."""
    first, second = folded(text)
    return LABEL_OF.get(first) or LABEL_OF.get(second)


@lru_cache(maxsize=65536)
def section_of(text: str) -> str | None:
    """The English section that a text heads, or None."""
    first, second = folded(text)
    return SECTION_OF.get(first) or SECTION_OF.get(second)

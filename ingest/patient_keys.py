"""Names of fields that hold identifiers of patients, in JSON, in XML and in the columns of a table alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KEY_KINDS: Final[Mapping[str, str]] = {
    "ins": "INS", "nir": "INS", "nia": "INS", "insnir": "INS", "matriculeins": "INS", "insc": "INS", "ssn": "INS",
    "numerosecuritesociale": "INS", "numsecu": "INS",
    "ipp": "IPP", "nip": "IPP", "mrn": "IPP", "patientid": "IPP", "idpatient": "IPP", "patientidentifier": "IPP",
    "numpatient": "IPP", "numeropatient": "IPP", "patientnumber": "IPP", "patientipp": "IPP", "ipppatient": "IPP",
    "otherpatientids": "IPP", "numdossier": "IPP", "numerodossier": "IPP", "dossierpatient": "IPP", "patientmrn": "IPP",
    "patientref": "IPP", "patientreference": "IPP",
    "nda": "NDA", "iep": "NDA", "numvenue": "NDA", "numsejour": "NDA", "numerosejour": "NDA", "visitnumber": "NDA",
    "encounterid": "NDA", "visitid": "NDA", "sejourid": "NDA", "venueid": "NDA", "accessionnumber": "ACC",
    "patientname": "NAM", "nompatient": "NAM", "prenompatient": "NAM", "patientnom": "NAM", "patientprenom": "NAM",
    "patientlastname": "NAM", "patientfirstname": "NAM", "patientfullname": "NAM", "nomnaissance": "NAM",
    "nomdenaissance": "NAM", "nomusuel": "NAM", "nomusage": "NAM", "nomdusage": "NAM", "nomjeunefille": "NAM",
    "prenomnaissance": "NAM", "patientbirthname": "NAM", "patientmothersbirthname": "NAM", "otherpatientnames": "NAM",
    "patientfamilyname": "NAM", "patientgivenname": "NAM", "patientdisplayname": "NAM", "patientsname": "NAM",
    "datenaissance": "DOB", "datedenaissance": "DOB", "ddn": "DOB", "dob": "DOB", "birthdate": "DOB",
    "dateofbirth": "DOB", "patientbirthdate": "DOB", "patientdob": "DOB", "patientbirthtime": "DOB",
    "patienttelephonenumbers": "TEL", "patientphone": "TEL", "patientemail": "TEL",
    "patientaddress": "ADR", "patientsaddress": "ADR", "lieunaissance": "ADR", "birthplace": "ADR",
}  # fmt: skip
"""Key, in lower case and without signs -> kind."""

WEAK_KINDS: Final[Mapping[str, str]] = {
    "nom": "NAM", "prenom": "NAM", "prenoms": "NAM", "name": "NAM", "lastname": "NAM", "firstname": "NAM",
    "family": "NAM", "given": "NAM", "surname": "NAM", "fullname": "NAM", "identite": "NAM", "displayname": "NAM",
    "id": "IPP", "identifier": "IPP", "identifiant": "IPP", "numero": "IPP", "value": "IPP", "extension": "IPP",
    "telephone": "TEL", "tel": "TEL", "phone": "TEL", "email": "TEL", "mail": "TEL", "mobile": "TEL", "telecom": "TEL",
    "adresse": "ADR", "address": "ADR", "ville": "ADR", "city": "ADR", "codepostal": "ADR", "postalcode": "ADR",
    "line": "ADR", "naissance": "DOB", "birthday": "DOB",
}  # fmt: skip
"""Keys that are a patient's within a patient, or beside a key of `KEY_KINDS` (names, telephones and addresses only)."""

_ACCENTS: Final = str.maketrans("éèêàçôû", "eeeacou")


def plain_key(key: str) -> str:
    """A key as it is compared: "Nom_Patient" and "nomPatient" are one."""
    return "".join(sign for sign in key.lower() if sign.isalnum()).translate(_ACCENTS)

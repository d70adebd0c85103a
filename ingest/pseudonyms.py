"""Pseudonyms of patients: keyed, one for each patient and hospital, and plain to see.

    PSN-INS-7QXK-3F5WJ2VZ6A4TQ2LM
        |   |    HMAC-SHA256(key of the hospital, kind NUL canonical value), its first 80 bits in base32
        |   id of the hospital's keys
        kind of what stood there (`KINDS`)

The same identifier of the same hospital always becomes the same pseudonym, in whatever format and writing it comes, so
that "one account opened 400 records" can still be counted. Two hospitals have different keys: their patients cannot be
joined. The signs of a pseudonym (A-Z, 2-7, hyphen) need no escape in XML, JSON, HL7, CSV or a URL.

Canonical values are what makes two writings one (`CANONICAL`). 80 bits: among ten million values two share
a pseudonym with a probability of 1 in 24 billion.

What a key can do: whoever holds the HMAC key can try out a guess ("is this Jeanne Martin?"). It stays on the collector.
docs/decisions/0010-pseudonyms-in-collect.md says what follows from that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

KINDS: Final[Mapping[str, str]] = {
    "INS": "national identity (INS, NIR, NIA)",
    "IPP": "identifier of the patient in a hospital or a system",
    "NDA": "identifier of a stay, visit or account",
    "NAM": "name",
    "DOB": "date of birth",
    "TEL": "telephone, e-mail",
    "ADR": "address",
    "ACC": "accession number",
    "QRY": "query, whole",
    "TXT": "free text or observation, whole",
    "OTH": "other data on the patient",
    "LIN": "line that could not be read safely, whole",
}
"""Kind -> what stood where the pseudonym stands."""

PSEUDONYM: Final = re.compile(r"PSN-[A-Z]{3}-[A-Z2-7]{4}-[A-Z2-7]{16}")

_KEY_ID_LENGTH: Final = 4
_TOKEN_BYTES: Final = 10
_MONTHS: Final[Mapping[str, int]] = {
    name: number
    for number, names in enumerate(
        (
            "JAN JANV JANVIER JANUARY",
            "FEB FEV FEVR FEVRIER FEBRUARY",
            "MAR MARS MARCH",
            "AVR AVRIL APR APRIL",
            "MAI MAY",
            "JUIN JUN JUNE",
            "JUIL JUILLET JUL JULY",
            "AOU AOUT AUG AUGUST",
            "SEP SEPT SEPTEMBRE SEPTEMBER",
            "OCT OCTOBRE OCTOBER",
            "NOV NOVEMBRE NOVEMBER",
            "DEC DECEMBRE DECEMBER",
        ),
        start=1,
    )
    for name in names.split()
}
_WORD: Final = re.compile("[A-Z0-9]+")
_LETTERS: Final = str.maketrans({"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})


def folded(text: str) -> str:
    """A name as it is compared: capitals without accents, words parted by one space, in the order given."""
    if text.isascii():
        return " ".join(_WORD.findall(text.upper()))
    spelled = text.translate(_LETTERS)
    signs = {sign: _folded_sign(sign) for sign in set(spelled)}
    return " ".join("".join([signs[sign] for sign in spelled]).split())


def _folded_sign(sign: str) -> str:
    """Letters and digits without accents; nothing for an accent that stands alone; a space for anything else."""
    if unicodedata.combining(sign):
        return ""
    if not sign.isalnum():
        return " "
    return "".join(part for part in unicodedata.normalize("NFKD", sign.upper()).upper() if part.isalnum())


def nir_key(number: str) -> int | None:
    """The key (1 to 97) of a NIR of 13 signs, Corsica's 2A and 2B included; None if it is not one.

    Source: INSEE, "Numéro d'inscription au répertoire": 97 less the number modulo 97; 2A counts as 19, 2B as 18.
    """
    digits = number.replace("2A", "19", 1) if number[5:7] == "2A" else number
    digits = digits.replace("2B", "18", 1) if number[5:7] == "2B" else digits
    if len(digits) != 13 or not (digits.isascii() and digits.isdigit()):
        return None
    return 97 - int(digits) % 97


def nir(text: str) -> str | None:
    """A NIR in its 15 signs, whatever parts its groups; None if its key is wrong. Of 13 signs the key is added."""
    signs = "".join(sign for sign in text.upper() if sign.isalnum())
    if len(signs) not in (13, 15) or not signs.isascii():
        return None
    key = nir_key(signs[:13])
    if key is None or (len(signs) == 15 and signs[13:] != f"{key:02d}"):
        return None
    return f"{signs[:13]}{key:02d}"


def _national(text: str) -> str:
    return nir(text) or _identifier(text)


def _identifier(text: str) -> str:
    signs = "".join(text.upper().split())
    return signs.lstrip("0") or signs


def date_of(text: str) -> tuple[int, int, int] | None:
    """Year, month and day of a date in any writing: 19700131..., 1970-01-31, 31/01/1970, 31 janvier 1970; or None."""
    words = re.findall(r"[0-9]+|[A-Z]+", folded(text))
    words = [word for word in words if word not in ("ER", "TH", "ST", "ND", "RD")]
    if words and len(words[0]) >= 8 and words[0].isdigit():
        compact = words[0]
        found = (int(compact[:4]), int(compact[4:6]), int(compact[6:8]))
        return found if _is_date(found) else _whole(int(compact[4:8]), int(compact[2:4]), int(compact[:2]))
    if len(words) < 3:
        return None
    first, second, third = words[:3]
    if first in _MONTHS and second.isdigit():
        first, second = second, first
    month = _MONTHS.get(second) or (int(second) if second.isdigit() else 0)
    if not first.isdigit() or not third.isdigit():
        return None
    if len(first) == 4:
        return _whole(int(first), month, int(third))
    if len(third) == 4:
        return _whole(int(third), month, int(first)) or _whole(int(third), int(first), month)
    return None


def _whole(year: int, month: int, day: int) -> tuple[int, int, int] | None:
    return (year, month, day) if _is_date((year, month, day)) else None


def _is_date(date: tuple[int, int, int]) -> bool:
    year, month, day = date
    return 1850 <= year <= 2150 and 1 <= month <= 12 and 1 <= day <= 31


def _date(text: str) -> str:
    found = date_of(text)
    return "{:04d}{:02d}{:02d}".format(*found) if found else folded(text)


def _contact(text: str) -> str:
    return text.strip().lower() if "@" in text else "".join(sign for sign in text if sign.isdigit()) or folded(text)


def _name(text: str) -> str:
    return folded(text) or text.strip()


CANONICAL: Final[Mapping[str, Callable[[str], str]]] = {
    "INS": _national,  # without spaces, with its key
    "IPP": _identifier,  # without leading zeros: systems pad the same number to different lengths
    "NDA": _identifier,
    "ACC": _identifier,
    "NAM": _name,  # without accents, case and hyphens, in the order given
    "DOB": _date,  # YYYYMMDD where all of it can be read; a year of two digits is left as it is
    "TEL": _contact,
    "ADR": _name,
}
"""Kind -> the one writing that stands for all; other kinds are taken as they come."""


def canonical(kind: str, text: str) -> str:
    """The value that the pseudonym is made of."""
    return CANONICAL.get(kind, str.strip)(text)


@dataclass(frozen=True, slots=True)
class CollectorKeys:
    """What the collector holds of a hospital's keys; it can make pseudonyms and seal, and cannot open what it sealed.

    Attributes:
        hospital: Id of the hospital.
        id: Of these keys, in every pseudonym made with them.
        secret: The HMAC key, 32 bytes.
        public: The hospital's X25519 public key, 32 bytes.
    """

    hospital: str
    id: str
    secret: bytes
    public: bytes

    def __repr__(self) -> str:
        """Without the secret: a repr ends up in logs."""
        return f"CollectorKeys({self.hospital!r}, {self.id!r})"

    def pseudonym(self, kind: str, text: str) -> str:
        """The pseudonym of an identifier.

        Args:
            kind: Of `KINDS`.
            text: The identifier in any of its writings.
        """
        value = canonical(kind, text).encode("utf-8", "surrogatepass")
        return self._token(kind, value)

    def line_pseudonym(self, line: bytes) -> str:
        """The token of a whole line; equal lines have equal ones."""
        return self._token("LIN", line)

    def _token(self, kind: str, value: bytes) -> str:
        digest = hmac.digest(self.secret, kind.encode() + b"\0" + value, "sha256")
        return f"PSN-{kind}-{self.id}-{base64.b32encode(digest[:_TOKEN_BYTES]).decode()}"


def key_id(public: bytes) -> str:
    """The short name of a key pair: four signs of its public key's SHA-256."""
    return base64.b32encode(hashlib.sha256(b"tocsin pseudonym keys\0" + public).digest())[:_KEY_ID_LENGTH].decode()

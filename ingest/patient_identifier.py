"""An identifier with who gave it, as IHE writes it in HL7 and in audit messages alike (HL7 v2 data type CX).

    8001234^^^CHKERMOR&1.2.250.1.71.4.2.7&ISO^PI
    number  | |  assigning authority         type of identifier
            check digit and its scheme

The number becomes a pseudonym; authority and type stay: they tell a national identity from a local one.
"""

from __future__ import annotations

import re
from typing import Final

from ingest.pseudonyms import nir

INS_AUTHORITIES: Final = ("1.2.250.1.213.1.4.",)
"""Beginning of the OIDs under which the ANS gives the INS (.8 NIR, .9 NIA, .10 and .11 tests)."""
INS_TYPES: Final = frozenset({"INS", "INS-NIR", "INS-NIA", "INS-C", "NH"})

_MODEST: Final = re.compile(r"[A-Za-z0-9.&_:/ \-]{0,100}")
"""What an authority or a type is written with."""
_LONGEST_CHECK: Final = 2
_COMPONENTS: Final = 10


def identifier_kind(value: str, kind: str = "IPP") -> str:
    """INS if the value is a national number with a key that fits, else `kind`."""
    number = value.partition("^")[0]
    return "INS" if sum(sign.isalnum() for sign in number) == 15 and nir(number) is not None else kind


def cut_identifier(said: str, kind: str, mark: str = "^") -> tuple[str, str, str]:
    """Number, what is to stay behind it, and kind of an identifier.

    Args:
        said: Perhaps with components behind the number; other kinds of data are taken whole.
        kind: What it is held for.
        mark: What parts the components.
    """
    if kind not in ("IPP", "INS", "NDA") or mark not in said:
        return said, "", kind
    number, *rest = said.split(mark)
    check = rest[0] if rest else ""
    modest = len(rest) < _COMPONENTS and all(_MODEST.fullmatch(part) for part in rest)
    if not number.strip() or not modest or len(check) > _LONGEST_CHECK or any(_personal(part) for part in rest):
        return said, "", kind
    national = any(part in INS_TYPES for part in rest) or any(oid in part for part in rest for oid in INS_AUTHORITIES)
    return number, mark + mark.join(rest), "INS" if national and kind == "IPP" else identifier_kind(number, kind)


def _personal(part: str) -> bool:
    """Whether a component could itself be a number of the patient: eight digits and more that are no OID."""
    return re.search(r"(?<![0-9.])[0-9]{8,}(?![0-9.])", part) is not None

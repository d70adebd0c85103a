r"""Text whose signs are written as something else, read as if they were not: to find identifiers, and nothing more.

    %C3%A9, %20     URLs (RFC 3986, section 2.1), UTF-8 or else ISO-8859-1
    #303#251, #011  bytes that rsyslog wrote as octal numbers
    \u00e9, \xe9    escapes of JSON and of many programs
    &eacute; &#233; HTML and XML
    e + accent      letters and accents apart (Unicode, form D); full-width signs

The line itself is not changed: each sign knows where in the text it stands, so that only what was found is replaced.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

_ESCAPE: Final = re.compile(
    r"(?P<url>(?:%[0-9A-Fa-f]{2})+)|(?P<octal>(?:#[0-3][0-7]{2})+)|\\(?:u(?P<four>[0-9A-Fa-f]{4})|x(?P<two>[0-9A-Fa-f]{2}))"
    r"|(?P<entity>&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});)|(?P<wide>[\uff01-\uff5e])"
    r"|(?P<apart>[A-Za-z][\u0300-\u036f])"
)
_WIDE: Final = 0xFEE0


def loosened(text: str) -> tuple[str, list[int]] | None:
    """What text says without its escapes, and where each sign of that, and its end, stands; None if it has none."""
    signs: list[str] = []
    places: list[int] = []
    at = 0
    for found in _ESCAPE.finditer(text):
        signs.append(text[at : found.start()])
        places.extend(range(at, found.start()))
        place = found.start()
        for said, length in _said(found):
            signs.append(said)
            places.extend([place] * len(said))
            place += length
        at = found.end()
    if not signs:
        return None
    signs.append(text[at:])
    places.extend(range(at, len(text) + 1))
    return "".join(signs), places


def _said(found: re.Match[str]) -> Iterator[tuple[str, int]]:
    """What an escape says, and how many signs of the text each part of it takes."""
    raw, kind = found[0], found.lastgroup
    if kind == "url":
        yield from _of_bytes(bytes.fromhex(raw.replace("%", "")), len("%00"))
    elif kind == "octal":
        yield from _of_bytes(bytes(int(part, 8) for part in raw.split("#")[1:]), len("#000"))
    elif kind == "entity":
        yield html.unescape(raw), len(raw)
    elif kind == "wide":
        yield chr(ord(raw) - _WIDE), 1
    elif kind == "apart":
        yield unicodedata.normalize("NFC", raw), len(raw)
    else:
        yield chr(int(found["four"] or found["two"], 16)), len(raw)


def _of_bytes(content: bytes, unit: int) -> Iterator[tuple[str, int]]:
    try:
        for sign in content.decode("utf-8"):
            yield sign, unit * len(sign.encode("utf-8"))
    except UnicodeDecodeError:
        for sign in content.decode("iso-8859-1"):
            yield sign, unit

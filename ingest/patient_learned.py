"""What a line itself tells of its patient, sought in the rest of it: the name of PID-5 in the text of an error message.

Sought without case and accents, between signs that are no letters and digits. Words of fewer than three letters
("LE", "DE") and identifiers of fewer than five signs are not sought: they would hit anything.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ingest.patient_nodes import Kept, Nested, Node, Nodes, Patient, Plain
from ingest.pseudonyms import PSEUDONYM, date_of, folded

SHORTEST_WORD: Final = 3
SHORTEST_IDENTIFIER: Final = 5
MOST_SOUGHT: Final = 256
"""Different words and numbers sought in one line. A list of patients has more; it has them in its own fields."""

_NOT_NAMES: Final = frozenset(
    {"DES", "DEL", "DER", "LES", "VAN", "VON", "DOS", "AUX", "ETC", "THE", "AND", "NON", "PATIENT"}
)
_JOINS: Final = frozenset(" ^,_-.'\u00a0\u2019")
_MOST_JOINS: Final = 3
Sought = Mapping[str, str]
"""Folded word or number -> the pseudonym that takes its place."""


@dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int
    pseudonym: str


def learn(patients: Iterable[Patient], pseudonym: Callable[[str, str], str]) -> Sought:
    """What to seek in the rest of a line.

    Args:
        patients: The identifiers found in it.
        pseudonym: Kind and value -> pseudonym.
    """
    sought: dict[str, str] = {}
    for patient in patients:
        if len(sought) >= MOST_SOUGHT:
            break
        for text in _FORMS.get(patient.kind, _none)(patient.said):
            sought.setdefault(text, pseudonym(patient.kind, patient.value))
    return sought


def _words(name: str) -> Iterator[str]:
    for word in folded(name).split():
        if len(word) >= SHORTEST_WORD and word not in _NOT_NAMES and not word.isdigit():
            yield word


def _numbers(identifier: str) -> Iterator[str]:
    text = identifier.strip().upper()
    for form in dict.fromkeys((text, text.lstrip("0"), "".join(text.split()))):
        if len(form) >= SHORTEST_IDENTIFIER and any(sign.isdigit() for sign in form):
            yield form


def _national(identifier: str) -> Iterator[str]:
    signs = "".join(sign for sign in identifier.upper() if sign.isalnum())
    yield from _numbers(identifier)
    yield from _numbers(signs)
    if len(signs) == 15:
        yield signs[:13]


def _dates(date: str) -> Iterator[str]:
    found = date_of(date)
    if found is None:
        return
    year, month, day = found
    yield f"{year:04d}{month:02d}{day:02d}"
    yield f"{day:02d}{month:02d}{year:04d}"
    for mark in "-/.":
        yield f"{year:04d}{mark}{month:02d}{mark}{day:02d}"
        yield f"{day:02d}{mark}{month:02d}{mark}{year:04d}"


def _none(_value: str) -> Iterator[str]:
    return iter(())


_FORMS: Final[Mapping[str, Callable[[str], Iterator[str]]]] = {
    "NAM": _words,
    "INS": _national,
    "IPP": _numbers,
    "NDA": _numbers,
    "ACC": _numbers,
    "TEL": _numbers,
    "DOB": _dates,
}


def replace_learned(nodes: Nodes, sought: Sought) -> Nodes:
    """The same nodes with what was learned as `Patient` nodes of their own, `value` being the pseudonym itself."""
    whole = _fold("\0".join(_plain_texts(nodes)))[0]
    there = {word: pseudonym for word, pseudonym in sought.items() if word in whole}
    return _replaced(nodes, there) if there else nodes


def _plain_texts(nodes: Nodes) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Plain):
            yield node.text
        elif isinstance(node, Nested):
            yield from _plain_texts(node.nodes)


def _replaced(nodes: Nodes, sought: Sought) -> Nodes:
    return [piece for node in nodes for piece in _searched(node, sought)]


def _searched(node: Node, sought: Sought) -> Nodes:
    if isinstance(node, Plain):
        return _search(node.text, sought)
    if isinstance(node, Nested):
        return [Nested(node.text, _replaced(node.nodes, sought), node.write)]
    return [node]


def _search(text: str, sought: Sought) -> Nodes:
    if "PSN-" in text:  # a pseudonym made earlier is no place to look for names
        nodes: Nodes = []
        start = 0
        for made in PSEUDONYM.finditer(text):
            nodes += [*_search_plain(text[start : made.start()], sought), Kept(made[0])]
            start = made.end()
        return [*nodes, *_search_plain(text[start:], sought)]
    return _search_plain(text, sought)


def _search_plain(text: str, sought: Sought) -> Nodes:
    plain, places = _fold(text)
    found = [hit for word, token in sought.items() for hit in _hits(plain, word, token)]
    if not found:
        return [Plain(text)]
    found.sort(key=lambda hit: (hit.start, -hit.end))
    nodes: Nodes = []
    at = 0
    for hit in _merged(found, plain):
        start, end = (hit.start, hit.end) if places is None else (places[hit.start], _behind(places, hit.end))
        nodes += [Plain(text[at:start]), Patient(text[start:end], "", hit.pseudonym)]
        at = end
    return [*nodes, Plain(text[at:])]


def _behind(places: list[int], end: int) -> int:
    """Where what ends at `end` ends in the text: behind its last sign, and the accents that stand on it."""
    while end < len(places) - 1 and places[end] == places[end - 1]:  # in the middle of a ligature
        end += 1
    return places[end]


def _fold(text: str) -> tuple[str, list[int] | None]:
    """Folded text, and where each of its signs stands in the text; None if at the same place."""
    if text.isascii():
        return text.upper(), None
    signs = {sign: _folded_sign(sign) for sign in set(text)}
    if all(len(plain) == 1 for plain in signs.values()):
        return "".join([signs[sign] for sign in text]), None
    places = [place for place, sign in enumerate(text) for _ in signs[sign]]
    return "".join([signs[sign] for sign in text]), [*places, len(text)]


def _folded_sign(sign: str) -> str:
    """One sign as `folded` writes it: none for an accent that stands alone, two for a ligature."""
    if unicodedata.combining(sign):
        return ""
    return folded(sign).replace(" ", "") or sign


def _hits(plain: str, word: str, token: str) -> Iterator[_Found]:
    date = word[:1].isdigit() and len(word) in (8, 10)
    start = plain.find(word)
    while start >= 0:
        end = start + len(word)
        first = start
        while word[0].isdigit() and first and plain[first - 1] == "0":
            first -= 1  # the same number, padded
        alone = not (first and plain[first - 1].isalnum()) and not plain[end : end + 1].isalnum()
        if alone and not (date and _goes_on_as_time(plain, end)):
            yield _Found(first, end, token)
        start = plain.find(word, end)


def _goes_on_as_time(plain: str, end: int) -> bool:
    """Whether a clock follows a date: a newborn's day of birth is also the day on which the line was written."""
    return plain[end : end + 1] in (" ", ":") and plain[end + 1 : end + 3].isdigit() and plain[end + 3 : end + 4] == ":"


def _merged(found: list[_Found], plain: str) -> Iterator[_Found]:
    """Words of one name as one: only separators lie between them."""
    last = found[0]
    for hit in found[1:]:
        between = plain[last.end : hit.start]
        if hit.start < last.end:
            last = _Found(last.start, max(last.end, hit.end), last.pseudonym)
        elif hit.pseudonym == last.pseudonym and len(between) <= _MOST_JOINS and set(between) <= _JOINS:
            last = _Found(last.start, hit.end, last.pseudonym)
        else:
            yield last
            last = hit
    yield last

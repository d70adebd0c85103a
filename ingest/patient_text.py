"""Identifiers of patients in text without structure: national numbers that prove themselves, and values behind labels.

    INS, NIR    13 digits and a key that fits, with or without spaces; 2A and 2B for Corsica
    labels      "né(e) le 31/01/1970", "IPP: 8001234", "NDA=...", "Patient: DUPONT^JEAN", "nom_patient=..."
    DICOM       "(0010,0010) PN [DUPONT^JEAN]" as tools print it: group 0010 is the patient
    FHIR        "Patient/8001234" as in the paths of requests

Text has no grammar, so this finds what is written in the usual ways and nothing else: a name without a label is not
found unless the line gives it elsewhere. Every repetition in the patterns has a bound, and no two that follow each
other can take the same sign, so the time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ingest.patient_identifier import identifier_kind
from ingest.patient_keys import KEY_KINDS, plain_key
from ingest.patient_nodes import Nodes, Patient, Plain
from ingest.pseudonyms import PSEUDONYM, date_of, nir

_I: Final = re.IGNORECASE

_GAP: Final = r"(?:[ \t./\-_+\u00a0\u202f\u2009]{1,2}|%20)?"
_NIR: Final = re.compile(
    rf"(?<![0-9])[1-478]{_GAP}[0-9]{{2}}{_GAP}[0-9]{{2}}{_GAP}(?:[0-9]{{2}}|2[ABab]){_GAP}[0-9]{{3}}{_GAP}[0-9]{{3}}"
    rf"{_GAP}[0-9]{{2}}(?![0-9])"
)

_BEGIN: Final = r"(?<![A-Za-z0-9À-ÿ])"
_SEP: Final = r"""["'\]”]?[ \t\u00a0]{0,3}(?:=>|[:=#]|[\-–](?= ))?[ \t\r\n\u00a0]{0,3}["'“\[(]?"""
_MARK: Final = r"""["'\]”]?[ \t\u00a0]{0,3}(?:=>|[:=])[ \t\u00a0]{0,3}"""
"""Between a label and what it labels: with `_MARK` there must be a sign, so that prose is left alone."""

_MONTH: Final = r"(?:jan|f[ée]v|feb|mar|a[vp]r|ma[iy]|jui|jun|jul|ao[uû]|aug|sep|oct|nov|d[ée]c)[a-zéû]{0,7}\.?"
_DATE: Final = (
    r"(?:[0-9]{1,2}(?:er)?[ /.\-]" + _MONTH + r"[ /.\-][0-9]{4}|[0-9]{1,2}[/.\- ][0-9]{1,2}[/.\- ](?:[0-9]{4}|[0-9]{2})"
    r"|[0-9]{4}[/.\-][0-9]{1,2}[/.\-][0-9]{1,2}|[0-9]{8}|[0-9]{1,2}%2F[0-9]{1,2}%2F[0-9]{4})(?![0-9])"
)
_BIRTH: Final = re.compile(
    rf"{_BEGIN}(?:n[ée]e?(?:\(e\))?(?: ?\(?e\)?)?[ _]le|n[ée]e?\(e\)|ddn|dob"
    r"|dn(?=[ ]?[:=])|(?:patient[ _.\-]?)?date[ _\-]?(?:de[ _\-]?)?nais(?:s(?:ance)?)?\.?|naissance"
    r"|date[ _\-]?of[ _\-]?birth"
    rf"|(?:patient[ _.\-]?s?[ _.\-]?)?birth[ _\-]?(?:date|day)|born(?: on)?){_SEP}(?P<value>{_DATE})",
    _I,
)

_OF: Final = r"(?:[ _.\-]?(?:d[ue]|of)(?:[ _.\-]?(?:la|l['’]))?)?[ _.\-]?"
_ID_VALUE: Final = r"(?P<value>(?=[A-Za-z._/\-]{0,40}[0-9])[A-Za-z0-9][A-Za-z0-9._/\-]{1,63})"
_IDENTIFIER: Final = re.compile(
    rf"{_BEGIN}(?:(?:num[ée]?ro|num|no|n°|id|identifiant|code|pat|patient)?[ _.\-]?(?:ipp|nip|mrn)"
    r"(?:[ _.\-](?:n°|no|num[ée]ro|number|d[ue](?: la)? patiente?))?|id[ _.\-]?pat"
    rf"|(?:num[ée]?ro|num|no|n°|id|identifiant|code|dossier|ref){_OF}(?:patiente?|dossier(?:[ _.\-]?patient)?)"
    rf"|patient[ _.\-]?(?:id|number|num|identifier|no|n°|ref)|other[ _]?patient[ _]?ids?|patient|dossier[ _.\-]?patient"
    rf")(?![A-Za-zÀ-ÿ]){_SEP}{_ID_VALUE}",
    _I,
)
_PATH: Final = re.compile(
    r"/(?:patients?|dossiers?|ipp|nip|ins|s[ée]jours?|venues?|encounters?)/"
    r"(?P<value>(?=[A-Za-z._\-]{0,40}[0-9])[A-Za-z0-9][A-Za-z0-9._\-]{1,63})",
    _I,
)
_STAY: Final = re.compile(
    rf"{_BEGIN}(?:(?:num[ée]?ro|num|no|n°|id|identifiant|code){_OF})?"
    r"(?:nda|iep|venue|s[ée]jour|visit[ _.\-]?(?:id|number)|encounter[ _.\-]?(?:id|number)"
    r"|accession[ _.\-]?(?:number|no))"
    rf"(?![A-Za-zÀ-ÿ]){_SEP}{_ID_VALUE}",
    _I,
)
_NATIONAL: Final = re.compile(
    rf"{_BEGIN}(?:(?:matricule[ _.\-]?)?ins(?:[ _.\-]?(?:nir|nia|c))?|nir|nia|ssn|s[ée]cu"
    rf"|(?:num[ée]?ro|num|no|n°){_OF}(?:s[ée]curit[ée] sociale|s[ée]cu|ss)|social security number){_SEP}"
    r"(?P<value>[0-9](?:[ .\-\u00a0]?[0-9ABab]){9,21})(?![0-9A-Za-z])",
    _I,
)

_WORD: Final = r"[A-Za-zÀ-ÖØ-öø-ɏ'’\-]{1,40}"
_QUOTED: Final = r""""(?P<quoted>[^"\r\n]{1,200})"|'(?P<single>[^'\r\n]{1,200})'|\[(?P<boxed>[^\]\r\n]{1,200})\]"""
_PN: Final = (
    r"(?P<pn>[^\s\^|;,\"'<>\[\](){}=&]{1,64}(?: [^\s\^|;,\"'<>\[\](){}=&]{1,64}){0,3}\^[^\s|;,\"'<>\[\](){}=&]{0,200})"
)
_CAPITAL: Final = r"(?-i:[A-ZÀ-ÖØ-Þ])"
_TITLE: Final = r"(?:(?:M\.|Mr\.?|Mme|Mlle|Mrs\.?|Ms\.?) )?"
_WORDS: Final = rf"(?P<words>{_TITLE}{_CAPITAL}{_WORD}(?:,? {_CAPITAL}{_WORD}){{0,4}})"
_BARE: Final = r"(?P<bare>[^\s|;,\"'<>\[\](){}=&]{1,100})"
_NAMED: Final = (
    r"patient['’]?s?[ _.\-]?(?:full[ _]?|last[ _]?|first[ _]?|birth[ _]?|mother['’]?s?[ _]?birth[ _]?)?"
    r"(?:name|nom|pr[ée]nom|family|given)"
    r"|(?:nom|pr[ée]nom|name)s?(?:[ _.\-]?(?:d[ue]|of))?(?:[ _.\-]?la|[ _.\-]?the)?[ _.\-]?patiente?"
    r"|nom[ _.\-]?(?:de[ _.\-]?)?(?:naissance|jeune[ _.\-]?fille|usuel|usage)|nom[ _.\-]?d['’]usage"
    r"|pr[ée]nom[ _.\-]?(?:de[ _.\-]?)?naissance"
)
_NAME: Final = re.compile(rf"{_BEGIN}(?:{_NAMED}|patiente?|malade){_MARK}(?:{_QUOTED}|{_PN}|{_WORDS}|{_BARE})", _I)
_CALLED: Final = re.compile(
    rf"{_BEGIN}(?:patiente?|malade)[ \u00a0](?:{_PN}"
    rf"|(?P<words>{_TITLE}(?!(?:IPP|INS|NIR|NDA|NIP|IEP|DDN|DOB|MRN|ID|IDs|UID|EHR|SQL|HTTP|API)\b)"
    rf"(?-i:[A-ZÀ-ÖØ-Þ]{{2}}){_WORD}(?: (?-i:[A-ZÀ-ÖØ-Þ]){_WORD}){{0,3}}))",
    _I,
)
_WEAK: Final = re.compile(
    rf"{_BEGIN}(?:nom|noms|pr[ée]nom|pr[ée]noms|last[ _]?name|first[ _]?name|family|given|surname|identit[ée]){_MARK}"
    rf"(?:{_QUOTED}|{_PN}|{_WORDS}|{_BARE})",
    _I,
)
_TITLED: Final = re.compile(
    rf"{_BEGIN}(?-i:M\.|Mme|Mlle|Mrs\.?|Mr\.?|Madame|Monsieur|Mademoiselle)[ \u00a0]"
    rf"(?P<words>(?-i:[A-ZÀ-ÖØ-Þ]){_WORD}(?: (?-i:[A-ZÀ-ÖØ-Þ]){_WORD}){{0,4}})"
)
_TAG_BEGIN: Final = re.compile(r"\(?0010 ?, ?(?P<element>[0-9a-f]{4})", _I)
_TAG: Final = re.compile(
    r"\(?0010 ?, ?(?P<element>[0-9a-f]{4})\)?(?P<between>(?:[^\[\]\"'\r\n(:]|'s ){0,64}?):?[ \t]{0,8}"
    r"""(?:\[(?P<boxed>[^\]\r\n]{1,400})\]|"(?P<quoted>[^"\r\n]{1,400})"|(?<=[\s:])'(?P<single>[^'\r\n]{1,400})')""",
    _I,
)
_TAG_BARE: Final = re.compile(
    r"\(0010 ?, ?(?P<element>[0-9a-f]{4})\) ?(?:[A-Z]{2} )?(?:[A-Z][A-Za-z]{3,40} )?[:=]? ?"
    r"(?P<pn>[^\s\[\"'()#,;|][^\[\"'()#;|\r\n\t]{0,200})"
)
_TAG_ALONE: Final = re.compile(
    r"(?<![0-9A-Za-z.(])(?:x|0x)?0010[,|]? ?(?P<element>[0-9a-f]{4}) ?[:=] ?(?P<value>[^\s&;\"'\[\]()<>]{1,200})", _I
)
_ELEMENT: Final = re.compile(
    r"<(?:[\w.\-]{1,40}:)?(?P<tag>[^\W\d][\w.\-]{1,40})(?:\s[^<>]{0,200})?>(?:<!\[CDATA\[)?(?P<value>[^<>]{1,300}?)(?:\]\]>)?</"
)
_REFERENCE: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:Patient|RelatedPerson)(?:/|%2F)(?P<value>(?!_)[A-Za-z0-9][A-Za-z0-9.\-]{0,63})"
)
_QUERY: Final = re.compile(
    r"(?<=[?&])(?P<key>name|family|given|identifier|birthdate|phone|email|telecom|address|_id|patient|subject)(?::[a-z]{1,12})?="
    r"(?P<value>[^&\s\"'<>]{1,300})"
)

_TAG_KINDS: Final = {
    "0010": "NAM", "0020": "IPP", "0030": "DOB", "1000": "IPP", "1001": "NAM", "1005": "NAM", "1060": "NAM",
    "1040": "ADR", "2154": "TEL", "2155": "TEL", "2297": "NAM",
}  # fmt: skip
TAGS_KEPT: Final = frozenset({"0040", "1010", "1020", "1030"})
"""Of group 0010: sex, age, size, weight."""
_QUERY_KINDS: Final = {
    "name": "NAM", "family": "NAM", "given": "NAM", "identifier": "IPP", "birthdate": "DOB", "phone": "TEL",
    "email": "TEL", "telecom": "TEL", "address": "ADR", "_id": "IPP", "patient": "IPP", "subject": "IPP",
}  # fmt: skip


def tag_kind(element: str) -> str | None:
    """Kind of what a DICOM element (0010,element) holds; None if it says nothing of who the patient is."""
    element = element.lower()
    return None if element in TAGS_KEPT else _TAG_KINDS.get(element, "OTH")


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    kind: str


_GROUPS: Final = ("value", "quoted", "single", "boxed", "pn", "words", "bare")


def _span(found: re.Match[str], kind: str) -> _Span | None:
    groups = found.groupdict()
    for name in _GROUPS:
        if groups.get(name) is not None:
            return _Span(found.start(name), found.end(name), kind)
    return None


def _of_kind(pattern: re.Pattern[str], kind: str) -> Callable[[str], Iterator[_Span]]:
    def find(text: str) -> Iterator[_Span]:
        for found in pattern.finditer(text):
            span = _span(found, kind)
            if span is not None:
                yield span

    return find


def _national(text: str) -> Iterator[_Span]:
    for found in _NIR.finditer(text):
        if nir(found[0].replace("%20", "")) is not None:
            yield _Span(found.start(), found.end(), "INS")


def _labelled_national(text: str) -> Iterator[_Span]:
    for found in _NATIONAL.finditer(text):
        yield _Span(found.start("value"), found.end("value"), "INS")


_MORE: Final = re.compile(r"[ ]{0,2}[,;/][ ]{0,2}(?P<value>[0-9]{5,20})(?![0-9A-Za-z.:])")
_BEHIND_NAME: Final = re.compile(r"[ ,(]{1,3}(?P<value>[0-9]{5,20})(?![0-9A-Za-z.:])")


def _identifiers(text: str) -> Iterator[_Span]:
    for found in _IDENTIFIER.finditer(text):
        value = found["value"]
        if date_of(value) is not None and found[0].lower().startswith("patient") and not value.isdigit():
            continue  # "patient 1970-01-31" says nothing of who
        end = found.end("value") - (len(value) - len(value.rstrip("._/-")))
        yield _Span(found.start("value"), end, "IPP")
        while (more := _MORE.match(text, end)) is not None:  # "IPP: 8001234, 8001235"
            end = more.end()
            yield _Span(more.start("value"), end, "IPP")


def _names(text: str) -> Iterator[_Span]:
    for pattern in (_NAME, _CALLED):
        for found in pattern.finditer(text):
            span = _span(found, "NAM")
            if span is not None:
                digits = sum(sign.isdigit() for sign in text[span.start : span.end])
                yield _Span(span.start, span.end, "IPP") if digits >= SHORTEST_NUMBER else span
                if (number := _BEHIND_NAME.match(text, span.end)) is not None:
                    yield _Span(number.start("value"), number.end(), "IPP")


SHORTEST_NUMBER: Final = 3
"""Digits from which what stands behind "patient" is a number and no name."""


def _tags(text: str) -> Iterator[_Span]:
    for begin in _TAG_BEGIN.finditer(text):
        found = _TAG.match(text, begin.start()) or _TAG_BARE.match(text, begin.start())
        kind = tag_kind(begin["element"])
        span = _span(found, kind) if found and kind else None
        if span is not None:
            yield span


def _bare_tags(text: str) -> Iterator[_Span]:
    for found in _TAG_ALONE.finditer(text):
        kind = tag_kind(found["element"])
        if kind is not None:
            yield _Span(found.start("value"), found.end("value"), kind)


def _elements(text: str) -> Iterator[_Span]:
    for found in _ELEMENT.finditer(text):
        kind = KEY_KINDS.get(plain_key(found["tag"]))
        if kind is not None:
            yield _Span(found.start("value"), found.end("value"), kind)


def _queries(text: str) -> Iterator[_Span]:
    for found in _QUERY.finditer(text):
        yield _Span(found.start("value"), found.end("value"), _QUERY_KINDS[found["key"]])


_RULES: Final[tuple[tuple[tuple[str, ...], Callable[[str], Iterator[_Span]]], ...]] = (
    (("0010",), _tags),
    (("0010",), _bare_tags),
    (("</",), _elements),
    (("né", "nee", "ne l", "ne(", "ddn", "dn", "dob", "nais", "birth", "born"), _of_kind(_BIRTH, "DOB")),
    (("ins", "nir", "nia", "ssn", "cu", "ss", "social"), _labelled_national),
    (("ipp", "nip", "mrn", "pat", "dossier"), _identifiers),
    (("nda", "iep", "venue", "jour", "visit", "encounter", "accession"), _of_kind(_STAY, "NDA")),
    (("patient", "malade", "nom"), _names),
    (
        ("patient/", "patients/", "dossier", "ipp/", "nip/", "ins/", "jour", "venue", "encounter"),
        _of_kind(_PATH, "IPP"),
    ),
    (("patient/", "patient%2f", "relatedperson"), _of_kind(_REFERENCE, "IPP")),
    (("patient?", "relatedperson?", "?patient=", "&patient=", "?subject=", "&subject="), _queries),
)
"""Texts of which one must be in the line, in lower case, and what then looks for identifiers."""

_WEAK_RULES: Final = (_of_kind(_WEAK, "NAM"), _of_kind(_TITLED, "NAM"))
"""Labels that may as well be staff's: they count where the line speaks of a patient."""


def find_spans(text: str) -> list[tuple[int, int, str]]:
    """Where identifiers stand in text: start, end and kind, in order, none overlapping another."""
    lower = text.lower()
    spans = list(_national(text))
    for needles, find in _RULES:
        if any(needle in lower for needle in needles):
            spans += find(text)
    if spans or "patient" in lower:
        for find in _WEAK_RULES:
            spans += find(text)
    spans.sort(key=lambda span: (span.start, -span.end))
    found: list[tuple[int, int, str]] = []
    last = 0
    for span in spans:
        start = max(span.start, last)  # of two that overlap, the second gives what the first left
        if start < span.end and text[start : span.end].strip():
            found.append((start, span.end, span.kind))
            last = span.end
    return found


def read_text(text: str, loose: tuple[str, list[int]] | None = None) -> Nodes:
    """Text without structure as nodes.

    Args:
        text: As it stands in the line.
        loose: What it says without its escapes (`ingest.patient_escapes.loosened`).
    """
    nodes: Nodes = []
    at = 0
    for start, end, kind, value in _spans(text, loose):
        if "PSN-" in value and sum(sign.isalnum() for sign in PSEUDONYM.sub("", value)) < SHORTEST_NUMBER:
            continue  # made earlier, by this collector or another
        nodes += [Plain(text[at:start]), Patient(text[start:end], identifier_kind(value, kind), value)]
        at = end
    nodes.append(Plain(text[at:]))
    return nodes


def _spans(text: str, loose: tuple[str, list[int]] | None) -> Iterator[tuple[int, int, str, str]]:
    """Start, end, kind and what it says. What takes for an escape what is none finds less: both readings count."""
    raw = [(start, end, kind, text[start:end]) for start, end, kind in find_spans(text)]
    if loose is None:
        yield from raw
        return
    plain, places = loose
    found = [(places[start], places[end], kind, plain[start:end]) for start, end, kind in find_spans(plain)]
    last = 0
    for start, end, kind, value in sorted([*found, *raw], key=lambda span: (span[0], -span[1])):
        begin = max(start, last)
        if begin < end:
            yield begin, end, kind, value if begin == start else text[begin:end]
            last = end

"""Patients' identifiers out of raw lines, before the bus: the one exception to "collect does not parse".

    bytes -> text (undone at the end without loss) -> reader by what the line looks like -> nodes -> pseudonyms -> bytes

A line in which nothing is found comes out as the object that went in. A line that looks like a format with patients in
it and cannot be read as such is sealed whole into the hospital's vault, and a stub goes on in its place: counted,
marked, and nothing is lost. docs/decisions/0010-pseudonyms-in-collect.md.

`protect` works on a batch: everything new is sealed, written and synced to disk before the first line is handed back.
It may block on the disk; it belongs in a worker thread. One object serves one thread at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from ingest import patient_atna, patient_hl7, patient_json
from ingest.formats.adapter import AdapterDefinition
from ingest.patient_escapes import loosened
from ingest.patient_learned import learn, replace_learned
from ingest.patient_nodes import MAX_DEPTH, Nested, Nodes, Patient, Plain, UnreadableError, patients_of
from ingest.patient_records import header_host, read_record
from ingest.patient_text import read_text
from ingest.pseudonyms import CollectorKeys

MARK_SEALED: Final = "patients' data: the line could not be read safely and was sealed"
"""Mark of a line in whose place a stub goes on."""

_NEEDLES: Final = (
    b"patient", b"malade", b"msh", b"pid|", b"mrg|", b"nk1|", b"gt1|", b"in1|", b"in2|", b"pid.", b"person",
    b"auditmessage", b"participantobject", b"resourcetype", b"recordtarget", b"ipp", b"nip", b"nda", b"iep", b"mrn",
    b"nir", b"ins", b"nia", b"ssn", b"secu", b"s\xc3\xa9cu", b"s\xe9cu", b"ddn", b"dob", b"nais", b"birth", b"born",
    b"n\xc3\xa9", b"n\xe9", b"n\xc3\x89", b"n\xc9", b"nee", b"ne le", b"ne(e", b"0010", b"dossier", b"sejour",
    b"s\xc3\xa9jour", b"s\xe9jour", b"venue", b"visit", b"encounter", b"accession", b"usager", b"beneficiaire", b"nom",
    b"\\u00", b"&#", b"&lt;", b"\\u003c", b"#30", b"dn:", b"dn=", b"dn :", b"%c3%", b"%7c", b"%3c", b"%7b",
    b"\xef\xbc", b"e\xcc\x81",
    *(f"{name.lower()}|".encode() for name in patient_hl7.ALONE),
    *(f"{name.lower()}{sign}".encode() for name in patient_hl7.PERSON_SEGMENTS for sign in patient_hl7.SIGNS),
)  # fmt: skip
"""A line without any of these, in lower case, and without a national number, has nothing that a reader would find."""
_LONG_NUMBER: Final = re.compile(
    rb"[0-9](?:[ \t._+/\-]{0,2}(?:%20)?(?:\xc2\xa0|\xe2\x80[\xaf\x89]|\xa0)?[0-9]){10}"
    rb"|[0-9]{2}.{0,2}2[ABab].{0,2}[0-9]{3}"
)

_INVALID: Final = {0xDC00 + byte: byte for byte in range(0x80, 0x100)}
"""Bytes that are no UTF-8, as Python keeps them -> the sign they stand for in ISO-8859-1."""
_ESCAPED_XML: Final = re.compile(
    r"&(?:amp;)?(?:lt|#60|#x3c);[^&]{0,80}(?:AuditMessage|ParticipantObject|Patient)", re.IGNORECASE
)


SHORTEST: Final = 5
"""Signs in the shortest text that names a patient: a label and a number ("IPP12")."""


AdapterOf = Callable[[str | None], AdapterDefinition | None]
"""Host in a line's header -> the adapter its source is pinned to."""


class Vault(Protocol):
    """Where originals are kept, sealed, for the hospital alone (`ingest.vault`)."""

    def keep(self, originals: Sequence[tuple[str, bytes]]) -> int:
        """Seal and write what is not known yet, and return when it is on disk.

        Args:
            originals: Pseudonym and what it stands for.

        Returns:
            How many were new.
        """


@dataclass(slots=True)
class PatientStats:
    """What was done so far.

    Attributes:
        lines: Lines looked at.
        changed: Lines with at least one pseudonym.
        sealed: Lines that could not be read, and were sealed.
        identifiers: Identifiers replaced.
        new: Pseudonyms made for the first time (or again, if the vault had forgotten them).
        reasons: Why lines were sealed -> how many.
    """

    lines: int = 0
    changed: int = 0
    sealed: int = 0
    identifiers: int = 0
    new: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Protected:
    """A line made fit to leave the hospital.

    Attributes:
        line: The same object if there was nothing to change.
        originals: Pseudonym and what it stands for, in order.
        sealed: Why the whole line was sealed; None if it was not.
    """

    line: bytes
    originals: tuple[tuple[str, bytes], ...] = ()
    sealed: str | None = None


class PatientData:
    """The identifiers of one hospital's patients.

    Args:
        keys: Of the hospital.
        vault: Where originals go.
        seal_unknown: Whether to seal also lines of no known structure that name a patient: text has no grammar, so
            what a pattern misses would go on in clear.
    """

    def __init__(self, keys: CollectorKeys, vault: Vault, *, seal_unknown: bool = False) -> None:
        self._keys = keys
        self._vault = vault
        self._seal_unknown = seal_unknown
        self.stats = PatientStats()

    def protect(self, lines: Sequence[bytes], adapters: AdapterOf | None = None) -> list[bytes]:
        """The same lines with pseudonyms in the place of identifiers, once the vault holds what these stand for.

        Args:
            lines: Raw lines.
            adapters: Gives the definition that a line's source is pinned to, by the host in its header.

        Raises:
            VaultError: The vault cannot be written; no line may go on.
        """
        return [item.line for item in self._protected(lines, adapters)]

    def protect_marked(
        self, lines: Sequence[bytes], marks: Mapping[int, str], adapters: AdapterOf | None = None
    ) -> tuple[list[bytes], dict[int, str]]:
        """`protect` for lines with marks (place -> mark); sealed lines get one too.

        Raises:
            VaultError: The vault cannot be written; no line may go on.
        """
        done = self._protected(lines, adapters)
        marks = dict(marks)
        for index, item in enumerate(done):
            if item.sealed is not None:
                marks[index] = f"{marks[index]}; {MARK_SEALED}" if index in marks else MARK_SEALED
        return [item.line for item in done], marks

    def _protected(self, lines: Sequence[bytes], adapters: AdapterOf | None) -> list[Protected]:
        needles = _needles_in(b"\n".join(lines))
        done = [
            protect_line(line, self._keys, seal_unknown=self._seal_unknown, adapters=adapters)
            if adapters is not None or _may_hold(line, needles)
            else Protected(line)
            for line in lines
        ]
        originals = [pair for item in done for pair in item.originals]
        new = self._vault.keep(originals) if originals else 0
        stats = self.stats
        stats.lines += len(done)
        stats.new += new
        for item in done:
            if item.sealed is not None:
                stats.sealed += 1
                stats.reasons[item.sealed] = stats.reasons.get(item.sealed, 0) + 1
            elif item.originals:
                stats.changed += 1
                stats.identifiers += len(item.originals)
        return done


def protect_line(
    line: bytes, keys: CollectorKeys, *, seal_unknown: bool = False, adapters: AdapterOf | None = None
) -> Protected:
    """One line; never raises, whatever its bytes. Arguments as for `PatientData`."""
    try:
        nodes, exact = _read_line(line, adapters, seal_unknown=seal_unknown)
        return _written(line, nodes, exact, keys)
    except UnreadableError as error:
        return seal(line, str(error), keys)


def seal(line: bytes, reason: str, keys: CollectorKeys) -> Protected:
    """The whole line into the vault, and what goes on in its place."""
    token = keys.line_pseudonym(line)
    stub = f"tocsin: line sealed, token {token}, reason {reason}, {len(line)} bytes"
    return Protected(stub.encode(), ((token, line),), reason)


def _needles_in(text: bytes) -> tuple[bytes, ...]:
    """Those of all that may matter which are there; most lines of most batches have few."""
    lower = text.lower()
    return tuple(needle for needle in _NEEDLES if needle in lower)


def _may_hold(line: bytes, needles: tuple[bytes, ...] = _NEEDLES) -> bool:
    """Whether a reader could find something in a line."""
    lower = line.lower()
    return any(needle in lower for needle in needles) or _LONG_NUMBER.search(line) is not None or b"\0" in line


def _read_line(line: bytes, adapters: AdapterOf | None, *, seal_unknown: bool) -> tuple[Nodes, str]:
    """The line's nodes, and its exact text: where bytes are no UTF-8 the nodes hold what they mean in ISO-8859-1."""
    if b"\0" in line.rstrip(b"\0"):
        raise UnreadableError("it holds NUL bytes, as UTF-16 does")
    exact = line.decode("utf-8", "surrogateescape")
    text = exact if exact.isascii() else exact.translate(_INVALID)
    definition = adapters(header_host(text)) if adapters is not None else None
    nodes = read(text, 0) if definition is None else read_record(text, definition, 0, read)
    if seal_unknown and patients_of(nodes) and all(isinstance(node, Plain | Patient) for node in nodes):
        raise UnreadableError("text without a known structure names a patient")
    return nodes, exact


def read(text: str, depth: int) -> Nodes:
    """Text as nodes, by what it looks like.

    Raises:
        UnreadableError: It looks like a format with patients in it, and cannot be read as such.
    """
    if depth > MAX_DEPTH:
        raise UnreadableError(f"more than {MAX_DEPTH} notations within one another")
    if len(text) < SHORTEST:
        return [Plain(text)]
    nodes: Nodes = []
    at, other = 0, -1
    while (begin := patient_json.begin_of_object(text, at)) is not None:
        if other < at:
            other = _other_begin(text, at)
        if other < begin:  # what is within another format is for its reader to take apart
            break
        found = patient_json.read_object(text, begin, depth, read)
        if found is None:
            break
        nodes += [*_read_other(text[at:begin], depth), *found[0]]
        at = found[1]
    return nodes + _read_other(text[at:] if at else text, depth)


def _other_begin(text: str, at: int) -> int:
    """Where the next format that is not JSON begins; the end of the text if nowhere."""
    found = (looks.search(text, at) for looks in (patient_atna.LOOKS, patient_hl7.LOOKS))
    return min((match.start() for match in found if match is not None), default=len(text))


def _read_other(text: str, depth: int) -> Nodes:
    if not text.strip():
        return [Plain(text)]
    if patient_atna.LOOKS.search(text) is not None:
        return patient_atna.read_xml(text, depth, read)
    if patient_hl7.LOOKS.search(text) is not None:
        return patient_hl7.read_hl7(text, depth, read)
    if "&" in text and _ESCAPED_XML.search(text):
        raise UnreadableError("XML written as text")
    loose = loosened(text)
    if loose is not None and (patient_atna.LOOKS.search(loose[0]) or patient_hl7.LOOKS.search(loose[0])):
        raise UnreadableError("XML or HL7 written with escapes")
    return read_text(text, loose)


def _written(line: bytes, nodes: Nodes, exact: str, keys: CollectorKeys) -> Protected:
    patients = patients_of(nodes)
    if not patients:
        return Protected(line)
    tokens = {(patient.kind, patient.value): keys.pseudonym(patient.kind, patient.value) for patient in patients}
    sought = learn(patients, lambda kind, value: tokens[kind, value])
    nodes = replace_learned(nodes, sought) if sought else nodes
    originals = {
        tokens[patient.kind, patient.value]: patient.said.encode("utf-8", "surrogatepass") for patient in patients
    }
    text = _Writer(exact, tokens).write(nodes)
    return Protected(text.encode("utf-8", "surrogateescape"), tuple(originals.items()))


@dataclass(slots=True)
class _Writer:
    """Writes nodes; what is unchanged is taken from the exact text, sign for sign.

    Attributes:
        exact: The line with bytes that are no UTF-8 kept apart.
        tokens: Kind and value -> pseudonym.
        at: How far the exact text is written.
    """

    exact: str
    tokens: dict[tuple[str, str], str]
    at: int = 0

    def write(self, nodes: Nodes) -> str:
        parts: list[str] = []
        for node in nodes:
            end = self.at + len(node.text)
            if isinstance(node, Patient):
                parts.append(self._pseudonym(node))
            elif isinstance(node, Nested) and patients_of(node.nodes):
                parts.append(node.write(self._inner(node.nodes)))
            else:
                parts.append(self.exact[self.at : end])
            self.at = end
        return "".join(parts)

    def _inner(self, nodes: Nodes) -> str:
        """Text of another notation is no part of the exact text: it is written from the nodes alone."""
        return "".join(
            self._pseudonym(node)
            if isinstance(node, Patient)
            else node.write(self._inner(node.nodes))
            if isinstance(node, Nested) and patients_of(node.nodes)
            else node.text
            for node in nodes
        )

    def _pseudonym(self, node: Patient) -> str:
        token = self.tokens[node.kind, node.value] if node.kind else node.value
        return f"{node.before}{token}{node.after}"

"""A line taken apart for the sake of patients: what is kept, what may be searched, what must not go on.

Readers (`ingest.patient_*`) turn text into nodes. Every sign of the text is in exactly one node, so that nodes whose
identifiers are left alone give the text back, byte for byte:

    Kept      markup, and who acted: never changed (staff must be accounted for)
    Plain     other text: identifiers that were found elsewhere in the line are sought here too
    Patient   an identifier: a pseudonym takes its place
    Nested    text written in another notation (XML entities, JSON escapes) and taken apart in its turn

A reader that meets what looks like its format and cannot be read safely raises `UnreadableError`: the whole line is
then sealed. It never guesses where an identifier ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 6
"""Notations within notations, such as HL7 in XML in JSON: a log line of a real system has at most three."""


class UnreadableError(Exception):
    """A line looks like a format that carries patients' data, and cannot be read as such; the message says why."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Text that goes on as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Plain:
    """Text that holds no identifier by itself."""

    text: str


@dataclass(frozen=True, slots=True)
class Patient:
    """An identifier of a patient.

    Attributes:
        text: As it stands in the line, with the escapes of its notation.
        kind: Of `ingest.pseudonyms.KINDS`.
        value: What it says, as far as it makes the pseudonym.
        before: What is written before the pseudonym, such as a quote where the notation wants one.
        after: What is written behind it.
        original: All of what it says, for the vault; empty if that is `value`.
    """

    text: str
    kind: str
    value: str
    before: str = ""
    after: str = ""
    original: str = ""

    @property
    def said(self) -> str:
        """All of what it says."""
        return self.original or self.value


@dataclass(frozen=True, slots=True)
class Nested:
    """Text in another notation.

    Attributes:
        text: As it stands in the line.
        nodes: What it says, taken apart.
        write: Writes changed text in the notation.
    """

    text: str
    nodes: Nodes
    write: Callable[[str], str]


Node = Kept | Plain | Patient | Nested
Nodes = list[Node]

Reader = Callable[[str, int], Nodes]
"""Takes text apart: the text, and how many notations it is within."""


def text_of(nodes: Nodes) -> str:
    """The text as it was."""
    return "".join(node.text for node in nodes)


def patients_of(nodes: Nodes) -> list[Patient]:
    """All identifiers, in order, those within other notations included."""
    found: list[Patient] = []
    for node in nodes:
        if isinstance(node, Patient):
            found.append(node)
        elif isinstance(node, Nested):
            found += patients_of(node.nodes)
    return found

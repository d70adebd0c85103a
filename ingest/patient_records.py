"""Identifiers of patients in a format that a hospital defined for itself (`ingest.formats.adapter`).

The definition says which columns hold them. A row whose cells do not fit the definition is refused, which seals its
line: a delimiter too many moves a name into a column that stays.
"""

from __future__ import annotations

import re
from typing import Final

from ingest.formats.adapter import AdapterDefinition
from ingest.patient_identifier import identifier_kind
from ingest.patient_json import begin_of_object, read_object
from ingest.patient_keys import KEY_KINDS, WEAK_KINDS, plain_key
from ingest.patient_nodes import Kept, Nodes, Patient, Reader, UnreadableError

_HEADER: Final = re.compile(
    r"<[0-9]{1,3}>(?:"
    r"1 \S{1,64} (?P<host>\S{1,255}) \S{1,48} \S{1,128} \S{1,32} (?:-|(?:\[(?:[^\]\\]|\\.){0,4096}\])+)(?: |$)\ufeff?"
    r"|(?:[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.+Z\-]{8,30}) (?P<old>\S{1,255}) "
    r"(?:[^\s:\[;,|]{1,64}(?:\[[0-9]{1,10}\])?: ?)?)?"
)


def header_host(text: str) -> str | None:
    """The host in a line's syslog header."""
    found = _HEADER.match(text)
    return (found["host"] or found["old"]) if found else None


def read_record(text: str, definition: AdapterDefinition, depth: int, read: Reader) -> Nodes:
    """A line of a source that is pinned to an adapter.

    Raises:
        UnreadableError: It does not fit the definition.
    """
    return _read_objects(text, definition, depth, read) if definition.kind == "json" else _read_row(text, definition)


def _read_objects(text: str, definition: AdapterDefinition, depth: int, read: Reader) -> Nodes:
    named = {plain_key(column.rpartition(".")[2]): column_kind(column) for column in definition.patients}
    begin = begin_of_object(text, 0)
    found = None if begin is None else read_object(text, begin, depth, read, named)
    if begin is None or found is None or text[found[1] :].strip():
        raise UnreadableError("no JSON object, as the adapter of its source wants")
    return [*read(text[:begin], depth + 1), *found[0], Kept(text[found[1] :])]


def column_kind(column: str) -> str:
    """What a column that identifies patients holds, as far as its name says it."""
    key = plain_key(column.rpartition(".")[2])
    return KEY_KINDS.get(key) or WEAK_KINDS.get(key) or "OTH"


def _read_row(text: str, definition: AdapterDefinition) -> Nodes:
    header = _HEADER.match(text)
    begin = header.end() if header else 0
    cells = _cells(text[begin:], definition.delimiter, definition.quote)
    said = [cell.strip().strip(definition.quote or None).strip().lower() for cell in cells]
    if definition.header and said == [column.strip().lower() for column in definition.columns]:
        return [Kept(text)]
    if len(cells) != len(definition.columns):
        raise UnreadableError(f"{len(cells)} columns, where the adapter of its source has {len(definition.columns)}")
    nodes: Nodes = [Kept(text[:begin])]
    for place, cell in enumerate(cells):
        if place:
            nodes.append(Kept(definition.delimiter))
        nodes += _read_cell(cell, definition, place)
    return nodes


def _read_cell(cell: str, definition: AdapterDefinition, place: int) -> Nodes:
    quote = definition.quote
    quoted = bool(quote) and len(cell) > 1 and cell.startswith(quote) and cell.endswith(quote)
    inner = cell[1:-1].replace(quote * 2, quote) if quoted else cell
    if place not in definition.patient_places or not inner.strip():
        return [Kept(cell)]
    kind = column_kind(definition.columns[place])
    around = quote if quoted else ""
    kind = identifier_kind(inner.strip(), kind) if kind in ("IPP", "OTH") else kind
    return [Patient(cell, kind, inner.strip(), before=around, after=around)]


def _cells(text: str, delimiter: str, quote: str) -> list[str]:
    """The cells as they are written, quotes included.

    Raises:
        UnreadableError: The quotes are broken.
    """
    if not quote or quote not in text:
        return text.split(delimiter)
    mark, sign = re.escape(quote), re.escape(delimiter)
    cell = re.compile(rf"(?:{mark}[^{mark}]*(?:{mark}{mark}[^{mark}]*)*{mark}|[^{mark}{sign}]*)(?={sign}|\Z)")
    cells: list[str] = []
    at = 0
    while True:
        found = cell.match(text, at)
        if found is None:
            raise UnreadableError("broken quotes in a row of an adapter")
        cells.append(found[0])
        at = found.end()
        if at == len(text):
            return cells
        at += 1

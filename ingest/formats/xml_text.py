"""XML from a network, made a tree: no declaration, no entity, no file; and what was cut is read as far as it goes.

Expat expands no entity that is not declared, and a document with a document type declaration is refused, since no log
has one: so there is no "billion laughs" and no file is fetched. Where such text occurs at all, expat itself says
whether it is a declaration: searching would be misled by a comment or a CDATA section.
Characters that XML 1.0 forbids do occur in logs: they become U+FFFD.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET
from xml.parsers import expat

_FORBIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]"
    "|&#(?:0*(?:[0-8]|1[124-9]|2[0-9]|3[01])|[xX]0*(?:[0-8bcefBCEF]|1[0-9a-fA-F]));"
)
_DOCTYPE: Final = "<!DOCTYPE"
_TO_BRACKET: Final = re.compile(r"[^\[>]*[\[>]|[^\[>]+")

REFUSED: Final = "XML with a document type declaration refused"
CUT: Final = "cut or broken XML, read as far as it goes"


@dataclass(frozen=True, slots=True)
class Tree:
    """What became of a text.

    Attributes:
        root: Its root element, or None if there is nothing to read.
        remark: What was wrong with it, or why there is no root; None if nothing was.
    """

    root: ET.Element | None
    remark: str | None = None


class _DoctypeError(Exception):
    """The document has a document type declaration."""


def read_tree(text: str) -> Tree:
    """The tree of a document; of one that is cut or broken, whatever stood before the fault."""
    try:
        if _DOCTYPE in text:
            _refuse_doctype(text)
        return Tree(ET.fromstring(text))  # noqa: S314 (see the module docstring)
    except _DoctypeError:
        return Tree(None, REFUSED)
    except ET.ParseError as error:
        return _read_on(text, str(error))


def local_name(name: str) -> str:
    """The name of an element or attribute without its namespace, in lower case."""
    return name.rpartition("}")[2].lower()


def _doctype(*_: object) -> None:
    raise _DoctypeError


def _refuse_doctype(text: str) -> None:
    """Raise `_DoctypeError` before any entity could be expanded."""
    guard = expat.ParserCreate()
    guard.StartDoctypeDeclHandler = _doctype
    # Expat reads on after a handler raised, until the end of what it was given, and calls this one at `[` or `>`:
    # so it is given the text in pieces that end there.
    try:
        for piece in _TO_BRACKET.findall(text):
            guard.Parse(piece)
    except expat.ExpatError:
        pass  # broken before any declaration: told by who reads on


def _read_on(text: str, fault: str) -> Tree:
    repaired, count = _FORBIDDEN.subn("\ufffd", text)
    if count:
        try:
            if _DOCTYPE in repaired:
                _refuse_doctype(repaired)
            root = ET.fromstring(repaired)  # noqa: S314 (see the module docstring)
            return Tree(root, f"not valid XML, read all the same: {fault}")
        except _DoctypeError:
            return Tree(None, REFUSED)
        except ET.ParseError as error:
            fault = str(error)
    beginning = _beginning(repaired)
    return Tree(None, f"broken XML: {fault}") if beginning is None else Tree(beginning, f"{CUT}: {fault}")


def _beginning(text: str) -> ET.Element | None:
    """The tree of what stands before the fault: elements that were begun are there, with what they hold so far."""
    builder = ET.TreeBuilder()
    found: list[ET.Element] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        element = builder.start(name, attributes)
        if not found:
            found.append(element)

    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = begin
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text, True)
    except expat.ExpatError:
        with suppress(ET.ParseError):  # behind the root nothing waits
            builder.start("end", {})  # has the builder put the text that is waiting where it belongs
    return found[0] if found else None

"""XML in a line, cut at its tags without being rebuilt: what is not changed stays byte for byte.

Strict where it matters and small on purpose. There is no DTD, so no entity but XML's own five and numbers (XML 1.0,
section 4.6): a document that declares others could hide an identifier in one, and is refused, as is what does not
nest, an attribute without quotes and markup that has no end. rsyslog writes line ends as `#012`; they count as space.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

from ingest.patient_identifier import cut_identifier
from ingest.patient_nodes import Kept, Nested, Nodes, Patient, Reader, UnreadableError

DEEPEST: Final = 64
"""Elements within elements. Precedents: an audit message has 5 levels, a CDA document about 20."""

COMMENT: Final = "<!--"
"""What stands for the attribute of a comment's text."""

_SPACE: Final = r"(?:\s|#01[125])"
_NAME: Final = r"[^\s<>/=\"'&#;!?]+"
_START: Final = re.compile(rf"<(?P<slash>/?)(?P<name>{_NAME})")
_ATTRIBUTE: Final = re.compile(
    rf"{_SPACE}+(?P<name>{_NAME}){_SPACE}*={_SPACE}*(?P<quote>[\"'])(?P<value>[^<\"']*(?:(?!(?P=quote))[\"'][^<\"']*)*)(?P=quote)"
)
_END: Final = re.compile(rf"{_SPACE}*(?P<empty>/?)>")
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#x[0-9a-f]{1,6}|amp|lt|gt|quot|apos);", re.IGNORECASE)
_ROOT: Final = re.compile(r"<\?xml(?=\s|#01)|<[A-Za-z_][\w.\-]*(?::[\w.\-]+)?(?=[\s/>#])")


@dataclass(slots=True)
class Element:
    """An element while its content is read.

    Attributes:
        name: Without its prefix.
        attributes: Name without prefix -> what it says.
        parent: The element it stands in.
        facts: What a classifier wants to remember of it.
    """

    name: str
    attributes: dict[str, str]
    parent: Element | None = None
    facts: dict[str, str] = field(default_factory=dict)

    def within(self, name: str) -> Element | None:
        """This element or the nearest around it of that name."""
        element: Element | None = self
        while element is not None and element.name != name:
            element = element.parent
        return element


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of XML.

    Attributes:
        raw: As it stands in the line.
        said: What it says, entities resolved; empty for markup.
        element: The element it is of; None outside all.
        attribute: Name of the attribute whose value it is, without prefix; empty for text.
        opens: The element that begins with this piece.
        write: Writes changed text in its place; None for markup.
    """

    raw: str
    said: str = ""
    element: Element | None = None
    attribute: str = ""
    opens: Element | None = None
    write: Callable[[str], str] | None = None


def local(name: str) -> str:
    """A name without its namespace prefix."""
    return name.rpartition(":")[2]


def cut_xml(text: str) -> list[Piece]:
    """The line in pieces: what stands before, between and behind elements included.

    Raises:
        UnreadableError: This is no XML that can be read safely.
    """
    begin = _ROOT.search(text)
    if begin is None:
        raise UnreadableError("XML without a beginning")
    return _Cutter(text).cut(begin.start())


class _Cutter:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pieces: list[Piece] = []
        self.open: list[tuple[str, Element]] = []

    def cut(self, at: int) -> list[Piece]:
        text, length = self.text, len(self.text)
        self._add_text(text[:at])
        while at < length:
            mark = text.find("<", at)
            if mark < 0:
                mark = length
            self._add_text(text[at:mark])
            at = self._markup(mark) if mark < length else length
        if self.open:
            raise UnreadableError(f"XML: <{_short(self.open[-1][0])}> does not end")
        return self.pieces

    @property
    def _inside(self) -> Element | None:
        return self.open[-1][1] if self.open else None

    def _markup(self, at: int) -> int:
        text = self.text
        if text.startswith("<!--", at):
            return self._until(at, 4, "-->", "a comment")
        if text.startswith("<![CDATA[", at):
            return self._until(at, 9, "]]>", "CDATA")
        if text.startswith("<?", at):
            return self._until(at, 2, "?>", "an instruction")
        if text.startswith("<!", at):
            raise UnreadableError("XML: declares entities or the like")
        start = _START.match(text, at)
        if start is None:
            if self.open:
                raise UnreadableError("XML: a < that begins no tag")
            self._add_text("<")
            return at + 1
        return self._close(start) if start["slash"] else self._element(start)

    def _until(self, at: int, skip: int, mark: str, what: str) -> int:
        end = self.text.find(mark, at + skip)
        if end < 0:
            raise UnreadableError(f"XML: {what} does not end")
        body = self.text[at + skip : end]
        self.pieces.append(Piece(self.text[at : at + skip]))
        attribute = COMMENT if what == "a comment" else ""
        self.pieces.append(Piece(body, body, self._inside, attribute, None, _as_it_is))
        self.pieces.append(Piece(mark))
        return end + len(mark)

    def _close(self, start: re.Match[str]) -> int:
        end = _END.match(self.text, start.end())
        if end is None or end["empty"]:
            raise UnreadableError("XML: an end tag that does not end")
        if not self.open or self.open[-1][0] != start["name"]:
            raise UnreadableError(f"XML: </{_short(start['name'])}> ends what did not begin")
        self.open.pop()
        self.pieces.append(Piece(self.text[start.start() : end.end()]))
        return end.end()

    def _element(self, start: re.Match[str]) -> int:
        text, at = self.text, start.end()
        values: list[re.Match[str]] = []
        while (found := _ATTRIBUTE.match(text, at)) is not None:
            values.append(found)
            at = found.end()
        end = _END.match(text, at)
        if end is None:
            raise UnreadableError(f"XML: the tag <{_short(start['name'])}> cannot be read")
        said = {local(value["name"]): resolved(value["value"]) for value in values}
        if len(said) != len(values):
            raise UnreadableError(f"XML: <{_short(start['name'])}> has an attribute twice")
        element = Element(local(start["name"]), said, self._inside)
        self.pieces.append(Piece(start[0], opens=element))
        at = start.end()
        for value in values:
            self.pieces.append(Piece(text[at : value.start("value")]))
            name = local(value["name"])
            self.pieces.append(Piece(value["value"], said[name], element, name, None, _in_attribute))
            at = value.end("value")
        self.pieces.append(Piece(text[at : end.end()]))
        if not end["empty"]:
            if len(self.open) == DEEPEST:
                raise UnreadableError(f"XML: more than {DEEPEST} elements within one another")
            self.open.append((start["name"], element))
        return end.end()

    def _add_text(self, raw: str) -> None:
        if raw:
            if self.open:
                self.pieces.append(Piece(raw, resolved(raw), self._inside, "", None, _in_text))
            else:
                self.pieces.append(Piece(raw, raw, None, "", None, _as_it_is))


def resolved(raw: str) -> str:
    """Text with its entities resolved.

    Raises:
        UnreadableError: An entity that is not XML's own.
    """
    if "&" not in raw:
        return raw
    if raw.count("&") != len(_ENTITY.findall(raw)):
        raise UnreadableError("XML: an entity that is not XML's own")
    return html.unescape(raw)


def nodes_of(pieces: list[Piece], kind_of: Callable[[Piece], str | None], read: Reader, depth: int) -> Nodes:
    """Pieces as nodes.

    Args:
        pieces: Of `cut_xml`.
        kind_of: Kind of the identifier that a piece is; "" if it is to be kept as it is; None if it is other text.
        read: Takes other text apart.
        depth: How many notations this text is within.
    """
    nodes: Nodes = []
    for piece in pieces:
        if piece.write is None:
            nodes.append(Kept(piece.raw))
            continue
        kind = kind_of(piece) if piece.said.strip() else None
        if kind == "":
            nodes.append(Kept(piece.raw))
        elif kind is not None:
            value, rest, kind = cut_identifier(piece.said, kind)
            nodes.append(Patient(piece.raw, kind, value, after=piece.write(rest)))
        elif piece.write is _as_it_is:
            nodes += read(piece.raw, depth + 1)
        else:
            nodes.append(Nested(piece.raw, read(piece.said, depth + 1), piece.write))
    return nodes


def _as_it_is(text: str) -> str:
    return text


def _in_text(text: str) -> str:
    return escape(text)


def _in_attribute(text: str) -> str:
    return escape(text, {'"': "&quot;", "'": "&apos;"})


def _short(name: str) -> str:
    """A name fit for a reason: what stands in a broken tag may be a patient's."""
    return name if len(name) <= 40 and name.isascii() and name.replace(":", "").replace(".", "").isalpha() else "?"

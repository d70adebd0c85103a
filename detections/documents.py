"""Rule files to YAML documents with line numbers.

libyaml composes nodes (a tenth of the cost of the pure-Python parser); each document is then constructed from its node
tree, which alone knows lines. Four traps are refused here: a key given twice, of which YAML readers silently keep the
last (half of a detection would vanish), a file too large to be a rule, a small one whose aliases make it large, and
one that nests so deep that libyaml's composer, which recurses in C, would end the whole process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import yaml

MAX_RULE_BYTES: Final = 1 << 20
"""The largest rule of SigmaHQ is 45 kB; binaries named .yml are not read."""

MAX_NODES: Final = 200_000
"""Nodes of a document with every alias written out: ten aliases of ten aliases, nine deep, are a text of 500 bytes."""

MAX_NESTING: Final = 100
"""Lists and maps within one another; SigmaHQ needs 6."""

_LINED_SECTIONS: Final = {"detection": 1, "correlation": 2, "filter": 1}
"""Sections whose parts have lines of their own, and how many levels of them."""

_DEEP_BLOCK: Final = re.compile(r"\n[ \t?:-]{50}")
"""Block collections nest by columns: what begins left of column 50 cannot be deep."""

_OTHER_BREAKS: Final = re.compile(r"[\r\x85\u2028\u2029]")
"""What YAML 1.1 takes for the end of a line as well."""


class DocumentError(ValueError):
    """A text that is not a sequence of YAML maps."""

    def __init__(self, reason: str, line: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML map of a file.

    Attributes:
        content: The map.
        line: Line it begins on, from 1.
        lines: Line of each top-level key, of each key below `detection` and `filter` as `detection.NAME`, and of each
            key and list item below `correlation` as `correlation.rules`, `correlation.rules.0`.
    """

    content: dict[str, object]
    line: int
    lines: dict[str, int]


def read_documents(text: str) -> Iterator[Document]:
    """Read every YAML document of a text; empty documents are passed over.

    Raises:
        DocumentError: Not YAML, not a map, or a key given twice. Documents before the fault have been yielded.
    """
    if text.count("[") + text.count("{") > MAX_NESTING or _DEEP_BLOCK.search("\n" + _OTHER_BREAKS.sub("\n", text)):
        _refuse_nesting(text)
    loader = yaml.CSafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            _refuse_bombs(node)
            content = loader.construct_document(node)
            if content is None:
                continue
            line = node.start_mark.line + 1
            if not isinstance(node, yaml.MappingNode) or not isinstance(content, dict):
                raise DocumentError(f"a rule is a YAML map, not a {type(content).__name__}", line)
            _refuse_duplicates(node, set())
            yield Document(content, line, _lines(node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "not YAML"
        raise DocumentError(f"not YAML: {reason}", mark.line + 1 if mark else None) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, DocumentError):
            raise
        # A date such as 2024-13-45 is a ValueError of the constructor; a control character is a ReaderError
        raise DocumentError(f"not YAML: {' '.join(str(error).split())}", None) from error
    finally:
        loader.dispose()


def _refuse_nesting(text: str) -> None:
    """Refuse what nests deeper than `MAX_NESTING`, by its events: those are read without recursion."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_NESTING:
                    mark = event.start_mark
                    raise DocumentError(f"nests deeper than {MAX_NESTING}", mark.line + 1 if mark else None)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError:
        return  # no deeper than that up to its fault, which is named when it is composed


def _refuse_bombs(root: yaml.Node) -> None:
    """Refuse a document that its aliases make too large, or endless; each node is counted once, however often used."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise DocumentError("an alias stands within what it names", node.start_mark.line + 1)
            return known
        sizes[id(node)] = None
        parts = (part for pair in node.value for part in pair) if isinstance(node, yaml.MappingNode) else node.value
        total = 1 + sum(size(part) for part in parts)
        if total > MAX_NODES:
            line = node.start_mark.line + 1
            raise DocumentError(f"more than {MAX_NODES} values with its aliases written out", line)
        sizes[id(node)] = total
        return total

    size(root)


def _refuse_duplicates(node: yaml.Node, seen: set[int]) -> None:
    """Refuse a map that gives one key twice; nodes behind aliases are looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[tuple[str, str]] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                name = (key.tag, key.value)
                if name in keys:
                    line = key.start_mark.line + 1
                    raise DocumentError(f"key {key.value!r} is given twice; only the last would count", line)
                keys.add(name)
            if not isinstance(value, yaml.ScalarNode):
                _refuse_duplicates(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode):
                _refuse_duplicates(item, seen)


def _lines(node: yaml.MappingNode) -> dict[str, int]:
    """Lines of the top-level keys and of the parts of `_LINED_SECTIONS`."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        lines[str(key.value)] = key.start_mark.line + 1
        if isinstance(key.value, str) and key.value in _LINED_SECTIONS:
            _add_lines(lines, key.value, value, _LINED_SECTIONS[key.value])
    return lines


def _add_lines(lines: dict[str, int], place: str, node: yaml.Node, levels: int) -> None:
    """Add the lines of the keys of a map; two levels down also those of list items, by their number."""
    if isinstance(node, yaml.MappingNode):
        parts = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode) and "." in place:
        parts = [(str(number), item, item) for number, item in enumerate(node.value)]
    else:
        return
    for name, at, value in parts:
        lines[f"{place}.{name}"] = at.start_mark.line + 1
        if levels > 1:
            _add_lines(lines, f"{place}.{name}", value, levels - 1)

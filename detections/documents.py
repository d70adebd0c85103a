"""Rule files to YAML documents with line numbers.

libyaml composes nodes (a tenth of the cost of the pure-Python parser); each document is then constructed from its node
tree, which alone knows lines. Three traps are refused here: a key given twice, of which YAML readers silently keep the
last (half of a detection would vanish), a file too large to be a rule, and a small one whose aliases make it large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import yaml

MAX_RULE_BYTES: Final = 1 << 20
"""The largest rule of SigmaHQ is 45 kB; binaries named .yml are not read."""

MAX_NODES: Final = 200_000
"""Nodes of a document with every alias written out: ten aliases of ten aliases, nine deep, are a text of 500 bytes."""


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
        lines: Line of each top-level key, and of each key below `detection` as `detection.NAME`.
    """

    content: dict[str, object]
    line: int
    lines: dict[str, int]


def read_documents(text: str) -> Iterator[Document]:
    """Read every YAML document of a text; empty documents are passed over.

    Raises:
        DocumentError: Not YAML, not a map, or a key given twice. Documents before the fault have been yielded.
    """
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
    """Lines of the top-level keys and of those below `detection`."""
    lines: dict[str, int] = {}
    for key, value in node.value:
        lines[str(key.value)] = key.start_mark.line + 1
        if key.value == "detection" and isinstance(value, yaml.MappingNode):
            for name, _ in value.value:
                lines[f"detection.{name.value}"] = name.start_mark.line + 1
    return lines

r"""Values for placeholders (`%name%` under `expand`) from files.

Two forms, by the file's name:

- `*.yml`, `*.yaml`: a map of names to a value or a list of values, `administrators: [adm-*, root]`; up to 200,000;
- any other: the file's name without its suffix is the placeholder's name, and each line one value. Empty lines and
  lines that begin with `#` are passed over; `\#` begins a value with `#`; blanks around a value are no part of it.

A value is read as if it stood in the rule: `*` and `?` are wildcards, `\*` is a star. Numbers are taken as written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import yaml

from detections.documents import DocumentError, read_documents
from detections.rule import RuleError

MAX_BYTES: Final = 1 << 24
"""16 MB: a list of a million names."""

YAML_SUFFIXES: Final = frozenset({".yml", ".yaml"})
LISTED_SUFFIXES: Final = YAML_SUFFIXES | {".txt", ".lst", ".list"}
"""What is read in a folder; a README beside is not a list of names."""

_NULL: Final = "tag:yaml.org,2002:null"


class PlaceholderError(RuleError):
    """A file of placeholders that cannot be used; the message names file, line and reason."""


def load_placeholders(paths: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Read files, and folders with all their sub-folders, of placeholders.

    Returns:
        Name -> values, in the order of the files.

    Raises:
        PlaceholderError: A file that is not there, cannot be read, or gives a name that another gave.
    """
    values: dict[str, tuple[str, ...]] = {}
    origins: dict[str, str] = {}
    for path in paths:
        for file in _files(Path(path)):
            for name, line, found in _read(file):
                place = f"{file}:{line}"
                if name in values:
                    raise PlaceholderError(f"{place}: placeholder {name!r} has its values from {origins[name]} already")
                if not found:
                    raise PlaceholderError(f"{place}: placeholder {name!r} has no value")
                values[name], origins[name] = found, place
    return values


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise PlaceholderError(f"{path}: no such file or folder of placeholders")
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in LISTED_SUFFIXES)
    if not files:
        raise PlaceholderError(f"{path}: no placeholders in this folder (*.yml, *.yaml, *.txt, *.lst, *.list)")
    return files


def _read(path: Path) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Name, line and values of each placeholder of a file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PlaceholderError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise PlaceholderError(f"{path}: {len(data)} bytes is too large for placeholders (limit {MAX_BYTES})")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlaceholderError(f"{path}:{data.count(10, 0, error.start) + 1}: not UTF-8: {error.reason}") from error
    if path.suffix in YAML_SUFFIXES:
        yield from _read_yaml(path, text)
    else:
        yield path.stem, 1, tuple(_lines(text))


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        value = line.strip()
        if value and not value.startswith("#"):
            yield value[1:] if value.startswith("\\#") else value


def _read_yaml(path: Path, text: str) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    try:
        documents = list(read_documents(text))
    except DocumentError as error:
        reason = error.reason.replace("a rule is a YAML map", "placeholders are a YAML map of names to values")
        raise PlaceholderError(f"{path}:{error.line or 1}: {reason}") from error
    if len(documents) != 1:
        raise PlaceholderError(f"{path}: {len(documents)} YAML documents instead of one map of names to values")
    root = yaml.compose(text, yaml.CSafeLoader)  # for the texts as written: `007` stays so
    assert isinstance(root, yaml.MappingNode)  # noqa: S101 - read_documents has seen it
    for key, node in root.value:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        yield _scalar(path, key), key.start_mark.line + 1, tuple(_scalar(path, item) for item in nodes)


def _scalar(path: Path, node: yaml.Node) -> str:
    """The text of a scalar, or why it is none."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL:
        kind = "null" if isinstance(node, yaml.ScalarNode) else "a list or map within"
        raise PlaceholderError(f"{path}:{node.start_mark.line + 1}: a value is a text or a number, not {kind}")
    return str(node.value)

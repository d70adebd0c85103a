"""Rule files to rules, correlations and filters.

YAML is read by libyaml, the rule's head and values by pySigma. Loading never stops at the first fault: each broken file
or document is a `Refusal` with its line, and all others load. Of two rules with one id the second is refused, since
alerts are identified by rule id. References are resolved when all files have been read, over the whole pack. Test files
(`*.tests.yml`) and the folders `scenarios` and `pipelines` lie among rules and are not rules.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from detections.correlation_load import CorrelationDraft
from detections.correlation_resolve import resolve_correlations
from detections.documents import MAX_RULE_BYTES, DocumentError, read_documents
from detections.filters import FilterRule, apply_filters
from detections.read_rule import remark_text_id
from detections.references import Referable, References
from detections.rule import Refusal, Remark, Rule, RulePack, RulePathError
from detections.rule_collection import Reading, RefusedDocument, RuleCollection

RULE_SUFFIXES: Final = frozenset({".yml", ".yaml"})
SKIPPED_FOLDERS: Final = frozenset({"scenarios", "pipelines"})


@dataclass(slots=True)
class _Readings:
    """What files have given so far."""

    rules: dict[str, Rule] = field(default_factory=dict)
    drafts: dict[str, CorrelationDraft] = field(default_factory=dict)
    filters: list[FilterRule] = field(default_factory=list)
    refused: list[RefusedDocument] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def add(self, reading: Reading) -> None:
        if isinstance(reading, RefusedDocument):
            self.refused.append(reading)
        elif isinstance(reading, FilterRule):
            self.filters.append(reading)
        elif (first := self._first(reading)) is not None:
            bearer = reading if isinstance(reading, Rule) else reading.rule
            reason = f"its id is already that of {first.title!r} in {first.path}"
            bears = () if bearer.name is None else (bearer.name,)
            self.refused.append(RefusedDocument(bearer.refuse(reason, "id"), bears))
        elif isinstance(reading, Rule):
            self.rules[reading.id] = reading
            if "id" in reading.lines:
                self.remarks += remark_text_id(reading.path, reading.lines, reading.title, reading.id)
        else:
            rule = reading.rule
            self.drafts[rule.id] = reading
            self.remarks += remark_text_id(rule.path, rule.lines, rule.title, rule.id)

    def _first(self, reading: Rule | CorrelationDraft) -> Referable | None:
        own = reading.id if isinstance(reading, Rule) else reading.rule.id
        if own in self.rules:
            return _referable(self.rules[own])
        return _referable(self.drafts[own]) if own in self.drafts else None


def load_rules(paths: Sequence[Path]) -> RulePack:
    """Load rules from files, and from folders with all their sub-folders (`*.yml`, `*.yaml`).

    Raises:
        RulePathError: A path does not exist.
    """
    with uncollected():
        return pack_of(reading for path in rule_files(paths) for reading in read_rules(path))


def pack_of(readings: Iterable[Reading]) -> RulePack:
    """What files have given, in their order, with references resolved."""
    read = _Readings()
    for reading in readings:
        read.add(reading)
    refused = [document.refusal for document in read.refused]
    if not read.drafts and not read.filters:
        return RulePack(tuple(read.rules.values()), tuple(refused), (), remarks=tuple(read.remarks))
    references = References(
        [*map(_referable, read.rules.values()), *map(_referable, read.drafts.values())],
        {name: document.refusal for document in read.refused for name in document.bears},
    )
    correlations = resolve_correlations(read.drafts.values(), references)
    filtered = apply_filters(read.rules.values(), read.filters, references)
    return RulePack(
        rules=filtered.rules,
        refused=(*refused, *correlations.refused, *filtered.refused),
        unsupported=(),
        correlations=correlations.correlations,
        filters=filtered.filters,
        remarks=(*read.remarks, *correlations.remarks, *filtered.remarks),
    )


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection: nearly all that loading makes is kept, and looking through it is a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _referable(item: Rule | CorrelationDraft) -> Referable:
    rule = item if isinstance(item, Rule) else item.rule
    return Referable(rule.id, rule.name, rule.title, rule.path)


def rule_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The rule files below `paths`, each once, folders in the order of their names.

    Raises:
        RulePathError: A path does not exist or cannot be listed.
    """
    seen: set[str] = set()
    folders: dict[Path, str] = {}
    for path in paths:
        for file in _files(Path(path)):
            resolved = _resolved(file, folders)
            if resolved not in seen:
                seen.add(resolved)
                yield file


def _resolved(file: Path, folders: dict[Path, str]) -> str:
    """The path without links; folders are resolved once for all that lies in them."""
    folder, name = file.parent, file.name
    if name in ("", "..") or file.is_symlink():
        return os.path.realpath(file)  # Path.resolve raises on a link to itself
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return f"{folders[folder]}/{name}"


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise RulePathError(f"no rules at {path}: no such file or folder")
    found = (
        Path(parent, name)
        for parent, folders, names in os.walk(path, onerror=_refuse_to_pass_over)
        # a folder that is named like a rule, or is a link, is named as a fault: what it holds does not run
        for name in (*names, *(folder for folder in folders if _odd(parent, folder)))
    )
    return sorted(
        file
        for file in found
        if not file.stem.endswith(".tests")
        and (file.suffix in RULE_SUFFIXES or file.is_dir())
        and not SKIPPED_FOLDERS.intersection(file.relative_to(path).parts[:-1])
    )


def _odd(parent: str, folder: str) -> bool:
    return Path(folder).suffix in RULE_SUFFIXES or (
        folder not in SKIPPED_FOLDERS and os.path.islink(f"{parent}/{folder}")  # noqa: PTH114 - for each folder
    )


def _refuse_to_pass_over(error: OSError) -> None:
    """A folder that cannot be listed may hold any number of rules: none of them running must not go unsaid."""
    raise RulePathError(f"cannot list rules at {error.filename}: {error.strerror}") from error


def read_rules(path: Path) -> Iterator[Reading]:
    """Read one file: its rules, correlations and filters, references not yet resolved.

    What is named like a rule file and holds no rule is refused: its author thinks that it runs.
    """
    data = read_data(path)
    if isinstance(data, Refusal):
        yield RefusedDocument(data)
    else:
        yield from readings_of(path, data)


def readings_of(path: Path, data: bytes) -> Iterator[Reading]:
    """As `read_rules`, of a file whose content is known."""
    text = _text(path, data)
    if isinstance(text, Refusal):
        yield RefusedDocument(text)
        return
    file = RuleCollection(path)
    try:
        for document in read_documents(text):
            yield from file.read(document)
    except DocumentError as error:
        yield RefusedDocument(Refusal(path, error.line, None, error.reason))
    else:
        if not file.rules:
            yield RefusedDocument(Refusal(path, 1, None, "no rule in this file"))


def read_data(path: Path) -> bytes | Refusal:
    """The content of a file that is named like a rule file, or why there is none."""
    try:
        if not path.is_file():
            return Refusal(path, None, None, _no_file(path))
        return path.read_bytes()
    except OSError as error:
        return Refusal(path, None, None, f"cannot be read: {error.strerror}")


def _text(path: Path, data: bytes) -> str | Refusal:
    if len(data) > MAX_RULE_BYTES:
        return Refusal(path, None, None, f"{len(data)} bytes is too large for a rule (limit {MAX_RULE_BYTES})")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Refusal(path, data.count(b"\n", 0, error.start) + 1, None, f"not UTF-8: {error.reason}")


def _no_file(path: Path) -> str:
    """Why a path that is named like a rule file cannot be read as one."""
    if path.is_dir():
        if path.is_symlink():
            return "a link to a folder is not entered: give the folder itself beside this one"
        return "a folder that is named like a rule file"
    return "not a file" if path.exists() else "cannot be read: a link to a file that does not exist"

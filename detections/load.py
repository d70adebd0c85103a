"""Rule files to rules.

YAML is read by libyaml, the rule's head and values by pySigma. Loading never stops at the first fault: each broken file
or document is a `Refusal` with its line, and all others load. Of two rules with one id the second is refused, since
alerts are identified by rule id. Test files (`*.tests.yml`) and the folders `scenarios` and `pipelines` lie among rules
and are not rules.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import NAMESPACE_URL, uuid5

import orjson
from sigma.collection import deep_dict_update
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from detections.amend import amend_detection, amend_rule
from detections.documents import MAX_RULE_BYTES, Document, DocumentError, read_documents
from detections.rule import Refusal, Rule, RulePack, RulePathError
from ingest.logsource import LogSource

RULE_SUFFIXES: Final = frozenset({".yml", ".yaml"})
SKIPPED_FOLDERS: Final = frozenset({"scenarios", "pipelines"})
DEFAULT_LEVEL: Final = "medium"

_UNSUPPORTED: Final = ("correlation", "filter")
_PYSIGMA_FAULTS: Final = (SigmaError, AttributeError, TypeError, ValueError, KeyError, IndexError, RecursionError)
"""What pySigma raises on a map of the wrong shape; the latter ones without a word on where."""

Reading = Rule | Refusal


@dataclass(frozen=True, slots=True)
class _Unsupported:
    """What is right but not run here."""

    refusal: Refusal


def load_rules(paths: Sequence[Path]) -> RulePack:
    """Load rules from files, and from folders with all their sub-folders (`*.yml`, `*.yaml`).

    Raises:
        RulePathError: A path does not exist.
    """
    rules: dict[str, Rule] = {}
    refused: list[Refusal] = []
    unsupported: list[Refusal] = []
    for path in rule_files(paths):
        for reading in read_rules(path):
            if isinstance(reading, Refusal):
                refused.append(reading)
            elif isinstance(reading, _Unsupported):
                unsupported.append(reading.refusal)
            elif reading.id in rules:
                first = rules[reading.id]
                refused.append(reading.refuse(f"its id is already that of {first.title!r} in {first.path}", "id"))
            else:
                rules[reading.id] = reading
    return RulePack(tuple(rules.values()), tuple(refused), tuple(unsupported))


def rule_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The rule files below `paths`, each once, folders in the order of their names.

    Raises:
        RulePathError: A path does not exist or cannot be listed.
    """
    seen: set[str] = set()
    for path in paths:
        for file in _files(Path(path)):
            resolved = os.path.realpath(file)  # Path.resolve raises on a link to itself
            if resolved not in seen:
                seen.add(resolved)
                yield file


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise RulePathError(f"no rules at {path}: no such file or folder")
    found = (
        Path(parent, name)
        for parent, folders, names in os.walk(path, onerror=_refuse_to_pass_over)
        for name in (*names, *folders)  # a folder of such a name is named as a fault, not entered silently
    )
    return sorted(
        file
        for file in found
        if file.suffix in RULE_SUFFIXES
        and not file.stem.endswith(".tests")
        and not SKIPPED_FOLDERS.intersection(file.relative_to(path).parts[:-1])
    )


def _refuse_to_pass_over(error: OSError) -> None:
    """A folder that cannot be listed may hold any number of rules: none of them running must not go unsaid."""
    raise RulePathError(f"cannot list rules at {error.filename}: {error.strerror}") from error


def read_rules(path: Path) -> Iterator[Reading | _Unsupported]:
    """Read one file; `action: global`, `repeat` and `reset` join documents as pySigma does.

    What is named like a rule file and holds no rule is refused: its author thinks that it runs.
    """
    try:
        if not path.is_file():
            yield Refusal(path, None, None, _no_file(path))
            return
        data = path.read_bytes()
    except OSError as error:
        yield Refusal(path, None, None, f"cannot be read: {error.strerror}")
        return
    if len(data) > MAX_RULE_BYTES:
        yield Refusal(path, None, None, f"{len(data)} bytes is too large for a rule (limit {MAX_RULE_BYTES})")
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Refusal(path, data.count(b"\n", 0, error.start) + 1, None, f"not UTF-8: {error.reason}")
        return
    shared: dict[str, object] = {}
    previous: dict[str, object] = {}
    rules = 0
    try:
        for document in read_documents(text):
            rules += document.content.get("action") not in {"global", "reset"}
            content = document.content
            action = content.pop("action", None)
            if action is None:
                previous = content
                yield _reading(path, document, deep_dict_update(content, shared))
            elif action == "global":
                shared = previous = content
            elif action == "reset":
                shared = {}
            elif action == "repeat":
                previous = deep_dict_update(previous, content)
                yield _reading(path, document, previous)
            else:
                yield Refusal(path, document.line, None, f"unknown action {action!r}; known: global, repeat, reset")
    except DocumentError as error:
        yield Refusal(path, error.line, None, error.reason)
    else:
        if not rules:
            yield Refusal(path, 1, None, "no rule in this file")


def _no_file(path: Path) -> str:
    """Why a path that is named like a rule file cannot be read as one."""
    if path.is_dir():
        return "a folder that is named like a rule file"
    return "not a file" if path.exists() else "cannot be read: a link to a file that does not exist"


def _reading(path: Path, document: Document, content: dict[str, object]) -> Reading | _Unsupported:
    """One document to a rule, a refusal, or what is not run here."""
    name = content.get("title") or content.get("id")
    label = str(name) if name else None
    for kind in _UNSUPPORTED:
        if kind in content:
            return _Unsupported(Refusal(path, document.line, label, f"not run here yet: {kind}"))
    try:
        return _rule(path, document, content)
    except _PYSIGMA_FAULTS as error:
        key = _faulty_key(error)
        line = document.lines.get(key) or document.lines.get(key.partition(".")[0], document.line)
        if isinstance(error, SigmaError):
            return Refusal(path, line, label, str(error))
        if isinstance(error, RecursionError):
            return Refusal(path, line, label, "the rule nests too deep")
        return Refusal(path, line, label, f"a part of the rule has the wrong shape: {type(error).__name__}: {error}")


def _rule(path: Path, document: Document, content: dict[str, object]) -> Rule:
    digest = hashlib.sha256(
        orjson.dumps(content, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    ).hexdigest()
    detection = content.get("detection")
    if isinstance(detection, dict):
        amended = {name: amend_detection(part) for name, part in detection.items() if name != "timeframe"}
        content = {**content, "detection": amended}
    sigma = SigmaRule.from_dict(content)
    amend_rule(sigma)
    source = sigma.logsource
    return Rule(
        id=str(sigma.id or uuid5(NAMESPACE_URL, f"tocsin:rule:{sigma.title}")),
        title=sigma.title,
        level=sigma.level.name.lower() if sigma.level else DEFAULT_LEVEL,
        status=sigma.status.name.lower() if sigma.status else "",
        tags=tuple(str(tag) for tag in sigma.tags),
        logsource=LogSource(source.product or None, source.category or None, source.service or None),
        path=path,
        digest=digest,
        sigma=sigma,
        lines=document.lines,
    )


def _faulty_key(error: BaseException) -> str:
    """The top-level key that pySigma found wrong, from the name of its error (`SigmaLevelError` -> `level`)."""
    name = type(error).__name__.removeprefix("Sigma").removesuffix("Error").lower()
    renamed = {"identifier": "id", "tag": "tags", "condition": "detection.condition"}
    if not isinstance(error, SigmaError) or name in {"type", "value", "modifier", "regularexpression"}:
        return "detection"
    return renamed.get(name, name)

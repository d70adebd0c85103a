"""One YAML map to one rule; pySigma reads its head and its values.

What it raises on a map of the wrong shape becomes a `Refusal` here, with the line of the part at fault as far as its
error tells. An id that is no UUID is kept from it: the specification recommends UUIDs and does not ask for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from sigma.exceptions import SigmaError
from sigma.rule import SigmaDetections, SigmaRule
from sigma.rule.base import SigmaRuleBase

from detections.amend import amend_detection, amend_parsed, amend_rule, said
from detections.documents import Document
from detections.references import is_uuid, made_id, read_id
from detections.rule import Refusal, Remark, Rule, RuleContentError, line_of
from ingest.logsource import LogSource

DEFAULT_LEVEL: Final = "medium"
_WRITTEN_BITS: Final = 63  # and a sign; some numbers of 64 bits as well, for which it makes no difference
PYSIGMA_FAULTS: Final = (SigmaError, AttributeError, TypeError, ValueError, KeyError, IndexError, RecursionError)
"""What pySigma raises on a map of the wrong shape; the latter ones without a word on where."""

_NO_DETECTIONS: Final = frozenset({"condition", "timeframe", "rules"})
"""What else stands among the detections of a rule or a filter."""


@dataclass(frozen=True, slots=True)
class Head:
    """What rules and correlations say of themselves; attributes as those of `Rule`."""

    id: str
    name: str | None
    title: str
    level: str
    status: str
    tags: tuple[str, ...]


def read_rule(path: Path, document: Document, content: Mapping[str, object]) -> Rule:
    """Read one rule.

    Raises:
        RuleContentError: One part is wrong.
        SigmaError: pySigma finds it wrong; it raises all of `PYSIGMA_FAULTS`.
    """
    sigma, rule_id = parse_sigma(content)
    source = sigma.logsource
    return Rule(
        id=rule_id or made_id("rule", sigma.title),
        title=sigma.title,
        level=sigma.level.name.lower() if sigma.level else DEFAULT_LEVEL,
        status=sigma.status.name.lower() if sigma.status else "",
        tags=tuple(str(tag) for tag in sigma.tags),
        logsource=LogSource(source.product or None, source.category or None, source.service or None),
        path=path,
        digest=digest_of(content),
        parsed=sigma,
        lines=document.lines,
        name=sigma.name,
    )


def parse_sigma(content: Mapping[str, object]) -> tuple[SigmaRule, str | None]:
    """A rule as pySigma parses it, put right where that differs from the specification, and its id.

    Raises:
        RuleContentError: As `read_rule`; so too SigmaError.
    """
    rule_id = read_id(content)
    given = {key: value for key, value in content.items() if key != "id" or (rule_id is not None and is_uuid(rule_id))}
    detection = content.get("detection")
    if isinstance(detection, dict):
        given["detection"] = {name: amend_detection(part) for name, part in detection.items() if name != "timeframe"}
    sigma = SigmaRule.from_dict(given)
    amend_rule(sigma)
    return sigma, rule_id


def read_head(content: Mapping[str, object], kind: str) -> Head:
    """Read title, id, name, level, status and tags, as strictly as those of a rule.

    Raises:
        RuleContentError: As `read_rule`; so too SigmaError.
    """
    own_id = read_id(content)
    head, _ = SigmaRuleBase.from_dict_common_params({key: value for key, value in content.items() if key != "id"})
    name = head["name"]
    return Head(
        id=own_id or made_id(kind, name or head["title"]),
        name=name,
        title=head["title"],
        level=head["level"].name.lower() if head["level"] else DEFAULT_LEVEL,
        status=head["status"].name.lower() if head["status"] else "",
        tags=tuple(str(tag) for tag in head["tags"]),
    )


def digest_of(content: Mapping[str, object]) -> str:
    """SHA-256 of a document's content, without regard to layout and comments."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    try:
        data = orjson.dumps(content, default=str, option=options)
    except TypeError:
        data = orjson.dumps(_large_named(content), default=str, option=options)
    return hashlib.sha256(data).hexdigest()


def _large_named(value: object) -> object:
    """A value with whole numbers beyond 64 bits, which orjson does not write, as texts that say what they are."""
    if isinstance(value, dict):
        return {_large_named(key): _large_named(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_large_named(item) for item in value]
    return f"whole number {value}" if isinstance(value, int) and value.bit_length() > _WRITTEN_BITS else value


def joined_digest(parts: list[str]) -> str:
    """SHA-256 of several digests and ids."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def label_of(content: Mapping[str, object]) -> str | None:
    """What a document that may be broken is called."""
    name = content.get("title") or content.get("id")
    return str(name) if name else None


def refuse_document(path: Path, document: Document, content: Mapping[str, object], error: Exception) -> Refusal:
    """The refusal of a document for what reading it raised."""
    label = label_of(content)
    if isinstance(error, RuleContentError):
        return Refusal(path, line_of(document.lines, error.key) or document.line, label, str(error))
    key = _faulty_key(error)
    reason = _reason(error)
    if key == "detection" and (name := _faulty_detection(content, type(error))) is not None:
        key, reason = f"detection.{name}", f"{name}: {reason}"
    return Refusal(path, line_of(document.lines, key) or document.line, label, reason)


def _reason(error: Exception) -> str:
    if isinstance(error, SigmaError):
        return said(str(error))
    if isinstance(error, RecursionError):
        return "the rule nests too deep"
    return f"a part of the rule has the wrong shape: {type(error).__name__}: {error}"


def _faulty_detection(content: Mapping[str, object], error: type[Exception]) -> str | None:
    """The detection of a rule or filter that raises such an error when it is read by itself, if one does."""
    section = content.get("filter", content.get("detection"))
    for name, part in section.items() if isinstance(section, dict) else ():
        if name in _NO_DETECTIONS:
            continue
        try:
            parsed = SigmaDetections.from_dict({str(name): amend_detection(part), "condition": ""})
            amend_parsed(parsed.detections[str(name)])
        except PYSIGMA_FAULTS as fault:
            if type(fault) is error:
                return str(name)
    return None


def remark_text_id(path: Path, lines: Mapping[str, int], title: str, own_id: str) -> list[Remark]:
    """Say that an id is no UUID: a slip of the pen would otherwise go unseen."""
    if is_uuid(own_id):
        return []
    reason = f"its id {own_id!r} is not a UUID; it is used as it is"
    return [Remark(path, line_of(lines, "id"), title, reason)]


def _faulty_key(error: BaseException) -> str:
    """The key that pySigma found wrong, from the name of its error (`SigmaLevelError` -> `level`)."""
    name = type(error).__name__.removeprefix("Sigma").removesuffix("Error").lower()
    renamed = {"identifier": "id", "tag": "tags", "condition": "detection.condition"}
    if not isinstance(error, SigmaError) or name in {"type", "value", "modifier", "regularexpression"}:
        return "detection"
    return renamed.get(name, name)

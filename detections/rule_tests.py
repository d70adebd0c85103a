r"""Tests of rules: beside `foo.yml` lies `foo.tests.yml` with events that must match and events that must not.

    logsource: {product: windows, category: process_creation, service: sysmon}   # of the events; default: the rule's
    match:
      - {name: Mimikatz by name, event: {Image: 'C:\mimikatz.exe'}}
      - {name: the same as it arrives, line: '<13>Jan 1 00:00:00 host ...'}
    no_match:
      - {name: an ordinary tool, event: {Image: 'C:\Windows\notepad.exe'}}

An `event` is a map of Sigma fields; a `line` (or `lines`, where an event takes several) goes through `ingest.parse`.
All of them go through the same `Plan` as production, so that what a test shows is what production does. A case with
`events`, one after another, is of the correlations of the file (`detections.correlation_tests`). Where a file holds
several rules, `rule` in a case of an event names the one that it is about.

That nothing matches shows nothing where nothing could: a `no_match` case fails whose line no format understands, and so
do all of a file if the rule sees the log source of none of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Literal

import orjson
import polars as pl
from sigma.processing.pipeline import ProcessingPipeline

from detections.atoms import atoms_of
from detections.compile import Placeholders
from detections.correlation_rule import CorrelationRule
from detections.correlation_tests import (
    EVENTS,
    OF,
    CorrelationTestError,
    TestedCorrelation,
    is_about,
    judge,
    tested_correlation,
)
from detections.documents import DocumentError, read_documents
from detections.load import load_rules
from detections.plan import Plan
from detections.rule import Rule, RulePack
from ingest.envelope import DATASET, ENVELOPE, EVENT_ID, ORIGINAL, RECEIVED, TENANT, TIMESTAMP, EventFrame
from ingest.logsource import UNKNOWN, LogSource
from ingest.parse import parse
from ingest.rawbatch import RAW_SCHEMA

Expected = Literal["match", "no_match"]

TEST_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When the events of tests were received; lines keep their own event time."""

_KEYS: Final = frozenset({"logsource", "match", "no_match"})
_CASE_KEYS: Final = frozenset({"name", "event", "line", "lines", "rule"})


class RuleTestError(ValueError):
    """A test file that is not of the form above."""


@dataclass(frozen=True, slots=True)
class RuleTestResult:
    """The outcome of one event of one test file.

    Attributes:
        path: The rule's file.
        name: The event's name, or "" where the whole test file is at fault.
        reason: Why it failed; "" if it passed.
    """

    path: Path
    rule_id: str
    title: str
    name: str
    expected: Expected
    passed: bool
    reason: str


def path_of_tests(rule_path: Path) -> Path:
    """Where the tests of a rule file lie, whether or not they do."""
    return rule_path.with_name(f"{rule_path.stem}.tests.yml")


def run_rule_tests(
    paths: Sequence[Path], placeholders: Placeholders | None = None, pipeline: ProcessingPipeline | None = None
) -> list[RuleTestResult]:
    """Run the tests of all rules below `paths` that have some; a rule that does not load or compile fails them.

    Raises:
        RulePathError: A path does not exist.
    """
    pack = load_rules(paths)
    results = [
        RuleTestResult(refusal.path, "", refusal.rule or "", "", "match", passed=False, reason=str(refusal))
        for refusal in pack.refused
        if path_of_tests(refusal.path).exists()
    ]
    results += [stray for path in _tested_files(pack) for stray in _strays(path, pack)]
    for rule in pack.rules:
        if path_of_tests(rule.path).exists():
            results += _run(rule, Plan.build([rule], placeholders, pipeline))
    for correlation in pack.correlations:
        if path_of_tests(correlation.path).exists():
            tested = tested_correlation(correlation, pack, lambda rules: Plan.build(rules, placeholders, pipeline))
            results += _run_correlation(tested)
    return results


def _tested_files(pack: RulePack) -> list[Path]:
    paths = dict.fromkeys(item.path for items in (pack.rules, pack.correlations) for item in items)
    return [path for path in paths if path_of_tests(path).exists()]


def _strays(path: Path, pack: RulePack) -> Iterator[RuleTestResult]:
    """Cases that are about nothing in their file: they would never run, and nobody would know."""
    rules = [name for rule in pack.rules if rule.path == path for name in (rule.id, rule.name, rule.title)]
    correlations = [
        name for rule in pack.correlations if rule.path == path for name in (rule.id, rule.name, rule.title)
    ]
    try:
        cases = list(_listed(path_of_tests(path), _content(path_of_tests(path))))
    except RuleTestError:  # said where the cases are run
        return
    for name, expected, case in cases:
        key, known = (OF, correlations) if EVENTS in case else ("rule", rules)
        about = case.get(key)
        if not known or (about is not None and about not in known):
            kind = "correlation" if key == OF else "rule"
            reason = f"there is no {kind} in this file" + (f" named {about!r}" if about is not None else "")
            yield RuleTestResult(path, "", "", name, expected, passed=False, reason=reason)


def _run(rule: Rule, plan: Plan) -> Iterator[RuleTestResult]:
    if plan.refused:
        yield _fault(rule, str(plan.refused[0]))
        return
    try:
        cases = list(_cases(rule))
        sources = [frame.logsource for _, expected, frames in cases if expected == "no_match" for frame in frames]
        blind = not any(item.rule.logsource.meets(source) for item in plan.rules for source in sources)
        for name, expected, frames in cases:
            hit = any(plan.match(frame).height for frame in frames)
            passed = hit == (expected == "match")
            seen = ", ".join(str(frame.logsource) for frame in frames) or "no event"
            reason = "" if passed else f"{'matches' if hit else 'does not match'} (log source {seen})"
            if passed and expected == "no_match":
                reason = _empty_proof({frame.logsource for frame in frames}, plan, blind=blind)
            yield RuleTestResult(rule.path, rule.id, rule.title, name, expected, not reason, reason)
    except RuleTestError as error:
        yield _fault(rule, str(error))


def _empty_proof(sources: Collection[LogSource], plan: Plan, *, blind: bool) -> str:
    """Why a case that does not match shows nothing, or "": no rule could have seen its events, whatever is in them.

    Args:
        sources: Log sources of the events.
        plan: The rules.
        blind: Whether all cases of the test file that must not match are such; one among others may show just that.
    """
    if any(atom.field is None for item in plan.rules for atom in atoms_of(item.expression)):
        sources = [source for source in sources if not source.unknown]  # keywords meet lines that no format read
        if not sources:
            return ""
    if UNKNOWN in sources:
        return "no format understands this line: it matches no rule but one with keywords"
    if not blind or any(item.rule.logsource.meets(source) for item in plan.rules for source in sources):
        return ""
    seen = ", ".join(sorted(map(str, sources))) or "any event"
    return f"the rule does not see {seen}: no such event could match"


def _run_correlation(tested: TestedCorrelation) -> Iterator[RuleTestResult]:
    rule = tested.rule
    if tested.plan.refused:
        yield _fault(rule, str(tested.plan.refused[0]))
        return
    path = path_of_tests(rule.path)
    try:
        content = _content(path)
        source = _logsource(path, content["logsource"], LogSource()) if "logsource" in content else None
        for name, expected, case in _listed(path, content):
            if EVENTS in case and is_about(case, rule):
                sources: set[LogSource] = set()
                fired, seen = judge(tested, f"{path}: {name}", case, source, partial(_noted_frames, sources))
                passed = fired == (expected == "match")
                reason = "" if passed else f"{'fires' if fired else 'does not fire'} ({seen})"
                if passed and expected == "no_match":
                    reason = _empty_proof(sources, tested.plan, blind=True)
                yield RuleTestResult(rule.path, rule.id, rule.title, name, expected, not reason, reason)
    except (RuleTestError, CorrelationTestError) as error:
        yield _fault(rule, str(error))


def _fault(rule: Rule | CorrelationRule, reason: str) -> RuleTestResult:
    return RuleTestResult(rule.path, rule.id, rule.title, "", "match", passed=False, reason=reason)


def _cases(rule: Rule) -> Iterator[tuple[str, Expected, list[EventFrame]]]:
    """The events of a rule's test file."""
    path = path_of_tests(rule.path)
    content = _content(path)
    source = _logsource(path, content.get("logsource"), rule.logsource)
    for name, expected, case in _listed(path, content):
        if EVENTS not in case and case.get("rule") in (None, rule.id, rule.name, rule.title):
            yield name, expected, _frames(f"{path}: {name}", case, source)


def _content(path: Path) -> dict[str, object]:
    """A test file as it is written."""
    try:
        documents = list(read_documents(path.read_text("utf-8")))
    except (DocumentError, UnicodeDecodeError) as error:
        raise RuleTestError(f"{path}: {error}") from error
    if len(documents) != 1:
        raise RuleTestError(f"{path}: {len(documents)} documents where one is wanted")
    content = documents[0].content
    unknown = content.keys() - _KEYS
    if unknown:
        raise RuleTestError(f"{path}: unknown keys {sorted(unknown)}; known: {sorted(_KEYS)}")
    return content


def _listed(path: Path, content: Mapping[str, object]) -> Iterator[tuple[str, Expected, dict[str, object]]]:
    """The cases of a test file, with their names."""
    expectations: tuple[Expected, ...] = ("match", "no_match")
    for expected in expectations:
        cases = content.get(expected) or []
        if not isinstance(cases, list):
            raise RuleTestError(f"{path}: {expected} is not a list")
        for number, case in enumerate(cases, 1):
            if not isinstance(case, dict) or not (EVENTS in case or case.keys() <= _CASE_KEYS):
                raise RuleTestError(f"{path}: {expected} {number} is not a map of {sorted(_CASE_KEYS)}")
            yield str(case.get("name") or f"{expected} {number}"), expected, case


def _logsource(path: Path, given: object, default: LogSource) -> LogSource:
    if given is None:
        return default
    if not isinstance(given, dict) or not given.keys() <= {"product", "category", "service"}:
        raise RuleTestError(f"{path}: logsource is not a map of product, category, service")
    return LogSource(**{key: None if value is None else str(value) for key, value in given.items()})


def _frames(place: str, case: Mapping[str, object], source: LogSource) -> list[EventFrame]:
    given = [key for key in ("event", "line", "lines") if key in case]
    if len(given) != 1:
        raise RuleTestError(f"{place}: one of event, line, lines is wanted")
    value = case[given[0]]
    if isinstance(value, dict):
        return [event_frame(value, source)]
    lines = value if isinstance(value, list) else [value]
    if given == ["event"] or not all(isinstance(line, str) for line in lines):
        raise RuleTestError(f"{place}: {given[0]} is not {'a map of fields' if given == ['event'] else 'text'}")
    return parse(raw_batch([str(line) for line in lines]))


def _noted_frames(
    sources: set[LogSource], place: str, case: Mapping[str, object], source: LogSource
) -> list[EventFrame]:
    """As `_frames`; the log sources of the frames are noted."""
    frames = _frames(place, case, source)
    sources.update(frame.logsource for frame in frames)
    return frames


def raw_batch(lines: Sequence[str]) -> pl.DataFrame:
    """Lines as `ingest.rawbatch.decode_record` would give them."""
    count = len(lines)
    columns = {
        "line": [line.encode() for line in lines],
        "received": [TEST_TIME] * count,
        "mark": [None] * count,
        "tenant": ["test"] * count,
        "peer": ["test"] * count,
    }
    return pl.DataFrame(columns, schema=RAW_SCHEMA).with_columns(
        pl.Series(EVENT_ID, [f"test:{row}" for row in range(count)], dtype=pl.String)
    )


def event_frame(fields: Mapping[str, object], source: LogSource) -> EventFrame:
    """One event of a test as a frame: its fields as text, its raw line their JSON."""
    envelope: dict[str, object] = {
        EVENT_ID: "test:0",
        TENANT: "test",
        TIMESTAMP: TEST_TIME,
        RECEIVED: TEST_TIME,
        DATASET: "test",
        ORIGINAL: _json({str(name): value for name, value in fields.items()}),
    }
    texts = {str(name): _text(value) for name, value in fields.items()}
    named = {name: value for name, value in texts.items() if ENVELOPE.get(name) == pl.String()}
    own = {name: value for name, value in texts.items() if name not in ENVELOPE}
    row = {name: [named.get(name, envelope.get(name))] for name in ENVELOPE}
    frame = pl.DataFrame(row, schema=ENVELOPE)
    return EventFrame(source, frame.with_columns(pl.Series(name, [value], pl.String) for name, value in own.items()))


def _text(value: object) -> str | None:
    """A value of a test as its source would write it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | list | dict):
        return _json(value)
    return str(value)


def _json(value: object) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a whole number beyond 64 bits
        return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))

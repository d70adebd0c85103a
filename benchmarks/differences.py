"""Why a match is of one engine only.

Nothing here is taken on trust. Where RSigma alone matches, the rule's log source is held against the one Tocsin reads
from the line. Where Tocsin alone matches, RSigma is run again on the event as Tocsin reads it (Sigma's field names, its
log source said): if it then matches, the engines agree on the rule, and what differs is the reading of the event.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from benchmarks import rsigma
from benchmarks.compare import Match
from benchmarks.lanes import ROUTED, Lane
from benchmarks.measure import run_once
from detections.load import load_rules
from detections.rule import Rule
from ingest.envelope import EVENT_ID, EventFrame
from ingest.event_files import read_events
from ingest.event_source import SourceBatch
from ingest.logsource import LogSource
from ingest.parse import parse

NOT_EXPLAINED: Final = "not explained"

Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Reading:
    """A line as Tocsin reads it."""

    logsource: LogSource
    fields: Fields


def rules_by_id(rules: Path) -> dict[str, Rule]:
    """Rule id -> rule."""
    return {rule.id: rule for rule in load_rules([rules]).rules}


def reasons(
    program: Path,
    lane: Lane,
    rules: Mapping[str, Rule],
    tocsin: Mapping[Match, frozenset[str]],
    theirs: AbstractSet[Match],
) -> dict[Match, str]:
    """A reason for every match that one engine has alone."""
    only_tocsin, only_rsigma = tocsin.keys() - theirs, theirs - tocsin.keys()
    if not only_tocsin and not only_rsigma:
        return {}
    lines = _lines(lane.path, {match.line for match in only_tocsin | only_rsigma})
    readings = _readings(lines)
    found = {match: _of_rsigma(rules.get(match.rule), readings[match.line]) for match in only_rsigma}
    agreed = _rsigma_on_readings(program, lane, {match.line: readings[match.line] for match in only_tocsin})
    for match in only_tocsin:
        confirmed = match in agreed
        found[match] = _of_tocsin(tocsin[match], lines[match.line], readings[match.line], confirmed=confirmed)
    return found


def _lines(path: Path, wanted: AbstractSet[int]) -> dict[int, bytes]:
    with path.open("rb") as lines:
        return {number: line for number, line in enumerate(lines, 1) if number in wanted}


def _readings(lines: Mapping[int, bytes]) -> dict[int, _Reading]:
    """The lines as Tocsin reads them, read as a hunt reads a file."""
    numbers = list(lines)
    with tempfile.TemporaryDirectory(prefix="tocsin-differences-") as folder:
        path = Path(folder) / "lines.ndjson"
        path.write_bytes(b"".join(lines.values()))
        batches = [b for b in read_events([path], now=datetime.now(UTC)) if isinstance(b, SourceBatch)]
    frames: Iterable[EventFrame] = itertools.chain.from_iterable(parse(batch.raw) for batch in batches)
    found: dict[int, _Reading] = {}
    for frame in frames:
        for row in frame.events.select(EVENT_ID, *frame.fields).iter_rows(named=True):
            place = int(str(row.pop(EVENT_ID)).rpartition(":")[2])
            fields = {name: value for name, value in row.items() if value is not None}
            found[numbers[place - 1]] = _Reading(frame.logsource, fields)
    return found


def _of_rsigma(rule: Rule | None, reading: _Reading) -> str:
    if rule is None:
        return "Tocsin refuses the rule"
    if not rule.logsource.meets(reading.logsource):
        return f"rule of {rule.logsource}: RSigma tries it on events of other log sources that do not say theirs"
    return NOT_EXPLAINED


def _of_tocsin(fields: frozenset[str], line: bytes, reading: _Reading, *, confirmed: bool) -> str:
    if not confirmed:
        return f"{NOT_EXPLAINED}: RSigma does not match the event as Tocsin reads it either"
    raw = orjson.loads(line)
    nested = sorted(key for key in ("event_data", "winlog", "Event") if isinstance(raw.get(key), dict))
    if nested:
        return f"fields lie inside `{nested[0]}`, which RSigma is not told to open (agrees once they are on top)"
    absent = sorted(fields - raw.keys() - {"keyword"})
    if absent:
        return f"{', '.join(absent)}: read by Tocsin from other names or from the text (RSigma agrees once it is there)"
    return f"event of {reading.logsource}: RSigma's sysmon pipeline asks for another EventID (agrees once it is said)"


def _rsigma_on_readings(program: Path, lane: Lane, readings: Mapping[int, _Reading]) -> set[Match]:
    """RSigma's matches on events as Tocsin reads them; a number tells them apart."""
    if not readings:
        return set()
    numbers = list(readings)
    with tempfile.TemporaryDirectory(prefix="tocsin-differences-") as folder:
        events, output = Path(folder) / "events.ndjson", Path(folder) / "matches"
        events.write_bytes(b"".join(_as_json(n, readings[n]) for n in numbers))
        routed = replace(lane, rsigma=ROUTED)
        run_once(rsigma.command(program, routed, events, include_event=True), output=output)
        return {Match(match.rule, numbers[match.line - 1]) for match in rsigma.read_matches(output, events)}


def _as_json(number: int, reading: _Reading) -> bytes:
    source = reading.logsource
    parts = {"product": source.product, "category": source.category, "service": source.service}
    said = {name: value for name, value in parts.items() if value is not None}
    return orjson.dumps({**reading.fields, **said, "benchmark_line": f"<{number}>"}) + b"\n"

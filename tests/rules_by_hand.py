"""Rules written in a test, and the events they meet."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from detections.load import load_rules
from detections.plan import Plan
from detections.rule import Rule
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import LogSource

SOURCE = LogSource("windows", "process_creation", "sysmon")
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def frame_of(events: list[dict[str, str | None]], source: LogSource = SOURCE, original: str = "") -> EventFrame:
    fields = dict.fromkeys(name for event in events for name in event)
    columns: dict[str, list[object]] = {name: [None] * len(events) for name in ENVELOPE}
    columns["event.id"] = [f"e{number}" for number in range(len(events))]
    columns["organization.id"] = ["hospital"] * len(events)
    columns["@timestamp"] = columns["event.created"] = [NOW] * len(events)
    columns["event.original"] = [original] * len(events)
    frame = pl.DataFrame(columns, schema=ENVELOPE)
    own = [pl.Series(name, [event.get(name) for event in events], dtype=pl.String) for name in fields]
    return EventFrame(source, frame.with_columns(own))


def write_rule(folder: Path, detection: str, condition: str = "sel") -> Rule:
    text = (
        "title: T\nid: 5f1a2d0e-7c1f-4d3c-9a55-0d9c1f2f7a11\nlevel: high\n"
        "logsource: {product: windows, category: process_creation}\ndetection:\n"
        + "".join(f"  {line}\n" for line in detection.strip("\n").splitlines())
        + f"  condition: {condition}\n"
    )
    path = folder / "rule.yml"
    path.write_text(text, "utf-8")
    pack = load_rules([path])
    assert not pack.refused, pack.refused
    return pack.rules[0]


def matches(rule: Rule, event: dict[str, str | None], original: str = "") -> bool:
    plan = Plan.build([rule])
    assert not plan.refused, plan.refused
    return plan.match(frame_of([event], original=original)).height == 1


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()

"""The code printed for SigmaHQ's rules, run as in a notebook, against the plan, on the events of the same frames."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from sigma.collection import SigmaCollection
from sigma.exceptions import SigmaFeatureNotSupportedByBackendError

from detections.atoms import atoms_of
from detections.compile import CompiledRule
from detections.load import load_rules
from detections.masks import keyword_columns, resolve_fields
from detections.plan import Plan
from detections.rule import Rule
from ingest.envelope import EVENT_ID, EventFrame
from ingest.event_files import read_events
from ingest.event_source import SourceBatch
from ingest.parse import parse
from sigma.backends.polars import PolarsBackend

EVERY = 6
"""Of the rules that match nothing here, one in so many is run."""

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def rules(shared_data: Path) -> list[Rule]:
    return list(load_rules([shared_data / "sigmahq" / "rules"]).rules)


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> list[EventFrame]:
    """The events that SigmaHQ keeps as evidence for its rules: most rules that see a frame match nothing of it."""
    items = read_events([shared_data / "sigmahq" / "regression_data"], now=NOW)
    return parse(pl.concat([item.raw for item in items if isinstance(item, SourceBatch)]))


def converted(rule: Rule, output_format: str) -> str | None:
    """What `sigma convert` prints, from the rule's file on; None where it says that there is no form."""
    collection = SigmaCollection.from_yaml(rule.path.read_text("utf-8"))
    try:
        (code,) = PolarsBackend().convert(collection, output_format)
    except SigmaFeatureNotSupportedByBackendError:
        return None
    return str(code)


def notebook(frame: EventFrame, compiled: CompiledRule, names: dict[str, str]) -> pl.DataFrame:
    """The frame as an analyst would have it: own fields and the raw line, columns called as the rule calls them."""
    df = frame.events.select(keyword_columns(frame.events.columns))
    wanted = {field for atom in atoms_of(compiled.expression) for field in atom.fields} - set(df.columns)
    return df.rename({names[field.lower()]: field for field in wanted if names.get(field.lower()) in df.columns})


def test_code_selects_the_events_that_the_plan_does(rules: list[Rule], frames: list[EventFrame]) -> None:
    plan = Plan.build(rules)
    compared = with_matches = 0
    for frame in frames:
        if frame.logsource.unknown:
            continue
        matched = plan.match(frame).select("rule_id", "event_id")
        hit = set(matched.get_column("rule_id"))
        met = [compiled for compiled in plan.rules if compiled.rule.logsource.meets(frame.logsource)]
        names = resolve_fields(frame.events.columns)
        for number, compiled in enumerate(met):
            rule = compiled.rule
            if rule.id not in hit and number % EVERY:
                continue
            code = converted(rule, "filter")
            if code is None:
                continue
            df = notebook(frame, compiled, names).with_columns(frame.events.get_column(EVENT_ID).alias("row"))
            found = eval(code, {"pl": pl, "df": df})  # noqa: S307 - the code just printed
            expected = matched.filter(pl.col("rule_id") == rule.id).get_column("event_id")
            assert set(found.get_column("row")) == set(expected), (rule.path, code)
            compared += 1
            with_matches += rule.id in hit
    assert compared > 400
    assert with_matches > 100


def test_all_rules_convert(rules: list[Rule]) -> None:
    formless = [rule.path.name for rule in rules[::20] if converted(rule, "default") is None]
    assert formless == []

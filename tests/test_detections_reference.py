"""The plan against an independent reference: an evaluator that reads a rule's YAML and decides one event at a time.

The reference shares no code with the engine, pySigma included: it takes strings apart by itself and matches wildcards
character by character.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import orjson
import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detections import masks
from detections.load import load_rules
from detections.plan import Plan
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import LogSource

Event = Mapping[str, str | None]
FIELDS = ["EventID", "Channel", "Image", "User", "Ip"]
SOURCE = LogSource("windows", "process_creation", None)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


# --- the reference


def split_pattern(text: str) -> list[str]:
    """Characters of a Sigma string; wildcards as `*` and `?`, literal characters with a leading `=`."""
    parts: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in {"*", "?", "\\"} and at + 1 < len(text):
            parts.append("=" + text[at + 1])
            at += 2
        else:
            parts.append(text[at] if text[at] in "*?" else "=" + text[at])
            at += 1
    return parts


def wildcard_match(pattern: list[str], text: str) -> bool:
    reachable = {0}
    for part in pattern:
        if part == "*":
            reachable = set(range(min(reachable), len(text) + 1)) if reachable else set()
        else:
            reachable = {at + 1 for at in reachable if at < len(text) and part in {"?", "=" + text[at]}}
    return len(text) in reachable


def value_matches(modifiers: list[str], wanted: object, value: str | None) -> bool:
    if "exists" in modifiers:
        return (value is not None) is wanted
    if wanted is None:
        return value is None
    if value is None:
        return False
    if "re" in modifiers:
        # In Rust's regex `$` is the end of the text; Python's also matches before a line feed that ends it
        return re.search(str(wanted).replace("$", r"\Z"), value) is not None
    if "cidr" in modifiers:
        try:
            return ipaddress.ip_address(value) in ipaddress.ip_network(str(wanted))
        except ValueError:
            return False
    if "gt" in modifiers:
        try:
            return float(value) > cast("float", wanted)
        except ValueError:
            return False
    pattern = split_pattern(str(wanted))
    if "cased" not in modifiers:
        pattern, value = [part.lower() for part in pattern], value.lower()
    if "contains" in modifiers or "endswith" in modifiers:
        pattern = ["*", *pattern]
    if "contains" in modifiers or "startswith" in modifiers:
        pattern = [*pattern, "*"]
    return wildcard_match(pattern, value)


def detection_matches(detection: object, event: Event) -> bool:
    if isinstance(detection, Mapping):
        results = []
        for key, wanted in detection.items():
            field, *modifiers = key.split("|")
            values = wanted if isinstance(wanted, list) else [wanted]
            found = [value_matches(modifiers, value, event.get(field)) for value in values]
            results.append(all(found) if "all" in modifiers else any(found))
        return all(results)
    if isinstance(detection, list):
        return any(detection_matches(part, event) for part in detection)
    haystacks = [value for value in (*event.values(), original(event)) if value is not None]
    return any(value_matches(["contains"], detection, text) for text in haystacks)


def reference(rule: Mapping[str, object], event: Event) -> bool:
    detections = cast("Mapping[str, object]", rule["detection"])
    names = {name: detection_matches(part, event) for name, part in detections.items() if name != "condition"}
    return bool(eval(str(detections["condition"]), {}, names))  # noqa: S307 - and, or, not, names and parentheses


def original(event: Event) -> str:
    return orjson.dumps({name: value for name, value in event.items() if value is not None}).decode()


# --- random rules and events, over an alphabet small enough that they meet

letters = st.one_of(
    st.text("ab", min_size=1, max_size=2),
    st.text("aAb*?", min_size=1, max_size=3),
    st.text("aAbB\\*?.\né", min_size=1, max_size=4),
)
texts = st.one_of(st.text("aAb", max_size=4), st.text("ab.\né\\*?", max_size=5))
plain = st.sampled_from(["1", "4624", "4625", "Security", "a", "ab", "10.0.0.1", "172.16.9.9", "::1", "x", ""])
values = st.one_of(letters, plain)
text_item = st.tuples(
    st.sampled_from(FIELDS),
    st.sampled_from(["", "|contains", "|startswith", "|endswith", "|contains|all", "|cased", "|contains|cased"]),
    st.lists(values, min_size=1, max_size=3),
)
other_item = st.one_of(
    st.tuples(st.sampled_from(FIELDS), st.just("|exists"), st.booleans()),
    st.tuples(st.sampled_from(FIELDS), st.just(""), st.sampled_from([None, 1, 4624, 4625])),
    st.tuples(st.sampled_from(FIELDS), st.just("|re"), st.sampled_from(["a+b", "^a", "b.$", "[A-B]{2}", r"\\"])),
    st.tuples(st.just("Ip"), st.just("|cidr"), st.sampled_from(["10.0.0.0/8", "172.16.0.0/12", "::/64", "0.0.0.0/0"])),
    st.tuples(st.sampled_from(FIELDS), st.just("|gt"), st.sampled_from([0, 1, 4624])),
)
mapping = st.lists(st.one_of(text_item, text_item, text_item, other_item), min_size=1, max_size=2).map(
    lambda items: {f"{field}{modifiers}": value for field, modifiers, value in items}
)
keyword = st.text("aAbB.é", min_size=1, max_size=3)
detection = st.one_of(
    mapping, mapping, st.lists(mapping, min_size=1, max_size=2), st.lists(keyword, min_size=1, max_size=2)
)
condition = st.recursive(
    st.sampled_from(["d1", "d2", "d3"]),
    lambda inner: st.one_of(
        inner.map(lambda part: f"not ({part})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda parts: f"({' '.join(parts)})"),
    ),
    max_leaves=4,
)
rules = st.tuples(detection, detection, detection, condition)
event = st.fixed_dictionaries({}, optional={field: st.one_of(texts, plain, st.none()) for field in FIELDS})


def as_frame(events: list[dict[str, str | None]]) -> EventFrame:
    columns: dict[str, list[object]] = {name: [None] * len(events) for name in ENVELOPE}
    columns["event.id"] = [str(number) for number in range(len(events))]
    columns["@timestamp"] = columns["event.created"] = [NOW] * len(events)
    columns["event.original"] = [original(item) for item in events]
    fields = [pl.Series(name, [item.get(name) for item in events], dtype=pl.String) for name in FIELDS]
    present = [series for series in fields if series.null_count() < len(series)]
    return EventFrame(SOURCE, pl.DataFrame(columns, schema=ENVELOPE).with_columns(present))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(rules, min_size=4, max_size=8), st.lists(event, min_size=4, max_size=12), st.booleans(), st.booleans())
def test_plan_says_what_the_reference_says(
    folder: Path,
    parts: list[tuple[object, object, object, str]],
    events: list[dict[str, str | None]],
    many: bool,
    queried: bool,
) -> None:
    written = [
        {
            "title": f"rule {number}",
            "id": f"00000000-0000-4000-8000-{number:012}",
            "logsource": {"product": "windows"},
            "detection": {"d1": first, "d2": second, "d3": third, "condition": text},
        }
        for number, (first, second, third, text) in enumerate(parts)
    ]
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump_all(written, allow_unicode=True), "utf-8")
    pack = load_rules([path])
    assert not pack.refused
    plan = Plan.build(pack.rules)
    assert len(plan.rules) + len(plan.refused) == len(written)  # a rule true for every event is refused
    if many:  # enough rows that distinct values are looked at instead of rows
        events = events * 20
    with pytest.MonkeyPatch.context() as patch:
        if queried:  # few short values are searched in Python, others by Polars: both must agree
            patch.setattr(masks, "_SHORT_TEXT", 0)
        found = set(plan.match(as_frame(events)).select("rule_id", "event_id").iter_rows())
    running = {compiled.rule.id for compiled in plan.rules}
    expected = {
        (rule["id"], str(number))
        for rule in written
        if rule["id"] in running
        for number, item in enumerate(events)
        if reference(rule, item)
    }
    assert found == expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [("a*b", "axxb", True), ("a*b", "axxbc", False), (r"a\*b", "a*b", True), (r"a\*b", "axb", False), ("?", "", False)],
)
def test_the_reference_itself(pattern: str, text: str, expected: bool) -> None:
    assert wildcard_match(split_pattern(pattern), text) is expected

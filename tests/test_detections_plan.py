"""The plan: gates, buckets, and what a match says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from detections import fast as fast_module
from detections import plain as plain_module
from detections.load import load_rules
from detections.match import MATCH_SCHEMA
from detections.plan import Plan
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import UNKNOWN, LogSource

SECURITY = LogSource("windows", None, "security")
NOW = datetime(2026, 3, 1, tzinfo=UTC)

RULES = """
title: Failed logon
id: 00000000-0000-4000-8000-000000000001
level: low
tags: [attack.t1110]
logsource: {product: windows, service: security}
detection:
  sel: {EventID: 4625, TargetUserName|endswith: adm}
  filter: {IpAddress: '-'}
  condition: sel and not filter
---
title: Any logon
id: 00000000-0000-4000-8000-000000000002
logsource: {product: windows, service: security}
detection:
  sel: {EventID: [4624, 4625]}
  condition: sel
---
title: Linux only
id: 00000000-0000-4000-8000-000000000003
logsource: {product: linux}
detection:
  sel: {EventID: 4625}
  condition: sel
---
title: Keyword of an application
id: 00000000-0000-4000-8000-000000000004
level: critical
logsource: {product: linux, service: sshd}
detection:
  words: [Backdoor, 'evil*thing']
  filter: {Image: x}
  condition: words and not filter
---
title: Keyword with a field
id: 00000000-0000-4000-8000-000000000005
logsource: {product: linux}
detection:
  words: [backdoor]
  sel: {Image: x}
  condition: words and sel
---
title: Without keyword too
id: 00000000-0000-4000-8000-000000000006
logsource: {product: linux}
detection:
  words: [backdoor]
  sel: {message|contains: door}
  condition: words or not sel
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("rules") / "rules.yml"
    path.write_text(RULES)
    pack = load_rules([path])
    assert not pack.refused
    return Plan.build(pack.rules)


def frame(events: list[dict[str, str | None]], source: LogSource = SECURITY, original: str = "raw") -> EventFrame:
    columns: dict[str, list[object]] = {name: [None] * len(events) for name in ENVELOPE}
    columns["event.id"] = [f"t:0:0:{number}" for number in range(len(events))]
    columns["organization.id"] = ["chu"] * len(events)
    columns["@timestamp"] = columns["event.created"] = [NOW] * len(events)
    columns["host.name"] = ["dc1"] * len(events)
    columns["event.original"] = [original] * len(events)
    fields = dict.fromkeys(name for event in events for name in event)
    own = [pl.Series(name, [event.get(name) for event in events], dtype=pl.String) for name in fields]
    return EventFrame(source, pl.DataFrame(columns, schema=ENVELOPE).with_columns(own))


def pairs(found: pl.DataFrame) -> list[tuple[str, str]]:
    return list(found.select("event_id", "rule_title").iter_rows())


def test_matches_have_the_schema_and_the_order_of_events_then_rules(plan: Plan) -> None:
    found = plan.match(
        frame(
            [
                {"EventID": "4624", "TargetUserName": "x", "IpAddress": "10.0.0.1"},
                {"EventID": "4625", "TargetUserName": "T0-ADM", "IpAddress": "10.0.0.1"},
                {"EventID": "4625", "TargetUserName": "T0-ADM", "IpAddress": "-"},
                {"EventID": "1102", "TargetUserName": "T0-ADM", "IpAddress": "-"},
            ]
        )
    )
    assert dict(found.schema) == dict(MATCH_SCHEMA)
    assert pairs(found) == [
        ("t:0:0:0", "Any logon"),
        ("t:0:0:1", "Failed logon"),
        ("t:0:0:1", "Any logon"),
        ("t:0:0:2", "Any logon"),
    ]
    row = found.row(1, named=True)
    assert row["rule_id"] == "00000000-0000-4000-8000-000000000001"
    assert (row["level"], row["tags"]) == ("low", ["attack.t1110"])
    assert (row["tenant"], row["host"], row["user"]) == ("chu", "dc1", None)
    assert (row["timestamp"], row["received"], row["original"]) == (NOW, NOW, "raw")
    assert row["logsource"] == "windows/_/security"
    assert json.loads(row["matched"]) == {"EventID": "4625", "TargetUserName": "T0-ADM"}
    assert json.loads(row["event"]) == {"EventID": "4625", "TargetUserName": "T0-ADM", "IpAddress": "10.0.0.1"}
    assert found.get_column("level").to_list()[0] == "medium"  # the rule says none


def test_no_event_and_no_match_are_empty_frames(plan: Plan) -> None:
    for events in (frame([]), frame([{"EventID": "1"}]), frame([{"Other": "1"}])):
        found = plan.match(events)
        assert found.height == 0
        assert dict(found.schema) == dict(MATCH_SCHEMA)


def test_an_unknown_line_meets_every_rule_that_a_keyword_alone_makes_true(plan: Plan) -> None:
    found = plan.match(frame([{"message": "a backdoor"}], UNKNOWN, "<13> a BACKDOOR"))
    assert pairs(found) == [("t:0:0:0", "Keyword of an application")]
    assert json.loads(found.row(0, named=True)["matched"]) == {"keyword": "Backdoor"}
    assert plan.match(frame([{"message": "nothing"}], UNKNOWN, "nothing")).height == 0


def test_keywords_that_are_found_are_named(plan: Plan) -> None:
    found = plan.match(frame([{"A": "x"}], LogSource("linux", None, "sshd"), "an evil big thing, a backdoor"))
    matched = [
        json.loads(text) for text in found.filter(pl.col("rule_title") == "Keyword of an application")["matched"]
    ]
    assert matched == [{"keyword": "Backdoor, evil*thing"}]


def test_field_names_of_rules_and_events_may_differ_by_case(plan: Plan) -> None:
    found = plan.match(frame([{"eventid": "4624"}]))
    assert json.loads(found.row(0, named=True)["matched"]) == {"EventID": "4624"}


def test_chunks_and_buckets_leave_no_seam(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, str | None]] = [
        {
            "EventID": ["4624", "4625", "1", None][number % 4],
            "Channel": f"c{number % 3}",
            "TargetUserName": f"u{number}adm" if number % 5 else None,
            "IpAddress": "-" if number % 2 else "::1",
        }
        for number in range(500)
    ]
    whole = plan.match(frame(events))
    assert whole.height == 250 + sum(
        event["EventID"] == "4625" and event["TargetUserName"] is not None and event["IpAddress"] != "-"
        for event in events
    )
    plain = Plan(plan.rules, engine="plain")
    assert plain.match(frame(events)).equals(whole)
    monkeypatch.setattr(fast_module, "CHUNK_ROWS", 7)
    monkeypatch.setattr(plain_module, "CHUNK_ROWS", 7)
    assert plan.match(frame(events)).equals(whole)
    assert plain.match(frame(events)).equals(whole)
    monkeypatch.setattr(fast_module, "CHUNK_BYTES", 1)
    assert plan.match(frame(events)).equals(whole)
    monkeypatch.setattr(plain_module, "MAX_BUCKET_VALUES", 0)
    assert plain.match(frame(events)).equals(whole)
    assert plan.match(frame(events)).equals(whole)


def test_a_remembered_scope_is_not_taken_for_other_columns(plan: Plan) -> None:
    assert plan.match(frame([{"EventID": "4625", "TargetUserName": "xadm"}])).height == 2
    assert plan.match(frame([{"EventID": "4625"}])).height == 1
    assert plan.match(frame([{"EventID": "4625", "TargetUserName": "xadm", "IpAddress": "-"}])).height == 1
    assert plan.match(frame([{"EventID": "4625", "TargetUserName": "xadm"}])).height == 2


def test_threads_may_share_a_plan(plan: Plan) -> None:
    events = frame([{"EventID": str(4620 + number % 9), "TargetUserName": "xadm"} for number in range(300)])
    expected = plan.match(events)
    with ThreadPoolExecutor(4) as threads:
        assert all(found.equals(expected) for found in threads.map(plan.match, [events] * 12))


def test_blind_rules_are_named(plan: Plan) -> None:
    blind = plan.blind({SECURITY: ["event.id", "EventID"]})
    assert [compiled.rule.title for compiled in blind] == [
        "Failed logon",
        "Linux only",
        "Keyword of an application",
        "Keyword with a field",
        "Without keyword too",
    ]
    assert len(plan.blind({})) == len(plan.rules)


def test_ungated_rules_are_named(plan: Plan) -> None:
    assert [compiled.rule.title for compiled in plan.ungated] == ["Without keyword too"]


TELLING = [
    ("words: [backdoor]", "backdoor", True),
    ("words: [aaa]", "aaa", False),
    ("words: [abcd]", "abcd", False),
    ("words: [abcde]", "abcde", True),
    ("words: ['a-b']", "a-b", True),
    ("words: [' aaa ']", "x aaa x", True),
    ("words: ['a*b']", "axxb", False),
    ("words: ['abc*de']", "abcxde", True),
    ("words: {'|re': 'a+b'}", "aab", True),
    ("words: [aaa, backdoor]", "aaa", False),  # of a list, those that tell something
    ("words: [aaa, backdoor]", "backdoor", True),
    ("words: {'|all': [aaa, backdoor]}", "aaa backdoor", True),
    ("words: {'|all': [aaa, backdoor]}", "backdoor", False),
]


@pytest.mark.parametrize(("detection", "line", "expected"), TELLING)
def test_lines_of_no_known_format_meet_telling_keywords_only(
    tmp_path: Path, detection: str, line: str, expected: bool
) -> None:
    path = tmp_path / "r.yml"
    path.write_text(f"title: R\nlogsource: {{product: cisco}}\ndetection: {{{detection}, condition: words}}\n")
    built = Plan.build(load_rules([path]).rules)
    assert (built.match(frame([{}], UNKNOWN, original=line)).height == 1) is expected
    known = "aaa" if detection.startswith("words: [aaa]") else line
    assert (built.match(frame([{}], LogSource("cisco", None, "aaa"), original=known)).height == 1) is (
        expected or line in {"aaa", "abcd", "axxb"}
    )


@pytest.mark.parametrize(
    ("condition", "line", "expected"),
    [
        ("short and long", "aaa backdoor", True),
        ("short and long", "backdoor", False),
        ("long and not short", "backdoor", True),
        ("long and not short", "backdoor aaa", False),
        ("short and not long", "aaa", False),
        ("(long or short) and other", "aaa bbb", False),
        ("(long or short) and other", "backdoor bbb", True),
    ],
)
def test_short_keywords_still_count_beside_a_telling_one(
    tmp_path: Path, condition: str, line: str, expected: bool
) -> None:
    path = tmp_path / "r.yml"
    path.write_text(
        "title: R\nlogsource: {product: cisco}\n"
        f"detection: {{short: [aaa], long: [backdoor], other: [bbb], condition: {condition}}}\n"
    )
    built = Plan.build(load_rules([path]).rules)
    assert (built.match(frame([{}], UNKNOWN, original=line)).height == 1) is expected


def test_splitting_stops_before_buckets_get_small(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, str | None]] = [
        {"EventID": str(number % 60), "Provider_Name": f"p{number % 59}", "Channel": "Security"}
        for number in range(1200)
    ]
    split: list[int] = []
    kept = plain_module._buckets

    def counted(events: pl.DataFrame, start: int, names: Mapping[str, str]) -> Iterator[plain_module._Bucket]:
        buckets = list(kept(events, start, names))
        split.append(len(buckets))
        return iter(buckets)

    monkeypatch.setattr(plain_module, "_buckets", counted)
    Plan(plan.rules, engine="plain").match(frame(events))
    assert split == [60]


def test_registry_umbrella_meets_its_categories(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_text(
        "title: R\nlogsource: {product: windows, category: registry_event}\n"
        "detection: {sel: {TargetObject|contains: Run}, condition: sel}\n"
    )
    built = Plan.build(load_rules([path]).rules)
    events: list[dict[str, str | None]] = [{"TargetObject": r"HKLM\Run\x"}]
    assert built.match(frame(events, LogSource("windows", "registry_set", "sysmon"))).height == 1
    assert built.match(frame(events, LogSource("windows", "file_event", "sysmon"))).height == 0

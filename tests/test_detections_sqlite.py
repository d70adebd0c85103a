"""The engine against pySigma's SQLite backend, its SQL executed.

Whatever the backend converts and means as the Sigma specification does must give the same rows. What it does not is in
`DIFFERENCES`: left out of the random rules by `DIALECT`, and shown one by one, so that the list shrinks when a new
version of the backend agrees.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings

import sigma_strategies
from detections.load import load_rules
from detections.plan import Plan
from detections.rule import RulePack
from ingest.envelope import EventFrame
from ingest.event_files import read_events
from ingest.event_source import SourceBatch
from ingest.logsource import LogSource
from ingest.parse import parse
from sigma_strategies import ADDRESSES, BACKSLASHES, CASELESS, EVERYTHING, MARKS, NUMBERS, PLAIN, REGEXES
from sqlite_oracle import RuleSql, UnconvertibleError, content_sql, frame_hits

pytestmark = pytest.mark.timeout(240)  # hypothesis draws much, and machines are slow

# --- where the two differ


@dataclass(frozen=True, slots=True)
class Difference:
    """A construct that the backend does not take, or takes otherwise.

    Attributes:
        reason: What the backend does, and why ours stands.
        item: A line of a detection (None: `value` is a keyword, or the whole map).
        value: Its value.
        event: An event to which they give different answers.
        ours: Whether our engine matches.
        theirs: Whether the SQL does, or "refused".
    """

    reason: str
    item: str | None
    value: object
    event: Mapping[str, str]
    ours: bool
    theirs: bool | Literal["refused"]
    condition: str = "sel"
    name: str = "sel"


DIFFERENCES: Final[dict[str, Difference]] = {
    "keywords": Difference(
        "the backend has no full-text search", None, "mimikatz", {"CommandLine": "mimikatz"}, True, "refused"
    ),
    "case beyond ASCII": Difference(
        "SQLite folds A to Z only; Sigma says case-insensitive without such a limit",
        "User", "rené", {"User": "RENÉ"}, True, False,
    ),
    "the Kelvin sign": Difference(
        "its lower case is the letter k; SQLite folds A to Z only",
        "User", "kim", {"User": "\u212aim"}, True, False,
    ),
    "NUL in an event": Difference(
        "LIKE reads a value up to its first NUL: an attacker's way to hide the rest",
        "CommandLine|endswith", "mimikatz", {"CommandLine": "a\x00mimikatz"}, True, False,
    ),
    "NUL in a rule": Difference(
        "no NUL can stand in SQL", "CommandLine|contains", "a\x00b", {"CommandLine": "xa\x00bx"}, True, "refused"
    ),
    "CIDR over what is no address": Difference(
        "CIDR becomes LIKE patterns, which text that begins like an address satisfies",
        "IpAddress|cidr", "10.0.0.0/8", {"IpAddress": "10.evil.example"}, False, True,
    ),
    "CIDR and spellings of IPv6": Difference(
        "LIKE patterns know one spelling of an address",
        "IpAddress|cidr", "2001:db8::/32", {"IpAddress": "2001:0DB8:0:0::a"}, True, False,
    ),
    "CIDR of IPv6 that matches too much": Difference(
        "pySigma expands to a prefix of text, whatever groups the `::` of an address stands for",
        "IpAddress|cidr", "fe80::/64", {"IpAddress": "fe80::1:0:0:0:5"}, False, True,
    ),
    "CIDR over mapped addresses": Difference(
        "an IPv4 address mapped into IPv6 is the same host",
        "IpAddress|cidr", "10.0.0.0/8", {"IpAddress": "::ffff:10.0.0.1"}, True, False,
    ),
    "CIDR of several patterns among other fields": Difference(
        "the backend joins the patterns by OR without parentheses, and AND binds closer: one pattern is enough",
        None, {"User": "root", "IpAddress|cidr": "10.0.0.0/31"},
        {"User": "guest", "IpAddress": "10.0.0.1"}, False, True,
    ),
    "CIDR with host bits": Difference(
        "pySigma refuses the rule; the network it stands for is meant",
        "IpAddress|cidr", "10.1.2.3/8", {"IpAddress": "10.9.9.9"}, True, "refused",
    ),
    "numbers compared in text": Difference(
        "a column of text is compared as text: 10 comes before 9 (a column of numbers agrees)",
        "CommandLine|gt", 9, {"CommandLine": "10"}, True, False,
    ),
    "text compared with a number": Difference(
        "SQLite holds every text greater than every number; what is no number is not greater than one",
        "Size|gt", 9, {"Size": "many"}, False, True,
    ),
    "true is not 1": Difference(
        "the backend takes 1 for true, as tables may store it; Sigma's value is the word",
        "User", True, {"User": "1"}, False, True,
    ),
    "utf16le": Difference(
        "pySigma 1.5 does not know the modifier", "CommandLine|utf16le|base64|contains", "ab",
        {"CommandLine": "YQBiAA=="}, True, "refused",
    ),
    "utf16 with its byte-order mark": Difference(
        "pySigma writes the mark in UTF-8", "CommandLine|utf16|base64|contains", "ab",
        {"CommandLine": "//5hAGIA"}, True, False,
    ),
    "base64 of an escaped wildcard": Difference(
        "pySigma encodes the backslash of the escape", "CommandLine|base64|contains", r"a\*b",
        {"CommandLine": "YSpi"}, True, False,
    ),
    "a quoted number compared": Difference(
        "pySigma refuses it", "Size|gte", "5", {"Size": "7"}, True, "refused"
    ),
    "a huge whole number": Difference(
        "beyond 64 bits SQLite makes it a float", "User", 2**63, {"User": str(2**63)}, True, False
    ),
    "dollar before a final newline": Difference(
        "REGEXP is Python's, whose $ also stands before a final newline; Rust's only at the end",
        "CommandLine|re", "b$", {"CommandLine": "b\n"}, False, True,
    ),
    "a long text": Difference(
        "SQLite's LIKE takes patterns of 50,000 bytes", "CommandLine|startswith", "x" * 50_000,
        {"CommandLine": "x" * 50_001}, True, "refused",
    ),
    "upper-case operators": Difference(
        "pySigma knows `and`, `or`, `not` in lower case only; people write AND",
        "User", "a", {"User": "a"}, True, "refused", condition="sel AND sel",
    ),
    "hyphens in patterns": Difference(
        "pySigma's patterns have no hyphen",
        "User", "a", {"User": "a"}, True, "refused", condition="1 of s-*", name="s-1",
    ),
    "white space by regex": Difference(
        "Python holds the separators U+001C to U+001F white space, Unicode and Rust do not",
        "CommandLine|re", r"^\s$", {"CommandLine": "\x1c"}, False, True,
    ),
    "word characters by regex": Difference(
        "Rust follows Unicode, where combining marks are part of a word; Python does not",
        "CommandLine|re", r"^\w$", {"CommandLine": "\u0307"}, True, False,
    ),
    "a regex flag and odd letters": Difference(
        "Python holds the dotted capital I equal to i under (?i); Rust folds as Unicode's simple folding does",
        "CommandLine|re|i", "^i$", {"CommandLine": "İ"}, False, True,
    ),
}  # fmt: skip
"""Construct -> how the SQL differs from us."""

OF_NUMBERS: Final = frozenset({sigma_strategies.SIZE_FIELD})
"""Columns that SQLite is told hold numbers."""

DIALECT: Final = dataclasses.replace(
    EVERYTHING,
    fragments=(*PLAIN, *MARKS, *BACKSLASHES, "*", "?", *CASELESS, "\n", "\r\n", "\t", "\x7f", "\u2028", "-", "–", "é"),
    addresses=(*ADDRESSES, "-", "localhost"),
    networks=("10.0.0.0/8", "172.16.0.0/16", "192.168.1.0/24", "192.168.1.1/32"),  # each is one pattern
    numbers=NUMBERS,
    text_modifiers=tuple(
        modifiers for modifiers in EVERYTHING.text_modifiers if "utf16le" not in modifiers and "utf16|" not in modifiers
    ),
    regexes=REGEXES,
    keywords=False,
    compared=(sigma_strategies.SIZE_FIELD,),
    any_number=(-3, 2.5),
    joints=(" and ", " or ", " and not "),
)
"""What both sides mean alike."""


def both(content: sigma_strategies.Content, frame: EventFrame) -> tuple[bool, bool | Literal["refused"]]:
    """What our engine and the SQL say of one rule and one event."""
    pack = sigma_strategies.loaded([content])
    assert not pack.refused
    plan = Plan.build(pack.rules)
    assert not plan.refused
    ours = plan.match(frame).height > 0
    assert (Plan(plan.rules, engine="plain").match(frame).height > 0) == ours
    try:
        return ours, bool(frame_hits({"rule": content_sql(content)}, frame, numeric=OF_NUMBERS))
    except UnconvertibleError:
        return ours, "refused"


def as_rule(known: Difference) -> sigma_strategies.Content:
    return {
        "title": "difference",
        "id": "00000000-0000-4000-8000-000000000001",
        "logsource": {"product": "windows"},
        "detection": {
            known.name: [known.value] if known.item is None else {known.item: known.value},
            "condition": known.condition,
        },
    }


WINDOWS: Final = LogSource("windows", None, "security")


@pytest.mark.parametrize("name", DIFFERENCES)
def test_difference(name: str) -> None:
    known = DIFFERENCES[name]
    frame = sigma_strategies.event_frame({key: [value] for key, value in known.event.items()}, WINDOWS, rows=1)
    assert both(as_rule(known), frame) == (known.ours, known.theirs)


# --- random rules over random events


def meets(content: sigma_strategies.Content, source: LogSource) -> bool:
    """Log sources without umbrella names: every part that the rule names is the event's."""
    wanted = content["logsource"]
    assert isinstance(wanted, dict)
    return all(getattr(source, part) == name for part, name in wanted.items())


def rows_of(plan: Plan, frame: EventFrame) -> set[tuple[str, str]]:
    """(rule id, event id) of each match."""
    return set(plan.match(frame).select("rule_id", "event_id").iter_rows())


SEEN: Final = Counter[str]()
"""What the random examples amounted to: a test in which nothing matches shows nothing."""


@settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes longer than a test may
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(sigma_strategies.rule_packs(DIALECT), sigma_strategies.event_frames(DIALECT))
def test_random_rules_give_the_same_rows(contents: list[sigma_strategies.Content], frame: EventFrame) -> None:
    pack = sigma_strategies.loaded(contents)
    assert not pack.refused
    plan = Plan.build(pack.rules, engine="plain")
    assert all("every event" in refusal.reason for refusal in plan.refused), plan.refused
    running = {compiled.rule.id for compiled in plan.rules}
    queries = {
        str(content["id"]): content_sql(content)
        for content in contents
        if content["id"] in running and meets(content, frame.logsource)
    }
    expected = frame_hits(queries, frame, numeric=OF_NUMBERS)
    SEEN.update(rules=len(queries), rows=frame.events.height, hits=len(expected), matching=bool(expected))
    assert rows_of(plan, frame) == expected
    assert rows_of(Plan(plan.rules, engine="fast"), frame) == expected


def test_random_rules_did_match() -> None:
    if not SEEN:
        pytest.skip("runs after the test above")
    assert SEEN["rules"] > 150
    assert SEEN["matching"] > 30


# --- real rules over real events


REAL: Final = (
    "evtx-attack-samples/Credential Access",
    "evtx-attack-samples/Lateral Movement",
    "otrf/atomic/windows/discovery",
)


@dataclass(frozen=True, slots=True)
class Converted:
    """SigmaHQ's Windows rules on both sides.

    Attributes:
        queries: Rule id -> SQL, for those the backend takes.
        reasons: Why it does not take the others -> how many.
    """

    pack: RulePack
    queries: Mapping[str, RuleSql]
    reasons: Mapping[str, int]


@pytest.fixture(scope="module")
def windows_rules(shared_data: Path) -> Converted:
    folders = [shared_data / "sigmahq" / name / "windows" for name in ("rules", "rules-threat-hunting")]
    pack = load_rules([*folders, shared_data / "sigmahq" / "rules-emerging-threats"])
    queries: dict[str, RuleSql] = {}
    reasons = Counter[str]()
    for rule in pack.rules:
        try:
            queries[rule.id] = content_sql(yaml.load(rule.path.read_bytes(), yaml.CSafeLoader))
        except UnconvertibleError as error:
            reasons[str(error)] += 1
    return Converted(pack, queries, reasons)


def test_only_keywords_are_not_converted(windows_rules: Converted) -> None:
    assert len(windows_rules.queries) > 2500
    others = [reason for reason in windows_rules.reasons if "keywords" not in reason and "laceholder" not in reason]
    assert others == []


def real_frames(folder: Path) -> Iterator[EventFrame]:
    """The events below a folder, a frame a log source."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    by_source: dict[LogSource, list[pl.DataFrame]] = {}
    for item in read_events([folder], now=now):
        if isinstance(item, SourceBatch):
            for frame in parse(item.raw):
                by_source.setdefault(frame.logsource, []).append(frame.events)
    for source, frames in by_source.items():
        spellings: dict[str, str] = {}
        for events in frames:  # archives write a field's name in more than one case
            for name in events.columns:
                spellings.setdefault(name.lower(), name)
        renamed = [events.rename({name: spellings[name.lower()] for name in events.columns}) for events in frames]
        yield EventFrame(source, pl.concat(renamed, how="diagonal"))


@pytest.mark.parametrize("part", REAL)
def test_real_events_give_the_same_rows(part: str, windows_rules: Converted, shared_data: Path) -> None:
    plan = Plan.build([rule for rule in windows_rules.pack.rules if rule.id in windows_rules.queries])
    plain = Plan(plan.rules, engine="plain")
    running = {compiled.rule.id: compiled.rule for compiled in plan.rules}
    hits = 0
    for frame in real_frames(shared_data / part):
        queries = {
            rule_id: windows_rules.queries[rule_id]
            for rule_id, rule in running.items()
            if rule.logsource.meets(frame.logsource)
        }
        expected = frame_hits(queries, frame)
        hits += len(expected)
        for found in (rows_of(plan, frame), rows_of(plain, frame)):
            assert {(running[rule_id].title, event) for rule_id, event in found ^ expected} == set()
    assert hits > 20

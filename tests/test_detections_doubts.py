"""Doubts: what `tocsin rules check` remarks on, and that it is silent where a rule says what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from detections.check import check_rules

RULE = """title: T
id: 00000000-0000-4000-8000-000000000001
logsource: {product: windows}
detection:
"""
OFTEN = """title: Often
correlation: {type: event_count, rules: 00000000-0000-4000-8000-000000000001, timespan: 5m, condition: BOUND}
"""
PLAIN = RULE + "  s: {A: x}\n  condition: s\n"


def remarks(folder: Path, text: str) -> list[tuple[int | None, str]]:
    (folder / "r.yml").write_text(text)
    report = check_rules([folder])
    assert report.ok, report.lines()
    return [(remark.line, remark.reason) for remark in report.remarks]


@pytest.mark.parametrize(
    ("detection", "expected"),
    [
        ("  s: {A: x}\n  t: {B: y}\n  condition: s\n", [(6, "the condition does not use detection 't'")]),
        ("  s: {A: x}\n  _t: {B: y}\n  condition: 1 of them\n", [(6, "the condition does not use detection '_t'")]),
        (
            "  s: {A: x}\n  timeframe: 5m\n  condition: s\n",
            [(6, "timeframe within detection does nothing: write a correlation with a timespan")],
        ),
        (
            "  s: {A|contains: [x, '']}\n  condition: s\n",
            [(5, "s: A|contains of an empty text is true wherever the field exists")],
        ),
        (
            "  s: [{B: x}, {A|startswith|cased: ''}]\n  condition: s\n",
            [(5, "s: A|startswith of an empty text is true wherever the field exists")],
        ),
        (
            "  s: {A|all: [x, y]}\n  condition: s\n",
            [(6, "no event can make the rule true: A cannot be both 'x' and 'y'")],
        ),
        (
            "  s: {A: x}\n  t: {B: z, A: y}\n  condition: s and t\n",
            [(7, "no event can make the rule true: A cannot be both 'x' and 'y'")],
        ),
        (
            "  s: {A: x}\n  condition: s and not s\n",
            [(6, "no event can make the rule true: it asks for A eq 'x' and for the contrary")],
        ),
        (
            "  s: {A: x, B: y}\n  condition: s and not s\n",
            [(6, "no event can make the rule true: it asks for A eq 'x' ... and for the contrary")],
        ),
        (
            "  s: {A: [x, y]}\n  condition: s and not s\n",
            [(6, "no event can make the rule true: it asks for A eq 'x' ... and for the contrary")],
        ),
        (
            "  s: {A: [x, y]}\n  t: {A: x}\n  u: {A: y}\n  condition: s and not t and not u\n",
            [(8, "no event can make the rule true: it asks for A eq 'x' ... and for the contrary")],
        ),
    ],
)
def test_what_was_most_likely_not_meant_is_said(
    tmp_path: Path, detection: str, expected: list[tuple[int | None, str]]
) -> None:
    assert remarks(tmp_path, RULE + detection) == expected


@pytest.mark.parametrize(
    "detection",
    [
        "  s: {A: x}\n  t: {B: y}\n  condition: s and not t\n",
        "  sel_a: {A: x}\n  sel_b: {B: y}\n  condition: 1 of sel_*\n",
        "  s: {A: x}\n  t: {B: y}\n  condition: [s, t]\n",
        "  s: {A|all: ['*x*', 'x*', x]}\n  condition: s\n",
        "  s: {A|all: [X, x]}\n  condition: s\n",
        "  s: {A: x}\n  t: {A: y}\n  condition: s or t\n",
        "  s: {A: x}\n  t: {A: y}\n  condition: s and not t\n",
        "  s: {A: [x, y]}\n  t: {A: x}\n  condition: s and not t\n",
        "  s: {A: x, B: y}\n  t: {A: x, C: z}\n  condition: s and not t\n",
        "  s: {A|contains: '*'}\n  t: {A: '', B: '*'}\n  condition: s or t\n",
    ],
)
def test_what_is_meant_is_not_remarked_upon(tmp_path: Path, detection: str) -> None:
    assert remarks(tmp_path, RULE + detection) == []


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ("{gte: -2}", "gte -2"),
        ("{gte: 0}", "gte 0"),
        ("{gte: 1}", "gte 1"),
        ("{gt: 0.5}", "gt 0.5"),
        ("{neq: 0}", "neq 0"),
        ("{gte: 2}", None),
        ("{gt: 1}", None),
        ("{gte: 1, lte: 3}", None),
        ("{lt: 5}", None),
    ],
)
def test_a_count_that_every_event_reaches(tmp_path: Path, bound: str, said: str | None) -> None:
    found = remarks(tmp_path, f"{PLAIN}---\n{OFTEN.replace('BOUND', bound)}")
    reason = f"{said} holds of every event by itself: a count is at least 1"
    assert found == ([] if said is None else [(9, reason)])


def test_global_that_overrides_a_document_is_named_with_both_values(tmp_path: Path) -> None:
    shared = "action: global\ntitle: Shared\nlogsource: {product: windows}\ndetection: {condition: s}\n---\n"
    own = "title: Own\nlogsource: {product: windows, service: system}\ndetection:\n  s: {A: x}\n  condition: not s\n"
    assert remarks(tmp_path, shared + own) == [
        (6, "title 'Shared' of the document with action: global stands in the place of its own 'Own'"),
        (
            10,
            "detection.condition 's' of the document with action: global stands in the place of its own 'not s'",
        ),
    ]
    assert remarks(tmp_path, f"{shared}action: reset\n---\n{own}") == []


def test_a_filter_is_looked_at_as_well(tmp_path: Path) -> None:
    text = (
        "title: F\nlogsource: {product: windows}\nfilter:\n  rules: any\n  s: {B: y}\n  t: {C: z}\n  condition: not s\n"
    )
    assert remarks(tmp_path, f"{PLAIN}---\n{text}") == [(13, "the condition does not use detection 't'")]

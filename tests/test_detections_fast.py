"""The fast engine finds what the plain one finds, whatever the rules, the events and the sample it learned from."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detections import fast as fast_module
from detections import fast_index
from detections.atoms import Atom, Not, all_of, any_of, lower_case, lower_column
from detections.comparisons import rust_refusal
from detections.fast import FastEngine
from detections.fast_columns import RowColumns
from detections.load import load_rules
from detections.needles import EDGE, LONGEST, Needle, choose_clause, clauses_of, wildcard_texts
from detections.plan import Plan
from detections.regex_texts import regex_texts
from detections.row_tests import NOTHING, row_test
from detections.scan import Scanner
from ingest.envelope import EventFrame
from ingest.logsource import UNKNOWN, LogSource
from sigma_strategies import Content, event_frame, event_frames, field_values, loaded, rule_packs, texts

WINDOWS = LogSource("windows", "process_creation", "sysmon")
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def found(plan: Plan, frame: EventFrame) -> list[tuple[str, str, object]]:
    """(event, rule, what matched), in the order of the plan's answer."""
    matches = plan.match(frame).select("event_id", "rule_id", "matched")
    return [(event, rule, _words(orjson.loads(matched))) for event, rule, matched in matches.iter_rows()]


def _words(matched: dict[str, str | None]) -> dict[str, object]:
    """Keywords are found in the order of the rule by one engine, and of their kinds by the other."""
    keyword = matched.pop("keyword", None)
    return {**matched, "keyword": None if keyword is None else sorted(keyword)}


@SLOW
@given(rule_packs(), event_frames(), event_frames())
def test_fast_equals_plain_on_random_rules_and_events(
    contents: list[Content], first: EventFrame, second: EventFrame
) -> None:
    rules = loaded(contents).rules
    fast, plain = Plan.build(rules), Plan.build(rules, engine="plain")
    for frame in (first, second):  # the second meets an index that was made for the first
        assert found(fast, frame) == found(plain, frame)


@SLOW
@given(rule_packs(), event_frames())
def test_fast_equals_plain_on_lines_of_no_known_format(contents: list[Content], frame: EventFrame) -> None:
    rules = loaded(contents).rules
    unknown = EventFrame(UNKNOWN, frame.events)
    assert found(Plan.build(rules), unknown) == found(Plan.build(rules, engine="plain"), unknown)


@pytest.mark.timeout(240)
def test_fast_equals_plain_on_real_telemetry(shared_data: Path) -> None:
    from golden_corpora import frames_of  # local: reads the corpora

    rules = load_rules([shared_data / "sigmahq" / "rules"]).rules
    fast, plain = Plan.build(rules), Plan.build(rules, engine="plain")
    events = 0
    for frame in frames_of(shared_data):
        events += frame.events.height
        assert found(fast, frame) == found(plain, frame)
    assert events > 20_000


def rules_of(tmp_path: Path, *detections: str) -> Plan:
    path = tmp_path / "rules.yml"
    path.write_text(
        "\n---\n".join(
            f"title: r{number}\nid: 00000000-0000-4000-8000-{number:012}\nlogsource: {{product: windows}}\n"
            f"detection: {{s: {detection}, condition: s}}"
            for number, detection in enumerate(detections)
        )
    )
    pack = load_rules([path])
    assert not pack.refused
    return Plan.build(pack.rules)


def test_an_index_learned_from_other_events_is_right_and_is_learned_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_index, "FIRST_REVIEW", 10)
    plan = rules_of(tmp_path, *(f"{{CommandLine|contains|all: [common, needle{number}]}}" for number in range(9)))
    rare = event_frame(
        {"CommandLine": [f"needle{number} a needle{number + 1}" for number in range(9)]}, WINDOWS, rows=9
    )
    plan.match(rare)
    engine = plan._engine
    assert isinstance(engine, FastEngine)
    before = engine._indexes[WINDOWS]
    common = ["common " + " ".join(f"needle{other}" for other in range(9) if other != number) for number in range(9)]
    for _ in range(4):
        assert plan.match(event_frame({"CommandLine": [*common]}, WINDOWS, rows=9)).height == 72
    assert engine._indexes[WINDOWS] is not before


def test_a_value_that_holds_a_needle_a_million_times_costs_no_more_than_its_length(tmp_path: Path) -> None:
    plan = rules_of(tmp_path, "{CommandLine|contains: ab}", "{CommandLine|contains|all: [ab, mimikatz]}")
    lines = ["ab" * 500_000, "ab mimikatz", "AB", None, ""]
    assert [row[:2] for row in found(plan, event_frame({"CommandLine": lines}, WINDOWS, rows=5))] == [
        ("test:0", plan.rules[0].rule.id),
        ("test:1", plan.rules[0].rule.id),
        ("test:1", plan.rules[1].rule.id),
        ("test:2", plan.rules[0].rule.id),
    ]


def test_threads_may_share_the_fast_engine(tmp_path: Path) -> None:
    plan = rules_of(tmp_path, "{CommandLine|contains: ab}", "{Image|endswith: cmd.exe}", "[mimikatz]")
    frame = event_frame({"CommandLine": ["xaby"] * 400, "Image": ["C:\\CMD.exe"] * 400}, WINDOWS, rows=400)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(plan.match, [frame] * 12))
    assert all(result.equals(results[0]) for result in results)
    assert results[0].height == 800


def test_lines_that_hold_the_needles_of_every_rule_go_to_the_plain_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = rules_of(tmp_path, *(f"{{CommandLine|contains|all: [needle{n}, other{n}]}}" for n in range(100, 190)))
    plain = Plan(plan.rules, engine="plain")
    line = " ".join(f"needle{number}" for number in range(100, 190))
    frame = event_frame({"CommandLine": [line, f"{line} other100 other101"] * 50}, WINDOWS, rows=100)
    plan.match(event_frame({"CommandLine": ["quiet"]}, WINDOWS, rows=1))  # the longer needle is taken for the rarer
    usual = found(plan, frame)
    monkeypatch.setattr(fast_module, "CHUNK_ROWS", 60)
    assert found(plan, frame) == usual == found(plain, frame)
    monkeypatch.setattr(RowColumns, "places", None)  # candidates are not looked at one by one
    assert found(plan, frame) == usual
    assert len(usual) == 100


def test_the_sample_sees_beyond_the_beginning_of_long_values(tmp_path: Path) -> None:
    plan = rules_of(tmp_path, *(f"{{CommandLine|contains|all: [common, rare{number}]}}" for number in range(100, 140)))
    lines: list[str | None] = ["p" * 300 + " common " + "q" * 300] * 500
    plan.match(event_frame({"CommandLine": lines}, WINDOWS, rows=500))
    engine = plan._engine
    assert isinstance(engine, FastEngine)
    (field,) = engine._indexes[WINDOWS].fields
    assert all(len(rules) == 1 for rules in field.rules)  # not all of them by `common`


def test_keywords_of_a_rule_that_another_keyword_made_true_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(
        "title: r\nlogsource: {product: cisco}\ndetection: {s: [abc], t: {'|re': 'x.*y'}, condition: s or t}\n"
    )
    rules = load_rules([path]).rules
    frame = event_frame({"Message": ["abc x1y"]}, UNKNOWN, rows=1)
    assert found(Plan.build(rules), frame) == found(Plan.build(rules, engine="plain"), frame)
    assert "abc, x.*y" in Plan.build(rules).match(frame)["matched"][0]


# --- scanning


@given(st.lists(texts(), min_size=1, max_size=6), st.lists(st.none() | field_values("CommandLine"), max_size=8))
@settings(max_examples=200, deadline=None)
def test_scanner_misses_nothing(needles: list[str], values: list[str | None]) -> None:
    sought = [text for needle in needles if needle.strip(EDGE) for text in _anchored(lower_case(needle))]
    column = pl.Series(values, dtype=pl.String)
    lowered = lower_column(column).to_list()
    if not sought:
        return
    scanner = Scanner(sought)
    pairs = {(needle, row) for needle, rows in scanner.find(column).items() for row in rows}
    marked = {row for needle, row in pairs if scanner.stands_for_all(needle)}
    for place, text in enumerate(sought):
        for row, value in enumerate(lowered):
            if value is not None and text in f"{EDGE}{value}{EDGE}":
                assert (place, row) in pairs or row in marked
    assert all(0 <= row < len(values) for _, row in pairs)


def _anchored(text: str) -> list[str]:
    return [text, EDGE + text, text + EDGE, EDGE + text + EDGE]


def test_scanner_says_where() -> None:
    values = pl.Series(["abc", "xABCx", None, "", "abc\x00", "zzabc", "K\u212a", None, "ÉΣ"])
    scanner = Scanner(["\x00abc\x00", "abc", "\x00x", "c\x00", "éσ"])
    pairs = {(needle, row) for needle, rows in scanner.find(values).items() for row in rows}
    assert pairs == {
        *((0, 0), (1, 0), (3, 0), (1, 1), (2, 1), (0, 4), (1, 4), (3, 4), (1, 5), (3, 5), (4, 8)),
        (5, 6),  # the Kelvin sign stands for every needle
    }
    assert scanner.stands_for_all(5)
    assert not scanner.stands_for_all(4)
    assert Scanner(["abc"], edges=False).find(pl.Series([None, None], dtype=pl.String)) == {}


# --- needles


def test_the_rarest_clause_is_chosen() -> None:
    image, line = Atom("Image", "endswith", "\\cmd.exe"), Atom("CommandLine", "contains", "-enc")
    either = any_of([line, Atom("CommandLine", "contains", "-e ")])
    often = {"\\cmd.exe\x00": 0.5, "-enc": 0.1, "-e ": 0.2}
    rule = all_of([image, either, Not(Atom("User", "eq", "x"))])
    chosen = choose_clause(rule, lambda needle: often[needle.text])
    assert chosen is not None
    assert chosen[0] == pytest.approx(0.3)
    assert chosen[1] == (Needle("commandline", "-enc"), Needle("commandline", "-e "))
    assert choose_clause(any_of([rule, Not(image)]), lambda needle: often[needle.text]) is None
    assert choose_clause(Not(image), lambda _: 0.0) is None


CLAUSES = [
    (Atom("F", "eq", "abc"), ["\x00abc\x00"]),
    (Atom("F", "eq", ""), []),
    (Atom("F", "eq", "ABC", cased=True), ["\x00abc\x00"]),
    (Atom("F", "endswith", "x" * 40), ["x" * (LONGEST - 1) + "\x00"]),
    (Atom("F", "startswith", "x" * 40), ["\x00" + "x" * (LONGEST - 1)]),
    (Atom("F", "like", r"\A(?s:ab.*c\.d.e)\z"), ["\x00ab", "c.d", "e\x00"]),
    (Atom("F", "like", r"(?s:a\\.b.*\*)"), ["a\\", "b", "*"]),
    (Atom("F", "like", r"\A(?s:AB.C)\z", cased=True), ["\x00ab", "c\x00"]),
    (Atom("F", "contains", "hélène"), ["hélè"]),
    (Atom("F", "endswith", "hélène.exe"), ["ne.exe\x00"]),
    (Atom("F", "eq", "é"), ["\x00é\x00"]),
    (Atom(None, "contains", "abc"), ["abc"]),
    (Atom(None, "eq", "abc"), ["abc"]),
    (Atom("F", "re", r"cmd.{0,5}/c"), ["cmd", "/c"]),
    (Atom("F", "cidr", "10.0.0.0/8"), []),
    (Atom("F", "gt", "5"), []),
    (Atom("F", "null", ""), []),
]


@pytest.mark.parametrize(("atom", "expected"), CLAUSES)
def test_clauses_of_atoms(atom: Atom, expected: list[str]) -> None:
    assert [needle.text for needle in clauses_of(atom)] == expected


def test_wildcards_alone_have_no_text() -> None:
    assert wildcard_texts(r"\A(?s:..)\z") == []


REGEX_TEXTS = [
    (r"cmd.{0,5}(?:/c|/r).+powershell.+\"", ["cmd", "powershell", '"']),
    (r"(?i)echo.*Clip", ["echo", "clip"]),
    (r"(?x) a b", []),
    (r"(?x: a # )xyz", []),
    (r"(?#[)x|(]y)zz", []),
    (r"(?V1x)a b(?!c)", []),
    (r"(?if)strasse(?!x)", []),
    (r"(?i-u:a)bc(?P<n>d)e(?<m>f)g(?>h)i(?<!j)k", ["bc", "e", "g", "i", "k"]),
    *((f"xyza{repeats}", []) for repeats in ("+*", "+??", "{3}*", "{2}{0,1}", "+{0}", "(?#c)*(?!b)", "(?i)*(?!b)")),
    (r"a|b", []),
    (r"(a|b)c", ["c"]),
    (r"ab?c", ["a", "c"]),
    (r"ab*?c", ["a", "c"]),
    (r"ab{0,3}c", ["a", "c"]),
    (r"ab{,3}c", ["a", "c"]),
    (r"ab{2}c", ["ab", "c"]),
    (r"ab+c", ["ab", "c"]),
    (r"\x41bc", ["bc"]),
    (r"\u0041bc", ["bc"]),
    (r"\p{Lu}bc\pLd", ["bc", "d"]),
    (r"\d+\.exe$", [".exe"]),
    (r"[]a]b[^]c]d", ["b", "d"]),
    (r"[[:alpha:]]b", ["b"]),
    (r"[a[bc]]d", []),
    (r"[a&&b]d", []),
    (r"é\s*abc", ["abc"]),
    (r"(?!abc)def", ["def"]),
    (r"a\1b", []),
    (r"\bcmd\b{end}x", ["cmd", "x"]),
    (r"\<cmd\>", ["cmd"]),
]


@pytest.mark.parametrize(("pattern", "expected"), REGEX_TEXTS)
def test_texts_of_regexes(pattern: str, expected: list[str]) -> None:
    assert [text for text in regex_texts(pattern) if text] == expected


_PIECES = st.sampled_from(
    [
        *("a", "b", "K", "s", r"\.", r"\\", ".", ".*", "[ab]", "[^a]", "[]x]", "(", ")", "(?:", "|", "*", "+", "?"),
        *("{2}", "{0,1}", "{,2}", r"\d", r"\w", r"\x41", r"\bA", "(?i)", "(?-i)", "(?i:", "^", "$", "-", "é", "&&"),
        *("+*", "??", "{0}", "(?#c)", "(?x: a # )"),
        *("[[:alpha:]]", r"\u0041", r"\<", "[a[b]]", "[a--b]", "#", " ", "(?x)", "}", "{", "]"),
    ]
)


@st.composite
def _pattern_and_text(draw: st.DrawFn) -> tuple[str, str]:
    """A pattern, and a text of its own letters with some left out: what it matches is near."""
    pieces = draw(st.lists(_PIECES, min_size=1, max_size=8))
    own = "".join(char for char in "".join(pieces) if char.isalnum() or char in " -#&")
    kept = draw(st.lists(st.booleans(), min_size=len(own), max_size=len(own)))
    return "".join(pieces), "".join(char for char, keep in zip(own, kept, strict=True) if keep)


_LETTERS = st.lists(st.sampled_from("abAKks. \\1xé-&#]"), max_size=9).map("".join)


@given(_pattern_and_text() | st.tuples(st.lists(_PIECES, min_size=1, max_size=8).map("".join), _LETTERS))
@settings(max_examples=600, deadline=None)
def test_what_a_regex_matches_holds_its_texts(drawn: tuple[str, str]) -> None:
    pattern, text = drawn
    if rust_refusal(pattern) is not None:
        return
    if pl.Series([text]).str.contains(pattern)[0]:
        assert all(part in text.lower() for part in regex_texts(pattern))


# --- row tests


ROWS = [
    (Atom("F", "eq", "a"), [0]),
    (Atom("F", "contains", "a"), [0, 1]),
    (Atom("F", "contains", ""), [0, 1, 2, 3]),
    (Atom("F", "startswith", "b"), [1, 2]),
    (Atom("F", "endswith", ""), [0, 1, 2, 3]),
    (Atom("F", "null", ""), [4]),
    (Atom("F", "exists", ""), [0, 1, 2, 3]),
    (Not(Atom("F", "contains", "a")), [2, 3, 4]),
    (any_of(Atom("F", "eq", value) for value in "ab"), [0, 2]),
    (any_of(Atom("F", "contains", f"{number}") for number in range(40)), []),
    (any_of([*(Atom("F", "contains", f"{number}") for number in range(40)), Atom("F", "contains", "")]), [0, 1, 2, 3]),
    (all_of([Atom("F", "exists", ""), Not(Atom("F", "eq", ""))]), [0, 1, 2]),
    (Atom("F", "re", "a"), [0, 1, 2, 3, 4]),  # not decided here: every row may match
    (Not(Atom("F", "re", "a")), [0, 1, 2, 3, 4]),
]


@pytest.mark.parametrize(("expression", "expected"), ROWS)
def test_row_tests(expression: Atom | Not, expected: list[int]) -> None:
    test = row_test(expression)
    assert test.run(range(5), [["a", "ba", "b", "", NOTHING] for _ in test.columns]) == expected
    assert test.exact is ("re" not in str(expression).split("'"))


def test_what_a_rule_holds_never_becomes_code() -> None:
    hostile = "'] or __import__('os').abort() or ['\\\n\"\"\" {r} \ud7ff"
    test = row_test(any_of([Atom("F", "eq", hostile), Atom("F", "contains", hostile + "x")]))
    assert test.run([0, 1, 2], [[hostile, "a", f"b{hostile}xc"]]) == [0, 2]
    assert re.fullmatch(r"\(.*\)", repr(test.columns))

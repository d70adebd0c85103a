"""Every construct of Sigma as a table: a detection, an event, and whether the rule is true for it."""

from __future__ import annotations

import ast
from pathlib import Path
from time import monotonic, process_time

import polars as pl
import pytest
from structlog.testing import capture_logs

from detections import bounded_regex
from detections.atoms import atoms_of
from detections.compile import CompiledRule, compile_rule
from detections.plan import Plan
from detections.render import RenderError, quote, render
from detections.rule import Refusal
from rules_by_hand import b64, frame_of, matches, write_rule

TABLE: list[tuple[str, dict[str, str | None], bool]] = [
    # equality: case-insensitive, whole value
    (r"sel: {Image: 'C:\Cmd.exe'}", {"Image": r"c:\cMD.EXE"}, True),
    (r"sel: {Image: 'C:\Cmd.exe'}", {"Image": r"c:\cmd.exe "}, False),
    (r"sel: {Image: 'C:\Cmd.exe'}", {"Image": None}, False),
    (r"sel: {Image: 'C:\Cmd.exe'}", {"Other": "x"}, False),
    ("sel: {Image: STRASSE}", {"Image": "strasse"}, True),
    ("sel: {Image: STRASSE}", {"Image": "straße"}, False),  # lower case is no case folding
    ("sel: {User: É}", {"User": "é"}, True),
    ("sel: {User: İ}", {"User": "İ"}, True),
    ("sel: {User: İstanbul}", {"User": "i̇stanbul"}, True),
    ("sel: {User: ΟΔΟΣ}", {"User": "οδος"}, True),  # the final sigma
    ("sel: {User|contains: ΟΔΟΣ}", {"User": "ΟΔΟΣ.EXE"}, True),  # final here, and not in the next
    ("sel: {User|contains: ΟΔΟΣ}", {"User": "ΟΔΟΣΑ"}, True),
    ("sel: {User|startswith: οδος}", {"User": "ΟΔΟΣΑ"}, True),
    ("sel: {User: 'ο*ς'}", {"User": "ΟΔΟΣ"}, True),
    ("sel: {User|contains: [ΟΔΟΣ, ΛΟΓΟΣ]}", {"User": "λογοσ"}, True),
    ("sel: {User|cased: οδος}", {"User": "οδοσ"}, False),
    ("sel: {User|fieldref|startswith: Target}", {"User": "ΟΔΟΣΑ", "Target": "ΟΔΟΣ"}, True),
    ("sel: [ΟΔΟΣ]", {"Any": "ΟΔΟΣΑ"}, True),
    ("sel: {Image|cased: Cmd}", {"Image": "Cmd"}, True),
    ("sel: {Image|cased: Cmd}", {"Image": "cmd"}, False),
    ("sel: {Image|contains|cased: Cmd}", {"Image": "xCmdx"}, True),
    ("sel: {Image|contains|cased: Cmd}", {"Image": "xcmdx"}, False),
    # field names: exact, else without regard to case
    ("sel: {image: cmd}", {"Image": "cmd"}, True),
    ("sel: {host.name: pc1}", {"Image": "x"}, False),
    # numbers and truth values equal their text
    ("sel: {EventID: 4625}", {"EventID": "4625"}, True),
    ("sel: {EventID: 4625}", {"EventID": "46250"}, False),
    ("sel: {EventID: '4625'}", {"EventID": "4625"}, True),
    ("sel: {Ratio: 1.5}", {"Ratio": "1.5"}, True),
    ("sel: {Initiated: true}", {"Initiated": "True"}, True),
    ("sel: {Initiated: 'false'}", {"Initiated": "true"}, False),
    ("sel: {CommandLine|contains: 443}", {"CommandLine": "-p 4430"}, True),
    # contains, startswith, endswith, lists, all
    (r"sel: {Image|endswith: '\cmd.exe'}", {"Image": r"C:\Windows\CMD.exe"}, True),
    (r"sel: {Image|endswith: '\cmd.exe'}", {"Image": r"C:\Windows\cmd.exe.bak"}, False),
    (r"sel: {Image|startswith: 'c:\'}", {"Image": r"C:\Windows"}, True),
    (r"sel: {Image|startswith: 'c:\'}", {"Image": r"D:\c:\ "}, False),
    ("sel: {CommandLine|contains: [abc, xyz]}", {"CommandLine": "-- XYZ"}, True),
    ("sel: {CommandLine|contains: [abc, xyz]}", {"CommandLine": "-- xy"}, False),
    ("sel: {CommandLine|contains|all: [abc, xyz]}", {"CommandLine": "xyzabc"}, True),
    ("sel: {CommandLine|contains|all: [abc, xyz]}", {"CommandLine": "xyz"}, False),
    ("sel: {CommandLine|contains: ''}", {"CommandLine": ""}, True),
    # wildcards and escapes
    ("sel: {Image: 'a*c'}", {"Image": "ABBC"}, True),
    ("sel: {Image: 'a*c'}", {"Image": "abcd"}, False),
    ("sel: {Image: 'a*c'}", {"Image": "a\nb\r\nc"}, True),
    ("sel: {Image: 'a*c'}", {"Image": "abc\n"}, False),
    ("sel: {Image: 'a?c'}", {"Image": "a\nc"}, True),
    ("sel: {Image: 'a?c'}", {"Image": "aéc"}, True),
    ("sel: {Image: 'a?c'}", {"Image": "ac"}, False),
    ("sel: {Image: '*b?d*'}", {"Image": "abcde"}, True),
    ("sel: {Image: '*a*b'}", {"Image": "xaxb"}, True),
    ("sel: {Image: '*a*b'}", {"Image": "xaxbx"}, False),
    ("sel: {Image: 'a.c*[x'}", {"Image": "a.c([x"}, True),
    ("sel: {Image: 'a.c*[x'}", {"Image": "abc([x"}, False),
    (r"sel: {Image: 'a\*c'}", {"Image": "a*c"}, True),
    (r"sel: {Image: 'a\*c'}", {"Image": "abc"}, False),
    (r"sel: {Image: 'a\?c'}", {"Image": "a?c"}, True),
    (r"sel: {Image: 'a\\*c'}", {"Image": "a\\bc"}, True),  # a backslash, then a wildcard
    (r"sel: {Image: 'a\\b'}", {"Image": "a\\b"}, True),
    (r"sel: {Image: 'a\b'}", {"Image": "a\\b"}, True),
    (r"sel: {CommandLine|contains: '\*'}", {"CommandLine": "dir *"}, True),
    (r"sel: {CommandLine|contains: '\*'}", {"CommandLine": "dir"}, False),
    ("sel: {Image: '*'}", {"Image": "x"}, True),
    ("sel: {Image: '*'}", {"Image": None}, False),
    ("sel: {Image: '?*'}", {"Image": ""}, False),
    # null, empty, exists
    ("sel: {Image: null}", {"Image": None}, True),
    ("sel: {Image: null}", {"Other": "x"}, True),
    ("sel: {Image: null}", {"Image": ""}, False),
    ("sel: {Image: ''}", {"Image": ""}, True),
    ("sel: {Image: ''}", {"Image": None}, False),
    ("sel: {Image: ''}", {"Image": "x"}, False),
    ("sel: {Image|exists: true}", {"Image": ""}, True),
    ("sel: {Image|exists: true}", {"Image": None}, False),
    ("sel: {Image|exists: true}", {"Other": "x"}, False),
    ("sel: {Image|exists: false}", {"Other": "x"}, True),
    ("sel: {Image|exists: false}", {"Image": "x"}, False),
    # regex: Rust, case-sensitive, unanchored
    ("sel: {Image|re: 'a+b'}", {"Image": "xaaby"}, True),
    ("sel: {Image|re: 'a+b'}", {"Image": "xAABy"}, False),
    ("sel: {Image|re|i: 'a+b'}", {"Image": "xAABy"}, True),
    ("sel: {Image|re: '^a.b$'}", {"Image": "a\nb"}, False),
    ("sel: {Image|re|s: '^a.b$'}", {"Image": "a\nb"}, True),
    ("sel: {Image|re: '^b$'}", {"Image": "a\nb"}, False),
    ("sel: {Image|re|m: '^b$'}", {"Image": "a\nb"}, True),
    ("sel: {Image|re: '^b$'}", {"Image": "b\n"}, False),  # Python's $ would accept the final line end
    (r"sel: {Image|re: '\\\d{3}'}", {"Image": "a\\123"}, True),
    ("sel: {Image|re: ['x', 'y']}", {"Image": "y"}, True),
    ("sel: {Image|re: 'a(?!b)'}", {"Image": "ac"}, True),  # look-around: the fallback
    ("sel: {Image|re: 'a(?!b)'}", {"Image": "ab"}, False),
    (r"sel: {Image|re: '(\w)\1'}", {"Image": "book"}, True),
    (r"sel: {Image|re: '(\w)\1'}", {"Image": "bok"}, False),
    ("sel: {Image|re|i: 'A(?!b)'}", {"Image": "ac"}, True),
    # encodings
    ("sel: {CommandLine|base64: foobar}", {"CommandLine": b64("foobar")}, True),
    ("sel: {CommandLine|base64|contains: foobar}", {"CommandLine": "x " + b64("foobar")}, True),
    ("sel: {CommandLine|base64offset|contains: foobar}", {"CommandLine": b64("foobar")}, True),
    ("sel: {CommandLine|base64offset|contains: foobar}", {"CommandLine": b64("xfoobarx")}, True),
    ("sel: {CommandLine|base64offset|contains: foobar}", {"CommandLine": b64("xxfoobaryy")}, True),
    ("sel: {CommandLine|base64offset|contains: foobar}", {"CommandLine": b64("fooba")}, False),
    ("sel: {CommandLine|base64offset|contains: 'été'}", {"CommandLine": b64("un été chaud")}, True),
    ("sel: {CommandLine|base64offset|contains: 'été'}", {"CommandLine": b64("l'été chaud")}, True),
    (r"sel: {CommandLine|base64offset|contains: 'a\*b-cd'}", {"CommandLine": b64("xx a*b-cd yy")}, True),
    (
        "sel: {CommandLine|wide|base64offset|contains: IEX}",
        {"CommandLine": b64("a IEX b".encode("utf-16-le"))},
        True,
    ),
    ("sel: {CommandLine|utf16le|base64offset|contains: IEX}", {"CommandLine": b64("IEX".encode("utf-16-le"))}, True),
    ("sel: {CommandLine|utf16be|base64offset|contains: IEX}", {"CommandLine": b64("IEX".encode("utf-16-be"))}, True),
    (
        "sel: {CommandLine|utf16|base64offset|contains: IEX}",
        {"CommandLine": b64(b"\xff\xfe" + "IEX".encode("utf-16-le"))},
        True,
    ),
    ("sel: {CommandLine|utf16|base64offset|contains: IEX}", {"CommandLine": b64("IEX".encode("utf-16-le"))}, False),
    (
        "sel: {CommandLine|base64offset|contains|all: [foobar, barfoo]}",
        {"CommandLine": b64("xfoobar") + b64("xxbarfoo")},
        True,
    ),
    ("sel: {CommandLine|base64offset|contains|all: [foobar, barfoo]}", {"CommandLine": b64("xfoobar")}, False),
    # windash
    ("sel: {CommandLine|windash|contains: ' -param'}", {"CommandLine": "x /param"}, True),
    ("sel: {CommandLine|windash|contains: ' -param'}", {"CommandLine": "x \u2013param"}, True),
    ("sel: {CommandLine|windash|contains: ' -param'}", {"CommandLine": "x +param"}, False),
    ("sel: {CommandLine|contains|windash: ' -p-x'}", {"CommandLine": "x /p-x"}, True),
    ("sel: {CommandLine|windash|contains|all: [' -a', ' -b']}", {"CommandLine": "x /a -b"}, True),
    ("sel: {CommandLine|windash|contains|all: [' -a', ' -b']}", {"CommandLine": "x /a"}, False),
    # networks
    ("sel: {Ip|cidr: 10.0.0.0/8}", {"Ip": "10.255.0.1"}, True),
    ("sel: {Ip|cidr: 10.0.0.0/8}", {"Ip": "11.0.0.1"}, False),
    ("sel: {Ip|cidr: 10.0.0.0/8}", {"Ip": "10.0.0.0.1"}, False),
    ("sel: {Ip|cidr: 10.0.0.0/8}", {"Ip": "-"}, False),
    ("sel: {Ip|cidr: 10.0.0.0/8}", {"Ip": "::ffff:10.1.2.3"}, True),
    ("sel: {Ip|cidr: 10.1.2.3/8}", {"Ip": "10.9.9.9"}, True),  # host bits
    ("sel: {Ip|cidr: 172.16.0.0/12}", {"Ip": "172.31.255.255"}, True),
    ("sel: {Ip|cidr: 172.16.0.0/12}", {"Ip": "172.32.0.0"}, False),
    ("sel: {Ip|cidr: ['fe80::/10', '10.0.0.0/8']}", {"Ip": "FEBF::1"}, True),
    ("sel: {Ip|cidr: 'fe80::/10'}", {"Ip": "fec0::1"}, False),
    ("sel: {Ip|cidr: '2001:db8::/33'}", {"Ip": "2001:db8:8000::1"}, False),
    ("sel: {Ip|cidr: '::1/128'}", {"Ip": "0:0:0:0:0:0:0:1"}, True),
    ("sel: {Ip|cidr: '::1/128'}", {"Ip": "::1a"}, False),
    # comparisons of numbers
    ("sel: {Port|gt: 1024}", {"Port": "1025"}, True),
    ("sel: {Port|gt: 1024}", {"Port": "1024"}, False),
    ("sel: {Port|gte: 1024}", {"Port": "1024"}, True),
    ("sel: {Port|lt: 9}", {"Port": "10"}, False),
    ("sel: {Port|lt: 9}", {"Port": "8.5"}, True),
    ("sel: {Port|lte: '9'}", {"Port": "9"}, True),  # a quoted number
    ("sel: {Port|gt: 1}", {"Port": "many"}, False),
    ("sel: {Port|gt: 1}", {"Port": "nan"}, False),
    ("sel: {Port|gt: 1}", {"Port": "inf"}, False),
    ("sel: {Port|gt: 1}", {"Port": None}, False),
    ("sel: {Port|gt: -5}", {"Port": "-4"}, True),
    # fields against fields
    ("sel: {User|fieldref: Target}", {"User": "Ann", "Target": "ANN"}, True),
    ("sel: {User|fieldref: Target}", {"User": "Ann", "Target": "bob"}, False),
    ("sel: {User|fieldref: Target}", {"User": None, "Target": None}, False),
    ("sel: {User|fieldref: Target}", {"User": "Ann"}, False),
    ("sel: {User|fieldref|startswith: Target}", {"User": "Ann-x", "Target": "ann"}, True),
    ("sel: {User|fieldref|endswith: Target}", {"User": "Ann-x", "Target": "ann"}, False),
    ("sel: {User|fieldref|contains: Target}", {"User": "x-Ann-x", "Target": "ann"}, True),
    ("sel: {User|neq: ann}", {"User": "bob"}, True),
    ("sel: {User|neq: ann}", {"User": "ANN"}, False),
    # maps are "and", lists of maps "or"
    ("sel: {Image: a, User: b}", {"Image": "a", "User": "b"}, True),
    ("sel: {Image: a, User: b}", {"Image": "a", "User": "c"}, False),
    ("sel: [{Image: a}, {User: b}]", {"Image": "x", "User": "b"}, True),
    ("sel: [{Image: a, User: b}, {User: c}]", {"Image": "x", "User": "b"}, False),
    # keywords
    ("sel: [mimikatz, sekurlsa]", {"Any": "the MimiKatz tool"}, True),
    ("sel: [mimikatz, sekurlsa]", {"Any": "mimi", "Other": "katz"}, False),
    ("sel: 'mimi*tz'", {"Any": "a mimikatz b"}, True),
    ("sel: 'mimi*tz'", {"Any": "mimi", "Other": "tz"}, False),  # not across fields
    ("sel: 'm?m?k'", {"Any": "xMIMIKx"}, True),
    ("sel: {'|all': [alpha, beta]}", {"Any": "alpha", "Other": "beta"}, True),
    ("sel: {'|all': [alpha, beta]}", {"Any": "alpha"}, False),
    ("sel: {'|re': '^al.ha$'}", {"Any": "alpha"}, True),
    ("sel: {'|re': '^al.ha$'}", {"Any": "alphax"}, False),
    ("sel: {'|re': 'a(?=l)'}", {"Any": "al"}, True),
    ("sel: 4625", {"Any": "id=4625"}, True),
    ("sel: [{Image: x}, {User: y}, mimikatz]", {"Any": "mimikatz"}, True),
]


@pytest.mark.parametrize(("detection", "event", "expected"), TABLE)
def test_construct(tmp_path: Path, detection: str, event: dict[str, str | None], expected: bool) -> None:
    assert matches(write_rule(tmp_path, detection), event) is expected


@pytest.mark.parametrize(("detection", "event", "expected"), TABLE)
def test_rendered_code_says_the_same(
    tmp_path: Path, detection: str, event: dict[str, str | None], expected: bool
) -> None:
    compiled = compile_rule(write_rule(tmp_path, detection))
    assert isinstance(compiled, CompiledRule)
    # What a notebook holds: only the event's columns, numbers as numbers
    names = {atom_field for atom in atoms_of(compiled.expression) for atom_field in atom.fields}
    resolved = {name: next((own for own in event if own.lower() == name.lower()), name) for name in names}
    row = {name: event.get(own) for name, own in resolved.items()} | event
    frame = pl.DataFrame({name: pl.Series([value], dtype=pl.String) for name, value in row.items()})
    try:
        code = render(compiled.expression)
    except RenderError:
        assert compiled.slow is not None
        return
    found = frame.filter(eval(code, {"pl": pl}))  # noqa: S307 - the code just written
    assert (found.height == 1) is expected, code


def test_rendered_code_casts_numbers(tmp_path: Path) -> None:
    compiled = compile_rule(write_rule(tmp_path, "sel: {EventID: [1, 3], Port|gt: 1024, Ip|cidr: '10.0.0.0/8'}"))
    assert isinstance(compiled, CompiledRule)
    frame = pl.DataFrame({"EventID": [1, 3, 3], "Port": [5000, 80, 5000], "Ip": ["10.0.0.1", "10.0.0.1", None]})
    assert frame.filter(eval(render(compiled.expression), {"pl": pl})).rows() == [(1, 5000, "10.0.0.1")]  # noqa: S307


@pytest.mark.parametrize("text", ['a"b', "a\\b", "\x1b[31m", "\x9b31m", "é😀", "\u202e", "\n", "{x}", "\x00"])
def test_quoted_text_is_a_printable_literal(text: str) -> None:
    literal = quote(text)
    assert literal.isprintable()
    assert ast.literal_eval(literal) == text


CONDITIONS: list[tuple[str, set[str], bool]] = [
    ("a and b", {"a", "b"}, True),
    ("a and b", {"a"}, False),
    ("a or b and c", {"a"}, True),
    ("a or b and c", {"b"}, False),
    ("(a or b) and c", {"a"}, False),
    ("not a", set(), True),
    ("a and not b", {"a", "b"}, False),
    ("not (a or b)", {"b"}, False),
    ("not not a", {"a"}, True),
    ("a AND b", {"b"}, False),
    ("a AND NOT b", {"a"}, True),
    ("1 of them", {"c"}, True),
    ("any of them", set(), False),
    ("all of them", {"a", "b", "c", "notepad", "sel-x", "sel-y"}, True),
    ("all of them", {"a", "b", "c", "notepad", "sel-x"}, False),
    ("1 of sel-*", {"sel-y"}, True),
    ("1 of sel-*", {"a"}, False),
    ("all of sel*", {"sel-x", "sel-y"}, True),
    ("all of sel*", {"sel-x"}, False),
    ("not 1 of sel*", {"a"}, True),
    ("notepad and not a", {"notepad"}, True),
    ("notepad", {"epad"}, False),
    ("1 of a", {"a"}, True),
]


@pytest.mark.parametrize(("condition", "true", "expected"), CONDITIONS)
def test_condition(tmp_path: Path, condition: str, true: set[str], expected: bool) -> None:
    names = ["a", "b", "c", "notepad", "sel-x", "sel-y"]
    rule = write_rule(tmp_path, "\n".join(f"{name}: {{F_{name}: 'yes'}}" for name in names), condition)
    event: dict[str, str | None] = {f"F_{name}": "yes" if name in true else "no" for name in names}
    assert matches(rule, event) is expected


def test_several_conditions_are_joined_by_or(tmp_path: Path) -> None:
    rule = write_rule(tmp_path, "a: {A: x}\nb: {B: x}", "[a, b]")
    assert matches(rule, {"A": "n", "B": "x"})
    assert not matches(rule, {"A": "n", "B": "n"})


def test_keywords_search_the_raw_line_and_not_the_envelope(tmp_path: Path) -> None:
    assert matches(write_rule(tmp_path, "sel: mimikatz"), {"A": "x"}, original="... MIMIKATZ ...")
    assert not matches(write_rule(tmp_path, "sel: hospital"), {"A": "x"})


def test_the_raw_line_is_no_field(tmp_path: Path) -> None:
    rule = write_rule(tmp_path, "sel: {event.original|contains: mimikatz}")
    assert not matches(rule, {"A": "x"}, original="mimikatz")


def test_keyword_with_the_separator_is_sought_field_by_field(tmp_path: Path) -> None:
    rule = write_rule(tmp_path, 'sel: {"|contains": "a\\0b"}')
    assert matches(rule, {"A": "xa\x00bx"})
    assert not matches(rule, {"A": "a", "B": "b"})


REFUSED: list[tuple[str, str, str]] = [
    ("sel: {A: x}", "sel and missing", "names 'missing'"),
    ("sel: {A: x}", "sel and", "ends too early"),
    ("sel: {A: x}", "(sel", "not closed"),
    ("sel: {A: x}", "sel sel", "unexpected 'sel'"),
    ("sel: {A: x}", "sel )", "unexpected ')'"),
    ("sel: {A: x}", "sel | count() > 5", "correlation"),
    ("sel: {A: x}", "2 of sel*", "quantifier"),
    ("sel: {A: x}", "1 of nothing*", "no detection"),
    ("sel: {A: x}", "''", "empty"),
    ("sel: {A: x}", "not " * 100 + "sel", "deeper"),
    ("sel: {A|expand: '%admins%'}", "sel", "%admins%"),
    ("sel: {A: []}", "sel", "empty list"),
    ("sel: ['*']", "sel", "every event"),
    ("sel: [null]", "sel", "needs a field"),
    ("sel: {A|re: '(a+)+(?!b)'}", "sel", "exponential time"),
    (f"sel: {{A: '{'?' * 60_000}'}}", "sel", "too large a regex"),
    (f"sel: ['a{'?' * 60_000}z']", "sel", "too large a regex"),
    ("sel: {A: x}", "sel or not sel2", "names 'sel2'"),
]


@pytest.mark.parametrize(("detection", "condition", "reason"), REFUSED)
def test_refused_with_the_line(tmp_path: Path, detection: str, condition: str, reason: str) -> None:
    refusal = compile_rule(write_rule(tmp_path, detection, condition))
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason
    assert refusal.line in {6, 7}
    assert "rule.yml" in str(refusal)


def test_placeholders_have_values(tmp_path: Path) -> None:
    rule = write_rule(tmp_path, "sel: {User|expand: 'adm-%admins%'}")
    plan = Plan.build([rule], {"admins": ["ann", "bob"]})
    assert plan.match(frame_of([{"User": "ADM-bob"}, {"User": "adm-eve"}])).get_column("event_id").to_list() == ["e0"]


def test_same_comparison_of_two_rules_is_one_atom(tmp_path: Path) -> None:
    first = compile_rule(write_rule(tmp_path, "sel: {Image|endswith: '.EXE'}"))
    second = compile_rule(write_rule(tmp_path, "sel: {Image|endswith: '.exe'}"))
    assert isinstance(first, CompiledRule)
    assert isinstance(second, CompiledRule)
    assert first.expression == second.expression


def test_slow_and_ungated_are_known(tmp_path: Path) -> None:
    slow = compile_rule(write_rule(tmp_path, "sel: {Image|re: 'a(?!b)'}"))
    assert isinstance(slow, CompiledRule)
    assert slow.slow is not None
    assert not slow.ungated
    ungated = compile_rule(write_rule(tmp_path, "sel: {Image: a}", "not sel"))
    assert isinstance(ungated, CompiledRule)
    assert ungated.ungated


def test_a_text_with_wildcards_that_is_refused_is_not_quoted_in_full(tmp_path: Path) -> None:
    refusal = compile_rule(write_rule(tmp_path, f"sel: {{A: '{'?' * 60_000}'}}"))
    assert isinstance(refusal, Refusal)
    assert len(refusal.reason) < 500


HOSTILE = "a" * 60 + "b"
"""What `(a|aa)+$` tries in more ways than there are atoms, since the end never comes."""


def test_a_value_that_takes_too_long_is_no_match_and_told_once(tmp_path: Path) -> None:
    plan = Plan.build([write_rule(tmp_path, "sel: {Image|re: '(?=a)(a|aa)+$'}")])
    assert not plan.refused
    assert plan.given_up == {}
    events: list[dict[str, str | None]] = [{"Image": HOSTILE}, {"Image": "baaa"}, {"Image": None}]
    started = monotonic()
    with capture_logs() as logs:
        found = plan.match(frame_of(events))
        plan.match(frame_of(events))
    assert monotonic() - started < 2
    assert found.get_column("event_id").to_list() == ["e1"]
    assert sum(plan.given_up.values()) == 2
    (told,) = logs
    assert (told["log_level"], told["rule"], told["values"]) == ("warning", "T", 1)
    assert "(a|aa)+$" in told["reason"]


def test_many_hostile_values_take_bounded_time_and_do_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_regex, "BATCH_SECONDS", 0.1)
    monkeypatch.setattr(bounded_regex, "HASTY_SECONDS", 0.005)
    search = bounded_regex.BoundedRegex("(?=a)(a|aa)+$")
    started = process_time()
    found = search.search([*[HOSTILE] * 100, "baaa"])
    assert process_time() - started < 2.5  # of 100 values, two or three take 50 ms
    assert found == [*[False] * 100, True]
    assert search.given_up == 100


def test_slow_regex_looks_at_a_bounded_length(tmp_path: Path) -> None:
    rule = write_rule(tmp_path, "sel: {Image|re: 'x(?!y)'}")
    assert matches(rule, {"Image": "a" * 8000 + "x"})
    assert not matches(rule, {"Image": "a" * 9000 + "x"})

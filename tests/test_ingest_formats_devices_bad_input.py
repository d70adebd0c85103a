"""What devices never write, and attackers and broken relays do."""

from __future__ import annotations

import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_lines import ALL, CEF, FORTIGATE, FORTIGATE_CEF, PALO_ALTO, STORMSHIELD, Case
from ingest.envelope import EVENT_ID, ORIGINAL
from ingest.formats.columns import MAX_FIELDS
from ingest.formats.device_times import chrono_form, moments
from ingest.formats.key_values import (
    CUT,
    LEFT_OUT,
    MAX_PAIRS,
    OFTEN,
    REPEATED,
    columns_of,
    extension_expression,
    pair_shapes,
    read_extension,
    read_pairs,
    split_shape,
)  # fmt: skip
from ingest.formats.palo_alto import MANY
from ingest.parse import parse
from raw_lines import NOW, batch


def check_whole(lines: list[bytes]) -> None:
    """Every line comes out once, whole, and within the limits."""
    frames = parse(batch(lines))
    kept = {
        row[EVENT_ID]: row[ORIGINAL] for frame in frames for row in frame.events.select(EVENT_ID, ORIGINAL).to_dicts()
    }
    assert len(kept) == sum(frame.events.height for frame in frames) == len(lines)
    for place, line in enumerate(lines):
        assert kept[f"t:0:0:{place}"] == line.decode("utf-8")
    for frame in frames:
        assert len(frame.fields) <= MAX_FIELDS
        assert len({name.lower() for name in frame.events.columns}) == len(frame.events.columns)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.line[:40])
def test_lines_cut_at_every_place(case: Case) -> None:
    whole = case.headers[0] + case.line
    check_whole([whole[:stop].encode() for stop in range(len(whole) + 1)])
    check_whole([whole[start:].encode() for start in range(0, len(whole), 3)])


SEEDS = sorted({case.line for case in ALL})
BEGINNINGS = [
    "id=firewall time=",
    "date=2026-02-28 time=11:00:00 logid=",
    "CEF:0|",
    "CEF:0|Fortinet|Fortigate|",
    "CEF:0|Palo Alto Networks|",
    "Feb 28 10:00:00 CEF:0|",
    "LEEF:2.0|",
    "LEEF:1.0|a|",
    "%ASA-6-302013: ",
    "1,2026/02/28 11:00:01,7,TRAFFIC,",
    "1,2026/02/28 11:00:01,7,THREAT,url,",
    "a=1 b=2 c=3 ",
    "client 192.0.2.7#5 (x): query: ",
    '203.0.113.9 - - [28/Feb/2026:11:00:00 +0100] "',
    "1772272800.123 1 a TCP_MISS/200 1 ",
    "2026/02/28 10:00:00 [error] 1#1: ",
    "[Sat Feb 28 10:00:00 2026] [error] ",
    "<29>Feb 28 10:00:00 gw openvpn[12]: ",
    "<29>Feb 28 10:00:00 gw dnsmasq[1]: query[A] ",
]
ODD = ['"', "'", "\\", '\\"', "=", " ", "|", ",", "\t", "^", "\n", "\r", "\0", "[", "(", "/", ":", "rt=", " a="]
ODD += ["\u0661", "é", "𝟙", "99999999999999999999"]


@st.composite
def odd_lines(draw: st.DrawFn) -> bytes:
    """A beginning that a format recognises, and anything behind it; or a real line with a piece put in or taken out."""
    junk = "".join(draw(st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=4)), max_size=12)))
    if draw(st.booleans()):
        line = draw(st.sampled_from(BEGINNINGS)) + junk
    else:
        seed = draw(st.sampled_from(SEEDS))
        start = draw(st.integers(0, len(seed)))
        line = seed[:start] + junk + seed[start + draw(st.integers(0, 8)) :]
    return line.encode("utf-8", "replace")


@settings(max_examples=200, deadline=None)
@given(st.lists(odd_lines(), min_size=1, max_size=8))
def test_whatever_stands_behind_a_known_beginning(lines: list[bytes]) -> None:
    check_whole(lines)


NAMES = st.sampled_from(["a", "b", "src", "Src", "c.d", "msg"])
VALUES = st.text(alphabet='ab =\\"\t\u00e9', max_size=6)


@st.composite
def pair_lines(draw: st.DrawFn) -> list[str]:
    names = draw(st.lists(st.tuples(NAMES, st.booleans()), min_size=1, max_size=4))
    lines = []
    for _ in range(draw(st.integers(1, 4))):
        parts = [f'{name}="{draw(VALUES)}"' if quoted else f"{name}={draw(VALUES)}" for name, quoted in names]
        lines.append(draw(st.sampled_from([" ", "  ", "\t"])).join(parts))
    return lines


@settings(max_examples=300, deadline=None)
@given(pair_lines())
def test_a_shape_seen_often_is_read_as_if_it_were_rare(lines: list[str]) -> None:
    model = [read_pairs(text) for text in lines]
    found = {}
    for shape in pair_shapes(enumerate(text for text in lines for _ in range(OFTEN + 2))).shapes:
        for place, row in enumerate(shape.rows):
            found[row] = {name: values[place] for name, values in shape.columns.items()}
    for row in range(len(lines) * (OFTEN + 2)):
        assert found.get(row, {}) == model[row // (OFTEN + 2)].fields


PAIRS: list[tuple[str, dict[str, str], str | None]] = [
    ("", {}, None),
    ("a=1 b=2", {"a": "1", "b": "2"}, None),
    ('a="1 2" b=', {"a": "1 2", "b": ""}, None),
    ('a="" b=x=y', {"a": "", "b": "x=y"}, None),
    (r'a="say \"hi\" b=2" c=3', {"a": 'say "hi" b=2', "c": "3"}, None),
    (r'a="C:\temp" b="x\\" c=1', {"a": r"C:\temp", "b": r"x\\", "c": "1"}, None),
    ("prose a=1, and more b=2", {"a": "1,", "b": "2"}, None),
    ("a=1 a=2", {"a": "1"}, REPEATED),
    ('a=1 b="2 c=3', {"a": "1", "b": "2 c=3"}, CUT),
    ("=1 1=2 -a=3", {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fields", "remark"), PAIRS)
def test_pairs(text: str, fields: dict[str, str], remark: str | None) -> None:
    pairs = read_pairs(text)
    assert (pairs.fields, pairs.remark) == (fields, remark)


def test_more_pairs_than_are_read() -> None:
    many = " ".join(f"k{number}={number}" for number in range(2 * MAX_PAIRS))
    pairs = read_pairs(many)
    assert (len(pairs.fields), pairs.remark) == (MAX_PAIRS, LEFT_OUT)
    assert [len(read_extension(many)[0]), read_extension(many)[1]] == [MAX_PAIRS, True]
    check_whole([f"CEF:0|a|b|c|d|e|1|{many}".encode(), f"LEEF:1.0|a|b|c|d|{many}".encode(), many.encode()])
    check_whole([f"id=firewall time=1 {many.replace('k', letter)}".encode() for letter in "abcdefgh"])
    check_whole([b"1,2026/02/28 11:00:01,7,TRAFFIC," + b"a," * 5_000])


def test_a_shape_is_split_by_choice() -> None:
    shape = columns_of(["a", "b"], [4, 5, 6], [("1", "x"), ("2", "y"), ("3", "z")])
    parts = [(choice, part.rows, list(part.columns["b"])) for choice, part in split_shape(shape, ["p", "q", "p"])]
    assert parts == [("p", [4, 6], ["x", "z"]), ("q", [5], ["y"])]


MEGABYTE = 1_000_000
LONG = [
    b"a" * MEGABYTE,
    b"a=" * (MEGABYTE // 2),
    b'a="' * (MEGABYTE // 3),
    b"\\" * MEGABYTE,
    b'a="' + b"\\" * MEGABYTE,
    b" " * MEGABYTE,
    b"a=b " * (MEGABYTE // 4),
    b'"' * MEGABYTE,
    b"|" * MEGABYTE,
    b"," * MEGABYTE,
    b"(" * MEGABYTE,
]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_long_line_takes_time_by_its_length_only(beginning: str) -> None:
    begun = time.process_time()
    for long in LONG:
        check_whole([beginning.encode() + long])
    assert time.process_time() - begun < 20  # one that backtracks takes minutes for a single line


def test_many_shapes_of_one_sender() -> None:
    lines = [f"id=firewall time=1 {' '.join(f'k{row}_{number}=1' for number in range(100))}" for row in range(300)]
    check_whole([line.encode() for line in lines])


TIMES: list[tuple[str, str]] = [
    ("1772272800", "2026-02-28T10:00:00.000000Z"),
    ("1772272800123", "2026-02-28T10:00:00.123000Z"),
    ("1772272800123456", "2026-02-28T10:00:00.123456Z"),
    ("1772272800123456789", "2026-02-28T10:00:00.123456Z"),
    ("1772272800.5", "2026-02-28T10:00:00.500000Z"),
    ("Feb 28 2026 10:00:00", "2026-02-28T10:00:00.000000"),
    ("Feb 28 2026 10:00:00.25 UTC", "2026-02-28T10:00:00.250000Z"),
    ("Feb 28 2026 11:00:00 GMT+01:00", "2026-02-28T11:00:00.000000+01:00"),
    ("Sat Feb 28 10:00:00 2026", "2026-02-28T10:00:00.000000"),
    ("Feb 28 10:00:00", "Feb 28 10:00:00"),  # without a year
    ("2026-02-28T10:00:00Z", "2026-02-28T10:00:00Z"),
    ("9999999999999999999", "9999999999999999999"),
    ("\u0661772272800", "\u0661772272800"),
    ("Feb 30 2026 10:00:00", "Feb 30 2026 10:00:00"),
    ("", ""),
]


def test_times() -> None:
    found = moments(pl.Series([text for text, _ in TIMES]))
    assert found.to_list() == [moment for _, moment in TIMES]
    for text, moment in TIMES:
        assert moments(pl.Series([text])).to_list() == [moment]


FORMS: list[tuple[str, str | None]] = [
    ("MMM dd yyyy HH:mm:ss", "%b %d %Y %H:%M:%S"),
    ("yyyy-MM-dd'T'HH:mm:ss.SSSZ", "%Y-%m-%dT%H:%M:%S%.f%#z"),
    ("dd/MM/yyyy hh:mm:ss a", "%d/%m/%Y %I:%M:%S %p"),
    ("yyyy '%Y' ''", "%Y %%Y '"),
    ("HH:mm:ss z", None),  # a zone by name
    ("SSS", None),
    ("é'", None),
    ("y" * 100, None),
]


@pytest.mark.parametrize(("java", "form"), FORMS)
def test_forms_of_java(java: str, form: str | None) -> None:
    assert chrono_form(java) == form


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="yMdHhmsSazZX'T-/:. %", max_size=20), st.text(max_size=20))
def test_no_declared_form_of_time_raises(java: str, text: str) -> None:
    form = chrono_form(java)
    if form is not None:
        assert len(moments(pl.Series([text, "2026-02-28 10:00:00"]), form)) == 2


def test_a_frame_of_thousands_of_lines_is_one_frame_a_log_source() -> None:
    lines = [case.line.encode() for _ in range(300) for case in (*STORMSHIELD, *FORTIGATE)]
    frames = parse(batch(lines))
    assert len(frames) == len({frame.logsource for frame in frames})
    assert sum(frame.events.height for frame in frames) == len(lines)
    assert all((frame.events["@timestamp"] <= NOW).all() for frame in frames)


@pytest.mark.parametrize("case", PALO_ALTO, ids=lambda case: case.line[40:60])
def test_many_lines_of_a_kind_are_read_like_one(case: Case) -> None:
    (one,) = parse(batch([case.line.encode()]))
    frames = parse(batch([case.line.encode()] * (MANY + 1)))
    assert {frame.logsource for frame in frames} == {one.logsource}
    (many,) = frames
    assert many.fields == one.fields
    assert many.events.drop(EVENT_ID).unique().rows() == one.events.drop(EVENT_ID).rows()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES, st.text(alphabet="ab =\\\t", max_size=6)), min_size=1, max_size=4))
def test_an_extension_seen_often_is_read_as_if_it_were_rare(pairs: list[tuple[str, str]]) -> None:
    text = " ".join(f"{name}={value}" for name, value in pairs)
    fields, _ = read_extension(text)
    match = extension_expression(list(fields))(text) if fields else None
    assert match is None or dict(zip(fields, match.groups(), strict=True)) == fields


@pytest.mark.parametrize("case", [*CEF, *FORTIGATE_CEF], ids=lambda case: case.line[:60])
def test_many_records_are_read_like_one(case: Case) -> None:
    (one,) = parse(batch([case.line.encode()]))
    (many,) = parse(batch([case.line.encode()] * (2 * OFTEN)))
    assert set(many.fields) == set(one.fields)
    assert many.events.drop(EVENT_ID).unique().rows(named=True) == one.events.drop(EVENT_ID).rows(named=True)

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.visible import evidence_line, hidden, highlighted, marked_up, shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Ordinary: é, ü, 5 €, C:\\Users\\Public", "Ordinary: é, ü, 5 €, C:\\Users\\Public"),
        ("a\x1b[31mred", "a⟨ESC⟩[31mred"),
        ("cut\x00off", "cut⟨NUL⟩off"),
        ("invoice\u202efdp.exe", "invoice⟨U+202E⟩fdp.exe"),
        ("ad\u200bmin", "ad⟨U+200B⟩min"),
        ("soft\xadhyphen", "soft⟨U+00AD⟩hyphen"),
        ("line\u2028line", "line⟨U+2028⟩line"),
        ("c1\x9b2J", "c1⟨U+009B⟩2J"),
        ("half \ud800 pair", "half ⟨U+D800⟩ pair"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("carriage\rreturn\x7f", "carriage⟨CR⟩return⟨DEL⟩"),
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        ("one\r\r\ntwo\n\r", "one⟨CR⟩\ntwo\n⟨CR⟩"),
    ],
)
def test_what_cannot_be_seen_is_named(text: str, seen: str) -> None:
    assert shown(text) == seen


@given(st.text())
def test_nothing_hidden_is_left(text: str) -> None:
    assert not any(hidden(character) for character in shown(text))
    assert not any(hidden(character) for character in unescape(marked_up(text)))


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("<>&\"'"))), st.lists(st.text(min_size=1)))
def test_only_our_own_elements_come_out(text: str, values: list[str]) -> None:
    html = str(highlighted(text, values))
    without_ours = re.sub(r'</?mark>|<span class="ctl">|</span>', "", html)
    assert "<" not in without_ours
    assert ">" not in without_ours
    assert '"' not in without_ours


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E)), st.lists(st.text(max_size=5)))
def test_highlighting_loses_no_text(text: str, values: list[str]) -> None:
    assert unescape(re.sub("</?mark>", "", str(highlighted(text, values)))) == text


@pytest.mark.parametrize(
    ("line", "values", "marked"),
    [
        ("run POWERSHELL -enc AAAA", ["powershell"], ["POWERSHELL"]),
        (r'{"Image":"C:\\Temp\\a.exe"}', [r"C:\Temp\a.exe"], [r"C:\\Temp\\a.exe"]),
        ("EventID 1 LogonType 10", ["1", "10"], []),
        ("abcdef", ["abcd", "cdef"], ["abcdef"]),
        ("a<b>c a<b>c", ["a<b>c"], ["a<b>c", "a<b>c"]),
    ],
)
def test_matched_values_are_marked_in_the_raw_line(line: str, values: list[str], marked: list[str]) -> None:
    assert [unescape(part) for part in re.findall("<mark>(.*?)</mark>", highlighted(line, values))] == marked


def test_a_raw_line_shows_its_line_feeds_and_tabs() -> None:
    assert "↵\n" in highlighted("one\ntwo", [])
    assert "→\t" in highlighted("one\ttwo", [])
    assert highlighted("one\r\ntwo", []) == highlighted("one\ntwo", []), "CRLF is one line end"
    assert "⟨CR⟩" in highlighted("one\rtwo", [])
    assert marked_up("one\r\ntwo<") == "one\ntwo&lt;"


def test_evidence_is_one_short_line() -> None:
    assert evidence_line({"CommandLine": "a\n  b\r\nc", "User": "x"}) == "CommandLine: a b c · User: x"
    assert len(evidence_line({"CommandLine": "A" * 10_000})) == 240
    assert evidence_line({}) == ""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.visible import hidden as hidden_on_a_page
from ingest.visible import hidden, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("hôpital à l’œuvre", "hôpital à l’œuvre"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("one\ntwo\r", "one\\x0atwo\\x0d"),
        ("a\x00b\x7f", "a\\x00b\\x7f"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\u2028", "\\u2028"),
    ],
)
def test_what_hides_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_line_breaks_stay_where_they_are_wanted() -> None:
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@given(st.text())
def test_nothing_that_is_shown_can_act(text: str) -> None:
    assert all(character.isprintable() or unicodedata.category(character) == "Zs" for character in visible(text))


@given(st.characters())
def test_terminals_and_pages_agree_on_what_is_hidden(character: str) -> None:
    assert hidden(character) == (visible(character) != character)
    assert hidden_on_a_page(character) == (hidden(character) and character not in "\t\n")

"""Fields of matches: the quick way of reading them and the plain one agree on every object of texts."""

from __future__ import annotations

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correlation_matches import Match, frame_of
from detections.correlation_fields import MatchRows, as_number, field_of_sample, natural_order, read_values

NAMES = st.sampled_from(["User", "user", 'a,"User', '"User":"', "Üser", "host.name", "Other", "a b", "x\\", "User "])
TEXTS = st.text(st.sampled_from('ab",:{}[]\\ \n\x00éKk\u2028'), max_size=8)


@settings(max_examples=50, deadline=None)
@given(events=st.lists(st.dictionaries(NAMES, TEXTS | st.sampled_from(['{"User":"x"}', ',"User":"y"'])), max_size=4))
@pytest.mark.parametrize("name", ["User", "USER", "Üser", "host.name", "HOST.NAME", "x\\", "organization.id"])
def test_both_ways_read_the_same(name: str, events: list[dict[str, str]]) -> None:
    frame = frame_of([Match("rule-a", 0, number, event, host="pc1") for number, event in enumerate(events)])
    rows = MatchRows(frame)
    read = read_values(frame, name).to_list()
    assert read == [field_of_sample(rows.sample(row), name, "brest") for row in range(len(events))]
    for event, value in zip(events, read, strict=True):
        if name in event:
            assert value == event[name]


def test_exact_before_any_case_before_the_envelope() -> None:
    events = [{"user.name": "low", "User.Name": "mixed"}, {"USER.NAME": "upper"}, {}]
    frame = frame_of([Match("rule-a", 0, 0, event) for event in events]).with_columns(user=pl.lit("envelope"))
    assert read_values(frame, "user.name").to_list() == ["low", "upper", "envelope"]


def test_values_that_are_no_text_are_read_as_json() -> None:
    texts = ['{"a":5}', '{"a":true}', '{"a":[1,"x"]}', '{"a":{"b":1}}', '{"b":{"a":"deep"}}', '{"a":1.50}']
    frame = frame_of([Match("rule-a", 0, 0)] * len(texts)).with_columns(event=pl.Series(texts))
    assert read_values(frame, "a").to_list() == ["5", "true", '[1,"x"]', '{"b":1}', None, "1.5"]


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.tuples(st.sampled_from(["a", "a!", "b"]), *[st.integers(0, 10**12)] * 3), max_size=9))
def test_order_of_event_ids_is_that_of_their_parts(ids: list[tuple[str, int, int, int]]) -> None:
    texts = [":".join(map(str, parts)) for parts in ids]
    keys = natural_order(pl.Series(texts, dtype=pl.String)).to_list()
    assert sorted(range(len(ids)), key=lambda n: keys[n]) == sorted(range(len(ids)), key=lambda n: ids[n])


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("-1.5", -1.5), (".5", 0.5), ("5.", 5), ("1e3", 1000), ("+7", 7)]
    + [(bad, None) for bad in ("", " 1", "1_0", "nan", "inf", "1e999", "0x1", "١٢", "1,5", "1\n", None)],
)
def test_numbers(text: str | None, number: float | None) -> None:
    assert as_number(text) == number


def test_a_sample_is_the_row() -> None:
    frame = frame_of([Match("rule-a", 0, 7, {"a": "b"}, host="pc1")])
    sample = MatchRows(frame).sample(0)
    assert (sample.host, sample.original, orjson.loads(sample.event)) == ("pc1", "raw 7", {"a": "b"})

"""Lines of JSON: whichever way they are put together, they hold what was found and nothing a terminal obeys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

import orjson
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tocsin.hunt_lines import TEXTS, LineMatch, match_line, match_lines

_HIDDEN = "\x7f\x85\x9f\u061c\u200b\u2028\u202e\u2066\ufeff"
_TEXT = st.text(st.sampled_from(list('ab "\\/{}é€😀\x00\x1f\n\xa0\u2070' + _HIDDEN)), max_size=5)
_TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as st wants them
_MATCHES = st.fixed_dictionaries(
    {
        **dict.fromkeys(TEXTS, _TEXT),
        "timestamp": _TIMES,
        "matched": st.dictionaries(_TEXT, st.none() | _TEXT, max_size=2).map(orjson.dumps).map(bytes.decode),
    }
)


@given(st.lists(_MATCHES, min_size=1, max_size=5))
def test_lines_put_together_are_those_of_the_json_writer(rows: list[dict[str, object]]) -> None:
    frame = pl.DataFrame(rows, schema_overrides={"timestamp": pl.Datetime("us", "UTC")})
    lines = match_lines(frame)
    assert lines == [match_line(cast("LineMatch", row)) for row in rows]
    for line, row in zip(lines, rows, strict=True):
        read = orjson.loads(line)
        assert {name: read[name] for name in TEXTS} == {name: row[name] for name in TEXTS}
        assert read["matched"] == orjson.loads(cast("str", row["matched"]))
        assert not any(ord(char) < 0x20 or char in _HIDDEN for char in line)


def test_no_matches_are_no_lines() -> None:
    schema = dict.fromkeys([*TEXTS, "matched"], pl.String())
    frame = pl.DataFrame(schema=schema).with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("timestamp"))
    assert match_lines(frame) == []

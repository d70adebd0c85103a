r"""Matches as lines of JSON.

A hunt may find more matches than it takes time to find them, so lines are put together a column at a time. What would
have to be escaped is looked for first; a row that holds any of it goes through the JSON writer by itself.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, TypedDict, cast

import orjson
import polars as pl

# C1 controls, DEL, zero-width and bidirectional controls: JSON allows them as they are, terminals act on them.
_HIDDEN_CHARACTERS: Final = r"\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_HIDDEN: Final = re.compile(f"[{_HIDDEN_CHARACTERS}]")
_HIDDEN_RUST: Final = "[" + re.sub(r"\\u(....)", r"\\x{\1}", _HIDDEN_CHARACTERS) + "]"
_TO_ESCAPE: Final = _HIDDEN_RUST[:-1] + r'\x00-\x1f"\\]'

TEXTS: Final = ("source", "rule_id", "rule_title", "level", "event_id")
"""Columns that are written as JSON texts; `matched` is JSON already."""


class LineMatch(TypedDict):
    """A row of `MATCH_SCHEMA` with its source, as far as a line shows it."""

    source: str
    rule_id: str
    rule_title: str
    level: str
    event_id: str
    timestamp: datetime
    matched: str


def match_line(match: LineMatch) -> str:
    """A match as one line of JSON."""
    line = orjson.dumps(
        {
            **{name: match[name] for name in TEXTS},
            "timestamp": match["timestamp"].isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "matched": orjson.Fragment(match["matched"]),
        }
    ).decode()
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def match_lines(matches: pl.DataFrame) -> list[str]:
    """Matches (`MATCH_SCHEMA` and `source`) as lines, in their order; each as `match_line` writes it."""
    columns = [*TEXTS, "timestamp", "matched"]
    odd = matches.select(
        pl.any_horizontal(
            *(pl.col(name).str.contains(_TO_ESCAPE) for name in TEXTS),
            pl.col("matched").str.contains(_HIDDEN_RUST),
            pl.any_horizontal(pl.col(columns).is_null()),
        )
    ).to_series()
    lines: list[str] = matches.select(_line()).to_series().to_list()
    for row in odd.arg_true():
        lines[row] = match_line(cast("LineMatch", matches.select(columns).row(row, named=True)))
    return lines


def _line() -> pl.Expr:
    """The line of a row that holds nothing to escape."""
    parts: list[pl.Expr] = []
    for place, name in enumerate(TEXTS):
        parts += [pl.lit(f'{"," if place else "{"}"{name}":"'), pl.col(name), pl.lit('"')]
    time = pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    parts += [pl.lit(',"timestamp":"'), time, pl.lit('","matched":'), pl.col("matched"), pl.lit("}")]
    return pl.concat_str(parts)

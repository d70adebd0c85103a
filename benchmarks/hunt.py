"""Tocsin over a lane, as a user runs it: `tocsin hunt --rules ... --events ... --json`."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import orjson

from benchmarks.compare import Match

MATCHES: Final = re.compile(r"^([\d,]+) match(?:es)? in \b", re.MULTILINE)


def command(rules: Path, events: Sequence[Path]) -> list[str]:
    """Tocsin over event files, a line of JSON a match."""
    program = Path(sys.executable).with_name("tocsin")
    start = [str(program)] if program.is_file() else [sys.executable, "-m", "tocsin"]
    return [*start, "hunt", "--rules", str(rules), "--events", *map(str, events), "--json"]


def matches_told(stderr: str) -> int | None:
    """How many matches its last lines count; that text is for people, so it may come to say it in another way."""
    told = MATCHES.findall(stderr)
    return int(told[-1].replace(",", "")) if told else None


def _read(output: Path) -> Iterator[dict[str, object]]:
    with output.open("rb") as lines:
        for line in lines:
            yield orjson.loads(line)


def read_matches(output: Path) -> dict[Match, frozenset[str]]:
    """(rule id, number of the line) -> the fields that the match names. An event id is `file:line`."""
    found: dict[Match, frozenset[str]] = {}
    for match in _read(output):
        matched = match["matched"]
        fields = frozenset(matched) if isinstance(matched, dict) else frozenset()
        found[Match(str(match["rule_id"]), int(str(match["event_id"]).rpartition(":")[2]))] = fields
    return found


def rule_counts(output: Path) -> dict[str, int]:
    """Rule id -> lines."""
    return dict(Counter(str(match["rule_id"]) for match in _read(output)))

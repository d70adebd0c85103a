"""Zircolite's method, for comparison: all events in one SQLite table in memory, one SQL query a rule.

pySigma's SQLite backend writes the queries, as Zircolite's converter does. The table is as Zircolite makes it: events
flattened, every column TEXT COLLATE NOCASE, columns that a rule names and no event has added as NULL. Zircolite puts
log sources into conditions by a pipeline for Windows channels; here the parts of a rule's log source are asked of the
columns `product`, `category` and `service` where events have them. Rules that the backend refuses (keywords) are
counted, not run. The time is CPU time of reading, inserting and asking; converting the rules is timed by itself, since
Zircolite reads rules that were converted before.

    python benchmarks/zircolite_method.py --rules DIR --events FILE
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import process_time
from typing import Final, cast

import orjson
from sigma.backends.sqlite.sqlite import sqliteBackend
from sigma.collection import SigmaCollection
from sigma.conversion.base import TextQueryBackend
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

COLUMN_TYPE: Final = "TEXT COLLATE NOCASE"
BATCH: Final = 1000


_BACKEND: Final = cast("Callable[..., TextQueryBackend]", sqliteBackend)  # the package is not typed


@dataclass(frozen=True, slots=True)
class Query:
    """A rule as SQL, the fields it names, and its log source."""

    title: str
    sql: str
    fields: list[str]
    source: dict[str, str]


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def regexp(pattern: str, value: object) -> bool:
    """`value REGEXP pattern`; false on NULL."""
    return value is not None and compiled(pattern).search(str(value)) is not None


def flatten(event: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Fields of an event as text, nested ones under their last name, lists as JSON."""
    for name, value in event.items():
        if isinstance(value, dict):
            yield from flatten(value)
        elif isinstance(value, list):
            yield name, orjson.dumps(value).decode()
        elif isinstance(value, bool):
            yield name, str(value).lower()
        elif value is not None:
            yield name, str(value)


def read_table(path: Path) -> tuple[sqlite3.Connection, int, set[str]]:
    """An NDJSON file (or .gz) as the table `logs`; with the number of events and the columns in lower case."""
    database = sqlite3.connect(":memory:")
    database.create_function("regexp", 2, regexp, deterministic=True)
    database.execute("CREATE TABLE logs (row_id INTEGER PRIMARY KEY)")
    columns: dict[str, int] = {}
    rows: list[dict[int, object]] = []
    events = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            row: dict[int, object] = {}
            for name, value in flatten(orjson.loads(line)):
                place = columns.get(name.lower())
                if place is None:
                    place = columns[name.lower()] = len(columns)
                    database.execute(f"ALTER TABLE logs ADD COLUMN {quote(name)} {COLUMN_TYPE}")
                row.setdefault(place, value)
            rows.append(row)
            events += 1
            if len(rows) == BATCH:
                insert(database, columns, rows)
                rows = []
    insert(database, columns, rows)
    return database, events, set(columns)


def insert(database: sqlite3.Connection, columns: Mapping[str, int], rows: Sequence[Mapping[int, object]]) -> None:
    marks = ", ".join("?" * len(columns))
    database.executemany(
        f"INSERT INTO logs VALUES (NULL, {marks})" if marks else "INSERT INTO logs VALUES (NULL)",  # noqa: S608 - marks
        ([row.get(place) for place in range(len(columns))] for row in rows),
    )


def quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def convert(folder: Path) -> tuple[list[Query], int]:
    """Every rule below a folder as SQL; and how many the backend refused."""
    queries: list[Query] = []
    refused = 0
    files: list[str | Path] = [folder] if folder.is_file() else [*sorted(folder.rglob("*.yml"))]
    backend = _BACKEND(table="logs")
    for rule in SigmaCollection.load_ruleset(files, collect_errors=True).rules:
        if not isinstance(rule, SigmaRule) or rule.errors:
            refused += 1
            continue
        try:
            entries = backend.convert_rule(rule, "zircolite")
        except (SigmaError, ValueError):
            refused += 1
            continue
        queries += [
            Query(rule.title, sql, entry["required_fields"], source(rule)) for entry in entries for sql in entry["rule"]
        ]
    return queries, refused


def source(rule: SigmaRule) -> dict[str, str]:
    """The parts of a log source that a rule names."""
    parts = {"product": rule.logsource.product, "category": rule.logsource.category, "service": rule.logsource.service}
    return {name: value for name, value in parts.items() if value}


def run(rules: Path, events: Path) -> dict[str, float | int]:
    """All rules of a folder over a file; the figures of a benchmark's row."""
    started = process_time()
    queries, refused = convert(rules)
    converted = process_time()
    database, count, columns = read_table(events)
    matches = failed = 0
    matching: set[str] = set()
    for query in queries:
        for field in query.fields:
            if field.lower() not in columns:
                columns.add(field.lower())
                database.execute(f"ALTER TABLE logs ADD COLUMN {quote(field)} {COLUMN_TYPE}")
        asked = {name: value for name, value in query.source.items() if name in columns}
        gate = "".join(f" AND COALESCE({name}, :{name}) = :{name}" for name in asked)
        head, _, condition = query.sql.partition(" WHERE ")
        try:
            found = sum(1 for _ in database.execute(f"{head} WHERE ({condition}){gate}", asked))
        except sqlite3.Error as error:
            failed += 1
            print(f"{query.title}: {error}", file=sys.stderr)
            continue
        matches += found
        if found:
            matching.add(query.title)
    done = process_time()
    return {
        "events": count,
        "seconds": round(done - converted, 3),
        "convert_seconds": round(converted - started, 3),
        "matches": matches,
        "matching_rules": len(matching),
        "rules": len(queries),
        "refused": refused,
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="One SQL query a rule over an SQLite table in memory.")
    parser.add_argument("--rules", type=Path, required=True, help="folder of Sigma rules")
    parser.add_argument("--events", type=Path, required=True, help="NDJSON, plain or .gz")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.rules, arguments.events)))


if __name__ == "__main__":
    main()

"""Sigma run by other people's code: pySigma's SQLite backend makes the SQL, SQLite runs it.

Neither shares a line with our engine but pySigma's parser, and a rule goes in as its YAML says it, before we put right
what pySigma misreads. The table is as Zircolite makes it: every column TEXT COLLATE NOCASE, columns that a rule names
and the events lack added as NULL. `REGEXP` is the caller's to define, false on NULL: here Python's `re`.

`frame_hits` runs rules over an event frame; `correlate_sql` runs a correlation over rows.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

import polars as pl
from sigma.backends.sqlite.sqlite import sqliteBackend
from sigma.collection import NestedDict, SigmaCollection
from sigma.conversion.base import TextQueryBackend
from sigma.exceptions import SigmaError
from sigma.rule import SigmaRule

from ingest.envelope import EVENT_ID, ORIGINAL, EventFrame

TABLE: Final = "logs"
_SELECT_ALL: Final = "SELECT * FROM logs WHERE "
_BACKEND: Final = cast("Callable[..., TextQueryBackend]", sqliteBackend)  # the package is not typed

Content = Mapping[str, object]
"""A rule as YAML gives it."""


class UnconvertibleError(ValueError):
    """A rule that the backend does not take, or SQL that SQLite does not."""


@dataclass(frozen=True, slots=True)
class RuleSql:
    """A rule as SQL.

    Attributes:
        fields: What the rule names; the table must have them.
        predicates: What stands behind WHERE, one for each condition of the rule.
    """

    fields: tuple[str, ...]
    predicates: tuple[str, ...]


def rule_sql(rule: SigmaRule) -> RuleSql:
    """Convert a rule.

    Raises:
        UnconvertibleError: The backend refuses it, with its reason.
    """
    try:
        entries = _BACKEND(table=TABLE).convert_rule(rule, "zircolite")
    except (SigmaError, ValueError, NotImplementedError) as error:
        raise UnconvertibleError(f"{type(error).__name__}: {error}") from error
    fields = {str(field): None for entry in entries for field in entry["required_fields"]}
    queries = [str(query) for entry in entries for query in entry["rule"]]
    return RuleSql(tuple(fields), tuple(query.removeprefix(_SELECT_ALL) for query in queries))


def content_sql(content: Content) -> RuleSql:
    """Convert a rule as YAML gives it.

    Raises:
        UnconvertibleError: pySigma or the backend refuses it, with the reason.
    """
    try:
        rule = SigmaRule.from_dict(dict(content))
    except (SigmaError, ValueError) as error:
        raise UnconvertibleError(f"{type(error).__name__}: {error}") from error
    return rule_sql(rule)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def regexp(pattern: str, value: object) -> bool:
    """`value REGEXP pattern`: found anywhere; false on NULL."""
    return value is not None and _compiled(pattern).search(str(value)) is not None


def quoted(name: str) -> str:
    """A name of a column."""
    return "`" + name.replace("`", "``") + "`"


@contextmanager
def table(
    columns: Mapping[str, Sequence[object]], rows: int, affinity: Mapping[str, str] | None = None
) -> Iterator[sqlite3.Connection]:
    """A database with the table `logs`, whose `rowid` is the row from 0.

    Args:
        columns: Name -> values.
        rows: How many, as there may be no column.
        affinity: Column -> type; default TEXT COLLATE NOCASE.
    """
    types = affinity or {}
    with closing(sqlite3.connect(":memory:")) as database:
        database.create_function("regexp", 2, regexp, deterministic=True)
        definitions = [f"{quoted(name)} {types.get(name, 'TEXT COLLATE NOCASE')}" for name in columns]
        database.execute(f"CREATE TABLE {TABLE} ({', '.join(['row_number INTEGER PRIMARY KEY', *definitions])})")
        marks = ", ".join("?" * (len(definitions) + 1))
        database.executemany(
            f"INSERT INTO {TABLE} VALUES ({marks})",  # noqa: S608 - marks only
            zip(range(rows), *columns.values(), strict=True),
        )
        yield database


def widen(database: sqlite3.Connection, fields: Iterable[str]) -> None:
    """Add the columns that the table lacks."""
    present = {str(row[1]).lower() for row in database.execute(f"PRAGMA table_info({TABLE})")}
    for field in fields:
        if field.lower() not in present:
            database.execute(f"ALTER TABLE {TABLE} ADD COLUMN {quoted(field)} TEXT COLLATE NOCASE")
            present.add(field.lower())


def matching_rows(database: sqlite3.Connection, sql: RuleSql) -> set[int]:
    """The rows for which a rule is true.

    Raises:
        UnconvertibleError: SQLite does not take the SQL, with its reason.
    """
    widen(database, sql.fields)
    try:
        return {
            int(row)
            for predicate in sql.predicates
            for (row,) in database.execute(f"SELECT rowid FROM {TABLE} WHERE {predicate}")  # noqa: S608 - the backend's
        }
    except (sqlite3.Error, ValueError) as error:
        raise UnconvertibleError(f"{type(error).__name__}: {error}") from error


def frame_columns(frame: EventFrame) -> dict[str, list[str | None]]:
    """What rules may name of a frame: all but the raw line, as text."""
    return {
        name: frame.events.get_column(name).cast(pl.String).to_list()
        for name in frame.events.columns
        if name != ORIGINAL
    }


def frame_hits(
    rules: Mapping[str, RuleSql],
    frame: EventFrame,
    *,
    numeric: Collection[str] = (),
    unconvertible: Callable[[str, UnconvertibleError], None] | None = None,
) -> set[tuple[str, str]]:
    """Run rules over a frame, whatever their log source.

    Args:
        rules: Rule id -> SQL.
        numeric: Columns that hold numbers: comparing text, SQLite puts 10 before 9.
        unconvertible: Told of each rule that SQLite does not take; without it, that is raised.

    Returns:
        (rule id, event id) of each match.
    """
    ids = frame.events.get_column(EVENT_ID).to_list()
    affinity = dict.fromkeys(numeric, "NUMERIC")
    hits: set[tuple[str, str]] = set()
    with table(frame_columns(frame), frame.events.height, affinity) as database:
        for rule_id, sql in rules.items():
            try:
                hits |= {(rule_id, ids[row]) for row in matching_rows(database, sql)}
            except UnconvertibleError as error:
                if unconvertible is None:
                    raise
                unconvertible(rule_id, error)
    return hits


@dataclass(frozen=True, slots=True)
class SqlAlert:
    """One occurrence of a correlation, as the backend's SQL gives it.

    Attributes:
        title: Of the correlation rule.
        group: Group field -> its value, in lower case (ASCII).
        occurred: When the correlation became true, in Unix seconds.
        start, end: The window, both inclusive.
        metric: The count or value that the condition held against its bounds; None where there is none.
        rows: The rows that contribute, from 0.
    """

    title: str
    group: tuple[tuple[str, str], ...]
    occurred: float
    start: float
    end: float
    metric: float | None
    rows: tuple[int, ...]


def correlate_sql(
    contents: Sequence[Content],
    rows: Sequence[Mapping[str, object]],
    *,
    time_field: str = "time",
    numeric: Collection[str] = (),
    observation_end: float | None = None,
) -> list[SqlAlert]:
    """Run correlations over rows.

    The backend reports every event at which a window holds, where a streaming correlator is silent for a while after
    an alert; take the first occurrence of a group to compare them. Unlike in `docs/sigma.md`, events of one time are in
    no order for `temporal_ordered`.

    Args:
        contents: The rules and the correlations over them, by `name` or id, as YAML gives them.
        rows: Events as field -> value; `time_field` is Unix seconds.
        numeric: Fields that hold numbers, for rules with `gt` and its like.
        observation_end: Unix seconds up to which absence has been seen; default: the latest event.

    Returns:
        By correlation in the order given, then by time and group.

    Raises:
        UnconvertibleError: The backend or SQLite does not take a rule.
    """
    fields = dict.fromkeys([time_field, *(name for row in rows for name in row)])
    columns = {field: [row.get(field) for row in rows] for field in fields}
    affinity = dict.fromkeys(numeric, "NUMERIC") | {time_field: "REAL"}
    backend = _BACKEND(
        table=TABLE, timestamp_field=time_field, timestamp_format="unix", observation_end=observation_end
    )
    alerts: list[SqlAlert] = []
    try:
        collection = SigmaCollection.from_dicts([cast("NestedDict", dict(content)) for content in contents])
        entries = json.loads(cast("str", backend.convert(collection, "zircolite")))
        with table(columns, len(rows), affinity) as database:
            for entry in entries:
                if entry["result_type"] == "correlation":
                    widen(database, entry["required_fields"])
                    found = [_alert(entry["title"], row) for row in database.execute(entry["rule"][0])]
                    alerts += sorted(found, key=lambda alert: (alert.occurred, alert.group))
    except (SigmaError, sqlite3.Error, ValueError, NotImplementedError) as error:
        raise UnconvertibleError(f"{type(error).__name__}: {error}") from error
    return alerts


def _alert(title: str, row: Sequence[object]) -> SqlAlert:
    """A row of the columns that the backend documents."""
    _, group, occurred, start, end, _, metric, _, events, _ = row
    group_keys: dict[str, object] = json.loads(str(group))
    return SqlAlert(
        title=title,
        group=tuple(sorted((name, str(value)) for name, value in group_keys.items())),
        occurred=float(str(occurred)),
        start=float(str(start)),
        end=float(str(end)),
        metric=None if metric is None else float(str(metric)),
        rows=tuple(sorted(int(str(event).rpartition(":")[2]) for event in json.loads(str(events)))),
    )

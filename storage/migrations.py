"""The alert store's schema, as numbered steps that are never edited once released: a change is a new step.

Five tables:

- `alerts`: what was detected, never updated. `n` counts arrivals: it orders the table, so DuckDB's zone maps find
  a row by `n` without an index, and a page can say what came since.
- `state`: one narrow row an alert with what the queue sorts and filters by, and the latest decision. Derived from
  `alerts` and `decisions` (`AlertStore.rebuild_state`), and written in their transactions.
- `decisions`: the journal, appended only, each entry hashed with the one before it.
- `positions`: the next bus offset to read, written with the alerts that it stands for.
- `migrations`: the steps taken.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import duckdb

from storage.errors import StoreError

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE alerts (
            n BIGINT NOT NULL,
            id VARCHAR PRIMARY KEY,
            rule_id VARCHAR NOT NULL,
            rule_title VARCHAR NOT NULL,
            level VARCHAR NOT NULL,
            tenant VARCHAR NOT NULL,
            timestamp TIMESTAMPTZ NOT NULL,
            received TIMESTAMPTZ NOT NULL,
            logsource VARCHAR NOT NULL,
            host VARCHAR,
            "user" VARCHAR,
            source_ip VARCHAR,
            destination_ip VARCHAR,
            event_ids VARCHAR[] NOT NULL,
            matched VARCHAR NOT NULL,
            event VARCHAR NOT NULL,
            original VARCHAR NOT NULL,
            tags VARCHAR[] NOT NULL
        )""",
        """CREATE TABLE state (
            n BIGINT NOT NULL,
            tenant VARCHAR NOT NULL,
            rank TINYINT NOT NULL,
            timestamp TIMESTAMPTZ NOT NULL,
            rule_id VARCHAR NOT NULL,
            host VARCHAR,
            status VARCHAR NOT NULL,
            decision BIGINT
        )""",
        """CREATE TABLE decisions (
            seq BIGINT NOT NULL,
            alert_id VARCHAR NOT NULL,
            decided TIMESTAMPTZ NOT NULL,
            author VARCHAR NOT NULL,
            status VARCHAR NOT NULL,
            note VARCHAR NOT NULL,
            previous VARCHAR NOT NULL,
            hash VARCHAR NOT NULL
        )""",
        """CREATE TABLE positions (
            topic VARCHAR NOT NULL,
            "partition" INTEGER NOT NULL,
            next_offset BIGINT NOT NULL,
            PRIMARY KEY (topic, "partition")
        )""",
    ),
    ("ALTER TABLE alerts ADD COLUMN evidence VARCHAR DEFAULT '[]'",),  # the events behind a correlation, as JSON
)
"""Statements of version 1, 2, ..."""


def migrate(connection: duckdb.DuckDBPyConnection, now: datetime) -> None:
    """Bring the store to the newest version, each step in a transaction of its own.

    Raises:
        StoreError: The store was written by a newer Tocsin.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (version INTEGER NOT NULL, taken TIMESTAMPTZ NOT NULL)")
    row = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    version = int(row[0]) if row is not None else 0
    if version > len(MIGRATIONS):
        raise StoreError(f"its schema is version {version}, newer than the {len(MIGRATIONS)} this Tocsin knows")
    for step, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.begin()
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", [step, now])
        except duckdb.Error:
            connection.rollback()
            raise
        connection.commit()

"""The alert store's schema, as numbered steps that are never edited once released: a change is a new step.

Tables of alerts:

- `alerts`: what was detected, never updated. `n` counts arrivals: it orders the table, so DuckDB's zone maps find
  a row by `n` without an index, and a page can say what came since.
- `state`: one narrow row an alert with what the queue sorts and filters by, and the latest decision. Derived from
  `alerts` and `decisions` (`AlertStore.rebuild_state`), and written in their transactions.
- `decisions`: the journal, appended only, each entry hashed with the one before it.
- `positions`: the next bus offset to read, written with the alerts that it stands for.
- `migrations`: the steps taken.

Tables of sources (`storage.sources`):

- `sources`: what came from each source, in all; `source_hours`: the same by hour of receipt, with a bit for each minute
  in which something came.
- `unread_counts`: raw records that could not be read, their lines, and how many do not say their lines.
- `collector_runs`, `collector_channels`, `collector_listeners`: the newest report of each run of a collector.
- `hearing`: since when, and until when, a listener is known to have listened without a gap.
- `run_counts`: lines that each run of a collector brought to the lake, or that could not be read.
- `taken`: how many lines collectors had taken at a moment, so that those can be told apart that only just came.
- `marks`, `mark_ends`, `mark_counts`: a look at the books (`storage.source_marks`); `missing`: what was found missing.
- `expected_since`: since when a source of the registry is expected.
- `silences`: sources that fell silent, with the alert that says so, and when they were back.
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
    (
        """CREATE TABLE sources (
            id BIGINT NOT NULL,
            tenant VARCHAR NOT NULL,
            address VARCHAR NOT NULL,
            host VARCHAR NOT NULL,
            family VARCHAR NOT NULL,
            lines BIGINT NOT NULL,
            understood BIGINT NOT NULL,
            marked BIGINT NOT NULL,
            again BIGINT NOT NULL,
            bytes BIGINT NOT NULL,
            first_received TIMESTAMPTZ NOT NULL,
            last_received TIMESTAMPTZ NOT NULL,
            first_event TIMESTAMPTZ,
            last_event TIMESTAMPTZ,
            skew DOUBLE
        )""",
        """CREATE TABLE source_hours (
            source BIGINT NOT NULL,
            hour TIMESTAMPTZ NOT NULL,
            lines BIGINT NOT NULL,
            understood BIGINT NOT NULL,
            minutes BIGINT NOT NULL
        )""",
        """CREATE TABLE unread_counts (
            tenant VARCHAR NOT NULL,
            address VARCHAR NOT NULL,
            records BIGINT NOT NULL,
            unsaid BIGINT NOT NULL,
            lines BIGINT NOT NULL
        )""",
        """CREATE TABLE collector_runs (
            run VARCHAR NOT NULL,
            reported TIMESTAMPTZ NOT NULL,
            final BOOLEAN NOT NULL,
            spool_bytes BIGINT NOT NULL,
            spool_oldest TIMESTAMPTZ,
            waiting_bytes BIGINT NOT NULL
        )""",
        """CREATE TABLE collector_channels (
            run VARCHAR NOT NULL,
            listener VARCHAR NOT NULL,
            tenant VARCHAR NOT NULL,
            address VARCHAR NOT NULL,
            lines BIGINT NOT NULL,
            bytes BIGINT NOT NULL,
            durable BIGINT NOT NULL
        )""",
        """CREATE TABLE collector_listeners (
            run VARCHAR NOT NULL,
            listener VARCHAR NOT NULL,
            tenant VARCHAR NOT NULL,
            dropped BIGINT NOT NULL,
            kernel_dropped BIGINT NOT NULL,
            refused VARCHAR NOT NULL
        )""",
        "CREATE TABLE hearing (listener VARCHAR NOT NULL, since TIMESTAMPTZ NOT NULL, through TIMESTAMPTZ NOT NULL)",
        """CREATE TABLE run_counts (
            run VARCHAR NOT NULL,
            tenant VARCHAR NOT NULL,
            stored BIGINT NOT NULL,
            quarantined BIGINT NOT NULL,
            counted TIMESTAMPTZ NOT NULL
        )""",
        """CREATE TABLE taken (
            run VARCHAR NOT NULL,
            tenant VARCHAR NOT NULL,
            noted TIMESTAMPTZ NOT NULL,
            lines BIGINT NOT NULL
        )""",
        "CREATE TABLE marks (noted TIMESTAMPTZ NOT NULL, done BOOLEAN NOT NULL)",
        'CREATE TABLE mark_ends ("partition" INTEGER NOT NULL, next_offset BIGINT NOT NULL)',
        """CREATE TABLE mark_counts (
            run VARCHAR NOT NULL,
            tenant VARCHAR NOT NULL,
            durable BIGINT NOT NULL,
            counted BIGINT NOT NULL
        )""",
        """CREATE TABLE missing (
            run VARCHAR NOT NULL,
            tenant VARCHAR NOT NULL,
            lines BIGINT NOT NULL,
            noticed TIMESTAMPTZ NOT NULL
        )""",
        "CREATE TABLE expected_since (tenant VARCHAR NOT NULL, name VARCHAR NOT NULL, since TIMESTAMPTZ NOT NULL)",
        """CREATE TABLE silences (
            alert_id VARCHAR NOT NULL,
            tenant VARCHAR NOT NULL,
            scope VARCHAR NOT NULL,
            address VARCHAR NOT NULL,
            host VARCHAR NOT NULL,
            family VARCHAR NOT NULL,
            last_seen TIMESTAMPTZ,
            raised TIMESTAMPTZ NOT NULL,
            returned TIMESTAMPTZ
        )""",
    ),
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


def check_version(connection: duckdb.DuckDBPyConnection) -> None:
    """Make sure that a store which may only be read is of the newest version.

    Raises:
        StoreError: It is not.
    """
    row = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    version = int(row[0]) if row is not None else 0
    if version != len(MIGRATIONS):
        raise StoreError(f"its schema is version {version}, not {len(MIGRATIONS)}: start the console once")

"""The alert store's schema, as numbered steps that are never edited once released: a change is a new step.

Tables of alerts:

- `alerts`: what was detected, never updated. `n` counts arrivals: it orders the table, so DuckDB's zone maps find
  a row by `n` without an index, and a page can say what came since.
- `state`: one narrow row an alert with what the queue sorts and filters by, and the latest decision. Derived from
  `alerts` and `decisions` (`AlertStore.rebuild_state`), and written in their transactions. The host is in lower case,
  and the status is a number (`storage.alert_state`): over ten million rows, text costs four times as much.
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

from contextlib import suppress
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
    (
        # A row of a page is found by index: scanning for fifty wide rows that lie apart reads half of the table.
        "CREATE INDEX alerts_n ON alerts (n)",
        "CREATE INDEX decisions_seq ON decisions (seq)",
        "CREATE INDEX decisions_alert ON decisions (alert_id)",
        """CREATE TABLE state_by_number (
            n BIGINT NOT NULL,
            tenant VARCHAR NOT NULL,
            rank TINYINT NOT NULL,
            timestamp TIMESTAMPTZ NOT NULL,
            rule_id VARCHAR NOT NULL,
            host VARCHAR,
            status UTINYINT NOT NULL,
            decision BIGINT
        )""",
        """INSERT INTO state_by_number
            SELECT n, tenant, rank, timestamp, rule_id, lower(host), CASE status WHEN 'new' THEN 0
                WHEN 'in_progress' THEN 1 WHEN 'true_positive' THEN 2 WHEN 'false_positive' THEN 3 ELSE 4 END, decision
            FROM state""",
        "DROP TABLE state",
        "ALTER TABLE state_by_number RENAME TO state",
    ),
)
"""Statements of version 1, 2, ..."""


def migrate(connection: duckdb.DuckDBPyConnection, now: datetime, through: int = len(MIGRATIONS)) -> None:
    """Bring the store to the newest version, or through an older one, each step in a transaction of its own.

    A step that fails or is cut off leaves the version before it as it was.

    Raises:
        StoreError: The store was written by a newer Tocsin.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (version INTEGER NOT NULL, taken TIMESTAMPTZ NOT NULL)")
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise StoreError(f"its schema is version {version}, newer than the {len(MIGRATIONS)} this Tocsin knows")
    for step, statements in enumerate(MIGRATIONS[version:through], start=version + 1):
        connection.begin()
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", [step, now])
            connection.commit()
        except duckdb.Error:
            with suppress(duckdb.TransactionException):  # a commit that failed has rolled back already
                connection.rollback()
            raise


def check_version(connection: duckdb.DuckDBPyConnection) -> None:
    """Make sure that a store which may only be read is of the newest version.

    Raises:
        StoreError: It is not.
    """
    version = _version(connection)
    if version != len(MIGRATIONS):
        raise StoreError(f"its schema is version {version}, not {len(MIGRATIONS)}: start the console once")


def _version(connection: duckdb.DuckDBPyConnection) -> int:
    # All rows are fetched, here and elsewhere: a result that is left open keeps its transaction's snapshot alive.
    return int(connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchall()[0][0])

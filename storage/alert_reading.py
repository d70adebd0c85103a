"""Single rows and pages of the alert store, read over a connection that the caller holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import duckdb

from storage.alert import Alert, Decision, Level, Status
from storage.alert_codec import storable
from storage.alert_queue import (
    ALERT_COLUMNS,
    DECISION_COLUMNS,
    AlertFilter,
    AlertRow,
    Arrived,
    clause_of,
    decision_of,
    moment_of,
    row_of,
)
from storage.alert_state import STATUSES
from storage.alert_tally import Kind
from storage.errors import AlertNotFound, StoreError
from storage.journal import GENESIS, Break, first_break

_LEVELS = list(Level)
Key = tuple[int, Status, int | None]
"""Number of arrival, status and latest decision: what `state` says of a row."""


def known_ids(connection: duckdb.DuckDBPyConnection, alerts: Sequence[Alert]) -> set[str]:
    """Which of these alerts are stored.

    Each is looked up by itself: the index serves single ids, where a list of parameters or ON CONFLICT, which DuckDB
    plans as a join, read the whole column.
    """
    found: set[str] = set()
    for alert in alerts:
        rows = connection.execute("SELECT id FROM alerts WHERE id = ?", [storable(alert.id)]).fetchall()
        found |= {str(row[0]) for row in rows}
    return found


def number_of(connection: duckdb.DuckDBPyConnection, alert_id: str) -> int | None:
    """An alert's number of arrival."""
    rows = connection.execute("SELECT n FROM alerts WHERE id = ?", [storable(alert_id)]).fetchall()
    return int(rows[0][0]) if rows else None


def standing(connection: duckdb.DuckDBPyConnection, alert_id: str) -> Key:
    """Where an alert stands.

    Raises:
        AlertNotFound: There is none of this id.
        StoreError: Its state is missing.
    """
    n = number_of(connection, alert_id)
    if n is None:
        raise AlertNotFound(f"no alert has the id {alert_id}")
    keys = keys_of(connection.execute("SELECT n, status, decision FROM state WHERE n = ?", [n]).fetchall())
    if not keys:
        raise StoreError(f"alert {alert_id} has no state: rebuild it")
    return keys[0]


def keys_of(rows: Iterable[Sequence[object]]) -> list[Key]:
    """Rows (n, status, decision) of `state`, read."""
    return [
        (int(str(n)), STATUSES[int(str(status))], None if decision is None else int(str(decision)))
        for n, status, decision in rows
    ]


def rows_of(connection: duckdb.DuckDBPyConnection, keys: Sequence[Key]) -> list[AlertRow]:
    """The alerts of these keys, in their order.

    The numbers are written into the SQL: for a list of parameters DuckDB would not use the index.
    """
    if not keys:
        return []
    numbers = ", ".join(str(int(n)) for n, _, _ in keys)
    places = ", ".join(str(int(seq)) for _, _, seq in keys if seq is not None)
    wide = connection.execute(f"SELECT {ALERT_COLUMNS} FROM alerts a WHERE a.n IN ({numbers})").fetchall()  # noqa: S608
    decided: dict[int, Decision] = {}
    if places:
        found = connection.execute(
            f"SELECT {DECISION_COLUMNS} FROM decisions WHERE seq IN ({places})"  # noqa: S608 - numbers
        ).fetchall()
        decided = dict(map(decision_of, found))
    alerts = {int(row[0]): row for row in wide}
    return [row_of(alerts[n], status, seq, None if seq is None else decided[seq]) for n, status, seq in keys]


def kinds_of(
    connection: duckdb.DuckDBPyConnection, asked: AlertFilter, arrived: Arrived | None = None
) -> Mapping[Kind, int]:
    """How many alerts of each kind a filter meets."""
    clause = clause_of(asked, arrived=arrived)
    rows = connection.execute(
        f"SELECT s.rank, s.status, s.tenant, count(*) {clause.sql} GROUP BY ALL", list(clause.parameters)
    ).fetchall()
    return {
        (_LEVELS[int(rank)], STATUSES[int(status)], str(tenant)): int(number) for rank, status, tenant, number in rows
    }


def head(connection: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    """Number and hash of the latest decision."""
    rows = connection.execute("SELECT seq, hash FROM decisions ORDER BY seq DESC LIMIT 1").fetchall()
    return (int(rows[0][0]), str(rows[0][1])) if rows else (0, GENESIS)


def journal_break(connection: duckdb.DuckDBPyConnection) -> Break | None:
    """The first entry at which the hash chain does not hold."""
    connection.execute(
        "SELECT seq, alert_id, epoch_us(decided), author, status, note, previous, hash FROM decisions ORDER BY seq"
    )
    return first_break(_entries(connection))


def _entries(
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[tuple[int, str, datetime, str, str, str, str, str]]:
    while rows := connection.fetchmany(10_000):
        for seq, alert_id, at, author, status, note, previous, digest in rows:
            yield seq, alert_id, moment_of(at), author, status, note, previous, digest

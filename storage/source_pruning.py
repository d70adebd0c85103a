"""What the source store lets go of, so that it stays bounded: old hours, old runs, and names that were heard once.

Hosts are named by senders, and somebody who invents names would otherwise fill the places of a hospital for good. So a
hospital that has used most of its places loses those that were heard on one day only, the least first; no rhythm can
be learnt of them anyway. Whatever was silent for as long as hours are kept goes too. What goes counts on with "all
others", so that no line leaves the sums.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import duckdb

from ingest.source_counts import OTHER
from storage.alert_queue import microseconds

KEEP_HOURS: Final = timedelta(days=60)
KEEP_RUNS: Final = timedelta(days=7)
MOST_RUNS: Final = 1000
"""Runs that are told apart: a collector that is started again and again must not fill the store."""

EARLIER: Final = "earlier"
"""The run under which old ones are added up."""

PASSING: Final = timedelta(days=1)
"""A source that was heard for less than this, and not since this, was a passing one."""

CROWDED: Final = 0.8
"""The share of a hospital's places from which on passing sources go."""


def prune(connection: duckdb.DuckDBPyConnection, now: datetime, limit: int) -> int:
    """Let go of what is too old, and of passing sources where places are short; returns how many sources went."""
    old = microseconds(now - KEEP_HOURS)
    connection.execute("DELETE FROM source_hours WHERE epoch_us(hour) < ?", [old])
    connection.execute("DELETE FROM silences WHERE epoch_us(coalesce(returned, raised)) < ?", [old])
    _add_up_runs(connection, now)
    return _forget_sources(connection, now, int(limit * CROWDED))


def _forget_sources(connection: duckdb.DuckDBPyConnection, now: datetime, room: int) -> int:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE going AS SELECT id, tenant FROM ("
        "SELECT id, tenant, last_received, last_received - first_received < to_microseconds(?) "
        "AND epoch_us(last_received) < ? AS passing, count(*) OVER (PARTITION BY tenant) AS held, "
        # steady ones come last, then by weight: what is beyond the room goes first
        "row_number() OVER (PARTITION BY tenant ORDER BY passing, lines DESC, last_received DESC, id) AS place "
        "FROM sources WHERE address <> ?) "
        "WHERE epoch_us(last_received) < ? OR (passing AND place > ?)",
        [
            *(PASSING // timedelta(microseconds=1), microseconds(now - PASSING), OTHER),
            *(microseconds(now - KEEP_HOURS), room),
        ],
    )
    tenants = connection.execute("SELECT tenant, count(*) FROM going GROUP BY tenant").fetchall()
    for tenant, _ in tenants:
        _count_with_others(connection, str(tenant))
    connection.execute("DELETE FROM source_hours WHERE source IN (SELECT id FROM going)")
    connection.execute("DELETE FROM sources WHERE id IN (SELECT id FROM going)")
    connection.execute("DROP TABLE going")
    return sum(int(number) for _, number in tenants)


def _count_with_others(connection: duckdb.DuckDBPyConnection, tenant: str) -> None:
    connection.execute(
        "INSERT INTO sources SELECT (SELECT max(id) + 1 FROM sources), ?, ?, ?, ?, 0, 0, 0, 0, 0, "
        "min(first_received), max(last_received), NULL, NULL, NULL FROM sources "
        "WHERE id IN (SELECT id FROM going WHERE tenant = ?) "
        "AND NOT EXISTS (SELECT 1 FROM sources WHERE tenant = ? AND address = ?) HAVING count(*) > 0",
        [tenant, OTHER, OTHER, OTHER, tenant, tenant, OTHER],
    )
    sums = ", ".join(f"{name} = s.{name} + g.{name}" for name in _SUMS)
    summed = ", ".join(f"sum({name})::BIGINT AS {name}" for name in _SUMS)
    connection.execute(
        f"UPDATE sources AS s SET {sums}, first_received = least(s.first_received, g.first_received), "  # noqa: S608
        "last_received = greatest(s.last_received, g.last_received) FROM ("
        f"SELECT {summed}, min(first_received) AS first_received, max(last_received) AS last_received FROM sources "
        "WHERE id IN (SELECT id FROM going WHERE tenant = ?)) AS g WHERE s.tenant = ? AND s.address = ?",
        [tenant, tenant, OTHER],
    )


_SUMS: Final = ("lines", "understood", "marked", "again", "bytes")


def _add_up_runs(connection: duckdb.DuckDBPyConnection, now: datetime) -> None:
    """Add up the counts of old runs of collectors, each side of the equation as it stands."""
    found = connection.execute(
        "SELECT run FROM (SELECT run, max(seen) AS seen FROM ("
        "SELECT run, epoch_us(reported) AS seen FROM collector_runs "
        "UNION ALL SELECT run, epoch_us(counted) FROM run_counts) WHERE run <> ? GROUP BY run) "
        "QUALIFY seen < ? OR row_number() OVER (ORDER BY seen DESC, run) > ?",
        [EARLIER, microseconds(now - KEEP_RUNS), MOST_RUNS],
    ).fetchall()
    if not found:
        return
    runs = [*(str(run) for (run,) in found), EARLIER]
    held = ", ".join("?" * len(runs))
    _settle_surplus(connection, runs[:-1])
    for table, keys, counts in _RUN_TABLES:
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE added AS SELECT '{EARLIER}', {keys}{counts} FROM {table} "  # noqa: S608
            f"WHERE run IN ({held}) GROUP BY {keys}",
            runs,
        )
        connection.execute(f"DELETE FROM {table} WHERE run IN ({held})", runs)  # noqa: S608
        connection.execute(f"INSERT INTO {table} SELECT * FROM added")  # noqa: S608
        connection.execute("DROP TABLE added")
    for table in ("collector_runs", "taken", "mark_counts"):
        connection.execute(f"DELETE FROM {table} WHERE run IN ({held}) AND run <> ?", [*runs, EARLIER])  # noqa: S608


def _settle_surplus(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> None:
    """Have an old run have said at least what was counted of it: in the sum it would hide what another is short of."""
    held = ", ".join("?" * len(runs))
    connection.execute(
        "INSERT INTO collector_channels SELECT c.run, '', c.tenant, '', c.over, 0, c.over FROM ("  # noqa: S608
        "SELECT r.run, r.tenant, r.stored + r.quarantined + coalesce(any_value(m.lines), 0) "
        "- coalesce(sum(s.lines), 0)::BIGINT AS over "
        "FROM run_counts r LEFT JOIN collector_channels s ON s.run = r.run AND s.tenant = r.tenant "
        f"LEFT JOIN missing m ON m.run = r.run AND m.tenant = r.tenant WHERE r.run IN ({held}) "
        "GROUP BY r.run, r.tenant, r.stored, r.quarantined) AS c WHERE c.over > 0",
        runs,
    )


_RUN_TABLES: Final = (
    (
        "collector_channels",
        "listener, tenant, address",
        ", sum(lines)::BIGINT, sum(bytes)::BIGINT, sum(durable)::BIGINT",
    ),
    (
        "collector_listeners",
        "listener, tenant",
        ", sum(dropped)::BIGINT, sum(kernel_dropped)::BIGINT, any_value(refused)",
    ),
    ("run_counts", "tenant", ", sum(stored)::BIGINT, sum(quarantined)::BIGINT, max(counted)"),
    ("missing", "tenant", ", sum(lines)::BIGINT, max(noticed)"),
)
"""Table of counts by run, what else tells its rows apart, and how they are added."""

"""Whether an alert store holds together: the chain of decisions, the state as their fold, and what numbers it all.

What it cannot see: a journal that was cut short and is whole (note its head elsewhere), and alerts that are only on the
bus (`tocsin alerts rebuild` reads them).
"""

from __future__ import annotations

from typing import Final

import duckdb

from storage.alert_reading import journal_break
from storage.alert_state import FOLD

_STATE: Final = "(n, tenant, rank, timestamp, rule_id, host, status, decision)"

_CHECKS: Final[tuple[tuple[str, str], ...]] = (
    (
        "decisions are on alerts that are not there",
        "SELECT count(*), min(d.seq) FROM decisions d ANTI JOIN alerts a ON a.id = d.alert_id",
    ),
    (
        "numbers of arrival are missing or there twice",
        "SELECT (count(*) - count(DISTINCT n) + count(*) FILTER (n < 1))::BIGINT, min(n) FROM alerts",
    ),
    (
        "ids of alerts are there twice",
        "SELECT (count(*) - count(DISTINCT id))::BIGINT, NULL FROM alerts",
    ),
    (
        "alerts do not stand where the journal puts them",
        f"SELECT count(*), min(n) FROM (({FOLD}) EXCEPT ALL (SELECT * FROM state)) AS f{_STATE}",  # noqa: S608
    ),
    (
        "rows of the state are of no alert",
        f"SELECT count(*), min(n) FROM ((SELECT * FROM state) EXCEPT ALL ({FOLD})) AS f{_STATE}",  # noqa: S608
    ),
    (
        "positions are below zero",
        "SELECT count(*), NULL FROM positions WHERE next_offset < 0",
    ),
)
"""What is wrong -> how many, and the first of them."""


def faults_of(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """What does not hold, a line each; nothing if all does."""
    connection.begin()  # one snapshot for all checks
    faults: list[str] = []
    broken = journal_break(connection)
    if broken is not None:
        faults.append(f"journal: entry {broken.seq} (alert {broken.alert_id}) {broken.reason}")
    for what, sql in _CHECKS:
        number, first = connection.execute(sql).fetchall()[0]
        if number:
            faults.append(f"{number} {what}" + (f"; the first is {first}" if first is not None else ""))
    return faults

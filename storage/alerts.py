"""The alert store: alerts, their journal of decisions and the bus positions they stand for, in one DuckDB file.

One process writes it (the console's). Inside that process any thread may call any method: writes take turns, each in
one transaction; reads run beside them and see the last commit (`storage.alert_database`).

Exactly once: `record` stores alerts and the bus offsets behind them in one transaction, known ids are left out, and the
reader starts at `position`. A crash at any point loses nothing committed and repeats nothing.

State is derived: an alert stands where its latest decision put it (docs/decisions/0005-decisions-are-events.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import duckdb

from ingest.bus import Partition
from storage.alert import Alert, Decision, Level, Status
from storage.alert_codec import in_utc, storable
from storage.alert_database import AlertDatabase
from storage.alert_export import export_tables
from storage.alert_queue import (
    ROW_COLUMNS,
    AlertCounts,
    AlertFilter,
    AlertPage,
    AlertRow,
    clause_of,
    cursor_of,
    microseconds,
    moment_of,
    row_of,
)
from storage.alert_rows import alert_rows
from storage.errors import AlertNotFound, DecisionConflict, StoreError
from storage.journal import GENESIS, Break, entry_hash, first_break

MEMORY_LIMIT: Final = "2GB"  # of DuckDB's buffers; it spills beside the file beyond that
LONGEST_PAGE: Final = 1000

_RANK: Final = "CASE a.level " + " ".join(f"WHEN '{level}' THEN {level.rank}" for level in Level) + " END"
_STATE_OF_ALERT: Final = f"a.n, a.tenant, {_RANK}, a.timestamp, a.rule_id, a.host"


def utc_now() -> datetime:
    """The time, from the system's clock."""
    return datetime.now(UTC)


class AlertStore:
    """Alerts and decisions at rest. Close it, or use it as a context manager."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = utc_now, memory_limit: str = MEMORY_LIMIT) -> None:
        """Open the store, making the file or bringing it to the newest schema.

        Raises:
            StoreError: Another process holds the file, it is no such store, or a newer Tocsin wrote it.
        """
        self._clock = clock
        self._database = AlertDatabase(path, clock(), memory_limit)
        self._last_n = self._database.number("SELECT coalesce(max(n), 0) FROM alerts")
        self._last_seq = self._database.number("SELECT coalesce(max(seq), 0) FROM decisions")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def database(self) -> AlertDatabase:
        """The file, for what else is kept in it (`storage.sources`)."""
        return self._database

    def close(self) -> None:
        """Let go of the file; waits for a write under way."""
        self._database.close()

    # What comes off the bus

    def record(self, alerts: Sequence[Alert], positions: Mapping[Partition, int]) -> int:
        """Store alerts that are not known yet, and the next offset to read of each partition, in one transaction.

        Returns:
            How many alerts were new.

        Raises:
            StoreError: Nothing was stored.
        """
        distinct = list({storable(alert.id): alert for alert in reversed(alerts)}.values())[::-1]
        with self._database.turn():
            with self._database.transaction("record alerts") as connection:
                new = self._insert(connection, distinct) if distinct else 0
                for partition, offset in positions.items():
                    connection.execute(
                        "INSERT INTO positions VALUES (?, ?, ?) "
                        "ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
                        [partition.topic, partition.partition, offset],
                    )
            if new:  # only now, since a marker raised before the commit would be ahead of what readers see
                self._last_n += len(distinct)
        return new

    def _insert(self, connection: duckdb.DuckDBPyConnection, alerts: Sequence[Alert]) -> int:
        first = self._last_n + 1
        connection.register("incoming", alert_rows(alerts, first))
        try:
            counted = connection.execute(
                "INSERT INTO alerts BY NAME SELECT * FROM incoming ON CONFLICT DO NOTHING"
            ).fetchone()
        finally:
            connection.unregister("incoming")
        new = int(counted[0]) if counted is not None else 0
        if new:
            connection.execute(
                f"INSERT INTO state SELECT {_STATE_OF_ALERT}, ?, NULL FROM alerts a WHERE a.n >= ?",  # noqa: S608
                [Status.NEW.value, first],
            )
        return new

    def position(self, partition: Partition) -> int | None:
        """The next offset to read, or `None` if nothing of the partition was stored yet."""
        rows = self._database.select(
            'SELECT next_offset FROM positions WHERE topic = ? AND "partition" = ?',
            (partition.topic, partition.partition),
        )
        return int(str(rows[0][0])) if rows else None

    # What analysts decide

    def decide(
        self,
        alert_id: str,
        status: Status,
        note: str,
        author: str,
        *,
        expected: Status | None = None,
        expected_seq: int | None = None,
    ) -> Decision:
        """Append a decision to the journal; the alert stands at `status` from now on.

        Args:
            alert_id: Which alert.
            status: Where it stands now.
            note: Why, for people; may be empty.
            author: Who decides.
            expected: Where the analyst saw it stand; so too `expected_seq`, the latest decision seen (0 for none).
            expected_seq: See `expected`.

        Raises:
            AlertNotFound: No alert has this id.
            DecisionConflict: It does not stand where the analyst saw it.
            StoreError: Nothing was stored.
        """
        decision = Decision(storable(alert_id), in_utc(self._clock()), storable(author), status, storable(note))
        with self._database.turn():
            self._last_seq = self._decided(decision, expected, expected_seq)  # after the commit, as in `record`
        return decision

    def _decided(self, decision: Decision, expected: Status | None, expected_seq: int | None) -> int:
        with self._database.transaction(f"decide on alert {decision.alert_id}") as connection:
            n, stands, last = _standing(connection, decision.alert_id)
            if (expected is not None and expected is not stands) or (expected_seq is not None and expected_seq != last):
                raise DecisionConflict(f"alert {decision.alert_id} stands at {stands} (decision {last}) by now")
            latest, previous = _head(connection)
            seq = latest + 1
            status = decision.status
            digest = entry_hash(previous, seq, decision.alert_id, decision.at, decision.author, status, decision.note)
            connection.execute(
                "INSERT INTO decisions VALUES (?, ?, make_timestamptz(?::BIGINT), ?, ?, ?, ?, ?)",
                [
                    *(seq, decision.alert_id, microseconds(decision.at), decision.author),
                    *(status.value, decision.note, previous, digest),
                ],
            )
            connection.execute("UPDATE state SET status = ?, decision = ? WHERE n = ?", [status.value, seq, n])
        return seq

    def journal(self, alert_id: str) -> list[Decision]:
        """Every decision on an alert, oldest first."""
        rows = self._database.select(
            "SELECT alert_id, epoch_us(decided), author, status, note FROM decisions WHERE alert_id = ? ORDER BY seq",
            (storable(alert_id),),
        )
        return [
            Decision(str(id_), moment_of(at), str(author), Status(str(status)), str(note))
            for id_, at, author, status, note in rows
        ]

    def journal_head(self) -> tuple[int, str]:
        """Number and hash of the latest decision; keep it elsewhere to notice a journal cut short."""
        with self._database.reading("read the journal") as connection:
            return _head(connection)

    def verify_journal(self) -> Break | None:
        """The first entry at which the hash chain does not hold, or `None` if it holds."""
        with self._database.reading("verify the journal") as connection:
            connection.execute(
                "SELECT seq, alert_id, epoch_us(decided), author, status, note, previous, hash "
                "FROM decisions ORDER BY seq"
            )
            return first_break(_entries(connection))

    def rebuild_state(self) -> None:
        """Derive the state of every alert anew from the alerts and the journal."""
        with self._database.transaction("rebuild the state") as connection:
            connection.execute("DELETE FROM state")
            connection.execute(
                f"INSERT INTO state SELECT {_STATE_OF_ALERT}, coalesce(d.status, ?), d.seq "  # noqa: S608
                "FROM alerts a LEFT JOIN (SELECT alert_id, arg_max(status, seq) AS status, max(seq) AS seq "
                "FROM decisions GROUP BY alert_id) d ON d.alert_id = a.id ORDER BY a.n",
                [Status.NEW.value],
            )

    # What pages show

    def queue(self, asked: AlertFilter, limit: int = 50, cursor: str | None = None) -> AlertPage:
        """One page of the alerts that a filter meets: worst first, then newest.

        Raises:
            CursorError: The cursor is not the `next_cursor` of a page.
            ValueError: The limit is not in 1 to `LONGEST_PAGE`.
        """
        if not 1 <= limit <= LONGEST_PAGE:
            raise ValueError(f"a page has 1 to {LONGEST_PAGE} alerts, not {limit}")
        rest, whole = clause_of(asked, cursor), clause_of(asked)
        with self._database.reading("read the queue") as connection:
            connection.begin()  # one snapshot for the page and its total
            keys = connection.execute(
                f"SELECT s.n {rest.sql} ORDER BY s.rank DESC, s.timestamp DESC, s.n DESC LIMIT ?",
                [*rest.parameters, limit + 1],
            ).fetchall()
            counted = connection.execute(f"SELECT count(*) {whole.sql}", list(whole.parameters)).fetchone()
            rows = _rows(connection, [int(key[0]) for key in keys[:limit]])
        more = len(keys) > limit
        return AlertPage(rows, cursor_of(rows[-1]) if more else None, int(counted[0]) if counted is not None else 0)

    def get(self, alert_id: str) -> AlertRow | None:
        """One alert and where it stands."""
        with self._database.reading(f"read alert {storable(alert_id)}") as connection:
            key = connection.execute("SELECT n FROM alerts WHERE id = ?", [storable(alert_id)]).fetchone()
            rows = _rows(connection, [int(key[0])]) if key is not None else []
        return rows[0] if rows else None

    def counts(self, asked: AlertFilter) -> AlertCounts:
        """How many alerts a filter meets, by level, status and hospital."""
        clause = clause_of(asked)
        rows = self._database.select(
            f"SELECT s.rank, s.status, s.tenant, count(*) {clause.sql} GROUP BY ALL ORDER BY 1 DESC, 2, 3",
            clause.parameters,
        )
        levels = list(Level)
        counted = AlertCounts(total=sum(int(str(row[3])) for row in rows))
        for rank, status, tenant, number in rows:
            for group, key in (
                (counted.by_level, levels[int(str(rank))]),
                (counted.by_status, Status(str(status))),
                (counted.by_tenant, str(tenant)),
            ):
                group[key] = group.get(key, 0) + int(str(number))  # type: ignore[index, call-overload]
        return counted

    def tenants(self) -> list[str]:
        """The hospitals that have alerts, in order."""
        return [str(row[0]) for row in self._database.select("SELECT DISTINCT tenant FROM state ORDER BY 1")]

    @property
    def marker(self) -> str:
        """Changes whenever an alert or a decision is stored; costs nothing to ask.

        Never ahead of what a reader sees: rows read after the marker hold at least what the marker stands for.
        """
        return f"{self._last_n}.{self._last_seq}"

    def export_parquet(self, folder: Path) -> list[Path]:
        """Write `alerts.parquet` (with status) and `decisions.parquet` into a folder; the files written.

        Raises:
            StoreError: A file could not be written; files of that name stay as they were.
        """
        with self._database.reading(f"export to {folder}") as connection:
            return export_tables(connection, folder)


def _standing(connection: duckdb.DuckDBPyConnection, alert_id: str) -> tuple[int, Status, int]:
    key = connection.execute("SELECT n FROM alerts WHERE id = ?", [alert_id]).fetchone()
    if key is None:
        raise AlertNotFound(f"no alert has the id {alert_id}")
    row = connection.execute("SELECT n, status, coalesce(decision, 0) FROM state WHERE n = ?", [key[0]]).fetchone()
    if row is None:
        raise StoreError(f"alert {alert_id} has no state: rebuild it")
    return int(row[0]), Status(row[1]), int(row[2])


def _rows(connection: duckdb.DuckDBPyConnection, keys: Sequence[int]) -> list[AlertRow]:
    """The alerts of these arrival numbers, in their order."""
    if not keys:
        return []
    wanted = ", ".join(map(str, keys))
    found = connection.execute(
        f"SELECT {ROW_COLUMNS} FROM alerts a JOIN state s ON s.n = a.n LEFT JOIN decisions d ON d.seq = s.decision "  # noqa: S608
        f"WHERE a.n IN ({wanted}) AND s.n IN ({wanted})"
    ).fetchall()
    rows = {row.n: row for row in map(row_of, found)}
    return [rows[key] for key in keys]


def _head(connection: duckdb.DuckDBPyConnection) -> tuple[int, str]:
    row = connection.execute("SELECT seq, hash FROM decisions ORDER BY seq DESC LIMIT 1").fetchone()
    return (0, GENESIS) if row is None else (int(row[0]), str(row[1]))


def _entries(
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[tuple[int, str, datetime, str, str, str, str, str]]:
    while rows := connection.fetchmany(10_000):
        for seq, alert_id, at, author, status, note, previous, digest in rows:
            yield seq, alert_id, moment_of(at), author, status, note, previous, digest

"""The alert store: alerts, their journal of decisions and the bus positions they stand for, in one DuckDB file.

One process writes it (the console's). Inside that process any thread may call any method: writes take turns, each in
one transaction; reads run beside them and see the last commit (`storage.alert_database`).

Exactly once: `record` stores alerts and the bus offsets behind them in one transaction, known ids are left out, and the
reader starts at `position`. A crash at any point loses nothing committed and repeats nothing.

State is derived: an alert stands where its latest decision put it (docs/decisions/0005-decisions-are-events.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import duckdb

from ingest.bus import Partition
from storage.alert import Alert, Decision, Level, Status
from storage.alert_backup import Backup, write_backup
from storage.alert_codec import in_utc, storable
from storage.alert_database import AlertDatabase
from storage.alert_export import export_tables
from storage.alert_queue import (
    DECISION_COLUMNS,
    AlertCounts,
    AlertFilter,
    AlertPage,
    AlertRow,
    Arrived,
    clause_of,
    cursor_of,
    decision_of,
    microseconds,
)
from storage.alert_reading import head, journal_break, keys_of, kinds_of, known_ids, rows_of, standing
from storage.alert_rows import alert_rows
from storage.alert_state import FOLD, STATE_OF_ALERT, STATUS_CODES
from storage.alert_tally import Kind, Tally
from storage.alert_verify import faults_of
from storage.errors import AlertNotFound, DecisionConflict, StoreError
from storage.journal import Break, entry_hash

MEMORY_LIMIT: Final = "2GB"
LONGEST_PAGE: Final = 1000
SEARCHED: Final = 1_000_000


class _KnownError(StoreError):
    """One of the alerts is stored already."""


def utc_now() -> datetime:
    """The time, from the system's clock."""
    return datetime.now(UTC)


class AlertStore:
    """Alerts and decisions at rest. Close it, or use it as a context manager."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime] = utc_now,
        memory_limit: str = MEMORY_LIMIT,
        *,
        searched: int = SEARCHED,
    ) -> None:
        """Open the store, making the file or bringing it to the newest schema.

        Args:
            path: The file.
            clock: For the times of decisions.
            memory_limit: Of DuckDB's buffers, indexes included ("2GB"); it spills beside the file beyond that.
            searched: How many alerts, the newest to arrive in the time asked for, a text is sought in.

        Raises:
            StoreError: Another process holds the file, it is no such store, or a newer Tocsin wrote it.
        """
        self._clock = clock
        self._searched = searched
        self._database = AlertDatabase(path, clock(), memory_limit)
        self._last_n = self._database.number("SELECT coalesce(max(n), 0) FROM alerts")
        self._last_seq = self._database.number("SELECT coalesce(max(seq), 0) FROM decisions")
        self._tally = Tally(self._kinds(AlertFilter()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

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
            try:
                new = self._stored(distinct, positions)
            except _KnownError:  # rarely: something was published again. Only then are ids looked up one by one
                with self._database.reading("look for known alerts") as connection:
                    known = known_ids(connection, distinct)
                new = self._stored([alert for alert in distinct if storable(alert.id) not in known], positions)
            if new:  # only now, since a marker raised before the commit would be ahead of what readers see
                self._tally.change(Counter((alert.level, Status.NEW, storable(alert.tenant)) for alert in new))
                self._last_n += len(new)
        return len(new)

    def _stored(self, alerts: Sequence[Alert], positions: Mapping[Partition, int]) -> Sequence[Alert]:
        with self._database.transaction("record alerts") as connection:
            if alerts:
                self._insert(connection, alerts)
            for partition, offset in positions.items():
                connection.execute(
                    "INSERT INTO positions VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
                    [partition.topic, partition.partition, offset],
                )
        return alerts

    def _insert(self, connection: duckdb.DuckDBPyConnection, alerts: Sequence[Alert]) -> None:
        first = self._last_n + 1
        connection.register("incoming", alert_rows(alerts, first))
        try:
            connection.execute("INSERT INTO alerts BY NAME SELECT * FROM incoming")
        except duckdb.ConstraintException as error:
            # The frame's name goes with the transaction: nothing can be unregistered in one that is aborted
            raise _KnownError(f"alert store {self._database.path}: cannot record alerts: {error}") from error
        connection.unregister("incoming")
        connection.execute(
            f"INSERT INTO state SELECT {STATE_OF_ALERT}, 0, NULL FROM alerts a WHERE a.n >= ?",  # noqa: S608
            [first],
        )

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
            seq, kinds = self._decided(decision, expected, expected_seq)
            self._tally.change(kinds)
            self._last_seq = seq  # after the commit, as in `record`
        return decision

    def _decided(
        self, decision: Decision, expected: Status | None, expected_seq: int | None
    ) -> tuple[int, Mapping[Kind, int]]:
        with self._database.transaction(f"decide on alert {decision.alert_id}") as connection:
            n, stands, last = standing(connection, decision.alert_id)
            seen = expected_seq is None or expected_seq == (last or 0)
            if (expected is not None and expected is not stands) or not seen:
                raise DecisionConflict(f"alert {decision.alert_id} stands at {stands} (decision {last or 0}) by now")
            latest, previous = head(connection)
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
            rows = connection.execute("SELECT rank, tenant FROM state WHERE n = ?", [n]).fetchall()
            connection.execute("UPDATE state SET status = ?, decision = ? WHERE n = ?", [STATUS_CODES[status], seq, n])
        level, tenant = list(Level)[int(rows[0][0])], str(rows[0][1])
        changed = Counter({(level, status, tenant): 1})
        changed.subtract({(level, stands, tenant): 1})
        return seq, changed

    def journal(self, alert_id: str) -> list[Decision]:
        """Every decision on an alert, oldest first."""
        rows = self._database.select(
            f"SELECT {DECISION_COLUMNS} FROM decisions WHERE alert_id = ? ORDER BY seq",  # noqa: S608 - names
            (storable(alert_id),),
        )
        return [decision_of(row)[1] for row in rows]

    def journal_head(self) -> tuple[int, str]:
        """Number and hash of the latest decision; keep it elsewhere to notice a journal cut short."""
        with self._database.reading("read the journal") as connection:
            return head(connection)

    def verify_journal(self) -> Break | None:
        """The first entry at which the hash chain does not hold, or `None` if it holds."""
        with self._database.reading("verify the journal") as connection:
            return journal_break(connection)

    def verify(self) -> list[str]:
        """What does not hold of the whole store, a line each (`storage.alert_verify`)."""
        with self._database.reading("verify the store") as connection:
            return faults_of(connection)

    def rebuild_state(self) -> None:
        """Derive the state of every alert anew from the alerts and the journal."""
        with self._database.turn():
            with self._database.transaction("rebuild the state") as connection:
                connection.execute("DELETE FROM state")
                connection.execute(f"INSERT INTO state {FOLD} ORDER BY a.n")
            self._tally.renew(self._kinds(AlertFilter()))

    # What pages show

    def queue(self, asked: AlertFilter, limit: int = 50, cursor: str | None = None) -> AlertPage:
        """One page of the alerts that a filter meets: worst first, then newest.

        Raises:
            CursorError: The cursor is not the `next_cursor` of a page.
            ValueError: The limit is not in 1 to `LONGEST_PAGE`.
        """
        if not 1 <= limit <= LONGEST_PAGE:
            raise ValueError(f"a page has 1 to {LONGEST_PAGE} alerts, not {limit}")
        marker = self.marker  # before the snapshot: what is counted by it is then kept under no newer name
        with self._database.reading("read the queue") as connection:
            connection.begin()  # one snapshot for all that a page holds
            arrived, searched = self._arrived(connection, asked)
            clause = clause_of(asked, cursor, arrived)
            found = connection.execute(
                f"SELECT s.n, s.status, s.decision {clause.sql} "
                "ORDER BY s.rank DESC, s.timestamp DESC, s.n DESC LIMIT ?",
                [*clause.parameters, limit + 1],
            ).fetchall()
            rows = rows_of(connection, keys_of(found[:limit]))
            counts = self._tally.counts(asked, marker, lambda narrowed: kinds_of(connection, narrowed, arrived))
        return AlertPage(rows, cursor_of(rows[-1]) if len(found) > limit else None, counts.total, searched)

    def _arrived(self, connection: duckdb.DuckDBPyConnection, asked: AlertFilter) -> tuple[Arrived | None, int | None]:
        """With text: the numbers of arrival among which it is sought, and how many alerts that are, if not all."""
        if not asked.text:
            return None, None
        times = clause_of(AlertFilter(since=asked.since, until=asked.until))
        first, last = connection.execute(f"SELECT min(s.n), max(s.n) {times.sql}", list(times.parameters)).fetchall()[0]
        if last is None:
            return (0, 0), None
        oldest = int(last) - self._searched + 1
        return (max(int(first), oldest), int(last)), self._searched if int(first) < oldest else None

    def _kinds(self, asked: AlertFilter) -> Mapping[Kind, int]:
        with self._database.reading("count alerts") as connection:
            arrived, _ = self._arrived(connection, asked)
            return kinds_of(connection, asked, arrived)

    def get(self, alert_id: str) -> AlertRow | None:
        """One alert and where it stands."""
        with self._database.reading(f"read alert {storable(alert_id)}") as connection:
            connection.begin()
            try:
                return rows_of(connection, [standing(connection, alert_id)])[0]
            except AlertNotFound:
                return None

    def counts(self, asked: AlertFilter) -> AlertCounts:
        """How many alerts a filter meets, by level, status and hospital; of a text, where `queue` seeks it."""
        return self._tally.counts(asked, self.marker, self._kinds)

    def tenants(self) -> list[str]:
        """The hospitals that have alerts, in order."""
        return self._tally.tenants()

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

    def backup(self, folder: Path) -> Backup:
        """Write a whole copy of the store into a new folder inside this one, while others write.

        See `storage.alert_backup`.

        Raises:
            StoreError: It could not be written; nothing is left of it.
        """
        made = in_utc(self._clock())
        with self._database.reading(f"back up to {folder}") as connection:
            return write_backup(connection, folder, made)

"""The source store: `storage.sources` in transactions, and what the sources page and the watch over silences ask.

It shares the file, the writer and the transactions' turns with the alert store (`AlertStore.database`). A process that
only looks may open a file that nobody holds (`read_only`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson
import polars as pl

from ingest.bus import Partition
from ingest.collector_report import CollectorReport
from storage.alert_database import AlertDatabase
from storage.alert_queue import microseconds, moment_of
from storage.source import Balance, CollectorRow, Drops, RunCount, Scope, Silence, SourceName, SourceRow, added
from storage.source_marks import begin_mark, end_mark, open_mark
from storage.source_pruning import EARLIER, prune
from storage.sources import (
    SOURCES_A_HOSPITAL,
    add_counts,
    add_report,
    add_silence,
    end_silence,
    expect,
    mark_taken,
    store_position,
)

READ_MEMORY: Final = "512MB"
HOUR: Final = timedelta(hours=1)
IN_FLIGHT: Final = timedelta(minutes=5)
"""Lines that collectors took longer ago than this, and that nothing accounts for, are overdue."""


class SourceStore:
    """Counts of sources, collectors and silences. Safe to share between threads."""

    def __init__(self, database: AlertDatabase, limit: int = SOURCES_A_HOSPITAL) -> None:
        self._database = database
        self._limit = limit

    @classmethod
    @contextmanager
    def read_only(cls, path: Path) -> Iterator[SourceStore]:
        """The store of a file that no process holds.

        Raises:
            StoreError: One does, or the file is not there.
        """
        database = AlertDatabase(path, datetime.now(UTC), READ_MEMORY, read_only=True)
        try:
            yield cls(database)
        finally:
            database.close()

    # What comes off the bus

    def record(
        self,
        counts: Sequence[pl.DataFrame],
        reports: Sequence[CollectorReport],
        positions: Mapping[Partition, int],
        now: datetime,
    ) -> None:
        """Add counts and reports, in the order of the bus, with the offsets behind them, in one transaction.

        Raises:
            StoreError: Nothing was stored.
        """
        with self._database.turn(), self._database.transaction("record sources") as connection:
            add_counts(connection, counts, self._limit)
            for report in reports:
                add_report(connection, report)
            for partition, offset in positions.items():
                store_position(connection, partition, offset)
            mark_taken(connection, now)

    def expect(self, names: Mapping[str, Sequence[str]], now: datetime) -> None:
        """See `storage.sources.expect`."""
        with self._database.transaction("record expected sources") as connection:
            expect(connection, names, now)

    def silence(self, silence: Silence) -> bool:
        """Note a silence; False if it is noted already."""
        with self._database.transaction("record a silence") as connection:
            return add_silence(connection, silence)

    def end(self, alert_id: str, returned: datetime) -> None:
        """Note that a line came again."""
        with self._database.transaction("end a silence") as connection:
            end_silence(connection, alert_id, returned)

    def prune(self, now: datetime) -> int:
        """Let go of what is too old (`storage.source_pruning`); returns how many sources went."""
        with self._database.turn(), self._database.transaction("prune sources") as connection:
            return prune(connection, now, self._limit)

    # What pages and the watch ask

    def rows(self, now: datetime, tenant: str | None = None) -> list[SourceRow]:
        """All sources, or those of a hospital, with their rates."""
        where, asked = ("", []) if tenant is None else ("WHERE tenant = ?", [tenant])
        found = self._database.select(
            "SELECT id, tenant, address, host, family, lines, understood, marked, again, bytes, "  # noqa: S608
            f"epoch_us(first_received), epoch_us(last_received), epoch_us(last_event), skew FROM sources {where} "
            "ORDER BY tenant, address, host, family",
            asked,
        )
        rates = self._rates(now)
        return [_row(row, rates.get(int(str(row[0])), _QUIET), now) for row in found]

    def _rates(self, now: datetime) -> dict[int, _Rates]:
        """Number of a source -> its last hours."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        weeks = [microseconds(hour - timedelta(weeks=back)) for back in (1, 2, 3, 4)]
        days = [microseconds(hour - timedelta(days=back)) for back in range(1, 7)]
        listed = ", ".join(map(str, weeks)), ", ".join(map(str, days))
        found = self._database.select(
            "SELECT source, "  # noqa: S608 - numbers
            "sum(lines) FILTER (began = ?)::BIGINT, sum(lines) FILTER (began = ?)::BIGINT, "
            "sum(lines) FILTER (began > ?)::BIGINT, sum(understood) FILTER (began > ?)::BIGINT, "
            f"median(lines) FILTER (began IN ({listed[0]})), median(lines) FILTER (began IN ({listed[1]})) "
            "FROM (SELECT source, epoch_us(hour) AS began, lines, understood FROM source_hours "
            f"WHERE hour >= make_timestamptz({microseconds(hour - timedelta(weeks=4))}::BIGINT)) "
            f"WHERE began > ? OR began IN ({listed[0]}, {listed[1]}) GROUP BY source",
            [
                *(microseconds(hour), microseconds(hour - HOUR)),
                *[microseconds(now - timedelta(days=1))] * 3,
            ],
        )
        return {
            int(str(source)): _Rates(
                int(str(this or 0)),
                int(str(before or 0)),
                int(str(day or 0)),
                int(str(understood or 0)),
                _usual(*usual),
            )
            for source, this, before, day, understood, *usual in found
        }

    def hours(self, ids: Iterable[int], since: datetime) -> dict[int, int]:
        """Hour since 1970 -> the minutes in which any of these sources sent something, a bit each."""
        numbers = ", ".join(str(int(number)) for number in ids)
        if not numbers:
            return {}
        found = self._database.select(
            "SELECT epoch_us(hour) // 3600000000, bit_or(minutes) FROM source_hours "  # noqa: S608 - numbers
            f"WHERE hour >= make_timestamptz(?::BIGINT) AND source IN ({numbers}) GROUP BY ALL",
            [microseconds(since)],
        )
        return {int(str(hour)): int(str(minutes)) for hour, minutes in found}

    def quiet(self, before: datetime) -> list[tuple[int, SourceName, datetime, datetime]]:
        """Sources not heard since: number, name, first and last line; the one that was heard last comes first."""
        found = self._database.select(
            "SELECT id, tenant, address, host, family, epoch_us(first_received), epoch_us(last_received) FROM sources "
            "WHERE last_received < make_timestamptz(?::BIGINT) ORDER BY last_received DESC, id",
            [microseconds(before)],
        )
        return [
            (
                int(str(id_)),
                SourceName(str(tenant), str(address), str(host), str(family)),
                moment_of(first),
                moment_of(last),
            )
            for id_, tenant, address, host, family, first, last in found
        ]

    def latest(self) -> dict[tuple[str, str], tuple[datetime, int]]:
        """Hospital and sender's address -> its last line, and how many sources it has; the address "" is of all."""
        found = self._database.select(
            "SELECT tenant, coalesce(address, ''), epoch_us(max(last_received)), count(*) FROM sources "
            "GROUP BY GROUPING SETS ((tenant, address), (tenant))"
        )
        return {(str(tenant), str(address)): (moment_of(last), int(str(n))) for tenant, address, last, n in found}

    def last_line(self, name: SourceName) -> datetime | None:
        """The last line of a source; members of the name that are empty stand for all."""
        members = {"address": name.address, "host": name.host, "family": name.family}
        asked = {member: value for member, value in members.items() if value}
        where = " AND ".join(["tenant = ?", *(f"{member} = ?" for member in asked)])
        found = self._database.select(
            f"SELECT epoch_us(max(last_received)) FROM sources WHERE {where}",  # noqa: S608 - names above
            [name.tenant, *asked.values()],
        )
        return _moment(found[0][0])

    def same_host(self, name: SourceName) -> list[tuple[int, SourceName]]:
        """The sources of the same hospital, address and host, this one among them."""
        found = self._database.select(
            "SELECT id, family FROM sources WHERE tenant = ? AND address = ? AND host = ?",
            [name.tenant, name.address, name.host],
        )
        return [(int(str(id_)), SourceName(name.tenant, name.address, name.host, str(family))) for id_, family in found]

    def names(self, tenant: str) -> list[SourceName]:
        """The sources of a hospital."""
        found = self._database.select("SELECT address, host, family FROM sources WHERE tenant = ?", [tenant])
        return [SourceName(tenant, str(address), str(host), str(family)) for address, host, family in found]

    def balances(self, now: datetime) -> dict[str, Balance]:
        """What became of the lines of each hospital."""
        found = self._database.select(_RUNS, [*[microseconds(now - IN_FLIGHT)] * 2, EARLIER])
        runs: dict[str, list[Balance]] = {}
        for tenant, taken, durable, stored, quarantined, missing, before, said, working, old in found:
            count = RunCount(
                *(int(str(taken)), int(str(durable)), int(str(stored)), int(str(quarantined)), int(str(missing))),
                *(int(str(before)), bool(said), bool(working), bool(old)),
            )
            runs.setdefault(str(tenant), []).append(count.balance())
        again = self._by_tenant("SELECT tenant, sum(again)::BIGINT FROM sources GROUP BY tenant")
        unsaid = self._by_tenant("SELECT tenant, sum(unsaid)::BIGINT FROM unread_counts GROUP BY tenant")
        return {
            tenant: replace(added(balances), again=again.get(tenant, 0), unsaid=unsaid.get(tenant, 0))
            for tenant, balances in sorted(runs.items())
        }

    def _by_tenant(self, sql: str, *parameters: object) -> dict[str, int]:
        return {str(tenant): int(str(number)) for tenant, number in self._database.select(sql, parameters)}

    # Looks at the books (`storage.source_marks`)

    def begin_mark(self, ends: Mapping[int, int], now: datetime) -> None:
        """See `storage.source_marks.begin_mark`."""
        with self._database.transaction("begin a look at the books") as connection:
            begin_mark(connection, ends, now)

    def end_mark(self, now: datetime) -> None:
        """See `storage.source_marks.end_mark`."""
        with self._database.transaction("end a look at the books") as connection:
            end_mark(connection, now)

    def open_mark(self) -> tuple[datetime, dict[int, int]] | None:
        """See `storage.source_marks.open_mark`."""
        with self._database.reading("read") as connection:
            return open_mark(connection)

    def position(self, partition: Partition) -> int | None:
        """The next offset of `tocsin.sources` to be read; None before the first."""
        found = self._database.select(
            'SELECT next_offset FROM positions WHERE topic = ? AND "partition" = ?',
            [partition.topic, partition.partition],
        )
        return int(str(found[0][0])) if found else None

    def read_through(self) -> datetime | None:
        """The moment up to which all that was on the bus is counted; None while that is not known."""
        found = self._database.select("SELECT epoch_us(max(noted)) FROM marks WHERE done")
        return _moment(found[0][0])

    def drops(self) -> dict[str, Drops]:
        """Hospital -> what was lost or refused; "" for listeners on which several hospitals send."""
        found: dict[str, Drops] = {}
        for tenant, queue, kernel, refused in self._database.select(
            "SELECT tenant, sum(dropped)::BIGINT, sum(kernel_dropped)::BIGINT, list(refused) FROM collector_listeners "
            "GROUP BY tenant"
        ):
            reasons: dict[str, int] = {}
            for text in refused if isinstance(refused, list) else ():
                for reason, number in orjson.loads(text).items():
                    reasons[reason] = reasons.get(reason, 0) + int(number)
            found[str(tenant)] = Drops(int(str(queue)), int(str(kernel)), reasons)
        return found

    def collectors(self) -> list[CollectorRow]:
        """The newest report of each run, newest first."""
        found = self._database.select(
            "SELECT run, epoch_us(reported), final, spool_bytes, epoch_us(spool_oldest), waiting_bytes "
            "FROM collector_runs ORDER BY reported DESC LIMIT 100"
        )
        return [
            CollectorRow(str(run), moment_of(at), bool(final), int(str(spool)), _moment(oldest), int(str(waiting)))
            for run, at, final, spool, oldest, waiting in found
        ]

    def hearing(self) -> dict[str, tuple[datetime, datetime]]:
        """Listener -> since when and until when it is known to have listened."""
        found = self._database.select("SELECT listener, epoch_us(since), epoch_us(through) FROM hearing")
        return {str(listener): (moment_of(since), moment_of(through)) for listener, since, through in found}

    def listeners(self) -> dict[str, frozenset[str]]:
        """Hospital -> the listeners that are bound to it; "" for those on which several send."""
        found = self._database.select("SELECT DISTINCT tenant, listener FROM collector_listeners")
        of: dict[str, set[str]] = {}
        for tenant, listener in found:
            of.setdefault(str(tenant), set()).add(str(listener))
        return {tenant: frozenset(names) for tenant, names in of.items()}

    def expected_since(self) -> dict[tuple[str, str], datetime]:
        """Hospital and name of a source in the registry -> since when it is expected."""
        found = self._database.select("SELECT tenant, name, epoch_us(since) FROM expected_since")
        return {(str(tenant), str(name)): moment_of(since) for tenant, name, since in found}

    def silences(self, *, open_only: bool = True) -> list[Silence]:
        """Silences, newest first."""
        found = self._database.select(
            "SELECT alert_id, scope, tenant, address, host, family, epoch_us(last_seen), epoch_us(raised), "  # noqa: S608
            f"epoch_us(returned) FROM silences {'WHERE returned IS NULL' if open_only else ''} ORDER BY raised DESC"
        )
        return [
            Silence(
                str(alert_id),
                Scope(str(scope)),
                SourceName(str(tenant), str(address), str(host), str(family)),
                _moment(last_seen),
                moment_of(raised),
                _moment(returned),
            )
            for alert_id, scope, tenant, address, host, family, last_seen, raised, returned in found
        ]


@dataclass(frozen=True, slots=True)
class _Rates:
    """Lines of this hour, of the one before, of a day, those of them understood; usual lines of such an hour."""

    this: int = 0
    before: int = 0
    day: int = 0
    understood: int = 0
    usual: float | None = None


_QUIET: Final = _Rates()


def _moment(value: object) -> datetime | None:
    return None if value is None else moment_of(value)


def _usual(weeks: object, days: object) -> float | None:
    """Usual lines of an hour: of the same hour of the same weekday, else of the last days."""
    found = weeks if weeks is not None else days
    return None if found is None else float(str(found))


def _row(row: Sequence[object], rates: _Rates, now: datetime) -> SourceRow:
    id_, tenant, address, host, family, lines, understood, marked, again, size, first, last, last_event, skew = row
    share = now.minute / 60  # of this hour that has passed: of the one before it the rest counts
    return SourceRow(
        id=int(str(id_)),
        name=SourceName(str(tenant), str(address), str(host), str(family)),
        lines=int(str(lines)),
        understood=int(str(understood)),
        marked=int(str(marked)),
        again=int(str(again)),
        bytes=int(str(size)),
        first_received=moment_of(first),
        last_received=moment_of(last),
        last_event=_moment(last_event),
        skew=None if skew is None else float(str(skew)),
        rate=(rates.this + rates.before * (1 - share)) / 60,
        usual=None if rates.usual is None else rates.usual / 60,
        recent=rates.day,
        recent_understood=rates.understood,
    )


_RUNS: Final = """
WITH said AS (
    SELECT run, tenant, sum(lines)::BIGINT AS lines, sum(durable)::BIGINT AS durable FROM collector_channels
    GROUP BY run, tenant
), before AS (
    SELECT run, tenant, arg_max(lines, noted) AS lines FROM taken WHERE epoch_us(noted) <= ? GROUP BY run, tenant
)
SELECT coalesce(s.tenant, c.tenant), coalesce(s.lines, 0), coalesce(s.durable, 0), coalesce(c.stored, 0),
    coalesce(c.quarantined, 0), coalesce(m.lines, 0), coalesce(b.lines, 0), s.run IS NOT NULL,
    r.run IS NOT NULL AND NOT r.final AND epoch_us(r.reported) > ?, coalesce(s.run, c.run) = ?
FROM said s
FULL JOIN run_counts c ON c.run = s.run AND c.tenant = s.tenant
LEFT JOIN missing m ON m.run = coalesce(s.run, c.run) AND m.tenant = coalesce(s.tenant, c.tenant)
LEFT JOIN before b ON b.run = coalesce(s.run, c.run) AND b.tenant = coalesce(s.tenant, c.tenant)
LEFT JOIN collector_runs r ON r.run = coalesce(s.run, c.run)
"""
"""Of each hospital and run: the members of `RunCount`."""

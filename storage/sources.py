"""Sources at rest: what comes off `tocsin.sources`, added up in the alert store's file.

Exactly once: the counts of a raw record are added in one transaction with the offset behind it, and rows of records
before that offset are left out. That is enough because the counts of a partition come in the order of its records: they
are published under one key, by whoever holds the partition, from the group's committed offset on, and before that is
moved. A collector's counts only grow, so of each run the newest report stands.

Bounded: `SOURCES_A_HOSPITAL`, then what is new counts as the source `*`; what is old goes (`storage.source_pruning`).

Hours have no key in the database (an index over all hours of all sources would take more memory than the sources):
they are found by their time, by which the table is ordered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import duckdb
import orjson
import polars as pl

from ingest.bus import TOPIC_RAW, Partition
from ingest.collector_report import CollectorReport
from ingest.source_counts import COUNTS_SCHEMA, OTHER, merged_counts
from storage.alert_codec import storable
from storage.alert_queue import microseconds
from storage.source import Silence
from storage.source_marks import count_before

SOURCES_A_HOSPITAL: Final = 10_000
"""Sources that are told apart in one hospital; a large one has some thousands of hosts."""

HEARING_GAP: Final = timedelta(seconds=60)
"""A listener that was not heard of for longer has not listened meanwhile, as far as is known."""

MARK_SECONDS: Final = 60
"""How often it is noted what was taken."""

KEEP_MARKS: Final = timedelta(hours=2)
_NAME: Final = ["tenant", "address", "host", "family"]


def add_counts(
    connection: duckdb.DuckDBPyConnection, counts: Sequence[pl.DataFrame], limit: int = SOURCES_A_HOSPITAL
) -> None:
    """Add counts (`COUNTS_SCHEMA`), leaving out the raw records that are added already."""
    fresh = _not_added(connection, counts).with_columns(pl.col("run").fill_null(""))
    if fresh.is_empty():
        return
    unread = pl.col("lines") == 0
    _add_unread(connection, fresh.filter(unread))
    _add_runs(connection, fresh)
    seen = fresh.filter(~unread)
    if seen.is_empty():
        return
    by_hour = seen.group_by([*_NAME, "hour"], maintain_order=True).agg(merged_counts())
    named = _numbered(connection, by_hour, limit)
    _add_totals(connection, named)
    _add_hours(connection, named)


def _not_added(connection: duckdb.DuckDBPyConnection, counts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The rows of raw records that are new, message by message; the positions move behind them."""
    stored = connection.execute('SELECT "partition", next_offset FROM positions WHERE topic = ?', [TOPIC_RAW])
    positions: dict[int, int] = {int(partition): int(offset) for partition, offset in stored.fetchall()}
    fresh = [pl.DataFrame(schema=COUNTS_SCHEMA)]
    moved: dict[int, int] = {}
    for message in counts:
        for (partition,), rows in message.partition_by("partition", as_dict=True).items():
            place = int(str(partition))
            new = rows.filter(pl.col("offset") >= positions.get(place, 0))
            if not new.is_empty():
                fresh.append(new)
                positions[place] = moved[place] = int(str(new["offset"].max())) + 1
    for place, offset in moved.items():
        store_position(connection, Partition(TOPIC_RAW, place), offset)
    return pl.concat(fresh)


def store_position(connection: duckdb.DuckDBPyConnection, partition: Partition, offset: int) -> None:
    """The next offset of a partition to be read or, of raw records, to be added."""
    connection.execute(
        "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
        [partition.topic, partition.partition, offset],
    )


def _add_unread(connection: duckdb.DuckDBPyConnection, unread: pl.DataFrame) -> None:
    lines = pl.col("quarantined")
    counted = unread.group_by("tenant", "address").agg(
        pl.len().alias("records"), (lines == 0).sum().alias("unsaid"), lines.sum().alias("lines")
    )
    for tenant, address, *numbers in counted.iter_rows():
        where = [storable(tenant), storable(address)]
        found = connection.execute(
            "UPDATE unread_counts SET records = records + ?, unsaid = unsaid + ?, lines = lines + ? "
            "WHERE tenant = ? AND address = ?",
            [*numbers, *where],
        ).fetchall()
        if not found or not found[0][0]:
            connection.execute("INSERT INTO unread_counts VALUES (?, ?, ?, ?, ?)", [*where, *numbers])


def _add_runs(connection: duckdb.DuckDBPyConnection, fresh: pl.DataFrame) -> None:
    """What each run of a collector brought; the look at the books that is under way gets what it is waiting for."""
    counted = fresh.group_by("run", "tenant").agg(
        pl.col("lines").sum(), pl.col("quarantined").sum(), pl.col("hour").max().alias("counted")
    )
    held = {
        (str(run), str(tenant)) for run, tenant in connection.execute("SELECT run, tenant FROM run_counts").fetchall()
    }
    for run, tenant, lines, quarantined, hour in counted.iter_rows():
        who = (storable(run), storable(tenant))
        if who not in held:
            connection.execute("INSERT INTO run_counts VALUES (?, ?, 0, 0, ?)", [*who, hour])
        connection.execute(
            "UPDATE run_counts SET stored = stored + ?, quarantined = quarantined + ?, counted = greatest(counted, ?) "
            "WHERE run = ? AND tenant = ?",
            [lines, quarantined, hour, *who],
        )
    count_before(connection, fresh)


def _numbered(connection: duckdb.DuckDBPyConnection, rows: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The rows with the numbers of their sources, by source and hour; new sources are made, up to the limit."""
    names = rows.select(_NAME).unique(maintain_order=True)
    known = _known(connection, names)
    new = [name for name in names.iter_rows() if name not in known]
    if new:
        counted = connection.execute("SELECT tenant, count(*) FROM sources GROUP BY tenant").fetchall()
        room = {str(tenant): limit - int(number) for tenant, number in counted}
        made: dict[tuple[str, ...], None] = {}
        other: list[tuple[str, ...]] = []
        for name in new:
            if room.setdefault(name[0], limit) > 0:
                made[name] = None
                room[name[0]] -= 1
            else:
                other.append(name)
        rest = {(name[0], OTHER, OTHER, OTHER) for name in other}
        beyond = _known(connection, pl.DataFrame(sorted(rest), schema=_NAME, orient="row")) if rest else {}
        made |= dict.fromkeys(sorted(rest - beyond.keys()))
        known |= beyond | _made(connection, list(made), rows)
        known |= {name: known[name[0], OTHER, OTHER, OTHER] for name in other}
    numbers = pl.DataFrame([(*name, number) for name, number in known.items()], schema=[*_NAME, "id"], orient="row")
    joined = rows.join(numbers, on=_NAME, how="inner")
    return joined.group_by("id", "hour", maintain_order=True).agg(merged_counts())


def _known(connection: duckdb.DuckDBPyConnection, names: pl.DataFrame) -> dict[tuple[str, ...], int]:
    connection.register("names", names)
    try:
        rows = connection.execute(
            "SELECT s.tenant, s.address, s.host, s.family, s.id FROM names n JOIN sources s "
            "ON s.tenant = n.tenant AND s.address = n.address AND s.host = n.host AND s.family = n.family"
        ).fetchall()
    finally:
        connection.unregister("names")
    return {
        (str(tenant), str(address), str(host), str(family)): int(id_) for tenant, address, host, family, id_ in rows
    }


def _made(
    connection: duckdb.DuckDBPyConnection, names: Sequence[tuple[str, ...]], rows: pl.DataFrame
) -> dict[tuple[str, ...], int]:
    last = connection.execute("SELECT coalesce(max(id), 0) FROM sources").fetchall()
    first = 1 + int(last[0][0])
    numbers = {name: number for number, name in enumerate(names, first)}
    begun = rows["last_received"].min()
    made = pl.DataFrame([(*name, number) for name, number in numbers.items()], schema=[*_NAME, "id"], orient="row")
    connection.register("made", made.with_columns(pl.lit(begun).alias("begun")))
    try:
        connection.execute(
            "INSERT INTO sources "
            "SELECT id, tenant, address, host, family, 0, 0, 0, 0, 0, begun, begun, NULL, NULL, NULL FROM made"
        )
    finally:
        connection.unregister("made")
    return numbers


def _add_totals(connection: duckdb.DuckDBPyConnection, rows: pl.DataFrame) -> None:
    connection.register("incoming", rows.group_by("id").agg(merged_counts()))
    try:
        connection.execute(
            "UPDATE sources AS s SET lines = s.lines + i.lines, understood = s.understood + i.understood, "
            "marked = s.marked + i.marked, again = s.again + i.again, bytes = s.bytes + i.bytes, "
            "last_received = greatest(s.last_received, i.last_received), "
            "first_event = least(s.first_event, i.first_event), last_event = greatest(s.last_event, i.last_event), "
            # half of the old, half of the new: a clock that was set shows within a few flushes, one odd batch passes
            "skew = coalesce((s.skew + i.skew) / 2, i.skew, s.skew) "
            "FROM incoming AS i WHERE s.id = i.id"
        )
    finally:
        connection.unregister("incoming")


def _add_hours(connection: duckdb.DuckDBPyConnection, rows: pl.DataFrame) -> None:
    earliest = rows["hour"].min()
    connection.register("incoming", rows.select("id", "hour", "lines", "understood", "minutes"))
    try:
        connection.execute(
            "UPDATE source_hours AS h SET lines = h.lines + i.lines, understood = h.understood + i.understood, "
            "minutes = h.minutes | i.minutes FROM incoming AS i "
            "WHERE h.source = i.id AND h.hour = i.hour AND h.hour >= ?",
            [earliest],
        )
        connection.execute(
            "INSERT INTO source_hours SELECT i.id, i.hour, i.lines, i.understood, i.minutes FROM incoming AS i "
            "WHERE NOT EXISTS (SELECT 1 FROM source_hours h WHERE h.source = i.id AND h.hour = i.hour AND h.hour >= ?)",
            [earliest],
        )
    finally:
        connection.unregister("incoming")


def add_report(connection: duckdb.DuckDBPyConnection, report: CollectorReport) -> bool:
    """Let a collector's report take the place of the one before it of the same run; False if that is newer."""
    at = microseconds(report.at)
    run = storable(report.run)
    newer = connection.execute(
        "SELECT 1 FROM collector_runs WHERE run = ? AND (final OR epoch_us(reported) > ?)", [run, at]
    ).fetchall()
    if newer:
        return False
    for table in ("collector_runs", "collector_channels", "collector_listeners"):
        connection.execute(f"DELETE FROM {table} WHERE run = ?", [run])  # noqa: S608 - names above
    oldest = None if report.spool_oldest is None else microseconds(report.spool_oldest)
    connection.execute(
        "INSERT INTO collector_runs VALUES (?, make_timestamptz(?::BIGINT), ?, ?, make_timestamptz(?::BIGINT), ?)",
        [run, at, report.final, report.spool_bytes, oldest, report.waiting_bytes],
    )
    channels = [
        (run, seen.listener, seen.tenant, seen.address, seen.lines, seen.bytes, seen.durable)
        for seen in report.channels
    ]
    listeners = [
        (run, seen.listener, seen.tenant, seen.dropped, seen.kernel_dropped, orjson.dumps(dict(seen.refused)).decode())
        for seen in report.listeners
    ]
    _insert(connection, "collector_channels", channels)
    _insert(connection, "collector_listeners", listeners)
    for listener in sorted({storable(seen.listener) for seen in report.listeners}):
        _hear(connection, listener, at if oldest is None else min(at, oldest))
    return True


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[str | int, ...]]) -> None:
    if not rows:
        return
    stored = [tuple(storable(value) if isinstance(value, str) else value for value in row) for row in rows]
    connection.register("incoming", pl.DataFrame(stored, orient="row"))
    try:
        connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608 - one of ours
    finally:
        connection.unregister("incoming")


def _hear(connection: duckdb.DuckDBPyConnection, listener: str, at: int) -> None:
    rows = connection.execute(
        "SELECT epoch_us(since), epoch_us(through) FROM hearing WHERE listener = ?", [listener]
    ).fetchall()
    if not rows:
        connection.execute(
            "INSERT INTO hearing VALUES (?, make_timestamptz(?::BIGINT), make_timestamptz(?::BIGINT))",
            [listener, at, at],
        )
        return
    since, through = int(rows[0][0]), int(rows[0][1])
    if at - through > HEARING_GAP // timedelta(microseconds=1):
        since = at
    connection.execute(
        "UPDATE hearing SET since = make_timestamptz(?::BIGINT), through = make_timestamptz(?::BIGINT) "
        "WHERE listener = ?",
        [since, max(at, through), listener],
    )


def mark_taken(connection: duckdb.DuckDBPyConnection, now: datetime) -> None:
    """Note what collectors have taken of each hospital by now, once a minute; old notes go."""
    at = microseconds(now)
    last = connection.execute("SELECT coalesce(max(epoch_us(noted)), 0) FROM taken").fetchall()
    if 0 <= at - int(last[0][0]) < MARK_SECONDS * 1_000_000:
        return
    connection.execute(
        "INSERT INTO taken SELECT run, tenant, make_timestamptz(?::BIGINT), sum(lines) FROM collector_channels "
        "GROUP BY run, tenant",
        [at],
    )
    connection.execute("DELETE FROM taken WHERE epoch_us(noted) < ?", [microseconds(now - KEEP_MARKS)])


def expect(connection: duckdb.DuckDBPyConnection, names: Mapping[str, Sequence[str]], now: datetime) -> None:
    """Note since when sources of the registry (hospital -> names) are expected; those no longer named are forgotten."""
    wanted = {(storable(tenant), storable(name)) for tenant, listed in names.items() for name in listed}
    held = {
        (str(tenant), str(name))
        for tenant, name in connection.execute("SELECT tenant, name FROM expected_since").fetchall()
    }
    for tenant, name in held - wanted:
        connection.execute("DELETE FROM expected_since WHERE tenant = ? AND name = ?", [tenant, name])
    for tenant, name in sorted(wanted - held):
        connection.execute(
            "INSERT INTO expected_since VALUES (?, ?, make_timestamptz(?::BIGINT))", [tenant, name, microseconds(now)]
        )


def add_silence(connection: duckdb.DuckDBPyConnection, silence: Silence) -> bool:
    """Note a silence; False if it is noted already."""
    known = connection.execute("SELECT 1 FROM silences WHERE alert_id = ?", [silence.alert_id]).fetchall()
    if known:
        return False
    name = silence.name
    last_seen = None if silence.last_seen is None else microseconds(silence.last_seen)
    connection.execute(
        "INSERT INTO silences "
        "VALUES (?, ?, ?, ?, ?, ?, make_timestamptz(?::BIGINT), make_timestamptz(?::BIGINT), NULL)",
        [
            *(silence.alert_id, name.tenant, silence.scope.value, name.address, name.host, name.family),
            *(last_seen, microseconds(silence.raised)),
        ],
    )
    return True


def end_silence(connection: duckdb.DuckDBPyConnection, alert_id: str, returned: datetime) -> None:
    """A line came again."""
    connection.execute(
        "UPDATE silences SET returned = make_timestamptz(?::BIGINT) WHERE alert_id = ? AND returned IS NULL",
        [microseconds(returned), alert_id],
    )

"""A look at the books: whether all that was on the bus at one moment has come out of it.

Theory. A running sum says nothing about a line that is missing while others follow: they make up for it. So both sides
are cut at one place. At a moment it is noted what each run of a collector had said to be durable, and then where
`tocsin.raw` ended: those lines lie before these ends. Lines are counted by raw record, so those before the ends can be
told from those behind. When all before the ends is read and counted, each run must have at least as many lines there as
it had said. What it has fewer is missing; nothing that comes later changes that.

What cannot be seen: as many lines missing as the same run put on the bus between its report and the note, some
seconds'. In a quiet moment that is none, and what was found missing once stays found.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import duckdb
import polars as pl

from storage.alert_codec import storable
from storage.alert_queue import microseconds, moment_of


def begin_mark(connection: duckdb.DuckDBPyConnection, ends: Mapping[int, int], now: datetime) -> None:
    """Note what was said to be durable, and what of it is counted; `ends` were asked for after all of it was read.

    Args:
        connection: Of a transaction.
        ends: Partition of `tocsin.raw` -> the next offset to be written.
        now: The moment.
    """
    connection.execute("DELETE FROM mark_ends")
    connection.execute("DELETE FROM mark_counts")
    connection.execute("DELETE FROM marks WHERE NOT done")
    connection.execute("INSERT INTO marks VALUES (make_timestamptz(?::BIGINT), FALSE)", [microseconds(now)])
    for partition, end in ends.items():
        connection.execute("INSERT INTO mark_ends VALUES (?, ?)", [partition, end])
    # what is counted lies before the ends: it had been read
    connection.execute(
        "INSERT INTO mark_counts SELECT c.run, c.tenant, sum(c.durable)::BIGINT, "
        "coalesce(any_value(r.stored + r.quarantined), 0) FROM collector_channels c "
        "LEFT JOIN run_counts r ON r.run = c.run AND r.tenant = c.tenant GROUP BY c.run, c.tenant"
    )


def count_before(connection: duckdb.DuckDBPyConnection, fresh: pl.DataFrame) -> None:
    """Add counts (`ingest.source_counts.COUNTS_SCHEMA`, each record once) of records before the ends."""
    ends = connection.execute('SELECT "partition", next_offset FROM mark_ends').fetchall()
    if not ends:
        return
    schema = {"partition": pl.Int32(), "end": pl.Int64()}
    before = fresh.join(pl.DataFrame(ends, schema=schema, orient="row"), on="partition").filter(
        pl.col("offset") < pl.col("end")
    )
    counted = before.group_by("run", "tenant").agg((pl.col("lines") + pl.col("quarantined")).sum().alias("lines"))
    for run, tenant, lines in counted.iter_rows():
        connection.execute(
            "UPDATE mark_counts SET counted = counted + ? WHERE run = ? AND tenant = ?",
            [lines, storable(run), storable(tenant)],
        )


def end_mark(connection: duckdb.DuckDBPyConnection, now: datetime) -> None:
    """All before the ends is counted: keep what is missing."""
    found = connection.execute(
        "SELECT m.run, m.tenant, m.durable - m.counted FROM mark_counts m LEFT JOIN missing o "
        "ON o.run = m.run AND o.tenant = m.tenant WHERE m.durable - m.counted > coalesce(o.lines, 0)"
    ).fetchall()
    for run, tenant, lines in found:
        connection.execute("DELETE FROM missing WHERE run = ? AND tenant = ?", [run, tenant])
        connection.execute(
            "INSERT INTO missing VALUES (?, ?, ?, make_timestamptz(?::BIGINT))", [run, tenant, lines, microseconds(now)]
        )
    connection.execute("DELETE FROM marks WHERE done")
    connection.execute("UPDATE marks SET done = TRUE")
    connection.execute("DELETE FROM mark_ends")
    connection.execute("DELETE FROM mark_counts")


def open_mark(connection: duckdb.DuckDBPyConnection) -> tuple[datetime, dict[int, int]] | None:
    """The look that is under way: when it began, and the ends; None if there is none."""
    begun = connection.execute("SELECT epoch_us(noted) FROM marks WHERE NOT done").fetchall()
    if not begun:
        return None
    ends = connection.execute('SELECT "partition", next_offset FROM mark_ends').fetchall()
    return moment_of(begun[0][0]), {int(partition): int(end) for partition, end in ends}

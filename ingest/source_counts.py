"""What a batch of raw records says of the sources behind it: the rows of `tocsin.sources`.

A source is who speaks, as far as a line shows it: the hospital and the sender's address (both from the channel), the
host that the line names, and the family of the format that read it. Counts are kept apart by raw record, because the
record is what is delivered twice: whoever adds them up leaves out records that are added already, and the sum is exact
through every crash (`storage.sources`). They depend on the record alone, so that a second reading counts the same.

Nothing here is unbounded though hosts are named by the sender: a record counts for at most `SOURCES_A_RECORD` sources,
and what is beyond them counts as `OTHER`.

Times: what rests on a clock rests on ours. Hours and minutes are those of receipt, since the lines of an exercise or of
a disk that was read late bear other dates. The skew is ours less theirs, where the line has a time of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

import polars as pl

from ingest.bus import TOPIC_RAW, TOPIC_SOURCES, Message, Record
from ingest.envelope import (
    DATASET,
    EVENT_ID,
    HOST,
    ORIGINAL,
    PEER,
    RECEIVED,
    REMARK,
    TENANT,
    TIMESTAMP,
    UTC_MICROSECONDS,
    EventFrame,
)
from ingest.ipc import encode_frame
from ingest.rawbatch import BATCH_ID, BATCH_LINES

COUNTS_SCHEMA: Final[dict[str, pl.DataType]] = {
    "partition": pl.Int32(),  # the raw record: its partition and offset in `tocsin.raw`
    "offset": pl.Int64(),
    "run": pl.String(),  # of the collector that took the lines, from the record's header; "" if it does not say
    "tenant": pl.String(),
    "address": pl.String(),
    "host": pl.String(),  # empty where lines name none
    "family": pl.String(),  # of the format, such as "windows"; "unknown"; "" of a record that could not be read
    "hour": UTC_MICROSECONDS,  # of receipt
    "lines": pl.Int64(),  # all of them, those sent again too
    "understood": pl.Int64(),
    "marked": pl.Int64(),
    "again": pl.Int64(),  # recognised as sent before; they are stored all the same, and marked
    "quarantined": pl.Int64(),  # lines of a record that could not be read, as far as it says; no other count holds them
    "bytes": pl.Int64(),
    "minutes": pl.Int64(),  # bit n: something was received in minute n of the hour
    "first_event": UTC_MICROSECONDS,
    "last_event": UTC_MICROSECONDS,
    "last_received": UTC_MICROSECONDS,
    "dated": pl.Int64(),  # lines with a time of their own
    "skew": pl.Float64(),  # median of (received - event time) of those, in seconds; null if there are none
}
"""Columns of the value of a message on `tocsin.sources`."""

SOURCES_A_RECORD: Final = 500
"""Sources that one raw record counts for. A record has some thousands of lines of one sender; a relay of a large site
has some hundreds of hosts in them."""

OTHER: Final = "*"
"""Host and family of what is beyond a bound. No family has this name, so no line can claim it."""

HOST_LENGTH: Final = 255
"""Characters of a host's name that are kept: the longest name of DNS (RFC 1035, 2.3.4)."""

RUN_LENGTH: Final = 64
"""Characters of a run's name that are kept; ours have 16."""

UNKNOWN_FAMILY: Final = "unknown"

COUNTS_BYTES: Final = 1 << 19
"""About how much one message holds in memory: well below what Kafka takes at once."""

_KEY: Final = ("partition", "offset", "run", "tenant", "address", "host", "family", "hour")
_OWN_TIME: Final = pl.col(TIMESTAMP) != pl.col(RECEIVED)  # an event without one has that of receipt


def family_of(dataset: pl.Expr) -> pl.Expr:
    """The family of a format: what stands before the first dot of its name."""
    return dataset.str.extract(r"^([^.]*)", 1)


def run_of(record: Record) -> str:
    """The run of the collector that took a raw record's lines; empty if the record does not say."""
    return record.headers.get(BATCH_ID, "").partition(":")[0][:RUN_LENGTH]


def count_sources(
    frames: Iterable[EventFrame], again: Collection[str] = (), records: Iterable[Record] = ()
) -> pl.DataFrame:
    """Count the events of frames by raw record and source.

    Args:
        frames: Events.
        again: Ids of those that were recognised as sent before.
        records: The raw records that the events came in: their headers say which run of a collector took them.

    Returns:
        `COUNTS_SCHEMA`, by partition and offset.
    """
    known = pl.Series(list(again), dtype=pl.String)
    parts = [_narrow(frame, known) for frame in frames]
    if not parts:
        return pl.DataFrame(schema=COUNTS_SCHEMA)
    runs = pl.LazyFrame(
        [(record.partition, record.offset, run_of(record)) for record in records],
        schema={name: COUNTS_SCHEMA[name] for name in ("partition", "offset", "run")},
        orient="row",
    )
    named = pl.concat(parts).join(runs, on=["partition", "offset"], how="left").with_columns(_RUN)
    counted = named.group_by(_KEY).agg(*_counts()).sort(_KEY).collect()
    return _capped(counted).select(_COLUMNS)


def _narrow(frame: EventFrame, again: pl.Series) -> pl.LazyFrame:
    place = pl.col(EVENT_ID).str.extract_groups(r"^[^:]*:(?<partition>\d+):(?<offset>\d+):")
    received = pl.col(RECEIVED)
    return frame.events.lazy().select(
        place.struct.field("partition").cast(pl.Int32),
        place.struct.field("offset").cast(pl.Int64),
        pl.col(TENANT).alias("tenant"),
        pl.col(PEER).fill_null("").alias("address"),
        pl.col(HOST).fill_null("").str.slice(0, HOST_LENGTH).alias("host"),
        pl.col(DATASET).str.extract(r"^([^.]*)", 1).alias("family"),  # what stands before the first dot
        received.dt.truncate("1h").alias("hour"),
        (pl.col(DATASET) != UNKNOWN_FAMILY).alias("understood"),
        pl.col(REMARK).is_not_null().alias("marked"),
        (pl.col(EVENT_ID).is_in(again.implode()) if len(again) else pl.lit(value=False)).alias("again"),
        pl.col(ORIGINAL).str.len_bytes().cast(pl.Int64).alias("bytes"),
        received.dt.minute().cast(pl.Int64).alias("minute"),
        pl.col(TIMESTAMP).alias("event"),
        received.alias("received"),
        pl.when(_OWN_TIME).then((received - pl.col(TIMESTAMP)).dt.total_microseconds() / 1e6).alias("skew"),
    )


def _counts() -> tuple[pl.Expr, ...]:
    return (
        pl.len().cast(pl.Int64).alias("lines"),
        *(pl.col(name).cast(pl.Int64).sum().alias(name) for name in ("understood", "marked", "again", "bytes")),
        pl.lit(0, pl.Int64).alias("quarantined"),
        pl.lit(2, pl.Int64).pow(pl.col("minute").unique()).sum().cast(pl.Int64).alias("minutes"),
        pl.col("event").min().alias("first_event"),
        pl.col("event").max().alias("last_event"),
        pl.col("received").max().alias("last_received"),
        pl.col("skew").count().cast(pl.Int64).alias("dated"),
        pl.col("skew").median().alias("skew"),
    )


def _capped(counts: pl.DataFrame) -> pl.DataFrame:
    """The same with at most `SOURCES_A_RECORD` sources a record: the first by name, the same each time."""
    place = pl.int_range(pl.len()).over("partition", "offset")
    if counts.group_by("partition", "offset").len()["len"].max() <= SOURCES_A_RECORD:  # type: ignore[operator]
        return counts
    beyond = place >= SOURCES_A_RECORD
    named = [pl.when(beyond).then(pl.lit(OTHER)).otherwise(pl.col(name)).alias(name) for name in ("host", "family")]
    return counts.with_columns(named).group_by(_KEY, maintain_order=True).agg(merged_counts())


def merged_counts() -> list[pl.Expr]:
    """How rows of `COUNTS_SCHEMA` become one: for `agg`."""
    dated = pl.col("dated")
    return [
        *(pl.col(name).sum() for name in ("lines", "understood", "marked", "again", "quarantined", "bytes")),
        pl.col("minutes").bitwise_or(),
        pl.col("first_event").min(),
        pl.col("last_event").max(),
        pl.col("last_received").max(),
        dated.sum(),
        ((pl.col("skew").fill_null(0) * dated).sum() / pl.when(dated.sum() > 0).then(dated.sum())).alias("skew"),
    ]


def count_quarantined(records: Iterable[Record], now: datetime) -> pl.DataFrame:
    """Rows for raw records that could not be read: their key says whose they were, and a header how many lines.

    A record without that header (another producer wrote it) counts as no line: the equation then shows them as missing.
    """
    rows = []
    for record in records:
        tenant, _, address = record.key.partition("/")
        lines = record.headers.get(BATCH_LINES, "")
        rows.append(
            {
                "partition": record.partition,
                "offset": record.offset,
                "run": run_of(record),
                "tenant": tenant,
                "address": address,
                "hour": now.replace(minute=0, second=0, microsecond=0),
                "quarantined": int(lines) if lines.isascii() and lines.isdecimal() and len(lines) < _DIGITS else 0,
                "bytes": len(record.value),
                "host": "",
                "family": "",
                **dict.fromkeys(("lines", "understood", "marked", "again", "minutes", "dated"), 0),
            }
        )
    return pl.DataFrame(rows, schema=COUNTS_SCHEMA)


def count_messages(counts: Sequence[pl.DataFrame]) -> list[Message]:
    """Counts as bus messages, a record never in two of them, the partition of the records as the key.

    The key keeps the order of the records, which whoever adds them up relies on.
    """
    whole = pl.concat([pl.DataFrame(schema=COUNTS_SCHEMA), *counts]).sort(_KEY)
    return [
        Message(TOPIC_SOURCES, f"{TOPIC_RAW}/{partition}", encode_frame(part))
        for (partition,), rows in whole.partition_by("partition", as_dict=True, maintain_order=True).items()
        for part in _parts(rows)
    ]


def _parts(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows of a partition in parts of about `COUNTS_BYTES`, cut between records."""
    height = max(1, int(COUNTS_BYTES / max(1.0, rows.estimated_size() / rows.height)))
    offsets = rows["offset"]
    start = 0
    while start < rows.height:
        end = min(start + height, rows.height)
        if end < rows.height:  # up to the end of the record that the cut would go through
            end = int(offsets.search_sorted(offsets[end - 1], "right"))
        yield rows[start:end]
        start = end


_DIGITS: Final = 10
_RUN: Final = pl.col("run").fill_null("")
_COLUMNS: Final = [pl.col(name).cast(kind) for name, kind in COUNTS_SCHEMA.items()]

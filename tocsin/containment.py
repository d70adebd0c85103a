"""What a single hostile line may cost: itself, and nothing more.

Parsing and matching promise not to raise, whatever a line holds. A defect of ours can break that promise, and the line
that finds it is chosen by whoever wants Tocsin to stop: without containment it would end the process, and end it again
at every start, since the record is read again. So a batch that fails is halved until the lines at fault stand alone.
A line that cannot be parsed is kept whole as an unknown event, marked and searchable; an event that cannot be matched
stays in the lake. Both are logged as the defects they are, and counted.

Contained are errors of content (`DEFECTS`). Those of the machine (memory, disk, the bus) pass through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, TypeVar

import polars as pl
import structlog

from detections.plan import Plan
from ingest.envelope import (
    DATASET,
    ENVELOPE,
    EVENT_ID,
    ORIGINAL,
    PEER,
    RECEIVED,
    REMARK,
    TENANT,
    TIMESTAMP,
    EventFrame,
)
from ingest.logsource import UNKNOWN
from ingest.parse import decode_lines, parse
from ingest.readings import Readings
from ingest.visible import visible

log = structlog.get_logger()

DEFECTS: Final = (
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    pl.exceptions.PanicException,
    pl.exceptions.PolarsError,
)
"""What code that meets a value it did not expect raises."""

T = TypeVar("T")


def contained(work: Callable[[pl.DataFrame], T], rows: pl.DataFrame, fail: Callable[[pl.DataFrame, str], T]) -> list[T]:
    """`work` on all rows at once; where that fails, on halves of them, down to the rows at fault.

    Args:
        work: What may meet a defect.
        rows: What to work on.
        fail: Given a single row that cannot be worked on, and the error; its answer takes the place of work's.
    """
    try:
        return [work(rows)]
    except DEFECTS as error:
        if rows.height <= 1:
            reason = visible(f"{type(error).__name__}: {error}")[:300]
            return [fail(rows, reason)]
    half = rows.height // 2
    return [*contained(work, rows[:half], fail), *contained(work, rows[half:], fail)]


def parse_contained(raw: pl.DataFrame, readings: Readings | None = None) -> list[EventFrame]:
    """`ingest.parse.parse`; a line that makes it fail becomes an unknown event with the error as its remark."""

    def read(part: pl.DataFrame) -> list[EventFrame]:
        return parse(part, readings)

    return [frame for frames in contained(read, raw, _unparsed) for frame in frames]


def _unparsed(raw: pl.DataFrame, reason: str) -> list[EventFrame]:
    log.error("parsing failed on a line: kept as unknown", event_id=raw.item(0, EVENT_ID), reason=reason)
    events = raw.select(
        pl.col(EVENT_ID),
        pl.col("tenant").alias(TENANT),
        pl.col("received").alias(TIMESTAMP),
        pl.col("received").alias(RECEIVED),
        pl.lit("unknown").alias(DATASET),
        pl.col("peer").alias(PEER),
        pl.lit(f"parsing failed: {reason}").alias(REMARK),
        decode_lines(raw["line"], {}).alias(ORIGINAL),
    )
    missing = [pl.lit(None, kind).alias(name) for name, kind in ENVELOPE.items() if name not in events.columns]
    return [EventFrame(UNKNOWN, events.with_columns(missing).select(list(ENVELOPE)))]


def match_contained(
    plan: Plan, frame: EventFrame, *, events_of: Collection[str] | None = None
) -> tuple[pl.DataFrame, int]:
    """`Plan.match`, and the number of events it failed on, which have no matches here."""
    failed = 0

    def match(events: pl.DataFrame) -> pl.DataFrame | None:
        return plan.match(EventFrame(frame.logsource, events), events_of=events_of)

    def unmatched(events: pl.DataFrame, reason: str) -> None:
        nonlocal failed
        failed += 1
        log.error("matching failed on an event", event_id=events.item(0, EVENT_ID), reason=reason)

    found = [matches for matches in contained(match, frame.events, unmatched) if matches is not None]
    return (pl.concat(found) if found else plan.match(EventFrame(frame.logsource, frame.events.clear()))), failed

"""How much of `tocsin.raw` a step of `detect` takes on: by lines, since a record may hold one or thousands.

Whoever comes next waits for all that a step has taken on. On Kafka the records of a step are of each partition in turn,
so that a quiet hospital waits for a step or two, whatever backlog lies in the partition of another. The embedded bus
has one partition, and its lines come in the order in which they were put there.
"""

from __future__ import annotations

from typing import Final

from ingest.bus import Record, Subscription
from ingest.rawbatch import BATCH_LINES

RECORDS_A_POLL: Final = 8
LINES_A_STEP: Final = 50_000
BYTES_A_STEP: Final = 16 * 1024 * 1024
"""Records are read by the eight until there are so many lines, or bytes on the bus."""

UNSAID_LINES: Final = 4_000
"""Lines that a record is held to have that does not say: as many as a collector's batch has at most by default."""


def poll_step(subscription: Subscription, timeout: float, max_records: int) -> list[Record]:
    """The records of a step; waits only for the first of them.

    Raises:
        BusError: The bus cannot be read.
    """
    records: list[Record] = []
    lines = size = 0
    while len(records) < max_records and lines < LINES_A_STEP and size < BYTES_A_STEP:
        wanted = min(RECORDS_A_POLL, max_records - len(records))
        polled = subscription.poll(0.0 if records else timeout, wanted)
        records += polled
        lines += sum(lines_said(record) for record in polled)
        size += sum(len(record.value) for record in polled)
        if len(polled) < wanted:
            break
    return records


def lines_said(record: Record) -> int:
    """How many lines a record says that it holds."""
    said = record.headers.get(BATCH_LINES, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 10 else UNSAID_LINES

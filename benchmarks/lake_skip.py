"""How much of the lake a search leaves out, before and after compaction, and what compaction takes.

    python -m benchmarks.lake_skip --files 400 --rows 4000

Writes a day of one hospital as a worker does (a file every few seconds, events late by up to a minute, six bus
partitions of unlike rates), then searches one hour and finds events by their ids, compacts, and does the same again.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from ingest.bus import Position
from ingest.envelope import ENVELOPE, EventFrame
from ingest.logsource import LogSource
from storage.lake import Lake
from storage.lake_compact import compact
from storage.lake_scan import ScanCounts

DAY = datetime(2026, 1, 5, tzinfo=UTC)
TABLE = "events/windows.process_creation._"
RATES = (40, 13, 5, 3, 2, 1)


def main() -> None:
    """Write, search, compact, search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--file-bytes", type=int, default=16 << 20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder))
        fill(lake, options.files, options.rows)
        wanted = [f"tocsin.raw:{at % 6}:{at * 7 * RATES[at % 6]}:0" for at in range(10)]
        search("before", lake, wanted)
        begun = time.perf_counter()
        done = compact(
            lake.place, TABLE, file_bytes=options.file_bytes, now=lambda: datetime.now(UTC) + timedelta(days=1)
        )
        seconds = time.perf_counter() - begun
        print(
            f"compaction: {done.files_before} files, {done.bytes_before / 1e6:.0f} MB -> {done.files_after} files, "
            f"{done.bytes_after / 1e6:.0f} MB, {done.rows / seconds:,.0f} rows/s, "
            f"most memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
        )
        search("after", lake, wanted)


def fill(lake: Lake, files: int, rows: int) -> None:
    """One file a flush; offsets of a partition grow at its rate."""
    chance = random.Random(5)  # noqa: S311 - a repeatable choice
    writer = lake.writer()
    step = timedelta(days=1) / files
    for number in range(files):
        partition = number % len(RATES)
        offset = number * RATES[partition]
        seconds = [chance.random() * step.total_seconds() - chance.choice([0, 0, 0, 60]) for _ in range(rows)]
        times = [max(DAY, DAY + step * number + timedelta(seconds=second)) for second in seconds]
        frame = pl.DataFrame(
            {
                "event.id": [f"tocsin.raw:{partition}:{offset}:{row}" for row in range(rows)],
                "organization.id": ["CH de Kermor"] * rows,
                "@timestamp": times,
                "event.created": times,
                "host.name": [f"pc-{chance.randrange(500)}" for _ in range(rows)],
                "event.original": [f"process {chance.getrandbits(200):x} was started" for _ in range(rows)],
                "CommandLine": [f"C:\\tool.exe /run {chance.getrandbits(100):x}" for _ in range(rows)],
            }
        )
        missing = [pl.lit(None, kind).alias(name) for name, kind in ENVELOPE.items() if name not in frame.columns]
        frame = frame.with_columns(missing).select(*ENVELOPE, "CommandLine").cast(dict(ENVELOPE))  # type: ignore[arg-type]
        writer.add(
            [EventFrame(LogSource("windows", "process_creation"), frame)], Position("tocsin.raw", partition, offset)
        )
        writer.flush()


def search(when: str, lake: Lake, wanted: list[str]) -> None:
    """One hour, and ten events by their ids."""
    counts = ScanCounts()
    begun = time.perf_counter()
    since = DAY + timedelta(hours=9)
    rows = sum(part.events.height for part in lake.read(since=since, until=since + timedelta(hours=1), counts=counts))
    read = time.perf_counter()
    found = len(lake.find(wanted))
    ended = time.perf_counter()
    print(
        f"{when}: an hour is {rows:,} rows in {read - begun:.2f} s; {counts.skipped_files} of {counts.files} files "
        f"({counts.share:.0%}) left out; {found} events found by id in {(ended - read) * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()

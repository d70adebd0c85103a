"""A hunt through a lake of fifty million events: events and bytes a second, what is left unread, memory.

    python -m benchmarks.hunt_lake [--events 50000000] [--folder DIR] [--ask all day hospital one queries] [--keep]

The lake: 200,000 varied lines (Windows process creations in JSON, Sysmon file events, Snare, a firewall's and
sshd's; a thousandth of them matches a rule) are parsed once. Every day of every one of ten hospitals gets them with
times of that day and hosts of that hospital. The first goes in through `Lake.writer`, which makes the tables; the
others are written by `storage.lake_sorted.SortedFiles`, what compaction writes with, so that layout, row groups,
statistics and hashes are those of a lake after compaction. What a day of a hospital holds is thereby like that of
others; inside a file the values are repeated as often as in the 200,000 lines, so it compresses better than real logs.

Asked, each in a process of its own, over all rules of SigmaHQ and the product's own: everything; one day; one hospital;
one day of one hospital; and `tocsin lake query` for one address and one host. Bytes are those of the Parquet files that
were not left out, and of the raw lines that their events came from.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties

from benchmarks.lanes import REPOSITORY, SIGMAHQ, _lane_lines
from benchmarks.region_lines import firewall_text, frame_of, nxlog_text, split_by_rules, sshd_text
from ingest.bus import Position
from ingest.envelope import EVENT_ID, HOST, ORIGINAL, RECEIVED, SOURCE_IP, TENANT, TIMESTAMP, EventFrame
from storage.lake import Lake
from storage.lake_columns import DATE, PARTITION_COLUMNS, to_lake, with_bookkeeping
from storage.lake_compact import compact
from storage.lake_files import Written, hashes_of
from storage.lake_scan import Snapshot
from storage.lake_sorted import SortedFiles
from tocsin.containment import parse_contained
from tocsin.settings_sections import LakeSection
from tocsin.text_table import table_lines

RULES: Final = (SIGMAHQ, REPOSITORY / "rules")
HOSPITALS: Final = 10
CELL: Final = 200_000
"""Events of one hospital on one day."""
RECORD: Final = 1000
"""Events of one bus record."""
BEGUN: Final = datetime(2026, 10, 1, tzinfo=UTC)
NEEDLE: Final = "203.0.113.77"
"""An address that one event of one hospital has."""
FILE_BYTES: Final = LakeSection().file_bytes
FIGURES: Final = Path(__file__).parent / "figures" / "hunt_lake.json"
ASKED: Final = ("all", "day", "hospital", "one", "queries")
SECONDS: Final = re.compile(r"in ([\d,.]+) s \(")
EVENTS: Final = re.compile(r"^([\d,]+) events?:", re.MULTILINE)
MATCHES: Final = re.compile(r"^([\d,]+) match(?:es)? in", re.MULTILINE)
READ: Final = re.compile(r"^([\d,]+) files? of the lake read \(([\d,.]+) MB\)", re.MULTILINE)
LEFT: Final = re.compile(r"^([\d,]+) files? left out", re.MULTILINE)


@dataclass(frozen=True)
class Made:
    """A lake that was made; `raw_bytes` is of one hospital on one day."""

    cells: int
    cell_rows: int
    raw_bytes: int
    files: int
    bytes: int
    tables: int
    seconds: float


@dataclass(frozen=True)
class Asked:
    """What one question took, in a process of its own."""

    what: str
    seconds: float
    cpu: float
    peak_mb: int
    events: int
    rows: int
    files: int
    left_out: int
    parquet_bytes: int
    raw_bytes: int


def template(rows: int) -> list[EventFrame]:
    """Events of one hospital on one day, by log source."""
    draw = random.Random(11)  # noqa: S311 - the same lines every time is the point
    texts = {name: _lane_lines(name) for name in ("structured_windows", "sysmon_file_event")}
    texts["raw_windows"] = [str(json.loads(line)["message"]).encode() for line in _lane_lines("raw_windows")]
    parted = {name: split_by_rules(lines, RULES) for name, lines in texts.items()}
    lines: list[bytes] = []
    for number in range(rows):
        kind, host = draw.random(), f"pc-{draw.randrange(400)}"
        lane = next((name for limit, name in LANES if kind < limit), None)
        if lane is None:
            text = sshd_text(draw) if kind > 0.9 else firewall_text(draw)
        else:
            quiet, loud = parted[lane]
            line = draw.choice(loud if draw.random() < 0.001 else quiet)
            if lane == "raw_windows":
                lines.append(line)
                continue
            text = nxlog_text(draw, line, host, number)
        lines.append(f"<134>1 2026-10-01T10:00:00.{number % 1_000_000:06d}Z {host} {text}".encode())
    return parse_contained(frame_of(lines, "CH 0", BEGUN))


LANES: Final = ((0.35, "structured_windows"), (0.50, "sysmon_file_event"), (0.65, "raw_windows"))
"""Shares that add up, of the lanes; beyond, the firewall's and sshd's."""


def cell_events(events: pl.DataFrame, table: int, day: int, hospital: int) -> tuple[pl.DataFrame, list[Position]]:
    """A table's events with the times of a day, the hosts of a hospital, and ids of their own; and their records."""
    height = events.height
    draw = random.Random(f"{table}-{day}-{hospital}")  # noqa: S311
    seconds = pl.Series(sorted(draw.random() * 86_399 for _ in range(height)), dtype=pl.Float64)
    moments = ((seconds * 1e6).cast(pl.Int64) + int((BEGUN + timedelta(days=day)).timestamp()) * 10**6).cast(
        pl.Datetime("us", "UTC")
    )
    first = ((day * HOSPITALS + hospital) * 32 + table) * (CELL // RECORD + 1)
    partition = hospital % 6
    row = pl.int_range(height)
    changed = events.with_columns(
        moments.alias(TIMESTAMP),
        (moments + timedelta(seconds=2)).alias(RECEIVED),
        pl.lit(f"CH {hospital}").alias(TENANT),
        (pl.col(HOST) + f".ch{hospital}.example").alias(HOST),
        pl.format("tocsin.raw:{}:{}:{}", pl.lit(partition), first + row // RECORD, row % RECORD).alias(EVENT_ID),
    )
    if (day, hospital) == (1, 3):
        there = (row == 7) & pl.col(SOURCE_IP).is_not_null()
        changed = changed.with_columns(
            pl.when(there).then(pl.lit(NEEDLE)).otherwise(pl.col(SOURCE_IP)).alias(SOURCE_IP)
        )
    return changed, [Position("tocsin.raw", partition, first + at) for at in range(-(-height // RECORD))]


def build(folder: Path, events: int) -> Made:
    """The lake."""
    begun = time.monotonic()
    cell_rows = min(CELL, max(1000, events // HOSPITALS))
    days = -(-events // (HOSPITALS * cell_rows))
    frames = template(cell_rows)
    lake = Lake(folder)
    writer = lake.writer()
    for table, frame in enumerate(frames):
        changed, positions = cell_events(frame.events, table, 0, 0)
        for at, position in enumerate(positions):
            writer.add([EventFrame(frame.logsource, changed[at * RECORD : (at + 1) * RECORD])], position)
    writer.flush()
    snapshots = {snapshot.logsource: snapshot for snapshot in lake.snapshots()}
    cells = [(day, hospital) for day in range(days) for hospital in range(HOSPITALS)][1:]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for table, frame in enumerate(frames):
            snapshot = snapshots[frame.logsource]

            def write(
                cell: tuple[int, int], table: int = table, frame: EventFrame = frame, to: Snapshot = snapshot
            ) -> list[Written]:
                return write_cell(folder, to, frame.events, table, *cell)

            commit(snapshot, [written for found in pool.map(write, cells) for written in found])
            compact(lake.place, snapshot.path, file_bytes=FILE_BYTES, now=lambda: datetime.now(UTC) + timedelta(days=1))
    sizes = [
        int(size)
        for snapshot in lake.snapshots()
        for size in snapshot.delta.get_add_actions(flatten=True)["size_bytes"].to_pylist()
    ]
    raw = sum(int(frame.events.get_column(ORIGINAL).str.len_bytes().sum()) for frame in frames)
    rows = sum(frame.events.height for frame in frames)
    return Made(len(cells) + 1, rows, raw, len(sizes), sum(sizes), len(frames), time.monotonic() - begun)


def write_cell(
    root: Path, table: Snapshot, events: pl.DataFrame, number: int, day: int, hospital: int
) -> list[Written]:
    """One hospital's day of one table, as compaction writes it."""
    changed, positions = cell_events(events, number, day, hospital)
    columns = [field.name for field in table.delta.schema().fields]
    heights = [min(RECORD, events.height - at * RECORD) for at in range(len(positions))]
    rows = with_bookkeeping(to_lake(changed, columns), list(zip(positions, heights, strict=True)))
    whole = pa.schema(table.delta.schema().to_arrow(as_large_types=True))  # type: ignore[arg-type]
    schema = pa.schema(
        [column for column in whole if column.name in rows.columns and column.name not in PARTITION_COLUMNS]
    )
    date, tenant = f"{BEGUN + timedelta(days=day):%Y-%m-%d}", f"CH {hospital}"
    folder = f"{DATE}={date}/{TENANT}={quote(tenant, safe='')}"
    (root / table.path / folder).mkdir(parents=True, exist_ok=True)
    files = SortedFiles(table.place, table.path, folder, {DATE: date, TENANT: tenant}, schema, FILE_BYTES)
    files.write(rows.select(schema.names).to_arrow().cast(schema))
    return files.close()


def commit(table: Snapshot, written: Sequence[Written]) -> None:
    """Name the files in the table's log."""
    if written:
        table.delta.create_write_transaction(
            [file.action for file in written],
            "append",
            table.delta.schema(),
            list(PARTITION_COLUMNS),
            commit_properties=CommitProperties(custom_metadata=hashes_of(written)),
        )


def hunt(what: str, folder: Path, made: Made, scope: Sequence[str]) -> Asked:
    """One hunt, with all rules."""
    rules = [part for path in RULES for part in ("--rules", str(path))]
    took, cpu, peak, said = command("hunt", *rules, "--lake-path", str(folder), "--json", *scope)
    events = _number(EVENTS, said)
    files, left = _number(READ, said), _number(LEFT, said)
    megabytes = READ.search(said)
    size = int(float(megabytes[2].replace(",", "")) * 1e6) if megabytes else 0
    return Asked(what, took, cpu, peak, events, _number(MATCHES, said), files, left, size, _raw(made, events))


def ask(what: str, folder: Path, made: Made, sql: str) -> Asked:
    """One question in SQL; how many files it opens is not known."""
    (folder.parent / "config.toml").write_text(f"data_dir = {json.dumps(str(folder.parent))}\n")
    config = str(folder.parent / "config.toml")
    rows = folder.parent / "rows.json"
    took, cpu, peak, _ = command("lake", "query", sql, "--format", "json", "--output", str(rows), "--config", config)
    found = len(rows.read_bytes().splitlines())
    events = made.cells * made.cell_rows
    return Asked(what, took, cpu, peak, events, found, made.files, 0, made.bytes, _raw(made, events))


def command(*arguments: str) -> tuple[float, float, int, str]:
    """Run Tocsin: seconds, CPU seconds, the most MB it held, and what it said on stderr."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LANGUAGE": "en", "LC_ALL": "C.UTF-8"}
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tocsin", *arguments], stdout=subprocess.DEVNULL, stderr=said, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.monotonic() - begun
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f"{arguments[0]} failed: {text[-2000:]}")
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10, text


def questions(folder: Path, made: Made, asked: Sequence[str]) -> Iterator[Asked]:
    """All that was asked for."""
    day = ["--since", f"{BEGUN + timedelta(days=1):%Y-%m-%d}", "--until", f"{BEGUN + timedelta(days=2):%Y-%m-%d}"]
    scopes = {"all": [], "day": day, "hospital": ["--tenant", "CH 3"], "one": [*day, "--tenant", "CH 3"]}
    names = {
        "all": "hunt: all",
        "day": "hunt: a day",
        "hospital": "hunt: a hospital",
        "one": "hunt: a day of a hospital",
    }
    for name in asked:
        if name in scopes:
            yield hunt(names[name], folder, made, scopes[name])
        else:
            address = f"SELECT * FROM events WHERE \"source.ip\" = '{NEEDLE}'"  # noqa: S608 - a constant
            yield ask("query: one address", folder, made, address)
            host = "SELECT * FROM events WHERE \"host.name\" = 'pc-12.ch3.example'"
            yield ask("query: one host", folder, made, host)
            hour = f"{host} AND date = '{BEGUN + timedelta(days=1):%Y-%m-%d}'"
            yield ask("query: one host on one day", folder, made, hour)


def told(made: Made, asked: Sequence[Asked]) -> list[str]:
    """The table for people."""
    heads = [
        *("question", "s", "CPU s", "peak MB", "events", "rows", "events/s", "Parquet GB/s", "raw GB/s"),
        *("files read", "left out"),
    ]
    rows = [
        [
            *(one.what, f"{one.seconds:.1f}", f"{one.cpu:.1f}", str(one.peak_mb), f"{one.events:,}", f"{one.rows:,}"),
            *(f"{one.events / one.seconds:,.0f}", f"{one.parquet_bytes / one.seconds / 1e9:.3f}"),
            *(f"{one.raw_bytes / one.seconds / 1e9:.3f}", str(one.files)),
            "?" if one.what.startswith("query") else f"{one.left_out / max(1, one.files + one.left_out):.1%}",
        ]
        for one in asked
    ]
    events = made.cells * made.cell_rows
    about = (
        f"{events:,} events in {made.tables} tables, {made.files} files, {made.bytes / 1e9:.2f} GB "
        f"({made.bytes / events:.0f} bytes an event; {made.raw_bytes / made.cell_rows:.0f} raw), "
        f"made in {made.seconds:.0f} s"
    )
    return [about, *table_lines(heads, rows, numbers=range(1, len(heads)))]


def _raw(made: Made, events: int) -> int:
    return made.raw_bytes * events // made.cell_rows


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found[1].replace(",", "")) if found else 0


def main() -> None:
    """Make, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=50_000_000)
    parser.add_argument("--folder", type=Path, help="of the lake; used again if it holds one that was made here")
    parser.add_argument("--ask", nargs="*", choices=ASKED, default=list(ASKED))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="tocsin-hunt-"))
    known = folder / "made.json"
    try:
        if known.exists():
            made = Made(**json.loads(known.read_text()))
        else:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # this one is to stay small: a
                made = pool.submit(build, folder / "lake", options.events).result()  # child counts what it forked from
            known.write_text(json.dumps(asdict(made)))
        print("\n".join(told(made, [])), flush=True)
        found = []
        for one in questions(folder / "lake", made, options.ask):
            found.append(one)
            print(one, flush=True)
        about = {"cores": os.cpu_count(), "python": platform.python_version(), "lake": asdict(made)}
        text = json.dumps({**about, "asked": [asdict(one) for one in found]}, indent=1)
        print(text)
        print("\n".join(told(made, found)))
        if options.output is not None:
            options.output.write_text(text + "\n")
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

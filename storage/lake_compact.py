"""Compaction: many small files become few large ones in the order of time, so that hunts can leave most of them out.

A worker makes a file every few seconds for each log source, day and hospital. Put together they compress better, open
faster, and, sorted, answer "this hour" from one file and a few of its row groups.

Two ways, by whether files still come into a day of a hospital:

- *Growing* (today, or files came within the last hour): files of about one size are put together when there are
  `FAN_IN` of them, which gives larger ones, and so on; each row is written about three times. Very new files are left
  alone.
- *Settled*: what overlaps in time is merged, and small neighbours are put together, until the files follow each other
  in time: one sorted run. A late file then costs the rewriting of what it overlaps, once.

Files without a day are kept by the day they were written (`storage.lake_retention`), so they are put together by it,
and what is made of them bears it.

One job is one Delta commit, which adds and removes files and changes no data (`storage.lake_removal`): readers see the
one or the other, appends go on beside it, the bus offsets that a table remembers stay. A crash before it leaves files
that nothing names; `storage.lake_cleanup` removes them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from storage.errors import LakeError
from storage.lake_columns import DATE, PARTITION_COLUMNS
from storage.lake_files import Written, hashes_of, sync_checkpoint, sync_commits
from storage.lake_merge import ParquetInputs, sweep
from storage.lake_place import LakePlace
from storage.lake_removal import LakeFile, RemovalConflict, files_of, replace_files
from storage.lake_sorted import SortedFiles
from storage.lake_table import CHECKPOINT_EVERY, LAKE_FAULTS

FAN_IN: Final = 8
"""Files of one size that are put together while a day grows: at most 7 of each size wait, and there are few sizes."""
SETTLED_AFTER: Final = timedelta(hours=1)
VERY_NEW: Final = timedelta(seconds=60)
OVERLAP: Final = timedelta(seconds=1)
"""Files that share less time than this count as following each other. The log's statistics are rounded to milliseconds,
and events of one moment cannot be put in an order."""
SMALL: Final = 0.5  # of the wanted size
MOST_FILES: Final = 1000  # of a job
MOST_BYTES: Final = 4  # wanted sizes in a job: what is lost when it is broken off, and how much disk it takes
WIDE: Final = 200
"""Columns from which on files are made smaller: what a file says of its row groups and columns is held in memory."""
_LEAST_TIER: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Job:
    """Files of one day and hospital to put together, in the order of time."""

    files: tuple[LakeFile, ...]

    @property
    def bytes(self) -> int:
        """Of the files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done to a table."""

    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rows: int = 0
    conflicts: int = 0

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(
            self.files_before + other.files_before,
            self.files_after + other.files_after,
            self.bytes_before + other.bytes_before,
            self.bytes_after + other.bytes_after,
            self.rows + other.rows,
            self.conflicts + other.conflicts,
        )


def wanted_bytes(file_bytes: int, columns: int) -> int:
    """The size of file to make in a table with so many columns."""
    return max(1 << 20, file_bytes if columns <= WIDE else file_bytes * WIDE // columns)


def plan(files: Sequence[LakeFile], now: datetime, wanted: int) -> list[Job]:
    """What to put together, oldest day first; no file is in two jobs.

    Args:
        files: Of one version of a table.
        now: The present, with time zone.
        wanted: Size of file to make.
    """
    partitions: defaultdict[tuple[date | None, str | None, date], list[LakeFile]] = defaultdict(list)
    for file in files:
        partitions[(*file.partition, _day_of(file))].append(file)
    jobs: list[Job] = []
    for (*_, day), found in sorted(partitions.items(), key=lambda item: str(item[0])):
        newest = max(file.written for file in found)
        settled = day != now.astimezone(UTC).date() and newest < now - SETTLED_AFTER
        jobs += _tidy(found, wanted) if settled else _gather(found, now, wanted)
    return jobs


def compact(
    place: LakePlace,
    table: str,
    *,
    file_bytes: int,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    stop: Callable[[], bool] = lambda: False,
) -> Compacted:
    """Put the small files of a table together, until there is nothing left to do.

    Args:
        place: Where the lake lies.
        table: The table's path in it.
        file_bytes: Size of file to make.
        now: The clock.
        stop: Asked between pieces of work; when it says so, the job under way leaves nothing behind.

    Raises:
        LakeError: The table cannot be read or written. What was committed until then stands.
    """
    done = Compacted()
    for _ in range(_PASSES):
        delta = _open(place, table)
        jobs = plan(files_of(delta), now(), wanted_bytes(file_bytes, len(delta.schema().fields)))
        before = done
        for job in jobs:
            if stop():
                return done
            done += _run(place, table, delta, job, file_bytes, stop)
        if done.files_before == before.files_before:
            break
    return done


_PASSES: Final = 12


def _open(place: LakePlace, table: str) -> DeltaTable:
    try:
        return DeltaTable(place.uri(table), storage_options=place.options)
    except LAKE_FAULTS as error:
        raise LakeError(f"lake table {place.name}/{table}: cannot read: {error}") from error


def _run(
    place: LakePlace, table: str, delta: DeltaTable, job: Job, file_bytes: int, stop: Callable[[], bool]
) -> Compacted:
    try:
        written = merge_files(place, table, delta, job, file_bytes, stop)
        if written is None:
            return Compacted()
        before = delta.version()
        try:
            replace_files(
                delta,
                job.files,
                [_dated(file.action, job) for file in written],
                data_change=False,
                metadata=hashes_of(written) | {"tocsin.reason": "compaction"},
            )
        except RemovalConflict:
            # Not removed here: should the commit have succeeded after all, cleanup knows it, and this place does not.
            return Compacted(conflicts=1)
        settle_commit(place, table, delta, before)
    except LakeError:
        raise
    except (*LAKE_FAULTS, pa.ArrowException) as error:
        raise LakeError(f"lake table {place.name}/{table}: cannot compact: {error}") from error
    return Compacted(
        files_before=len(job.files),
        files_after=len(written),
        bytes_before=job.bytes,
        bytes_after=sum(file.action.size for file in written),
        rows=sum(file.rows for file in job.files),
    )


def _day_of(file: LakeFile) -> date:
    return file.day or file.written.astimezone(UTC).date()


def _dated(action: AddAction, job: Job) -> AddAction:
    """Of events without a day, retention counts from when they were written first, not from when they were moved."""
    if job.files[0].day is not None:
        return action
    newest = max(file.written for file in job.files)
    return replace(action, modification_time=int(newest.timestamp() * 1000))


def settle_commit(place: LakePlace, table: str, delta: DeltaTable, before: int) -> None:
    """Force the commits since a version to the disk, with a checkpoint where one is due."""
    after = delta.version()
    sync_commits(place, table, before + 1, after)
    if after // CHECKPOINT_EVERY > before // CHECKPOINT_EVERY:
        delta.create_checkpoint()
        sync_checkpoint(place, table, after)


def merge_files(
    place: LakePlace, table: str, delta: DeltaTable, job: Job, file_bytes: int, stop: Callable[[], bool]
) -> list[Written] | None:
    """Write the rows of a job's files to new ones; None if it was stopped, and then nothing is left behind.

    Raises:
        LakeError: The rows written are not as many as there were.
    """
    inputs = ParquetInputs(place.filesystem(), [f"{table}/{file.path}" for file in job.files])
    schema = _schema(delta, inputs.columns)
    one = job.files[0]
    outputs = SortedFiles(
        place,
        table,
        one.path.rpartition("/")[0],
        {DATE: None if one.day is None else one.day.isoformat(), PARTITION_COLUMNS[1]: one.tenant},
        schema,
        wanted_bytes(file_bytes, len(delta.schema().fields)),
    )
    rows = 0
    try:
        for stretch in sweep(inputs.units(), inputs.load, schema):
            if stop():
                outputs.abandon()
                return None
            outputs.write(stretch.rows, begins=stretch.begins)
            rows += stretch.rows.num_rows
        written = outputs.close()
    except BaseException:
        outputs.abandon()
        raise
    if rows != inputs.rows:
        outputs.abandon()
        raise LakeError(f"lake table {place.name}/{table}: {inputs.rows} rows to put together, {rows} written")
    return written


def _schema(delta: DeltaTable, columns: frozenset[str]) -> pa.Schema:
    """The table's columns, in its order, that the files have."""
    whole = pa.schema(delta.schema().to_arrow(as_large_types=True))  # type: ignore[arg-type]  # by its Arrow capsule
    return pa.schema([column for column in whole if column.name in columns and column.name not in PARTITION_COLUMNS])


def _gather(files: Sequence[LakeFile], now: datetime, wanted: int) -> Iterator[Job]:
    tiers: defaultdict[int, list[LakeFile]] = defaultdict(list)
    for file in files:
        if file.bytes < wanted * SMALL and file.written < now - VERY_NEW:
            tiers[_tier(file.bytes)].append(file)
    for _, alike in sorted(tiers.items()):
        for files_of_job in _portions(sorted(alike, key=_by_time), wanted):
            if len(files_of_job) >= FAN_IN:
                yield Job(tuple(files_of_job))


def _tier(size: int) -> int:
    """0 below 256 kB, and one more for each eightfold."""
    return max(0, (size // _LEAST_TIER).bit_length() + 2) // 3


def _tidy(files: Sequence[LakeFile], wanted: int) -> Iterator[Job]:
    timed = sorted((file for file in files if file.first is not None), key=_by_time)
    untimed = [[file] for file in files if file.first is None]
    for groups in (untimed, _overlapping(timed)):
        for neighbours in _neighbours(groups, wanted):
            for files_of_job in _portions(neighbours, wanted):
                if len(files_of_job) > 1:
                    yield Job(tuple(files_of_job))


def _overlapping(files: Sequence[LakeFile]) -> list[list[LakeFile]]:
    """Files in the order of time, those that overlap together."""
    groups: list[list[LakeFile]] = []
    end: datetime | None = None
    for file in files:
        first, last = file.first, file.last
        if end is not None and first is not None and first < end - OVERLAP:
            groups[-1].append(file)
        else:
            groups.append([file])
        if last is not None and (end is None or last > end):
            end = last
    return groups


def _neighbours(groups: Sequence[Sequence[LakeFile]], wanted: int) -> Iterator[list[LakeFile]]:
    """Groups that need work, put together with those beside them."""
    waiting: list[LakeFile] = []
    for group in groups:
        if len(group) == 1 and group[0].bytes >= wanted * SMALL:
            yield waiting
            waiting = []
        else:
            waiting += group
    yield waiting


def _portions(files: Sequence[LakeFile], wanted: int) -> Iterator[list[LakeFile]]:
    """Files in the order given, cut where a job would become too large."""
    waiting: list[LakeFile] = []
    size = 0
    for file in files:
        if len(waiting) > 1 and (len(waiting) >= MOST_FILES or size + file.bytes > MOST_BYTES * wanted):
            yield waiting
            waiting, size = [], 0
        waiting.append(file)
        size += file.bytes
    yield waiting


def _by_time(file: LakeFile) -> tuple[bool, datetime, str]:
    return file.first is not None, file.first or datetime.min.replace(tzinfo=UTC), file.path

"""Parquet files of the lake, and when they are durable.

`deltalake` renames its files into place but never calls fsync, so after a power cut a commit may name a file that is
empty. The lake therefore writes its Parquet files itself and forces an order: files and their folders reach the disk,
then the commit is made, then the commit reaches the disk, and only then may the bus offsets move on.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Container, Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import orjson
import polars as pl
from deltalake.transaction import AddAction, RemoveAction

from ingest.envelope import EVENT_ID, TENANT, TIMESTAMP
from storage.lake_columns import BUS_OFFSET, BUS_PARTITION, BUS_TOPIC, DATE, FIXED_COLUMNS, PARTITION_COLUMNS

COMPRESSION: Final = "zstd"
COMPRESSION_LEVEL: Final = 3  # zstd's own default: about a third smaller than snappy on logs, at the same speed
NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"  # Hive's name for a null partition value
_LONGEST_FOLDER: Final = 160  # bytes; file systems refuse names beyond 255


def sync(path: Path) -> None:
    """Force a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Iterable[Path]) -> None:
    """Force files or folders to the disk, each once."""
    for path in dict.fromkeys(paths):
        sync(path)


def write_files(table: Path, rows: pl.DataFrame) -> list[AddAction | RemoveAction]:
    """Write rows (with the partition columns) under a table, one file a partition, durable; the actions to commit.

    A file holds the columns that have a value in it: what it lacks is null to every Delta reader, and one row costs the
    same however wide its table has become.
    """
    actions: list[AddAction | RemoveAction] = []
    written: list[Path] = []
    folders: list[Path] = []
    for key, whole in rows.partition_by(PARTITION_COLUMNS, as_dict=True, include_key=False).items():
        day, tenant = key
        part = filled(whole, FIXED_COLUMNS)
        folder = table / _partition_folder(DATE, _day_text(day)) / _partition_folder(TENANT, tenant)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"part-{part.item(0, BUS_OFFSET):020d}-{uuid.uuid4()}.zstd.parquet"
        part.write_parquet(path, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL)
        written.append(path)
        folders += [folder, folder.parent, table]
        actions.append(
            AddAction(
                path=path.relative_to(table).as_posix(),
                size=path.stat().st_size,
                partition_values={DATE: _day_text(day), TENANT: tenant},
                modification_time=time.time_ns() // 1_000_000,
                data_change=True,
                stats=_statistics(part),
            )
        )
    sync_all(written)
    sync_all(folders)
    return actions


def filled(rows: pl.DataFrame, always: Container[str]) -> pl.DataFrame:
    """The columns that have a value, and those that are `always` there."""
    return rows.select(column for column in rows if column.name in always or column.null_count() < rows.height)


def sync_commits(table: Path, first: int, last: int) -> None:
    """Force the log entries of the versions `first` to `last` to the disk."""
    log = table / "_delta_log"
    entries = (log / f"{version:020d}.json" for version in range(first, last + 1))
    sync_all([*(entry for entry in entries if entry.exists()), log, table])


def sync_checkpoint(table: Path) -> None:
    """Force the newest checkpoint to the disk."""
    log = table / "_delta_log"
    sync_all([*sorted(log.glob("*.checkpoint*.parquet"))[-1:], log / "_last_checkpoint", log])


def _day_text(day: object) -> str | None:
    return day.isoformat() if isinstance(day, date) else None


def _partition_folder(column: str, value: object) -> str:
    text = quote(str(value), safe="") if value is not None else NULL_PARTITION
    if len(text) > _LONGEST_FOLDER:  # the value itself stands in the commit; the folder's name is for people
        text = text[:_LONGEST_FOLDER].rpartition("%")[0] or text[:_LONGEST_FOLDER]
    return f"{column}={text}"


def _statistics(part: pl.DataFrame) -> str:
    """Delta statistics of the columns that queries prune files by (Delta protocol, "Per-file Statistics")."""
    least: dict[str, object] = {}
    most: dict[str, object] = {}
    for name in (BUS_TOPIC, BUS_PARTITION, BUS_OFFSET, EVENT_ID):
        least[name] = part.get_column(name).min()
        most[name] = part.get_column(name).max()
    times = _time_span(part.get_column(TIMESTAMP))
    if times is not None:
        least[TIMESTAMP], most[TIMESTAMP] = times
    nulls = {name: part.get_column(name).null_count() for name in least}
    return orjson.dumps({"numRecords": part.height, "minValues": least, "maxValues": most, "nullCount": nulls}).decode()


def _time_span(times: pl.Series) -> tuple[str, str] | None:
    """First and last time, rounded outwards to the protocol's millisecond; none where a year has no 4 digits."""
    try:
        first, last = times.min(), times.max()
    except (OverflowError, ValueError):
        return None
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return None
    floor = first.replace(microsecond=first.microsecond // 1000 * 1000, tzinfo=None)
    try:
        ceiling = last.replace(microsecond=last.microsecond // 1000 * 1000, tzinfo=None) + timedelta(milliseconds=1)
    except OverflowError:
        return None
    return floor.isoformat(timespec="milliseconds") + "Z", ceiling.isoformat(timespec="milliseconds") + "Z"

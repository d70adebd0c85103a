"""Parquet files of the lake: when they are durable, and their hashes in the commit that names them.

`deltalake` renames its files into place but never calls fsync, so after a power cut a commit may name a file that is
empty. The lake therefore writes its Parquet files itself, whole, through its place (`storage.lake_place`), and forces
an order: files and their folders reach the disk, then the commit is made, then the commit reaches the disk, and only
then may the bus offsets move on.

What makes files also hashes them, from memory: no later reading could tell a file that was changed meanwhile. The
hashes lie in the commit itself (`hashes_of`), so that a manifest can be sealed from the log alone.
"""

from __future__ import annotations

import hashlib
import io
import time
import uuid
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from urllib.parse import quote

import orjson
import polars as pl
from deltalake.transaction import AddAction

from ingest.envelope import EVENT_ID, TENANT, TIMESTAMP
from storage.lake_columns import BUS_OFFSET, BUS_PARTITION, BUS_TOPIC, DATE, FIXED_COLUMNS, PARTITION_COLUMNS
from storage.lake_place import LakePlace

COMPRESSION: Final = "zstd"
COMPRESSION_LEVEL: Final = 3  # zstd's own default: about a third smaller than snappy on logs, at the same speed
NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"  # Hive's name for a null partition value
HASHES: Final = "tocsin.sha256"
_LONGEST_FOLDER: Final = 160  # bytes; file systems refuse names beyond 255


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is durable, and not yet named by a commit.

    Attributes:
        action: What names it, with its path relative to its table.
        sha256: Of its bytes, in hexadecimal.
    """

    action: AddAction
    sha256: str


def write_files(place: LakePlace, table: str, rows: pl.DataFrame) -> list[Written]:
    """Write rows (with the partition columns) under a table, one file a partition, each durable.

    A file holds the columns that have a value in it: what it lacks is null to every Delta reader, and one row costs the
    same however wide its table has become.

    Args:
        place: Where the lake lies.
        table: The table's path in it, such as `events/windows.process_creation._`.
        rows: In lake columns.

    Raises:
        LakeError: A file cannot be written.
    """
    files = [
        _made(filled(whole, FIXED_COLUMNS), {DATE: _day_text(day), TENANT: _tenant_text(tenant)})
        for (day, tenant), whole in rows.partition_by(PARTITION_COLUMNS, as_dict=True, include_key=False).items()
    ]
    place.write_all({f"{table}/{written.action.path}": content for written, content in files})
    return [written for written, _ in files]


def _made(part: pl.DataFrame, values: dict[str, str | None]) -> tuple[Written, bytes]:
    folder = "/".join(_partition_folder(column, value) for column, value in values.items())
    path = f"{folder}/part-{part.item(0, BUS_OFFSET):020d}-{uuid.uuid4()}.zstd.parquet"
    memory = io.BytesIO()
    part.write_parquet(memory, compression=COMPRESSION, compression_level=COMPRESSION_LEVEL)
    content = memory.getvalue()
    action = AddAction(
        path=path,
        size=len(content),
        partition_values=values,
        modification_time=time.time_ns() // 1_000_000,
        data_change=True,
        stats=_statistics(part),
    )
    return Written(action, hashlib.sha256(content).hexdigest()), content


def hashes_of(written: Iterable[Written]) -> dict[str, object]:
    """What a commit says of the files it adds: its custom metadata, `{HASHES: {path: sha256}}`.

    Paths are those of the files, relative to the table. The log percent-encodes them once more in its `add` actions:
    `urllib.parse.unquote` of that path is the one here.
    """
    return {HASHES: {file.action.path: file.sha256 for file in written}}


def filled(rows: pl.DataFrame, always: Container[str]) -> pl.DataFrame:
    """The columns that have a value, and those that are `always` there."""
    return rows.select(column for column in rows if column.name in always or column.null_count() < rows.height)


def sync_commits(place: LakePlace, table: str, first: int, last: int) -> None:
    """Force the log entries of the versions `first` to `last` to the disk."""
    log = f"{table}/_delta_log"
    place.sync([*(f"{log}/{version:020d}.json" for version in range(first, last + 1)), log, table])


def sync_checkpoint(place: LakePlace, table: str, version: int) -> None:
    """Force the checkpoint of a version to the disk."""
    log = f"{table}/_delta_log"
    place.sync([f"{log}/{version:020d}.checkpoint.parquet", f"{log}/_last_checkpoint", log])


def _day_text(day: object) -> str | None:
    return day.isoformat() if isinstance(day, date) else None


def _tenant_text(tenant: object) -> str | None:
    return None if tenant is None else str(tenant)


def _partition_folder(column: str, value: str | None) -> str:
    text = quote(value, safe="") if value is not None else NULL_PARTITION
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
    times = time_span(part.get_column(TIMESTAMP))
    if times is not None:
        least[TIMESTAMP], most[TIMESTAMP] = times
    nulls = {name: part.get_column(name).null_count() for name in least}
    return orjson.dumps({"numRecords": part.height, "minValues": least, "maxValues": most, "nullCount": nulls}).decode()


def time_span(times: pl.Series) -> tuple[str, str] | None:
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

"""Commits that take files out of a table: compaction, expiry, purge.

Three traps of `deltalake` 1.6 that each of them must step around, so they meet here:

- Two commits that remove the same file without changing data (`data_change` False) both succeed, and the rows that they
  wrote in its stead are in the table twice. So every such commit carries one application transaction,
  `REMOVALS`: of two that began from the same version, Delta lets only the first through.
- A commit percent-encodes the paths it is given, and the snapshot gives them back encoded. A remove with a path as the
  snapshot has it is encoded twice, names no file, and removes nothing.
- A commit that another one has overtaken only by adding columns fails too; it may be made again, as long as the files
  that it removes are still there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from ingest.envelope import TENANT, TIMESTAMP
from storage.lake_columns import DATE, PARTITION_COLUMNS

REMOVALS: Final = "tocsin.removals"
"""The application id; those of bus partitions have a slash in them."""

_ATTEMPTS: Final = 10
_NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A data file of a table, as the log describes it.

    Attributes:
        path: Below the table's folder, as it is on the disk.
        bytes: Its size.
        rows: Events in it.
        day: The partition; so too `tenant`.
        tenant: See `day`.
        first: Earliest @timestamp, rounded down to the millisecond; None where the log does not say.
        last: Latest @timestamp, rounded up.
        written: When it was made.
    """

    path: str
    bytes: int
    rows: int
    day: date | None
    tenant: str | None
    first: datetime | None
    last: datetime | None
    written: datetime

    @property
    def partition(self) -> tuple[date | None, str | None]:
        """Day and hospital."""
        return self.day, self.tenant


class RemovalConflict(Exception):  # noqa: N818 - reads as what it says
    """Others have removed what was to be removed, or are doing so: look at the table anew."""


def files_of(delta: DeltaTable) -> list[LakeFile]:
    """The files of a table's version, in no order."""
    files = pl.DataFrame(delta.get_add_actions(flatten=True))
    if not files.height:
        return []
    times = [
        pl.col(name) if name in files.columns else pl.lit(None, pl.Datetime("us", "UTC")).alias(name)
        for name in (f"min.{TIMESTAMP}", f"max.{TIMESTAMP}")
    ]
    rows = files.select(
        "path",
        "size_bytes",
        pl.col("num_records").fill_null(0),
        f"partition.{DATE}",
        pl.col(f"partition.{TENANT}").cast(pl.String),
        *(_time_or_null(column) for column in times),
        pl.from_epoch("modification_time", time_unit="ms").dt.replace_time_zone("UTC"),
    )
    return [LakeFile(unquote(path), *rest) for path, *rest in rows.iter_rows()]


def remove_action(file: LakeFile, *, data_change: bool) -> RemoveAction:
    """The action that takes a file out of its table.

    Args:
        file: The file.
        data_change: Whether its rows go with it; compaction has written them elsewhere.
    """
    return RemoveAction(
        path=file.path,
        data_change=data_change,
        deletion_timestamp=time.time_ns() // 1_000_000,
        size=file.bytes,
        partition_values={DATE: None if file.day is None else file.day.isoformat(), TENANT: file.tenant},
    )


def replace_files(
    delta: DeltaTable,
    removed: Sequence[LakeFile],
    added: Sequence[AddAction],
    *,
    data_change: bool,
    metadata: Mapping[str, object] | None = None,
) -> DeltaTable:
    """Commit the removal of files, and what stands in their place; the table at a version that has it.

    The commit is not yet forced to the disk (`LakePlace.sync`).

    Args:
        delta: The version that was looked at when it was decided what to remove, or a later one; brought up to date.
        removed: Files of that version.
        added: Files that are there, durable, in their place.
        data_change: Whether the rows of the table change by it.
        metadata: For the commit: the hashes of what is added, and why it was done.

    Raises:
        RemovalConflict: Another commit was faster; nothing has changed.
        DeltaError: The table cannot be written.
    """
    actions: list[AddAction | RemoveAction] = [*added]
    actions += [remove_action(file, data_change=data_change) for file in removed]
    for _ in range(_ATTEMPTS):
        left = {file.path for file in files_of(delta)}
        if not all(file.path in left for file in removed):
            raise RemovalConflict("others have removed the files")
        properties = CommitProperties(
            custom_metadata=dict(metadata or {}), app_transactions=[Transaction(REMOVALS, delta.version() + 1)]
        )
        try:
            delta.create_write_transaction(
                actions,
                "append",
                delta.schema(),
                list(PARTITION_COLUMNS),
                commit_properties=properties,
                post_commithook_properties=_NO_HOOKS,
            )
        except CommitFailedError:
            delta.update_incremental()
            if added and {action.path for action in added} <= {file.path for file in files_of(delta)}:
                return delta  # it was this very commit that succeeded, and the answer was lost
            continue
        delta.update_incremental()
        return delta
    raise RemovalConflict(f"{_ATTEMPTS} other commits were faster")


def _time_or_null(column: pl.Expr) -> pl.Expr:
    """A time that Python can hold: from hostile clocks come years that it cannot."""
    held = column.dt.year().is_between(2, 9998)
    return pl.when(held).then(column.dt.cast_time_unit("us"))

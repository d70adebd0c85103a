"""Cleanup: files that no version of a table names any more, and the log of versions that nobody asks for.

Three kinds go, each only after the grace:

- *Removed*: a commit took the file out (compaction, expiry) longer ago than the grace. Until then a reader that opened
  the table before goes on reading; Delta's own default is seven days, and so is ours.
- *Orphans*: nothing names the file, and it is older than the grace: a writer died between writing and committing.
  Younger ones may be about to be committed.
- *Log entries and checkpoints* before a checkpoint that is older than the grace and whose versions are sealed in the
  manifest (`storage.lake_manifest`): what is not sealed is evidence, and stays.

A file that the newest version names is never touched, whatever the log says of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow.fs import FileSelector, FileType

from storage.errors import LakeError
from storage.lake_commits import log_files, read_commit
from storage.lake_manifest import sealed_version
from storage.lake_place import LakePlace
from storage.lake_removal import files_of
from storage.lake_table import LAKE_FAULTS

GRACE: Final = timedelta(days=7)
_LOG: Final = "_delta_log"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was deleted of a table."""

    files: int = 0
    bytes: int = 0
    log_entries: int = 0

    def __add__(self, other: Cleaned) -> Cleaned:
        return Cleaned(self.files + other.files, self.bytes + other.bytes, self.log_entries + other.log_entries)


@dataclass(frozen=True, slots=True)
class _Found:
    bytes: int
    changed: datetime


def clean(
    place: LakePlace,
    table: str,
    now: datetime,
    grace: timedelta = GRACE,
    stop: Callable[[], bool] = lambda: False,
) -> Cleaned:
    """Delete what is over in a table's folder.

    Args:
        place: Where the lake lies.
        table: The table's path in it.
        now: The present, with time zone.
        grace: How long files stay that nothing names.
        stop: Asked before each file; when it says so, the others are left for the next time.

    Raises:
        LakeError: The table cannot be read, or a file cannot be deleted. What was deleted until then was over.
    """
    try:
        found = _listing(place, table)
        delta = DeltaTable(place.uri(table), storage_options=place.options)
        files = _clean_files(place, table, delta, found, now - grace, stop)
        return files + _clean_log(place, table, found, now - grace, stop)
    except LakeError:
        raise
    except (*LAKE_FAULTS, pa.ArrowException) as error:
        raise LakeError(f"lake table {place.name}/{table}: cannot clean up: {error}") from error


def _listing(place: LakePlace, table: str) -> dict[str, _Found]:
    """Path below the table -> its size and when it was written.

    Taken before the table is opened: what is committed in between is then known to be live.
    """
    found = {}
    for about in place.filesystem().get_file_info(FileSelector(table, recursive=True, allow_not_found=True)):
        if about.type == FileType.File:
            changed = datetime.fromtimestamp((about.mtime_ns or time.time_ns()) / 1e9, UTC)
            found[about.path.removeprefix(f"{table}/")] = _Found(about.size or 0, changed)
    return found


def _clean_files(
    place: LakePlace,
    table: str,
    delta: DeltaTable,
    found: dict[str, _Found],
    before: datetime,
    stop: Callable[[], bool],
) -> Cleaned:
    live = {file.path for file in files_of(delta)}
    over = {
        path: about
        for path, about in found.items()
        if path not in live and not path.startswith(f"{_LOG}/") and about.changed < before
    }
    if not over:
        return Cleaned()
    late = _removed_since(place, table, found, before)
    over = {path: about for path, about in over.items() if path not in late}
    cleaned = Cleaned()
    for path, about in over.items():
        if stop():
            break
        place.delete(f"{table}/{path}")
        cleaned += Cleaned(files=1, bytes=about.bytes)
    return cleaned


def _removed_since(place: LakePlace, table: str, found: dict[str, _Found], since: datetime) -> set[str]:
    """Files that commits since a time have taken out, newest commit first; the log reaches back further than that."""
    commits, _ = log_files(place, table)
    removed: set[str] = set()
    for version, path in sorted(commits.items(), reverse=True):
        about = found.get(path.removeprefix(f"{table}/"))
        if about is not None and about.changed < since:
            break
        removed.update(read_commit(place, path, version).removed)
    return removed


def _clean_log(
    place: LakePlace, table: str, found: dict[str, _Found], before: datetime, stop: Callable[[], bool]
) -> Cleaned:
    commits, checkpoints = log_files(place, table)
    sealed = sealed_version(place, table)
    over = [
        version
        for path, version in checkpoints.items()
        if version <= sealed and path.removeprefix(f"{table}/") in found and _changed(found, table, path) < before
    ]
    if not over:
        return Cleaned()
    first_kept = max(over)
    # oldest first: broken off at any point, what is left has no gap
    gone = [path for version, path in sorted(commits.items()) if version < first_kept]
    gone += [path for path, version in checkpoints.items() if version < first_kept]
    cleaned = Cleaned()
    for path in gone:
        if stop():
            break
        about = found.get(path.removeprefix(f"{table}/"))
        place.delete(path)
        cleaned += Cleaned(bytes=0 if about is None else about.bytes, log_entries=1)
    return cleaned


def _changed(found: dict[str, _Found], table: str, path: str) -> datetime:
    return found[path.removeprefix(f"{table}/")].changed

"""What the commits of a Delta table say, read from its log itself (Delta protocol, "Delta Log Entries").

`deltalake` shows the state of a table at a version. What led to it, byte by byte, and the hashes that writers leave in
their commits (`tocsin.sha256`: path -> SHA-256 in hexadecimal), are read here. Paths in the log are percent-encoded
(RFC 2396); here they are as the files are called.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import orjson
from deltalake import DeltaTable

from storage.errors import LakeError
from storage.lake_files import HASHES
from storage.lake_place import LakePlace
from storage.lake_table import EVENTS

_CHUNK: Final = 1 << 20
_COMMIT: Final = re.compile(r"(\d{20})\.json")
_CHECKPOINT: Final = re.compile(r"(\d{20})\.checkpoint\..*parquet")


@dataclass(frozen=True, slots=True)
class Added:
    """A file that a commit names.

    Attributes:
        sha256: As the commit says; empty if it does not.
        size: In bytes.
        rows: None if the commit does not say.
    """

    path: str
    sha256: str
    size: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a table.

    Attributes:
        sha256: Of the log entry.
        added: Its files.
        removed: Path of each file it takes out -> whether data went with it (compaction only moves data).
    """

    version: int
    sha256: str
    added: tuple[Added, ...]
    removed: Mapping[str, bool]


def table_folder(table: str) -> str:
    """`events/NAME` for the name or the folder of a table."""
    return table if table.startswith(f"{EVENTS}/") else f"{EVENTS}/{table}"


def table_names(place: LakePlace) -> list[str]:
    """The folders of events tables that have a Delta log."""
    return [name for name in place.folders(EVENTS) if "_delta_log" in place.folders(f"{EVENTS}/{name}")]


def open_table(place: LakePlace, table: str, version: int | None = None) -> DeltaTable:
    """A table as `deltalake` sees it."""
    return DeltaTable(place.uri(table_folder(table)), version=version, storage_options=place.options)


def log_files(place: LakePlace, table: str) -> tuple[dict[int, str], dict[str, int]]:
    """Version -> path of its log entry, and path -> version of each checkpoint."""
    commits: dict[int, str] = {}
    checkpoints: dict[str, int] = {}
    for path in place.files(f"{table_folder(table)}/_delta_log"):
        name = path.rpartition("/")[2]
        if found := _COMMIT.fullmatch(name):
            commits[int(found[1])] = path
        elif found := _CHECKPOINT.fullmatch(name):
            checkpoints[path] = int(found[1])
    return dict(sorted(commits.items())), checkpoints


def read_commit(place: LakePlace, path: str, version: int) -> Commit:
    """One log entry.

    Raises:
        FileNotFoundError: It is not there.
        LakeError: It is not a log entry.
    """
    content = place.read(path)
    added: dict[str, tuple[int, int | None]] = {}
    removed: dict[str, bool] = {}
    hashes: dict[str, str] = {}
    try:
        for line in content.splitlines():
            action = orjson.loads(line) if line.strip() else {}
            if "add" in action:
                entry = action["add"]
                added[unquote(entry["path"])] = (int(entry["size"]), _rows(entry.get("stats")))
            elif "remove" in action:
                removed[unquote(action["remove"]["path"])] = bool(action["remove"].get("dataChange", True))
            elif "commitInfo" in action:
                hashes = _hashes(action["commitInfo"].get(HASHES))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LakeError(f"lake {place.name}: {path}: is no Delta log entry: {error}") from error
    return Commit(
        version,
        hashlib.sha256(content).hexdigest(),
        tuple(Added(path, hashes.get(path, ""), size, rows) for path, (size, rows) in added.items()),
        removed,
    )


def hash_file(place: LakePlace, path: str) -> tuple[str, int]:
    """SHA-256 and size of a file, read in pieces.

    Raises:
        FileNotFoundError: It is not there.
        LakeError: It cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with place.filesystem().open_input_stream(path) as stream:
            while piece := stream.read(_CHUNK):
                digest.update(piece)
                size += len(piece)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LakeError(f"lake {place.name}: {path}: cannot be read: {error}") from error
    return digest.hexdigest(), size


def commits_between(place: LakePlace, table: str, first: int, last: int) -> Iterator[Commit]:
    """The commits of versions `first` to `last`.

    Raises:
        LakeError: One is missing, or is no log entry.
    """
    log = f"{table_folder(table)}/_delta_log"
    for version in range(first, last + 1):
        try:
            yield read_commit(place, f"{log}/{version:020d}.json", version)
        except FileNotFoundError as error:
            raise LakeError(f"lake {place.name}: {log}: the commit {version} is missing, and was not sealed") from error


def _rows(stats: object) -> int | None:
    found = orjson.loads(stats).get("numRecords") if isinstance(stats, str) and stats else None
    return found if isinstance(found, int) else None


def _hashes(found: object) -> dict[str, str]:
    """Writers may give an object, or the same as text."""
    if isinstance(found, str):
        found = orjson.loads(found)
    if not isinstance(found, dict):
        return {}
    return {path: digest for path, digest in found.items() if isinstance(digest, str)}

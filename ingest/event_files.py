"""Event files as hunts and tests read them: any mix of files, folders and archives, as batches of raw lines.

Theory: the kind of a file is what its first bytes say; its name only decides between kinds of text, and whether a file
that nobody named itself (in a folder, in an archive) is an event file at all. Everything is streamed in the order of
the names, so that memory stays flat and two runs give the same events with the same ids.

`read_events` never raises for what a file holds: see `ingest.event_source`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import polars as pl

from ingest.envelope import EVENT_ID
from ingest.event_archives import unpack_gzip, unpack_tar, unpack_zip
from ingest.event_source import Budget, ByteSource, ReadItem, ReadLimits, Rows, SourceBatch, SourceProblem
from ingest.event_text import TextKind, looks_like_json, read_text, text_kind
from ingest.evtx_file import CHUNK_MAGIC, FILE_MAGIC, read_evtx
from ingest.parquet_file import PARQUET_MAGIC, read_parquet
from ingest.rawbatch import RAW_SCHEMA

Kind = Literal["evtx", "parquet", "zip", "gzip", "tar"] | TextKind

MAGIC: Final[dict[bytes, Kind]] = {
    FILE_MAGIC: "evtx",
    PARQUET_MAGIC: "parquet",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an empty one
    b"\x1f\x8b": "gzip",
}
"""First bytes of a file -> its kind."""

UNPACKERS: Final[dict[Kind, Callable[[ByteSource, Budget], Iterator[ByteSource | SourceProblem]]]] = {
    "zip": unpack_zip,
    "gzip": unpack_gzip,
    "tar": unpack_tar,
}
"""Kind of archive -> what opens its members."""

REFUSED_MAGIC: Final[dict[bytes, str]] = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}
"""First bytes of archives that are not opened -> their name."""

TEXT_EXTENSIONS: Final = frozenset({".json", ".jsonl", ".ndjson", ".log", ".txt", ".csv", ".raw", ".syslog"})
"""Ends of names that mean events as text."""

LOG_NAMES: Final = frozenset({"syslog", "messages", "secure", "cron", "maillog", "kern", "daemon", "user"})
"""Names without an end that files in /var/log have."""

ROTATED: Final = re.compile(r"(\.\d+|-\d{8})$")
"""What logrotate adds to a name: auth.log.1, secure-20260801."""


def read_events(
    paths: Sequence[Path], *, now: datetime, limits: ReadLimits | None = None
) -> Iterator[SourceBatch | SourceProblem]:
    """Read the events of files, folders and archives.

    Args:
        paths: Files and folders; a folder is read with all below it, in the order of the names.
        now: When the events count as received, in UTC: their time where they have none of their own.
        limits: What a file may cost.

    Yields:
        Batches of events, and what could not be read of which source, in the order of the sources.
    """
    bounds = limits or ReadLimits()
    unlisted: list[OSError] = []
    for path, named in _files(paths, unlisted.append):
        yield from _read_path(path, bounds, now, named=named)
    for error in unlisted:
        yield SourceProblem(str(error.filename), "", error.strerror or str(error), "unreadable")


def _files(paths: Sequence[Path], fail: Callable[[OSError], None]) -> Iterator[tuple[Path, bool]]:
    """Each file once, and whether it was named itself; `fail` is told of folders that cannot be listed."""
    seen: set[str] = set()
    for path in paths:
        found = sorted(_walk(path, fail)) if path.is_dir() else [path]
        for file in found:
            real = os.path.realpath(file)
            if real not in seen:
                seen.add(real)
                yield file, not path.is_dir()


def _walk(folder: Path, fail: Callable[[OSError], None]) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, onerror=fail):
        for name in names:
            file = Path(parent, name)
            if file.is_file():  # not a pipe, a socket or a dangling link
                yield file


def _read_path(path: Path, limits: ReadLimits, now: datetime, *, named: bool) -> Iterator[SourceBatch | SourceProblem]:
    try:
        file = path.open("rb")
    except OSError as error:
        yield SourceProblem(str(path), "", error.strerror or str(error), "unreadable")
        return
    with file:
        source = ByteSource(str(path), file, file=file if file.seekable() else None)
        yield from _read_source(source, limits, Budget(limits.decompressed_bytes), now, named=named, depth=0)


def _read_source(
    source: ByteSource, limits: ReadLimits, budget: Budget, now: datetime, *, named: bool, depth: int
) -> Iterator[SourceBatch | SourceProblem]:
    kind = _kind(source, named=named)
    if isinstance(kind, SourceProblem):
        yield kind
        return
    unpack = UNPACKERS.get(kind)
    if unpack is None:
        for item in _read_kind(source, kind, limits, now):
            yield _batch(source.name, item, now) if isinstance(item, Rows) else item
    elif depth == limits.archive_depth:
        yield SourceProblem(source.name, "", f"archives nested more than {depth} deep are not opened", "unreadable")
    else:
        for member in unpack(source, budget):
            if isinstance(member, SourceProblem):
                yield member
            else:
                # What a single-file .gz holds was named if the .gz was; the members of other archives were not.
                yield from _read_source(member, limits, budget, now, named=named and kind == "gzip", depth=depth + 1)
    if source.damage is not None:
        yield SourceProblem(source.name, "", f"only a part could be read: {source.damage}", "damaged")


def _read_kind(source: ByteSource, kind: Kind, limits: ReadLimits, now: datetime) -> Iterator[ReadItem | SourceBatch]:
    if kind == "evtx":
        yield from read_evtx(source)
    elif kind == "parquet":
        yield from read_parquet(source, now)
    elif kind in ("lines", "json", "csv"):
        yield from read_text(source, kind, limits)


def _kind(source: ByteSource, *, named: bool) -> Kind | SourceProblem:
    """The kind of a source, or why it is not read."""
    head, (name, extension) = source.head, _name(source.name)
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "tar"
    if extension == ".evtx":
        has_chunks = head[4096:].startswith(CHUNK_MAGIC)
        return (
            "evtx" if has_chunks else SourceProblem(source.name, "", "not an event log: no file header", "unreadable")
        )
    for magic, archive in REFUSED_MAGIC.items():
        if head.startswith(magic):
            return SourceProblem(source.name, "", f"a {archive} archive: unpack it first", "unreadable")
    if extension in TEXT_EXTENSIONS or name in LOG_NAMES:
        return text_kind(head, extension) or "lines"
    if named or looks_like_json(head):
        binary = SourceProblem(
            source.name, "", "neither text nor a kind of event file that is known here", "unreadable"
        )
        return text_kind(head, extension) or binary
    return SourceProblem(source.name, "", f"not an event file by its name ({extension or 'no extension'})", "skipped")


def _name(source: str) -> tuple[str, str]:
    """The name of a source and its end, in lower case, without what rotation and compression added."""
    name = PurePosixPath(source.replace("\\", "/").rsplit("!", 1)[-1]).name.lower()
    name = name.removesuffix(".gz")
    bare = PurePosixPath(ROTATED.sub("", name))
    return bare.name, bare.suffix


def _batch(source: str, rows: Rows, now: datetime) -> SourceBatch:
    """Rows of a source as a raw batch, without its empty lines."""
    lines = rows.lines if isinstance(rows.lines, pl.Series) else pl.Series("line", rows.lines, dtype=pl.Binary)
    marks = [rows.marks.get(index) for index in range(len(lines))] if rows.marks else None
    raw = (
        lines.to_frame()
        .with_row_index("row", offset=rows.first)
        .select(
            "line",
            pl.lit(now).cast(RAW_SCHEMA["received"]).alias("received"),
            pl.Series("mark", marks, dtype=pl.String) if marks else pl.lit(None, pl.String).alias("mark"),
            pl.lit(None, pl.String).alias("tenant"),
            pl.lit(None, pl.String).alias("peer"),
            pl.concat_str([pl.lit(f"{source}:"), pl.col("row").cast(pl.String)]).alias(EVENT_ID),
        )
    )
    empty = raw["line"].bin.size() == 0
    return SourceBatch(source, raw.filter(~empty) if empty.any() else raw)

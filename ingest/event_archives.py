"""Archives of event files (.zip, .gz, .tar, .tar.gz): their members as streams, without unpacking anything to disk.

Members are streamed, bounded by one budget an archive, and named `archive!member`. Nothing is written under a member's
name, so a path that climbs out of the folder (`../../etc/cron.d/x`) is only a name. A zip within an archive must be
able to seek: it is copied to a temporary file first, within the budget.
"""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from typing import IO, Final, cast

from ingest.event_source import READ_ERRORS, Budget, ByteSource, SourceProblem, copy_to

SPOOL_BYTES: Final = 64 * 1024 * 1024
"""A copy of a member that must be seekable is kept in memory up to this size."""

ENCRYPTED: Final = 0x1
"""Bit 0 of a zip member's flags (APPNOTE.TXT, 4.4.4)."""


def seekable(source: ByteSource) -> IO[bytes]:
    """The source as a file that can seek, which the caller closes: itself, or a temporary copy within its budget."""
    if source.file is not None:
        source.file.seek(0)
        return source.file
    target = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES))  # noqa: SIM115 - the caller closes it
    copy_to(source, target)
    return target


def unpack_gzip(source: ByteSource, budget: Budget) -> Iterator[ByteSource | SourceProblem]:
    """The one stream that a gzip file holds, under the name of the file itself."""
    with gzip.GzipFile(fileobj=cast("IO[bytes]", _Reader(source))) as stream:
        yield ByteSource(source.name, stream, budget)


def unpack_zip(source: ByteSource, budget: Budget) -> Iterator[ByteSource | SourceProblem]:
    """The members of a zip file, in the order of its directory."""
    with seekable(source) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (*READ_ERRORS, ValueError) as error:
            yield SourceProblem(source.name, "", f"not a readable zip file: {error}", "unreadable")
            return
        for info in archive.infolist():
            if not info.is_dir() and not is_litter(info.filename):
                yield from _open_zip_member(source.name, archive, info, budget)


def _open_zip_member(
    name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget
) -> Iterator[ByteSource | SourceProblem]:
    member = f"{name}!{info.filename}"
    if info.flag_bits & ENCRYPTED:
        yield SourceProblem(member, "", "encrypted; unpack it with its password first", "unreadable")
        return
    try:
        stream = archive.open(info)
    except READ_ERRORS as error:
        yield SourceProblem(member, "", f"{type(error).__name__}: {error}", "unreadable")
        return
    with stream:
        yield ByteSource(member, stream, budget)


def unpack_tar(source: ByteSource, budget: Budget) -> Iterator[ByteSource | SourceProblem]:
    """The regular files of a tar archive, in one pass over the stream."""
    del budget  # spent where the stream was decompressed
    try:
        # "r|": one pass, never seeks; the decompression and its damage are the source's.
        with tarfile.open(fileobj=cast("IO[bytes]", _Reader(source)), mode="r|") as archive:
            for info in archive:
                stream = archive.extractfile(info) if info.isreg() and not is_litter(info.name) else None
                if stream is not None:
                    yield ByteSource(f"{source.name}!{info.name}", stream)  # a tar does not compress
    except READ_ERRORS as error:
        if source.damage is None:  # else the damage says it better
            yield SourceProblem(source.name, "", f"broken tar archive: {error}", "damaged")


def is_litter(member: str) -> bool:
    """Whether a member is what macOS adds to archives: resource forks, not files of the user."""
    parts = member.split("/")
    return "__MACOSX" in parts[:-1] or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


class _Reader:
    """A source with the one method of a file that gzip and tarfile use."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        return self._source.read(size) if size >= 0 else b"".join(self._source.chunks())

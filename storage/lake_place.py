"""Where the lake lies, behind one small protocol: a folder here, or a prefix in an S3-compatible bucket.

Paths are relative to the lake's root, with slashes everywhere: `events/windows.process_creation._/date=.../part-...`.
What the lake needs of a place: files that are there whole or not at all, and durable when a call returns; a file that
only the first of two writers makes; and the names below a folder. Deleting is for maintenance alone.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from pyarrow.fs import FileSystem, LocalFileSystem, SubTreeFileSystem

from ingest.disk import disk_reason
from storage.errors import LakeError

_PARTIAL: Final = ".partial"


class LakePlace(Protocol):
    """A lake's root. Safe to share between threads and processes."""

    @property
    def name(self) -> str:
        """What to call it in messages; holds no secret."""

    @property
    def options(self) -> dict[str, str] | None:
        """`storage_options` of `deltalake`."""

    def uri(self, path: str = "") -> str:
        """What `deltalake` is given to find a table."""

    def filesystem(self) -> FileSystem:
        """The lake's root for `pyarrow.dataset`: paths in it are relative, as here."""

    def folders(self, path: str) -> list[str]:
        """Names of the folders directly below one, sorted; none where it does not exist."""

    def files(self, path: str) -> Mapping[str, int]:
        """Path -> bytes, of all files anywhere below a folder; empty where it does not exist."""

    def read(self, path: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: There is none.
            LakeError: It cannot be read.
        """

    def write(self, path: str, content: bytes) -> None:
        """Put a file there, whole or not at all, in place of one that is there; durable when it returns.

        Raises:
            LakeError: It cannot be written.
        """

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """The same for several files, which takes less time than one after another; all durable when it returns.

        Raises:
            LakeError: One cannot be written; others may be there.
        """

    def create(self, path: str, content: bytes) -> bool:
        """The same as `write`, only if there is none yet; whether it was this call that made it."""

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""

    def discard_partial(self, before: datetime) -> int:
        """Remove what writers that died left half written, if it is older than a time; how many files it was.

        Raises:
            LakeError: One cannot be removed.
        """

    def sync(self, paths: Iterable[str]) -> None:
        """Force to the disk what others (`deltalake`) wrote: files, and the folders that name them."""

    def lock(self, name: str, *, wait: bool = True) -> AbstractContextManager[None]:
        """Held by one process at a time where the place can do so; a place that cannot relies on `create`.

        Raises:
            BlockingIOError: It was not to be waited for, and another holds it.
        """


class LocalPlace:
    """A folder on a local disk.

    Args:
        root: Made if it is not there.

    Raises:
        LakeError: It cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LakeError(f"lake {root}: cannot make its folder: {error}") from error

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    @property
    def options(self) -> dict[str, str] | None:
        """None are needed."""
        return None

    def uri(self, path: str = "") -> str:
        """See `LakePlace`."""
        return str(self.root / path)

    def filesystem(self) -> FileSystem:
        """See `LakePlace`."""
        return SubTreeFileSystem(str(self.root), LocalFileSystem())

    def folders(self, path: str) -> list[str]:
        """See `LakePlace`."""
        folder = self.root / path
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []

    def files(self, path: str) -> Mapping[str, int]:
        """See `LakePlace`."""
        found = (entry for entry in (self.root / path).rglob("*") if entry.is_file() and entry.suffix != _PARTIAL)
        return {entry.relative_to(self.root).as_posix(): entry.stat().st_size for entry in found}

    def read(self, path: str) -> bytes:
        """See `LakePlace`."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LakeError(f"lake {self.root}: cannot read {path}: {error.strerror}") from error

    def write(self, path: str, content: bytes) -> None:
        """See `LakePlace`."""
        self.write_all({path: content})

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """See `LakePlace`: all are written, then all synced, then all named, then each of their folders synced once."""
        with ExitStack() as stack:
            partials: dict[str, Path] = {}
            for path, content in contents.items():
                with self._explained("write", path):
                    partials[path] = stack.enter_context(self._partial(path, content))
            for path, partial in partials.items():
                with self._explained("write", path):
                    _sync(partial)
            for path, partial in partials.items():
                with self._explained("write", path):
                    partial.replace(self.root / path)
            self._sync_folders(contents)

    def create(self, path: str, content: bytes) -> bool:
        """See `LakePlace`."""
        with self._explained("create", path), self._partial(path, content) as partial:
            _sync(partial)
            try:
                os.link(partial, self.root / path)
            except FileExistsError:
                return False
            self._sync_folders([path])
        return True

    def delete(self, path: str) -> None:
        """See `LakePlace`."""
        with self._explained("delete", path):
            (self.root / path).unlink(missing_ok=True)

    def discard_partial(self, before: datetime) -> int:
        """See `LakePlace`: a file whose writer still lives is named or removed within moments."""
        found = 0
        for path in self.root.rglob(f".*{_PARTIAL}"):
            name = path.relative_to(self.root).as_posix()
            with self._explained("delete", name), suppress(FileNotFoundError):  # its writer was faster
                if path.stat().st_mtime < before.timestamp():
                    path.unlink()
                    found += 1
        return found

    def sync(self, paths: Iterable[str]) -> None:
        """See `LakePlace`."""
        for path in dict.fromkeys(paths):
            with self._explained("sync", path), suppress(FileNotFoundError):  # gone meanwhile: nothing to keep
                _sync(self.root / path)

    @contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """See `LakePlace`: `flock`, which closing the file, or dying, releases."""
        with self._explained("make", f".{name}.lock"):
            descriptor = os.open(self.root / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _partial(self, path: str, content: bytes) -> Iterator[Path]:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4()}{_PARTIAL}")
        try:
            with partial.open("xb") as file:
                file.write(content)
            yield partial
        finally:
            partial.unlink(missing_ok=True)

    def _sync_folders(self, paths: Iterable[str]) -> None:
        """Sync the folders that name these files, and those that name the folders."""
        folders = {
            "/".join(parts[:depth]) for parts in (path.split("/") for path in paths) for depth in range(len(parts))
        }
        for folder in folders:
            with self._explained("sync", folder):
                _sync(self.root / folder)

    @contextmanager
    def _explained(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LakeError(f"lake {self.root}: cannot {what} {path}: {disk_reason(error)}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

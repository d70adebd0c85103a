"""The registry of hospitals: a folder with one file a hospital, which people and programs both write.

    hospitals/ID.toml    what `ingest.hospital` describes (read and checked by `ingest.hospital_file`)
    authority/           the certificate authority (`ingest.authority`)

A file takes the place of the old one by renaming, so that who reads meets the old hospital or the new one, whole.
Programs that change a hospital do so under a lock (`changing`): two commands at once cannot undo each other's work.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import structlog

from ingest.hospital import Hospital, Hospitals, network_of
from ingest.hospital_file import RegistryError, check_hospital, check_id, hospital_of_toml, toml_of_hospital

__all__ = [
    "RegistryError",
    "RegistryWatch",
    "changing",
    "check_hospitals",
    "check_id",
    "hospital_path",
    "make_folder",
    "read_registry",
    "write_file",
    "write_hospital",
]

log = structlog.get_logger()

FOLDER_MODE: Final = 0o750
FILE_MODE: Final = 0o640
SUFFIX: Final = ".toml"
LARGEST_FILE: Final = 4_194_304
"""Bytes: a hospital is a few kB, and thousands of certificates would still fit."""

ABANDONED: Final = 3600.0
"""Seconds after which nobody writes a file any more."""

Stamp = tuple[int, int, int]
"""Of a file: time of its last change (ns), size, inode."""


def hospital_path(folder: Path, hospital_id: str) -> Path:
    """Where a hospital's file lies.

    Raises:
        RegistryError: That is no id, so it could lead anywhere.
    """
    return folder / "hospitals" / f"{check_id(hospital_id)}{SUFFIX}"


def read_registry(folder: Path) -> Hospitals:
    """All hospitals of a registry; none if its folder is not there.

    Raises:
        RegistryError: A file cannot be read or is broken, or two hospitals claim the same network or certificate; the
            message names file, key and reason.
    """
    hospitals = Hospitals.of([_read_file(folder / "hospitals" / name) for name in _stamps(folder)])
    check_hospitals(hospitals)
    return hospitals


def write_hospital(folder: Path, hospital: Hospital) -> Hospital:
    """Write a hospital's file, in the place of the one that may be there; its folders are made.

    Returns:
        The hospital as it will be read back.

    Raises:
        RegistryError: It is not fit to be written, or conflicts with another hospital, or the disk refuses.
    """
    path = hospital_path(folder, hospital.id)
    checked = check_hospital(hospital, hospital.id)
    check_hospitals(Hospitals({**read_registry(folder).by_id, checked.id: checked}))
    write_file(path, toml_of_hospital(checked).encode(), FILE_MODE)
    return checked


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold the registry's lock: others who change it wait. Readers need no lock.

    Raises:
        RegistryError: The folder cannot be made or written.
    """
    try:
        make_folder(folder)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise RegistryError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("hospitals", "authority", "keys"):
            _sweep(folder / name)
        yield
    finally:
        os.close(lock)  # which also gives the lock back


def write_file(path: Path, content: bytes, mode: int, *, replace: bool = True) -> None:
    """Write a file so that nobody meets half of it, with this mode from its first byte on.

    Args:
        path: Where; missing folders are made, for the owner and the group.
        content: All of it.
        mode: Of the file.
        replace: Whether a file that is there already may go; decided and done in one step.

    Raises:
        RegistryError: It cannot be written, or is there and may not go.
    """
    try:
        make_folder(path.parent)
        _sweep(path.parent, path.name)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 from the start
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            if replace:
                Path(name).replace(path)
            else:
                os.link(name, path)  # unlike a rename this fails if the name is taken
        finally:
            Path(name).unlink(missing_ok=True)
        _sync(path.parent)
    except FileExistsError as error:
        raise RegistryError(f"{path}: is there already, and is not overwritten") from error
    except OSError as error:
        raise RegistryError(f"{path}: cannot be written: {error.strerror}") from error


def _sweep(folder: Path, name: str = "") -> None:
    """Remove what writers left who were killed: half a file, which may hold a key."""
    begun = re.compile(rf"\.{re.escape(name) or '.+'}\.[a-z0-9_]{{8}}")  # as `mkstemp` names it
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # the next one will try again
        for entry in entries:
            if begun.fullmatch(entry.name) and time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED:
                Path(entry).unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing: for the owner and the group, whatever the umask lets others.

    Raises:
        OSError: The disk refuses.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    make_folder(folder.parent)  # `parents=True` would give those above the default mode
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def check_hospitals(hospitals: Hospitals) -> None:
    """See that no two hospitals claim the same thing.

    A network within another's larger one is good: the narrowest network holds. The same network twice is not.

    Raises:
        RegistryError: Names both hospitals.
    """
    claims: dict[str, str] = {}
    for hospital in hospitals.by_id.values():
        networks = [str(network_of(network)) for network in hospital.networks]
        fingerprints = [f"certificate {certificate.fingerprint}" for certificate in hospital.certificates]
        for claim in (*(f"network {network}" for network in networks), *fingerprints):
            other = claims.setdefault(claim, hospital.id)
            if other != hospital.id:
                raise RegistryError(f"{hospital.id}: {claim} is also that of {other}")


class RegistryWatch:
    """The hospitals as they stand on disk, for a process that goes on while they change.

    It has no thread: its owner calls `look` as often as it likes. A change that is broken is not taken: the last good
    registry holds, and the log says why, once. A folder that is gone is such a change: hospitals leave one by one.

    Only files that changed are read again, so that a revocation among thousands of hospitals is seen as soon.

    Args:
        folder: The registry.
        seconds: How often `look` looks at the files; 0: each time.
        failing: Told why a change is not taken; None once it is mended.

    Attributes:
        current: The hospitals. To be read once for what belongs together.
        fault: Why the files as they stand are not taken; None if they are.

    Raises:
        RegistryError: The registry is broken at the start, when there is no good one to hold on to.
    """

    def __init__(
        self, folder: Path, seconds: float = 1.0, failing: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self._folder = folder
        self._seconds = seconds
        self._failing = failing
        self._looked: float | None = None
        self.fault: str | None = None
        self._read: dict[str, tuple[Stamp, Hospital]] = {}  # by the name of the file
        self.current = self._renewed(_stamps(folder))

    def look(self, now: float) -> bool:
        """Read the hospitals anew if their files changed; cheap enough to be called for every batch.

        Args:
            now: Any clock that goes forward, in seconds.

        Returns:
            Whether `current` changed.
        """
        if self._looked is not None and 0 <= now - self._looked < self._seconds:
            return False
        self._looked = now
        try:
            stamps = _stamps(self._folder)
            if self.fault is None and stamps == {name: stamp for name, (stamp, _) in self._read.items()}:
                return False
            hospitals = self._renewed(stamps)
        except RegistryError as error:
            self._tell(str(error))
            return False
        self._tell(None)
        changed = hospitals != self.current
        self.current = hospitals
        return changed

    def _renewed(self, stamps: Mapping[str, Stamp]) -> Hospitals:
        """The hospitals of these files. Stamps are taken before: what changes meanwhile is seen at the next look."""
        if not stamps and self._read and not (self._folder / "hospitals").is_dir():
            raise RegistryError(f"{self._folder / 'hospitals'}: is gone")
        read = {}
        for name, stamp in stamps.items():
            before = self._read.get(name)
            if before is None or before[0] != stamp:
                before = stamp, _read_file(self._folder / "hospitals" / name)
            read[name] = before
        hospitals = Hospitals.of([hospital for _, hospital in read.values()])
        check_hospitals(hospitals)
        self._read = read
        return hospitals

    def _tell(self, reason: str | None) -> None:
        if reason == self.fault:
            return
        self.fault = reason
        if reason is None:
            log.info("registry.mended", folder=str(self._folder))
        else:
            log.error("registry.not_taken", reason=reason)
        self._failing(reason)


def _read_file(path: Path) -> Hospital:
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RegistryError(f"{path}: no file")
            content = file.read(LARGEST_FILE + 1)
        text = content.decode()
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RegistryError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    if len(content) > LARGEST_FILE:
        raise RegistryError(f"{path}: larger than {LARGEST_FILE} bytes")
    hospital = hospital_of_toml(text, str(path))
    if path.name != f"{hospital.id}{SUFFIX}":
        raise RegistryError(f"{path}: id: {hospital.id!r} belongs into a file named {hospital.id}{SUFFIX}")
    return hospital


def _at_once(path: str, flags: int) -> int:
    """Open without waiting: a pipe would have us wait for its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _stamps(folder: Path) -> dict[str, Stamp]:
    """The hospitals' files, in order; those that begin with a point are being written."""
    hospitals = folder / "hospitals"
    stamps = {}
    try:
        with os.scandir(hospitals) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                        found = entry.stat()
                        stamps[entry.name] = (found.st_mtime_ns, found.st_size, found.st_ino)
    except FileNotFoundError:
        return {}
    except OSError as error:  # such as a link that leads to itself
        raise RegistryError(f"{error.filename or hospitals}: cannot be read: {error.strerror}") from error
    return dict(sorted(stamps.items()))


def _sync(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

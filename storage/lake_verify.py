"""Whether the lake is what was sealed: signatures, chains, commits, checkpoints, and every byte of every live file.

Three questions, in this order:

1. Are the records what was written? Signature, form and chain of each; and does each chain reach as far as the seals,
   and the head that was noted elsewhere, say?
2. Does the Delta log say what the records say? Each sealed log entry and checkpoint by its hash; the files that Delta
   sees are those that follow from the manifest and the commits since; data that went has a record of its removal.
3. Are the files what the records say? Size and SHA-256, read in pieces by a few threads.

Found is any change to what is sealed, and any loss. Not found is what was changed before it was sealed by someone who
could write both a file and its commit; and what the owner of the key rewrites together with every record after it,
unless the head was noted elsewhere.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from storage.errors import LakeError
from storage.lake_commits import commits_between, hash_file, log_files, open_table, table_folder, table_names
from storage.lake_manifest import (
    HOLDS,
    MANIFEST,
    PURGES,
    SEALS,
    SealedFile,
    apply,
    chain_names,
    noted_heads,
    read_entry,
)
from storage.lake_place import LakePlace
from storage.lake_purge import purge_history
from storage.lake_removal import LakeFile, files_of
from storage.lake_table import LAKE_FAULTS
from storage.signed_chain import KEEP, KEYS, Chain, ChainError, Link, lake_keys
from storage.signing import Keys

THREADS: Final = 4
_AHEAD: Final = 256  # files handed to the threads at once
_NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was sealed.

    Attributes:
        file: Path in the lake.
        what: What is wrong with it.
        since: Chain and number of the record that says how it should be; empty if there is none.
    """

    file: str
    what: str
    since: str = ""


@dataclass(frozen=True, slots=True)
class VerifyScope:
    """Which data files are read; records and logs are always checked whole.

    Attributes:
        hospital: Only this one; empty: all.
        since: First day.
        until: Last day, itself included.
        sample: Only so many files, chosen at random; 0: all.
    """

    hospital: str = ""
    since: date | None = None
    until: date | None = None
    sample: int = 0

    def holds(self, file: LakeFile) -> bool:
        """Whether a file is read."""
        if self.hospital and file.tenant != self.hospital:
            return False
        if file.day is None:
            return True
        return (self.since is None or self.since <= file.day) and (self.until is None or file.day <= self.until)


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        faults: What is not as it was sealed.
        records: Signed records checked.
        commits: Log entries and checkpoints checked.
        files: Data files read.
        bytes: Their size.
        live: Data files that the tables have.
        unsealed: Of these, those that came after the last seal; their commits say their hashes.
        unhashed: Of these, those whose commit says none: they cannot be checked yet.
        hashed_late: Live files that were hashed when they were sealed, not when they were written.
        orphans: Data files on the disk that no table has: from compaction and expiry, until cleanup, or of a crash.
        seconds: How long the reading took.
        head: Number and hash of the newest seal.
    """

    faults: list[Fault] = field(default_factory=list)
    records: int = 0
    commits: int = 0
    files: int = 0
    bytes: int = 0
    live: int = 0
    unsealed: int = 0
    unhashed: int = 0
    hashed_late: int = 0
    orphans: int = 0
    seconds: float = 0.0
    head: tuple[int, str] | None = None


class CannotVerify(LakeError):  # noqa: N818 - reads as what it says
    """There is nothing to check against."""


@dataclass(slots=True)
class _Sealed:
    """What the manifest of a table adds up to."""

    version: int = _NEVER
    whole: bool = True
    live: dict[str, SealedFile] = field(default_factory=dict)
    commits: dict[int, tuple[str | None, int]] = field(default_factory=dict)
    checkpoints: dict[str, tuple[str, int]] = field(default_factory=dict)
    hashed_late: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _File:
    table: str
    path: str
    sealed: SealedFile


def verify(place: LakePlace, keys: Keys, scope: VerifyScope, head: str = "") -> Report:
    """Check the lake.

    Args:
        place: The lake.
        keys: Whose signatures count.
        scope: Which data files are read.
        head: Hash of a seal that was noted elsewhere: it must be in the chain.

    Raises:
        CannotVerify: There are tables, but no record of any.
        LakeError: The place cannot be read.
    """
    tables = table_names(place)
    if not head and tables and not any(place.files(f"{KEEP}/{name}") for name in (SEALS, MANIFEST)):
        raise CannotVerify(f"lake {place.name}: nothing was ever sealed here, so there is nothing to check against")
    return _Check(place, keys, scope).run(tables, head)


class _Check:
    """One run: a report that grows."""

    def __init__(self, place: LakePlace, keys: Keys, scope: VerifyScope) -> None:
        self.place = place
        self.keys = keys
        self.scope = scope
        self.report = Report()
        self.noted: Mapping[str, tuple[int, str]] = {}
        self.unrecorded: list[tuple[str, str, str]] = []  # table, path, since

    def run(self, tables: Sequence[str], head: str) -> Report:
        self._keys()
        self.noted = self._seals(head)
        for name in (HOLDS, PURGES):
            for _ in self._walk(name):
                pass
        sealed = {name.partition("/")[2] for name in (*self.noted, *chain_names(self.place)) if MANIFEST in name}
        waiting: list[_File] = []
        for table in sorted(sealed.union(tables)):
            files = self._table(table)
            if self.scope.sample:
                waiting += files
            else:
                self._read(files)
        if self.scope.sample:
            self._read(random.sample(waiting, min(self.scope.sample, len(waiting))))
        self._removals()
        return self.report

    def _fault(self, file: str, what: str, since: str = "") -> None:
        self.report.faults.append(Fault(file, what, since))

    def _keys(self) -> None:
        try:
            lake_keys(self.place)
        except LakeError as error:
            self._fault(KEYS, str(error))

    def _seals(self, head: str) -> Mapping[str, tuple[int, str]]:
        links: list[Link] = []
        for link in self._walk(SEALS):
            links.append(link)
            self.report.head = (link.seq, link.hash)
        if head and head not in {link.hash for link in links}:
            self._fault(f"{KEEP}/{SEALS}", f"the head {head} is not in it: it was cut off, or written anew")
        return noted_heads(links)

    def _walk(self, name: str) -> Iterator[Link]:
        """The records of a chain up to the first fault; does it reach as far as the seals say?"""
        chain = Chain(self.place, name)
        seq, digest = self.noted.get(name, (_NEVER, ""))
        reached = _NEVER
        try:
            for link in chain.links(self.keys):
                self.report.records += 1
                reached = link.seq
                if link.seq == seq and link.hash != digest:
                    self._fault(link.file, "is not the record that the seals name", f"{SEALS}: {name}")
                yield link
        except ChainError as error:
            self._fault(error.file, error.reason, f"{name}, record {error.seq}")
            return
        if reached < seq:
            self._fault(chain.folder, f"was cut off: record {seq} was sealed, and is gone", f"{name}, record {seq}")

    def _manifest(self, table: str, oldest: int) -> _Sealed:
        """What the chain of a table adds up to, with the hashes of log entries from a version on."""
        found = _Sealed()
        faults = len(self.report.faults)
        for link in self._walk(f"{MANIFEST}/{table}"):
            try:
                entry = read_entry(link)
            except LakeError as error:
                self._fault(link.file, str(error))
                break
            since = _since(table, link.seq)
            if entry.first != found.version + 1:
                self._fault(link.file, f"begins with version {entry.first}, not {found.version + 1}", since)
            found.version = entry.last
            found.commits.update(
                (version, (digest, link.seq))
                for version, digest in enumerate(entry.commits, entry.first)
                if version >= oldest
            )
            found.checkpoints.update((path, (digest, link.seq)) for path, digest in entry.checkpoints.items())
            for path in apply(entry, found.live):
                self._fault(f"{table_folder(table)}/{path}", "was removed without ever having been there", since)
            found.hashed_late |= entry.hashed
            self.unrecorded += [(table, path, since) for path, data in entry.removed.items() if data]
        found.whole = len(self.report.faults) == faults
        return found

    def _table(self, table: str) -> list[_File]:
        """Check the log of a table; the files that are to be read."""
        folder = table_folder(table)
        commits, checkpoints = log_files(self.place, table)
        sealed = self._manifest(table, min(commits, default=0))
        if not sealed.whole:
            return []  # what should be there is not known
        newest = max([*commits, *checkpoints.values()], default=_NEVER)
        if newest < sealed.version:
            self._fault(f"{folder}/_delta_log", f"goes back behind version {sealed.version}, which was sealed to it")
            return []
        self._log(table, commits, checkpoints, sealed)
        try:
            delta = open_table(self.place, table)
            version = delta.version()
            live = {file.path: file for file in files_of(delta)}
            expected = self._expected(table, sealed, version, commits, live)
        except (*LAKE_FAULTS, LakeError) as error:
            self._fault(f"{folder}/_delta_log", f"Delta cannot read it: {error}")
            return []
        self._compare(table, live, expected)
        self._count(table, live, expected, sealed)
        return [
            _File(table, path, expected[path])
            for path, file in sorted(live.items())
            if path in expected and expected[path].sha256 and self.scope.holds(file)
        ]

    def _log(self, table: str, commits: Mapping[int, str], checkpoints: Mapping[str, int], sealed: _Sealed) -> None:
        """Sealed log entries and checkpoints, byte by byte; cleanup may have removed the oldest."""
        for version in range(min(commits, default=sealed.version + 1), sealed.version + 1):
            digest, seq = sealed.commits.get(version, (None, _NEVER))
            if version not in commits:
                log = f"{table_folder(table)}/_delta_log"
                self._fault(f"{log}/{version:020d}.json", "is missing, between others", _since(table, seq))
            else:
                self._hashed(commits[version], digest, _since(table, seq))
        for path in checkpoints:
            if path in sealed.checkpoints:
                digest, seq = sealed.checkpoints[path]
                self._hashed(path, digest, _since(table, seq))

    def _hashed(self, path: str, digest: str | None, since: str) -> None:
        try:
            found, _ = hash_file(self.place, path)
        except FileNotFoundError:
            return  # cleaned up at this moment
        self.report.commits += 1
        if found != digest:
            self._fault(path, "was changed after it was sealed", since)

    def _expected(
        self, table: str, sealed: _Sealed, version: int, commits: Mapping[int, str], live: Mapping[str, LakeFile]
    ) -> dict[str, SealedFile]:
        """The files that follow from the manifest and the commits since."""
        if sealed.version == _NEVER and 0 not in commits:  # older than the manifest, and not sealed yet
            return {path: SealedFile("", file.bytes, file.rows, _NEVER) for path, file in live.items()}
        expected = dict(sealed.live)
        for commit in commits_between(self.place, table, sealed.version + 1, version):
            for path, data in commit.removed.items():
                expected.pop(path, None)
                if data:
                    self.unrecorded.append((table, path, ""))
            for file in commit.added:
                expected[file.path] = SealedFile(file.sha256, file.size, file.rows, _NEVER)
        return expected

    def _compare(self, table: str, live: Mapping[str, LakeFile], expected: Mapping[str, SealedFile]) -> None:
        folder = table_folder(table)
        for path in sorted(expected.keys() - live.keys()):
            since = _since(table, expected[path].seq)
            self._fault(f"{folder}/{path}", "is in the manifest, but Delta does not see it", since)
        for path in sorted(live.keys() - expected.keys()):
            self._fault(f"{folder}/{path}", "is seen by Delta, but not in the manifest")
        for path in sorted(live.keys() & expected.keys()):
            file, should = live[path], expected[path]
            if (file.bytes, file.rows) != (should.size, should.rows or 0):
                reason = f"has {file.bytes} bytes and {file.rows} rows for Delta, not {should.size} and {should.rows}"
                self._fault(f"{folder}/{path}", reason, _since(table, should.seq))

    def _count(
        self, table: str, live: Mapping[str, LakeFile], expected: Mapping[str, SealedFile], sealed: _Sealed
    ) -> None:
        folder = table_folder(table)
        since_seal = [path for path in live if path in expected and expected[path].seq == _NEVER]
        self.report.live += len(live)
        self.report.unsealed += len(since_seal)
        self.report.unhashed += sum(1 for path in since_seal if not expected[path].sha256)
        self.report.hashed_late += len(sealed.hashed_late & live.keys())
        there = (path.removeprefix(f"{folder}/") for path in self.place.files(folder))
        self.report.orphans += sum(
            1 for path in there if path.endswith(".parquet") and not path.startswith("_delta_log/") and path not in live
        )

    def _read(self, files: Sequence[_File]) -> None:
        """Hash files in a few threads, a bounded number at a time."""
        began = time.perf_counter()
        with ThreadPoolExecutor(THREADS) as threads:
            for first in range(0, len(files), _AHEAD):
                part = files[first : first + _AHEAD]
                for file, (digest, size) in zip(part, threads.map(self._digest, part), strict=True):
                    self._judge(file, digest, size)
        self.report.seconds += time.perf_counter() - began

    def _digest(self, file: _File) -> tuple[str, int]:
        try:
            return hash_file(self.place, f"{table_folder(file.table)}/{file.path}")
        except FileNotFoundError:
            return "", _NEVER

    def _judge(self, file: _File, digest: str, size: int) -> None:
        path, since = f"{table_folder(file.table)}/{file.path}", _since(file.table, file.sealed.seq)
        if size == _NEVER:
            now = {one.path for one in files_of(open_table(self.place, file.table))}
            if file.path in now:  # else it went while this ran, and its removal is in the log
                self._fault(path, "is missing", since)
            return
        self.report.files += 1
        self.report.bytes += size
        if size != file.sealed.size:
            self._fault(path, f"was changed: it has {size} bytes, not {file.sealed.size}", since)
        elif digest != file.sealed.sha256:
            self._fault(path, "was changed: its SHA-256 is another", since)

    def _removals(self) -> None:
        """Data that went without a record of its removal; the records are read last, since they come first."""
        if not self.unrecorded:
            return
        try:
            recorded = {(record.table, path) for record in purge_history(self.place) for path in record.files}
        except ChainError:
            return  # told already
        except LakeError as error:
            self._fault(f"{KEEP}/{PURGES}", str(error))
            return
        for table, path, since in self.unrecorded:
            if (table, path) not in recorded:
                self._fault(f"{table_folder(table)}/{path}", "was removed with its data, and no record says why", since)


def _since(table: str, seq: int) -> str:
    return f"{MANIFEST}/{table}, record {seq}" if seq >= 0 else ""

"""The manifest: what the lake's tables should hold, sealed from time to time by signed records.

Each table has a chain (`keep/manifest/TABLE`). A record covers the versions since the record before it, and says

    versions     first and last
    commits      SHA-256 of each log entry, in order; null where the entry was gone when the table was first sealed
    checkpoints  path -> SHA-256, of those up to the record before: nobody writes them any more
    added        [path, SHA-256, bytes, rows] of the files that the versions brought, and that were there at the end
    hashed       which of these were hashed only now, since their writer did not say: what they were before is not known
    removed      the files of earlier records that went, and whether data went with them (or only moved)

so that what a table holds is the sum of its chain, however long its Delta log is kept. A file that came and went
between two records (compaction does that to most) is in none; the log entries that say so are.

One chain, `keep/seals`, names the end of every other chain. Its own end, the *head*, is the one hash to keep elsewhere:
with it nothing before it can be changed, taken out or cut off unseen, not even by who has the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import BaseModel, ValidationError

from storage.errors import LakeError
from storage.lake_commits import (
    Added,
    Commit,
    commits_between,
    hash_file,
    log_files,
    open_table,
    read_commit,
    table_folder,
    table_names,
)
from storage.lake_place import LakePlace
from storage.lake_removal import files_of
from storage.lake_table import LAKE_FAULTS
from storage.signed_chain import KEEP, Chain, Link, Value
from storage.signing import Keys, Signer

MANIFEST: Final = "manifest"
SEALS: Final = "seals"
HOLDS: Final = "holds"
PURGES: Final = "purges"

ALL_HEADS_EVERY: Final = 64
"""Records of `seals` from one that names every chain to the next; those between name the chains that grew."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record that a table's manifest has got.

    Attributes:
        table: Its folder below `events/`.
        first: The versions covered; so too `last`.
        last: See `first`.
        files: How many files came.
        hashed: How many of them were hashed only now.
    """

    table: str
    first: int
    last: int
    files: int
    hashed: int


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file as the manifest knows it: the record that brought it, and what it said."""

    sha256: str
    size: int
    rows: int | None
    seq: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of a table's manifest, read."""

    link: Link
    first: int
    last: int
    commits: Sequence[str | None]
    checkpoints: dict[str, str]
    checkpointed: int
    added: dict[str, SealedFile]
    hashed: frozenset[str]
    removed: dict[str, bool]


def manifest(place: LakePlace, table: str) -> Chain:
    """The chain of a table."""
    return Chain(place, f"{MANIFEST}/{_name(table)}")


def sealed_version(place: LakePlace, table: str) -> int:
    """The last version of a table that is sealed; -1 if none is. Log entries up to it are not needed by `verify`.

    Raises:
        LakeError: The newest record cannot be read.
    """
    last = manifest(place, table).last()
    return -1 if last is None else read_entry(last).last


def seal(place: LakePlace, signer: Signer, now: datetime) -> list[Sealed]:
    """Seal what was committed since the last time, in every table.

    Raises:
        LakeError: A table could not be sealed, or the log of one is not what was sealed; all others were sealed first.
    """
    done: list[Sealed] = []
    faults: list[str] = []
    for table in table_names(place):
        try:
            found = _seal_table(place, table, signer, now)
        except LakeError as error:
            faults.append(str(error))
            continue
        except LAKE_FAULTS as error:
            faults.append(f"lake table {place.name}/{table_folder(table)}: cannot be sealed: {error}")
            continue
        if found is not None:
            done.append(found)
    seal_heads(place, signer, now)
    if faults:
        raise LakeError("; ".join(faults))
    return done


def seal_heads(place: LakePlace, signer: Signer, now: datetime) -> Link | None:
    """Note the ends of all chains that have grown; the new head, or None if none has.

    Raises:
        LakeError: A chain is shorter than was noted, or cannot be read.
    """
    seals = Chain(place, SEALS)
    recent = seals.recent(2 * ALL_HEADS_EVERY)
    noted = noted_heads(recent)
    whole = not recent or (recent[-1].seq + 1) % ALL_HEADS_EVERY == 0
    grown: dict[str, Value] = {}
    for name in chain_names(place):
        last = Chain(place, name).last()
        seq, digest = noted.get(name, (-1, ""))
        if last is None or last.seq < seq:
            raise LakeError(f"lake {place.name}: {KEEP}/{name}: was cut off: record {seq} was noted, and is gone")
        if last.seq == seq and last.hash != digest:
            raise LakeError(f"lake {place.name}: {last.file}: record {seq} is not the one that was noted")
        if last.seq > seq:
            grown[name] = [last.seq, last.hash]
    if not grown:
        return None
    every: dict[str, Value] = {name: [seq, digest] for name, (seq, digest) in noted.items()}
    link = seals.append(signer, {"heads": {**every, **grown} if whole else grown}, now)
    seals.fold()
    return link


def noted_heads(links: Iterable[Link]) -> dict[str, tuple[int, str]]:
    """Chain -> number and hash of its end, as the seals last noted it."""
    noted: dict[str, tuple[int, str]] = {}
    for link in links:
        heads = link.body.get("heads")
        for name, head in heads.items() if isinstance(heads, dict) else ():
            if isinstance(head, list) and isinstance(head[0], int) and isinstance(head[1], str):
                noted[name] = (head[0], head[1])
    return noted


def chain_names(place: LakePlace) -> list[str]:
    """The chains that the seals note."""
    tables = [f"{MANIFEST}/{name}" for name in place.folders(f"{KEEP}/{MANIFEST}")]
    return [name for name in (*tables, HOLDS, PURGES) if place.files(f"{KEEP}/{name}")]


def entries(place: LakePlace, table: str, keys: Keys | None = None) -> Iterator[Entry]:
    """The records of a table.

    Raises:
        ChainError: At the first one that is not what was written.
    """
    for link in manifest(place, table).links(keys):
        yield read_entry(link)


def known_files(place: LakePlace, table: str) -> dict[str, SealedFile]:
    """The files that a table should have by its manifest, at the last version sealed; by path below the table."""
    live: dict[str, SealedFile] = {}
    for entry in entries(place, table):
        apply(entry, live)
    return live


def apply(entry: Entry, live: dict[str, SealedFile]) -> list[str]:
    """Bring what a table holds to the end of a record; the files that it takes out and that were not there."""
    strange = [path for path in entry.removed if live.pop(path, None) is None]
    live.update(entry.added)
    return strange


def read_entry(link: Link) -> Entry:
    """A record as its fields.

    Raises:
        LakeError: It says something else.
    """
    try:
        body = _Body.model_validate(link.body)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise LakeError(f"{link.file}: record {link.seq} is no record of a manifest: {reason}") from error
    first, last = body.versions
    added = {path: SealedFile(digest, size, rows, link.seq) for path, digest, size, rows in body.added}
    return Entry(
        *(link, first, last, body.commits, body.checkpoints, body.checkpointed, added),
        hashed=frozenset(body.hashed),
        removed=dict(body.removed),
    )


class _Body(BaseModel):
    """The fields of a record, beside those that every record of a chain has."""

    versions: tuple[int, int]
    commits: tuple[str | None, ...]
    checkpoints: dict[str, str]
    checkpointed: int
    added: tuple[tuple[str, str, int, int | None], ...]
    hashed: tuple[str, ...]
    removed: tuple[tuple[str, bool], ...]


def _seal_table(place: LakePlace, table: str, signer: Signer, now: datetime) -> Sealed | None:
    chain = manifest(place, table)
    last = chain.last()
    entry = None if last is None else read_entry(last)
    before, checkpointed = (-1, -1) if entry is None else (entry.last, entry.checkpointed)
    commits, checkpoints = log_files(place, table)
    newest = max([*commits, *checkpoints.values()], default=-1)
    if newest < before:
        raise LakeError(f"lake {place.name}: {table_folder(table)}: version {before} was sealed, and is gone")
    settled = {path: version for path, version in checkpoints.items() if checkpointed < version <= before}
    if newest == before and not settled:
        return None
    if last is None:
        first, added, removed, hashes, newest = _whole(place, table)
    else:
        first = before + 1
        found = list(commits_between(place, table, first, newest))
        added, removed = _net(found)
        hashes = [commit.sha256 for commit in found]
    hashed = [file.path for file in added if not file.sha256]
    folder = table_folder(table)
    files: list[Value] = []
    for file in added:
        try:
            files.append([file.path, file.sha256 or hash_file(place, f"{folder}/{file.path}")[0], file.size, file.rows])
        except FileNotFoundError as error:
            raise LakeError(f"lake {place.name}: {folder}/{file.path}: is missing, and was not sealed") from error
    body: dict[str, Value] = {
        "table": _name(table),
        "versions": [first, newest],
        "commits": hashes,
        "checkpoints": _hashes(place, settled),
        "checkpointed": max(checkpointed, before),
        "added": files,
        "hashed": list[Value](hashed),
        "removed": [[path, data] for path, data in removed.items()],
    }
    if chain.append_after(last, signer, body, now) is None:
        return None  # another process was faster, and has sealed it
    chain.fold()
    return Sealed(_name(table), first, newest, len(added), len(hashed))


def _whole(place: LakePlace, table: str) -> tuple[int, Sequence[Added], dict[str, bool], list[Value], int]:
    """What the first record of a table says: all that is there, from version 0."""
    delta = open_table(place, table)
    version = delta.version()
    commits, _ = log_files(place, table)
    hashes: list[Value] = []
    known: dict[str, str] = {}
    for number in range(version + 1):
        if number not in commits:
            hashes.append(None)
            continue
        commit = read_commit(place, commits[number], number)
        hashes.append(commit.sha256)
        known.update((file.path, file.sha256) for file in commit.added if file.sha256)
    added = [Added(file.path, known.get(file.path, ""), file.bytes, file.rows) for file in files_of(delta)]
    return 0, sorted(added, key=lambda file: file.path), {}, hashes, version


def _net(commits: Iterable[Commit]) -> tuple[Sequence[Added], dict[str, bool]]:
    """What is left of some commits: files that came and stayed, and files of before that went."""
    came: dict[str, Added] = {}
    went: dict[str, bool] = {}
    for commit in commits:
        for path, data in commit.removed.items():
            if path in came:
                del came[path]
            else:
                went[path] = data
        came |= {file.path: file for file in commit.added}
    return list(came.values()), went


def _hashes(place: LakePlace, paths: Iterable[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for path in sorted(paths):
        try:
            found[path] = hash_file(place, path)[0]
        except FileNotFoundError:
            continue  # cleaned up at this moment
    return found


def _name(table: str) -> str:
    return table_folder(table).partition("/")[2]

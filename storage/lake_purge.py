"""Taking whole partitions out of the lake, and the record of it.

A record of the chain `keep/purges` says what is about to go, before it goes: each file with its hash, each partition
with its rows, bytes and times, which rule or whose reason, who and when. Then one Delta commit takes the files out, and
a second record says that it was done. What is announced and not concluded was interrupted; the next run looks whether
the commit was made, makes it if not, and says so. An announcement that others made void (compaction rewrote its files)
is withdrawn, and what stands there now is looked at anew.

Files that a commit took out stay on the disk until cleanup's grace is over, for readers that began before. Where the
law demands that they go, they go at once, together with those that compaction left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from deltalake import DeltaTable
from pydantic import BaseModel, ValidationError

from ingest.logsource import LogSource
from storage.errors import LakeError
from storage.lake_commits import commits_between, hash_file, log_files, open_table, read_commit, table_folder
from storage.lake_files import sync_commits
from storage.lake_hold import Hold, holding, read_holds
from storage.lake_manifest import HOLDS, PURGES, known_files, sealed_version
from storage.lake_place import LakePlace
from storage.lake_removal import LakeFile, RemovalConflict, files_of, replace_files
from storage.lake_table import LAKE_FAULTS, described
from storage.signed_chain import Chain, Link, Value
from storage.signing import Keys, Signer

INTENDED: Final = "intended"
DONE: Final = "done"
WITHDRAWN: Final = "withdrawn"
PURGE_MARK: Final = "tocsin.purge"
"""In the commit: the hash of the record that announced it."""

_ATTEMPTS: Final = 10

Choice = Callable[[LakeFile], str | None]
"""Why a file is to go; None if it stays. All files of a partition have the same answer."""


@dataclass(frozen=True, slots=True)
class Expired:
    """What went from one partition.

    Attributes:
        table: The folder below `events/`.
        day: Of the partition, UTC; so too `hospital`.
        hospital: See `day`.
        files: How many files.
        rows: How many events.
        bytes: Their size.
        oldest: Earliest event time, as the log has it; empty if it does not say.
        newest: Latest.
        why: The rule or the reason.
    """

    table: str
    day: date | None
    hospital: str | None
    files: int
    rows: int
    bytes: int
    oldest: str
    newest: str
    why: str


@dataclass(frozen=True, slots=True)
class PurgeRecord:
    """A removal as its records tell it.

    Attributes:
        seq: Number of the record that announced it.
        hash: Its hash.
        at: When it was announced.
        who: By whom.
        reason: Why, as that person said; empty for retention.
        table: The folder below `events/`.
        partitions: What was to go.
        files: Path below the table -> SHA-256.
        state: `INTENDED` (interrupted, or under way), `DONE` or `WITHDRAWN`.
        note: What the last record says of it.
        at_once: Whether the files are to be removed from the disk at once.
    """

    seq: int
    hash: str
    at: datetime
    who: str
    reason: str
    table: str
    partitions: Sequence[Expired]
    files: dict[str, str]
    state: str
    note: str
    at_once: bool


class _Partition(BaseModel):
    day: date | None
    hospital: str | None
    rows: int
    bytes: int
    oldest: str
    newest: str
    why: str
    files: tuple[tuple[str, str, int], ...]


class _Intention(BaseModel):
    what: str
    table: str
    who: str
    reason: str
    at_once: bool
    partitions: tuple[_Partition, ...]


class _Outcome(BaseModel):
    what: str
    of: str
    note: str


def purge_history(place: LakePlace, keys: Keys | None = None) -> list[PurgeRecord]:
    """Every removal there was, oldest first.

    Raises:
        LakeError: The records are not what was written.
    """
    found: dict[str, tuple[Link, _Intention, str, str]] = {}
    for link in Chain(place, PURGES).links(keys):
        try:
            if link.body.get("what") == INTENDED:
                found[link.hash] = (link, _Intention.model_validate(link.body), INTENDED, "")
                continue
            outcome = _Outcome.model_validate(link.body)
            announced, intention, _, _ = found[outcome.of]
        except (ValidationError, KeyError) as error:
            raise LakeError(f"{link.file}: record {link.seq} is no record of a removal: {error}") from error
        found[outcome.of] = (announced, intention, outcome.what, outcome.note)
    return [_record(*parts) for parts in found.values()]


def remove(
    place: LakePlace,
    table: str,
    choose: Choice,
    holds: Sequence[Hold],
    signer: Signer,
    now: datetime,
    *,
    who: str,
    reason: str = "",
    at_once: bool = False,
) -> list[Expired]:
    """Take files out of a table, with their records; what a hold keeps stays.

    Args:
        place: The lake.
        table: The table's folder.
        choose: Which files, and why.
        holds: Holds; those in the lake count as well, as they are just before the commit.
        signer: Signs the records.
        now: For the records.
        who: For the records.
        reason: For the records.
        at_once: Whether files are removed from the disk at once.

    Raises:
        LakeError: The table cannot be read or written, or others were always faster.
    """
    for _ in range(_ATTEMPTS):
        try:
            delta = open_table(place, table)
            logsource = described(delta)
            with place.lock(HOLDS):  # a hold that is added now waits until this commit is made
                standing = [*holds, *read_holds(place)]
                chosen = _chosen(files_of(delta), choose, standing, logsource)
                if not chosen:
                    return []
                intention = _intention(place, table, delta, chosen, who=who, reason=reason, at_once=at_once)
                link = Chain(place, PURGES).append(signer, intention, now)
                record = _record(link, _Intention.model_validate(link.body), INTENDED, "")
                try:
                    _commit(place, delta, record, [file for files in chosen.values() for file in files])
                except RemovalConflict as error:
                    _conclude(place, record, WITHDRAWN, f"others changed the table: {error}", signer, now)
                    continue
            finish(place, record, signer, now, "")
            return list(record.partitions)
        except LAKE_FAULTS as error:
            folder = table_folder(table)
            raise LakeError(f"lake table {place.name}/{folder}: cannot remove what is over: {error}") from error
    raise LakeError(f"lake table {place.name}/{table_folder(table)}: {_ATTEMPTS} other commits were faster")


def finish_interrupted(place: LakePlace, signer: Signer, now: datetime) -> list[PurgeRecord]:
    """Bring to an end what was announced and not concluded: the records of it, with their new state.

    What is announced and not yet committed is committed now, unless a hold has come since: then it is withdrawn.

    Raises:
        LakeError: A table cannot be read or written.
    """
    finished: list[PurgeRecord] = []
    for record in purge_history(place):
        if record.state != INTENDED:
            continue
        try:
            state, note = _end(place, record, signer, now)
        except LAKE_FAULTS as error:
            folder = table_folder(record.table)
            raise LakeError(f"lake table {place.name}/{folder}: cannot finish a removal: {error}") from error
        finished.append(
            PurgeRecord(
                *(record.seq, record.hash, record.at, record.who, record.reason, record.table, record.partitions),
                *(record.files, state, note, record.at_once),
            )
        )
    return finished


def finish(place: LakePlace, record: PurgeRecord, signer: Signer, now: datetime, note: str) -> None:
    """Conclude a removal whose commit is made: files go from the disk if they are to go at once."""
    if record.at_once:
        gone = _erase(place, record)
        note = "; ".join(filter(None, (note, f"{gone} files removed from the disk")))
    _conclude(place, record, DONE, note, signer, now)


def _end(place: LakePlace, record: PurgeRecord, signer: Signer, now: datetime) -> tuple[str, str]:
    delta = open_table(place, record.table)
    left = [file for file in files_of(delta) if file.path in record.files]
    if left:
        logsource = described(delta)
        with place.lock(HOLDS):
            holds = read_holds(place)
            held = any(holding(holds, file.day, file.tenant, logsource) for file in left)
            note = "withdrawn by the next run: a hold has come since" if held else ""
            if not held and len(left) < len(record.files):
                note = "withdrawn by the next run: others changed the table"
            if not note:
                try:
                    _commit(place, delta, record, left)
                except RemovalConflict:
                    note = "withdrawn by the next run: others changed the table"
        if note:
            _conclude(place, record, WITHDRAWN, note, signer, now)
            return WITHDRAWN, note
        note = "interrupted before its commit, finished by the next run"
    elif not _committed(place, record):
        note = "withdrawn by the next run: compaction rewrote its files"
        _conclude(place, record, WITHDRAWN, note, signer, now)
        return WITHDRAWN, note
    else:
        note = "interrupted after its commit, concluded by the next run"
    finish(place, record, signer, now, note)
    return DONE, note


def _committed(place: LakePlace, record: PurgeRecord) -> bool:
    """Whether the files went with their data; where the log does not reach back so far, they are taken to have."""
    commits, _ = log_files(place, record.table)
    for version, path in reversed(commits.items()):
        removed = read_commit(place, path, version).removed
        if removed.keys() & record.files.keys():
            return all(removed.get(file, False) for file in record.files)
    return True


def _commit(place: LakePlace, delta: DeltaTable, record: PurgeRecord, files: Sequence[LakeFile]) -> None:
    before = delta.version()
    after = replace_files(delta, files, [], data_change=True, metadata={PURGE_MARK: record.hash}).version()
    sync_commits(place, table_folder(record.table), before + 1, after)


def _conclude(place: LakePlace, record: PurgeRecord, what: str, note: str, signer: Signer, now: datetime) -> None:
    Chain(place, PURGES).append(signer, {"what": what, "of": record.hash, "note": note}, now)


def _chosen(
    files: Sequence[LakeFile], choose: Choice, holds: Sequence[Hold], logsource: LogSource
) -> dict[tuple[date | None, str | None, str], list[LakeFile]]:
    chosen: dict[tuple[date | None, str | None, str], list[LakeFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        why = choose(file)
        if why is not None and not holding(holds, file.day, file.tenant, logsource):
            chosen.setdefault((file.day, file.tenant, why), []).append(file)
    return chosen


def _intention(
    place: LakePlace,
    table: str,
    delta: DeltaTable,
    chosen: dict[tuple[date | None, str | None, str], list[LakeFile]],
    *,
    who: str,
    reason: str,
    at_once: bool,
) -> dict[str, Value]:
    hashes = _known_hashes(place, table, delta)
    folder = table_folder(table)
    partitions: list[Value] = []
    for (day, hospital, why), files in chosen.items():
        named: list[Value] = [
            [file.path, hashes.get(file.path) or hash_file(place, f"{folder}/{file.path}")[0], file.bytes]
            for file in files
        ]
        partitions.append(
            {
                "day": None if day is None else day.isoformat(),
                "hospital": hospital,
                "rows": sum(file.rows for file in files),
                "bytes": sum(file.bytes for file in files),
                "oldest": min((_text(file.first) for file in files if file.first is not None), default=""),
                "newest": max((_text(file.last) for file in files if file.last is not None), default=""),
                "why": why,
                "files": named,
            }
        )
    name = folder.partition("/")[2]
    return {
        "what": INTENDED,
        "table": name,
        "who": who,
        "reason": reason,
        "at_once": at_once,
        "partitions": partitions,
    }


def _known_hashes(place: LakePlace, table: str, delta: DeltaTable) -> dict[str, str]:
    """Path -> SHA-256 as the manifest, or a commit that is not sealed yet, says."""
    known = {path: file.sha256 for path, file in known_files(place, table).items()}
    sealed = sealed_version(place, table)
    if sealed >= 0:
        for commit in commits_between(place, table, sealed + 1, delta.version()):
            known.update((file.path, file.sha256) for file in commit.added if file.sha256)
    return known


def _erase(place: LakePlace, record: PurgeRecord) -> int:
    """Remove the files of a removal from the disk, and what compaction left behind of its partitions; how many."""
    folder = table_folder(record.table)
    live = {file.path for file in files_of(open_table(place, record.table))}
    doomed = set(record.files) | set(_left_behind(place, record))
    for path in sorted(doomed - live):
        place.delete(f"{folder}/{path}")
    return len(doomed - live)


def _left_behind(place: LakePlace, record: PurgeRecord) -> Iterator[str]:
    """Files of the same hospitals, of any day, that commits took out and that cleanup has not removed yet."""
    hospitals = {path.split("/")[1] for path in record.files if path.count("/") > 1}
    folder = table_folder(record.table)
    there = place.files(folder)
    commits, _ = log_files(place, record.table)
    for version, commit in commits.items():
        for path in read_commit(place, commit, version).removed:
            if path.count("/") > 1 and path.split("/")[1] in hospitals and f"{folder}/{path}" in there:
                yield path


def _record(link: Link, intention: _Intention, state: str, note: str) -> PurgeRecord:
    partitions = [
        Expired(
            *(intention.table, part.day, part.hospital, len(part.files), part.rows, part.bytes),
            *(part.oldest, part.newest, part.why),
        )
        for part in intention.partitions
    ]
    files = {path: digest for part in intention.partitions for path, digest, _ in part.files}
    return PurgeRecord(
        *(link.seq, link.hash, link.at, intention.who, intention.reason, intention.table, partitions, files),
        *(state, note, intention.at_once),
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")

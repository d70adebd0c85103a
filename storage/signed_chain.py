"""A chain of signed records in the lake: each names the hash of the one before it.

A record is one line of JSON, `{"key": id, "record": {...}, "signature": hex}`, with sorted keys and no spaces. The
signature is over the JSON of `record`, which holds the name of the chain, its number and `previous`; the hash of a
record is SHA-256 over its line. A line that is not exactly what its content would be written as is found out, so that
no byte of it can be changed unseen.

Each record is a file that only the first of two writers makes: `00000000000000000012.json`. When there are many, the
oldest are put together, line by line, into `00000000000000000000-00000000000000000511.jsonl`. The newest stays alone,
and so the end of a chain is read at once. Nothing is ever taken out. Cutting off the end leaves a shorter chain that is
whole: what must not be shortened is named by another chain (`storage.lake_manifest`), or by a note kept elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import orjson

from storage.errors import LakeError
from storage.lake_place import LakePlace
from storage.signing import Keys, Signer, pem, public_keys, signed

GENESIS: Final = "0" * 64
KEEP: Final = "keep"
KEYS: Final = f"{KEEP}/keys"
FOLD_AT: Final = 512  # files of single records

_ATTEMPTS: Final = 50
_LISTINGS: Final = 5

Value = str | int | bool | None | list["Value"] | dict[str, "Value"]
"""What JSON holds here; no fractions, which have more than one spelling."""


class ChainError(LakeError):
    """A record that is not what it was written as.

    Attributes:
        file: Where it lies.
        reason: What is wrong with it.
        seq: Its number.
    """

    def __init__(self, place: str, file: str, reason: str, seq: int) -> None:
        super().__init__(f"lake {place}: {file}: record {seq}: {reason}")
        self.file = file
        self.reason = reason
        self.seq = seq


@dataclass(frozen=True, slots=True)
class Link:
    """A record of a chain.

    Attributes:
        seq: Its number, from 0.
        at: When it was made, by the clock of who made it.
        hash: SHA-256 of its line.
        body: What it says.
        file: Where it lies.
    """

    seq: int
    at: datetime
    hash: str
    body: Mapping[str, Value]
    file: str


class Chain:
    """One chain of a lake. Any number of processes may append; a record is durable when `append` returns.

    Args:
        place: The lake.
        name: Such as `holds` or `manifest/windows.security._`.
    """

    def __init__(self, place: LakePlace, name: str) -> None:
        self.place = place
        self.name = name
        self.folder = f"{KEEP}/{name}"

    def links(self, keys: Keys | None = None) -> Iterator[Link]:
        """All records, in order.

        Args:
            keys: Whose signatures count; none are checked without.

        Raises:
            ChainError: At the first record that is not what was written, or does not follow the one before it.
            LakeError: The place cannot be read.
        """
        previous, expected = GENESIS, 0
        for file, line, seq in self._ordered():
            if seq != expected:
                raise ChainError(self.place.name, file, f"record {expected} is missing", expected)
            link = self._link(file, line, previous, expected, keys)
            yield link
            previous, expected = link.hash, expected + 1

    def last(self) -> Link | None:
        """The newest record, by its form alone; none if the chain is empty.

        Raises:
            ChainError: It cannot be read.
        """
        for attempt in range(_LISTINGS):
            files = self._files()
            if not files:
                return None
            file, _, seq = max(files, key=lambda entry: (entry[2], entry[1]))
            try:
                content = self.place.read(file)
            except FileNotFoundError as error:
                if attempt == _LISTINGS - 1:
                    raise ChainError(self.place.name, file, "is gone", seq) from error
                continue  # others wrote so many that it was folded meanwhile
            return self._link(file, self._split(file, content, seq)[-1], None, seq, None)
        return None

    def recent(self, count: int) -> list[Link]:
        """The newest records, at least this many if there are, in order; checked only by their form.

        Raises:
            ChainError: One cannot be read.
        """
        found: list[tuple[str, bytes, int]] = []
        for file, first, last in reversed(self._files()):
            if len(found) >= count:
                break
            if found and last >= found[0][2]:
                continue
            try:
                lines = self._split(file, self.place.read(file), first)
            except FileNotFoundError as error:
                raise ChainError(self.place.name, file, "is gone", first) from error
            found[:0] = [(file, line, seq) for seq, line in enumerate(lines, first)]
        return [self._link(file, line, None, seq, None) for file, line, seq in found]

    def append(self, signer: Signer, body: Mapping[str, Value], now: datetime) -> Link:
        """Add a record at the end.

        Raises:
            LakeError: It is not known to be durable.
        """
        publish(self.place, signer)
        for _ in range(_ATTEMPTS):
            link = self.append_after(self.last(), signer, body, now)
            if link is not None:
                return link
        raise LakeError(f"lake {self.place.name}: {self.folder}: others always wrote first")

    def append_after(
        self, before: Link | None, signer: Signer, body: Mapping[str, Value], now: datetime
    ) -> Link | None:
        """Add a record after one that was the last; None if another was first."""
        seq, previous = (0, GENESIS) if before is None else (before.seq + 1, before.hash)
        record: dict[str, Value] = {
            **body,
            "chain": self.name,
            "seq": seq,
            "previous": previous,
            "at": now.astimezone(UTC).isoformat(timespec="microseconds"),
        }
        line = _line(record, signer.id, signer.sign(_canonical(record)))
        file = f"{self.folder}/{seq:020d}.json"
        if not self.place.create(file, line + b"\n"):
            return None
        return Link(seq, now.astimezone(UTC), hashlib.sha256(line).hexdigest(), record, file)

    def fold(self, at: int = FOLD_AT) -> None:
        """Put single records together if there are many; after a crash at any point nothing is lost or there twice."""
        files = self._files()
        folded = max((last for _, first, last in files if last > first), default=-1)
        for file, first, last in files:
            if first == last <= folded:
                self._check_folded(file, last)
                self.place.delete(file)  # a crash came between writing and removing
        single = [(file, first) for file, first, last in files if first == last > folded][:-1]
        if len(single) < at:
            return
        first, last = single[0][1], single[-1][1]
        if last - first + 1 != len(single):
            return  # a hole: `links` tells it
        content = b"".join(self.place.read(file) for file, _ in single)
        self.place.create(f"{self.folder}/{first:020d}-{last:020d}.jsonl", content)
        for file, _ in single:
            self.place.delete(file)

    def files(self) -> list[str]:
        """Where the records lie."""
        return [file for file, _, _ in self._files()]

    def _check_folded(self, file: str, seq: int) -> None:
        """A single record that was not removed when it was put with others says what it says there."""
        alone = self.place.read(file)
        for other, first, last in self._files():
            if first <= seq <= last and other != file:
                lines = self._split(other, self.place.read(other), first)
                if seq - first < len(lines) and lines[seq - first] + b"\n" == alone:
                    return
        raise ChainError(self.place.name, file, "differs from the same record among others", seq)

    def _files(self) -> list[tuple[str, int, int]]:
        """(file, first, last number), those of many records before those of one."""
        found: list[tuple[str, int, int]] = []
        for file in self.place.files(self.folder):
            name = file.rpartition("/")[2]
            stem, _, kind = name.partition(".")
            first, dash, last = stem.partition("-")
            if kind == "json" and first.isdecimal() and not dash:
                found.append((file, int(first), int(first)))
            elif kind == "jsonl" and first.isdecimal() and last.isdecimal():
                found.append((file, int(first), int(last)))
        return sorted(found, key=lambda entry: (entry[1], -entry[2]))

    def _ordered(self) -> Iterator[tuple[str, bytes, int]]:
        """(file, line, number) of each record; files may be folded while this reads them."""
        reached = 0
        for attempt in range(_LISTINGS):
            try:
                for file, first, last in self._files():
                    if last < reached:
                        self._check_folded(file, last)
                        continue
                    lines = self._split(file, self.place.read(file), first)
                    if len(lines) != last - first + 1:
                        raise ChainError(self.place.name, file, "holds more or fewer records than its name says", first)
                    for seq, line in enumerate(lines, first):
                        if seq >= reached:
                            yield file, line, seq
                            reached = seq + 1
            except FileNotFoundError as error:
                if attempt == _LISTINGS - 1:
                    raise ChainError(self.place.name, self.folder, "is gone", reached) from error
                continue
            return

    def _split(self, file: str, content: bytes, seq: int) -> list[bytes]:
        if not content.endswith(b"\n"):
            raise ChainError(self.place.name, file, "was changed after it was written: it is cut off", seq)
        return content[:-1].split(b"\n")

    def _link(self, file: str, line: bytes, previous: str | None, seq: int, keys: Keys | None) -> Link:
        def broken(reason: str) -> ChainError:
            return ChainError(self.place.name, file, reason, seq)

        try:
            whole = orjson.loads(line)
            record, key, signature = whole["record"], whole["key"], whole["signature"]
            at = datetime.fromisoformat(record["at"])
        except (ValueError, KeyError, TypeError) as error:
            raise broken("was changed after it was written: it cannot be read") from error
        if not isinstance(key, str) or not isinstance(signature, str) or at.tzinfo is None:
            raise broken("was changed after it was written: it cannot be read")
        if _line(record, key, signature) != line:
            raise broken("was changed after it was written: it is not in the form that is written")
        if record.get("chain") != self.name or record.get("seq") != seq:
            raise broken(f"stands in the place of another: it is {record.get('chain')!r}, {record.get('seq')!r}")
        if previous is not None and record.get("previous") != previous:
            raise broken("does not follow the record before it")
        if keys is not None:
            if key not in keys:
                raise broken(f"is signed with the key {key}, which is not trusted (--public-key FILE)")
            if not signed(keys[key], signature, _canonical(record)):
                raise broken("was changed after it was written: its signature does not fit")
        return Link(seq, at, hashlib.sha256(line).hexdigest(), record, file)


def publish(place: LakePlace, signer: Signer) -> None:
    """Leave the public key in the lake; nothing happens if it is there."""
    file = f"{KEYS}/{signer.id}.pem"
    if file not in place.files(KEYS):
        place.create(file, signer.public_pem)


def lake_keys(place: LakePlace) -> Keys:
    """The public keys that lie in the lake.

    Raises:
        LakeError: One cannot be read, or is not the one its name says.
    """
    found: dict[str, bytes] = {file: place.read(file) for file in place.files(KEYS)}
    keys = dict(public_keys((f"lake {place.name}: {file}", content) for file, content in found.items()))
    for file, content in found.items():
        key = keys.get(file.rpartition("/")[2].removesuffix(".pem"))
        if key is None or pem(key) != content:
            raise LakeError(f"lake {place.name}: {file}: is not the key that its name says")
    return keys


def _canonical(record: object) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


def _line(record: object, key: str, signature: str) -> bytes:
    return _canonical({"key": key, "record": record, "signature": signature})

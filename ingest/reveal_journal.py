"""Who looked behind which pseudonym, when and why: a hash-chained file, written before anything is shown.

One JSON object a line. Its `hash` is SHA-256 over the hash before it and the entry as canonical JSON, so changing,
removing or inserting an entry breaks every hash from there on. What was found is never written. Cutting entries off the
end leaves a shorter chain that is whole, and whoever may write the file can compute another: note the last hash
elsewhere, as with the journal of decisions (decision 0005).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ingest.hospital_keys import PatientDataError

FIRST: Final = "0" * 64
"""The hash before the first entry."""
_FILE_MODE: Final = 0o600


class RevealJournalError(PatientDataError):
    """The journal cannot be written, or its chain does not hold; nothing is revealed then."""


@dataclass(frozen=True, slots=True)
class Reveal:
    """One look.

    Attributes:
        who: As the person says.
        account: Of the operating system.
        reason: As the person says.
        tokens: What was asked for.
    """

    who: str
    account: str
    reason: str
    tokens: Sequence[str]


def append_reveal(path: Path, reveal: Reveal, now: datetime) -> str:
    """Write an entry behind the others, to disk, and return its hash.

    Raises:
        RevealJournalError: The file cannot be written, or an earlier entry was changed.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, _FILE_MODE)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            number, last = _verify(path, file.read())
            entry: dict[str, object] = {"number": number + 1, "at": now.astimezone(UTC).isoformat(), **asdict(reveal)}
            digest = _hash(last, entry)
            file.write(_canonical({**entry, "hash": digest}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RevealJournalError(f"{path}: cannot be written: {error.strerror}") from error
    return digest


def verify_reveals(path: Path) -> tuple[int, str]:
    """How many entries the journal has, and the last one's hash.

    Raises:
        RevealJournalError: It cannot be read, or names the first entry at which the chain breaks.
    """
    try:
        return _verify(path, path.read_bytes())
    except OSError as error:
        raise RevealJournalError(f"{path}: cannot be read: {error.strerror}") from error


def _verify(path: Path, content: bytes) -> tuple[int, str]:
    last, number = FIRST, 0
    if content and not content.endswith(b"\n"):
        raise RevealJournalError(f"{path}: the last entry is not whole")
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            entry = json.loads(line)
            digest = entry.pop("hash")
            whole = digest == _hash(last, entry) and entry["number"] == number
        except (ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise RevealJournalError(f"{path}: the chain breaks at entry {number}: it was changed")
        last = str(digest)
    return number, last


def _canonical(entry: dict[str, object]) -> bytes:
    return json.dumps(entry, ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()


def _hash(last: str, entry: dict[str, object]) -> str:
    return hashlib.sha256(last.encode() + b"\n" + _canonical(entry)).hexdigest()

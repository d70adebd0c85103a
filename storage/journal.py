"""The journal of decisions: one hash chain over everything analysts decided.

Each entry's hash is SHA-256 over the hash before it and the entry as canonical JSON, so that changing, removing or
inserting an entry anywhere breaks every hash from there on. Cutting off the end leaves a shorter chain that is
whole: whoever must exclude that notes `head` elsewhere from time to time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from storage.alert import Decision
from storage.alert_codec import in_utc, storable

GENESIS: Final = "0" * 64
"""Stands before the first entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision as the journal keeps it: with its place and its hashes."""

    seq: int
    decision: Decision
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Break:
    """The first entry at which the chain does not hold."""

    seq: int
    alert_id: str
    reason: str


def entry_hash(previous: str, seq: int, alert_id: str, at: datetime, author: str, status: str, note: str) -> str:
    """The hash of an entry."""
    canonical = orjson.dumps(
        {
            "alert_id": storable(alert_id),
            "at": in_utc(at).isoformat(timespec="microseconds"),
            "author": storable(author),
            "note": storable(note),
            "seq": seq,
            "status": storable(status),
        },
        option=orjson.OPT_SORT_KEYS,
    )
    return hashlib.sha256(previous.encode("ascii", "replace") + b"\n" + canonical).hexdigest()


def first_break(rows: Iterable[tuple[int, str, datetime, str, str, str, str, str]]) -> Break | None:
    """Check rows (seq, alert id, at, author, status, note, previous, hash) in order of seq."""
    previous, expected = GENESIS, 1
    for seq, alert_id, at, author, status, note, before, digest in rows:
        if seq != expected:
            return Break(
                seq, alert_id, f"entry {expected} is missing" if seq > expected else f"entry {seq} is there twice"
            )
        if before != previous:
            return Break(seq, alert_id, "does not follow the entry before it")
        if digest != entry_hash(previous, seq, alert_id, at, author, status, note):
            return Break(seq, alert_id, "was changed after it was written")
        previous, expected = digest, seq + 1
    return None

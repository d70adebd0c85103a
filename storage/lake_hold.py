"""Legal holds: what must stay in the lake although its time is over, because of an incident or an inquiry.

A hold names a hospital, and perhaps a span of days and a log source. Nothing that it covers expires or is purged,
whatever retention says; only a hold keeps events longer than `lake.longest_days`. Holds are records of a signed chain
(`keep/holds`): added and released, never changed. A hold that was tampered with stops every removal, rather than
letting through what it may have held.

Days are those of the lake's partitions, in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from pydantic import BaseModel, ValidationError

from ingest.logsource import LogSource
from storage.errors import LakeError
from storage.lake_manifest import ALL_HEADS_EVERY, HOLDS, SEALS, noted_heads
from storage.lake_place import LakePlace
from storage.signed_chain import Chain, Link, Value
from storage.signing import Keys, Signer

ADDED: Final = "add"
RELEASED: Final = "release"


class HoldError(LakeError):
    """A hold that cannot be added or released."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold.

    Attributes:
        name: By which it is released; of the holds that stand, only one has it.
        hospital: Its id, as events have it.
        since: First day; None: from the beginning.
        until: Last day, itself included; None: to the end, and so what is to come.
        logsource: Parts that are None are any, as in a rule.
        reason: Why.
        who: Who added it.
        at: When.
    """

    name: str
    hospital: str
    since: date | None
    until: date | None
    logsource: LogSource
    reason: str
    who: str
    at: datetime

    def keeps(self, day: date | None, hospital: str | None, logsource: LogSource) -> bool:
        """Whether it keeps a partition of a table; one whose day or hospital is not known is kept."""
        if hospital is not None and hospital != self.hospital:
            return False
        if not self.logsource.meets(logsource):
            return False
        return day is None or ((self.since is None or self.since <= day) and (self.until is None or day <= self.until))


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """A line of the history: a hold as it was added, or the release of one.

    Attributes:
        what: `ADDED` or `RELEASED`.
        hold: The hold; of a release, with the reason, person and time of the release.
    """

    what: str
    hold: Hold


class _Body(BaseModel):
    what: str
    name: str
    hospital: str
    since: date | None
    until: date | None
    logsource: tuple[str | None, str | None, str | None]
    reason: str
    who: str


def read_holds(place: LakePlace, keys: Keys | None = None) -> list[Hold]:
    """The holds that stand, oldest first.

    Args:
        place: The lake.
        keys: Whose signatures count; without, only the chain is checked.

    Raises:
        LakeError: The chain of holds is broken or was cut off, so that nothing may be removed.
    """
    standing: dict[str, Hold] = {}
    for record in hold_history(place, keys):
        if record.what == ADDED:
            standing[record.hold.name] = record.hold
        else:
            standing.pop(record.hold.name, None)
    return list(standing.values())


def hold_history(place: LakePlace, keys: Keys | None = None) -> list[HoldRecord]:
    """All that was ever added and released, oldest first.

    Raises:
        LakeError: See `read_holds`.
    """
    links = list(Chain(place, HOLDS).links(keys))
    seq, digest = noted_heads(Chain(place, SEALS).recent(2 * ALL_HEADS_EVERY)).get(HOLDS, (-1, ""))
    if seq >= len(links) or (seq >= 0 and links[seq].hash != digest):
        raise LakeError(f"lake {place.name}: the holds were cut off or rewritten: record {seq} was sealed, and is gone")
    return [_record(link) for link in links]


def add_hold(place: LakePlace, hold: Hold, signer: Signer) -> None:
    """Add a hold.

    Raises:
        HoldError: One of this name stands, or its days are the wrong way round.
        LakeError: It cannot be written.
    """
    if not hold.name or not hold.hospital or not hold.reason:
        raise HoldError("a hold has a name, a hospital and a reason")
    if hold.since is not None and hold.until is not None and hold.until < hold.since:
        raise HoldError(f"hold {hold.name!r}: it ends on {hold.until} and begins on {hold.since}")
    with place.lock(HOLDS):
        if any(one.name == hold.name for one in read_holds(place)):
            raise HoldError(f"hold {hold.name!r}: one of this name stands; release it first, or take another name")
        Chain(place, HOLDS).append(signer, _body(ADDED, hold), hold.at)


def release_hold(place: LakePlace, name: str, reason: str, who: str, now: datetime, signer: Signer) -> Hold:
    """Release a hold; what it kept is removed when retention next looks.

    Raises:
        HoldError: None of this name stands.
        LakeError: It cannot be written.
    """
    with place.lock(HOLDS):
        found = next((hold for hold in read_holds(place) if hold.name == name), None)
        if found is None:
            raise HoldError(f"no hold named {name!r} stands")
        released = Hold(
            found.name, found.hospital, found.since, found.until, found.logsource, reason=reason, who=who, at=now
        )
        Chain(place, HOLDS).append(signer, _body(RELEASED, released), now)
    return found


def holding(holds: Iterable[Hold], day: date | None, hospital: str | None, logsource: LogSource) -> Sequence[Hold]:
    """The holds that keep a partition."""
    return [hold for hold in holds if hold.keeps(day, hospital, logsource)]


def _body(what: str, hold: Hold) -> dict[str, Value]:
    return {
        "what": what,
        "name": hold.name,
        "hospital": hold.hospital,
        "since": None if hold.since is None else hold.since.isoformat(),
        "until": None if hold.until is None else hold.until.isoformat(),
        "logsource": [hold.logsource.product, hold.logsource.category, hold.logsource.service],
        "reason": hold.reason,
        "who": hold.who,
    }


def _record(link: Link) -> HoldRecord:
    try:
        body = _Body.model_validate(link.body)
    except ValidationError as error:
        raise LakeError(f"{link.file}: record {link.seq} is no hold: {error.errors()[0]['msg']}") from error
    if body.what not in (ADDED, RELEASED):
        raise LakeError(f"{link.file}: record {link.seq} is no hold: {body.what!r}")
    hold = Hold(
        *(body.name, body.hospital, body.since, body.until, LogSource(*body.logsource), body.reason, body.who, link.at)
    )
    return HoldRecord(body.what, hold)

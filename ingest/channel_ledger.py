"""What came from each sender, and what of it is on the bus: for statistics, and for the receipts a hospital asks for.

One entry a (hospital, peer). Senders of datagrams can forge their address, so the number of entries is bounded: the
least recent ones are added up in one entry a hospital, whose peer is empty. The newest line of each sender is kept, as
long as all of them together stay under `MAX_KEPT_BYTES`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from ingest.channel import Channel
from ingest.framing import Lines

MAX_PEERS: Final = 10_000
MAX_KEPT_BYTES: Final = 32 * 1024 * 1024
OTHERS: Final = ""
"""The peer of the entry in which the senders are added up that were not heard for longest."""


@dataclass(frozen=True, slots=True)
class PeerStats:
    """What came from one sender.

    Attributes:
        frames: Lines received.
        bytes: Of these lines, without framing.
        durable: Lines known to be on the bus.
        heard: When the last line came.
    """

    frames: int
    bytes: int
    durable: int
    heard: datetime


@dataclass(slots=True)
class Entry:
    """The live account of one sender.

    Attributes:
        tenant: The hospital.
        peer: Its address.
        heard: When its last line came.
        frames: Lines received.
        size: Their bytes.
        durable: Lines on the bus.
        durable_at: When the bus had the newest of those; None if there is none.
        newest: Ordinal of the newest line on the bus: it is the last one received if this equals `frames`.
        last: The last line; None if it was let go for want of memory.
        patient_data: Whether the last line came in where identifiers of patients do.
    """

    tenant: str
    peer: str
    heard: datetime
    frames: int = 0
    size: int = 0
    durable: int = 0
    durable_at: datetime | None = None
    newest: int = 0
    last: bytes | None = None
    patient_data: bool = False


class Ledger:
    """The accounts of all senders.

    Args:
        clock: The time, with its zone.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], Entry] = OrderedDict()  # the least recent first
        self._newest: dict[str, Entry] = {}  # hospital -> the sender heard last
        self._others: dict[str, Entry] = {}
        self._channels: Counter[tuple[str, str]] = Counter()
        self._kept = 0  # bytes of the lines kept

    def hear(self, channel: Channel, lines: Lines, now: datetime) -> tuple[Entry, Callable[[], None]]:
        """Lines have come.

        Returns:
            The account of their sender, to whose `size` their bytes are to be added by who counts them anyway, and what
            is to be called once they are on the bus.
        """
        key = (channel.tenant, channel.peer)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(channel.tenant, channel.peer, now)
            self._forget()
        else:
            self._entries.move_to_end(key)
        count = len(lines.lines)
        self._channels[channel.tenant, channel.listener] += count
        self._newest[channel.tenant] = entry
        entry.heard = now
        entry.frames += count
        entry.patient_data = channel.patient_data
        self._keep(entry, lines.lines[-1])
        return entry, partial(self._settle, entry, count, entry.frames)

    def channels(self) -> Mapping[tuple[str, str], int]:
        """(Hospital, listener) -> lines that came there."""
        return dict(self._channels)

    def of(self, tenant: str) -> list[Entry]:
        """The accounts of a hospital, the most recent first."""
        return [entry for entry in reversed(self._entries.values()) if entry.tenant == tenant]

    def newest(self, tenant: str) -> Entry | None:
        """The sender of a hospital that was heard last, without looking through all of them."""
        return self._newest.get(tenant)

    def snapshot(self, tenant: str, count: int) -> list[Entry]:
        """As `of`, but the first `count` are standing still."""
        entries = self.of(tenant)
        return [replace(entry) for entry in entries[:count]] + entries[count:]

    def stats(self) -> Mapping[tuple[str, str], PeerStats]:
        """(Hospital, peer) -> what came from there."""
        return {
            (entry.tenant, entry.peer): PeerStats(entry.frames, entry.size, entry.durable, entry.heard)
            for entry in (*self._others.values(), *self._entries.values())
        }

    def _settle(self, entry: Entry, count: int, newest: int) -> None:
        entry.durable += count
        entry.newest = max(entry.newest, newest)
        entry.durable_at = self._clock()
        if self._entries.get((entry.tenant, entry.peer)) is not entry:  # forgotten since: its sum goes on
            self._others[entry.tenant].durable += count

    def _keep(self, entry: Entry, line: bytes) -> None:
        self._let_go(entry)
        entry.last = line
        self._kept += len(line)
        if self._kept > MAX_KEPT_BYTES:
            for other in self._entries.values():  # the least recent first; the newest comes last
                if self._kept <= MAX_KEPT_BYTES:
                    break
                self._let_go(other)

    def _let_go(self, entry: Entry) -> None:
        self._kept -= len(entry.last or b"")
        entry.last = None

    def _forget(self) -> None:
        if len(self._entries) <= MAX_PEERS:
            return
        _, entry = self._entries.popitem(last=False)
        self._let_go(entry)
        others = self._others.setdefault(entry.tenant, Entry(entry.tenant, OTHERS, entry.heard))
        others.heard = max(others.heard, entry.heard)
        others.frames += entry.frames
        others.size += entry.size
        others.durable += entry.durable

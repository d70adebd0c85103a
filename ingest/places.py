"""The places of a listener: who gets one when there are few. No I/O here.

Two peers must not keep the others out. One that opens connections and never ends a handshake needs no certificate for
it: when no place is left, the oldest handshake of the address that has most of them gives way. And one hospital, whose
relay has gone mad or which does it on purpose, leaves the last tenth of the places to those that have few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

RESERVED: Final = 10
"""One place in so many is for hospitals that hold less than one in so many."""

C = TypeVar("C", bound=Hashable)


class Places(Generic[C]):
    """Connections of a listener: those that shake hands, by address, and those that may send, by hospital.

    Args:
        most: How many there are.
        several: Whether the listener serves several hospitals, so that some places are kept for the others.
    """

    def __init__(self, most: int, *, several: bool) -> None:
        self._most = most
        self._reserved = most // RESERVED if several else 0
        self._expected: dict[str, dict[C, None]] = {}  # address -> its handshakes, the oldest first
        self._waiting = 0
        self._held: Counter[str] = Counter()  # hospital -> its connections
        self._taken = 0

    @property
    def full(self) -> bool:
        """Whether no place is left."""
        return self._waiting + self._taken >= self._most

    def expect(self, connection: C, address: str) -> None:
        """A connection was accepted, and is not made yet."""
        self._expected.setdefault(address, {})[connection] = None
        self._waiting += 1

    def expects(self, connection: C, address: str) -> bool:
        """Whether it has its place still."""
        return connection in self._expected.get(address, ())

    def forget(self, connection: C, address: str) -> None:
        """It is made, or has failed."""
        if self.expects(connection, address):
            del self._expected[address][connection]
            self._waiting -= 1
            if not self._expected[address]:
                del self._expected[address]

    def give_way(self, address: str) -> C | None:
        """The handshake that gives its place to one from this address; None if no address has more than that one."""
        busiest = max(self._expected, key=lambda one: len(self._expected[one]), default=None)
        if busiest is None or len(self._expected[busiest]) <= len(self._expected.get(address, ())):
            return None
        connection = next(iter(self._expected[busiest]))
        self.forget(connection, busiest)
        return connection

    def take(self, hospital: str) -> bool:
        """A connection is made; False if the places that are left are for others."""
        if self._most - self._taken <= self._reserved <= self._held[hospital]:
            return False
        self._held[hospital] += 1
        self._taken += 1
        return True

    def leave(self, hospital: str) -> None:
        """A connection that took a place has ended."""
        self._taken -= 1
        self._held[hospital] -= 1
        if not self._held[hospital]:
            del self._held[hospital]

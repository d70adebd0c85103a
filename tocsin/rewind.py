"""`detect` from the beginning of the bus: how a new lake is filled from what the bus still holds.

Everything that comes again has the identity it had: the lake leaves out what it holds by the offsets in its tables, the
alert store and the correlations know the ids. What rules find that were not there before is new, and is found.

A partition is rewound once, however often the stage is made anew: its group's position is set back to 0 before
anything is read, and from then on the commits say how far it has come.
"""

from __future__ import annotations

from collections.abc import Iterable

from ingest.bus import Partition, Subscription


class Rewind:
    """Where a stage that is to begin at the beginning starts. Outlives the stages of its process."""

    def __init__(self) -> None:
        self._rewound: set[Partition] = set()

    def start_at(self, partition: Partition) -> int | None:
        """For `Bus.subscribe`."""
        return None if partition in self._rewound else 0

    def keep(self, subscription: Subscription) -> None:
        """Set back the group's positions of the partitions that came. Call it after each poll, before any commit.

        Raises:
            BusError: The positions cannot be stored.
        """
        came: Iterable[Partition] = subscription.partitions() - self._rewound
        if came:
            subscription.commit(dict.fromkeys(came, 0))
            self._rewound |= subscription.partitions() & set(came)  # one that left meanwhile was not committed

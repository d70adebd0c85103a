"""What a group remembers of its window, one class a way of counting.

All of them take events in order (`add`) and answer for the window `[start, newest]` (`measure`, which forgets what is
older; `evidence` after it). Nothing costs the length of the window a event: times leave at the front as others come in
at the back, sums are kept by adding and subtracting exactly, distinct values by counting each, ranks by a sorted list.

Floats do not subtract exactly, so a running sum would depend on where a worker started. Sums are whole numbers here:
every finite double is a multiple of 2**-1074.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from detections.correlation import MAX_EVIDENCE

MAX_EVENTS: Final = 100_000
"""Events kept of one group's window. Of more, the oldest are forgotten early and that is counted (`capped_events`)."""

Value: TypeAlias = str | tuple[str, ...] | float | None
"""What an event contributes: a value or a combination to count, a number, or nothing."""

_UNIT: Final = 1074
_LOOSE_ENDS: Final = 16


class Evidence(NamedTuple):
    """The events that a window holds: times of the oldest and the newest, newest ids, and how many there are."""

    first: int
    last: int
    event_ids: tuple[str, ...]
    total: int


class Window(Protocol):
    """The memory of one group."""

    def add(self, moment: int, event_id: str, references: int, value: Value) -> bool:
        """Take the next event, which matched `references` (a bit each). True if an older one had to go for it."""

    def measure(self, start: int) -> float | None:
        """What the condition is compared with, over events not older than `start`; None where there is no such."""

    def evidence(self, start: int) -> Evidence:
        """The evidence since `start`; called after a `measure` of the same start that gave a number."""


class EventCount:
    """`event_count`: how many."""

    __slots__ = ("head", "ids", "times")

    def __init__(self) -> None:
        self.times = array("q")
        self.ids: list[str] = []
        self.head = 0

    def add(self, moment: int, event_id: str, references: int, value: Value) -> bool:  # noqa: ARG002 - one shape for all
        """Take the next event."""
        ids = self.ids
        ids.append(event_id)
        if len(ids) > 2 * MAX_EVIDENCE:
            del ids[:-MAX_EVIDENCE]
        self.times.append(moment)
        if len(self.times) - self.head <= MAX_EVENTS:
            return False
        self._forget(self.head + 1)
        return True

    def measure(self, start: int) -> float | None:
        """The number of events."""
        times, head = self.times, self.head
        if head < len(times) and times[head] < start:
            self._forget(bisect_left(times, start, head))
        return len(self.times) - self.head

    def evidence(self, start: int) -> Evidence:  # noqa: ARG002 - `measure` has cut
        """The newest ids, and times of all."""
        count = len(self.times) - self.head
        return Evidence(self.times[self.head], self.times[-1], tuple(self.ids[-min(count, MAX_EVIDENCE) :]), count)

    def _forget(self, head: int) -> None:
        self.head = head
        if head >= _LOOSE_ENDS and 2 * head >= len(self.times):
            self._compact()

    def _compact(self) -> None:
        del self.times[: self.head]
        self.head = 0
        del self.ids[: max(len(self.ids) - len(self.times), 0)]


class ValueCount(EventCount):
    """`value_count`: how many different ones."""

    __slots__ = ("counts", "values")

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Value] = []
        self.counts: dict[Value, int] = {}

    def add(self, moment: int, event_id: str, references: int, value: Value) -> bool:
        """Take the next event and its value."""
        self.values.append(value)
        self.counts[value] = self.counts.get(value, 0) + 1
        return super().add(moment, event_id, references, value)

    def measure(self, start: int) -> float | None:
        """The number of different values."""
        super().measure(start)
        return len(self.counts)

    def _forget(self, head: int) -> None:
        counts = self.counts
        for value in self.values[self.head : head]:
            left = counts[value] - 1
            if left:
                counts[value] = left
            else:
                del counts[value]
        super()._forget(head)

    def _compact(self) -> None:
        del self.values[: self.head]
        super()._compact()


class ValueSum(EventCount):
    """`value_sum`: the sum, exact until it is rounded once to a double."""

    __slots__ = ("total", "values")

    def __init__(self) -> None:
        super().__init__()
        self.values = array("d")
        self.total = 0

    def add(self, moment: int, event_id: str, references: int, value: Value) -> bool:
        """Take the next event and its number."""
        number = _number(value)
        self.values.append(number)
        self.total += _units(number)
        return super().add(moment, event_id, references, value)

    def measure(self, start: int) -> float | None:
        """The sum."""
        super().measure(start)
        return None if self.head == len(self.times) else _ratio(self.total, 1)

    def _forget(self, head: int) -> None:
        for value in self.values[self.head : head]:
            self.total -= _units(value)
        super()._forget(head)

    def _compact(self) -> None:
        del self.values[: self.head]
        super()._compact()


class ValueAverage(ValueSum):
    """`value_avg`: the mean, rounded once."""

    __slots__ = ()

    def measure(self, start: int) -> float | None:
        """The mean."""
        EventCount.measure(self, start)
        count = len(self.times) - self.head
        return _ratio(self.total, count) if count else None


class ValueRank(EventCount):
    """`value_percentile` and `value_median`: linear between the two nearest ranks, as PERCENTILE_CONT of SQL."""

    __slots__ = ("ordered", "percentile", "values")

    def __init__(self, percentile: float) -> None:
        super().__init__()
        self.percentile = percentile
        self.values = array("d")
        self.ordered: list[float] = []

    def add(self, moment: int, event_id: str, references: int, value: Value) -> bool:
        """Take the next event and its number."""
        number = _number(value)
        self.values.append(number)
        insort(self.ordered, number)
        return super().add(moment, event_id, references, value)

    def measure(self, start: int) -> float | None:
        """The percentile."""
        super().measure(start)
        return percentile_of(self.ordered, self.percentile) if self.ordered else None

    def _forget(self, head: int) -> None:
        for value in self.values[self.head : head]:
            del self.ordered[bisect_left(self.ordered, value)]
        super()._forget(head)

    def _compact(self) -> None:
        del self.values[: self.head]
        super()._compact()


def percentile_of(ordered: Sequence[float], percentile: float) -> float:
    """The value at `percentile` of numbers in order: position (n - 1) * p / 100, linear between its neighbours."""
    position = (len(ordered) - 1) * percentile / 100
    low = int(position)
    share = position - low
    if share == 0:
        return ordered[low]
    return ordered[low] * (1 - share) + ordered[low + 1] * share


def _number(value: Value) -> float:
    if not isinstance(value, float):
        raise TypeError(f"a number is counted here, not {value!r}")
    return value


def _units(value: float) -> int:
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_UNIT + 1 - denominator.bit_length())


def _ratio(units: int, count: int) -> float:
    try:
        return units / (count << _UNIT)
    except OverflowError:
        return float("inf") if units > 0 else float("-inf")

"""The groups of one correlation of one tenant: events in, firings out, in event time.

Items wait in `pending` until the watermark has passed them and are then taken in order: by time, then by place on the
bus. All copies of an event, and all base rules it matched, lie side by side in that order, which is why they count
once without any memory of what was seen. Windows that open at an event all have one length, so they close in the order
they were opened: a queue is all the timer there is. Groups lie in the order in which they were last touched, so those
that time has made irrelevant are at the front.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from detections.correlation import Correlation, GroupKey, Sample, firing_id, to_time
from detections.correlation_fields import field_of_group, field_of_sample
from detections.correlation_judgement import Judgement
from detections.correlation_rule import CorrelationRule
from detections.correlation_window import MAX_EVENTS, Evidence, Value, Window

LAST: Final = "\U0010ffff"
"""Place of what happens at the end of a moment: after every event of it."""

NEXT: Final = "\x01"
"""Added to the place of an event: right after it."""

RESTORED: Final = -1
"""Stands for the reference of an item that is no event but an earlier firing of this very rule."""

_NEVER: Final = -(1 << 62)
_SIZE_SAMPLES: Final = 200
_MANY: Final = 1_000
_SWEEP: Final = 2


class Source(Protocol):
    """Where an item came from; its row is read only when something fires, or waits for its window to close."""

    @property
    def restored(self) -> bool:
        """Whether it is an earlier firing, told by whoever starts again."""

    def sample(self, row: int, /) -> Sample:
        """What the analyst is shown."""

    def fields(self, row: int, /) -> Mapping[str, str] | None:
        """The fields of an item that is a firing; None: they are those of the sample."""


class Item(NamedTuple):
    """One match as one correlation sees it. Items sort as they must be taken; `serial` settles the rest."""

    moment: int
    place: str
    event_id: str
    reference: int
    serial: int
    key: GroupKey
    value: Value
    source: Source
    row: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A correlation ready to run: its rule, its judgement, and its window in microseconds."""

    rule: CorrelationRule
    judgement: Judgement
    span: int

    @property
    def lookback(self) -> int:
        """How far before the watermark an event still matters: ranges look at the window before a window too."""
        return 2 * self.span if self.judgement.exceeds is not None else self.span


class Fired(NamedTuple):
    """A firing with its place in the order of events, for the correlations that refer to it."""

    moment: int
    place: str
    correlation: Correlation


class _Newest(NamedTuple):
    """The newest event of a group whose windows are judged later."""

    sample: Sample
    fields: Mapping[str, str] | None
    reference: int


class _Group:
    """One group: its memory, when it was last touched, and until when it is silent."""

    __slots__ = ("alive", "exceeded", "newest", "opened", "silent_until", "touched", "waiting", "window")

    def __init__(self) -> None:
        self.window: Window | None = None
        self.touched = _NEVER
        self.silent_until = _NEVER
        self.opened = _NEVER
        self.exceeded = _NEVER
        self.newest: _Newest | None = None
        self.alive = True
        self.waiting = 0


class Table:
    """State of one correlation for one tenant.

    Attributes:
        pending: Items not yet taken; append to it, in any order.
        bad_values: Events taken whose counted field was missing or no number.
        capped_events: Events forgotten early because a window held too many.
        on_change: Called with the number of groups added (less those removed), so that whoever owns all tables can keep
            their bound; not for `evict`.
    """

    def __init__(self, plan: Plan, tenant: str, on_change: Callable[[Table, int], None]) -> None:
        self.plan = plan
        self.tenant = tenant
        self.pending: list[Item] = []
        self.bad_values = 0
        self.capped_events = 0
        self._on_change = on_change
        self._groups: OrderedDict[GroupKey, _Group] = OrderedDict()
        self._closes: deque[tuple[int, GroupKey, _Group]] = deque()
        self._fired: list[Fired] = []
        self._dead = 0

    def __len__(self) -> int:
        return len(self._groups)

    def drain(self, limit: int, *, muted: bool) -> list[Fired]:
        """Take everything older than `limit`, and say what fired.

        Args:
            limit: The watermark.
            muted: Only remember: what fired back then is among the items.
        """
        self.pending.sort()
        cut = bisect_left(self.pending, limit, key=_moment_of)
        if cut:
            taken = self.pending[:cut]
            del self.pending[:cut]
            for event in _events(taken):
                if self._closes and self._closes[0][0] < event[0].moment:
                    self._close(event[0].moment, muted=muted)
                self._take(event, muted=muted)
        self._close(limit, muted=muted)
        self._expire(limit)
        fired, self._fired = self._fired, []
        return fired

    def forget_restored(self) -> None:
        """Drop earlier firings that were not reached: what they stand for is computed again."""
        self.pending = [item for item in self.pending if not item.source.restored]

    def evict(self) -> None:
        """Drop the group that was touched least recently."""
        _, group = self._groups.popitem(last=False)
        group.alive = False
        self._dead += 1
        if self._dead > max(len(self._groups), _MANY):  # else windows of groups that are gone would pile up
            self._closes = deque(close for close in self._closes if close[2].alive)
            self._dead = 0

    def state_bytes(self) -> int:
        """Bytes of the groups, estimated from the most recent ones; pending items are not among them."""
        sizes = []
        for key in reversed(self._groups):
            sizes.append(_size(key) + _group_size(self._groups[key]))
            if len(sizes) == _SIZE_SAMPLES:
                break
        if not sizes:
            return 0
        return sys.getsizeof(self._groups) + sum(sizes) * len(self._groups) // len(sizes) + 96 * len(self._closes)

    def _take(self, event: list[Item], *, muted: bool) -> None:
        if len(event) == 1:
            item = event[0]
            if item.reference == RESTORED:
                self._restore(item)
            else:
                self._count(item, 1 << item.reference, item.value, muted=muted)
            return
        merged: dict[GroupKey, tuple[Item, int, Value]] = {}
        for item in event:
            if item.reference == RESTORED:
                self._restore(item)
                continue
            _, references, value = merged.get(item.key, (item, 0, None))
            merged[item.key] = (item, references | 1 << item.reference, item.value if value is None else value)
        for item, references, value in merged.values():
            self._count(item, references, value, muted=muted)

    def _count(self, item: Item, references: int, value: Value, *, muted: bool) -> None:
        plan = self.plan
        judgement = plan.judgement
        if value is None and judgement.counted:
            self.bad_values += 1
            return
        moment = item.moment
        group = self._touch(item.key, moment)
        if judgement.at_close:
            self._open(group, item, references, value)
            return
        window = group.window
        if window is None:
            window = group.window = judgement.window()
        if window.add(moment, item.event_id, references, value):
            self.capped_events += 1
        if muted or group.silent_until >= moment:
            return
        start = moment - plan.span
        measured = window.measure(start)
        if measured is None or not judgement.holds(measured):
            return
        newest = _Newest(item.source.sample(item.row), item.source.fields(item.row), item.reference)
        evidence = _ending_with(window.evidence(start), item)
        group.window = None  # no later window reaches back to the moment of a firing
        group.silent_until = moment + plan.span
        self._fire(moment, item.place + NEXT, item.key, evidence, measured, newest)

    def _open(self, group: _Group, item: Item, references: int, value: Value) -> None:
        """Remember an event of a correlation that is judged at the close, and open a window where it may."""
        judgement, moment = self.plan.judgement, item.moment
        window = group.window
        if window is None:
            window = group.window = judgement.window()
        if window.add(moment, item.event_id, references, value):
            self.capped_events += 1
        group.newest = _Newest(item.source.sample(item.row), item.source.fields(item.row), item.reference)
        if judgement.exceeds is not None:
            measured = window.measure(moment - self.plan.span)
            if measured is not None and judgement.exceeds(measured):
                group.exceeded = moment
        if references & judgement.openers and group.opened != moment:
            if group.waiting >= MAX_EVENTS:
                self.capped_events += 1
                return
            group.opened = moment
            group.waiting += 1
            self._closes.append((moment + self.plan.span, item.key, group))

    def _close(self, limit: int, *, muted: bool) -> None:
        """Judge the windows that are over before `limit`."""
        judgement, span = self.plan.judgement, self.plan.span
        closes = self._closes
        while closes and closes[0][0] < limit:
            end, key, group = closes.popleft()
            group.waiting -= 1
            start = end - span
            if muted or not group.alive or group.silent_until >= end or group.exceeded >= start:
                continue
            if group.window is None or group.newest is None:
                continue
            measured = group.window.measure(start)
            if measured is None or not judgement.holds(measured):
                continue
            self._touch(key, end).silent_until = end + span
            self._fire(end, LAST, key, group.window.evidence(start), measured, group.newest)

    def _fire(self, moment: int, place: str, key: GroupKey, evidence: Evidence, value: float, newest: _Newest) -> None:
        rule = self.plan.rule
        correlation = Correlation(
            id=firing_id(rule.id, self.tenant, key, moment),
            rule=rule,
            tenant=self.tenant,
            group=self._group_as_written(newest),
            first=to_time(evidence.first),
            last=to_time(evidence.last),
            timestamp=to_time(moment),
            event_ids=evidence.event_ids,
            count=evidence.total,
            value=value,
            sample=newest.sample,
        )
        self._fired.append(Fired(moment, place, correlation))

    def _group_as_written(self, newest: _Newest) -> dict[str, str]:
        rule = self.plan.rule
        written: dict[str, str] = {}
        for name in rule.group_by:
            field = rule.field_of(name, rule.references[newest.reference])
            if newest.fields is not None:
                value = field_of_group(newest.fields, field)
            else:
                value = field_of_sample(newest.sample, field, self.tenant)
            written[name] = value or ""
        return written

    def _restore(self, item: Item) -> None:
        group = self._touch(item.key, item.moment)
        group.silent_until = item.moment + self.plan.span
        if not self.plan.judgement.at_close:
            group.window = None

    def _touch(self, key: GroupKey, moment: int) -> _Group:
        group = self._groups.get(key)
        if group is None:
            self._expire(moment, most=_SWEEP)  # in one long pass too, room comes first from what time has ended
            group = self._groups[key] = _Group()
            self._on_change(self, 1)
        else:
            self._groups.move_to_end(key)
        group.touched = moment
        return group

    def _expire(self, limit: int, most: int | None = None) -> None:
        """Drop the groups whose windows and silence are over, or the first `most` of them."""
        groups, oldest = self._groups, limit - self.plan.span
        dropped = 0
        while groups and dropped != most and groups[next(iter(groups))].touched < oldest:
            groups.popitem(last=False)[1].alive = False
            dropped += 1
        if dropped:
            self._on_change(self, -dropped)


def _moment_of(item: Item) -> int:
    return item.moment


def _events(items: list[Item]) -> Iterator[list[Item]]:
    """Items in order, those of one event together."""
    start, total = 0, len(items)
    while start < total:
        end = start + 1
        moment, event_id = items[start].moment, items[start].event_id
        while end < total and items[end].event_id == event_id and items[end].moment == moment:
            end += 1
        yield items[start:end]
        start = end


def _ending_with(evidence: Evidence, item: Item) -> Evidence:
    """Evidence that ends with the event at which the condition became true, which a chain may not hold."""
    if evidence.event_ids[-1] == item.event_id:
        return evidence
    ids = (*evidence.event_ids, item.event_id)
    return Evidence(evidence.first, item.moment, ids, evidence.total + 1)


def _size(value: object) -> int:
    inner = sum(_size(part) for part in value) if isinstance(value, tuple | list) else 0
    return sys.getsizeof(value) + inner


def _group_size(group: _Group) -> int:
    size = sys.getsizeof(group)
    if group.newest is not None:
        size += sum(sys.getsizeof(getattr(group.newest.sample, name)) for name in Sample.__dataclass_fields__)
    window = group.window
    if window is None:
        return size
    slots = [name for kind in type(window).__mro__ for name in getattr(kind, "__slots__", ())]
    return size + sys.getsizeof(window) + sum(_size(getattr(window, name)) for name in slots)

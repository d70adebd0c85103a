"""When a source has been silent for so long that it is no accident: from its own rhythm, by hour and weekday.

Theory. Each empty slot of time is a surprise of -ln(p), p being how often such a slot is empty in the source's own last
four weeks; the surprise of a silence is the sum over its slots. A silence as surprising as S comes by chance about
once in exp(S) silences. A source with g silences in four weeks therefore may not be reported below ln(g) + ln(1000), if
no more than one report in a thousand sources and four weeks is to be chance (`ODDS`). Both sides come from what was
seen of the source itself, so one bound serves a firewall and a nightly backup.

Three scales of slots, since each kind of source is regular on one of them: minutes (a firewall), hours (a poll, a
cron job), days (a backup). The first scale that says so decides. Lines are not counted, only whether a slot had any:
a backup that writes thirty lines in a minute was heard once.

What keeps it from crying wolf:
- of the four weeks, the second lowest counts, so that neither one outage nor one busy week becomes the rule;
- no slot weighs more than `MOST`, however regular it was: machines are rebooted;
- an hour weighs only what the hours beside it do: people come at half past eight, and leave early;
- a silence must exceed by half what the source has done three times already in those weeks (its habit);
- and be longer, in hours in which something is usually heard, than its own longest ones let expect
  (`detections.silence_tail`): what is on for hours and off for hours has longer ones than independent slots would;
- days of a kind (week, weekend) that were never seen say nothing, and less than a day of history says nothing at all.

Not known: public holidays, and that somebody is on leave. Pure: no clock, no I/O; times are those of receipt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from itertools import pairwise
from typing import Final

from detections.silence_tail import longest_expected

WEEKS: Final = 4
HISTORY_HOURS: Final = WEEKS * 168
LEAST_HISTORY: Final[Mapping[str, int]] = {"minute": 24, "hour": 48, "day": 168}
"""Scale -> hours of history below which it says nothing."""

ODDS: Final = 1000.0
"""Of so many sources, one is reported by chance in four weeks."""

MOST: Final = 4.0
"""The most that a slot weighs: it is never held for less likely to be empty than exp(-4), about one in 55."""

HABIT: Final = 1.5
"""By how much a silence must exceed those that the source is known for."""

KNOWN_FOR: Final = 3
"""How often a source must have done a thing to be known for it."""

LATE_HOURS: Final = 2
"""How much later than ever before a day's first line may come, until the day counts as missed."""

FARTHEST_HOURS: Final = 5 * 168
"""How far ahead is looked; a silence that says nothing until then is none."""

_WEEKEND: Final = 5  # Saturday, counted from Monday


class Scale(StrEnum):
    """The slots in which a silence was counted."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a silence that began at the last line becomes remarkable.

    Attributes:
        at: The moment.
        scale: The slots that say so first.
        bound: The surprise it has then.
    """

    at: datetime
    scale: Scale
    bound: float


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What the last four weeks say of a source.

    Attributes:
        minute: Local hour of the week (0: Monday, midnight) -> surprise of an empty minute in it.
        hour: The same of an empty hour.
        day: Weekday -> surprise of an empty day.
        due: Weekday -> local hour by which its day counts as missed.
        bounds: Scale -> surprise that a silence must reach; scales that say nothing are not there.
        zone: Of the hospital.
        busy: Local hour of the week -> in what share of such hours something is heard.
        least: The sum of these that a silence must reach: what the source's own longest silences let expect.
    """

    minute: tuple[float, ...]
    hour: tuple[float, ...]
    day: tuple[float, ...]
    due: tuple[int, ...]
    bounds: Mapping[Scale, float]
    zone: tzinfo
    busy: tuple[float, ...] = (0.0,) * 168
    least: float = 0.0

    def deadline(self, last_seen: datetime, shortest: timedelta) -> Deadline | None:
        """When a silence since `last_seen` is one; None if it cannot be said.

        Args:
            last_seen: The last line, by our clock.
            shortest: No silence below this is one.
        """
        earliest = self._beyond_its_own(last_seen)
        if earliest is None:
            return None
        found = [
            Deadline(max(at, last_seen + shortest, earliest), scale, bound)
            for scale, bound in self.bounds.items()
            if (at := self._reached(scale, bound, last_seen)) is not None
        ]
        return min(found, key=lambda deadline: deadline.at, default=None)

    def _beyond_its_own(self, last_seen: datetime) -> datetime | None:
        """When a silence is longer than the source's own let expect; None if not as far as is looked."""
        if not self.least:
            return last_seen
        missed = 0.0
        for hour in _hours_from(last_seen)[1:]:
            missed += self.busy[local_hour(hour, self.zone)]
            if missed >= self.least:
                return _moment(hour + 1)
        return None

    def _reached(self, scale: Scale, bound: float, last_seen: datetime) -> datetime | None:
        steps = {Scale.MINUTE: self._minutes, Scale.HOUR: self._hours, Scale.DAY: self._days}[scale]
        surprise = 0.0
        for begin, end, weight in steps(last_seen):
            if weight > 0 and surprise + weight >= bound:
                share = (bound - surprise) / weight if scale is Scale.MINUTE else 1.0
                return begin + (end - begin) * share
            surprise += weight
        return None

    def _minutes(self, last_seen: datetime) -> Iterator[tuple[datetime, datetime, float]]:
        begin = last_seen
        for hour in _hours_from(last_seen):
            end = _moment(hour + 1)
            weight = self.minute[local_hour(hour, self.zone)] * ((end - begin) / timedelta(minutes=1))
            yield begin, end, weight
            begin = end

    def _hours(self, last_seen: datetime) -> Iterator[tuple[datetime, datetime, float]]:
        for hour in list(_hours_from(last_seen))[1:]:
            yield _moment(hour), _moment(hour + 1), self.hour[local_hour(hour, self.zone)]

    def _days(self, last_seen: datetime) -> Iterator[tuple[datetime, datetime, float]]:
        seen_today = local_hour(hour_of(last_seen), self.zone) // 24
        begun = False
        for hour in _hours_from(last_seen):
            weekday, of_day = divmod(local_hour(hour, self.zone), 24)
            begun = begun or weekday != seen_today
            if begun and of_day == min(self.due[weekday], 23):
                yield _moment(hour), _moment(hour + 1), self.day[weekday]


def hour_of(moment: datetime) -> int:
    """Hours since 1970, UTC."""
    return int(moment.timestamp() // 3600)


def _moment(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, UTC)


def _hours_from(moment: datetime) -> range:
    first = hour_of(moment)
    return range(first, first + FARTHEST_HOURS)


def local_hour(hour: int, zone: tzinfo) -> int:
    """The local hour of the week, 0 to 167 from Monday, of an hour since 1970."""
    local = _moment(hour).astimezone(zone)
    return local.weekday() * 24 + local.hour


def learn(minutes: Mapping[int, int], first: int, end: int, zone: tzinfo) -> Rhythm:
    """The rhythm of a source.

    Args:
        minutes: Hour since 1970 -> the minutes in which something was received, a bit each; silent hours are not there.
        first: The hour in which the source was first seen: nothing is known of it and what was before.
        end: The first hour that is not to count: the one in which the source was last seen.
        zone: Of the hospital.
    """
    begin = max(first + 1, end - HISTORY_HOURS)
    past = [_Hour(hour, local_hour(hour, zone), minutes.get(hour, 0)) for hour in range(begin, end)]
    days = _whole_days(past)
    minute, hour = _minute_surprises(past), _hour_surprises(past)
    day, due = _day_surprises(days)
    silences = {
        Scale.MINUTE: _minute_silences(past, minute),
        Scale.HOUR: _silences((seen.minutes != 0, hour[seen.of_week]) for seen in past),
        Scale.DAY: _silences((first_hour is not None, day[weekday]) for weekday, first_hour in days),
    }
    heard = {
        Scale.MINUTE: sum(seen.minutes.bit_count() for seen in past),
        Scale.HOUR: sum(seen.minutes != 0 for seen in past),
        Scale.DAY: sum(first_hour is not None for _, first_hour in days),
    }
    bounds = {
        scale: max(_chance(heard[scale], len(past)), HABIT * _habit(silences[scale]))
        for scale in Scale
        if len(past) >= LEAST_HISTORY[scale] and heard[scale]
    }
    busy = _busy(past)
    own = _silences((seen.minutes != 0, busy[seen.of_week]) for seen in past)
    least = longest_expected(own, HISTORY_HOURS / max(1, len(past)), ODDS)
    return Rhythm(minute, hour, day, due, bounds, zone, busy, least)


@dataclass(frozen=True, slots=True)
class _Hour:
    """An hour of the history: hours since 1970, hour of the week, and its minutes with something in them."""

    hour: int
    of_week: int
    minutes: int


def _chance(heard: int, hours: int) -> float:
    """The surprise that chance does not reach: a silence may follow each slot that was heard."""
    in_four_weeks = heard * max(1.0, HISTORY_HOURS / max(1, hours))
    return math.log(max(1.0, in_four_weeks)) + math.log(ODDS) + math.log(len(Scale))


def _habit(silences: Sequence[float]) -> float:
    """The greatest surprise that was there `KNOWN_FOR` times."""
    largest = sorted(silences, reverse=True)[:KNOWN_FOR]
    return largest[-1] if len(largest) == KNOWN_FOR else 0.0


def _busy(past: Sequence[_Hour]) -> tuple[float, ...]:
    """Of each hour of the week, in what share of the hours of its kind something was heard."""
    _, of_kind = _by_hour(past)
    shares = {kind: sum(heard > 0 for heard in seen) / len(seen) for kind, seen in of_kind.items()}
    return tuple(shares.get(_kind(at), 0.0) for at in range(168))


def _second_lowest(values: Sequence[int]) -> int:
    """Of four weeks the second lowest, of two the lowest."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0


def _kind(of_week: int) -> tuple[int, bool]:
    """Hours that are alike: hour of the day, and whether it is a weekend's."""
    return of_week % 24, of_week // 24 >= _WEEKEND


def _by_hour(past: Sequence[_Hour]) -> tuple[dict[int, list[int]], dict[tuple[int, bool], list[int]]]:
    """Heard minutes by hour of the week, and by kind of hour."""
    of_week: dict[int, list[int]] = {}
    of_kind: dict[tuple[int, bool], list[int]] = {}
    for seen in past:
        of_week.setdefault(seen.of_week, []).append(seen.minutes.bit_count())
        of_kind.setdefault(_kind(seen.of_week), []).append(seen.minutes.bit_count())
    return of_week, of_kind


def _beside(weights: Sequence[float]) -> tuple[float, ...]:
    """Of each hour of the week, the least of it and of the hours beside it."""
    return tuple(min(weights[at - 1], weights[at], weights[(at + 1) % 168]) for at in range(168))


def _weight(empty: float) -> float:
    """The surprise of an empty slot of which a share of `empty` is."""
    return min(MOST, -math.log(empty)) if empty > 0 else MOST


def _empty(missed: int, slots: int) -> float:
    """How often such a slot is empty; where none was yet, half a slot is taken to have been (Jeffreys' prior)."""
    return missed / slots if missed else 0.5 / (slots + 1)


def _minute_surprises(past: Sequence[_Hour]) -> tuple[float, ...]:
    of_week, of_kind = _by_hour(past)
    weights = []
    for at in range(168):
        own = of_week.get(at, [])
        seen = own if len(own) > 1 else of_kind.get(_kind(at), [])
        weight = _weight(1 - _second_lowest(seen) / 60)
        missed, hours = _missed(at, of_week, of_kind)
        if missed > 1:  # whole hours without anything are usual, so all of its minutes say no more than the hour does
            weight = min(weight, _weight(missed / hours) / 60)
        weights.append(weight)
    return _beside(weights)


def _hour_surprises(past: Sequence[_Hour]) -> tuple[float, ...]:
    of_week, of_kind = _by_hour(past)
    weights = []
    for at in range(168):
        missed, hours = _missed(at, of_week, of_kind)
        off = not hours or _off([heard > 0 for heard in of_week.get(at, [])])
        weights.append(0.0 if off else _weight(_empty(missed, hours)))
    return _beside(weights)


def _missed(
    at: int, of_week: Mapping[int, Sequence[int]], of_kind: Mapping[tuple[int, bool], Sequence[int]]
) -> tuple[int, int]:
    """Of the hours of this one's kind, those in which nothing was heard; and how many there are.

    Left out are the hours of weekdays on which the source rests: they are not missed.
    """
    hours = list(of_kind.get(_kind(at), ()))
    for weekday in range(7):
        other = weekday * 24 + at % 24
        seen = of_week.get(other, ())
        if _kind(other) == _kind(at) and _off([heard > 0 for heard in seen]):
            for heard in seen:
                hours.remove(heard)
    return sum(not heard for heard in hours), len(hours)


def _off(heard: Sequence[bool]) -> bool:
    """Whether the source rests then: of two or more weeks it was heard in at most a quarter."""
    return len(heard) > 1 and 4 * sum(heard) <= len(heard)


def _whole_days(past: Sequence[_Hour]) -> list[tuple[int, int | None]]:
    """Of each whole local day: its weekday, and the first hour in which something was heard."""
    starts = [at for at, seen in enumerate(past) if seen.of_week % 24 == 0]
    days = []
    for begin, end in pairwise(starts):
        hours = past[begin:end]
        days.append((hours[0].of_week // 24, next((seen.of_week % 24 for seen in hours if seen.minutes), None)))
    return days


def _day_surprises(days: Sequence[tuple[int, int | None]]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    of_day = [[first for day, first in days if day == weekday] for weekday in range(7)]
    rests = [_off([first is not None for first in own]) for own in of_day]
    weights, due = [], []
    for weekday in range(7):
        kinds = {(day >= _WEEKEND) for day, _ in days}
        unseen = (weekday >= _WEEKEND) not in kinds
        alike = [first for day in range(7) if not rests[day] for first in of_day[day]]
        missed = sum(first is None for first in alike)
        off = rests[weekday] or unseen or not alike
        weights.append(0.0 if off else _weight(_empty(missed, len(alike))))
        due.append(max((first for first in alike if first is not None), default=23) + LATE_HOURS)
    return tuple(weights), tuple(due)


def _silences(slots: Iterator[tuple[bool, float]]) -> list[float]:
    """The surprises of the silences between slots in which something was heard."""
    found: list[float] = []
    surprise = 0.0
    for heard, weight in slots:
        if heard:
            found.append(surprise)
            surprise = 0.0
        else:
            surprise += weight
    return found


def _minute_silences(past: Sequence[_Hour], weights: Sequence[float]) -> list[float]:
    found: list[float] = []
    surprise = 0.0
    for seen in past:
        weight = weights[seen.of_week]
        if not seen.minutes:
            surprise += 60 * weight
            continue
        first, last, within = _gaps(seen.minutes)
        found += [surprise + first * weight, within * weight]
        surprise = last * weight
    return found


def _gaps(minutes: int) -> tuple[int, int, int]:
    """Empty minutes before the first bit, after the last, and the longest run of them between."""
    text = f"{minutes:060b}"[::-1]  # minute 0 first
    heard = text.strip("0")
    return text.index("1"), 59 - text.rindex("1"), max(map(len, heard.split("1")), default=0)

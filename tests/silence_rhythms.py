"""Sources with a rhythm, played from a seed: what the watch over silences is tried on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

from detections.silence import Deadline, Rhythm, hour_of, learn, local_hour

PARIS: Final = ZoneInfo("Europe/Paris")
MONDAY: Final = hour_of(datetime(2026, 3, 2, tzinfo=UTC))
SHORTEST: Final = timedelta(minutes=5)
WEEK: Final = 168

Play = Callable[[Random, int], int]
"""Hour since 1970 -> the minutes of it in which the source speaks, a bit each."""


def poisson(a_minute: float) -> Play:
    """Round the clock, by chance, so many lines a minute."""
    speaks = 1 - math.exp(-a_minute)

    def play(random: Random, _hour: int) -> int:
        return sum(1 << minute for minute in range(60) if random.random() < speaks)

    return play


def growing(random: Random, hour: int) -> int:
    """A line in five minutes at first, four times as many two months later."""
    return poisson(0.2 * 4 ** ((hour - MONDAY) / (8 * WEEK)))(random, hour)


def office(random: Random, hour: int) -> int:
    """Monday to Friday, from between seven and eight to between six and seven in the evening."""
    weekday, of_day = divmod(local_hour(hour, PARIS), 24)
    if weekday > 4 or not 7 <= of_day <= 18:
        return 0
    minutes = poisson(1.0)(random, hour)
    if of_day == 7:
        minutes &= ~((1 << random.randrange(60)) - 1)
    if of_day == 18:
        minutes &= (1 << random.randrange(60)) - 1
    return minutes


def nightly(random: Random, hour: int) -> int:
    """A backup at three in the morning, which writes for some minutes."""
    return 0b111 << random.randrange(57) if local_hour(hour, PARIS) % 24 == 3 else 0


def week_nights(random: Random, hour: int) -> int:
    """The same, but not on weekends."""
    return nightly(random, hour) if local_hour(hour, PARIS) // 24 < 5 else 0


def hourly(_random: Random, _hour: int) -> int:
    """A job at seventeen past."""
    return 1 << 17


def on_and_off(on: float, off: float) -> Play:
    """A machine that is on for so many hours and off for so many, by chance; two lines a minute while it is on."""
    speaks = 1 - math.exp(-2)
    is_on = True

    def play(random: Random, _hour: int) -> int:
        nonlocal is_on
        minutes = 0
        for minute in range(60):
            if random.random() < 1 / (60 * (on if is_on else off)):
                is_on = not is_on
            minutes |= (is_on and random.random() < speaks) << minute
        return minutes

    return play


RHYTHMS: Final[Mapping[str, Play]] = {
    "10 lines a minute": poisson(10),
    "3 lines a minute": poisson(3),
    "1 line a minute": poisson(1),
    "5 lines an hour": poisson(5 / 60),
    "1 line an hour": poisson(1 / 60),
    "office hours": office,
    "a job every hour": hourly,
    "a backup every night": nightly,
    "a backup on week nights": week_nights,
    "growing": growing,
}


@dataclass(frozen=True, slots=True)
class Played:
    """A source that has been played."""

    minutes: Mapping[int, int]
    first: int

    def rhythm(self, end: int) -> Rhythm:
        """What is learnt of it before an hour."""
        return learn(self.minutes, self.first, end, PARIS)

    def lines(self) -> list[int]:
        """The minutes since 1970 in which it spoke."""
        return [
            hour * 60 + minute
            for hour, bits in sorted(self.minutes.items())
            for minute in range(60)
            if bits >> minute & 1
        ]

    def dies(self, end: int) -> tuple[timedelta, Deadline]:
        """If its last line is the last one before an hour: after how long that is noticed."""
        last = max(hour for hour in self.minutes if hour < end)
        at = moment(last * 60 + self.minutes[last].bit_length() - 1)
        deadline = self.rhythm(last).deadline(at, SHORTEST)
        assert deadline is not None
        return deadline.at - at, deadline


def play(rhythm: Play, seed: int, hours: int) -> Played:
    """A source from Monday, 2 March 2026, on."""
    random = Random(seed)  # noqa: S311 - not for secrets
    minutes = {MONDAY + hour: bits for hour in range(hours) if (bits := rhythm(random, MONDAY + hour))}
    return Played(minutes, min(minutes))


def moment(minute: int) -> datetime:
    """Of minutes since 1970."""
    return datetime.fromtimestamp(minute * 60, UTC)


def false_alarms(played: Played, begin: int, longest: int = 25) -> int:
    """How many of its silences from an hour on would be reported, looking at the longest of each day."""
    lines = played.lines()
    silences: dict[int, list[tuple[int, int]]] = {}
    for before, after in pairwise(lines):
        if before >= begin * 60 and after - before >= SHORTEST.total_seconds() / 60:
            silences.setdefault(before // 1440, []).append((after - before, before))
    found = 0
    for of_day in silences.values():
        rhythm: Rhythm | None = None
        for length, before in sorted(of_day, reverse=True)[:longest]:
            rhythm = rhythm or played.rhythm(before // 60)
            deadline = rhythm.deadline(moment(before), SHORTEST)
            found += deadline is not None and deadline.at < moment(before + length)
    return found

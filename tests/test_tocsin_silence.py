"""The watch over silences, on sources whose rhythm is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from silence_rhythms import MONDAY, PARIS, RHYTHMS, SHORTEST, WEEK, Played, false_alarms, moment, on_and_off, play

from detections.silence import Scale, hour_of, learn, local_hour
from detections.silence_tail import FEW, longest_expected

TUESDAY_AFTERNOON = MONDAY + 7 * WEEK + 24 + 15

NOTICED = {
    "10 lines a minute": timedelta(minutes=5),
    "3 lines a minute": timedelta(minutes=10),
    "1 line a minute": timedelta(minutes=30),
    "5 lines an hour": timedelta(hours=8),
    "1 line an hour": timedelta(hours=48),
    "office hours": timedelta(hours=24),
    "a job every hour": timedelta(hours=6),
    "a backup every night": timedelta(hours=78),
    "a backup on week nights": timedelta(hours=78),
    "growing": timedelta(minutes=90),
}
"""Rhythm -> within what time a source that dies on a Tuesday afternoon is noticed (docs/sources.md has this table)."""


@pytest.mark.parametrize("name", RHYTHMS)
def test_a_dead_source_is_noticed_in_time(name: str) -> None:
    for seed in range(3):
        played = play(RHYTHMS[name], seed, 8 * WEEK)
        after, _ = played.dies(TUESDAY_AFTERNOON)
        assert SHORTEST <= after <= NOTICED[name]


@pytest.mark.parametrize("name", RHYTHMS)
def test_an_honest_source_raises_no_alarm_in_four_weeks(name: str) -> None:
    assert sum(false_alarms(play(RHYTHMS[name], seed, 8 * WEEK), MONDAY + 4 * WEEK, 3) for seed in range(2)) == 0


@pytest.mark.parametrize(("on", "off"), [(1, 1), (3, 3), (8, 4), (2, 10), (24, 6)])
def test_what_is_on_and_off_by_chance_is_rarely_taken_for_silent(on: float, off: float) -> None:
    """Without a look at their own longest silences there were eight false alarms a source in these seven weeks."""
    alarms = sum(false_alarms(play(on_and_off(on, off), seed, 8 * WEEK), MONDAY + WEEK, 3) for seed in range(3))
    assert alarms <= 6, "docs/sources.md says how many"


def test_a_few_outages_are_no_habit() -> None:
    assert longest_expected([0.0] * 500 + [3.0] * FEW, 1.0, 1000.0) == 0.0
    assert longest_expected([], 1.0, 1000.0) == 0.0
    assert longest_expected([1.0] * 100, 1.0, 1000.0) == 1.0
    usual = [float(length) for length in range(1, 30)]
    assert longest_expected([*usual, 500.0, 900.0], 1.0, 1000.0) < 200


def test_every_rhythm_has_its_bound() -> None:
    assert set(NOTICED) == set(RHYTHMS)


def test_office_hours_are_silent_at_night_and_on_weekends() -> None:
    played = play(RHYTHMS["office hours"], 1, 5 * WEEK)
    friday_evening = moment((MONDAY + 4 * WEEK + 4 * 24 + 17) * 60 + 30)
    deadline = played.rhythm(hour_of(friday_evening)).deadline(friday_evening, SHORTEST)
    assert deadline is not None
    back_at_work = datetime(2026, 4, 6, 8, tzinfo=PARIS)  # Monday; on the weekend nothing is missed
    assert back_at_work < deadline.at < back_at_work + timedelta(hours=3)


def test_the_first_weekend_of_an_office_is_no_silence() -> None:
    """It was seen from Monday to Friday only: nothing is known of its weekends."""
    played = play(RHYTHMS["office hours"], 2, 5 * 24)
    last = moment(played.lines()[-1])
    deadline = played.rhythm(hour_of(last)).deadline(last, SHORTEST)
    assert deadline is None or deadline.at > last + timedelta(days=2, hours=12)


def test_less_than_a_day_of_history_says_nothing() -> None:
    played = play(RHYTHMS["10 lines a minute"], 0, 20)
    end = MONDAY + 20
    assert played.rhythm(end).deadline(moment(end * 60 - 1), SHORTEST) is None
    assert learn({}, MONDAY, MONDAY, PARIS).deadline(moment(MONDAY * 60), SHORTEST) is None


def test_nothing_shorter_than_the_shortest_is_a_silence() -> None:
    played = play(RHYTHMS["10 lines a minute"], 0, WEEK)
    last = moment((MONDAY + WEEK) * 60 - 1)
    for shortest in (timedelta(minutes=5), timedelta(hours=1), timedelta(days=3)):
        deadline = played.rhythm(MONDAY + WEEK).deadline(last, shortest)
        assert deadline is not None
        assert deadline.at >= last + shortest


def test_one_outage_does_not_make_the_next_one_go_unseen() -> None:
    whole = play(RHYTHMS["10 lines a minute"], 0, 4 * WEEK)
    out = range(MONDAY + 3 * WEEK, MONDAY + 3 * WEEK + 12)
    with_outage = Played({hour: bits for hour, bits in whole.minutes.items() if hour not in out}, whole.first)
    assert with_outage.dies(MONDAY + 4 * WEEK)[0] <= timedelta(minutes=10)


def test_a_source_known_for_its_silences_gets_more_time_at_those_hours() -> None:
    """A machine that is off between ten and one, Paris time, on days that nobody can foresee."""
    steady = play(RHYTHMS["10 lines a minute"], 0, 4 * WEEK)
    off = {MONDAY + day * 24 + 9 + hour for day in (1, 9, 17, 25) for hour in range(3)}
    shaky = Played({hour: bits for hour, bits in steady.minutes.items() if hour not in off}, steady.first)
    rhythm = shaky.rhythm(MONDAY + 4 * WEEK)
    at_ten, at_night = (moment((MONDAY + 4 * WEEK + hour) * 60) for hour in (9, 1))
    late, soon = rhythm.deadline(at_ten, SHORTEST), rhythm.deadline(at_night, SHORTEST)
    assert late is not None
    assert soon is not None
    assert timedelta(hours=3) < late.at - at_ten < timedelta(hours=6)
    assert soon.at - at_night < timedelta(minutes=10)


def test_daylight_saving_moves_the_hours_with_the_people() -> None:
    """On 29 March 2026 the clocks go forward: seven in the morning is another hour of UTC."""
    before, after = (hour_of(datetime(2026, 3, day, 7, tzinfo=PARIS)) for day in (27, 30))
    assert (after - before) == 3 * 24 - 1
    assert local_hour(before, PARIS) % 24 == local_hour(after, PARIS) % 24 == 7


def test_scales_are_those_of_the_source() -> None:
    scales = {
        name: play(RHYTHMS[name], 0, 8 * WEEK).dies(TUESDAY_AFTERNOON)[1].scale
        for name in ("10 lines a minute", "a job every hour", "a backup every night")
    }
    assert list(scales.values()) == [Scale.MINUTE, Scale.HOUR, Scale.DAY]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 800), st.integers(1, 2**60 - 1), max_size=60),
    st.integers(-10, 800),
    st.integers(0, 900),
)
def test_any_history_gives_a_deadline_after_the_shortest_time_or_none(
    history: dict[int, int], first: int, end: int
) -> None:
    minutes = {MONDAY + hour: bits for hour, bits in history.items()}
    last = moment((MONDAY + end) * 60 + 17)
    deadline = learn(minutes, MONDAY + first, MONDAY + end, PARIS).deadline(last, SHORTEST)
    assert deadline is None or deadline.at >= last + SHORTEST
    assert deadline is None or deadline.at.tzinfo is UTC

"""Vital signs: steps, rates, and how long records wait, told from counts alone."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ingest.collect import CollectorStats
from tocsin.backlog import KEPT, Backlog
from tocsin.tally import BOUNDS, Measure, Tally
from tocsin.vitals import STUCK_SECONDS, STUCK_STARTING, Vitals


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.moment = 1000.0

    def __call__(self) -> float:
        return self.moment


def test_a_stage_is_stuck_when_a_step_lasts_too_long_and_may_take_longer_to_begin() -> None:
    clock = Clock()
    vitals = Vitals("detect", clock=clock)
    vitals.beginning("detect")
    clock.moment += STUCK_STARTING
    assert not vitals.stages()[0].stuck
    clock.moment += 1
    assert vitals.stages()[0].stuck
    vitals.stepped("detect", 3)
    clock.moment += STUCK_SECONDS
    assert (vitals.stages()[0].stuck, vitals.stages()[0].records) == (False, 3)
    clock.moment += 1
    assert vitals.stages()[0].stuck
    vitals.failing("detect", "away")  # it said so: it does not hang
    assert (vitals.stages()[0].stuck, vitals.faults()) == (False, {"detect": "away"})
    vitals.failing("detect", None)
    vitals.failing("rules", "broken")
    assert (vitals.stages()[0].failures, vitals.faults()) == (1, {"rules": "broken"})
    vitals.ended("detect")
    assert vitals.stages() == ()


def test_rates_are_those_of_the_last_minute() -> None:
    clock = Clock()
    vitals = Vitals("collect", clock=clock)
    assert vitals.rates() == {}
    stats = CollectorStats("r", {}, 0, 0, 0, 0, None, None, False, frozenset(), {}, frozenset(), {})
    for second in range(0, 181, 5):
        clock.moment = 1000.0 + second
        vitals.collected(stats, {("CH A", "a"): 10 * min(second, 120), ("CH A", "b"): 0, ("CH B", "b"): second})
        vitals.sample()
    rates = vitals.rates()
    assert rates["CH B"] == 1.0
    assert rates["CH A"] == 0.0
    assert vitals.received() == {"CH A": 1200, "CH B": 180}


def test_a_backlog_ages_until_what_was_first_is_read() -> None:
    backlog = Backlog()
    backlog.see(0.0, read=0, lag=0)
    backlog.see(10.0, read=0, lag=5)
    backlog.see(20.0, read=0, lag=9)
    assert backlog.age(25.0) == 15.0
    backlog.see(30.0, read=5, lag=4)  # what came at 10 is read; what came at 20 waits
    assert backlog.age(30.0) == 10.0
    backlog.see(40.0, read=9, lag=0)
    assert backlog.age(50.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=2 * KEPT))
def test_the_age_of_a_backlog_is_that_of_its_oldest_record(moves: list[tuple[int, int]]) -> None:
    backlog, came, read = Backlog(), [], 0
    for moment, (arrive, take) in enumerate(moves):
        came += [moment] * arrive
        read = min(len(came), read + take)
        backlog.see(float(moment), read, len(came) - read)
        expected = moment - came[read] if read < len(came) else 0
        assert backlog.age(float(moment)) >= expected - 1e-9
        if len(moves) <= KEPT // 2:
            assert backlog.age(float(moment)) == expected


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_a_histogram_counts_every_value_once(values: list[float]) -> None:
    tally = Tally()
    tally.measure(Measure.FLUSH_SECONDS, values)
    seen = tally.histogram(Measure.FLUSH_SECONDS)
    assert seen.count == len(values)
    for place, bound in enumerate(BOUNDS[Measure.FLUSH_SECONDS]):
        assert sum(seen.numbers[: place + 1]) == sum(value <= bound for value in values)


def test_hospitals_that_should_send_are_known_before_they_do() -> None:
    tally = Tally()
    tally.expect(["CH A", ""])  # a listener for several hospitals names none
    assert Vitals("detect", tally, now=lambda: datetime(2026, 11, 23, tzinfo=UTC)).heard() == {"CH A": None}

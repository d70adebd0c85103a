"""Each rule of the semantics with one example, and what bad input does. The examples are those of docs/sigma.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest

from correlation_matches import EPOCH, FAR, Match, at, correlation_rule, fired, frame_of, run, seconds
from detections.correlation import MAX_EVIDENCE, Correlation, CorrelationError, Firing
from detections.correlation_rule import CorrelationRule
from detections.correlation_window import MAX_EVENTS, EventCount, ValueRank, ValueSum, percentile_of
from detections.correlator import MAX_SKEW, Correlator

A_AND_NOT_B = correlation_rule(
    "temporal", ("rule-a", "rule-b"), span=10, bounds=None, expression="rule-a and not rule-b"
)
THEN = correlation_rule("temporal_ordered", ("rule-a", "rule-b"), span=10, bounds=None)
TOGETHER = correlation_rule("temporal", ("rule-a", "rule-b"), span=10, bounds=None)


def values(*pairs: tuple[float, str]) -> list[Match]:
    return [Match("rule-a", time, place, {"User": "ana", "V": value}) for place, (time, value) in enumerate(pairs)]


def counting(kind: str, *bounds: tuple[str, float], percentile: float | None = None) -> CorrelationRule:
    return correlation_rule(kind, span=10, bounds=bounds, fields=("V",), percentile=percentile)


TABLE: list[tuple[str, CorrelationRule, Sequence[Match], list[float]]] = [
    ("the window includes both its ends", correlation_rule(), at(0, 5, 10), [10]),
    ("and nothing more", correlation_rule(), at(0, 5, 10.001), []),
    ("it slides", correlation_rule(), at(0, 8, 11, 12), [12]),
    ("silent for the window, both its ends included", correlation_rule(), at(0, 1, 2, 3, 4, 5, 11, 12), [2]),
    ("then the first event at which it holds again", correlation_rule(), at(0, 1, 2, 4, 5, 12, 13), [2, 13]),
    ("an event that two rules match counts once", correlation_rule(references=("rule-a", "rule-b")),
     [*at(0, 1), *at(0, 1, rule="rule-b")], []),
    ("an event delivered twice counts once", correlation_rule(), [*at(0, 1), *at(0, 1)], []),
    ("group values fold case", correlation_rule(), [*at(0, user="ANA"), *at(1, user="Ana", start=1), *at(2, start=2)],
     [2]),
    ("a final sigma is a sigma", correlation_rule(bounds=[("gte", 2)]), [*at(0, user="ΟΔΟΣ"),
     *at(1, user="οδος", start=1)], [1]),
    ("groups are apart", correlation_rule(), [*at(0, 1), *at(2, user="bob", start=2)], []),
    ("no group-by: one group a tenant", correlation_rule(group_by=()), [*at(0, 1), *at(2, user="bob", start=2)], [2]),
    ("a missing group field excludes the event", correlation_rule(), [*at(0, 1), *at(2, user=None, start=2)], []),
    ("an empty value is a value", correlation_rule(), at(0, 1, 2, user=""), [2]),
    ("temporal: any order", TOGETHER, [*at(0, rule="rule-b"), *at(10, start=1)], [10]),
    ("temporal: one event may satisfy several references", TOGETHER, [*at(0), *at(0, rule="rule-b")], [0]),
    ("temporal: some of them", correlation_rule("temporal", ("rule-a", "rule-b", "rule-c"), bounds=[("gte", 2)]),
     [*at(0), *at(1, rule="rule-c", start=1)], [1]),
    ("ordered: as written", THEN, [*at(0), *at(1, rule="rule-b", start=1)], [1]),
    ("ordered: not otherwise", THEN, [*at(0, rule="rule-b"), *at(1, start=1)], []),
    ("ordered: of one time, by the place on the bus", THEN, [*at(5, start=9), *at(5, rule="rule-b", start=10)], [5]),
    ("ordered: and not otherwise", THEN, [*at(5, rule="rule-b", start=9), *at(5, start=10)], []),
    ("ordered: an event is not before itself", THEN, [*at(5), *at(5, rule="rule-b")], []),
    ("absence: known when the window closes", A_AND_NOT_B, at(3), [13]),
    ("absence: B within the window", A_AND_NOT_B, [*at(3), *at(13, rule="rule-b", start=1)], []),
    ("absence: B before A does not count", A_AND_NOT_B, [*at(2, rule="rule-b"), *at(3, start=1)], [13]),
    ("absence: B after the window", A_AND_NOT_B, [*at(3), *at(13.001, rule="rule-b", start=1)], [13]),
    ("absence: B alone opens nothing", A_AND_NOT_B, at(3, rule="rule-b"), []),
    ("lt: when the window closes", correlation_rule(bounds=[("lt", 3)]), at(0, 1), [10]),
    ("lt: too many", correlation_rule(bounds=[("lt", 3)]), at(0, 1, 2), [11]),
    ("eq: exactly", correlation_rule(bounds=[("eq", 3)]), at(0, 1, 2), [10]),
    ("eq: the tail of more is not exactly", correlation_rule(bounds=[("eq", 3)]), at(0, 1, 2, 3), []),
    ("eq: nor a window whose first event ends one with more", correlation_rule(bounds=[("eq", 3)]),
     at(0, 1, 2, 3, 12, 13), []),
    ("a range", correlation_rule(bounds=[("gt", 1), ("lte", 3)]), at(0, 1), [10]),
    ("a range: too many", correlation_rule(bounds=[("gt", 1), ("lte", 3)]), at(0, 1, 2, 3), []),
    ("a range: too few", correlation_rule(bounds=[("gt", 1), ("lte", 3)]), at(0), []),
    ("neq", correlation_rule(bounds=[("neq", 1)]), at(0, 30, 31), [40]),
    ("two lower bounds", correlation_rule(bounds=[("gte", 1), ("gt", 1)]), at(0, 1), [1]),
    ("value_count folds case", counting("value_count", ("gte", 2)), values((0, "x"), (1, "X"), (2, "y")), [2]),
    ("value_count of several fields counts combinations",
     correlation_rule("value_count", bounds=[("gte", 3)], fields=("V", "W")),
     [Match("rule-a", time, time, {"User": "ana", "V": pair[0], "W": pair[1:]})
      for time, pair in enumerate(("x1", "x2", "X1", "y1"))], [3]),
    ("value_sum", counting("value_sum", ("gt", 10)), values((0, "5"), (1, "5"), (2, "0.5")), [2]),
    ("value_sum: what is no number is not counted", counting("value_sum", ("gte", 2)),
     values((0, "1"), (1, "nan"), (2, "0x5"), (3, "inf"), (4, "1_0"), (5, "1e0")), [5]),
    ("value_avg", counting("value_avg", ("gt", 2)), values((0, "1"), (1, "3"), (2, "3")), [2]),
    ("value_avg: an upper bound at the close", counting("value_avg", ("lt", 2)), values((0, "9"), (1, "1"), (20, "1")),
     [11, 30]),
    ("value_median", counting("value_median", ("gte", 2.5)), values((0, "1"), (1, "2"), (2, "3"), (3, "4")), [3]),
    ("value_percentile", counting("value_percentile", ("gte", 3.7), percentile=90),
     values((0, "1"), (1, "2"), (2, "3"), (3, "4")), [3]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "rule", "matches", "times"), TABLE, ids=[row[0] for row in TABLE])
def test_semantics(what: str, rule: CorrelationRule, matches: list[Match], times: list[float]) -> None:
    assert [time for _, time in fired([rule], matches)] == times, what


def test_what_a_correlation_tells() -> None:
    matches = [
        Match("rule-a", time, 8 + time, {"User": user}, host="pc1") for time, user in enumerate(("ANA", "ana", "Ana"))
    ]
    (found,) = run([correlation_rule()], matches)
    assert found.rule.id == "correlation"
    assert found.tenant == "brest"
    assert found.group == {"User": "Ana"}
    assert [seconds(time) for time in (found.first, found.last, found.timestamp)] == [0, 2, 2]
    assert found.event_ids == ("tocsin.raw:0:8:0", "tocsin.raw:0:9:0", "tocsin.raw:0:10:0")
    assert (found.count, found.value) == (3, 3)
    assert (found.sample.host, found.sample.original, found.sample.event) == ("pc1", "raw 10", '{"User":"Ana"}')
    assert found.sample.received == EPOCH + timedelta(seconds=2)
    assert found.id == run([correlation_rule()], matches[::-1])[0].id


def test_evidence_is_the_newest_and_bounded() -> None:
    rule = correlation_rule(span=1000, bounds=[("gte", 250)])
    (found,) = run([rule], at(*range(250)))
    assert found.count == 250
    assert len(found.event_ids) == MAX_EVIDENCE
    assert found.event_ids[-1] == "tocsin.raw:0:249:0"


def test_evidence_of_a_sequence_is_the_sequence() -> None:
    matches = [*at(0, 1), *at(2, 3, rule="rule-b", start=2)]
    (found,) = run([THEN], matches)
    assert found.event_ids == ("tocsin.raw:0:1:0", "tocsin.raw:0:2:0")


def test_a_correlation_of_correlations_sees_time_and_group() -> None:
    many = correlation_rule(id="many", span=5)
    then = correlation_rule("temporal_ordered", ("many", "rule-b"), id="then", bounds=None, span=10)
    matches = [*at(0, 1, 2), *at(2, rule="rule-b", start=3), *at(2, rule="rule-b", user="bob", start=4)]
    counted, success = run([then, many], matches)
    assert (counted.rule.id, success.rule.id) == ("many", "then")
    assert success.event_ids == (counted.id, "tocsin.raw:0:3:0")
    assert success.group == {"User": "ana"}


def test_a_correlation_without_the_group_field_of_its_referrer_is_counted() -> None:
    many = correlation_rule(id="many", span=5)
    hosts = correlation_rule("event_count", ("many",), id="hosts", group_by=("Computer",), bounds=[("gte", 1)])
    correlator = Correlator([many, hosts], lateness=FAR)
    correlator.feed(frame_of(at(0, 1, 2)))
    assert [c.rule.id for c in correlator.end()] == ["many"]
    assert correlator.counters.missing_group_field == {"hosts": 1}


def test_aliases_name_the_field_of_each_rule() -> None:
    rule = correlation_rule(
        "temporal", ("rule-a", "rule-b"), bounds=None, group_by=("ip",),
        aliases={"ip": {"rule-a": "Source", "rule-b": "Destination"}},
    )  # fmt: skip
    matches = [Match("rule-a", 0, 0, {"Source": "10.0.0.1"}), Match("rule-b", 1, 1, {"Destination": "10.0.0.1"})]
    (found,) = run([rule], matches)
    assert found.group == {"ip": "10.0.0.1"}


def test_late_matches_are_counted_by_tenant() -> None:
    correlator = Correlator([correlation_rule()], lateness=timedelta(seconds=10))
    correlator.feed(frame_of(at(100)))
    correlator.feed(frame_of([*at(90, start=1), *at(89.999, start=2), Match("rule-a", 0, 3, {"User": "x"}, "quimper")]))
    assert correlator.counters.late == {"brest": 1}
    assert correlator.watermark("brest") == EPOCH + timedelta(seconds=90)


def test_it_speaks_as_soon_as_it_is_final_and_not_before() -> None:
    correlator = Correlator([correlation_rule()], lateness=timedelta(seconds=10))
    assert correlator.feed(frame_of(at(0, 1, 2))) == []
    assert correlator.feed(frame_of(at(12, user="bob", start=3))) == []
    (found,) = correlator.feed(frame_of(at(12.001, user="bob", start=4)))
    assert seconds(found.timestamp) == 2


def test_the_clock_moves_the_watermark_when_no_match_comes() -> None:
    correlator = Correlator([A_AND_NOT_B], lateness=timedelta(seconds=5))
    assert correlator.feed(frame_of(at(0))) == []
    assert correlator.advance("brest", EPOCH + timedelta(seconds=15)) == []
    (found,) = correlator.advance("brest", EPOCH + timedelta(seconds=15.001))
    assert seconds(found.timestamp) == 10
    assert correlator.advance("brest", EPOCH) == []
    assert correlator.watermark("brest") == EPOCH + timedelta(seconds=10.001)


def test_a_date_in_the_future_makes_nothing_late() -> None:
    correlator = Correlator([correlation_rule()], lateness=timedelta(seconds=10))
    hostile = frame_of(at(86400 * 365 * 70), received=EPOCH + timedelta(seconds=1))
    ahead = frame_of(at(MAX_SKEW.total_seconds(), start=5), received=EPOCH)
    correlator.feed(pl.concat([hostile, ahead]))
    assert correlator.watermark("brest") == EPOCH - timedelta(seconds=9)
    found = [*correlator.feed(frame_of(at(0, 2, start=1))), *correlator.end()]
    assert [seconds(c.timestamp) for c in found] == [2]
    assert found[0].event_ids == ("tocsin.raw:0:1:0", "tocsin.raw:0:0:0", "tocsin.raw:0:2:0")
    assert correlator.counters.future == {"brest": 1}
    assert not correlator.counters.late


def test_bad_values_and_missing_fields_are_counted() -> None:
    rule = counting("value_sum", ("gt", 1e9))
    correlator = Correlator([rule], lateness=FAR)
    correlator.feed(frame_of([*values((0, "x"), (1, "")), *at(2, start=2), *at(3, user=None, start=3)]))
    correlator.end()
    assert correlator.counters.bad_values == {"correlation": 3}
    assert correlator.counters.missing_group_field == {"correlation": 1}


def test_a_million_groups_stay_within_the_bound() -> None:
    quiet = [Match("rule-a", 0.5, 0, {"User": "ana"}, "quimper")]
    correlator = Correlator([correlation_rule(span=1000, bounds=[("gte", 2)])], lateness=timedelta(0), max_groups=50)
    correlator.feed(frame_of(quiet))
    correlator.feed(frame_of([Match("rule-a", 1 + n, n, {"User": f"user{n}"}) for n in range(500)]))
    counters = correlator.counters
    assert counters.groups == 50
    assert counters.evicted_groups == {"correlation": 449}  # one still waits for the watermark
    assert correlator.state_bytes() > 50 * 100
    found = correlator.advance("quimper", EPOCH + timedelta(seconds=1))
    found += correlator.feed(frame_of([Match("rule-a", 2, 9, {"User": "ana"}, "quimper")]))
    found += correlator.end()
    assert [c.tenant for c in found] == ["quimper"], "a tenant with one group lost it to a tenant with many"


def test_groups_are_forgotten_when_their_time_is_over() -> None:
    correlator = Correlator([correlation_rule(span=10), A_AND_NOT_B_AGAIN], lateness=timedelta(0))
    correlator.feed(frame_of([Match("rule-a", n, n, {"User": f"user{n}"}) for n in range(1000)]))
    assert correlator.counters.groups == 10 + 20  # of the second, the last ten to fire are silent


def test_groups_are_forgotten_within_one_pass() -> None:
    correlator = Correlator([correlation_rule(span=10, bounds=[("gte", 2)])], lateness=FAR, max_groups=50)
    correlator.feed(frame_of([Match("rule-a", n, n, {"User": f"user{n}"}) for n in range(1000)]))
    assert correlator.end() == []
    assert correlator.counters.evicted_groups == {}


A_AND_NOT_B_AGAIN = correlation_rule(
    "temporal", ("rule-a", "rule-b"), id="absence", span=10, bounds=None, expression="rule-a and not rule-b"
)


def test_a_window_with_too_many_events_forgets_the_oldest() -> None:
    window = EventCount()
    dropped = [window.add(moment, str(moment), 1, None) for moment in range(MAX_EVENTS + 3)]
    assert sum(dropped) == 3
    assert window.measure(0) == MAX_EVENTS
    assert window.evidence(0).first == 3


def test_capped_events_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detections.correlation_window.MAX_EVENTS", 5)
    correlator = Correlator([correlation_rule(span=100, bounds=[("gte", 50)])], lateness=FAR)
    correlator.feed(frame_of(at(*range(8))))
    assert correlator.end() == []
    assert correlator.counters.capped_events == {"correlation": 3}


def test_sums_are_exact_however_long_they_run() -> None:
    window = ValueSum()
    numbers = [1e308, -1e308, 0.1, 0.2, 5e-324, 0.3]
    for moment, number in enumerate(numbers):
        window.add(moment, str(moment), 1, number)
    assert window.measure(0) == 0.6
    assert window.measure(3) == 0.5
    assert window.measure(5) == 0.3
    assert window.measure(6) is None
    for _ in range(2):
        window.add(7, "7", 1, 1.7e308)
    assert window.measure(7) == float("inf")


def test_percentiles_are_linear_between_ranks() -> None:
    assert percentile_of([1, 2, 3, 4], 50) == 2.5
    assert percentile_of([1, 2, 3, 4], 0) == 1
    assert percentile_of([1, 2, 3, 4], 100) == 4
    assert percentile_of([7], 33) == 7
    window = ValueRank(50)
    for moment, number in enumerate((5.0, 5.0, 1.0)):
        window.add(moment, str(moment), 1, number)
    assert [window.measure(start) for start in range(4)] == [5, 3, 1, None]


CYCLE = [correlation_rule(references=("two",), id="one"), correlation_rule(references=("one",), id="two")]
BROKEN: list[tuple[list[CorrelationRule], str]] = [
    (CYCLE, "in a circle"),
    ([correlation_rule(), correlation_rule()], "share an id"),
    ([correlation_rule(bounds=None)], "needs a condition"),
    ([correlation_rule("value_sum")], "needs a field"),
    ([correlation_rule("value_percentile", fields=("V",), percentile=101)], "percentile"),
    ([correlation_rule(bounds=None, expression="rule-a")], "only temporal"),
    (
        [
            correlation_rule(
                "temporal_ordered",
                tuple(f"r{n}" for n in range(40)),
                bounds=None,
                expression=" and ".join(f"(r{n} or r{n + 1})" for n in range(0, 40, 2)),
            )
        ],
        "alternatives",
    ),
]


@pytest.mark.parametrize(("rules", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_rules_that_cannot_run_are_refused(rules: list[CorrelationRule], reason: str) -> None:
    with pytest.raises(CorrelationError, match=reason):
        Correlator(rules, lateness=FAR)


def test_what_fired_before_the_restart_keeps_its_silence() -> None:
    rule = correlation_rule()
    matches = at(0, 1, 2, 8, 9, 10, 12.5)
    correlator = Correlator([rule], lateness=timedelta(0))
    first = correlator.feed(frame_of(matches[:5]))
    since = correlator.needed_from("brest")
    assert since == EPOCH + timedelta(seconds=-1)
    again = Correlator([rule], lateness=timedelta(0))
    again.restore([found.firing for found in first])
    again.replay(frame_of(matches[1:5]))
    found = [*again.feed(frame_of(matches[5:])), *again.end()]
    assert [c.timestamp for c in found] == [EPOCH + timedelta(seconds=12.5)]


def test_a_range_needs_the_window_before_the_window() -> None:
    rule = correlation_rule(bounds=[("eq", 2)])
    matches = at(0, 1, 9, 12)
    correlator = Correlator([rule], lateness=timedelta(0))
    assert correlator.feed(frame_of(matches)) == []
    since = correlator.needed_from("brest")
    assert since == EPOCH - timedelta(seconds=8)
    again = Correlator([rule], lateness=timedelta(0))
    again.restore([])
    again.replay(frame_of([match for match in matches if match.at >= seconds(since)]))
    assert [*again.feed(frame_of([])), *again.end()] == correlator.end() == []


def test_a_firing_keeps_its_place_among_events_of_its_time() -> None:
    """Told again after a restart, it must come before the event that followed it, and not before the one before."""
    many = correlation_rule(id="many", span=5, bounds=[("gte", 2)])
    more = correlation_rule("event_count", ("many",), id="more", span=5, bounds=[("gte", 1)])
    then = correlation_rule("temporal_ordered", ("more", "rule-b", "rule-c"), id="then", bounds=None, span=20)
    rules = [then, more, many]
    for after in (True, False):
        before = [*at(1, 2, start=10), *at(2, rule="rule-b", start=15 if after else 5)]
        later = at(3, 4, rule="rule-c", start=20)
        correlator = Correlator(rules, lateness=timedelta(0))
        first = correlator.feed(frame_of([*before, later[0]]))
        assert [c.rule.id for c in first] == ["many", "more"]
        again = Correlator(rules, lateness=timedelta(0))
        again.restore([c.firing for c in first])
        again.replay(frame_of([*before, later[0]]))
        found = [*again.feed(frame_of(later[1:])), *again.end()]
        assert [(c.rule.id, seconds(c.timestamp)) for c in found] == ([("then", 3)] if after else [])


def test_a_firing_comes_after_the_event_that_completed_it() -> None:
    many = correlation_rule(id="many", span=5, bounds=[("gte", 2)])
    then = correlation_rule("temporal_ordered", ("many", "rule-a"), id="then", bounds=None, span=20)
    assert fired([many, then], at(1, 2)) == [("many", 2)]
    assert fired([many, then], at(1, 2, 2)) == [("many", 2), ("then", 2)]


def test_what_a_closed_window_says_comes_after_the_events_of_its_moment() -> None:
    then = correlation_rule("temporal_ordered", ("absence", "rule-c"), id="then", bounds=None, span=20)
    rules = [A_AND_NOT_B_AGAIN, then]
    assert fired(rules, [*at(0), *at(10, rule="rule-c", start=1)]) == [("absence", 10)]
    assert fired(rules, [*at(0), *at(10.1, rule="rule-c", start=1)]) == [("absence", 10), ("then", 10.1)]


def test_only_what_the_condition_needs_opens_a_window() -> None:
    rule = correlation_rule("temporal", ("rule-a", "rule-b"), bounds=None, expression="rule-a or not rule-b")
    assert fired([rule], [*at(3, rule="rule-b"), *at(5, start=1)]) == [("correlation", 15)]


def test_firings_of_rules_that_are_gone_are_passed_over() -> None:
    correlator = Correlator([correlation_rule()], lateness=FAR)
    correlator.restore([Firing("gone", "brest", {}, EPOCH, "x:1"), Firing("correlation", "brest", {}, EPOCH, "x:1")])
    correlator.resume()
    assert correlator.counters.pending == 0


HOSTILE: list[Any] = [
    None, "", "{", "[]", "null", '"x"', '{"User":null}', '{"User":{"a":1}}', '{"User":5}', '{"User":"\\u0000"}',
    '{"User":"' + "x" * 1_000_000 + '"}', '{ "User" : "ana" }',
    '{"user":"ana","USER":"bob"}', '{"User":"a","User":"b"}',
]  # fmt: skip


def test_events_of_any_shape_raise_nothing() -> None:
    rule = correlation_rule("value_count", group_by=("User",), fields=("User",), bounds=[("gte", 1)])
    frame = frame_of(at(*range(len(HOSTILE)))).with_columns(event=pl.Series(HOSTILE, dtype=pl.String))
    correlator = Correlator([rule], lateness=FAR)
    found: list[Correlation] = [*correlator.feed(frame), *correlator.end()]
    assert correlator.counters.missing_group_field == {"correlation": 7}
    assert len(found) == 6


def test_a_frame_without_matches_says_nothing() -> None:
    correlator = Correlator([correlation_rule()], lateness=FAR)
    assert correlator.feed(frame_of([])) == []
    assert correlator.feed(frame_of([Match("other", 0, 0)])) == []
    assert correlator.end() == []
    assert correlator.watermark("brest") is None
    assert correlator.needed_from("brest") is None
    assert Correlator([], lateness=FAR).feed(frame_of(at(0))) == []


def test_times_at_the_end_of_the_calendar_raise_nothing() -> None:
    late = (datetime.max.replace(tzinfo=EPOCH.tzinfo) - EPOCH).total_seconds() - 1
    assert len(run([A_AND_NOT_B], at(late))) == 1

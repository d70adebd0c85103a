"""What correlations may see and when: only what lies within a cut; and how much `detect` takes on in a step."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from shifting_bus import ShiftingBus, Topics
from test_tocsin_correlations import Clock, how, rule_set
from test_tocsin_stages import MOMENT, RULE, sysmon_line

from correlation_matches import EPOCH, Match, correlation_rule, frame_of
from detections.load import load_rules
from detections.plan import Plan
from ingest.bus import TOPIC_FIRINGS, TOPIC_MATCHES, TOPIC_RAW, Message, Partition, Record
from ingest.ipc import encode_frame
from ingest.rawbatch import BATCH_LINES, RawLine, encode_lines
from storage.alert import Alert
from storage.alert_codec import decode_alert
from storage.lake import Lake
from tocsin.correlate_stage import CORRELATE_GROUP, CorrelateStage, steady_clock
from tocsin.cuts import MOST_CUTS, Cut, Cuts
from tocsin.raw_poll import LINES_A_STEP, RECORDS_A_POLL, UNSAID_LINES, lines_said
from tocsin.stages import DETECT_GROUP, PUBLISHED, DetectStage, Flush
from tocsin.tally import Tally


class Detects:
    """Workers of `detect`, each as far as the test says."""

    def __init__(self) -> None:
        self.bus = ShiftingBus(Topics(2))

    def line(self, partition: int) -> None:
        """A line comes in this partition of the raw topic."""
        log = self.bus.broker.logs.setdefault(Partition(TOPIC_RAW, partition), [])
        log.append(Record(TOPIC_RAW, partition, len(log), "brest/192.0.2.1", b"line"))

    def match(self, partition: int, offset: int, seconds: float, wrong: float = 0.0, *, commits: bool = True) -> None:
        """A worker, whose clock is wrong by so many seconds, finds something in that line, and commits it."""
        event = pl.lit(f"{TOPIC_RAW}:{partition}:{offset}:0").alias("event_id")
        rows = frame_of([Match("rule-a", seconds, offset, {"User": "ana"})]).with_columns(event)
        headers = {PUBLISHED: (EPOCH + timedelta(seconds=seconds + wrong)).isoformat()}
        self.bus.publish([Message(TOPIC_MATCHES, "brest", encode_frame(rows), headers)])
        if commits:
            self.bus.broker.positions[DETECT_GROUP, Partition(TOPIC_RAW, partition)] = offset + 1

    def fired(self) -> list[Alert]:
        logs = [self.bus.broker.logs.get(place, []) for place in self.bus.broker.partitions(TOPIC_FIRINGS)]
        return [decode_alert(record.value) for log in logs for record in log]

    def committed(self) -> int:
        return sum(self.bus.committed(CORRELATE_GROUP, [TOPIC_MATCHES]).values())


def test_what_lies_behind_a_cut_waits_though_it_was_read_before_the_cut_was_complete() -> None:
    detects = Detects()
    burst = correlation_rule(id="burst", bounds=(("gte", 3),), span=10)
    stage = CorrelateStage(detects.bus, Tally(), how(rule_set(burst)), Clock())
    detects.line(0)
    detects.line(1)
    stage.step(0)  # the cut: both lines
    detects.line(0)
    detects.line(1)
    detects.match(0, 0, 0.0)
    detects.match(0, 1, 60.0)  # this worker is ahead
    detects.match(1, 0, 1.0)  # and the cut is complete, but not all lines before that minute are
    stage.step(0)
    stage.step(0)
    assert detects.committed() == 1
    detects.match(1, 1, 3.0)
    stage.step(0)
    stage.step(0)
    [alert] = detects.fired()
    assert (alert.timestamp - EPOCH).total_seconds() == 3
    assert detects.committed() == 4
    stage.close()


def test_patience_lets_nothing_pass_what_comes_before_it_in_its_partition() -> None:
    detects, clock = Detects(), Clock()
    burst = correlation_rule(id="burst", bounds=(("gte", 3),), span=10)
    stage = CorrelateStage(detects.bus, Tally(), how(rule_set(burst), idle=timedelta(seconds=2)), clock)
    for _ in range(4):
        detects.line(0)
    detects.line(1)  # never matched: no cut is ever complete

    def pass_seconds(seconds: int) -> None:
        for _ in range(seconds // 2):
            clock.pass_seconds(2)
            stage.step(0)

    detects.match(0, 3, 60.0, commits=False)  # of a worker that stood still: another one has its partition now
    pass_seconds(90)
    assert detects.committed() == 0
    for offset in range(4):
        detects.match(0, offset, 60.0 if offset == 3 else float(offset))
    pass_seconds(90)
    assert [(alert.timestamp - EPOCH).total_seconds() for alert in detects.fired()] == [2]
    detects.match(0, 9, 90.0, commits=False)  # and what nobody commits goes on after ten times as long
    pass_seconds(500)
    assert detects.committed() == 5
    pass_seconds(200)
    assert detects.committed() == 6
    stage.close()


def test_while_detect_is_far_behind_there_are_cuts_all_the_same() -> None:
    cuts, raw, matches = Cuts(), Partition(TOPIC_RAW, 0), Partition(TOPIC_MATCHES, 0)

    def follow(done: int) -> Cut | None:
        return cuts.follow(EPOCH, {raw: done}, lambda: {matches: done}, lambda ends: ends[matches] <= done)

    for moment in range(1, 1000):
        cuts.add(EPOCH + timedelta(seconds=moment), {raw: moment})
        assert follow(0) is None
    complete = {done: cut.raw[raw] for done in range(1, 1000) if (cut := follow(done)) is not None}
    assert all(done == end for done, end in complete.items())
    steps = [*complete]
    assert steps[0] == 1
    assert steps[-1] == 999
    assert len(steps) == MOST_CUTS
    assert max(later - earlier for earlier, later in pairwise(steps)) <= 4 * 1000 / MOST_CUTS
    assert cuts.oldest is None


AHEAD, BEHIND, RIGHT = 900.0, -900.0, 0.0


@pytest.mark.parametrize(
    "clocks",
    [
        (RIGHT, RIGHT, RIGHT, RIGHT),
        (AHEAD, AHEAD, RIGHT, RIGHT),  # put forward, and back
        (RIGHT, AHEAD, RIGHT, RIGHT),
        (BEHIND, BEHIND, RIGHT, RIGHT),
        (RIGHT, RIGHT, AHEAD, AHEAD),
        (RIGHT, RIGHT, RIGHT, BEHIND),  # two workers whose clocks are apart
        (AHEAD, RIGHT, RIGHT, AHEAD),
    ],
)
def test_the_clocks_of_workers_have_no_say_in_what_waits(clocks: tuple[float, float, float, float]) -> None:
    detects = Detects()
    burst = correlation_rule(id="burst", bounds=(("gte", 3),), span=10)
    clock = Clock()
    stage = CorrelateStage(detects.bus, Tally(), how(rule_set(burst)), clock)
    for _ in range(3):
        detects.line(0)
    detects.line(1)
    stage.step(0)
    detects.match(0, 0, 0.0, clocks[0])
    stage.step(0)
    detects.match(0, 1, 1.0, clocks[1])
    stage.step(0)
    detects.match(0, 2, 60.0, clocks[2])
    stage.step(0)
    clock.pass_seconds(1)
    stage.step(0)
    detects.match(1, 0, 3.0, clocks[3])  # the other worker, last
    stage.step(0)
    stage.step(0)
    assert [(alert.timestamp - EPOCH).total_seconds() for alert in detects.fired()] == [3]
    stage.close()


def test_the_time_of_correlations_makes_no_steps() -> None:
    wall, seconds = Clock(), [100.0]
    clock = steady_clock(wall, lambda: seconds[0])
    assert clock() == EPOCH
    wall.pass_seconds(900)
    seconds[0] += 2
    assert clock() == EPOCH + timedelta(seconds=2)
    wall.pass_seconds(-1800)
    seconds[0] += 2
    assert clock() == EPOCH + timedelta(seconds=4)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "whoami.yml").write_text(RULE)
    return Plan.build(load_rules([tmp_path / "whoami.yml"]).rules)


def batches(count: int, said: str) -> list[Message]:
    value = encode_lines([RawLine(sysmon_line(1, "C:\\x.exe"), MOMENT, "brest", "192.0.2.1")])
    return [Message(TOPIC_RAW, "brest/192.0.2.1", value, {BATCH_LINES: said} if said else {}) for _ in range(count)]


@pytest.mark.parametrize(("said", "expected"), [("4000", 16), ("", 16), ("60000", 8), ("900", 56), ("1", 60)])
def test_a_step_takes_about_so_many_lines_and_no_more(tmp_path: Path, plan: Plan, said: str, expected: int) -> None:
    bus = ShiftingBus(Topics(1))
    bus.publish(batches(60, said))
    stage = DetectStage(bus, Lake(tmp_path / "lake"), plan, Tally(), Flush(rows=1 << 30, bytes=1 << 40, seconds=1e9))
    taken = stage.step(0)
    stage.close()
    assert taken == expected
    assert (taken - RECORDS_A_POLL) * int(said or UNSAID_LINES) < LINES_A_STEP


@pytest.mark.parametrize("said", ["", "-1", "x", "٣", "9" * 30])
def test_what_says_no_number_of_lines_counts_as_a_batch(said: str) -> None:
    assert lines_said(Record(TOPIC_RAW, 0, 0, "k", b"", {BATCH_LINES: said})) == UNSAID_LINES

"""What comes twice: any cut and repetition of batches and sessions gives each line once, those marked aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detections.load import load_rules
from detections.plan import Plan
from ingest.batching import RELP_FIRST, RELP_SESSION
from ingest.bus import (
    TOPIC_MATCHES,
    TOPIC_RAW,
    TOPICS,
    BusCounts,
    Message,
    Partition,
    Position,
    Record,
    StartAt,
    Subscription,
)
from ingest.bus_embedded import EmbeddedBus
from ingest.envelope import EVENT_ID, ORIGINAL, REMARK, EventFrame
from ingest.ipc import FrameDecodeError
from ingest.logsource import UNKNOWN
from ingest.rawbatch import BATCH_ID, BATCH_LINES, RawLine, encode_lines, split_message
from storage.lake import Lake
from tocsin.resends import SENT_AGAIN, Bounds, Resends, longest_repeat, unrepeated
from tocsin.stages import DetectStage, Flush
from tocsin.tally import Flow, Tally

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = "kermor/192.0.2.1"


def batch(
    lines: Sequence[str], number: int, session: str = "", *, opening: bool = True, peer: str = "192.0.2.1"
) -> Message:
    headers = {BATCH_ID: f"run:{number}", BATCH_LINES: str(len(lines))}
    if session:
        headers |= {RELP_SESSION: session} | ({RELP_FIRST: "1"} if opening else {})
    rows = [RawLine(line.encode(), NOON, "kermor", peer) for line in lines]
    return Message(TOPIC_RAW, f"kermor/{peer}", encode_lines(rows), headers)


class Log:
    """A partition of `tocsin.raw`, as a list."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.records = [
            Record(TOPIC_RAW, 0, offset, message.key, message.value, message.headers)
            for offset, message in enumerate(messages)
        ]
        self.read_back = 0

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        assert partition == Partition(TOPIC_RAW, 0)
        self.read_back += stop - start
        return self.records[start:stop]

    def ensure_topics(self, topics: Sequence[str]) -> None:
        raise NotImplementedError

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        raise NotImplementedError

    def subscribe(self, group: str, topics: Sequence[str], start_at: StartAt | None = None) -> Subscription:
        raise NotImplementedError

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        raise NotImplementedError

    def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        raise NotImplementedError

    def counts(self) -> BusCounts:
        raise NotImplementedError

    def finish_within(self, seconds: float) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


Outcome = list[tuple[str, bool]]
"""Lines that are kept, and whether they are said to have been sent again."""


def outcomes(log: Log, bounds: Bounds, starts: Sequence[int] = (0,)) -> Iterator[Outcome]:
    """What each record gives, by a process that is begun anew at these offsets."""
    for offset, record in enumerate(log.records):
        if offset in starts:
            resends = Resends(log, bounds)
        try:
            sifted = resends.read(record)
        except FrameDecodeError:
            yield []
            continue
        rows = [(row["line"].decode(), row["mark"] == SENT_AGAIN) for row in sifted.rows.iter_rows(named=True)]
        again = sifted.rows.filter(pl.col("mark") == SENT_AGAIN)[EVENT_ID].to_list()
        assert sifted.again == again
        yield rows


def kept(messages: Sequence[Message], bounds: Bounds | None = None) -> Outcome:
    return [row for rows in outcomes(Log(messages), bounds or Bounds()) for row in rows]


def new(lines: str) -> Outcome:
    return [(line, False) for line in lines]


def again(lines: str) -> Outcome:
    return [(line, True) for line in lines]


# -- batches -------------------------------------------------------------------------------------------------------


def test_a_batch_published_twice_counts_once() -> None:
    sent = [batch("abc", 0), batch("abc", 1), batch("de", 2)]
    assert kept([*sent, sent[1], sent[2], sent[2]]) == new("abcabcde")


def test_parts_and_the_whole_of_a_batch_are_known_by_their_rows() -> None:
    whole = batch("abcdef", 0)
    parts = split_message(whole, 2)
    assert [part.headers["batch-row"] for part in parts] == ["0", "2", "4"]
    assert kept([whole, *parts]) == new("abcdef")
    assert kept([parts[0], parts[2], whole]) == new("abefcd")
    assert kept([parts[1], *split_message(whole, 4), parts[2]]) == new("cdabef")
    assert split_message(parts[2], 1)[1].headers["batch-row"] == "5"


def test_a_batch_that_cannot_be_read_does_not_hide_its_copy() -> None:
    whole = batch("ab", 0)
    damaged = Message(whole.topic, whole.key, whole.value[:-1] + b"?", whole.headers)
    assert kept([damaged, whole, whole]) == new("ab")


def test_headers_of_other_programs_mean_nothing() -> None:
    value = batch("ab", 0).value
    for headers in ({}, {BATCH_ID: "x:1"}, {BATCH_ID: "x:1", BATCH_LINES: "3"}):
        assert kept([Message(TOPIC_RAW, KEY, value, headers)] * 2) == new("abab")


# -- lines of RELP sessions ----------------------------------------------------------------------------------------


SESSIONS: list[tuple[str, list[tuple[str, str]], Outcome]] = [
    ("nothing before", [("1", "abc")], new("abc")),
    ("the last lines again", [("1", "abcd"), ("2", "cdef")], new("abcd") + again("cd") + new("ef")),
    ("all again", [("1", "abc"), ("2", "abc")], new("abc") + again("abc")),
    ("only the last again", [("1", "abc"), ("2", "cx")], new("abc") + again("c") + new("x")),
    ("over several batches", [("1", "abcd"), ("2", "b"), ("2", "cd"), ("2", "e")],
     new("abcd") + again("bcd") + new("e")),
    ("before, over several batches", [("1", "ab"), ("1", "cd"), ("2", "bcdx")], new("abcd") + again("bcd") + new("x")),
    ("broken twice", [("1", "abcd"), ("2", "cd"), ("3", "cde")], new("abcd") + again("cdcd") + new("e")),
    ("broken twice, early", [("1", "abcd"), ("2", "c"), ("3", "cdef")], new("abcd") + again("ccd") + new("ef")),
    ("broken twice, late", [("1", "abc"), ("2", "cde"), ("3", "def")],
     new("abc") + again("c") + new("de") + again("de") + new("f")),
    ("not at the beginning", [("1", "abc"), ("2", "xabc")], new("abcxabc")),
    ("in another order", [("1", "abc"), ("2", "cba")], new("abc") + again("c") + new("ba")),
    ("the same session", [("1", "abc"), ("1", "abc")], new("abcabc")),
    ("a cut line stays behind", [("1", "abc|"), ("2", "bcd")], new("abc|") + again("bc") + new("d")),
    ("two sessions side by side", [("1", "ab"), ("2", "xy"), ("1", "c"), ("3", "yz"), ("4", "bcd")],
     new("abxyc") + again("y") + new("z") + again("bc") + new("d")),
    ("honest lines that are equal", [("1", "aaa"), ("2", "aaaa")], new("aaa") + again("aaa") + new("a")),
]  # fmt: skip


@pytest.mark.parametrize(("what", "sessions", "expected"), SESSIONS, ids=[what for what, _, _ in SESSIONS])
def test_lines_sent_again(what: str, sessions: list[tuple[str, str]], expected: Outcome) -> None:
    messages = [batch(lines, number, session) for number, (session, lines) in enumerate(sessions)]
    assert kept(messages) == expected, what


def test_only_the_first_lines_of_a_session_may_be_sent_again() -> None:
    messages = [batch("abc", 0, "1"), batch("a", 1, "2"), batch("bc", 2, "2", opening=False)]
    assert kept(messages) == new("abc") + again("a") + new("bc")


def test_other_senders_and_other_transports_are_not_compared() -> None:
    assert kept([batch("abc", 0, "1"), batch("abc", 1, "2", peer="192.0.2.2")]) == new("abcabc")
    assert kept([batch("abc", 0), batch("abc", 1, "2")]) == new("abcabc")
    assert kept([batch("abc", 0, "1"), batch("abc", 1)]) == new("abcabc")


def test_a_line_keeps_the_mark_it_had() -> None:
    rows = [RawLine(b"a", NOON, "kermor", "192.0.2.1", "cut")]
    headers = {BATCH_ID: "run:1", BATCH_LINES: "1", RELP_SESSION: "2", RELP_FIRST: "1"}
    log = Log([batch("a", 0, "1"), Message(TOPIC_RAW, KEY, encode_lines(rows), headers)])
    resends = Resends(log)
    resends.read(log.records[0])
    assert resends.read(log.records[1]).rows["mark"].to_list() == [f"cut; {SENT_AGAIN}"]


def test_a_batch_published_twice_and_sent_again_in_it() -> None:
    first, second = batch("abcd", 0, "1"), batch("cdef", 1, "2")
    assert kept([first, second, first, second]) == new("abcd") + again("cd") + new("ef")
    assert kept([first, *split_message(second, 1), second]) == new("abcd") + again("cd") + new("ef")


@given(new=st.lists(st.integers(0, 2), max_size=12), old=st.lists(st.integers(0, 2), max_size=30))
def test_the_longest_repeat_is_that_of_trying_every_place(new: list[int], old: list[int]) -> None:
    expected = max(
        (length for length in range(len(new) + 1) for at in range(len(old)) if old[at : at + length] == new[:length]),
        default=0,
    )
    assert longest_repeat(new, old) == expected


def test_lines_that_are_all_alike_do_not_cost_their_square() -> None:
    assert longest_repeat([7] * 50_000, [7] * 50_000) == 50_000  # by trying, 2.5e9 comparisons


# -- any transfer --------------------------------------------------------------------------------------------------


@st.composite
def transfers(draw: st.DrawFn) -> tuple[list[str], list[Message]]:
    """A RELP sender whose sessions break anywhere, and a publisher that does not know what arrived.

    The sender begins, in each session, with the first line that was not acknowledged to it: at or before the first line
    that is not on the bus, and never before the line that it began the last session with.
    """
    lines = [f"line {number}" for number in range(draw(st.integers(1, 25)))]
    messages: list[Message] = []
    on_bus = acknowledged = session = 0
    while on_bus < len(lines):
        session += 1
        start = acknowledged = draw(st.integers(acknowledged, on_bus))
        end = draw(st.integers(start, len(lines))) if session < 6 else len(lines)
        while start < end:
            stop = draw(st.integers(start + 1, end))
            whole = batch(lines[start:stop], len(messages), f"s:{session}")
            parts = split_message(whole, 8)
            messages += parts[: draw(st.integers(0, len(parts)))]  # a publish that failed: the bus keeps their order
            messages.append(whole)
            messages += draw(st.lists(st.sampled_from([whole, *split_message(whole, 14)]), max_size=2))
            on_bus, start = max(on_bus, stop), stop
    return lines, messages


@settings(deadline=None, max_examples=80)
@given(transfer=transfers(), starts=st.sets(st.integers(0, 80)))
def test_each_line_comes_once_beside_those_marked(transfer: tuple[list[str], list[Message]], starts: set[int]) -> None:
    lines, messages = transfer
    bounds = Bounds(records=5000)
    got = list(outcomes(Log(messages), bounds))
    rows = [row for rows in got for row in rows]
    assert Counter(line for line, repeated in rows if not repeated) == Counter(lines)
    # wherever a process begins anew, it says the same
    assert list(outcomes(Log(messages), bounds, sorted({0, *starts}))) == got


@settings(deadline=None, max_examples=80)
@given(
    transfer=transfers(),
    starts=st.sets(st.integers(0, 80)),
    records=st.integers(0, 12),
    lines=st.integers(0, 40),
    size=st.integers(0, 20_000),
)
def test_a_small_window_says_the_same_at_each_start(
    transfer: tuple[list[str], list[Message]], starts: set[int], records: int, lines: int, size: int
) -> None:
    log = Log(transfer[1])
    bounds = Bounds(size, records, lines)
    assert list(outcomes(log, bounds, sorted({0, *starts}))) == list(outcomes(log, bounds))


def test_the_way_back_ends_where_the_window_does() -> None:
    log = Log([batch([f"{number}"], number, f"s:{number}") for number in range(1000)])
    resends = Resends(log, Bounds(records=200))
    resends.read(log.records[900])
    assert 200 <= log.read_back < 600
    before = log.read_back
    for record in log.records[901:]:
        resends.read(record)
    assert log.read_back == before
    resends.read(log.records[950])  # polled again after a rebalance
    assert log.read_back > before


# -- detect --------------------------------------------------------------------------------------------------------


def test_events_that_were_sent_again_are_not_shown_to_rules() -> None:
    events = pl.DataFrame({EVENT_ID: ["a", "b", "c"], "x": ["1", "2", "3"]})
    (frame,) = unrepeated([EventFrame(UNKNOWN, events)], ["b"])
    assert frame.events[EVENT_ID].to_list() == ["a", "c"]


RULE = """
title: Word
id: 9d3a6f3b-3c55-4d4e-8a4e-0d8f4a3c1c22
status: test
level: high
logsource: {product: linux}
detection:
    keywords: ['intruder']
    condition: keywords
"""


def test_detect_keeps_marks_counts_and_does_not_match_again(tmp_path: Path) -> None:
    (tmp_path / "rule.yml").write_text(RULE)
    plan = Plan.build(load_rules([tmp_path / "rule.yml"]).rules)
    lines = [f"<38>Nov 23 12:00:0{number} srv sshd[1]: intruder {number}" for number in range(4)]
    sent = [batch(lines[:3], 0, "1"), batch(lines[1:], 1, "2")]
    bus = EmbeddedBus(tmp_path / "bus.sqlite")
    bus.ensure_topics(TOPICS)
    bus.publish([*sent, sent[1]])
    tally, lake = Tally(), Lake(tmp_path / "lake")
    stage = DetectStage(bus, lake, plan, tally, Flush(rows=1, bytes=1, seconds=0.0))
    while stage.step(0.2):
        pass
    stage.close()
    events = pl.concat([frame.events.select(ORIGINAL, REMARK) for frame in lake.read()])
    assert Counter(events.rows()) == Counter(
        [*((line, None) for line in lines), *((line, SENT_AGAIN) for line in lines[1:3])]
    )
    assert {flow: tally.passed(flow) for flow in (Flow.MATCHES, Flow.AGAIN, Flow.TWICE, Flow.QUARANTINED)} == {
        Flow.MATCHES: 4,
        Flow.AGAIN: 2,
        Flow.TWICE: 3,
        Flow.QUARANTINED: 0,
    }
    assert bus.ends([TOPIC_MATCHES])[Partition(TOPIC_MATCHES, 0)] > 0
    bus.close()

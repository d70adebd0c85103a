"""Topics of a Kafka as a source: every record once, whatever dies in between; a second copy is known by its name."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.bus import TOPIC_RAW, BusError, Message, Partition, Position, Record
from ingest.bus_embedded import EmbeddedBus
from ingest.rawbatch import BATCH_FORMAT, BATCH_ID, BATCH_LINES, BATCH_ROW
from ingest.topic_intake import (
    BLOCK,
    BYTES_A_MESSAGE,
    LINES_A_MESSAGE,
    MAX_LINE,
    TopicIntake,
    TopicIntakeError,
    TopicSource,
    parts_of,
)
from tocsin.resends import Resends

SOURCE = TopicSource("region", "CH A", "winlogbeat", "json")
NOW = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "ours.sqlite")
    bus.ensure_topics([TOPIC_RAW])
    yield bus
    bus.close()


def origin_at(path: Path) -> EmbeddedBus:
    bus = EmbeddedBus(path)
    bus.ensure_topics([SOURCE.topic])
    return bus


def stored(bus: EmbeddedBus) -> list[tuple[bytes, str | None]]:
    """Line and mark of what is on our bus, without what came twice."""
    end = bus.ends([TOPIC_RAW])[Partition(TOPIC_RAW, 0)]
    sifter = Resends(bus)
    rows = [sifter.read(record).rows for record in bus.read(Partition(TOPIC_RAW, 0), 0, end)]
    return [(line, mark) for frame in rows for line, mark in frame.select("line", "mark").iter_rows()]


class Failing(EmbeddedBus):
    """Our bus, which fails after some publishes, having written or not."""

    plan: Sequence[str] = ()

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        self.plan, step = self.plan[1:], (self.plan or ["works"])[0]
        if step == "refuses":
            raise BusError("away")
        if step == "half":
            messages = messages[: len(messages) // 2]
        done = super().publish(messages)
        if step in {"half", "silent"}:
            raise BusError("no answer")
        return done


def test_each_record_is_one_line_of_the_hospital_and_says_its_format(tmp_path: Path, ours: EmbeddedBus) -> None:
    origin = origin_at(tmp_path / "theirs.sqlite")
    values = [b'{"a": 1}', b"two\nlines", b"\xff\x00", b"x" * (MAX_LINE + 5), b""]
    origin.publish([Message(SOURCE.topic, "", value, {"tenant": "CH Z"}) for value in values])
    intake = TopicIntake(SOURCE, origin, ours, clock=lambda: NOW)
    assert intake.step(1.0) == len(values)
    assert (intake.counts.lines, intake.counts.empty, intake.counts.cut) == (4, 1, 1)
    assert intake.lag() == 0
    intake.close()

    records = ours.read(Partition(TOPIC_RAW, 0), 0, 100)
    assert {record.key for record in records} == {"CH A/kafka:winlogbeat/0"}
    assert {record.headers[BATCH_FORMAT] for record in records} == {"json"}
    rows = [Resends(ours).read(record).rows for record in records]
    assert {tenant for frame in rows for tenant in frame["tenant"]} == {"CH A"}
    assert {time for frame in rows for time in frame["received"]} == {NOW}
    assert [line for line, _ in stored(ours)] == [value[:MAX_LINE] for value in values[:-1]]
    assert [mark is None for _, mark in stored(ours)] == [True, True, True, False]


def test_what_was_committed_is_not_read_again(tmp_path: Path, ours: EmbeddedBus) -> None:
    for run in range(2):
        origin = origin_at(tmp_path / "theirs.sqlite")
        origin.publish([Message(SOURCE.topic, "", b"%d" % run)])
        intake = TopicIntake(SOURCE, origin, ours)
        while intake.step(0.05):
            pass
        intake.close()
    assert [line for line, _ in stored(ours)] == [b"0", b"1"]
    assert ours.ends([TOPIC_RAW])[Partition(TOPIC_RAW, 0)] == 2


@settings(max_examples=25, deadline=None)
@given(
    plan=st.lists(st.sampled_from(["works", "refuses", "half", "silent"]), max_size=6),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_whatever_fails_every_line_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, plan: list[str], sizes: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("buses")
    ours = Failing(folder / "ours.sqlite")
    ours.ensure_topics([TOPIC_RAW])
    ours.plan = plan
    dice = random.Random(seed)  # noqa: S311 - tests
    sent: list[bytes] = []
    for size in sizes:
        origin = origin_at(folder / "theirs.sqlite")
        lines = [b"line %d" % (len(sent) + at) for at in range(size)]
        sent += lines
        # an empty record here and there: a hole in the offsets of a batch
        origin.publish([Message(SOURCE.topic, "", b"" if dice.random() < 0.1 else line) for line in lines])
        sent = [record.value for record in origin.read(Partition(SOURCE.topic, 0), 0, 10_000)]
        intake = TopicIntake(SOURCE, origin, ours)
        try:
            intake.step(0.0)
        except BusError:
            pass  # the stage is made anew, and so reads on from its last commit
        finally:
            intake.close()
    ours.plan = ()
    intake = TopicIntake(SOURCE, origin_at(folder / "theirs.sqlite"), ours)
    while intake.step(0.02):
        pass
    intake.close()
    assert [line for line, _ in stored(ours)] == [line for line in sent if line]
    ours.close()


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3 * BLOCK), st.sampled_from([b"", b"x", b"y" * 400_000])),
        max_size=60,
        unique_by=lambda item: item[:2],
    )
)
def test_parts_hold_every_value_once_and_only_what_one_name_covers(found: list[tuple[int, int, bytes]]) -> None:
    records = [Record("t", partition, offset, "", value) for partition, offset, value in sorted(found)]
    parts = list(parts_of(records))
    assert sorted((record.partition, record.offset) for part in parts for record in part) == sorted(
        (record.partition, record.offset) for record in records if record.value
    )
    for part in parts:
        first = part[0]
        assert [record.offset for record in part] == list(range(first.offset, first.offset + len(part)))
        assert {(record.partition, record.offset // BLOCK) for record in part} == {
            (first.partition, first.offset // BLOCK)
        }
        assert len(part) == 1 or sum(len(record.value) for record in part) <= BYTES_A_MESSAGE
        assert len(part) <= LINES_A_MESSAGE


def test_names_differ_by_topic_partition_hospital_and_cluster(tmp_path: Path, ours: EmbeddedBus) -> None:
    names: set[str] = set()
    sources = [
        SOURCE,
        TopicSource("other", "CH A", "winlogbeat"),
        TopicSource("region", "CH B", "winlogbeat"),
        TopicSource("region", "CH A", "winlogbeat", cluster="elsewhere:9092"),
    ]
    for at, source in enumerate(sources):
        origin = origin_at(tmp_path / f"{at}.sqlite")
        origin.publish([Message(source.topic, "", b"x")])
        intake = TopicIntake(source, origin, ours)
        assert intake.step(1.0) == 1
        intake.close()
    headers: list[Mapping[str, str]] = [record.headers for record in ours.read(Partition(TOPIC_RAW, 0), 0, 9)]
    names = {header[BATCH_ID] for header in headers}
    assert len(names) == len(sources)
    assert {(header[BATCH_ROW], header[BATCH_LINES]) for header in headers} == {("0", "1")}
    assert [BATCH_FORMAT in header for header in headers] == [True, False, False, False]


def test_a_topic_of_our_own_is_refused(tmp_path: Path, ours: EmbeddedBus) -> None:
    with pytest.raises(TopicIntakeError, match=r"tocsin\.raw is Tocsin's own"):
        TopicIntake(TopicSource("loop", "CH A", TOPIC_RAW), origin_at(tmp_path / "theirs.sqlite"), ours)

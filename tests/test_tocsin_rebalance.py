"""Partitions that leave in the middle of a batch and come back, stores that are begun anew, and records of no use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from shifting_bus import Fuse, Killed, ShiftingBus, Topics
from test_tocsin_stages import MOMENT, RULE, batch, sysmon_line

from detections.load import load_rules
from detections.plan import Plan
from ingest.bus import TOPIC_ALERTS, TOPIC_QUARANTINE, TOPIC_RAW, TOPIC_SOURCES, TOPICS, Message, Partition
from ingest.bus_embedded import EmbeddedBus
from ingest.ipc import decode_frame
from ingest.rawbatch import BATCH_LINES, RawLine, encode_lines
from ingest.source_counts import COUNTS_SCHEMA
from storage.alert_codec import decode_alert
from storage.alert_queue import AlertFilter
from storage.alerts import AlertStore
from storage.lake import Lake
from tocsin.correlate_stage import CorrelateStage
from tocsin.rewind import Rewind
from tocsin.stages import DETECT_GROUP, DetectStage, Flush, Stage, StoreStage
from tocsin.tally import Tally

LATER = Flush(rows=1 << 30, bytes=1 << 40, seconds=1e9)
RAW = Partition(TOPIC_RAW, 0)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "whoami.yml").write_text(RULE)
    return Plan.build(load_rules([tmp_path / "whoami.yml"]).rules)


def counted(bus: ShiftingBus) -> dict[int, int]:
    """Offset of a raw record -> lines that the counts say it has."""
    found: dict[int, int] = {}
    for record in bus.broker.logs.get(Partition(TOPIC_SOURCES, 0), []):
        rows = decode_frame(record.value, COUNTS_SCHEMA)
        for offset, lines in rows.select("offset", "lines").iter_rows():
            found[offset] = found.get(offset, 0) + lines
    return found


def test_a_partition_that_comes_back_before_the_flush_counts_once(tmp_path: Path, plan: Plan) -> None:
    bus, lake, tally = ShiftingBus(Topics(1)), Lake(tmp_path / "lake"), Tally()
    bus.publish([batch("kermor", 0, 3), batch("kermor", 3, 2)])
    stage = DetectStage(bus, lake, plan, tally, LATER)
    stage.step(0)
    (member,) = bus.broker.members[DETECT_GROUP]
    member.owns = set()
    stage.step(0)  # it left, with its events still here
    member.owns = {RAW}
    stage.step(0)  # and begins at the commit again
    stage.close()
    assert counted(bus) == {0: 3, 1: 2}
    assert lake.count() == 5
    assert bus.committed(DETECT_GROUP, [TOPIC_RAW]) == {RAW: 2}
    assert tally.received == 5


def test_what_is_in_the_lake_but_was_not_committed_is_committed_when_it_comes_again(tmp_path: Path, plan: Plan) -> None:
    bus, lake = ShiftingBus(Topics(1)), Lake(tmp_path / "lake")
    bus.publish([batch("kermor", 0, 3)])
    stage = DetectStage(bus, lake, plan, Tally(), Flush(rows=4, bytes=1 << 40, seconds=0.0))
    (member,) = bus.broker.members[DETECT_GROUP]
    member.asleep = True
    member.next = {RAW: 0}
    stage.step(0)  # written, but the group took the partition away: the commit is dropped
    assert (lake.count(), bus.committed(DETECT_GROUP, [TOPIC_RAW])) == (3, {})
    member.asleep, member.next = False, {}
    stage.step(0)
    assert bus.committed(DETECT_GROUP, [TOPIC_RAW]) == {RAW: 1}
    stage.close()
    assert counted(bus) == {0: 3}


def test_two_workers_that_both_believe_they_own_a_partition_write_it_once(tmp_path: Path, plan: Plan) -> None:
    broker, lake = Topics(1), Lake(tmp_path / "lake")
    bus = ShiftingBus(broker)
    bus.publish([batch("kermor", 0, 3), batch("kermor", 3, 2)])
    stopped = DetectStage(ShiftingBus(broker, Fuse()), lake, plan, Tally(), LATER)
    stopped.step(0)
    (member,) = broker.members[DETECT_GROUP]
    member.asleep = True
    other = DetectStage(ShiftingBus(broker, Fuse()), lake, plan, Tally(), Flush(rows=1, bytes=1, seconds=0.0))
    other.step(0)
    bus.publish([batch("kermor", 5, 4)])
    stopped.step(0)  # continues as if nothing had been
    stopped.close()
    other.step(0)
    other.close()
    assert sorted(event for frame in lake.read() for event in frame.events["event.id"]) == sorted(
        f"{TOPIC_RAW}:0:{offset}:{row}" for offset, rows in ((0, 3), (1, 2), (2, 4)) for row in range(rows)
    )
    assert bus.committed(DETECT_GROUP, [TOPIC_RAW]) == {RAW: 3}


@pytest.fixture
def full_bus(tmp_path: Path, plan: Plan) -> EmbeddedBus:
    bus = EmbeddedBus(tmp_path / "bus.sqlite")
    bus.ensure_topics(TOPICS)
    bus.publish([batch("kermor", 0, 10), batch("kermor", 10, 10)])
    tally = Tally()
    through(DetectStage(bus, Lake(tmp_path / "lake"), plan, tally, Flush(rows=1, bytes=1, seconds=0.0)))
    through(CorrelateStage(bus, tally))
    return bus


def through(*stages: Stage) -> None:
    for stage in stages:
        while stage.step(0.1):
            pass
        stage.close()


def alert_ids(store: AlertStore) -> set[str]:
    return {row.alert.id for row in store.queue(AlertFilter(), 500, None).items}


def test_a_new_alert_store_begins_at_the_beginning_of_the_bus(full_bus: EmbeddedBus, tmp_path: Path) -> None:
    with AlertStore(tmp_path / "first.duckdb") as first, AlertStore(tmp_path / "second.duckdb") as second:
        through(StoreStage(full_bus, first, Tally()))
        assert len(alert_ids(first)) == 10
        through(StoreStage(full_bus, second, Tally()))
        assert alert_ids(second) == alert_ids(first)


def test_a_new_alert_store_takes_what_retention_has_left(full_bus: EmbeddedBus, tmp_path: Path) -> None:
    full_bus.delete_before(TOPIC_ALERTS, 4)
    with AlertStore(tmp_path / "alerts.duckdb") as store:
        through(StoreStage(full_bus, store, Tally()))
        assert len(alert_ids(store)) == 6


def poisons() -> Sequence[tuple[str, Message]]:
    line = RawLine(sysmon_line(1, "x"), MOMENT, "kermor", "10.0.0.1")
    frame = encode_lines([line])
    return [
        ("garbage", Message(TOPIC_RAW, "kermor/10.0.0.1", b"\x00\xff", {BATCH_LINES: "2"})),
        ("empty", Message(TOPIC_RAW, "", b"")),
        ("cut off", Message(TOPIC_RAW, "kermor", frame[:-40])),
        ("lines as matches", Message("tocsin.matches", "kermor", frame)),
        ("lines as alert", Message(TOPIC_ALERTS, "kermor", frame)),
        ("alert without fields", Message(TOPIC_ALERTS, "kermor", b'{"id": 7}')),
        ("huge", Message(TOPIC_ALERTS, "kermor", b"[" * (8 << 20))),
    ]


@pytest.mark.parametrize(("name", "poison"), poisons())
def test_poison_stands_in_nobodys_way_and_lies_in_quarantine_at_most_twice(
    tmp_path: Path, plan: Plan, name: str, poison: Message
) -> None:
    broker, lake, tally = Topics(1), Lake(tmp_path / "lake"), Tally()
    bus = ShiftingBus(broker)
    bus.publish([poison, batch("kermor", 0, 4)])
    with AlertStore(tmp_path / "alerts.duckdb") as store:
        stages: list[Stage] = [
            DetectStage(bus, lake, plan, tally, Flush(rows=1, bytes=1, seconds=0.0)),
            CorrelateStage(bus, tally),
            StoreStage(bus, store, tally),
        ]
        commits = dict(broker.positions)
        through(*stages)
        broker.positions = commits  # as if each had died between the quarantine and its commit
        through(DetectStage(bus, lake, plan, tally, LATER), CorrelateStage(bus, tally), StoreStage(bus, store, tally))
        assert len(alert_ids(store)) == 2
    assert lake.count() == 4
    kept = broker.logs[Partition(TOPIC_QUARANTINE, 0)]
    assert 1 <= len(kept) <= 2, name
    assert all(record.value == poison.value and record.headers["reason"] for record in kept)
    assert (
        len({decode_alert(r.value).id for r in broker.logs[Partition(TOPIC_ALERTS, 0)] if r.value != poison.value}) == 2
    )


def test_a_stage_that_begins_at_the_beginning_does_so_once_and_is_not_put_off_by_an_error(
    tmp_path: Path, plan: Plan
) -> None:
    broker, fuse = Topics(2), Fuse()
    bus = ShiftingBus(broker, fuse)
    bus.publish([batch(f"h{number}", 0, 2) for number in range(6)])
    through(DetectStage(bus, Lake(tmp_path / "lost"), plan, Tally(), LATER))
    done = bus.committed(DETECT_GROUP, [TOPIC_RAW])
    assert sum(done.values()) == 6
    lake, rewind = Lake(tmp_path / "lake"), Rewind()
    for burn in range(1, 5):  # dies at the poll, and before and after the positions are set back
        stage = DetectStage(bus, lake, plan, Tally(), LATER, rewind=rewind)
        fuse.left = burn
        with pytest.raises(Killed):
            through(stage)
        broker.members[DETECT_GROUP].clear()
        assert lake.count() == 0
    through(DetectStage(bus, lake, plan, Tally(), LATER, rewind=rewind))
    assert lake.count() == 12
    assert bus.committed(DETECT_GROUP, [TOPIC_RAW]) == done
    again = DetectStage(bus, lake, plan, Tally(), LATER, rewind=rewind)
    assert again.step(0) == 0
    again.close()

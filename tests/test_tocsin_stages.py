"""The stages between real buses and real stores: whatever fails, and wherever, the outcome is that of no failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl
import pytest

from detections.load import load_rules
from detections.match import MATCH_SCHEMA
from detections.plan import Plan
from ingest.bus import (
    TOPIC_ALERTS,
    TOPIC_MATCHES,
    TOPIC_QUARANTINE,
    TOPIC_RAW,
    TOPICS,
    Bus,
    BusCounts,
    BusError,
    Message,
    Partition,
    Position,
    Record,
    StartAt,
    Subscription,
)
from ingest.bus_embedded import EmbeddedBus
from ingest.ipc import decode_frame
from ingest.parse import parse
from ingest.rawbatch import RawLine, decode_record, encode_lines
from storage.alert_queue import AlertFilter
from storage.alerts import AlertStore
from storage.lake import Lake
from tocsin.correlate_stage import CorrelateStage
from tocsin.crew import Crew, run_stage
from tocsin.stages import DetectStage, Flush, Stage, StoreStage, match_messages
from tocsin.tally import Flow, Tally

RULE = """
title: Whoami
id: 9d3a6f3b-3c55-4d4e-8a4e-0d8f4a3c1c11
status: test
level: high
logsource: {product: windows, category: process_creation}
detection:
    selection: {Image|endswith: '\\whoami.exe'}
    condition: selection
"""

MOMENT = datetime(2026, 3, 9, 20, 33, tzinfo=UTC)


def sysmon_line(number: int, image: str) -> bytes:
    return orjson.dumps(
        {
            "EventTime": f"2026-03-09T20:{number % 60:02}:00Z",
            "Hostname": f"PC-{number}",
            "Channel": "Microsoft-Windows-Sysmon/Operational",
            "SourceName": "Microsoft-Windows-Sysmon",
            "EventID": 1,
            "Image": image,
        }
    )


def batch(tenant: str, first: int, count: int) -> Message:
    images = ["C:\\Windows\\System32\\whoami.exe", "C:\\Windows\\explorer.exe"]
    lines = [
        RawLine(sysmon_line(number, images[number % 2]), MOMENT, tenant, "10.0.0.1")
        for number in range(first, first + count)
    ]
    return Message(TOPIC_RAW, f"{tenant}/10.0.0.1", encode_lines(lines))


@dataclass
class FaultyBus:
    """A real bus that fails at chosen calls, before or after doing what was asked, and can forget commits."""

    bus: Bus
    fail_at: frozenset[int] = frozenset()
    forgetful: bool = False
    calls: int = field(default=0)

    def trip(self) -> None:
        self.calls += 1
        if self.calls in self.fail_at:
            raise BusError(f"call {self.calls} fails")

    def ensure_topics(self, topics: Sequence[str]) -> None:
        self.bus.ensure_topics(topics)

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        self.trip()
        positions = self.bus.publish(messages)
        self.trip()
        return positions

    def subscribe(self, group: str, topics: Sequence[str], start_at: StartAt | None = None) -> Subscription:
        return FaultySubscription(self, self.bus.subscribe(group, topics, start_at))

    def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        return self.bus.ends(topics)

    def committed(self, group: str, topics: Sequence[str]) -> dict[Partition, int]:
        return self.bus.committed(group, topics)

    def read(self, partition: Partition, start: int, stop: int) -> list[Record]:
        return self.bus.read(partition, start, stop)

    def counts(self) -> BusCounts:
        return self.bus.counts()

    def finish_within(self, seconds: float) -> None:
        self.bus.finish_within(seconds)

    def close(self) -> None:
        self.bus.close()


@dataclass
class FaultySubscription:
    owner: FaultyBus
    inner: Subscription

    def poll(self, timeout: float, max_records: int = 256) -> list[Record]:
        return self.inner.poll(timeout, max_records)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        self.owner.trip()
        if not self.owner.forgetful:
            self.inner.commit(positions)
        self.owner.trip()

    def lag(self) -> int:
        return self.inner.lag()

    def partitions(self) -> frozenset[Partition]:
        return self.inner.partitions()

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    rule = tmp_path / "rules" / "whoami.yml"
    rule.parent.mkdir()
    rule.write_text(RULE)
    return Plan.build(load_rules([rule]).rules)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "bus.sqlite")
    bus.ensure_topics(TOPICS)
    yield bus
    bus.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AlertStore]:
    store = AlertStore(tmp_path / "alerts.duckdb")
    yield store
    store.close()


class Unwatched:
    def beginning(self, stage: str) -> None: ...

    def stepped(self, stage: str, records: int) -> None: ...

    def ended(self, stage: str) -> None: ...

    def lag(self, stage: str, records: int) -> None: ...

    def failing(self, stage: str, reason: str | None) -> None: ...


@dataclass
class Watched(Unwatched):
    reasons: list[str | None] = field(default_factory=list)

    def failing(self, stage: str, reason: str | None) -> None:
        assert stage == "detect"
        self.reasons.append(reason)


def detect_stage(bus: Bus, lake: Lake, plan: Plan, tally: Tally) -> DetectStage:
    return DetectStage(bus, lake, plan, tally, Flush(rows=1, bytes=1, seconds=0.0))


def run_to_end(bus: Bus, lake: Lake, plan: Plan, store: AlertStore) -> Tally:
    """Every stage until it finds nothing more to read, then closed in good order."""
    tally = Tally()
    for make in (
        lambda: detect_stage(bus, lake, plan, tally),
        lambda: CorrelateStage(bus, tally),
        lambda: StoreStage(bus, store, tally),
    ):
        stage: Stage = make()
        while stage.step(0.2):
            pass
        stage.close()
    return tally


def alert_ids(store: AlertStore) -> set[str]:
    return {row.alert.id for row in store.queue(AlertFilter(), 500, None).items}


def test_lines_become_events_in_the_lake_and_alerts_in_the_store(
    bus: EmbeddedBus, tmp_path: Path, plan: Plan, store: AlertStore
) -> None:
    bus.publish([batch("kermor", 0, 10), batch("brest", 10, 10)])
    lake = Lake(tmp_path / "lake")
    tally = run_to_end(bus, lake, plan, store)
    assert lake.count() == 20
    rows = store.queue(AlertFilter(), 500, None).items
    assert {(row.alert.tenant, row.alert.host) for row in rows} == {
        *(("kermor", f"PC-{number}") for number in range(0, 10, 2)),
        *(("brest", f"PC-{number}") for number in range(10, 20, 2)),
    }
    assert rows[0].alert.matched == {"Image": "C:\\Windows\\System32\\whoami.exe"}
    assert tally.passed(Flow.MATCHES) == tally.passed(Flow.ALERTS) == tally.passed(Flow.STORED) == 10
    assert {pulse.tenant: (pulse.received, pulse.understood) for pulse in tally.hospitals} == {
        "kermor": (10, 10),
        "brest": (10, 10),
    }


def test_a_second_run_over_the_same_bus_adds_nothing(
    bus: EmbeddedBus, tmp_path: Path, plan: Plan, store: AlertStore
) -> None:
    bus.publish([batch("kermor", 0, 10), batch("kermor", 10, 7)])
    lake = Lake(tmp_path / "lake")
    forgetful = FaultyBus(bus, forgetful=True)
    run_to_end(forgetful, lake, plan, store)
    first = (lake.count(), alert_ids(store))
    run_to_end(forgetful, lake, plan, store)
    assert (lake.count(), alert_ids(store)) == first
    assert first[0] == 17
    assert len(first[1]) == 9


def test_an_alert_may_rest_on_a_field_that_is_absent(bus: EmbeddedBus, tmp_path: Path, store: AlertStore) -> None:
    rule = tmp_path / "absent.yml"
    rule.write_text(RULE.replace("Image|endswith: '\\whoami.exe'", "ParentImage: null"))
    bus.publish([batch("kermor", 0, 2)])
    run_to_end(bus, Lake(tmp_path / "lake"), Plan.build(load_rules([rule]).rules), store)
    rows = store.queue(AlertFilter(), 500, None).items
    assert [row.alert.matched for row in rows] == [{"ParentImage": None}] * 2


@pytest.mark.parametrize(
    "name", ["*", "^.*$", "^Image$", "event.id", "date", "fields.rest", "a b", "", "\x00", "é", "_"]
)
def test_a_field_may_have_any_name_and_hides_nothing(
    bus: EmbeddedBus, tmp_path: Path, plan: Plan, store: AlertStore, name: str
) -> None:
    event = orjson.loads(sysmon_line(1, "C:\\Windows\\System32\\whoami.exe")) | {name: "hostile"}
    bus.publish([Message(TOPIC_RAW, "k", encode_lines([RawLine(orjson.dumps(event), MOMENT, "kermor", "10.0.0.1")]))])
    lake = Lake(tmp_path / "lake")
    tally = run_to_end(bus, lake, plan, store)
    assert (len(alert_ids(store)), lake.count(), tally.passed(Flow.UNMATCHED)) == (1, 1, 0)
    (frame,) = lake.read()
    assert plan.match(frame).height == 1


@pytest.mark.parametrize("failure", range(1, 9))
def test_a_failure_at_any_call_changes_nothing_in_the_end(
    bus: EmbeddedBus, tmp_path: Path, plan: Plan, store: AlertStore, failure: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.crew.LONGEST_PAUSE", 0.01)
    bus.publish([batch("kermor", 0, 10)])
    lake = Lake(tmp_path / "lake")
    tally = Tally()
    faulty = FaultyBus(bus, fail_at=frozenset({failure, failure + 1}))
    crew = Crew(3)
    crew.start(lambda stop: run_stage("detect", lambda: detect_stage(faulty, lake, plan, tally), stop, Unwatched()))
    crew.start(lambda stop: run_stage("correlate", lambda: CorrelateStage(faulty, tally), stop, Unwatched()))
    crew.start(lambda stop: run_stage("store", lambda: StoreStage(faulty, store, tally), stop, Unwatched()))
    waiting = threading.Event()
    for _ in range(400):
        if lake.count() == 10 and len(alert_ids(store)) == 5 and faulty.calls >= failure + 1:
            break
        waiting.wait(0.05)
    crew.stop.set()
    crew.join()
    assert lake.count() == 10
    assert len(alert_ids(store)) == 5
    assert faulty.calls >= failure


@pytest.mark.parametrize("topic", [TOPIC_RAW, TOPIC_MATCHES, TOPIC_ALERTS])
def test_a_record_that_cannot_be_read_is_quarantined_and_stops_nothing(
    bus: EmbeddedBus, tmp_path: Path, plan: Plan, store: AlertStore, topic: str
) -> None:
    (poison,) = bus.publish([Message(topic, "kermor", b"\x00not what it should be")])
    bus.publish([batch("kermor", 0, 4)])
    run_to_end(bus, Lake(tmp_path / "lake"), plan, store)
    assert len(alert_ids(store)) == 2
    subscription = bus.subscribe("test", [TOPIC_QUARANTINE])
    (record,) = subscription.poll(1.0)
    subscription.close()
    assert record.value == b"\x00not what it should be"
    assert (record.headers["topic"], record.headers["offset"]) == (topic, str(poison.offset))
    assert record.headers["reason"]


def test_a_lake_that_cannot_be_written_is_said_and_counts_nothing(
    bus: EmbeddedBus, tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.crew.LONGEST_PAUSE", 0.01)
    bus.publish([batch("kermor", 0, 1)])
    lake = Lake(tmp_path / "lake")
    (tmp_path / "lake" / "events").write_text("in the way")
    tally, watched, crew = Tally(), Watched(), Crew(1)
    crew.start(lambda stop: run_stage("detect", lambda: detect_stage(bus, lake, plan, tally), stop, watched))
    waiting = threading.Event()
    for _ in range(200):
        if len(watched.reasons) >= 3:
            break
        waiting.wait(0.05)
    crew.stop.set()
    crew.join()
    assert all(reason is not None and "lake" in reason for reason in watched.reasons[:3])
    assert tally.received == 0
    (tmp_path / "lake" / "events").unlink()
    stage = detect_stage(bus, lake, plan, tally)
    stage.step(0.2)
    stage.close()
    assert (tally.received, lake.count()) == (1, 1)


def test_many_matches_go_in_many_messages(bus: EmbeddedBus, plan: Plan) -> None:
    bus.publish([batch("kermor", 0, 400)])
    subscription = bus.subscribe("test", [TOPIC_RAW])
    (record,) = subscription.poll(1.0)
    subscription.close()
    (frame,) = parse(decode_record(record))
    matches = plan.match(frame)
    long = matches.with_columns(pl.lit("x" * 30_000).alias("original"))
    messages = match_messages([long, matches], MOMENT)
    assert len(messages) > 4
    assert sum(decode_frame(message.value, MATCH_SCHEMA).height for message in messages) == 2 * matches.height
    assert match_messages([], MOMENT) == []


def test_matches_go_out_in_the_order_of_their_times(plan: Plan) -> None:
    lines = [RawLine(sysmon_line(n, "C:\\whoami.exe"), MOMENT, "kermor", "10.0.0.1") for n in (30, 10, 20)]
    (frame,) = parse(decode_record(Record(TOPIC_RAW, 0, 0, "k", encode_lines(lines))))
    (message,) = match_messages([plan.match(frame)], MOMENT)
    assert decode_frame(message.value, MATCH_SCHEMA)["host"].to_list() == ["PC-10", "PC-20", "PC-30"]
    assert message.headers == {"published": MOMENT.isoformat()}


def test_a_thread_that_dies_ends_the_crew() -> None:
    crew = Crew(2)

    def die(_stop: threading.Event) -> None:
        raise RuntimeError("nobody foresaw this")

    crew.start(lambda stop: None if stop.wait(20) else pytest.fail("was not told to stop"))
    crew.start(die)
    with pytest.raises(RuntimeError, match="nobody foresaw"):
        crew.join()

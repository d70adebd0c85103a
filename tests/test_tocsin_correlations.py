"""Correlations through the stage: killed anywhere, moved between workers, left alone at night, overwhelmed."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
import structlog

from correlation_matches import EPOCH, Match, at, correlation_rule, frame_of
from detections.correlate import alert_of_correlation, correlate, firing_of
from detections.correlation import Correlation
from detections.correlation_evidence import EvidenceMemory
from detections.correlation_rule import CorrelationRule
from detections.correlation_set import CorrelationSet, correlation_set
from detections.correlator import Correlator
from detections.load import load_rules
from detections.plan import Plan
from ingest.bus import TOPIC_ALERTS, TOPIC_FIRINGS, TOPIC_MATCHES, TOPIC_RAW, TOPICS, Bus, BusError, Message
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings
from ingest.ipc import encode_frame
from ingest.rawbatch import RawLine, encode_lines
from storage.alert import Alert, Evidence, Level
from storage.alert_codec import decode_alert, encode_alert
from storage.alert_queue import AlertFilter
from storage.alerts import AlertStore
from storage.lake import Lake
from tocsin.correlate_stage import CORRELATE_GROUP, CorrelateStage, Correlating
from tocsin.correlation_state import paces_of, read_back
from tocsin.stages import DETECT_GROUP, PUBLISHED, DetectStage, Flush, StoreStage
from tocsin.tally import Flow, Tally

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

LATENESS = timedelta(seconds=2)

BURST = correlation_rule(id="burst")
ABSENCE = correlation_rule(
    "temporal", ("rule-a", "rule-b"), id="absence", bounds=None, expression="rule-a and not rule-b"
)
CHAIN = correlation_rule("temporal_ordered", ("burst", "rule-b"), id="chain", span=30, bounds=(("gte", 2),))
RULES = (BURST, ABSENCE, CHAIN)


def rule_set(*rules: CorrelationRule, silenced: Sequence[str] = ()) -> CorrelationSet:
    ids = {rule.id for rule in rules}
    return CorrelationSet(rules, frozenset(silenced), frozenset(r for rule in rules for r in rule.references) - ids)


@dataclass
class Clock:
    now: datetime = EPOCH

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def matches_message(matches: Sequence[Match]) -> Message:
    received = max(match.at for match in matches)
    headers = {PUBLISHED: (EPOCH + timedelta(seconds=received)).isoformat()}
    return Message(TOPIC_MATCHES, matches[0].tenant, encode_frame(frame_of(matches)), headers)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "bus.sqlite")
    bus.ensure_topics(TOPICS)
    match_lines(bus, TOPIC_RAW, DETECT_GROUP)
    yield bus
    bus.close()


def match_lines(bus: Bus, topic: str, group: str, count: int = 2000) -> None:
    """Put raw records there for the matches of the tests to come from, and commit that they are matched."""
    bus.publish([Message(topic, f"source {n}", b"matched") for n in range(count)])
    detect = bus.subscribe(group, [topic])
    ends = bus.ends([topic])
    while detect.partitions() < ends.keys() or detect.lag():
        detect.poll(0.2, count)
    detect.commit(ends)
    detect.close()


def how(rules: CorrelationSet, **changes: timedelta | int) -> Correlating:
    return replace(Correlating(rules, lateness=LATENESS, idle=timedelta()), **changes)  # type: ignore[arg-type]


def alerts_on(bus: Bus, topic: str = TOPIC_ALERTS) -> list[Alert]:
    return [
        decode_alert(record.value)
        for partition, end in bus.ends([topic]).items()
        for record in bus.read(partition, 0, end)
    ]


def drain(stage: CorrelateStage) -> None:
    while stage.step(0.05):
        pass


def stream(seed: int, length: int = 240) -> list[list[Match]]:
    """Records of matches of three hospitals, somewhat out of order within the lateness, now and then a long quiet."""
    chance = random.Random(seed)  # noqa: S311 - a test
    now, records, number = 0.0, [], 0
    while number < length:
        now += chance.choice([0.5, 1, 3, 3, 3, 25])
        tenant, record = chance.choice(["brest", "kermor", "quimper"]), []
        for _ in range(chance.randrange(1, 4)):
            number += 1
            rule, user = chance.choice(["rule-a", "rule-a", "rule-b", "rule-x"]), chance.choice(["ana", "bob"])
            record.append(Match(rule, now - chance.random(), number, {"User": user}, tenant))
        records.append(record)
    return records


def uninterrupted(records: Sequence[Sequence[Match]]) -> set[str]:
    correlator = Correlator(RULES, lateness=LATENESS)
    fired: list[Correlation] = []
    for record in records:
        fired += correlator.feed(frame_of(record))
    return {correlation.id for correlation in fired}


@dataclass
class Crashing:
    """A stage that is thrown away after a step with a chance, at once or on its way through it."""

    bus: EmbeddedBus
    make: Callable[[Bus], CorrelateStage]
    chance: random.Random
    crashes: int = 0
    steps: int = field(default=0)

    def run(self) -> None:
        stage = self.make(self.bus)
        while True:
            self.steps += 1
            if self.chance.random() < 0.7:
                read = stage.step(0.02)
                if not read:
                    break
                if self.chance.random() < 0.7:
                    continue
            else:
                self.crash(stage)
            stage.close()
            self.crashes += 1
            stage = self.make(self.bus)
        stage.close()

    def crash(self, stage: CorrelateStage) -> None:
        """Read and publish, and die before the commit."""
        subscription = stage._subscription

        def die(*_: object) -> None:
            raise BusError("killed")

        stage._subscription = _Dying(subscription, die)  # type: ignore[assignment]
        with contextlib.suppress(BusError):
            stage.step(0.02)
        stage._subscription = subscription


class _Dying:
    def __init__(self, inner: object, die: Callable[..., None]) -> None:
        self._inner = inner
        self.commit = die

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.mark.parametrize(("seed", "held"), [(0, 1 << 20), (1, 0), (2, 1 << 20), (3, 4_000)])
def test_killed_after_every_step_it_gives_the_alerts_of_one_run(
    bus: EmbeddedBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, held: int
) -> None:
    monkeypatch.setattr("tocsin.correlation_state.HELD_BYTES", held)
    monkeypatch.setattr("tocsin.correlation_state.SLICE", 7)
    monkeypatch.setattr("tocsin.correlate_stage.RECORDS_A_STEP", 5)
    monkeypatch.setattr("tocsin.correlation_state.STEP", 3)
    records = stream(seed)
    bus.publish([matches_message(record) for record in records])
    rules = rule_set(*RULES, silenced=["rule-a", "burst"])
    chance = random.Random(seed)  # noqa: S311 - a test
    hasty = how(rules, held_bytes=0)  # else it would have to live until it has read all there is
    crashing = Crashing(bus, lambda bus: CorrelateStage(bus, Tally(), hasty, Clock()), chance)
    crashing.run()
    expected = uninterrupted(records)
    assert len(expected) > 20
    assert crashing.crashes > 10
    assert {alert.id for alert in alerts_on(bus, TOPIC_FIRINGS)} == expected
    with_store = AlertStore(tmp_path / "alerts.duckdb")
    stage = StoreStage(bus, with_store, Tally())
    while stage.step(0.05):
        pass
    stage.close()
    rows = [row.alert for row in with_store.queue(AlertFilter(), 1000, None).items]
    with_store.close()
    heard = {alert.id for alert in alerts_on(bus, TOPIC_FIRINGS) if alert.rule_id != "burst"}
    plain = {alert.id for record in records for alert in correlate(frame_of(record), {"rule-a"})}
    assert {alert.id for alert in rows} == heard | plain
    assert {alert.rule_id for alert in rows} == {"absence", "chain", "rule-b", "rule-x"}


@pytest.fixture
def kafka(kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], KafkaBus]]:
    """Makes buses on one real broker; topics and groups of their own."""
    suffix = uuid.uuid4().hex
    for name in ("TOPIC_MATCHES", "TOPIC_ALERTS", "TOPIC_FIRINGS", "TOPIC_RAW"):
        monkeypatch.setattr(f"tocsin.correlate_stage.{name}", f"{name}-{suffix}")
    monkeypatch.setattr("tocsin.correlation_state.TOPIC_FIRINGS", f"TOPIC_FIRINGS-{suffix}")
    monkeypatch.setattr("tocsin.correlate_stage.CORRELATE_GROUP", f"correlate-{suffix}")
    monkeypatch.setattr("tocsin.correlate_stage.DETECT_GROUP", f"detect-{suffix}")
    opened: list[KafkaBus] = []

    def make() -> KafkaBus:
        bus = KafkaBus(
            KafkaSettings(
                bootstrap_servers=(kafka_broker.bootstrap_servers,), partitions=2, request_timeout=5, session_timeout=6
            )
        )
        bus.ensure_topics(
            [f"{name}-{suffix}" for name in ("TOPIC_MATCHES", "TOPIC_ALERTS", "TOPIC_FIRINGS", "TOPIC_RAW")]
        )
        if not opened:
            match_lines(bus, f"TOPIC_RAW-{suffix}", f"detect-{suffix}")
        opened.append(bus)
        return bus

    make.suffix = suffix  # type: ignore[attr-defined]
    yield make
    for bus in opened:
        bus.close()


def test_a_second_worker_takes_over_partitions_with_their_state(kafka: Callable[[], KafkaBus]) -> None:
    suffix = kafka.suffix  # type: ignore[attr-defined]
    bus = kafka()
    records = stream(7, 120)
    half = len(records) // 2
    rules = how(rule_set(*RULES))

    def publish(part: Sequence[Sequence[Match]]) -> None:
        bus.publish([replace(matches_message(record), topic=f"TOPIC_MATCHES-{suffix}") for record in part])

    def work(stages: Sequence[CorrelateStage], done: int) -> None:
        for _ in range(400):
            for stage in stages:
                stage.step(0.05)
            if sum(bus.committed(f"correlate-{suffix}", [f"TOPIC_MATCHES-{suffix}"]).values()) >= done:
                return
        pytest.fail("the workers did not get through")

    publish(records[:half])
    first = CorrelateStage(bus, Tally(), rules, Clock())
    work([first], half)
    second = CorrelateStage(kafka(), Tally(), rules, Clock())
    for _ in range(400):  # until the second has a partition of its own
        first.step(0.05)
        second.step(0.05)
        if len(first._shares) == len(second._shares) == 1:
            break
    publish(records[half:])
    work([first, second], len(records))
    first.close()
    second.close()
    assert {alert.id for alert in alerts_on(bus, f"TOPIC_FIRINGS-{suffix}")} == uninterrupted(records)


def test_only_what_is_needed_is_read_back(bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin.correlation_state.STEP", 4)
    day = 86_400.0
    bus.publish([matches_message(at(number * day)) for number in range(40)])
    (partition, end), *_ = bus.ends([TOPIC_MATCHES]).items()
    found = read_back(bus, partition, end, [BURST], ["rule-a"], timedelta(seconds=12), EPOCH)
    assert found.matches.height == 1
    assert found.records <= 12
    # old logs that are played now: a hospital is read back by its own time
    bus.publish([matches_message([Match("rule-a", 39 * day + n, 900 + n, {"User": "ana"}, "old")]) for n in range(6)])
    (partition, end), *_ = bus.ends([TOPIC_MATCHES]).items()
    found = read_back(bus, partition, end, [BURST], ["rule-a"], timedelta(seconds=70), EPOCH)
    assert found.matches.height == 7


def test_what_was_read_in_one_step_is_not_late_when_it_is_read_back_in_two(
    bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tocsin.correlation_state.STEP", 1)
    monkeypatch.setattr("tocsin.correlation_state.LONGEST_STEP", 1)
    # A catch-up: the hour of one log source before that of the next, further apart than the lateness
    bus.publish([matches_message(at(8)), matches_message(at(1, 2, start=5))])
    rules = how(rule_set(BURST))
    first = CorrelateStage(bus, Tally(), rules, Clock())
    first.step(0.5)
    first.close()
    tally = Tally()
    second = CorrelateStage(bus, tally, rules, Clock())
    bus.publish([matches_message(at(30, start=9))])
    drain(second)
    second.close()
    assert [alert.timestamp for alert in alerts_on(bus) if alert.rule_id == "burst"] == [EPOCH + timedelta(seconds=8)]
    assert tally.passed(Flow.LATE) == 0


def test_a_collector_whose_clock_is_behind_makes_no_match_late() -> None:
    matches = frame_of(at(0))
    (reached,) = matches["timestamp"]
    read = EPOCH + timedelta(seconds=30)  # this process's clock when the match came; the collector's says EPOCH
    (pace,) = paces_of(matches, read).values()
    assert pace.at(read + timedelta(seconds=2)) == reached + timedelta(seconds=2)
    assert pace.at(read - timedelta(seconds=9)) == reached  # time does not go back


def test_records_that_cannot_be_read_do_not_stop_the_way_back(bus: EmbeddedBus) -> None:
    bus.publish(
        [matches_message(at(0, 1)), Message(TOPIC_MATCHES, "brest", b"\x00"), Message(TOPIC_FIRINGS, "x", b"{")]
    )
    rules = how(rule_set(BURST))
    stage = CorrelateStage(bus, Tally(), rules, Clock())
    drain(stage)
    stage.close()
    bus.publish([matches_message(at(2, start=5)), matches_message(at(30, start=9))])
    stage = CorrelateStage(bus, Tally(), rules, Clock())
    drain(stage)
    stage.close()
    assert [alert.timestamp for alert in alerts_on(bus) if alert.rule_id == "burst"] == [EPOCH + timedelta(seconds=2)]


class TestIdle:
    """The clock goes on where no match comes, and no further than what is known to have been matched."""

    def fired(self, bus: EmbeddedBus) -> list[str]:
        return [alert.rule_id for alert in alerts_on(bus) if alert.rule_id in ("burst", "absence")]

    def test_the_last_burst_of_a_night_fires(self, bus: EmbeddedBus) -> None:
        clock = Clock()
        stage = CorrelateStage(bus, Tally(), how(rule_set(BURST, ABSENCE)), clock)
        bus.publish([matches_message(at(0, 1, 2))])
        clock.now = EPOCH + timedelta(seconds=2)
        drain(stage)
        assert self.fired(bus) == []  # within the lateness more could come
        clock.pass_seconds(5)
        drain(stage)
        assert self.fired(bus) == ["burst"]
        clock.pass_seconds(20)
        drain(stage)
        assert self.fired(bus) == ["burst", "absence"]
        stage.close()

    def test_lines_not_matched_yet_hold_it(self, bus: EmbeddedBus) -> None:
        clock = Clock()
        stage = CorrelateStage(bus, Tally(), how(rule_set(BURST)), clock)
        bus.publish([matches_message(at(0, 1, 2))])
        (raw,) = bus.publish([Message(TOPIC_RAW, "brest/x", b"waits")])
        drain(stage)
        clock.pass_seconds(600)
        drain(stage)
        assert self.fired(bus) == []
        detect = bus.subscribe(DETECT_GROUP, [TOPIC_RAW])
        (record,) = detect.poll(1.0)
        detect.commit({record.place: raw.offset + 1})
        detect.close()
        clock.pass_seconds(2)
        drain(stage)
        assert self.fired(bus) == ["burst"]
        stage.close()

    def test_under_steady_load_it_goes_on_all_the_same(self, bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock()
        stage = CorrelateStage(bus, Tally(), how(rule_set(BURST)), clock)
        monkeypatch.setattr(stage._subscription, "lag", lambda: 1)  # there is always one more
        bus.publish([matches_message(at(0, 1, 2))])
        drain(stage)
        for second in range(3, 12):
            clock.now = EPOCH + timedelta(seconds=second)
            bus.publish([matches_message([Match("rule-x", second, 100 + second, {"User": "bob"}, "quimper")])])
            stage.step(0.05)
        assert self.fired(bus) == ["burst"]
        stage.close()

    def test_that_it_stands_still_is_said(self, bus: EmbeddedBus) -> None:
        clock = Clock()
        stage = CorrelateStage(bus, Tally(), how(rule_set(BURST)), clock)
        bus.publish([Message(TOPIC_RAW, "brest/x", b"waits")])
        clock.pass_seconds(2)
        drain(stage)
        clock.pass_seconds(120)
        with structlog.testing.capture_logs() as logs:
            drain(stage)
        assert [entry["waits_for"] for entry in logs if "stands still" in entry["event"]] == ["detect"]
        stage.close()

    def test_old_logs_go_on_in_their_own_time(self, bus: EmbeddedBus) -> None:
        clock = Clock(EPOCH + timedelta(days=60))
        stage = CorrelateStage(bus, Tally(), how(rule_set(BURST)), clock)
        for part in (at(0, 1), at(2, start=7)):  # played today, an hour between the two
            frame = frame_of(part, received=clock.now)
            bus.publish([Message(TOPIC_MATCHES, "brest", encode_frame(frame))])
            drain(stage)
            clock.pass_seconds(1.5)
            drain(stage)
        clock.pass_seconds(10)
        drain(stage)
        assert self.fired(bus) == ["burst"]
        stage.close()


def test_a_correlation_alert_tells_its_story(bus: EmbeddedBus) -> None:
    rule = replace(BURST, generate=True)
    stage = CorrelateStage(bus, Tally(), how(rule_set(rule)), Clock())
    events = [replace(match, host=f"PC-{match.number}") for match in at(0, 1, 2, 40)]
    bus.publish([matches_message(events)])
    drain(stage)
    stage.close()
    (alert,) = [alert for alert in alerts_on(bus) if alert.rule_id == "burst"]
    assert alert.matched == {"User": "ana", "event_count": "3", "timespan": "10s"}
    assert (alert.level, alert.tags, alert.tenant) == (Level.HIGH, ("attack.t1110",), "brest")
    assert (alert.host, alert.event, alert.original) == ("PC-2", {"User": "ana"}, "raw 2")
    assert alert.timestamp == EPOCH + timedelta(seconds=2)
    assert alert.event_ids == tuple(match.event_id for match in events[:3])
    assert [(item.event_id, item.host, item.rule_title) for item in alert.evidence] == [
        (match.event_id, match.host, "rule-a") for match in events[:3]
    ]
    assert decode_alert(encode_alert(alert)) == alert


def test_what_is_counted_is_named() -> None:
    rule = correlation_rule("value_count", fields=("SourceIp",), bounds=(("gte", 2),), span=300, group_by=())
    correlator = Correlator([rule], lateness=LATENESS)
    matches = [Match("rule-a", n, n, {"SourceIp": f"10.0.0.{n % 2}"}) for n in range(3)]
    (fired,) = [*correlator.feed(frame_of(matches)), *correlator.end()]
    assert alert_of_correlation(fired).matched == {
        "value_count(SourceIp)": "2",
        "event_count": "2",
        "timespan": "5m",
    }


def test_a_firing_comes_back_from_its_alert_whatever_the_fields_are_called() -> None:
    rule = correlation_rule(group_by=("event_count", "timespan", "User"))
    correlator = Correlator([rule], lateness=LATENESS)
    fields = {"event_count": "x", "timespan": "y", "User": "Ana"}
    (fired,) = [*correlator.feed(frame_of([Match("rule-a", n, n, fields) for n in range(3)])), *correlator.end()]
    alert = decode_alert(encode_alert(alert_of_correlation(fired)))
    assert firing_of(alert, {rule.id: rule}) == fired.firing
    assert firing_of(alert, {}) is None


def test_evidence_is_bounded_and_names_all_rules_of_an_event() -> None:
    memory = EvidenceMemory(["rule-a", "rule-b"], most=1)
    rule = correlation_rule("temporal", ("rule-a", "rule-b"), bounds=(("gte", 2),))
    both = [Match("rule-a", 0, 1, {"User": "ana"}), Match("rule-b", 0, 1, {"User": "ana"})]
    (fired,) = [*(c := Correlator([rule], lateness=LATENESS)).feed(frame_of(both)), *c.end()]
    memory.add(frame_of([*both, Match("rule-x", 0, 1)]))
    assert memory.of([fired]) == [(Evidence(both[0].event_id, EPOCH, "rule-a, rule-b"),)]
    memory.add(frame_of(at(5, start=50)))  # one byte: only the newest frame stays
    assert memory.of([fired]) == [()]


def test_what_is_not_correlated_is_counted_and_said(bus: EmbeddedBus) -> None:
    clock, tally = Clock(), Tally()
    total = correlation_rule("value_sum", fields=("Bytes",), id="total", bounds=(("gt", 10),))
    stage = CorrelateStage(bus, tally, how(rule_set(BURST, total), max_groups=2), clock)
    users = [Match("rule-a", 100, n, {"User": f"u{n}", "Bytes": "1"}) for n in range(10)]
    bus.publish([matches_message(users)])
    drain(stage)
    bus.publish([matches_message(at(1, user=None, start=70)), matches_message(at(110, user=None, start=80))])
    bus.publish([matches_message(at(120, 140, start=90))])
    drain(stage)
    with structlog.testing.capture_logs() as logs:
        clock.pass_seconds(61)
        drain(stage)
    stage.close()
    said = {(str(entry["event"]), str(entry.get("tenant") or entry.get("rule_id"))) for entry in logs}
    assert {who for what, who in said if "too late" in what} == {"brest"}
    assert {who for what, who in said if "lack the field" in what} == {"burst", "total"}
    assert {who for what, who in said if "lack the number" in what} == {"total"}
    assert {who for what, who in said if "too many groups" in what} == {"burst", "total"}
    assert tally.passed(Flow.LATE) == 1
    assert tally.passed(Flow.UNCORRELATED) >= 3
    assert tally.passed(Flow.FORGOTTEN) > 5


PACK = """
title: Failed logon
id: 7b2d0f0e-52d5-4e0c-9c4c-0d5c5c1f0a01
name: failed_logon
status: test
level: low
logsource: {product: windows, service: security}
detection: {selection: {EventID: 4625}, condition: selection}
---
title: Many failed logons
id: 7b2d0f0e-52d5-4e0c-9c4c-0d5c5c1f0a02
status: test
level: high
correlation:
    type: event_count
    rules: [failed_logon]
    group-by: [TargetUserName]
    timespan: 5m
    condition: {gte: 3}
"""


def test_lines_become_the_alert_of_a_correlation_in_the_store(bus: EmbeddedBus, tmp_path: Path) -> None:
    (tmp_path / "pack.yml").write_text(PACK)
    pack = load_rules([tmp_path / "pack.yml"])
    plan, clock, tally = Plan.build(pack.rules), Clock(), Tally()
    lines = [
        RawLine(
            orjson.dumps(
                {
                    "EventTime": (EPOCH + timedelta(seconds=n)).isoformat(),
                    "Hostname": "DC01",
                    "Channel": "Security",
                    "SourceName": "Microsoft-Windows-Security-Auditing",
                    "EventID": 4625,
                    "TargetUserName": "Ana" if n % 2 else "ana",
                }
            ),
            EPOCH + timedelta(seconds=n),
            "kermor",
            "10.0.0.1",
        )
        for n in range(4)
    ]
    bus.publish([Message(TOPIC_RAW, "kermor/10.0.0.1", encode_lines(lines))])
    detect = DetectStage(bus, Lake(tmp_path / "lake"), plan, tally, Flush(rows=1, bytes=1, seconds=0.0))
    rules = correlation_set(pack, {compiled.rule.id for compiled in plan.rules})
    correlating = CorrelateStage(bus, tally, how(rules), clock)
    store = AlertStore(tmp_path / "alerts.duckdb")
    storing = StoreStage(bus, store, tally)
    while detect.step(0.05):
        pass
    drain(correlating)
    clock.pass_seconds(30)
    drain(correlating)
    while storing.step(0.05):
        pass
    for stage in (detect, correlating, storing):
        stage.close()
    (row,) = store.queue(AlertFilter(), 10, None).items
    store.close()
    assert (row.alert.rule_title, row.alert.host, row.alert.matched["event_count"]) == (
        "Many failed logons",
        "DC01",
        "3",
    )
    assert [piece.rule_title for piece in row.alert.evidence] == ["Failed logon"] * 3
    assert (tally.passed(Flow.SILENCED), tally.passed(Flow.ALERTS), tally.passed(Flow.CORRELATIONS)) == (4, 1, 1)
    assert bus.committed(CORRELATE_GROUP, [TOPIC_MATCHES])

"""The same lines in, the same alerts out, byte for byte: whatever is cut, moved or killed on the way."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shifting_bus import Fuse, Killed, MortalLake, ShiftingBus, Topics

from correlation_matches import EPOCH
from detections.correlation_set import CorrelationSet, correlation_set
from detections.load import load_rules
from detections.plan import Plan
from ingest.bus import TOPIC_ALERTS, TOPIC_FIRINGS, TOPIC_MATCHES, TOPIC_RAW, Bus, Message
from ingest.envelope import EVENT_ID
from ingest.rawbatch import BATCH_ID, BATCH_LINES, RawLine, encode_lines
from storage.alert_codec import decode_alert
from storage.alerts import AlertStore
from storage.lake import Lake
from storage.source_store import SourceStore
from tocsin.correlate_stage import CorrelateStage, Correlating
from tocsin.rewind import Rewind
from tocsin.source_stage import SourceStage
from tocsin.stages import DetectStage, Flush
from tocsin.tally import Tally

PATIENCE = timedelta(days=1)
"""Here workers are away for minutes of the clock of the test."""

LOGON, FAILED, LOGOFF, CREATED = 4624, 4625, 4634, 4720

RULE = """
title: {name}
id: 00000000-0000-4000-8000-00000000{number}
name: {name}
status: test
level: low
logsource: {{product: windows, service: security}}
detection: {{selection: {{EventID: {number}}}, condition: selection}}
"""

CORRELATION = """
title: {name}
id: 10000000-0000-4000-8000-0000000000{number:02}
name: {name}
status: test
level: high
correlation:
    type: {kind}
    rules: [{rules}]
    group-by: [TargetUserName]
    timespan: {span}s
    generate: {generate}
    condition: {condition}
"""

CORRELATIONS = (
    ("burst", "event_count", "failed", 10, "false", "{gte: 3}"),
    ("spread", "value_count", "failed", 20, "false", "{field: IpAddress, gte: 3}"),
    ("total", "value_sum", "failed", 15, "false", "{field: LogonType, gte: 20}"),
    ("mean", "value_avg", "failed", 15, "false", "{field: LogonType, gt: 6}"),
    ("middle", "value_median", "failed", 15, "false", "{field: LogonType, gte: 6}"),
    ("pair", "temporal", "failed, logon", 6, "false", "{gte: 2}"),
    ("chain", "temporal_ordered", "burst, logon", 30, "false", "{gte: 2}"),
    ("absence", "temporal", "logon, logoff", 20, "false", "logon and not logoff"),
    ("few", "event_count", "created", 12, "true", "{eq: 2}"),
)


def rules(folder: Path) -> tuple[Plan, CorrelationSet]:
    names = {"logon": LOGON, "failed": FAILED, "logoff": LOGOFF, "created": CREATED}
    texts = [RULE.format(name=name, number=number) for name, number in names.items()]
    for number, (name, kind, of, span, generate, condition) in enumerate(CORRELATIONS):
        texts.append(
            CORRELATION.format(
                name=name, number=number, kind=kind, rules=of, span=span, generate=generate, condition=condition
            )
        )
    file = folder / "pack.yml"
    file.write_text("---".join(texts))
    pack = load_rules([file])
    assert not pack.refused
    plan = Plan.build(pack.rules)
    found = correlation_set(pack, {compiled.rule.id for compiled in plan.rules})
    assert len(found.rules) == len(CORRELATIONS)
    return plan, found


def lines(seed: int, batches: int) -> list[tuple[float, Message]]:
    """Batches of raw lines in the order of their times, of two hospitals with three senders each."""
    chance = random.Random(seed)  # noqa: S311 - a test
    made, now = [], 0.0
    for number in range(batches):
        now += chance.choice([0.3, 0.5, 1.0, 2.0, 9.0])
        tenant, sender = chance.choice(["brest", "kermor"]), f"192.0.2.{chance.randrange(1, 7)}"
        raw = []
        for _ in range(chance.randrange(1, 5)):
            time = EPOCH + timedelta(seconds=now - chance.choice([0, 0, 0.25, 0.5]))
            event = {
                "EventTime": time.isoformat(),
                "Hostname": f"PC-{sender[-1]}",
                "Channel": "Security",
                "SourceName": "Microsoft-Windows-Security-Auditing",
                "EventID": chance.choice([FAILED, FAILED, FAILED, LOGON, LOGOFF, CREATED]),
                "TargetUserName": chance.choice(["ana", "Ana", "bob"]),
                "IpAddress": f"198.51.100.{chance.randrange(5)}",
                "LogonType": str(chance.randrange(2, 11)),
            }
            raw.append(RawLine(orjson.dumps(event), EPOCH + timedelta(seconds=now), tenant, sender))
        headers = {BATCH_ID: f"run:{number}", BATCH_LINES: str(len(raw))}
        made.append((now, Message(TOPIC_RAW, f"{tenant}/{sender}", encode_lines(raw), headers)))
        if chance.random() < 0.1:  # the collector did not know whether it had arrived
            made.append(made[-1])
    return made


@dataclass
class Clock:
    now: datetime = EPOCH

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Outcome:
    """All that is to be the same."""

    alerts: dict[str, bytes]
    firings: dict[str, bytes]
    events: list[str]
    counted: dict[tuple[str, str], tuple[int, int]]


def outcome(bus: Bus, lake: Lake) -> Outcome:
    return Outcome(by_id(bus, TOPIC_ALERTS), by_id(bus, TOPIC_FIRINGS), event_ids(lake), counted(bus, lake))


def by_id(bus: Bus, topic: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for partition, end in bus.ends([topic]).items():
        for record in bus.read(partition, 0, end):
            alert = decode_alert(record.value)
            assert found.setdefault(alert.id, record.value) == record.value, "one id, and another content"
    return found


def event_ids(lake: Lake) -> list[str]:
    return sorted(event for frame in lake.read() for event in frame.events[EVENT_ID])


def counted(bus: Bus, lake: Lake) -> dict[tuple[str, str], tuple[int, int]]:
    """What the source store makes of the counts: a second reading must not count twice."""
    del lake
    with tempfile.TemporaryDirectory() as folder, AlertStore(Path(folder) / "alerts.duckdb") as store:
        sources = SourceStore(store.database)
        stage = SourceStage(bus, sources, store.position, Tally(), clock=lambda: EPOCH)
        while stage.step(0.01):
            pass
        stage.close()
        return {(row.name.tenant, row.name.address): (row.lines, row.bytes) for row in sources.rows(EPOCH)}


@dataclass
class Worker:
    """A process with one stage; it may die and be started again."""

    make: Callable[[Bus, Fuse], DetectStage | CorrelateStage]
    bus: ShiftingBus
    stage: DetectStage | CorrelateStage | None = None
    deaths: int = 0

    def step(self) -> int:
        try:
            if self.stage is None:
                self.stage = self.make(self.bus, self.bus.fuse)
            return self.stage.step(0.0)
        except Killed:
            self.die()
            return 1

    def die(self) -> None:
        """Nothing is closed; the group notices."""
        self.deaths += 1
        self.bus.fuse.left = 0
        for members in self.bus.broker.members.values():
            for member in [member for member in members if member.fuse is self.bus.fuse]:
                member.close()
        self.stage = None


@dataclass
class Region:
    """Everything between the raw topic and the alerts."""

    folder: Path
    plan: Plan
    correlations: CorrelationSet
    chance: random.Random
    partitions: int = 3
    clock: Clock = field(default_factory=Clock)
    rewind: Rewind | None = None

    def __post_init__(self) -> None:
        self.broker = Topics(self.partitions)
        self.bus = ShiftingBus(self.broker)
        self.lake = Lake(self.folder / "lake")

    def detect(self, bus: Bus, fuse: Fuse) -> DetectStage:
        flush = Flush(rows=self.chance.choice([1, 20, 60]), bytes=1 << 30, seconds=1e9)
        lake = cast("Lake", MortalLake(self.lake, fuse))
        return DetectStage(bus, lake, self.plan, Tally(), flush, rewind=self.rewind)

    def correlate(self, bus: Bus, _fuse: Fuse) -> CorrelateStage:
        how = Correlating(self.correlations, lateness=timedelta(seconds=2), idle=timedelta(), patience=PATIENCE)
        return CorrelateStage(bus, Tally(), how, self.clock)

    def workers(self, make: Callable[[Bus, Fuse], DetectStage | CorrelateStage], count: int) -> list[Worker]:
        return [Worker(make, ShiftingBus(self.broker, Fuse(), self.chance)) for _ in range(count)]

    def finish(self, detect: Sequence[Worker], correlate: Sequence[Worker]) -> Outcome:
        """Let all that is there come through, then the clock close what is open."""
        for workers in (detect, self.workers(self.detect, 1)):  # as each leaves, others get what it did not commit
            self.through(workers)
            for worker in workers:
                if worker.stage is not None:
                    worker.stage.close()
        self.through(correlate)
        for _ in range(2):  # what fired at a close may open another window
            self.clock.now += timedelta(seconds=100)
            self.through(correlate)
        for worker in correlate:
            if worker.stage is not None:
                worker.stage.close()
        return outcome(self.bus, self.lake)

    def through(self, workers: Sequence[Worker]) -> None:
        for _ in range(2):
            while sum(worker.step() for worker in workers):  # each of them, whatever the others read
                pass


def uninterrupted(folder: Path, plan: Plan, correlations: CorrelationSet, batches: Sequence[Message]) -> Outcome:
    folder.mkdir(exist_ok=True)
    region = Region(folder, plan, correlations, random.Random(0))  # noqa: S311 - a test
    region.bus.publish(batches)
    return region.finish(region.workers(region.detect, 1), region.workers(region.correlate, 1))


def interrupted(
    folder: Path,
    plan: Plan,
    correlations: CorrelationSet,
    batches: Sequence[tuple[float, Message]],
    chance: random.Random,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Outcome, int]:
    folder.mkdir(exist_ok=True)
    region = Region(folder, plan, correlations, chance)
    detect = region.workers(region.detect, chance.randrange(1, 4))
    correlate = region.workers(region.correlate, chance.randrange(1, 3))
    waiting = list(batches)
    while waiting:
        for time, message in waiting[: chance.randrange(1, 12)]:
            region.bus.publish([message])
            region.clock.now = max(region.clock.now, EPOCH + timedelta(seconds=time))
            waiting.pop(0)
        for _ in range(chance.randrange(1, 10)):
            monkeypatch.setattr("tocsin.stages.RECORDS_A_STEP", chance.choice([1, 2, 5, 64]))
            monkeypatch.setattr("tocsin.correlate_stage.RECORDS_A_STEP", chance.choice([1, 3, 64]))
            worker = chance.choice([*detect, *correlate])
            act = chance.random()
            if act < 0.15:
                region.broker.share_out(chance.choice(list(region.broker.members) or [""]), chance.randrange(3))
            elif act < 0.25:
                sleep(worker)
            elif act < 0.5:
                worker.bus.fuse.left = chance.randrange(1, 9)
            worker.step()
    for worker in [*detect, *correlate]:
        worker.bus.fuse.left = 0
        wake(worker)
    return region.finish(detect, correlate), sum(worker.deaths for worker in [*detect, *correlate])


def sleep(worker: Worker) -> None:
    """The process is stopped beyond its session: others get its partitions. It wakes where it was; or it wakes now."""
    for members in worker.bus.broker.members.values():
        for member in members:
            if member.fuse is worker.bus.fuse and (member.asleep or len([m for m in members if not m.asleep]) > 1):
                member.asleep = not member.asleep
                worker.bus.broker.share_out(member.group)


def wake(worker: Worker) -> None:
    for members in worker.bus.broker.members.values():
        for member in members:
            if member.fuse is worker.bus.fuse and member.asleep:
                member.asleep = False
                worker.bus.broker.share_out(member.group)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, CorrelationSet]:
    return rules(tmp_path_factory.mktemp("rules"))


def compare(found: Outcome, expected: Outcome) -> None:
    for topic in ("firings", "alerts"):
        mine, theirs = getattr(found, topic), getattr(expected, topic)
        assert titles(mine, theirs) == titles(theirs, mine) == {}
        assert mine == theirs
    assert found.events == expected.events
    assert found.counted == expected.counted


def titles(some: dict[str, bytes], others: dict[str, bytes]) -> Counter[str]:
    """What some have that the others have not."""
    return Counter(decode_alert(some[own]).rule_title for own in some.keys() - others.keys())


@given(seed=st.integers(0, 1 << 30))
@example(seed=30)  # a start between two cuts
@example(seed=17)  # a commit that was dropped
@example(seed=26)  # a partition that came back
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_run_ends_as_one_that_nothing_interrupts(pack: tuple[Plan, CorrelationSet], seed: int) -> None:
    batches = lines(seed, 60)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        expected = uninterrupted(Path(folder) / "one", *pack, [message for _, message in batches])
        chance = random.Random(seed)  # noqa: S311 - a test
        found, _ = interrupted(Path(folder) / "other", *pack, batches, chance, monkeypatch)
    compare(found, expected)
    assert len(expected.events) == len(set(expected.events))


def test_a_lake_filled_again_from_the_beginning_changes_nothing_else(
    pack: tuple[Plan, CorrelationSet], tmp_path: Path
) -> None:
    region = Region(tmp_path, *pack, random.Random(0))  # noqa: S311 - a test
    region.bus.publish([message for _, message in lines(5, 60)])
    before = region.finish(region.workers(region.detect, 1), region.workers(region.correlate, 1))
    correlate = region.workers(region.correlate, 2)
    region.through(correlate)  # with the state that it reads back
    region.lake = Lake(tmp_path / "new")
    region.rewind = Rewind()
    raw = {place: len(log) for place, log in region.broker.logs.items()}
    after = region.finish(region.workers(region.detect, 2), correlate)
    assert sum(len(region.broker.logs[place]) > end for place, end in raw.items() if place.topic == TOPIC_MATCHES)
    compare(after, before)


def test_the_runs_hold_what_they_are_to_prove(pack: tuple[Plan, CorrelationSet], tmp_path: Path) -> None:
    batches = lines(1, 60)
    expected = uninterrupted(tmp_path / "one", *pack, [message for _, message in batches])
    fired = {decode_alert(value).rule_title for value in expected.firings.values()}
    assert fired == {name for name, *_ in CORRELATIONS}
    assert {decode_alert(value).rule_title for value in expected.alerts.values()} >= {"created", "chain", "absence"}
    with pytest.MonkeyPatch.context() as monkeypatch:
        deaths = sum(
            interrupted(tmp_path / f"x{seed}", *pack, batches, random.Random(seed), monkeypatch)[1]  # noqa: S311
            for seed in range(2)
        )
    assert deaths > 4

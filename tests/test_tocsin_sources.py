"""From raw records to silences: counts through crashes, alerts on who fell silent, and what `tocsin sources` says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest
from click.testing import CliRunner
from silence_rhythms import MONDAY, moment

from console.app import create_app
from console.serve import serve
from console.settings import ConsoleSettings
from console.source_view import SourceBook
from detections.load import load_rules
from detections.plan import Plan
from ingest.bus import (
    TOPIC_ALERTS,
    TOPIC_QUARANTINE,
    TOPIC_RAW,
    TOPIC_SOURCES,
    TOPICS,
    BusError,
    Message,
    Partition,
    Position,
)
from ingest.bus_embedded import EmbeddedBus
from ingest.collector_report import ChannelCount, CollectorReport, ListenerCount
from ingest.hospital import ExpectedSource, Hospital, Hospitals
from ingest.rawbatch import BATCH_LINES, RawLine, encode_lines
from ingest.source_counts import COUNTS_SCHEMA
from storage.alert import Level, Status
from storage.alert_codec import decode_alert
from storage.alert_queue import AlertFilter, AlertRow
from storage.alerts import AlertStore
from storage.lake import Lake
from storage.source import Scope
from storage.source_store import SourceStore
from tocsin.audit import Audit
from tocsin.cli import tocsin
from tocsin.silence import RULES
from tocsin.silence_watch import MOST_OPEN, SilenceWatch
from tocsin.source_stage import SourceStage
from tocsin.stages import DETECT_GROUP, DetectStage, Flush, StoreStage
from tocsin.tally import Flow, Tally

WEEK = 168
NOW = moment((MONDAY + 4 * WEEK + 24 + 9) * 60)  # a Tuesday, at eleven in Paris
HOSPITALS = Hospitals.of(
    [
        Hospital("chu-brest", "CHU de Brest", sources=(ExpectedSource("pare-feu", address="192.0.2.1"),)),
        Hospital("ch-morlaix", "CH de Morlaix"),
    ]
)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[EmbeddedBus]:
    opened = EmbeddedBus(tmp_path / "bus.sqlite")
    opened.ensure_topics(TOPICS)
    yield opened
    opened.close()


@pytest.fixture
def alerts(tmp_path: Path) -> Iterator[AlertStore]:
    with AlertStore(tmp_path / "alerts.duckdb") as opened:
        yield opened


@pytest.fixture
def store(alerts: AlertStore) -> SourceStore:
    return SourceStore(alerts.database)


# Counts, through the stages


def batch(first: int, lines: int, host: str = "srv") -> Message:
    text = f"<38>1 2026-03-09T12:00:00Z {host} sshd 1 - - line".encode()
    raw = [RawLine(text + b" %d" % (first + at), datetime.now(UTC), "chu-brest", "192.0.2.1") for at in range(lines)]
    return Message(TOPIC_RAW, "chu-brest/192.0.2.1", encode_lines(raw), {BATCH_LINES: str(lines)})


@dataclass
class Dying:
    """A bus that dies at chosen publishes of counts, after or before they were durable."""

    bus: EmbeddedBus
    random: Random = field(default_factory=lambda: Random(3))  # noqa: S311 - not for secrets
    deaths: int = 0

    def publish(self, messages: Sequence[Message]) -> list[Position]:
        counts = any(message.topic == TOPIC_SOURCES for message in messages)
        dies = counts and self.random.random() < 0.6
        before = self.random.random() < 0.5
        if dies and before:
            self.deaths += 1
            raise BusError("dies before")
        positions = self.bus.publish(messages)
        if dies:
            self.deaths += 1
            raise BusError("dies after")
        return positions

    def __getattr__(self, name: str) -> object:
        return getattr(self.bus, name)


def read_sources(bus: EmbeddedBus, store: SourceStore, alerts: AlertStore, tally: Tally | None = None) -> None:
    stage = SourceStage(bus, store, alerts.position, tally or Tally())
    while stage.step(0.05):
        pass
    stage.close()


def test_counts_are_exact_though_detect_dies_between_publish_and_commit(
    bus: EmbeddedBus, store: SourceStore, alerts: AlertStore, tmp_path: Path
) -> None:
    random = Random(5)  # noqa: S311 - not for secrets
    sizes = [random.randrange(1, 30) for _ in range(300)]
    bus.publish([batch(at * 100, size, f"srv-{at % 3}") for at, size in enumerate(sizes)])
    bus.publish([Message(TOPIC_RAW, "chu-brest/192.0.2.1", b"rubbish", {BATCH_LINES: "9"})])
    dying = Dying(bus)
    plan = Plan.build(load_rules([]).rules)
    while True:
        flush = Flush(rows=random.randrange(1, 200), bytes=1 << 30, seconds=1e9)
        stage = DetectStage(dying, Lake(tmp_path / "lake"), plan, Tally(), flush)  # type: ignore[arg-type]
        try:
            while stage.step(0.05):
                pass
            stage.close()
        except BusError:
            stage._subscription.close()
            continue
        break
    assert dying.deaths > 1
    for _ in range(2):
        read_sources(bus, store, alerts)
    rows = store.rows(datetime.now(UTC))
    assert sum(row.lines for row in rows) == sum(sizes) == Lake(tmp_path / "lake").count()
    assert {row.name.host: row.lines for row in rows} == {f"srv-{n}": sum(sizes[n::3]) for n in range(3)}
    balance = store.balances(datetime.now(UTC))["chu-brest"]
    assert (balance.stored, balance.quarantined) == (sum(sizes), 9)


def test_what_cannot_be_read_is_set_aside(bus: EmbeddedBus, store: SourceStore, alerts: AlertStore) -> None:
    bus.publish([Message(TOPIC_SOURCES, "collector/x", b"{"), Message(TOPIC_SOURCES, "tocsin.raw/0", b"rubbish")])
    bus.publish([CollectorReport("a", NOW, channels=(ChannelCount("", "chu-brest", "192.0.2.1", 5),)).message()])
    tally = Tally()
    read_sources(bus, store, alerts, tally)
    assert tally.passed(Flow.QUARANTINED) == 2
    assert bus.ends([TOPIC_QUARANTINE])[Partition(TOPIC_QUARANTINE, 0)] == 2
    assert store.balances(NOW)["chu-brest"].received == 5


# Silences


@dataclass
class Region:
    """Hospitals whose past is written into the store at once, and a clock that is turned by hand."""

    bus: EmbeddedBus
    store: SourceStore
    alerts: AlertStore
    now: datetime = NOW
    offset: int = 0

    def __post_init__(self) -> None:
        self.audit = Audit(self.bus, self.store)
        self.intake = StoreStage(self.bus, self.alerts, Tally())
        self.watch = self.new_watch()

    def new_watch(self) -> SilenceWatch:
        day, short = timedelta(hours=24), timedelta(minutes=5)
        return SilenceWatch(self.bus, self.store, self.alerts, lambda: HOSPITALS, shortest=short, never_seen=day)

    def heard(self, names: Sequence[tuple[str, str, str]], last: datetime, *, weeks: int = 4) -> None:
        """Sources (hospital, address, host) that spoke every minute until `last`."""
        rows: list[dict[str, object]] = []
        end = int(last.timestamp() // 3600)
        for tenant, address, host in names:
            for hour in range(end - weeks * WEEK, end + 1):
                at = datetime.fromtimestamp(hour * 3600, UTC)
                bits = (1 << 60) - 1 if hour < end else (2 << last.minute) - 1
                rows.append(self.row(tenant, address, host, at, min(last, at + timedelta(minutes=59)), bits))
        self.store.record([pl.DataFrame(rows, schema=COUNTS_SCHEMA)], [], {}, self.now)

    def row(
        self, tenant: str, address: str, host: str, hour: datetime, received: datetime, minutes: int
    ) -> dict[str, object]:
        self.offset += 1
        numbers = dict.fromkeys(("marked", "again", "quarantined", "dated"), 0)
        return {
            "partition": 0,
            "offset": self.offset,
            "run": "a",
            "tenant": tenant,
            "address": address,
            "host": host,
            "family": "linux",
            "hour": hour,
            "lines": 60,
            "understood": 60,
            "bytes": 6000,
            "minutes": minutes,
            "last_received": received,
            "first_event": received,
            "last_event": received,
            **numbers,
        }

    def speaks(self, *names: tuple[str, str, str]) -> None:
        hour = self.now.replace(minute=0, second=0, microsecond=0)
        rows = [self.row(*name, hour, self.now, 1 << self.now.minute) for name in names]
        self.store.record([pl.DataFrame(rows, schema=COUNTS_SCHEMA)], [], {}, self.now)

    def passes(self, minutes: int, *speaking: tuple[str, str, str], collector: bool = True) -> None:
        """Time goes on, in minutes."""
        for _ in range(minutes):
            self.now += timedelta(minutes=1)
            if speaking:
                self.speaks(*speaking)
            if collector:
                report = CollectorReport("a", self.now, listeners=(ListenerCount("tls"),))
                self.store.record([], [report], {}, self.now)
            self.read()
            self.watch.look(self.now)
            self.read()

    def read(self) -> None:
        """What `SourceStage` and `StoreStage` do beside: the looks at the books, and the intake of alerts."""
        for _ in range(2):
            self.audit.look(self.now)
        while self.intake.step(0.0):
            pass

    def raised(self) -> list[AlertRow]:
        return self.alerts.queue(AlertFilter(), 500, None).items

    def scopes(self) -> list[tuple[Scope, str]]:
        of = {rule.id: scope for scope, rule in RULES.items()}
        return sorted((of[row.alert.rule_id], row.alert.tenant) for row in self.raised())


A, B, C = (("chu-brest", "192.0.2.1", "fw"), ("chu-brest", "192.0.2.2", "ad"), ("ch-morlaix", "192.0.2.3", "ad"))


@pytest.fixture
def region(bus: EmbeddedBus, store: SourceStore, alerts: AlertStore) -> Region:
    found = Region(bus, store, alerts)
    found.heard([A, B, C], NOW)
    return found


def test_who_speaks_raises_nothing(region: Region) -> None:
    region.passes(30, A, B, C)
    assert region.raised() == []


def test_a_source_that_falls_silent_is_one_alert_with_its_evidence(region: Region) -> None:
    region.passes(5, A, B, C)
    last = region.now
    region.passes(30, B, C)
    (row,) = region.raised()
    alert = row.alert
    assert (alert.rule_id, alert.level, alert.tenant) == (RULES[Scope.SOURCE].id, Level.MEDIUM, "chu-brest")
    usual = {"usual lines a minute": "1"}
    assert alert.matched == {"last line": last.isoformat(timespec="seconds"), "source": "pare-feu", **usual}
    assert (alert.host, alert.source_ip) == ("pare-feu", "192.0.2.1")
    assert alert.event["judged by"] == "empty minutes"
    assert alert.timestamp - last <= timedelta(minutes=6)


def test_when_it_is_back_the_journal_says_so_and_the_alert_stays(region: Region) -> None:
    region.passes(15, B, C)
    (row,) = region.raised()
    region.alerts.decide(row.alert.id, Status.IN_PROGRESS, "j'appelle", "camille")
    region.passes(1, A, B, C)
    (row,) = region.raised()
    assert row.status is Status.IN_PROGRESS
    assert [entry.author for entry in region.alerts.journal(row.alert.id)] == ["camille", "tocsin"]
    assert "De retour" in region.alerts.journal(row.alert.id)[-1].note
    region.passes(15, B, C)
    assert len(region.raised()) == 2, "the next silence is another alert"


def test_a_hospital_that_falls_silent_is_one_alert(region: Region) -> None:
    region.passes(40, C)
    assert region.scopes() == [(Scope.HOSPITAL, "chu-brest")]
    assert region.raised()[0].alert.level is Level.HIGH


def test_all_behind_one_sender_are_one_alert(region: Region) -> None:
    relay = [("chu-brest", "192.0.2.9", f"srv-{number}") for number in range(5)]
    region.heard(relay, region.now)
    region.passes(40, A, B, C)
    assert region.scopes() == [(Scope.ADDRESS, "chu-brest")]
    assert region.raised()[0].alert.source_ip == "192.0.2.9"


def test_many_silences_end_in_one_that_says_so(region: Region) -> None:
    single = [("chu-brest", f"198.51.100.{number}", "srv") for number in range(MOST_OPEN + 10)]
    region.heard(single, region.now, weeks=1)
    region.passes(60, A, B, C)
    scopes = [scope for scope, _ in region.scopes()]
    assert (scopes.count(Scope.SOURCE), scopes.count(Scope.MANY)) == (MOST_OPEN, 1)


def test_a_collector_that_is_gone_is_our_silence_and_nobody_elses(region: Region) -> None:
    region.passes(5, A, B, C)
    region.passes(120, collector=False)
    assert region.scopes() == [(Scope.PLATFORM, "tocsin")]
    assert region.raised()[0].alert.event["stage"] == "collect"
    region.passes(4, A, B, C)
    assert len(region.raised()) == 1, "what was missed meanwhile is nobody's silence"
    assert "De retour" in region.alerts.journal(region.raised()[0].alert.id)[-1].note
    region.passes(20, A, B)
    assert region.scopes() == sorted([(Scope.PLATFORM, "tocsin"), (Scope.HOSPITAL, "ch-morlaix")])


def test_what_is_not_read_is_nobodys_silence(region: Region) -> None:
    region.passes(5, A, B, C)
    region.bus.publish([Message(TOPIC_RAW, "chu-brest/192.0.2.1", b"x")] * 5)
    region.passes(60)
    assert region.scopes() == [(Scope.PLATFORM, "tocsin")]
    assert region.raised()[0].alert.event["stage"] == "detect"
    subscription = region.bus.subscribe(DETECT_GROUP, [TOPIC_RAW])
    subscription.poll(0.1)
    subscription.commit({Partition(TOPIC_RAW, 0): 5})
    subscription.close()
    region.passes(2, A, B, C)
    assert len(region.raised()) == 1
    assert region.store.silences() == []


def test_a_detect_that_catches_up_is_nobodys_silence(region: Region) -> None:
    """It commits all the time, and what it has yet to read is what the sources said meanwhile."""
    region.passes(5, A, B, C)
    region.bus.publish([Message(TOPIC_RAW, "chu-brest/192.0.2.1", b"x")] * 100)
    subscription = region.bus.subscribe(DETECT_GROUP, [TOPIC_RAW])
    subscription.poll(0.1)
    for minute in range(40):
        subscription.commit({Partition(TOPIC_RAW, 0): minute + 1})
        if minute == 20:  # the console is started anew meanwhile
            region.watch, region.audit = region.new_watch(), Audit(region.bus, region.store)
        region.passes(1)
    assert region.scopes() == []
    subscription.commit({Partition(TOPIC_RAW, 0): 100})
    region.passes(3, A, B, C)
    assert region.scopes() == []
    region.passes(12, A, B)
    assert region.scopes() == [(Scope.HOSPITAL, "ch-morlaix")]
    subscription.close()


def test_what_waits_on_a_collectors_disk_is_nobodys_silence(region: Region) -> None:
    region.passes(5, A, B, C)
    spooled = region.now
    for _ in range(40):
        region.passes(1, collector=False)
        waiting = CollectorReport(
            "a", region.now, listeners=(ListenerCount("tls"),), spool_bytes=1, spool_oldest=spooled
        )
        region.store.record([], [waiting], {}, region.now)
    assert {scope for scope, _ in region.scopes()} <= {Scope.PLATFORM}


def test_alerts_of_silences_are_on_the_bus(region: Region) -> None:
    """So a store that is built anew from it has them."""
    region.passes(15, B, C)
    place = Partition(TOPIC_ALERTS, 0)
    records = region.bus.read(place, 0, region.bus.ends([TOPIC_ALERTS])[place])
    assert [decode_alert(record.value) for record in records] == [row.alert for row in region.raised()]
    assert len(records) == 1


def test_a_watch_that_starts_anew_raises_nothing_twice(region: Region) -> None:
    region.passes(15, B, C)
    region.watch = region.new_watch()
    region.passes(15, B, C)
    assert len(region.raised()) == 1


def test_an_expected_source_that_never_sent(bus: EmbeddedBus, store: SourceStore, alerts: AlertStore) -> None:
    region = Region(bus, store, alerts)
    region.heard([B], NOW)
    region.passes(10, B)
    assert region.raised() == []
    region.now += timedelta(hours=25)
    region.watch = region.new_watch()
    region.passes(1, B)
    assert region.scopes() == [(Scope.EXPECTED, "chu-brest")]
    assert region.raised()[0].alert.matched["expected"] == "pare-feu"
    region.passes(6, A, B)
    assert region.store.silences() == []


# What people see


@pytest.fixture
def told(region: Region) -> Iterator[Mapping[str, str]]:
    """A region in which a source is silent, with a console; the settings that lead there."""
    now = datetime.now(UTC)
    channel = ChannelCount("", "ch-morlaix", "192.0.2.3", region.offset * 60 + 7, 1)
    region.store.record([], [CollectorReport("a", now - timedelta(minutes=8), channels=(channel,))], {}, now)
    region.now = now
    region.passes(1, C)
    book = SourceBook(region.store, lambda: HOSPITALS, lambda: 0)
    with serve(create_app(region.alerts, settings=ConsoleSettings(), sources=book), port=0) as served:
        folder = region.bus.path.parent
        yield {
            "TOCSIN_DATA_DIR": str(folder),
            "TOCSIN_CONSOLE__PORT": served.url.rsplit(":", 1)[1],
            "TOCSIN_ALERTS__PATH": str(folder / "alerts.duckdb"),
        }


def run(environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    result = CliRunner(env=dict(environment)).invoke(tocsin, ["sources", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_console_is_asked_and_answers(told: Mapping[str, str]) -> None:
    code, text = run(told)
    assert code == 0
    assert "CHU de Brest (chu-brest)" in text
    assert "pare-feu fw linux 192.0.2.1" in text
    code, text = run(told, "--json", "--hospital", "ch-morlaix")
    answer = json.loads(text)
    assert [found["hospital"] for found in answer["hospitals"]] == ["ch-morlaix"]
    assert [source["host"] for source in answer["hospitals"][0]["sources"]] == ["ad"]


def test_the_file_is_read_where_no_console_answers(told: Mapping[str, str], alerts: AlertStore) -> None:
    away = {**told, "TOCSIN_CONSOLE__PORT": "9"}
    alerts.close()
    code, text = run(away)
    assert code == 0
    assert "ad linux 192.0.2.3" in text
    with AlertStore(Path(told["TOCSIN_ALERTS__PATH"])) as held:
        old = CollectorReport("a", datetime.now(UTC) + timedelta(days=1))
        SourceStore(held.database).record([], [old], {}, datetime.now(UTC))
    assert "No console answers" not in run(away)[1]
    with AlertStore(Path(told["TOCSIN_ALERTS__PATH"])) as held, held.database.transaction("age") as connection:
        connection.execute("UPDATE collector_runs SET reported = reported - INTERVAL 3 DAY")
    code, text = run(away, "--check", "--hospital", "ch-morlaix")
    assert (code, "No console answers" in text) == (1, True)


def test_without_console_and_file_the_reason_is_said(tmp_path: Path) -> None:
    from tocsin.settings import SettingsError

    with pytest.raises(SettingsError, match="no console has run here yet"):
        run({"TOCSIN_DATA_DIR": str(tmp_path), "TOCSIN_CONSOLE__PORT": "9"})


def test_a_hospital_that_nobody_knows_is_said(told: Mapping[str, str]) -> None:
    from tocsin.settings import SettingsError

    with pytest.raises(SettingsError, match="nothing is known of this hospital"):
        run(told, "--hospital", "nowhere")


def test_check_fails_where_lines_are_missing(store: SourceStore, told: Mapping[str, str]) -> None:
    assert run(told, "--check", "--hospital", "ch-morlaix")[0] == 0
    now = datetime.now(UTC)
    lost = ChannelCount("", "ch-morlaix", "192.0.2.3", 10**9, 1, 10**9)
    then = now - timedelta(minutes=20)
    store.record([], [CollectorReport("b", then, final=True, channels=(lost,))], {}, then)
    store.begin_mark({0: 10**6}, now)
    code, text = run(told, "--check", "--hospital", "ch-morlaix")
    assert (code, "the last lines are on their way" in text or "wait for more" in text) == (0, True), "not all is read"
    store.end_mark(now)
    code, text = run(told, "--check", "--hospital", "ch-morlaix")
    assert code == 1
    assert "+ 1,000,000,000 missing: LINES ARE MISSING" in text


def test_a_hostile_host_cannot_write_to_the_terminal(told: Mapping[str, str], region: Region) -> None:
    region.speaks(("chu-brest", "192.0.2.8", "\x1b[2Jowned\u202e"))
    text = run(told)[1]
    assert "owned" in text
    assert "\x1b" not in text
    assert "\u202e" not in text

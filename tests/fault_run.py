"""One fault run, from nothing to its report: region, senders, faults at random, the drain, and the verdict."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson
from fault_plan import plan, strike_all

from fault_check import Findings, check_alerts, check_lines, check_plain, check_quarantine, lake_at
from fault_kinds import Strike
from fault_lines import Script
from fault_region import MAINTENANCE, Layout, Region, Sample
from fault_report import Report, Told
from fault_senders import PlainSender, RelpSender, wait_until
from ingest.bus import TOPIC_ALERTS, TOPIC_MATCHES, TOPIC_RAW, TOPIC_SOURCES, Bus, BusError
from storage.alerts import AlertStore
from storage.errors import StorageError

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

READERS: Final = {
    "detect": ("tocsin-detect", TOPIC_RAW),
    "correlate": ("tocsin-correlate", TOPIC_MATCHES),
    "console": ("tocsin-console", TOPIC_ALERTS),
    "sources": ("tocsin-sources", TOPIC_SOURCES),
}
"""Who reads what in which group."""

WINDOWS: Final = (1000, 300, 128, 700, 500, 64)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run is to be.

    Attributes:
        seed: Names the plan of faults.
        faults: How many.
        lines: At least so many are sent.
        seconds: Over which the faults are spread.
        senders: RELP senders, each of a hospital of its own.
        pace: Lines a second of all of them together, at most.
        layout: Which processes.
        longest: Seconds that a fault may last.
        aways: How often the broker is away for one to two minutes.
        drain: Most seconds until nothing waits, at the end.
        quiet: Seconds without anything new after which nothing more will come: the longest absence that a correlation
            waits for, and lateness, which go on by the clock at the end, and some more.
        settings: Lines of TOML for all processes, by section.
        closing: Lines at each sender's end that let event time pass; none: the clock does.
    """

    seed: int
    faults: int
    lines: int
    seconds: float
    senders: int = 6
    pace: float = 6000.0
    layout: Layout = field(default_factory=Layout)
    longest: float = 20.0
    aways: int = 0
    drain: float = 600.0
    quiet: float = 25.0
    settings: Mapping[str, str] = field(default_factory=dict)
    closing: int = 0


class Analyst(threading.Thread):
    """Decides on alerts over the console's API, now and then; remembers what was accepted."""

    def __init__(self, port: int, chance: random.Random) -> None:
        super().__init__(name="analyst", daemon=True)
        self.accepted: list[tuple[str, str]] = []
        self.finishing = threading.Event()
        self._port, self._chance = port, chance

    def run(self) -> None:
        while not self.finishing.wait(1.0):
            with suppress(OSError, http.client.HTTPException, orjson.JSONDecodeError):
                self._decide()

    def _decide(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)) as connection:
            connection.request("GET", "/api/alerts?limit=20")
            items = orjson.loads(connection.getresponse().read()).get("items") or []
            if not items:
                return
            alert = self._chance.choice(items)["id"]
            note = f"decision {len(self.accepted)} {self._chance.random()}"
            body = orjson.dumps({"status": self._chance.choice(["in_progress", "true_positive"]), "note": note})
            path = f"/api/alerts/{alert}/decisions"
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            if connection.getresponse().status == http.HTTPStatus.CREATED:
                self.accepted.append((alert, note))


class Sampler(threading.Thread):
    """Looks at the run every two seconds."""

    def __init__(self, region: Region, senders: list[RelpSender]) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: list[Sample] = []
        self.finishing = threading.Event()
        self._region, self._senders = region, senders

    def run(self) -> None:
        with closing(self._region.open_bus()) as bus:
            while not self.finishing.wait(2.0):
                acknowledged = sum(sender.acknowledged for sender in self._senders)
                sample = Sample(round(time.monotonic() - self._region.begun, 1), acknowledged)
                with suppress(BusError):
                    sample.lag |= lags(bus)
                self.samples.append(sample)


def lags(bus: Bus) -> dict[str, int]:
    """Reader -> records that it has yet to read."""
    found: dict[str, int] = {}
    for reader, (group, topic) in READERS.items():
        committed = bus.committed(group, [topic])
        found[reader] = sum(max(0, end - committed.get(place, 0)) for place, end in bus.ends([topic]).items())
    return found


def run(folder: Path, what: Run, broker_type: type[KafkaBroker] | None, say: Callable[[str], None] = print) -> Report:
    """Run it.

    Args:
        folder: For everything; not there yet.
        what: The run.
        broker_type: Makes the broker; None for the embedded bus.
        say: Told how far it has come.

    Raises:
        AssertionError: It did not come to its end; the data stay in the folder.
    """
    chance = random.Random(what.seed)  # noqa: S311 - faults, no secrets
    beginning = datetime.now(UTC) - timedelta(days=2)
    scripts = [Script(number, beginning) for number in range(1, what.senders + 1)]
    region = Region(folder, what.layout, [script.hospital for script in scripts], broker_type, what.settings)
    pool = ThreadPoolExecutor(8)
    whole = False
    try:
        pool.submit(region.open).result()
        report = _run(region, what, scripts, chance, pool, say)
        whole = not report.findings.problems
        return report
    finally:
        region.close(keep=not whole)
        pool.shutdown()
        if not whole:
            say(f"seed {what.seed}: all data of the run are in {folder}")


def _run(
    region: Region,
    what: Run,
    scripts: list[Script],
    chance: random.Random,
    pool: ThreadPoolExecutor,
    say: Callable[[str], None],
) -> Report:
    senders = [
        RelpSender(
            script,
            f"127.0.1.{place + 1}",
            region.ports[script.hospital],
            what.pace / what.senders,
            WINDOWS[place % len(WINDOWS)],
            what.closing,
        )
        for place, script in enumerate(scripts)
    ]
    plain = [
        PlainSender("tcp", Script(91, scripts[0].beginning), "127.0.2.1", region.tcp_port, 40),
        PlainSender("udp", Script(92, scripts[0].beginning), "127.0.2.2", region.udp_port, 40),
    ]
    analyst = Analyst(region.console_port, random.Random(chance.random()))  # noqa: S311
    sampler = Sampler(region, senders)
    for sender in senders:
        sender.start()
    begins = wait_until(lambda: all(sender.acknowledged for sender in senders), 120)
    assert begins, f"nothing begins: {region.log_of('collect-0')[-2000:]}"
    for one in (*plain, analyst, sampler):
        one.start()
    say(f"seed {what.seed}: begun after {time.monotonic() - region.begun:.0f} s")
    down = region.down_seconds["collect-0"]
    strike = Strike(region)
    begun = time.monotonic()
    faults = plan(region, what.seed, what.faults, what.longest, what.aways)
    struck = strike_all(strike, faults, what.seconds, pool)
    took = time.monotonic() - begun
    say(f"{len(struck)} faults in {took:.0f} s, {sum(sender.lines for sender in senders):,} lines begun")
    wait_until(lambda: sum(sender.lines for sender in senders) >= what.lines, 3600)
    endings = [*(one.finishing for one in senders), *(one.finishing for one in plain), analyst.finishing]
    for ending in endings:
        ending.set()
    sent = time.monotonic()
    done = wait_until(lambda: all(sender.is_through() for sender in senders), what.drain)
    acknowledged = sum(sender.acknowledged for sender in senders)
    seconds = time.monotonic() - begun
    say(f"{acknowledged:,} lines acknowledged in {seconds:.0f} s")
    found = Findings()
    for sender in senders:
        if sender.fault is not None:
            found.other.append(f"sender {sender.script.name}: {sender.fault!r}")
        elif not sender.is_through():
            found.other.append(f"sender {sender.script.name}: {sender.acknowledged} of {sender.lines} were answered")
    drained = _drain(region, what.drain, what.quiet, found) if done else 0.0
    say(f"drained in {time.monotonic() - sent:.0f} s")
    sampler.finishing.set()
    for one in (*plain, analyst, sampler):
        one.join(30)
    with closing(region.open_bus()) as bus:
        check_quarantine(bus, strike.poison, strike.doubtful, found)
    lasted = region.down_seconds["collect-0"] - down
    statuses = region.stop()
    found.other += [f"{name} ended with status {status}" for name, status in statuses.items() if status]
    found.other += [
        f"{one.name} died at {one.at:.0f} s, status {one.status}: ...{one.log.strip()[-300:]}"
        for one in region.ended
        if one.is_defect
    ]
    _check(region, senders, analyst, found)
    return Report(
        bus="Kafka" if region.is_kafka else "embedded",
        seed=what.seed,
        seconds=round(took, 1),
        drained=round(drained, 1),
        lines_a_second=round(acknowledged / seconds, 1),
        struck=tuple(struck),
        ended=tuple(region.ended),
        starts=region.starts,
        senders={sender.script.name: _told(sender) for sender in senders},
        plain=tuple(_lost(region, one, lasted) for one in plain),
        samples=tuple(sampler.samples),
        findings=found,
    )


def _drain(region: Region, seconds: float, quiet: float, found: Findings) -> float:
    """Wait until nothing waits, and nothing new has come for a while."""
    begun = changed = time.monotonic()
    before: object = None
    waiting: dict[str, int] = {}
    with closing(region.open_bus()) as bus:
        while time.monotonic() - changed < quiet:
            if time.monotonic() - begun > seconds:
                found.other.append(f"after {seconds:.0f} s records still wait: {waiting}")
                break
            with suppress(BusError):
                waiting = lags(bus)
                now = (waiting, bus.ends([TOPIC_RAW, TOPIC_MATCHES, TOPIC_ALERTS]))
                if now != before or any(waiting.values()):
                    before, changed = now, time.monotonic()
            time.sleep(0.5)
    return changed - begun


def _check(region: Region, senders: list[RelpSender], analyst: Analyst, found: Findings) -> None:
    _verify(region, found)
    lake = lake_at(region.folder)
    every = {sender.script.name: (sender.script, sender.acknowledged) for sender in senders}
    check_lines(lake, every, frozenset({"plain-tcp", "plain-udp"}), found)
    try:
        with AlertStore(region.folder / "disks" / "alerts" / "alerts.duckdb") as store:
            check_alerts(lake, store, [(sender.script, sender.lines) for sender in senders], found)
            notes = {note for alert, _ in analyst.accepted for note in (one.note for one in store.journal(alert))}
            gone = [note for _, note in analyst.accepted if note not in notes]
            found.other += [f"a decision that was accepted is not in the journal: {note}" for note in gone]
            found.counts |= {"decisions": len(analyst.accepted)}
    except StorageError as error:
        found.other.append(f"the alert store: {error}")


def _verify(region: Region, found: Findings) -> None:
    """What the region's own commands say of the lake and of the alert store."""
    for name, *words in (
        (MAINTENANCE, "lake", "maintain", "--once"),
        (MAINTENANCE, "lake", "verify", "--json"),
        ("console-0", "alerts", "verify"),
    ):
        done = region.command(*words, name=name)
        if done.returncode:
            said = (done.stdout + done.stderr).strip()[-600:]
            found.other.append(f"tocsin {' '.join(words)}: status {done.returncode}: {said}")
        elif words[-1] == "--json":
            found.counts |= {"files verified": orjson.loads(done.stdout)["files"]}


def _told(sender: RelpSender) -> dict[str, float]:
    return {
        "lines": sender.lines,
        "sessions": sender.sessions,
        "again": sender.again,
        "longest wait": round(sender.longest_wait, 1),
    }


def _lost(region: Region, sender: PlainSender, down: float) -> Told:
    stored, lost, twice = check_plain(lake_at(region.folder), f"plain-{sender.transport}", sender.told.numbers)
    told = sender.told
    return Told(sender.transport, told.sent, told.refused, stored, lost, twice, round(down, 1))

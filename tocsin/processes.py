"""The processes: which stages run in this one, made from the settings.

`tocsin run` plays every role in one process; `tocsin collect`, `detect`, `correlate` and `console` play one each. Roles
meet only on the bus, so it makes no difference to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial

import structlog

from console.app import create_app
from console.pulse import SystemPulse
from console.serve import serve
from console.settings import ConsoleSettings
from console.source_view import SourceBook
from detections.correlation_set import CorrelationSet
from detections.plan import Plan
from ingest.adapters import AdapterError
from ingest.bus import TOPIC_ALERTS, TOPIC_RAW, TOPIC_SOURCES, Bus, Partition
from ingest.collect import Collector
from ingest.listeners import CollectError
from ingest.registry import RegistryError
from storage.alert_database import read_ahead
from storage.alerts import AlertStore
from storage.source_store import SourceStore
from tocsin.alert_keeper import AlertKeeper, every
from tocsin.buses import ENDING_SECONDS, open_bus, open_bus_later, start_retention
from tocsin.chores import Chore, noting
from tocsin.collecting import collect, collector_of, registry_of
from tocsin.correlate_stage import CorrelateStage, Correlating
from tocsin.crew import Crew, run_stage
from tocsin.folders import make_folder
from tocsin.health import serve_health
from tocsin.known_sources import KnownSources
from tocsin.lake_maintenance import maintenance_of, noting_rounds
from tocsin.lake_place import lake_of
from tocsin.rewind import Rewind
from tocsin.rule_set import RuleSource
from tocsin.rule_texts import rule_texts
from tocsin.rule_watch import NoRuleError, RenewedStage, RuleWatch
from tocsin.settings import Settings, SettingsError
from tocsin.source_stage import CollectorVoice, SourceStage, unread_or_none
from tocsin.stages import DetectStage, Flush, Stage, StoreStage
from tocsin.tally import Flow, Tally
from tocsin.topic_intakes import check_topics, intake_of
from tocsin.vitals import Vitals

log = structlog.get_logger()


class Role(StrEnum):
    """What a process may do; the names of the commands."""

    COLLECT = "collect"
    DETECT = "detect"
    CORRELATE = "correlate"
    CONSOLE = "console"


EVERY_ROLE = frozenset(Role)

READ_AHEAD_SECONDS = 3.0
MOST_THREADS = 24
"""Of a process, beside those that collect from topics: what is begun beyond it would wait in silence."""


@dataclass(slots=True)
class Running:
    """What is at work in this process. It is also the `Watch` of its stages."""

    crew: Crew
    tally: Tally = field(default_factory=Tally)
    listeners: dict[str, tuple[str, int]] = field(default_factory=dict)
    console_url: str | None = None
    store: AlertStore | None = None
    rules: RuleWatch | None = None
    detecting: bool = False
    lags: dict[str, int] = field(default_factory=dict)  # stage -> records it had yet to read, a second ago
    failures: dict[str, str] = field(default_factory=dict)  # stage -> why it pauses
    dropped: int = 0  # datagrams lost, here or in the kernel
    vitals: Vitals = field(default_factory=lambda: Vitals("run"))
    health_url: str | None = None

    def __post_init__(self) -> None:
        self.vitals.tally = self.tally

    @property
    def plan(self) -> Plan | None:
        """The rules at work, where this process detects."""
        return self.rules.current.plan if self.rules is not None and self.detecting else None

    def stop(self) -> None:
        """Ask all threads to end; returns at once."""
        self.vitals.stopping = True
        self.crew.stop.set()

    def reload_rules(self) -> None:
        """Have the rules read anew; returns at once."""
        if self.rules is not None:
            self.rules.ask()

    def beginning(self, stage: str) -> None:
        """See `Watch`."""
        self.vitals.beginning(stage)

    def stepped(self, stage: str, records: int) -> None:
        """See `Watch`."""
        self.vitals.stepped(stage, records)

    def ended(self, stage: str) -> None:
        """See `Watch`."""
        self.vitals.ended(stage)

    def lag(self, stage: str, records: int) -> None:
        """See `Watch`."""
        self.lags[stage] = records
        self.vitals.lag(stage, records)

    def failing(self, stage: str, reason: str | None) -> None:
        """See `Watch`."""
        self.vitals.failing(stage, reason)
        if reason is None:
            self.failures.pop(stage, None)
        else:
            self.failures[stage] = reason

    def failing_registry(self, reason: str | None) -> None:
        """Why a change of the registry is not taken up; None once it is mended."""
        self.failing("registry", reason)

    def collecting(self, collector: Collector) -> None:
        """Take note of what the collector has done so far; a step of it has ended."""
        self.vitals.collected(collector.stats(), collector.ledger.channels())
        self.vitals.stepped("collect")
        self.dropped = self.vitals.dropped

    def pulse(self) -> SystemPulse | None:
        """The state of this process, for the console's header; None where another process does the work."""
        if self.rules is None or not self.detecting:
            return None
        rules = self.rules.current
        return SystemPulse(
            at=datetime.now(UTC),
            hospitals=self.tally.hospitals,
            rules_loaded=len(rules.plan.rules),
            rules_refused=len(rules.refused),
            lag=self.lags.get(DetectStage.name),
            quarantined=self.tally.passed(Flow.QUARANTINED) + self.tally.passed(Flow.UNMATCHED),
            dropped=self.dropped,
            failing=tuple(f"{stage}: {reason}" for stage, reason in sorted(self.failures.items())),
        )


def watch_rules(settings: Settings, here: Running, *, compiled: bool = True) -> RuleWatch:
    """The rules that the settings name; those that are refused are logged by file, line and reason.

    Raises:
        SettingsError: Not one rule can run: a quiet queue would then mean nothing.
        RuleError: A path does not exist, or a processing pipeline or a file of placeholders cannot be used.
    """
    try:
        source = RuleSource.of(settings, compiled=compiled)
        return RuleWatch(source, settings.rules_reload_seconds, lambda reason: here.failing("rules", reason))
    except NoRuleError as error:
        raise SettingsError(str(error)) from error


@contextmanager
def running(settings: Settings, roles: frozenset[Role] = EVERY_ROLE, *, from_start: bool = False) -> Iterator[Running]:
    """Start the roles, hand over what is running, and at the end stop it and make its work durable.

    Args:
        settings: Of all roles.
        roles: What this process does.
        from_start: Have `detect` begin at the beginning of the bus (`tocsin.rewind`).

    Raises:
        SettingsError: The settings leave a role without what it needs.
        BusError, StorageError, ListenError, ConsoleError: Something could not be opened: the port is in use, ...
    """
    crew = Crew(MOST_THREADS + len(settings.collect.kafka))
    here = Running(crew, vitals=Vitals(role_name(roles)))
    with ExitStack() as opened:
        health = opened.enter_context(serve_health(settings, here.vitals))
        here.health_url = None if health is None else health.url
        if roles & {Role.DETECT, Role.CORRELATE, Role.CONSOLE}:
            compiled = bool(roles & {Role.DETECT, Role.CORRELATE})
            here.vitals.rules = here.rules = watch_rules(settings, here, compiled=compiled)
        patient = roles == {Role.COLLECT} and settings.collect.spool.max_bytes > 0
        bus = opened.enter_context(closing(open_bus_later(settings, crew) if patient else open_bus(settings)))
        here.vitals.bus = bus
        if Role.CONSOLE in roles:
            here.vitals.store = here.store = _open_store(settings, opened)
            here.console_url = _open_console(settings, bus, here.store, here, opened)
        opened.callback(crew.join)
        opened.callback(here.stop)
        opened.callback(bus.finish_within, ENDING_SECONDS)
        # from the end of the pipe to its beginning, so that nothing arrives before there is someone to read it
        if here.store is not None:
            store = here.store
            _check_same_bus(bus, TOPIC_ALERTS, _stored(bus, store), f"the alert store {settings.alerts_path}")
            _start_stage(here, StoreStage.name, lambda: StoreStage(bus, store, here.tally))
            _start_sources(settings, bus, here, store)
            _start_keeper(settings, here, store)
        if here.rules is not None:
            here.crew.start(here.rules.run)
            if Role.CORRELATE in roles:
                _start_correlate(settings, bus, here, here.rules)
            if Role.DETECT in roles:
                _start_detect(settings, bus, here, here.rules, Rewind() if from_start else None)
        if Role.DETECT in roles:
            start_retention(settings, bus, crew)
        if roles == EVERY_ROLE and settings.lake.maintenance_seconds:
            _start_maintenance(settings, here)
        if Role.COLLECT in roles:
            _start_topics(settings, bus, here)
            if settings.collect.listeners or not settings.collect.kafka:
                _start_collect(settings, bus, here)
        if here.console_url:
            log.info("console ready", url=here.console_url)
        here.vitals.ready = True
        yield here


def role_name(roles: frozenset[Role]) -> str:
    """What a process with these roles is called: the command that starts it."""
    return "run" if roles == EVERY_ROLE else "+".join(sorted(roles))


def _start_stage(here: Running, name: str, make: Callable[[], Stage]) -> None:
    here.crew.start(lambda stop: run_stage(name, make, stop, here))


def _start_correlate(settings: Settings, bus: Bus, here: Running, rules: RuleWatch) -> None:
    section = settings.correlate

    def make(correlations: CorrelationSet) -> Stage:
        how = Correlating(
            correlations,
            lateness=timedelta(seconds=section.lateness_seconds),
            max_groups=section.max_groups,
            idle=timedelta(seconds=section.idle_seconds),
        )
        return CorrelateStage(bus, here.tally, how)

    name = CorrelateStage.name
    # Its state is what it read back from the bus by its correlations, so with others it begins anew
    _start_stage(here, name, lambda: RenewedStage(name, lambda: rules.current.correlations, make))


def _start_detect(settings: Settings, bus: Bus, here: Running, rules: RuleWatch, rewind: Rewind | None) -> None:
    here.detecting = True
    here.tally.expect(listener.hospital for listener in settings.collect.listeners)
    lake = lake_of(settings)
    _check_same_bus(bus, TOPIC_RAW, lake.held(TOPIC_RAW), f"the lake {lake.place.name}")
    section = settings.detect
    flush = Flush(section.flush_rows, section.flush_bytes, section.flush_seconds)
    known = _known_sources(settings, here)
    _start_stage(
        here,
        DetectStage.name,
        lambda: DetectStage(bus, lake, lambda: rules.current.plan, here.tally, flush, readings=known, rewind=rewind),
    )


def _start_maintenance(settings: Settings, here: Running) -> None:
    """Where one process does all; beside workers `tocsin lake maintain` is a process of its own."""
    maintenance = maintenance_of(settings)
    seconds = settings.lake.maintenance_seconds
    here.crew.start(
        lambda stop: maintenance.run(stop, seconds, noting_rounds(settings.data_dir, partial(here.failing, "lake")))
    )


def _known_sources(settings: Settings, here: Running) -> KnownSources:
    try:
        return KnownSources(settings.registry_path, lambda reason: here.failing("sources", reason))
    except (RegistryError, AdapterError) as error:
        raise SettingsError(f"registry: {error}") from error


def _check_same_bus(bus: Bus, topic: str, held: Mapping[Partition, int], who: str) -> None:
    """Refuse a bus that was begun anew: its offsets would be taken for those of events that are stored already.

    Args:
        bus: The bus.
        topic: The topic that is read from.
        held: Partition -> the last offset that is stored.
        who: What holds them.
    """
    ends = bus.ends([topic])
    for partition, offset in held.items():
        end = ends.get(partition, 0)
        if offset >= end:
            raise SettingsError(
                f"bus: {who} holds {topic}/{partition.partition} up to offset {offset}, but the bus ends at {end}: "
                "it was begun anew. Move the lake and the alert store aside, or name others"
            )


def _open_store(settings: Settings, opened: ExitStack) -> AlertStore:
    make_folder(settings.alerts_path.parent, "alerts.path" if settings.alerts.path else "data_dir")
    read_ahead(settings.alerts_path, READ_AHEAD_SECONDS)
    return opened.enter_context(closing(AlertStore(settings.alerts_path, memory_limit=settings.alerts.memory_limit)))


def _start_keeper(settings: Settings, here: Running, store: AlertStore) -> None:
    section = settings.alerts
    keeper = AlertKeeper(
        store,
        settings.backups_path.absolute(),
        every(section.backup_hours),
        section.backups_kept,
        noting(settings.data_dir, Chore.BACKUP, partial(here.failing, "backup")),
    )
    here.crew.start(keeper.run)


def _open_console(settings: Settings, bus: Bus, store: AlertStore, here: Running, opened: ExitStack) -> str:
    section = settings.console
    app = create_app(
        store,
        settings=ConsoleSettings(
            title=section.title,
            allowed_hosts=section.allowed_hosts,
            default_language=section.language,
            timezone=section.time_zone,
        ),
        pulse=here.pulse,
        rules=rule_texts(lambda: here.rules.current.by_id if here.rules is not None else {}),
        sources=SourceBook(
            SourceStore(store.database),
            registry_of(settings, here.failing_registry),
            lambda: unread_or_none(bus),
        ),
    )
    return opened.enter_context(serve(app, section.host, section.port)).url


def _stored(bus: Bus, store: AlertStore) -> dict[Partition, int]:
    """Partition -> the last offset whose alerts are in the store."""
    positions = {partition: store.position(partition) for partition in bus.ends([TOPIC_ALERTS])}
    return {partition: position - 1 for partition, position in positions.items() if position}


def _start_sources(settings: Settings, bus: Bus, here: Running, alerts: AlertStore) -> None:
    """The intake of counts, which also watches over silences."""
    held = {at: position - 1 for at in bus.ends([TOPIC_SOURCES]) if (position := alerts.position(at))}
    _check_same_bus(bus, TOPIC_SOURCES, held, f"the alert store {settings.alerts_path}")
    hospitals = registry_of(settings, here.failing_registry)
    _start_stage(here, SourceStage.name, lambda: SourceStage.of(settings.silence, bus, alerts, here.tally, hospitals))


def _start_topics(settings: Settings, bus: Bus, here: Running) -> None:
    """The intakes from topics of a Kafka; each waits by itself for a cluster that is away."""
    check_topics(settings)
    for section in settings.collect.kafka:
        make = partial(intake_of, settings, section, bus, here.failing_registry)
        _start_stage(here, f"kafka {section.name}", make)


def _start_collect(settings: Settings, bus: Bus, here: Running) -> None:
    collector = collector_of(settings, bus, here.failing_registry)
    bound: Future[dict[str, tuple[str, int]]] = Future()
    voice = CollectorVoice(bus, {listener.name: listener.hospital for listener in settings.collect.listeners})
    collecting = here.crew.start(lambda stop: asyncio.run(collect(collector, voice, stop, bound, here.collecting)))

    def unblock(ended: Future[None]) -> None:
        if not bound.done():
            bound.set_exception(ended.exception() or CollectError("the collector ended before it listened"))

    collecting.add_done_callback(unblock)
    here.vitals.listeners = here.listeners = bound.result()

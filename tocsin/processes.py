"""The processes: which stages run in this one, made from the settings.

`tocsin run` plays every role in one process; `tocsin collect`, `detect`, `correlate` and `console` play one each. Roles
meet only on the bus, so it makes no difference to them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import structlog

from console.app import create_app
from console.pulse import SystemPulse
from console.serve import serve
from console.settings import ConsoleSettings
from detections.load import load_rules
from detections.plan import Plan
from detections.rule import RulePack
from ingest.bus import TOPICS, Bus
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings
from ingest.collect import Collector
from ingest.listeners import CollectError, ListenerSettings
from storage.alerts import AlertStore
from storage.lake import Lake
from tocsin.crew import Crew, run_stage
from tocsin.settings import Settings, SettingsError
from tocsin.stages import CorrelateStage, DetectStage, Stage, StoreStage
from tocsin.tally import Tally

log = structlog.get_logger()


class Role(StrEnum):
    """What a process may do; the names of the commands."""

    COLLECT = "collect"
    DETECT = "detect"
    CORRELATE = "correlate"
    CONSOLE = "console"


EVERY_ROLE = frozenset(Role)


@dataclass(slots=True)
class Running:
    """What is at work in this process."""

    crew: Crew
    tally: Tally = field(default_factory=Tally)
    listeners: dict[str, tuple[str, int]] = field(default_factory=dict)
    console_url: str | None = None
    store: AlertStore | None = None
    rules: RulePack | None = None
    rules_running: int = 0
    lags: dict[str, int] = field(default_factory=dict)  # stage -> bus records it had yet to read, a second ago

    def pulse(self) -> SystemPulse:
        """The state of this process, for the console's header."""
        refused = len(self.rules.refused) if self.rules else 0
        return SystemPulse(
            at=datetime.now(UTC),
            hospitals=self.tally.hospitals,
            rules_loaded=self.rules_running,
            rules_refused=refused,
            lag=self.lags.get(DetectStage.name),
        )


def open_bus(settings: Settings) -> Bus:
    """The bus that the settings name, with all topics there.

    Raises:
        BusError: It cannot be reached or opened.
    """
    section = settings.bus
    bus: Bus
    if section.kind == "embedded":
        _make_folder(settings.bus_path.parent)
        bus = EmbeddedBus(settings.bus_path)
    else:
        bus = KafkaBus(KafkaSettings(**section.model_dump(exclude={"kind", "path"})))
    bus.ensure_topics(TOPICS)
    return bus


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be made: {error.strerror}") from error


def load_plan(rules: tuple[Path, ...]) -> tuple[RulePack, Plan]:
    """The rules of these paths, compiled; what is refused is logged by file, line and reason, and the others run."""
    pack = load_rules(rules)
    plan = Plan.build(pack.rules)
    for refusal in (*pack.refused, *plan.refused):
        log.warning("rule refused", file=str(refusal.path), line=refusal.line, reason=refusal.reason)
    log.info("rules loaded", running=len(plan.rules), refused=len(pack.refused) + len(plan.refused))
    return pack, plan


@contextmanager
def running(settings: Settings, roles: frozenset[Role] = EVERY_ROLE) -> Iterator[Running]:
    """Start the roles, hand over what is running, and at the end stop it and make its work durable.

    Raises:
        SettingsError: The settings leave a role without what it needs.
        BusError, StorageError, ListenError, ConsoleError: Something could not be opened: the port is in use, ...
    """
    crew = Crew(len(Role) + 1)
    here = Running(crew)
    with ExitStack() as opened:
        bus = opened.enter_context(closing(open_bus(settings)))
        if Role.CONSOLE in roles:
            here.store = _open_store(settings, opened)
            here.console_url = _open_console(settings, here.store, here, opened)
        opened.callback(crew.join)
        opened.callback(crew.stop.set)
        # from the end of the pipe to its beginning, so that nothing arrives before there is someone to read it
        if here.store is not None:
            store = here.store
            _start_stage(here, lambda: StoreStage(bus, store, here.tally))
        if Role.CORRELATE in roles:
            _start_stage(here, lambda: CorrelateStage(bus, here.tally))
        if Role.DETECT in roles:
            _start_detect(settings, bus, here)
        if Role.COLLECT in roles:
            _start_collect(settings, bus, here)
        yield here


def _start_stage(here: Running, make: Callable[[], Stage]) -> None:
    here.crew.start(lambda stop: run_stage(make, stop, here.lags.__setitem__))


def _start_detect(settings: Settings, bus: Bus, here: Running) -> None:
    pack, plan = load_plan(settings.rules)
    here.rules = pack
    here.rules_running = len(plan.rules)
    lake = Lake(settings.lake_path)
    section = settings.detect
    _start_stage(
        here,
        lambda: DetectStage(
            bus,
            lake,
            plan,
            here.tally,
            flush_rows=section.flush_rows,
            flush_seconds=section.flush_seconds,
        ),
    )


def _open_store(settings: Settings, opened: ExitStack) -> AlertStore:
    _make_folder(settings.alerts_path.parent)
    return opened.enter_context(closing(AlertStore(settings.alerts_path)))


def _open_console(settings: Settings, store: AlertStore, here: Running, opened: ExitStack) -> str:
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
    )
    url = opened.enter_context(serve(app, section.host, section.port)).url
    log.info("console ready", url=url)
    return url


def _start_collect(settings: Settings, bus: Bus, here: Running) -> None:
    section = settings.collect
    if not section.listeners:
        raise SettingsError("collect.listeners: there is no listener, so nothing could arrive (see deploy/config.toml)")
    collector = Collector(
        bus,
        [
            ListenerSettings(
                name=listener.name,
                transport=listener.transport,
                host=listener.host,
                port=listener.port,
                tenant=listener.hospital,
                max_frame=listener.max_frame,
                max_connections=listener.max_connections,
                idle_timeout=listener.idle_timeout,
            )
            for listener in section.listeners
        ],
        batch_lines=section.batch_lines,
        batch_bytes=section.batch_bytes,
        batch_seconds=section.batch_seconds,
        queue_bytes=section.queue_bytes,
    )
    bound: Future[dict[str, tuple[str, int]]] = Future()
    collecting = here.crew.start(lambda stop: asyncio.run(_collect(collector, stop, bound)))

    def unblock(ended: Future[None]) -> None:
        if not bound.done():
            bound.set_exception(ended.exception() or CollectError("the collector ended before it listened"))

    collecting.add_done_callback(unblock)
    here.listeners = bound.result()


async def _collect(collector: Collector, stop: threading.Event, bound: Future[dict[str, tuple[str, int]]]) -> None:
    await collector.start()
    bound.set_result(dict(collector.addresses))
    work = asyncio.create_task(collector.run())
    stopped = asyncio.create_task(asyncio.to_thread(stop.wait))
    await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await collector.stop()
    await work
    await stopped
    for stats in collector.stats().listeners.values():
        log.info("collected", **{key: value for key, value in asdict(stats).items() if value})

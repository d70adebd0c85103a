"""How a process fares, as a value: what is wrong (/healthz, /readyz) and the whole state (/status).

Alive means that every stage steps; a process that is not should be started anew. Ready means that it does its work now:
it may be alive and wait for a bus that is away, and a restart would not help.

A collector with room on its disk is ready without a bus: to send its senders away would lose what it can keep.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict

from ingest.visible import visible
from storage.alert import Status
from storage.alert_queue import AlertFilter
from storage.errors import StorageError
from tocsin.chores import Note, read_notes
from tocsin.settings import Settings
from tocsin.tally import Flow
from tocsin.vitals import Vitals

REASON_LENGTH: Final = 300
MAX_HOSPITALS: Final = 1000
"""Hospitals told one by one: those heard least recently come first."""

HIDDEN: Final = "***"

PROCESS: Final = "process"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer process may say more


class Reason(_Model):
    """What is wrong: a stage, or "bus", "rules", ...; and why."""

    part: str
    reason: str


class Report(_Model):
    """The answer of /healthz and /readyz."""

    ok: bool
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Reason], secrets: Iterable[str]) -> Self:
        """A report of these reasons, without these secrets."""
        reasons = tuple(told(reason, secrets) for reason in found)
        return cls(ok=not reasons, reasons=reasons)


class StageStatus(_Model):
    """A stage; see `StageSigns`."""

    name: str
    lag: int | None
    lag_seconds: float
    idle: float
    starting: bool
    records: int
    failing: str | None
    failures: int
    stuck: bool


class HospitalStatus(_Model):
    """A hospital: when its last line came, how many a second over the last minute, and how many in all."""

    hospital: str
    last_line: AwareDatetime | None
    rate: float
    lines: int


class ListenerStatus(_Model):
    """A listener: its address, and what it has seen."""

    name: str
    transport: str
    address: str
    connections: int
    lines: int
    refused: int
    dropped: int


class SpoolStatus(_Model):
    """What waits on disk for the bus."""

    bytes: int
    max_bytes: int
    records: int
    oldest: AwareDatetime | None
    full: bool


class BusStatus(_Model):
    """What the process did on the bus."""

    kind: Literal["embedded", "kafka"]
    published: int
    read: int
    publish_errors: int
    rebalances: int


class RulesStatus(_Model):
    """The rules at work, where they run."""

    running: int
    refused: int
    correlations: int


class AlertsStatus(_Model):
    """The alert store: alerts nobody has looked at, all alerts, and its size in bytes; None where it did not answer."""

    waiting: int | None
    total: int | None
    bytes: int


class ProcessStatus(_Model):
    """The answer of /status."""

    version: str
    role: str
    began: AwareDatetime
    at: AwareDatetime
    alive: bool
    ready: bool
    reasons: tuple[Reason, ...]
    stages: tuple[StageStatus, ...]
    hospitals: tuple[HospitalStatus, ...]
    hospitals_beyond: int
    listeners: tuple[ListenerStatus, ...]
    spool: SpoolStatus | None
    bus: BusStatus | None
    lake: str | None
    lake_flushes_failed: int
    rules: RulesStatus | None
    alerts: AlertsStatus | None
    chores: tuple[Note, ...]


def troubles(vitals: Vitals) -> list[Reason]:
    """Why the process should be started anew: nothing, if it lives."""
    return [
        Reason(
            part=stage.name,
            reason=f"the stage has {'not begun' if stage.starting else 'made no step'} for {stage.idle:.0f} seconds",
        )
        for stage in vitals.stages()
        if stage.stuck
    ]


def unready(vitals: Vitals) -> list[Reason]:
    """Why the process does not do its work now: nothing, if it does."""
    found = [*troubles(vitals)]
    if vitals.stopping:
        found.append(Reason(part=PROCESS, reason="it is stopping"))
    elif not vitals.ready:
        found.append(Reason(part=PROCESS, reason="it is starting"))
    stuck = {reason.part for reason in found}
    found += [
        Reason(part=stage.name, reason="the stage is starting")
        for stage in vitals.stages()
        if stage.starting and stage.failing is None and stage.name not in stuck
    ]
    found += [Reason(part=part, reason=reason) for part, reason in sorted(vitals.faults().items())]
    return found + _intake(vitals)


def _intake(vitals: Vitals) -> list[Reason]:
    """Why a collector does not take what hospitals send."""
    stats = vitals.collector
    if stats is None:
        return []
    found = []
    if stats.blocked is not None:
        found.append(Reason(part="storage", reason=stats.blocked))
    if stats.paused:
        hospitals = len(stats.paused_hospitals)
        found.append(Reason(part="collect", reason=f"the senders of {hospitals} hospitals are made to wait"))
    if stats.held_hospitals:
        hospitals = len(stats.held_hospitals)
        found.append(Reason(part="collect", reason=f"lines of {hospitals} hospitals wait: patients' data has no keys"))
    return found


def secrets_of(settings: Settings) -> frozenset[str]:
    """What is secret in the settings: errors of clients may quote it."""
    found = {settings.bus.password, settings.lake.s3.secret_key, settings.lake.s3.access_key}
    found |= {source.password for source in settings.collect.kafka}
    return frozenset(filter(None, found))


def told(reason: Reason, secrets: Iterable[str]) -> Reason:
    """A reason as it may be told to anyone: no secrets, no signs that move a cursor, and not long."""
    return Reason(part=reason.part, reason=_told(reason.reason, secrets))


def _told(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = visible(text)
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 1] + "…"


def report_of(vitals: Vitals, settings: Settings, secrets: Iterable[str]) -> ProcessStatus:
    """The whole state. May take a moment: it asks the alert store and the disk."""
    reasons = tuple(told(reason, secrets) for reason in unready(vitals))
    hospitals = _hospitals(vitals)
    rules = None if vitals.rules is None or not vitals.rules.compiled else vitals.rules.current
    return ProcessStatus(
        version=version("tocsin"),
        role=vitals.role,
        began=vitals.began,
        at=vitals.now(),
        alive=not troubles(vitals),
        ready=not reasons,
        reasons=reasons,
        stages=tuple(_stage(vitals, secrets)),
        hospitals=tuple(hospitals[:MAX_HOSPITALS]),
        hospitals_beyond=max(0, len(hospitals) - MAX_HOSPITALS),
        listeners=tuple(_listeners(vitals)),
        spool=_spool(vitals, settings),
        bus=_bus(vitals, settings),
        lake=(settings.lake.url or str(settings.lake_path))
        if any(s.name == "detect" for s in vitals.stages())
        else None,
        lake_flushes_failed=vitals.tally.passed(Flow.UNFLUSHED),
        rules=None
        if rules is None
        else RulesStatus(
            running=len(rules.plan.rules), refused=len(rules.refused), correlations=len(rules.correlations.rules)
        ),
        alerts=_alerts(vitals, settings),
        chores=tuple(
            note.model_copy(update={"reason": _told(note.reason, secrets)})
            for note in read_notes(settings.data_dir).values()
        ),
    )


def _stage(vitals: Vitals, secrets: Iterable[str]) -> Iterable[StageStatus]:
    for stage in vitals.stages():
        yield StageStatus(
            name=stage.name,
            lag=stage.lag,
            lag_seconds=stage.lag_seconds,
            idle=stage.idle,
            starting=stage.starting,
            records=stage.records,
            failing=None if stage.failing is None else _told(stage.failing, secrets),
            failures=stage.failures,
            stuck=stage.stuck,
        )


def _hospitals(vitals: Vitals) -> list[HospitalStatus]:
    lines, rates = vitals.received(), vitals.rates()
    found = [
        HospitalStatus(
            hospital=visible(tenant), last_line=last, rate=rates.get(tenant, 0.0), lines=lines.get(tenant, 0)
        )
        for tenant, last in vitals.heard().items()
    ]
    return sorted(found, key=lambda seen: (seen.last_line is not None, seen.last_line, seen.hospital))


def _listeners(vitals: Vitals) -> Iterable[ListenerStatus]:
    for name, seen in {} if vitals.collector is None else sorted(vitals.collector.listeners.items()):
        host, port = vitals.listeners.get(name, ("", 0))
        yield ListenerStatus(
            name=visible(name),
            transport=seen.transport,
            address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            connections=seen.connections,
            lines=seen.frames,
            refused=seen.refused,
            dropped=seen.dropped + seen.kernel_dropped,
        )


def _spool(vitals: Vitals, settings: Settings) -> SpoolStatus | None:
    spool = None if vitals.collector is None else vitals.collector.spool
    if spool is None:
        return None
    limit = settings.collect.spool.max_bytes
    return SpoolStatus(
        bytes=spool.bytes,
        max_bytes=limit,
        records=spool.records,
        oldest=spool.oldest,
        full=spool.bytes >= limit,
    )


def _bus(vitals: Vitals, settings: Settings) -> BusStatus | None:
    if vitals.bus is None:
        return None
    counts = vitals.bus.counts()
    return BusStatus(
        kind=settings.bus.kind,
        published=sum(volume.records for volume in counts.published.values()),
        read=sum(volume.records for volume in counts.read.values()),
        publish_errors=counts.publish_errors,
        rebalances=counts.rebalances,
    )


def _alerts(vitals: Vitals, settings: Settings) -> AlertsStatus | None:
    if vitals.store is None:
        return None
    size = file_bytes(settings)
    try:
        counts = vitals.store.counts(AlertFilter())
    except StorageError:
        return AlertsStatus(waiting=None, total=None, bytes=size)
    return AlertsStatus(waiting=counts.by_status.get(Status.NEW, 0), total=counts.total, bytes=size)


def file_bytes(settings: Settings) -> int:
    """What the alert store takes on disk, its log of changes included."""
    path = settings.alerts_path
    found = 0
    for part in (path, path.with_name(path.name + ".wal")):
        try:
            found += part.stat().st_size
        except OSError:
            continue
    return found

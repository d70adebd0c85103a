"""The stage that adds up what came from whom, and the one that says it of a collector.

    detect, collect -> tocsin.sources -> sources (in the console's process) -> the alert store's file

The offset that counts is the one stored with the rows, as it is for alerts. Between records the stage looks for
silences (`tocsin.silence_watch`), since it knows how far it has read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
import structlog

from ingest.bus import TOPIC_RAW, TOPIC_SOURCES, Bus, BusError, Message, Partition
from ingest.collect import CollectorStats
from ingest.collector_report import (
    REPORT_KEY,
    ChannelCount,
    CollectorReport,
    ListenerCount,
    ReportDecodeError,
    decode_report,
)
from ingest.hospital import Hospitals
from ingest.ipc import FrameDecodeError, decode_frame
from ingest.source_counts import COUNTS_SCHEMA, OTHER
from storage.alerts import AlertStore
from storage.source_store import SourceStore
from tocsin.audit import Audit
from tocsin.settings_sections import SilenceSection
from tocsin.silence_watch import SilenceWatch
from tocsin.stages import DETECT_GROUP, first_unread, next_offsets, quarantined
from tocsin.tally import Flow, Tally

log = structlog.get_logger()

SOURCES_GROUP: Final = "tocsin-sources"
RECORDS_A_STEP: Final = 256
REPORT_SECONDS: Final = 5.0
"""How often a collector says what it has done. Precedent: rsyslog's impstats, 300; a silence is noticed after 300."""

SENDERS_A_REPORT: Final = 1000
"""Senders that a report tells apart, about 130 bytes each. Datagrams can be forged to come from anywhere."""

PRUNE_EVERY: Final = timedelta(hours=1)


class SourceStage:
    """Counts and reports into the store, and the watch over silences.

    Args:
        position: The next offset to read of a partition of `tocsin.sources`, as stored.
        watch: Looks for silences; None where that is switched off.
    """

    name = "sources"

    def __init__(
        self,
        bus: Bus,
        store: SourceStore,
        position: Callable[[Partition], int | None],
        tally: Tally,
        watch: SilenceWatch | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._store = store
        self._tally = tally
        self._watch = watch
        self._clock = clock
        self._pruned: datetime | None = None
        self._audit = Audit(bus, store)
        self._subscription = bus.subscribe(SOURCES_GROUP, [TOPIC_SOURCES], start_at=first_unread(position))

    @classmethod
    def of(
        cls,
        section: SilenceSection,
        bus: Bus,
        alerts: AlertStore,
        tally: Tally,
        hospitals: Callable[[], Hospitals],
    ) -> SourceStage:
        """The stage as the settings want it, on the file of an alert store."""
        store = SourceStore(alerts.database)
        watch = SilenceWatch(
            bus,
            store,
            alerts,
            hospitals,
            shortest=timedelta(seconds=section.shortest_seconds),
            never_seen=timedelta(hours=section.never_seen_hours),
        )
        return cls(bus, store, alerts.position, tally, watch if section.enabled else None)

    def step(self, timeout: float) -> int:
        """Read, and store with the offsets in one transaction; look for silences when all is read."""
        records = self._subscription.poll(timeout, RECORDS_A_STEP)
        counts: list[pl.DataFrame] = []
        reports: list[CollectorReport] = []
        unreadable: list[Message] = []
        for record in records:
            try:
                if record.key.startswith(REPORT_KEY):
                    reports.append(decode_report(record.value))
                else:
                    counts.append(decode_frame(record.value, COUNTS_SCHEMA))
            except (FrameDecodeError, ReportDecodeError) as error:
                unreadable.append(quarantined(record, str(error)))
        now = self._clock()
        if records:
            if unreadable:
                self._bus.publish(unreadable)
            ends = next_offsets(records)
            self._store.record(counts, reports, ends, now)
            self._tally.add(Flow.QUARANTINED, len(unreadable))
            self._subscription.commit(ends)
        if self._pruned is None or now - self._pruned > PRUNE_EVERY:
            gone = self._store.prune(now)
            self._pruned = now
            if gone:
                log.info("sources that were not heard for long, or only once, count with all others", sources=gone)
        if not self._subscription.lag():  # what is still to be read would be taken for silence
            self._audit.look(now)
            if self._watch is not None:
                self._watch.look(now)
        return len(records)

    def lag(self) -> int:
        """Records waiting on `tocsin.sources`."""
        return self._subscription.lag()

    def close(self) -> None:
        """Leave the group."""
        self._subscription.close()


class CollectorVoice:
    """Says on the bus what a collector has done, every `REPORT_SECONDS`.

    A report that the bus does not take is no loss: the next one holds all that it held.

    Args:
        bound: Listener -> the hospital it is bound to; empty if several send there.
    """

    def __init__(
        self, bus: Bus, bound: Mapping[str, str], clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._bus = bus
        self._bound = bound
        self._clock = clock
        self._failed = False
        self._said = 0.0
        self._saying: asyncio.Task[None] | None = None

    def say_now_and_then(self, stats: CollectorStats) -> None:
        """Publish a report in the background if it is time, and the last one is through; from the event loop."""
        now = asyncio.get_running_loop().time()
        through = self._saying is None or self._saying.done()
        if through and (self._saying is None or now - self._said >= REPORT_SECONDS):
            self._said = now
            self._saying = asyncio.create_task(asyncio.to_thread(self.say, stats))

    def say(self, stats: CollectorStats, *, final: bool = False) -> None:
        """Publish a report; blocks until the bus has it or refuses."""
        report = report_of(stats, self._clock(), self._bound, final=final)
        try:
            self._bus.publish([report.message()])
        except BusError as error:
            if not self._failed:
                log.warning("the collector's counts could not be said, trying again", error=str(error))
            self._failed = True
        else:
            self._failed = False


def unread_records(bus: Bus) -> int:
    """Records of `tocsin.raw` that `detect` has not made durable yet."""
    committed = bus.committed(DETECT_GROUP, [TOPIC_RAW])
    return sum(max(0, end - committed.get(partition, 0)) for partition, end in bus.ends([TOPIC_RAW]).items())


def unread_or_none(bus: Bus) -> int | None:
    """The same; None while the bus does not answer."""
    try:
        return unread_records(bus)
    except BusError:
        return None


def report_of(stats: CollectorStats, at: datetime, bound: Mapping[str, str], *, final: bool = False) -> CollectorReport:
    """A report from a collector's statistics."""
    spool = stats.spool
    return CollectorReport(
        run=stats.run,
        at=at,
        final=final,
        channels=_channels(stats),
        listeners=tuple(
            ListenerCount(seen.name, bound.get(seen.name, ""), seen.dropped, seen.kernel_dropped, dict(seen.refusals))
            for seen in stats.listeners.values()
        ),
        spool_bytes=spool.bytes if spool is not None else 0,
        spool_oldest=spool.oldest if spool is not None else None,
        waiting_bytes=stats.waiting_bytes,
    )


def _channels(stats: CollectorStats) -> tuple[ChannelCount, ...]:
    """The senders, those with most lines one by one, the others of a hospital together: a report must fit the bus."""
    busiest = sorted(stats.peers.items(), key=lambda item: (-item[1].frames, item[0]))
    counts = [
        ChannelCount("", tenant, peer or OTHER, seen.frames, seen.bytes, seen.durable)
        for (tenant, peer), seen in busiest[:SENDERS_A_REPORT]
    ]
    others: dict[str, ChannelCount] = {}
    for (tenant, _), seen in busiest[SENDERS_A_REPORT:]:
        so_far = others.get(tenant, ChannelCount("", tenant, OTHER))
        others[tenant] = ChannelCount(
            "", tenant, OTHER, so_far.lines + seen.frames, so_far.bytes + seen.bytes, so_far.durable + seen.durable
        )
    return (*counts, *others.values())

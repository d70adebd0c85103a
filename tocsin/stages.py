"""The stages between the buses' topics: detect, and the intake of alerts (`tocsin.correlate_stage` is the third).

Each stage reads a topic, does its work, writes what follows, and only then commits what it has read:

    detect     tocsin.raw     -> parse, match -> tocsin.matches, lake, tocsin.sources
    correlate  tocsin.matches -> correlate    -> tocsin.alerts, tocsin.firings
    store      tocsin.alerts  -> DuckDB, in one transaction with the offset

A stage that is killed anywhere between reading and committing reads the same records again. Everything it then writes
has the identity it had before (event id, alert id, Delta transaction version), so the effect is that of once.
A record that cannot be read goes to `tocsin.quarantine` with the reason, and does not stop the ones behind it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import polars as pl
import structlog

from detections.plan import Plan
from ingest.bus import (
    TOPIC_ALERTS,
    TOPIC_MATCHES,
    TOPIC_QUARANTINE,
    TOPIC_RAW,
    Bus,
    Message,
    Partition,
    Position,
    Record,
    StartAt,
)
from ingest.envelope import EVENT_ID, EventFrame
from ingest.ipc import FrameDecodeError, encode_frame
from ingest.rawbatch import BATCH_FORMAT
from ingest.readings import Readings, offered_first
from ingest.source_counts import count_messages, count_quarantined, count_sources
from storage.alert import Alert
from storage.alert_codec import decode_alert
from storage.alerts import AlertStore
from storage.errors import AlertDecodeError, StorageError
from storage.lake import Lake
from tocsin.containment import match_contained, parse_contained
from tocsin.raw_poll import poll_step
from tocsin.resends import Resends, unrepeated
from tocsin.rewind import Rewind
from tocsin.tally import Counted, Flow, Measure, Tally, count

log = structlog.get_logger()

PLACE: Final = "\x00place"
"""A column beside the events' own, under a name that no field can have."""

DETECT_GROUP: Final = "tocsin-detect"
"""The group that reads `tocsin.raw`: what it has committed is matched, published and in the lake."""

STORE_GROUP: Final = "tocsin-console"
"""The group that reads `tocsin.alerts`."""

PUBLISHED: Final = "published"
"""Header of matches and firings: when they were put on the bus (ISO 8601), so that they can be found again by time."""

RECORDS_A_STEP: Final = 64
"""Bus records read at once."""

BYTES_A_PASS: Final = 16 * 1024 * 1024
"""About how much of what was read is unpacked, parsed and matched at once: a record that is small on the bus may hold
a thousand times as much, and parsing takes several times the memory of the lines."""


MESSAGE_BYTES: Final = 1 << 20
"""About how much one message of matches holds; Kafka's own default limit is 1 MiB, and compression leaves room."""


@dataclass(frozen=True, slots=True)
class Flush:
    """When what was read is made durable in the lake: at this many events, bytes in memory, or seconds."""

    rows: int
    bytes: int
    seconds: float


class Stage(Protocol):
    """Something that is stepped until the process ends."""

    name: str

    def step(self, timeout: float) -> int:
        """Do what there is to do, waiting at most `timeout` seconds for it; returns how many records were read."""

    def lag(self) -> int:
        """Records waiting to be read, as of the last step."""

    def close(self) -> None:
        """Make durable what was read, and leave the group."""


def quarantined(record: Record, reason: str) -> Message:
    """The record as it was, on `tocsin.quarantine`, with where it lay and why it could not be read."""
    headers = {"reason": reason[:1000], "topic": record.topic}
    headers |= {"partition": str(record.partition), "offset": str(record.offset)}
    log.warning("record quarantined", **headers)
    return Message(TOPIC_QUARANTINE, record.key, record.value, headers)


def next_offsets(records: Sequence[Record]) -> dict[Partition, int]:
    """For each partition, the offset behind the last of these records."""
    return {record.place: record.offset + 1 for record in records}


def by_record(frames: Sequence[EventFrame], records: Sequence[Record]) -> Iterator[tuple[Position, list[EventFrame]]]:
    """For each record, in order, the events that came in it: records are parsed together and stored apart.

    The event id says which record an event came in (`ingest.rawbatch.decode_record`).
    """
    parts: dict[str, list[EventFrame]] = {}
    place = pl.col(EVENT_ID).str.replace(r":\d+$", "").alias(PLACE)
    for frame in frames:
        whole = frame.events.with_columns(place)
        for (name,), events in whole.partition_by(PLACE, as_dict=True, include_key=False).items():
            parts.setdefault(str(name), []).append(EventFrame(frame.logsource, events))
    for record in records:
        position = Position(record.topic, record.partition, record.offset)
        yield position, parts.get(f"{record.topic}:{record.partition}:{record.offset}", [])


def _same(plan: Plan) -> Plan:
    return plan


class DetectStage:
    """Parse, match, and fill the lake.

    Matches are published as soon as they are found, since someone waits for them; the lake is written in larger
    appends, by rows or age, since small files are dear. Offsets are committed after both.

    Args:
        plan: The rules, or what gives those of the next batch.
        readings: Gives what is known of the sources of the next batch.
        rewind: To begin at the beginning of the bus.
    """

    name = "detect"

    def __init__(
        self,
        bus: Bus,
        lake: Lake,
        plan: Plan | Callable[[], Plan],
        tally: Tally,
        flush: Flush,
        clock: Callable[[], float] = time.monotonic,
        readings: Callable[[], Readings | None] = lambda: None,
        rewind: Rewind | None = None,
    ) -> None:
        self._bus = bus
        self._readings = readings
        self._plan: Callable[[], Plan] = partial(_same, plan) if isinstance(plan, Plan) else plan
        self._tally = tally
        self._when = flush
        self._clock = clock
        self._resends = Resends(bus)
        self._writer = lake.writer()
        self._done: dict[Partition, int] = {}
        self._uncommitted: set[Partition] = set()
        self._waiting: list[Counted] = []
        self._sources: list[pl.DataFrame] = []
        self._records = 0
        self._oldest = 0.0
        self._refused = False
        self._writer.check()  # what is read while the lake takes nothing would be matched and published again and again
        self._rewind = rewind
        self._subscription = bus.subscribe(DETECT_GROUP, [TOPIC_RAW], None if rewind is None else rewind.start_at)

    def step(self, timeout: float) -> int:
        """Read, match and publish; write the lake when enough waits or it has waited long enough."""
        records = poll_step(self._subscription, timeout, RECORDS_A_STEP)
        if self._rewind is not None:
            self._rewind.keep(self._subscription)
        waiting = iter(records)
        while taken := self._take(waiting):
            if not self._records:
                self._oldest = self._clock()
            self._records += len(taken)
            self._uncommitted |= {record.place for record in taken}
            if self._due():
                self._flush()
        if self._due():
            self._flush()
        return len(records)

    def _take(self, waiting: Iterator[Record]) -> list[Record]:
        """Match the next records, up to about `BYTES_A_PASS`; those that were taken.

        A partition that left and came back begins at the last commit: what waits for the lake here, or is there now, is
        neither matched nor counted anew, but committed.
        """
        taken: list[Record] = []
        records: list[Record] = []
        raw: dict[str, list[pl.DataFrame]] = {}  # by the format that the channel names, if any
        again: list[str] = []
        known, size = 0, 0
        unreadable: list[Message] = []
        unread: list[Record] = []
        for record in waiting:
            taken.append(record)
            if record.offset < self._done.get(record.place, 0):
                continue
            records.append(record)
            try:
                sifted = self._resends.read(record)
            except FrameDecodeError as error:
                unreadable.append(quarantined(record, str(error)))
                unread.append(record)
                continue
            raw.setdefault(record.headers.get(BATCH_FORMAT, ""), []).append(sifted.rows)
            again += sifted.again
            known += sifted.known
            size += int(sifted.rows.estimated_size())
            if size >= BYTES_A_PASS:
                break
        if not records:
            return taken
        frames = self._parse(raw)
        matches = self._match(unrepeated(frames, again))
        self._bus.publish([*unreadable, *match_messages(matches, datetime.now(UTC))])
        self._tally.add(Flow.QUARANTINED, len(unreadable))
        self._tally.add(Flow.TWICE, known)
        self._tally.add(Flow.AGAIN, len(again))
        self._tally.add(Flow.MATCHES, sum(found.height for found in matches))
        for position, events in by_record(frames, records):
            self._writer.add(events, position)
        self._waiting += count(frames)
        self._sources += [count_sources(frames, again, records), count_quarantined(unread, datetime.now(UTC))]
        self._done |= next_offsets(records)
        return taken

    def _parse(self, raw: Mapping[str, Sequence[pl.DataFrame]]) -> list[EventFrame]:
        readings = self._readings() if raw else None
        return [
            frame
            for name, rows in raw.items()
            for frame in parse_contained(pl.concat(rows), offered_first(readings, name))
        ]

    def _match(self, frames: Iterable[EventFrame]) -> list[pl.DataFrame]:
        found: list[pl.DataFrame] = []
        plan = self._plan()  # one for all events of a batch, whatever takes its place meanwhile
        for frame in frames:
            matches, failed = match_contained(plan, frame)
            self._tally.add(Flow.UNMATCHED, failed)
            if matches.height:
                found.append(matches)
        return found

    def _due(self) -> bool:
        writer, when = self._writer, self._when
        return self._records > 0 and (
            self._clock() - self._oldest >= when.seconds
            or writer.buffered_rows >= when.rows
            or writer.buffered_bytes >= when.bytes
        )

    def _flush(self) -> None:
        """Make durable, say what came from whom, then commit, then count: what is shown will not be read again.

        What came from whom is said before the commit, so that no record goes without; who adds it up knows records.
        """
        begun, rows = time.perf_counter(), self._writer.buffered_rows
        try:
            self._writer.flush()
        except StorageError:
            self._refused = True
            self._tally.add(Flow.UNFLUSHED, 1)
            raise
        self._tally.measure(Measure.FLUSH_SECONDS, [time.perf_counter() - begun])
        self._tally.measure(Measure.FLUSH_ROWS, [rows])
        self._bus.publish(count_messages(self._sources))
        self._subscription.commit({place: self._done[place] for place in self._uncommitted})
        self._uncommitted.clear()
        self._tally.count(self._waiting)
        self._waiting, self._sources, self._records = [], [], 0

    def lag(self) -> int:
        """Records of `tocsin.raw` that are not yet in the lake."""
        return self._subscription.lag() + self._records

    def close(self) -> None:
        """Write what waits for the lake, unless that has just refused it, commit, and leave."""
        try:
            if self._records and not self._refused:
                self._flush()
        finally:
            self._subscription.close()


def match_messages(found: Sequence[pl.DataFrame], published: datetime) -> list[Message]:
    """Matches as bus messages, by hospital and in the order of their times, each well below what a bus takes at once.

    They were found by log source: in that order the first message could hold the last hour of one source, and all of
    the next source would be too late to be correlated with it.
    """
    if not found:
        return []
    in_time = pl.concat(found).sort("timestamp", maintain_order=True)
    by_tenant = in_time.partition_by("tenant", as_dict=True, maintain_order=True)
    headers = {PUBLISHED: published.isoformat()}
    return [
        Message(TOPIC_MATCHES, str(tenant), encode_frame(part), headers)
        for (tenant,), matches in by_tenant.items()
        for part in parts_within(matches, MESSAGE_BYTES)
    ]


def parts_within(frame: pl.DataFrame, limit: int) -> Iterator[pl.DataFrame]:
    """The frame in parts of at most about `limit` bytes in memory, or of one row."""
    if frame.height <= 1 or frame.estimated_size() <= limit:
        yield frame
        return
    half = frame.height // 2
    yield from parts_within(frame[:half], limit)
    yield from parts_within(frame[half:], limit)


def first_unread(stored: StartAt) -> Callable[[Partition], int]:
    """Where to read on: at what is stored, and where nothing is, at the beginning.

    A store that was begun anew must not start where the group of the one before it stood. Where retention has deleted
    the beginning, the bus goes on at the earliest record.
    """
    return lambda partition: stored(partition) or 0


class StoreStage:
    """Alerts into DuckDB. The offset that counts is the one stored with the rows, not the bus's."""

    name = "store"

    def __init__(self, bus: Bus, store: AlertStore, tally: Tally) -> None:
        self._bus = bus
        self._tally = tally
        self._store = store
        self._subscription = bus.subscribe(STORE_GROUP, [TOPIC_ALERTS], start_at=first_unread(store.position))

    def step(self, timeout: float) -> int:
        """Read alerts and store them with their offsets in one transaction."""
        records = self._subscription.poll(timeout, RECORDS_A_STEP)
        if not records:
            return 0
        alerts: list[Alert] = []
        unreadable: list[Message] = []
        for record in records:
            try:
                alerts.append(decode_alert(record.value))
            except AlertDecodeError as error:
                unreadable.append(quarantined(record, str(error)))
        if unreadable:
            self._bus.publish(unreadable)
        ends = next_offsets(records)
        if self._store.record(alerts, ends):
            self._measure(alerts)
        self._tally.add(Flow.QUARANTINED, len(unreadable))
        self._tally.add(Flow.STORED, len(alerts))
        self._subscription.commit(ends)
        return len(records)

    def _measure(self, alerts: Sequence[Alert]) -> None:
        """Note how long alerts took from the line received. Those known before are few: a batch read again has none."""
        now = datetime.now(UTC)
        waits = [(bool(alert.evidence), (now - alert.received).total_seconds()) for alert in alerts]
        self._tally.measure(Measure.ALERT_SECONDS, [max(0.0, wait) for correlated, wait in waits if not correlated])
        self._tally.measure(Measure.CORRELATION_SECONDS, [max(0.0, wait) for correlated, wait in waits if correlated])
        self._tally.alerted(alert.level for alert in alerts)

    def lag(self) -> int:
        """Records waiting on `tocsin.alerts`."""
        return self._subscription.lag()

    def close(self) -> None:
        """Leave the group."""
        self._subscription.close()

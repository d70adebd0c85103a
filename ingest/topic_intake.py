"""Logs that are in a Kafka already: from a hospital's or region's own topic to `tocsin.raw`, one event a record.

Vector, Winlogbeat and rsyslog's omkafka write so. Whose the lines are says the setting, as for a listener; nothing that
a record says of itself counts. A record is one event however many lines its text has.

Nothing twice. What was published and not yet committed when this process died is read and published again, cut in
another way perhaps. So a batch is named after the block of the topic that its records lie in, and a line's row in the
batch is its offset in that block: a line that comes again bears the same name and row, and is left out where it is read
(`tocsin.resends`, docs/decisions/0009-sent-again.md).
Trap: a topic that is deleted and begun anew under its name begins at the same offsets again. What is remembered reaches
back some 64 MiB of the bus, so lines of the new topic that follow the old ones that closely are taken for known: give a
topic that is begun anew a new `name`, which is part of the batches' names.

Nothing lost: positions are committed at the cluster that the records came from, after the bus has their lines on disk.
If the bus is away nothing is read; the topic is the spool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

import structlog

from ingest.batching import Batch
from ingest.bus import TOPICS, Bus, Message, Record, Subscription
from ingest.framing import mark_truncated
from ingest.publisher import unchanged
from ingest.rawbatch import BATCH_FORMAT, BATCH_ID, BATCH_LINES, BATCH_ROW
from ingest.visible import visible

BLOCK: Final = 1 << 16
"""Offsets that share the name of a batch: an entry of the reader's window costs the same whatever its size."""

RECORDS_A_STEP: Final = 4096
LINES_A_MESSAGE: Final = 4000
BYTES_A_MESSAGE: Final = 1_048_576

MAX_LINE: Final = 4_194_304
"""Bytes of a record that are kept, as for listeners: what follows must fit a message of the bus."""

PEER_SCHEME: Final = "kafka:"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

log = structlog.get_logger()


class TopicIntakeError(Exception):
    """A topic cannot be collected from; the message says which and why."""


@dataclass(frozen=True, slots=True)
class TopicSource:
    """A topic with logs.

    Attributes:
        name: What to call it, as a listener.
        tenant: The hospital whose logs they are.
        topic: The topic.
        format: Name of the format that its events have; empty: recognised one by one.
        group: Consumer group under which positions are committed.
        cluster: Tells clusters apart, so that topics of one name are not taken for one.
        patient_data: Whether identifiers of patients are made pseudonyms before lines reach the bus.
    """

    name: str
    tenant: str
    topic: str
    format: str = ""
    group: str = "tocsin-collect"
    cluster: str = ""
    patient_data: bool = False

    @property
    def peer(self) -> str:
        """What stands for the address of the sender."""
        return f"{PEER_SCHEME}{self.topic}"


@dataclass(frozen=True, slots=True)
class TopicCounts:
    """What was taken from a topic.

    Attributes:
        lines: Events published.
        size: Their bytes.
        empty: Records without a value, which are no events (Kafka's mark of a deleted key among them).
        cut: Events of which only the first `MAX_LINE` bytes were kept.
        last: When the last was read.
    """

    lines: int = 0
    size: int = 0
    empty: int = 0
    cut: int = 0
    last: datetime | None = None


class TopicIntake:
    """Reads a topic and publishes its records as raw batches. Stepped like a stage, by one thread.

    Args:
        source: What is read, and whose it is.
        origin: The cluster it is read from.
        bus: Where its lines go.
        protect: Makes a batch with patients' data fit to leave memory (`ingest.patient_guard`).
        heard: Called after each step that went well, with what was taken so far.

    Raises:
        TopicIntakeError: The topic is one of ours.
        BusError: It does not exist, or the cluster is away.
    """

    name = "kafka"

    def __init__(
        self,
        source: TopicSource,
        origin: Bus,
        bus: Bus,
        protect: Callable[[Batch], Batch] = unchanged,
        heard: Callable[[TopicCounts], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if source.topic in TOPICS:
            raise TopicIntakeError(f"{source.name}: {source.topic} is Tocsin's own topic: its lines would go round")
        self._source = source
        self._origin = origin
        self._bus = bus
        self._protect = protect
        self._heard = heard
        self._clock = clock
        self.counts = TopicCounts()
        self._subscription: Subscription = origin.subscribe(source.group, [source.topic])

    def step(self, timeout: float) -> int:
        """Read, publish, commit; how many records were read."""
        records = self._subscription.poll(timeout, RECORDS_A_STEP)
        if records:
            now = self._clock()
            self._bus.publish([self._message(part, now) for part in parts_of(records)])
            self._subscription.commit({record.place: record.offset + 1 for record in records})
            self._count(records, now)
        self._heard(self.counts)
        return len(records)

    def _message(self, records: Sequence[Record], now: datetime) -> Message:
        first, source = records[0], self._source
        batch = Batch(source.tenant, source.peer, 0.0, patient_data=source.patient_data)
        batch.lines = [record.value[:MAX_LINE] for record in records]
        batch.received = [(now - _EPOCH) // timedelta(microseconds=1)] * len(records)
        cut = (at for at, record in enumerate(records) if len(record.value) > MAX_LINE)
        batch.marks = dict.fromkeys(cut, mark_truncated(MAX_LINE))
        batch.size = sum(map(len, batch.lines))
        message = self._protect(batch).message()
        headers = {
            BATCH_ID: f"{self._run(first.partition)}:{first.offset // BLOCK}",
            BATCH_ROW: str(first.offset % BLOCK),
            BATCH_LINES: str(len(records)),
        }
        if source.format:
            headers[BATCH_FORMAT] = source.format
        # The partitions of the topic stay apart, so that each keeps its order and all of ours have work
        return replace(message, key=f"{message.key}/{first.partition}", headers=headers)

    def _run(self, partition: int) -> str:
        """What a listener's run is named for its batches: the same for whoever reads this partition."""
        source = self._source
        named = "\0".join((source.name, source.cluster, source.topic, str(partition), source.tenant))
        return hashlib.sha256(named.encode()).hexdigest()[:16]

    def _count(self, records: Sequence[Record], now: datetime) -> None:
        events = [record for record in records if record.value]
        before = self.counts
        self.counts = TopicCounts(
            lines=before.lines + len(events),
            size=before.size + sum(min(len(record.value), MAX_LINE) for record in events),
            empty=before.empty + len(records) - len(events),
            cut=before.cut + sum(len(record.value) > MAX_LINE for record in events),
            last=now,
        )

    def lag(self) -> int:
        """Records of the topic that are yet to be read."""
        return self._subscription.lag()

    def close(self) -> None:
        """Leave the group. The cluster's connection is closed too, being this intake's alone."""
        counts = self.counts
        log.info(
            "collected",
            source=self._source.name,
            topic=visible(self._source.topic),
            lines=counts.lines,
            empty=counts.empty,
            cut=counts.cut,
        )
        try:
            self._subscription.close()
        finally:
            self._origin.close()


def parts_of(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Records with a value in runs that one message can hold: of one partition and block, offset after offset."""
    events = (record for record in sorted(records, key=lambda record: record.partition) if record.value)

    def run(numbered: tuple[int, Record]) -> tuple[int, int, int]:
        # Along a run without holes offset and count grow alike
        at, record = numbered
        return record.partition, record.offset // BLOCK, record.offset - at

    for _, numbered in groupby(enumerate(events), key=run):
        yield from _within_bounds([record for _, record in numbered])


def _within_bounds(records: Sequence[Record]) -> Iterator[list[Record]]:
    part: list[Record] = []
    size = 0
    for record in records:
        length = min(len(record.value), MAX_LINE)
        if part and (len(part) == LINES_A_MESSAGE or size + length > BYTES_A_MESSAGE):
            yield part
            part, size = [], 0
        part.append(record)
        size += length
    if part:
        yield part

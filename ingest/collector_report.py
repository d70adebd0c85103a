"""What a collector says of itself every few seconds on `tocsin.sources`: what it took, published, dropped and refused.

Counts are those since the collector started and only grow, so a report that comes twice or late changes nothing: of
each run the newest counts. A run has a name that no other has; the counts of all runs are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError

from ingest.bus import TOPIC_SOURCES, Message

REPORT_KEY: Final = "collector/"
"""What the keys of reports begin with; those of counts by source are named after a partition."""


class ReportDecodeError(ValueError):
    """Bytes that are no report: quarantine them, with this reason."""


@dataclass(frozen=True, slots=True)
class ChannelCount:
    """What came from one sender.

    Attributes:
        listener: Its name; empty where that is not told apart.
        tenant: The hospital.
        address: The sender's; "*" for what is beyond the senders that are counted one by one.
        lines: Lines taken.
        bytes: Of those lines.
        durable: Of those lines, how many are known to be on the bus; the others wait in memory or in the spool.
    """

    listener: str
    tenant: str
    address: str
    lines: int = 0
    bytes: int = 0
    durable: int = 0


@dataclass(frozen=True, slots=True)
class ListenerCount:
    """What cannot be said by sender.

    Attributes:
        listener: Its name.
        tenant: The hospital it is bound to; empty if several send there.
        dropped: Datagrams dropped because too much was waiting.
        kernel_dropped: Datagrams that the kernel dropped.
        refused: Reason -> connections and datagrams.
    """

    listener: str
    tenant: str = ""
    dropped: int = 0
    kernel_dropped: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CollectorReport:
    """A collector at one moment.

    Attributes:
        run: Name of this run of it.
        at: The moment, UTC.
        final: Whether it has ended in good order: nothing of this run follows.
        channels: By sender.
        listeners: By listener; also those on which nothing came.
        spool_bytes: Lines on its disk that wait for the bus.
        spool_oldest: When the oldest of them came; None if there are none.
        waiting_bytes: Lines in its memory that wait for the bus.
    """

    run: str
    at: datetime
    final: bool = False
    channels: tuple[ChannelCount, ...] = ()
    listeners: tuple[ListenerCount, ...] = ()
    spool_bytes: int = 0
    spool_oldest: datetime | None = None
    waiting_bytes: int = 0

    def message(self) -> Message:
        """The report as a bus message."""
        return Message(TOPIC_SOURCES, f"{REPORT_KEY}{self.run}", orjson.dumps(asdict(self)))


_REPORT: Final = TypeAdapter(CollectorReport)


def decode_report(value: bytes) -> CollectorReport:
    """Read a report back.

    Raises:
        ReportDecodeError: The bytes are not a report.
    """
    try:
        report = _REPORT.validate_json(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ReportDecodeError(f"not a collector's report: {place}: {first['msg']}") from error
    if report.at.tzinfo is None:
        raise ReportDecodeError("not a collector's report: at has no time zone")
    return report

"""The state of correlations, rebuilt from the bus: there is no checkpoint format that could be lost or outdated.

What a worker knows of a partition of `tocsin.matches` follows from the matches since (watermark - longest window) and
from the correlations that fired since then. Both are on the bus. They are read backwards from the committed position,
in steps, until a step holds nothing of use any more: what is needed is known only from what was read (each hospital
has a watermark of its own, and a hospital whose old logs are played has one months ago).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import polars as pl
import structlog

from detections.correlate import firing_of
from detections.correlation import Firing
from detections.correlation_rule import CorrelationRule
from detections.correlator import MAX_SKEW, Correlator
from detections.match import MATCH_SCHEMA
from ingest.bus import TOPIC_FIRINGS, Bus, Partition, Record
from ingest.ipc import FrameDecodeError, decode_frame
from storage.alert_codec import decode_alert
from storage.errors import AlertDecodeError
from tocsin.readback_matches import ReadbackMatches
from tocsin.stages import PUBLISHED

log = structlog.get_logger()

STEP: Final = 64
"""Records read at once at the beginning of the way back; each step is twice the one before it."""

LONGEST_STEP: Final = 256
"""Matches come in records of up to about 1 MiB."""

HELD_BYTES: Final = 64 * 1024 * 1024
"""Matches that are held in memory on the way back; what is more goes to temporary files."""

SLICE: Final = 50_000
"""Matches given to the engine at once: what it holds of each is much larger than the match."""

CLOCKS_APART: Final = timedelta(hours=1)
"""How far the clocks of the machines that collect and detect may be apart or step; only more is read for it."""

AHEAD: Final = CLOCKS_APART + timedelta(minutes=5)
AHEAD_RECORDS: Final = 4096
"""How far the matches ahead are looked at: more than whoever held the partition may have correlated of them."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a hospital's event time has come, and when.

    Attributes:
        reached: Its newest event time, at most the time it was received.
        read: When that event was read here, by this process's own clock: the collector's may go wrong by minutes.
    """

    reached: datetime
    read: datetime

    def at(self, now: datetime) -> datetime:
        """Its event time at `now`, if it went on as clocks do: also where old logs are played, months ago."""
        return self.reached + max(now - self.read, timedelta())


def paces_of(matches: pl.DataFrame, read: datetime) -> dict[str, Pace]:
    """Tenant -> pace, from matches (`MATCH_SCHEMA`) that correlations look at, read at this time."""
    reached = pl.min_horizontal("timestamp", "received").alias("reached")
    newest = matches.select("tenant", reached).drop_nulls().group_by("tenant").agg(pl.col("reached").max())
    return {tenant: Pace(reached, read) for tenant, reached in newest.iter_rows()}


def faster(known: Pace | None, other: Pace) -> Pace:
    """Of two paces of one hospital the one further on."""
    return other if known is None or other.reached >= known.reached else known


@dataclass(slots=True)
class Readback:
    """What was read back.

    Attributes:
        matches: Those that are needed.
        ahead: Tenant -> the earliest time of a match from the position on.
        paces: Tenant -> how far it had come.
        firings: Correlations that had fired.
        records: How many records were read for it.
    """

    matches: ReadbackMatches
    paces: dict[str, Pace] = field(default_factory=dict)
    ahead: dict[str, datetime] = field(default_factory=dict)
    firings: list[Firing] = field(default_factory=list)
    records: int = 0

    def floor(self, tenant: str, reach: timedelta) -> datetime:
        """The time from which a hospital's matches and firings are of use."""
        reached = self.paces[tenant].reached
        return min(reached, self.ahead.get(tenant, reached)) - reach - MAX_SKEW


def read_back(
    bus: Bus,
    partition: Partition,
    position: int,
    rules: Sequence[CorrelationRule],
    needed: Sequence[str],
    reach: timedelta,
    now: datetime,
) -> Readback:
    """Read what the state at a position of `tocsin.matches` follows from; its `matches` are to be closed.

    Args:
        bus: The bus.
        partition: Of `tocsin.matches`.
        position: The next offset that will be read.
        rules: The correlations.
        needed: Ids of the rules whose matches they look at.
        reach: How far before a hospital's newest event time matches still matter: lateness and longest window.
        now: This process's clock; each hospital's time goes on from here.

    Raises:
        BusError: The bus cannot be asked.
    """
    with ExitStack() as undo:
        found = Readback(undo.enter_context(closing(ReadbackMatches(HELD_BYTES, SLICE))))
        found.ahead = _ahead(bus, partition, position, needed)
        newest = _read_matches(bus, partition, position, needed, found, reach, now)
        if newest is not None:
            found.firings = _firings(bus, found, {rule.id: rule for rule in rules}, newest, reach)
        undo.pop_all()
    return found


def _read_matches(
    bus: Bus,
    partition: Partition,
    position: int,
    needed: Sequence[str],
    found: Readback,
    reach: timedelta,
    now: datetime,
) -> datetime | None:
    """Read the matches; when the newest of them were put on the bus."""
    newest: datetime | None = None
    for records in _steps(bus, partition, position):
        found.records += len(records)
        matches = _wanted(records, needed)
        for tenant, pace in paces_of(matches, now).items():
            found.paces[tenant] = faster(found.paces.get(tenant), pace)
        published = published_of(records) or _newest_received(matches)
        newest = newest or published
        useful = matches.filter(pl.col("timestamp") >= _floor(matches, found, reach))
        if useful.height:
            found.matches.add_before(useful)
        elif published is not None and newest is not None and published < newest - reach - CLOCKS_APART:
            break
    return newest


def rebuild(correlator: Correlator, found: Readback) -> Iterator[pl.DataFrame]:
    """Bring a new correlator to where the one before it was; yields the matches as it takes them.

    In the order of event time: what was read live in one step may lie in two steps of the way back, and would be late
    in the second. Time goes no further than to the earliest match ahead: workers put on the bus what they find each at
    its own pace, and that match may have been correlated with later ones that lie before it.
    """
    correlator.restore(found.firings)
    for part in found.matches.in_order():
        correlator.replay(part, found.ahead)
        yield part
    correlator.resume()


def _steps(bus: Bus, partition: Partition, end: int) -> Iterator[list[Record]]:
    """The records before `end`, backwards in steps; ends where retention has deleted the rest."""
    size = STEP
    while end > 0:
        records = bus.read(partition, max(0, end - size), end)
        if not records:
            return
        yield records
        end = max(0, end - size)
        size = min(2 * size, LONGEST_STEP)


def _ahead(bus: Bus, partition: Partition, position: int, needed: Sequence[str]) -> dict[str, datetime]:
    """The earliest time of each hospital's matches from a position on."""
    earliest: dict[str, datetime] = {}
    first: datetime | None = None
    end = min(bus.ends([partition.topic]).get(partition, position), position + AHEAD_RECORDS)
    for start in range(position, end, LONGEST_STEP):
        records = bus.read(partition, start, min(start + LONGEST_STEP, end))
        times = _wanted(records, needed).select("tenant", pl.min_horizontal("timestamp", "received").alias("time"))
        for tenant, time in times.drop_nulls().group_by("tenant").agg(pl.col("time").min()).iter_rows():
            earliest[tenant] = min(time, earliest.get(tenant, time))
        published = published_of(records)
        first = first or published
        if published is not None and first is not None and published > first + AHEAD:
            break
    return earliest


def _wanted(records: Sequence[Record], needed: Sequence[str]) -> pl.DataFrame:
    frames = [pl.DataFrame(schema=MATCH_SCHEMA)]
    for record in records:
        try:
            frames.append(decode_frame(record.value, MATCH_SCHEMA).filter(pl.col("rule_id").is_in(needed)))
        except FrameDecodeError as error:  # in quarantine since it was first read
            log.debug("passed over", topic=record.topic, offset=record.offset, reason=str(error))
    return pl.concat(frames)


def _floor(matches: pl.DataFrame, found: Readback, reach: timedelta) -> pl.Series:
    """For each match the time from which its hospital's matches are of use.

    A date in the future is corrected by the engine to that of the reception; nothing of the last minute is left out.
    """
    floors = {tenant: found.floor(tenant, reach) for tenant in found.paces}
    return matches["tenant"].replace_strict(floors, default=None, return_dtype=MATCH_SCHEMA["timestamp"])


def published_of(records: Sequence[Record]) -> datetime | None:
    """When the newest of these was put on the bus; None where none says."""
    times = [time for record in records if (time := _time_of(record.headers.get(PUBLISHED))) is not None]
    return max(times, default=None)


def _time_of(text: str | None) -> datetime | None:
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:  # written by another program
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _newest_received(matches: pl.DataFrame) -> datetime | None:
    newest = matches["received"].max()
    return newest if isinstance(newest, datetime) else None


def _firings(
    bus: Bus, found: Readback, rules: dict[str, CorrelationRule], newest: datetime, reach: timedelta
) -> list[Firing]:
    """The correlations that fired, of all hospitals, as far back as one of them may matter."""
    floors = {tenant: found.floor(tenant, reach) for tenant in found.paces}
    firings: list[Firing] = []
    for partition, end in bus.ends([TOPIC_FIRINGS]).items():
        for records in _steps(bus, partition, end):
            found.records += len(records)
            useful = [
                firing
                for firing in _read(records, lambda record: firing_of(decode_alert(record.value), rules))
                if firing.timestamp >= floors.get(firing.tenant, newest - reach - CLOCKS_APART)
            ]
            firings += useful
            published = published_of(records)
            if not useful and published is not None and published < newest - reach - CLOCKS_APART:
                break
    return firings


def _read(records: Sequence[Record], reader: Callable[[Record], T | None]) -> Iterator[T]:
    for record in records:
        try:
            item = reader(record)
        except AlertDecodeError as error:
            log.warning("a firing cannot be read back", offset=record.offset, reason=str(error))
            continue
        if item is not None:
            yield item

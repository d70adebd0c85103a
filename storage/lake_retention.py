"""How long the lake keeps what: by hospital and log source, in whole days.

A partition of a table is one day (UTC, `storage.lake_columns.DATE`) of one hospital. It is over when its day lies more
days back than its rule says; it then goes whole. Of the rules that fit, the one that names most parts holds; of two
that name as many, the one that names the hospital, then the one that keeps longer. No rule keeps longer than
`longest_days`: only a legal hold does (`storage.lake_hold`). A file without a day counts by the day it was written.

Nothing goes without a record (`storage.lake_purge`), nor while the time is in doubt (`storage.lake_clock`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import structlog

from ingest.logsource import LogSource
from storage.errors import LakeError
from storage.lake_clock import believe
from storage.lake_commits import open_table, table_folder, table_names
from storage.lake_hold import Hold, holding, read_holds
from storage.lake_manifest import PURGES
from storage.lake_place import LakePlace
from storage.lake_purge import DONE, Choice, Expired, finish_interrupted, remove
from storage.lake_removal import LakeFile, files_of
from storage.lake_table import LAKE_FAULTS, described
from storage.signing import Signer

RETENTION: Final = "retention"
"""Who removes what is over."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """How long some events stay; an empty part is any."""

    days: int
    hospital: str = ""
    product: str = ""
    category: str = ""
    service: str = ""

    def fits(self, hospital: str | None, logsource: LogSource) -> bool:
        """Whether the rule is about events of a hospital and a table."""
        named = LogSource(self.product or None, self.category or None, self.service or None)
        return self.hospital in ("", hospital) and named.meets(logsource)

    @property
    def weight(self) -> tuple[int, bool, int]:
        """The greatest weight holds."""
        parts = (self.hospital, self.product, self.category, self.service)
        return sum(map(bool, parts)), bool(self.hospital), self.days

    def __str__(self) -> str:
        parts = {"hospital": self.hospital, "product": self.product, "category": self.category, "service": self.service}
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value) or "all"


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """What is kept how long.

    Attributes:
        days: Where no rule fits.
        longest: Whatever a rule says.
        rules: In any order.
    """

    days: int
    longest: int
    rules: Sequence[RetentionRule] = ()

    def rule(self, hospital: str | None, logsource: LogSource) -> RetentionRule:
        """The rule that holds."""
        fitting = [rule for rule in self.rules if rule.fits(hospital, logsource)]
        return max(fitting, key=lambda rule: rule.weight, default=RetentionRule(self.days))

    def days_kept(self, hospital: str | None, logsource: LogSource) -> int:
        """How many days."""
        return min(self.rule(hospital, logsource).days, self.longest)

    def over(self, logsource: LogSource, today: date) -> Choice:
        """Which files of a table are over, and by which rule."""

        def why(file: LakeFile) -> str | None:
            days = self.days_kept(file.tenant, logsource)
            day = file.day or file.written.astimezone(UTC).date()
            return f"{days} days: {self.rule(file.tenant, logsource)}" if (today - day).days > days else None

        return why


@dataclass(frozen=True, slots=True)
class Due:
    """A partition that would go.

    Attributes:
        partition: What it is.
        holds: Names of the holds that keep it; empty if it goes.
    """

    partition: Expired
    holds: tuple[str, ...]


ChoiceFor = Callable[[LogSource], Choice]


def expire(
    place: LakePlace, rules: RetentionRules, now: datetime, holds: Sequence[Hold], signer: Signer
) -> list[Expired]:
    """Take out of the tables what is over; removals that were interrupted are finished first.

    Args:
        place: The lake.
        rules: What is kept how long.
        now: The time.
        holds: What stays whatever the rules say; holds in the lake count in any case.
        signer: Signs the records.

    Raises:
        ClockDoubt: Something is over, but the time is in doubt: nothing was removed.
        LakeError: A hold or a record is not what was written, or a table cannot be read or written.
    """
    today = now.astimezone(UTC).date()
    gone: list[Expired] = []
    with place.lock(PURGES):
        gone += _finish(place, signer, now)
        standing = [*holds, *read_holds(place)]
        due = survey(place, lambda logsource: rules.over(logsource, today), standing)
        tables = dict.fromkeys(one.partition.table for one in due if not one.holds)
        if not tables:
            return gone
        believe(place, _data_files(place), now)
        for table in tables:
            choose = rules.over(_opened(place, table)[0], today)
            gone += remove(place, table, choose, standing, signer, now, who=RETENTION)
    return gone


def purge(
    place: LakePlace, choice: ChoiceFor, now: datetime, signer: Signer, *, who: str, reason: str
) -> list[Expired]:
    """Take out what a person, or the law, wants gone, and remove the files at once; holds keep what they cover.

    Args:
        place: The lake.
        choice: Which files (`of_hospital`).
        now: For the records.
        signer: Signs them.
        who: For the records.
        reason: For the records.

    Raises:
        LakeError: A hold or a record is not what was written, or a table cannot be read or written.
    """
    gone: list[Expired] = []
    with place.lock(PURGES):
        gone += _finish(place, signer, now)
        for table in table_names(place):
            choose = choice(_opened(place, table)[0])
            gone += remove(place, table, choose, [], signer, now, who=who, reason=reason, at_once=True)
    return gone


def of_hospital(hospital: str, before: date | None, wanted: LogSource) -> ChoiceFor:
    """What `purge` takes: a hospital's partitions, of days before a day, of the tables that a log source meets."""

    def choice(logsource: LogSource) -> Choice:
        def why(file: LakeFile) -> str | None:
            day = file.day or file.written.astimezone(UTC).date()
            asked = file.tenant == hospital and (before is None or day < before) and wanted.meets(logsource)
            return "purge" if asked else None

        return why

    return choice


def survey(place: LakePlace, choice: ChoiceFor, holds: Sequence[Hold]) -> list[Due]:
    """The partitions that a choice takes, oldest first in each table, and what keeps them.

    Raises:
        LakeError: A table cannot be read.
    """
    found: list[Due] = []
    for table in table_names(place):
        logsource, files = _opened(place, table)
        choose = choice(logsource)
        groups: dict[tuple[str, str, str], list[LakeFile]] = {}
        for file in files:
            why = choose(file)
            if why is not None:
                groups.setdefault((str(file.day or ""), file.tenant or "", why), []).append(file)
        for (_, _, why), group in sorted(groups.items()):
            names = tuple(hold.name for hold in holding(holds, group[0].day, group[0].tenant, logsource))
            found.append(Due(_partition(table, group, why), names))
    return found


def hospitals(place: LakePlace) -> set[str]:
    """The hospitals that have events in the lake.

    Raises:
        LakeError: A table cannot be read.
    """
    tables = (_opened(place, table)[1] for table in table_names(place))
    return {file.tenant for files in tables for file in files if file.tenant is not None}


def _data_files(place: LakePlace) -> Iterator[tuple[str, datetime]]:
    for table in table_names(place):
        for file in _opened(place, table)[1]:
            yield f"{table_folder(table)}/{file.path}", file.written


def _finish(place: LakePlace, signer: Signer, now: datetime) -> list[Expired]:
    """What went by removals that were interrupted; each is told in the log."""
    finished = finish_interrupted(place, signer, now)
    for record in finished:
        log.warning("an interrupted removal was found", table=record.table, state=record.state, note=record.note)
    return [part for record in finished if record.state == DONE for part in record.partitions]


def _opened(place: LakePlace, table: str) -> tuple[LogSource, list[LakeFile]]:
    try:
        delta = open_table(place, table)
        return described(delta), files_of(delta)
    except LAKE_FAULTS as error:
        raise LakeError(f"lake table {place.name}/{table_folder(table)}: cannot read: {error}") from error


def _partition(table: str, files: Sequence[LakeFile], why: str) -> Expired:
    return Expired(
        *(table, files[0].day, files[0].tenant, len(files)),
        *(sum(file.rows for file in files), sum(file.bytes for file in files)),
        *(min((str(file.first) for file in files if file.first), default=""), ""),
        why,
    )

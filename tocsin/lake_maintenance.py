"""Keeping the lake in order: remove what is over, put small files together, seal, clean up; again and again.

A table that fails does not keep the others from their turn: it is named in the log, counted, and tried again in the
next round. One process at a time does this where the lake lies on a local disk; elsewhere the commits of two settle it,
of which one loses and has worked in vain (`storage.lake_removal`).

It is work that can wait. On Linux its thread runs at low priority, and between pieces of some megabytes it looks
whether it is to end.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from storage.errors import LakeError
from storage.lake_cleanup import Cleaned, clean
from storage.lake_commits import table_names
from storage.lake_compact import Compacted, compact
from storage.lake_manifest import seal
from storage.lake_place import LakePlace
from storage.lake_retention import RetentionRule, RetentionRules, expire
from storage.lake_table import EVENTS
from storage.signing import Signer, open_signer
from tocsin.lake_place import lake_of
from tocsin.settings import Settings
from tocsin.settings_sections import LakeSection

log = structlog.get_logger()

LOW_PRIORITY: Final = 10
LOCK: Final = "maintenance"
CLEAN_EVERY: Final = timedelta(hours=1)
"""Cleanup lists every file of a table; what it looks for is days old."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did.

    Attributes:
        tables: Tables looked at.
        expired: Rows removed because they are over.
        compacted: What was put together.
        sealed: Tables sealed anew.
        cleaned: What was deleted.
        failures: Steps that failed, by their names and tables.
        busy: Whether another process was at it, so that nothing was done.
    """

    tables: int = 0
    expired: int = 0
    compacted: Compacted = field(default_factory=Compacted)
    sealed: int = 0
    cleaned: Cleaned = field(default_factory=Cleaned)
    failures: tuple[str, ...] = ()
    busy: bool = False


class LakeMaintenance:
    """Rounds over a lake.

    Args:
        place: The lake.
        section: Sizes and times.
        signer: Signs what is sealed and what is removed.
        clock: The present, with time zone.
    """

    def __init__(
        self,
        place: LakePlace,
        section: LakeSection,
        signer: Signer,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.rounds = 0
        self.failures = 0
        self._place = place
        self._file_bytes = section.file_bytes
        self._rules = retention_rules(section)
        self._signer = signer
        self._clock = clock
        self._cleaned: datetime | None = None
        self._told: set[tuple[str, str]] = set()  # steps that fail, each said once

    def run(self, stop: threading.Event, seconds: float, failing: Callable[[str | None], None]) -> None:
        """Make rounds until `stop`.

        Args:
            stop: Ends it after the piece of work under way.
            seconds: Between two rounds.
            failing: Told what failed in the last round; None if nothing did.
        """
        lower_priority()
        while not stop.wait(seconds):
            done = self.round(stop.is_set)
            failing("; ".join(done.failures) or None)

    def round(self, stop: Callable[[], bool] = lambda: False) -> Round:
        """One round over all tables. What fails is logged and stands in the answer; nothing foreseen is raised."""
        try:
            with self._place.lock(LOCK, wait=False):
                done = self._round(stop)
        except BlockingIOError:
            log.info("the lake is being kept in order by another process")
            return Round(busy=True)
        except LakeError as error:
            done = Round(failures=(str(error),))
            self._fails("lock", "", error)
        self.rounds += 1
        self.failures += len(done.failures)
        return done

    def _round(self, stop: Callable[[], bool]) -> Round:
        failures: list[str] = []
        done = Round()
        with self._reported("expiry", "", failures):
            gone = expire(self._place, self._rules, self._clock(), (), self._signer)
            for one in gone:
                log.info("lake: expired", table=one.table, day=str(one.day), hospital=one.hospital, rows=one.rows)
            done = replace(done, expired=sum(one.rows for one in gone))
        tables = self._tables(failures)
        for name in tables:
            if not stop():
                with self._reported("compaction", name, failures):
                    done = replace(done, compacted=done.compacted + self._compact(name, stop))
        if not stop():
            with self._reported("seal", "", failures):
                done = replace(done, sealed=len(seal(self._place, self._signer, self._clock())))
        if self._cleaned is None or self._clock() - self._cleaned >= CLEAN_EVERY:
            for name in tables:
                if not stop():
                    with self._reported("cleanup", name, failures):
                        done = replace(done, cleaned=done.cleaned + self._clean(name))
            self._cleaned = self._clock()
        return replace(done, tables=len(tables), failures=tuple(failures))

    def _tables(self, failures: list[str]) -> list[str]:
        names: list[str] = []
        with self._reported("listing", "", failures):
            names += table_names(self._place)
        return names

    def _compact(self, name: str, stop: Callable[[], bool]) -> Compacted:
        found = compact(self._place, f"{EVENTS}/{name}", file_bytes=self._file_bytes, now=self._clock, stop=stop)
        if found.files_before or found.conflicts:
            log.info(
                "lake: compacted",
                table=name,
                files=found.files_before,
                into=found.files_after,
                bytes=found.bytes_before,
                now_bytes=found.bytes_after,
                rows=found.rows,
                conflicts=found.conflicts,
            )
        return found

    def _clean(self, name: str) -> Cleaned:
        found = clean(self._place, f"{EVENTS}/{name}", self._clock())
        if found != Cleaned():
            log.info(
                "lake: cleaned up", table=name, files=found.files, bytes=found.bytes, log_entries=found.log_entries
            )
        return found

    @contextmanager
    def _reported(self, step: str, table: str, failures: list[str]) -> Iterator[None]:
        """Log what a step failed of, and go on: the next table is not to blame."""
        try:
            yield
        except LakeError as error:
            self._fails(step, table, error)
            failures.append(f"{step} {table}: {error}" if table else f"{step}: {error}")
        else:
            if (step, table) in self._told:
                self._told.discard((step, table))
                log.info("lake: a step of its maintenance works again", step=step, table=table)

    def _fails(self, step: str, table: str, error: LakeError) -> None:
        say = log.debug if (step, table) in self._told else log.error  # once, not in every round
        say("lake: a step of its maintenance failed", step=step, table=table, error=str(error))
        self._told.add((step, table))


def maintenance_of(settings: Settings) -> LakeMaintenance:
    """The maintenance of the lake that the settings name.

    Raises:
        LakeError: The lake cannot be reached, or the key that signs for it cannot be read.
    """
    return LakeMaintenance(lake_of(settings).place, settings.lake, open_signer(settings.registry_path / "keys"))


def retention_rules(section: LakeSection) -> RetentionRules:
    """What the settings say of keeping."""
    rules = [
        RetentionRule(rule.days, rule.hospital, rule.product, rule.category, rule.service) for rule in section.retention
    ]
    return RetentionRules(section.retention_days, section.longest_days, rules)


def lower_priority() -> None:
    """Let all else go first: of this thread alone where the system can do so (on Linux a thread has its own)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)

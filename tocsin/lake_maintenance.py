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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from storage.errors import LakeError
from storage.lake_cleanup import Cleaned, clean
from storage.lake_clock import ClockDoubt
from storage.lake_commits import table_names
from storage.lake_compact import Compacted, compact
from storage.lake_manifest import seal
from storage.lake_place import LakePlace
from storage.lake_retention import RetentionRule, RetentionRules, expire
from storage.lake_table import EVENTS
from storage.signing import Signer, open_signer
from tocsin.chores import EXPIRY_WAITS, Chore, note_chore
from tocsin.lake_place import lake_of
from tocsin.settings import Settings
from tocsin.settings_sections import LakeSection

log = structlog.get_logger()

LOW_PRIORITY: Final = 10
LOCK: Final = "maintenance"
CLEAN_EVERY: Final = timedelta(hours=1)
"""Cleanup lists every file of a table; what it looks for is days old."""
HALF_WRITTEN: Final = timedelta(hours=1)
"""What a writer left half written is taken for abandoned after this long: a live one needs moments."""
STEP_SECONDS: Final = 5.0
"""While nothing is to be done, that it lives is said this often."""


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
        waiting: Why what is over was not removed, though nothing failed; empty if there is no doubt.
        partial: Files removed that writers that died left half written.
        busy: Whether another process was at it, so that nothing was done.
    """

    tables: int = 0
    expired: int = 0
    compacted: Compacted = field(default_factory=Compacted)
    sealed: int = 0
    cleaned: Cleaned = field(default_factory=Cleaned)
    failures: tuple[str, ...] = ()
    waiting: str = ""
    partial: int = 0
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
        self._doubted = False

    def run(
        self,
        stop: threading.Event,
        seconds: float,
        tell: Callable[[Round], None],
        stepped: Callable[[], None] = lambda: None,
        first: float | None = None,
    ) -> None:
        """Wait and make a round, in turn, until `stop`.

        Args:
            stop: Ends it after the piece of work under way.
            seconds: Between two rounds.
            tell: Told what each round did.
            stepped: Called after each piece of work, and while it waits: it lives.
            first: Before the first one; as between two if not said.
        """

        def asked() -> bool:
            stepped()
            return stop.is_set()

        lower_priority()
        pause = seconds if first is None else first
        while _wait(stop, pause, stepped):
            tell(self.round(asked))
            pause = seconds

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
            expired, waiting = self._expire()
            done = replace(done, expired=expired, waiting=waiting)
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
                        done = replace(done, cleaned=done.cleaned + self._clean(name, stop))
            with self._reported("cleanup", "", failures):
                done = replace(done, partial=self._discard_partial())
            self._cleaned = self._clock()
        return replace(done, tables=len(tables), failures=tuple(failures))

    def _tables(self, failures: list[str]) -> list[str]:
        names: list[str] = []
        with self._reported("listing", "", failures):
            names += table_names(self._place)
        return names

    def _expire(self) -> tuple[int, str]:
        """How many rows went, and why none did."""
        try:
            gone = expire(self._place, self._rules, self._clock(), (), self._signer)
        except ClockDoubt as doubt:
            say = log.debug if self._doubted else log.warning  # once, not in every round
            say("lake: expiry waits", reason=str(doubt))
            self._doubted = True
            return 0, str(doubt)
        if self._doubted:
            log.info("lake: expiry goes on")
        self._doubted = False
        for one in gone:
            log.info("lake: expired", table=one.table, day=str(one.day), hospital=one.hospital, rows=one.rows)
        return sum(one.rows for one in gone), ""

    def _discard_partial(self) -> int:
        found = self._place.discard_partial(self._clock() - HALF_WRITTEN)
        if found:
            log.info("lake: removed what writers that died left half written", files=found)
        return found

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

    def _clean(self, name: str, stop: Callable[[], bool]) -> Cleaned:
        found = clean(self._place, f"{EVENTS}/{name}", self._clock(), stop=stop)
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


def noting_rounds(data_dir: Path, failing: Callable[[str | None], None]) -> Callable[[Round], None]:
    """What to tell of each round: it leaves a note (`tocsin.chores`), and passes on what failed."""

    def tell(done: Round) -> None:
        if done.busy:  # the other process notes what it does
            failing(None)
            return
        reason = "; ".join(done.failures)
        figures = {EXPIRY_WAITS: float(bool(done.waiting))}
        note_chore(data_dir, Chore.MAINTAIN, ok=not reason, reason=reason or done.waiting, figures=figures)
        failing(reason or None)

    return tell


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


def _wait(stop: threading.Event, seconds: float, stepped: Callable[[], None]) -> bool:
    """Whether the time has passed and it is not to end."""
    until = time.monotonic() + seconds
    while not stop.is_set():
        stepped()
        left = until - time.monotonic()
        if left <= 0:
            return True
        stop.wait(min(left, STEP_SECONDS))
    return False


def lower_priority() -> None:
    """Let all else go first: of this thread alone where the system can do so (on Linux a thread has its own)."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
    if os.getpriority(os.PRIO_PROCESS, thread) < LOW_PRIORITY:  # raising it again would take a right that it has not
        os.setpriority(os.PRIO_PROCESS, thread, LOW_PRIORITY)

"""The keeper of the alert store, in the process that holds it: backups by the clock, and what is asked by file.

When the next backup is due follows from the newest one that lies there, not from when the process started: a process
that is restarted every day still makes them. Where there is none yet, the first comes soon after the start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from storage.alert_backup import Backup, backups_in, keep_newest, made_at
from storage.alerts import AlertStore, utc_now
from storage.errors import StoreError
from tocsin.alert_requests import Request, What, answer_requests
from tocsin.languages import gettext, number

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.5
FIRST: Final = timedelta(minutes=10)
RETRY: Final = timedelta(minutes=10)


class AlertKeeper:
    """Makes backups of an open store.

    Args:
        store: The store.
        folder: Of the backups.
        every: Between two of them; None: only those that are asked for.
        kept: How many are kept.
        failing: Told why the last backup failed; None once one succeeds.
        clock: The time.
    """

    def __init__(
        self,
        store: AlertStore,
        folder: Path,
        every: timedelta | None,
        kept: int,
        failing: Callable[[str | None], None],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._folder = folder
        self._every = every
        self._kept = kept
        self._failing = failing
        self._clock = clock
        self._due = self._next(clock() + FIRST)
        self._deaf = ""

    def run(self, stop: threading.Event) -> None:
        """Keep the store until `stop`."""
        while not stop.wait(LOOK_SECONDS):
            self.step()

    def step(self) -> None:
        """Do what is asked, and make a backup if one is due."""
        try:
            answer_requests(self._store.path, self._do)
            self._deaf = ""
        except OSError as error:
            if str(error) != self._deaf:  # said once, not twice a second
                self._deaf = str(error)
                log.error("requests for the alert store cannot be read", error=self._deaf)  # noqa: TRY400 - foreseen
        if self._due is not None and self._clock() >= self._due:
            self._back_up_by_the_clock()

    def _next(self, first: datetime) -> datetime | None:
        if self._every is None:
            return None
        newest = backups_in(self._folder)
        # A newest one from the future is of a clock that was wrong: it must not put off the next for years
        return min(made_at(newest[0]), self._clock()) + self._every if newest else first

    def _back_up_by_the_clock(self) -> None:
        try:
            self._back_up(self._folder)
        except StoreError as error:
            log.error("backup failed", error=str(error))  # noqa: TRY400 - foreseen
            self._failing(str(error))
            self._due = self._clock() + RETRY

    def _back_up(self, folder: Path) -> Backup:
        backup = self._store.backup(folder)
        log.info("backup made", folder=str(backup.folder), bytes=backup.bytes, alerts=backup.rows("alerts"))
        if folder == self._folder:
            self._failing(None)
            keep_newest(folder, self._kept)
            self._due = self._next(self._clock())
        return backup

    def _do(self, request: Request) -> list[str]:
        if request.what is What.VERIFY:
            return self._store.verify()
        folder = Path(request.folder)
        if request.what is What.EXPORT:
            return [str(path) for path in self._store.export_parquet(folder)]
        return backup_lines(self._back_up(folder))


def backup_lines(backup: Backup) -> list[str]:
    """A backup, for people."""
    made = gettext("{folder}: {alerts} alerts, {decisions} decisions, {size} bytes")
    return [
        made.format(
            folder=backup.folder,
            alerts=number(backup.rows("alerts")),
            decisions=number(backup.rows("decisions")),
            size=number(backup.bytes),
        ),
        head_line(backup.head),
    ]


def head_line(head: tuple[int, str]) -> str:
    """The end of a journal, to be noted elsewhere."""
    return gettext("the journal ends with entry {seq}, {hash}: note it elsewhere").format(seq=head[0], hash=head[1])


def every(hours: float) -> timedelta | None:
    """The time between two backups; None for 0."""
    return timedelta(hours=hours) if hours else None


def as_utc(moment: datetime) -> str:
    """A moment for people."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

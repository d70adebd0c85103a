"""Threads that live and die together, and stages that are started anew when their bus or store fails them.

A process that runs several stages must not go on with one of them dead: an error that nobody foresaw ends the process,
loudly. An error that is foreseen (the broker is away, the disk is full) closes the stage, is said once, and the stage
is made anew after a pause: it then reads on from its last commit, so nothing has to be repaired in place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Final, Protocol

import structlog

from ingest.bus import BusError
from storage.errors import StorageError
from tocsin.foreseen import FORESEEN
from tocsin.stages import Stage

log = structlog.get_logger()

POLL_SECONDS: Final = 0.25
LAG_SECONDS: Final = 1.0
SOUND_SECONDS: Final = 10.0
"""Without an error, after which a stage works again: twice the time in which `detect` fills the lake once."""

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0
"""Seconds to the next attempt: it doubles from the first to the longest."""

PASSING_ERRORS: Final = (BusError, StorageError)
"""What a stage may meet and get over: something outside the process does not answer."""


class Crew:
    """Named threads with one stop event; the first that fails stops all."""

    def __init__(self, size: int) -> None:
        self.stop = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=size, thread_name_prefix="tocsin")
        self._members: list[Future[None]] = []

    def start(self, work: Callable[[threading.Event], None]) -> Future[None]:
        """Run `work(stop)` in a thread of its own until it returns or fails."""
        member = self._pool.submit(work, self.stop)
        member.add_done_callback(self._ended)
        self._members.append(member)
        return member

    def _ended(self, member: Future[None]) -> None:
        error = None if member.cancelled() else member.exception()
        if error is not None:
            # What is foreseen is said once, in one line, by whoever ends the process
            if not isinstance(error, FORESEEN):
                log.critical("a thread ends by an error, and the process with it", exc_info=error)
            self.stop.set()

    def join(self) -> None:
        """Wait until every thread has ended.

        Raises:
            BaseException: What the first thread to fail died of.
        """
        wait(self._members)
        self._pool.shutdown()
        for member in self._members:
            member.result()


class Watch(Protocol):
    """Who is told how a stage fares, from the stage's own thread."""

    def beginning(self, stage: str) -> None:
        """It is being made, or made anew."""

    def stepped(self, stage: str, records: int) -> None:
        """It has ended a step, in which it read so many records."""

    def ended(self, stage: str) -> None:
        """It was asked to end, and has."""

    def lag(self, stage: str, records: int) -> None:
        """Records it has yet to read."""

    def failing(self, stage: str, reason: str | None) -> None:
        """Why it pauses; None once it has worked again for `SOUND_SECONDS`."""


def run_stage(
    name: str,
    make: Callable[[], Stage],
    stop: threading.Event,
    watch: Watch,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Step a stage until `stop`, making it anew when something outside fails.

    Args:
        name: What to call it.
        make: Gives a fresh stage that resumes at its last commit.
        stop: Ends the loop after the step under way; the stage is then closed, which makes its work durable.
        watch: Told how it fares.
        clock: Seconds, monotonic.
    """
    pause = FIRST_PAUSE
    told = Failing(name, watch)
    while not stop.is_set():
        begun = clock()
        watch.beginning(name)
        try:
            with closing(make()) as stage:
                _step(name, stage, stop, watch, told, clock)
        except PASSING_ERRORS as error:
            # A stage that reads well and fails at each commit is not sound: only time without an error is.
            pause = FIRST_PAUSE if clock() - begun > SOUND_SECONDS else min(pause * 2, LONGEST_PAUSE)
            told.fails(error, pause)
            stop.wait(pause)
    watch.ended(name)


class Failing:
    """What is said of a stage that fails: once when it begins, or fails of something else, and when it is over."""

    def __init__(self, stage: str, watch: Watch) -> None:
        self._stage = stage
        self._watch = watch
        self._kind: type[BaseException] | None = None

    def fails(self, error: Exception, pause: float) -> None:
        """It has failed, and is made anew after so many seconds."""
        say = log.debug if isinstance(error, self._kind or ()) else log.error
        say("stage pauses, and tries until it can go on", stage=self._stage, seconds=pause, error=str(error))
        self._kind = type(error)
        self._watch.failing(self._stage, str(error))

    def works(self) -> None:
        """It has done so for a while without an error."""
        if self._kind is not None:
            log.info("stage works again", stage=self._stage)
        self._kind = None
        self._watch.failing(self._stage, None)


def _step(
    name: str, stage: Stage, stop: threading.Event, watch: Watch, told: Failing, clock: Callable[[], float]
) -> None:
    begun, observed, sound = clock(), -LAG_SECONDS, False
    while not stop.is_set():
        watch.stepped(name, stage.step(POLL_SECONDS))
        if clock() - observed >= LAG_SECONDS:
            observed = clock()
            watch.lag(name, stage.lag())
        if not sound and clock() - begun > SOUND_SECONDS:
            sound = True
            told.works()

"""Batches with patients' data, between the batcher and the publisher: each is protected by itself, hospitals in turn.

    batcher -> waiting, a queue a hospital -> one thread -> fit to leave -> publisher

Reading a batch for patients takes far longer than publishing it, and needs the hospital's keys and its vault. So what
has no patients never waits here, a hospital waits for at most one batch of each other, and one whose vault or keys fail
holds back its own lines and nobody else's: they stay in memory, where they count against the hospital's share
(`ingest.batching`), so that its senders are made to wait in the end. They are tried again, for as long as it takes.

Batches of one hospital leave in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

import structlog

from ingest.batching import Batch
from ingest.hospital_keys import PatientDataError
from ingest.listeners import worth_logging

MOST_FIT: Final = 16 * 1024 * 1024
"""Bytes of memory in protected batches that nobody has taken, from which no further one is begun."""

FIRST_RETRY: Final = 0.1
LONGEST_RETRY: Final = 5.0
"""Seconds before a hospital that failed is tried again: doubled from the first to the longest."""

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


@dataclass(frozen=True, slots=True)
class Fit:
    """A batch that may leave memory.

    Attributes:
        batch: As it came: what is counted, and whom to tell.
        out: What leaves in its place.
    """

    batch: Batch
    out: Batch


@dataclass(slots=True)
class _Failing:
    tries: int
    delay: float
    again: float  # when, in seconds of the loop's clock


class Protection:
    """Protects batches for one event loop, to which all methods belong.

    Args:
        protect: Makes a batch fit; called in a thread of its own. A `PatientDataError` holds its hospital back.
        ready: Called when something is fit, or went wrong: `take` then says.
    """

    def __init__(self, protect: Callable[[Batch], Batch], ready: Callable[[], None]) -> None:
        self._protect = protect
        self._ready = ready
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="protect")
        self._waiting: dict[str, deque[Batch]] = {}  # the first hospital is the next to be served
        self._failing: dict[str, _Failing] = {}
        self._fit: deque[Fit] = deque()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing here."""
        return not (self._waiting or self._fit)

    @property
    def hospitals(self) -> frozenset[str]:
        """Those of which batches wait to be protected."""
        return frozenset(self._waiting)

    @property
    def held(self) -> frozenset[str]:
        """Those whose batches wait because they could not be protected."""
        return frozenset(self._failing)

    def put(self, batch: Batch) -> None:
        """A batch to protect, behind those of its hospital."""
        self._waiting.setdefault(batch.tenant, deque()).append(batch)
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="protect")
            self._task.add_done_callback(lambda _: self._ready())
        self._changed.set()

    def take(self) -> list[Fit]:
        """What is fit by now, in order. An error that nobody foresaw is raised here."""
        if self._task is not None and self._task.done():
            self._task.result()
        fit = list(self._fit)
        self._fit.clear()
        self._changed.set()
        return fit

    async def abandon(self) -> tuple[list[Fit], int]:
        """Try what is left a last time, and close: what is fit, and how many lines are not."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        left = 0
        for hospital, batches in self._waiting.items():
            while batches:
                try:
                    self._fit.append(Fit(batches[0], await self._protected(batches[0])))
                except PatientDataError as error:
                    lines = sum(len(batch.lines) for batch in batches)
                    _log.error("not protected, and does not go on", hospital=hospital, lines=lines, error=str(error))
                    left += lines
                    break
                batches.popleft()
        self._thread.shutdown(wait=False)
        return list(self._fit), left

    # -- the work ----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            batch = self._next(clock())
            if batch is None:
                await self._wait(clock())
                continue
            try:
                out = await self._protected(batch)
            except PatientDataError as error:
                self._hold(batch.tenant, error, clock())
            else:
                self._go_on(Fit(batch, out))

    async def _protected(self, batch: Batch) -> Batch:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._protect, batch)

    def _next(self, now: float) -> Batch | None:
        """The next hospital's oldest batch, which stays where it is until it is fit."""
        if sum(fit.batch.cost for fit in self._fit) >= MOST_FIT:
            return None
        for hospital, batches in self._waiting.items():
            failing = self._failing.get(hospital)
            if failing is None or failing.again <= now:
                self._waiting[hospital] = self._waiting.pop(hospital)  # behind the others now
                return batches[0]
        return None

    async def _wait(self, now: float) -> None:
        self._changed.clear()
        again = min((failing.again for failing in self._failing.values()), default=None)
        full = sum(fit.batch.cost for fit in self._fit) >= MOST_FIT
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), None if again is None or full else max(0.0, again - now))

    def _hold(self, hospital: str, error: PatientDataError, now: float) -> None:
        failing = self._failing.setdefault(hospital, _Failing(0, FIRST_RETRY, 0.0))
        failing.tries += 1
        failing.again = now + failing.delay
        if worth_logging(failing.tries):
            _log.error(
                "patients' data cannot be protected: the hospital's lines wait",
                hospital=hospital, error=str(error), tries=failing.tries, seconds=failing.delay,
            )  # fmt: skip
        failing.delay = min(2 * failing.delay, LONGEST_RETRY)

    def _go_on(self, fit: Fit) -> None:
        hospital = fit.batch.tenant
        self._waiting[hospital].popleft()
        if not self._waiting[hospital]:
            del self._waiting[hospital]
        if self._failing.pop(hospital, None) is not None:
            _log.info("patients' data can be protected again", hospital=hospital)
        self._fit.append(fit)
        self._ready()

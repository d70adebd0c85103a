"""One publish at a time, in a thread of its own, so that records keep their order and the event loop never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import structlog

from ingest.bus import Bus, BusError, Message, Position

Publish = asyncio.Future[list[Position]]

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class PublishThread:
    """Publishes for one event loop.

    Attributes:
        failures: Publishes that the bus refused.
        refusal: Why it refused the last one; None if it took it.
    """

    def __init__(self, bus: Bus) -> None:
        self.failures = 0
        self.refusal: str | None = None
        self._bus = bus
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")

    def begin(self, messages: Sequence[Message]) -> Publish:
        """Begin to publish, behind what was begun before."""
        publish = asyncio.get_running_loop().run_in_executor(self._thread, self._bus.publish, messages)
        publish.add_done_callback(_look_at)  # it may end after everyone has left
        return publish

    async def ended(self, publish: Publish, seconds: float | None = None) -> bool:
        """Whether it has ended within so many seconds. It goes on if not, and also if the wait is cancelled."""
        done, _ = await asyncio.wait({publish}, timeout=seconds)
        return bool(done)

    def taken(self, publish: Publish, records: int, delay: float) -> bool:
        """Whether a publish that has ended has succeeded; any error but the bus's own is raised."""
        try:
            publish.result()
        except BusError as error:
            self.failures += 1
            say = _log.error if self.refusal is None else _log.debug  # once, not at every attempt
            say("the bus refused, trying again until it takes them", error=str(error), records=records, seconds=delay)
            self.refusal = str(error)
            return False
        if self.refusal is not None:
            self.refusal = None
            _log.info("the bus takes lines again")
        return True

    def close(self) -> None:
        """Let the thread go; does not wait for what it does."""
        self._thread.shutdown(wait=False)


def _look_at(publish: Publish) -> None:
    if not publish.cancelled():
        publish.exception()

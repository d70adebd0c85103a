"""Collect: lines from the listeners, in batches, onto the bus. Nothing is parsed here.

One event loop reads and frames; one worker thread packs batches and publishes them, one publish at a time, so that the
lines of a sender keep their order. While a publish is under way the next batches gather: a slow bus makes larger
publishes, not more of them.

Promised:
- A line that was taken is published at least once, or `stop` says that it was not. If the bus fails, the same batches
  are tried again, for as long as it takes.
- At most about `queue_bytes` wait in memory (and one read of each connection more). Beyond that TCP senders are made to
  wait, and datagrams are dropped and counted.

Not promised: that what only the kernel or a sender holds survives. Plain TCP syslog has no acknowledgement, so a sender
believes a line is delivered when its kernel has taken it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

import structlog

from ingest.batching import Batch, Batcher
from ingest.bus import Bus, BusError, Message
from ingest.framing import Lines
from ingest.listeners import CollectError, Intake, Listener, ListenError, ListenerSettings, ListenerStats
from ingest.tcp_listener import TcpListener
from ingest.udp_listener import UdpListener

PUBLISH_BYTES: Final = 16 * 1024 * 1024
"""About how much goes into one publish, in memory before compression. Precedent: Kafka's producer buffers 32 MiB."""

SMALL_BATCH: Final = 256 * 1024
"""Bytes of lines in a batch once the bus has refused larger ones `TRIES_WHOLE` times. Precedent: a Kafka broker refuses
records over 1 MiB unless told otherwise; without this, one batch that does not compress would block all others."""

TRIES_WHOLE: Final = 3
FIRST_RETRY: Final = 0.1
LONGEST_RETRY: Final = 5.0
"""Seconds before the bus is tried again: doubled from the first to the longest."""

DRAIN_SECONDS: Final = 2.0
"""How long `stop` reads what senders go on to send."""

PATIENCE: Final = 30.0
"""How long `stop` waits for the bus. Precedent: systemd kills after 90 seconds."""

_TICK: Final = 0.005

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class UndeliveredError(CollectError):
    """The collector stopped while the bus did not take its last lines; the message says how many."""


@dataclass(frozen=True, slots=True)
class CollectorStats:
    """What a collector has done so far.

    Attributes:
        listeners: Name -> what that listener has seen.
        lines: Lines known to be durable on the bus.
        batches: Bus records they went in.
        failures: Publishes that the bus refused and that were tried again.
        waiting_bytes: Memory taken by lines that are not yet durable.
        paused: Whether TCP senders are being made to wait.
    """

    listeners: Mapping[str, ListenerStats]
    lines: int
    batches: int
    failures: int
    waiting_bytes: int
    paused: bool


class Collector:
    """The collect stage. All methods belong to one event loop.

    Args:
        bus: Where batches go; shared, not closed here. Its topics must exist.
        listeners: What to listen on.
        batch_lines: Lines in a full batch.
        batch_bytes: Bytes of lines in a full batch, before compression.
        batch_seconds: How long the first line of a batch waits for others.
        queue_bytes: Memory that lines may take while they wait for the bus.
        clock: The time of receipt, with its time zone.

    Attributes:
        addresses: Listener name -> host and port bound, once started.
    """

    def __init__(
        self,
        bus: Bus,
        listeners: Sequence[ListenerSettings],
        *,
        batch_lines: int = 4000,
        batch_bytes: int = 1 << 20,
        batch_seconds: float = 0.2,
        queue_bytes: int = 64 << 20,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._settings = tuple(listeners)
        self._batcher = Batcher(batch_lines, batch_bytes, batch_seconds)
        self._queue_bytes = queue_bytes
        self._clock = clock
        self.addresses: dict[str, tuple[str, int]] = {}
        self._listeners: dict[str, Listener] = {}
        self._wake = asyncio.Event()
        self._stop_asked = False
        self._last_lines_in = False
        self._stopped = asyncio.Event()
        self._publisher: asyncio.Task[None] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="collect")
        self._paused = False
        self._lines = self._batches = self._failures = 0

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open all listeners, or none.

        Raises:
            ListenError: A listener cannot be opened: one line that names it, its address and the cause.
        """
        names = [settings.name for settings in self._settings]
        for name in {name for name in names if names.count(name) > 1}:
            raise ListenError(f"listener {name!r}: two listeners have this name")
        self._loop = asyncio.get_running_loop()  # the first listener may hear something before the last one is open
        listeners: dict[str, Listener] = {}
        try:
            for settings in self._settings:
                listener = listener_for(settings, self)
                await listener.open()
                listeners[settings.name] = listener
        except ListenError:
            for listener in listeners.values():
                listener.close()
            raise
        self._listeners = listeners
        self.addresses = {name: listener.address for name, listener in listeners.items()}
        self._publisher = asyncio.create_task(self._publish_batches(), name="collect")
        for name, (host, port) in self.addresses.items():
            settings = listeners[name].settings
            _log.info("listening", listener=name, transport=settings.transport, host=host, port=port)

    async def run(self) -> None:
        """Start, unless `start` was called, and collect until `stop` has ended. An unforeseen error ends it too."""
        if self._publisher is None:
            await self.start()
        publisher = cast("asyncio.Task[None]", self._publisher)
        await asyncio.wait([publisher])
        if not publisher.cancelled() and (error := publisher.exception()) is not None:
            self._close_listeners()
            raise error
        await self._stopped.wait()

    async def stop(self, patience: float = PATIENCE) -> None:
        """Read what is already in, stop listening, publish everything, and return.

        Args:
            patience: Seconds to wait for the bus.

        Raises:
            UndeliveredError: The bus did not take everything within `patience`.
        """
        if self._publisher is None:
            return
        if self._stop_asked:
            await self._stopped.wait()
            return
        self._stop_asked = True
        await self._drain()
        self._close_listeners()
        while not all(listener.closed for listener in self._listeners.values()):  # noqa: ASYNC110 - a turn or two
            await asyncio.sleep(0)
        self._last_lines_in = True
        self._wake.set()
        try:
            await asyncio.wait_for(self._publisher, patience)
        except TimeoutError as error:
            left = sum(listener.stats().frames for listener in self._listeners.values()) - self._lines
            _log.error("stopped before the bus took everything", lines=left)
            raise UndeliveredError(f"the bus did not take {left} lines within {patience:g} seconds") from error
        finally:
            self._worker.shutdown(wait=False)
            self._stopped.set()

    async def _drain(self) -> None:
        """Read on until nothing is unread, twice in a row: accepting a connection takes more than one turn."""
        deadline = self._loop.time() + DRAIN_SECONDS
        quiet = 0
        while quiet < 2 and self._loop.time() < deadline:
            quiet = 0 if any(listener.unread() for listener in self._listeners.values()) else quiet + 1
            await asyncio.sleep(_TICK)

    def _close_listeners(self) -> None:
        for listener in self._listeners.values():
            listener.close()

    # -- intake ------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """See `ingest.listeners.Intake`."""
        return self._batcher.waiting >= self._queue_bytes

    def take(self, tenant: str, peer: str, lines: Lines) -> None:
        """See `ingest.listeners.Intake`."""
        due = self._batcher.due()
        self._batcher.add(tenant, peer, lines, self._clock(), self._loop.time())
        if self._batcher.due() != due:
            self._wake.set()
        if self.full and not self._paused:
            self._paused = True
            self._wake.set()
            _log.warning("too much waits for the bus: senders are made to wait", bytes=self._batcher.waiting)
            for listener in self._listeners.values():
                listener.pause()

    def _resume(self) -> None:
        """Read again once half of the queue is free, not at the first free byte."""
        if self._paused and self._batcher.waiting <= self._queue_bytes // 2:
            self._paused = False
            _log.info("reading again", bytes=self._batcher.waiting)
            for listener in self._listeners.values():
                listener.resume()

    # -- publishing --------------------------------------------------------------------------------------------

    async def _publish_batches(self) -> None:
        """Publish what is ready, until stopping and nothing is left."""
        while True:
            due, now = self._batcher.due(), self._loop.time()
            if due is None and self._last_lines_in:
                return
            in_haste = self._last_lines_in or self._paused  # waiting for more lines helps only while more may come
            if due is None or (due > now and not in_haste):
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), None if due is None else due - now)
                continue
            batches = self._batcher.take(now, PUBLISH_BYTES, everything=in_haste)
            await self._publish(batches)
            self._batcher.release(batches)
            self._resume()

    async def _publish(self, batches: list[Batch]) -> None:
        """Publish these batches, however often it takes."""
        messages = await self._loop.run_in_executor(self._worker, _messages, batches)
        tries, delay = 0, FIRST_RETRY
        while True:
            try:
                await self._loop.run_in_executor(self._worker, self._bus.publish, messages)
            except BusError as error:
                tries += 1
                self._failures += 1
                _log.error("the bus refused, trying again", error=str(error), records=len(messages), seconds=delay)
            else:
                break
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_RETRY)
            if tries == TRIES_WHOLE:
                parts = [part for batch in batches for part in batch.split(SMALL_BATCH)]
                messages = await self._loop.run_in_executor(self._worker, _messages, parts)
        self._lines += sum(len(batch.lines) for batch in batches)
        self._batches += len(messages)

    def stats(self) -> CollectorStats:
        """What was done so far."""
        return CollectorStats(
            listeners={name: listener.stats() for name, listener in self._listeners.items()},
            lines=self._lines,
            batches=self._batches,
            failures=self._failures,
            waiting_bytes=self._batcher.waiting,
            paused=self._paused,
        )


LISTENERS: Final[Mapping[str, type[TcpListener | UdpListener]]] = {"tcp": TcpListener, "udp": UdpListener}
"""Transport -> the listener that serves it."""


def listener_for(settings: ListenerSettings, intake: Intake) -> Listener:
    """A listener, not yet open.

    Raises:
        ListenError: The settings make no sense.
    """
    kind = LISTENERS.get(settings.transport)
    if kind is None:
        raise ListenError(f"listener {settings.name!r}: transport {settings.transport!r} is not udp or tcp")
    if not 0 <= settings.port <= 65_535:
        raise ListenError(f"listener {settings.name!r}: port {settings.port} is not between 0 and 65535")
    if settings.max_frame < 1 or settings.max_connections < 1:
        raise ListenError(f"listener {settings.name!r}: max_frame and max_connections must be at least 1")
    return kind(settings, intake)


def _messages(batches: Sequence[Batch]) -> list[Message]:
    return [batch.message() for batch in batches]

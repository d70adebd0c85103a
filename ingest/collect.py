"""Collect: lines from the listeners, in batches, onto the bus. Nothing is parsed here.

One event loop reads and frames; one worker thread packs batches and publishes them, one publish at a time, so that the
lines of a sender keep their order. While a publish is under way the next batches gather: a slow bus makes larger
publishes, not more of them.

Promised:
- A line that was taken is published at least once, or `stop` says that it was not. If the bus fails, the same batches
  are tried again, for as long as it takes; with a spool they wait on disk meanwhile (`ingest.publisher`), and `stop`
  leaves them there.
- At most about `queue_bytes` wait in memory (and one read of each connection more), and of that no hospital fills more
  than its share. Beyond that its TCP senders are made to wait, and its datagrams are dropped and counted; other
  hospitals go on.
- A sender that asks for it (RELP) is told of a line only once the bus has it on disk.

Not promised: that what only the kernel or a sender holds survives. Plain TCP syslog has no acknowledgement, so a sender
believes a line is delivered when its kernel has taken it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast
from uuid import uuid4

import structlog

from ingest.batching import Batcher
from ingest.bus import Bus
from ingest.channel import Channel
from ingest.channel_ledger import Ledger, PeerStats
from ingest.framing import Lines
from ingest.hospital import Hospitals
from ingest.listeners import CollectError, Intake, Listener, ListenError, ListenerSettings, ListenerStats
from ingest.patient_data import PatientStats
from ingest.patient_guard import PatientGuard
from ingest.publisher import Publisher, unchanged
from ingest.receipts import ReceiptListener, ReceiptSettings
from ingest.spool import Spool, SpoolSettings, SpoolStats
from ingest.tcp_listener import CONNECTIONS, TcpListener
from ingest.udp_listener import UdpListener

DRAIN_SECONDS: Final = 2.0
"""How long `stop` reads what senders go on to send."""

PATIENCE: Final = 30.0
"""How long `stop` waits for the bus. Precedent: systemd kills after 90 seconds."""

REVIEW_SECONDS: Final = 1.0
"""How often the registry is looked at: a revoked certificate's connections end that soon."""

LAPSE_SECONDS: Final = 30.0
"""How often connections are looked at although the registry did not change: certificates expire."""

_TICK: Final = 0.005

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))


class UndeliveredError(CollectError):
    """The collector stopped while the bus did not take its last lines; the message says how many."""


@dataclass(frozen=True, slots=True)
class CollectorStats:
    """What a collector has done so far.

    Attributes:
        run: Name of this run, by which its batches are known on the bus too.
        listeners: Name -> what that listener has seen.
        lines: Lines known to be durable on the bus.
        batches: Bus records they went in.
        failures: Publishes that the bus refused and that were tried again.
        waiting_bytes: Memory taken by lines that are not yet durable.
        spool: What waits on disk; None without a spool.
        blocked: Why lines do not leave memory now; None if they do.
        paused: Whether senders of a hospital are being made to wait.
        paused_hospitals: Those hospitals.
        patients: Hospital -> its lines with patients' data: looked at, protected, sealed.
        held_hospitals: Those whose lines with patients' data wait, since they cannot be protected.
        peers: (Hospital, address of a sender) -> what came from there; no address: those not heard for long.
    """

    run: str
    listeners: Mapping[str, ListenerStats]
    lines: int
    batches: int
    failures: int
    waiting_bytes: int
    spool: SpoolStats | None
    blocked: str | None
    paused: bool
    paused_hospitals: frozenset[str]
    patients: Mapping[str, PatientStats]
    held_hospitals: frozenset[str]
    peers: Mapping[tuple[str, str], PeerStats]


class Collector:
    """The collect stage. All methods belong to one event loop.

    Args:
        bus: Where batches go; shared, not closed here. Its topics must exist.
        listeners: What to listen on.
        batch_lines: Lines in a full batch.
        batch_bytes: Bytes of lines in a full batch, before compression.
        batch_seconds: How long the first line of a batch waits for others.
        queue_bytes: Memory that lines may take while they wait for the bus.
        hospital_share: The most of it that one hospital may fill.
        spool: Where lines wait on disk while the bus is away; None: in memory, and then at the senders.
        registry: Gives the hospitals as they stand; called now and then in a thread, as it may read files.
        receipts: Where hospitals ask what became of their lines; None for nowhere.
        clock: The time of receipt, with its time zone.
        patients: Makes identifiers of patients pseudonyms; needed for listeners marked `patient_data`.

    Attributes:
        addresses: Listener name -> host and port bound, once started.
        hospitals: The registry as it stood at the last look.
        keyless: Hospitals that had no keys for patients' data then.
        ledger: What came from each sender.
        receipts: Where hospitals ask what became of their lines; None for nowhere.
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
        hospital_share: float = 0.5,
        spool: SpoolSettings | None = None,
        registry: Callable[[], Hospitals] = Hospitals,
        receipts: ReceiptSettings | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        patients: PatientGuard | None = None,
    ) -> None:
        self._settings = tuple(listeners)
        self._patients = patients
        self._batcher = Batcher(batch_lines, batch_bytes, batch_seconds)
        self._queue_bytes = queue_bytes
        self._hospital_share = hospital_share
        self._registry = registry
        self._reviewing: asyncio.Task[None] | None = None
        self._clock = clock
        self.hospitals = Hospitals()
        self.keyless: frozenset[str] = frozenset()
        self.ledger = Ledger(clock)
        self.receipts = None if receipts is None else ReceiptListener(receipts, self, self.ledger)
        self._id, self._sessions = uuid4().hex[:16], 0
        self.addresses: dict[str, tuple[str, int]] = {}
        self._listeners: dict[str, Listener] = {}
        self._stop_asked = False
        self._stopped = asyncio.Event()
        self._paused: set[str] = set()
        self._publisher = Publisher(
            bus,
            self._batcher,
            hurried=lambda: bool(self._paused - self._publisher.protection.hospitals),
            released=self._resume,
            spool=None if spool is None else Spool(spool),
            protect=unchanged if patients is None else patients.protect,
        )
        self._publishing: asyncio.Task[None] | None = None

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open all listeners, or none.

        Raises:
            ListenError: A listener cannot be opened: one line that names it, its address and the cause.
            SpoolInUseError: Another process uses the folder of the spool.
        """
        names = [settings.name for settings in self._settings]
        for name in {name for name in names if names.count(name) > 1}:
            raise ListenError(f"listener {name!r}: two listeners have this name")
        self._loop = asyncio.get_running_loop()  # the first listener may hear something before the last one is open
        self.hospitals, self.keyless = await asyncio.to_thread(self._look)
        self._check_patient_data()
        await self._publisher.start()
        listeners: dict[str, Listener] = {}
        try:
            for settings in self._settings:
                listener = listener_for(settings, self)
                await listener.open()
                listeners[settings.name] = listener
            if self.receipts is not None:
                await self.receipts.open()
        except ListenError:
            for listener in listeners.values():
                listener.close()
                await listener.finish()
            await self._publisher.abandon()
            raise
        self._listeners = listeners
        self.addresses = {name: listener.address for name, listener in listeners.items()}
        self._publishing = asyncio.create_task(self._publisher.run(), name="collect")
        self._reviewing = asyncio.create_task(self._review(), name="review")
        for name, (host, port) in self.addresses.items():
            settings = listeners[name].settings
            _log.info("listening", listener=name, transport=settings.transport, host=host, port=port)
        if self.receipts is not None:
            host, port = self.receipts.address
            _log.info("receipts", host=host, port=port)

    def _check_patient_data(self) -> None:
        """No line with patients' data goes on as it is because something was not set up."""
        for settings in self._settings:
            if settings.patient_data and self._patients is None:
                raise ListenError(f"listener {settings.name!r}: patient_data: nothing here makes pseudonyms")
        if self._patients is not None:
            self._patients.check(self._settings, self.hospitals)

    async def run(self) -> None:
        """Start, unless `start` was called, and collect until `stop` has ended. An unforeseen error ends it too."""
        if self._publishing is None:
            await self.start()
        publishing = cast("asyncio.Task[None]", self._publishing)
        reviewing = cast("asyncio.Task[None]", self._reviewing)
        await asyncio.wait([publishing, reviewing], return_when=asyncio.FIRST_COMPLETED)
        if not reviewing.done() or reviewing.cancelled():
            await asyncio.wait([publishing])
        for task in (publishing, reviewing):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                await self._part()
                raise error
        await self._stopped.wait()

    async def stop(self, patience: float = PATIENCE) -> None:
        """Read what is already in, stop listening, publish everything, and return.

        Args:
            patience: Seconds to wait for the bus.

        Raises:
            UndeliveredError: The bus did not take everything within `patience`, and neither did the spool.
        """
        if self._publishing is None:
            return
        if self._stop_asked:
            await self._stopped.wait()
            return
        self._stop_asked = True
        await self._drain()
        self._close_listeners()
        self._publisher.finish()
        try:
            ended, _ = await asyncio.wait({self._publishing}, timeout=patience)
            if not ended:
                self._publishing.cancel()
                await asyncio.wait({self._publishing})
            left = await self._publisher.abandon()
            if not self._publishing.cancelled():
                self._publishing.result()
            if left:
                _log.error("stopped before the bus took everything", lines=left)
                raise UndeliveredError(f"the bus did not take {left} lines within {patience:g} seconds")
        finally:
            await self._part()
            if self._patients is not None:
                self._patients.close()
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

    async def _part(self) -> None:
        """Nothing more will be acknowledged: end what is still open."""
        if self._reviewing is not None:
            self._reviewing.cancel()
        self._close_listeners()
        ending = [listener.finish() for listener in self._listeners.values()]
        if self.receipts is not None:
            self.receipts.close()
            ending.append(self.receipts.finish())
        await asyncio.gather(*ending)  # each may take seconds over peers that do not read

    async def _review(self) -> None:
        """Look at the registry, and close what may no longer send."""
        reviewed = self._loop.time()
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            hospitals, keyless = await asyncio.to_thread(self._look)
            same = hospitals is self.hospitals and keyless == self.keyless
            if same and self._loop.time() - reviewed < LAPSE_SECONDS:
                continue
            self.hospitals, self.keyless, reviewed = hospitals, keyless, self._loop.time()
            for listener in self._listeners.values():
                listener.review()
            if self.receipts is not None:
                self.receipts.review()

    def _look(self) -> tuple[Hospitals, frozenset[str]]:
        """The registry, and which hospitals have no keys for patients' data. Reads files."""
        hospitals = self._registry()
        keyless = frozenset() if self._patients is None else self._patients.keyless(self._settings, hospitals)
        return hospitals, keyless

    # -- intake ------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """See `ingest.listeners.Intake`."""
        return self._clock()

    def new_session(self) -> str:
        """See `ingest.listeners.Intake`."""
        self._sessions += 1
        return f"{self._id}:{self._sessions}"

    def full(self, tenant: str) -> bool:
        """See `ingest.listeners.Intake`."""
        return tenant in self._paused or self._batcher.over(tenant, self._queue_bytes, self._hospital_share)

    def take(self, channel: Channel, lines: Lines, done: Callable[[], None] | None = None) -> None:
        """See `ingest.listeners.Intake`."""
        due, now, tenant = self._batcher.due(), self._clock(), channel.tenant
        account, on_bus = self.ledger.hear(channel, lines, now)
        dones = (on_bus,) if done is None else (on_bus, done)
        account.size += self._batcher.add(channel, lines, now, self._loop.time(), *dones, awaited=done is not None)
        if self._batcher.due() != due:
            self._publisher.wake()
        if tenant not in self._paused and self.full(tenant):
            self._paused.add(tenant)
            self._publisher.wake()
            waiting = self._batcher.waiting_of(tenant)
            _log.warning(
                "too much waits for the bus: a hospital's senders are made to wait", hospital=tenant, bytes=waiting
            )
            for listener in self._listeners.values():
                listener.pause(tenant)

    def _resume(self) -> None:
        """Read again once half of what a hospital may fill is free, not at the first free byte."""
        for tenant in tuple(self._paused):
            waiting = self._batcher.waiting_of(tenant)
            if 2 * waiting <= self._batcher.room(tenant, self._queue_bytes, self._hospital_share):
                self._paused.remove(tenant)
                _log.info("reading again", hospital=tenant, bytes=waiting)
                for listener in self._listeners.values():
                    listener.resume(tenant)

    def stats(self) -> CollectorStats:
        """What was done so far."""
        return CollectorStats(
            run=self._publisher.run_name,
            listeners={name: listener.stats() for name, listener in self._listeners.items()},
            lines=self._publisher.lines,
            batches=self._publisher.batches,
            failures=self._publisher.failures,
            waiting_bytes=self._batcher.waiting,
            spool=self._publisher.spool_stats(),
            blocked=self._publisher.blocked,
            paused=bool(self._paused),
            paused_hospitals=frozenset(self._paused),
            patients={} if self._patients is None else self._patients.stats(),
            held_hospitals=self._publisher.protection.held,
            peers=self.ledger.stats(),
        )


LISTENERS: Final[Mapping[str, type[TcpListener | UdpListener]]] = {
    **dict.fromkeys(CONNECTIONS, TcpListener),
    "udp": UdpListener,
}
"""Transport -> the listener that serves it."""


def listener_for(settings: ListenerSettings, intake: Intake) -> Listener:
    """A listener, not yet open.

    Raises:
        ListenError: The settings make no sense.
    """
    kind = LISTENERS.get(settings.transport)
    if kind is None:
        raise ListenError(
            f"listener {settings.name!r}: transport {settings.transport!r} is none of {', '.join(LISTENERS)}"
        )
    if not 0 <= settings.port <= 65_535:
        raise ListenError(f"listener {settings.name!r}: port {settings.port} is not between 0 and 65535")
    if min(settings.max_frame, settings.max_connections, settings.sockets) < 1:
        raise ListenError(f"listener {settings.name!r}: max_frame, max_connections and sockets must be at least 1")
    if not (settings.tenant or settings.by_address or settings.encrypted):
        raise ListenError(f"listener {settings.name!r}: nothing says whose lines come in")
    return kind(settings, intake)

"""Publishing: batches from the batcher onto the bus, through a spool on disk while the bus is away.

    batcher -> [bus]                          while the bus answers
    batcher -> spool on disk ... -> [bus]     from when it does not until the spool is empty again

Order is that of the batcher throughout: once something is in the spool, everything goes behind it, and what went into
it first leaves first. The batches of a publish that the bus has neither taken nor refused after `SPOOL_AFTER` seconds
go to the spool as its head; if that publish then succeeds after all, they have left it.

The bus says "not known" when it fails: any of the messages may be there. They are published again under the ids they
had (`ingest.rawbatch.BATCH_ID`), by which readers know them.

Batches with patients' data are protected first (`ingest.protection`); the others do not wait for them.

One thread publishes and one writes to disk, each one thing at a time; the event loop waits for neither. While a publish
is under way the next batches gather: a slow bus makes larger publishes, not more of them. A spool that takes no more
leaves batches in memory, where the collector's back-pressure begins.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, ParamSpec, TypeVar, cast

import structlog

from ingest.batching import Batch, Batcher, Done
from ingest.bus import Bus, Message
from ingest.protection import Fit, Protection
from ingest.publish_thread import Publish, PublishThread
from ingest.rawbatch import BATCH_ID, BATCH_LINES, split_message
from ingest.spool import Spool, Spooled, SpoolError, SpoolInUseError, SpoolStats

PUBLISH_BYTES: Final = 16 * 1024 * 1024
"""About how much goes into one publish, in memory before compression. Precedent: Kafka's producer buffers 32 MiB."""

REPLAY_BYTES: Final = 4 * 1024 * 1024
REPLAY_RECORDS: Final = 1000
"""About how much of the spool goes into one publish: this much a crash may publish twice."""

SMALL_BATCH: Final = 256 * 1024
"""Bytes of lines in a batch once the bus has refused larger ones `TRIES_WHOLE` times. Precedent: a Kafka broker refuses
records over 1 MiB unless told otherwise; without this, one batch that does not compress would block all others."""

TRIES_WHOLE: Final = 3
TRIES_BEFORE_SPOOL: Final = 2
SPOOL_AFTER: Final = 1.0
"""Refusals, or seconds without an answer, after which batches go to the spool."""

FIRST_RETRY: Final = 0.1
LONGEST_RETRY: Final = 5.0
"""Seconds before the bus is tried again: doubled from the first to the longest."""

ROOM_RETRY: Final = 0.5
"""Seconds after which a spool that took no more is asked again."""

_log = cast("structlog.stdlib.BoundLogger", structlog.get_logger(__name__))

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A batch, what goes out in its place, and the id under which it is published, however often."""

    batch: Batch
    out: Batch
    id: str

    def message(self) -> Message:
        message = self.out.message()
        headers = {**message.headers, BATCH_ID: self.id, BATCH_LINES: str(len(self.batch.lines))}
        return replace(message, headers=headers)


def unchanged(batch: Batch) -> Batch:
    """The batch, where no listener carries patients' data."""
    return batch


class Publisher:
    """The publishing half of the collect stage. All methods belong to one event loop.

    Args:
        bus: Where batches go.
        batcher: Where they come from.
        hurried: Whether batches should go before they are full: waiting for more lines helps only while more may come.
        released: Called when batches no longer wait in memory.
        spool: Where they wait while the bus is away; None: in memory.
        protect: Makes a batch with patients' data fit to leave memory (see `Protection`).

    Attributes:
        run_name: Of this run of the collector: what the ids of its batches begin with.
        lines: Lines of this process known to be durable on the bus.
        batches: Bus records they went in, and those of earlier processes that waited in the spool.
        protection: Batches with patients' data that may not leave yet.
    """

    def __init__(
        self,
        bus: Bus,
        batcher: Batcher,
        *,
        hurried: Callable[[], bool],
        released: Callable[[], None],
        spool: Spool | None = None,
        protect: Callable[[Batch], Batch] = unchanged,
    ) -> None:
        self._bus = PublishThread(bus)
        self._batcher = batcher
        self._hurried = hurried
        self._released = released
        self._spool = spool
        self.run_name = secrets.token_hex(8)
        self._sequence = 0
        self._wake = asyncio.Event()
        self.protection = Protection(protect, self._wake.set)
        self._finishing = asyncio.Event()
        self._moved = asyncio.Event()  # something left the spool
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._hand: list[_Numbered] = []  # taken from the batcher, and neither on the bus nor in the spool
        self._storing: asyncio.Task[bool] | None = None
        self._replaying: asyncio.Task[None] | None = None
        self._dones: dict[int, list[Done]] = {}  # number in the spool -> who awaits it on the bus
        self._full = False
        self._no_room: str | None = None  # why the spool took no more, until lines leave memory again
        self.lines = self.batches = 0

    @property
    def failures(self) -> int:
        """Publishes that the bus refused and that were tried again."""
        return self._bus.failures

    @property
    def blocked(self) -> str | None:
        """Why lines do not leave memory now; None if they do."""
        return self._bus.refusal if self._spool is None else self._no_room

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the spool's folder, before anything is listened to.

        Raises:
            SpoolInUseError: Another process has it.
        """
        self._loop = asyncio.get_running_loop()
        if self._spool is None:
            return
        try:
            await self._on(self._writing, self._spool.open)
        except SpoolInUseError:
            self._close_threads()
            raise
        except SpoolError as error:
            self._note_full(error)

    def wake(self) -> None:
        """Look at the batcher again: what is due has changed."""
        self._wake.set()

    def finish(self) -> None:
        """No more lines come: `run` returns when all are on the bus, or in the spool while the bus does not answer."""
        self._finishing.set()
        self._wake.set()

    async def run(self) -> None:
        """Publish what is ready, until finishing and nothing is left."""
        self._check_replay()
        while await self._take():
            await self._deliver()
        if self._replaying is not None:
            await self._replaying

    async def abandon(self) -> int:
        """After `run` has ended, in good order or not: spool what is left, close, and say how many lines are lost."""
        if self._replaying is not None:
            self._replaying.cancel()
            await asyncio.wait({self._replaying})
        if self._storing is not None:
            await asyncio.wait({self._storing})
        while self._batcher.due() is not None:
            self._sort(self._batcher.take(self._loop.time(), PUBLISH_BYTES, everything=True))
        fit, unfit = await self.protection.abandon()
        self._number(fit)
        left = sum(len(item.batch.lines) for item in self._hand)
        if self._spool is not None:
            if left and await self._store(await self._on(self._writing, _messages, self._hand)):
                left = 0
            if not self._spool.empty:
                _log.warning("lines wait on disk for the next start", records=self._spool.stats().records)
            await self._on(self._writing, self._spool.close)
        self._close_threads()
        return left + unfit

    def _close_threads(self) -> None:
        self._bus.close()
        self._writing.shutdown(wait=False)

    async def _take(self) -> bool:
        """Have the next batches in hand; False when finishing and nothing is left."""
        while True:
            self._check_replay()
            due, now = self._batcher.due(), self._loop.time()
            in_haste = self._finishing.is_set() or self._hurried()
            if due is not None and (due <= now or in_haste):
                self._sort(self._batcher.take(now, PUBLISH_BYTES, everything=in_haste))
                due = self._batcher.due()
            self._number(self.protection.take())
            if self._hand:
                return True
            if due is None and self._finishing.is_set() and self.protection.empty:
                return False
            self._wake.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), None if due is None else max(0.0, due - now))

    def _sort(self, batches: Sequence[Batch]) -> None:
        """What has patients is to be protected; what has none is in hand."""
        for batch in batches:
            if batch.patient_data:
                self.protection.put(batch)
            else:
                self._number([Fit(batch, batch)])

    def _number(self, batches: Sequence[Fit]) -> None:
        for fit in batches:
            self._hand.append(_Numbered(fit.batch, fit.out, f"{self.run_name}:{self._sequence}"))
            self._sequence += 1

    async def _deliver(self) -> None:
        """What is in hand: to the bus, or behind what waits in the spool."""
        messages = await self._on(self._writing, _messages, self._hand)
        while self._hand:
            self._check_replay()
            if self._spool is None or (self._spool.empty and self._replaying is None):
                await self._send(messages)
            elif not await self._store(messages):
                self._moved.clear()
                await _set_within(self._moved, ROOM_RETRY)

    def _let_go(self) -> None:
        """What was in hand no longer waits in memory."""
        hand, self._hand = self._hand, []
        self._no_room = None
        self._batcher.release([item.batch for item in hand])
        self._released()

    async def _send(self, messages: list[Message]) -> None:
        """Publish what is in hand, however often it takes, or until it is in the spool."""
        tries, delay = 0, FIRST_RETRY
        sent = messages
        publish = self._bus.begin(sent)
        while True:
            answered = await self._bus.ended(publish, None if self._spool is None else SPOOL_AFTER)
            if answered:
                if self._bus.taken(publish, len(sent), delay):
                    return self._sent(len(sent))
                tries += 1
            if (not answered or tries >= TRIES_BEFORE_SPOOL) and await self._store(messages):
                _log.warning("the bus does not answer: lines wait on disk")
                # a spool that could only now be opened may have older records before these
                alone = self._spool is not None and self._spool.stats().records == len(messages)
                return self._begin_replay(publish if alone and not answered else None, len(messages))
            if answered:
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_RETRY)
                if tries == TRIES_WHOLE:
                    sent = await self._on(self._writing, _parts, messages)
                publish = self._bus.begin(sent)

    def _sent(self, records: int) -> None:
        self.lines += sum(len(item.batch.lines) for item in self._hand)
        self.batches += records
        settled = [item.batch for item in self._hand]
        self._let_go()
        for batch in settled:
            batch.settle()

    # -- the spool ---------------------------------------------------------------------------------------------

    async def _store(self, messages: Sequence[Message]) -> bool:
        """Put what is in hand into the spool; False if that takes no more. Goes to its end even if cancelled."""
        if self._spool is None:
            return False
        self._storing = asyncio.create_task(self._append(self._spool, messages))
        return await asyncio.shield(self._storing)

    async def _append(self, spool: Spool, messages: Sequence[Message]) -> bool:
        try:
            first = await self._on(self._writing, spool.append, messages)
        except SpoolError as error:
            self._note_full(error)
            return False
        if self._full and 2 * spool.stats().bytes <= spool.settings.max_bytes:
            self._full = False
            _log.info("the spool takes lines again")
        for number, item in enumerate(self._hand, first):
            if item.batch.session:  # bounded: a RELP sender lets only so many lines wait for an acknowledgement
                self._dones[number] = item.batch.done
            else:
                item.batch.settle()
        self._let_go()
        return True

    def _note_full(self, error: SpoolError) -> None:
        if not self._full:
            _log.error("the spool takes no more: lines wait in memory, then senders wait", error=str(error))
        self._full = True
        self._no_room = str(error)

    def _begin_replay(self, publish: Publish | None, records: int) -> None:
        """Publish what waits in the spool; a publish is under way for the first of its records, or none."""
        self._replaying = asyncio.create_task(self._replay(publish, records), name="replay")
        self._replaying.add_done_callback(self._replay_ended)

    def _replay_ended(self, _: asyncio.Task[None]) -> None:
        self._wake.set()
        self._moved.set()

    def _check_replay(self) -> None:
        """An error that nobody foresaw ends `run` too; and a spool that got something anew is read."""
        if self._replaying is not None and self._replaying.done():
            replaying, self._replaying = self._replaying, None
            replaying.result()
        if self._replaying is None and self._spool is not None and not self._spool.empty:
            self._begin_replay(None, 0)

    async def _replay(self, publish: Publish | None, records: int) -> None:
        """Publish what waits in the spool until it is empty.

        Args:
            publish: Under way for the first of them, or None.
            records: How many that is.
        """
        spool = cast("Spool", self._spool)
        tries, delay, begun = 0, FIRST_RETRY, self._loop.time()
        while not spool.empty:
            most = records if publish is not None else REPLAY_RECORDS if tries < TRIES_WHOLE else 1
            waiting = await self._on(self._writing, spool.head, most, 2 * PUBLISH_BYTES if publish else REPLAY_BYTES)
            sent = [item.message for item in waiting]
            if tries >= TRIES_WHOLE:
                sent = await self._on(self._writing, _parts, sent)
            publish = publish or self._bus.begin(sent)
            await self._bus.ended(publish)
            taken = self._bus.taken(publish, len(sent), delay)
            publish = None
            if taken:
                await self._on(self._writing, spool.advance, waiting[-1].number + 1)
                self._replayed(waiting)
                tries, delay = 0, FIRST_RETRY
                continue
            if self._finishing.is_set():
                return
            tries += 1
            await _set_within(self._finishing, delay)
            delay = min(2 * delay, LONGEST_RETRY)
        stats = spool.stats()
        seconds = round(self._loop.time() - begun, 1)
        _log.info("nothing waits on disk any more", replayed=stats.replayed, damaged=stats.damaged, seconds=seconds)

    def _replayed(self, waiting: Sequence[Spooled]) -> None:
        self.batches += len(waiting)
        for item in waiting:
            headers = item.message.headers
            if headers.get(BATCH_ID, "").startswith(f"{self.run_name}:"):
                self.lines += int(headers[BATCH_LINES])
            for done in self._dones.pop(item.number, ()):
                done()
        for number in [number for number in self._dones if number < waiting[-1].number]:
            del self._dones[number]  # damaged on disk: it did not come out, and nobody may be told that it did
        self._moved.set()

    def spool_stats(self) -> SpoolStats | None:
        """The spool as it stands; None without one."""
        return None if self._spool is None else self._spool.stats()

    async def _on(self, thread: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        return await self._loop.run_in_executor(thread, work, *args)


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not for ever."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _messages(hand: Sequence[_Numbered]) -> list[Message]:
    return [item.message() for item in hand]


def _parts(messages: Sequence[Message]) -> list[Message]:
    return [part for message in messages for part in split_message(message, SMALL_BATCH)]

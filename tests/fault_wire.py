"""The wire between a worker and the broker: a TCP proxy that can be cut in the ways in which networks are.

One thread serves all wires. A wire has a state; what passes looks at it:

    whole     bytes pass
    cut       connections are reset, new ones too
    silent    nothing passes and nothing is said, as when a firewall forgets a connection; it passes later, if it can
    deaf      what the worker says arrives, what the broker answers does not
    slow      each piece waits 0.3 s
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from enum import StrEnum
from typing import Final

PIECE: Final = 65_536
SLOW_SECONDS: Final = 0.3


class WireState(StrEnum):
    """What a wire does with what passes."""

    WHOLE = "whole"
    CUT = "cut"
    SILENT = "silent"
    DEAF = "deaf"
    SLOW = "slow"


class Wire:
    """One proxy: a port of its own, and the broker's port behind it."""

    def __init__(self, broker_port: int) -> None:
        self.broker_port = broker_port
        self.state = WireState.WHOLE
        self.connections: set[asyncio.StreamWriter] = set()
        self.changed = asyncio.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])

    async def serve(self) -> None:
        """Accept for ever."""
        server = await asyncio.start_server(self._carry, sock=self.listener)
        async with server:
            await server.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            await self._until_passable(answers=False)
            if self.state is WireState.CUT:
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.broker_port)
            self.connections.add(back)
            ways = [
                asyncio.create_task(self._pass_on(reader, back, answers=False)),
                asyncio.create_task(self._pass_on(there, writer, answers=True)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._drop(back)
        except OSError:
            return
        finally:
            self._drop(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE):
                await self._until_passable(answers=answers)
                if self.state is WireState.SLOW:
                    await asyncio.sleep(SLOW_SECONDS)
                writer.write(data)
                await writer.drain()

    async def _until_passable(self, *, answers: bool) -> None:
        while self.state is WireState.SILENT or (answers and self.state is WireState.DEAF):
            self.changed.clear()
            await self.changed.wait()

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self.connections.discard(writer)
        writer.transport.abort()

    def reset(self) -> None:
        """Reset every connection."""
        for writer in list(self.connections):
            self._drop(writer)


class Wires(threading.Thread):
    """All wires, on an event loop of their own."""

    def __init__(self, wires: list[Wire]) -> None:
        super().__init__(name="wires", daemon=True)
        self._wires = wires
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._through = asyncio.Event()
        serving = [asyncio.create_task(wire.serve()) for wire in self._wires]
        await self._through.wait()
        for wire in self._wires:
            wire.reset()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for one in rest:
            one.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def set(self, wire: Wire, state: WireState, *, reset: bool = False) -> None:
        """Change a wire's state; with `reset`, its connections too."""

        def change() -> None:
            wire.state = state
            wire.changed.set()
            if reset or state is WireState.CUT:
                wire.reset()

        self._loop.call_soon_threadsafe(change)

    def close(self) -> None:
        """End all wires, also where they never began."""
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._through.set)
            self.join(10)
        elif not self._loop.is_closed():
            self._loop.close()

# ruff: noqa: SLF001 - see the trap below
"""A correction to the client's handling of consumer groups (kafka-python 3.0.12). Imports no client.

The client joins a group in a task of its I/O thread, and takes note of the answer only while somebody polls. An answer
that comes between two polls is thrown away, and the next poll asks to join once more, which upsets all other members.
Members that are busy with what they read would hardly ever finish a rebalance. Here the I/O thread itself completes the
join, whether somebody polls or not.

Trap: this stands on the client's inner workings. The test in which two members share a group fails without it, and will
show when a release of the client needs it no longer, or needs it otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol


class _Generation(Protocol):
    @property
    def generation_id(self) -> int: ...
    @property
    def member_id(self) -> str: ...
    @property
    def protocol(self) -> str: ...


class _Coordinator(Protocol):
    rejoining: bool
    rejoin_needed: bool
    state: str
    _lock: AbstractContextManager[bool]
    _generation: _Generation
    _do_join_and_sync_async: Callable[[], Awaitable[object]]

    def _enable_heartbeat(self) -> None: ...
    async def _on_join_complete_async(
        self, generation: int, member: str, protocol: str, assignment: object
    ) -> None: ...


def complete_joins(coordinator: _Coordinator, stable: str, look_again: type[Exception]) -> None:
    """Make the joins of a consumer complete by themselves.

    Args:
        coordinator: The part of the client's consumer that deals with its group.
        stable: The client's name for the state of a member that has joined.
        look_again: The client's error that makes a waiting poll ask once more whether a join is needed.
    """
    join_and_sync = coordinator._do_join_and_sync_async

    async def join_and_complete() -> None:
        assignment = await join_and_sync()
        with coordinator._lock:
            coordinator.rejoining = False
            coordinator.rejoin_needed = False
            coordinator.state = stable
            coordinator._enable_heartbeat()
        joined = coordinator._generation
        await coordinator._on_join_complete_async(joined.generation_id, joined.member_id, joined.protocol, assignment)
        # Returning the assignment would make a waiting poll complete the join a second time, and forget that the first
        # time may have asked for the second round of a cooperative rebalance.
        raise look_again("the join is complete")

    coordinator._do_join_and_sync_async = join_and_complete

"""Which faults strike in a run, in which order, and which of them at the same time.

A plan is drawn from a seed before the run, so a seed names the same faults in the same order; when exactly each one
strikes hangs on the machine. Faults that strike different things overlap.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from fault_kinds import ACTS, BROKER, POISONED, Fault, Strike, Struck, users_of
from fault_region import INTRUDERS, MAINTENANCE, SESSION_SECONDS, Region
from fault_wire import WireState

AT_ONCE: Final = 3
"""Faults under way at the same time, at most."""

_WEIGHTS: Final = {
    "kill": 8,
    "compaction": 3,
    "stop": 2,
    "freeze": 4,
    "power cut": 1,
    "broker killed": 2,
    "broker frozen": 2,
    "rebalance": 3,
    "wire": 6,
    "clock": 4,
    "disk full": 4,
    "torn write": 4,
    "poison": 5,
}
_ON_KAFKA: Final = frozenset({"broker killed", "broker frozen", "rebalance", "wire"})
WIRE_STATES: Final = (WireState.CUT, WireState.SILENT, WireState.DEAF, WireState.SLOW)


def plan(region: Region, seed: int, number: int, longest: float = 20.0, aways: int = 0) -> list[Fault]:
    """Draw the faults of a run: every kind at least once where there is room for it, the others by weight.

    Args:
        region: Where they strike.
        seed: Names the plan.
        number: How many.
        longest: Seconds that a fault may last.
        aways: How many of them are the broker away for one to two minutes.
    """
    chance = random.Random(seed)  # noqa: S311 - faults, no secrets
    kinds = [kind for kind in _WEIGHTS if region.is_kafka or kind not in _ON_KAFKA]
    if not region.has_clocks:
        kinds.remove("clock")
    chance.shuffle(kinds)
    chosen = [*kinds][: max(0, number - aways)]
    chosen += chance.choices(kinds, [_WEIGHTS[kind] for kind in kinds], k=max(0, number - aways - len(chosen)))
    chosen += ["broker away"] * aways
    chance.shuffle(chosen)
    return [_draw(region, kind, chance, longest) for kind in chosen]


def _draw(region: Region, kind: str, chance: random.Random, longest: float) -> Fault:
    def up_to(low: float, high: float) -> float:
        return round(min(chance.uniform(low, high), longest), 2)

    fault = Fault(kind, "", 0.0, chance=chance.randrange(1 << 30))
    name = chance.choice(region.names)
    if kind in ("kill", "stop"):
        return replace(fault, target=name, seconds=up_to(0.0, 4.0))
    if kind == "compaction":
        return replace(fault, target=MAINTENANCE, seconds=up_to(0.0, 2.0))
    if kind == "freeze":
        low = SESSION_SECONDS + 1 if region.is_kafka and longest > SESSION_SECONDS + 1 else 0.5
        return replace(fault, target=name, seconds=up_to(low, low + 7))
    if kind == "power cut":
        return replace(fault, target="everything", seconds=up_to(0.0, 3.0))
    if kind == "broker away":
        return replace(fault, target=BROKER, seconds=round(chance.uniform(60, 120), 1))
    if kind.startswith("broker"):
        return replace(fault, target=BROKER, seconds=up_to(0.5, 20.0) if kind == "broker frozen" else up_to(0.0, 5.0))
    if kind == "rebalance":
        return replace(fault, target=chance.choice(INTRUDERS), seconds=up_to(3.0, 10.0))
    if kind == "wire":
        name = chance.choice([one for one in region.names if one != MAINTENANCE])
        state = chance.choice(WIRE_STATES)
        return replace(fault, target=name, detail=state.value, seconds=up_to(0.5, 20.0))
    if kind == "clock":
        step = chance.choice((1, -1)) * (86_400 if chance.random() < 0.15 else chance.randrange(60, 900))
        return replace(fault, target=name, detail=str(step), seconds=up_to(3.0, 15.0))
    if kind == "poison":
        return replace(fault, target=chance.choice(POISONED))
    disk = chance.choice(sorted(region.disks))
    return replace(fault, target=disk, seconds=up_to(0.0, 2.0) if kind == "torn write" else up_to(2.0, 15.0))


def touches(region: Region, fault: Fault) -> frozenset[str]:
    """What nothing else may strike meanwhile."""
    if fault.kind == "power cut" or fault.target == "bus":
        return frozenset({*region.names, *region.disks, BROKER})
    if fault.kind == "torn write":
        return frozenset({fault.target, *users_of(region, fault.target)})
    if fault.kind == "poison":  # it is published past all wires, but the broker must be there
        return frozenset({BROKER})
    return frozenset({fault.target})


def strike_all(strike: Strike, faults: Sequence[Fault], seconds: float, pool: ThreadPoolExecutor) -> list[Struck]:
    """Have the faults strike within about so many seconds, in the order of the plan.

    The broker lives only as long as the thread that started it: so the pool is the caller's.
    """
    region, busy, under_way = strike.region, set[str](), list[Future[Struck]]()
    free = threading.Condition()

    def is_free(took: frozenset[str]) -> bool:
        return not took & busy and sum(not future.done() for future in under_way) < AT_ONCE

    def run(fault: Fault, took: frozenset[str]) -> Struck:
        began = time.monotonic()
        try:
            note = ACTS[fault.kind](strike, fault)
        finally:
            with free:
                busy.difference_update(took)
                free.notify_all()
        return Struck(fault, round(began - region.begun, 2), round(time.monotonic() - region.begun, 2), note)

    begun = time.monotonic()
    for place, fault in enumerate(faults):
        took = touches(region, fault)
        with free:
            while not is_free(took):
                free.wait(0.2)
            busy.update(took)
        under_way.append(pool.submit(run, fault, took))
        time.sleep(max(0.0, begun + (place + 1) * seconds / len(faults) - time.monotonic()))
    return [future.result() for future in under_way]

"""The faults: each a kind, what it strikes, how it begins, how long it lasts and how it ends.

A plan is drawn from a seed before the run, so a seed names the same faults in the same order; when exactly each one
strikes hangs on the machine. Faults that strike different things overlap.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import polars as pl

from fault_region import INTRUDERS, SESSION_SECONDS, Region
from fault_torn import tear
from fault_wire import WireState
from ingest.bus import TOPIC_ALERTS, TOPIC_MATCHES, TOPIC_RAW, TOPIC_SOURCES, Bus, BusError, Message, Position
from ingest.ipc import encode_frame

AT_ONCE: Final = 3
"""Faults under way at the same time, at most."""

BROKER: Final = "broker"
POISONED: Final = (TOPIC_RAW, TOPIC_MATCHES, TOPIC_ALERTS, TOPIC_SOURCES)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the plan.

    Attributes:
        kind: What happens.
        target: To what: a process, a disk, a topic, or the broker.
        seconds: How long.
        detail: What else there is to say.
        chance: Seed of what it chooses for itself.
    """

    kind: str
    target: str
    seconds: float
    detail: str = ""
    chance: int = 0


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was, and when: seconds since the run began.

    Attributes:
        note: What it came to.
    """

    fault: Fault
    began: float
    ended: float
    note: str


Act = Callable[["Strike", Fault], str]


@dataclass
class Strike:
    """What faults need while they strike."""

    region: Region
    poison: list[Position] = field(default_factory=list)
    doubtful: list[bytes] = field(default_factory=list)  # poison of which nobody knows whether it is there
    lock: threading.Lock = field(default_factory=threading.Lock)

    def rest(self, fault: Fault) -> None:
        time.sleep(fault.seconds)


# -- processes and broker -------------------------------------------------------------------------------------------


def kill(strike: Strike, fault: Fault) -> str:
    """kill -9, and start again after a pause."""
    ran = strike.region.end(fault.target, signal.SIGKILL)
    strike.rest(fault)
    strike.region.release(fault.target)
    return "" if ran is not None else "it was down"


def stop(strike: Strike, fault: Fault) -> str:
    """SIGTERM, and start again."""
    status = strike.region.end(fault.target, signal.SIGTERM)
    strike.rest(fault)
    strike.region.release(fault.target)
    return f"status {status}"


def freeze(strike: Strike, fault: Fault) -> str:
    """SIGSTOP and SIGCONT: beyond the session's time limit two workers hold that a partition is theirs."""
    done = strike.region.send(fault.target, signal.SIGSTOP)
    strike.rest(fault)
    strike.region.send(fault.target, signal.SIGCONT)
    return "" if done else "it was down"


def power_cut(strike: Strike, fault: Fault) -> str:
    """Everything is killed at once, files are torn, and everything starts again."""
    region = strike.region
    if region.broker is not None:
        region.broker.kill()
    region.cut_power(region.names)
    torn = [tear(disk, region.disks[disk].path, random.Random(fault.chance)) for disk in region.disks]  # noqa: S311
    strike.rest(fault)
    if region.broker is not None:
        region.broker.start()
    for name in region.names:
        region.release(name)
    return "; ".join(filter(None, torn))


def broker_killed(strike: Strike, fault: Fault) -> str:
    """The broker is killed, stays away, and comes back."""
    broker = strike.region.broker
    assert broker is not None
    broker.kill()
    strike.rest(fault)
    broker.start()
    return ""


def broker_frozen(strike: Strike, fault: Fault) -> str:
    """The broker takes connections and says nothing."""
    broker = strike.region.broker
    assert broker is not None
    broker.send_signal(signal.SIGSTOP)
    strike.rest(fault)
    broker.send_signal(signal.SIGCONT)
    return ""


def rebalance(strike: Strike, fault: Fault) -> str:
    """Another worker joins its group and leaves it, in good order or not."""
    region = strike.region
    region.release(fault.target)
    strike.rest(fault)
    how = signal.SIGKILL if fault.chance % 2 else signal.SIGTERM
    status = region.end(fault.target, how)
    return f"{how.name}, status {status}"


def wire(strike: Strike, fault: Fault) -> str:
    """The network between a process and the broker."""
    region = strike.region
    way = region.wires[fault.target]
    assert region.cables is not None
    region.cables.set(way, WireState(fault.detail))
    strike.rest(fault)
    reset = fault.chance % 2 == 0
    region.cables.set(way, WireState.WHOLE, reset=reset)
    return "connections reset" if reset else ""


# -- clocks and disks -----------------------------------------------------------------------------------------------


def clock(strike: Strike, fault: Fault) -> str:
    """A clock is stepped, and stepped back."""
    strike.region.set_clock(fault.target, float(fault.detail))
    strike.rest(fault)
    strike.region.set_clock(fault.target, 0.0)
    return ""


def disk_full(strike: Strike, fault: Fault) -> str:
    """A disk has no room, and has some again."""
    region = strike.region
    disk = region.disks[fault.target]
    if disk.mounted:
        disk.fill(fault.chance % 262_144)
        strike.rest(fault)
        disk.free()
        return ""
    for name in _users(region, fault.target):
        region.limit_files(name, 0)
    strike.rest(fault)
    for name in _users(region, fault.target):
        region.limit_files(name, None)
    return "by the limit on files"


def _users(region: Region, disk: str) -> list[str]:
    if disk.startswith("spool-"):
        return [disk.replace("spool", "collect")]
    if disk == "bus":
        return list(region.names)
    return [name for name in region.names if name.startswith("detect" if disk == "lake" else "console")]


def torn(strike: Strike, fault: Fault) -> str:
    """A process is killed in the middle of a write to its disk: the write is there by half."""
    region = strike.region
    users = _users(region, fault.target)
    region.cut_power(users)
    done = tear(fault.target, region.disks[fault.target].path, random.Random(fault.chance))  # noqa: S311 - faults, no secrets
    strike.rest(fault)
    for name in users:
        region.release(name)
    return done


# -- poison ---------------------------------------------------------------------------------------------------------


def poison(strike: Strike, fault: Fault) -> str:
    """A record that is none."""
    chance = random.Random(fault.chance)  # noqa: S311 - faults, no secrets
    bus, value = strike.region.open_bus(), b""
    try:
        value = _poison(bus, fault.target, chance)
        key = chance.choice(strike.region.hospitals)
        [position] = bus.publish([Message(fault.target, f"{key}/127.0.0.2", value)])
    except BusError as error:
        with strike.lock:
            strike.doubtful.append(value)
        return f"perhaps not published: {error}"
    finally:
        bus.close()
    with strike.lock:
        strike.poison.append(position)
    return f"{position.partition}:{position.offset}"


def _poison(bus: Bus, topic: str, chance: random.Random) -> bytes:
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randrange(0, 3000))
    if kind == 1:
        return encode_frame(pl.DataFrame({"nothing": [1, 2], "of": ["the", "kind"]}))
    found = [record for record in _some(bus, topic) if record]
    if not found:
        return b"{"
    whole = chance.choice(found)
    if kind == 2:
        return whole[: len(whole) // 2]
    place = chance.randrange(len(whole) // 2)
    return whole[:place] + b"\xff\x00\xfe" + whole[place + 3 :]


def _some(bus: Bus, topic: str) -> Iterator[bytes]:
    for partition, end in bus.ends([topic]).items():
        for record in bus.read(partition, max(0, end - 3), end):
            yield record.value


# -- the plan -------------------------------------------------------------------------------------------------------

ACTS: Final[dict[str, Act]] = {
    "kill": kill,
    "stop": stop,
    "freeze": freeze,
    "power cut": power_cut,
    "broker killed": broker_killed,
    "broker away": broker_killed,
    "broker frozen": broker_frozen,
    "rebalance": rebalance,
    "wire": wire,
    "clock": clock,
    "disk full": disk_full,
    "torn write": torn,
    "poison": poison,
}

_WEIGHTS: Final = {
    "kill": 8,
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
        return frozenset({fault.target, *_users(region, fault.target)})
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

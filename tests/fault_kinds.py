"""The faults: each a kind, what it strikes, how it begins, how long it lasts and how it ends.

Which of them strike in a run, and when, is `fault_plan`'s.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from fault_region import Region
from fault_torn import tear
from fault_wire import WireState
from ingest.bus import TOPIC_ALERTS, TOPIC_MATCHES, TOPIC_RAW, TOPIC_SOURCES, Bus, BusError, Message, Position
from ingest.ipc import encode_frame

BROKER: Final = "broker"
WORK_SECONDS: Final = 25.0
"""How long the lake's maintenance is waited for until it works: longer than from round to round."""
WORK_BYTES: Final = 32_768
"""Written by then: more than its log says of a round."""
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


def compaction(strike: Strike, fault: Fault) -> str:
    """kill -9 of the lake's maintenance while it puts files together: it is waited for until it writes."""
    region, deadline = strike.region, time.monotonic() + WORK_SECONDS
    before = _written(region, fault.target)
    while (now := _written(region, fault.target)) < before + WORK_BYTES and time.monotonic() < deadline:
        before = min(before, now)  # it was started anew
        time.sleep(0.005)
    worked = now >= before + WORK_BYTES
    time.sleep(fault.chance % 100 / 1000)
    ran = region.end(fault.target, signal.SIGKILL)
    strike.rest(fault)
    region.release(fault.target)
    return ("while it wrote" if worked else "it had nothing to do") if ran is not None else "it was down"


def _written(region: Region, name: str) -> int:
    """Bytes that a process has written so far."""
    process = region.processes.get(name)
    with suppress(OSError):
        text = Path(f"/proc/{process.pid}/io").read_text() if process is not None else ""
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("wchar")), 0)
    return 0


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
    for name in users_of(region, fault.target):
        region.limit_files(name, 0)
    strike.rest(fault)
    for name in users_of(region, fault.target):
        region.limit_files(name, None)
    return "by the limit on files"


def users_of(region: Region, disk: str) -> list[str]:
    """The processes that write to a disk."""
    if disk.startswith("spool-"):
        return [disk.replace("spool", "collect")]
    if disk == "bus":
        return list(region.names)
    return [name for name in region.names if name.startswith(("detect", "maintain") if disk == "lake" else "console")]


def torn(strike: Strike, fault: Fault) -> str:
    """A process is killed in the middle of a write to its disk: the write is there by half."""
    region = strike.region
    users = users_of(region, fault.target)
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


# -- all of them ----------------------------------------------------------------------------------------------------

ACTS: Final[dict[str, Act]] = {
    "kill": kill,
    "compaction": compaction,
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

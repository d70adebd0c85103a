"""UDP up to loss: is what the collector counts as lost what the sender and the kernel say?

    python benchmarks/udp_loss.py [seconds a step]

Datagrams of 200 bytes from several sources are sent at rising rates; the collector runs in a process of its own, with
the embedded bus. For each rate: sent (by the sender's own count) = taken + dropped by the kernel (as it reads
it from its sockets, and as /proc/net/udp has it) + dropped for want of room. What is taken must be on the bus.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ingest.bus import TOPIC_RAW
from ingest.bus_embedded import EmbeddedBus
from ingest.rawbatch import BATCH_LINES

RATES = (10_000, 30_000, 60_000, 100_000, 0)
"""Datagrams a second; 0: as fast as one process can."""
SECONDS = 3.0
SENDERS = 8
SLICE = 0.005

COLLECT = """
import asyncio, json, signal, sys
from pathlib import Path
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from ingest.bus_embedded import EmbeddedBus
from ingest.collect import Collector
from ingest.listeners import ListenerSettings
folder, sockets, buffer = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
async def main():
    bus = EmbeddedBus(folder / "bus.sqlite")
    listener = ListenerSettings("bench", "udp", "127.0.0.1", 0, "chu", sockets=sockets, receive_buffer=buffer)
    collector = Collector(bus, [listener])
    await collector.start()
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    print(collector.addresses["bench"][1], flush=True)
    running = asyncio.create_task(collector.run())
    await asked.wait()
    before = collector.stats().listeners["bench"]
    await collector.stop()
    await running
    stats = collector.stats()
    seen = stats.listeners["bench"]
    counts = {"frames": seen.frames, "kernel": seen.kernel_dropped or before.kernel_dropped, "room": seen.dropped}
    print(json.dumps({**counts, "durable": stats.lines}), flush=True)
asyncio.run(main())
"""


def send(port: int, rate: int, seconds: float) -> int:
    """Send for some time; returns how many datagrams the kernel took."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SENDERS)]
    for number, one in enumerate(sockets):
        one.bind((f"127.0.0.{number + 2}", 0))
        one.connect(("127.0.0.1", port))
    payload = b"<134>1 2026-07-01T11:59:00Z srv app 12 - - " + b"x" * 157
    sent, started = 0, time.monotonic()
    while (elapsed := time.monotonic() - started) < seconds:
        due = int(rate * elapsed) - sent if rate else 2_000
        for number in range(due):
            sockets[number % SENDERS].send(payload)
        sent += max(0, due)
        if rate:
            time.sleep(SLICE)
    for one in sockets:
        one.close()
    return sent


def kernel_drops(port: int) -> int:
    """The drops of all sockets bound to a port, from /proc/net/udp."""
    drops = 0
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            drops += int(fields[-1])
    return drops


def measure(rate: int, sockets: int, buffer: int, seconds: float) -> dict[str, float]:
    """One rate against a collector of its own."""
    with tempfile.TemporaryDirectory() as folder:
        bus = EmbeddedBus(Path(folder) / "bus.sqlite")
        bus.ensure_topics([TOPIC_RAW])
        command = [sys.executable, "-c", COLLECT, folder, str(sockets), str(buffer)]
        collector = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        said = cast("TextIO", collector.stdout)
        port = int(said.readline())
        sent = send(port, rate, seconds)
        time.sleep(1.0)
        proc = kernel_drops(port)
        collector.send_signal(signal.SIGTERM)
        counts = json.loads(said.readline())
        collector.wait(60)
        stored = 0
        for place, end in bus.ends([TOPIC_RAW]).items():
            stored += sum(int(record.headers[BATCH_LINES]) for record in bus.read(place, 0, end))
        bus.close()
    return {"rate": rate, "sockets": sockets, "buffer": buffer, "sent": sent, "proc": proc, "stored": stored, **counts}


def main() -> int:
    """Measure, print a table, and fail if a datagram is unaccounted for."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    titles = ("rate", "sockets", "buffer", "sent", "on the bus", "kernel", "no room", "lost %")
    print("".join(f"{title:>11}" for title in titles))
    wrong = 0
    for buffer in (33_554_432, 262_144):
        for sockets in (1, 4):
            for rate in RATES:
                found = measure(rate, sockets, buffer, seconds)
                lost = found["kernel"] + found["room"]
                balanced = found["sent"] == found["stored"] + lost and found["kernel"] == found["proc"]
                wrong += not balanced
                numbers = (found["sent"], found["stored"], found["kernel"], found["room"])
                print(
                    f"{rate or 'most':>11}{sockets:>11}{buffer:>11}"
                    + "".join(f"{number:>11,}" for number in numbers)
                    + f"{100 * lost / found['sent']:>11.2f}"
                    + ("" if balanced else f"   UNBALANCED {found}")
                )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""From syslog over TCP to lake and alerts, with a real Kafka: how many lines a second, how late an alert, at what cost.

    python -m benchmarks.end_to_end [--lines 600000] [--workers 1] [--loads 0.1 0.5 1.0] [--seconds 60]

Six hospitals send over one TCP connection each, RFC 5424 lines, octet-counted: half of them Windows events as NXLog
writes them in JSON, a quarter sshd and sudo, a quarter a firewall's, all with other values. Every process is one of its
own, as the units run them: collect, detect (one or more), correlate, console, and one broker; all share the cores with
the senders. Rules: all of SigmaHQ's and the product's own.

1. As fast as it is taken: from the first line sent until all are in the lake and all alerts of them in the store.
2. At a share of that rate: how long from sending a line that a plain rule matches until the console's API has it.
3. What the lake takes for it, before and after compaction, against the bytes that were sent.

CPU seconds are those of each process (user and system, /proc). A line counts as in the lake when the group that reads
`tocsin.raw` has committed it, and the number of rows in the lake is counted at the end: nothing lost, or it says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.lanes import SHARED_DATA, _lane_lines
from deploy.kafka.broker import KafkaBroker, free_port
from ingest.bus import TOPIC_ALERTS, TOPIC_MATCHES, TOPIC_RAW, Bus
from ingest.bus_kafka import KafkaBus, KafkaSettings
from storage.lake import Lake

REPOSITORY: Final = Path(__file__).resolve().parent.parent
HOSPITALS: Final = 6
TICKS: Final = os.sysconf("SC_CLK_TCK")
MARK_RULE: Final = "0c5e4c55-8f4f-4a3c-9d38-6f6b4dbb2a11"
RULE: Final = f"""
title: Benchmark Mark
id: {MARK_RULE}
status: test
description: A line of the benchmark itself.
level: critical
logsource: {{product: linux}}
detection:
    selection: ['benchmark mark of tocsin']
    condition: selection
"""
GROUPS: Final = {
    "tocsin-detect": TOPIC_RAW,
    "tocsin-correlate": TOPIC_MATCHES,
    "tocsin-console": TOPIC_ALERTS,
}


@dataclass
class Result:
    """What a run gave; times in seconds."""

    workers: int
    lines: int
    raw_bytes: int
    wall: float = 0.0
    rate: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    alerts: int = 0
    lake_bytes: int = 0
    lake_bytes_compacted: int = 0
    latency: list[dict[str, float]] = field(default_factory=list)


def pool(size: int) -> list[bytes]:
    """Lines to send, each in its RFC 6587 frame; no two alike."""
    draw = random.Random(7)  # noqa: S311 - the same lines every time is the point
    windows = [json.loads(line) for line in _lane_lines("structured_windows")]
    made: list[bytes] = []
    for number in range(size):
        kind = number % 4
        host = f"pc-{draw.randrange(400)}"
        if kind < 2:
            event = dict(draw.choice(windows))
            event["ProcessId"], event["Hostname"] = str(draw.randrange(65536)), host
            event["RecordNumber"] = number
            text = f"NXLog - - - {json.dumps(event)}"
        elif kind == 2:
            user, address = f"user{draw.randrange(900)}", f"192.0.2.{draw.randrange(256)}"
            said = draw.choice(["Failed password for", "Accepted publickey for", "Invalid user"])
            text = f"sshd {draw.randrange(65536)} - - {said} {user} from {address} port {draw.randrange(65536)} ssh2"
        else:
            source, target = f"10.1.{draw.randrange(256)}.{draw.randrange(256)}", f"198.51.100.{draw.randrange(256)}"
            text = (
                f"- - - - date=2026-11-20 time=10:00:{draw.randrange(60):02d} devname=fw-1 devid=FGT60F0000000001 "
                f"logid=0000000013 type=traffic subtype=forward level=notice vd=root srcip={source} "
                f"srcport={draw.randrange(65536)} dstip={target} dstport={draw.choice([53, 80, 443, 3389])} proto=6 "
                f"action={draw.choice(['accept', 'deny', 'close'])} sentbyte={draw.randrange(99999)} rcvdbyte=0"
            )
        line = f"<134>1 2026-11-20T10:00:00.{number % 1_000_000:06d}Z {host} {text}".encode()
        made.append(b"%d %b" % (len(line), line))
    return made


class Region:
    """All processes, in one folder."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.workers = workers
        self.broker = KafkaBroker(folder / "kafka")
        self.ports = [free_port() for _ in range(HOSPITALS)]
        self.console = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> Bus:
        """Everything up; the bus as this process sees it."""
        self.broker.start()
        (self.folder / "mark.yml").write_text(RULE)
        listeners = "".join(
            f'[[collect.listeners]]\nname = "tcp-{at}"\nhospital = "CH {at}"\nport = {port}\n'
            for at, port in enumerate(self.ports)
        )
        rules = [str(SHARED_DATA / "sigmahq" / "rules"), str(REPOSITORY / "rules"), str(self.folder / "mark.yml")]
        self.config = self.folder / "config.toml"
        self.config.write_text(
            f"rules = {json.dumps(rules)}\nrules_cache = {json.dumps(str(self.folder / 'cache'))}\n"
            f"data_dir = {json.dumps(str(self.folder / 'data'))}\n"
            f'[bus]\nkind = "kafka"\nbootstrap_servers = ["{self.broker.bootstrap_servers}"]\n'
            f"[console]\nport = {self.console}\n[silence]\nenabled = false\n{listeners}"
        )
        bus = KafkaBus(KafkaSettings((self.broker.bootstrap_servers,)))
        self._run("detect-1", "detect")  # the first compiles the rules for all
        self._wait_for_log("detect-1")
        for number in range(2, self.workers + 1):
            self._run(f"detect-{number}", "detect")
        for name in ("correlate", "console", "collect"):
            self._run(name, name)
        self._wait_for_ports()
        return bus

    def _run(self, name: str, command: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")}
        environment |= {"PYTHONPATH": str(REPOSITORY), "POLARS_MAX_THREADS": "2"}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tocsin", command, "--config", str(self.config)],
                stdout=log, stderr=log, cwd=self.folder, env=environment,
            )  # fmt: skip

    def _wait_for_log(self, name: str, seconds: float = 180) -> None:
        """Until the worker has joined its group: its rules are compiled then."""
        deadline = time.monotonic() + seconds
        probe = KafkaBus(KafkaSettings((self.broker.bootstrap_servers,)))
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                if probe.ends([TOPIC_RAW]):
                    time.sleep(15)
                    break
            time.sleep(1)
        probe.close()
        if self.processes[name].poll() is not None:
            raise SystemExit(f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}")

    def _wait_for_ports(self) -> None:
        for port in (*self.ports, self.console):
            deadline = time.monotonic() + 120
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.3)
        time.sleep(5)  # groups settle

    def cpu(self) -> dict[str, float]:
        """Process -> CPU seconds so far."""
        found = {}
        pids = {name: process.pid for name, process in self.processes.items()}
        pids["broker"] = self.broker._process.pid if self.broker._process else 0  # noqa: SLF001
        for name, pid in pids.items():
            with contextlib.suppress(OSError):
                parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                found[name] = (int(parts[11]) + int(parts[12])) / TICKS
        return found

    def stop(self) -> None:
        """End all, in good order."""
        for name in ("collect", *[key for key in self.processes if key.startswith("detect")], "correlate", "console"):
            self.processes[name].send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        self.broker.stop()


def send(
    ports: Sequence[int], lines: Sequence[bytes], total: int, rate: float, stop: threading.Event
) -> threading.Thread:
    """Send `total` lines over all connections in turn, at most `rate` a second (0: as fast as they are taken)."""

    def work() -> None:
        block = 500
        with contextlib.ExitStack() as opened:
            channels = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for port in ports]
            begun, sent, turn = time.monotonic(), 0, 0
            while sent < total and not stop.is_set():
                first = sent % len(lines)
                part = lines[first : first + min(block, total - sent)]
                channels[turn % len(channels)].sendall(b"".join(part))
                sent += len(part)
                turn += 1
                if rate:
                    time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
            for channel in channels:
                channel.shutdown(socket.SHUT_WR)
                while channel.recv(1024):
                    pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def drained(bus: Bus) -> bool:
    """Whether every group has committed all that there is."""
    for group, topic in GROUPS.items():
        committed = bus.committed(group, [topic])
        if any(committed.get(place, 0) < end for place, end in bus.ends([topic]).items()):
            return False
    return True


def wait_drained(bus: Bus, seconds: float = 1200) -> float:
    """When all was through, twice in a row (what detect commits makes matches, and so on)."""
    deadline = time.monotonic() + seconds
    first = 0.0
    while time.monotonic() < deadline:
        if drained(bus):
            if first and time.monotonic() - first > 6:
                return first
            first = first or time.monotonic()
        else:
            first = 0.0
        time.sleep(0.5)
    raise SystemExit("not through in time")


def latency(region: Region, lines: Sequence[bytes], rate: float, seconds: float, run: str) -> dict[str, float]:
    """Marks sent by a seventh sender while the others send at this rate; quantiles of (alert in the API - sent)."""
    stop = threading.Event()
    load = send(region.ports, lines, int(rate * seconds * 1.2), rate, stop)
    time.sleep(min(15, seconds / 4))
    sent: dict[str, float] = {}
    seen: dict[str, float] = {}
    ended = threading.Event()

    def watch() -> None:
        url = f"http://127.0.0.1:{region.console}/api/alerts?rule_id={MARK_RULE}&limit=100&text={run}-"
        while not ended.is_set():
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
                now = time.monotonic()
                for item in json.load(answer)["items"]:
                    seen.setdefault(str(item["host"]), now)
            time.sleep(0.05)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with socket.create_connection(("127.0.0.1", region.ports[0])) as channel:
        number, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            name = f"{run}-{number}"
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{number % 1000:03d}Z"
            text = f"<134>1 {moment} {name} app - - - benchmark mark of tocsin {name}".encode()
            sent[name] = time.monotonic()
            channel.sendall(b"%d %b" % (len(text), text))
            number += 1
            time.sleep(0.25)
    deadline = time.monotonic() + 120
    while len(seen) < len(sent) and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    ended.set()
    load.join(60)
    took = sorted(seen[name] - sent[name] for name in seen.keys() & sent.keys())
    at = lambda share: took[min(len(took) - 1, int(share * len(took)))] if took else float("nan")  # noqa: E731
    return {
        "rate": rate,
        "marks": len(sent),
        "seen": len(took),
        "p50": statistics.median(took) if took else float("nan"),
        "p99": at(0.99),
        "max": took[-1] if took else float("nan"),
    }


def size_of(folder: Path) -> int:
    """Bytes of the Parquet files that the lake's tables name now."""
    lake = Lake(folder)
    return sum(
        size
        for snapshot in lake.snapshots()
        for size in snapshot.delta.get_add_actions(flatten=True)["size_bytes"].to_pylist()
    )


def run(options: argparse.Namespace) -> Result:
    """One region, measured."""
    folder = Path(tempfile.mkdtemp(prefix="tocsin-end-", dir=options.folder))
    region = Region(folder, options.workers)
    lines = pool(min(options.lines, 200_000))
    raw = sum(len(lines[at % len(lines)]) for at in range(options.lines))
    result = Result(options.workers, options.lines, raw)
    try:
        bus = region.start()
        before, begun = region.cpu(), time.monotonic()
        send(region.ports, lines, options.lines, 0, threading.Event())
        wait_until(bus)
        ended = wait_drained(bus)
        after = region.cpu()
        result.wall = ended - begun
        result.rate = options.lines / result.wall
        result.cpu = {name: round(after[name] - before.get(name, 0.0), 2) for name in after}
        print(f"{options.lines} lines in {result.wall:.1f} s: {result.rate:,.0f}/s; CPU {result.cpu}", flush=True)
        for share in options.loads:
            found = latency(region, lines, result.rate * share, options.seconds, f"mark{int(share * 100)}")
            result.latency.append({"share": share, **found})
            print(result.latency[-1], flush=True)
            wait_drained(bus)
        with urllib.request.urlopen(f"http://127.0.0.1:{region.console}/api/alerts?limit=1", timeout=60) as answer:
            result.alerts = json.load(answer)["total"]
        bus.close()
    finally:
        region.stop()
    lake = Lake(folder / "data" / "lake")
    result.rows = lake.count()
    if not options.loads:
        result.lake_bytes = size_of(folder / "data" / "lake")
        subprocess.run(
            [sys.executable, "-m", "tocsin", "lake", "maintain", "--once", "--config", str(region.config)],
            check=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        result.lake_bytes_compacted = size_of(folder / "data" / "lake")
    print(json.dumps(asdict(result), indent=1))
    if not options.keep:
        shutil.rmtree(folder)
    return result


def wait_until(bus: Bus) -> None:
    """Until the first lines are on the bus."""
    while not any(bus.ends([TOPIC_RAW]).values()):
        time.sleep(0.2)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=600_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--loads", type=float, nargs="*", default=[0.1, 0.5, 1.0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print, and keep."""
    options = options_of()
    result = run(options)
    if options.output is not None:
        options.output.write_text(json.dumps(asdict(result), indent=1) + "\n")


if __name__ == "__main__":
    main()

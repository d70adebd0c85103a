"""A region for `benchmarks.end_to_end`: a broker and every process of Tocsin, each its own, in one folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from benchmarks.lanes import REPOSITORY, SIGMAHQ
from deploy.kafka.broker import KafkaBroker, free_port
from ingest.bus import TOPIC_ALERTS, TOPIC_MATCHES, TOPIC_RAW, Bus
from ingest.bus_kafka import KafkaBus, KafkaSettings

HOSPITALS: Final = 24
"""One connection each. The key of a line's partition is its hospital and sender: with so many, all six have work."""
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
GROUPS: Final = {"tocsin-detect": TOPIC_RAW, "tocsin-correlate": TOPIC_MATCHES, "tocsin-console": TOPIC_ALERTS}
"""Consumer group -> the topic it reads."""


class Region:
    """All processes."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.workers = workers
        self.broker = KafkaBroker(folder / "kafka")
        self.ports = [free_port() for _ in range(HOSPITALS)]
        self.console = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.config = folder / "config.toml"
        mark = folder / "mark.yml"
        mark.write_text(RULE)
        self.rules = [SIGMAHQ, REPOSITORY / "rules", mark]

    def start(self) -> Bus:
        """Everything up; the bus as this process sees it."""
        self.broker.start()
        listeners = "".join(
            f'[[collect.listeners]]\nname = "tcp-{at}"\nhospital = "CH {at}"\nport = {port}\n'
            for at, port in enumerate(self.ports)
        )
        self.config.write_text(
            f"rules = {json.dumps([str(path) for path in self.rules])}\n"
            f"rules_cache = {json.dumps(str(self.folder / 'cache'))}\n"
            f"data_dir = {json.dumps(str(self.folder / 'data'))}\n"
            f'[bus]\nkind = "kafka"\nbootstrap_servers = ["{self.broker.bootstrap_servers}"]\n'
            f"[console]\nport = {self.console}\n[silence]\nenabled = false\n{listeners}"
        )
        detects = [f"detect-{number}" for number in range(1, self.workers + 1)]
        for name in detects:  # one after the other: the first compiles the rules for all
            self._run(name, "detect")
            self._await_start(name)
        for name in ("correlate", "console", "collect"):
            self._run(name, name)
        for name in ("correlate", "console", "collect"):
            self._await_start(name)
        for port in (*self.ports, self.console):
            _await_port(port)
        return KafkaBus(KafkaSettings((self.broker.bootstrap_servers,)))

    def _run(self, name: str, command: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tocsin", command, "--config", str(self.config)],
                stdout=log, stderr=log, cwd=self.folder, env=environment | {"PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip

    def _await_start(self, name: str, seconds: float = 180) -> None:
        """Until a process says that it has started: its rules are compiled then."""
        deadline = time.monotonic() + seconds
        log = self.folder / f"{name}.log"
        while "] started" not in log.read_text():
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} has not started: {log.read_text()[-2000:]}")
            time.sleep(0.2)

    def cpu(self) -> dict[str, float]:
        """Process -> CPU seconds so far, user and system; `senders` is this process."""
        found = {}
        for name, pid in self._pids().items():
            parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[name] = (int(parts[11]) + int(parts[12])) / TICKS
        return found

    def memory(self) -> dict[str, int]:
        """Process -> the most MiB it held at once."""
        found = {}
        for name, pid in self._pids().items():
            status = Path(f"/proc/{pid}/status").read_text()
            found[name] = int(status.partition("VmHWM:")[2].split()[0]) >> 10
        return found

    def _pids(self) -> dict[str, int]:
        pids = {name: process.pid for name, process in self.processes.items()}
        broker = self.broker._process  # noqa: SLF001 - the benchmark asks what nobody else does
        return pids | ({} if broker is None else {"broker": broker.pid}) | {"senders": os.getpid()}

    def stop(self) -> None:
        """End all, in good order."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.broker.stop()


def _await_port(port: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"nobody listens on port {port}")
        time.sleep(0.2)


def drained(bus: Bus) -> bool:
    """Whether every group has committed all that there is."""
    for group, topic in GROUPS.items():
        committed = bus.committed(group, [topic])
        if any(committed.get(place, 0) < end for place, end in bus.ends([topic]).items()):
            return False
    return True


def await_drained(bus: Bus, seconds: float = 900) -> float:
    """When all was through, and stayed so: what detect commits makes matches, and so on."""
    deadline = time.monotonic() + seconds
    first: float | None = None
    while time.monotonic() < deadline:
        if not drained(bus):
            first = None
        elif first is None:
            first = time.monotonic()
        elif time.monotonic() - first > 5:
            return first
        time.sleep(0.5)
    raise SystemExit("not through in time")

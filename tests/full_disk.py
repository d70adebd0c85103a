"""A small region for the tests of full disks and slow consumers: real processes, each kind of data on its own disk.

A disk is a tmpfs of its own, so only root can have one; it is filled by a file of ballast, as a disk fills in life: by
somebody else. Senders speak RELP, so that what was promised is known line by line.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fault_lines import write_rules
from fault_region import free_ports

REPOSITORY: Final = Path(__file__).resolve().parent.parent
DISKS: Final = ("bus", "spool", "lake", "alerts")
ROLES: Final = ("console", "correlate", "detect", "collect")
PARENT_DIES: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the run is over")
os.execv(sys.executable, [sys.executable, "-m", "tocsin", *sys.argv[2:]])
"""


@dataclass
class SmallDisk:
    """A file system of its own."""

    path: Path

    def mount(self, megabytes: int) -> bool:
        """Whether it could be mounted."""
        self.path.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(self.path)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> None:
        """Leave room for nothing, also where files that were deleted are still open."""
        with (self.path / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(65_536))
        with (self.path / "ballast").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(512))

    def free(self) -> None:
        """Give the room back."""
        (self.path / "ballast").unlink(missing_ok=True)

    def files(self) -> set[str]:
        """What lies there."""
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()}

    def unmount(self) -> None:
        """Let go of it."""
        subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)


@dataclass
class Process:
    """A command of Tocsin at work."""

    name: str
    log: Path
    popen: subprocess.Popen[bytes]
    health: int
    status: int | None = None

    def said(self, since: int = 0) -> list[dict[str, object]]:
        """Records of its log from a byte on; what is no JSON is the text of a record without a level."""
        found: list[dict[str, object]] = []
        for line in self.log.read_bytes()[since:].decode(errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                found.append({"level": "text", "event": line})
        return found

    def troubles(self, since: int = 0) -> list[str]:
        """What it said of errors and warnings, by event."""
        loud = ("warning", "error", "critical", "text")
        return [
            f"{said['event']} {said.get('stage', '')}: {said.get('error', '')}"
            for said in self.said(since)
            if said["level"] in loud
        ]

    def mark(self) -> int:
        """Where its log ends now."""
        return self.log.stat().st_size

    def ready(self) -> tuple[int, dict[str, str]]:
        """Status of /readyz, and part -> reason; (0, {}) while nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health, timeout=10)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            report = json.loads(answer.read())
            return answer.status, {said["part"]: said["reason"] for said in report["reasons"]}
        except OSError:
            return 0, {}
        finally:
            connection.close()

    def memory(self, sign: str = "VmHWM") -> int:
        """Bytes of memory: the most it ever had, or VmRSS for now."""
        text = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(text.split(f"{sign}:")[1].split()[0]) * 1024

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30) -> float:
        """Ask it to end; how long that took."""
        begun = time.monotonic()
        self.popen.send_signal(signal.SIGCONT)
        self.popen.send_signal(number)
        self.status = self.popen.wait(seconds)
        return time.monotonic() - begun


@dataclass
class SmallRegion:
    """One process a role, on the embedded bus.

    Args:
        folder: For everything.
        settings: Section -> lines of TOML, for all processes.
        hospitals: Each has a RELP listener.
        spool_bytes: Bound of the spool; 0: none.

    Attributes:
        ports: Hospital -> port of its listener.
    """

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    hospitals: Sequence[str] = ("hospital-0",)
    spool_bytes: int = 1 << 30
    processes: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        write_rules(self.folder / "rules")
        found = free_ports(len(self.hospitals) + 16)
        self.ports = dict(zip(self.hospitals, found, strict=False))
        self._free = found[len(self.hospitals) :]
        self.console_port = self._free.pop()
        self.disks = {name: SmallDisk(self.folder / "disks" / name) for name in DISKS}
        for disk in self.disks.values():
            disk.path.mkdir(parents=True)
        (self.folder / "tocsin.toml").write_text(self._text())

    def _text(self) -> str:
        disks = self.folder / "disks"
        sections = {
            "bus": f'path = "{disks}/bus/bus.sqlite"',
            "collect.spool": f'path = "{disks}/spool/spool"\nmax_bytes = {self.spool_bytes}',
            "detect": "flush_seconds = 0.5",
            "lake": f'path = "{disks}/lake/lake"',
            "alerts": f'path = "{disks}/alerts/alerts.duckdb"\nbackups = "{disks}/alerts/backups"\nbackup_hours = 0.0',
            "silence": "enabled = false",
            "console": f"port = {self.console_port}",
            "log": 'format = "json"',
        }
        for section, lines in self.settings.items():
            sections[section] = sections.get(section, "") + "\n" + lines
        text = f'data_dir = "{self.folder}/data"\nrules = ["{self.folder}/rules"]\nrules_reload_seconds = 0.0\n'
        text += "".join(f"[{section}]\n{lines}\n" for section, lines in sections.items())
        return text + "".join(
            f'[[collect.listeners]]\nname = "{hospital}"\ntransport = "relp"\nhospital = "{hospital}"\nport = {port}\n'
            for hospital, port in self.ports.items()
        )

    def start(self, name: str, *arguments: str) -> Process:
        """Start a command; `arguments` are its words, the name if none are given."""
        health = self._free.pop()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")}
        environment |= {"TOCSIN_HEALTH__ENABLED": "true", "TOCSIN_HEALTH__PORT": str(health)}
        command = [*(arguments or (name,)), "--config", str(self.folder / "tocsin.toml")]
        log = self.folder / f"{name}.log"
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                [sys.executable, "-c", PARENT_DIES, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=REPOSITORY,
                env=environment,
            )
        self.processes[name] = Process(name, log, popen, health)
        return self.processes[name]

    def open(self, names: Sequence[str] = ROLES, seconds: float = 60) -> None:
        """Start processes, and wait until all are ready."""
        for name in names:
            self.start(name)
        for name in names:
            process = self.processes[name]
            wait_for(lambda process=process: process.ready()[0] == 200, seconds, process)  # type: ignore[misc]

    def close(self) -> None:
        """End what is left."""
        for process in self.processes.values():
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()
        for disk in self.disks.values():
            disk.unmount()

    def page(self, path: str) -> int:
        """Status of a page of the console."""
        connection = http.client.HTTPConnection("127.0.0.1", self.console_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


def wait_for(condition: Callable[[], bool], seconds: float, process: Process | None = None) -> float:
    """Wait until a condition comes true; how long it took."""
    begun = time.monotonic()
    while not condition():
        told = "" if process is None else f"{process.name}: {process.ready()} {process.troubles()[-5:]}"
        assert process is None or process.popen.poll() is None, told
        assert time.monotonic() - begun < seconds, told
        time.sleep(0.1)
    return time.monotonic() - begun


def send_plain(port: int, lines: Sequence[bytes]) -> None:
    """Send lines over TCP."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"".join(line + b"\n" for line in lines))


def repeated(texts: Sequence[str]) -> dict[str, int]:
    """What was said more than once."""
    return {text: times for text, times in Counter(texts).items() if times > 1}

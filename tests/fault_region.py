"""A region for the fault runs: the processes as a service manager would run them, each with its clock, disk and wire.

Every role is a process of its own, started from the command line. A supervisor starts what has ended, as systemd would
under `Restart=always`; it takes note of every end that no fault had asked for. Each process has

- a clock that can be set wrong (`fault_clock.c`, preloaded; only where there is a C compiler);
- on Kafka, a wire of its own to the broker (`fault_wire`);
- its data on a small disk of its own, which can be filled (a tmpfs where we are root and may mount; elsewhere the
  process's limit on the size of files is set to nothing).
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fault_disk import Disk
from fault_lines import write_rules
from fault_wire import Wire, Wires
from ingest.bus import Bus
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

REPOSITORY: Final = Path(__file__).resolve().parent.parent
RESTART_SECONDS: Final = 1.0
SESSION_SECONDS: Final = 6.0
"""After which a member of a group that is not heard of is replaced: the least that Kafka's default settings allow."""

# A process must not outlive the run (PR_SET_PDEATHSIG); set on itself, since it survives exec.
_LAUNCHER: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the run is over")
if os.environ.get("FAULT_PRELOAD"):
    os.environ["LD_PRELOAD"] = os.environ.pop("FAULT_PRELOAD")
os.execv(sys.executable, [sys.executable, "-m", "tocsin", *sys.argv[2:]])
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended without having been asked to."""

    name: str
    at: float
    status: int
    log: str

    @property
    def is_defect(self) -> bool:
        """Whether it died of what nobody foresaw: a refusal to start, with its reason, is status 2."""
        return self.status != 2


@dataclass(frozen=True, slots=True)
class Layout:
    """How many there are of what."""

    collect: int = 2
    detect: int = 2
    correlate: int = 2

    @property
    def names(self) -> tuple[str, ...]:
        """The processes; the first is the lake's maintenance, which has nothing to do with the bus."""
        counts = (
            ("maintain", 1),
            ("console", 1),
            ("correlate", self.correlate),
            ("detect", self.detect),
            ("collect", self.collect),
        )
        return tuple(f"{role}-{number}" for role, count in counts for number in range(count))


INTRUDERS: Final = ("detect-9", "correlate-9")
"""Workers that come for a short time; only on Kafka."""

MAINTENANCE: Final = "maintain-0"
_COMMANDS: Final = {"maintain": ("lake", "maintain")}
"""Role -> the command that runs it, where that is not its name."""


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now, for UDP either."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Region:
    """Everything that runs, but for the senders.

    Args:
        folder: For all data and logs; not there yet.
        layout: Which processes.
        hospitals: Of the RELP senders; each has a listener at one collector.
        broker_type: Makes the broker; None for the embedded bus.
        settings: Lines of TOML for all processes, by section.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        hospitals: Sequence[str],
        broker_type: type[KafkaBroker] | None,
        settings: Mapping[str, str],
    ) -> None:
        self.folder, self.layout, self.hospitals = folder, layout, hospitals
        self.is_kafka = broker_type is not None
        self._extra = settings
        folder.mkdir(parents=True)
        self.names = layout.names
        every = (*self.names, *(INTRUDERS if self.is_kafka else ()))
        self.wires = dict(zip(every, map(Wire, free_ports(len(every))), strict=True)) if self.is_kafka else {}
        self.cables = Wires(list(self.wires.values())) if self.is_kafka else None
        self.broker: KafkaBroker | None = None
        if broker_type is not None:
            ways = {wire.port: wire.broker_port for wire in self.wires.values()}
            self.broker = broker_type(folder / "broker", by_way_of=ways)
        self.disks = {name: Disk(folder / "disks" / name) for name in self._disk_names()}
        ports = free_ports(len(hospitals) + 3)
        self.ports = dict(zip(hospitals, ports, strict=False))
        self.tcp_port, self.udp_port, self.console_port = ports[-3:]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.held: set[str] = {*INTRUDERS}
        self.ended: list[Ended] = []
        self.starts = dict.fromkeys(every, 0)
        self.down_seconds = dict.fromkeys(every, 0.0)
        self._asked: set[int] = set()  # processes that were asked to end
        self._not_before = dict.fromkeys(every, 0.0)
        self._down_since: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self.begun = time.monotonic()
        write_rules(folder / "rules")
        self._preload = self._make_clocks(every)
        for name in every:
            (folder / f"{name}.toml").write_text(self._settings_of(name))

    def _disk_names(self) -> list[str]:
        own = [f"spool-{number}" for number in range(self.layout.collect)]
        return [*own, "lake", "alerts", *([] if self.is_kafka else ["bus"])]

    # -- settings ----------------------------------------------------------------------------------------------

    def _settings_of(self, name: str) -> str:
        role, _, number = name.partition("-")
        disks = self.folder / "disks"
        bus = f'kind = "embedded"\npath = "{disks}/bus/bus.sqlite"'
        if self.is_kafka:
            bus = f'kind = "kafka"\nbootstrap_servers = ["127.0.0.1:{self.wires[name].port}"]\nclient_id = "{name}"\n'
            bus += f"session_timeout = {SESSION_SECONDS}"
        sections = {
            "bus": bus,
            "detect": "flush_seconds = 1.0",
            "lake": f'path = "{disks}/lake"\nmaintenance_seconds = 10.0\nfile_bytes = 16777216',
            "alerts": f'path = "{disks}/alerts/alerts.duckdb"',
            "silence": "enabled = false",  # it goes by the clock: no two runs would give the same alerts
            "console": f"port = {self.console_port}",
        }
        if role == "collect":
            sections["collect.spool"] = f'path = "{disks}/spool-{number}/spool"\nmax_bytes = 1073741824'
        for section, lines in self._extra.items():
            sections[section] = sections.get(section, "") + "\n" + lines
        text = f'data_dir = "{self.folder}/data-{name}"\nrules = ["{self.folder}/rules"]\nrules_reload_seconds = 0.0\n'
        text += f'rules_cache = "{self.folder}/rules-cache"\n'
        text += "".join(f"[{section}]\n{lines}\n" for section, lines in sections.items())
        if role == "collect":
            text += "".join(self._listener(*one) for one in self._listeners(int(number)))
        return text

    def _listeners(self, number: int) -> list[tuple[str, str, int]]:
        """(Transport, hospital, port) of a collector's listeners."""
        own = [hospital for place, hospital in enumerate(self.hospitals) if place % self.layout.collect == number]
        found = [("relp", hospital, self.ports[hospital]) for hospital in own]
        if number == 0:
            found += [("tcp", "plain-tcp", self.tcp_port), ("udp", "plain-udp", self.udp_port)]
        return found

    def collector_of(self, hospital: str) -> str:
        """The collector to which a hospital sends."""
        return f"collect-{self.hospitals.index(hospital) % self.layout.collect}"

    @staticmethod
    def _listener(transport: str, hospital: str, port: int) -> str:
        return (
            f'[[collect.listeners]]\nname = "{hospital}"\ntransport = "{transport}"\nhost = "127.0.0.1"\n'
            f'port = {port}\nhospital = "{hospital}"\n'
        )

    # -- clocks ------------------------------------------------------------------------------------------------

    def _make_clocks(self, names: Sequence[str]) -> Path | None:
        compiler = shutil.which("cc")
        if compiler is None:
            return None
        library = self.folder / "fault_clock.so"
        source = Path(__file__).with_name("fault_clock.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        for name in names:
            (self.folder / f"{name}.clock").write_bytes(struct.pack("d", 0.0))
        return library

    @property
    def has_clocks(self) -> bool:
        """Whether clocks can be set."""
        return self._preload is not None

    def set_clock(self, name: str, seconds: float) -> None:
        """Have a process's clock be wrong by so many seconds."""
        with (self.folder / f"{name}.clock").open("r+b") as file:
            file.write(struct.pack("d", seconds))

    # -- processes ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start everything."""
        for disk in self.disks.values():
            disk.make()
        if self.cables is not None:
            self.cables.start()
        if self.broker is not None:
            self.broker.start()
        self._supervisor.start()

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            for name in list(self.starts):
                self._look_after(name)
            self._stopping.wait(0.1)

    def _look_after(self, name: str) -> None:
        now = time.monotonic()
        with self._lock:
            process = self.processes.get(name)
            runs = process is not None and process.poll() is None
            if process is not None and not runs and process.pid not in self._asked:
                self._asked.add(process.pid)
                tail = self.log_of(name)[-4000:]
                self.ended.append(Ended(name, now - self.begun, process.returncode, tail))
                self._not_before[name] = now + RESTART_SECONDS
            if not runs:
                self._down_since.setdefault(name, now)
            if runs or name in self.held or now < self._not_before[name]:
                return
            self.down_seconds[name] += now - self._down_since.pop(name, now)
            self.starts[name] += 1
            self.processes[name] = self._start(name)

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")}
        if self._preload is not None:
            environment |= {"FAULT_PRELOAD": str(self._preload), "FAULT_CLOCK": str(self.folder / f"{name}.clock")}
        role = name.partition("-")[0]
        arguments = [*_COMMANDS.get(role, (role,)), "--config", str(self.folder / f"{name}.toml")]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env=environment,
            )

    def command(self, *words: str, name: str = MAINTENANCE) -> subprocess.CompletedProcess[str]:
        """Run a command with the settings of a process."""
        return subprocess.run(
            [sys.executable, "-m", "tocsin", *words, "--config", str(self.folder / f"{name}.toml")],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env={key: value for key, value in os.environ.items() if not key.startswith("TOCSIN_")},
        )

    def log_of(self, name: str) -> str:
        """What a process has said so far."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def hold(self, name: str) -> None:
        """Do not start it until it is released."""
        self.held.add(name)

    def release(self, name: str, after: float = 0.0) -> None:
        """It may be started again."""
        self._not_before[name] = time.monotonic() + after
        self.held.discard(name)

    def send(self, name: str, number: signal.Signals) -> bool:
        """Send a signal to a process, if it runs."""
        with self._lock:
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                return False
            process.send_signal(number)
            return True

    def end(self, name: str, how: signal.Signals, seconds: float = 60) -> int | None:
        """End a process and keep it down; its exit status, None if it did not run. One that does not end is killed."""
        self.hold(name)
        with self._lock:
            process = self.processes.get(name)
            if process is None or process.poll() is not None:
                return None
            self._asked.add(process.pid)
            process.send_signal(how)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.ended.append(Ended(name, time.monotonic() - self.begun, -9, f"did not end {seconds} s after {how}"))
            return -9

    def cut_power(self, names: Sequence[str]) -> None:
        """Kill processes at one moment, and keep them down."""
        with self._lock:
            self.held.update(names)
            found = [self.processes[name] for name in names if name in self.processes]
            self._asked.update(process.pid for process in found if process.poll() is None)
            for process in found:
                process.kill()
        for process in found:
            process.wait()

    def limit_files(self, name: str, size: int | None) -> None:
        """Let a process write no file beyond a size; None: as large as it likes."""
        with self._lock:
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                limit = resource.RLIM_INFINITY if size is None else size
                with suppress(ProcessLookupError):
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def open_bus(self) -> Bus:
        """The bus, past all wires."""
        if self.broker is not None:
            return KafkaBus(KafkaSettings(bootstrap_servers=(self.broker.bootstrap_servers,)))
        return EmbeddedBus(self.folder / "disks" / "bus" / "bus.sqlite")

    def stop(self) -> dict[str, int | None]:
        """End the processes in good order, senders first; their exit statuses."""
        self.held.update(self.starts)  # the supervisor goes on: its processes die with the thread that started them
        return {name: self.end(name, signal.SIGTERM, 120) for name in (*reversed(self.names), *INTRUDERS)}

    def close(self, *, keep: bool) -> None:
        """End what is left."""
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        if self.broker is not None:
            self.broker.kill()
        if self.cables is not None:
            self.cables.close()
        for disk in self.disks.values():
            disk.remove(keep=keep)


@dataclass(slots=True)
class Sample:
    """The run at one moment."""

    at: float
    acknowledged: int
    lag: dict[str, int] = field(default_factory=dict)

# ruff: noqa: INP001, S603 - a script beside its pom.xml, not a package; it runs Maven and a JVM, with fixed arguments
"""One Apache Kafka broker on this machine, for trials and tests: a real one, in KRaft mode, with one node.

    python deploy/kafka/broker.py DIR [PORT]

runs it in the foreground with its data in DIR, listening on 127.0.0.1:PORT (9092), until Ctrl-C. It needs `java` (17 or
later) and, the first time, `mvn`, which copies the jars named in pom.xml to ${TOCSIN_CACHE:-~/.cache/tocsin}.

One node and no replication: a disk lost is data lost. Production runs a cluster from the operator's own packages.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

POM: Final = Path(__file__).resolve().parent / "pom.xml"
STARTED: Final = b"Kafka Server started"
START_TIMEOUT: Final = 90.0
"""Seconds a broker may take to start: a cold JVM on a busy machine takes about ten."""
STOP_TIMEOUT: Final = 30.0

# PR_SET_PDEATHSIG (1): the kernel kills the broker when the process that started it dies, however it dies. The launcher
# sets it on itself and becomes the JVM: the setting survives exec, and no code has to run between fork and exec.
_LAUNCHER: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started the broker is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{doors}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{signs}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
{more}
"""


class BrokerError(Exception):
    """The broker could not be fetched or started; the message says why."""


def fetch_jars() -> Path:
    """The folder with the broker's jars, copied by Maven on first use and whenever pom.xml changes."""
    pom = POM.read_bytes()
    version = re.search(rb"<kafka\.version>([^<]+)<", pom)
    if version is None:
        raise BrokerError(f"{POM} names no kafka.version")
    cache = Path(os.environ.get("TOCSIN_CACHE") or "~/.cache/tocsin").expanduser()
    folder = cache / f"kafka-{version[1].decode()}"
    stamp = folder / ".complete"
    digest = hashlib.sha256(pom).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="kafka-fetch-") as work:
        _copy_dependencies(Path(work) / "jars")
        (Path(work) / "jars" / ".complete").write_text(digest)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            (Path(work) / "jars").rename(folder)
        except OSError as error:
            # Another process put its copy there first: as good as ours.
            if not stamp.is_file():
                raise BrokerError(f"cannot put the broker's jars at {folder}: {error}") from error
    return folder


def _copy_dependencies(target: Path) -> None:
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BrokerError(f"cannot run Maven: {error}") from error
    if result.returncode != 0:
        raise BrokerError(f"Maven could not fetch the broker:\n{result.stdout}{result.stderr}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class KafkaBroker:
    """A broker whose data, settings and log lie in one folder; it keeps its port over a restart.

    Args:
        folder: Where it keeps everything; made if it is not there.
        port: Its port on 127.0.0.1; a free one if it is None.
        by_way_of: Port that a proxy serves on 127.0.0.1 -> port of the broker that it leads to: clients that come in
            there are told the proxy's port, and so stay on their way.
        doors: Name of a further listener (A-Z only) -> its security protocol: SSL, SASL_PLAINTEXT or SASL_SSL.
        properties: Further settings; they hold instead of those made here.
        scram: Users by SCRAM, such as "SCRAM-SHA-256=[name=ann,password=secret]"; known from the first start on.
        heap: Of the JVM.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        by_way_of: Mapping[int, int] | None = None,
        *,
        doors: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        scram: Sequence[str] = (),
        heap: str = "512m",
    ) -> None:
        self.folder = folder
        self.node = 1
        self.voters: Mapping[int, int] = {}  # of a cluster: node -> port of its controller
        self._doors = {name: (protocol, free_port()) for name, protocol in (doors or {}).items()}
        self._properties = dict(properties or {})
        self._scram = tuple(scram)
        self._heap = heap
        self._by_way_of = dict(by_way_of or {})
        self.port = free_port() if port is None else port
        self.log = folder / "broker.log"
        self._settings = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """What a client is given to find the broker."""
        return f"127.0.0.1:{self.port}"

    def door(self, name: str) -> str:
        """What a client is given to find a further listener."""
        return f"127.0.0.1:{self._doors[name][1]}"

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            BrokerError: It ended, or did not serve within `START_TIMEOUT` seconds; the message ends with its log.
        """
        self._wait_until_started(self.launch())

    def launch(self) -> int:
        """Start it without waiting; where its log will say that it serves."""
        if self._process is not None:
            raise BrokerError("the broker is running already")
        jars = fetch_jars()
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        voters = self.voters or {self.node: free_port()}
        further = [(f",WAY{proxy}", "PLAINTEXT", proxy, own) for proxy, own in self._by_way_of.items()]
        further += [(f",{name}", protocol, port, port) for name, (protocol, port) in self._doors.items()]
        self._settings.write_text(
            _PROPERTIES.format(
                port=self.port,
                node=self.node,
                voters=",".join(f"{node}@127.0.0.1:{port}" for node, port in voters.items()),
                controller_port=voters[self.node],
                logs=logs,
                doors="".join(f"{name}://127.0.0.1:{own}" for name, _, _, own in further),
                signs="".join(f"{name}://127.0.0.1:{told}" for name, _, told, _ in further),
                protocols="".join(f"{name}:{protocol}" for name, protocol, _, _ in further),
                more="".join(f"{name}={value}\n" for name, value in self._properties.items()),
            )
        )
        if not (logs / "meta.properties").exists():
            self._format(jars)
        begin = self.log.stat().st_size if self.log.exists() else 0
        command = [
            sys.executable,
            "-c",
            _LAUNCHER,
            str(os.getpid()),
            *_java(jars, self._heap),
            "kafka.Kafka",
            str(self._settings),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return begin

    def await_start(self, begin: int) -> None:
        """Wait until a broker that was launched serves; see `start`."""
        self._wait_until_started(begin)

    def stop(self) -> None:
        """Stop it in good order; kill it if it does not end within `STOP_TIMEOUT` seconds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would end its process."""
        self._end(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP makes a broker that is reached and does not answer, SIGCONT wakes it."""
        if self._process is None:
            raise BrokerError("the broker is not running")
        self._process.send_signal(number)

    def restart(self) -> None:
        """Stop it if it runs, and start it again with the same data and port."""
        self.stop()
        self.start()

    def wait(self) -> int:
        """Wait until it ends by itself; its exit status."""
        return 0 if self._process is None else self._process.wait()

    def _format(self, jars: Path) -> None:
        tool = [*_java(jars, self._heap), "kafka.tools.StorageTool"]
        # A cluster id is 16 bytes in URL-safe base64; which ones does not matter for a cluster of one.
        command = [*tool, "format", "-t", "dG9jc2luLXRyaWFsLTAwMQ", "-c", str(self._settings)]
        command += [part for user in self._scram for part in ("--add-scram", user)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BrokerError(f"cannot format the broker's storage:\n{result.stdout}{result.stderr}")

    def _wait_until_started(self, begin: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._has_started(begin):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                tail = self.log.read_bytes()[begin:][-4000:].decode(errors="replace")
                raise BrokerError(f"the broker {'ended' if ended else 'did not start in time'}; its log ends:\n{tail}")
            time.sleep(0.1)

    def _has_started(self, begin: int) -> bool:
        with self.log.open("rb") as log:
            log.seek(begin)
            return STARTED in log.read()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        # It leads its own process group. Until it is waited for, its number cannot be another process's.
        if process.poll() is None:
            os.killpg(process.pid, how)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class KafkaCluster:
    """Brokers that replicate for one another, each also a controller: of three, one may fail.

    Args:
        folder: Where they keep everything, each in a folder of its own.
        size: How many.
        heap: Of each JVM.
    """

    def __init__(self, folder: Path, size: int = 3, heap: str = "256m") -> None:
        safe = str(min(3, size))
        properties = {
            "offsets.topic.replication.factor": safe,
            "transaction.state.log.replication.factor": safe,
            "share.coordinator.state.topic.replication.factor": safe,
            # A broker that dies is left behind sooner than after the 9 s that Kafka gives it
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
        }
        self.brokers = [
            KafkaBroker(folder / f"{node}", properties=properties, heap=heap) for node in range(1, size + 1)
        ]
        voters = {node: free_port() for node in range(1, size + 1)}
        for node, broker in enumerate(self.brokers, 1):
            broker.node, broker.voters = node, voters

    @property
    def bootstrap_servers(self) -> tuple[str, ...]:
        """What a client is given to find the cluster."""
        return tuple(broker.bootstrap_servers for broker in self.brokers)

    def start(self) -> None:
        """Start all and wait until all serve.

        Raises:
            BrokerError: See `KafkaBroker.start`.
        """
        for broker, begin in [(broker, broker.launch()) for broker in self.brokers]:
            broker.await_start(begin)

    def stop(self) -> None:
        """End all at once: in good order each would wait for others that are gone already."""
        for broker in self.brokers:
            broker.kill()


def _java(jars: Path, heap: str) -> list[str]:
    """The JVM, sized for a trial, with log4j's default configuration (to standard output) at level INFO."""
    options = ["-Xms128m", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return ["java", *options, "-Dorg.apache.logging.log4j.level=INFO", "-cp", f"{jars}/*"]


def main(arguments: list[str]) -> int:
    """Run a broker in the foreground; the exit status."""
    if len(arguments) not in {1, 2} or arguments[0].startswith("-"):
        sys.stderr.write("usage: python deploy/kafka/broker.py DIR [PORT]\n")
        return 2
    broker = KafkaBroker(Path(arguments[0]).resolve(), int(arguments[1]) if len(arguments) > 1 else 9092)
    try:
        broker.start()
        sys.stdout.write(f"Kafka serves on {broker.bootstrap_servers}; its log is {broker.log}; Ctrl-C stops it\n")
        sys.stdout.flush()
        return broker.wait()
    except BrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        broker.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

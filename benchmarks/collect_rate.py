"""How fast lines are collected over TCP and TLS, against rsyslogd and syslog-ng receiving the same load into a file.

    python benchmarks/collect_rate.py [lines]

One sender, the same for all three: blocks of RFC 5424 lines, octet-counted, over one connection, as fast as they are
taken. A receiver is done when it has all lines where it keeps them: the collector when its bus has them on disk, the
others when they are in the file (which they do not sync). Wall time is from the start of the sender to the last line;
CPU time is that of the receiver's process. On a machine with few cores the sender competes with the receiver, equally
for all of them. 0 lost, or it says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ingest.authority import create_authority, issue_client, issue_server
from ingest.bus import TOPIC_RAW
from ingest.bus_embedded import EmbeddedBus
from ingest.rawbatch import BATCH_LINES

LINES = 2_000_000
PATIENCE = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
CACHE = Path(os.environ.get("TOCSIN_CACHE", str(Path.home() / ".cache" / "tocsin")))
SYSLOG_NG = CACHE / "syslog-ng" / "syslog-ng"

COLLECT = """
import asyncio, sys
from pathlib import Path
import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
from ingest.bus import TOPIC_RAW
from ingest.bus_embedded import EmbeddedBus
from ingest.collect import Collector
from ingest.listeners import ListenerSettings
folder, transport, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
bus = EmbeddedBus(folder / "bus.sqlite")
bus.ensure_topics([TOPIC_RAW])
files = {"certificate": folder / "server.pem", "key": folder / "server.key", "client_ca": folder / "ca.pem"}
listener = ListenerSettings("bench", transport, "127.0.0.1", port, "chu", **(files if transport == "tls" else {}))
asyncio.run(Collector(bus, [listener]).run())
"""


@dataclass
class Receiver:
    """A program that receives; `received` says how many lines it has where it keeps them."""

    command: list[str]
    received: Callable[[], int]


@dataclass
class Result:
    """What one run gave."""

    name: str
    transport: str
    lines: int
    wall: float
    cpu: float


def count_lines(path: Path) -> Callable[[], int]:
    """Counts what was added since the last call only."""
    state = {"at": 0, "lines": 0}

    def count() -> int:
        if not path.exists():
            return 0
        with path.open("rb") as file:
            file.seek(state["at"])
            while block := file.read(1 << 22):
                state["lines"] += block.count(b"\n")
                state["at"] += len(block)
        return state["lines"]

    return count


def ours(folder: Path, transport: str, port: int) -> Receiver:
    bus = EmbeddedBus(folder / "bus.sqlite")
    bus.ensure_topics([TOPIC_RAW])
    at = dict.fromkeys(bus.ends([TOPIC_RAW]), 0)
    total = [0]

    def received() -> int:
        for place, end in bus.ends([TOPIC_RAW]).items():
            while at[place] < end:
                stop = min(end, at[place] + 50)
                total[0] += sum(int(record.headers[BATCH_LINES]) for record in bus.read(place, at[place], stop))
                at[place] = stop
        return total[0]

    return Receiver([sys.executable, "-c", COLLECT, str(folder), transport, str(port)], received)


def rsyslog(folder: Path, transport: str, port: int) -> Receiver:
    files = (
        f'global(DefaultNetstreamDriverCAFile="{folder}/ca.pem" DefaultNetstreamDriverCertFile="{folder}/server.pem" '
        f'DefaultNetstreamDriverKeyFile="{folder}/server.key")\n'
    )
    driver = (
        'streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid"'
        if transport == "tls"
        else ""
    )
    configuration = folder / "rsyslog.conf"
    configuration.write_text(
        f'global(workDirectory="{folder}")\n{files if driver else ""}'
        f'module(load="imtcp" {driver})\n'
        f'input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="in")\n'
        'template(name="raw" type="string" string="%rawmsg%\\n")\n'
        'ruleset(name="in" queue.type="LinkedList" queue.size="500000" queue.dequeueBatchSize="4096") {\n'
        f'  action(type="omfile" file="{folder}/out.log" template="raw" ioBufferSize="256k" flushOnTXEnd="on")\n}}\n'
    )
    command = ["rsyslogd", "-n", "-f", str(configuration), "-i", str(folder / "pid")]
    return Receiver(command, count_lines(folder / "out.log"))


def syslog_ng(folder: Path, transport: str, port: int) -> Receiver:
    files = f'tls(ca-file("{folder}/ca.pem") cert-file("{folder}/server.pem") key-file("{folder}/server.key"))'
    configuration = folder / "syslog-ng.conf"
    configuration.write_text(
        "@version: 3.35\n"
        f'source s {{ syslog(ip("127.0.0.1") port({port}) transport("{transport}") '
        f"{files if transport == 'tls' else ''} "
        "flags(no-parse) log-iw-size(100000) log-fetch-limit(1000)); };\n"
        f'destination d {{ file("{folder}/out.log" template("$MSG\\n") flush-lines(1000) log-fifo-size(1000000)); }};\n'
        "log { source(s); destination(d); flags(flow-control); };\n"
    )
    places = [part for name in ("pidfile", "control", "persist-file") for part in (f"--{name}", str(folder / name))]
    command = [str(SYSLOG_NG), "--foreground", "--no-caps", "--cfgfile", str(configuration), *places]
    return Receiver(command, count_lines(folder / "out.log"))


def block_of_lines() -> bytes:
    """1,000 lines of about 210 bytes."""
    line = (
        "<134>1 2026-11-23T12:00:00.123456Z srv-{0:06} sshd 4242 - - Failed password for invalid user admin from "
        "192.0.2.{1} port 51515 ssh2 " + "x" * 80
    )
    lines = [line.format(index, index % 256).encode() for index in range(1000)]
    return b"".join(b"%d %b" % (len(text), text) for text in lines)


def connect(folder: Path, transport: str, port: int) -> socket.socket:
    deadline = time.monotonic() + 20
    while True:
        try:
            plain = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            continue
        if transport == "tcp":
            return plain
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        context.load_cert_chain(folder / "client.pem", folder / "client.key")
        return context.wrap_socket(plain, server_hostname="127.0.0.1")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def send(folder: Path, transport: str, port: int, lines: int) -> None:
    """The whole load, from a process of its own."""
    block = block_of_lines()
    with connect(folder, transport, port) as sender:
        for _ in range(lines // 1000):
            sender.sendall(block)


def measure(name: str, make: Callable[[Path, str, int], Receiver], transport: str, lines: int) -> Result:
    with tempfile.TemporaryDirectory() as work, socket.create_server(("127.0.0.1", 0)) as free:
        folder, port = Path(work), int(free.getsockname()[1])
        free.close()
        make_certificates(folder)
        receiver = make(folder, transport, port)
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(receiver.command, stdout=said, stderr=said, cwd=Path(__file__).parent.parent)
        try:
            connect(folder, "tcp", port).close()
            time.sleep(0.5)
            cpu, begun = cpu_seconds(process.pid), time.perf_counter()
            sender = subprocess.Popen([sys.executable, __file__, "send", str(folder), transport, str(port), str(lines)])
            got, last = 0, begun
            while got < lines and time.perf_counter() - begun < PATIENCE:
                time.sleep(0.05)
                before, got = got, receiver.received()
                last = time.perf_counter() if got > before else last
            result = Result(name, transport, got, last - begun, cpu_seconds(process.pid) - cpu)
            sender.wait()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        if result.lines != lines:
            print((folder / "said").read_text(errors="replace")[-2000:], file=sys.stderr)
        return result


def make_certificates(folder: Path) -> None:
    now = datetime.now(UTC)
    create_authority(folder, "Benchmark", now)
    issue_server(folder, ["127.0.0.1"], now)
    issued = issue_client(folder, "chu", now)
    (folder / "client.pem").write_bytes(issued.certificate)
    (folder / "client.key").write_bytes(issued.key)


def main(lines: int) -> None:
    receivers: dict[str, Callable[[Path, str, int], Receiver]] = {"tocsin": ours}
    if shutil.which("rsyslogd"):
        receivers["rsyslogd"] = rsyslog
    if SYSLOG_NG.exists():
        receivers["syslog-ng"] = syslog_ng
    for transport in ("tcp", "tls"):
        results = [measure(name, make, transport, lines) for name, make in receivers.items()]
        mine = results[0]
        for result in results:
            rate = result.lines / result.wall
            print(
                f"{transport} {result.name:10} {result.lines:,} of {lines:,} lines, {lines - result.lines:,} lost, "
                f"{result.wall:.2f} s wall = {rate:,.0f} lines/s, {result.cpu:.2f} s CPU; "
                f"tocsin is {mine.lines / mine.wall / rate:.2f}x by wall time, {result.cpu / mine.cpu:.2f}x by CPU",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["send"]:
        send(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else LINES)

"""The front door as a hospital meets it: enrolled by command, its bundle's own files, real senders, exact counts.

Each sender delivers `LINES` numbered lines; the lake must hold each once. `make soak` runs the same with 100,000 lines.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from ingest.envelope import EVENT_ID, ORIGINAL, REMARK, TENANT
from storage.lake import Lake

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

Require = Callable[[bool, str], None]
REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("TOCSIN_CACHE", "~/.cache/tocsin")).expanduser()
SYSLOG_NG = CACHE / "syslog-ng" / "syslog-ng"
LINES = 2_000
MANY = 100_000
TRANSPORTS = ("relp-tls", "tls", "relp", "tcp", "udp")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tocsin(*arguments: str) -> str:
    """Run a command as a person would; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "tocsin", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class Centre:
    """A region's centre with one enrolled hospital, on ports of its own."""

    folder: Path
    bus: str = 'kind = "embedded"'
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in (*TRANSPORTS, "receipts")})

    def __post_init__(self) -> None:
        listeners = "".join(
            f"""
            [[collect.listeners]]
            name = "{transport}"
            transport = "{transport}"
            port = {self.ports[transport]}
            {"" if "tls" in transport else 'hospital = "ch-de-kermor"'}
            """
            for transport in TRANSPORTS
        )
        self.config.write_text(
            f"""
            data_dir = "{self.folder}/data"
            rules = ["{REPOSITORY}/rules/linux"]
            [bus]
            {self.bus}
            [console]
            port = 0
            [detect]
            flush_seconds = 1.0
            [collect.receipts]
            enabled = true
            port = {self.ports["receipts"]}
            {listeners}
            """
        )
        tocsin("authority", "init", "--host", "localhost", "--config", str(self.config))
        tocsin("hospital", "add", "CH de Kermor", "--config", str(self.config))
        bundle = self.folder / "kermor.zip"
        own = self.folder / "own"
        tls = own / "tocsin-ch-de-kermor" / "tls"
        command = ("hospital", "bundle", "ch-de-kermor", "--to", str(bundle), "--folder", str(tls))
        tocsin(*command, "--config", str(self.config))
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(own)
        self.bundle = own / "tocsin-ch-de-kermor"

    @property
    def config(self) -> Path:
        return self.folder / "tocsin.toml"

    @contextmanager
    def running(self, *roles: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
        """The processes of these roles; `run` is all of them in one."""
        with ExitStack() as stack:
            yield {role: stack.enter_context(self.process(role)) for role in roles}

    @contextmanager
    def process(self, role: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / f"{role}.log").open("ab") as log:
            before = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "tocsin", role, "--config", str(self.config)], stderr=log, cwd=REPOSITORY
            )
        try:
            if role in ("run", "collect"):
                wait_for(lambda: self.log(role, before).count("listening") >= len(TRANSPORTS), lambda: self.log(role))
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)

    def log(self, role: str, start: int = 0) -> str:
        return (self.folder / f"{role}.log").read_bytes()[start:].decode("utf-8", "replace")

    def stored(self) -> pl.DataFrame:
        """Of each line in the lake: its id, its text, and its remark."""
        parts = [
            frame.events.select(EVENT_ID, TENANT, ORIGINAL, REMARK)
            for frame in Lake(self.folder / "data" / "lake").read()
        ]
        return pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys((EVENT_ID, ORIGINAL), pl.String))


def wait_for(condition: Callable[[], bool], what: Callable[[], str], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s: {what()[-3000:]}"
        time.sleep(0.2)


def numbered(folder: Path, count: int) -> Path:
    path = folder / "app.log"
    path.write_text("".join(f"item {number:07} of {count} went through the front door\n" for number in range(count)))
    return path


def grow(path: Path, source: Path, seconds: float) -> None:
    """Append the lines of a file to another, evenly."""
    lines = source.read_bytes().splitlines(keepends=True)
    steps = max(1, int(seconds / 0.05))
    for step in range(steps):
        with path.open("ab") as sink:
            sink.writelines(lines[step * len(lines) // steps : (step + 1) * len(lines) // steps])
        time.sleep(0.05)


NUMBER = re.compile(r"item (\d{7}) of")


def numbers_in(stored: pl.DataFrame) -> Counter[int]:
    """How often each numbered line is there."""
    texts = stored[ORIGINAL].to_list() if stored.height else []
    return Counter(int(found[1]) for text in texts if (found := NUMBER.search(text)) is not None)


@contextmanager
def rsyslogd(centre: Centre, configuration: str, lines: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real rsyslogd that reads a file, and forwards it by the bundle's own configuration."""
    work = centre.folder / f"rsyslog-{configuration}"
    work.mkdir()
    config = work / "rsyslog.conf"
    config.write_text(
        f"""
        global(workDirectory="{work}" maxMessageSize="64k")
        module(load="imfile" mode="inotify")
        input(type="imfile" File="{lines}" Tag="app:" readTimeout="0")
        include(file="{centre.bundle}/rsyslog/60-tocsin-{configuration}.conf")
        """
    )
    with (work / "log").open("wb") as sink:
        daemon = subprocess.Popen(
            [shutil.which("rsyslogd") or "", "-n", "-f", str(config), "-i", str(work / "pid")], stdout=sink, stderr=sink
        )
    try:
        yield daemon
    finally:
        daemon.terminate()
        daemon.wait(30)


@contextmanager
def syslog_ng(centre: Centre, lines: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real syslog-ng that reads a file, and forwards it by the bundle's own configuration."""
    work = centre.folder / "syslog-ng"
    work.mkdir()
    bundled = (centre.bundle / "syslog-ng" / "tocsin.conf").read_text("utf-8")
    assert 'dir("/var/lib/syslog-ng")' in bundled
    (work / "tocsin.conf").write_text(bundled.replace("/var/lib/syslog-ng", str(work)), "utf-8")
    (work / "syslog-ng.conf").write_text(
        f"""@version: 3.38
source s_src {{ file("{lines}" flags(no-parse) program-override("app")); }};
@include "{work}/tocsin.conf"
"""
    )
    places = [f"--{name}={work}/{name}" for name in ("persist-file", "pidfile", "control")]
    with (work / "log").open("wb") as sink:
        daemon = subprocess.Popen(
            [str(SYSLOG_NG), "-F", "-f", str(work / "syslog-ng.conf"), *places], stdout=sink, stderr=sink
        )
    try:
        yield daemon
    finally:
        daemon.terminate()
        daemon.wait(30)


def deliver(centre: Centre, sender: str, lines: Path, count: int, seconds: float) -> None:
    """Have one sender deliver all lines; returns once the lake holds as many."""

    def arrived() -> bool:
        return len(numbers_in(centre.stored())) >= count

    def state() -> str:
        return f"{sender}: {len(numbers_in(centre.stored()))} of {count}\n{centre.log('run')}"

    if sender == "syslog-ng":
        with syslog_ng(centre, lines):
            wait_for(arrived, state, seconds)
    elif sender == "logger":
        command = ["logger", "--tcp", "--octet-count", "--server", "127.0.0.1", "--port", str(centre.ports["tcp"])]
        subprocess.run([*command, "--tag", "app", "--file", str(lines)], check=True, timeout=seconds)
        wait_for(arrived, state, seconds)
    else:
        with rsyslogd(centre, sender, lines):
            wait_for(arrived, state, seconds)


SENDERS = ("relp-tls", "tls", "tcp", "relp", "syslog-ng", "logger")


def require_peers(sender: str, require: Require) -> None:
    if sender == "syslog-ng":
        require(SYSLOG_NG.exists(), "syslog-ng is not unpacked (deploy/peers/install.sh)")
    elif sender == "logger":
        require(shutil.which("logger") is not None, "logger is not installed")
    else:
        require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")


def check_delivery(sender: str, folder: Path, count: int, seconds: float) -> None:
    centre = Centre(folder)
    with centre.running("run"):
        deliver(centre, sender, numbered(folder, count), count, seconds)
    stored = centre.stored()
    assert numbers_in(stored) == Counter(range(count))
    assert set(stored[TENANT]) == {"ch-de-kermor"}
    assert stored[EVENT_ID].n_unique() == stored.height


@pytest.mark.timeout(180)
@pytest.mark.parametrize("sender", SENDERS)
def test_each_sender_delivers_by_the_bundles_own_files(sender: str, tmp_path: Path, require: Require) -> None:
    require_peers(sender, require)
    check_delivery(sender, tmp_path, LINES, 120)


@pytest.mark.soak
@pytest.mark.parametrize("sender", SENDERS)
def test_each_sender_delivers_a_hundred_thousand_lines(sender: str, tmp_path: Path, require: Require) -> None:
    require_peers(sender, require)
    check_delivery(sender, tmp_path, MANY, 600)


@pytest.mark.timeout(120)
def test_the_two_line_test_ends_in_received_and_understood(tmp_path: Path, require: Require) -> None:
    for program in ("openssl", "curl"):
        require(shutil.which(program) is not None, f"{program} is not installed")
    centre = Centre(tmp_path)
    with centre.running("run"):
        for language, end in (("en", "received, understood"), ("fr", "reçu, compris")):
            done = subprocess.run(
                ["sh", str(centre.bundle / "test.sh"), language],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.rstrip().splitlines()[-1].endswith(end), done.stdout
        tocsin("hospital", "revoke", "ch-de-kermor", "--config", str(centre.config))
        time.sleep(2)
        refused = subprocess.run(
            ["sh", str(centre.bundle / "test.sh"), "en"], capture_output=True, text=True, timeout=60, check=False
        )
        assert refused.returncode != 0


def check_killed(centre: Centre, broker: KafkaBroker, count: int, kills: int) -> None:
    """RELP while collector and broker are killed in turn: every line is there, and once but for those marked."""
    lines = centre.folder / "growing.log"
    lines.touch()
    with centre.running("detect"), ExitStack() as stack:
        collector = stack.enter_context(centre.process("collect"))
        with rsyslogd(centre, "relp-tls", lines):
            # As long as the kills: what was all sent before the first would show nothing
            writer = threading.Thread(target=grow, args=(lines, numbered(centre.folder, count), 14.0 * kills))
            writer.start()
            stack.callback(writer.join)
            for number in range(kills):
                wanted = (number + 1) * count // (kills + 2)
                wait_for(lambda: len(numbers_in(centre.stored())) >= wanted, lambda: centre.log("collect"), 300)  # noqa: B023 - waited for at once
                assert writer.is_alive()
                if number % 2:
                    broker.kill()
                    time.sleep(1.0)
                    broker.start()
                else:
                    collector.kill()
                    collector.wait(10)
                    collector = stack.enter_context(centre.process("collect"))
            wait_for(
                lambda: len(numbers_in(centre.stored())) >= count,
                lambda: f"{len(numbers_in(centre.stored()))} of {count}\n{centre.log('collect')}",
                600,
            )
            time.sleep(2.0)
    stored = centre.stored()
    assert set(numbers_in(stored)) == set(range(count))
    print(f"\n{count} lines, {kills} kills, {stored.height - count} sent again")
    again = stored[REMARK].fill_null("").str.contains("sent again")
    assert numbers_in(stored.filter(~again)) == Counter(range(count)), "a line that came twice was not recognised"


@pytest.fixture
def broker(kafka_broker: KafkaBroker, tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker that may be killed."""
    own = type(kafka_broker)(tmp_path / "broker")
    own.start()
    yield own
    own.stop()


def kafka_centre(folder: Path, broker: KafkaBroker) -> Centre:
    return Centre(folder, f'kind = "kafka"\n            bootstrap_servers = ["{broker.bootstrap_servers}"]')


@pytest.mark.timeout(400)
def test_relp_loses_nothing_when_collector_and_broker_are_killed(
    tmp_path: Path, broker: KafkaBroker, require: Require
) -> None:
    require_peers("relp-tls", require)
    check_killed(kafka_centre(tmp_path, broker), broker, 20_000, 2)


@pytest.mark.soak
def test_relp_loses_nothing_of_a_hundred_thousand_lines(tmp_path: Path, broker: KafkaBroker, require: Require) -> None:
    require_peers("relp-tls", require)
    check_killed(kafka_centre(tmp_path, broker), broker, MANY, 6)


@pytest.mark.timeout(240)
def test_a_collector_listens_while_the_bus_is_away(tmp_path: Path, broker: KafkaBroker, require: Require) -> None:
    require_peers("logger", require)
    centre = kafka_centre(tmp_path, broker)
    broker.stop()
    with centre.running("collect"):
        command = ["logger", "--tcp", "--octet-count", "--server", "127.0.0.1", "--port", str(centre.ports["tcp"])]
        subprocess.run([*command, "--file", str(numbered(tmp_path, 50))], check=True, timeout=30)
        wait_for(lambda: "lines wait on disk" in centre.log("collect"), lambda: centre.log("collect"))
        broker.start()
        with centre.running("detect"):
            wait_for(lambda: len(numbers_in(centre.stored())) == 50, lambda: centre.log("collect"), 90)
    assert numbers_in(centre.stored()) == Counter(range(50))

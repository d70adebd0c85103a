"""The whole path with real peers: rsyslogd -> Kafka -> Tocsin's processes -> API -> a real Chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from deploy.kafka.broker import KafkaBroker

Require = Callable[[bool, str], None]
REPOSITORY = Path(__file__).resolve().parent.parent
HOSPITAL = "CH de Kermor"
TIMEOUT = 60.0

EVENT = {
    "EventTime": "",
    "Hostname": "SRV-TSE01.kermor.example",
    "Channel": "Microsoft-Windows-Sysmon/Operational",
    "SourceName": "Microsoft-Windows-Sysmon",
    "EventID": 1,
    "Image": "C:\\Users\\Public\\Music\\run.exe",
    "CommandLine": "C:\\Users\\Public\\Music\\run.exe <script>alert(1)</script>",
    "User": "KERMOR\\e.lebras",
}


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"after {TIMEOUT} s: {what}"
        time.sleep(0.1)


class Process:
    """A `tocsin` process started as an operator would, its log read as JSON."""

    def __init__(self, role: str, config: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as sink:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tocsin", role, "--config", str(config)], stderr=sink, cwd=REPOSITORY
            )

    def said(self, event: str) -> list[dict[str, object]]:
        records = []
        for line in self.log.read_text("utf-8").splitlines():
            if line.startswith("{"):
                record = json.loads(line)
                if record["event"] == event:
                    records.append(record)
        return records

    def await_saying(self, event: str) -> dict[str, object]:
        def said() -> bool:
            assert self.popen.poll() is None, self.log.read_text("utf-8")
            return bool(self.said(event))

        wait_for(said, f"{event!r} in {self.log.read_text('utf-8')[-2000:]}")
        return self.said(event)[0]

    def close(self) -> None:
        self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(30) == 0, self.log.read_text("utf-8")[-4000:]


@contextmanager
def rsyslogd(folder: Path, target: tuple[str, int]) -> Iterator[Path]:
    """A real rsyslogd, forwarding over TCP what is written to the socket whose path is handed over."""
    entrance = folder / "log.sock"
    config = folder / "rsyslog.conf"
    config.write_text(
        f"""
        global(workDirectory="{folder}" maxMessageSize="64k")
        module(load="imuxsock" SysSock.Use="off")
        input(type="imuxsock" Socket="{entrance}" CreatePath="on" RateLimit.Interval="0" UseSpecialParser="off")
        action(type="omfwd" target="{target[0]}" port="{target[1]}" protocol="tcp" TCP_Framing="octet-counted"
               template="RSYSLOG_SyslogProtocol23Format")
        """
    )
    command = [shutil.which("rsyslogd") or "", "-n", "-f", str(config), "-i", str(folder / "pid")]
    with (folder / "rsyslogd.log").open("wb") as sink:
        daemon = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        wait_for(entrance.exists, "rsyslogd has its socket")
        yield entrance
    finally:
        daemon.terminate()
        daemon.wait(20)


@pytest.fixture
def deployment(tmp_path: Path, kafka_broker: KafkaBroker, require: Require) -> Iterator[dict[str, Process]]:
    """Four processes on one Kafka, as in production."""
    require(shutil.which("rsyslogd") is not None, "rsyslogd is not installed")
    config = tmp_path / "config.toml"
    config.write_text(
        f"""
        data_dir = "{tmp_path}/data"
        rules = ["{REPOSITORY}/rules"]
        [bus]
        kind = "kafka"
        bootstrap_servers = ["{kafka_broker.bootstrap_servers}"]
        [[collect.listeners]]
        name = "kermor"
        hospital = "{HOSPITAL}"
        port = 0
        [detect]
        flush_seconds = 0.5
        [console]
        port = 0
        [log]
        format = "json"
        """
    )
    with ExitStack() as stack:
        yield {
            role: stack.enter_context(closing(Process(role, config, tmp_path / f"{role}.log")))
            for role in ("console", "correlate", "detect", "collect")
        }


def send(entrance: Path, lines: int) -> None:
    """Write to rsyslogd as a local program would: ordinary events, and one that must be found."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as client:
        client.connect(str(entrance))
        for number in range(lines):
            image = EVENT["Image"] if number == lines // 2 else "C:\\Windows\\explorer.exe"
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            event = EVENT | {"EventTime": moment, "Image": image}
            event["CommandLine"] = str(EVENT["CommandLine"]) if number == lines // 2 else "explorer.exe"
            stamp = time.strftime("%b %e %H:%M:%S")
            client.send(f"<13>{stamp} nxlog: {json.dumps(event)}".encode())


@pytest.mark.timeout(300)
def test_from_rsyslog_through_kafka_to_the_analysts_screen(
    deployment: dict[str, Process], tmp_path: Path, chromium: Chrome
) -> None:
    listener = deployment["collect"].await_saying("listening")
    url = str(deployment["console"].await_saying("console ready")["url"])
    with rsyslogd(tmp_path, (str(listener["host"]), int(str(listener["port"])))) as entrance:
        send(entrance, 300)

        def alerts() -> list[dict[str, object]]:
            answer = httpx.get(f"{url}/api/alerts", timeout=10)
            assert answer.status_code == 200
            items: list[dict[str, object]] = answer.json()["items"]
            return items

        wait_for(lambda: bool(alerts()), "an alert at the API")
    found = alerts()
    assert {alert["tenant"] for alert in found} == {HOSPITAL}
    assert {alert["host"] for alert in found} == {"SRV-TSE01.kermor.example"}
    chromium.get(f"{url}/?lang=en")
    queue = chromium.find_element("css selector", "table.queue").text
    for text in (str(found[0]["rule_title"]), "SRV-TSE01", HOSPITAL):
        assert text in queue
    chromium.get(f"{url}/alerts/{found[0]['id']}?lang=en")
    assert "<script>alert(1)</script>" in chromium.find_element("tag name", "main").text
    said = chromium.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in said if entry["level"] == "SEVERE"] == []


def tocsin(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tocsin", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | environment,
        timeout=50,
        check=False,
    )


def in_use() -> tuple[socket.socket, int]:
    taken = socket.create_server(("127.0.0.1", 0))
    return taken, taken.getsockname()[1]


@pytest.mark.parametrize("setting", ["console.port", "collect.listeners"])
def test_a_port_in_use_is_one_clear_line(tmp_path: Path, setting: str) -> None:
    taken, port = in_use()
    listener = port if setting == "collect.listeners" else 0
    console = port if setting == "console.port" else 0
    with closing(taken):
        result = tocsin(
            "run",
            *("--set", f"data_dir={tmp_path}"),
            *("--set", f"console.port={console}"),
            *("--set", f'collect.listeners=[{{name="a", hospital="h", port={listener}}}]'),
        )
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert str(port) in last
    assert "in use" in last
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["run", "--set", "consle.port=1"], {}, ["consle", "unknown setting"]),
        (["run", "--config", "absent.toml"], {}, ["absent.toml", "cannot be read"]),
        (["run"], {"TOCSIN_BUS__KIND": "rabbit"}, ["TOCSIN_BUS__KIND", "embedded"]),
        (["collect"], {"TOCSIN_DATA_DIR": "/proc/nowhere"}, ["/proc/nowhere"]),
        (["demo", "--scenario", "no-such"], {}, ["no-such"]),
    ],
)
def test_what_cannot_run_says_why_in_one_line(
    arguments: list[str], environment: dict[str, str], words: list[str]
) -> None:
    result = tocsin(*arguments, **environment)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    said = [line for line in result.stderr.strip().splitlines() if "[info" not in line]
    assert said == [result.stderr.strip().splitlines()[-1]]
    for word in words:
        assert word in result.stderr

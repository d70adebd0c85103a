"""The bus that the settings name: what it is told, how long it keeps what, and that no process hangs on a dead one."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detections.correlation_rule import MAX_TIMESPAN
from ingest.bus import TOPIC_FIRINGS, TOPIC_MATCHES, TOPIC_RAW, TOPICS, Message, Partition
from ingest.bus_embedded import EmbeddedBus
from ingest.bus_kafka import KafkaBus, KafkaSettings
from ingest.bus_kafka_settings import topic_options
from tocsin.buses import bus_of, kafka_settings, open_bus, retention_days, start_retention
from tocsin.crew import Crew
from tocsin.settings import Settings, load_settings
from tocsin.settings_sections import BusSection

if TYPE_CHECKING:
    from deploy.kafka.broker import KafkaBroker

PATIENCE = 30.0
LINE = b"<13>Oct 11 22:14:15 host su: somebody started a shell\n"

RULE = """
title: Shell Started
id: 4d3e8f6e-9a58-4bb1-8b0a-5a4a4f3f5b10
status: test
level: high
logsource: {product: linux}
detection:
    selection: ['started a shell']
    condition: selection
"""


def loaded(folder: Path, *more: tuple[str, str]) -> Settings:
    return load_settings(None, {}, [("data_dir", str(folder)), *more])


def test_every_setting_of_kafka_comes_through() -> None:
    beside = {"kind", "path", "retention_days"}
    values: dict[str, object] = {}
    for name, held in BusSection.model_fields.items():
        if name in beside:
            continue
        default = held.default
        values[name] = {str: "x", int: 7, float: 7.5, tuple: ("k:1",)}[type(default)]
    values |= {"compression": "lz4", "security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}
    told = kafka_settings(BusSection.model_validate(values))
    assert {name: getattr(told, name) for name in values} == values
    assert {field.name for field in fields(KafkaSettings)} - values.keys() == {
        "max_message_bytes",
        "max_poll_interval",
        "retention_days",
    }


def test_what_correlation_reads_back_is_kept_twice_as_long_as_it_looks() -> None:
    days = retention_days(BusSection().retention_days)
    assert set(days) == set(TOPICS)
    for topic in (TOPIC_MATCHES, TOPIC_FIRINGS):
        assert timedelta(days=days[topic]) > 2 * MAX_TIMESPAN
    configs = topic_options(kafka_settings(BusSection()), TOPIC_RAW)["configs"]
    assert isinstance(configs, dict)
    assert configs["retention.ms"] == str(7 * 86_400_000)


def test_the_kind_says_which_bus_it_is(tmp_path: Path) -> None:
    with closing(bus_of(loaded(tmp_path))) as embedded:
        assert isinstance(embedded, EmbeddedBus)
    with closing(bus_of(loaded(tmp_path, ("bus.kind", "kafka")))) as kafka:
        assert isinstance(kafka, KafkaBus)


def test_the_process_lets_go_of_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tocsin.buses.RETENTION_SECONDS", 0.05)
    settings = loaded(tmp_path, ("bus.retention_days.raw", "0.001"))
    now = time.time()
    with closing(open_bus(settings)) as bus:
        assert isinstance(bus, EmbeddedBus)
        monkeypatch.setattr(bus, "_clock", lambda: now)
        bus.publish([Message(TOPIC_RAW, "k", b"x")])
        monkeypatch.setattr(bus, "_clock", lambda: now + 86_400)
        crew = Crew(1)
        start_retention(settings, bus, crew)
        time.sleep(0.5)
        assert bus.read(Partition(TOPIC_RAW, 0), 0, 1), "nobody has read it"
        bus.subscribe("tocsin-detect", [TOPIC_RAW]).commit({Partition(TOPIC_RAW, 0): 1})
        deadline = time.monotonic() + PATIENCE
        while bus.read(Partition(TOPIC_RAW, 0), 0, 1):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        crew.stop.set()
        crew.join()


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_processes_end_in_time_when_kafka_is_away(kafka_broker: KafkaBroker, tmp_path: Path, how: str) -> None:
    broker = type(kafka_broker)(tmp_path / "kafka")
    broker.start()
    (tmp_path / "shell.yml").write_text(RULE)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    flags = [
        f"data_dir={tmp_path / 'data'}",
        f'rules=["{tmp_path}/shell.yml"]',
        "bus.kind=kafka",
        f'bus.bootstrap_servers=["{broker.bootstrap_servers}"]',
        f'collect.listeners=[{{name="a", hospital="CH A", port={port}}}]',
        "detect.flush_seconds=60",  # so that something waits for the lake when the end comes
    ]
    options = [part for flag in flags for part in ("--set", flag)]
    processes = {}
    try:
        for role in ("collect", "detect"):
            command = [sys.executable, "-m", "tocsin", role, *options]
            processes[role] = subprocess.Popen(command, cwd=Path(__file__).parent.parent)
        sender = connected(port)
        time.sleep(10)
        sender.sendall(LINE * 100)
        time.sleep(3)
        broker.send_signal(signal.SIGSTOP) if how == "frozen" else broker.kill()
        sender.sendall(LINE * 100)
        time.sleep(4)
        begin = time.monotonic()
        took = {}
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for role, process in processes.items():
            process.wait(120)
            took[role] = time.monotonic() - begin
        sender.close()
        assert max(took.values()) < 20, took
    finally:
        broker.kill()
        for process in processes.values():
            process.kill()
            process.wait()


def connected(port: int) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.1)

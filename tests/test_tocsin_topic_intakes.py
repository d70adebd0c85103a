"""`tocsin collect --from-kafka`: a real Kafka in which another program has put events, to the lake and back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from storage.lake import Lake
from tocsin.cli import tocsin
from tocsin.process_commands import from_topic
from tocsin.processes import Role, running
from tocsin.settings import Settings, SettingsError, load_settings
from tocsin.topic_intakes import check_topics, cluster_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.kafka.broker import KafkaBroker

REPOSITORY = Path(__file__).resolve().parent.parent

RULE = """
title: Shell Started
id: 4d3e8f6e-9a58-4bb1-8b0a-5a4a4f3f5b11
status: test
description: Somebody started a shell.
level: high
logsource: {product: windows}
detection:
    selection: {EventID: 4688}
    condition: selection
"""


TWO_TOPICS = """[
    {name="a", hospital="H", topic="t"},
    {name="b", hospital="H", topic="t", bootstrap_servers=["192.0.2.2:9092"]},
]"""


def made(tmp_path: Path, *flags: tuple[str, str]) -> Settings:
    rules = tmp_path / "rules"
    rules.mkdir(exist_ok=True)
    (rules / "shell.yml").write_text(RULE)
    return load_settings(None, {}, [("data_dir", str(tmp_path / "data")), ("rules", f'["{rules}"]'), *flags])


def lines_in(path: Path) -> list[tuple[str, str, str]]:
    """(hospital, line, dataset) of what is in the lake."""
    found = Lake(path).query(
        'SELECT "organization.id", "event.original", "event.dataset" FROM events ORDER BY "event.id"'
    )
    return [(str(tenant), str(line), str(dataset)) for tenant, line, dataset in found.iter_rows()]


def winlogbeat(number: int) -> str:
    return json.dumps(
        {
            "@timestamp": "2026-03-01T04:05:06.000Z",
            "winlog": {
                "channel": "Security",
                "event_id": "4688",
                "event_data": {"NewProcessName": f"C:\\{number}.exe"},
            },
            "host": {"name": "PC-1"},
        }
    )


@contextmanager
def collecting(settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`tocsin collect` as a process of its own."""
    flags = ["--set", f"bus.kind={settings.bus.kind}", "--set", f"bus.path={settings.bus_path}"]
    flags += ["--set", f"data_dir={settings.data_dir}", "--set", "bus.session_timeout=6"]
    flags += ["--set", f'bus.bootstrap_servers=["{settings.bus.bootstrap_servers[0]}"]']
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    command = [sys.executable, "-m", "tocsin", "collect", *arguments, *flags]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(240)
def test_what_kcat_wrote_is_matched_and_stored_once_through_kills(
    tmp_path: Path, kafka_broker: KafkaBroker, require: Callable[[bool, str], None]
) -> None:
    kcat = shutil.which("kcat")
    require(kcat is not None, "kcat is not installed")
    assert kcat is not None
    topic = f"winlogbeat-{os.getpid()}-{time.monotonic_ns()}"
    settings = made(
        tmp_path, ("bus.bootstrap_servers", f'["{kafka_broker.bootstrap_servers}"]'), ("detect.flush_seconds", "0.1")
    )
    from ingest.bus_kafka import KafkaBus, KafkaSettings

    theirs = KafkaBus(KafkaSettings((kafka_broker.bootstrap_servers,), partitions=3))
    theirs.ensure_topics([topic])
    theirs.close()
    sent = [winlogbeat(number) for number in range(3000)]
    arguments = ["--from-kafka", topic, "--format", "json", "--hospital", "CH A"]
    produce = [kcat, "-P", "-b", kafka_broker.bootstrap_servers, "-t", topic]
    with running(settings, frozenset({Role.DETECT})) as here:
        for third in range(3):
            part = "\n".join(sent[third * 1000 : third * 1000 + 1000]).encode()
            with collecting(settings, *arguments) as process:
                subprocess.run(produce, input=part, check=True)
                if third < 2:
                    time.sleep(2.0 + third)
                    process.send_signal(signal.SIGKILL)
                else:
                    wait_for(lambda: here.tally.received >= len(sent))
        lake = settings.lake_path
        wait_for(lambda: len(lines_in(lake)) >= len(sent))
        time.sleep(0.5)
    found = lines_in(lake)
    assert sorted(line for _, line, _ in found) == sorted(sent)
    assert {tenant for tenant, _, _ in found} == {"CH A"}
    assert {dataset for _, _, dataset in found} == {"windows.winlogbeat"}


@pytest.mark.parametrize(
    ("kafka", "words"),
    [
        ('[{name="a", hospital="H", topic="tocsin.raw"}]', ["[a]", "tocsin.raw", "own topic"]),
        ('[{name="a", hospital="H", topic="t", format="nonsense"}]', ["[a]", "nonsense", "json"]),
        ('[{name="a", hospital="H", topic="t"}, {name="a", hospital="H", topic="u"}]', ["[a]", "named so"]),
        ('[{name="a", hospital="H", topic="t", patient_data=true}]', ["[a]", "patient_data", "H"]),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, kafka: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as refused:
        check_topics(made(tmp_path, ("collect.kafka", kafka)))
    assert all(word in str(refused.value) for word in words), refused.value


def test_a_cluster_of_its_own_takes_nothing_from_the_bus(tmp_path: Path) -> None:
    settings = made(
        tmp_path,
        ("bus.bootstrap_servers", '["192.0.2.1:9092"]'),
        ("bus.username", "ours"),
        ("bus.password", "secret"),
        ("collect.kafka", TWO_TOPICS),
    )
    ours, theirs = (cluster_of(settings, section) for section in settings.collect.kafka)
    assert (ours.bootstrap_servers, ours.password) == (("192.0.2.1:9092",), "secret")
    assert (theirs.bootstrap_servers, theirs.username, theirs.password) == (("192.0.2.2:9092",), "", "")


def test_the_options_go_together(tmp_path: Path) -> None:
    for arguments in (["--from-kafka", "t"], ["--hospital", "CH A"], ["--format", "json"]):
        result = CliRunner().invoke(tocsin, ["collect", *arguments, "--set", f"data_dir={tmp_path}"])
        assert result.exit_code == 2, result.output
    settings = from_topic(made(tmp_path, ("collect.listeners", '[{name="l", hospital="H"}]')), "t", "", "CH A")
    assert settings.collect.listeners == ()
    assert [(section.topic, section.hospital) for section in settings.collect.kafka] == [("t", "CH A")]
    with pytest.raises(SettingsError, match="--hospital"):
        from_topic(settings, "t", "", " ")

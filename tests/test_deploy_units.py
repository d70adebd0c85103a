"""The systemd units and the compose file: what their own checkers say, and their command run as the unit runs it.

There is no systemd as the first process where tests run, so the sandbox of a unit is made by hand: a root that can only
be read, one folder that can be written, no capabilities and no new privileges.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click import Context, Group

from tocsin.cli import tocsin as cli
from tocsin.settings import load_settings

REPOSITORY = Path(__file__).resolve().parent.parent
DEPLOY = REPOSITORY / "deploy"
VERIFY = DEPLOY / "systemd" / "tocsin-lake-verify.service"
UNITS = sorted(set((DEPLOY / "systemd").glob("*.service")) - {VERIFY})
"""Those that run a process; the one left out is begun by a timer, and ends."""
COMMAND = "/opt/tocsin/bin/tocsin"

Require = Callable[[bool, str], None]


def read(unit: Path) -> dict[str, list[str]]:
    """Key -> its values in the section [Service]; a key may stand there several times."""
    found: dict[str, list[str]] = {}
    section = unit.read_text("utf-8").split("[Service]")[1].split("\n[")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def environment_of(unit: Path, instance: str = "1") -> dict[str, str]:
    words = " ".join(read(unit)["Environment"]).replace("%i", instance).split()
    return dict(word.split("=", 1) for word in words)


def test_there_is_a_unit_for_each_process() -> None:
    processes = {unit.name.removesuffix(".service").removesuffix("@") for unit in UNITS}
    assert processes == {
        "tocsin",
        "tocsin-collect",
        "tocsin-detect",
        "tocsin-correlate",
        "tocsin-console",
        "tocsin-lake",
    }


def test_systemd_finds_nothing_wrong(tmp_path: Path, require: Require) -> None:
    analyze = shutil.which("systemd-analyze")
    require(analyze is not None, "systemd-analyze is not installed")
    assert analyze is not None
    paths: list[str] = []
    others = [VERIFY, VERIFY.with_suffix(".timer"), DEPLOY / "systemd" / "tocsin.target"]
    for unit in [*UNITS, *others]:
        # what is not installed here stands for itself
        text = unit.read_text("utf-8").replace(COMMAND, "/bin/true")
        copy = tmp_path / unit.name
        copy.write_text(text)
        if "@" in unit.name:
            copy = tmp_path / unit.name.replace("@", "@1")
            copy.write_text(text)
        paths.append(str(copy))
    checked = subprocess.run([analyze, "verify", *paths], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_hardened_and_its_command_exists(unit: Path) -> None:
    service = read(unit)
    for key, value in {
        "User": "tocsin",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "StateDirectory": "tocsin",
        "Restart": "always",
    }.items():
        assert service[key] == [value], key
    assert service["CapabilityBoundingSet"][0] in ("", "CAP_NET_BIND_SERVICE")
    program, *words = service["ExecStart"][0].split()
    assert program == COMMAND
    group, command = Context(cli), cli
    for word in words[: words.index("--config")]:
        assert isinstance(command, Group)
        found = command.get_command(group, word)
        assert found is not None, word
        command = found  # type: ignore[assignment]  # a group or, at the end, a command
    assert "--config" in {option for parameter in command.params for option in parameter.opts}
    load_settings(None, environment_of(unit))


def test_what_the_timer_begins_is_as_hardened_as_the_rest() -> None:
    maintains, verifies = read(DEPLOY / "systemd" / "tocsin-lake.service"), read(VERIFY)
    of_a_process = {"Environment", "ExecReload", "Restart", "RestartSec", "KillSignal", "TimeoutStopSec"}
    assert set(maintains) - set(verifies) == of_a_process
    different = {key for key, value in verifies.items() if maintains[key] != value}
    assert different == {"Type", "ExecStart"}
    words = verifies["ExecStart"][0].split()
    assert words[:3] == [COMMAND, "lake", "verify"]


def test_no_two_units_answer_on_one_port() -> None:
    ports = [environment_of(unit)["TOCSIN_HEALTH__PORT"] for unit in UNITS]
    assert len(set(ports)) == len(ports)
    assert all(0 < int(port) < 65536 for port in ports)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_everything_on_one_machine_runs_in_the_sandbox_of_its_unit(tmp_path: Path, require: Require) -> None:
    tools = [shutil.which(name) for name in ("unshare", "setpriv", "mount")]
    require(os.getuid() == 0 and all(tools), "only root can make a root that can only be read")
    unit = DEPLOY / "systemd" / "tocsin.service"
    state = tmp_path / "state"
    state.mkdir()
    config = tmp_path / "config.toml"
    port, health = free_port(), free_port()
    config.write_text(
        f'rules = ["{REPOSITORY / "rules" / "hospital"}"]\n'
        f'rules_cache = "{state}/cache"\n[console]\nport = 0\n'
        f'[[collect.listeners]]\nname = "tcp"\nhospital = "CH de Kermor"\nport = {port}\n'
    )
    words = read(unit)["ExecStart"][0].replace(COMMAND, f"{sys.executable} -m tocsin")
    words = words.replace("/etc/tocsin/config.toml", str(config))
    sandbox = (
        f"mount --bind {state} {state} && mount -o remount,bind,ro / && cd {state} && "
        f"exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- {words}"
    )
    environment = environment_of(unit) | {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOCSIN_HEALTH__PORT": str(health),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", sandbox],
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            assert ready(health, process), (tmp_path / "log").read_text()
            with socket.create_connection(("127.0.0.1", port)) as sender:
                sender.sendall(b"<13>Mar  1 04:05:06 pc-1 app: hello from the sandbox\n")
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()
    assert (state / "tocsin-data" / "lake").is_dir()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert any(line["event"] == "collected" and line.get("lines", 1) == 1 for line in lines), lines


def ready(port: int, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def test_compose_finds_nothing_wrong(require: Require) -> None:
    compose = shutil.which("docker-compose")
    require(compose is not None, "docker-compose is not installed")
    assert compose is not None
    command = [compose, "-f", str(DEPLOY / "container" / "compose.yaml"), "config", "--quiet"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_compose_file_gives_each_process_settings_that_exist() -> None:
    services = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text("utf-8"))["services"]
    ours = {name: service for name, service in services.items() if not name.startswith("kafka")}
    assert set(ours) == {"collect", "detect", "correlate", "console", "lake"}
    for service in ours.values():
        settings = load_settings(None, service["environment"])
        assert settings.bus.kind == "kafka"
        assert len(settings.bus.bootstrap_servers) == settings.bus.replication_factor == 3
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        written = [text.split(":")[1] for text in service.get("volumes", [])]
        written += [text.split(":")[0] for text in service["tmpfs"]]
        assert "/var/lib/tocsin/data" in written  # the image's data_dir


def test_the_image_installs_what_is_locked_and_copies_what_is_there() -> None:
    text = (DEPLOY / "container" / "Containerfile").read_text("utf-8")
    assert "--require-hashes" in text
    assert "requirements.lock" in text
    for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (REPOSITORY / source).exists(), source
    variables = dict(re.findall(r"(TOCSIN_[A-Z_]+)=('[^']*'|\S+)", text))
    load_settings(None, {name: value.strip("'") for name, value in variables.items()})


def test_the_account_of_the_units_is_described() -> None:
    accounts = (DEPLOY / "systemd" / "tocsin.sysusers.conf").read_text("utf-8")
    assert re.search(r"^u tocsin ", accounts, re.MULTILINE)

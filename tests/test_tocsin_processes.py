"""All roles in this process, on the embedded bus: what is refused at start, and what the pulse tells."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from console.pulse import HospitalPulse
from storage.alert_queue import AlertFilter
from tocsin.processes import EVERY_ROLE, Role, Running, running
from tocsin.settings import Settings, SettingsError, load_settings
from tocsin.tally import Flow

RULE = """
title: Shell Started
id: 4d3e8f6e-9a58-4bb1-8b0a-5a4a4f3f5b10
status: test
description: Somebody started a shell.
level: high
logsource: {product: linux}
detection:
    selection: ['started a shell']
    condition: selection
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "shell.yml").write_text(RULE)
    return load_settings(
        None,
        {},
        [
            ("data_dir", str(tmp_path / "data")),
            ("rules", f'["{rules}"]'),
            ("console.port", "0"),
            ("detect.flush_seconds", "0.1"),
            (
                "collect.listeners",
                '[{name="a", hospital="CH A", port=0}, {name="b", hospital="CH B", port=0, transport="udp"}]',
            ),
        ],
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def send(here: Running, *lines: bytes) -> None:
    before = here.tally.received
    with socket.create_connection(here.listeners["a"]) as connection:
        connection.sendall(b"".join(line + b"\n" for line in lines))
    wait_for(lambda: here.tally.received == before + len(lines))


LINE = b"<86>1 2026-11-23T10:00:00Z bastion sshd 7 - - root started a shell"


def test_the_pulse_knows_who_should_send_and_who_did(settings: Settings) -> None:
    with running(settings) as here:
        send(here, LINE, b"no format reads this")
        pulse = here.pulse()
        assert pulse is not None
        heard, silent = pulse.hospitals
        assert (heard.tenant, heard.received, heard.understood, heard.unknown) == ("CH A", 2, 1, 1)
        assert silent == HospitalPulse("CH B")
        assert (pulse.rules_loaded, pulse.rules_refused, pulse.quarantined, pulse.failing) == (1, 0, 0, ())


def test_what_is_refused_at_loading_and_at_compiling_is_counted(settings: Settings) -> None:
    folder = settings.rules[0]
    (folder / "broken.yml").write_text("title: [")
    (folder / "unfit.yml").write_text(
        RULE.replace("4d3e8f6e", "5d3e8f6e").replace("['started", "{a|re: '('}\n    x: ['")
    )
    with running(settings) as here:
        pulse = here.pulse()
        assert pulse is not None
        assert (pulse.rules_loaded, pulse.rules_refused) == (1, 2)


def test_datagrams_lost_by_the_kernel_are_shown(settings: Settings) -> None:
    with running(settings) as here:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(LINE, here.listeners["b"])
        wait_for(lambda: here.tally.received == 1)
        here.dropped = 7  # what the collector's own count says a second later is 0 again
        pulse = here.pulse()
        assert pulse is not None
        assert pulse.dropped == 7
        wait_for(lambda: here.dropped == 0)


def test_without_the_detect_role_the_pulse_claims_nothing(settings: Settings) -> None:
    with running(settings, frozenset({Role.CONSOLE})) as here:
        assert here.pulse() is None


@pytest.mark.parametrize("roles", [EVERY_ROLE, frozenset({Role.DETECT})])
def test_rules_of_which_none_runs_are_refused(settings: Settings, roles: frozenset[Role]) -> None:
    (settings.rules[0] / "shell.yml").write_text("title: [")
    with pytest.raises(SettingsError, match="no rule that runs"), running(settings, roles):
        pytest.fail("it started")


def test_a_place_where_nothing_can_be_written_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = settings.model_copy(
        update={"lake": settings.lake.model_copy(update={"path": tmp_path / "file" / "lake"})}
    )
    with pytest.raises(SettingsError, match=r"lake\.path: nothing can be written in"), running(blocked):
        pytest.fail("it started")


def test_a_bus_begun_anew_is_refused_and_not_taken_for_the_old_one(settings: Settings, tmp_path: Path) -> None:
    with running(settings) as here:
        send(here, LINE)
    for path in settings.bus_path.parent.glob("bus.sqlite*"):
        path.rename(tmp_path / path.name)
    with pytest.raises(SettingsError, match="begun anew"), running(settings):
        pytest.fail("it started")
    for path in tmp_path.glob("bus.sqlite*"):
        path.rename(settings.bus_path.parent / path.name)
    with running(settings) as here:
        send(here, LINE)


def alerts(here: Running) -> int:
    assert here.store is not None
    return here.store.counts(AlertFilter()).total


@pytest.mark.parametrize("runs", [1, 3])
def test_restarting_loses_and_repeats_nothing(settings: Settings, runs: int) -> None:
    for _ in range(runs):
        with running(settings) as here:
            send(here, LINE)
            wait_for(lambda: here.tally.passed(Flow.STORED) == 1)
    with running(settings, frozenset({Role.CONSOLE})) as here:
        assert alerts(here) == runs

"""The commands that run processes: everything, or one role each."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click

from tocsin.demo import run_demo
from tocsin.processes import EVERY_ROLE, Role, running
from tocsin.settings_options import settings_from, settings_options


def _process(role: Role | None, help_text: str) -> click.Command:
    roles = EVERY_ROLE if role is None else frozenset({role})

    @click.command(name=role or "run", help=help_text)
    @settings_options
    def process(config: Path | None, flags: tuple[str, ...]) -> None:
        settings = settings_from(config, flags)
        with running(settings, roles) as here:
            stop_on_signals(here.crew.stop)
            reload_on_signal(here.reload_rules)
            here.crew.stop.wait()

    return process


def stop_on_signals(stop: threading.Event) -> None:
    """End in good order on SIGINT and SIGTERM: what was read is made durable first."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def reload_on_signal(reload: Callable[[], None]) -> None:
    """Read the rules anew on SIGHUP, as daemons do with what they are configured by."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        reload()

    signal.signal(signal.SIGHUP, handle)


@click.command()
@click.option(
    "--headless", is_flag=True, help="End by itself and print the alerts; exit 0 only if the attack was found."
)
@click.option("--scenario", default="brest-2023", show_default=True, help="Which attack to play.")
@settings_options
def demo(headless: bool, scenario: str, config: Path | None, flags: tuple[str, ...]) -> None:
    """Play a hospital attack through real syslog, on this machine alone."""
    raise SystemExit(run_demo(settings_from(config, flags), scenario, headless=headless))


run = _process(None, "All on one machine: collect, detect, correlate and console in one process.")
collect = _process(Role.COLLECT, "Receive syslog and put batches of raw lines on the bus.")
detect = _process(Role.DETECT, "Parse, match the rules, and fill the lake.")
correlate = _process(Role.CORRELATE, "Turn matches into alerts.")
console = _process(Role.CONSOLE, "Store alerts, and serve the analysts' pages and API.")

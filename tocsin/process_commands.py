"""The commands that run processes: everything, or one role each."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click

from tocsin.demo import run_demo
from tocsin.languages import gettext
from tocsin.logs import configure_logs
from tocsin.processes import EVERY_ROLE, Role, running
from tocsin.settings import Settings, SettingsError, load_settings


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options every process shares: where its settings come from."""
    command = click.option(
        "--set",
        "flags",
        multiple=True,
        metavar="KEY=VALUE",
        help="One setting, e.g. --set console.port=8081. May be repeated; wins over file and environment.",
    )(command)
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        envvar="TOCSIN_CONFIG",
        help="TOML file of settings (deploy/config.toml shows them all).",
    )(command)


def settings_from(config: Path | None, flags: tuple[str, ...]) -> Settings:
    """Settings from file, environment and `KEY=VALUE` flags, with the log set up as they say."""
    pairs = []
    for flag in flags:
        key, sign, value = flag.partition("=")
        if not sign:
            raise SettingsError(gettext("--set {flag}: write KEY=VALUE").format(flag=flag))
        pairs.append((key.strip(), value.strip()))
    settings = load_settings(config, os.environ, pairs)
    configure_logs(settings.log.level, settings.log.format)
    return settings


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

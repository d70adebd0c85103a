"""The command line.

What goes wrong for a reason that a person can mend (a setting, a port in use, a missing file) is one line on stderr and
exit code 2. A traceback is a defect of Tocsin.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Final

import click

from console.errors import ConsoleError
from detections.rule import RuleError
from ingest.bus import BusError
from ingest.listeners import CollectError
from storage.errors import StorageError
from tocsin.demo import DemoError, run_demo
from tocsin.exercise import ExerciseError
from tocsin.exercise_command import exercise
from tocsin.hunt import hunt
from tocsin.languages import ENGLISH, gettext, has_accents, language_of, speak, teach_click, translate_help
from tocsin.logs import configure_logs
from tocsin.processes import EVERY_ROLE, Role, running
from tocsin.rules_command import rules
from tocsin.settings import Settings, SettingsError, load_settings

FORESEEN: Final = (
    BusError,
    CollectError,
    ConsoleError,
    DemoError,
    ExerciseError,
    RuleError,
    SettingsError,
    StorageError,
)
"""The error roots of the stages: each message is one line that says what, where and why."""


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("tocsin"))
def tocsin() -> None:
    """Tocsin: hospital logs in, Sigma rules over them, alerts before the region's analysts."""


def _process(role: Role | None, help_text: str) -> click.Command:
    roles = EVERY_ROLE if role is None else frozenset({role})

    @click.command(name=role or "run", help=help_text)
    @settings_options
    def process(config: Path | None, flags: tuple[str, ...]) -> None:
        settings = settings_from(config, flags)
        with running(settings, roles) as here:
            stop_on_signals(here.crew.stop)
            here.crew.stop.wait()

    return process


def stop_on_signals(stop: threading.Event) -> None:
    """End in good order on SIGINT and SIGTERM: what was read is made durable first."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


@click.command()
@click.option(
    "--headless", is_flag=True, help="End by itself and print the alerts; exit 0 only if the attack was found."
)
@click.option("--scenario", default="brest-2023", show_default=True, help="Which attack to play.")
@settings_options
def demo(headless: bool, scenario: str, config: Path | None, flags: tuple[str, ...]) -> None:
    """Play a hospital attack through real syslog, on this machine alone."""
    raise SystemExit(run_demo(settings_from(config, flags), scenario, headless=headless))


for _command in (
    _process(None, "All on one machine: collect, detect, correlate and console in one process."),
    _process(Role.COLLECT, "Receive syslog and put batches of raw lines on the bus."),
    _process(Role.DETECT, "Parse, match the rules, and fill the lake."),
    _process(Role.CORRELATE, "Turn matches into alerts."),
    _process(Role.CONSOLE, "Store alerts, and serve the analysts' pages and API."),
    demo,
    exercise,
    hunt,
    rules,
):
    tocsin.add_command(_command)


def speak_as_asked(environment: Mapping[str, str]) -> None:
    """Choose the language, and let no sign that the terminal lacks end the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    language = language_of(environment)
    speak(language, accents=has_accents(sys.stdout))
    if language != ENGLISH:
        teach_click()
        translate_help(tocsin)


def main() -> None:
    """Entry point of the `tocsin` command."""
    try:
        speak_as_asked(os.environ)
        configure_logs("info", "text")  # stdout is for answers alone, also before there are settings
        tocsin()
    except FORESEEN as error:
        click.echo(f"tocsin: {error}", err=True)
        sys.exit(2)

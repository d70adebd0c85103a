"""The commands that run processes: everything, or one role each."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Final

import click
import structlog

from tocsin.demo import run_demo
from tocsin.folders import make_private
from tocsin.languages import gettext
from tocsin.logs import name_process
from tocsin.processes import EVERY_ROLE, Role, role_name, running
from tocsin.settings import Settings, SettingsError
from tocsin.settings_options import settings_from, settings_options
from tocsin.settings_sections import KafkaSourceSection

log = structlog.get_logger()

LONGEST_NAME: Final = 249  # of a topic in Kafka


def _process(role: Role | None, help_text: str) -> click.Command:
    roles = EVERY_ROLE if role is None else frozenset({role})

    @click.command(name=role or "run", help=help_text)
    @settings_options
    def process(config: Path | None, flags: tuple[str, ...]) -> None:
        _run(settings_from(config, flags), roles, config)

    return process


def _run(settings: Settings, roles: frozenset[Role], config: Path | None, *, from_start: bool = False) -> None:
    name = role_name(roles)
    log_start(settings, name, config)
    make_private(settings.data_dir)
    with running(settings, roles, from_start=from_start) as here:
        stop_on_signals(here.crew.stop)
        reload_on_signal(here.reload_rules)
        log.info("started", **({} if here.health_url is None else {"health": here.health_url}))
        here.crew.stop.wait()
        log.info("stopping")
    log.info("stopped")


def log_start(settings: Settings, name: str, config: Path | None) -> None:
    """Say in the log what begins here, and call the process so from now on."""
    name_process(name)
    log.info(
        "starting",
        version=version("tocsin"),
        role=name,
        settings="defaults" if config is None else str(config.absolute()),
        data_dir=str(settings.data_dir.absolute()),
        bus=settings.bus.kind,
    )


@click.command()
@click.option("--from-kafka", "topic", metavar="TOPIC", help="Collect from this topic alone: one event a record.")
@click.option("--format", "form", default="", help="The format that its events have; else each is recognised.")
@click.option("--hospital", help="Whose they are.")
@settings_options
def collect(topic: str | None, form: str, hospital: str | None, config: Path | None, flags: tuple[str, ...]) -> None:
    """Receive syslog and put batches of raw lines on the bus."""
    settings = settings_from(config, flags)
    if topic is not None:
        if hospital is None:
            raise click.UsageError(gettext("--from-kafka needs --hospital: whose logs are they?"))
        settings = from_topic(settings, topic, form, hospital)
    elif form or hospital:
        raise click.UsageError(gettext("--format and --hospital go with --from-kafka"))
    _run(settings, frozenset({Role.COLLECT}), config)


@click.command()
@click.option("--from-start", is_flag=True, help="Read again all that the bus still holds, to fill a new lake.")
@settings_options
def detect(*, from_start: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Parse, match the rules, and fill the lake."""
    _run(settings_from(config, flags), frozenset({Role.DETECT}), config, from_start=from_start)


def from_topic(settings: Settings, topic: str, form: str, hospital: str) -> Settings:
    """The settings with this topic of the bus's cluster as the only thing that is collected from.

    Raises:
        SettingsError: The topic or the hospital has no name.
    """
    for option, value in (("--from-kafka", topic), ("--hospital", hospital)):
        if not value.strip() or len(value) > LONGEST_NAME:
            raise SettingsError(f"{option}: {value!r} is no name")
    section = KafkaSourceSection(name=topic, hospital=hospital, topic=topic, format=form)
    alone = settings.collect.model_copy(update={"listeners": (), "kafka": (section,)})
    return settings.model_copy(update={"collect": alone})


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
correlate = _process(Role.CORRELATE, "Turn matches into alerts.")
console = _process(Role.CONSOLE, "Store alerts, and serve the analysts' pages and API.")

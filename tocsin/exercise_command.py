"""`tocsin exercise`: play a documented attack to a listener, as a hospital's forwarders would send it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import click

from ingest.visible import visible
from tocsin.exercise import ExerciseError, Framing, Scenario, Transport, list_scenarios, play, render
from tocsin.languages import counted, gettext, in_language, number
from tocsin.settings import load_settings

SEED = 2023


def scenarios_of(folders: tuple[Path, ...]) -> dict[str, Scenario]:
    """The scenarios below the folders of rules, by id.

    Raises:
        ExerciseError: One of them cannot be played.
    """
    return {scenario.id: scenario for folder in folders for scenario in list_scenarios(folder)}


def scenario_named(folders: tuple[Path, ...], name: str) -> Scenario:
    """The scenario of this id.

    Raises:
        ExerciseError: There is none; the message names those there are.
    """
    known = scenarios_of(folders)
    if name not in known:
        told = gettext("there is no scenario {name}; there are: {known}")
        raise ExerciseError(told.format(name=repr(name), known=", ".join(known) or gettext("none")))
    return known[name]


@click.group()
def exercise() -> None:
    """Play attacks through real syslog."""


CONFIG = click.option(
    "--config", type=click.Path(path_type=Path), envvar="TOCSIN_CONFIG", help="TOML file of settings."
)


@exercise.command("list")
@CONFIG
def list_command(config: Path | None) -> None:
    """Name the scenarios that can be played."""
    known = scenarios_of(load_settings(config, os.environ).rules)
    for scenario in known.values():
        title = visible(in_language(scenario.title))
        click.echo(counted("{id}: {title} ({n} stages)", len(scenario.stages), id=scenario.id, title=title))
        click.echo(f"    {visible(scenario.source)}")
    if not known:
        raise ExerciseError(gettext("there are no scenarios below the folders of rules"))


@exercise.command("run")
@click.argument("name")
@click.option("--to", "target", default="127.0.0.1:5514", show_default=True, help="The listener, HOST:PORT.")
@click.option("--transport", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True)
@click.option(
    "--framing",
    type=click.Choice(["octet-counted", "newline"]),
    default="octet-counted",
    show_default=True,
    help="How lines are told apart over TCP (RFC 6587).",
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Lines a second; default: as fast as it goes."
)
@click.option("--seed", default=SEED, show_default=True, help="The same seed gives the same lines.")
@click.option("--noise", type=click.FloatRange(min=0), default=1.0, show_default=True, help="How much ordinary life.")
@CONFIG
def run_command(
    name: str,
    target: str,
    transport: str,
    framing: str,
    rate: float | None,
    seed: int,
    noise: float,
    config: Path | None,
) -> None:
    """Play the scenario NAME; its last line is of now."""
    host, sign, port = target.rpartition(":")
    if not sign or not host or not port.isdecimal() or int(port) > 65535:
        raise ExerciseError(gettext("--to {target}: write HOST:PORT").format(target=target))
    scenario = scenario_named(load_settings(config, os.environ).rules, name)
    lines = render(scenario, datetime.now(UTC) - scenario.duration, seed, noise=noise)
    report = play(
        lines,
        host.strip("[]"),
        int(port),
        transport=cast("Transport", transport),
        framing=cast("Framing", framing),
        rate=rate,
    )
    click.echo(
        gettext("{lines}, {bytes} sent to {target} in {seconds} s").format(
            lines=counted("{n} lines", report.lines),
            bytes=counted("{n} bytes", report.bytes),
            target=target,
            seconds=number(report.seconds, 1),
        )
    )

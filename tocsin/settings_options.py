"""The options of every command that reads the settings: the file, and single settings that win over it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from tocsin.languages import gettext
from tocsin.logs import configure_logs
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
        help="TOML file of settings (deploy/config.toml shows them all); TOCSIN_CONFIG may name it, too.",
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

"""The command line.

What goes wrong for a reason that a person can mend (a setting, a port in use, a missing file) is one line on stderr and
exit code 2. A traceback is a defect of Tocsin.

A command is imported when it is asked for: a hunt needs neither the console nor a Kafka client, and importing them
takes longer than compiling three thousand rules.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

import click
import structlog

from tocsin.foreseen import FORESEEN
from tocsin.languages import ENGLISH, has_accents, language_of, speak, spoken, teach_click, translate_help
from tocsin.logs import configure_logs, speaks_json

log = structlog.get_logger()

COMMANDS: Final = {
    "alerts": "tocsin.alerts_command:alerts",
    "authority": "tocsin.authority_command:authority",
    "run": "tocsin.process_commands:run",
    "collect": "tocsin.process_commands:collect",
    "detect": "tocsin.process_commands:detect",
    "correlate": "tocsin.process_commands:correlate",
    "console": "tocsin.process_commands:console",
    "demo": "tocsin.process_commands:demo",
    "exercise": "tocsin.exercise_command:exercise",
    "hospital": "tocsin.hospital_command:hospital",
    "hunt": "tocsin.hunt:hunt",
    "lake": "tocsin.lake_command:lake",
    "quarantine": "tocsin.quarantine_command:quarantine",
    "rules": "tocsin.rules_command:rules",
    "sources": "tocsin.sources_command:sources",
    "status": "tocsin.status_command:status",
}
"""Command -> module and name of what runs it."""


class LazyGroup(click.Group):
    """Commands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All commands, loaded or not."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """A command, imported and its help put into the language spoken."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            module, _, name = COMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            self.add_command(command, cmd_name)
            if spoken() != ENGLISH:
                translate_help(command)
        return self.commands[cmd_name]

    def load(self) -> LazyGroup:
        """Import every command."""
        for name in COMMANDS:
            self.get_command(click.Context(self), name)
        return self


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("tocsin"))
def tocsin() -> None:
    """Tocsin: hospital logs in, Sigma rules over them, alerts before the region's analysts."""


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
        if speaks_json():
            log.critical("the process ends", error=str(error))
        else:
            click.echo(f"tocsin: {error}", err=True)
        sys.exit(2)

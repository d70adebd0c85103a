"""`tocsin lake maintain`: the keeping in order of the lake, as a process of its own or once."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

import click

from ingest.visible import visible
from tocsin.health import serve_health
from tocsin.lake_maintenance import LOW_PRIORITY, LakeMaintenance, Round, maintenance_of, noting_rounds
from tocsin.languages import counted, gettext, number
from tocsin.settings import Settings
from tocsin.settings_options import settings_from, settings_options
from tocsin.vitals import STUCK_STARTING, Vitals

USUAL_SECONDS = 300.0
STAGE = "maintain"
"""What its health calls it; what fails is told as "lake", which can wait for the morning."""


@click.command()
@click.option("--once", is_flag=True, help="One round, with a summary; exit 1 if a part of it failed.")
@settings_options
def maintain(once: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Put small files together, remove what is over, seal, and clean up: every lake.maintenance_seconds."""
    from tocsin.process_commands import log_start, stop_on_signals  # noqa: PLC0415 - with it comes all that processes need

    settings = settings_from(config, flags)
    maintenance = maintenance_of(settings)
    os.nice(LOW_PRIORITY)
    stop = threading.Event()
    stop_on_signals(stop)
    if once:
        done = maintenance.round(stop.is_set)
        for line in summary(done):
            click.echo(line)
        if done.failures or done.busy:
            raise SystemExit(1)
        return
    vitals = Vitals("maintain")
    log_start(settings, "maintain", config)
    with serve_health(settings, vitals):
        keep_in_order(maintenance, settings, vitals, stop)
        vitals.stopping = True


def keep_in_order(maintenance: LakeMaintenance, settings: Settings, vitals: Vitals, stop: threading.Event) -> None:
    """A round at once, and then one after another until `stop`; the process's health shows that it steps."""
    vitals.beginning(STAGE, patience=STUCK_STARTING)  # the log of a large table in a far store takes minutes to read
    vitals.ready = True
    stepped = partial(vitals.stepped, STAGE)
    tell = noting_rounds(settings.data_dir, partial(vitals.failing, "lake"))
    maintenance.run(stop, settings.lake.maintenance_seconds or USUAL_SECONDS, tell, stepped, first=0.0)


def summary(done: Round) -> list[str]:
    """What a round did, for people."""
    if done.busy:
        return [gettext("Another process is keeping this lake in order: nothing was done")]
    lines = [
        counted("{n} tables looked at", done.tables, grouped=True),
        counted("{n} events were over and are removed", done.expired, grouped=True),
        gettext("{before} files put together into {after} ({bytes} bytes, now {now})").format(
            before=number(done.compacted.files_before),
            after=number(done.compacted.files_after),
            bytes=number(done.compacted.bytes_before),
            now=number(done.compacted.bytes_after),
        ),
        counted("{n} tables sealed", done.sealed, grouped=True),
        gettext("{files} files and {entries} log entries deleted ({bytes} bytes)").format(
            files=number(done.cleaned.files),
            entries=number(done.cleaned.log_entries),
            bytes=number(done.cleaned.bytes),
        ),
    ]
    if done.partial:
        lines.append(counted("{n} half-written files of dead writers deleted", done.partial, grouped=True))
    if done.waiting:
        lines.append(gettext("Expiry waits: {reason}").format(reason=visible(done.waiting)))
    if done.failures:
        lines.append(counted("{n} steps failed: the log names them", len(done.failures)))
    return lines

"""`tocsin alerts`: back up, restore, export, import, verify and rebuild the store of alerts and decisions.

Backup, export and verify work while the console runs: it holds the file, so it is asked (`tocsin.alert_requests`).
Restore, import and rebuild make another file and put it in place, so the console must be stopped.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import click

from ingest.visible import visible
from storage.alert_backup import backups_in, keep_newest
from storage.alert_database import AlertDatabase
from storage.alert_queue import AlertFilter
from storage.alert_restore import Restored, import_export, make_empty, make_from, restore, verify_backup
from storage.alert_verify import faults_of
from storage.alerts import AlertStore
from storage.errors import StoreError, StoreHeld
from tocsin.alert_keeper import as_utc, backup_lines, head_line
from tocsin.alert_requests import Request, What, ask
from tocsin.buses import open_bus
from tocsin.languages import counted, gettext, number
from tocsin.settings import Settings, SettingsError
from tocsin.settings_options import settings_from, settings_options
from tocsin.stages import StoreStage
from tocsin.tally import Tally

NEWEST: Final = "newest"
POLL_SECONDS: Final = 0.5
EMPTY_POLLS: Final = 4
"""A bus may give nothing for a while before it gives more: a group that forms, a broker that was busy."""


@click.group()
def alerts() -> None:
    """Back up, restore, check and rebuild the store of alerts and decisions."""


@alerts.command()
@click.option("--to", "target", type=click.Path(path_type=Path), help="Folder of backups; else that of the settings.")
@settings_options
def backup(target: Path | None, config: Path | None, flags: tuple[str, ...]) -> None:
    """Write a backup, while the console runs or not, and remove the oldest beyond alerts.backups_kept."""
    settings = settings_from(config, flags)
    folder = (target or settings.backups_path).absolute()
    try:
        with _store(settings) as store:
            made = store.backup(folder)
    except StoreHeld:
        lines = ask(settings.alerts_path, Request(What.BACKUP, str(folder)))
    else:
        if target is None:
            keep_newest(folder, settings.alerts.backups_kept)
        lines = backup_lines(made)
    _say(lines)


@alerts.command("restore")
@click.argument("source", metavar="BACKUP")
@click.option("--to", "target", type=click.Path(path_type=Path), help="The new file; else that of the settings.")
@click.option("--force", is_flag=True, help="Move the file that is there aside.")
@settings_options
def restore_command(source: str, target: Path | None, force: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Make a store from BACKUP: a folder, the name of a backup, or "newest". The console must be stopped.

    The console then reads from the bus what came since. Decisions made since the backup are lost.
    """
    settings = settings_from(config, flags)
    folder = _backup_of(settings, source)
    made = restore(folder, target or settings.alerts_path, settings.alerts.memory_limit, force=force)
    _say_made(made)


@alerts.command()
@click.argument("folder", type=click.Path(path_type=Path))
@settings_options
def export(folder: Path, config: Path | None, flags: tuple[str, ...]) -> None:
    """Write alerts.parquet and decisions.parquet into FOLDER, for other tools."""
    settings = settings_from(config, flags)
    try:
        with _store(settings) as store:
            lines = [str(path) for path in store.export_parquet(folder)]
    except StoreHeld:
        lines = ask(settings.alerts_path, Request(What.EXPORT, str(folder.absolute())))
    _say(lines)


@alerts.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), help="The new file; else that of the settings.")
@click.option("--force", is_flag=True, help="Move the file that is there aside.")
@settings_options
def import_command(folder: Path, target: Path | None, force: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Make a store from what `tocsin alerts export` wrote into FOLDER. The console must be stopped.

    The console then reads all alerts that the bus still has, and adds those that are not there.
    """
    settings = settings_from(config, flags)
    _say_made(import_export(folder, target or settings.alerts_path, settings.alerts.memory_limit, force=force))


@alerts.command()
@click.option("--backup", "source", default="", metavar="BACKUP", help='A backup instead: folder, name or "newest".')
@settings_options
def verify(source: str, config: Path | None, flags: tuple[str, ...]) -> None:
    """Check the journal's chain, and that alerts stand where their decisions put them. Exit 1 if something is wrong."""
    settings = settings_from(config, flags)
    faults = verify_backup(_backup_of(settings, source))[1] if source else _faults(settings)
    _say(faults)
    if faults:
        raise SystemExit(1)
    click.echo(gettext("nothing is wrong"))


@alerts.command()
@click.option(
    "--from",
    "source",
    default="",
    metavar="FOLDER",
    help='Take decisions from this backup ("newest", name, folder) or export; else from the present store, if it can '
    "be read, or the newest backup that is whole.",
)
@click.option("--without-decisions", is_flag=True, help="Begin with an empty journal: what analysts decided is lost.")
@settings_options
def rebuild(source: str, without_decisions: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Make the store anew: decisions from a backup or export, alerts from there and from the bus.

    The console must be stopped. The bus has alerts for bus.retention_days.alerts; decisions are not on it.
    """
    settings = settings_from(config, flags)
    path, memory = settings.alerts_path, settings.alerts.memory_limit
    if without_decisions:
        made = make_empty(path, memory, force=True)
    elif source:
        made = make_from(_backup_of(settings, source), path, memory, force=True, anew=True)
    else:
        made = _remade(settings)
    _say_made(made)
    _say([counted("{n} alerts more came from the bus", _read_bus(settings), grouped=True)])
    faults = _faults(settings)
    _say(faults)
    if faults:
        raise SystemExit(1)


def _store(settings: Settings) -> AlertStore:
    """The store, which must be there.

    Raises:
        StoreHeld: The console runs.
        SettingsError: It is not there.
    """
    path = settings.alerts_path
    if not path.exists():
        raise SettingsError(gettext("{path}: there is no alert store").format(path=path))
    return AlertStore(path, memory_limit=settings.alerts.memory_limit)


def _faults(settings: Settings) -> list[str]:
    path = settings.alerts_path
    if not path.exists():
        raise SettingsError(gettext("{path}: there is no alert store").format(path=path))
    try:
        database = AlertDatabase(path, datetime.now(UTC), settings.alerts.memory_limit, read_only=True)
    except StoreHeld:
        return ask(path, Request(What.VERIFY))
    with closing(database), database.reading("verify the store") as connection:
        return faults_of(connection)


def _backup_of(settings: Settings, source: str) -> Path:
    """A folder as it is named; else the backup of this name."""
    if source == NEWEST:
        found = backups_in(settings.backups_path)
        if not found:
            raise SettingsError(gettext("{folder}: there is no backup").format(folder=settings.backups_path))
        return found[0]
    path = Path(source)
    named = settings.backups_path / source
    return named if not path.exists() and named.is_dir() else path


def _remade(settings: Settings) -> Restored:
    """The store anew, from itself if it can be read, else from the newest backup that is whole."""
    path, memory = settings.alerts_path, settings.alerts.memory_limit
    reasons: list[str] = []
    if path.exists():
        copies = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            with _store(settings) as store:
                copy = store.backup(copies)
            return make_from(copy.folder, path, memory, force=True, anew=True)
        except StoreHeld:
            raise
        except StoreError as error:
            reasons.append(str(error))
            click.echo(
                gettext("the present store cannot be used: {reason}").format(reason=visible(str(error))), err=True
            )
        finally:
            shutil.rmtree(copies, ignore_errors=True)
    for folder in backups_in(settings.backups_path):
        try:
            made = make_from(folder, path, memory, force=True, anew=True)
        except StoreHeld:
            raise
        except StoreError as error:
            reasons.append(str(error))
            click.echo(gettext("this backup cannot be used: {reason}").format(reason=visible(str(error))), err=True)
        else:
            click.echo(gettext("from the backup {folder}").format(folder=folder))
            return made
    reason = gettext(
        "{path}: there is no store, backup or export to take decisions from. Name one by --from, or give them up by "
        "--without-decisions"
    )
    raise SettingsError(reason.format(path=path))


def _read_bus(settings: Settings) -> int:
    """Read all alerts that the bus has; how many were not known."""
    with closing(open_bus(settings)) as bus, _store(settings) as store:
        before = store.counts(AlertFilter()).total
        empty = 0
        with closing(StoreStage(bus, store, Tally())) as stage:
            while empty < EMPTY_POLLS:
                read = stage.step(POLL_SECONDS)
                empty = 0 if read or stage.lag() else empty + 1
        return store.counts(AlertFilter()).total - before


def _say_made(made: Restored) -> None:
    lines = [
        gettext("{path}: {alerts} alerts, {decisions} decisions").format(
            path=made.path, alerts=number(made.alerts), decisions=number(made.decisions)
        )
    ]
    if made.backup_of is not None:
        lines.append(gettext("as of {moment}").format(moment=as_utc(made.backup_of)))
    if made.aside is not None:
        lines.append(gettext("what was there is now {path}").format(path=made.aside))
    _say([*lines, head_line(made.head)])


def _say(lines: list[str]) -> None:
    for line in lines:
        click.echo(visible(line))

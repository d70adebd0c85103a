"""`tocsin lake hold`, `purge` and `retention`: what the lake keeps, how long, and what went and why.

Who adds a hold or purges signs it, and so needs the registry, where the key lies.
"""

from __future__ import annotations

import getpass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import click

from ingest.logsource import LogSource
from ingest.registry import read_registry
from ingest.visible import visible
from storage.lake_hold import ADDED, Hold, add_hold, hold_history, read_holds, release_hold
from storage.lake_manifest import seal_heads
from storage.lake_place import LakePlace
from storage.lake_purge import DONE, INTENDED, WITHDRAWN, Expired, purge_history
from storage.lake_retention import hospitals, of_hospital, purge, survey
from storage.signing import Signer, open_signer, read_public
from tocsin.lake_maintenance import retention_rules
from tocsin.lake_place import standing_lake
from tocsin.languages import N_, counted, gettext, number
from tocsin.registry_options import said, warned
from tocsin.settings import Settings
from tocsin.settings_options import settings_from, settings_options
from tocsin.text_table import table_lines

KEPT: Final = 1
"""Exit code where a hold stood against a purge."""

DAY: Final = click.DateTime(["%Y-%m-%d"])

STATES: Final = {INTENDED: N_("interrupted"), WITHDRAWN: N_("withdrawn"), DONE: N_("done")}


def lake_signer(settings: Settings) -> Signer:
    """The key that signs for the lake, made in the registry when it is first needed.

    Raises:
        LakeError: It cannot be made or read.
    """
    return open_signer(settings.registry_path / "keys")


def parse_logsource(text: str) -> LogSource:
    """`product/category/service`; `_` or nothing for any.

    Raises:
        click.BadParameter: It has more parts.
    """
    parts = [part if part != "_" else "" for part in text.split("/")] if text else []
    if len(parts) > 3:
        raise click.BadParameter(gettext("{text}: write PRODUCT/CATEGORY/SERVICE, with _ for any").format(text=text))
    product, category, service = (part or None for part in [*parts, "", "", ""][:3])
    return LogSource(product, category, service)


@click.group("hold")
def hold_group() -> None:
    """Legal holds: what stays although its time is over."""


@hold_group.command("add")
@click.argument("name")
@click.option("--hospital", required=True, help="Whose events.")
@click.option("--since", type=DAY, help="First day (UTC); from the beginning if not given.")
@click.option("--until", type=DAY, help="Last day (UTC), itself included; also what is to come if not given.")
@click.option("--logsource", default="", help="PRODUCT/CATEGORY/SERVICE, with _ for any; all if not given.")
@click.option("--reason", required=True, help="Why; it is written into the record.")
@settings_options
def hold_add(
    name: str,
    hospital: str,
    since: datetime | None,
    until: datetime | None,
    logsource: str,
    reason: str,
    config: Path | None,
    flags: tuple[str, ...],
) -> None:
    """Keep events of a hospital until the hold is released, whatever retention says."""
    settings = settings_from(config, flags)
    place = standing_lake(settings).place
    _check_known(settings, place, hospital)
    source = parse_logsource(logsource)
    hold = Hold(
        *(_text(name), hospital, day_of(since), day_of(until), source, _text(reason), getpass.getuser()), at=_now()
    )
    add_hold(place, hold, lake_signer(settings))
    seal_heads(place, lake_signer(settings), _now())
    said(gettext("hold {name} stands: {what}").format(name=name, what=_covers(hold)))


@hold_group.command("release")
@click.argument("name")
@click.option("--reason", required=True, help="Why; it is written into the record.")
@settings_options
def hold_release(name: str, reason: str, config: Path | None, flags: tuple[str, ...]) -> None:
    """Let retention have what a hold kept."""
    settings = settings_from(config, flags)
    place, signer = standing_lake(settings).place, lake_signer(settings)
    hold = release_hold(place, _text(name), _text(reason), getpass.getuser(), _now(), signer)
    seal_heads(place, signer, _now())
    said(gettext("hold {name} is released: {what}").format(name=name, what=_covers(hold)))


@hold_group.command("list")
@click.option("--history", is_flag=True, help="Also those that were released.")
@settings_options
def hold_list(history: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Show the holds that stand."""
    settings = settings_from(config, flags)
    place, keys = standing_lake(settings).place, read_public(settings.registry_path / "keys") or None
    if history:
        rows = [
            [
                *(_moment(record.hold.at), gettext("added") if record.what == ADDED else gettext("released")),
                *(record.hold.name, _covers(record.hold), record.hold.who, record.hold.reason),
            ]
            for record in hold_history(place, keys)
        ]
        heads = [gettext("time"), gettext("what"), gettext("hold"), gettext("covers"), gettext("who"), gettext("why")]
    else:
        rows = [[hold.name, _covers(hold), _moment(hold.at), hold.who, hold.reason] for hold in read_holds(place, keys)]
        heads = [gettext("hold"), gettext("covers"), gettext("time"), gettext("who"), gettext("why")]
    for line in table_lines(heads, rows) if rows else [gettext("no hold stands")]:
        click.echo(line)


@click.command("purge")
@click.option("--hospital", help="Whose events.")
@click.option("--before", type=DAY, help="Only days (UTC) before this one; all if not given.")
@click.option("--logsource", default="", help="PRODUCT/CATEGORY/SERVICE, with _ for any; all if not given.")
@click.option("--reason", help="Why; it is written into the record.")
@click.option("--yes", is_flag=True, help="Do it; without, only show what would go.")
@click.option("--list", "listed", is_flag=True, help="Show everything that was ever removed, and why.")
@settings_options
def purge_command(
    hospital: str | None,
    before: datetime | None,
    logsource: str,
    reason: str | None,
    yes: bool,
    listed: bool,
    config: Path | None,
    flags: tuple[str, ...],
) -> None:
    """Remove events of a hospital at once and for good, with a signed record. Exit 1 if a hold keeps some."""
    settings = settings_from(config, flags)
    place = standing_lake(settings).place
    if listed:
        _tell_history(settings, place)
        return
    if not hospital or not reason or not reason.strip():
        raise click.UsageError(gettext("--hospital and --reason are needed: nothing is removed without them"))
    _check_known(settings, place, hospital)
    choice = of_hospital(hospital, day_of(before), parse_logsource(logsource))
    due = survey(place, choice, read_holds(place))
    kept = sorted({name for one in due for name in one.holds})
    if not yes:
        _tell_partitions([one.partition for one in due if not one.holds])
        said(gettext("nothing was removed: --yes does it, and it cannot be undone"))
    else:
        signer = lake_signer(settings)
        gone = purge(place, choice, _now(), signer, who=getpass.getuser(), reason=_text(reason))
        seal_heads(place, signer, _now())
        _tell_partitions(gone)
        said(counted("{n} events removed", sum(one.rows for one in gone), grouped=True))
    if kept:
        warned(gettext("kept by a hold: {names}").format(names=", ".join(kept)))
        raise SystemExit(KEPT)


@click.command("retention")
@click.option("--history", is_flag=True, help="Show everything that was ever removed, and why.")
@settings_options
def retention_command(history: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """Show how long events are kept, and what is over now. Maintenance removes it (`tocsin lake maintain`)."""
    settings = settings_from(config, flags)
    place = standing_lake(settings).place
    if history:
        _tell_history(settings, place)
        return
    rules = retention_rules(settings.lake)
    rows = [
        [str(rule), number(min(rule.days, rules.longest))]
        for rule in sorted(rules.rules, key=lambda rule: rule.weight, reverse=True)
    ]
    rows.append([gettext("all others") if rows else gettext("all"), number(min(rules.days, rules.longest))])
    for line in table_lines([gettext("events"), gettext("days")], rows, numbers=(1,)):
        click.echo(line)
    today = _now().date()
    due = survey(place, lambda logsource: rules.over(logsource, today), read_holds(place))
    going = [one.partition for one in due if not one.holds]
    click.echo(counted("{n} days of a hospital are over, and go when maintenance next runs", len(going), grouped=True))
    held = [one for one in due if one.holds]
    if held:
        click.echo(counted("{n} days of a hospital are over, and kept by a hold", len(held), grouped=True))


def _tell_partitions(partitions: list[Expired]) -> None:
    heads = [gettext("table"), gettext("day"), gettext("hospital"), gettext("events"), gettext("bytes"), gettext("why")]
    rows = [
        [one.table, one.day or "", one.hospital or "", number(one.rows), number(one.bytes), one.why]
        for one in partitions
    ]
    for line in table_lines(heads, rows, numbers=(3, 4)) if rows else [gettext("there is nothing to remove")]:
        click.echo(line)


def _tell_history(settings: Settings, place: LakePlace) -> None:
    keys = read_public(settings.registry_path / "keys") or None
    heads = [gettext("time"), gettext("who"), gettext("table"), gettext("day"), gettext("hospital"), gettext("events")]
    rows = [
        [
            *(_moment(record.at), record.who, record.table, one.day or "", one.hospital or "", number(one.rows)),
            *(record.reason or one.why, gettext(STATES[record.state]), record.note),
        ]
        for record in purge_history(place, keys)
        for one in record.partitions
    ]
    heads += [gettext("why"), gettext("state"), gettext("note")]
    for line in table_lines(heads, rows, numbers=(5,)) if rows else [gettext("nothing was ever removed")]:
        click.echo(line)


def _check_known(settings: Settings, place: LakePlace, hospital: str) -> None:
    """A hold of a hospital that nobody knows would keep nothing, and nobody would see it."""
    known = hospitals(place)
    if hospital in known or hospital in read_registry(settings.registry_path).by_id:
        return
    names = ", ".join(sorted(known)[:20])
    text = gettext("{name}: neither the lake nor the register knows this hospital; the lake has: {names}")
    raise click.ClickException(visible(text.format(name=hospital, names=names)))


def _covers(hold: Hold) -> str:
    since = gettext("from the beginning") if hold.since is None else gettext("from {day}").format(day=hold.since)
    until = gettext("to the end") if hold.until is None else gettext("to {day}").format(day=hold.until)
    source = "" if hold.logsource.unknown else f", {hold.logsource}"
    return f"{hold.hospital}{source}, {since} {until}"


def _text(words: str) -> str:
    """What was typed, as text that can be written: a terminal in another encoding gives what is none."""
    return words.strip().encode("utf-8", "replace").decode()


def day_of(moment: datetime | None) -> date | None:
    """The day that an option names."""
    return None if moment is None else moment.date()


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _now() -> datetime:
    return datetime.now(UTC)

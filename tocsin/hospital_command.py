"""`tocsin hospital`: the register of hospitals, kept from the command line.

Every command that changes something says in one line what it did. Names are ids or titles; a hospital's id never
changes, since everything that was ever stored of it is filed under it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TypedDict, Unpack

import click

from ingest.hospital import ExpectedSource, Hospital
from ingest.hospital_file import FIELDS, check_id, slug
from ingest.registry import changing, read_registry, write_hospital
from ingest.visible import visible
from tocsin.hospital_certificates import bundle_command, renew_command, revoke_command
from tocsin.hospital_fields import SOURCE_PARTS, field_options, fields_given
from tocsin.json_line import json_line, speak_json
from tocsin.languages import gettext
from tocsin.registry_options import (
    day,
    expiring,
    good_certificates,
    hospital_named,
    said,
    tell_unknown_formats,
    utc_now,
    warned,
)
from tocsin.reveal_command import keys_command, reveal_command
from tocsin.settings_options import settings_from, settings_options
from tocsin.text_table import table_lines

NAME = click.argument("name")


class _Fields(TypedDict):
    """What `field_options` gives."""

    finess_ej: str | None
    finess_et: tuple[str, ...]
    ght: str | None
    region: str | None
    ose: bool | None
    contacts: tuple[str, ...]
    time_zone: str | None
    networks: tuple[str, ...]
    sources: tuple[str, ...]


@click.group()
def hospital() -> None:
    """Keep the register of hospitals, and hand them what they need to send."""


@hospital.command("add")
@NAME
@click.option("--id", "hospital_id", help="Its id, for ever: a-z, 0-9 and hyphens; made from the name if not given.")
@field_options
@settings_options
def add_command(
    name: str, hospital_id: str | None, config: Path | None, flags: tuple[str, ...], **options: Unpack[_Fields]
) -> None:
    """Enter a hospital into the register. NAME is written as people write it."""
    folder = settings_from(config, flags).registry_path
    checked = check_id(hospital_id or slug(name))
    with changing(folder):
        known = read_registry(folder)
        if checked in known.by_id:
            raise click.ClickException(
                gettext("{id} is in the register already: `tocsin hospital set` changes it").format(id=checked)
            )
        entered = write_hospital(folder, replace(Hospital(checked, name), **fields_given(options)))  # type: ignore[arg-type]  # one read per field
    said(gettext("added {id} ({title})").format(id=entered.id, title=entered.title))
    said(gettext("next: `tocsin hospital bundle {id}`").format(id=entered.id))
    tell_unknown_formats(entered)


@hospital.command("set")
@NAME
@click.option("--title", help="Its name as people write it.")
@field_options
@settings_options
def set_command(
    name: str, title: str | None, config: Path | None, flags: tuple[str, ...], **options: Unpack[_Fields]
) -> None:
    """Change fields of a hospital. A list that is given replaces the old one; an empty value empties a field."""
    folder = settings_from(config, flags).registry_path
    given = fields_given({"title": title, **options})
    if not given:
        raise click.UsageError(gettext("nothing to change: give at least one field"))
    with changing(folder):
        old = hospital_named(read_registry(folder), name)
        new = write_hospital(folder, replace(old, **given))  # type: ignore[arg-type]  # one read per field
    changed = [field for field in FIELDS if field in given and getattr(old, field) != getattr(new, field)]
    if changed:
        said(gettext("changed {fields} of {id}").format(fields=", ".join(changed), id=new.id))
    else:
        said(gettext("{id} was so already").format(id=new.id))
    tell_unknown_formats(new)


@hospital.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with every field.")
@settings_options
def list_command(config: Path | None, flags: tuple[str, ...], *, as_json: bool) -> None:
    """List the hospitals."""
    folder = settings_from(config, flags).registry_path
    known = read_registry(folder)
    hospitals = [known.by_id[name] for name in sorted(known.by_id)]
    if as_json:
        for one in hospitals:
            click.echo(_json(one))
        return
    if not hospitals:
        said(gettext("no hospital yet in {folder}: `tocsin hospital add NAME`").format(folder=folder))
        return
    now = utc_now()
    heads = (
        gettext("id"),
        gettext("name"),
        gettext("region"),
        gettext("OSE"),
        gettext("sources"),
        gettext("certificate until"),
    )
    rows = [
        (
            one.id,
            one.title,
            one.region,
            gettext("yes") if one.ose else gettext("no"),
            len(one.sources),
            next((day(certificate.not_after) for certificate in good_certificates(one, now)), gettext("none")),
        )
        for one in hospitals
    ]
    for line in table_lines(heads, rows, numbers=(4,)):
        click.echo(line)
    for one in hospitals:
        if remark := expiring(one, now):
            warned(remark)


@hospital.command("show")
@NAME
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with every field.")
@settings_options
def show_command(name: str, config: Path | None, flags: tuple[str, ...], *, as_json: bool) -> None:
    """Show all that the register holds of a hospital."""
    found = hospital_named(read_registry(settings_from(config, flags).registry_path), name)
    if as_json:
        click.echo(_json(found))
        return
    now = utc_now()
    for line in _described(found, now):
        click.echo(visible(line))
    if remark := expiring(found, now):
        warned(remark)


@hospital.group("source")
def source_group() -> None:
    """Declare what in a hospital sends logs."""


@source_group.command("add")
@NAME
@click.argument("source")
@click.option("--address", help="Address or network of the sender.")
@click.option("--host", help="Name in the syslog header, for what comes through a relay.")
@click.option("--format", "format_", help="Read its lines as this format (docs/formats.md), whatever they look like.")
@click.option("--time-zone", help="Of its times that name no zone, where it is not the hospital's.")
@settings_options
def source_add_command(
    name: str,
    source: str,
    address: str | None,
    host: str | None,
    format_: str | None,
    time_zone: str | None,
    config: Path | None,
    flags: tuple[str, ...],
) -> None:
    """Add a source to a hospital, or replace the one of that name."""
    folder = settings_from(config, flags).registry_path
    new = ExpectedSource(source, address, host, format_, time_zone)
    with changing(folder):
        old = hospital_named(read_registry(folder), name)
        others = [one for one in old.sources if one.name != source.strip()]
        entered = write_hospital(folder, replace(old, sources=(*others, new)))
    if len(others) == len(old.sources):
        said(gettext("added the source {source} to {id}").format(source=source, id=old.id))
    else:
        said(gettext("replaced the source {source} of {id}").format(source=source, id=old.id))
    tell_unknown_formats(entered)


@source_group.command("remove")
@NAME
@click.argument("source")
@settings_options
def source_remove_command(name: str, source: str, config: Path | None, flags: tuple[str, ...]) -> None:
    """Take a source out of a hospital's declaration; what it sends is still taken in."""
    folder = settings_from(config, flags).registry_path
    with changing(folder):
        old = hospital_named(read_registry(folder), name)
        others = tuple(one for one in old.sources if one.name != source.strip())
        if len(others) == len(old.sources):
            known = ", ".join(one.name for one in old.sources) or gettext("none")
            raise click.ClickException(
                visible(
                    gettext("{id} has no source {source!r}; it has: {known}").format(
                        id=old.id, source=source, known=known
                    )
                )
            )
        write_hospital(folder, replace(old, sources=others))
    said(gettext("removed the source {source} of {id}").format(source=source, id=old.id))


def _described(found: Hospital, now: datetime) -> Iterator[str]:
    """A hospital, a line for each thing that is known of it."""
    yield f"{found.title}  ({found.id})"
    line = gettext("  {label}: {value}")
    for label, value in _known(found, now):
        if value:
            yield line.format(label=label, value=value)


def _known(found: Hospital, now: datetime) -> Iterator[tuple[str, str]]:
    yield gettext("FINESS of the legal entity"), found.finess_ej
    yield gettext("FINESS of its sites"), ", ".join(found.finess_et)
    yield gettext("GHT"), found.ght
    yield gettext("region"), found.region
    yield gettext("OSE"), gettext("yes") if found.ose else gettext("no")
    yield gettext("time zone"), found.time_zone
    yield gettext("networks"), ", ".join(found.networks)
    for contact in found.contacts:
        parts = (contact.name, contact.role, contact.phone, contact.email)
        yield gettext("contact"), ", ".join(part for part in parts if part)
    for source in found.sources:
        pairs = ((name, getattr(source, name)) for name in SOURCE_PARTS)
        shown = ", ".join(f"{name}={value}" for name, value in pairs if value)
        yield gettext("source"), f"{source.name} ({shown})"
    good = good_certificates(found, now)
    for certificate in found.certificates:
        if certificate.revoked is not None:
            state = gettext("revoked on {day}").format(day=day(certificate.revoked))
        elif certificate in good:
            state = gettext("good until {day}").format(day=day(certificate.not_after))
        else:
            state = gettext("expired on {day}").format(day=day(certificate.not_after))
        yield gettext("certificate"), f"{certificate.serial}, {state}"


def _json(one: Hospital) -> str:
    speak_json()
    return json_line(asdict(one))


for _command in (bundle_command, renew_command, revoke_command, keys_command, reveal_command):
    hospital.add_command(_command)

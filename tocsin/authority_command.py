"""`tocsin authority`: the certificate authority that the hospitals' certificates come from."""

from __future__ import annotations

from pathlib import Path

import click

from ingest.authority import (
    AuthorityError,
    ServerCertificate,
    authority_folder,
    check_host,
    create_authority,
    issue_server,
    read_authority,
    read_server,
    write_revocations,
)
from ingest.hospital import Certificate
from ingest.registry import changing, read_registry
from tocsin.languages import counted, gettext
from tocsin.registry_options import WARNING_DAYS, day, expiring, said, utc_now, warned
from tocsin.settings_options import settings_from, settings_options

HOSTS = click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Name or address by which hospitals reach the collector. May be repeated; the first goes into bundles.",
)


@click.group()
def authority() -> None:
    """Make and show the certificate authority that hospitals and collector trust."""


@authority.command("init")
@HOSTS
@click.option("--title", default="Tocsin", show_default=True, help="Whose it is; stands in its certificate.")
@settings_options
def init_command(hosts: tuple[str, ...], title: str, config: Path | None, flags: tuple[str, ...]) -> None:
    """Make the authority and the collector's certificate. Nothing that is there is overwritten."""
    registry = settings_from(config, flags).registry_path
    folder = authority_folder(registry)
    names = [check_host(host) for host in hosts]  # before anything is made that would have to be unmade
    with changing(registry):
        now = utc_now()
        made = create_authority(folder, title, now)
        server = issue_server(folder, names, now)
        write_revocations(folder, read_registry(registry), now)
    said(gettext("made the authority in {folder}, good until {day}").format(folder=folder, day=day(made.not_after)))
    _tell_server(server)


@authority.command("server")
@HOSTS
@click.option("--new-key", is_flag=True, help="Make a new key too, as when the old one was seen by others.")
@settings_options
def server_command(hosts: tuple[str, ...], config: Path | None, flags: tuple[str, ...], *, new_key: bool) -> None:
    """Issue the collector's certificate anew, in the place of the old one."""
    registry = settings_from(config, flags).registry_path
    with changing(registry):
        server = issue_server(authority_folder(registry), hosts, utc_now(), new_key=new_key)
    _tell_server(server)


@authority.command("show")
@settings_options
def show_command(config: Path | None, flags: tuple[str, ...]) -> None:
    """Show the authority, the collector's certificate, and what expires within 30 days."""
    registry = settings_from(config, flags).registry_path
    folder = authority_folder(registry)
    _show(gettext("authority"), "", read_authority(folder))
    now = utc_now()
    try:
        server = read_server(folder)
    except AuthorityError as error:
        warned(str(error))
    else:
        _show(gettext("collector"), ", ".join(server.hosts), server.record)
        left = (server.record.not_after - now).days
        if left < WARNING_DAYS:
            warned(counted("the collector's certificate expires in {n} days: `tocsin authority server`", left))
    for hospital in read_registry(registry).by_id.values():
        if remark := expiring(hospital, now):
            warned(remark)


def _tell_server(server: ServerCertificate) -> None:
    said(
        gettext("issued the collector's certificate for {hosts}, good until {day}").format(
            hosts=", ".join(server.hosts), day=day(server.record.not_after)
        )
    )


def _show(what: str, names: str, certificate: Certificate) -> None:
    said(f"{what}  {names}".rstrip())
    said(
        gettext("  good from {first} until {last}").format(
            first=day(certificate.not_before), last=day(certificate.not_after)
        )
    )
    said(gettext("  serial number {serial}").format(serial=certificate.serial))
    said(f"  SHA-256 {certificate.fingerprint}")

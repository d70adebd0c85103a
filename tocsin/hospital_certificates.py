"""`tocsin hospital bundle`, `renew` and `revoke`: a hospital's certificates, from the first to the last.

The key of a certificate exists in the zip alone. So a bundle that was lost is not written again: a new one is made,
with a new certificate, and the old one is revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from ingest.authority import (
    Issued,
    authority_folder,
    check_host,
    issue_client,
    read_server,
    write_revocations,
)
from ingest.hospital import Certificate, Hospital
from ingest.registry import changing, read_registry, write_file, write_hospital
from ingest.visible import visible
from tocsin.hospital_bundle import Reach, bundle_files, certificate_files, packed, reach_of
from tocsin.languages import counted, gettext
from tocsin.registry_options import day, good_certificates, hospital_named, said, utc_now, warned
from tocsin.settings import Settings
from tocsin.settings_options import settings_from, settings_options

ZIP_MODE: Final = 0o600

NAME = click.argument("name")
TO = click.option("--to", type=click.Path(path_type=Path), help="The zip to write; ID.zip here if not given.")

Files = Callable[[Hospital, Issued], dict[str, bytes]]


@click.command("bundle")
@NAME
@TO
@click.option("--collector", metavar="HOST", help="Name by which it reaches the collector, if not the first one.")
@click.option("--tls-port", type=click.IntRange(1, 65535), help="Port of TLS, if not that of the settings.")
@click.option("--relp-port", type=click.IntRange(1, 65535), help="Port of RELP over TLS, if not that of the settings.")
@click.option(
    "--receipts-port", type=click.IntRange(1, 65535), help="Port of the receipts, if not that of the settings."
)
@click.option("--folder", help="Where its machines will keep the certificate, if not where each program has its own.")
@settings_options
def bundle_command(
    name: str,
    to: Path | None,
    collector: str | None,
    tls_port: int | None,
    relp_port: int | None,
    receipts_port: int | None,
    folder: str | None,
    config: Path | None,
    flags: tuple[str, ...],
) -> None:
    """Issue a certificate and write a zip for the hospital: certificate, key, configuration, guide and test."""
    settings = settings_from(config, flags)
    server = read_server(authority_folder(settings.registry_path))
    host = check_host(collector) if collector else server.hosts[0]
    if host not in server.hosts:
        raise click.ClickException(
            gettext(
                "the collector's certificate is not good for {host}, only for {hosts}: "
                "`tocsin authority server --host {host} ...` issues one that is"
            ).format(host=host, hosts=", ".join(server.hosts))
        )
    _check_folder(folder)
    ports = {"tls": tls_port, "relp-tls": relp_port, "receipts": receipts_port}
    reaches: list[Reach] = []

    def files(hospital: Hospital, issued: Issued) -> dict[str, bytes]:
        reaches.append(reach_of(settings, server, hospital, host, ports))
        return bundle_files(hospital, issued, reaches[0], folder)

    _issue(settings, name, to, files)
    _tell_missing(reaches[0], ports)
    if config is None and reaches[0].missing:
        warned(gettext("no settings were named: --config FILE, or TOCSIN_CONFIG, says where the collector listens"))


@click.command("renew")
@NAME
@TO
@settings_options
def renew_command(name: str, to: Path | None, config: Path | None, flags: tuple[str, ...]) -> None:
    """Issue another certificate and write a zip of it alone; the old one stays good until it expires or is revoked."""
    _issue(settings_from(config, flags), name, to, lambda _hospital, issued: certificate_files(issued))


@click.command("revoke")
@NAME
@click.option("--serial", help="Serial number of the certificate, or the beginning of it; needed if several are good.")
@click.option("--all", "every", is_flag=True, help="All that are good: the hospital is refused from then on.")
@settings_options
def revoke_command(name: str, serial: str | None, config: Path | None, flags: tuple[str, ...], *, every: bool) -> None:
    """Revoke a hospital's certificate. A running collect refuses it within seconds."""
    folder = settings_from(config, flags).registry_path
    if serial and every:
        raise click.UsageError(gettext("--serial and --all are not for use together"))
    with changing(folder):
        hospitals = read_registry(folder)
        found = hospital_named(hospitals, name)
        now = utc_now()
        chosen = _chosen(found, serial, every=every)
        certificates = tuple(
            replace(one, revoked=now.replace(microsecond=0)) if one in chosen else one for one in found.certificates
        )
        new = write_hospital(folder, replace(found, certificates=certificates))
        for one in chosen:
            said(gettext("revoked certificate {serial} of {id}").format(serial=one.serial, id=found.id))
        left = len(good_certificates(new, now))
        said(counted("{n} good certificates are left to {id}", left, id=found.id))
        # The register decides for us; the list is for others, and is written last so that it never delays a revocation.
        write_revocations(authority_folder(folder), read_registry(folder), now)


def _issue(settings: Settings, name: str, to: Path | None, files: Files) -> None:
    """Issue a certificate, enter it into the register, and write the zip."""
    registry = settings.registry_path
    with changing(registry):
        hospital = hospital_named(read_registry(registry), name)
        now = utc_now()
        path = to or Path(f"{hospital.id}.zip")
        issued = issue_client(authority_folder(registry), hospital.id, now)
        content = packed(hospital.id, files(hospital, issued), now)
        write_file(path, content, ZIP_MODE, replace=False)
        entered = False
        try:
            write_hospital(registry, replace(hospital, certificates=(*hospital.certificates, issued.record)))
            entered = True
        finally:
            if not entered:
                path.unlink()  # a certificate that the register does not hold opens nothing
        write_revocations(authority_folder(registry), read_registry(registry), now)
    said(
        gettext("issued certificate {serial} to {id}, good until {day}").format(
            serial=issued.record.serial, id=hospital.id, day=day(issued.record.not_after)
        )
    )
    said(gettext("wrote {path}: it holds the private key, of which there is no copy").format(path=path))
    older = len(good_certificates(hospital, now))
    if older:
        said(counted("{n} older certificates of {id} are good as before", older, id=hospital.id))


def _chosen(found: Hospital, serial: str | None, *, every: bool) -> list[Certificate]:
    """The certificates to revoke.

    Raises:
        click.ClickException: There is none, or it is not clear which.
    """
    left = [one for one in found.certificates if one.revoked is None]
    if serial:
        sought = serial.lower().replace(":", "").lstrip("0")
        chosen = [one for one in left if sought and one.serial.startswith(sought)]
    else:
        chosen = left
    if not chosen:
        raise click.ClickException(visible(gettext("{id} has no such certificate that is good").format(id=found.id)))
    if len(chosen) > 1 and not every:
        numbers = ", ".join(one.serial for one in chosen)
        raise click.ClickException(
            gettext("{id} has several: say --serial, of {numbers}, or --all").format(id=found.id, numbers=numbers)
        )
    return chosen


def _check_folder(folder: str | None) -> None:
    """What is written into configuration must not be able to end a quotation there."""
    if folder is not None and not (
        folder.startswith("/") and folder.isprintable() and not set(folder) & set("\"'\\$`{}#;") and " " not in folder
    ):
        raise click.BadParameter(
            gettext("--folder {folder!r}: write an absolute path without blanks and quotes").format(folder=folder)
        )


def _tell_missing(reach: Reach, ports: Mapping[str, int | None]) -> None:
    """Say where a port is a guess: the settings at hand may not be those of the collector."""
    guessed = {"tls": reach.tls, "relp-tls": reach.relp_tls}
    for transport in reach.missing:
        if transport in guessed:
            warned(
                gettext("no {transport} listener in these settings: the bundle says port {port}").format(
                    transport=transport, port=guessed[transport]
                )
            )
    if "receipts" in reach.missing and not ports["receipts"]:
        warned(
            gettext(
                "receipts are not enabled in these settings: the second line of the test needs them (port {port})"
            ).format(port=reach.receipts)
        )

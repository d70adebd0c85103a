"""`tocsin lake verify`: whether the lake is what it was when it was sealed.

Who verifies needs the lake and, to be sure of it, the public key and a head that were noted elsewhere: where neither is
at hand, damage is found, but not a lake that was written anew as a whole.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

import click

from ingest.visible import visible
from storage.errors import LakeError
from storage.lake_verify import CannotVerify, Report, VerifyScope, verify
from storage.signed_chain import lake_keys
from storage.signing import Keys, public_keys, read_public
from tocsin.chores import Chore, note_chore
from tocsin.json_line import json_line, speak_json
from tocsin.lake_keep_commands import DAY, day_of, lake_signer
from tocsin.lake_place import standing_lake
from tocsin.languages import counted, gettext, number
from tocsin.registry_options import warned
from tocsin.settings import Settings
from tocsin.settings_options import settings_from, settings_options

FAULTY: Final = 1
MOST_FAULTS: Final = 200  # shown to people; JSON has them all

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command("verify")
@click.option("--hospital", default="", help="Read only the files of this hospital.")
@click.option("--since", type=DAY, help="Read only files of this day (UTC) and later.")
@click.option("--until", type=DAY, help="Read only files of this day (UTC) and earlier.")
@click.option("--sample", type=click.IntRange(min=1), help="Read only so many files, chosen at random.")
@click.option("--head", default="", help="The head of an earlier look, noted elsewhere: it must be in the lake still.")
@click.option(
    "--public-key", "keys", type=_FILE, multiple=True, help="Trust this public key beside the registry's own."
)
@click.option("--show-key", is_flag=True, help="Print the public key, to be kept elsewhere, and check nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@settings_options
def verify_command(
    hospital: str,
    since: datetime | None,
    until: datetime | None,
    sample: int | None,
    head: str,
    keys: tuple[Path, ...],
    show_key: bool,
    as_json: bool,
    config: Path | None,
    flags: tuple[str, ...],
) -> None:
    """Check that the lake is what was sealed. Exit 0: it is; 1: something was changed or is missing; 2: cannot tell."""
    settings = settings_from(config, flags)
    if show_key:
        click.echo(lake_signer(settings).public_pem.decode(), nl=False)
        return
    place = standing_lake(settings).place
    trusted = _trusted(settings, keys)
    if not trusted:
        warned(gettext("no public key but the lake's own: this shows damage, but not who signed (--public-key FILE)"))
        try:
            trusted = lake_keys(place)
        except LakeError as error:
            raise CannotVerify(str(error)) from error
    scope = VerifyScope(hospital, day_of(since), day_of(until), sample or 0)
    report = verify(place, trusted, scope, head.strip().lower())
    figures = {"files": report.files, "bytes": report.bytes, "faults": len(report.faults)}
    reason = visible(f"{report.faults[0].file}: {report.faults[0].what}") if report.faults else ""
    note_chore(settings.data_dir, Chore.VERIFY, ok=not report.faults, reason=reason, figures=figures)
    _tell_json(report) if as_json else _tell(report)
    if report.faults:
        raise SystemExit(FAULTY)


def _trusted(settings: Settings, files: tuple[Path, ...]) -> Keys:
    given: list[tuple[str, bytes]] = []
    for path in files:
        try:
            given.append((str(path), path.read_bytes()))
        except OSError as error:
            raise LakeError(f"{path}: cannot be read: {error.strerror}") from error
    return {**read_public(settings.registry_path / "keys"), **public_keys(given)}


def _tell_json(report: Report) -> None:
    speak_json()
    found: dict[str, object] = {
        "ok": not report.faults,
        "faults": [{"file": fault.file, "what": fault.what, "since": fault.since} for fault in report.faults],
        **{name: getattr(report, name) for name in ("records", "commits", "files", "bytes", "live", "unsealed")},
        **{name: getattr(report, name) for name in ("unhashed", "hashed_late", "orphans", "seconds")},
        "head": None if report.head is None else {"seq": report.head[0], "hash": report.head[1]},
    }
    click.echo(json_line(found))


def _tell(report: Report) -> None:
    for fault in report.faults[:MOST_FAULTS]:
        since = gettext(" (by {since})").format(since=fault.since) if fault.since else ""
        click.echo(visible(f"{fault.file}: {fault.what}{since}"))
    if len(report.faults) > MOST_FAULTS:
        click.echo(counted("and {n} more (--json shows them)", len(report.faults) - MOST_FAULTS))
    new, unread, late, orphans = report.unsealed, report.unhashed, report.hashed_late, report.orphans
    notes = (
        (new, counted("{n} files came after the last seal: checked against their commits", new)),
        (unread, counted("{n} files are not sealed yet and their writer did not say their hash: not checked", unread)),
        (late, counted("{n} files were hashed when they were sealed, not when they were written", late)),
        (orphans, counted("{n} files lie there that no table has: until cleanup removes them", orphans)),
    )
    for amount, text in notes:
        if amount:
            click.echo(text)
    speed = report.bytes / 1e9 / report.seconds if report.seconds else 0.0
    summary = gettext(
        "{records} records and {commits} log entries checked; {files} of {live} files read, {gigabytes} GB in "
        "{seconds} s ({speed} GB/s)"
    )
    click.echo(
        summary.format(
            records=number(report.records),
            commits=number(report.commits),
            files=number(report.files),
            live=number(report.live),
            gigabytes=number(report.bytes / 1e9, 2),
            seconds=number(report.seconds, 1),
            speed=number(speed, 2),
        )
    )
    if report.head is not None:
        seq, digest = report.head
        click.echo(gettext("head {seq}: {hash} (note it elsewhere; --head checks it)").format(seq=seq, hash=digest))
    if report.faults:
        click.echo(counted("NOT WHAT WAS SEALED: {n} faults", len(report.faults)))
    else:
        click.echo(gettext("all is what was sealed"))

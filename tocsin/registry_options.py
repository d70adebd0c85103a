"""What the commands that look at the registry share: finding a hospital, and telling what is about to expire."""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from ingest.hospital import Certificate, Hospital, Hospitals
from ingest.hospital_file import slug
from ingest.visible import visible
from tocsin.languages import counted, gettext

WARNING_DAYS: Final = 30


def hospital_named(hospitals: Hospitals, name: str) -> Hospital:
    """The hospital with this id, or else with this title, compared without case, accents and punctuation.

    Raises:
        click.ClickException: There is none, or there are several.
    """
    if name in hospitals.by_id:
        return hospitals.by_id[name]
    sought = slug(name)
    found = [one for one in hospitals.by_id.values() if sought and slug(one.title) == sought]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(one.id for one in found)
        raise click.ClickException(
            visible(gettext("several hospitals are named {name!r}: {ids}").format(name=name, ids=ids))
        )
    near = difflib.get_close_matches(sought, list(hospitals.by_id), n=3)
    if not hospitals.by_id:
        text = gettext("no hospital is named {name!r}: the register is empty; are these the right settings (--config)?")
        text = text.format(name=name)
    elif near:
        text = gettext("no hospital is named {name!r}; near to it: {ids}").format(name=name, ids=", ".join(near))
    else:
        text = gettext("no hospital is named {name!r}; `tocsin hospital list` shows them").format(name=name)
    raise click.ClickException(visible(text))


def good_certificates(hospital: Hospital, now: datetime) -> list[Certificate]:
    """Those that open a connection today, the one that is good the longest first."""
    good = (one for one in hospital.certificates if one.revoked is None and one.not_before <= now < one.not_after)
    return sorted(good, key=lambda one: one.not_after, reverse=True)


def expiring(hospital: Hospital, now: datetime) -> str | None:
    """What to say of a hospital whose last good certificate expires soon, or has expired; None if nothing."""
    unrevoked = [one for one in hospital.certificates if one.revoked is None]
    if not unrevoked:
        return None
    last = max(one.not_after for one in unrevoked)
    if last <= now:
        return gettext("{id}: no good certificate since {day}: `tocsin hospital renew {id}`").format(
            id=hospital.id, day=day(last)
        )
    if last - now < timedelta(days=WARNING_DAYS):
        return counted(
            "{id}: its certificate expires in {n} days: `tocsin hospital renew {id}`",
            (last - now).days,
            id=hospital.id,
        )
    return None


def tell_unknown_formats(hospital: Hospital) -> None:
    """Warn of sources that are pinned to a format which this version does not have.

    They are entered all the same: the collector may run another version, or have a format of its own.
    """
    pinned = {source.format for source in hospital.sources if source.format}
    if not pinned:
        return
    from ingest.formats.table import FORMATS  # noqa: PLC0415 - Polars, which the other commands go without

    known = {form.name for form in FORMATS}
    for name in sorted(pinned - known):
        near = difflib.get_close_matches(name, known, n=3) or [one for one in sorted(known) if one[:4] == name[:4]][:3]
        if near:
            text = gettext("no format is named {name!r}, but it was entered; near to it: {near}")
        else:
            text = gettext("no format is named {name!r}, but it was entered; docs/formats.md lists them")
        warned(text.format(name=name, near=", ".join(near)))


def day(moment: datetime) -> str:
    """The day of a moment, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def said(message: str) -> None:
    """Say in one line what was done."""
    click.echo(visible(message))


def warned(message: str) -> None:
    """Say on stderr what somebody should see to."""
    click.echo(visible(message), err=True)


def shown_path(path: Path) -> str:
    """A path as it is told."""
    return visible(str(path))

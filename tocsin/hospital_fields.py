"""The options that describe a hospital, and what they come to.

A contact or a source has parts, which are written in one value, parted by semicolons: commas stand in names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import click

from ingest.hospital import Contact, ExpectedSource
from tocsin.languages import gettext

SOURCE_PARTS: Final = ("address", "host", "format", "time_zone")

OPTIONS: Final = (
    click.option("--finess-ej", help="FINESS number of the legal entity."),
    click.option("--finess-et", multiple=True, help="FINESS number of a site. May be repeated."),
    click.option("--ght", help="Its GHT."),
    click.option("--region", help="Its region."),
    click.option("--ose/--no-ose", default=None, help="Whether it is an operator of essential services."),
    click.option(
        "--contact",
        "contacts",
        multiple=True,
        metavar="NAME;ROLE;PHONE;EMAIL",
        help="Whom to call; only the name is needed. May be repeated, in the order of calling.",
    ),
    click.option("--time-zone", help="Of times that name no zone, e.g. Indian/Reunion (Europe/Paris if not given)."),
    click.option(
        "--network",
        "networks",
        multiple=True,
        help="Address or network that it sends from, for listeners without certificates. May be repeated.",
    ),
    click.option(
        "--source",
        "sources",
        multiple=True,
        metavar="NAME;address=A;host=H;format=F;time_zone=Z",
        help="Something that sends logs; its name and address or host are needed. May be repeated.",
    ),
)
"""The fields of a hospital that people enter, as options."""


def field_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of all fields."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def fields_given(options: Mapping[str, object]) -> dict[str, object]:
    """The fields that were given, ready for `dataclasses.replace`; an empty value makes a field empty.

    Raises:
        click.BadParameter: A contact or a source is not written as it should be.
    """
    given: dict[str, object] = {}
    for name, value in options.items():
        if isinstance(value, tuple):
            texts = [str(text) for text in value]
            if texts:
                read = _READERS.get(name, str)
                given[name] = tuple(read(text) for text in texts if text.strip())
        elif value is not None:
            given[name] = value
    return given


def contact_of(text: str) -> Contact:
    """NAME;ROLE;PHONE;EMAIL, of which the later ones may be left out."""
    parts = [part.strip() for part in text.split(";")]
    if len(parts) > len(Contact.__dataclass_fields__) or not parts[0]:
        raise click.BadParameter(gettext("--contact {text!r}: write NAME;ROLE;PHONE;EMAIL").format(text=text))
    return Contact(*parts)


def source_of(text: str) -> ExpectedSource:
    """NAME;address=A;host=H;format=F;time_zone=Z, the name first and the others in any order."""
    name, *rest = (part.strip() for part in text.split(";"))
    parts: dict[str, str] = {}
    for part in rest:
        key, sign, value = (piece.strip() for piece in part.partition("="))
        key = key.replace("-", "_")
        if not sign or key not in SOURCE_PARTS or not value or key in parts:
            raise click.BadParameter(
                gettext("--source {text!r}: {part!r} is none of address=, host=, format=, time_zone=").format(
                    text=text, part=part
                )
            )
        parts[key] = value
    return ExpectedSource(name, **parts)


_READERS: Final[Mapping[str, Callable[[str], object]]] = {"contacts": contact_of, "sources": source_of}

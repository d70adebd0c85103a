"""`tocsin quarantine`: what lies on `tocsin.quarantine`, why it was put there, and its bytes.

It only reads, so it may be run beside everything else. Records stay as they are until `bus.retention_days.quarantine`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from ingest.bus import TOPIC_QUARANTINE, Bus, Partition, Record
from ingest.visible import visible
from tocsin.buses import open_bus
from tocsin.json_line import json_line, speak_json
from tocsin.languages import counted, gettext, number
from tocsin.settings import SettingsError
from tocsin.settings_options import settings_from, settings_options
from tocsin.text_table import table_lines

HEAD: Final = 2_000
"""Bytes of a record that are shown where no file is named."""

STEP: Final = 64
"""Records read at once: one may hold several megabytes."""

_PLACE: Final = re.compile(r"(\d+):(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One record, without its bytes.

    Attributes:
        place: Partition and offset on `tocsin.quarantine`.
        origin: Topic, partition and offset where it lay; one that stands here twice has the same.
        key: Of the record: hospital and sender, for lines.
        reason: Why it could not be read.
        size: Bytes.
    """

    place: str
    origin: str
    key: str
    reason: str
    size: int


@click.group()
def quarantine() -> None:
    """What could not be read of the bus, and why."""


@quarantine.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Newest of each partition.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a record.")
@settings_options
def list_command(limit: int, as_json: bool, config: Path | None, flags: tuple[str, ...]) -> None:
    """List the newest records: where they lie, where they lay, whose they are, and why they could not be read."""
    with closing(open_bus(settings_from(config, flags))) as bus:
        ends = bus.ends([TOPIC_QUARANTINE])
        found = [_told(record) for record in newest(bus, ends, limit)]
    if as_json:
        speak_json()
        for one in found:
            click.echo(
                json_line(
                    {"place": one.place, "origin": one.origin, "key": one.key, "bytes": one.size, "reason": one.reason}
                )
            )
        return
    if not found:
        click.echo(gettext("nothing is in quarantine"))
        return
    heads = [gettext("place"), gettext("lay at"), gettext("key"), gettext("bytes"), gettext("reason")]
    rows = [(one.place, one.origin, one.key, number(one.size), one.reason) for one in found]
    for line in table_lines(heads, rows, numbers=[3]):
        click.echo(line)
    origins = len({one.origin for one in found})
    if origins < len(found):
        click.echo(counted("{n} of these stand here more than once", len(found) - origins), err=True)


@quarantine.command()
@click.argument("place", metavar="PARTITION:OFFSET")
@click.option(
    "--to", type=click.Path(path_type=Path, dir_okay=False), help="Write its bytes to this file, as they are."
)
@settings_options
def show(place: str, to: Path | None, config: Path | None, flags: tuple[str, ...]) -> None:
    """Show one record: why it is here, and its bytes."""
    found = _PLACE.fullmatch(place)
    if found is None:
        told = gettext("{place} is no place in quarantine, such as {example}")
        raise click.BadParameter(told.format(place=visible(place), example="0:17"))
    partition, offset = Partition(TOPIC_QUARANTINE, int(found[1])), int(found[2])
    with closing(open_bus(settings_from(config, flags))) as bus:
        end = bus.ends([TOPIC_QUARANTINE]).get(partition, 0)
        records = bus.read(partition, offset, offset + 1) if offset < end else []
    if not records:
        raise SettingsError(gettext("{place}: no such record, or it is no longer kept").format(place=place))
    (record,) = records
    about = _told(record)
    click.echo(visible(f"{about.origin}  {about.key}  {about.reason}"))
    if to is None:
        click.echo(visible(record.value[:HEAD].decode("utf-8", "backslashreplace")))
        if about.size > HEAD:
            click.echo(
                gettext("{shown} of {bytes} bytes; --to FILE writes them all").format(
                    shown=number(HEAD), bytes=number(about.size)
                ),
                err=True,
            )
        return
    try:
        to.write_bytes(record.value)
    except OSError as error:
        raise SettingsError(f"{to}: {error.strerror}") from error


def newest(bus: Bus, ends: dict[Partition, int], limit: int) -> Iterator[Record]:
    """The newest records of each partition, in the order of partition and offset."""
    for partition, end in sorted(ends.items(), key=lambda one: one[0].partition):
        for start in range(max(0, end - limit), end, STEP):
            records: Sequence[Record] = bus.read(partition, start, min(start + STEP, end))
            yield from records


def _told(record: Record) -> Quarantined:
    """What its headers say; another program may have written it."""
    headers = record.headers
    origin = ":".join(headers.get(name, "?") for name in ("topic", "partition", "offset"))
    reason = headers.get("reason", "")
    return Quarantined(f"{record.partition}:{record.offset}", origin, record.key, reason, len(record.value))

"""Which part of the lake a hunt looks at, and what of its files it could leave unread.

A file that cannot hold the time or the hospital asked for is left out by what the table's log says of it; the person
who hunts is told how many, since that is what makes a narrow question cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, ParamSpec

import click

from ingest.envelope import EventFrame
from storage.lake import Lake
from storage.lake_scan import ScanCounts
from tocsin.languages import counted, gettext, number

P = ParamSpec("P")

_TIMES: Final = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")


@dataclass(frozen=True, slots=True)
class HuntScope:
    """The events of the lake that are asked for; None is all.

    Attributes:
        since: First event time, inclusive; so too `until`, exclusive.
        until: See `since`.
        tenants: Hospitals.
    """

    since: datetime | None = None
    until: datetime | None = None
    tenants: Collection[str] | None = None

    @property
    def narrowed(self) -> bool:
        """Whether not all is asked for."""
        return self != HuntScope()

    def read(self, lake: Lake, counts: ScanCounts) -> Iterator[EventFrame]:
        """The events; `counts` is told of the files."""
        return lake.read(since=self.since, until=self.until, tenants=self.tenants, counts=counts)


def scope_of(since: datetime | None, until: datetime | None, tenants: tuple[str, ...]) -> HuntScope:
    """The scope that the options ask for; times are UTC where they name no zone."""
    return HuntScope(_in_utc(since), _in_utc(until), tenants or None)


def scope_options(command: Callable[P, None]) -> Callable[P, None]:
    """Give a command `--since`, `--until` and `--tenant`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: Final = (
    click.option(
        "--since",
        type=click.DateTime(_TIMES),
        help="Of the lake: first event time, inclusive; UTC where it names no zone.",
    ),
    click.option("--until", type=click.DateTime(_TIMES), help="Of the lake: last event time, exclusive."),
    click.option("--tenant", "tenants", multiple=True, metavar="NAME...", help="Of the lake: only these hospitals."),
)


def scan_lines(counts: ScanCounts) -> list[str]:
    """What of the lake was read, in lines for people."""
    read = counts.files - counts.skipped_files
    lines = [
        gettext("{files} of the lake read ({megabytes} MB)").format(
            files=counted("{n} files", read, grouped=True),
            megabytes=number((counts.bytes - counts.skipped_bytes) / 1e6, 1),
        )
    ]
    if counts.skipped_files:
        lines.append(
            counted(
                "{n} files left out unread ({megabytes} MB): they hold nothing of what was asked for",
                counts.skipped_files,
                grouped=True,
                megabytes=number(counts.skipped_bytes / 1e6, 1),
            )
        )
    return lines


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment

"""Where a command over rules takes its events from: files, or the lake, and which part of it.

Shared by the commands that look back: they say `--events PATH...` or `--lake`, and may narrow either to a time and to
hospitals. What could not be read is named on stderr as it comes; the events are counted.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import polars as pl

from detections.rule import RuleError
from ingest.envelope import TENANT, TIMESTAMP, EventFrame
from ingest.event_files import read_events
from ingest.event_source import SourceBatch, SourceProblem
from ingest.logsource import LogSource
from ingest.visible import visible
from storage.lake import Lake
from tocsin.containment import parse_contained
from tocsin.lake_place import lake_at, standing_lake
from tocsin.languages import counted, gettext
from tocsin.settings import load_settings

GROUP_EVENTS: Final = 20_000
"""Events of small files are collected up to this number before they are parsed together."""

NOTHING_READ: Final = 1
"""Exit code where no source could be read at all."""

_TIMES: Final = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z")

FieldsWanted = Callable[[LogSource], Collection[str] | None]
"""Log source -> the fields that rules look at: None is all; an empty collection means that no rule meets it."""


@dataclass(slots=True)
class EventChoice:
    """The events asked for.

    Attributes:
        paths: Files and folders; empty where the lake is asked for, or nothing is.
        lake: The lake, or None.
        since: First event time, inclusive; so too `until`, exclusive.
        tenants: Hospitals; None is all.
        events: Events read so far.
        problems: Kind of problem -> sources with it, so far.
    """

    paths: tuple[Path, ...]
    lake: Lake | None
    since: datetime | None
    until: datetime | None
    tenants: Collection[str] | None
    events: int = 0
    problems: dict[str, int] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether any events were asked for."""
        return bool(self.paths) or self.lake is not None

    def frames(self, wanted: FieldsWanted | None = None) -> Iterator[EventFrame]:
        """The events, frame by frame.

        Args:
            wanted: Which fields of which log sources are needed; without it, all. The lake then reads no others;
                of files everything is read, and log sources that no rule meets are left out.
        """
        frames = self._from_files() if self.lake is None else self._from_lake(self.lake, wanted)
        for frame in frames:
            self.events += frame.events.height
            if wanted is None or wanted(frame.logsource) != ():
                yield frame

    def check(self) -> None:
        """End the command where nothing could be read at all.

        Raises:
            SystemExit: No event, and a source that is unreadable.
        """
        if not self.events and "unreadable" in self.problems:
            raise SystemExit(NOTHING_READ)

    def _from_lake(self, lake: Lake, wanted: FieldsWanted | None) -> Iterator[EventFrame]:
        return lake.read(since=self.since, until=self.until, tenants=self.tenants, fields=wanted)

    def _from_files(self) -> Iterator[EventFrame]:
        group: list[SourceBatch] = []
        for item in read_events(self.paths, now=datetime.now(UTC)):
            if isinstance(item, SourceProblem):
                self._tell(item)
                continue
            group.append(item)
            if sum(batch.raw.height for batch in group) >= GROUP_EVENTS:
                yield from self._parsed(group)
                group = []
        if group:
            yield from self._parsed(group)

    def _parsed(self, group: Sequence[SourceBatch]) -> Iterator[EventFrame]:
        for frame in parse_contained(pl.concat([batch.raw for batch in group])):
            events = self._in_scope(frame.events)
            if events.height:
                yield EventFrame(frame.logsource, events)

    def _in_scope(self, events: pl.DataFrame) -> pl.DataFrame:
        if self.since is not None:
            events = events.filter(pl.col(TIMESTAMP) >= self.since)
        if self.until is not None:
            events = events.filter(pl.col(TIMESTAMP) < self.until)
        return events if self.tenants is None else events.filter(pl.col(TENANT).is_in(list(self.tenants)))

    def _tell(self, problem: SourceProblem) -> None:
        self.problems[problem.kind] = self.problems.get(problem.kind, 0) + 1
        if problem.kind == "skipped":
            return
        told = gettext("damaged: {problem}") if problem.kind == "damaged" else gettext("unreadable: {problem}")
        click.echo(visible(told.format(problem=problem)), err=True)


def event_options(*, required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options for events; it takes them as one argument, `choice`.

    Args:
        required: Whether either files or the lake must be asked for.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def chosen(
            event_paths: tuple[Path, ...],
            lake_path: Path | None,
            since: datetime | None,
            until: datetime | None,
            tenants: tuple[str, ...],
            config: Path | None,
            *,
            in_lake: bool,
            **options: object,
        ) -> None:
            lake_asked = in_lake or lake_path is not None
            if (lake_asked and event_paths) or (required and not lake_asked and not event_paths):
                raise RuleError(gettext("say either --events PATH... or --lake"))
            must_exist(event_paths)
            lake = _lake(lake_path, config) if lake_asked else None
            choice = EventChoice(event_paths, lake, _in_utc(since), _in_utc(until), tenants or None)
            command(choice=choice, **options)

        for option in reversed(_OPTIONS):
            chosen = option(chosen)
        return chosen

    return decorate


_OPTIONS: Final = (
    click.option(
        "--events",
        "event_paths",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="PATH...",
        help="Event files, archives of these, and folders, as `tocsin hunt` takes them.",
    ),
    click.option("--lake", "in_lake", is_flag=True, help="Events of the lake instead of files."),
    click.option("--lake-path", type=click.Path(path_type=Path), help="Another lake."),
    click.option(
        "--since", type=click.DateTime(_TIMES), help="First event time, inclusive; UTC where it names no zone."
    ),
    click.option("--until", type=click.DateTime(_TIMES), help="Last event time, exclusive."),
    click.option("--tenant", "tenants", multiple=True, metavar="NAME...", help="Only events of these hospitals."),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        envvar="TOCSIN_CONFIG",
        help="TOML file of settings, for the place of the lake.",
    ),
)


def must_exist(paths: Sequence[Path]) -> None:
    """Refuse a path that leads nowhere.

    Raises:
        RuleError: It names the path.
    """
    for path in paths:
        if not path.exists():
            raise RuleError(gettext("{path}: no such file or folder").format(path=path))


def told_events(choice: EventChoice, seconds: float) -> str:
    """How many events were read, for the last line on stderr."""
    return gettext("{events} in {seconds} s").format(
        events=counted("{n} events", choice.events, grouped=True), seconds=f"{seconds:.1f}"
    )


def _lake(folder: Path | None, config: Path | None) -> Lake:
    return lake_at(folder) if folder else standing_lake(load_settings(config, os.environ))


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment

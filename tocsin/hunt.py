"""`tocsin hunt`: rules over event files or over the lake.

Theory: a hunt is live detection with another source. Lines go through the same parse, events through the same plan, so
what a hunt shows is what detection would have shown. Small files are put together into groups of the size the engine
likes; the id of an event (`source:row`) says where it came from, and puts the matches back into the order of the
sources.

Correlations of the rules run at the end, over all their matches in the order of time (`tocsin.hunt_correlations`).

`hunt_files` and `hunt_lake` do the work and know nothing of the terminal; the command prints what they yield.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import available_timezones

import click
import polars as pl

from detections.correlation_gaps import Gap
from detections.correlation_pass import CorrelationPass
from detections.correlation_rule import CorrelationRule
from detections.match import MATCH_SCHEMA
from detections.plan import Plan
from detections.rule import Rule
from ingest.envelope import EVENT_ID, RECEIVED, REMARK, TIMESTAMP, EventFrame
from ingest.event_files import read_events
from ingest.event_source import DECOMPRESSED_BYTES, ReadLimits, SourceBatch, SourceProblem
from ingest.formats.table import FORMATS
from ingest.formats.times import UTC_ZONE
from ingest.readings import Reading, Readings
from storage.errors import LakeError
from storage.lake import Lake
from storage.lake_scan import ScanCounts
from tocsin.containment import match_contained, parse_contained
from tocsin.hunt_correlations import HuntedCorrelations, shown_correlations, shown_matches, wanted_rules
from tocsin.hunt_correlations import hunted as hunted_correlations
from tocsin.hunt_report import HuntPrinter, MatchLines, MatchTable
from tocsin.hunt_scope import scan_lines, scope_of, scope_options
from tocsin.lake_place import lake_at, standing_lake
from tocsin.languages import gettext
from tocsin.path_lists import PathListCommand
from tocsin.rule_loading import load_rule_plan, user_cache
from tocsin.rule_options import read_rule_options, rule_options, rule_paths_option
from tocsin.settings import load_settings

LEVELS: Final = ("informational", "low", "medium", "high", "critical")
GROUP_EVENTS: Final = 20_000
"""Events of small files are collected up to this number before they are parsed together."""

NOTHING_READ: Final = 1
"""Exit code where no source could be read at all."""


class HuntError(click.ClickException):
    """What was asked for cannot be hunted; one line for the person who asked."""

    exit_code = 2


@dataclass(slots=True)
class HuntTally:
    """What a hunt has gone through so far.

    Attributes:
        events: Events read.
        unknown: Those that no format understood; only keyword rules see them.
        remarked: Those whose lines had something wrong with them, and were read all the same.
        timeless: Those without a time of their own that could be used: they bear the time of their receipt.
        lost: Events read but not parsed: a defect of Tocsin, and reported as one.
        unmatched: Events that the rules could not be tried on: a defect as well.
        matches: (rule, event) pairs that are shown, and correlations.
        correlations: Correlations among them.
        silenced: Matches that are not shown, their rules being material for correlations only.
        forgotten: Events and groups that correlations had no room for: some may have been missed.
        uncorrelated: Matches without the field to group by, or without the number to count.
        gaps: The fields that these lack, worst first.
        correlated_timeless: Matches without a time of their own that correlations looked at.
        problems: Kind of problem -> sources or places with it.
    """

    events: int = 0
    unknown: int = 0
    remarked: int = 0
    timeless: int = 0
    lost: int = 0
    unmatched: int = 0
    matches: int = 0
    correlations: int = 0
    silenced: int = 0
    forgotten: int = 0
    uncorrelated: int = 0
    gaps: Sequence[Gap] = ()
    correlated_timeless: int = 0
    problems: dict[str, int] = field(default_factory=dict)

    def add_frame(self, frame: EventFrame) -> None:
        """Count the events of a frame."""
        self.unknown += frame.events.height if frame.logsource.unknown else 0
        events = frame.events
        self.timeless += int((events.get_column(TIMESTAMP) == events.get_column(RECEIVED)).sum())
        self.remarked += frame.events.height - frame.events.get_column(REMARK).null_count()


def hunt_files(
    plan: Plan,
    items: Iterable[SourceBatch | SourceProblem],
    tally: HuntTally,
    *,
    events_of: Collection[str] = (),
    readings: Readings | None = None,
) -> Iterator[pl.DataFrame | SourceProblem]:
    """Match the events of files.

    Args:
        plan: The rules.
        items: What `read_events` yields.
        tally: Counted up as the hunt goes on.
        events_of: Ids of the rules whose matches carry their events: those that correlations look at.
        readings: How lines are read that do not say so themselves.

    Yields:
        `MATCH_SCHEMA` and `source`, in the order of the sources, rows and rules; and problems as they come.
    """
    group: list[SourceBatch] = []
    size = 0
    for item in items:
        if isinstance(item, SourceProblem):
            tally.problems[item.kind] = tally.problems.get(item.kind, 0) + 1
            yield item
            continue
        group.append(item)
        size += item.raw.height
        if size >= GROUP_EVENTS:
            yield _match_group(plan, group, tally, events_of, readings)
            group, size = [], 0
    if group:
        yield _match_group(plan, group, tally, events_of, readings)


def _match_group(
    plan: Plan,
    group: Sequence[SourceBatch],
    tally: HuntTally,
    events_of: Collection[str],
    readings: Readings | None,
) -> pl.DataFrame:
    """Parse and match some batches at once."""
    raw = pl.concat([batch.raw for batch in group])
    places = pl.DataFrame(
        {
            "event_id": raw.get_column(EVENT_ID),
            "source": pl.Series([batch.source for batch in group], dtype=pl.String).gather(
                pl.Series(
                    [index for index, batch in enumerate(group) for _ in range(batch.raw.height)], dtype=pl.UInt32
                )
            ),
        }
    ).unique("event_id", keep="first", maintain_order=True)  # a copied Parquet file brings ids that were there before
    places = places.with_row_index("place")
    frames = parse_contained(raw, readings)
    tally.events += raw.height
    tally.lost += raw.height - sum(frame.events.height for frame in frames)
    matches = _match_frames(plan, frames, tally, events_of)
    return (
        matches.join(places, on="event_id", how="left", maintain_order="left")
        .sort("place", maintain_order=True)
        .drop("place")
    )


def hunt_lake(
    plan: Plan, frames: Iterable[EventFrame], source: str, tally: HuntTally, *, events_of: Collection[str] = ()
) -> Iterator[pl.DataFrame]:
    """Match events of the lake, frame by frame; yields as `hunt_files` does."""
    for frame in frames:
        tally.events += frame.events.height
        yield _match_frames(plan, [frame], tally, events_of).with_columns(pl.lit(source).alias("source"))


def _match_frames(
    plan: Plan, frames: Sequence[EventFrame], tally: HuntTally, events_of: Collection[str]
) -> pl.DataFrame:
    parts = [pl.DataFrame(schema=MATCH_SCHEMA)]
    for frame in frames:
        tally.add_frame(frame)
        matches, failed = match_contained(plan, frame, events_of=events_of)
        parts.append(matches)
        tally.unmatched += failed
    found = pl.concat(parts)
    tally.matches += found.height
    return found


def with_correlations(
    found: Iterable[pl.DataFrame | SourceProblem], hunted: HuntedCorrelations, tally: HuntTally
) -> Iterator[pl.DataFrame | SourceProblem]:
    """What is found, less the matches that are only material, and at the end the correlations that fire."""
    if not hunted.run.rules and not hunted.hidden:
        yield from found
        return
    passed = CorrelationPass(hunted.run.rules, sorted(hunted.run.needed))
    for item in found:
        if isinstance(item, pl.DataFrame):
            passed.add(item)
            shown, silenced = shown_matches(item, hunted)
            tally.silenced += silenced
            tally.matches -= item.height - shown.height
            yield shown
        else:
            yield item
    correlations = shown_correlations(passed, hunted)
    counters = passed.counters
    tally.uncorrelated = sum(counters.missing_group_field.values()) + sum(counters.bad_values.values())
    tally.forgotten = sum(counters.capped_events.values()) + sum(counters.evicted_groups.values())
    tally.gaps, tally.correlated_timeless = passed.gaps, passed.timeless
    tally.correlations = correlations.height
    tally.matches += correlations.height
    yield correlations


def at_least(level: str, rule: Rule | CorrelationRule) -> bool:
    """Whether a rule is of at least this level."""
    return LEVELS.index(rule.level) >= LEVELS.index(level)


def _checked_zone(name: str | None) -> str | None:
    if name is not None and name not in available_timezones():
        raise HuntError(gettext("{name} is no time zone, such as Europe/Paris").format(name=name))
    return name


def _lake(folder: Path | None, config: Path | None) -> Lake:
    try:
        return lake_at(folder) if folder else standing_lake(load_settings(config, os.environ))
    except LakeError as error:
        raise HuntError(str(error)) from error


@click.command(cls=PathListCommand)
@rule_paths_option
@click.option(
    "--events",
    "event_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH...",
    help="Event files (.evtx, .json, .jsonl, .ndjson, .csv, .parquet, .log), archives of these, and folders.",
)
@click.option("--lake", "in_lake", is_flag=True, help="Hunt in the lake instead of files.")
@click.option("--lake-path", type=click.Path(path_type=Path), help="Another lake.")
@scope_options
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a match on stdout, and nothing else there.")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default=LEVELS[0],
    show_default=True,
    help="Only rules of this level or worse.",
)
@rule_options
@click.option(
    "--time-zone",
    callback=lambda _context, _option, name: _checked_zone(name),
    help="Zone of times that name none, such as Europe/Paris. [default: UTC]",
)
@click.option(
    "--format", "format_name", type=click.Choice([form.name for form in FORMATS]), help="Format of all lines."
)
@click.option("--show-refused", is_flag=True, help="Name each rule that does not run, and why.")
@click.option(
    "--max-decompressed",
    type=click.IntRange(min=1),
    default=DECOMPRESSED_BYTES,
    show_default=True,
    metavar="BYTES",
    help="What one archive may hold once decompressed; the rest is not read.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="TOCSIN_CONFIG",
    help="TOML file of settings, for the place of the lake.",
)
def hunt(
    rule_paths: tuple[Path, ...],
    event_paths: tuple[Path, ...],
    lake_path: Path | None,
    level: str,
    pipelines: tuple[str, ...],
    expand_paths: tuple[Path, ...],
    max_decompressed: int,
    config: Path | None,
    since: datetime | None,
    until: datetime | None,
    tenants: tuple[str, ...],
    time_zone: str | None,
    format_name: str | None,
    *,
    in_lake: bool,
    as_json: bool,
    show_refused: bool,
) -> None:
    """Run Sigma rules over event files or over the lake, and print what matches.

    PATH... takes one path or more, and the option may be repeated: --rules a b --events c d.
    """
    if (in_lake or lake_path is not None) == bool(event_paths):
        raise HuntError(gettext("say either --events PATH... or --lake"))
    scope = scope_of(since, until, tenants)
    if event_paths and scope.narrowed:
        raise HuntError(gettext("--since, --until and --tenant are of the lake: they need --lake"))
    for path in (*rule_paths, *event_paths):
        if not path.exists():
            raise HuntError(gettext("{path}: no such file or folder").format(path=path))
    lake = None if event_paths else _lake(lake_path, config)
    if as_json and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the terminal: JSON is UTF-8 (RFC 8259, section 8.1)
    printer = HuntPrinter(sys.stderr, MatchLines(sys.stdout) if as_json else MatchTable(sys.stdout))
    started = time.monotonic()
    options = read_rule_options(pipelines, expand_paths)
    cache = user_cache(os.environ)
    loaded = load_rule_plan(rule_paths, options, cache, wanted=lambda rule: at_least(level, rule))
    wanted = wanted_rules(loaded.pack, lambda rule: at_least(level, rule))
    if any(not at_least(level, rule) and rule.id in wanted for rule in loaded.pack.rules):
        loaded = load_rule_plan(rule_paths, options, cache, before=loaded, wanted=lambda rule: rule.id in wanted)
    pack, plan = loaded.pack, loaded.plan
    gc.freeze()  # rules stay to the end: looking through them for garbage is a fifth of the time to the first match
    click.get_current_context().call_on_close(gc.unfreeze)
    hunted = hunted_correlations(
        pack, frozenset(compiled.rule.id for compiled in plan.rules), lambda rule: at_least(level, rule)
    )
    if not plan.rules:
        printer.rules(pack, plan, hunted.run, show_refused=True)
        raise HuntError(gettext("no rules to run in {paths}").format(paths=", ".join(map(str, rule_paths))))
    printer.rules(pack, plan, hunted.run, show_refused=show_refused)
    tally, counts = HuntTally(), ScanCounts()
    found: Iterator[pl.DataFrame | SourceProblem]
    if lake is None:
        limits = ReadLimits(decompressed_bytes=max_decompressed)
        items = read_events(event_paths, now=datetime.now(UTC), limits=limits)
        readings = Readings(others=Reading(time_zone or UTC_ZONE, format_name))
        found = hunt_files(plan, items, tally, events_of=hunted.run.needed, readings=readings)
    else:
        found = iter(hunt_lake(plan, scope.read(lake, counts), lake.place.name, tally, events_of=hunted.run.needed))
    try:
        for item in with_correlations(found, hunted, tally):
            printer.item(item, tally)
        printer.end(tally, time.monotonic() - started, scan_lines(counts) if lake is not None else ())
    except BrokenPipeError:  # the reader of stdout has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if not tally.events and "unreadable" in tally.problems:
        raise SystemExit(NOTHING_READ)

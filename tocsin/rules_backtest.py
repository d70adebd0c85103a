"""`tocsin rules backtest`: what rules would have done on past events, and what a change of them adds and removes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import orjson

from detections.backtest import Backtest, Change, MatchedEvent, RuleRecord, ValueCounts
from detections.plan import Plan
from ingest.envelope import EventFrame
from ingest.visible import visible
from tocsin.containment import match_contained
from tocsin.event_options import EventChoice, event_options, told_events
from tocsin.json_line import json_line, speak_json
from tocsin.languages import counted, gettext
from tocsin.path_lists import PathListCommand
from tocsin.rule_options import read_rule_options, rule_options, rule_paths_option
from tocsin.rule_sets import fields_wanted, plan_of

TOP_VALUES: Final = 5
"""Values of a field that are shown."""

VALUE_CHARACTERS: Final = 160
"""Characters of a value that the text shows; JSON has them all."""


@click.command("backtest", cls=PathListCommand)
@rule_paths_option
@click.option(
    "--against",
    "old_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH...",
    help="The rules as they were: say what the change adds and removes.",
)
@rule_options
@event_options(required=True)
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(min=0), help="Changed events shown a rule; 0 is all."
)
@click.option("--all", "every", is_flag=True, help="Name rules without matches as well.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a changed event, then one a rule, on stdout.")
def backtest_command(
    rule_paths: tuple[Path, ...],
    old_paths: tuple[Path, ...],
    pipelines: tuple[str, ...],
    expand_paths: tuple[Path, ...],
    choice: EventChoice,
    limit: int,
    *,
    every: bool,
    as_json: bool,
) -> None:
    """Run rules over past events and sum up what they would have done.

    Per rule: matches, by day and by hospital, hosts and users, the most frequent values of the fields it matched on,
    the first and last match, and three events. With --against, events that only the new rules match are marked +, those
    that only the old ones matched are marked -.

    Exit 0, whatever was found; 1 if no source could be read; 2 if asked wrongly.
    """
    started = time.monotonic()
    options = read_rule_options(pipelines, expand_paths)
    new = plan_of(rule_paths, options)
    old = plan_of(old_paths, options) if old_paths else None
    plans = (new,) if old is None else (new, old)
    backtest = Backtest(new, old)
    changes: dict[str, list[Change]] = {}
    for frame in choice.frames(fields_wanted(*plans)):
        for change in _step(backtest, new, old, frame):
            kept = changes.setdefault(change.rule_id, [])
            if not limit or len(kept) < limit:
                kept.append(change)
    if as_json:
        speak_json()
        _print_json(backtest, changes)
    else:
        _print_text(backtest, changes, every=every)
    click.echo(told_events(choice, time.monotonic() - started), err=True)
    choice.check()


def _step(backtest: Backtest, new: Plan, old: Plan | None, frame: EventFrame) -> list[Change]:
    matches, failed = match_contained(new, frame)
    before = None
    if old is not None:
        before, failed_before = match_contained(old, frame)
        failed += failed_before
    if failed:
        told = counted(
            "{n} events could not be tried by the rules: this is a defect of Tocsin, please report it", failed
        )
        click.echo(told, err=True)
    return backtest.add(matches, before)


def _print_json(backtest: Backtest, changes: dict[str, list[Change]]) -> None:
    for record in backtest.records():
        for change in changes.get(record.rule_id, []):
            click.echo(json_line({"change": change.sign, **_event_json(change.event)}))
        click.echo(record_json(record))


def record_json(record: RuleRecord) -> str:
    """What a rule did as one line of JSON."""
    return json_line(
        {
            "rule_id": record.rule_id,
            "rule_title": record.title,
            "level": record.level,
            "matches": record.matches,
            "added": record.added,
            "removed": record.removed,
            "first": None if record.first is None else record.first.isoformat(),
            "last": None if record.last is None else record.last.isoformat(),
            "days": {str(day): count for day, count in record.per_day().items()},
            "tenants": record.per_tenant(),
            "hosts": len(record.hosts),
            "users": len(record.users),
            "top_hosts": dict(record.hosts.most_common(TOP_VALUES)),
            "top_users": dict(record.users.most_common(TOP_VALUES)),
            "values": {name: dict(found.counts.most_common(TOP_VALUES)) for name, found in record.values.items()},
            "examples": [_event_json(event) for event in record.examples],
        }
    )


def _event_json(event: MatchedEvent) -> dict[str, object]:
    return {**event, "timestamp": event["timestamp"].isoformat(), "matched": orjson.Fragment(event["matched"])}


def _print_text(backtest: Backtest, changes: dict[str, list[Change]], *, every: bool) -> None:
    quiet = 0
    for record in backtest.records():
        if not record.matches and not record.removed and not every:
            quiet += 1
            continue
        for line in _record_lines(record, changes.get(record.rule_id, [])):
            click.echo(visible(line))
    if quiet:
        click.echo(counted("{n} rules without a match (--all names them)", quiet))


def _record_lines(record: RuleRecord, changes: list[Change]) -> Iterator[str]:
    level = record.level
    yield f"{record.title} ({record.rule_id}) [{gettext(level)}]"
    sums = (
        counted("{n} matches", record.matches, grouped=True),
        counted("{n} days", len(record.per_day())),
        counted("{n} hospitals", len(record.per_tenant())),
        counted("{n} hosts", len(record.hosts)),
        counted("{n} users", len(record.users)),
    )
    yield "  " + ", ".join(sums)
    if record.added is not None and record.removed is not None:
        same = record.matches - record.added
        yield "  " + gettext("against the old rules: +{added} -{removed} ={same}").format(
            added=record.added, removed=record.removed, same=same
        )
    if record.first is not None and record.last is not None:
        yield "  " + gettext("from {first} to {last} (UTC)").format(first=_time(record.first), last=_time(record.last))
        yield "  " + gettext("by day: {counts}").format(
            counts=_counts({str(d): n for d, n in record.per_day().items()})
        )
        if record.per_tenant():
            yield "  " + gettext("by hospital: {counts}").format(counts=_counts(record.per_tenant()))
    for name, found in record.values.items():
        yield f"  {name}: {_top(found)}"
    for event in record.examples:
        yield "  " + gettext("for example: {event}").format(event=_event_line(event))
    for change in changes:
        yield f"  {change.sign} {_event_line(change.event)}"
    rest = (record.added or 0) + (record.removed or 0) - len(changes)
    if rest > 0:
        yield "  " + counted("and {n} more (--limit 0 names all)", rest)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _top(found: ValueCounts) -> str:
    shown = ", ".join(f"{_shortened(value)!r} {count}" for value, count in found.counts.most_common(TOP_VALUES))
    more = len(found.counts) - TOP_VALUES
    return shown + (f", … +{more}{'+' if found.cut else ''}" if more > 0 else "")


def _event_line(event: MatchedEvent) -> str:
    return f"{_time(event['timestamp'])} {event['host'] or '-'} {event['event_id']} {_shortened(event['matched'])}"


def _shortened(text: str) -> str:
    return text if len(text) <= VALUE_CHARACTERS else f"{text[:VALUE_CHARACTERS]}…"


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")

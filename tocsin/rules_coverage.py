"""`tocsin rules coverage`: which rules can match what arrives, which are blind and why, and what of ATT&CK they are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import orjson

from detections.attack import AttackCount, attack_counts, navigator_layer, tactics, techniques
from detections.coverage import WINDOWS_DATASETS, RuleCoverage, Seen, SourceCoverage, State, coverage
from detections.rule import RuleError
from ingest.logsource import LogSource
from ingest.visible import visible
from tocsin.event_options import EventChoice, event_options, told_events
from tocsin.json_line import json_line, speak_json
from tocsin.languages import counted, gettext
from tocsin.path_lists import PathListCommand
from tocsin.rule_options import read_rule_options, rule_options, rule_paths_option
from tocsin.rule_sets import plan_of
from tocsin.text_table import table_lines


@click.command("coverage", cls=PathListCommand)
@rule_paths_option
@rule_options
@event_options(required=False)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a rule on stdout, and nothing else there.")
@click.option("-v", "--verbose", is_flag=True, help="Name the rules that can match as well.")
@click.option(
    "--attack-navigator",
    "layer_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a layer for the MITRE ATT&CK Navigator.",
)
def coverage_command(
    rule_paths: tuple[Path, ...],
    pipelines: tuple[str, ...],
    expand_paths: tuple[Path, ...],
    choice: EventChoice,
    layer_path: Path | None,
    *,
    as_json: bool,
    verbose: bool,
) -> None:
    """Say of each rule which fields it needs, and whether what was seen has them.

    Without --events and --lake, nothing is seen: the report says what rules need and which formats would give it.

    Exit 0, whatever the report says; 1 if no source could be read; 2 if asked wrongly.
    """
    started = time.monotonic()
    plan = plan_of(rule_paths, read_rule_options(pipelines, expand_paths))
    seen = Seen()
    for frame in choice.frames() if choice.given else ():
        seen.add(frame)
    covered = coverage(plan.rules, seen)
    by_technique, by_tactic = attack_counts(covered)
    if layer_path is not None:
        _write_layer(layer_path, by_technique)
    if as_json:
        speak_json()
        for item in covered:
            click.echo(coverage_json(item))
    else:
        for line in _report(covered, seen, by_technique, by_tactic, verbose=verbose):
            click.echo(line)
    click.echo(told_events(choice, time.monotonic() - started), err=True)
    choice.check()


def coverage_json(item: RuleCoverage) -> str:
    """A rule's coverage as one line of JSON."""
    rule = item.compiled.rule
    return json_line(
        {
            "rule_id": rule.id,
            "rule_title": rule.title,
            "level": rule.level,
            "path": str(rule.path),
            "logsource": str(rule.logsource),
            "state": item.state,
            "reason": reason(item),
            "needed": item.needed,
            "gated": not item.compiled.ungated,
            "reachable": item.reachable,
            "datasets": item.datasets,
            "techniques": techniques(rule.tags),
            "tactics": tactics(rule.tags),
            "sources": [_source_json(source) for source in item.sources],
        }
    )


def _source_json(source: SourceCoverage) -> dict[str, object]:
    return {
        "logsource": str(source.logsource),
        "events": source.events,
        "datasets": source.datasets,
        "can_match": source.can_match,
        "present": source.present,
        "missing": source.missing,
        "values": dict(source.values),
    }


def reason(item: RuleCoverage) -> str:
    """What keeps a rule from matching, in one line for engineers, as `state` says it for programs."""
    if item.state == "can_match":
        return "can match"
    if item.state == "no_format":
        return "reachable by no format"
    if item.state == "source_never_seen":
        return "blind: log source never seen"
    best = item.sources[0]
    if best.missing:
        return "blind: " + "; ".join(_missing(group) for group in best.missing)
    return "blind: " + "; ".join(f"{name} {', '.join(values)} never seen" for name, values in best.values.items())


def _missing(group: Sequence[str]) -> str:
    return f"field {group[0]} never seen" if len(group) == 1 else f"none of the fields {', '.join(group)} ever seen"


def _state_names() -> dict[State, str]:
    return {
        "can_match": gettext("can match"),
        "source_never_seen": gettext("blind: log source never seen"),
        "field_never_seen": gettext("blind: a field it needs never seen"),
        "value_never_seen": gettext("blind: an event id, channel or provider it needs never seen"),
        "no_format": gettext("reachable by no format"),
    }


def _report(
    covered: Sequence[RuleCoverage],
    seen: Seen,
    by_technique: Sequence[AttackCount],
    by_tactic: Sequence[AttackCount],
    *,
    verbose: bool,
) -> Iterator[str]:
    counts = Counter(item.state for item in covered)
    for state, name in _state_names().items():
        yield f"{counts[state]:>6}  {name}"
    yield from _seen_lines(seen)
    yield from _source_lines(covered)
    yield from _rule_lines(covered, verbose=verbose)
    ungated = [item.compiled for item in covered if item.compiled.ungated]
    if ungated:
        yield ""
        yield gettext("Without a gate (nothing positive is asked for, every event of the log source may match):")
        yield from (visible(f"  {item.rule.path}: {item.rule.title} ({item.rule.logsource})") for item in ungated)
    for title, attack in (
        (gettext("ATT&CK technique"), by_technique),
        (gettext("ATT&CK tactic"), by_tactic),
    ):
        if attack:
            rows = [(count.name, count.running, count.blind) for count in attack]
            yield ""
            yield from table_lines((title, gettext("can match"), gettext("blind")), rows, numbers=(1, 2))


def formats_shown(datasets: Sequence[str]) -> str:
    """Formats in a few words: all those of Windows are one."""
    others = [name for name in datasets if name not in WINDOWS_DATASETS]
    windows = [name for name in datasets if name in WINDOWS_DATASETS]
    return ", ".join(
        ["windows.*" if len(windows) == len(WINDOWS_DATASETS) else ", ".join(windows)] * bool(windows) + others
    )


def _seen_lines(seen: Seen) -> Iterator[str]:
    if not seen.sources:
        return
    heads = (gettext("Log source seen"), gettext("Events"), gettext("Fields"), gettext("Read by"))
    rows = [
        (source, came.events, len(came.fields), ", ".join(sorted(came.datasets)))
        for source, came in sorted(seen.sources.items(), key=lambda item: -item[1].events)
    ]
    yield ""
    yield from table_lines(heads, rows, numbers=(1, 2))


def _source_lines(covered: Sequence[RuleCoverage]) -> Iterator[str]:
    grouped: dict[LogSource, list[RuleCoverage]] = {}
    for item in covered:
        grouped.setdefault(item.compiled.rule.logsource, []).append(item)
    heads = (
        gettext("Log source of rules"),
        gettext("Rules"),
        gettext("can match"),
        gettext("blind"),
        gettext("Given by"),
    )
    rows = []
    for source, items in sorted(grouped.items(), key=lambda item: (-len(item[1]), str(item[0]))):
        alive = sum(item.state == "can_match" for item in items)
        given = formats_shown(items[0].datasets) or gettext("no format; only JSON that declares it")
        rows.append((source, len(items), alive, len(items) - alive, given))
    yield ""
    yield from table_lines(heads, rows, numbers=(1, 2, 3))


def _rule_lines(covered: Sequence[RuleCoverage], *, verbose: bool) -> Iterator[str]:
    """Rules one by one; those whose log source never came are told by their log source above, unless asked for."""
    for item in covered:
        if not verbose and item.state not in {"field_never_seen", "value_never_seen"}:
            continue
        rule = item.compiled.rule
        yield ""
        yield visible(f"{rule.title} ({rule.id}) {rule.logsource}")
        yield visible(f"  {reason(item)}")
        needs = "; ".join(" | ".join(group) for group in item.needed)
        if needs:
            yield visible("  " + gettext("needs: {fields}").format(fields=needs))
        for source in item.sources:
            yield visible(f"  {source.logsource}: " + counted("{n} events", source.events) + _present(source))


def _present(source: SourceCoverage) -> str:
    return ", " + gettext("present: {fields}").format(fields=", ".join(source.present) or "-")


def _write_layer(path: Path, counts: Sequence[AttackCount]) -> None:
    try:
        path.write_bytes(orjson.dumps(navigator_layer(counts, "Tocsin"), option=orjson.OPT_INDENT_2))
    except OSError as error:
        raise RuleError(
            gettext("{path}: cannot be written: {reason}").format(path=path, reason=error.strerror)
        ) from error

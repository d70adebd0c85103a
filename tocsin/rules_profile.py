"""`tocsin rules profile`: the measured cost of each rule on real events, the slowest first, with the reason."""

from __future__ import annotations

import time
from pathlib import Path

import click

from detections.profile import Profile, Reason, RuleCost
from ingest.envelope import EventFrame
from tocsin.event_options import EventChoice, event_options, told_events
from tocsin.json_line import json_line, speak_json
from tocsin.languages import counted, gettext, number
from tocsin.path_lists import PathListCommand
from tocsin.rule_options import read_rule_options, rule_options, rule_paths_option
from tocsin.rule_sets import plan_of
from tocsin.text_table import table_lines


@click.command("profile", cls=PathListCommand)
@rule_paths_option
@rule_options
@event_options(required=True)
@click.option(
    "--most", default=100_000, show_default=True, type=click.IntRange(min=1), help="Events after which to stop."
)
@click.option("--top", default=25, show_default=True, type=click.IntRange(min=1), help="Rules to name.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a rule that met events, the slowest first.")
def profile_command(
    rule_paths: tuple[Path, ...],
    pipelines: tuple[str, ...],
    expand_paths: tuple[Path, ...],
    choice: EventChoice,
    most: int,
    top: int,
    *,
    as_json: bool,
) -> None:
    """Measure what each rule costs, and say why the slowest are slow.

    Each rule is timed alone: processor time of its own comparisons. All rules together cost less, since they share
    columns and equal comparisons; the rate of the whole plan is measured beside. Candidates are the events that hold
    one of the texts the rule cannot do without.

    Exit 0; 1 if no source could be read; 2 if asked wrongly.
    """
    started = time.monotonic()
    plan = plan_of(rule_paths, read_rule_options(pipelines, expand_paths))
    profile = Profile(plan)
    for frame in choice.frames():
        profile.add(EventFrame(frame.logsource, frame.events.head(most - profile.events)))
        if profile.events >= most:
            break
    costs = profile.costs()
    total = profile.rule_seconds or 1.0
    if as_json:
        speak_json()
        for cost in costs:
            click.echo(_json(cost, total))
    else:
        _print_table(costs[:top], total)
        _print_sums(profile, len(costs))
    click.echo(told_events(choice, time.monotonic() - started), err=True)
    choice.check()


def _json(cost: RuleCost, total: float) -> str:
    rule = cost.compiled.rule
    return json_line(
        {
            "rule_id": rule.id,
            "rule_title": rule.title,
            "path": str(rule.path),
            "logsource": str(rule.logsource),
            "seconds": round(cost.seconds, 6),
            "share": round(cost.seconds / total, 6),
            "events": cost.events,
            "candidates": cost.candidates,
            "matches": cost.matches,
            "reasons": cost.reasons,
        }
    )


def _print_table(costs: list[RuleCost], total: float) -> None:
    reasons = _reasons()
    heads = (
        gettext("Share"),
        gettext("CPU ms"),
        gettext("ns an event"),
        gettext("Events"),
        gettext("Candidates"),
        gettext("Matches"),
        gettext("Rule"),
        gettext("Why"),
    )
    rows = [
        (
            f"{number(100 * cost.seconds / total, 1)} %",
            number(1_000 * cost.seconds, 1),
            number(1e9 * cost.seconds / max(cost.events, 1)),
            cost.events,
            cost.candidates,
            cost.matches,
            f"{cost.compiled.rule.title} ({cost.compiled.rule.id})",
            ", ".join(reasons[reason] for reason in cost.reasons),
        )
        for cost in costs
    ]
    for line in table_lines(heads, rows, numbers=range(6)):
        click.echo(line)


def _reasons() -> dict[Reason, str]:
    return {
        "look-around": gettext("regex with look-around, row by row"),
        "regex": gettext("regex"),
        "keywords": gettext("keywords search every field"),
        "wildcards": gettext("wildcards inside a text"),
        "no literal": gettext("no text it cannot do without"),
        "many candidates": gettext("many candidates"),
        "many values": gettext("many values"),
    }


def _print_sums(profile: Profile, rules: int) -> None:
    rate = number(profile.events / max(profile.plan_seconds, 1e-9))
    plan = gettext("all rules together: {rate} events/s a core ({seconds} s of processor time)")
    click.echo(plan.format(rate=rate, seconds=number(profile.plan_seconds, 2)))
    alone = counted(
        "{n} rules met events; each alone they take {seconds} s", rules, seconds=number(profile.rule_seconds, 2)
    )
    click.echo(alone)

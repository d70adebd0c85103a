"""`tocsin rules explain`: why a rule is true or false for an event, and how a rule runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from detections.compile import CompiledRule
from detections.correlation_rule import CorrelationRule
from detections.coverage import datasets_of
from detections.explain import Explanation, explain, explain_text
from detections.load import load_rules
from detections.plan import Plan
from detections.plan_text import PlanText, atom_text, columns_of, correlation_condition, plan_text
from detections.reach import given_logsources
from detections.rule import Refusal, Rule, RuleError, RulePack
from ingest.event_files import read_events
from ingest.event_source import SourceProblem
from ingest.parse import parse
from ingest.visible import visible
from tocsin.event_options import must_exist
from tocsin.languages import counted, gettext
from tocsin.path_lists import PathListCommand
from tocsin.rule_options import RuleOptions, read_rule_options, rule_options
from tocsin.rules_coverage import formats_shown


@click.command("explain", cls=PathListCommand)
@click.argument("rule_file", type=click.Path(path_type=Path))
@rule_options
@click.option("--plan", "show_plan", is_flag=True, help="Print how the rule runs; needs no events.")
@click.option("--events", "events", multiple=True, type=click.Path(path_type=Path), help="Files to explain it on.")
@click.option("--all", "every", is_flag=True, help="Explain it on each event, not only of the log source it sees.")
@click.option("--limit", default=20, show_default=True, help="Events to explain.")
def explain_command(
    rule_file: Path,
    pipelines: tuple[str, ...],
    expand_paths: tuple[Path, ...],
    events: tuple[Path, ...],
    limit: int,
    *,
    show_plan: bool,
    every: bool,
) -> None:
    """Say of a rule, on each event, which of its parts are true and what the event has there.

    With --plan: the expression as it is compiled, the fields and texts it cannot do without, and its Polars code.

    Exit 0; 2 if there is no rule that runs, or nothing to explain it on.
    """
    if not events and not show_plan:
        raise RuleError(gettext("say --events PATH..., --plan, or both"))
    must_exist(events)
    options = read_rule_options(pipelines, expand_paths)
    pack = load_rules([rule_file])
    for refusal in (*pack.refused, *pack.unsupported):
        click.echo(visible(str(refusal)), err=True)
    if not pack.rules and not pack.correlations:
        raise RuleError(gettext("{path}: no rule that runs").format(path=rule_file))
    if show_plan:
        _print_plans(pack, options)
    if events:
        _print_explanations(pack, options, events, every=every, limit=limit)


def _print_plans(pack: RulePack, options: RuleOptions) -> None:
    plan = Plan.build(pack.rules, options.placeholders, options.pipeline)
    for compiled in plan.rules:
        for line in _plan_lines(compiled, plan_text(compiled)):
            click.echo(visible(line))
    titles = {rule.id: rule.title for rule in pack.rules}
    titles |= {correlation.id: correlation.title for correlation in pack.correlations}
    for correlation in pack.correlations:
        for line in _correlation_lines(correlation, titles):
            click.echo(visible(line))
    if plan.refused:
        raise RuleError(str(plan.refused[0]))


def _plan_lines(compiled: CompiledRule, text: PlanText) -> Iterator[str]:
    rule = compiled.rule
    yield _heading(rule)
    given = datasets_of(rule.logsource, given_logsources())
    yield gettext("given by: {formats}").format(
        formats=formats_shown(given) or gettext("no format; only JSON that declares it")
    )
    yield gettext("expression:")
    yield from (f"  {line}" for line in text.tree)
    yield gettext("columns: {columns}").format(columns=", ".join(columns_of(compiled.expression)) or "-")
    yield gettext("needs: {fields}").format(fields="; ".join(" | ".join(group) for group in text.needed) or "-")
    if text.keyword_only:
        yield gettext("keywords alone can make it true: it also sees lines that no format understood")
    if text.slow is not None:
        yield gettext("slow: {reason}").format(reason=text.slow)
    if text.ungated:
        yield gettext("without a gate: every event of its log source may match")
    if text.clause is None:
        yield gettext("nothing must be there: it can be true by what is absent")
    else:
        yield gettext("one of these must be true:")
        yield from (f"  {atom_text(atom)}" for atom in text.clause)
        if not text.literals:
            yield gettext("not all of them hold a text to look for: the rule is tried on every event")
    yield gettext("as Polars code:")
    yield f"  {text.polars if text.polars is not None else text.polars_refusal}"


def _correlation_lines(correlation: CorrelationRule, titles: Mapping[str, str]) -> Iterator[str]:
    yield gettext("{title} ({id}), a correlation").format(title=correlation.title, id=correlation.id)
    yield gettext("type: {kind} of {references}").format(
        kind=correlation.kind,
        references=", ".join(f"{titles.get(name, name)} ({name})" for name in correlation.references),
    )
    yield gettext("window: {timespan}").format(timespan=correlation.timespan)
    groups = (_group_shown(name, correlation.aliases.get(name, {}), titles) for name in correlation.group_by)
    yield gettext("group by: {fields}").format(fields=", ".join(groups) or "-")
    yield gettext("condition: {condition}").format(condition=correlation_condition(correlation))
    if correlation.generate:
        yield gettext("the rules it refers to give alerts of their own as well")


def _group_shown(name: str, alias: Mapping[str, str], titles: Mapping[str, str]) -> str:
    """A field to group by; where it stands for another field of each rule, which."""
    fields = "; ".join(f"{titles.get(rule, rule)}: {field}" for rule, field in alias.items())
    return f"{name} ({fields})" if fields else name


def _heading(rule: Rule) -> str:
    heading = gettext("{title} ({id}), log source {logsource}")
    return heading.format(title=rule.title, id=rule.id, logsource=rule.logsource)


def _print_explanations(
    pack: RulePack, options: RuleOptions, events: tuple[Path, ...], *, every: bool, limit: int
) -> None:
    explained = 0
    for rule in pack.rules:
        click.echo(visible(_heading(rule)))
        for explanation in _explanations(rule, options, events, every=every, limit=limit):
            explained += 1
            for line in _lines(explanation):
                click.echo(visible(line))
    none = gettext("no event of the rule's log source (see --all)")
    click.echo(counted("{n} events explained", explained) if explained else none)


def _lines(explanation: Explanation) -> list[str]:
    """An explanation as lines, its verdict in the language spoken; the trace is in the words of rules."""
    verdict = gettext("event {id}: matches") if explanation.matched else gettext("event {id}: does not match")
    lines = [verdict.format(id=explanation.event_id)]
    if not explanation.meets:
        lines.append(gettext("the rule does not see this log source"))
    return [*lines, *explain_text(explanation)[len(lines) :]]


def _explanations(
    rule: Rule, options: RuleOptions, paths: tuple[Path, ...], *, every: bool, limit: int
) -> list[Explanation]:
    explanations: list[Explanation] = []
    plan = Plan.build([rule], options.placeholders, options.pipeline)
    if plan.refused:
        raise RuleError(str(plan.refused[0]))
    wanted = plan.rules[0].rule.logsource  # which a pipeline may have changed
    for batch in read_events(paths, now=datetime.now(UTC)):
        if isinstance(batch, SourceProblem):
            click.echo(visible(str(batch)), err=True)
            continue
        for frame in parse(batch.raw):
            if not every and not wanted.meets(frame.logsource):
                continue
            answer = explain(rule, frame, options.placeholders, options.pipeline)
            if isinstance(answer, Refusal):
                raise RuleError(str(answer))
            for explanation in answer:
                if limit <= 0:
                    return explanations
                limit -= 1
                explanations.append(explanation)
    return explanations

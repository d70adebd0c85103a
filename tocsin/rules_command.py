"""`tocsin rules`: what a detection engineer asks of a rule set before it runs anywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from detections.check import CheckReport, check_rules
from detections.explain import Explanation, explain, explain_text
from detections.load import load_rules
from detections.rule import Refusal, Rule, RuleError
from detections.rule_tests import run_rule_tests
from ingest.event_files import read_events
from ingest.event_source import SourceProblem
from ingest.parse import parse
from ingest.visible import visible
from tocsin.languages import counted, gettext
from tocsin.path_lists import PathListCommand

PATHS = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
FOUND_FAULTS = 1


@click.group()
def rules() -> None:
    """Check, test and explain Sigma rules."""


@rules.command()
@PATHS
def check(paths: tuple[Path, ...]) -> None:
    """Load and compile rules; name what is refused by file, line and reason. Exit 1 if anything is."""
    report = check_rules(paths)
    *findings, _counts = report.lines()
    for line in (*findings, _sums(report)):
        click.echo(visible(line))
    if not report.ok:
        raise SystemExit(FOUND_FAULTS)


def _sums(report: CheckReport) -> str:
    """The counts of a check, in the language spoken; what was found is the engine's own words."""
    counts = (
        counted("{n} rules run", report.running),
        counted("{n} refused", len(report.refused)),
        counted("{n} not run here", len(report.unsupported)),
        counted("{n} slow", len(report.slow)),
        counted("{n} without a gate", len(report.ungated)),
        counted("{n} out of reach of any format", report.unreachable),
    )
    return ", ".join(counts)


@rules.command("test")
@PATHS
@click.option("-v", "--verbose", is_flag=True, help="Name the events that passed as well.")
def run_tests(paths: tuple[Path, ...], verbose: bool) -> None:
    """Run the tests that stand beside rules (NAME.tests.yml). Exit 1 if one fails, or if there is none."""
    results = run_rule_tests(paths)
    for result in results:
        if verbose or not result.passed:
            verdict = gettext("passed") if result.passed else gettext("FAILED")
            name = f"{result.expected}: {result.name}" if result.name else gettext("tests")
            click.echo(visible(f"{verdict}  {result.path}: {name}" + (f": {result.reason}" if result.reason else "")))
    failed = sum(not result.passed for result in results)
    as_expected = counted("{n} events as expected", len(results) - failed)
    not_so = counted("{n} not", failed)
    click.echo(f"{as_expected}, {not_so}")
    if failed or not results:
        raise SystemExit(FOUND_FAULTS)


@rules.command("explain", cls=PathListCommand)
@click.argument("rule_file", type=click.Path(path_type=Path))
@click.option(
    "--events", "events", required=True, multiple=True, type=click.Path(path_type=Path), help="Files to explain it on."
)
@click.option("--all", "every", is_flag=True, help="Explain it on each event, not only of the log source it sees.")
@click.option("--limit", default=20, show_default=True, help="Events to explain.")
def explain_rule(rule_file: Path, events: tuple[Path, ...], every: bool, limit: int) -> None:
    """Say of a rule, on each event, which of its parts are true and what the event has there."""
    for path in events:
        if not path.exists():
            raise RuleError(gettext("{path}: no such file or folder").format(path=path))
    pack = load_rules([rule_file])
    for refusal in (*pack.refused, *pack.unsupported):
        click.echo(visible(str(refusal)), err=True)
    if not pack.rules:
        raise RuleError(gettext("{path}: no rule that runs").format(path=rule_file))
    explained = 0
    for rule in pack.rules:
        heading = gettext("{title} ({id}), log source {logsource}")
        click.echo(visible(heading.format(title=rule.title, id=rule.id, logsource=rule.logsource)))
        for explanation in _explanations(rule, events, every=every, limit=limit):
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


def _explanations(rule: Rule, paths: tuple[Path, ...], *, every: bool, limit: int) -> list[Explanation]:
    explanations: list[Explanation] = []
    for batch in read_events(paths, now=datetime.now(UTC)):
        if isinstance(batch, SourceProblem):
            click.echo(visible(str(batch)), err=True)
            continue
        for frame in parse(batch.raw):
            if not every and not rule.logsource.meets(frame.logsource):
                continue
            answer = explain(rule, frame)
            if isinstance(answer, Refusal):
                raise RuleError(str(answer))
            for explanation in answer:
                if limit <= 0:
                    return explanations
                limit -= 1
                explanations.append(explanation)
    return explanations

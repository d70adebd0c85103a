"""`tocsin rules`: what a detection engineer asks of a rule set before it runs anywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from detections.check import check_rules
from detections.explain import explain, explain_text
from detections.load import load_rules
from detections.rule import Refusal, Rule, RuleError
from detections.rule_tests import run_rule_tests
from ingest.event_files import read_events
from ingest.event_source import SourceProblem
from ingest.parse import parse
from ingest.visible import visible
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
    for line in report.lines():
        click.echo(visible(line))
    if not report.ok:
        raise SystemExit(FOUND_FAULTS)


@rules.command("test")
@PATHS
@click.option("-v", "--verbose", is_flag=True, help="Name the events that passed as well.")
def run_tests(paths: tuple[Path, ...], verbose: bool) -> None:
    """Run the tests that stand beside rules (NAME.tests.yml). Exit 1 if one fails, or if there is none."""
    results = run_rule_tests(paths)
    for result in results:
        if verbose or not result.passed:
            verdict = "passed" if result.passed else "FAILED"
            name = f"{result.expected}: {result.name}" if result.name else "tests"
            click.echo(visible(f"{verdict}  {result.path}: {name}" + (f": {result.reason}" if result.reason else "")))
    failed = sum(not result.passed for result in results)
    click.echo(f"{len(results) - failed} events as expected, {failed} not")
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
            raise RuleError(f"{path}: no such file or folder")
    pack = load_rules([rule_file])
    for refusal in (*pack.refused, *pack.unsupported):
        click.echo(visible(str(refusal)), err=True)
    if not pack.rules:
        raise RuleError(f"{rule_file}: no rule that runs")
    explained = 0
    for rule in pack.rules:
        click.echo(visible(f"{rule.title} ({rule.id}), log source {rule.logsource}"))
        for line in _explanations(rule, events, every=every, limit=limit):
            explained += not line.startswith((" ", "+", "-"))
            click.echo(visible(line))
    click.echo(f"{explained} events explained" if explained else "no event of the rule's log source (see --all)")


def _explanations(rule: Rule, paths: tuple[Path, ...], *, every: bool, limit: int) -> list[str]:
    lines: list[str] = []
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
                    return lines
                limit -= 1
                lines += explain_text(explanation)
    return lines

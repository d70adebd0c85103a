"""`tocsin rules`: what a detection engineer asks of a rule set before it runs anywhere."""

from __future__ import annotations

from pathlib import Path

import click

from detections.check import CheckReport, check_rules
from detections.rule_tests import run_rule_tests
from ingest.visible import visible
from tocsin.languages import counted, gettext
from tocsin.rule_options import read_rule_options, rule_options
from tocsin.rules_backtest import backtest_command
from tocsin.rules_coverage import coverage_command
from tocsin.rules_explain import explain_command
from tocsin.rules_profile import profile_command

PATHS = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
FOUND_FAULTS = 1


@click.group()
def rules() -> None:
    """Check, test and explain Sigma rules."""


@rules.command()
@PATHS
@rule_options
def check(paths: tuple[Path, ...], pipelines: tuple[str, ...], expand_paths: tuple[Path, ...]) -> None:
    """Load and compile rules; name what is refused by file, line and reason. Exit 1 if anything is."""
    options = read_rule_options(pipelines, expand_paths)
    report = check_rules(paths, options.placeholders, options.pipeline)
    if report.empty:
        raise click.ClickException(visible(gettext("no rule in {paths}").format(paths=", ".join(map(str, paths)))))
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
        counted("{n} correlations run", report.correlations),
        counted("{n} silenced by a correlation", len(report.silenced)),
        counted("{n} filters", report.filters),
        counted("{n} filtered", report.filtered),
        counted("{n} remarks", len(report.remarks)),
    )
    return ", ".join(counts)


@rules.command("test")
@PATHS
@rule_options
@click.option("-v", "--verbose", is_flag=True, help="Name the events that passed as well.")
def run_tests(
    paths: tuple[Path, ...], pipelines: tuple[str, ...], expand_paths: tuple[Path, ...], *, verbose: bool
) -> None:
    """Run the tests that stand beside rules (NAME.tests.yml). Exit 1 if one fails, or if there is none."""
    options = read_rule_options(pipelines, expand_paths)
    results = run_rule_tests(paths, options.placeholders, options.pipeline)
    for result in results:
        if verbose or not result.passed:
            verdict = gettext("passed") if result.passed else gettext("FAILED")
            name = f"{result.expected}: {result.name}" if result.name else gettext("tests")
            click.echo(visible(f"{verdict}  {result.path}: {name}" + (f": {result.reason}" if result.reason else "")))
    if not results:
        click.echo(gettext("no tests beside these rules"))
        raise SystemExit(FOUND_FAULTS)
    failed = sum(not result.passed for result in results)
    as_expected = counted("{n} events as expected", len(results) - failed)
    not_so = counted("{n} not", failed)
    click.echo(f"{as_expected}, {not_so}")
    if failed:
        raise SystemExit(FOUND_FAULTS)


for _command in (explain_command, coverage_command, backtest_command, profile_command):
    rules.add_command(_command)

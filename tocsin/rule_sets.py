"""Rule files to a plan, as the commands over rules want it: what does not run is counted on stderr."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import click

from detections.atoms import atoms_of
from detections.keywords import through_keywords
from detections.plan import Plan
from detections.rule import RuleError
from ingest.logsource import LogSource
from ingest.visible import visible
from tocsin.event_options import FieldsWanted, must_exist
from tocsin.languages import counted, gettext
from tocsin.rule_loading import load_rule_plan, user_cache
from tocsin.rule_options import RuleOptions


def plan_of(paths: Sequence[Path], options: RuleOptions) -> Plan:
    """Load and compile rules; say on stderr what runs and what does not.

    Raises:
        RuleError: A path does not exist, or no rule runs.
    """
    must_exist(paths)
    loaded = load_rule_plan(paths, options, user_cache(os.environ))
    pack, plan = loaded.pack, loaded.plan
    refused = (*pack.refused, *plan.refused)
    counts = (
        counted("{n} rules run", len(plan.rules)),
        counted("{n} refused", len(refused)),
        counted("{n} not run here yet", len(pack.unsupported)),
    )
    click.echo(", ".join(counts), err=True)
    if not plan.rules:
        for refusal in (*refused, *pack.unsupported):
            click.echo(visible(str(refusal)), err=True)
        raise RuleError(gettext("no rules to run in {paths}").format(paths=", ".join(map(str, paths))))
    return plan


def fields_wanted(*plans: Plan) -> FieldsWanted:
    """What rules look at, by log source; keywords look at everything."""
    rules = [compiled for plan in plans for compiled in plan.rules]
    heard = any(through_keywords(compiled.expression) is not False for compiled in rules)

    def wanted(source: LogSource) -> Collection[str] | None:
        if source.unknown:
            return None if heard else ()
        met = [compiled for compiled in rules if compiled.rule.logsource.meets(source)]
        atoms = [atom for compiled in met for atom in atoms_of(compiled.expression)]
        if any(atom.field is None for atom in atoms):
            return None
        return tuple(dict.fromkeys(field for atom in atoms for field in atom.fields))

    return wanted

"""The options of every command that runs rules: processing pipelines, and values for placeholders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
from sigma.processing.pipeline import ProcessingPipeline

from detections.compile import Placeholders
from detections.pipelines import load_pipelines, pipelines_fingerprint
from detections.placeholders import load_placeholders

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """What rules are compiled with.

    Attributes:
        placeholders: Values that `expand` needs, by name.
        pipeline: What each rule goes through first, or None.
        fingerprint: The same for the same pipeline; None where what it does is not known by its content.
    """

    placeholders: Placeholders
    pipeline: ProcessingPipeline | None
    fingerprint: str | None = None


def rule_paths_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--rules`; the command gets it as `rule_paths`."""
    return click.option(
        "--rules",
        "rule_paths",
        multiple=True,
        required=True,
        type=click.Path(path_type=Path),
        metavar="PATH...",
        help="Sigma rules: files, or folders with all below them.",
    )(command)


def rule_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--pipeline` and `--expand`; the command gets them as `pipelines` and `expand_paths`."""
    command = click.option(
        "--expand",
        "expand_paths",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="PATH...",
        help="Values for placeholders (%name%) in rules: files, or folders of them.",
    )(command)
    return click.option(
        "--pipeline",
        "pipelines",
        multiple=True,
        metavar="NAME|FILE...",
        help="Sigma processing pipelines that rules go through first: files, folders, or names of installed ones.",
    )(command)


def read_rule_options(pipelines: Sequence[str], expand_paths: Sequence[Path]) -> RuleOptions:
    """Load what the options, or the settings, name.

    Raises:
        RuleError: A pipeline or a file of placeholders cannot be used; one line says which and why.
    """
    before = pipelines_fingerprint(pipelines)
    options = RuleOptions(load_placeholders(expand_paths), load_pipelines(pipelines) if pipelines else None, before)
    if before != pipelines_fingerprint(pipelines):  # written while it was read
        return replace(options, fingerprint=None)
    return options

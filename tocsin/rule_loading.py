"""Rules as every command and process loads them: from the cache where that knows them, else from their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from detections.plan_load import KnownRules, LoadedRules, load_plan
from detections.rule import Rule
from detections.rule_cache import RuleCache, cache_name
from tocsin.rule_options import RuleOptions

CACHE_FOLDER: Final = "rules-cache"


def load_rule_plan(
    paths: Sequence[Path],
    options: RuleOptions,
    cache: RuleCache | None,
    *,
    before: LoadedRules | None = None,
    wanted: Callable[[Rule], bool] = lambda _: True,
) -> LoadedRules:
    """Load and compile rules.

    Args:
        paths: Files, and folders with all below them.
        options: What they are compiled with.
        cache: Read, and brought up to date; None: no cache.
        before: An earlier load of the same paths with the same options, if there is one: what it knows is not read
            from the cache again.
        wanted: Rules to compile.

    Raises:
        RulePathError: A path does not exist or cannot be listed.
    """
    # Pipelines that are not known by their content (installed ones) are code: what they gave is not used again
    name = None if options.fingerprint is None else cache_name(paths, options.placeholders, options.fingerprint)
    known = None if name is None or before is None else before.known
    if known is None and cache is not None and name is not None:
        known = cache.load(name)
    loaded = load_plan(paths, options.placeholders, options.pipeline, known=known or KnownRules(), wanted=wanted)
    if cache is not None and name is not None:
        cache.save(name, loaded.known)
    return loaded


def user_cache(environment: Mapping[str, str]) -> RuleCache | None:
    """The cache of commands that a person runs: `$TOCSIN_CACHE`, `$XDG_CACHE_HOME/tocsin` or `~/.cache/tocsin`."""
    named, shared = environment.get("TOCSIN_CACHE"), environment.get("XDG_CACHE_HOME", "")
    if named:
        return RuleCache(Path(named) / CACHE_FOLDER)
    if Path(shared).is_absolute():  # XDG Base Directory Specification: relative ones are ignored
        return RuleCache(Path(shared) / "tocsin" / CACHE_FOLDER)
    try:
        return RuleCache(Path.home() / ".cache" / "tocsin" / CACHE_FOLDER)
    except RuntimeError:  # a user without a home
        return None

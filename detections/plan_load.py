"""Rule files to a plan, doing again only what has changed.

What a file holds depends on its content alone, and what compiling a rule gives on the rule, its filters, the
placeholders and the pipeline. So a file is known by the SHA-256 of its content: one that is known is neither parsed nor
compiled. Only what stands between files (references, ids given twice, filters) is worked out at each load. What is
known comes from the load before in this process, or from the cache of an earlier one (`detections.rule_cache`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sigma.processing.pipeline import ProcessingPipeline
from sigma.rule import SigmaRule

from detections.atoms import Atom
from detections.compile import CompiledRule, Placeholders, compile_rule
from detections.expression_codec import CodecError, Plain
from detections.filters import FilterRule, readable
from detections.lazy_sigma import PipedSigma, content_digest, read_later
from detections.load import pack_of, read_data, readings_of, rule_files, uncollected
from detections.plan import Plan
from detections.reading_codec import KnownFile, decode_file
from detections.rule import Refusal, Rule, RuleChangedError, RulePack
from detections.rule_collection import Reading, RefusedDocument

_NO_FILTERS: Final = ""


@dataclass(slots=True)
class KnownRules:
    """Files that have been read and compiled with the same placeholders and pipeline.

    Attributes:
        files: SHA-256 of a file's content -> what it holds.
        encoded: The same, as plain lists that are decoded when they are wanted.
        atoms: The atoms of `encoded`.
        changed: Whether there is more than what was given at the beginning.
    """

    files: dict[str, KnownFile] = field(default_factory=dict)
    encoded: Mapping[str, Plain] = field(default_factory=dict)
    atoms: Sequence[Atom] = ()
    changed: bool = False

    def file(self, content: str, path: Path) -> KnownFile | None:
        """What a file of this content holds, as one at this path; None if that is not known."""
        if content in self.files:
            return self.files[content].at(path)
        if content not in self.encoded:
            return None
        try:
            return decode_file(content, path, self.encoded[content], self.atoms)
        except CodecError:
            return None


@dataclass(frozen=True, slots=True)
class LoadedRules:
    """What rule files hold, and the plan of the rules that were wanted.

    Attributes:
        known: What the next load need not do again.
    """

    pack: RulePack
    plan: Plan
    known: KnownRules


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a rule stands."""

    file: KnownFile
    place: int


def load_plan(
    paths: Sequence[Path],
    placeholders: Placeholders | None = None,
    pipeline: ProcessingPipeline | None = None,
    *,
    known: KnownRules | None = None,
    wanted: Callable[[Rule], bool] = lambda _: True,
) -> LoadedRules:
    """Load rules and compile those that are wanted; the result is that of `load_rules` and `Plan.build`.

    Args:
        paths: Files, and folders with all below them.
        placeholders: The values that `expand` needs.
        pipeline: Applied to each rule first.
        known: From a load with the same placeholders and pipeline; left as it is.
        wanted: Rules to compile; the plan has no others.

    Raises:
        RulePathError: A path does not exist or cannot be listed.
    """
    with uncollected():
        loading = _Loading(known or KnownRules(), placeholders, pipeline)
        pack = pack_of(loading.readings(rule_files(paths)))
        outcomes = [loading.outcome(rule) for rule in pack.rules if wanted(rule)]
        plan = Plan(
            [outcome for outcome in outcomes if isinstance(outcome, CompiledRule)],
            [outcome for outcome in outcomes if isinstance(outcome, Refusal)],
        )
        return LoadedRules(
            dataclasses.replace(pack, rules=tuple(map(loading.light, pack.rules))), plan, loading.result()
        )


class _Loading:
    """One load."""

    def __init__(
        self, before: KnownRules, placeholders: Placeholders | None, pipeline: ProcessingPipeline | None
    ) -> None:
        self._before = before
        self._placeholders = placeholders
        self._pipeline = pipeline
        self._files: dict[str, KnownFile] = {}
        self._origins: dict[str, _Origin] = {}
        self._filters = hashlib.sha256()
        self._outcomes: dict[tuple[str, int, str], CompiledRule | Refusal] = {}
        self._changed = False

    def readings(self, paths: Iterable[Path]) -> Iterator[Reading]:
        """What files hold, parsed where they are not known."""
        for path in paths:
            data = read_data(path)
            if isinstance(data, Refusal):
                yield RefusedDocument(data)
                continue
            content = content_digest(data)
            file = self._files[content].at(path) if content in self._files else self._before.file(content, path)
            if file is None:
                readings = tuple(readings_of(path, data))
                file = KnownFile(
                    content, path, tuple(_kept(reading, content, at) for at, reading in enumerate(readings))
                )
                self._changed = True
            else:
                # Outcomes with filters are kept while they are wanted; what was given stays as it is
                self._outcomes.update({(content, *key): outcome for key, outcome in file.outcomes.items()})
                lasting = {key: outcome for key, outcome in file.outcomes.items() if key[1] == _NO_FILTERS}
                file = dataclasses.replace(file, outcomes=lasting)
                readings = file.readings
            self._files.setdefault(content, file)
            yield from self._noted(readings, file)

    def _noted(self, readings: Iterable[Reading], file: KnownFile) -> Iterator[Reading]:
        for place, reading in enumerate(readings):
            if isinstance(reading, FilterRule):
                self._filters.update(f"{file.content}:{place}\n".encode())
            elif isinstance(reading, Rule):
                self._origins.setdefault(reading.id, _Origin(file, place))
            yield reading

    def outcome(self, rule: Rule) -> CompiledRule | Refusal:
        """A rule compiled, by what is known of it or anew."""
        origin = self._origins[rule.id]
        key = (origin.place, self._filtered(rule))
        known = self._outcomes.get((origin.file.content, *key))
        if known is None:
            try:
                known = compile_rule(rule, self._placeholders, self._pipeline)
            except RuleChangedError as error:  # between two looks at its file: the next load sees what it is now
                return rule.refuse(str(error))
            self._changed = True
            origin.file.outcomes[key] = self._lasting(known, origin)
        else:
            origin.file.outcomes[key] = known
        return known if isinstance(known, Refusal) else self._headed(known, rule)

    def _filtered(self, rule: Rule) -> str:
        """What stands for the filters of a rule: their content, and which of them are joined to it."""
        if not rule.filters:
            return _NO_FILTERS
        every = self._filters.hexdigest()
        return hashlib.sha256("\n".join([every, rule.digest, *rule.filters]).encode()).hexdigest()

    def _lasting(self, outcome: CompiledRule | Refusal, origin: _Origin) -> CompiledRule | Refusal:
        """An outcome to be kept: of the rule without filters, and without what pySigma made of it."""
        rule = origin.file.readings[origin.place]
        if isinstance(outcome, Refusal) or not isinstance(rule, Rule):
            return outcome
        return dataclasses.replace(outcome, rule=dataclasses.replace(rule, logsource=outcome.rule.logsource))

    def _headed(self, outcome: CompiledRule, rule: Rule) -> CompiledRule:
        """An outcome of this very rule."""
        rule = self.light(rule)
        if self._pipeline is not None:
            rule = dataclasses.replace(rule, logsource=outcome.rule.logsource, parsed=PipedSigma(rule, self._pipeline))
        if rule is outcome.rule:
            return outcome
        return CompiledRule(rule, outcome.expression, outcome.positive, outcome.slow, outcome.ungated)

    def light(self, rule: Rule) -> Rule:
        """A rule without what pySigma made of it."""
        if not isinstance(rule.parsed, SigmaRule):
            return rule
        origin = self._origins[rule.id]
        kept = origin.file.readings[origin.place]
        return kept if isinstance(kept, Rule) else rule

    def result(self) -> KnownRules:
        """What the next load need not do again: of the files that are there now."""
        return KnownRules(self._files, changed=self._changed)


def _kept(reading: Reading, content: str, place: int) -> Reading:
    if isinstance(reading, Rule) and isinstance(reading.parsed, SigmaRule):
        return read_later(reading, content, place, readable=readable(reading.parsed))
    return reading

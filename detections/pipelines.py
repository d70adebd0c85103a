"""Sigma processing pipelines: how somebody else's field names, log sources and conditions become ours.

A pipeline is a list of changes to a rule (rename fields, add a condition, change the log source, fill placeholders,
refuse), written in YAML for pySigma or installed with one of its packages. It is applied to a copy of each rule before
the rule is compiled: the rules of a pack are shared, and a pipeline changes what it is given. pySigma begins a
pipeline's state anew for each rule, so one object serves all rules, in one thread at a time.

What would need a query's text is refused when the pipeline is loaded: post-processing, finalizers, placeholders that
become query expressions. So is what runs commands or fetches from elsewhere.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from sigma.exceptions import SigmaError
from sigma.processing.pipeline import ProcessingPipeline
from sigma.processing.transformations import NestedProcessingTransformation, QueryExpressionPlaceholderTransformation
from sigma.processing.transformations.external import ExternalSourceBaseTransformation
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaRule
from sigma.types import SigmaString, SigmaType

from detections.documents import MAX_RULE_BYTES, DocumentError, read_documents
from detections.rule import Refusal, Rule, RuleError
from ingest.logsource import LogSource

BACKEND: Final = "polars"
"""The name under which a pipeline allows or forbids this backend."""

PIPELINE_SUFFIXES: Final = frozenset({".yml", ".yaml"})

_FAULTS: Final = (SigmaError, AttributeError, TypeError, ValueError, KeyError, IndexError, RecursionError)
"""What pySigma raises on a pipeline of the wrong shape, or on a rule that it cannot change as asked."""


class PipelineError(RuleError):
    """A processing pipeline that cannot be used: one line that says which and why."""


def load_pipelines(specs: Sequence[str | Path]) -> ProcessingPipeline:
    """Load pipelines and join them by priority, those of one priority in the order of their names.

    Args:
        specs: Files, folders (all `*.yml` and `*.yaml` below), or names of pipelines that are installed with pySigma.

    Raises:
        PipelineError: There is no such pipeline, or one that cannot be used here.
    """
    loaded: list[tuple[int, str, ProcessingPipeline]] = []
    for spec in specs:
        for name, pipeline in _resolved(spec):
            _refuse_foreign(name, pipeline)
            loaded.append((pipeline.priority, name, pipeline))
    joined = ProcessingPipeline()
    for _, _, pipeline in sorted(loaded, key=lambda item: item[:2]):
        joined = joined + pipeline
    return joined


def pipelines_fingerprint(specs: Sequence[str | Path]) -> str | None:
    """SHA-256 of the files of pipelines; None where one is not a file: installed ones are code, and may do anything."""
    digest = hashlib.sha256()
    for spec in specs:
        path = Path(spec)
        files = [path] if path.is_file() else _pipeline_files(path)
        if not files:
            return None
        for file in files:
            try:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError:
                return None
            digest.update(f"{file}\x00{content}\x00".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _pipeline_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in PIPELINE_SUFFIXES)


def _resolved(spec: str | Path) -> Iterator[tuple[str, ProcessingPipeline]]:
    """The pipelines that a name, a file or a folder stands for."""
    path = Path(spec)
    if path.is_dir():
        files = _pipeline_files(path)
        if not files:
            raise PipelineError(f"{path}: no pipeline in this folder (*.yml, *.yaml)")
        yield from ((str(file), _read(file)) for file in files)
    elif path.is_file():
        yield str(path), _read(path)
    else:
        known = _installed()
        if str(spec) not in known:
            names = ", ".join(sorted(known)) or "none"
            raise PipelineError(f"{spec}: no pipeline file, and none of this name is installed (installed: {names})")
        yield str(spec), known[str(spec)]()


@cache
def _installed() -> dict[str, Callable[[], ProcessingPipeline]]:
    """Name -> what makes the pipeline, of all that is installed with pySigma."""
    # Here, since it brings an HTTP client along: a second that only who names an installed pipeline should pay
    from sigma.plugins import InstalledSigmaPlugins  # noqa: PLC0415

    return InstalledSigmaPlugins.autodiscover(include_backends=False, include_validators=False).pipelines


def _read(path: Path) -> ProcessingPipeline:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_RULE_BYTES:
        raise PipelineError(f"{path}: {len(data)} bytes is too large for a pipeline (limit {MAX_RULE_BYTES})")
    try:
        documents = list(read_documents(data.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}:{data.count(10, 0, error.start) + 1}: not UTF-8: {error.reason}") from error
    except DocumentError as error:
        raise PipelineError(
            f"{path}:{error.line or 1}: {error.reason.replace('a rule is', 'a pipeline is')}"
        ) from error
    if len(documents) != 1:
        raise PipelineError(f"{path}: {len(documents)} YAML documents instead of one pipeline")
    content = documents[0].content
    try:
        return ProcessingPipeline.from_dict(content)
    except SigmaError as error:
        raise PipelineError(f"{path}: {error}") from error
    except _FAULTS as error:
        reason = f"a part of the pipeline has the wrong shape: {type(error).__name__}: {error}"
        raise PipelineError(f"{path}: {reason}") from error


def _refuse_foreign(name: str, pipeline: ProcessingPipeline) -> None:
    """Refuse what a pipeline would do to the text of a query, or outside of this process."""
    if pipeline.allowed_backends and BACKEND not in pipeline.allowed_backends:
        allowed = ", ".join(sorted(pipeline.allowed_backends))
        raise PipelineError(f"{name}: this pipeline is for other backends ({allowed})")
    if pipeline.postprocessing_items or pipeline.finalizers:
        raise PipelineError(f"{name}: postprocessing and finalizers change the text of a query, and here is none")
    for place, transformation in _transformations(pipeline, ()):
        if isinstance(transformation, QueryExpressionPlaceholderTransformation):
            raise PipelineError(f"{name}: transformation {place} makes query expressions, which nothing here runs")
        if isinstance(transformation, ExternalSourceBaseTransformation):
            raise PipelineError(
                f"{name}: transformation {place} takes placeholders from outside; give them as files instead"
            )


def _transformations(pipeline: ProcessingPipeline, above: tuple[int, ...]) -> Iterator[tuple[str, object]]:
    """Each transformation with its place, from 1, those within others too."""
    for number, item in enumerate(pipeline.items, 1):
        place = (*above, number)
        yield ".".join(map(str, place)), item.transformation
        if isinstance(item.transformation, NestedProcessingTransformation):
            yield from _transformations(item.transformation._nested_pipeline, place)  # noqa: SLF001 - no public name


def apply_pipeline(rule: Rule, pipeline: ProcessingPipeline) -> Rule | Refusal:
    """A rule as a pipeline makes it, its log source with it; the rule given stays as it is."""
    sigma = _copied(rule.sigma)
    try:
        pipeline.apply(sigma)
    except SigmaError as error:
        return rule.refuse(f"refused by the pipeline: {error}")
    except _FAULTS as error:
        return rule.refuse(f"the pipeline cannot be applied: {type(error).__name__}: {error}")
    source = sigma.logsource
    logsource = LogSource(source.product or None, source.category or None, source.service or None)
    return dataclasses.replace(rule, parsed=sigma, logsource=logsource)


def _copied(sigma: SigmaRule) -> SigmaRule:
    """A copy of a rule as deep as pipelines reach: detections, conditions, lists and maps of the head."""
    copied = copy.copy(sigma)
    # By hand, in a third of the time of copy.deepcopy
    copied.detection = copy.copy(sigma.detection)
    copied.detection.detections = {name: _copied_detection(part) for name, part in sigma.detection.detections.items()}
    copied.detection.parsed_condition = [copy.copy(condition) for condition in sigma.detection.parsed_condition]
    for condition in copied.detection.parsed_condition:
        condition.detections = copied.detection
        condition.applied_processing_items = set(condition.applied_processing_items)
    copied.fields = list(sigma.fields)
    copied.custom_attributes = dict(sigma.custom_attributes)
    copied.applied_processing_items = set(sigma.applied_processing_items)
    return copied


def _copied_detection(detection: SigmaDetection) -> SigmaDetection:
    copied = copy.copy(detection)
    copied.detection_items = [
        _copied_detection(item) if isinstance(item, SigmaDetection) else _copied_item(item)
        for item in detection.detection_items
    ]
    return copied


def _copied_item(item: SigmaDetectionItem) -> SigmaDetectionItem:
    copied = copy.copy(item)
    copied.applied_processing_items = set(item.applied_processing_items)
    copied.value = [_copied_value(value) for value in item.value]
    copied.original_value = None if item.original_value is None else list(item.original_value)
    return copied


def _copied_value(value: SigmaType) -> SigmaType:
    if not isinstance(value, SigmaString):
        return copy.deepcopy(value)
    copied = copy.copy(value)
    copied.s = list(value.s)
    return copied

"""Rules whose text is read again only when somebody asks for it: to run one, its compiled expression is enough."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from sigma.processing.pipeline import ProcessingPipeline
from sigma.rule import SigmaRule

from detections.load import read_data, readings_of
from detections.pipelines import apply_pipeline
from detections.rule import Refusal, Rule, RuleChangedError


@dataclass(slots=True)
class FileSigma:
    """A rule of a file, as pySigma parses it.

    Attributes:
        path: The file.
        content: SHA-256 of the file when the rule was loaded.
        place: Which of the file's rules, correlations and filters it is, from 0.
        readable: See `ParsedLater`.
    """

    path: Path
    content: str
    place: int
    readable: bool
    _sigma: SigmaRule | None = field(default=None, init=False)

    def __call__(self) -> SigmaRule:
        """See `Rule.sigma`."""
        if self._sigma is None:
            self._sigma = self._read()
        return self._sigma

    def _read(self) -> SigmaRule:
        data = read_data(self.path)
        if isinstance(data, Refusal):
            raise RuleChangedError(f"{data}, and was when its rules were loaded")
        if content_digest(data) != self.content:
            raise RuleChangedError(f"{self.path}: changed since its rules were loaded")
        rule = list(readings_of(self.path, data))[self.place]
        if not isinstance(rule, Rule):
            raise RuleChangedError(f"{self.path}: document {self.place + 1} is no rule")
        return rule.sigma


@dataclass(slots=True)
class PipedSigma:
    """A rule as a pipeline makes it."""

    rule: Rule
    pipeline: ProcessingPipeline
    readable: bool = True
    _sigma: SigmaRule | None = field(default=None, init=False)

    def __call__(self) -> SigmaRule:
        """See `Rule.sigma`."""
        if self._sigma is None:
            applied = apply_pipeline(self.rule, self.pipeline)
            if isinstance(applied, Refusal):
                raise RuleChangedError(str(applied))
            self._sigma = applied.sigma
        return self._sigma


def content_digest(data: bytes) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(data).hexdigest()


def read_later(rule: Rule, content: str, place: int, *, readable: bool) -> Rule:
    """The rule without what pySigma made of it, which is most of its memory."""
    return dataclasses.replace(rule, parsed=FileSigma(rule.path, content, place, readable))

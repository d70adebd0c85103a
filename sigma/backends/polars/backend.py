"""The pySigma backend `polars`: Sigma rules to Polars code, by the compiler that Tocsin itself runs.

pySigma's converter asks a backend to write out each node of its own syntax tree. Here the whole rule, as the processing
pipelines left it, goes through `detections.compile` instead, so that what sigma-cli prints is what the plan runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from sigma.conversion.base import TextQueryBackend
from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError, SigmaFeatureNotSupportedByBackendError
from sigma.rule import SigmaRule

from detections.amend import amend_rule
from detections.compile import CompileError, compile_detections
from detections.render import RenderError, needed_columns, quote, render

# pySigma's own type of this callback; its results are of no fixed type.
_Callback = Callable[[SigmaRule | SigmaCorrelationRule, str | None, int, Any, Any], Any]


class PolarsBackend(TextQueryBackend):
    """Polars expressions, one a rule."""

    identifier: ClassVar[str] = "polars"
    name: ClassVar[str] = "Polars expressions (Tocsin)"
    formats: ClassVar[dict[str, str]] = {
        "default": "An expression a rule, for pl.DataFrame.filter",
        "filter": "A statement a rule that filters df; a column which df lacks is null, as in Tocsin",
    }
    requires_pipeline: ClassVar[bool] = False

    def convert_rule(
        self, rule: SigmaRule, output_format: str | None = None, callback: _Callback | None = None
    ) -> list[str]:
        """Convert one rule; its conditions are joined by "or" into one query."""
        query: str | None
        try:
            query = self._query(rule, output_format)
        except SigmaError as error:
            if not self.collect_errors:
                raise
            self.errors.append((rule, error))
            return []
        if callback is not None:
            query = callback(rule, output_format, 0, rule.detection.parsed_condition[0], query)
        queries = [] if query is None else [self.last_processing_pipeline.postprocess_query(rule, query)]
        rule.set_conversion_result(queries)
        return queries if rule._output else []  # noqa: SLF001 - as pySigma: of a correlation's rules, unless it says so

    def _query(self, rule: SigmaRule, output_format: str | None) -> str:
        # `convert` has set it, a caller of convert_rule has not; pySigma annotates it without a value
        if not hasattr(self, "last_processing_pipeline"):
            self.init_processing_pipeline(output_format)
        amend_rule(rule)
        self.last_processing_pipeline.apply(rule)
        try:
            expression = compile_detections(rule, {})
            code = render(expression)
        except (CompileError, RenderError, RecursionError) as error:
            raise SigmaFeatureNotSupportedByBackendError(f"{rule.title}: {error}", source=rule.source) from error
        return _statement(code, needed_columns(expression)) if output_format == "filter" else code

    def finalize_output_filter(self, queries: list[str]) -> list[str]:
        """Statements as they are."""
        return list(queries)

    def convert_correlation_rule(
        self,
        rule: SigmaCorrelationRule,
        output_format: str | None = None,  # noqa: ARG002 - pySigma's signature
        method: str | None = None,  # noqa: ARG002
        callback: _Callback | None = None,  # noqa: ARG002
    ) -> list[str]:
        """Refuse: a correlation is not one expression over one frame."""
        error = SigmaFeatureNotSupportedByBackendError(f"{rule.title}: correlations have no Polars expression")
        if not self.collect_errors:
            raise error
        self.errors.append((rule, error))  # type: ignore[arg-type]  # pySigma does the same with correlations
        return []


def _statement(code: str, columns: list[str]) -> str:
    """The filter as a statement over `df`, which need not have every column that the rule names."""
    if not columns:
        return f"df.filter(\n    {code}\n)"
    names = ", ".join(quote(name) for name in columns)
    missing = f"pl.lit(None, pl.String).alias(name) for name in [{names}] if name not in df.columns"
    return f"df.with_columns({missing}).filter(\n    {code}\n)"

"""The backend `polars`: found by sigma-cli, and its code is that of the compiler which the plan runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from sigma.collection import SigmaCollection
from sigma.exceptions import SigmaFeatureNotSupportedByBackendError
from sigma.plugins import InstalledSigmaPlugins
from sigma.processing.pipeline import ProcessingPipeline

from sigma.backends.polars import PolarsBackend

RULE = r"""title: T
id: 00000000-0000-4000-8000-000000000001
logsource: {product: windows, category: process_creation}
detection:
  sel: {Image|endswith: '\mimikatz.exe'}
  condition: sel
"""
CODE = r'pl.col("Image").cast(pl.String).str.to_lowercase().str.ends_with("\\mimikatz.exe")'


def convert(text: str, output_format: str | None = None, pipeline: ProcessingPipeline | None = None) -> list[str]:
    converted = PolarsBackend(pipeline).convert(SigmaCollection.from_yaml(text), output_format)
    assert isinstance(converted, list)
    return converted


def test_sigma_cli_lists_and_converts(tmp_path: Path) -> None:
    code = "from sigma.cli.main import main; main()"
    listed = subprocess.run(
        [sys.executable, "-c", code, "list", "targets"], capture_output=True, text=True, check=True, timeout=50
    )
    assert "polars" in listed.stdout
    path = tmp_path / "rule.yml"
    path.write_text(RULE)
    converted = subprocess.run(
        [sys.executable, "-c", code, "convert", "-t", "polars", "--without-pipeline", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert converted.stdout.strip() == CODE


def test_pysigma_finds_the_backend() -> None:
    found = InstalledSigmaPlugins.autodiscover(include_pipelines=False, include_validators=False)
    assert found.backends["polars"] is PolarsBackend  # type: ignore[comparison-overlap]  # pySigma holds classes here


def test_default_is_an_expression() -> None:
    assert convert(RULE) == [CODE]
    frame = pl.DataFrame({"Image": [r"C:\MIMIKATZ.exe", r"C:\x.exe", None]})
    assert frame.filter(eval(CODE, {"pl": pl})).height == 1  # noqa: S307 - the code just converted


def test_filter_is_a_statement() -> None:
    missing = 'pl.lit(None, pl.String).alias(name) for name in ["Image"] if name not in df.columns'
    (code,) = convert(RULE, "filter")
    assert code == f"df.with_columns({missing}).filter(\n    {CODE}\n)"
    assert convert(RULE.replace(r"{Image|endswith: '\mimikatz.exe'}", "[mimikatz]"), "filter")[0].startswith(
        "df.filter("
    )


@pytest.mark.parametrize(
    ("detection", "expected"), [("{Image|endswith: x, Problem: null}", 1), ("{Image|endswith: x, Problem: y}", 0)]
)
def test_a_statement_takes_a_missing_column_as_null(detection: str, expected: int) -> None:
    (code,) = convert(RULE.replace(r"{Image|endswith: '\mimikatz.exe'}", detection), "filter")
    df = pl.DataFrame({"Image": ["x", "y"]})
    assert eval(code, {"pl": pl, "df": df}).height == expected  # noqa: S307 - the code just converted


def test_pipelines_apply() -> None:
    pipeline = ProcessingPipeline.from_yaml(
        "transformations:\n  - {type: field_name_mapping, mapping: {Image: process.executable}}\n"
    )
    assert convert(RULE, pipeline=pipeline) == [CODE.replace("Image", "process.executable")]


def test_placeholders_come_from_a_pipeline() -> None:
    pipeline = ProcessingPipeline.from_yaml(
        "vars: {x: [one, 'tw*']}\ntransformations:\n  - {type: value_placeholders}\n"
    )
    (code,) = convert(RULE.replace(r"Image|endswith: '\mimikatz.exe'", "Image|expand: '%x%'"), pipeline=pipeline)
    frame = pl.DataFrame({"Image": ["ONE", "two", "three"]})
    assert frame.filter(eval(code, {"pl": pl})).height == 2  # noqa: S307 - the code just converted


def test_postprocessing_of_a_pipeline_applies() -> None:
    pipeline = ProcessingPipeline.from_yaml("postprocessing:\n  - {type: embed, prefix: 'hunt = '}\n")
    assert convert(RULE, pipeline=pipeline) == [f"hunt = {CODE}"]


def test_parts_of_times_and_cased_references_have_a_form() -> None:
    text = RULE.replace(r"{Image|endswith: '\mimikatz.exe'}", "{At|hour|gte: 22, At|week: 9, A|cased|fieldref: B}")
    (code,) = convert(text, "filter")
    df = pl.DataFrame({"At": ["2026-03-01 22:15:30.123", "2026-03-01 21:15", "x"], "A": ["X"] * 3, "B": ["X"] * 3})
    assert eval(code, {"pl": pl, "df": df}).height == 1  # noqa: S307 - the code just converted
    df = df.with_columns(pl.col("At").str.to_datetime("%F %H:%M:%S%.f", strict=False), pl.lit("x").alias("B"))
    assert eval(code, {"pl": pl, "df": df}).height == 0  # noqa: S307


def test_base64_is_that_of_the_plan() -> None:
    text = RULE.replace(r"Image|endswith: '\mimikatz.exe'", "C|base64offset|contains: 'été'")
    (code,) = convert(text)
    assert '"w6l0w6"' in code  # the first of three offsets, in lower case


UNSUPPORTED = [
    (RULE.replace(r"Image|endswith: '\mimikatz.exe'", "Image|re: 'a(?!b)'"), "look-around"),
    (RULE.replace("condition: sel", "condition: other"), "names 'other'"),
    (RULE.replace(r"Image|endswith: '\mimikatz.exe'", "Image|expand: '%x%'"), "%x%"),
]


@pytest.mark.parametrize(("text", "reason"), UNSUPPORTED)
def test_what_has_no_form_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(SigmaFeatureNotSupportedByBackendError, match=reason):
        convert(text)


@pytest.mark.parametrize(("text", "reason"), UNSUPPORTED)
def test_errors_are_collected_if_asked_for(text: str, reason: str) -> None:
    backend = PolarsBackend(None, True)
    assert backend.convert(SigmaCollection.from_yaml(text)) == []
    assert reason in str(backend.errors[0][1])


def test_correlations_are_refused() -> None:
    text = RULE.replace("id:", "name: base\nid:") + (
        "---\ntitle: Many\ncorrelation:\n  type: event_count\n  rules: [base]\n  group-by: [User]\n"
        "  timespan: 5m\n  condition: {gte: 5}\n"
    )
    with pytest.raises(SigmaFeatureNotSupportedByBackendError, match="correlations"):
        convert(text)


def test_a_callback_may_replace_or_drop_a_query() -> None:
    collection = SigmaCollection.from_yaml(RULE)
    assert PolarsBackend().convert(collection, callback=lambda *_: "other") == ["other"]
    assert PolarsBackend().convert(collection, callback=lambda *_: None) == []

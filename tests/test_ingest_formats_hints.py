"""A hint may spare a regular expression, never a line: wherever a format recognises a line, its hint is true."""

from __future__ import annotations

import pytest

from fuzzing import hostile_lines
from ingest.formats.table import FORMATS
from ingest.parse import decode_lines, split_lines
from raw_lines import OF_EVERY_FORMAT, batch


@pytest.mark.parametrize("seed", range(3))
def test_what_is_recognised_is_hinted_at(seed: int) -> None:
    raw = batch([*OF_EVERY_FORMAT, *hostile_lines(seed, 4_000, OF_EVERY_FORMAT)])
    lines = split_lines(decode_lines(raw["line"], {}), raw["received"])
    for form in FORMATS:
        if form.hint is None:
            continue
        told = lines.select(
            form.recognise.fill_null(value=False).alias("recognised"), form.hint.fill_null(value=False).alias("hinted")
        )
        missed = lines.filter(told["recognised"] & ~told["hinted"])
        assert missed.is_empty(), f"{form.name}: {missed['payload'].to_list()[:3]}"


def test_every_format_is_among_the_seeds() -> None:
    raw = batch(OF_EVERY_FORMAT)
    lines = split_lines(decode_lines(raw["line"], {}), raw["received"])
    found = {form.name for form in FORMATS if form.recognised(lines).any()}
    assert {form.name for form in FORMATS} - found == set()

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.bus import TOPIC_RAW, Record
from ingest.envelope import DATASET, ENVELOPE, EVENT_ID, ORIGINAL, REMARK, EventFrame
from ingest.parse import parse
from ingest.rawbatch import RawLine, decode_record, encode_lines
from tocsin import containment
from tocsin.containment import contained

MOMENT = datetime(2026, 3, 9, tzinfo=UTC)


def raw(lines: list[bytes]) -> pl.DataFrame:
    value = encode_lines([RawLine(line, MOMENT, "kermor", "10.0.0.1") for line in lines])
    return decode_record(Record(TOPIC_RAW, 0, 7, "kermor/10.0.0.1", value))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_only_the_rows_at_fault_are_left_out(faults: list[bool]) -> None:
    rows = pl.DataFrame({"fault": faults}).with_row_index("row")

    def work(part: pl.DataFrame) -> list[int]:
        if part["fault"].any():
            raise ValueError("met a faulty row")
        return part["row"].to_list()

    left_out: list[int] = []

    def fail(row: pl.DataFrame, reason: str) -> list[int]:
        assert reason == "ValueError: met a faulty row"
        left_out.extend(row["row"].to_list())
        return []

    done = [row for part in contained(work, rows, fail) for row in part]
    assert done == [row for row, fault in enumerate(faults) if not fault]
    assert left_out == [row for row, fault in enumerate(faults) if fault]


def test_what_the_machine_does_is_not_contained() -> None:
    def work(_: pl.DataFrame) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        contained(work, pl.DataFrame({"a": [1, 2]}), lambda *_: None)


def test_a_line_that_makes_the_parser_fail_is_kept_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fragile(lines: pl.DataFrame, _readings: object) -> list[EventFrame]:
        if b"poison \xff" in lines["line"].to_list():
            raise pl.exceptions.PanicException("a defect")
        return parse(lines)

    monkeypatch.setattr(containment, "parse", fragile)
    frames = containment.parse_contained(raw([b"<13>one", b"poison \xff", b"<13>three"]))
    events = pl.concat([frame.events.select(list(ENVELOPE)) for frame in frames]).sort(EVENT_ID)
    assert events[EVENT_ID].to_list() == [f"tocsin.raw:0:7:{row}" for row in range(3)]
    kept = events.row(1, named=True)
    assert kept[DATASET] == "unknown"
    assert kept[REMARK] == "parsing failed: PanicException: a defect"
    assert kept[ORIGINAL] == "poison ÿ"
    assert dict(events.schema) == ENVELOPE

"""Parts of times: one definition in Polars, one in Python's own datetime, and the code for a notebook."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detections.times import TIME_PARTS, instant, time_code, time_part

VALUE = pl.col("value")


def parts_of(text: str | None, part: str) -> int | None:
    frame = pl.DataFrame({"value": pl.Series([text], dtype=pl.String)})
    by_expression, by_code = frame.select(
        time_part(VALUE, part).cast(pl.Int64).alias("expression"),
        eval(time_code('pl.col("value")', part)).cast(pl.Int64).alias("code"),  # noqa: S307 - the code just written
    ).row(0)
    assert by_expression == by_code
    number: int | None = by_expression
    return number


def python_part(time: datetime, part: str) -> int:
    return time.isocalendar().week if part == "week" else int(getattr(time, part))


zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001 - `timezones` adds one


@given(times, st.sampled_from("T "), st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds"]))
def test_iso_8601_is_read_as_python_reads_it(time: datetime, separator: str, precision: str) -> None:
    text = time.isoformat(separator, timespec=precision)
    for part in TIME_PARTS:
        assert parts_of(text, part) == python_part(time.astimezone(UTC), part), text
    local = time.replace(tzinfo=None)
    for form in (local.isoformat(separator, timespec=precision), f"{local.isoformat(separator, timespec=precision)}Z"):
        assert parts_of(form, "hour") == local.hour  # without a zone it is UTC


@given(st.integers(10**9, 10**10 - 1), st.sampled_from(["", ".5", "123", "123456", "123456789"]))
def test_epochs(seconds: int, rest: str) -> None:
    time = datetime.fromtimestamp(seconds, UTC)
    for part in TIME_PARTS:
        assert parts_of(f"{seconds}{rest}", part) == python_part(time, part)


@given(st.one_of(st.text(max_size=30), st.text("0123456789-T:Z+. ", max_size=30)))
def test_any_text_has_a_part_or_none(text: str) -> None:
    for part in ("hour", "week"):
        parts_of(text, part)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-03-01", 0),
        ("  2026-03-01T05:00Z\n", 5),
        ("2026-03-01t05:00z", 5),
        ("2026-03-01T05:00:00,5Z", 5),
        ("2026-03-01T05:00:60Z", 5),  # a leap second
        ("2026-03-01 05:00:00 +02:00", 3),
        ("2026-03-01T05:00+02", 3),
        ("2026-03-01T23:30-0130", 1),
        ("2026-03-01T24:00Z", None),
        ("2026-03-01T05:00+24:00", None),
        ("2026-03-01T05", None),
        ("2026-3-1 05:00", None),
        ("20260301T050000Z", None),
        ("01/03/2026 05:00", None),
        ("Mar  1 05:00:00", None),
        ("05:00", None),
        ("99999", None),
        ("12345678901", None),
        ("-1234567890", None),
        ("x 2026-03-01T05:00Z", None),
        ("2026-03-01T05:00Z x", None),
        ("２026-03-01T05:00Z", None),
        ("", None),
        (None, None),
    ],
)
def test_forms(text: str | None, hour: int | None) -> None:
    assert parts_of(text, "hour") == hour


def test_a_time_is_in_utc() -> None:
    (time,) = pl.select(instant(pl.lit("2026-03-01T05:07:09+02:00"))).row(0)
    assert time == datetime(2026, 3, 1, 3, 7)  # noqa: DTZ001 - to the minute, in UTC

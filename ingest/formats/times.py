"""Event times: text in the forms that loggers write, to UTC microseconds, over a whole column.

Traps: 13 digits are milliseconds, not seconds (read as seconds they are the year 55840); NXLog's EventTime has no zone;
.NET and Go write 7 and 9 digits of a second; Python and log4j write a comma before them (ISO 8601 allows it);
PowerShell's ConvertTo-Json writes /Date(ms)/.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from ingest.envelope import UTC_MICROSECONDS

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
"""Nothing that logs today wrote before; an unset FILETIME is 1601, an unset Unix time 1970."""
LATEST_AHEAD: Final = timedelta(days=2)
"""How far a clock may be ahead: a wrong time zone is 14 hours at most."""

_ZONED: Final = "%Y-%m-%dT%H:%M:%S%.f%#z"
_PLAIN: Final = "%Y-%m-%dT%H:%M:%S%.f"
_RARE: Final = ("%a %b %d %H:%M:%S %Y", "%Y/%m/%d %H:%M:%S%.f", "%Y/%m/%dT%H:%M:%S%.f")
_EPOCH_UNITS: Final = ((10, 1_000_000), (13, 1_000), (16, 1))
"""Digits of an epoch (from 2001 to 2286) -> microseconds in one unit; 19 digits are nanoseconds."""


_NO_ZONE: Final = r"^\d{4}-\d\d-\d\d[T ][0-9:.]+$"
"""Texts that name no zone. Looking is a fifth of the cost of reading them as if they did."""


def iso_times(texts: pl.Series, *, assume_utc: bool) -> pl.Series:
    """`iso_time` of a column, without what its texts show to be in vain."""
    no_zone = bool(texts.str.contains(_NO_ZONE).all())  # nulls have none
    if no_zone and not assume_utc:
        return pl.Series(texts.name, [None], dtype=UTC_MICROSECONDS).new_from_index(0, len(texts))
    frame = pl.DataFrame({"text": texts})
    if no_zone:
        return frame.select(_plain_time(_joined(pl.col("text")))).to_series()
    zoned = frame.select(iso_time(pl.col("text"), assume_utc=False)).to_series()
    if not assume_utc or zoned.null_count() == texts.null_count():
        return zoned
    return frame.select(iso_time(pl.col("text"), assume_utc=True)).to_series()


def iso_time(text: pl.Expr, *, assume_utc: bool) -> pl.Expr:
    """The times of ISO 8601 texts; null where there is none, or none with a zone unless `assume_utc`."""
    joined = _joined(text)
    zoned = joined.str.to_datetime(_ZONED, time_unit="us", strict=False).cast(UTC_MICROSECONDS)
    if not assume_utc:
        return zoned
    return pl.coalesce(zoned, _plain_time(joined))


def _joined(text: pl.Expr) -> pl.Expr:
    return text.str.replace(" ", "T", literal=True)


def _plain_time(joined: pl.Expr) -> pl.Expr:
    return joined.str.to_datetime(_PLAIN, time_unit="us", strict=False).dt.replace_time_zone("UTC")


def rare_time(text: pl.Expr) -> pl.Expr:
    """The times of texts in the forms that are not ISO 8601: epochs, asctime, slashes."""
    stripped = text.str.strip_chars().str.replace(r"(:\d\d),(\d{1,9})", "$1.$2")
    forms = [stripped.str.to_datetime(form, time_unit="us", strict=False).dt.replace_time_zone("UTC") for form in _RARE]
    return pl.coalesce(_epoch(stripped), *forms, iso_time(stripped, assume_utc=True))


def _epoch(text: pl.Expr) -> pl.Expr:
    digits = text.str.extract(r"^(?:/Date\()?(\d{10,19})(?:[.,]\d+)?(?:[+-]\d{4})?(?:\)/)?$")
    length = digits.str.len_bytes()
    number = digits.cast(pl.Int64, strict=False)
    by_length = [pl.when(length == count).then(number * unit) for count, unit in _EPOCH_UNITS]
    micros = pl.coalesce(*by_length, pl.when(length == 19).then(number // 1000))
    return micros.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
